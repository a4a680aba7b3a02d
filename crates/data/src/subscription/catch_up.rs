//! Catch-up: everything from some point on, then everything as it happens, with no seam between.
//!
//! A reader pulls pages until one reaches the log's head, then waits until the head moves. There is no hand-over from
//! "old" to "live", hence no event that falls between, and nothing is pushed: a slow reader simply reads later. Memory
//! holds one page, and lets go of it when the store forgets something: what was erased or truncated meanwhile is read
//! again as it is now.

use std::{collections::VecDeque, fmt, time::Duration};

use quorate_foundations::name::Name;
use tokio::sync::watch;

use crate::{
    event::{Position, Recorded, Version},
    store::{Query, ReadLog, ReadStream, Store, StoreError},
};

/// How often a reader that waits makes sure that its store is still open.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// A reader that catches up and then stays live.
///
/// Every matching event comes exactly once, in order, for as long as the reader lives; a new reader that begins at
/// [`cursor`](Self::cursor) continues without a gap.
///
/// # Example
/// ```
/// # use quorate_data::{event::Position, store::*, subscription::{CatchUp, Signal}};
/// # async fn example(store: Store) -> Result<(), StoreError> {
/// let mut reader = CatchUp::log(&store, Query::of([QueryItem::types(["order.placed"])]), Position::ZERO);
/// loop {
///     match reader.next().await? {
///         Signal::Event(event) => println!("{event:?}"),
///         Signal::CaughtUp { at } => println!("live from {at}"),
///         Signal::FellBehind { at } => println!("behind since {at}"),
///     }
/// }
/// # }
/// ```
pub struct CatchUp {
    store: Store,
    head: watch::Receiver<Position>,
    source: Source,
    page_events: usize,
    live: bool,
    /// The log's head when the source was last read to its end.
    seen: Option<Position>,
    /// Signals of the current page that [`next`](Self::next) has yet to return.
    pending: VecDeque<Signal>,
    /// Where `next` is: `source` may be a page ahead.
    at: Cursor,
    /// Moves when the store forgets something; seen as of before the current page was read.
    forgotten: watch::Receiver<u64>,
}

enum Source {
    Log { query: Query, scanned: Position },
    Stream { stream: Name, done: Version },
}

/// How far a reader is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cursor {
    /// Of the log: everything up to here was looked at, also where nothing matched.
    Log(Position),
    /// Of a stream: everything up to here was returned.
    Stream(Version),
}

/// What a reader meets.
#[derive(Clone, Debug, PartialEq)]
pub enum Signal {
    /// The next event.
    Event(Recorded),
    /// There is nothing more right now; what follows is live.
    CaughtUp {
        /// Where that is.
        at: Cursor,
    },
    /// More was appended than one page holds; catching up again.
    FellBehind {
        /// Where that is.
        at: Cursor,
    },
}

/// A page of events.
#[derive(Clone, Debug)]
pub struct Batch {
    /// The events, in order; none where nothing matched.
    pub events: Vec<Recorded>,
    /// How far the log or stream was looked at: the place to continue from once `events` are dealt with.
    pub cursor: Cursor,
    /// Whether that was the end.
    pub live: bool,
}

impl CatchUp {
    /// Events per page unless told otherwise.
    pub const PAGE_EVENTS: usize = 1_000;

    /// The events behind `after` that match `query`. Stubs are among them, as in [`Store::read_log`].
    pub fn log(store: &Store, query: Query, after: Position) -> Self {
        Self::new(store, Source::Log { query, scanned: after })
    }

    /// The events of `stream` behind `after`. Stubs are left out, as in [`Store::read_stream`].
    pub fn stream(store: &Store, stream: Name, after: Version) -> Self {
        Self::new(store, Source::Stream { stream, done: after })
    }

    fn new(store: &Store, source: Source) -> Self {
        let at = source.cursor();
        let (store, head) = (store.clone(), store.watch_head());
        let (pending, forgotten) = (VecDeque::new(), store.watch_forgotten());
        Self { store, head, source, page_events: Self::PAGE_EVENTS, live: false, seen: None, pending, at, forgotten }
    }

    /// With pages of at most `events` (1 to [`Limits::page_events`](crate::store::Limits::page_events)), which is also
    /// the most that memory holds.
    ///
    /// # Panics
    /// If `events` is zero: such a reader would never get anywhere.
    #[must_use]
    pub fn page_events(mut self, events: usize) -> Self {
        assert!(events > 0, "a page holds at least one event");
        self.page_events = events;
        self
    }

    /// How far the reader is: all that [`next`](Self::next) or [`next_batch`](Self::next_batch) returned, and what did
    /// not match. It advances over events that do not match, also while `next` waits.
    pub fn cursor(&self) -> Cursor {
        if self.pending.is_empty() { self.source.cursor() } else { self.at }
    }

    /// Whether the reader had reached the end when it last looked.
    pub fn is_live(&self) -> bool {
        self.live
    }

    /// The next event or signal. Waits while there is none.
    ///
    /// # Errors
    /// The store's; [`StoreError::Closed`] once it closes. The reader may be used again after any of them.
    ///
    /// # Cancel safety
    /// Cancel safe: dropping the future loses nothing.
    pub async fn next(&mut self) -> Result<Signal, StoreError> {
        loop {
            self.let_go();
            if let Some(signal) = self.pending.pop_front() {
                if let Signal::Event(event) = &signal {
                    self.at = self.at.behind(event);
                }
                return Ok(signal);
            }
            let (was_live, before) = (self.live, self.source.cursor());
            let batch = self.read().await?;
            self.at = before;
            self.pending.extend(signals(was_live, before, batch));
        }
    }

