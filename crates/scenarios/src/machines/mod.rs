//! Machines alone, under schedules drawn from a seed: no host, no disk, no network, and so a hundred thousand seeds in a minute.
//!
//! A machine keeps no state but its own, so that worlds of it share nothing: unlike those of whole nodes, they may run one
//! after the other in one process.

pub(crate) mod hlc;
pub(crate) mod subscription;

use std::{collections::BTreeMap, time::Duration};

use quorate_foundations::time::Mono;
use quorate_runtime::{
    fault::FaultPlan,
    random::{Random, Rng},
};
use quorate_sim::{Outcome, Swarm, Violation};

use crate::Report;

/// How long a course takes, in its own time.
const SPAN: Duration = Duration::from_secs(60);

/// What one seed does with machines.
pub(crate) struct Course {
    pub(crate) rng: Rng,
    /// The true time, in nanoseconds since the beginning.
    now: u64,
    span: u64,
    most_steps: u64,
    steps: u64,
    trace: blake3::Hasher,
    injected: BTreeMap<String, u64>,
    reached: BTreeMap<String, u64>,
}

/// Plays a course to its end, and says what must not be.
pub(crate) type Play = fn(&mut Course) -> Vec<Violation>;

impl Course {
    fn new(seed: u64, span: Option<Duration>, most_steps: u64) -> Self {
        let random = Random::from_seed(*blake3::hash(&seed.to_le_bytes()).as_bytes());
        let span = u64::try_from(span.unwrap_or(SPAN).as_nanos()).unwrap_or(u64::MAX);
        let (injected, reached) = (BTreeMap::new(), BTreeMap::new());
        let rng = random.stream("course");
        Self { rng, now: 0, span, most_steps, steps: 0, trace: blake3::Hasher::new(), injected, reached }
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.rng.below(bound as u64)).unwrap_or(0)
    }

    /// Whether something happens that does so `percent` times in a hundred.
    pub(crate) fn chance(&mut self, percent: u64) -> bool {
        self.rng.below(100) < percent
    }

    /// Time passes, `most` at most; whether any is left.
    pub(crate) fn goes_on(&mut self, most: Duration) -> bool {
        self.pass(most);
        self.steps += 1;
        self.now < self.span && self.steps <= self.most_steps
    }

    /// Time passes, `most` at most.
    pub(crate) fn pass(&mut self, most: Duration) {
        self.now += 1 + self.rng.below(u64::try_from(most.as_nanos()).unwrap_or(u64::MAX).max(1));
    }

    /// The true time.
    pub(crate) fn now(&self) -> Mono {
        Mono::from_nanos(self.now)
    }

    /// What happened, for the trace.
    pub(crate) fn note(&mut self, what: &[u64]) {
        self.trace.update(&self.now.to_le_bytes());
        for number in what {
            self.trace.update(&number.to_le_bytes());
        }
    }

    /// Something went wrong on purpose.
    pub(crate) fn injected(&mut self, what: &str) {
        count(&mut self.injected, what);
    }

    /// A rare state was reached.
    pub(crate) fn reached(&mut self, state: &str) {
        count(&mut self.reached, state);
    }
}

fn count(counts: &mut BTreeMap<String, u64>, what: &str) {
    match counts.get_mut(what) {
        Some(count) => *count += 1,
        None => drop(counts.insert(what.to_owned(), 1)),
    }
}

/// Plays the course of `seed`, for `span` of its own time and so many steps at most.
pub(crate) fn run(play: Play, seed: u64, span: Option<Duration>, most_steps: u64) -> Report {
    let mut course = Course::new(seed, span, most_steps);
    let violations = play(&mut course);
    let outcome = Outcome {
        seed,
        swarm: Swarm::calm(),
        clients: Vec::new(),
        plan: FaultPlan::default(),
        without: Vec::new(),
        violations,
        trace: course.trace.finalize().to_hex()[..32].to_owned(),
        steps: course.steps,
        simulated_millis: course.now / 1_000_000,
        injected: course.injected,
        reached: course.reached,
    };
    Report { rounds: outcome.steps, outcome, notes: Vec::new(), judgement: None }
}
