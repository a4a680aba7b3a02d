//! What to read, and what a conditional append must not find.

use quorate_foundations::name::Name;

use super::Rules;
use crate::event::{Position, Recorded, Tags, Version};

/// Which events: those that match any of the items; every event where there are no items.
///
/// # Example
/// ```
/// use quorate_data::store::{Query, QueryItem};
/// let query = Query::of([QueryItem::types(["seat.taken"]).tagged(["show:7", "seat:12"])]);
/// assert!(!query.is_everything());
/// ```
/// Source: the query of Dynamic Consistency Boundaries, <https://dcb.events/specification/>.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    /// Alternatives.
    pub items: Vec<QueryItem>,
}

/// An event matches an item when its type is any of `types`, its stream's category any of `categories`, and it carries
/// all of `tags`. An empty list asks for nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueryItem {
    /// Any of these types.
    pub types: Vec<String>,
    /// All of these tags.
    pub tags: Vec<String>,
    /// Any of these categories: everything up to the first `-` of the stream's name.
    pub categories: Vec<String>,
}

impl Query {
    /// The most items a query has, and the most words in each list of an item.
    pub const MAX_WORDS: usize = 100;

    /// Every event.
    pub const EVERYTHING: Self = Self { items: Vec::new() };

    /// Events that match any of `items`.
    pub fn of(items: impl IntoIterator<Item = QueryItem>) -> Self {
        Self { items: items.into_iter().collect() }
    }

    /// Whether every event matches.
    pub fn is_everything(&self) -> bool {
        self.items.is_empty() || self.items.iter().any(QueryItem::is_everything)
    }

    /// Whether `event` matches.
    pub fn matches(&self, event: &Recorded) -> bool {
        self.items.is_empty() || self.items.iter().any(|item| item.matches(event))
    }

    /// Whether it is within the limits, and its tags could be tags.
    pub fn check(&self) -> Result<(), InvalidQuery> {
        let lists = self.items.iter().flat_map(|item| [&item.types, &item.tags, &item.categories]);
        let longest = lists.map(Vec::len).chain([self.items.len()]).max().unwrap_or(0);
        if longest > Self::MAX_WORDS {
            return Err(InvalidQuery::TooLarge { count: longest });
        }
        self.items.iter().flat_map(|item| &item.tags).try_for_each(|tag| Ok(Tags::check(tag)?))
    }
}

/// Why a query was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidQuery {
    /// Too many items, or words in one of them.
    #[error("a query has at most {max} items, types, tags or categories, this one has {count}", max = Query::MAX_WORDS)]
    TooLarge {
        /// How many there are.
        count: usize,
    },
    /// No event could carry this tag.
    #[error(transparent)]
    Tag(#[from] crate::event::TagError),
}

impl QueryItem {
    /// Events of any of `types`.
    pub fn types<T: Into<String>>(types: impl IntoIterator<Item = T>) -> Self {
        Self { types: types.into_iter().map(Into::into).collect(), ..Self::default() }
    }

    /// Events of streams of any of `categories`.
    pub fn categories<T: Into<String>>(categories: impl IntoIterator<Item = T>) -> Self {
        Self { categories: categories.into_iter().map(Into::into).collect(), ..Self::default() }
    }

    /// Events with all of `tags`.
    pub fn tags<T: Into<String>>(tags: impl IntoIterator<Item = T>) -> Self {
        Self::default().tagged(tags)
    }

    /// The same, and with all of `tags`.
    #[must_use]
    pub fn tagged<T: Into<String>>(mut self, tags: impl IntoIterator<Item = T>) -> Self {
        self.tags.extend(tags.into_iter().map(Into::into));
        self
    }

    pub(crate) fn is_everything(&self) -> bool {
        self.types.is_empty() && self.tags.is_empty() && self.categories.is_empty()
    }

    pub(crate) fn matches(&self, event: &Recorded) -> bool {
        (self.types.is_empty() || self.types.iter().any(|kind| kind == event.kind()))
            && (self.categories.is_empty() || self.categories.iter().any(|category| category == event.category()))
            && self.tags.iter().all(|tag| event.tags().any(|carried| carried == tag))
    }
}

/// Which way to read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Direction {
    /// Oldest first.
    #[default]
    Forward,
    /// Newest first.
    Backward,
}

/// A page of one stream.
#[derive(Clone, Debug)]
pub struct ReadStream {
    /// The stream.
    pub stream: Name,
    /// The version to begin with, included. `None`: the stream's beginning, or its end when reading backward.
    pub from: Option<Version>,
    /// Which way.
    pub direction: Direction,
    /// The most events to return.
    pub limit: usize,
}

impl ReadStream {
    /// The first `limit` events of `stream`.
    pub fn forward(stream: Name, limit: usize) -> Self {
        Self { stream, from: None, direction: Direction::Forward, limit }
    }

    /// The last `limit` events of `stream`, newest first.
    pub fn backward(stream: Name, limit: usize) -> Self {
        Self { stream, from: None, direction: Direction::Backward, limit }
    }

    /// The same, beginning with `version`.
    #[must_use]
    pub fn from(mut self, version: Version) -> Self {
        self.from = Some(version);
        self
    }
}

/// What a stream is like right now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamHead {
    /// The version of its last event; zero if it has none.
    pub version: Version,
    /// The first version whose event is still there; events before it were truncated or archived, or are beyond the
    /// stream's rules. 1 where nothing was.
    pub first: Version,
    /// Whether it was closed for good.
    pub tombstoned: bool,
    /// What it keeps.
    pub rules: Rules,
    /// The version of its metadata: how often they were set.
    pub metadata: Version,
}

impl Default for StreamHead {
    /// A stream without events.
    fn default() -> Self {
        Self {
            version: Version::ZERO,
            first: Version::new(1),
            tombstoned: false,
            rules: Rules::default(),
            metadata: Version::ZERO,
        }
    }
}

/// A page of a stream.
#[derive(Clone, Debug)]
pub struct StreamPage {
    /// Its events in the order asked for; stubs are left out.
    pub events: Vec<Recorded>,
    /// What the stream was like when the page was read.
    pub head: StreamHead,
    /// The version the next page begins with; `None` at the end.
    pub next: Option<Version>,
}

/// A page of the whole log, oldest first.
#[derive(Clone, Debug)]
pub struct ReadLog {
    /// Which events.
    pub query: Query,
    /// Begin behind this position.
    pub after: Position,
    /// The most events to return.
    pub limit: usize,
}

/// A page of the log.
#[derive(Clone, Debug)]
pub struct LogPage {
    /// The events that matched, in order of position. Stubs are among them: they keep their place.
    pub events: Vec<Recorded>,
    /// Where the next page begins: every event up to here was looked at, also where none matched.
    pub scanned: Position,
    /// The last position of the log when the page was read; `scanned` reaches it when the reader has caught up.
    pub head: Position,
}
