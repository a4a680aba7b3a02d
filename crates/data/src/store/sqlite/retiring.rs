//! What is forgotten already and still lies in the blocks.
//!
//! To forget a stream's events is two things. That they are gone is one row: it commits with the transaction that says so,
//! at once, however many they are. Taking their data out of the blocks is work without a bound, and is done behind it in
//! *slices*, a transaction each, so that nobody waits for long. Until a slice reaches them, the events stand here: whoever
//! reads the log gets the stub that they are going to be.
//!
//! Ordering for readers: a range is looked up before the database is, and leaves this list after the blocks without its
//! data are committed and those with it have left the cache. So each reader finds the range, or blocks that were rewritten.
//!
//! Ranges take turns, in order of arrival: neither a long one nor many of one stream keep others waiting, and what arrives
//! during a round waits for the next one, so that no stream of newcomers does either. One that damage is in the way of is
//! set aside. How many may wait, and how many may be set aside, is [limited](crate::store::Limits::forgetting): whoever
//! forgets faster than the disk does is refused, and memory stays bounded.

use std::{collections::BTreeMap, ops::Bound, sync::Arc};

use rusqlite::{Connection, Row, params};

use super::{
    connection::{corrupt, failed},
    run,
};
use crate::{
    event::{ArchiveId, Recorded, Stub},
    store::StoreError,
};

const KEEPING: &str = "keeping what is to be forgotten";

/// Versions of one stream that become stubs of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Range {
    /// Its row.
    pub(super) id: i64,
    /// The first version that still lies in the blocks.
    pub(super) next: u64,
    pub(super) last: u64,
    pub(super) stub: Stub,
}

/// What is to be forgotten, of every stream, in order of arrival.
///
/// Invariant: the ranges of a stream do not overlap; each stands in `due` or in `aside`.
#[derive(Clone, Debug, Default)]
pub(super) struct Retiring {
    /// The ranges of each stream, by their last version.
    streams: BTreeMap<Arc<str>, BTreeMap<u64, Range>>,
    /// What a slice may take up, by id: where each range stands in `streams`.
    due: BTreeMap<i64, Place>,
    /// What damage is in the way of, until somebody asks for it.
    aside: BTreeMap<i64, (Place, StoreError)>,
    /// The range that the last slice ended with: the next one begins behind it, so that each has its turn.
    turn: i64,
    /// The highest id when the round began: what came later has its turn in the next one.
    round: i64,
}

/// Where a range stands: its stream and its last version.
type Place = (Arc<str>, u64);

impl Retiring {
    /// How many ranges there are.
    pub(super) fn len(&self) -> usize {
        self.due.len() + self.aside.len()
    }

    /// How many ranges are set aside.
    pub(super) fn aside(&self) -> usize {
        self.aside.len()
    }

    /// What the first range that is set aside met.
    pub(super) fn obstacle(&self) -> Option<&StoreError> {
        self.aside.values().next().map(|(_, cause)| cause)
    }

    /// Whether a range is set aside that may be taken up again by itself.
    pub(super) fn is_delayed(&self) -> bool {
        self.aside.values().any(|(_, cause)| !is_damage(cause))
    }

    /// Whether there is something that a slice can take up.
    pub(super) fn is_due(&self) -> bool {
        !self.due.is_empty()
    }

    /// What became of forgetting `stream`, or all streams; `None` while it goes on.
    pub(super) fn outcome(&self, stream: Option<&str>) -> Option<Result<(), StoreError>> {
        let Some(stream) = stream else {
            return self.due.is_empty().then(|| self.obstacle().map_or(Ok(()), |cause| Err(cause.clone())));
        };
        let Some(ranges) = self.streams.get(stream) else { return Some(Ok(())) };
        if ranges.values().any(|range| self.due.contains_key(&range.id)) {
            return None;
        }
        let cause = ranges.values().find_map(|range| self.aside.get(&range.id));
        Some(cause.map_or(Ok(()), |(_, cause)| Err(cause.clone())))
    }

