//! Retention: forgetting a stream's events, at once for whoever reads, and slice by slice on the disk.
//!
//! See `retiring` for why these are two things.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
};

use quorate_foundations::name::Name;
use rusqlite::params;

use super::{
    block,
    connection::{corrupt, explained, failed, is_fatal},
    core::Core,
    expiry, index,
    retiring::{self, Range},
    shared, tables,
    tail::Slot,
};
use crate::{
    event::{Recorded, Stub, Version},
    store::{AppendError, Retire, Retired, StoreError, StreamHead},
};

const RETIRING: &str = "forgetting events";

/// What noting a change of a stream writes, beside its name.
const CHANGE_BYTES: usize = 160;

/// A slice works on so many ranges at most, …
const SLICE_RANGES: usize = 64;
/// … on so many events of each …
const SLICE_EVENTS: usize = 4_096;
/// … and rewrites blocks of so many bytes, or one.
const SLICE_BYTES: usize = 1 << 20;

/// Carries out `what` on `stream`, in the group being written.
pub(super) fn run(core: &mut Core, stream: &Name, what: Retire) -> Result<Retired, AppendError> {
    let known = known(core, stream)?;
    let last = known.version.next();
    let (head, stub) = match what {
        Retire::Truncate { before } => {
            let first = before.get().clamp(known.first.get(), last.get());
            (StreamHead { first: Version::new(first), ..known }, Stub::Truncated)
        }
        Retire::Expired => {
            let first = kept(core, stream, known)?.max(known.first);
            if known.rules.max_age.is_some() {
                let now = core.shared.expiry.now().unix_nanos();
                tables::set_meta(&core.connection, "clock", now).map_err(failed(RETIRING))?;
            }
            (StreamHead { first, ..known }, Stub::Truncated)
        }
        Retire::Tombstone { expected } => {
            if !known.tombstoned && !expected.accepts(known.version) {
                return Err(AppendError::VersionConflict { stream: stream.clone(), expected, actual: known.version });
            }
            (StreamHead { first: last, tombstoned: true, ..known }, Stub::Tombstoned)
        }
    };
    Ok(change(core, stream, &known, head, stub)?)
}

/// What `stream` is like for the group being written; it is remembered from now on.
pub(super) fn known(core: &mut Core, stream: &Name) -> Result<StreamHead, StoreError> {
    core.shared.tail_mut().make_room(1);
    core.remember(stream)?;
    Ok(core.shared.tail().slot(stream.as_str()).map(Slot::own_head).unwrap_or_default())
}

/// The first version that the rules of `stream` keep.
fn kept(core: &Core, stream: &Name, stored: StreamHead) -> Result<Version, StoreError> {
    let view = core.shared.view(&core.connection);
    let visible = expiry::visible(&core.shared, view, stream, stored)?;
    // An event can become too old just now; the next scavenge forgets it.
    Ok(visible.map_or(stored.first, |head| head.first))
}

/// Makes `head` of `stream`, which was `known`: what it keeps less is forgotten as `stub` says.
pub(super) fn change(
    core: &mut Core,
    stream: &Name,
    known: &StreamHead,
    head: StreamHead,
    stub: Stub,
) -> Result<Retired, StoreError> {
    if head == *known {
        return Ok(Retired { events: 0 });
    }
    core.charge(CHANGE_BYTES + 2 * stream.as_str().len())?;
    let (first, last) = (known.first.get(), head.first.get() - 1);
    if first <= last {
        check_limit(core)?;
    }
    put(core, stream, &head)?;
    let range = match first <= last {
        true => Some(retiring::insert(&core.connection, stream.as_str(), (first, last), stub)?),
        false => None,
    };
    core.shared.tail_mut().change(stream.as_str(), head, range);
    Ok(Retired { events: (last + 1).saturating_sub(first) })
}

/// Refuses to forget more than the limit. What damage keeps in the file counts by itself: it does not go away, and must not
/// keep others from forgetting, but takes memory as well.
fn check_limit(core: &Core) -> Result<(), StoreError> {
    let (tail, max) = (core.shared.tail(), core.shared.limits.forgetting);
    let waiting = tail.forgetting();
    if waiting >= max {
        return Err(StoreError::Forgetting { waiting });
    }
    match tail.retiring().obstacle() {
        Some(cause) if tail.retiring().aside() >= max => {
            let what = "as many stretches of forgotten events as may be are kept in the file by damage";
            Err(StoreError::Stuck { what, cause: Arc::new(cause.clone()) })
        }
        _ => Ok(()),
    }
}

/// Writes what `stream`, which is remembered, is like; returns its row. Events in the tail are not the row's yet.
pub(super) fn put(core: &Core, stream: &Name, head: &StreamHead) -> Result<i64, StoreError> {
    let (version, hash) = {
        let tail = core.shared.tail();
        let slot = tail.slot(stream.as_str());
        slot.map(|slot| (slot.base.version, slot.base_hash)).unwrap_or_default()
    };
    let indexed = StreamHead { version, ..*head };
    index::put_stream(&core.connection, stream.as_str(), &indexed, &hash).map_err(failed(RETIRING))
}

