//! What SQLite makes of a disk that fails.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use quorate_runtime::fault::{
    DiskFaults,
    disk::{BitRot, DiskError, ErrorAt, SlowSyncs, Survival},
};
use quorate_sim::disk::Model;
use rusqlite::{Connection, ErrorCode, ffi};

use crate::world::{PATH, is_sound, rows, world};

fn insert(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute("INSERT INTO t VALUES (zeroblob(10000))", []).map(|_| ())
}

fn extended(error: &rusqlite::Error) -> i32 {
    error.sqlite_error().unwrap().extended_code
}

#[test]
fn a_full_disk_refuses_and_the_database_goes_on_when_space_returns() {
    let world = world(1, Model::default());
    let connection = world.open().unwrap();
    connection.execute_batch("CREATE TABLE t (x)").unwrap();
    let capacity = world.disk.used_bytes() + 100_000;
    world.disk.set_faults(DiskFaults { capacity_bytes: Some(capacity), ..DiskFaults::default() }).unwrap();
    let mut inserted = 0;
    let refused = loop {
        match insert(&connection) {
            Ok(()) => inserted += 1,
            Err(refused) => break refused,
        }
    };
    assert_eq!(refused.sqlite_error_code(), Some(ErrorCode::DiskFull));
    assert!(inserted > 0 && rows(&connection) == inserted && world.disk.counts().no_space > 0);
    assert!(world.disk.used_bytes() <= capacity);
    world.disk.set_faults(DiskFaults::default()).unwrap();
    insert(&connection).unwrap();
    assert!(is_sound(&connection) && rows(&connection) == inserted + 1);
}

#[test]
fn a_database_that_finds_no_space_for_shared_memory_says_so() {
    let world = world(2, Model::default());
    world.open().unwrap().execute_batch("CREATE TABLE t (x)").unwrap();
    let faults = DiskFaults { capacity_bytes: Some(world.disk.used_bytes() + 4096), ..DiskFaults::default() };
    world.disk.set_faults(faults).unwrap();
    let connection = Connection::open(PATH).unwrap();
    let refused = insert(&connection).unwrap_err();
    assert_eq!(extended(&refused), ffi::SQLITE_IOERR_SHMSIZE);
}

#[test]
fn a_failed_sync_is_reported_and_the_commit_is_not_acknowledged() {
    let world = world(3, Model::default());
    let connection = world.open().unwrap();
    connection.execute_batch("CREATE TABLE t (x)").unwrap();
    world.disk.set_faults(DiskFaults { sync_errors: 1.0, ..DiskFaults::default() }).unwrap();
    assert_eq!(extended(&insert(&connection).unwrap_err()), ffi::SQLITE_IOERR_FSYNC);
    assert_eq!(world.disk.counts().sync_errors, 1);
}

#[test]
fn one_operation_fails_with_what_was_asked_for() {
    let world = world(4, Model::default());
    let connection = world.open().unwrap();
    connection.execute_batch("CREATE TABLE t (x)").unwrap();
    let next = world.disk.counts().operations + 1;
    for (error, code) in [(DiskError::Io, ErrorCode::SystemIoFailure), (DiskError::NoSpace, ErrorCode::DiskFull)] {
        let mut codes = Vec::new();
        for operation in next..next + 40 {
            let at = ErrorAt { operation: operation + (world.disk.counts().operations + 1 - next), error };
            world.disk.set_faults(DiskFaults { errors_at: vec![at], ..DiskFaults::default() }).unwrap();
            codes.extend(insert(&connection).err().and_then(|error| error.sqlite_error_code()));
        }
        assert!(codes.contains(&code), "{codes:?}");
    }
    world.disk.set_faults(DiskFaults::default()).unwrap();
    assert!(is_sound(&connection));
}

