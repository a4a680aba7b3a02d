//! Streams and the log: append, read, list.

use std::time::Duration;

use quorate_data::{
    event::{Position, Recorded, Version},
    store::{
        AppendBatch, AppendError, Appended, Archive, CheckedBatch, LogPage, Query, ReadLog, ReadStream, Store,
        StoreError, StreamHead, StreamPage, StreamSummary, Token,
    },
    subscription::CatchUp,
};
use quorate_foundations::name::Name;

use super::{Source, subscribe};

/// The verbs of streams, on one store. Cheap to clone.
#[derive(Clone)]
pub struct Streams {
    store: Store,
}

/// Why there is nothing to read.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// Nothing was ever appended to it.
    #[error("stream `{stream}` does not exist")]
    NoStream {
        /// The stream.
        stream: Name,
    },
    /// It was closed for good.
    #[error("stream `{stream}` is tombstoned: its events are gone")]
    Tombstoned {
        /// The stream.
        stream: Name,
    },
    /// It has no event of this version, or no longer has it.
    #[error("stream `{stream}` has no event {version}: it goes from {first} to {last}")]
    NoEvent {
        /// The stream.
        stream: Name,
        /// The version asked for.
        version: Version,
        /// The first there is.
        first: Version,
        /// The last there is.
        last: Version,
    },
    /// The event was moved to an archive.
    #[error("event {version} of stream `{stream}` was moved to archive {}, the file `{}`", archive.id, archive.name)]
    Archived {
        /// The stream.
        stream: Name,
        /// The version asked for.
        version: Version,
        /// Where it is.
        archive: Box<Archive>,
    },
    /// The reader knows a position that this log has not reached.
    #[error("position {position} is ahead of the log, which ends at {head}: it was given out on another timeline")]
    Ahead {
        /// The reader's position.
        position: Position,
        /// The log's last one.
        head: Position,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a read cannot include the write that a token names.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenUnmet {
    /// The store was restored or moved since, or it is another store.
    #[error("the token belongs to another store, or to a timeline before a restore or move of this one")]
    OtherTimeline,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The write is not readable here yet.
    #[error("the write that the token names is not readable here yet: the log ends at {head}")]
    Behind {
        /// How far one can read.
        head: Position,
    },
}

impl Streams {
    /// The verbs on `store`.
    pub fn new(store: Store) -> Self {
        Self { store }
    }

    /// The store they act on.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Appends a batch; see [`Store::append`].
    pub async fn append(&self, batch: AppendBatch) -> Result<Appended, AppendError> {
        self.store.append(batch).await
    }

    /// Holds a batch against the schemas, to be appended in a transaction; see [`Store::check`].
    pub async fn check(&self, batch: AppendBatch) -> CheckedBatch {
        self.store.check(batch).await
    }

    /// Reads a page of a stream that exists.
    ///
    /// # Errors
    /// [`ReadError::NoStream`] and [`ReadError::Tombstoned`]: there is nothing to read.
    pub async fn read(&self, read: ReadStream) -> Result<StreamPage, ReadError> {
        let stream = read.stream.clone();
        let page = self.store.read_stream(read).await?;
        present(stream, page.head).map(|_| page)
    }

    /// Reads one event of a stream.
    pub async fn event(&self, stream: Name, version: Version) -> Result<Recorded, ReadError> {
        let page = self.read(ReadStream::forward(stream.clone(), 1).from(version)).await?;
        let found = page.events.into_iter().find(|event| event.version() == version);
        let StreamHead { first, version: last, .. } = page.head;
        match found {
            Some(event) => Ok(event),
            None => Err(match self.archive_of(&stream, version).await? {
                Some(archive) => ReadError::Archived { stream, version, archive: Box::new(archive) },
                None => ReadError::NoEvent { stream, version, first, last },
            }),
        }
    }

    /// What a stream is like: also one that was tombstoned, not one that never was.
    pub async fn head(&self, stream: Name) -> Result<StreamHead, ReadError> {
        let head = self.store.stream_head(&stream).await?;
        match present(stream, head) {
            Err(ReadError::Tombstoned { .. }) => Ok(head),
            other => other,
        }
    }

    /// Whether the log has reached `position`. One that this store acknowledged it has: the head moves first.
    ///
    /// # Errors
    /// [`ReadError::Ahead`]: it was given out on another timeline.
    pub fn reached(&self, position: Position) -> Result<(), ReadError> {
        let head = self.store.head();
        if position > head { Err(ReadError::Ahead { position, head }) } else { Ok(()) }
    }

    /// Reads a page of the whole log.
    pub async fn log(&self, read: ReadLog) -> Result<LogPage, StoreError> {
        self.store.read_log(read).await
    }

    /// The same events as they are now: without data where that was erased or retired since they were read.
    pub async fn again(&self, events: &[Recorded]) -> Result<Vec<Recorded>, StoreError> {
        let mut now = Vec::with_capacity(events.len());
        for event in events {
            let after = Position::new(event.position().get() - 1);
            now.extend(self.log(ReadLog { query: Query::EVERYTHING, after, limit: 1 }).await?.events);
        }
        Ok(now)
    }

    /// Streams in order of their names, those behind `after` that begin with `prefix`.
    pub async fn list(
        &self,
        prefix: &str,
        after: Option<Name>,
        limit: usize,
    ) -> Result<Vec<StreamSummary>, StoreError> {
        self.store.streams(prefix, after, limit).await
    }

    /// Follows `source`: what is there first, then what comes, without a gap or a repetition.
    pub async fn subscribe(&self, source: Source) -> Result<CatchUp, ReadError> {
        subscribe::start(&self.store, source).await
    }

    /// The token of everything readable now, and at least of `seen`.
    pub fn token(&self, seen: Position) -> Token {
        self.store.token_from(seen)
    }

    /// Waits until the write that `token` names is readable, for at most `patience`.
    pub async fn reach(&self, token: Token, patience: Duration) -> Result<(), TokenUnmet> {
        if token.timeline() != self.store.timeline() {
            return Err(TokenUnmet::OtherTimeline);
        }
        match self.store.reach(token, patience).await? {
            Some(_) => Ok(()),
            None => Err(TokenUnmet::Behind { head: self.store.head() }),
        }
    }
}

fn present(stream: Name, head: StreamHead) -> Result<StreamHead, ReadError> {
    match head {
        StreamHead { tombstoned: true, .. } => Err(ReadError::Tombstoned { stream }),
        StreamHead { version: Version::ZERO, .. } => Err(ReadError::NoStream { stream }),
        head => Ok(head),
    }
}
