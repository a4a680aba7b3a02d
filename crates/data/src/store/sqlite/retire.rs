//! Retention: making stubs of a stream's events.

use std::{collections::BTreeMap, sync::atomic::Ordering};

use quorate_foundations::name::Name;
use rusqlite::params;

use super::{
    block,
    connection::{explained, failed},
    core::Core,
    index, shared,
};
use crate::{
    event::{Recorded, Stub, Version},
    store::{AppendError, Retire, Retired, StoreError, StreamHead},
};

const RETIRING: &str = "forgetting events";

/// Carries out `what` on `stream`, in a transaction of its own.
///
/// The stream's row and its blocks change together: a crash leaves either all of the old data or none of it.
pub(super) fn run(core: &mut Core, stream: &Name, what: Retire) -> Result<Retired, AppendError> {
    // Everything must be in the tables first: what is in the tail is not rewritten there.
    core.flush()?;
    core.begin()?;
    let retired = rewrite(core, stream, what);
    let committed = retired.and_then(|retired| Ok(core.make_durable(RETIRING).map(|()| retired)?));
    let committed = committed.map_err(|cause| match cause {
        AppendError::Store(cause) => AppendError::Store(explained(&core.connection, cause)),
        other => other,
    });
    match &committed {
        Ok(_) => {
            core.begun = false;
            core.shared.tail_mut().forget(stream.as_str());
            core.shared.cache.clear();
            core.shared.lingering.store(true, Ordering::Relaxed);
            core.empty_log();
            core.shared.streams.wake(core.shared.streams.of([stream.as_str()]), *core.shared.head.borrow());
        }
        Err(AppendError::Store(cause)) => {
            core.roll_back();
            core.end_if_fatal(cause);
        }
        Err(_) => core.roll_back(),
    }
    committed
}

fn rewrite(core: &Core, stream: &Name, what: Retire) -> Result<Retired, AppendError> {
    let row = index::stream(&core.connection, stream.as_str())?;
    let known = row.as_ref().map(|row| row.head).unwrap_or_default();
    let (head, kind) = match what {
        Retire::Truncate { before } => {
            let first = before.get().clamp(known.first.get(), known.version.get() + 1);
            (StreamHead { first: Version::new(first), ..known }, Stub::Truncated)
        }
        Retire::Tombstone { expected } => {
            if !known.tombstoned && !expected.accepts(known.version) {
                return Err(AppendError::VersionConflict { stream: stream.clone(), expected, actual: known.version });
            }
            (StreamHead { first: known.version.next(), tombstoned: true, ..known }, Stub::Tombstoned)
        }
    };
    if head == known {
        return Ok(Retired { events: 0 });
    }
    let hash = row.as_ref().map_or(crate::event::ChainHash::START, |row| row.hash);
    let id = index::put_stream(&core.connection, stream.as_str(), &head, &hash).map_err(failed(RETIRING))?;
    let (from, to) = (known.first.get(), head.first.get() - 1);
    let count = usize::try_from(to + 1 - from).unwrap_or(usize::MAX);
    let positions = index::versions(&core.connection, id, from, to, count)?;
    if make_stubs(core, &positions, kind)? > 1 {
        core.env.reached("store: several blocks were rewritten at once");
    }
    Ok(Retired { events: positions.len() as u64 })
}

/// Rewrites the blocks that hold `positions`, which ascend; says how many blocks.
fn make_stubs(core: &Core, positions: &[u64], kind: Stub) -> Result<usize, StoreError> {
    let (mut body, mut blocks) = (Vec::new(), 0);
    let mut rest = positions;
    while let Some(first) = rest.first() {
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
        blocks += 1;
        rest = later;
    }
    Ok(blocks)
}