#[test]
fn reads_that_fail_are_errors_and_short_ones_are_read_on() {
    let world = world(5, Model::default());
    let connection = world.open().unwrap();
    connection.execute_batch("CREATE TABLE t (x)").unwrap();
    for _ in 0..50 {
        insert(&connection).unwrap();
    }
    connection.execute_batch("PRAGMA cache_size = 2; PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    world.disk.set_faults(DiskFaults { short_reads: 0.5, ..DiskFaults::default() }).unwrap();
    assert!(is_sound(&connection) && world.disk.counts().short_reads > 10);
    world.disk.set_faults(DiskFaults { read_errors: 0.5, ..DiskFaults::default() }).unwrap();
    assert!(!is_sound(&connection) && world.disk.counts().read_errors > 0);
    world.disk.set_faults(DiskFaults::default()).unwrap();
    assert!(is_sound(&connection));
}

#[test]
fn slow_syncs_are_charged() {
    let world = world(6, Model::default());
    let slow = SlowSyncs { chance: 1.0, least: Duration::from_millis(10), most: Duration::from_millis(20) };
    world.disk.set_faults(DiskFaults { slow_syncs: Some(slow), ..DiskFaults::default() }).unwrap();
    let connection = world.open().unwrap();
    connection.execute_batch("CREATE TABLE t (x)").unwrap();
    let slow = u32::try_from(world.disk.counts().slow_syncs).unwrap();
    let charge = world.disk.take_charge();
    assert!(slow > 0 && charge >= slow * Duration::from_millis(10) && charge <= slow * Duration::from_millis(20));
    assert_eq!(world.disk.take_charge(), Duration::ZERO);
}

#[test]
fn rotten_bits_are_in_what_is_read_afterwards() {
    let world = world(7, Model::default());
    let connection = world.open().unwrap();
    connection.execute_batch("CREATE TABLE t (x)").unwrap();
    for _ in 0..20 {
        insert(&connection).unwrap();
    }
    drop(connection);
    let before = world.disk.mount().read("store.db".as_ref()).unwrap();
    let rot = BitRot { file: "store.db".to_owned(), bits: 3 };
    assert_eq!(world.disk.rot(&rot, &mut world.rng("rot")).unwrap(), 3);
    let after = world.disk.mount().read("store.db".as_ref()).unwrap();
    let flipped: u32 = before.iter().zip(&after).map(|(before, after)| (before ^ after).count_ones()).sum();
    assert!((1..=3).contains(&flipped));
    assert_eq!(world.disk.counts().rotten_bits, 3);
    assert!(world.disk.rot(&BitRot { file: "nowhere".to_owned(), bits: 1 }, &mut world.rng("rot")).is_err());
}

#[test]
fn a_dead_disk_tells_the_world_once_and_fails_everything_until_the_next_life() {
    let world = world(8, Model::default());
    let connection = world.open().unwrap();
    connection.execute_batch("CREATE TABLE t (x)").unwrap();
    let told = Arc::new(AtomicBool::new(false));
    let tell = told.clone();
    world.disk.crash_at(3, move || assert!(!tell.swap(true, Ordering::Relaxed), "told twice"));
    let operations = world.disk.counts().operations;
    assert!(insert(&connection).is_err());
    assert!(told.load(Ordering::Relaxed) && world.disk.is_dead());
    assert_eq!(world.disk.counts().operations, operations + 3);
    assert!(world.open().is_err() && world.disk.mount().exists("store.db".as_ref()).is_err());
    world.disk.power_loss(Survival::Nothing, &mut world.rng("power"));
    assert!(insert(&connection).is_err(), "a connection of the life before is dead");
    drop(connection);
    let connection = world.open().unwrap();
    assert!(is_sound(&connection) && rows(&connection) == 0);
}

#[test]
fn a_connection_of_the_life_before_leaves_the_locks_of_the_next_one_alone() {
    let world = world(9, Model::default());
    let old = world.open().unwrap();
    old.execute_batch("CREATE TABLE t (x); BEGIN IMMEDIATE; INSERT INTO t VALUES (1)").unwrap();
    world.disk.kill();
    let (new, other) = (world.open().unwrap(), world.open().unwrap());
    new.execute_batch("BEGIN IMMEDIATE; INSERT INTO t VALUES (2)").unwrap();
    drop(old);
    assert!(other.execute_batch("BEGIN IMMEDIATE").is_err());
    new.execute_batch("COMMIT").unwrap();
    assert!(rows(&other) == 1 && is_sound(&other));
}

#[test]
fn faults_are_written_down_as_plain_data_and_unknown_ones_are_refused() {
    let written = r#"{
        "sync-errors": 0.01,
        "errors-at": [{ "operation": 7, "error": "no-space" }],
        "capacity-bytes": 1000000,
        "slow-syncs": { "chance": 0.5, "least": "10ms", "most": "2s" }
    }"#;
    let faults: DiskFaults = serde_json::from_str(written).unwrap();
    let expected = DiskFaults {
        sync_errors: 0.01,
        errors_at: vec![ErrorAt { operation: 7, error: DiskError::NoSpace }],
        capacity_bytes: Some(1_000_000),
        slow_syncs: Some(SlowSyncs { chance: 0.5, least: Duration::from_millis(10), most: Duration::from_secs(2) }),
        ..DiskFaults::default()
    };
    assert_eq!(faults, expected);
    assert_eq!(serde_json::from_str::<DiskFaults>(&serde_json::to_string(&faults).unwrap()).unwrap(), faults);
    assert!(serde_json::from_str::<DiskFaults>(r#"{ "gremlins": 0.5 }"#).is_err());
}
