//! A process that moves money between two stores is killed, again and again: no money is made or lost, what was told is so, and what
//! was in doubt ends as soon as the coordinator is back.
//!
//! The test starts this program again as its child, in which the same test plays the other part.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a test looks at the stores from outside: their files, their processes"
)]

#[path = "../../data/tests/sqlite/child.rs"]
mod child;

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use child::{ROUND, STORE, child_of, said, say};
use quorate_consistency::two_phase_commit::{
    Answer, Config, Coordinator, Embedded, Ended, Gid, Participant, SqlResource, SqlWork, Statement, Transaction,
};
use quorate_data::store::{Store, sqlite};
use quorate_runtime::{Env, random::Random};

const TEST: &str = "a_process_that_is_killed_makes_and_loses_no_money_and_leaves_nothing_in_doubt";
const ROUNDS: u64 = 12;
const MOVERS: u64 = 6;
const BANKS: [&str; 2] = ["left", "right"];

struct World {
    log: Store,
    stores: [Store; 2],
    participants: [Embedded; 2],
    coordinator: Coordinator,
}

async fn open(folder: &Path) -> World {
    let store = async |file: &str| sqlite::open(&Env::real(), sqlite::Config::at(folder.join(file))).await.unwrap();
    let log = store("log.db").await;
    let stores = [store("left.db").await, store("right.db").await];
    let participant =
        async |store| Embedded::open(store, &"bank".parse().unwrap(), Arc::new(SqlResource)).await.unwrap();
    let participants = [participant(&stores[0]).await, participant(&stores[1]).await];
    let config = Config { sweep: Duration::from_millis(50), ..Config::default() };
    let coordinator = Coordinator::open(&log, config).await.unwrap();
    for (bank, participant) in BANKS.iter().zip(&participants) {
        coordinator.register(bank.parse().unwrap(), Arc::new(participant.clone())).unwrap();
    }
    World { log, stores, participants, coordinator }
}

async fn close(world: World) {
    world.coordinator.close().await;
    for store in world.stores.iter().chain([&world.log]) {
        store.close().await.unwrap();
    }
}

/// Moves so much between accounts of one owner, in one direction or the other, and notes it at both.
fn transfer(from: usize, owner: u64, amount: i64, note: &str) -> Transaction {
    let owner = owner.cast_signed();
    let change = |sql: &str| Statement::of(sql).with(amount).with(owner).changing(1);
    let noted = Statement::of("INSERT INTO moved (id) VALUES ($1)").with(note).changing(1);
    let takes = SqlWork::default()
        .claiming(format!("owner {owner}"))
        .prepare(change("UPDATE account SET free = free - $1 WHERE owner = $2 AND free >= $1"))
        .commit(change("UPDATE account SET total = total - $1 WHERE owner = $2"))
        .commit(noted.clone())
        .abort(change("UPDATE account SET free = free + $1 WHERE owner = $2"));
    let gives = SqlWork::default()
        .claiming(format!("owner {owner}"))
        .commit(change("UPDATE account SET total = total + $1, free = free + $1 WHERE owner = $2"))
        .commit(noted);
    Transaction::new()
        .with(BANKS[from].parse().unwrap(), takes.work().unwrap())
        .with(BANKS[1 - from].parse().unwrap(), gives.work().unwrap())
}

/// Moves money for ever, and says what it was told.
async fn shift(coordinator: Coordinator, round: u64, mover: u64) {
    let mut rng = Random::from_os().stream(&format!("{round} {mover}"));
    for n in 0.. {
        let note = format!("{round}-{mover}-{n}");
        let (from, owner) = (usize::try_from(rng.below(2)).unwrap(), rng.below(4));
        let amount = 1 + rng.below(60).cast_signed();
        let answer = if rng.below(2) == 0 { Answer::Applied } else { Answer::Decided };
        let receipt = coordinator.run(transfer(from, owner, amount, &note).answered(answer)).await.unwrap();
        match receipt.ended {
            Ended::Committed => say(&format!("committed {note} {}", receipt.gid)),
            Ended::Aborted { .. } => say(&format!("aborted {note} {}", receipt.gid)),
            Ended::Unknown => say(&format!("unknown {note} {}", receipt.gid)),
        }
    }
}

