//! The word of a limiter under every interleaving that loom finds.

use std::{num::NonZeroU32, time::Duration};

use loom::{sync::Arc, thread};
use quorate_foundations::time::Mono;

use super::{Rate, config, machine};

mod sync {
    pub(crate) use loom::sync::atomic::{AtomicU64, Ordering};
}

#[path = "front.rs"]
#[expect(clippy::duplicate_mod, reason = "the same source, built on loom's atomics")]
#[allow(dead_code, unreachable_pub, reason = "loom tries a part of it")]
mod front;

use front::Limiter;

fn at(millis: u64) -> Mono {
    Mono::ZERO + Duration::from_millis(millis)
}

/// One a second, `burst` at once.
fn limiter(burst: u32) -> Limiter {
    let rate = Rate::new(NonZeroU32::MIN, Duration::from_secs(1)).with_burst(NonZeroU32::new(burst).unwrap());
    Limiter::new(rate).unwrap()
}

#[test]
fn of_three_that_take_at_once_two_get_what_two_may_have() {
    // Three threads: bounded, or it takes half a minute.
    let mut bounded = loom::model::Builder::new();
    bounded.preemption_bound = Some(3);
    bounded.check(|| {
        let limiter = Arc::new(limiter(2));
        let take = |limiter: Arc<Limiter>| move || limiter.take(at(0), 1).is_ok();
        let others = [(); 2].map(|()| thread::spawn(take(limiter.clone())));
        let mine = take(limiter.clone())();
        let given = others.into_iter().map(|other| other.join().unwrap()).filter(|given| *given).count();
        assert_eq!(given + usize::from(mine), 2);
    });
}

#[test]
fn what_is_taken_while_the_rate_changes_is_not_forgotten() {
    // Three threads: bounded, or it takes half a minute.
    let mut bounded = loom::model::Builder::new();
    bounded.preemption_bound = Some(3);
    bounded.check(|| {
        let limiter = Arc::new(limiter(2));
        let taker = limiter.clone();
        let taker = thread::spawn(move || taker.take(at(0), 2).is_ok());
        // Twice as fast and with twice the burst: a third of the time means the same part.
        let rate = Rate::new(NonZeroU32::new(2).unwrap(), Duration::from_secs(1));
        limiter.configure(rate.with_burst(NonZeroU32::new(4).unwrap()), at(0)).unwrap();
        assert!(taker.join().unwrap());
        assert!(limiter.standing(at(0)).remaining <= 2, "{:?}", limiter.standing(at(0)));
    });
}
