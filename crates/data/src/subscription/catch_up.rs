//! Catch-up: everything from some point on, then everything as it happens, with no seam between.
//!
//! A reader pulls pages until one reaches the end, then waits until something is added. There is no hand-over from "old"
//! to "live", hence no event that falls between, and nothing is pushed: a slow reader simply reads later. Memory holds one
//! page, and lets go of it when the store forgets something: what was erased or truncated meanwhile is read again as it is
//! now, by half as many at a time, so that a reader gets on while more and more is forgotten.

use std::{collections::VecDeque, fmt, time::Duration};

use quorate_foundations::name::Name;
use tokio::sync::watch;

use crate::{
    event::{Position, Recorded, Version},
    store::{Query, ReadLog, ReadStream, Store, StoreError},
};

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
    /// Moves when there may be something new.
    moves: watch::Receiver<Position>,
    /// Whether to look without waiting for a move.
    look: bool,
    source: Source,
    page_events: usize,
    /// How many events the next page asks for: fewer after a page that had to be let go of, so that one fits between two
    /// times that something is forgotten.
    next_page: usize,
    live: bool,
    over: bool,
    rests: Option<Rests>,
    /// Signals of the current page that [`next`](Self::next) has yet to return.
    pending: VecDeque<Signal>,
    /// Where `next` is: `source` may be a page ahead.
    at: Cursor,
    /// Where `position` was before the current page was read.
    before: Position,
    /// Moves when the store forgets something; seen as of before the current page was read.
    forgotten: watch::Receiver<u64>,
}

enum Source {
    Log { query: Query, scanned: Position },
    Stream { stream: Name, done: Version, position: Position },
}

/// How long a reader rests before it looks again where looking was in vain.
struct Rests {
    shortest: Duration,
    longest: Duration,
    next: Option<Duration>,
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
    /// The position of the log up to which everything was looked at: where a reader of another kind, or of another process,
    /// resumes. For a reader of a stream it may lag behind the log's head while the stream is quiet.
    pub position: Position,
    /// Whether that was the end.
    pub live: bool,
    /// Whether the stream was closed for good: nothing will follow.
    pub over: bool,
}

impl CatchUp {
    /// Events per page unless told otherwise.
    pub const PAGE_EVENTS: usize = 1_000;

    /// The events behind `after` that match `query`. Stubs are among them, as in [`Store::read_log`].
    pub fn log(store: &Store, query: Query, after: Position) -> Self {
        Self::new(store, store.watch_head(), Source::Log { query, scanned: after })
    }

    /// The events of `stream` behind `after`. Stubs are left out, as in [`Store::read_stream`].
    pub fn stream(store: &Store, stream: Name, after: Version) -> Self {
        let moves = store.watch_stream(&stream);
        Self::new(store, moves, Source::Stream { stream, done: after, position: Position::ZERO })
    }

    /// The events of `stream` behind a position of the log: how a reader resumes that remembers no version.
    ///
    /// # Errors
    /// The store's.
    pub async fn stream_behind(store: &Store, stream: Name, position: Position) -> Result<Self, StoreError> {
        let done = last_up_to(store, &stream, position).await?;
        let moves = store.watch_stream(&stream);
        Ok(Self::new(store, moves, Source::Stream { stream, done, position }))
    }

    fn new(store: &Store, moves: watch::Receiver<Position>, source: Source) -> Self {
        Self {
            store: store.clone(),
            moves,
            look: true,
            page_events: Self::PAGE_EVENTS,
            next_page: Self::PAGE_EVENTS,
            live: false,
            over: false,
            rests: None,
            pending: VecDeque::new(),
            at: source.cursor(),
            before: source.position(),
            forgotten: store.watch_forgotten(),
            source,
        }
    }

    /// With pages of at most `events` (1 to [`Limits::page_events`](crate::store::Limits::page_events)), which is also
    /// the most that memory holds.
    ///
    /// # Panics
    /// If `events` is zero: such a reader would never get anywhere.
    #[must_use]
    pub fn page_events(mut self, events: usize) -> Self {
        assert!(events > 0, "a page holds at least one event");
        (self.page_events, self.next_page) = (events, events);
        self
    }

