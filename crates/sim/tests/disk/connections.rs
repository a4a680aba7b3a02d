//! Several connections to a file, and several files.

use std::time::Duration;

use quorate_foundations::time::Wall;
use quorate_sim::disk::{self, Model};
use rusqlite::{Connection, ErrorCode, backup::Backup};

use crate::world::{PATH, is_sound, open, rows, world};

#[test]
fn readers_keep_their_snapshot_while_a_writer_commits() {
    let world = world(1, Model::default());
    let writer = world.open().unwrap();
    writer.execute_batch("CREATE TABLE t (x); INSERT INTO t VALUES (1)").unwrap();
    let (early, late) = (world.open().unwrap(), world.open().unwrap());
    early.execute_batch("BEGIN").unwrap();
    assert_eq!(rows(&early), 1);
    writer.execute_batch("INSERT INTO t VALUES (2)").unwrap();
    assert_eq!((rows(&early), rows(&late)), (1, 2));
    early.execute_batch("COMMIT").unwrap();
    assert_eq!(rows(&early), 2);
}

#[test]
fn a_checkpoint_passes_no_reader_and_finishes_when_it_has_left() {
    let world = world(2, Model::default());
    let writer = world.open().unwrap();
    writer.execute_batch("PRAGMA wal_autocheckpoint = 0; CREATE TABLE t (x); INSERT INTO t VALUES (1)").unwrap();
    let reader = world.open().unwrap();
    reader.execute_batch("BEGIN").unwrap();
    assert_eq!(rows(&reader), 1);
    writer.execute_batch("INSERT INTO t VALUES (2)").unwrap();
    let checkpoint = |mode: &str| -> (i64, i64, i64) {
        let sql = format!("PRAGMA wal_checkpoint({mode})");
        writer.query_row(&sql, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).unwrap()
    };
    let (_, in_log, copied) = checkpoint("PASSIVE");
    assert!(copied < in_log, "{copied} of {in_log} frames were copied under a reader of older ones");
    let _ = disk::take_sleep();
    assert_eq!(checkpoint("TRUNCATE").0, 1, "the reader keeps the log from being emptied");
    assert!(disk::take_sleep() >= Duration::from_secs(1), "the wait for the reader costs simulated time");
    reader.execute_batch("COMMIT").unwrap();
    assert_eq!(checkpoint("TRUNCATE").0, 0);
    assert_eq!(world.disk.mount().size("store.db-wal".as_ref()).unwrap(), 0);
    assert_eq!(rows(&reader), 2);
}

#[test]
fn a_second_writer_is_told_that_the_database_is_busy_and_nobody_waits() {
    let world = world(3, Model::default());
    let (first, second) = (world.open().unwrap(), world.open().unwrap());
    first.execute_batch("CREATE TABLE t (x); BEGIN IMMEDIATE; INSERT INTO t VALUES (1)").unwrap();
    let refused = second.execute_batch("BEGIN IMMEDIATE").unwrap_err();
    assert_eq!(refused.sqlite_error_code(), Some(ErrorCode::DatabaseBusy));
    first.execute_batch("COMMIT").unwrap();
    second.execute_batch("BEGIN IMMEDIATE; INSERT INTO t VALUES (2); COMMIT").unwrap();
    assert_eq!(rows(&first), 2);
}

#[test]
fn rollback_journals_lock_as_they_do_on_unix() {
    let world = world(4, Model::default());
    let (writer, reader) = (Connection::open(PATH).unwrap(), Connection::open(PATH).unwrap());
    writer.execute_batch("CREATE TABLE t (x); INSERT INTO t VALUES (1)").unwrap();
    reader.execute_batch("BEGIN").unwrap();
    assert_eq!(rows(&reader), 1);
    writer.execute_batch("BEGIN IMMEDIATE; INSERT INTO t VALUES (2)").unwrap();
    assert!(world.disk.mount().exists("store.db-journal".as_ref()).unwrap());
    let refused = writer.execute_batch("COMMIT").unwrap_err();
    assert_eq!(refused.sqlite_error_code(), Some(ErrorCode::DatabaseBusy), "a reader holds its lock");
    reader.execute_batch("COMMIT").unwrap();
    writer.execute_batch("COMMIT").unwrap();
    assert!(!world.disk.mount().exists("store.db-journal".as_ref()).unwrap());
    assert_eq!(rows(&reader), 2);
}