    pub(super) fn add(&mut self, stream: &Arc<str>, range: Range) {
        self.due.insert(range.id, (stream.clone(), range.last));
        self.streams.entry(stream.clone()).or_default().insert(range.last, range);
    }

    /// What is to be done next, at most `count` ranges: in order of arrival, from where the last slice ended to the end of
    /// the round, and then the next round.
    pub(super) fn next(&self, count: usize) -> Vec<(Arc<str>, Range)> {
        let rest = self.due.range((Bound::Excluded(self.turn), Bound::Included(self.round)));
        let newer = self.due.range((Bound::Excluded(self.round), Bound::Unbounded));
        let places = rest.chain(self.due.range(..=self.turn)).chain(newer);
        let range = |(_, (stream, last)): (&i64, &Place)| Some((stream.clone(), *self.streams.get(stream)?.get(last)?));
        places.filter_map(range).take(count).collect()
    }

    /// The versions before `next` of a range are done, and others have their turn.
    pub(super) fn advance(&mut self, id: i64, next: u64) {
        if id <= self.turn || id > self.round {
            self.round = self.due.last_key_value().map_or(id, |(last, _)| id.max(*last));
        }
        self.turn = id;
        let Some((stream, last)) = self.due.get(&id) else { return };
        let Some(ranges) = self.streams.get_mut(stream) else { return };
        if next <= *last {
            ranges.entry(*last).and_modify(|range| range.next = next);
            return;
        }
        ranges.remove(last);
        if ranges.is_empty() {
            self.streams.remove(stream);
        }
        self.due.remove(&id);
    }

    /// Sets a range aside: others go on. See [`take_up`](Self::take_up) and [`take_up_delayed`](Self::take_up_delayed).
    pub(super) fn set_aside(&mut self, id: i64, cause: StoreError) {
        if let Some(place) = self.due.remove(&id) {
            self.aside.insert(id, (place, cause));
        }
    }

    /// Has what was set aside of `stream`, or of all streams, tried again: somebody asks for it.
    pub(super) fn take_up(&mut self, stream: Option<&str>) {
        self.take_up_where(|(of, _), _| stream.is_none_or(|stream| **of == *stream));
    }

    /// Has what was set aside for something else than damage tried again: it may have passed.
    pub(super) fn take_up_delayed(&mut self) {
        self.take_up_where(|_, cause| !is_damage(cause));
    }

    fn take_up_where(&mut self, wanted: impl Fn(&Place, &StoreError) -> bool) {
        for (id, (place, _)) in self.aside.extract_if(.., |_, (place, cause)| wanted(place, cause)) {
            self.due.insert(id, place);
        }
    }

    /// What the log shows of `event`, if that is not what lies in its block.
    pub(super) fn shown(&self, event: &Recorded) -> Option<Recorded> {
        if self.streams.is_empty() || event.stub().is_some() {
            return None;
        }
        self.range(event.stream(), event.version().get()).map(|range| event.to_stub(range.stub))
    }

    /// Whether `event` is one of those that still lie in the blocks.
    pub(super) fn covers(&self, event: &Recorded) -> bool {
        self.range(event.stream(), event.version().get()).is_some()
    }

    fn range(&self, stream: &str, version: u64) -> Option<&Range> {
        let (_, range) = self.streams.get(stream)?.range(version..).next()?;
        (range.next <= version).then_some(range)
    }
}

/// Whether it stays until somebody mends it.
fn is_damage(cause: &StoreError) -> bool {
    match cause {
        StoreError::NotWiped { cause, .. } => is_damage(cause),
        cause => matches!(cause, StoreError::Corrupt { .. }),
    }
}

/// Writes down that `stream` forgets versions.
pub(super) fn insert(
    connection: &Connection,
    stream: &str,
    (first, last): (u64, u64),
    stub: Stub,
) -> Result<Range, StoreError> {
    // Behind all that are there, so that ids tell the order of arrival. Not the largest id ever: a range that is gone leaves
    // no reference to its id.
    let id: i64 = connection
        .prepare_cached("SELECT coalesce(max(id), 0) + 1 FROM quorate_retiring")
        .and_then(|mut select| select.query_row([], |row| row.get(0)))
        .map_err(failed(KEEPING))?;
    let range = Range { id, next: first, last, stub };
    put(connection, stream, &range)?;
    Ok(range)
}

