//! Reading streams and the log: from the tail where it suffices, from the database otherwise.

use std::sync::Arc;

use bytes::Bytes;
use rusqlite::{Connection, params};

use super::{
    conditions::{Looks, Unsearched},
    connection::{corrupt, failed},
    expiry::{self, Expiry},
    index,
    retiring::Retiring,
    search::Search,
    shared::{self, Shared, View},
    tail::{Slot, Tail},
};
use crate::{
    event::{Position, Recorded, Version},
    store::{Direction, Limits, LogPage, Query, ReadLog, ReadStream, StoreError, StreamHead, StreamPage},
};

/// Candidates that one page looks at before it returns with what it has: a sparse query stays responsive.
const CANDIDATES_PER_PAGE: usize = Limits::CANDIDATES_PER_PAGE;

/// A stream that is truncated again and again while it is read is looked at so often.
pub(super) const LOOKS: usize = 100;

/// The error of a stub among events that the stream's head says are whole, and that stays there.
pub(super) fn misplaced_stub(read: &ReadStream) -> StoreError {
    corrupt(format!("stream `{}`", read.stream), "an event behind its first one is a stub")
}

/// How far a reader sees: the published log, or all of it inside the writer's own transaction.
#[derive(Clone, Copy)]
pub(super) enum Sight {
    Published,
    Everything,
}

impl Sight {
    fn end(self, tail: &Tail) -> u64 {
        match self {
            Self::Published => tail.published(),
            Self::Everything => tail.end(),
        }
    }

    fn head(self, tail: &Tail, slot: &Slot) -> StreamHead {
        match self {
            Self::Published => slot.head(tail.published()),
            Self::Everything => slot.own_head(),
        }
    }

    fn retiring(self, tail: &Tail) -> Arc<Retiring> {
        match self {
            Self::Published => tail.retiring().clone(),
            Self::Everything => tail.own_retiring(),
        }
    }
}

/// Refuses a page beyond the limit.
pub(super) fn check_limit(limits: &Limits, asked: usize) -> Result<(), StoreError> {
    let max = limits.page_events;
    if asked <= max { Ok(()) } else { Err(StoreError::TooMuch { what: "a page", max, asked }) }
}

/// What the tail alone can say about a read of a stream.
pub(super) enum Glance {
    /// All of it.
    Page(StreamPage),
    /// The newer part; older events are in the database.
    Part(Newer),
    /// Nothing before it is known which of its events, of which there is this head, are too old: see [`expiry::judge`].
    Aging(StreamHead),
}

/// The part of a stream that the tail holds.
pub(super) struct Newer {
    /// What the stream is like; `None` where only the database knows.
    head: Option<StreamHead>,
    /// The last version that the database has.
    indexed: Version,
    /// The events behind it, ascending.
    events: Vec<Recorded>,
}

/// Reads what the tail holds of a stream.
pub(super) fn glance(tail: &Tail, read: &ReadStream, limits: &Limits, expiry: &Expiry, sight: Sight) -> Glance {
    let Some(slot) = tail.slot(read.stream.as_str()) else {
        return Glance::Part(Newer { head: None, indexed: Version::ZERO, events: Vec::new() });
    };
    let stored = sight.head(tail, slot);
    let Some(head) = expiry.visible(&read.stream, stored) else { return Glance::Aging(stored) };
    let span = Span::of(read, &head);
    if span.is_empty() || span.low > slot.base.version.get() {
        let versions = span.versions(read.direction).map(|version| in_tail(tail, slot, version));
        let page = page(versions.map(Ok), head, read, limits).ok().flatten();
        return Glance::Page(page.unwrap_or_else(|| unreachable!("memory does not fail, and the tail has no stubs")));
    }
    let newer = (slot.base.version.get() + 1..=head.version.get()).filter(|version| span.holds(*version));
    let wanted = |version| in_tail(tail, slot, version);
    let events = match read.direction {
        // Going forward, older events come first and may fill the page by themselves.
        // One more than the page takes says where the next one begins.
        Direction::Forward => newer.take(read.limit + 1).map(wanted).collect(),
        Direction::Backward => {
            let skipped = (span.high.saturating_sub(slot.base.version.get()) as usize).saturating_sub(read.limit + 1);
            newer.skip(skipped).map(wanted).collect()
        }
    };
    Glance::Part(Newer { head: Some(head), indexed: slot.base.version, events })
}

fn in_tail(tail: &Tail, slot: &Slot, version: u64) -> Recorded {
    let n = (version - slot.base.version.get() - 1) as usize;
    let event = slot.positions.get(n).and_then(|position| tail.event(*position));
    event.unwrap_or_else(|| unreachable!("invariant: a slot's positions are in the tail")).clone()
}

