//! A world of one host. SQLite's randomness belongs to the process, so worlds come one after another.

use std::sync::{Mutex, MutexGuard, PoisonError};

use quorate_runtime::random::{Random, Rng};
use quorate_sim::disk::{self, Model, SimDisk};
use rusqlite::Connection;

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// The only database of most tests.
pub(crate) const PATH: &str = "/sim/n1/store.db";

pub(crate) struct World {
    pub(crate) disk: SimDisk,
    random: Random,
    _alone: MutexGuard<'static, ()>,
}

pub(crate) fn world(seed: u64, model: Model) -> World {
    let alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let random = Random::from_seed(bytes);
    disk::register();
    disk::seed(random.stream("sqlite"));
    let disk = SimDisk::new("n1", model, random.stream("disk"));
    World { disk, random, _alone: alone }
}

impl World {
    pub(crate) fn rng(&self, purpose: &str) -> Rng {
        self.random.stream(purpose)
    }

    /// Opens it as the store opens its own.
    pub(crate) fn open(&self) -> rusqlite::Result<Connection> {
        open(PATH)
    }
}

pub(crate) fn open(path: &str) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(std::time::Duration::from_secs(2))?;
    connection.execute_batch(
        "PRAGMA page_size = 4096; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA temp_store = MEMORY;
         PRAGMA mmap_size = 0; PRAGMA cell_size_check = ON; PRAGMA secure_delete = ON; PRAGMA wal_autocheckpoint = 8;",
    )?;
    Ok(connection)
}

pub(crate) fn rows(connection: &Connection) -> i64 {
    connection.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap()
}

pub(crate) fn is_sound(connection: &Connection) -> bool {
    connection.query_row("PRAGMA integrity_check", [], |row| row.get::<_, String>(0)).is_ok_and(|answer| answer == "ok")
}
