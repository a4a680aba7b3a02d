//! What can happen to a saga: the events of its stream.

use std::sync::Arc;

use quorate_foundations::name::Name;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::rows::SagaKey;

/// Which way a step is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// What the step is for.
    Forward,
    /// What makes up for it.
    Compensation,
}

impl Direction {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Forward => "forward",
            Self::Compensation => "compensation",
        }
    }
}

/// One way of one step: what is called, and repeated, under one key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Leg {
    /// The step, by its name in this saga.
    pub step: Arc<str>,
    /// Which way.
    pub direction: Direction,
}

impl Leg {
    /// The step forward.
    pub fn forward(step: impl Into<Arc<str>>) -> Self {
        Self { step: step.into(), direction: Direction::Forward }
    }

    /// What makes up for the step.
    pub fn compensation(step: impl Into<Arc<str>>) -> Self {
        Self { step: step.into(), direction: Direction::Compensation }
    }
}

/// Why an attempt did not do what it was for. Which of them it is decides whether it is repeated, and whether it is
/// compensated: where in doubt, it is [`Unknown`](Self::Unknown).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", content = "reason", rename_all = "kebab-case")]
pub enum Failure {
    /// This attempt had no effect and will have none, and another one would not either. Of attempts before it that had no answer it
    /// says nothing: they stay in doubt.
    Refused(String),
    /// It had no effect; another attempt may.
    Transient(String),
    /// Nothing was sent, for a reason on this side, such as an open circuit. It does not count as an attempt.
    Held(String),
    /// It may have had its effect, or have it still.
    Unknown(String),
}

impl Failure {
    /// It had no effect, and repeating will not help.
    pub fn refused(reason: impl ToString) -> Self {
        Self::Refused(reason.to_string())
    }

    /// It had no effect; another attempt may.
    pub fn transient(reason: impl ToString) -> Self {
        Self::Transient(reason.to_string())
    }

    /// It may have had its effect.
    pub fn unknown(reason: impl ToString) -> Self {
        Self::Unknown(reason.to_string())
    }

    /// The same with a reason that is no longer than people read.
    pub(super) fn clipped(self) -> Self {
        match self {
            Self::Refused(reason) => Self::Refused(clipped(reason)),
            Self::Transient(reason) => Self::Transient(clipped(reason)),
            Self::Held(reason) => Self::Held(clipped(reason)),
            Self::Unknown(reason) => Self::Unknown(clipped(reason)),
        }
    }

    /// Why, for people.
    pub fn reason(&self) -> &str {
        let (Self::Refused(reason) | Self::Transient(reason) | Self::Held(reason) | Self::Unknown(reason)) = self;
        reason
    }
}

/// A text for people, cut where nobody reads on.
pub(super) fn clipped(mut text: String) -> String {
    const MAX: usize = 4_096;
    if text.len() > MAX {
        let end = (0..=MAX).rev().find(|end| text.is_char_boundary(*end)).unwrap_or_default();
        text.truncate(end);
        text.push('…');
    }
    text
}

/// What an operator decides about a saga that is stuck, or anybody about one that is to be given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verb {
    /// Try the step again, with as many attempts as it had.
    Retry,
    /// Go on as if the step were done. What was skipped is not compensated.
    Skip,
    /// The step was compensated by other means.
    MarkCompensated,
    /// The step was certainly not done, and never will be: a saga whose pivot it is turns back.
    MarkRefused,
    /// Turn back and compensate.
    Abort,
    /// End it as it is. Only where it is stuck.
    Force,
}

impl Verb {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::Skip => "skip",
            Self::MarkCompensated => "mark-compensated",
            Self::MarkRefused => "mark-refused",
            Self::Abort => "abort",
            Self::Force => "force",
        }
    }
}

/// How a saga ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Everything was done.
    Completed,
    /// What was done, or may have been, was made up for.
    Compensated,
    /// An operator ended it as it was.
    Forced,
}

/// What a step was planned as, where that is more than its name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Planned {
    /// The step of the definition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of: Option<Arc<str>>,
    /// What it was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<Value>,
}

/// A saga that a step started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChildRef {
    /// Its definition.
    #[serde(with = "named")]
    pub saga: Name,
    /// Its id.
    pub id: Arc<str>,
    /// Its version of the definition.
    pub version: u32,
}

