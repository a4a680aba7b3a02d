//! The disk of a simulated host, and SQLite on it.
//!
//! A [`SimDisk`] is what lies in a host's case: it survives the crash and the restart of the host, and keeps of what was
//! written as much as a real one would. [`mount`](SimDisk::mount) gives the product's view of it for one life of the host.
//! SQLite reaches it through a virtual file system (VFS) that [`register`] makes the default of the process, so that the
//! product's own code opens its databases on it unchanged.
//!
//! # The model
//! *Bytes.* A write changes what readers see at once, and nothing on the device. A sync of a file makes its bytes and its
//! length durable. When the power fails before that, each page of 4 KiB (or each sector of 512 bytes) is as it was at the
//! last sync or at any moment since: a page is written back as a whole, so that a lost write can't leave a hole in a later
//! one to the same sector. Which moment, [`Survival`] decides. A file reaches as
//! far as its last surviving byte, and sometimes as far as it did, with zeros at the end. Beyond 64 MiB of unsynced
//! changes a file is written back by itself, as a kernel does.
//!
//! *Names and lengths.* Creating, renaming, removing and truncating go through a journal that keeps their order: after a
//! power failure a prefix has happened. When the journal is written out is up to the [`Journal`]. A truncation that is
//! undone takes along what was written after it.
//!
//! *Failed syncs.* Some pages reached the device, none will be tried again, and readers go on seeing all of them until the
//! power fails ("fsyncgate"), also after the process has ended: whoever goes on has to write again what it reads.
//!
//! *Not modelled:* directories that are synced one by one (a sync of any makes all names durable), links, permissions,
//! reads that come back from the device after a failed sync without a restart, and misdirected writes.
//!
//! # Crashes
//! [`kill`](SimDisk::kill) ends the process: what was written stays, locks and handles go. [`power_loss`](SimDisk::power_loss)
//! also takes what wasn't synced. Either begins a new life; whatever was opened before fails from then on.
//! [`crash_at`](SimDisk::crash_at) kills the disk in the middle of an operation, before either.
//!
//! # Time
//! Inline code can't wait. A slow sync is charged instead, and the world takes the sum with
//! [`take_charge`](SimDisk::take_charge); what SQLite slept in waiting for locks, with [`take_sleep`]. A connection that
//! waits for another one's lock gives up after its busy timeout without anybody having waited: on one thread, nobody could
//! have let go meanwhile.
//!
//! # Running quorate's store on it
//! Nothing of the store knows: `store::sqlite::open` asks `Env::disk` for the canonical path, takes its lock file there,
//! and opens SQLite with that path, which carries the host in it.
//!
//! ```
//! use quorate_runtime::{fault::disk::Survival, random::Random};
//! use quorate_sim::disk::{self, Model, SimDisk};
//!
//! // Once per process, before anything opens SQLite; then once per world.
//! let random = Random::from_seed([7; 32]);
//! disk::register();
//! disk::seed(random.stream("sqlite"));
//!
//! // One per host. `EnvParts { disk: disk.mount(), .. }` is what the host's `Env` is made of in this life.
//! let disk = SimDisk::new("n1", Model::default(), random.stream("n1/disk"));
//! let mount = disk.mount();
//! let path = mount.canonical("data/store.db".as_ref())?;
//! assert_eq!(path.to_str(), Some("/sim/n1/data/store.db"));
//! mount.create_dir_all("data".as_ref())?;
//!
//! // While the host is polled: `let store = store::sqlite::open(&env, Config::new(path)).await?` and so on, or plainly:
//! let running = disk.enter();
//! let connection = rusqlite::Connection::open(&path)?;
//! connection.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; CREATE TABLE t (x); INSERT INTO t VALUES (1)")?;
//! drop(running);
//!
//! // The operation after next is the host's last one: the world is told, drops the host, and cuts the power.
//! disk.crash_at(2, || println!("drop the host now"));
//! assert!(connection.execute("INSERT INTO t VALUES (2)", []).is_err() && disk.is_dead());
//! drop(connection);
//! disk.power_loss(Survival::Torn, &mut random.stream("n1/power"));
//!
//! // The next life, with a mount of its own. What was acknowledged is there; of the rest nobody was told anything.
//! let connection = rusqlite::Connection::open(&path)?;
//! let rows: i64 = connection.query_row("SELECT count(*) FROM t", [], |row| row.get(0))?;
//! assert!(rows == 1 || rows == 2);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//! The store's own conformance suite runs on it, with crashes that are power failures:
//!
//! ```ignore
//! impl conformance::Place for Host {
//!     fn open(&self, limits: Limits) -> BoxFuture<'_, Store> {
//!         // `self.env()` is `Env::from_parts` with `disk: self.disk.mount()`, a mount for each life.
//!         Box::pin(async move { sqlite::open(&self.env(), Config { limits, ..Config::at("store.db") }).await.unwrap() })
//!     }
//!
//!     fn crash(&self, store: Store) -> BoxFuture<'_, ()> {
//!         Box::pin(async move {
//!             self.disk.crash();  // nothing that is dropped from here on reaches the disk
//!             drop(store);        // and everything else of the host, its writer too
//!             self.disk.power_loss(Survival::draw(&mut self.rng), &mut self.rng);
//!         })
//!     }
//! }
//! ```
//! What the world brings for that: a `Blocking` port whose `run` works inline and whose `dedicate` is a task that works
//! when it is kicked; `Env::fatal` as [`crash`](SimDisk::crash) and the end of the host (a failed sync ends there); clocks
//! that move by a little with every reading, since a limit on time that is checked in a loop would never be reached
//! otherwise, and by [`take_charge`](SimDisk::take_charge) and [`take_sleep`] after each poll of a host. Claims in which
//! one thread waits for another can't hold there (`others_see_nothing_before_the_commit`).
//!
//! Source: SQLite, "Atomic Commit In SQLite" sections 2 and 9, "The SQLite OS Interface or VFS"; Pillai et al., "All File
//! Systems Are Not Created Equal", OSDI 2014, for what file systems do to names and lengths; Rebello et al., "Can
//! Applications Recover from fsync Failures?", USENIX ATC 2020.

