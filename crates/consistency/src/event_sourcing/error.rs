//! How loading and handling can end other than well.

use std::{fmt::Debug, sync::Arc};

use quorate_data::{
    event::{Position, TagError, Version},
    schema::upcast::{TypeVersion, UpcastError},
    store::{AppendError, InvalidQuery, Retry, SqlError, StoreError},
};
use quorate_foundations::name::{Name, NameError};

use super::Moment;

/// Why a state could not be folded. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The store could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A room's table could not be read.
    #[error("the snapshots could not be read")]
    Snapshots(#[source] SqlError),
    /// The stream was closed for good.
    #[error("stream `{stream}` is tombstoned")]
    Tombstoned {
        /// The stream.
        stream: Name,
    },
    /// The stream holds an event that this code does not know, and skipping it was not allowed.
    #[error("version {version} of stream `{stream}` is a `{kind}`, which this code does not know")]
    UnknownType {
        /// The stream.
        stream: String,
        /// The event's place in it.
        version: Version,
        /// The event's type.
        kind: String,
    },
    /// An event's data cannot be read in the version it says it has.
    #[error("version {version} of stream `{stream}`, a `{kind}`, cannot be read")]
    Undecodable {
        /// The stream.
        stream: String,
        /// The event's place in it.
        version: Version,
        /// The event's type.
        kind: String,
        /// What is wrong with it.
        #[source]
        cause: Box<Undecodable>,
    },
    /// An event of the boundary was truncated or archived, and deciding without it was not allowed.
    #[error(
        "version {version} of stream `{stream}`, at position {position}, belongs to the boundary and was truncated or \
         archived; `Config::forgotten_events` decides without such events"
    )]
    Forgotten {
        /// The stream.
        stream: String,
        /// The event's place in it.
        version: Version,
        /// The event's place in the log.
        position: Position,
    },
    /// An event is missing in the middle of the stream.
    #[error("stream `{stream}` goes on with version {found} after version {after}")]
    Gap {
        /// The stream.
        stream: Name,
        /// The last version folded.
        after: Version,
        /// The version that came next.
        found: Version,
    },
    /// The stream was truncated again and again while it was read.
    #[error("stream `{stream}` keeps being truncated while it is read")]
    Moving {
        /// The stream.
        stream: Name,
    },
    /// Category and id, or what an event holds, make no name for a stream.
    #[error("the stream has no valid name")]
    Name(#[from] NameError),
}

/// Why an event's data could not be turned into an event of the domain.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Undecodable {
    /// It is not the JSON that the type's version asks for.
    #[error("its data does not have the shape of its version")]
    Json(#[from] serde_json::Error),
    /// It has a version that no upcasters lead away from: most likely a newer program wrote it.
    #[error("its data has version {found}, this code reads version {known}")]
    Version {
        /// The version it has.
        found: u32,
        /// The version this code writes.
        known: u32,
    },
    /// An upcaster failed, or does not reach so far.
    #[error("it could not be brought up to date")]
    Upcast(#[from] UpcastError),
    /// Its `dataschema` is not one that quorate writes.
    #[error("its `dataschema` is `{schema}`, which names no version")]
    Schema {
        /// The attribute.
        schema: String,
    },
}

/// Why a command was not carried out. Unless it says otherwise, nothing was written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HandleError<R: Debug> {
    /// A rule of the domain forbids it.
    #[error("the command was rejected")]
    Rejected(R),
    /// The state could not be folded.
    #[error("the state could not be loaded")]
    Load(#[from] LoadError),
    /// The append was refused, for another reason than that somebody else was first.
    #[error("the events could not be appended")]
    Append(#[source] AppendError),
    /// The store failed. With [`StoreError::OutcomeUnknown`] the events may have been written: repeat the command with
    /// the same command id to find out.
    #[error(transparent)]
    Store(StoreError),
    /// Other writers were first every time.
    #[error("other writers were first in {attempts} attempts at `{what}`")]
    Contended {
        /// The stream, or the boundary.
        what: String,
        /// How often it was decided.
        attempts: u32,
    },
    /// The command was carried out before, and its events have been truncated since, so that the first answer cannot be
    /// given again.
    #[error("the command was carried out before, at version {version} of `{stream}`, and its events are gone")]
    AlreadyHandled {
        /// The stream.
        stream: Name,
        /// The version of its first event.
        version: Version,
    },
    /// The command's id is that of another command, which was carried out. Nothing was done; ask again with an id of its own.
    #[error(
        "command `{command_id}` was carried out before, at version {version} of `{stream}`, and asked for something else"
    )]
    CommandIdReused {
        /// The id.
        command_id: Arc<str>,
        /// The stream.
        stream: Name,
        /// The version of the other command's first event.
        version: Version,
    },
    /// An event could not be written as JSON.
    #[error("event {index}, a `{kind}`, could not be written as JSON")]
    Encode {
        /// Which of the decision's events, counted from 0.
        index: usize,
        /// Its type.
        kind: &'static str,
        /// What serde said.
        #[source]
        cause: serde_json::Error,
    },
    /// An event carries a tag that is none.
    #[error("event {index}, a `{kind}`, carries a malformed tag")]
    Tag {
        /// Which of the decision's events, counted from 0.
        index: usize,
        /// Its type.
        kind: &'static str,
        /// The rule.
        #[source]
        cause: TagError,
    },
    /// The boundary cannot be asked for.
    #[error("the boundary is no valid query")]
    Boundary(#[from] InvalidQuery),
}

/// What became of an append that did not succeed.
pub(super) enum Refused<R: Debug> {
    /// Somebody else was first: read on and decide anew.
    Conflict,
    /// An event with one of its ids is in the log already, with other content.
    Known(AppendError),
    /// Anything else.
    Failed(HandleError<R>),
}

impl<R: Debug> From<AppendError> for Refused<R> {
    fn from(refused: AppendError) -> Self {
        match refused {
            AppendError::VersionConflict { .. } | AppendError::ConditionFailed { .. } => Self::Conflict,
            AppendError::IdReused { .. } | AppendError::PartlyKnown { .. } => Self::Known(refused),
            AppendError::Tombstoned { stream } => Self::Failed(LoadError::Tombstoned { stream }.into()),
            AppendError::Store(cause) => Self::Failed(HandleError::Store(cause)),
            other => Self::Failed(HandleError::Append(other)),
        }
    }
}

impl<R: Debug> HandleError<R> {
    /// Whether repeating the command can help; always with the same command id.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Store(cause) => cause.retry(),
            Self::Load(cause) => cause.retry(),
            Self::Contended { .. } => Retry::After(std::time::Duration::from_millis(50)),
            _ => Retry::Never,
        }
    }

    /// Whether the events may have been written although this is an error.
    pub fn is_outcome_unknown(&self) -> bool {
        matches!(self, Self::Store(StoreError::OutcomeUnknown))
    }
}

