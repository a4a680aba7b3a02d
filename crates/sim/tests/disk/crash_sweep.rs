//! A workload of transactions, crashed at every one of its disk operations.

use quorate_runtime::{
    fault::{DiskFaults, disk::Survival},
    random::Random,
};
use quorate_sim::disk::{Journal, Model, SimDisk};
use rusqlite::Connection;

use crate::world::{World, is_sound, open, world};

/// Transactions of one run.
const TRANSACTIONS: i64 = 24;

/// Rows of one transaction.
const ROWS: i64 = 3;

/// So many transactions stay in the table; each deletes the one that is too old.
const KEPT: i64 = 8;

/// Runs transactions until one fails, and counts those that were acknowledged.
fn work(connection: &Connection, acknowledged: &mut i64) -> rusqlite::Result<()> {
    connection.execute_batch("CREATE TABLE IF NOT EXISTS t (txn INTEGER, part INTEGER, bytes BLOB)")?;
    for txn in *acknowledged + 1..=TRANSACTIONS {
        connection.execute_batch("BEGIN IMMEDIATE")?;
        for part in 0..ROWS {
            connection.execute("INSERT INTO t VALUES (?1, ?2, zeroblob(1500))", [txn, part])?;
        }
        connection.execute("DELETE FROM t WHERE txn = ?1", [txn - KEPT])?;
        connection.execute_batch("COMMIT")?;
        *acknowledged = txn;
        if txn % 10 == 0 {
            connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)")?;
        }
    }
    Ok(())
}

/// What a crash must not do.
#[derive(Debug, thiserror::Error)]
enum Wrong {
    /// Transactions were acknowledged and are not there.
    #[error("{acknowledged} transactions were acknowledged and {newest} are there")]
    Lost { acknowledged: i64, newest: i64 },
    /// Something is there that never was so.
    #[error("this never was so: {0}")]
    Torn(String),
}

/// Compares the database after a crash with what was acknowledged.
fn judge(world: &World, acknowledged: i64) -> Result<(), Wrong> {
    let torn = |cause: rusqlite::Error| Wrong::Torn(cause.to_string());
    let connection = world.open().map_err(torn)?;
    if !is_sound(&connection) {
        return Err(Wrong::Torn("the integrity check fails".to_owned()));
    }
    let is_there = "SELECT count(*) FROM sqlite_schema WHERE name = 't'";
    let tables: i64 = connection.query_row(is_there, [], |row| row.get(0)).map_err(torn)?;
    let mut found: Vec<(i64, i64)> = Vec::new();
    if tables > 0 {
        let mut select = connection.prepare("SELECT txn, count(*) FROM t GROUP BY txn ORDER BY txn").map_err(torn)?;
        let rows = select.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).map_err(torn)?;
        found = rows.collect::<Result<_, _>>().map_err(torn)?;
    }
    let newest = found.last().map_or(0, |(txn, _)| *txn);
    let expected: Vec<(i64, i64)> = ((newest - KEPT + 1).max(1)..=newest).map(|txn| (txn, ROWS)).collect();
    if found != expected || newest > acknowledged + 1 {
        return Err(Wrong::Torn(format!("transactions and their rows: {found:?}")));
    }
    if newest < acknowledged { Err(Wrong::Lost { acknowledged, newest }) } else { Ok(()) }
}

/// Many worlds with the same workload, each of which crashes one operation later.
struct Sweep {
    seed: u64,
    model: Model,
    faults: DiskFaults,
    /// How connections are set up.
    setup: &'static str,
    /// What the power failure leaves; `None` if only the process ends.
    survival: Option<Survival>,
}

impl Sweep {
    fn new(seed: u64, survival: impl Into<Option<Survival>>) -> Self {
        let (model, faults) = (Model::default(), DiskFaults::default());
        Self { seed, model, faults, setup: "", survival: survival.into() }
    }

    /// What was wrong after a crash at each operation.
    fn run(&self) -> Vec<Result<(), Wrong>> {
        let found: Vec<_> = (1..).map_while(|nth| self.crash(nth)).collect();
        assert!(found.len() > 100, "the work takes only {} operations", found.len());
        found
    }