    /// The next page: waits while there is nothing new. A page may be empty where nothing matched, or where the reader
    /// has just reached the end.
    ///
    /// The way for throughput: events are handed over by the page, with no channel or task between. Not to be mixed
    /// with [`next`](Self::next), whose current page it would overtake: that page is returned first.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    ///
    /// # Cancel safety
    /// Cancel safe: dropping the future loses nothing.
    pub async fn next_batch(&mut self) -> Result<Batch, StoreError> {
        loop {
            self.let_go();
            if !self.pending.is_empty() {
                let events = self.pending.drain(..).filter_map(|signal| match signal {
                    Signal::Event(event) => Some(event),
                    Signal::CaughtUp { .. } | Signal::FellBehind { .. } => None,
                });
                return Ok(Batch { events: events.collect(), cursor: self.source.cursor(), live: self.live });
            }
            let before = (self.source.cursor(), self.live);
            let batch = self.read().await?;
            if !self.is_stale() {
                return Ok(batch);
            }
            self.go_back(before);
        }
    }

    /// Lets go of the page if it was read before the store forgot something; what is left of it is read again.
    fn let_go(&mut self) {
        if self.pending.is_empty() || !self.is_stale() {
            return;
        }
        // What was not told yet has not been so, and is found out again.
        let live = match (self.pending.front(), self.pending.back()) {
            (Some(Signal::FellBehind { .. }), _) => true,
            (_, Some(Signal::CaughtUp { .. })) => false,
            _ => self.live,
        };
        self.pending.clear();
        self.go_back((self.at, live));
    }

    fn is_stale(&self) -> bool {
        // An error says that the store is gone; the next read tells so.
        self.forgotten.has_changed().unwrap_or(true)
    }

    fn go_back(&mut self, (cursor, live): (Cursor, bool)) {
        match (&mut self.source, cursor) {
            (Source::Log { scanned, .. }, Cursor::Log(position)) => *scanned = position,
            (Source::Stream { done, .. }, Cursor::Stream(version)) => *done = version,
            (Source::Log { .. }, Cursor::Stream(_)) | (Source::Stream { .. }, Cursor::Log(_)) => {
                unreachable!("a reader's cursor is of its source")
            }
        }
        (self.live, self.seen) = (live, None);
    }

    /// Reads a page that tells something new.
    async fn read(&mut self) -> Result<Batch, StoreError> {
        loop {
            self.wait().await?;
            let before = (self.source.cursor(), self.live);
            let batch = self.page().await?;
            if (batch.cursor, batch.live) != before || !batch.events.is_empty() {
                return Ok(batch);
            }
        }
    }

    /// Waits until there is reason to look again.
    async fn wait(&mut self) -> Result<(), StoreError> {
        // Ordering: the wait is for a head beyond the one that the last page reached, and every page is read after the
        // head it is compared with was published; an append between the two is in the page or moves the head.
        let Some(seen) = self.seen else { return Ok(()) };
        let moved = self.head.wait_for(|head| *head > seen);
        match self.store.env().timeout(LOOK_AGAIN, moved).await {
            Some(Err(_)) => Err(StoreError::Closed),
            // Nothing moved: looking again tells whether the store is still open.
            Some(Ok(_)) | None => Ok(()),
        }
    }

    async fn page(&mut self) -> Result<Batch, StoreError> {
        let head = *self.head.borrow_and_update();
        // Ordering: before the read, so that what is forgotten during it counts as forgotten after it.
        self.forgotten.mark_unchanged();
        let (events, end) = match &mut self.source {
            Source::Log { query, scanned } => {
                let read = ReadLog { query: query.clone(), after: *scanned, limit: self.page_events };
                let page = self.store.read_log(read).await?;
                *scanned = page.scanned;
                (page.events, (page.scanned >= page.head).then_some(page.scanned))
            }
            Source::Stream { stream, done } => {
                let read = ReadStream::forward(stream.clone(), self.page_events).from(done.next());
                let page = self.store.read_stream(read).await?;
                let last = page.next.map_or(page.head.version, |next| Version::new(next.get() - 1));
                *done = last.max(*done);
                (page.events, page.next.is_none().then_some(head))
            }
        };
        self.seen = end;
        self.live = end.is_some();
        Ok(Batch { events, cursor: self.source.cursor(), live: self.live })
    }
}

fn signals(was_live: bool, before: Cursor, batch: Batch) -> impl Iterator<Item = Signal> {
    let fell_behind = (was_live && !batch.live).then_some(Signal::FellBehind { at: before });
    let caught_up = (!was_live && batch.live).then_some(Signal::CaughtUp { at: batch.cursor });
    fell_behind.into_iter().chain(batch.events.into_iter().map(Signal::Event)).chain(caught_up)
}

impl Source {
    fn cursor(&self) -> Cursor {
        match self {
            Self::Log { scanned, .. } => Cursor::Log(*scanned),
            Self::Stream { done, .. } => Cursor::Stream(*done),
        }
    }
}

impl Cursor {
    /// As a number: the position or version.
    pub fn get(self) -> u64 {
        match self {
            Self::Log(position) => position.get(),
            Self::Stream(version) => version.get(),
        }
    }

    fn behind(self, event: &Recorded) -> Self {
        match self {
            Self::Log(_) => Self::Log(event.position()),
            Self::Stream(_) => Self::Stream(event.version()),
        }
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Log(position) => write!(f, "position {position}"),
            Self::Stream(version) => write!(f, "version {version}"),
        }
    }
}
