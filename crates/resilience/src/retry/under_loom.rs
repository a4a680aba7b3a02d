//! The count of calls that the budget hears of, under every interleaving that loom finds.

use std::{num::NonZeroU32, time::Duration};

use loom::{sync::Arc, thread};
use quorate_foundations::time::Mono;

use super::{
    budget::{self, BudgetConfig},
    machine::{self, Config},
};
use crate::dice::Dice;

mod sync {
    pub(crate) use loom::sync::{
        Mutex,
        atomic::{AtomicU32, AtomicU64, Ordering},
    };

    pub(crate) const OWNED: usize = 1;
    pub(crate) const SHARED: usize = 1;

    /// Everybody is a guest: who owns a lane is tried where lanes are.
    pub(crate) fn lane() -> super::stripes::Lane {
        super::stripes::Lane::GUEST
    }
}

#[path = "../stripes.rs"]
#[expect(clippy::duplicate_mod, clippy::modulo_one, reason = "the same source, built on loom's atomics and few lanes")]
#[allow(dead_code, reason = "loom tries a part of it")]
mod stripes;

#[path = "front.rs"]
#[expect(clippy::duplicate_mod, reason = "the same source, built on loom's atomics")]
#[allow(dead_code, unreachable_pub, reason = "loom tries a part of it")]
mod front;

use front::Retries;

fn at(millis: u64) -> Mono {
    Mono::ZERO + Duration::from_millis(millis)
}

/// A retry for every two calls of a second.
fn half() -> BudgetConfig {
    BudgetConfig { percent: 50, interval: Duration::from_secs(1), floor_per_second: 0 }
}

/// With at most two switches between threads where there needn't be one: all of them take long.
fn explore(model: impl Fn() + Send + Sync + 'static) {
    let mut bounded = loom::model::Builder::new();
    bounded.preemption_bound = Some(2);
    bounded.check(model);
}

fn retries() -> Arc<Retries> {
    let config = Config { attempts: NonZeroU32::new(2).unwrap(), ..Config::default() };
    Arc::new(Retries::new(config, half(), Dice::seeded(1)))
}

#[test]
fn calls_that_meet_where_a_part_begins_are_all_counted_and_never_charged_twice() {
    explore(|| {
        let retries = retries();
        let callers: Vec<_> = [950, 1_000]
            .map(|now| {
                let retries = retries.clone();
                thread::spawn(move || retries.call(at(now)))
            })
            .into();
        let charged = retries.charge(at(1_000));
        callers.into_iter().for_each(|caller| caller.join().unwrap());
        // Two calls are one retry, and whoever asked before both were heard of got none.
        let counts = retries.counts(at(1_000));
        assert_eq!((counts.calls, counts.usage.calls), (2, 2));
        assert_eq!(counts.usage.retries, u64::from(charged));
        assert_eq!(counts.usage.left, 1 - u64::from(charged));
    });
}

#[test]
fn calls_that_are_made_while_the_interval_changes_are_of_the_old_one_or_the_new_one() {
    explore(|| {
        let retries = retries();
        retries.call(at(0));
        let caller = {
            let retries = retries.clone();
            thread::spawn(move || retries.call(at(100)))
        };
        let shorter = BudgetConfig { interval: Duration::from_millis(500), ..half() };
        retries.configure(Config::default(), shorter, at(100));
        caller.join().unwrap();
        // The first one is of the old interval and forgotten with it.
        assert!(retries.counts(at(100)).usage.calls <= 1);
        assert_eq!(retries.counts(at(100)).calls, 2);
    });
}

#[test]
fn whoever_looks_while_calls_are_counted_takes_none_of_them_back() {
    explore(|| {
        let retries = retries();
        let caller = {
            let retries = retries.clone();
            thread::spawn(move || {
                retries.call(at(0));
                _ = retries.charge(at(0));
            })
        };
        assert!(retries.counts(at(0)).usage.calls <= 1);
        caller.join().unwrap();
        assert_eq!(retries.counts(at(0)).usage.calls, 1);
    });
}