#[test]
fn a_backup_is_a_sound_copy_and_vacuum_into_makes_another() {
    let world = world(5, Model::default());
    let source = world.open().unwrap();
    source.execute_batch("CREATE TABLE t (x)").unwrap();
    for number in 0..500 {
        source.execute("INSERT INTO t VALUES (hex(zeroblob(100)) || ?1)", [number]).unwrap();
    }
    let mut copy = open("/sim/n1/copy.db").unwrap();
    Backup::new(&source, &mut copy).unwrap().run_to_completion(10, Duration::ZERO, None).unwrap();
    assert!(is_sound(&copy) && rows(&copy) == 500);
    source.execute("VACUUM INTO '/sim/n1/vacuumed.db'", []).unwrap();
    let vacuumed = open("/sim/n1/vacuumed.db").unwrap();
    assert!(is_sound(&vacuumed) && rows(&vacuumed) == 500);
}

#[test]
fn a_path_without_a_host_is_on_the_disk_of_whoever_runs_and_nowhere_otherwise() {
    let world = world(6, Model::default());
    assert!(Connection::open("plain.db").is_err());
    assert!(Connection::open("/sim/n2/plain.db").is_err());
    let running = world.disk.enter();
    Connection::open("plain.db").unwrap().execute_batch("CREATE TABLE t (x)").unwrap();
    drop(running);
    assert!(world.disk.mount().exists("plain.db".as_ref()).unwrap());
    assert!(Connection::open("plain.db").is_err());
}

#[test]
fn sorting_more_than_fits_in_memory_uses_files_without_a_name_and_leaves_none() {
    let world = world(7, Model::default());
    let connection = world.open().unwrap();
    connection.execute_batch("PRAGMA temp_store = FILE; PRAGMA cache_size = 10; CREATE TABLE t (x)").unwrap();
    for number in 0..3000_i64 {
        let scrambled = number.wrapping_mul(0x9E37_79B9_7F4A_7C15_u64.cast_signed());
        connection.execute("INSERT INTO t VALUES (?1 || hex(zeroblob(200)))", [scrambled]).unwrap();
    }
    connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    let before = world.disk.used_bytes();
    let running = world.disk.enter();
    let sorted = "SELECT count(*) FROM (SELECT x FROM t ORDER BY x || 'y' LIMIT -1 OFFSET 1)";
    assert_eq!(connection.query_row(sorted, [], |row| row.get::<_, i64>(0)).unwrap(), 2999);
    drop(running);
    assert_eq!(world.disk.used_bytes(), before);
}

#[test]
fn sqlite_takes_the_time_and_its_randomness_from_the_world() {
    let draw = || {
        let world = world(8, Model::default());
        disk::set_clock(|| Wall::from_unix_nanos(1_700_000_000_123_000_000));
        let read = "SELECT random(), strftime('%s', 'now'), julianday('now')";
        let connection = world.open().unwrap();
        connection
            .query_row(read, [], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?, row.get::<_, f64>(2)?)))
            .unwrap()
    };
    let (random, seconds, days) = draw();
    assert_eq!(seconds, "1700000000");
    assert!((days - 2_460_263.425_927_35).abs() < 1e-6);
    assert_eq!(draw().0, random);
}

#[test]
fn the_last_connection_to_leave_takes_the_log_along() {
    let world = world(9, Model::default());
    let (first, second) = (world.open().unwrap(), world.open().unwrap());
    first.execute_batch("CREATE TABLE t (x)").unwrap();
    drop(first);
    assert!(world.disk.mount().exists("store.db-wal".as_ref()).unwrap());
    drop(second);
    assert!(!world.disk.mount().exists("store.db-wal".as_ref()).unwrap());
}
