//! What is promised, in memory: it follows the rows, and is read from them again whenever a transaction was taken back.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use quorate_data::store::{DynTx, SqlError, StoreError};
use quorate_foundations::name::Name;

use super::rows::{Entry, Loaded, Rows};
use crate::two_phase_commit::{CoordinatorId, Gid, TxnId};

/// How many kinds of endings are remembered as tried, each of at most so many bytes.
const MAX_TRIED: usize = 1_024;
const MAX_KIND_BYTES: usize = 4 << 10;

/// The memories of a store's participants: each is the only one of its name, however often it is opened. Whoever holds one
/// holds all of them.
#[derive(Default)]
pub(super) struct Rooms(Mutex<BTreeMap<Name, Arc<Room>>>);

impl Rooms {
    pub(super) fn of(&self, participant: &Name) -> Arc<Room> {
        let mut rooms = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        rooms.entry(participant.clone()).or_default().clone()
    }
}

/// The memory of one participant.
///
/// It is changed inside the transactions that change the rows, in their order. A transaction that does not commit leaves it
/// [stale](Memory::is_read), and the next one reads it anew.
#[derive(Default)]
pub(super) struct Room(Mutex<Memory>);

#[derive(Default)]
struct Memory {
    is_read: bool,
    entries: BTreeMap<Gid, Arc<Entry>>,
    claims: BTreeMap<Arc<str>, Gid>,
    below: BTreeMap<CoordinatorId, TxnId>,
    /// Kinds of endings that were tried.
    tried: BTreeSet<Arc<str>>,
    /// The highest transaction of each coordinator that has a row: nothing is known of those above.
    highest: BTreeMap<CoordinatorId, TxnId>,
}

/// Makes the memory stale unless its transaction commits.
struct Change {
    room: Arc<Room>,
    is_durable: bool,
}

impl Drop for Change {
    fn drop(&mut self) {
        if !self.is_durable {
            self.room.memory().is_read = false;
        }
    }
}

impl Change {
    fn keep(mut self) {
        self.is_durable = true;
    }
}

impl Room {
    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads it from the rows if it is stale.
    pub(super) async fn refresh(&self, tx: &mut DynTx, rows: &Rows) -> Result<(), SqlError> {
        if self.memory().is_read {
            return Ok(());
        }
        let Loaded { entries, below, highest } = rows.load(tx).await?;
        let mut memory = Memory { is_read: true, ..Memory::default() };
        memory.below = below.into_iter().map(|gid| (gid.coordinator, gid.txn)).collect();
        highest.into_iter().for_each(|gid| memory.saw(&gid));
        entries.into_iter().for_each(|entry| memory.add(entry));
        *self.memory() = memory;
        Ok(())
    }

    /// Which of `claims` somebody else has, and who.
    pub(super) fn conflict(&self, claims: &[Arc<str>]) -> Option<(Arc<str>, Gid)> {
        let memory = self.memory();
        claims.iter().find_map(|claim| memory.claims.get(claim).map(|holder| (claim.clone(), *holder)))
    }

    pub(super) fn entry(&self, gid: &Gid) -> Option<Arc<Entry>> {
        self.memory().entries.get(gid).cloned()
    }

    pub(super) fn entries(&self, coordinator: CoordinatorId) -> Vec<Arc<Entry>> {
        let memory = self.memory();
        memory.entries.values().filter(|entry| entry.gid.coordinator == coordinator).cloned().collect()
    }

    /// Whether it lies below what its coordinator said has ended.
    pub(super) fn is_forgotten(&self, gid: &Gid) -> bool {
        self.memory().below.get(&gid.coordinator).is_some_and(|below| gid.txn < *below)
    }

    /// Whether each of these kinds was tried before.
    pub(super) fn has_tried(&self, kinds: &[Arc<str>]) -> bool {
        let memory = self.memory();
        kinds.iter().all(|kind| memory.tried.contains(kind))
    }

    pub(super) fn tried(&self, kinds: Vec<Arc<str>>) {
        let mut memory = self.memory();
        if memory.tried.len() + kinds.len() > MAX_TRIED {
            memory.tried.clear();
        }
        let short = kinds.into_iter().filter(|kind| kind.len() <= MAX_KIND_BYTES);
        memory.tried.extend(short.take(MAX_TRIED));
    }

    /// Whether it has no row for certain, because none so high has.
    pub(super) fn is_new(&self, gid: &Gid) -> bool {
        self.memory().highest.get(&gid.coordinator).is_none_or(|highest| gid.txn > *highest)
    }

    /// A row is written of a transaction of which nothing is promised.
    pub(super) fn saw(self: &Arc<Self>, tx: &mut DynTx, gid: &Gid) -> Result<(), StoreError> {
        self.change(tx, |memory| memory.saw(gid))
    }

    pub(super) fn take(self: &Arc<Self>, tx: &mut DynTx, entry: Entry) -> Result<(), StoreError> {
        self.change(tx, |memory| memory.add(entry))
    }

    pub(super) fn release(self: &Arc<Self>, tx: &mut DynTx, gid: &Gid) -> Result<(), StoreError> {
        self.change(tx, |memory| {
            let Some(entry) = memory.entries.remove(gid) else { return };
            for claim in &entry.claims {
                memory.claims.remove(claim);
            }
        })
    }

    pub(super) fn forget(self: &Arc<Self>, tx: &mut DynTx, gid: Gid) -> Result<(), StoreError> {
        self.change(tx, |memory| {
            let below = memory.below.entry(gid.coordinator).or_insert(gid.txn);
            *below = gid.txn.max(*below);
        })
    }

    fn change(self: &Arc<Self>, tx: &mut DynTx, change: impl FnOnce(&mut Memory)) -> Result<(), StoreError> {
        let made = Change { room: self.clone(), is_durable: false };
        change(&mut self.memory());
        // Ordering: the hook runs once this is durable, and is dropped where it is not.
        tx.after_commit(move || made.keep())
    }
}

impl Memory {
    fn saw(&mut self, gid: &Gid) {
        let highest = self.highest.entry(gid.coordinator).or_insert(gid.txn);
        *highest = gid.txn.max(*highest);
    }

    fn add(&mut self, entry: Entry) {
        self.saw(&entry.gid);
        for claim in &entry.claims {
            self.claims.insert(claim.clone(), entry.gid);
        }
        self.entries.insert(entry.gid, Arc::new(entry));
    }
}
