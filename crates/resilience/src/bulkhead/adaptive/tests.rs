//! A limit beside upstreams that take so many at once, become slower, and make noise.

use std::num::NonZeroU32;

use proptest::prelude::*;

use super::*;
use crate::dice::Dice;

fn config(min: u32, initial: u32, max: u32) -> Adaptive {
    let [min, initial, max] = [min, initial, max].map(|number| NonZeroU32::new(number).unwrap());
    Adaptive { min, initial, max, ..Adaptive::default() }
}

/// An upstream that does `takes` calls at once in `millis` each; more wait for each other.
struct Upstream {
    takes: f64,
    millis: f64,
    /// Up to this part longer or shorter.
    noise: f64,
    dice: Dice,
}

impl Upstream {
    fn of(takes: f64, millis: f64) -> Self {
        Self { takes, millis, noise: 0.0, dice: Dice::seeded(7) }
    }

    /// What is seen in a window while `wanted` calls at once would like to be made.
    fn window(&mut self, limiter: &Limiter, wanted: f64) -> Seen {
        let concurrency = wanted.min(f64::from(limiter.limit()));
        let odd = 1.0 + self.noise * (2.0 * self.dice.unit() - 1.0);
        let millis = self.millis * (concurrency / self.takes).max(1.0) * odd;
        let calls = (concurrency * 100.0 / millis).max(10.0) as u64;
        Seen { calls, mean: Duration::from_secs_f64(millis / 1_000.0), concurrency, overloads: 0 }
    }

    /// The limits of `windows` windows.
    fn run(&mut self, limiter: &mut Limiter, wanted: f64, windows: usize) -> Vec<u32> {
        (0..windows)
            .map(|_| {
                let seen = self.window(limiter, wanted);
                limiter.watch(seen)
            })
            .collect()
    }
}

#[test]
fn a_limit_finds_what_the_upstream_takes_from_below_and_from_above() {
    for initial in [4, 20, 500] {
        let mut limiter = Limiter::new(config(4, initial, 1_000));
        // A while of little traffic first, as there always is.
        Upstream::of(40.0, 10.0).run(&mut limiter, 2.0, 20);
        let limits = Upstream::of(40.0, 10.0).run(&mut limiter, 10_000.0, 400);
        let late = &limits[200..];
        assert!(late.iter().all(|limit| (36..=90).contains(limit)), "from {initial}: {late:?}");
    }
}

#[test]
fn overload_that_lasts_does_not_teach_that_slow_is_usual() {
    let mut limiter = Limiter::new(config(4, 20, 1_000));
    let mut upstream = Upstream::of(40.0, 10.0);
    upstream.run(&mut limiter, 2.0, 20);
    let limits = upstream.run(&mut limiter, 10_000.0, 100_000);
    assert!(limits[99_000..].iter().all(|limit| *limit <= 90), "{:?}", limits.last());
}

#[test]
fn an_upstream_that_becomes_slower_for_good_is_believed_and_never_pins_the_limit() {
    let mut limiter = Limiter::new(config(1, 20, 200));
    // Learnt while there was next to nothing to do.
    Upstream::of(1_000.0, 10.0).run(&mut limiter, 0.5, 20);
    let limits = Upstream::of(1_000.0, 50.0).run(&mut limiter, 100.0, 500);
    assert!(limits.iter().min() < Some(&5), "first it is taken for a queue: {limits:?}");
    assert!(limits[400..].iter().all(|limit| *limit >= 100), "{:?}", limits.last());
}

#[test]
fn noise_of_a_quarter_costs_an_upstream_that_is_well_nothing() {
    let mut limiter = Limiter::new(config(4, 20, 200));
    let mut upstream = Upstream { noise: 0.25, ..Upstream::of(1_000.0, 10.0) };
    upstream.run(&mut limiter, 100.0, 100);
    let limits = upstream.run(&mut limiter, 100.0, 5_000);
    let pressed = limits.iter().filter(|limit| **limit < 100).count();
    assert!(pressed < 50, "{pressed} of 5000 windows held calls back");
}

#[test]
fn a_limit_that_is_not_used_does_not_rise() {
    let mut limiter = Limiter::new(config(4, 20, 1_000));
    let limits = Upstream::of(1_000.0, 10.0).run(&mut limiter, 5.0, 1_000);
    assert!(limits.iter().all(|limit| *limit == 20));
}

#[test]
fn overload_that_is_said_lowers_the_limit_by_as_much_as_failed() {
    let mut limiter = Limiter::new(config(4, 100, 1_000));
    let seen = |calls, overloads| Seen { calls, mean: Duration::from_millis(10), concurrency: 90.0, overloads };
    assert_eq!(limiter.watch(seen(90, 10)), 90);
    assert_eq!(limiter.watch(seen(0, 1_000)), 45, "at most by half");
    assert_eq!(limiter.watch(seen(5, 4)), 45, "too few say nothing");
    for _ in 0..100 {
        limiter.watch(seen(0, 1_000));
    }
    assert_eq!(limiter.limit(), 4);
}

proptest! {
    #[test]
    fn whatever_is_seen_the_limit_stays_within_its_bounds(
        (min, initial, max) in (1_u32..50).prop_flat_map(|min| (Just(min), min..500)).prop_flat_map(|(min, initial)| {
            (Just(min), Just(initial), initial..5_000)
        }),
        windows in proptest::collection::vec(
            (any::<u32>(), any::<u64>(), proptest::num::f64::ANY, prop_oneof![Just(0_u32), any::<u32>()]),
            1..100,
        ),
    ) {
        let mut limiter = Limiter::new(config(min, initial, max));
        for (calls, nanos, concurrency, overloads) in windows {
            let (calls, overloads) = (calls.into(), overloads.into());
            let limit = limiter.watch(Seen { calls, mean: Duration::from_nanos(nanos), concurrency, overloads });
            prop_assert!((min..=max).contains(&limit), "{limit}");
        }
    }
}
