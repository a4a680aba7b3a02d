//! Reading streams and the log.
//!
//! Readers see events that have a position. Whoever meets a stream whose newest event has none yet asks for one, and looks
//! again: a read sees everything that was committed before it began.

use bytes::Bytes;
use quorate_foundations::name::{Name, NameError};
use tokio_postgres::{
    Client, Row,
    types::{ToSql, Type},
};

use super::{
    backend::Shared,
    fault::Fault,
    filter::{Param, borrowed, filter},
    sequencer::End,
};
use crate::{
    event::{Position, Recorded, Version},
    store::{Direction, Limits, LogPage, ReadLog, ReadStream, StoreError, StreamHead, StreamPage, StreamSummary},
};

/// Positions that one page passes before it returns with what it has: a sparse query stays responsive.
const WINDOW: u64 = 20_000;
/// How many it looks at first, where it looks for something.
const FIRST: u64 = 500;
/// How often a stream is looked at that grows while it is read.
const LOOKS: usize = 100;

const READING: &str = "reading events";

/// Refuses a page beyond the limit.
pub(super) fn check_limit(limits: &Limits, asked: usize) -> Result<(), StoreError> {
    let max = limits.page_events;
    if asked <= max { Ok(()) } else { Err(StoreError::TooMuch { what: "a page", max, asked }) }
}

/// A page of a stream.
pub(super) async fn stream(shared: &Shared, client: &Client, read: &ReadStream) -> Result<StreamPage, StoreError> {
    check_limit(&shared.limits, read.limit)?;
    for _ in 0..LOOKS {
        let name = read.stream.as_str();
        let row = client.query_typed_opt(&shared.sql.stream, &[(&name, Type::TEXT)]).await.map_err(reading)?;
        let Some(row) = row else { return Ok(StreamPage { events: vec![], head: StreamHead::default(), next: None }) };
        let (id, version): (i64, i64) = (get(&row, 0)?, get(&row, 1)?);
        let position: Option<i64> = get(&row, 2)?;
        match position {
            // With what a reader sees the log ends there, or behind it: the token of the reply stands for it.
            Some(position) => {
                let event = get::<i64>(&row, 3)?.cast_unsigned();
                shared.sequencer.saw(End { position: position.cast_unsigned(), event });
            }
            None if version > 0 => {
                shared.catch_up().await?;
                continue;
            }
            None => {}
        }
        let span = Span::of(read, version.cast_unsigned());
        let rows = if span.is_empty() { vec![] } else { rows(shared, client, read, id, &span).await.map_err(fault)? };
        let events = rows.iter().map(|row| event(row, "quorate.event")).collect::<Result<Vec<_>, _>>()?;
        return page(events, head(version, get(&row, 4)?), read, &shared.limits);
    }
    Err(StoreError::Busy)
}

/// A page of a stream as a transaction sees it, what it appended itself included: that has no position yet.
///
/// `positions`: another connection. The transaction's snapshot may be older than the positions of what it sees.
pub(super) async fn own_stream(
    shared: &Shared,
    client: &Client,
    positions: &Client,
    own: &[i64],
    read: &ReadStream,
) -> Result<StreamPage, Fault> {
    let name = read.stream.as_str();
    let row = client.query_typed_opt(&shared.sql.own_stream, &[(&name, Type::TEXT)]).await?;
    let found = |row: Row| Ok::<_, Fault>((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?));
    let (id, version, metadata): (i64, i64, i64) = row.map_or(Ok((0, 0, 0)), found)?;
    let span = Span::of(read, version.cast_unsigned());
    let rows = if span.is_empty() { vec![] } else { rows(shared, client, read, id, &span).await? };
    let is_strange = |row: &Row| {
        let (id, position): (i64, Option<i64>) = (row.get(0), row.get(1));
        position.is_none() && !own.contains(&id)
    };
    let placed = if rows.iter().any(is_strange) {
        shared.catch_up().await.map_err(|late| Fault::Lost(late.to_string()))?;
        let ids: Vec<i64> = rows.iter().map(|row| row.get(0)).collect();
        let found = positions.query_typed(&shared.sql.places, &[(&ids, Type::INT8_ARRAY)]).await?;
        let found: std::collections::BTreeMap<i64, i64> =
            found.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect::<Result<_, Fault>>()?;
        // Where a reader of the log saw them, it ends there or behind.
        if let Some((event, position)) = found.iter().max_by_key(|(_, position)| **position) {
            shared.sequencer.saw(End { position: position.cast_unsigned(), event: event.cast_unsigned() });
        }
        found
    } else {
        std::collections::BTreeMap::<i64, i64>::new()
    };
    let mut events = Vec::with_capacity(rows.len());
    for row in &rows {
        let id: i64 = row.try_get(0)?;
        let position: Option<i64> = row.try_get(1)?;
        let position = position.or_else(|| placed.get(&id).copied()).unwrap_or(0);
        let body: &[u8] = row.try_get(2)?;
        events.push(decode(position, body).map_err(|wrong| Fault::Strange(wrong.to_string()))?);
    }
    page(events, head(version, metadata), read, &shared.limits).map_err(|wrong| Fault::Strange(wrong.to_string()))
}

