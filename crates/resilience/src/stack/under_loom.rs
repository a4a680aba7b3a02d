//! Policies that are replaced while calls begin, under every interleaving that loom finds.

use loom::{sync::Arc, thread};

mod sync {
    pub(crate) use loom::sync::{
        Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    };
}

#[path = "replaced.rs"]
#[expect(clippy::duplicate_mod, reason = "the same source, built on loom's atomics")]
#[allow(dead_code, reason = "loom tries a part of it")]
mod replaced;

use replaced::Replaced;

#[test]
fn whoever_looks_never_goes_back_to_what_held_before() {
    loom::model(|| {
        let held = Arc::new(Replaced::new(0_u32));
        let other = held.clone();
        let other = thread::spawn(move || {
            other.replace(1);
            other.replace(2);
        });
        let (mut known, mut seen) = held.first();
        for _ in 0..2 {
            if let Some(newer) = held.newer(&mut seen) {
                assert!(newer >= known, "{newer} after {known}");
                known = newer;
            }
        }
        other.join().unwrap();
        let last = held.newer(&mut seen).unwrap_or(known);
        assert_eq!(last, 2, "what was replaced before is found");
        assert_eq!(held.newer(&mut seen), None, "and looked at no more");
    });
}

#[test]
fn what_is_replaced_while_somebody_comes_is_not_missed() {
    loom::model(|| {
        let held = Arc::new(Replaced::new(0_u32));
        let other = held.clone();
        let other = thread::spawn(move || other.replace(1));
        let (known, mut seen) = held.first();
        other.join().unwrap();
        assert_eq!(held.newer(&mut seen).unwrap_or(known), 1);
    });
}

#[test]
fn whoever_finds_the_one_of_two_replacements_that_came_last_holds_it_still() {
    // Three threads: bounded, or it takes long.
    let mut bounded = loom::model::Builder::new();
    bounded.preemption_bound = Some(3);
    bounded.check(|| {
        let held = Arc::new(Replaced::new(0_u32));
        let replacing = [1, 2].map(|next| {
            let held = held.clone();
            thread::spawn(move || held.replace(next))
        });
        let (mut known, mut seen) = held.first();
        if let Some(newer) = held.newer(&mut seen) {
            known = newer;
        }
        for thread in replacing {
            thread.join().unwrap();
        }
        assert_eq!(held.newer(&mut seen).unwrap_or(known), held.held());
    });
}
