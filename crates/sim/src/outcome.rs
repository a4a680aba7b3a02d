//! What became of a run.

use std::{collections::BTreeMap, fmt, time::Duration};

use quorate_runtime::fault::{FaultPlan, Planned};
use serde::{Deserialize, Serialize};

use crate::swarm::Swarm;

/// What a run was, and what it found.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// What the seed's world was like.
    pub swarm: Swarm,
    /// Its clients, also those that were absent, but no witnesses: whoever can be left out.
    pub clients: Vec<String>,
    /// What was to go wrong in it.
    pub plan: FaultPlan,
    /// Places in the plan, counted from 0, that were left out.
    pub without: Vec<usize>,
    /// What must not be: empty if all is well.
    pub violations: Vec<Violation>,
    /// The hash of everything that happened, in order.
    pub trace: String,
    /// How many things happened.
    pub steps: u64,
    /// How much time passed in the world, in milliseconds.
    pub simulated_millis: u64,
    /// Faults carried out, by kind.
    pub injected: BTreeMap<String, u64>,
    /// Rare states reached, by name.
    pub reached: BTreeMap<String, u64>,
}

/// Something that must not be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Violation {
    /// What was violated, in a word or two: what makes two findings the same.
    pub rule: String,
    /// What happened, in a sentence.
    pub what: String,
}

impl Violation {
    /// A violation of `rule`.
    pub fn new(rule: impl Into<String>, what: impl Into<String>) -> Self {
        Self { rule: rule.into(), what: what.into() }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.rule, self.what)
    }
}

impl Outcome {
    /// Whether nothing was found.
    pub fn passed(&self) -> bool {
        self.violations.is_empty()
    }

    /// The faults of the plan that were not left out, with their places in it.
    pub fn faults(&self) -> impl Iterator<Item = (usize, &Planned)> {
        self.plan.faults.iter().enumerate().filter(|(place, _)| !self.without.contains(place))
    }

    /// How much time passed in the world.
    pub fn simulated(&self) -> Duration {
        Duration::from_millis(self.simulated_millis)
    }

    /// Counts that `state` was reached.
    pub fn reach(&mut self, state: &str) {
        *self.reached.entry(state.to_owned()).or_default() += 1;
    }

    /// Adds what a checker found.
    pub fn find(&mut self, found: impl IntoIterator<Item = Violation>) {
        self.violations.extend(found);
    }
}