/// One event more than a page takes, so that it knows where the next begins: id, position, body.
async fn rows(shared: &Shared, client: &Client, read: &ReadStream, id: i64, span: &Span) -> Result<Vec<Row>, Fault> {
    let s = &shared.sql.schema;
    let order = if read.direction == Direction::Forward { "ASC" } else { "DESC" };
    // Sums are over what comes before the event before: whoever fills the page comes along, and one more behind it.
    let statement = format!(
        "SELECT id, position, body FROM (
             SELECT e.id, l.position, e.body, e.version, coalesce(sum(octet_length(e.body)) OVER (
                 ORDER BY e.version {order} ROWS BETWEEN UNBOUNDED PRECEDING AND 2 PRECEDING), 0) AS before
             FROM {s}.event e LEFT JOIN {s}.log l ON l.event = e.id
             WHERE e.stream = $1 AND e.version BETWEEN $2 AND $3 ORDER BY e.version {order} LIMIT $4) AS wanted
         WHERE before <= $5 ORDER BY version {order}"
    );
    let limit = i64::try_from(read.limit).unwrap_or(i64::MAX).saturating_add(1);
    let bytes = i64::try_from(shared.limits.page_bytes).unwrap_or(i64::MAX);
    let params: Vec<Param> = vec![
        (Box::new(id), Type::INT8),
        (Box::new(number(span.low)), Type::INT8),
        (Box::new(number(span.high)), Type::INT8),
        (Box::new(limit), Type::INT8),
        (Box::new(bytes), Type::INT8),
    ];
    Ok(client.query_typed(&statement, &borrowed(&params)).await?)
}

/// The versions a read can return, without regard to its limit.
struct Span {
    low: u64,
    high: u64,
}

impl Span {
    fn of(read: &ReadStream, last: u64) -> Self {
        match (read.direction, read.from) {
            (Direction::Forward, from) => Self { low: from.map_or(1, |from| from.get().max(1)), high: last },
            (Direction::Backward, from) => Self { low: 1, high: from.map_or(last, |from| from.get().min(last)) },
        }
    }

    fn is_empty(&self) -> bool {
        self.low > self.high
    }
}

/// What a stream is like, by its row.
fn head(version: i64, metadata: i64) -> StreamHead {
    let [version, metadata] = [version, metadata].map(|number| Version::new(number.cast_unsigned()));
    StreamHead { version, metadata, ..StreamHead::default() }
}

/// Takes events until the page is full, by number or by bytes.
fn page(events: Vec<Recorded>, head: StreamHead, read: &ReadStream, limits: &Limits) -> Result<StreamPage, StoreError> {
    let (mut taken, mut bytes, mut next): (Vec<Recorded>, usize, _) = (Vec::new(), 0, None);
    for event in events {
        if let Some(last) = taken.last()
            && last.version().get().abs_diff(event.version().get()) != 1
        {
            let place = format!("quorate.event, stream `{}`", read.stream);
            return Err(StoreError::Corrupt {
                place,
                what: format!("no event stands beside version {}", last.version()),
            });
        }
        bytes += event.bytes().len();
        if taken.len() == read.limit || (bytes > limits.page_bytes && !taken.is_empty()) {
            next = Some(event.version());
            break;
        }
        taken.push(event);
    }
    Ok(StreamPage { events: taken, head, next })
}

/// Streams in order of their names.
pub(super) async fn streams(
    shared: &Shared,
    client: &Client,
    prefix: &str,
    after: Option<&Name>,
    limit: usize,
) -> Result<Vec<StreamSummary>, StoreError> {
    let (after, limit) = (after.map_or("", Name::as_str), i64::try_from(limit).unwrap_or(i64::MAX));
    let params: [(&(dyn ToSql + Sync), Type); 3] = [(&prefix, Type::TEXT), (&after, Type::TEXT), (&limit, Type::INT8)];
    let rows = client.query_typed(&shared.sql.streams, &params).await.map_err(reading)?;
    let summary = |row: &Row| {
        let (name, version): (&str, i64) = (get(row, 0)?, get(row, 1)?);
        let damaged =
            |wrong: NameError| StoreError::Corrupt { place: "quorate.stream".to_owned(), what: wrong.to_string() };
        let head = head(version, get(row, 2)?);
        Ok(StreamSummary { stream: Name::new(name).map_err(damaged)?, head })
    };
    rows.iter().map(summary).collect()
}

