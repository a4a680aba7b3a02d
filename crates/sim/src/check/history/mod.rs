//! What clients asked, when, and what became of it.
//!
//! A history is all a checker knows of the system: it looks at it from outside, as a client would. Each operation is
//! *invoked*, and later completes in one of three ways:
//!
//! | outcome | the client knows | a checker may assume |
//! |---|---|---|
//! | [`Outcome::Ok`] | the answer | it took effect between invocation and answer, and the answer is true |
//! | [`Outcome::Failed`] | that nothing happened | it never took effect |
//! | [`Outcome::Unknown`] | nothing (a timeout, a lost connection) | it took effect at any time since, or never will |
//!
//! An answer that says *no* (the version was another one) is an answer: it is `Ok` with a value that says so, because it
//! tells something about the state. `Failed` is for requests that were never looked at: refused connections, an
//! overloaded node.
//!
//! What happened before what is decided by the order of recording, not by the time stamps; the stamps are for people.

mod ndjson;
mod recorder;

use std::{fmt, ops::Range};

use quorate_foundations::time::Mono;
use serde::{Deserialize, Serialize};

pub use self::{ndjson::NdjsonError, recorder::Recorder};

/// One operation of a history: the place at which it was invoked, counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct OpId(pub u64);

impl fmt::Display for OpId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "op {}", self.0)
    }
}

/// A simulated client; a lane of the timeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ClientId(pub u32);

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "client {}", self.0)
    }
}

/// A point of a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment {
    /// Its place among everything recorded, counted from 0. This decides what happened before what.
    pub order: u64,
    /// The simulated time.
    pub at: Mono,
}

/// What became of an operation, as far as its client knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome<R> {
    /// Not completed yet. A checker treats it like [`Outcome::Unknown`].
    Pending,
    /// It was answered.
    Ok {
        /// The answer.
        value: R,
        /// When it arrived.
        at: Moment,
    },
    /// It definitely had no effect.
    Failed {
        /// What the client was told.
        reason: String,
        /// When.
        at: Moment,
    },
    /// It may have had its effect, may have it later, or never.
    Unknown {
        /// What the client was told.
        reason: String,
        /// When it gave up.
        at: Moment,
    },
}

impl<R> Outcome<R> {
    /// The answer and when it arrived.
    pub fn answer(&self) -> Option<(&R, Moment)> {
        match self {
            Self::Ok { value, at } => Some((value, *at)),
            Self::Pending | Self::Failed { .. } | Self::Unknown { .. } => None,
        }
    }

    /// When the client stopped waiting; `None` while it waits.
    pub fn ended(&self) -> Option<Moment> {
        match self {
            Self::Pending => None,
            Self::Ok { at, .. } | Self::Failed { at, .. } | Self::Unknown { at, .. } => Some(*at),
        }
    }

    /// Whether it may have had an effect without the client knowing.
    pub fn is_open(&self) -> bool {
        matches!(self, Self::Pending | Self::Unknown { .. })
    }
}

/// One operation by one client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation<O, R> {
    /// Its name.
    pub id: OpId,
    /// Who asked.
    pub client: ClientId,
    /// What was asked.
    pub op: O,
    /// When.
    pub invoked: Moment,
    /// What became of it.
    pub outcome: Outcome<R>,
}

impl<O, R> Operation<O, R> {
    /// Whether this one was over before `other` began.
    pub fn precedes(&self, other: &Self) -> bool {
        self.outcome.ended().is_some_and(|ended| ended.order < other.invoked.order)
    }
}

/// Operations in the order of their invocation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct History<O, R> {
    operations: Vec<Operation<O, R>>,
    recorded: u64,
    latest: Mono,
}

impl<O, R> Default for History<O, R> {
    fn default() -> Self {
        Self { operations: Vec::new(), recorded: 0, latest: Mono::ZERO }
    }
}

impl<O, R> History<O, R> {
    /// A history in which nothing has happened.
    pub fn new() -> Self {
        Self::default()
    }

    /// Records that `client` asks for `op`.
    ///
    /// `at`: the simulated time. Time never runs backwards in a history: an earlier reading counts as the latest one.
    pub fn invoke(&mut self, client: ClientId, op: O, at: Mono) -> OpId {
        let id = OpId(self.operations.len() as u64);
        let invoked = self.moment(at);
        self.operations.push(Operation { id, client, op, invoked, outcome: Outcome::Pending });
        id
    }

    /// Records the answer.
    ///
    /// # Panics
    /// If `id` was completed before or never invoked: then the recording client is at fault.
    pub fn ok(&mut self, id: OpId, value: R, at: Mono) {
        let at = self.moment(at);
        self.complete(id, Outcome::Ok { value, at });
    }

    /// Records that the operation definitely had no effect. Panics as [`ok`](Self::ok) does.
    pub fn failed(&mut self, id: OpId, reason: impl Into<String>, at: Mono) {
        let at = self.moment(at);
        self.complete(id, Outcome::Failed { reason: reason.into(), at });
    }

    /// Records that nobody knows whether the operation had an effect. Panics as [`ok`](Self::ok) does.
    pub fn unknown(&mut self, id: OpId, reason: impl Into<String>, at: Mono) {
        let at = self.moment(at);
        self.complete(id, Outcome::Unknown { reason: reason.into(), at });
    }

    /// The operations, in the order of their invocation.
    pub fn operations(&self) -> &[Operation<O, R>] {
        &self.operations
    }

    /// One operation by its name.
    pub fn get(&self, id: OpId) -> Option<&Operation<O, R>> {
        let index = self.operations.binary_search_by_key(&id, |operation| operation.id).ok()?;
        self.operations.get(index)
    }

    /// From the first invocation to the last completion.
    pub fn span(&self) -> Range<Mono> {
        self.operations.first().map_or(Mono::ZERO, |first| first.invoked.at)..self.latest
    }

    /// How many operations were answered, failed, and are unknown or pending.
    pub fn tally(&self) -> Tally {
        let mut tally = Tally::default();
        for operation in &self.operations {
            match operation.outcome {
                Outcome::Ok { .. } => tally.ok += 1,
                Outcome::Failed { .. } => tally.failed += 1,
                Outcome::Unknown { .. } | Outcome::Pending => tally.unknown += 1,
            }
        }
        tally
    }

    fn moment(&mut self, at: Mono) -> Moment {
        self.latest = self.latest.max(at);
        let moment = Moment { order: self.recorded, at: self.latest };
        self.recorded += 1;
        moment
    }

    fn complete(&mut self, id: OpId, outcome: Outcome<R>) {
        let index = usize::try_from(id.0).unwrap_or(usize::MAX);
        let operation = self.operations.get_mut(index);
        let operation = operation.unwrap_or_else(|| panic!("{id} completes but was never invoked"));
        assert!(matches!(operation.outcome, Outcome::Pending), "{id} completes a second time");
        operation.outcome = outcome;
    }

    /// What mutation tests change.
    #[cfg(test)]
    pub(super) fn operations_mut(&mut self) -> &mut Vec<Operation<O, R>> {
        &mut self.operations
    }
}

/// How a history's operations ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// Answered.
    pub ok: u64,
    /// Certainly without effect.
    pub failed: u64,
    /// Outcome unknown, or still pending.
    pub unknown: u64,
}

#[cfg(test)]
mod tests;
