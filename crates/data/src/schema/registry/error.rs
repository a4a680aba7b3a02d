//! What registering and checking can end in.

use super::super::{
    compat::{Compatibility, Finding},
    document::SchemaFault,
    version::SchemaVersion,
};
use quorate_foundations::name::Name;
use std::fmt;

/// Why a schema was not registered. Nothing changed; repeating does not help.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RegisterError {
    /// The schema itself is refused.
    #[error(transparent)]
    Schema(#[from] SchemaFault),
    /// The schema breaks readers or writers of an earlier one.
    #[error("{event_type}: not {mode} compatible; {}", Listed(with, *not_compared))]
    Incompatible {
        /// The event type.
        event_type: Name,
        /// The mode asked for.
        mode: Compatibility,
        /// With which versions, and why; the latest first, never empty, at most [`MAX_INCOMPATIBLE`].
        with: Vec<Incompatibility>,
        /// How many earlier versions it was not compared with any more: enough was found, or the effort that comparing may
        /// take was used up.
        not_compared: usize,
    },
    /// The type has as many versions as a type may have.
    #[error("{event_type}: there are {limit} versions already, and no more are allowed")]
    TooManyVersions {
        /// The event type.
        event_type: Name,
        /// The limit.
        limit: usize,
    },
    /// The registry is full.
    #[error("all schemas together have {what} of {limit} at most, and this one would be beyond")]
    Full {
        /// Which of the [`Limits`](super::super::Limits), in words.
        what: &'static str,
        /// The limit.
        limit: usize,
    },
    /// A stored schema to compare with can no longer be read.
    #[error("{event_type}: the stored schema of version {version} cannot be used")]
    Broken {
        /// The event type.
        event_type: Name,
        /// The version.
        version: SchemaVersion,
        /// Why not.
        #[source]
        fault: SchemaFault,
    },
}

/// Most versions that a refusal names; what is older is not looked at any more.
pub const MAX_INCOMPATIBLE: usize = 4;

/// Why a new schema cannot follow one version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incompatibility {
    /// The earlier version.
    pub version: SchemaVersion,
    /// The reasons, never empty.
    pub findings: Vec<Finding>,
}

struct Listed<'a>(&'a [Incompatibility], usize);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, Incompatibility { version, findings }) in self.0.iter().enumerate() {
            f.write_str(if at > 0 { "; " } else { "" })?;
            let shown: Vec<_> = findings.iter().take(3).map(Finding::to_string).collect();
            write!(f, "with version {version}: {}", shown.join("; "))?;
            match findings.len().saturating_sub(3) {
                0 => {}
                more => write!(f, "; and {more} more")?,
            }
        }
        match self.1 {
            0 => Ok(()),
            1 => f.write_str("; one earlier version was not compared"),
            more => write!(f, "; {more} earlier versions were not compared"),
        }
    }
}

/// Why a persisted row was not put in force. Nothing changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RowError {
    /// A version is missing before it.
    #[error("{event_type}: version {found} does not follow; the next one is {expected}")]
    OutOfOrder {
        /// The event type.
        event_type: Name,
        /// The version that would follow.
        expected: SchemaVersion,
        /// The version of the row.
        found: SchemaVersion,
    },
    /// Another schema has this version already.
    #[error("{event_type}: version {version} is in force with another schema")]
    Taken {
        /// The event type.
        event_type: Name,
        /// The version.
        version: SchemaVersion,
    },
}

/// Why an event was refused. Whether repeating helps: never, unless a schema is registered meanwhile.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Rejection {
    /// The type has no schema, and the registry refuses such types.
    #[error("the event type has no schema")]
    UnknownType,
    /// The type has no such version.
    #[error("the event type has no version {asked}; its latest is {latest}")]
    UnknownVersion {
        /// What was asked for.
        asked: SchemaVersion,
        /// What there is.
        latest: SchemaVersion,
    },
    /// Its `dataschema` names no version of its type.
    #[error(
        "its `dataschema` is `{dataschema}`, which names no version of the event type; without one it counts as version 1"
    )]
    NoVersion {
        /// What it names, shortened.
        dataschema: String,
    },
    /// The data say of themselves that they are something else than JSON.
    #[error("the data are `{content_type}`, and only JSON can be held against a schema")]
    NotJsonType {
        /// The content type, shortened.
        content_type: String,
    },
    /// The data are not JSON.
    #[error("the data are not JSON (line {line}, column {column})")]
    NotJson {
        /// Where it went wrong, counted from 1.
        line: usize,
        /// Where in the line, in bytes, counted from 1.
        column: usize,
    },
    /// The data have a member twice.
    #[error("in the data a member stands twice (line {line}, column {column}); readers would disagree on which counts")]
    Twice {
        /// Where it stands again, counted from 1.
        line: usize,
        /// Where in the line, in bytes, counted from 1.
        column: usize,
    },
    /// The data are nested more deeply than is checked.
    #[error("the data are nested more than {limit} levels deep")]
    TooDeep {
        /// The limit, in levels of arrays and objects.
        limit: usize,
    },
    /// The data do not fit the schema.
    #[error("the data do not fit schema version {version}: {}{}", Shown(violations, *more), Unnamed(*newest))]
    Violations {
        /// The version checked against.
        version: SchemaVersion,
        /// What is wrong, in the order of the schema; never empty.
        violations: Vec<Violation>,
        /// Whether there are others.
        more: bool,
        /// The newest version, where the event named none and there are others than the first.
        newest: Option<SchemaVersion>,
    },
    /// The stored schema can no longer be used.
    #[error("the stored schema of version {version} cannot be used")]
    Broken {
        /// The version.
        version: SchemaVersion,
        /// Why not.
        #[source]
        fault: SchemaFault,
    },
}

/// One place where data do not fit. It quotes the schema, never the data, which may be personal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The JSON pointer of the place in the data, with `*` for each name of a member that the schema does not mention.
    pub instance: String,
    /// The JSON pointer of the rule in the schema.
    pub schema: String,
    /// What is wrong; at most 300 bytes.
    pub message: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`: {}", self.instance, self.message)
    }
}

impl Rejection {
    /// The same of an event that named no version, where `newest` is not the first.
    pub(in crate::schema) fn of_unnamed(self, newest: Option<SchemaVersion>) -> Self {
        match self {
            Self::Violations { version, violations, more, .. } => {
                Self::Violations { version, violations, more, newest }
            }
            other => other,
        }
    }
}

struct Unnamed(Option<SchemaVersion>);

impl fmt::Display for Unnamed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(newest) = self.0 else { return Ok(()) };
        write!(f, "; an event that names no version in `dataschema` counts as version 1, and the newest is {newest}")
    }
}

struct Shown<'a>(&'a [Violation], bool);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown: Vec<_> = self.0.iter().map(Violation::to_string).collect();
        f.write_str(&shown.join("; "))?;
        f.write_str(if self.1 { "; and more" } else { "" })
    }
}