/// A page of the log.
pub(super) async fn log(shared: &Shared, client: &Client, read: &ReadLog) -> Result<LogPage, StoreError> {
    check_limit(&shared.limits, read.limit)?;
    let row = client.query_typed_opt(&shared.sql.end, &[]).await.map_err(reading)?;
    let mut head = 0;
    if let Some(row) = row {
        let end = End { position: get::<i64>(&row, 0)?.cast_unsigned(), event: get::<i64>(&row, 1)?.cast_unsigned() };
        shared.sequencer.saw(end);
        head = end.position;
    }
    let (after, page_head) = (read.after.get(), Position::new(head));
    if after >= head || read.limit == 0 {
        return Ok(LogPage { events: vec![], scanned: read.after, head: page_head });
    }
    let mut scan = Scan { events: Vec::new(), bytes: 0, scanned: after, is_full: false };
    let end = head.min(after.saturating_add(WINDOW));
    let mut step = FIRST;
    while scan.scanned < end && !scan.is_full {
        // Without a question every position is an answer; else more is looked at the longer nothing was found.
        let wanted = if read.query.is_everything() { (read.limit - scan.events.len()) as u64 } else { step };
        let until = end.min(scan.scanned.saturating_add(wanted));
        scan.window(shared, client, read, until).await?;
        step = step.saturating_mul(4);
    }
    Ok(LogPage { events: scan.events, scanned: Position::new(scan.scanned), head: page_head })
}

/// A page of the log in the making.
struct Scan {
    events: Vec<Recorded>,
    bytes: usize,
    scanned: u64,
    is_full: bool,
}

impl Scan {
    /// Goes on up to position `until`, or until the page is full.
    async fn window(&mut self, shared: &Shared, client: &Client, read: &ReadLog, until: u64) -> Result<(), StoreError> {
        let s = &shared.sql.schema;
        let max = shared.limits.page_bytes;
        let limit = read.limit - self.events.len();
        let size = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        let mut params: Vec<Param> = vec![
            (Box::new(number(self.scanned)), Type::INT8),
            (Box::new(number(until)), Type::INT8),
            (Box::new(size(limit)), Type::INT8),
            (Box::new(size(max.saturating_sub(self.bytes))), Type::INT8),
        ];
        let filter = filter(&read.query, &mut params);
        let statement = format!(
            "SELECT id, position, body FROM (
                 SELECT e.id, l.position, e.body, coalesce(sum(octet_length(e.body)) OVER (
                     ORDER BY l.position ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS before
                 FROM {s}.log l JOIN {s}.event e ON e.id = l.event
                 WHERE l.position > $1 AND l.position <= $2 AND {filter} ORDER BY l.position LIMIT $3) AS wanted
             WHERE before <= $4 ORDER BY position"
        );
        let rows = client.query_typed(&statement, &borrowed(&params)).await.map_err(reading)?;
        self.is_full = rows.len() == limit;
        for row in &rows {
            let event = event(row, "quorate.log")?;
            self.bytes += event.bytes().len();
            self.is_full |= self.bytes > max;
            if self.bytes > max && !self.events.is_empty() {
                break;
            }
            self.scanned = event.position().get();
            self.events.push(event);
        }
        // What the server left out comes behind too many bytes; what it did not find is not there.
        if !self.is_full {
            self.scanned = until;
        }
        Ok(())
    }
}

/// The event in a row of id, position, body.
fn event(row: &Row, place: &'static str) -> Result<Recorded, StoreError> {
    let (id, position): (i64, Option<i64>) = (get(row, 0)?, get(row, 1)?);
    decode(position.unwrap_or(0), get::<&[u8]>(row, 2)?)
        .map_err(|wrong| StoreError::Corrupt { place: format!("{place}, event {id}"), what: wrong.to_string() })
}

fn decode(position: i64, body: &[u8]) -> Result<Recorded, crate::event::DecodeError> {
    Recorded::decode(Position::new(position.cast_unsigned()), Bytes::copy_from_slice(body))
}

/// A number for the server, which has none beyond `i64`.
fn number(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

fn get<'r, T: tokio_postgres::types::FromSql<'r>>(row: &'r Row, n: usize) -> Result<T, StoreError> {
    row.try_get(n).map_err(reading)
}

fn reading(failed: tokio_postgres::Error) -> StoreError {
    fault(failed.into())
}

fn fault(fault: Fault) -> StoreError {
    fault.into_store(READING)
}
