//! The buckets under every interleaving that loom finds.

use std::time::Duration;

use loom::{sync::Arc, thread};
use quorate_foundations::time::Mono;

mod sync {
    pub(crate) use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering};

    /// Few, so that loom gets through them.
    pub(crate) const BUCKETS: usize = 2;
}

#[path = "latency.rs"]
#[expect(clippy::duplicate_mod, reason = "the same source, built on loom's atomics")]
#[allow(dead_code, unreachable_pub, reason = "loom tries a part of it")]
mod latency;

use latency::Latency;

/// Milliseconds of a window of two seconds.
fn at(millis: u64) -> Mono {
    Mono::ZERO + Duration::from_millis(millis)
}

const SPAN: Duration = Duration::from_millis(1);

fn told(latency: &Latency, times: u32, now: u64) {
    (0..times).for_each(|_| latency.record(at(now), SPAN));
}

#[test]
fn two_that_tell_at_once_are_both_counted() {
    loom::model(|| {
        let latency = Arc::new(Latency::new(Duration::from_secs(2)));
        told(&latency, 18, 0);
        let other = latency.clone();
        let other = thread::spawn(move || other.record(at(0), SPAN));
        latency.record(at(0), SPAN);
        other.join().unwrap();
        assert!(latency.quantile(at(0), 0.5).is_some(), "twenty were told");
    });
}

#[test]
fn two_that_meet_where_a_half_begins_leave_nothing_of_the_half_before_last() {
    loom::model(|| {
        let latency = Arc::new(Latency::new(Duration::from_secs(2)));
        told(&latency, 20, 0);
        let other = latency.clone();
        let other = thread::spawn(move || other.record(at(2_000), SPAN));
        latency.record(at(2_000), SPAN);
        other.join().unwrap();
        assert!(latency.quantile(at(2_000), 0.5).is_none(), "twenty were told too long ago, and two now");
    });
}

#[test]
fn of_nothing_nobody_is_told_a_median() {
    loom::model(|| {
        let latency = Arc::new(Latency::new(Duration::from_secs(2)));
        let other = latency.clone();
        let other = thread::spawn(move || other.median(at(1)));
        assert_eq!(latency.median(at(1)), None);
        assert_eq!(other.join().unwrap(), None);
    });
}
