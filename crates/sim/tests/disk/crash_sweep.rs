//! A workload of transactions, crashed at every one of its disk operations.

use quorate_runtime::fault::{DiskFaults, disk::Survival};
use quorate_sim::disk::{Journal, Model};
use rusqlite::Connection;

use crate::world::{World, is_sound, open, world};

/// Transactions of one run.
const TRANSACTIONS: i64 = 24;

/// Rows of one transaction.
const ROWS: i64 = 3;

/// Runs transactions until one fails, and counts those that were acknowledged.
fn work(connection: &Connection, acknowledged: &mut i64) -> rusqlite::Result<()> {
    connection.execute_batch("CREATE TABLE IF NOT EXISTS t (txn INTEGER, part INTEGER, bytes BLOB)")?;
    for txn in *acknowledged + 1..=TRANSACTIONS {
        connection.execute_batch("BEGIN IMMEDIATE")?;
        for part in 0..ROWS {
            connection.execute("INSERT INTO t VALUES (?1, ?2, zeroblob(1500))", [txn, part])?;
        }
        connection.execute("DELETE FROM t WHERE txn = ?1 - 8", [txn])?;
        connection.execute_batch("COMMIT")?;
        *acknowledged = txn;
        if txn % 10 == 0 {
            connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)")?;
        }
    }
    Ok(())
}

/// What is wrong with the database after a crash, if anything.
fn judge(world: &World, acknowledged: i64) -> Result<i64, String> {
    let connection = world.open().map_err(|cause| format!("it can't be opened: {cause}"))?;
    if !is_sound(&connection) {
        return Err("the integrity check fails".to_owned());
    }
    let is_there = "SELECT count(*) FROM sqlite_schema WHERE name = 't'";
    let tables: i64 = connection.query_row(is_there, [], |row| row.get(0)).map_err(|cause| cause.to_string())?;
    if tables == 0 {
        return if acknowledged == 0 { Ok(0) } else { Err("the table is lost".to_owned()) };
    }
    let mut select = connection.prepare("SELECT txn, count(*) FROM t GROUP BY txn ORDER BY txn").unwrap();
    let found: Vec<(i64, i64)> =
        select.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap().map(Result::unwrap).collect();
    let newest = found.last().map_or(0, |(txn, _)| *txn);
    let expected: Vec<(i64, i64)> = ((newest - 7).max(1)..=newest).map(|txn| (txn, ROWS)).collect();
    match newest {
        _ if found != expected => Err(format!("transactions are torn: {found:?}")),
        lost if lost < acknowledged => Err(format!("{acknowledged} were acknowledged and {newest} are there")),
        more if more > acknowledged + 1 => Err(format!("{newest} are there and {acknowledged} were acknowledged")),
        newest => Ok(newest),
    }
}

/// One world that crashes at operation `nth`: `Ok(None)` when the work was over before.
fn crash(seed: u64, model: Model, faults: &DiskFaults, nth: u64, end: impl Fn(&World)) -> Result<Option<()>, String> {
    let world = world(seed, model);
    world.disk.set_faults(faults.clone()).unwrap();
    let mut acknowledged = 0;
    world.disk.crash_at(nth, || {});
    let worked = world.open().and_then(|connection| work(&connection, &mut acknowledged));
    let has_crashed = world.disk.is_dead();
    if has_crashed == worked.is_ok() && acknowledged < TRANSACTIONS {
        return Err(format!("the work ended with {worked:?}"));
    }
    end(&world);
    world.disk.set_faults(DiskFaults::default()).unwrap();
    let found = judge(&world, acknowledged)?;
    if found > 0 && !has_crashed && found < TRANSACTIONS {
        return Err("work was lost without a crash".to_owned());
    }
    Ok(has_crashed.then_some(()))
}

/// Crashes at every operation; returns how many there were, or the first failure.
fn sweep(seed: u64, model: Model, faults: &DiskFaults, end: impl Fn(&World)) -> Result<u64, String> {
    for nth in 1.. {
        let crashed = crash(seed + nth, model, faults, nth, &end).map_err(|what| format!("operation {nth}: {what}"))?;
        if crashed.is_none() {
            return Ok(nth);
        }
    }
    unreachable!("the work ends")
}