/// Takes the next slice of forgotten data out of the blocks, in a transaction of its own. Between groups only.
///
/// A range that cannot be rewritten is set aside, so that it does not keep others waiting: each call does something, sets a
/// range aside, or fails.
pub(super) fn slice(core: &mut Core) -> Result<(), StoreError> {
    let ranges = core.shared.tail().retiring().next(SLICE_RANGES);
    let mut slice = Slice { bytes: SLICE_BYTES, blocks: Vec::new(), done: Vec::new() };
    let written = match prepare(core, &ranges) {
        Ok(()) => ranges
            .iter()
            .try_for_each(|(stream, range)| slice.rewrite(core, stream, range).map_err(Obstacle::of(stream, range)))
            .and_then(|()| core.make_durable(RETIRING).map_err(Obstacle::General)),
        Err(obstacle) => Err(obstacle),
    };
    match written {
        Ok(()) => {
            core.begun = false;
            if slice.blocks.len() > 1 {
                core.env.reached("store: several blocks were rewritten at once");
            }
            core.shared.lingering.store(true, Ordering::Relaxed);
            // Ordering: see `retiring`.
            core.shared.cache.forget(&slice.blocks);
            let mut tail = core.shared.tail_mut();
            slice.done.iter().for_each(|(id, next)| tail.retiring_mut().advance(*id, *next));
            Ok(())
        }
        Err(obstacle) => {
            let obstacle = obstacle.explained(core);
            core.roll_back();
            match obstacle {
                Obstacle::General(cause) => {
                    core.end_if_fatal(&cause);
                    Err(cause)
                }
                Obstacle::Range { stream, id, cause } => {
                    let cause = StoreError::not_wiped(stream, cause);
                    tracing::error!(
                        error = &cause as &dyn std::error::Error,
                        "data that was forgotten stays in the file"
                    );
                    core.env.reached("store: a range was set aside");
                    core.shared.tail_mut().retiring_mut().set_aside(id, cause);
                    Ok(())
                }
            }
        }
    }
}

/// Begins the slice's transaction, once everything that `ranges` are about is in the tables.
fn prepare(core: &mut Core, ranges: &[(Arc<str>, Range)]) -> Result<(), Obstacle> {
    for (stream, range) in ranges {
        let row = index::stream(&core.connection, stream).map_err(Obstacle::of(stream, range))?;
        if row.map_or(0, |row| row.head.version.get()) < range.last {
            // What is in the tail is not rewritten there.
            core.flush().map_err(Obstacle::General)?;
            break;
        }
    }
    core.begin().map_err(Obstacle::General)
}

/// What is in the way of a slice.
enum Obstacle {
    /// Something that is in the way of every range.
    General(StoreError),
    /// Something that is in the way of this range, and of no other as far as is known.
    Range { stream: Arc<str>, id: i64, cause: StoreError },
}

impl Obstacle {
    fn of(stream: &Arc<str>, range: &Range) -> impl FnOnce(StoreError) -> Self {
        move |cause| Self::Range { stream: stream.clone(), id: range.id, cause }
    }

    /// Told by what the system said, where that is not about one range alone.
    fn explained(self, core: &Core) -> Self {
        let (Self::General(cause) | Self::Range { cause, .. }) = &self;
        let cause = explained(&core.connection, cause.clone());
        match self {
            Self::Range { stream, id, .. } if !is_general(&cause) => Self::Range { stream, id, cause },
            _ => Self::General(cause),
        }
    }
}

/// Whether what follows would meet it as well.
fn is_general(cause: &StoreError) -> bool {
    use StoreError::{Busy, Closed, DiskFull, OutcomeUnknown};
    matches!(cause, DiskFull | Busy | Closed | OutcomeUnknown) || is_fatal(cause)
}

/// A slice in the making.
struct Slice {
    /// What it may still rewrite.
    bytes: usize,
    /// The first positions of the blocks that it rewrote.
    blocks: Vec<u64>,
    /// How far it came: range, next version.
    done: Vec<(i64, u64)>,
}

impl Slice {
    /// Goes on with a range, as far as the slice allows.
    fn rewrite(&mut self, core: &Core, stream: &Arc<str>, range: &Range) -> Result<(), StoreError> {
        if self.bytes == 0 {
            return Ok(());
        }
        let Some(row) = index::stream(&core.connection, stream)? else {
            return Err(corrupt("quorate_retiring", format!("there is no stream `{stream}`")));
        };
        let positions = index::versions(&core.connection, row.id, range.next, range.last, SLICE_EVENTS)?;
        let next = range.next + self.make_stubs(core, &positions, range.stub)? as u64;
        retiring::put(&core.connection, stream, &Range { next, ..*range })?;
        self.done.push((range.id, next));
        Ok(())
    }

    /// Rewrites blocks that hold `positions`, which ascend, until the slice is full. Returns how many positions are done.
    fn make_stubs(&mut self, core: &Core, positions: &[u64], kind: Stub) -> Result<usize, StoreError> {
        let mut body = Vec::new();
        let mut rest = positions;
        while let Some(first) = rest.first()
            && self.bytes > 0
        {
            let block = shared::block_of(&core.connection, *first)?;
            let (here, later) = rest.split_at(rest.partition_point(|position| *position < block.end()));
            let stubs: BTreeMap<u64, Recorded> = here
                .iter()
                .map(|position| Ok((*position, shared::in_block(&block, *position)?.to_stub(kind))))
                .collect::<Result<_, StoreError>>()?;
            let events = (block.first()..block.end())
                .map(|position| stubs.get(&position).cloned().map_or_else(|| shared::in_block(&block, position), Ok))
                .collect::<Result<Vec<_>, _>>()?;
            block::encode(&events, &mut body);
            core.connection
                .prepare_cached("UPDATE quorate_block SET body = ?2 WHERE first = ?1")
                .and_then(|mut update| update.execute(params![block.first().cast_signed(), body]))
                .map_err(failed(RETIRING))?;
            self.bytes = self.bytes.saturating_sub(block.size());
            self.blocks.push(block.first());
            rest = later;
        }
        Ok(positions.len() - rest.len())
    }
}