    /// Rests before it looks again where what was appended last held nothing for it: `shortest` at first, then twice as long
    /// each time, up to `longest`. It bounds what a selective reader costs on a busy log, and what that adds to its
    /// latency. Without it, a reader looks whenever something is appended.
    #[must_use]
    pub fn resting(mut self, shortest: Duration, longest: Duration) -> Self {
        let all = matches!(&self.source, Source::Log { query, .. } if query.is_everything());
        self.rests = (!all).then_some(Rests { shortest, longest, next: None });
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
                let events = events.collect();
                return Ok(self.batch(events));
            }
            let before = (self.source.cursor(), self.live);
            let batch = self.read().await?;
            if !self.is_stale() {
                return Ok(batch);
            }
            self.rewind(before.0, before.1);
        }
    }

    /// Whether something was erased or retired since the last page was read: what of it was not handed on yet may hold
    /// what nobody shall see any more. For whoever hands a [`Batch`] on slowly: ask before each piece of it, and
    /// [go back](Self::go_back) if so.
    pub fn is_stale(&self) -> bool {
        // An error says that the store is gone; the next read tells so.
        self.forgotten.has_changed().unwrap_or(true)
    }

    /// Goes back to before `event`, one of the last [`Batch`], so that it and what follows is read again as it is now.
    pub fn go_back(&mut self, event: &Recorded) {
        self.pending.clear();
        self.rewind(self.source.cursor().before(event), false);
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
        self.rewind(self.at, live);
    }

    fn rewind(&mut self, to: Cursor, live: bool) {
        match (&mut self.source, to) {
            (Source::Log { scanned, .. }, Cursor::Log(to)) => *scanned = to,
            (Source::Stream { done, position, .. }, Cursor::Stream(to)) => {
                *done = to;
                // It may lag behind; ahead of what was returned it must not be.
                *position = self.before;
            }
            (Source::Log { .. }, Cursor::Stream(_)) | (Source::Stream { .. }, Cursor::Log(_)) => {
                unreachable!("a reader's cursor is of its source")
            }
        }
        (self.live, self.over, self.look) = (live, false, true);
        // Each page asks for twice as many as the one before: half of what was let go of.
        self.next_page = (self.next_page / 4).max(1);
    }

    /// Reads a page that tells something new.
    async fn read(&mut self) -> Result<Batch, StoreError> {
        loop {
            self.wait().await?;
            let (before, was) = ((self.source.cursor(), self.source.position()), (self.live, self.over));
            let batch = self.page().await?;
            let vain = batch.events.is_empty() && (batch.live, batch.over) == was;
            if vain && (batch.cursor, batch.position) == before {
                continue;
            }
            if let Some(rests) = &mut self.rests {
                rests.next = vain.then(|| rests.next.map_or(rests.shortest, |rest| (rest * 2).min(rests.longest)));
            }
            return Ok(batch);
        }
    }

    /// Waits until there is reason to look again.
    async fn wait(&mut self) -> Result<(), StoreError> {
        if !self.look {
            self.moves.changed().await.map_err(|_| StoreError::Closed)?;
            // Noted before anything else is awaited: a reader dropped from here on must not wait for another move.
            self.look = true;
        }
        if let Some(rest) = self.rests.as_ref().and_then(|rests| rests.next).filter(|_| self.live) {
            self.store.env().sleep(rest).await;
        }
        Ok(())
    }

    async fn page(&mut self) -> Result<Batch, StoreError> {
        // Ordering: all are taken before the read. What was appended up to `head` is in the page; an append that is not
        // moves the mark again, and what is forgotten during the read counts as forgotten after it.
        self.moves.mark_unchanged();
        self.forgotten.mark_unchanged();
        self.before = self.source.position();
        let (head, was_live, limit) = (self.store.head(), self.live, self.next_page);
        self.next_page = limit.saturating_mul(2).min(self.page_events);
        let events = match &mut self.source {
            Source::Log { query, scanned } => {
                let read = ReadLog { query: query.clone(), after: *scanned, limit };
                let page = self.store.read_log(read).await?;
                *scanned = page.scanned;
                self.live = page.scanned >= page.head;
                page.events
            }
            Source::Stream { stream, done, position } => {
                let read = ReadStream::forward(stream.clone(), limit).from(done.next());
                let page = self.store.read_stream(read).await?;
                let last = page.next.map_or(page.head.version, |next| Version::new(next.get() - 1));
                *done = last.max(*done);
                self.live = page.next.is_none();
                let seen = page.events.last().map_or(*position, Recorded::position).max(*position);
                *position = if self.live { seen.max(head) } else { seen };
                self.over = page.head.tombstoned;
                page.events
            }
        };
        #[cfg(feature = "museum")]
        if self.store.env().planted("lost-wake-up") {
            self.store.env().sleep(std::time::Duration::from_millis(2)).await;
            self.moves.mark_unchanged();
        }
        self.look = !self.live;
        if was_live && !self.live {
            self.store.env().reached("subscription: a follower fell behind");
        }
        Ok(self.batch(events))
    }

    fn batch(&self, events: Vec<Recorded>) -> Batch {
        let (cursor, position) = (self.source.cursor(), self.source.position());
        Batch { events, cursor, position, live: self.live, over: self.over }
    }
}

/// The last version of `stream` up to `position`, by halving: versions and positions rise together.
async fn last_up_to(store: &Store, stream: &Name, position: Position) -> Result<Version, StoreError> {
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
    Ok(Version::new(low - 1))
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

    fn position(&self) -> Position {
        match self {
            Self::Log { scanned: position, .. } | Self::Stream { position, .. } => *position,
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

    fn before(self, event: &Recorded) -> Self {
        match self {
            Self::Log(_) => Self::Log(Position::new(event.position().get() - 1)),
            Self::Stream(_) => Self::Stream(Version::new(event.version().get() - 1)),
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
