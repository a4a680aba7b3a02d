//! What becomes of requests and answers.

use crate::request::{Fault, Payload};

/// What a responder says.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// What was asked for.
    Answer(Payload),
    /// Why there is none.
    Fault(Fault),
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// The responder said so.
    Said(Verdict),
    /// Nobody waits for an answer, and somebody who serves it has it or will have it while they are there.
    HandedOver,
    /// Nobody serves the type. It was not done.
    NoResponder,
    /// Nobody has begun on it, so it was not done.
    Refused(Refusal),
    /// A responder had begun on it, and what came of it is not known.
    Unknown(Unknown),
}

/// Why nobody has begun on a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// As many are held as memory is given for.
    #[error("{max} requests are held, which is all there may be")]
    Full {
        /// The limit.
        max: usize,
    },
    /// The bodies of those that are held take as many bytes as memory is given for.
    #[error("the requests that are held leave no place: together they have at most {max} bytes")]
    FullOfBytes {
        /// The limit.
        max: usize,
    },
    /// Its time ran out before a responder began on it.
    #[error("its time ran out before a responder began on it")]
    Expired,
    /// The process ends.
    #[error("this process is shutting down")]
    Closing,
}

/// Why it is not known what became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unknown {
    /// Its time ran out while a responder worked on it.
    #[error("its time ran out while a responder worked on it")]
    Deadline,
    /// Its responder left.
    #[error("its responder left")]
    ResponderLeft,
    /// Its responder failed without an answer.
    #[error("its responder failed without an answer")]
    Failed,
}

/// What became of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receipt {
    /// It is the request's outcome.
    Taken,
    /// Nobody waited any more.
    Late,
    /// The responder has no such request: it has not begun on it, or is done with it.
    NotHeld,
}

/// There are as many responders as there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{max} responders are there, which is all there may be")]
pub struct TooManyResponders {
    /// The limit.
    pub max: usize,
}