/// Writes down how far a range is; one that is done is deleted.
pub(super) fn put(connection: &Connection, stream: &str, range: &Range) -> Result<(), StoreError> {
    if range.next > range.last {
        return connection
            .prepare_cached("DELETE FROM quorate_retiring WHERE id = ?1")
            .and_then(|mut delete| delete.execute([range.id]))
            .map(|_| ())
            .map_err(failed(KEEPING));
    }
    let archive = range.stub.archive().unwrap_or_default().get().cast_signed();
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO quorate_retiring (id, stream, next, last, stub, archive, sum)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )
        .and_then(|mut insert| {
            let (next, last) = (range.next.cast_signed(), range.last.cast_signed());
            insert.execute(params![range.id, stream, next, last, range.stub.bits(), archive, sum(stream, range)])
        })
        .map(|_| ())
        .map_err(failed(KEEPING))
}

fn sum(stream: &str, range: &Range) -> u32 {
    let mut bytes = range.next.to_le_bytes().to_vec();
    bytes.extend_from_slice(&range.last.to_le_bytes());
    bytes.push(range.stub.bits());
    bytes.extend_from_slice(&range.stub.archive().unwrap_or_default().get().to_le_bytes());
    bytes.extend_from_slice(stream.as_bytes());
    run::checksum(&range.id.to_le_bytes(), &bytes)
}

/// The columns of a range's row, as [`read`] takes them.
pub(super) const SELECT: &str = "SELECT id, stream, next, last, stub, archive, sum FROM quorate_retiring ORDER BY id";

/// Reads and judges a row.
pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<Result<(Arc<str>, Range), StoreError>> {
    let stream: Arc<str> = row.get::<_, String>(1)?.into();
    let (bits, archive): (u8, i64) = (row.get(4)?, row.get(5)?);
    let stub = match bits {
        1 => Stub::Truncated,
        2 => Stub::Tombstoned,
        _ => Stub::Archived(ArchiveId::new(archive.cast_unsigned())),
    };
    let number = |n| row.get::<_, i64>(n).map(i64::cast_unsigned);
    let range = Range { id: row.get(0)?, next: number(2)?, last: number(3)?, stub };
    let named = stub.archive().unwrap_or_default().get().cast_signed();
    if row.get::<_, u32>(6)? != sum(&stream, &range) || bits != stub.bits() || archive != named {
        let place = format!("quorate_retiring, row {}", range.id);
        return Ok(Err(corrupt(place, "the checksum does not match")));
    }
    Ok(Ok((stream, range)))
}

