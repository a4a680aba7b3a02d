//! Rare paths taken because the seed says so, and rare states counted.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use quorate_runtime::{
    probe::Probe,
    random::{Random, Rng},
};

use crate::executor::lock;

/// Counts by name. Cheap to clone; clones are the same counts.
#[derive(Clone, Default)]
pub(crate) struct Counts(Arc<Mutex<BTreeMap<String, u64>>>);

impl Counts {
    pub(crate) fn add(&self, what: &str) {
        self.add_many(what, 1);
    }

    pub(crate) fn add_many(&self, what: &str, count: u64) {
        if count > 0 {
            *lock(&self.0).entry(what.to_owned()).or_default() += count;
        }
    }

    pub(crate) fn all(&self) -> BTreeMap<String, u64> {
        lock(&self.0).clone()
    }
}

/// The marks of product code, as a world hears and answers them.
pub(crate) struct SimProbe {
    on: bool,
    random: Random,
    points: Mutex<BTreeMap<&'static str, Point>>,
    reached: Counts,
    #[cfg_attr(not(feature = "museum"), expect(dead_code, reason = "only the museum asks"))]
    planted: Option<String>,
}

/// A point in the code: never taken in this world, or taken so often in 100.
struct Point {
    percent: u64,
    rng: Rng,
}

impl SimProbe {
    pub(crate) fn new(on: bool, random: Random, reached: Counts, planted: Option<String>) -> Self {
        Self { on, random, points: Mutex::default(), reached, planted }
    }
}

impl Probe for SimProbe {
    fn buggify(&self, point: &'static str) -> bool {
        if !self.on {
            return false;
        }
        let mut points = lock(&self.points);
        let known = points.entry(point).or_insert_with(|| {
            let mut rng = self.random.stream(point);
            // Half of the points sleep in any one world, so that the others are seen without them.
            let percent = if rng.below(2) == 0 { 0 } else { 1 + rng.below(25) };
            Point { percent, rng }
        });
        let taken = known.percent > 0 && known.rng.below(100) < known.percent;
        if taken {
            self.reached.add(&format!("buggify: {point}"));
        }
        taken
    }

    fn reached(&self, state: &'static str) {
        self.reached.add(state);
    }

    #[cfg(feature = "museum")]
    fn planted(&self, piece: &'static str) -> bool {
        let planted = self.planted.as_deref() == Some(piece);
        if planted {
            self.reached.add(&format!("planted: {piece}"));
        }
        planted
    }
}
