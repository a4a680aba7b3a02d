//! The counter under every interleaving that loom finds.

use loom::{sync::Arc, thread};

mod sync {
    pub(crate) use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering};

    // Few, so that loom gets through them.
    pub(crate) const OWNED: usize = 2;
    pub(crate) const SHARED: usize = 2;
}

#[path = "stripes.rs"]
#[expect(clippy::duplicate_mod, reason = "the same source, built on loom's atomics")]
#[allow(dead_code, reason = "loom tries a part of it")]
mod stripes;

use stripes::{Lanes, Stripes};
use sync::{AtomicU32, Ordering};

#[test]
fn two_threads_that_own_a_lane_one_after_the_other_lose_no_count() {
    loom::model(|| {
        let lanes = Arc::new(Lanes { taken: AtomicU32::new(0), guests: AtomicU32::new(0) });
        let stripes = Arc::new(Stripes::new());
        let count = |lanes: Arc<Lanes>, stripes: Arc<Stripes>| {
            move || {
                let lane = lanes.claim();
                stripes.raise(lane);
                lanes.release(lane);
            }
        };
        let other = thread::spawn(count(lanes.clone(), stripes.clone()));
        count(lanes.clone(), stripes.clone())();
        other.join().unwrap();
        assert_eq!(stripes.sum(), 2);
        assert_eq!(lanes.taken.load(Ordering::Relaxed), 0, "every lane was given back");
    });
}

#[test]
fn guests_of_one_lane_lose_no_count() {
    loom::model(|| {
        let stripes = Arc::new(Stripes::new());
        let others = stripes.clone();
        let other = thread::spawn(move || others.raise(stripes::Lane::GUEST));
        stripes.raise(stripes::Lane::GUEST);
        other.join().unwrap();
        assert_eq!(stripes.sum(), 2);
    });
}
