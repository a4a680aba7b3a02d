//! Following a stream or the log: what is there, then what comes.
//!
//! There is no seam to close: the same reads serve both. A follower reads pages until it has caught up, and again
//! whenever the log's head moves; it remembers only where it is. A slow one falls behind on disk, never in memory. Whoever
//! hands a batch on slowly asks before each piece whether something was forgotten meanwhile, and goes back if it was.

use std::time::Duration;

use quorate_data::{
    event::{Position, Recorded, Version},
    store::{Query, ReadLog, ReadStream, Store, StoreError},
};
use quorate_foundations::name::Name;
use tokio::sync::watch;

use super::ReadError;

/// What to follow, and behind which position.
#[derive(Clone, Debug)]
pub enum Source {
    /// The whole log.
    Log {
        /// Which events.
        query: Query,
        /// Begin behind this position.
        after: Position,
    },
    /// One stream, from a version on.
    Stream {
        /// The stream; it need not exist yet.
        stream: Name,
        /// The version to begin with.
        from: Version,
    },
    /// One stream, behind a position of the log: how a reader resumes.
    StreamAfter {
        /// The stream.
        stream: Name,
        /// The position of the last event it has seen.
        after: Position,
    },
}

/// A follower. It holds a place, not events: memory is one page.
pub struct Subscription {
    store: Store,
    head: watch::Receiver<Position>,
    place: Place,
    position: Position,
    caught_up: bool,
    /// Moves when the store forgets something; seen as of before the last batch was read.
    forgotten: watch::Receiver<u64>,
    /// How long to rest before the next look; `None` while looking was not in vain.
    pause: Option<Duration>,
}

enum Place {
    Log(Query),
    Stream { stream: Name, next: Version },
}

/// What comes next.
#[derive(Debug)]
pub struct Batch {
    /// Events in order; may be empty when something else is to be told.
    pub events: Vec<Recorded>,
    /// Whether, with these events, the follower has caught up for the first time or after falling behind.
    pub caught_up: bool,
    /// Whether the stream was closed for good: nothing will follow.
    pub over: bool,
}

/// Events read at a time.
const PAGE: usize = 256;

/// How long a follower that found nothing of its own in the newest events rests before it looks again; doubled each
/// time. It bounds what a quiet stream's follower costs on a busy log, and what it adds to the latency.
const PAUSES: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(16));

impl Subscription {
    pub(super) async fn start(store: Store, source: Source) -> Result<Self, ReadError> {
        let head = store.watch_head();
        let end = *head.borrow();
        let (place, position) = match source {
            Source::Log { query, after } => (Place::Log(query), after),
            Source::Stream { stream, from } => (Place::Stream { stream, next: from }, Position::ZERO),
            Source::StreamAfter { stream, after } => {
                let next = first_behind(&store, &stream, after).await?;
                (Place::Stream { stream, next }, after)
            }
        };
        if position > end {
            return Err(ReadError::Ahead { position, head: end });
        }
        let forgotten = store.watch_forgotten();
        let started = Self { store, head, place, position, caught_up: false, forgotten, pause: None };
        if let Place::Stream { stream, .. } = &started.place
            && started.store.stream_head(stream).await?.tombstoned
        {
            return Err(ReadError::Tombstoned { stream: stream.clone() });
        }
        Ok(started)
    }

    /// Everything up to here was looked at, also where nothing matched: the place to resume behind.
    pub fn position(&self) -> Position {
        self.position
    }

    /// Whether something was erased or retired since the last batch was read: what of it was not handed on yet may hold
    /// what nobody shall see any more.
    pub fn is_stale(&self) -> bool {
        self.forgotten.has_changed().unwrap_or(true)
    }

    /// Goes back to before `event`, one of the last batch, so that it and what follows is read again as it is now.
    /// `caught_up`: as the batch said.
    pub fn go_back(&mut self, event: &Recorded, caught_up: bool) {
        self.position = Position::new(event.position().get() - 1);
        if let Place::Stream { next, .. } = &mut self.place {
            *next = event.version();
        }
        self.caught_up &= !caught_up;
    }

    /// The next events, as soon as there is something to tell.
    ///
    /// # Errors
    /// [`StoreError::Closed`] when the store closes. After an error it can be called again.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing: the next call reads the same events.
    pub async fn next(&mut self) -> Result<Batch, StoreError> {
        loop {
            let (batch, at_end) = self.page().await?;
            if !batch.events.is_empty() || batch.caught_up || batch.over {
                self.pause = None;
                return Ok(batch);
            }
            if at_end {
                self.wait().await?;
            }
        }
    }

    /// Reads on from where it is, and says whether that was the end.
    async fn page(&mut self) -> Result<(Batch, bool), StoreError> {
        // Ordering: before the read, so that what is forgotten during it counts as forgotten after it.
        self.forgotten.mark_unchanged();
        let (events, at_end, over) = match &mut self.place {
            Place::Log(query) => {
                let read = ReadLog { query: query.clone(), after: self.position, limit: PAGE };
                let page = self.store.read_log(read).await?;
                self.position = page.scanned;
                (page.events, page.scanned >= page.head, false)
            }
            Place::Stream { stream, next } => {
                // Taken before the read: whatever of the stream lies up to here, the read sees.
                let head = *self.head.borrow_and_update();
                let page = self.store.read_stream(ReadStream::forward(stream.clone(), PAGE).from(*next)).await?;
                let at_end = page.next.is_none();
                if let Some(last) = page.events.last() {
                    (*next, self.position) = (last.version().next(), last.position());
                }
                if at_end {
                    self.position = self.position.max(head);
                }
                (page.events, at_end, page.head.tombstoned)
            }
        };
        // A full page that is not the end: it has fallen behind, and is told when it has caught up again.
        let caught_up = at_end && !self.caught_up;
        self.caught_up = at_end || (self.caught_up && events.len() < PAGE);
        Ok((Batch { events, caught_up, over }, at_end))
    }

    async fn wait(&mut self) -> Result<(), StoreError> {
        let seen = self.position;
        self.head.wait_for(|head| *head > seen).await.map_err(|_| StoreError::Closed)?;
        if !matches!(&self.place, Place::Log(query) if query.is_everything()) {
            if let Some(pause) = self.pause {
                self.store.env().sleep(pause).await;
            }
            self.pause = Some(self.pause.map_or(PAUSES.0, |pause| (pause * 2).min(PAUSES.1)));
        }
        Ok(())
    }
}

/// The first version of `stream` behind `position`, by halving: versions and positions rise together.
async fn first_behind(store: &Store, stream: &Name, position: Position) -> Result<Version, StoreError> {
    let head = store.stream_head(stream).await?;
    let (mut low, mut high) = (head.first.get().max(1), head.version.get() + 1);
    while low < high {
        let middle = low + (high - low) / 2;
        let read = ReadStream::forward(stream.clone(), 1).from(Version::new(middle));
        match store.read_stream(read).await?.events.first() {
            Some(event) if event.position() <= position => low = event.version().get() + 1,
            _ => high = middle,
        }
    }
    Ok(Version::new(low))
}
