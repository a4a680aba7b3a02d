//! Erasing a data subject: the writer's part.

use std::{collections::BTreeMap, sync::atomic::Ordering};

use rusqlite::Connection;

use super::{
    connection::failed,
    core::Core,
    index,
    keys::KeyState,
    ledger,
    shared::{self, Shared, View},
    tail::TermKind,
};
use crate::store::{
    StoreError,
    erasure::{Entry, Erasure, SubjectHash},
};

const ERASING: &str = "erasing a data subject";

/// What is known of a subject's keys after [`run`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Destroyed {
    /// The generations that were destroyed by this call: those behind the first, up to the second.
    pub(super) generations: (u32, u32),
    /// The subject's newest entry in the ledger.
    pub(super) entry: Option<Entry>,
}

/// Destroys every key of `subject`.
///
/// Ordering: the ledger is durable before the key is destroyed. Whatever happens in between, opening the store destroys
/// the key; the other way round, a crash would leave events that nobody knows the reason of.
pub(super) fn run(core: &mut Core, subject: &str) -> Result<Destroyed, StoreError> {
    let hash = core.shared.keys.hash(subject);
    let known = ledger::newest(&core.connection, &hash)?;
    let before = known.map_or(0, |entry| entry.erasure.generation);
    let Some(generation) = newest_generation(core, subject, &hash)?.filter(|newest| *newest > before) else {
        // A first attempt may have ended between the two steps.
        if let Some(entry) = known {
            destroy(core, entry.erasure)?;
        }
        return Ok(Destroyed { generations: (before, before), entry: known });
    };
    let erasure = Erasure { subject: hash, generation, erased_at: core.env.wall() };
    enter(core, &erasure)?;
    destroy(core, erasure)?;
    let number = ledger::head(&core.connection)?.entries.cast_unsigned();
    Ok(Destroyed { generations: (before, generation), entry: Some(Entry { number, erasure }) })
}

/// The newest generation of keys that `subject` has, or that sealed one of its events.
fn newest_generation(core: &Core, subject: &str, hash: &SubjectHash) -> Result<Option<u32>, StoreError> {
    let living = core.shared.keys.find(hash)?.and_then(|known| known.live).map(|key| key.id().generation);
    if living.is_some() {
        return Ok(living);
    }
    // Its key may be lost: then only the events tell.
    let view = core.shared.view(&core.connection);
    for position in positions(&core.shared, view, subject)?.into_iter().rev() {
        if let Some(key) = core.shared.event(view, position)?.key_id() {
            return Ok(Some(key.generation));
        }
    }
    Ok(None)
}

/// Where the events that name `subject` stand, ascending.
fn positions(shared: &Shared, view: View<'_>, subject: &str) -> Result<Vec<u64>, StoreError> {
    let young = {
        let tail = shared.tail();
        let published = tail.published();
        let positions = tail.postings(TermKind::DataSubject, subject);
        positions.iter().copied().take_while(|position| *position <= published).collect::<Vec<_>>()
    };
    let mut found: Vec<u64> = Vec::new();
    if let Some(term) = index::term(view.connection, TermKind::DataSubject, subject)? {
        let mut behind = 0;
        while let Some(run) = index::postings(view.connection, term, behind)? {
            found.extend(run.positions);
            behind = found.last().copied().unwrap_or(u64::MAX);
        }
    }
    // The tail may have gone into the index between the two looks.
    let indexed = found.last().copied().unwrap_or(0);
    found.extend(young.into_iter().filter(|position| *position > indexed));
    Ok(found)
}

fn enter(core: &mut Core, erasure: &Erasure) -> Result<(), StoreError> {
    core.begin()?;
    let entered = ledger::add(&core.connection, erasure).and_then(|_| core.make_durable(ERASING));
    match &entered {
        Ok(()) => core.begun = false,
        Err(cause) => {
            core.roll_back();
            core.end_if_fatal(cause);
        }
    }
    entered
}

fn destroy(core: &Core, erasure: Erasure) -> Result<(), StoreError> {
    let chain = ledger::head(&core.connection)?.chain;
    let destroyed = core.shared.keys.destroy(erasure, chain);
    // Also where it failed: the key counts as destroyed from now on. What rooms delete next lingers in old pages.
    core.shared.lingering.store(true, Ordering::Relaxed);
    core.shared.forget();
    destroyed
}

/// How many whole events of `subject` are sealed with keys of the generations behind `after`, up to `to`.
pub(super) fn count(
    shared: &Shared,
    view: View<'_>,
    subject: &str,
    (after, to): (u32, u32),
) -> Result<u64, StoreError> {
    if after == to {
        return Ok(0);
    }
    let mut events = 0;
    for position in positions(shared, view, subject)? {
        let event = shared.event(view, position)?;
        let sealed = event.key_id().filter(|_| event.stub().is_none());
        events += u64::from(sealed.is_some_and(|key| key.generation > after && key.generation <= to));
    }
    Ok(events)
}

/// Whether the key of `generation` has sealed an event of `subject`.
pub(super) fn has_sealed(shared: &Shared, view: View<'_>, subject: &str, generation: u32) -> Result<bool, StoreError> {
    for position in positions(shared, view, subject)?.into_iter().rev() {
        if shared.event(view, position)?.key_id().is_some_and(|key| key.generation == generation) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether a whole event of `subject` is sealed with a key that neither lives nor was erased.
pub(super) fn misses_key(shared: &Shared, view: View<'_>, subject: &str) -> Result<bool, StoreError> {
    for position in positions(shared, view, subject)?.into_iter().rev() {
        let event = shared.event(view, position)?;
        if event.stub().is_none() && matches!(shared.keys.state_of(&event)?, Some(KeyState::Missing)) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// For every data subject with sealed events, the newest generation of keys that sealed one, from the whole log.
pub(super) fn newest_generations(
    connection: &Connection,
    store: u64,
) -> Result<BTreeMap<SubjectHash, u32>, StoreError> {
    let mut select =
        connection.prepare("SELECT first, body FROM quorate_block ORDER BY first").map_err(failed(ERASING))?;
    let mut rows = select.query([]).map_err(failed(ERASING))?;
    let mut newest = BTreeMap::new();
    while let Some(row) = rows.next().map_err(failed(ERASING))? {
        let (first, body): (i64, Vec<u8>) =
            row.get(0).and_then(|first| Ok((first, row.get(1)?))).map_err(failed(ERASING))?;
        let block = shared::check(first, body.into())?;
        for position in block.first()..block.end() {
            let event = shared::in_block(&block, position)?;
            let Some((subject, key)) = event.data_subject().zip(event.key_id()) else { continue };
            let known = newest.entry(SubjectHash::of(store, subject)).or_default();
            *known = key.generation.max(*known);
        }
    }
    Ok(newest)
}
