//! Appending: what to write, on which condition, and how it can end.

use std::sync::Arc;

use quorate_foundations::name::Name;

use super::{Query, StoreError, Token};
use crate::{
    event::{InvalidEvent, NewEvent, Position, Version},
    schema::Rejection,
};

/// What a stream must be like for an append to happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ExpectedVersion {
    /// Anything.
    #[default]
    Any,
    /// No event in it yet.
    NoStream,
    /// At least one event in it.
    StreamExists,
    /// Exactly this version.
    Exact(Version),
}

impl ExpectedVersion {
    /// Whether a stream at `actual` satisfies it.
    pub fn accepts(self, actual: Version) -> bool {
        match self {
            Self::Any => true,
            Self::NoStream => actual == Version::ZERO,
            Self::StreamExists => actual > Version::ZERO,
            Self::Exact(version) => actual == version,
        }
    }
}

impl std::fmt::Display for ExpectedVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Any => f.write_str("any version"),
            Self::NoStream => f.write_str("no stream"),
            Self::StreamExists => f.write_str("an existing stream"),
            Self::Exact(version) => write!(f, "version {version}"),
        }
    }
}

/// What was expected of `what`, what is, and what to do about it.
#[derive(Clone, Copy)]
pub(crate) struct Mismatch {
    expected: ExpectedVersion,
    actual: Version,
    /// That it is there, to follow "was expected".
    is_there: (&'static str, &'static str),
}

impl Mismatch {
    /// Of a stream.
    pub(crate) fn of_stream(expected: ExpectedVersion, actual: Version) -> Self {
        Self { expected, actual, is_there: ("to exist", "does not exist") }
    }

    /// Of a stream's metadata.
    pub(crate) fn of_metadata(expected: ExpectedVersion, actual: Version) -> Self {
        Self { expected, actual, is_there: ("to be set", "was never set") }
    }
}

impl std::fmt::Display for Mismatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { expected, actual, is_there: (there, missing) } = *self;
        match expected {
            ExpectedVersion::Any => f.write_str("was expected at any version")?,
            ExpectedVersion::NoStream => write!(f, "was expected not {there}")?,
            ExpectedVersion::StreamExists => write!(f, "was expected {there}")?,
            ExpectedVersion::Exact(version) => write!(f, "was expected at version {version}")?,
        }
        match actual {
            Version::ZERO => write!(f, ", and {missing}")?,
            actual => write!(f, ", and is at version {actual}")?,
        }
        f.write_str(match (expected, actual) {
            (_, Version::ZERO) => ": check the name, or begin it without this expectation",
            (ExpectedVersion::Exact(version), actual) if actual < version => {
                ": this store never had that version; check the name, read it, and decide anew"
            }
            (ExpectedVersion::NoStream, _) => ": read it, and expect its version, or choose another name",
            _ => ": somebody else was first; read what is new, decide anew, and expect the new version",
        })
    }
}

/// Events for one stream.
#[derive(Clone, Debug)]
pub struct StreamAppend {
    /// The stream; it comes into being with its first event.
    pub stream: Name,
    /// What the stream must be like.
    pub expected: ExpectedVersion,
    /// The events, in order; at least one.
    pub events: Vec<NewEvent>,
}

/// A condition across streams: the append fails if events match `query` behind `after`.
///
/// Source: the append condition of Dynamic Consistency Boundaries, <https://dcb.events/specification/>.
#[derive(Clone, Debug)]
pub struct AppendCondition {
    /// What must not be there.
    pub fail_if_match: Query,
    /// Events up to here were known when the decision was made. Zero: none. Not behind the end of the log.
    pub after: Position,
}

/// Events for one or several streams that are appended together or not at all.
///
/// **Idempotent.** An event is known by its stream, `source` and `id`. A batch whose events are all known changes
/// nothing and is answered as the first time, whatever it expects; this holds for ever, also after a truncate.
#[derive(Clone, Debug, Default)]
pub struct AppendBatch {
    /// What to write; a stream appears at most once.
    pub streams: Vec<StreamAppend>,
    /// Conditions across streams; all must hold.
    pub conditions: Vec<AppendCondition>,
}

impl AppendBatch {
    /// The most conditions of one append.
    pub const MAX_CONDITIONS: usize = 100;
    /// The most types, tags and categories that the conditions of one append name together.
    pub const MAX_CONDITION_WORDS: usize = 10_000;
    /// How much the conditions of one append look at together, on the embedded store, before the writer's turn: events of
    /// up to 1 KiB (a larger one counts for several), and steps from one list of the index to another. Beyond it, or
    /// beyond [`Limits::unit_time`](super::Limits::unit_time), the append is refused; one that names a tag in each of its
    /// conditions never gets near it.
    pub const MAX_LOOKS: usize = 200_000;
    /// The same for the writer, who looks at what was appended since; or at everything, where a transaction appends what
    /// was not [checked](super::Store::check) before.
    pub const MAX_LOOKS_OF_WRITER: usize = 50_000;

