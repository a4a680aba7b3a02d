//! The rule of a rate at its edges, and for any sequence of takers.

use proptest::prelude::*;

use super::*;
use crate::rate_limit::{Keyed, Limiter, network};

fn n(number: u32) -> NonZeroU32 {
    NonZeroU32::new(number).unwrap()
}

fn at(millis: u64) -> Mono {
    Mono::ZERO + Duration::from_millis(millis)
}

/// Ten a second, `burst` at once.
fn ten_a_second(burst: u32) -> Rate {
    Rate::new(n(10), Duration::from_secs(1)).with_burst(n(burst))
}

#[test]
fn a_burst_passes_at_once_and_then_one_at_a_time() {
    let limiter = Limiter::new(ten_a_second(3)).unwrap();
    let taken: Vec<bool> = (0..5).map(|_| limiter.take(at(0), 1).is_ok()).collect();
    assert_eq!(taken, [true, true, true, false, false]);
    assert!(limiter.take(at(99), 1).is_err());
    assert!(limiter.take(at(100), 1).is_ok());
    assert!(limiter.take(at(100), 1).is_err());
}

#[test]
fn no_border_of_a_window_lets_twice_the_rate_pass() {
    let limiter = Limiter::new(ten_a_second(10)).unwrap();
    let taken = |from: u64| (0..100).filter(|i| limiter.take(at(from + i), 1).is_ok()).count();
    assert_eq!(taken(950) + taken(1_050), 10 + 1, "ten at once, and one that came in a tenth of a second");
}

#[test]
fn a_refusal_says_exactly_how_long_and_takes_nothing() {
    let limiter = Limiter::new(ten_a_second(5)).unwrap();
    limiter.take(at(0), 4).unwrap();
    let refused = limiter.take(at(0), 3).unwrap_err();
    assert_eq!(refused.wait, Some(Duration::from_millis(200)));
    assert_eq!(refused.standing, Standing { burst: 5, remaining: 1, reset: Duration::from_millis(400) });
    assert!(limiter.take(at(199), 3).is_err());
    assert_eq!(limiter.take(at(200), 3).unwrap().standing().remaining, 0);
}

#[test]
fn what_costs_more_than_a_burst_is_refused_for_good_and_nothing_costs_nothing() {
    let limiter = Limiter::new(ten_a_second(5)).unwrap();
    let refused = limiter.take(at(0), 6).unwrap_err();
    assert_eq!((refused.wait, refused.retry_after(&mut Dice::seeded(1))), (None, None));
    limiter.take(at(0), 5).unwrap();
    assert!(limiter.take(at(0), 0).is_ok());
    assert!(limiter.take(at(0), u32::MAX).is_err());
}

#[test]
fn those_refused_together_are_sent_back_at_different_seconds_and_none_too_early() {
    let limiter = Limiter::new(Rate::new(n(100), Duration::from_secs(60))).unwrap();
    limiter.take(at(0), 100).unwrap();
    let refused = limiter.take(at(0), 10).unwrap_err();
    let mut dice = Dice::seeded(7);
    let told: Vec<u64> = (0..1_000).map(|_| refused.retry_after(&mut dice).unwrap().as_secs()).collect();
    assert!(told.iter().all(|seconds| (6..=36).contains(seconds)));
    let together = (6..=36).map(|second| told.iter().filter(|told| **told == second).count()).max();
    assert!(together < Some(100), "{together:?} of a thousand in one second");
}

#[test]
fn a_rate_that_changes_keeps_the_part_that_was_taken() {
    let limiter = Limiter::new(ten_a_second(10)).unwrap();
    limiter.take(at(0), 5).unwrap();
    limiter.configure(Rate::new(n(100), Duration::from_secs(1)), at(0)).unwrap();
    assert_eq!(limiter.standing(at(0)).remaining, 50);
    assert!(limiter.configure(Rate::new(n(u32::MAX), Duration::from_secs(1)), at(0)).is_err());
    assert_eq!(limiter.standing(at(0)).remaining, 50, "a rate that can't be changes nothing");
}

#[test]
fn a_rate_that_cannot_be_names_what_is_wrong() {
    let too_fast = Rate::new(n(20_000_000), Duration::from_secs(1)).check().unwrap_err();
    assert!(too_fast.to_string().contains("`quota` is 20000000 in 1s"), "{too_fast}");
    let too_slow = Rate::new(n(1), Duration::from_secs(3_600)).with_burst(n(10_000)).check().unwrap_err();
    assert!(too_slow.to_string().contains("`burst` of 10000"), "{too_slow}");
    assert!(Rate::new(n(1), Duration::ZERO).check().is_err());
    assert!(Rate::new(n(1), Duration::MAX).check().is_err());
}

