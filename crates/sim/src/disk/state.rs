//! The inside of a disk: what is on it, and the gate that every operation passes.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    time::Duration,
};

use quorate_runtime::{
    fault::{
        DiskFaults,
        disk::{DiskError, SlowSyncs},
    },
    random::Rng,
};

use super::{
    counts::DiskCounts,
    inode::Inode,
    locks::{FileLocks, HandleId},
    model::Model,
    names::{EIO, ENOSPC, InodeId, Names, error},
    shm::Shm,
};

/// What is called when the disk dies.
pub(super) type OnCrash = Box<dyn FnOnce() + Send>;

/// Kinds of operations. Their numbers go into the trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Read = 1,
    Write,
    Truncate,
    Sync,
    SyncFolder,
    Open,
    Look,
    MakeFolder,
    Rename,
    Remove,
}

/// Why an operation goes no further.
#[derive(Debug)]
pub(super) enum Stop {
    /// The disk is dead, or this is a handle of an earlier life.
    Dead,
    /// The disk dies of this very operation.
    Dying,
    /// A fault was injected.
    Injected(io::Error),
}

impl From<Stop> for io::Error {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Dead | Stop::Dying => error(EIO),
            Stop::Injected(cause) => cause,
        }
    }
}

pub(super) struct State {
    pub(super) model: Model,
    pub(super) faults: DiskFaults,
    pub(super) rng: Rng,
    pub(super) names: Names,
    pub(super) inodes: BTreeMap<InodeId, Inode>,
    pub(super) open: BTreeMap<HandleId, InodeId>,
    pub(super) locks: BTreeMap<InodeId, FileLocks>,
    /// Files locked as a whole through the port, and by which handle.
    pub(super) held: BTreeMap<InodeId, HandleId>,
    pub(super) shm: BTreeMap<InodeId, Shm>,
    /// Changes to lengths up to here are durable.
    pub(super) committed: u64,
    pub(super) life: u64,
    pub(super) is_dead: bool,
    /// The number of the operation that the disk dies of, and whom to tell.
    pub(super) armed: Option<(u64, OnCrash)>,
    /// Whom to tell once nobody holds the state.
    pub(super) fired: Option<OnCrash>,
    pub(super) counts: DiskCounts,
    pub(super) charge: Duration,
    pub(super) trace: blake3::Hasher,
    last_id: u64,
    last_change: u64,
}

impl State {
    pub(super) fn new(root: &str, model: Model, rng: Rng) -> Self {
        Self {
            model,
            faults: DiskFaults::default(),
            rng,
            names: Names::new(root),
            inodes: BTreeMap::new(),
            open: BTreeMap::new(),
            locks: BTreeMap::new(),
            held: BTreeMap::new(),
            shm: BTreeMap::new(),
            committed: 0,
            life: 1,
            is_dead: false,
            armed: None,
            fired: None,
            counts: DiskCounts::default(),
            charge: Duration::ZERO,
            trace: blake3::Hasher::new(),
            last_id: 0,
            last_change: 0,
        }
    }

    /// A number for a file or a handle, never used before.
    pub(super) fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    /// The moment of a change, later than all before.
    pub(super) fn next_change(&mut self) -> u64 {
        self.last_change += 1;
        self.last_change
    }

    /// The moment of the latest change.
    pub(super) fn last_change(&self) -> u64 {
        self.last_change
    }

    pub(super) fn note(&mut self, what: &[u64]) {
        for number in what {
            self.trace.update(&number.to_le_bytes());
        }
    }

    /// Whether a handle of `life` still reaches the disk.
    pub(super) fn check_alive(&self, life: u64) -> Result<(), Stop> {
        if self.is_dead || life != self.life { Err(Stop::Dead) } else { Ok(()) }
    }

