//! What became of a durable request.

use crate::request::Fault;

/// What became of a durable request so far.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Status<A> {
    /// Nobody works on it now.
    Waiting {
        /// How often it was handed out before.
        attempts: u32,
    },
    /// It was handed out, and what came of that is not known yet. A responder that has died is still working on it by what the store says, until somebody else is handed it.
    Running {
        /// For the how-manieth time, counted from 1.
        attempt: u32,
    },
    /// It was answered.
    Done(A),
    /// It has no answer.
    Failed {
        /// Why: the responder's own fault, or [`DEAD_LETTER`](Self::DEAD_LETTER) with what the last responder left behind.
        fault: Fault,
        /// Where it lies as a dead letter ([`DeadLetter::place`](crate::message_queue::DeadLetter::place)): it is asked again once somebody replays that. `None`: the responder
        /// said no, and nothing more happens.
        dead_letter: Option<u64>,
    },
    /// Its message was settled without an answer: discarded as a dead letter, or acknowledged by a consumer of the queue that does not answer. It may have been done.
    Unanswered,
}

impl<A> Status<A> {
    /// The code of the fault of a request that no responder came to an end with.
    pub const DEAD_LETTER: &str = "dead-letter";

    /// Whether nothing more happens to it by itself.
    pub fn is_over(&self) -> bool {
        !matches!(self, Self::Waiting { .. } | Self::Running { .. })
    }

    /// The same with another answer.
    pub(super) fn map<B, E>(self, read: impl FnOnce(A) -> Result<B, E>) -> Result<Status<B>, E> {
        Ok(match self {
            Self::Waiting { attempts } => Status::Waiting { attempts },
            Self::Running { attempt } => Status::Running { attempt },
            Self::Done(answer) => Status::Done(read(answer)?),
            Self::Failed { fault, dead_letter } => Status::Failed { fault, dead_letter },
            Self::Unanswered => Status::Unanswered,
        })
    }
}