#[test]
fn a_flood_of_keys_neither_grows_memory_nor_buys_units_nor_takes_those_of_others() {
    let limits = Keyed::new(ten_a_second(10), 64.try_into().unwrap(), 7).unwrap();
    limits.take(at(0), &u64::MAX, 5).unwrap();
    let taken = (0..10_000_u64).filter(|key| limits.take(at(0), key, 10).is_ok()).count();
    assert!(limits.known() <= 64);
    // One bucket for each that fits, and one for all others.
    assert_eq!(taken, limits.known() - 1 + 1);
    assert!(limits.shared() >= 9_000);
    assert!(limits.take(at(0), &u64::MAX, 5).is_ok(), "who was known keeps what is theirs");
    assert!(limits.take(at(0), &u64::MAX, 1).is_err());
    // A full bucket is no memory: as many others fit once they are full again.
    let later = (20_000..20_064_u64).filter(|key| limits.take(at(1_001), key, 10).is_ok()).count();
    assert!(later > 32, "{later}");
    assert!(limits.known() <= 64);
}

#[test]
fn a_customer_with_a_network_of_addresses_is_one_client() {
    let parse = |text: &str| network(text.parse().unwrap());
    assert_eq!(parse("2001:db8:1:2:3::4"), parse("2001:db8:1:2:ffff::1"));
    assert_ne!(parse("2001:db8:1:2::1"), parse("2001:db8:1:3::1"));
    assert_eq!(parse("::ffff:192.0.2.7"), parse("192.0.2.7"));
}

#[test]
fn threads_that_share_a_limiter_get_together_what_it_allows() {
    let limiter = Limiter::new(ten_a_second(1_000)).unwrap();
    let given = std::thread::scope(|scope| {
        let take = || (0..1_000).filter(|_| limiter.take(at(0), 1).is_ok()).count();
        let running: Vec<_> = (0..4).map(|_| scope.spawn(take)).collect();
        running.into_iter().map(|thread| thread.join().unwrap()).sum::<usize>()
    });
    assert_eq!(given, 1_000);
}

/// A bucket counted with exact fractions, one taker after the other.
struct Bucket {
    /// Units, times the nanoseconds between two.
    level: u128,
    full: u128,
    apart: u128,
    at: u64,
}

impl Bucket {
    fn take(&mut self, now: u64, cost: u32) -> bool {
        self.level = (self.level + u128::from(now - self.at)).min(self.full);
        self.at = now;
        let price = self.apart * u128::from(cost);
        let given = price <= self.level;
        self.level -= if given { price } else { 0 };
        given
    }
}

proptest! {
    #[test]
    fn any_sequence_of_takers_is_judged_as_a_bucket_of_tokens_would(
        quota in 1_u32..1_000,
        window in 1_u64..100_000,
        burst in 1_u32..50,
        takers in proptest::collection::vec((0_u64..500, 0_u32..60), 1..200),
    ) {
        let rate = Rate::new(n(quota), Duration::from_millis(window)).with_burst(n(burst));
        prop_assume!(rate.check().is_ok());
        let (limiter, rule) = (Limiter::new(rate).unwrap(), Gcra::new(rate).unwrap());
        let full = u128::from(rule.tolerance);
        let mut bucket = Bucket { level: full, full, apart: u128::from(rule.apart), at: 0 };
        let mut now = 0;
        for (gap, cost) in takers {
            now += gap * 1_000_003;
            let moment = Mono::from_nanos(now);
            let before = limiter.standing(moment);
            match limiter.take(moment, cost) {
                Ok(taken) => {
                    prop_assert!(bucket.take(now, cost));
                    prop_assert_eq!(taken.standing(), limiter.standing(moment));
                    prop_assert_eq!(before.remaining - taken.standing().remaining, cost);
                }
                Err(refused) => {
                    prop_assert!(!bucket.take(now, cost));
                    prop_assert_eq!(limiter.standing(moment), before, "a refusal takes nothing");
                    if let Some(wait) = refused.wait {
                        let then = moment + wait;
                        prop_assert!(rule.take(limiter_due(&limiter, moment), then, cost).is_ok());
                        let early = Mono::from_nanos(then.as_nanos() - 1);
                        prop_assert!(rule.take(limiter_due(&limiter, moment), early, cost).is_err());
                    }
                }
            }
        }
    }

    #[test]
    fn callers_whose_clocks_are_read_out_of_order_never_get_more_than_the_rate(
        times in proptest::collection::vec(0_u64..3_000, 1..300),
    ) {
        let limiter = Limiter::new(ten_a_second(10)).unwrap();
        let given = times.iter().filter(|time| limiter.take(at(**time), 1).is_ok()).count() as u64;
        let last = times.iter().max().copied().unwrap_or_default();
        prop_assert!(given <= 10 + last / 100, "{given} by {last} ms");
    }
}

fn limiter_due(limiter: &Limiter, now: Mono) -> u64 {
    now.as_nanos() + u64::try_from(limiter.standing(now).reset.as_nanos()).unwrap()
}