    /// Counts an operation and decides whether it may go on.
    pub(super) fn begin(&mut self, life: u64, kind: Kind, about: &[u64]) -> Result<(), Stop> {
        self.check_alive(life)?;
        self.counts.operations += 1;
        match kind {
            Kind::Read => self.counts.reads += 1,
            Kind::Write | Kind::Truncate => self.counts.writes += 1,
            Kind::Sync | Kind::SyncFolder => self.counts.syncs += 1,
            _ => {}
        }
        self.note(&[self.counts.operations, kind as u64]);
        self.note(about);
        let verdict = self.judge(kind);
        self.note(&[u64::from(verdict.is_err())]);
        verdict
    }

    fn judge(&mut self, kind: Kind) -> Result<(), Stop> {
        let operation = self.counts.operations;
        if self.armed.as_ref().is_some_and(|(at, _)| *at <= operation) {
            self.die();
            return Err(Stop::Dying);
        }
        if let Some(at) = self.faults.errors_at.iter().find(|at| at.operation == operation) {
            let error = at.error;
            return Err(self.inject(kind, error));
        }
        let chance = match kind {
            Kind::Read => self.faults.read_errors,
            Kind::Write | Kind::Truncate => self.faults.write_errors,
            Kind::Sync | Kind::SyncFolder => self.faults.sync_errors,
            _ => 0.0,
        };
        if self.happens(chance) { Err(self.inject(kind, DiskError::Io)) } else { Ok(()) }
    }

    fn inject(&mut self, kind: Kind, what: DiskError) -> Stop {
        let (counter, errno) = match (what, kind) {
            (DiskError::NoSpace, _) => (&mut self.counts.no_space, ENOSPC),
            (DiskError::Io, Kind::Read) => (&mut self.counts.read_errors, EIO),
            (DiskError::Io, Kind::Write | Kind::Truncate) => (&mut self.counts.write_errors, EIO),
            (DiskError::Io, Kind::Sync | Kind::SyncFolder) => (&mut self.counts.sync_errors, EIO),
            (DiskError::Io, _) => (&mut self.counts.other_errors, EIO),
        };
        *counter += 1;
        Stop::Injected(error(errno))
    }

    /// From here on every operation fails.
    pub(super) fn die(&mut self) {
        if self.is_dead {
            return;
        }
        self.is_dead = true;
        self.counts.crashes += 1;
        self.fired = self.armed.take().map(|(_, on_crash)| on_crash);
    }

    /// Draws only where there is a chance, so that faults which are off change nothing.
    pub(super) fn happens(&mut self, chance: f64) -> bool {
        chance > 0.0 && self.rng.unit() < chance
    }

    /// Charges for a sync, and more if it is a slow one.
    pub(super) fn charge_sync(&mut self) {
        self.charge += self.model.sync;
        let Some(SlowSyncs { chance, least, most }) = self.faults.slow_syncs.clone() else { return };
        if self.happens(chance) {
            self.counts.slow_syncs += 1;
            self.charge += least + most.saturating_sub(least).mul_f64(self.rng.unit());
        }
    }

    /// Bytes that take space: files with a name or open, and shared memory.
    pub(super) fn used_bytes(&self) -> u64 {
        let alive: BTreeSet<InodeId> = self.names.files().chain(self.open.values().copied()).collect();
        let pages: u64 =
            alive.iter().filter_map(|inode| self.inodes.get(inode)).map(|inode| inode.current().pages()).sum();
        pages * super::content::PAGE as u64 + self.shm.values().map(Shm::bytes).sum::<u64>()
    }

    /// Bytes that can still be taken.
    pub(super) fn free_bytes(&self) -> u64 {
        self.faults.capacity_bytes.map_or(u64::MAX, |capacity| capacity.saturating_sub(self.used_bytes()))
    }

    /// Forgets files that nobody can reach any more.
    pub(super) fn forget_unreachable(&mut self) {
        let reachable: BTreeSet<InodeId> = self.names.possible_files().chain(self.open.values().copied()).collect();
        self.inodes.retain(|inode, _| reachable.contains(inode));
    }
}