/// Every way for the power to fail, at every operation.
fn sweep_power_failures(journal: Journal, powersafe_overwrite: bool) {
    let model = Model { journal, powersafe_overwrite };
    for (number, survival) in (0..).zip(Survival::ALL) {
        let cut = |world: &World| world.disk.power_loss(survival, &mut world.rng("power"));
        let swept = sweep(1000 * number, model, &DiskFaults::default(), cut);
        let operations = swept.unwrap_or_else(|what| panic!("{model:?}, {survival:?}: {what}"));
        assert!(operations > 200, "only {operations} operations");
    }
}

#[test]
fn whatever_operation_the_power_fails_at_nothing_acknowledged_is_lost_and_nothing_torn() {
    sweep_power_failures(Journal::Shared, true);
}

#[test]
fn the_same_holds_where_a_sync_of_a_file_says_nothing_about_its_name() {
    sweep_power_failures(Journal::Strict, true);
}

#[test]
fn the_same_holds_where_sectors_come_out_as_garbage() {
    sweep_power_failures(Journal::Shared, false);
    sweep_power_failures(Journal::Strict, false);
}

#[test]
fn whatever_operation_the_process_is_killed_at_nothing_acknowledged_is_lost_and_nothing_torn() {
    let swept = sweep(50_000, Model::default(), &DiskFaults::default(), |world| world.disk.kill());
    assert!(swept.unwrap() > 200);
}

#[test]
fn a_crash_during_recovery_is_recovered_from() {
    for nth in 1..60 {
        let world = world(60_000 + nth, Model::default());
        let mut acknowledged = 0;
        world.disk.crash_at(150, || {});
        assert!(world.open().and_then(|connection| work(&connection, &mut acknowledged)).is_err());
        world.disk.power_loss(Survival::Torn, &mut world.rng("power"));
        world.disk.crash_at(nth, || {});
        let _ = world.open().and_then(|connection| work(&connection, &mut acknowledged));
        world.disk.power_loss(Survival::Torn, &mut world.rng("power"));
        judge(&world, acknowledged).unwrap_or_else(|what| panic!("operation {nth}: {what}"));
    }
}

#[test]
fn a_disk_whose_syncs_lie_loses_what_was_acknowledged() {
    let faults = DiskFaults { lying_syncs: 1.0, ..DiskFaults::default() };
    assert!(!faults.keeps_its_contract());
    for survival in [Survival::Nothing, Survival::Reordered, Survival::Torn] {
        let cut = |world: &World| world.disk.power_loss(survival, &mut world.rng("power"));
        let found = sweep(70_000, Model::default(), &faults, cut);
        assert!(found.is_err(), "the sweep finds nothing under {survival:?}");
    }
}

#[test]
fn the_same_seed_gives_the_same_operations() {
    let trace = |seed| {
        let world = world(seed, Model::draw(&mut quorate_runtime::random::Random::from_seed([9; 32]).stream("model")));
        let faults = DiskFaults { short_reads: 0.2, read_errors: 0.001, ..DiskFaults::default() };
        world.disk.set_faults(faults).unwrap();
        let mut acknowledged = 0;
        world.disk.crash_at(170, || {});
        let _ = world.open().and_then(|connection| work(&connection, &mut acknowledged));
        world.disk.power_loss(Survival::Torn, &mut world.rng("power"));
        let _ = world.open().and_then(|connection| work(&connection, &mut acknowledged));
        (world.disk.trace(), world.disk.counts(), acknowledged)
    };
    assert_eq!(trace(1), trace(1));
    assert_ne!(trace(1).0, trace(2).0);
}

#[test]
fn two_hosts_have_disks_of_their_own() {
    let world = world(80_000, Model::default());
    let other = quorate_sim::disk::SimDisk::new("n2", Model::default(), world.rng("n2"));
    world.open().unwrap().execute_batch("CREATE TABLE t (x)").unwrap();
    open("/sim/n2/store.db").unwrap().execute_batch("CREATE TABLE u (x)").unwrap();
    world.disk.crash();
    assert!(world.open().is_err());
    assert!(is_sound(&open("/sim/n2/store.db").unwrap()));
    assert_eq!(other.counts().crashes, 0);
}