impl ChildRef {
    pub(super) fn key(&self) -> SagaKey {
        SagaKey { name: self.saga.clone(), id: self.id.clone() }
    }
}

/// The step that started a saga.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parent {
    /// The definition of the saga whose step it is.
    #[serde(with = "named")]
    pub saga: Name,
    /// That saga's id.
    pub id: Arc<str>,
    /// The step, by its name there.
    pub step: Arc<str>,
    /// Which way of it.
    pub direction: Direction,
    /// Which attempt.
    pub attempt: u32,
    /// How many sagas are above the one that was started: 1 to [`Child::MAX_DEPTH`](crate::saga::Child::MAX_DEPTH).
    pub depth: u32,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "kebab-case")]
#[expect(missing_docs, reason = "each field is what its name says, and documented where it is read: in the journal")]
pub enum Happened {
    /// It began.
    Started {
        version: u32,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        key: Option<Arc<str>>,
        input: Value,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        deadline_ms: Option<u64>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        parent: Option<Box<Parent>>,
    },
    /// An attempt is about to be made.
    StepBegun {
        step: Arc<str>,
        direction: Direction,
        attempt: u32,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        planned: Option<Box<Planned>>,
    },
    /// A saga of its own began to do it, or to be undone.
    ChildBegun {
        step: Arc<str>,
        direction: Direction,
        attempt: u32,
        child: Box<ChildRef>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        planned: Option<Box<Planned>>,
    },
    /// An attempt did what it was for.
    StepDone {
        step: Arc<str>,
        direction: Direction,
        output: Value,
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        unkept: bool,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        planned: Option<Box<Planned>>,
    },
    /// An attempt failed. Where it rests another one follows.
    StepFailed {
        step: Arc<str>,
        direction: Direction,
        attempt: u32,
        failure: Failure,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rest_ms: Option<u64>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        planned: Option<Box<Planned>>,
    },
    /// It cannot go on without somebody's decision about this step, or about the plan where no step is named.
    Stuck {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        step: Option<Arc<str>>,
        direction: Direction,
        why: String,
    },
    /// Somebody told it something.
    Signalled { id: Arc<str>, signal: Arc<str>, data: Value },
    /// A timer begins to run.
    TimerSet { timer: Arc<str>, after_ms: u64 },
    /// A timer has run out.
    TimerFired { timer: Arc<str> },
    /// It is to be given up, if it still can be.
    AbortAsked { why: String },
    /// It turned back: from now on it compensates.
    TurnedBack { why: String },
    /// It was done, and is to be undone: the saga whose step it is turned back.
    UndoAsked { why: String },
    /// Somebody decided something.
    Operated {
        verb: Verb,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        step: Option<Arc<str>>,
        direction: Direction,
        by: Arc<str>,
        #[serde(default, skip_serializing_if = "String::is_empty")]
        note: String,
        #[serde(default, skip_serializing_if = "Value::is_null")]
        output: Value,
    },
    /// It is over.
    Ended {
        outcome: Outcome,
        #[serde(default, skip_serializing_if = "Value::is_null")]
        output: Value,
    },
}

impl Happened {
    /// The type of the event that says so.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Started { .. } => "saga.started",
            Self::StepBegun { .. } => "saga.step-begun",
            Self::ChildBegun { .. } => "saga.child-begun",
            Self::StepDone { .. } => "saga.step-done",
            Self::StepFailed { .. } => "saga.step-failed",
            Self::Stuck { .. } => "saga.stuck",
            Self::Signalled { .. } => "saga.signalled",
            Self::TimerSet { .. } => "saga.timer-set",
            Self::TimerFired { .. } => "saga.timer-fired",
            Self::AbortAsked { .. } => "saga.abort-asked",
            Self::TurnedBack { .. } => "saga.turned-back",
            Self::UndoAsked { .. } => "saga.undo-asked",
            Self::Operated { .. } => "saga.operated",
            Self::Ended { .. } => "saga.ended",
        }
    }
}

/// Names as they stand in events.
mod named {
    use quorate_foundations::name::Name;
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub(super) fn serialize<S: Serializer>(name: &Name, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(name.as_str())
    }

    pub(super) fn deserialize<'d, D: Deserializer<'d>>(from: D) -> Result<Name, D::Error> {
        Name::new(String::deserialize(from)?).map_err(D::Error::custom)
    }
}
