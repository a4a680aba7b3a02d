//! The breaker's lock-free way under every interleaving that loom finds.

use std::{num::NonZeroU32, time::Duration};

use loom::{sync::Arc, thread};
use quorate_foundations::time::Mono;

use super::{
    config::{self, Config},
    machine::{self, Mode, State},
};
use crate::{
    dice::Dice,
    outcome::{Class, Outcome},
};

mod sync {
    pub(crate) use loom::sync::{
        Mutex,
        atomic::{AtomicU32, AtomicU64, Ordering},
    };

    pub(crate) const OWNED: usize = 1;
    pub(crate) const SHARED: usize = 2;

    /// Everybody is a guest: who owns a lane is tried where lanes are.
    pub(crate) fn lane() -> super::stripes::Lane {
        super::stripes::Lane::GUEST
    }
}

#[path = "../stripes.rs"]
#[expect(clippy::duplicate_mod, reason = "the same source, built on loom's atomics")]
#[allow(dead_code, reason = "loom tries a part of it")]
mod stripes;

#[path = "front.rs"]
#[expect(clippy::duplicate_mod, reason = "the same source, built on loom's atomics")]
#[allow(dead_code, unreachable_pub, reason = "loom tries a part of it")]
mod front;

use front::Breaker;

fn at(millis: u64) -> Mono {
    Mono::ZERO + Duration::from_millis(millis)
}

/// Opens at the first failure, for a second.
fn fragile() -> Breaker {
    let config = Config {
        consecutive: Some(NonZeroU32::MIN),
        open: config::Open { min: Duration::from_secs(1), max: Duration::from_secs(1), jitter: 0.0 },
        window: config::Window::Calls(NonZeroU32::new(100).unwrap()),
        ..Config::default()
    };
    Breaker::new(config, Dice::seeded(1), Mono::ZERO).unwrap()
}

fn explore(model: impl Fn() + Send + Sync + 'static) {
    loom::model(model);
}

const FAULT: Outcome = Outcome::Upstream(Class::Fault);
const SUCCESS: Outcome = Outcome::Upstream(Class::Success);

#[test]
fn of_two_callers_at_the_instant_of_half_open_one_passes() {
    explore(|| {
        let breaker = Arc::new(fragile());
        breaker.permit(at(0)).unwrap().settle(at(1), FAULT, None);
        let other = breaker.clone();
        let other = thread::spawn(move || other.permit(at(2_000)).map(std::mem::forget).is_ok());
        let mine = breaker.permit(at(2_000)).map(std::mem::forget).is_ok();
        assert!(mine ^ other.join().unwrap(), "exactly one probes");
    });
}

#[test]
fn a_dropped_probe_leaves_its_place_to_the_next_caller_however_they_meet() {
    explore(|| {
        let breaker = Arc::new(fragile());
        breaker.permit(at(0)).unwrap().settle(at(1), FAULT, None);
        let other = breaker.clone();
        let other = thread::spawn(move || drop(other.permit(at(2_000))));
        drop(breaker.permit(at(2_000)));
        other.join().unwrap();
        assert!(breaker.permit(at(2_001)).is_ok(), "nobody is left in the only place");
    });
}

#[test]
fn a_success_that_meets_a_trip_neither_closes_the_circuit_nor_is_lost_to_the_next_caller() {
    explore(|| {
        let breaker = Arc::new(fragile());
        let (good, bad) = (breaker.acquire(at(0)).unwrap(), breaker.acquire(at(0)).unwrap());
        let other = breaker.clone();
        let other = thread::spawn(move || other.settle(at(1), bad, (FAULT, Duration::ZERO), None));
        breaker.settle(at(1), good, (SUCCESS, Duration::ZERO), None);
        other.join().unwrap();
        assert_eq!(breaker.snapshot(at(2)).state, State::Open);
        let refused = breaker.permit(at(2)).err().unwrap();
        assert_eq!(refused.remaining, Some(Duration::from_millis(999)), "whoever sees the gate shut sees until when");
    });
}

#[test]
fn whoever_asks_while_the_circuit_opens_is_admitted_before_or_refused_after() {
    explore(|| {
        let breaker = Arc::new(fragile());
        let bad = breaker.acquire(at(0)).unwrap();
        let asker = breaker.clone();
        let asker = thread::spawn(move || match asker.acquire(at(1)) {
            // Admitted in the old generation: what becomes of it says nothing about the new one.
            Ok(ticket) => assert_eq!(ticket, bad),
            Err(refused) => assert_eq!(refused.remaining, Some(Duration::from_secs(1))),
        });
        breaker.settle(at(1), bad, (FAULT, Duration::ZERO), None);
        asker.join().unwrap();
        let snapshot = breaker.snapshot(at(1));
        assert_eq!((snapshot.state, snapshot.generation), (State::Open, 2), "opened once");
    });
}

#[test]
fn of_two_operators_at_once_callers_obey_the_one_whose_word_stands() {
    explore(|| {
        let breaker = Arc::new(fragile());
        let other = breaker.clone();
        let other = thread::spawn(move || other.operate(Mode::Disabled, at(1)));
        breaker.operate(Mode::ForcedOpen, at(1));
        other.join().unwrap();
        // Asked before the snapshot, which would set right what callers see.
        let passes = breaker.acquire(at(2)).is_ok();
        assert_eq!(passes, breaker.snapshot(at(2)).mode == Mode::Disabled);
    });
}

#[test]
fn a_success_of_an_earlier_generation_is_not_counted_in_this_one() {
    explore(|| {
        let breaker = Arc::new(fragile());
        let late = breaker.acquire(at(0)).unwrap();
        breaker.permit(at(0)).unwrap().settle(at(1), FAULT, None);
        breaker.reset(at(2));
        let other = breaker.clone();
        let other = thread::spawn(move || other.settle(at(3), late, (SUCCESS, Duration::ZERO), None));
        breaker.permit(at(3)).unwrap().settle(at(3), SUCCESS, None);
        other.join().unwrap();
        assert_eq!(breaker.snapshot(at(4)).counts.calls, 1);
    });
}
