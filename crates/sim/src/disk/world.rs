//! What SQLite asks for without saying on which host: randomness, the time, sleep, and whose disk a path is on.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use quorate_foundations::time::Wall;
use quorate_runtime::random::{Random, Rng};

use super::{Shared, SimDisk};

/// The folder in which every host has one.
pub(super) const ROOT: &str = "/sim";

/// Reads the wall clock of whichever host is running.
pub(super) type Clock = Arc<dyn Fn() -> Wall + Send + Sync>;

static WORLD: Mutex<World> = Mutex::new(World {
    hosts: BTreeMap::new(),
    running: None,
    scratch: None,
    random: None,
    clock: None,
    slept: Duration::ZERO,
    errno: 0,
});

pub(super) struct World {
    hosts: BTreeMap<String, Weak<Shared>>,
    running: Option<SimDisk>,
    /// Where files without a name go while no host runs.
    scratch: Option<SimDisk>,
    random: Option<Rng>,
    clock: Option<Clock>,
    slept: Duration,
    /// The last error that an operation of SQLite met.
    pub(super) errno: i32,
}

/// The state of the world. Lock order: before any disk's, and no disk is called while it is held.
pub(super) fn world() -> MutexGuard<'static, World> {
    WORLD.lock().unwrap_or_else(PoisonError::into_inner)
}

impl World {
    /// Makes a disk known under its host's name.
    pub(super) fn add(&mut self, host: &str, disk: &Arc<Shared>) {
        let is_free = self.hosts.get(host).is_none_or(|other| other.strong_count() == 0);
        assert!(is_free, "there already is a disk of a host `{host}`");
        self.hosts.insert(host.to_owned(), Arc::downgrade(disk));
    }

    /// The disk that `path` is on: by its prefix, or else that of the running host.
    pub(super) fn disk_of(&self, path: &Path) -> Option<SimDisk> {
        let Ok(inside) = path.strip_prefix(ROOT) else { return self.running.clone() };
        let host = inside.components().next()?.as_os_str().to_str()?;
        self.hosts.get(host)?.upgrade().map(SimDisk)
    }

    /// Where a file without a name goes.
    pub(super) fn disk_for_temporary(&self) -> Option<SimDisk> {
        self.running.clone().or_else(|| self.scratch.clone())
    }

    pub(super) fn set_scratch(&mut self, disk: SimDisk) {
        self.scratch = Some(disk);
    }

    pub(super) fn run(&mut self, disk: Option<SimDisk>) -> Option<SimDisk> {
        std::mem::replace(&mut self.running, disk)
    }

    pub(super) fn fill(&mut self, bytes: &mut [u8]) {
        self.random.get_or_insert_with(|| Random::from_seed([0; 32]).stream("sqlite")).fill(bytes);
    }

    pub(super) fn seed(&mut self, random: Rng) {
        self.random = Some(random);
        self.slept = Duration::ZERO;
    }

    pub(super) fn set_clock(&mut self, clock: Clock) {
        self.clock = Some(clock);
    }

    pub(super) fn clock(&self) -> Option<Clock> {
        self.clock.clone()
    }

    pub(super) fn sleep(&mut self, span: Duration) {
        self.slept += span;
    }

    pub(super) fn take_sleep(&mut self) -> Duration {
        std::mem::take(&mut self.slept)
    }
}

/// While this lives, a host runs: paths that name no host, and files without a name, are on its disk.
#[must_use = "the host runs only while this lives"]
pub struct Running {
    before: Option<SimDisk>,
}

impl Running {
    pub(super) fn begin(disk: SimDisk) -> Self {
        Self { before: world().run(Some(disk)) }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let ended = world().run(self.before.take());
        // Outside the lock: this may be the last handle on the disk.
        drop(ended);
    }
}