/// The versions a read can return, without regard to its limit.
struct Span {
    low: u64,
    high: u64,
}

impl Span {
    fn of(read: &ReadStream, head: &StreamHead) -> Self {
        let (first, last) = (head.first.get(), head.version.get());
        match (read.direction, read.from) {
            (Direction::Forward, from) => Self { low: from.map_or(first, |from| from.get().max(first)), high: last },
            (Direction::Backward, from) => Self { low: first, high: from.map_or(last, |from| from.get().min(last)) },
        }
    }

    fn is_empty(&self) -> bool {
        self.low > self.high
    }

    fn holds(&self, version: u64) -> bool {
        (self.low..=self.high).contains(&version)
    }

    fn versions(&self, direction: Direction) -> impl Iterator<Item = u64> + use<> {
        let (low, high) = (self.low, self.high);
        let count = if low > high { 0 } else { high - low + 1 };
        (0..count).map(move |n| match direction {
            Direction::Forward => low + n,
            Direction::Backward => high - n,
        })
    }
}

/// Takes events until the page is full, by number or by bytes. `None` where one of them is a stub: the stream was
/// truncated since its head was read, and the page would have a hole.
fn page(
    events: impl Iterator<Item = Result<Recorded, StoreError>>,
    head: StreamHead,
    read: &ReadStream,
    limits: &Limits,
) -> Result<Option<StreamPage>, StoreError> {
    let (mut taken, mut bytes, mut next) = (Vec::new(), 0, None);
    for event in events {
        let event = event?;
        if event.stub().is_some() {
            return Ok(None);
        }
        bytes += event.bytes().len();
        if taken.len() == read.limit || (bytes > limits.page_bytes && !taken.is_empty()) {
            next = Some(event.version());
            break;
        }
        keep(&mut taken, event);
    }
    Ok(Some(StreamPage { events: taken, head, next }))
}

/// So many events of a page may hold the blocks they were read from, some 8 KiB each, however little of them they are.
const SHARING: usize = 256;
/// A larger event is most of its block.
const SMALL: usize = 2_048;

/// Puts an event on a page. Behind the first few, small events from places apart get bytes of their own.
fn keep(page: &mut Vec<Recorded>, event: Recorded) {
    let is_apart = page.last().is_none_or(|last| last.position().get().abs_diff(event.position().get()) > 1);
    let copied = page.len() >= SHARING && event.bytes().len() < SMALL && is_apart;
    page.push(if copied { event.detached() } else { event });
}

/// Completes a read of a stream from the database. `None` where the stream was changed since the glance: look again.
pub(super) fn stream(
    shared: &Shared,
    view: View<'_>,
    read: &ReadStream,
    newer: Newer,
) -> Result<Option<StreamPage>, StoreError> {
    let row = index::stream(view.connection, read.stream.as_str())?;
    let indexed = row.as_ref().map(|row| row.head).unwrap_or_default();
    let (head, indexed_version) = match newer.head {
        Some(head) => (head, newer.indexed.get()),
        None => {
            let Some(head) = expiry::visible(shared, view, &read.stream, indexed)? else { return Ok(None) };
            (head, indexed.version.get())
        }
    };
    let span = Span::of(read, &head);
    let older = Span { low: span.low, high: span.high.min(indexed_version) };
    let positions = match &row {
        Some(row) if !older.is_empty() => older_positions(view.connection, row.id, &older, read)?,
        _ => Vec::new(),
    };
    let versions = older.versions(read.direction);
    let older = shared.events(view, &positions).zip(versions).map(|(event, version)| {
        let event = event?;
        if event.stream() != read.stream.as_str() || event.version().get() != version {
            let place = format!("quorate_stream_run of `{}`, version {version}", read.stream);
            return Err(corrupt(place, format!("the event at position {} is another one", event.position())));
        }
        Ok(event)
    });
    let newer = newer.events.into_iter().map(Ok);
    match read.direction {
        Direction::Forward => page(older.chain(newer), head, read, &shared.limits),
        Direction::Backward => page(newer.rev().chain(older), head, read, &shared.limits),
    }
}

/// One more position than the limit, so that the page knows where the next one begins.
fn older_positions(connection: &Connection, id: i64, span: &Span, read: &ReadStream) -> Result<Vec<u64>, StoreError> {
    let limit = read.limit + 1;
    match read.direction {
        Direction::Forward => index::versions(connection, id, span.low, span.high, limit),
        Direction::Backward => {
            let low = span.low.max(span.high.saturating_sub(limit as u64 - 1));
            let mut positions = index::versions(connection, id, low, span.high, limit)?;
            positions.reverse();
            Ok(positions)
        }
    }
}

