//! Who takes part: what a coordinator asks of a participant, and what it may rely on.

use std::time::Duration;

use bytes::Bytes;
use quorate_runtime::BoxFuture;

use super::{CoordinatorId, Gid};

/// What a participant is asked to do, in its own words: a JSON document of at most [`Work::MAX_BYTES`] bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Work(Bytes);

/// Why something is no work.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WorkError {
    /// It cannot be written as JSON.
    #[error("the work is no JSON")]
    Json(#[source] serde_json::Error),
    /// It is too long.
    #[error("a participant's work has at most {max} bytes, this one has {bytes}")]
    TooLarge {
        /// Its length.
        bytes: usize,
        /// The limit.
        max: usize,
    },
}

impl Work {
    /// The most bytes of it: 256 KiB.
    pub const MAX_BYTES: usize = 256 << 10;

    /// `value` as JSON.
    ///
    /// # Errors
    /// [`WorkError`] where it is no JSON, or too large.
    pub fn json(value: &impl serde::Serialize) -> Result<Self, WorkError> {
        Self::sized(serde_json::to_vec(value).map_err(WorkError::Json)?.into())
    }

    /// A document as it stands.
    ///
    /// # Errors
    /// As [`json`](Self::json).
    pub fn of(document: impl Into<Bytes>) -> Result<Self, WorkError> {
        let document = document.into();
        serde_json::from_slice::<serde::de::IgnoredAny>(&document).map_err(WorkError::Json)?;
        Self::sized(document)
    }

    /// What this store wrote down before.
    pub(super) fn stored(document: Bytes) -> Self {
        Self(document)
    }

    fn sized(document: Bytes) -> Result<Self, WorkError> {
        let (bytes, max) = (document.len(), Self::MAX_BYTES);
        if bytes > max { Err(WorkError::TooLarge { bytes, max }) } else { Ok(Self(document)) }
    }

    /// The document.
    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }
}

/// What a participant says to a prepare.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Vote {
    /// It can commit, whatever happens to it from now on, and does nothing before it is told to.
    Yes,
    /// Nothing was changed and nothing is held: it need not be told how it ends.
    ReadOnly,
    /// It cannot, and has kept nothing of it.
    No {
        /// Why, for a person.
        why: String,
    },
}

/// A transaction that a participant has prepared and was not told the end of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prepared {
    /// Which one.
    pub gid: Gid,
    /// For how long, by the participant's clock, where it knows.
    pub age: Option<Duration>,
    /// What it keeps others from, in the participant's words.
    pub held: Vec<String>,
}

/// Why a participant did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParticipantError {
    /// No answer: whether it was done is unknown.
    #[error("no answer, and it may have been done: {what}")]
    Unanswered {
        /// What came instead.
        what: String,
    },
    /// It cannot take part as it is: an operator has to do something.
    #[error("it cannot take part: {what}")]
    Unsuitable {
        /// What is in the way, and what to do.
        what: String,
    },
    /// It was told to end the transaction one way, and had ended it the other way by somebody's hand.
    #[error("it had been ended otherwise: {what}")]
    Contradicted {
        /// How, and by whom as far as is known.
        what: String,
    },
    /// It said that it could not do it just now. Nothing was done.
    #[error("it was not done: {what}")]
    Failed {
        /// What it said.
        what: String,
    },
}

/// A participant: a database or a service that can promise to commit, and keep the promise across its own death.
///
/// # What a coordinator relies on
/// * [`prepare`](Self::prepare) answers [`Vote::Yes`] only once the promise is durable.
/// * [`commit`](Self::commit) and [`abort`](Self::abort) may come twice, late, and in any order with a prepare: they then change nothing,
///   and are answered with `Ok`. So is an abort of what it does not know; a prepare that comes behind its abort is answered with [`Vote::No`],
///   or found by [`in_doubt`](Self::in_doubt) later. A commit of what it certainly never promised, or of what was aborted, is
///   [`Contradicted`](ParticipantError::Contradicted): a promise was lost.
/// * A prepare that comes again with other work is [`Vote::No`].
/// * [`in_doubt`](Self::in_doubt) names everything of the coordinator that holds something, and nothing of anybody else.
///
/// The coordinator gives each call a deadline, and drops its future then.
pub trait Participant: Send + Sync + 'static {
    /// Does the work as far as can be done without showing it, and promises to commit.
    fn prepare<'a>(&'a self, gid: &'a Gid, work: &'a Work) -> BoxFuture<'a, Result<Vote, ParticipantError>>;

    /// Ends a prepared transaction with what it promised.
    fn commit<'a>(&'a self, gid: &'a Gid) -> BoxFuture<'a, Result<(), ParticipantError>>;

    /// Ends a transaction as if it had not been.
    fn abort<'a>(&'a self, gid: &'a Gid) -> BoxFuture<'a, Result<(), ParticipantError>>;

    /// What it holds for `coordinator`.
    fn in_doubt(&self, coordinator: CoordinatorId) -> BoxFuture<'_, Result<Vec<Prepared>, ParticipantError>>;

    /// Whether it can prepare and commit in one step, which it is asked for where nobody else takes part.
    fn has_one_phase(&self) -> bool {
        false
    }

    /// Prepares and commits in one step: [`Vote::Yes`] means that it is done. Asked only of who [has](Self::has_one_phase) it.
    fn one_phase<'a>(&'a self, gid: &'a Gid, work: &'a Work) -> BoxFuture<'a, Result<Vote, ParticipantError>> {
        let _ = (gid, work);
        let what = "it has no single phase".to_owned();
        Box::pin(std::future::ready(Err(ParticipantError::Failed { what })))
    }

    /// Whether [`one_phase`](Self::one_phase) can be asked again for the same transaction, and is then answered as the first time. Where it
    /// cannot, an answer that does not come in time leaves the outcome unknown.
    fn repeats_one_phase(&self) -> bool {
        false
    }

    /// Learns that every transaction of the coordinator below `gid` has ended, and will not be spoken of again but by mistake.
    fn forget<'a>(&'a self, gid: &'a Gid) -> BoxFuture<'a, Result<(), ParticipantError>> {
        let _ = gid;
        Box::pin(std::future::ready(Ok(())))
    }
}
