//! The journal: what is known of a saga, as the fold of its events. Plans look at nothing else.

mod fold;
mod step;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use quorate_foundations::time::Wall;
use serde::de::DeserializeOwned;
use serde_json::Value;

pub(super) use self::fold::{weight, weight_of};
pub use self::step::{Progress, State, StepRecord};
use super::event::{ChildRef, Direction, Failure, Leg, Outcome, Parent};

/// What somebody told a saga.
#[derive(Clone, Debug, PartialEq)]
pub struct Signal {
    /// Who says it again says it with the same id.
    pub id: Arc<str>,
    /// What it is.
    pub name: Arc<str>,
    /// What it says.
    pub data: Value,
    /// The event that says so.
    pub(super) number: u64,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Timer {
    pub(super) since: Wall,
    pub(super) span: Duration,
    pub(super) fired: bool,
    /// The events that set it, and had it run out.
    pub(super) numbers: (u64, u64),
}

/// Where a saga is going.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Ahead, by its plan.
    Forward,
    /// Back, step by step.
    Compensating,
    /// Nowhere any more.
    Ended(Outcome),
}

/// What is known of a saga.
#[derive(Clone, Debug, PartialEq)]
pub struct Journal {
    /// The version of its definition, for as long as it lives.
    pub version: u32,
    /// Its business key.
    pub key: Option<Arc<str>>,
    /// What it was started with.
    pub input: Value,
    /// The step of another saga that started it.
    pub parent: Option<Arc<Parent>>,
    /// Where it is going.
    pub phase: Phase,
    /// Its steps, in the order in which they were begun.
    pub steps: Vec<StepRecord>,
    /// What it was told, in order.
    pub signals: Vec<Signal>,
    /// What it ended with.
    pub output: Value,
    /// Why it turned back, or is to.
    pub abort: Option<String>,
    /// Why its plan cannot go on.
    pub stuck: Option<String>,
    /// When it began.
    pub started_at: Wall,
    /// When something last happened.
    pub updated_at: Wall,
    pub(super) deadline: Option<Duration>,
    pub(super) timers: BTreeMap<Arc<str>, Timer>,
    /// The event that first asked for an abort.
    pub(super) abort_asked: u64,
    /// How many events it has.
    pub(super) events: u64,
    /// What inputs, answers and signals take, in bytes.
    pub(super) bytes: usize,
}

/// How a saga stands, in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Status {
    /// It goes ahead, or waits for something.
    Running,
    /// It turned back.
    Compensating,
    /// It waits for an operator.
    Stuck,
    /// Everything was done.
    Completed,
    /// What was done was made up for.
    Compensated,
    /// An operator ended it as it was.
    Forced,
}

impl Status {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Running, Self::Compensating, Self::Stuck, Self::Completed, Self::Compensated, Self::Forced];

    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Compensating => "compensating",
            Self::Stuck => "stuck",
            Self::Completed => "completed",
            Self::Compensated => "compensated",
            Self::Forced => "forced",
        }
    }

    /// Whether nothing happens to it any more.
    pub fn is_ended(self) -> bool {
        self >= Self::Completed
    }

    /// How it ended, if it did.
    pub(super) fn outcome(self) -> Option<Outcome> {
        match self {
            Self::Completed => Some(Outcome::Completed),
            Self::Compensated => Some(Outcome::Compensated),
            Self::Forced => Some(Outcome::Forced),
            Self::Running | Self::Compensating | Self::Stuck => None,
        }
    }

    pub(super) fn code(self) -> i64 {
        match self {
            Self::Running => 0,
            Self::Compensating => 1,
            Self::Stuck => 2,
            Self::Completed => 10,
            Self::Compensated => 11,
            Self::Forced => 12,
        }
    }

    pub(super) fn of_code(code: i64) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.code() == code)
    }
}

impl Journal {
    pub(super) fn new() -> Self {
        Self {
            version: 0,
            key: None,
            input: Value::Null,
            parent: None,
            phase: Phase::Forward,
            steps: Vec::new(),
            signals: Vec::new(),
            output: Value::Null,
            abort: None,
            stuck: None,
            started_at: Wall::from_unix_nanos(0),
            updated_at: Wall::from_unix_nanos(0),
            deadline: None,
            timers: BTreeMap::new(),
            abort_asked: 0,
            events: 0,
            bytes: 0,
        }
    }

    /// How it stands.
    pub fn status(&self) -> Status {
        match self.phase {
            Phase::Ended(Outcome::Completed) => Status::Completed,
            Phase::Ended(Outcome::Compensated) => Status::Compensated,
            Phase::Ended(Outcome::Forced) => Status::Forced,
            _ if self.stuck.is_some() || self.stuck_legs().next().is_some() => Status::Stuck,
            Phase::Forward => Status::Running,
            Phase::Compensating => Status::Compensating,
        }
    }