impl LoadError {
    /// Whether repeating can help.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Store(cause) | Self::Snapshots(SqlError::Store(cause)) => cause.retry(),
            Self::Moving { .. } => Retry::Now,
            _ => Retry::Never,
        }
    }
}

/// Why a moment of the past could not be shown.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TimeTravelError {
    /// The events could not be read.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The stream has not come so far.
    #[error("version {asked} was asked for, the stream is at {head}")]
    VersionAhead {
        /// The version asked for.
        asked: Version,
        /// The stream's version.
        head: Version,
    },
    /// The log has not come so far.
    #[error("position {asked} was asked for, the log is at {head}")]
    PositionAhead {
        /// The position asked for.
        asked: Position,
        /// The log's last position.
        head: Position,
    },
    /// The events of that time were truncated.
    #[error(
        "{asked} was asked for, the stream begins with version {first}, later than that: what came before was truncated"
    )]
    Truncated {
        /// The moment asked for.
        asked: Moment,
        /// The first version that is still there.
        first: Version,
    },
    /// The state could not be written as JSON, to be compared.
    #[error("the state could not be written as JSON")]
    State(#[from] serde_json::Error),
}

/// Why event sourcing could not be set up. Found at start-up, before the first command.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SetupError {
    /// The declaration of the events does not hold together.
    #[error("the events of `{decider}` are not declared well: {what}")]
    Events {
        /// The decider's type.
        decider: &'static str,
        /// What is wrong.
        what: String,
    },
    /// Events of an earlier version could not be read.
    #[error("the upcasters for `{decider}` do not hold together: {what}")]
    Upcasters {
        /// The decider's type.
        decider: &'static str,
        /// What is wrong.
        what: String,
    },
    /// The store cannot hold the states.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The category holds a `-`, which ends it.
    #[error("category `{category}` is empty or holds a `-`, which would end it")]
    Category {
        /// The category.
        category: &'static str,
    },
    /// The fold's fingerprint could not be computed.
    #[error("the state of `{decider}` cannot be written as JSON")]
    State {
        /// The decider's type.
        decider: &'static str,
        /// What serde said.
        #[source]
        cause: serde_json::Error,
    },
    /// An event of the stored probe can't be brought up to date.
    #[error("the event {of} of the stored probe of `{decider}` cannot be read")]
    Probe {
        /// The decider's type.
        decider: &'static str,
        /// What it is an event of.
        of: TypeVersion,
        /// Why not.
        #[source]
        cause: Box<Undecodable>,
    },
    /// The room's tables could not be made.
    #[error("the snapshots' table could not be made")]
    Tables(#[from] SqlError),
}
