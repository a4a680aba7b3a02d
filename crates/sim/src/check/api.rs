//! The vocabulary of a node's clients: what they ask, what they are told, and what the log holds in the end.
//!
//! Plain data, close to the HTTP API but no part of it: a scenario translates its requests and replies. One history of
//! these calls feeds every checker of appends and reads.
//!
//! | HTTP | recorded as |
//! |---|---|
//! | 201 | `Ok` with [`Reply::Appended`] |
//! | 412 | `Ok` with [`Reply::WrongVersion`] |
//! | 409 for an id or a batch half known | `Ok` with [`Reply::IdConflict`] |
//! | 409 for a condition | `Ok` with [`Reply::ConditionFailed`] |
//! | 422 for a key with another request | `Ok` with [`Reply::KeyReused`] |
//! | a problem with `outcome: unchanged`, a refused connection | `Failed` |
//! | `outcome: unknown`, a timeout, a lost connection | `Unknown` |

use std::fmt;

use serde::{Deserialize, Serialize};

/// An event as a client sends it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SentEvent {
    /// Its id; with several sources, source and id together. Unique within its stream.
    pub id: String,
    /// A digest of what it says, so that changed content is noticed.
    pub content: u64,
    /// Its type.
    #[serde(rename = "type", default)]
    pub kind: String,
    /// Its tags, `key:value`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
}

impl SentEvent {
    /// An event without type and tags.
    pub fn new(id: impl Into<String>, content: u64) -> Self {
        Self { id: id.into(), content, kind: String::new(), tags: Vec::new() }
    }
}

/// An event as a reader or a subscriber receives it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LoggedEvent {
    /// Its place in the log, counted from 1.
    pub position: u64,
    /// Its stream.
    pub stream: String,
    /// Its place in the stream, counted from 1.
    pub version: u64,
    /// What it says.
    #[serde(flatten)]
    pub event: SentEvent,
}

impl fmt::Display for LoggedEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "event {} (version {} of {}, position {})", self.event.id, self.version, self.stream, self.position)
    }
}

/// The version a writer expects of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Expected {
    /// Any.
    Any,
    /// It has no events yet.
    NoStream,
    /// It has events.
    StreamExists,
    /// Exactly this one.
    Exact(u64),
}

impl Expected {
    /// Whether a stream at `version` is as expected.
    pub fn accepts(self, version: u64) -> bool {
        match self {
            Self::Any => true,
            Self::NoStream => version == 0,
            Self::StreamExists => version > 0,
            Self::Exact(expected) => version == expected,
        }
    }
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any version"),
            Self::NoStream => f.write_str("no stream"),
            Self::StreamExists => f.write_str("a stream"),
            Self::Exact(version) => write!(f, "version {version}"),
        }
    }
}

/// Which events a condition is about: those that match any of the items. Without items, none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Query {
    /// The items.
    pub items: Vec<QueryItem>,
}

/// Events of one of these types (any, if there are none) that have all of these tags.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueryItem {
    /// Types, of which one is enough.
    pub types: Vec<String>,
    /// Tags, all of which are needed.
    pub tags: Vec<String>,
}

impl Query {
    /// Events that have all of these tags.
    pub fn tagged<const N: usize>(tags: [&str; N]) -> Self {
        Self { items: vec![QueryItem { types: Vec::new(), tags: tags.map(str::to_owned).to_vec() }] }
    }

    /// Whether `event` is one of those asked for.
    pub fn matches(&self, event: &SentEvent) -> bool {
        self.items.iter().any(|QueryItem { types, tags }| {
            (types.is_empty() || types.contains(&event.kind)) && tags.iter().all(|tag| event.tags.contains(tag))
        })
    }
}

/// An append fails if an event matches that is behind a position.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Condition {
    /// The events that would forbid the append.
    pub fails_if_match: Query,
    /// The newest position that the writer knew.
    pub after: u64,
}

/// What an append has for one stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// The stream.
    pub stream: String,
    /// What is expected of it.
    pub expected: Expected,
    /// Its new events.
    pub events: Vec<SentEvent>,
}

/// An append to one stream or to several at once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Append {
    /// Different streams.
    pub parts: Vec<Part>,
    /// Conditions on the log.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// The idempotency key, unique within (principal, method, path).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

impl Append {
    /// An append to one stream.
    pub fn to(stream: impl Into<String>, expected: Expected, events: Vec<SentEvent>) -> Self {
        Self { parts: vec![Part { stream: stream.into(), expected, events }], conditions: Vec::new(), key: None }
    }

