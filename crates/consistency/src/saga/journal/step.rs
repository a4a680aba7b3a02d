//! How steps stand.

use std::{sync::Arc, time::Duration};

use quorate_foundations::time::Wall;
use serde_json::Value;

use crate::saga::event::{ChildRef, Direction, Failure, Planned};

/// How one way of a step stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Nothing was begun.
    Idle,
    /// An attempt was begun and has not been answered.
    Running,
    /// The last attempt failed; another one follows.
    Resting,
    /// It is done.
    Done,
    /// It definitely had no effect, and is not tried again.
    Refused,
    /// It is not tried again, and may have had its effect.
    Unknown,
    /// An operator went on without it.
    Skipped,
    /// It waits for an operator.
    Stuck,
}

/// One way of a step.
#[derive(Clone, Debug, PartialEq)]
pub struct Progress {
    /// How it stands.
    pub state: State,
    /// Attempts begun so far.
    pub attempts: u32,
    /// What the attempt that did it answered.
    pub output: Value,
    /// Whether it answered more than is kept: the output is null.
    pub unkept: bool,
    /// What the last attempt failed with.
    pub failure: Option<Failure>,
    /// The saga that the last attempt is, or has undone, where it is one.
    pub child: Option<Arc<ChildRef>>,
    /// Attempts that an operator has forgiven.
    pub(in crate::saga) forgiven: u32,
    /// Whether an attempt may have had an effect, and no later one has settled that.
    pub(in crate::saga) in_doubt: bool,
    /// Since when it is in this state.
    pub(in crate::saga) since: Wall,
    /// How long it rests.
    pub(in crate::saga) rest: Duration,
    /// The first event about it, counted from 1 in the saga; zero: there is none.
    pub(in crate::saga) begun: u64,
    /// When the last thing before that had happened.
    pub(in crate::saga) begun_behind: Wall,
    /// The event that brought it to where it is.
    pub(in crate::saga) moved: u64,
}

/// A step that was begun.
#[derive(Clone, Debug, PartialEq)]
pub struct StepRecord {
    /// Its name in this saga.
    pub name: Arc<str>,
    /// The step of the definition.
    pub of: Arc<str>,
    /// What the plan gave it.
    pub input: Option<Value>,
    /// What it is for.
    pub forward: Progress,
    /// What makes up for it.
    pub compensation: Progress,
}

impl Progress {
    pub(in crate::saga) const IDLE: Self = Self {
        state: State::Idle,
        attempts: 0,
        output: Value::Null,
        failure: None,
        child: None,
        forgiven: 0,
        in_doubt: false,
        unkept: false,
        since: Wall::from_unix_nanos(0),
        rest: Duration::ZERO,
        begun: 0,
        begun_behind: Wall::from_unix_nanos(0),
        moved: 0,
    };

    /// As it stood before event `number`. Of what was under way then nobody asks how often it was tried.
    pub(super) fn before(&self, number: u64) -> Self {
        if self.begun == 0 || self.begun >= number {
            return Self::IDLE;
        }
        if self.moved < number && !matches!(self.state, State::Running | State::Resting) {
            return self.clone();
        }
        Self { state: State::Running, begun: self.begun, begun_behind: self.begun_behind, ..Self::IDLE }
    }

    /// Gives it up.
    pub(super) fn give_up(&mut self, number: u64) {
        self.moved = number;
        self.state = if self.in_doubt { State::Unknown } else { State::Refused };
    }
}

impl StepRecord {
    pub(super) fn new(name: Arc<str>, planned: Option<Box<Planned>>) -> Self {
        let Planned { of, input } = planned.map(|planned| *planned).unwrap_or_default();
        Self {
            of: of.unwrap_or_else(|| name.clone()),
            name,
            input,
            forward: Progress::IDLE,
            compensation: Progress::IDLE,
        }
    }

    /// One way of it.
    pub fn way(&self, direction: Direction) -> &Progress {
        match direction {
            Direction::Forward => &self.forward,
            Direction::Compensation => &self.compensation,
        }
    }

    pub(super) fn way_mut(&mut self, direction: Direction) -> &mut Progress {
        match direction {
            Direction::Forward => &mut self.forward,
            Direction::Compensation => &mut self.compensation,
        }
    }
}