/// A page of the log in the making.
pub(super) struct Scan {
    query: Query,
    limit: usize,
    max_bytes: usize,
    bytes: usize,
    events: Vec<Recorded>,
    scanned: u64,
    full: bool,
    /// What is forgotten and may still lie in blocks. Ordering: taken before the database is looked at.
    retiring: Arc<Retiring>,
}

impl Scan {
    pub(super) fn new(read: ReadLog, limits: &Limits) -> Self {
        let ReadLog { query, after, limit } = read;
        Self {
            query,
            limit,
            max_bytes: limits.page_bytes,
            bytes: 0,
            events: Vec::new(),
            scanned: after.get(),
            full: limit == 0,
            retiring: Arc::default(),
        }
    }

    /// Looks at the next event; whether it wants more.
    fn offer(&mut self, event: &Recorded) -> bool {
        if self.query.matches(event) {
            if self.events.len() == self.limit || (self.bytes >= self.max_bytes && !self.events.is_empty()) {
                self.full = true;
                return false;
            }
            let shown = self.retiring.shown(event).unwrap_or_else(|| event.clone());
            self.bytes += shown.bytes().len();
            keep(&mut self.events, shown);
        }
        self.scanned = event.position().get();
        true
    }

    /// Reads what the tail holds; the finished page, or how far the database must be read first.
    pub(super) fn tail(&mut self, tail: &Tail, sight: Sight) -> Result<LogPage, u64> {
        let end = sight.end(tail);
        self.retiring = sight.retiring(tail);
        if !self.full && self.scanned < tail.indexed() {
            return Err(tail.indexed());
        }
        let visible = tail.events_after(self.scanned).iter().take_while(|event| event.position().get() <= end);
        for event in visible {
            if self.full || !self.offer(event) {
                break;
            }
        }
        // A position beyond the end was asked for: stay there, and wait for the log to reach it.
        let events = std::mem::take(&mut self.events);
        Ok(LogPage { events, scanned: Position::new(self.scanned), head: Position::new(end) })
    }

    /// Reads the database up to `until`, or until the page is full.
    pub(super) fn indexed(&mut self, shared: &Shared, view: View<'_>, until: u64) -> Result<(), StoreError> {
        if self.query.is_everything() { self.blocks(view.connection, until) } else { self.search(shared, view, until) }
    }

    fn blocks(&mut self, connection: &Connection, until: u64) -> Result<(), StoreError> {
        const READING: &str = "reading blocks";
        // The block in which the reading begins may begin earlier.
        let sql = "SELECT first, body FROM quorate_block WHERE first >= coalesce(
            (SELECT max(first) FROM quorate_block WHERE first <= ?1), 0) AND first <= ?2 ORDER BY first";
        let mut select = connection.prepare_cached(sql).map_err(failed(READING))?;
        let begin = (self.scanned + 1).cast_signed();
        let mut rows = select.query(params![begin, until.cast_signed()]).map_err(failed(READING))?;
        while let Some(row) = rows.next().map_err(failed(READING))? {
            let first: i64 = row.get(0).map_err(failed(READING))?;
            let body =
                row.get_ref(1).and_then(|body| Ok(Bytes::copy_from_slice(body.as_blob()?))).map_err(failed(READING))?;
            let block = shared::check(first, body)?;
            if block.first() > self.scanned + 1 {
                return Err(corrupt("quorate_block", format!("no row holds position {}", self.scanned + 1)));
            }
            for position in self.scanned + 1..block.end().min(until + 1) {
                if !self.offer(&shared::in_block(&block, position)?) {
                    return Ok(());
                }
            }
        }
        if self.scanned < until {
            return Err(corrupt("quorate_block", format!("no row holds position {}", self.scanned + 1)));
        }
        Ok(())
    }

    fn search(&mut self, shared: &Shared, view: View<'_>, until: u64) -> Result<(), StoreError> {
        let mut search = Search::new(view.connection, &self.query)?;
        for _ in 0..CANDIDATES_PER_PAGE {
            // A page is bounded by its candidates.
            let found = search.next(self.scanned, &mut Looks::unlimited()).map_err(|failed| match failed {
                Unsearched::Failed(cause) => cause,
                Unsearched::Spent(_) => unreachable!("these looks have no end"),
            });
            let Some(candidate) = found?.filter(|position| *position <= until) else {
                self.scanned = until;
                return Ok(());
            };
            if !self.offer(&shared.event(view, candidate)?) {
                // Nothing between the last event and this candidate matches.
                self.scanned = candidate - 1;
                return Ok(());
            }
        }
        self.full = true;
        Ok(())
    }
}
