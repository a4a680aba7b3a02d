//! What callers and responders of a type agree on.

use std::time::Duration;

use super::DeclareError;

/// What callers and responders of a type agree on, declared once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contract {
    /// Whether there is an answer, and what is durable when.
    pub exchange: Exchange,
    /// How long one is worked on and waited for at most; a caller's deadline may leave less. More than nothing, at most [`Contract::MAX_TIME_LIMIT`].
    pub time_limit: Duration,
}

/// Whether there is an answer, and what is durable when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Exchange {
    /// The caller waits for an answer. Nothing is durable: a request whose responder or process dies is *unknown*.
    Answer {
        /// Whether doing it twice is as doing it once, so that what is unknown may be repeated.
        idempotent: bool,
    },
    /// Nobody waits. It is handed to a responder that is there, or lost and counted.
    BestEffort,
    /// Nobody waits. It is a message of a queue: durable before the sender goes on, and handed out until it is done.
    AfterCommit,
    /// The answer is asked for later, by the request's id. The request is a message of a queue, and its answer is kept where the message is settled: both outlive whoever asked,
    /// whoever answers, and their processes.
    Durable,
}

impl Contract {
    /// The longest time limit: an hour.
    pub const MAX_TIME_LIMIT: Duration = Duration::from_secs(3_600);

    /// Whether it can be declared.
    ///
    /// # Errors
    /// [`DeclareError::Invalid`] says which field is out of its range.
    pub fn check(&self) -> Result<(), DeclareError> {
        let (limit, max) = (self.time_limit, Self::MAX_TIME_LIMIT);
        if limit.is_zero() || limit > max {
            let what = format!("`time-limit` is more than nothing and at most {max:?}, {limit:?} was asked for");
            return Err(DeclareError::Invalid { what });
        }
        Ok(())
    }
}