/// Everything that is still to be done.
pub(super) fn load(connection: &Connection) -> Result<Retiring, StoreError> {
    let mut select = connection.prepare(SELECT).map_err(failed(KEEPING))?;
    let mut rows = select.query([]).map_err(failed(KEEPING))?;
    let mut retiring = Retiring::default();
    while let Some(row) = rows.next().map_err(failed(KEEPING))? {
        let (stream, range) = read(row).map_err(failed(KEEPING))??;
        retiring.add(&stream, range);
    }
    Ok(retiring)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{Range, Retiring, StoreError, Stub, corrupt};

    /// Ranges of versions `first` to `last` by stream; their ids count from 1.
    fn retiring(ranges: &[(&str, u64, u64)]) -> Retiring {
        let mut retiring = Retiring::default();
        for ((stream, next, last), id) in ranges.iter().zip(1..) {
            retiring.add(&Arc::from(*stream), Range { id, next: *next, last: *last, stub: Stub::Truncated });
        }
        retiring
    }

    fn turns(retiring: &Retiring, count: usize) -> Vec<i64> {
        retiring.next(count).iter().map(|(_, range)| range.id).collect()
    }

    #[test]
    fn ranges_take_turns_in_order_of_arrival() {
        let mut retiring = retiring(&[("z", 1, 1_000_000), ("a", 1, 5), ("m", 1, 5), ("a", 6, 9)]);
        assert_eq!(turns(&retiring, 3), [1, 2, 3]);
        retiring.advance(1, 4_097);
        assert_eq!(turns(&retiring, 9), [2, 3, 4, 1], "a long one stands behind the others now");
        retiring.advance(2, 6);
        retiring.advance(3, 6);
        assert_eq!((turns(&retiring, 9), retiring.len()), (vec![4, 1], 2));
        assert_eq!(retiring.next(2)[1].1.next, 4_097, "it goes on where it was");
        retiring.advance(4, 10);
        assert_eq!(turns(&retiring, 9), [1]);
        retiring.advance(1, 1_000_001);
        assert!(!retiring.is_due() && retiring.len() == 0 && retiring.streams.is_empty());
    }

    #[test]
    fn a_long_range_has_its_turn_however_many_come_after_it() {
        let mut retiring = retiring(&[("long", 1, 1_000_000)]);
        let (mut done, mut newest) = (0, 1_u64);
        for _ in 0..100 {
            // Two newcomers for each range that a slice has room for.
            for _ in 0..2 {
                newest += 1;
                let range = Range { id: newest.cast_signed(), next: newest, last: newest, stub: Stub::Truncated };
                retiring.add(&Arc::from("short"), range);
            }
            let (_, range) = retiring.next(1)[0].clone();
            done += usize::from(range.id == 1);
            retiring.advance(range.id, range.next + 1);
        }
        assert!(done >= 5, "it had {done} turns");
        assert_eq!(retiring.len(), 1 + 200 - (100 - done));
    }

    #[test]
    fn a_version_is_covered_by_its_range_alone() {
        let ranges: Vec<(&str, u64, u64)> = (0..1_000).map(|n| ("s", n * 10 + 1, n * 10 + 5)).collect();
        let mut retiring = retiring(&ranges);
        for version in 0..10_010 {
            let covered = version > 0 && (version - 1) % 10 < 5 && version < 10_000;
            let range = retiring.range("s", version);
            assert_eq!(range.is_some(), covered, "version {version}");
            assert!(range.is_none_or(|range| (range.next..=range.last).contains(&version)));
        }
        retiring.advance(1, 3);
        assert_eq!([1, 2, 3].map(|version| retiring.range("s", version).is_some()), [false, false, true]);
        assert!(retiring.range("t", 3).is_none());
    }

    #[test]
    fn a_range_that_is_set_aside_leaves_others_alone_and_is_taken_up_when_somebody_asks() {
        let mut retiring = retiring(&[("a", 1, 5), ("z", 1, 5), ("a", 6, 9)]);
        let not_wiped = |cause| StoreError::NotWiped { stream: "a".into(), cause: Arc::new(cause) };
        retiring.set_aside(1, not_wiped(corrupt("quorate_block, row 1", "it rotted")));
        assert_eq!((turns(&retiring, 9), retiring.len(), retiring.aside()), (vec![2, 3], 3, 1));
        assert!(retiring.range("a", 3).is_some(), "nobody is shown what was forgotten");
        assert!(retiring.outcome(Some("a")).is_none(), "its other range is still at work");
        retiring.advance(3, 10);
        assert!(matches!(retiring.outcome(Some("a")), Some(Err(StoreError::NotWiped { .. }))));
        assert!(retiring.outcome(Some("z")).is_none() && retiring.outcome(None).is_none());
        retiring.advance(2, 6);
        assert!(matches!(retiring.outcome(Some("z")), Some(Ok(()))));
        assert!(matches!(retiring.outcome(None), Some(Err(StoreError::NotWiped { .. }))));
        retiring.take_up_delayed();
        retiring.take_up(Some("z"));
        assert!(!retiring.is_due(), "damage does not pass by itself");
        retiring.take_up(Some("a"));
        assert_eq!(turns(&retiring, 9), [1]);
        retiring.set_aside(1, not_wiped(StoreError::Busy));
        assert!(retiring.is_delayed());
        retiring.take_up_delayed();
        retiring.advance(1, 6);
        assert!(matches!(retiring.outcome(None), Some(Ok(()))));
    }
}