async fn sums(stores: &[Store; 2]) -> (i64, i64) {
    let mut sums = (0, 0);
    for store in stores {
        let rows = store.query("SELECT sum(total), sum(free) FROM account", vec![]).await.unwrap();
        sums = (sums.0 + rows[0].at(0).as_i64().unwrap(), sums.1 + rows[0].at(1).as_i64().unwrap());
    }
    sums
}

async fn noted(store: &Store, id: &str) -> i64 {
    let rows = store.query("SELECT count(*) FROM moved WHERE id = $1", vec![id.into()]).await.unwrap();
    rows[0].at(0).as_i64().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_is_killed_makes_and_loses_no_money_and_leaves_nothing_in_doubt() {
    if let Some(folder) = std::env::var_os(STORE) {
        let round = std::env::var(ROUND).unwrap().parse().unwrap();
        let world = open(Path::new(&folder)).await;
        say("open");
        let movers = (0..MOVERS).map(|mover| tokio::spawn(shift(world.coordinator.clone(), round, mover)));
        for mover in movers.collect::<Vec<_>>() {
            mover.await.unwrap();
        }
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let world = open(folder.path()).await;
    for store in &world.stores {
        for sql in [
            "CREATE TABLE account (owner BIGINT PRIMARY KEY, total BIGINT NOT NULL, free BIGINT NOT NULL)",
            "CREATE TABLE moved (id TEXT PRIMARY KEY)",
            "INSERT INTO account VALUES (0, 100, 100), (1, 100, 100), (2, 100, 100), (3, 100, 100)",
        ] {
            store.transact(move |tx| Box::pin(tx.execute(sql, &[]))).await.unwrap();
        }
    }
    close(world).await;

    let mut rng = Random::from_os().stream("moments");
    let (mut told, mut in_doubt) = (BTreeMap::new(), 0);
    for round in 0..ROUNDS {
        let mut child = child_of(TEST, folder.path(), round);
        let mut lines = said(&mut child);
        assert_eq!(lines.next().as_deref(), Some("open"));
        std::thread::sleep(Duration::from_millis(5 + rng.below(150)));
        child.kill().unwrap();
        child.wait().unwrap();
        for line in lines {
            if let [word, note, gid] = line.split(' ').collect::<Vec<_>>()[..]
                && let Ok(gid) = gid.parse::<Gid>()
            {
                told.insert(note.to_owned(), (word.to_owned(), gid));
            }
        }
        let world = open(folder.path()).await;
        in_doubt += world.coordinator.counts().resolved;
        let env = Env::real();
        let begun = env.mono();
        loop {
            world.coordinator.sweep().await;
            let mut held = 0;
            for participant in &world.participants {
                held += participant.in_doubt(world.coordinator.id()).await.unwrap().len();
            }
            if held == 0 {
                break;
            }
            assert!(env.mono().saturating_since(begun) < Duration::from_secs(10), "{held} are still in doubt");
        }
        in_doubt += world.coordinator.counts().resolved;
        assert_eq!(sums(&world.stores).await, (800, 800), "round {round}");
        close(world).await;
    }
    let world = open(folder.path()).await;
    let (mut committed, mut aborted) = (0, 0);
    for (note, (word, gid)) in &told {
        let there = [noted(&world.stores[0], note).await, noted(&world.stores[1], note).await];
        let decided = world.coordinator.record(gid).await.unwrap().is_decided;
        match &**word {
            "committed" => {
                committed += 1;
                assert_eq!((there, decided), ([1, 1], true), "{note} was told to be committed");
            }
            "aborted" => {
                aborted += 1;
                assert_eq!((there, decided), ([0, 0], false), "{note} was told to be aborted");
            }
            _ => assert_eq!(there, [i64::from(decided); 2], "{note}"),
        }
    }
    // What nobody was told of is in both or in neither as well.
    let all = async |store: &Store| {
        let rows = store.query("SELECT id FROM moved ORDER BY id LIMIT 10000", vec![]).await.unwrap();
        rows.iter().map(|row| row.at(0).as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(all(&world.stores[0]).await, all(&world.stores[1]).await);
    eprintln!("{committed} told to be committed, {aborted} to be aborted, {in_doubt} ended in doubt");
    assert!(committed > 50 && in_doubt > 0, "too little happened to prove anything");
}
