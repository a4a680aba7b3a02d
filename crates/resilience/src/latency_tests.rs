//! Percentiles beside the exact ones, and on real threads.

use std::time::Duration;

use proptest::prelude::*;
use quorate_foundations::time::Mono;

use crate::latency::Latency;

fn at(millis: u64) -> Mono {
    Mono::ZERO + Duration::from_millis(millis)
}

#[test]
fn below_twenty_calls_nothing_is_said() {
    let latency = Latency::new(Duration::from_secs(10));
    (0..19).for_each(|_| latency.record(at(0), Duration::from_millis(5)));
    assert_eq!(latency.median(at(0)), None);
    latency.record(at(0), Duration::from_millis(5));
    assert!(latency.quantile(at(0), 0.5).is_some());
}

#[test]
fn a_slow_past_is_forgotten_so_that_nobody_is_locked_out_by_it_for_good() {
    let latency = Latency::new(Duration::from_secs(10));
    (0..100).for_each(|_| latency.record(at(0), Duration::from_secs(3)));
    assert!(latency.median(at(0)) > Some(Duration::from_secs(2)));
    assert!(latency.median(at(9_000)).is_some());
    assert_eq!(latency.median(at(15_000)), None);
}

#[test]
fn recent_calls_outweigh_those_that_are_falling_out() {
    let latency = Latency::new(Duration::from_secs(10));
    (0..100).for_each(|_| latency.record(at(0), Duration::from_secs(1)));
    (0..300).for_each(|_| latency.record(at(5_000), Duration::from_millis(10)));
    assert!(latency.median(at(5_000)) < Some(Duration::from_millis(11)));
    assert!(latency.quantile(at(5_000), 0.9) > Some(Duration::from_millis(900)));
    assert!(latency.quantile(at(10_000), 0.9) < Some(Duration::from_millis(11)), "the first half is over");
}

#[test]
fn threads_that_tell_at_once_lose_nothing_within_a_half() {
    let latency = Latency::new(Duration::from_secs(10));
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let latency = &latency;
            scope.spawn(move || (0..500).for_each(|i| latency.record(at(i), Duration::from_millis(1 << thread))));
        }
    });
    for (thread, q) in [(0, 0.25), (1, 0.5), (2, 0.75), (3, 1.0)] {
        let (exact, found) = (f64::from(1 << thread), latency.quantile(at(500), q).unwrap().as_secs_f64() * 1_000.0);
        assert!((found / exact - 1.0).abs() < 0.07, "{found} for {exact}");
    }
}

proptest! {
    #[test]
    fn a_percentile_is_at_most_a_sixteenth_off(
        mut nanos in proptest::collection::vec(1_024_u64..3_600_000_000_000, 20..200),
        q in 0.0_f64..1.0,
    ) {
        let latency = Latency::default();
        nanos.iter().for_each(|nanos| latency.record(Mono::ZERO, Duration::from_nanos(*nanos)));
        nanos.sort_unstable();
        let wanted = ((nanos.len() as f64 * q).ceil() as usize).max(1);
        let exact = nanos[wanted - 1] as f64;
        let found = latency.quantile(Mono::ZERO, q).unwrap().as_nanos() as f64;
        prop_assert!((found / exact - 1.0).abs() <= 0.0626, "{found} for {exact}");
    }

    #[test]
    fn any_time_and_any_span_are_taken(moments in proptest::collection::vec((any::<u64>(), any::<u64>()), 1..50)) {
        let latency = Latency::new(Duration::ZERO);
        for (now, took) in moments {
            latency.record(Mono::from_nanos(now), Duration::from_nanos(took));
            latency.median(Mono::from_nanos(now));
        }
    }
}
