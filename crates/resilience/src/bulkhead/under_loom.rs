//! The bulkhead's lock-free way under every interleaving that loom finds.

use std::{num::NonZeroU32, task::Waker, time::Duration};

use loom::{sync::Arc, thread};
use quorate_foundations::time::Mono;

use super::{
    adaptive,
    config::{self, Ask, Config, Limit, Queue},
    machine,
};

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

use front::{Answer, Bulkhead, Permit};

const NOW: Mono = Mono::ZERO;

fn bulkhead(limit: u32, length: u32) -> Arc<Bulkhead> {
    let config = Config {
        limit: Limit::Fixed(NonZeroU32::new(limit).unwrap()),
        queue: Queue { length, max_wait: Duration::from_secs(1) },
        ..Config::default()
    };
    Arc::new(Bulkhead::new(config, NOW).unwrap())
}

/// With at most so many switches between threads where there needn't be one: all of them take minutes.
fn explore(preemptions: usize, model: impl Fn() + Send + Sync + 'static) {
    let mut bounded = loom::model::Builder::new();
    bounded.preemption_bound = Some(preemptions);
    bounded.check(model);
}

fn enters(bulkhead: &Bulkhead) -> bool {
    Bulkhead::try_enter(bulkhead, NOW, &Ask::default()).map(std::mem::forget).is_ok()
}

/// Enters, or waits until it was answered.
enum Came<'a> {
    In(Permit<&'a Bulkhead>),
    Waits(machine::Ticket),
}

fn come(bulkhead: &Bulkhead) -> Came<'_> {
    match bulkhead.arrive(NOW, &Ask::default(), true, Waker::noop()).unwrap().0 {
        Answer::Entered => Came::In(Permit::of(bulkhead, None, NOW)),
        Answer::Waits(ticket, _) => Came::Waits(ticket),
    }
}

#[test]
fn of_two_that_come_at_once_one_gets_the_only_place() {
    explore(4, || {
        let bulkhead = bulkhead(1, 0);
        let other = bulkhead.clone();
        let other = thread::spawn(move || enters(&other));
        let mine = enters(&bulkhead);
        assert!(mine ^ other.join().unwrap(), "exactly one enters");
        assert_eq!(bulkhead.snapshot().in_flight, 1);
    });
}

#[test]
fn a_place_that_is_freed_while_somebody_begins_to_wait_is_not_lost() {
    explore(4, || {
        let bulkhead = bulkhead(1, 1);
        let permit = Bulkhead::try_enter(&*bulkhead, NOW, &Ask::default()).unwrap();
        std::mem::forget(permit);
        let other = bulkhead.clone();
        let other = thread::spawn(move || drop(Permit::of(&*other, None, NOW)));
        let came = come(&bulkhead);
        other.join().unwrap();
        let mine = match came {
            Came::In(permit) => permit,
            Came::Waits(ticket) => {
                assert!(bulkhead.answered(ticket, Waker::noop()).is_ready(), "the place is free and somebody waits");
                Permit::of(&*bulkhead, None, NOW)
            }
        };
        assert_eq!(bulkhead.snapshot().in_flight, 1);
        drop(mine);
        assert_eq!(bulkhead.snapshot().in_flight, 0);
        assert!(enters(&bulkhead), "the bit that says ask is gone, or the machine lets enter");
    });
}

#[test]
fn who_leaves_the_queue_while_it_is_given_a_place_passes_it_on() {
    explore(3, || {
        let bulkhead = bulkhead(1, 2);
        std::mem::forget(Bulkhead::try_enter(&*bulkhead, NOW, &Ask::default()).unwrap());
        let [Came::Waits(first), Came::Waits(second)] = [(); 2].map(|()| come(&bulkhead)) else { unreachable!() };
        let other = bulkhead.clone();
        let other = thread::spawn(move || other.leave(NOW, first, None));
        drop(Permit::of(&*bulkhead, None, NOW));
        other.join().unwrap();
        assert!(bulkhead.answered(second, Waker::noop()).is_ready());
        assert_eq!(bulkhead.snapshot().in_flight, 1);
    });
}

#[test]
fn nobody_who_comes_around_the_lock_overfills_it_while_others_are_inside() {
    explore(3, || {
        let bulkhead = bulkhead(1, 1);
        let inside = Arc::new(sync::AtomicU64::new(0));
        let alone = |inside: &sync::AtomicU64| {
            assert_eq!(inside.fetch_add(1, sync::Ordering::AcqRel), 0, "two are inside");
            inside.fetch_sub(1, sync::Ordering::AcqRel);
        };
        let other = {
            let (bulkhead, inside) = (bulkhead.clone(), inside.clone());
            thread::spawn(move || {
                if let Ok(permit) = Bulkhead::try_enter(&*bulkhead, NOW, &Ask::default()) {
                    alone(&inside);
                    drop(permit);
                }
            })
        };
        // Through the lock, while the other comes around it.
        let mine = come(&bulkhead);
        if let Came::In(_) = mine {
            alone(&inside);
        }
        other.join().unwrap();
        match mine {
            Came::In(permit) => drop(permit),
            Came::Waits(ticket) => {
                assert!(bulkhead.answered(ticket, Waker::noop()).is_ready());
                drop(Permit::of(&*bulkhead, None, NOW));
            }
        }
        assert_eq!(bulkhead.snapshot().in_flight, 0);
    });
}