    /// Crashes at operation `nth`; `None` when the work was over before.
    fn crash(&self, nth: u64) -> Option<Result<(), Wrong>> {
        let world = world(self.seed + nth, self.model);
        world.disk.set_faults(self.faults.clone()).unwrap();
        world.disk.crash_at(nth, || {});
        let mut acknowledged = 0;
        let worked = world.open().and_then(|connection| {
            connection.execute_batch(self.setup)?;
            work(&connection, &mut acknowledged)
        });
        if !world.disk.is_dead() {
            worked.unwrap();
            return None;
        }
        match self.survival {
            Some(survival) => world.disk.power_loss(survival, &mut world.rng("power")),
            None => world.disk.kill(),
        }
        world.disk.set_faults(DiskFaults::default()).unwrap();
        Some(judge(&world, acknowledged))
    }

    fn finds_nothing(&self) {
        for (number, found) in (1..).zip(self.run()) {
            if let Err(wrong) = found {
                panic!("{:?}, {:?}, operation {number}: {wrong}", self.model, self.survival);
            }
        }
    }
}

/// Every one of `ways` for the power to fail, at every operation.
fn sweep_power_failures(model: Model, ways: &[Survival]) {
    for (number, &survival) in (0..).zip(ways) {
        Sweep { model, ..Sweep::new(1000 * number, survival) }.finds_nothing();
    }
}

#[test]
fn whatever_operation_the_power_fails_at_nothing_acknowledged_is_lost_and_nothing_torn() {
    sweep_power_failures(Model::default(), &Survival::ALL);
}

#[test]
fn the_same_holds_where_a_sync_of_a_file_says_nothing_about_its_name() {
    let model = Model { journal: Journal::Strict, ..Model::default() };
    sweep_power_failures(model, &[Survival::Nothing, Survival::Prefix, Survival::Torn]);
}

#[test]
fn the_same_holds_where_sectors_come_out_as_garbage() {
    // Only where pages are torn is there garbage.
    for journal in [Journal::Shared, Journal::Strict] {
        sweep_power_failures(Model { journal, powersafe_overwrite: false, ..Model::default() }, &[Survival::Torn]);
    }
}

#[test]
fn the_same_holds_for_rollback_journals() {
    let setup = "PRAGMA journal_mode = DELETE; PRAGMA synchronous = EXTRA";
    for (number, survival) in (0..).zip([Survival::Prefix, Survival::Reordered, Survival::Torn]) {
        Sweep { setup, ..Sweep::new(20_000 + 1000 * number, survival) }.finds_nothing();
    }
}

#[test]
fn the_same_holds_when_only_the_process_is_killed() {
    Sweep::new(50_000, None).finds_nothing();
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
        judge(&world, acknowledged).unwrap_or_else(|wrong| panic!("operation {nth}: {wrong}"));
    }
}

#[test]
fn without_a_sync_at_commit_transactions_are_lost_and_never_torn() {
    for survival in [Survival::Nothing, Survival::Torn] {
        let found = Sweep { setup: "PRAGMA synchronous = NORMAL", ..Sweep::new(70_000, survival) }.run();
        assert!(found.iter().any(|found| matches!(found, Err(Wrong::Lost { .. }))));
        assert!(!found.iter().any(|found| matches!(found, Err(Wrong::Torn(_)))), "{found:?}");
    }
}

#[test]
fn a_disk_whose_syncs_lie_loses_and_tears() {
    let faults = DiskFaults { lying_syncs: 1.0, ..DiskFaults::default() };
    assert!(!faults.keeps_its_contract());
    let run = |survival| Sweep { faults: faults.clone(), ..Sweep::new(80_000, survival) }.run();
    assert!(run(Survival::Nothing).iter().any(|found| matches!(found, Err(Wrong::Lost { .. }))));
    assert!(run(Survival::Torn).iter().any(|found| matches!(found, Err(Wrong::Torn(_)))));
}

#[test]
fn the_same_seed_gives_the_same_operations() {
    let trace = |seed| {
        let world = world(seed, Model::draw(&mut Random::from_seed([9; 32]).stream("model")));
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
    let world = world(90_000, Model::default());
    let other = SimDisk::new("n2", Model::default(), world.rng("n2"));
    world.open().unwrap().execute_batch("CREATE TABLE t (x)").unwrap();
    open("/sim/n2/store.db").unwrap().execute_batch("CREATE TABLE u (x)").unwrap();
    world.disk.crash();
    assert!(world.open().is_err());
    assert!(is_sound(&open("/sim/n2/store.db").unwrap()));
    assert_eq!(other.counts().crashes, 0);
}