    /// With an idempotency key.
    #[must_use]
    pub fn with_key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// With a condition.
    #[must_use]
    pub fn unless(mut self, fails_if_match: Query, after: u64) -> Self {
        self.conditions.push(Condition { fails_if_match, after });
        self
    }

    /// Every event with its stream.
    pub fn events(&self) -> impl Iterator<Item = (&str, &SentEvent)> {
        self.parts.iter().flat_map(|part| part.events.iter().map(|event| (part.stream.as_str(), event)))
    }
}

/// A read forward, of one stream or of the whole log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Read {
    /// The stream; `None` for the log.
    pub stream: Option<String>,
    /// Behind which version (of the stream) or position (of the log) it begins. 0 for the start.
    pub after: u64,
    /// How many events it returns at most.
    pub limit: u64,
    /// The token it was sent with: the reader has a right to see what the token stands for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
}

impl Read {
    /// A read of one stream.
    pub fn stream(stream: impl Into<String>, after: u64, limit: u64) -> Self {
        Self { stream: Some(stream.into()), after, limit, token: None }
    }

    /// A read of the log.
    pub fn log(after: u64, limit: u64) -> Self {
        Self { stream: None, after, limit, token: None }
    }

    /// With a token.
    #[must_use]
    pub fn with_token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(token.into());
        self
    }

    /// What this read counts: versions of its stream, or positions.
    pub fn place_of(&self, event: &LoggedEvent) -> u64 {
        if self.stream.is_some() { event.version } else { event.position }
    }
}

/// What a client asks of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Call {
    /// Append events.
    Append(Append),
    /// Read events.
    Read(Read),
}

/// What it is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reply {
    /// To an append: it is durable, now or since it was first sent.
    Appended {
        /// The version of each part's stream after its events, in the order of the parts.
        versions: Vec<u64>,
        /// What a later read is sent with to see them.
        token: Option<String>,
    },
    /// To an append: a stream is not as expected.
    WrongVersion {
        /// Its version, if told.
        actual: Option<u64>,
    },
    /// To an append: an id is known with other content, or only some of the ids are known.
    IdConflict,
    /// To an append: an event matches its condition.
    ConditionFailed,
    /// To an append: the key was used for another request.
    KeyReused,
    /// To a read.
    Events {
        /// The events.
        events: Vec<LoggedEvent>,
        /// What a later read is sent with to see at least as much.
        token: Option<String>,
    },
}

impl Reply {
    /// To an append to one stream, without token.
    pub fn appended(version: u64) -> Self {
        Self::Appended { versions: vec![version], token: None }
    }

    /// To a read, without token.
    pub fn events(events: Vec<LoggedEvent>) -> Self {
        Self::Events { events, token: None }
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Append(Append { parts, conditions, key }) => {
                for (n, Part { stream, expected, events }) in parts.iter().enumerate() {
                    f.write_str(if n == 0 { "append " } else { " and " })?;
                    let ids: Vec<&str> = events.iter().map(|event| event.id.as_str()).collect();
                    write!(f, "{} to {stream}, expecting {expected}", ids.join(", "))?;
                }
                for Condition { after, .. } in conditions {
                    write!(f, ", unless there is a match after {after}")?;
                }
                key.as_ref().map_or(Ok(()), |key| write!(f, ", key {key}"))
            }
            Self::Read(Read { stream, after, limit, token }) => {
                write!(f, "read {}", stream.as_deref().unwrap_or("the log"))?;
                if *after > 0 {
                    write!(f, " after {after}")?;
                }
                if *limit < u64::MAX {
                    write!(f, ", at most {limit}")?;
                }
                if token.is_some() { f.write_str(", with a token") } else { Ok(()) }
            }
        }
    }
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Appended { versions, .. } => {
                let versions: Vec<String> = versions.iter().map(u64::to_string).collect();
                write!(f, "at version {}", versions.join(", "))
            }
            Self::WrongVersion { actual: Some(actual) } => write!(f, "wrong version, it is {actual}"),
            Self::WrongVersion { actual: None } => f.write_str("wrong version"),
            Self::IdConflict => f.write_str("id conflict"),
            Self::ConditionFailed => f.write_str("condition failed"),
            Self::KeyReused => f.write_str("key reused"),
            Self::Events { events, .. } => match events.as_slice() {
                [] => f.write_str("no events"),
                [one] => write!(f, "1 event, {}", one.event.id),
                [first, .., last] => write!(f, "{} events, {} to {}", events.len(), first.event.id, last.event.id),
            },
        }
    }
}

/// What a node's clients recorded.
pub type History = super::history::History<Call, Reply>;

/// The recorder for it.
pub type Recorder = super::history::Recorder<Call, Reply>;

/// An operation of such a history.
pub type Operation = super::history::Operation<Call, Reply>;