    /// Events for one stream.
    pub fn to(stream: Name, expected: ExpectedVersion, events: Vec<NewEvent>) -> Self {
        Self { streams: vec![StreamAppend { stream, expected, events }], conditions: Vec::new() }
    }

    /// The same, together with events for another stream.
    #[must_use]
    pub fn and_to(mut self, stream: Name, expected: ExpectedVersion, events: Vec<NewEvent>) -> Self {
        self.streams.push(StreamAppend { stream, expected, events });
        self
    }

    /// The same, on a condition.
    #[must_use]
    pub fn if_none_match(mut self, fail_if_match: Query, after: Position) -> Self {
        self.conditions.push(AppendCondition { fail_if_match, after });
        self
    }
}

/// What an append did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Appended {
    /// For each stream, in the order given, its version after the append.
    pub versions: Vec<(Name, Version)>,
    /// Presents this append to a later read: read your writes.
    pub token: Token,
    /// Whether nothing was written because all events were known: this is the answer of the first time.
    pub repeated: bool,
}

impl Appended {
    /// The version of the first stream after the append.
    pub fn version(&self) -> Version {
        self.versions.first().map_or(Version::ZERO, |(_, version)| *version)
    }
}

/// Why nothing was appended. Except where it says so, repeating the same append is safe and cannot double anything.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AppendError {
    /// Another writer was first. Read, decide anew.
    #[error("stream `{stream}` {}", Mismatch::of_stream(*expected, *actual))]
    VersionConflict {
        /// The stream.
        stream: Name,
        /// What was asked for.
        expected: ExpectedVersion,
        /// What it is.
        actual: Version,
    },
    /// An event that must not be there is. Read, decide anew.
    #[error("condition {condition} does not hold: the event at position {position} matches it")]
    ConditionFailed {
        /// Which condition, counted from 0.
        condition: usize,
        /// An event that matches.
        position: Position,
    },
    /// A condition was decided on more than this log holds: on another timeline, which a restore ended. Compare what was
    /// read with the log, and decide anew.
    #[error("condition {condition} looks behind position {after}, this log ends at {head}")]
    Ahead {
        /// Which condition, counted from 0.
        condition: usize,
        /// Behind which position it looks.
        after: Position,
        /// Where the log ends.
        head: Position,
    },
    /// An event is known with other content. The id was used twice.
    #[error("event `{id}` of `{source_uri}` is already in stream `{stream}`, at version {version}, with other content")]
    IdReused {
        /// The stream.
        stream: Name,
        /// The event's `source`.
        source_uri: String,
        /// The event's `id`.
        id: String,
        /// Where it stands.
        version: Version,
    },
    /// Some of the batch's events are known, others are not: it was put together differently the first time.
    #[error("{known} of {total} events are already in the log: a repeated batch must be the same batch")]
    PartlyKnown {
        /// How many are known.
        known: usize,
        /// How many there are.
        total: usize,
    },
    /// The stream was closed for good.
    #[error("stream `{stream}` is tombstoned and takes no more events")]
    Tombstoned {
        /// The stream.
        stream: Name,
    },
    /// The stream is one of a room's own records: see [`reserved_for`](super::reserved_for). Ask the room for what is to change.
    #[error("stream `{stream}` is a record of quorate's own, of its room `{room}`, which alone appends to it")]
    Reserved {
        /// The stream.
        stream: Name,
        /// Whose it is.
        room: &'static str,
    },
    /// An event breaks a rule.
    #[error("event {index} of stream `{stream}` was refused")]
    Invalid {
        /// The stream.
        stream: Name,
        /// Which event, counted from 0.
        index: usize,
        /// The rule.
        #[source]
        cause: InvalidEvent,
    },
    /// An event does not fit the schema of its type. It helps only to change the event, or the schema.
    #[error("event {index} of stream `{stream}`, a `{event_type}`, was refused")]
    Schema {
        /// The stream.
        stream: Name,
        /// Which event, counted from 0.
        index: usize,
        /// Its type.
        event_type: Arc<str>,
        /// What is wrong with it.
        #[source]
        cause: Rejection,
    },
    /// The batch breaks a limit or repeats itself, or its conditions would have to look at too much of the log.
    #[error("{what}")]
    Malformed {
        /// Which limit, by how much, and what to do.
        what: String,
    },
    /// A view that is kept in the append's own transaction cannot take an event in.
    #[error("view `{view}` is kept in the append's transaction and refuses it: {what}")]
    View {
        /// The view.
        view: Arc<str>,
        /// Why.
        what: String,
    },
    /// The store could not take it.
    #[error(transparent)]
    Store(#[from] StoreError),
}