mod content;
mod counts;
mod failure;
mod handle;
mod inode;
mod locks;
mod model;
mod names;
mod operations;
mod port;
mod shm;
mod state;
mod survival;
mod vfs;
mod world;

use std::{
    io,
    path::{Component, Path},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use quorate_foundations::time::Wall;
use quorate_runtime::{
    disk::Disk,
    fault::{
        DiskFaults,
        disk::{BitRot, DiskFaultsError, Survival},
    },
    random::Rng,
};

pub use self::{
    counts::DiskCounts,
    model::{Journal, Model},
    vfs::register,
    world::Running,
};
use self::{
    names::{EINVAL, error},
    state::State,
    world::{ROOT, world},
};

/// What SQLite draws its randomness from, from now on: the salts of write-ahead logs, `random()`, names of temporary files.
///
/// SQLite's own generator belongs to the process; this makes it start again from `random`, so that what follows depends
/// on nothing before.
pub fn seed(random: Rng) {
    world().seed(random);
    vfs::forget_randomness();
}

/// What SQLite takes for the time, from now on. `now` is asked while a host runs, and may answer by which one that is.
/// Without it, time stands still at the beginning of 1970.
pub fn set_clock(now: impl Fn() -> Wall + Send + Sync + 'static) {
    world().set_clock(Arc::new(now));
}

/// How long SQLite meant to sleep since the last call, or since the world was seeded.
pub fn take_sleep() -> Duration {
    world().take_sleep()
}

/// The disk of one simulated host. Clones are the same disk.
#[derive(Clone)]
pub struct SimDisk(Arc<Shared>);

struct Shared {
    root: String,
    state: Mutex<State>,
}

impl SimDisk {
    /// An empty disk for `host`, on which faults are drawn from `rng`. Its files are at `/sim/<host>/…` for SQLite.
    ///
    /// # Panics
    /// When `host` is no name of a single folder, or another disk of that host is still around.
    pub fn new(host: &str, model: Model, rng: Rng) -> Self {
        let is_one_name = Path::new(host).components().eq([Component::Normal(host.as_ref())]);
        assert!(is_one_name && !host.contains('\0'), "`{host}` is no name of a host");
        let disk = Self::unlisted(&format!("{ROOT}/{host}"), model, rng);
        world().add(host, &disk.0);
        disk
    }

    /// A disk that no path leads to.
    fn unlisted(root: &str, model: Model, rng: Rng) -> Self {
        let state = Mutex::new(State::new(root, model, rng));
        Self(Arc::new(Shared { root: root.to_owned(), state }))
    }

    /// The disk as the product sees it, until the next crash.
    pub fn mount(&self) -> Arc<dyn Disk> {
        Arc::new(port::Mount::new(self))
    }

    /// Makes this the disk of the host that runs, while the answer lives: SQLite's paths without `/sim/<host>` are on it.
    pub fn enter(&self) -> Running {
        Running::begin(self.clone())
    }

    /// Switches faults on and off.
    ///
    /// # Errors
    /// [`DiskFaultsError`]; nothing was changed then.
    pub fn set_faults(&self, faults: DiskFaults) -> Result<(), DiskFaultsError> {
        faults.check()?;
        self.with(|state| state.faults = faults);
        Ok(())
    }

    /// The faults that are switched on.
    pub fn faults(&self) -> DiskFaults {
        self.with(|state| state.faults.clone())
    }

    /// Lets the disk die at its `nth` operation from now, counted from 1: that one and all later ones fail, and `on_crash`
    /// is called. If it is a write, it counts as begun, and [`power_loss`](Self::power_loss) decides how far it got.
    ///
    /// `on_crash` is called from inside SQLite: it must open, use and drop no connection, only tell somebody who will.
    pub fn crash_at(&self, nth: u64, on_crash: impl FnOnce() + Send + 'static) {
        self.with(|state| state.armed = Some((state.counts.operations + nth.max(1), Box::new(on_crash))));
    }

    /// Takes back [`crash_at`](Self::crash_at).
    pub fn disarm(&self) {
        self.with(|state| state.armed = None);
    }

    /// Lets the disk die now, as if an operation had: everything fails, until a new life begins.
    pub fn crash(&self) {
        self.with(State::die);
    }

    /// Whether the disk has died and no new life has begun.
    pub fn is_dead(&self) -> bool {
        self.with(|state| state.is_dead)
    }

    /// Ends the process, and with it every handle, lock and piece of shared memory. What was written stays.
    pub fn kill(&self) {
        self.with(State::kill);
    }

    /// Cuts the power: as [`kill`](Self::kill), and `survival`, drawing from `rng`, decides what is left of everything
    /// that was not synced.
    pub fn power_loss(&self, survival: Survival, rng: &mut Rng) {
        self.with(|state| state.lose_power(survival, rng));
    }

    /// Flips bits of a file at rest, and returns how many: none where the file has no durable bytes.
    ///
    /// # Errors
    /// When there is no such file.
    pub fn rot(&self, rot: &BitRot, rng: &mut Rng) -> io::Result<u32> {
        let path = self.resolve(rot.file.as_ref())?;
        self.with(|state| {
            let inode = state.names.file(&path)?;
            Ok(state.rot(inode, rot, rng))
        })
    }

    /// The simulated time that operations took since the last call.
    pub fn take_charge(&self) -> Duration {
        self.with(|state| std::mem::take(&mut state.charge))
    }

    /// What happened so far.
    pub fn counts(&self) -> DiskCounts {
        self.with(|state| state.counts)
    }

    /// Bytes that take space, in whole pages.
    pub fn used_bytes(&self) -> u64 {
        self.with(|state| state.used_bytes())
    }

    /// A hash over every operation so far, what it wrote and whether it failed: equal for equal runs.
    pub fn trace(&self) -> [u8; 32] {
        self.with(|state| *state.trace.finalize().as_bytes())
    }

    fn life(&self) -> u64 {
        self.with(|state| state.life)
    }

    /// Works on the inside, and afterwards tells whoever waits for a crash.
    fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        let (result, fired) = {
            let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
            (work(&mut state), state.fired.take())
        };
        if let Some(on_crash) = fired {
            on_crash();
        }
        result
    }

    /// The one name of `path`: below the host's own root, whether or not it says so, and without `.` and `..`.
    fn resolve(&self, path: &Path) -> io::Result<String> {
        let inside = path.strip_prefix(&self.0.root).unwrap_or(path);
        let mut names: Vec<&str> = Vec::new();
        for component in inside.components() {
            match component {
                Component::Normal(name) => names.push(name.to_str().ok_or_else(|| error(EINVAL))?),
                Component::ParentDir => {
                    names.pop();
                }
                Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
            }
        }
        let mut resolved = self.0.root.clone();
        for name in names {
            resolved.push('/');
            resolved.push_str(name);
        }
        if resolved.contains('\0') { Err(error(EINVAL)) } else { Ok(resolved) }
    }

    /// Whether `path` is the root or below it.
    fn owns(&self, path: &Path) -> bool {
        path.starts_with(&self.0.root)
    }
}