    /// Why it is stuck, where it is: what its plan said, or what the step that is stuck failed with.
    pub fn why_stuck(&self) -> Option<&str> {
        let leg = self.stuck_legs().next();
        let of_step = leg.and_then(|leg| self.step(&leg.step)?.way(leg.direction).failure.as_ref());
        self.stuck.as_deref().or(of_step.map(Failure::reason))
    }

    /// What waits for an operator.
    pub fn stuck_legs(&self) -> impl Iterator<Item = Leg> {
        self.steps.iter().flat_map(|step| {
            let is_stuck = |direction: &Direction| step.way(*direction).state == State::Stuck;
            let ways = [Direction::Forward, Direction::Compensation].into_iter().filter(is_stuck);
            ways.map(|direction| Leg { step: step.name.clone(), direction })
        })
    }

    /// Sagas that steps started or have undone and that have not ended as far as this one knows: with the leg, and its attempt.
    pub fn open_children(&self) -> impl Iterator<Item = (Leg, u32, &ChildRef)> {
        self.steps.iter().flat_map(|step| {
            let ways = [Direction::Forward, Direction::Compensation].into_iter();
            ways.filter_map(|direction| {
                let way = step.way(direction);
                let child = way.child.as_deref().filter(|_| way.state == State::Running)?;
                Some((Leg { step: step.name.clone(), direction }, way.attempts, child))
            })
        })
    }

    /// Whether any step ever started a saga.
    pub fn has_children(&self) -> bool {
        self.steps.iter().any(|step| step.forward.child.is_some() || step.compensation.child.is_some())
    }

    /// The step of that name, once it was begun.
    pub fn step(&self, name: &str) -> Option<&StepRecord> {
        self.steps.iter().find(|step| &*step.name == name)
    }

    /// What the saga was started with, as a `T`.
    ///
    /// # Errors
    /// What serde says where it is no `T`.
    pub fn input<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        T::deserialize(&self.input)
    }

    /// What a step answered; `None` until it is done.
    pub fn output(&self, step: &str) -> Option<&Value> {
        let forward = &self.step(step)?.forward;
        matches!(forward.state, State::Done | State::Skipped).then_some(&forward.output)
    }

    /// Whether a step is done, or an operator went on without it.
    pub fn is_done(&self, step: &str) -> bool {
        self.output(step).is_some()
    }

    /// Whether a step definitely had no effect and is not tried again.
    pub fn is_refused(&self, step: &str) -> bool {
        self.step(step).is_some_and(|step| step.forward.state == State::Refused)
    }

    /// What the first signal of that name says.
    pub fn signal(&self, name: &str) -> Option<&Value> {
        self.signals.iter().find(|signal| &*signal.name == name).map(|signal| &signal.data)
    }

    /// Whether the timer of that name has run out.
    pub fn has_fired(&self, timer: &str) -> bool {
        self.timers.get(timer).is_some_and(|timer| timer.fired)
    }

    /// Whether the timer of that name was ever set.
    pub fn has_timer(&self, timer: &str) -> bool {
        self.timers.contains_key(timer)
    }

    /// What had happened when `leg` was first begun: the same whenever it is asked, and by whom.
    pub(super) fn as_begun(self: &Arc<Self>, leg: &Leg) -> Arc<Self> {
        let way = self.step(&leg.step).map(|step| step.way(leg.direction));
        let Some(&Progress { begun: number @ 1.., begun_behind, .. }) = way else { return self.clone() };
        let was = |event: u64| event > 0 && event < number;
        let steps = self.steps.iter().filter(|step| was(step.forward.begun));
        let step = |step: &StepRecord| StepRecord {
            forward: step.forward.before(number),
            compensation: step.compensation.before(number),
            ..step.clone()
        };
        let timers = self.timers.iter().filter(|(_, timer)| was(timer.numbers.0)).map(|(name, timer)| {
            let fired = timer.fired && was(timer.numbers.1);
            (name.clone(), Timer { fired, ..timer.clone() })
        });
        Arc::new(Self {
            version: self.version,
            key: self.key.clone(),
            input: self.input.clone(),
            parent: self.parent.clone(),
            phase: match leg.direction {
                Direction::Forward => Phase::Forward,
                Direction::Compensation => Phase::Compensating,
            },
            steps: steps.map(step).collect(),
            signals: self.signals.iter().filter(|signal| was(signal.number)).cloned().collect(),
            output: Value::Null,
            abort: self.abort.clone().filter(|_| was(self.abort_asked)),
            stuck: None,
            started_at: self.started_at,
            updated_at: begun_behind,
            deadline: self.deadline,
            timers: timers.collect(),
            abort_asked: if was(self.abort_asked) { self.abort_asked } else { 0 },
            events: number - 1,
            bytes: 0,
        })
    }
}
