//! Two databases of a PostgreSQL server as participants: coordinators are killed, servers are killed, answers are lost.
//!
//! The coordinator that is killed is this program again as its own child, in which the same test plays the other part.
#![allow(clippy::disallowed_methods, reason = "it is looked at from outside: processes, connections")]

#[path = "../../../data/tests/sqlite/child.rs"]
mod child;
mod lossy;

use std::{
    path::Path,
    str::FromStr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use child::{ROUND, STORE, child_of, said, say};
use futures_util::future::join_all;
use quorate_consistency::two_phase_commit::{
    Config, Coordinator, CoordinatorId, Ended, Gid, Participant, ParticipantError, Postgres, PostgresConfig, Prepared,
    SqlWork, Statement, Transaction, Vote, Work,
};
use quorate_data::{
    event::NewEvent,
    store::{
        ExpectedVersion, ReadStream, Store,
        postgres::{self, Address},
        sqlite,
    },
};
use quorate_foundations::name::Name;
use quorate_runtime::{BoxFuture, Env};
use tokio_postgres::Client;

use self::lossy::{Loss, Lossy};
use super::{run, server, stores};

const BANKS: [&str; 2] = ["left", "right"];

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

async fn client(address: &str) -> Client {
    postgres::connect(&Env::real(), &address.parse().unwrap()).await.unwrap()
}

/// Two new databases with ada's money, on the server at `address`.
async fn banks(address: &str) -> [String; 2] {
    static MADE: AtomicUsize = AtomicUsize::new(0);
    let of = format!("{}_{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
    let admin = client(address).await;
    let mut addresses = [String::new(), String::new()];
    for (bank, found) in BANKS.iter().zip(&mut addresses) {
        let database = format!("bank_{bank}_{of}");
        admin.batch_execute(&format!("CREATE DATABASE {database}")).await.unwrap();
        *found = format!("{}/{database}", address.rsplit_once('/').unwrap().0);
        let table = "CREATE TABLE account (owner text PRIMARY KEY, free int NOT NULL CHECK (free >= 0));
            INSERT INTO account VALUES ('ada', 100), ('bob', 100)";
        client(found).await.batch_execute(table).await.unwrap();
    }
    addresses
}

fn participant(env: &Env, address: &str) -> Postgres {
    // Both are on one server, which knows a gid once.
    let branch = address.rsplit('/').next().unwrap();
    let config = PostgresConfig::at(Address::from_str(address).unwrap(), branch);
    Postgres::new(env, PostgresConfig { statement_timeout: Duration::from_secs(2), connections: 4, ..config }).unwrap()
}

fn change(amount: i64) -> Work {
    let sql = "UPDATE account SET free = free + $1 WHERE owner = $2";
    SqlWork::default().prepare(Statement::of(sql).with(amount).with("ada").changing(1)).work().unwrap()
}

fn transfer(amount: i64) -> Transaction {
    Transaction::new().with(name("left"), change(-amount)).with(name("right"), change(amount))
}

async fn balances(addresses: &[String; 2]) -> [i32; 2] {
    let mut found = [0, 0];
    for (address, balance) in addresses.iter().zip(&mut found) {
        let row = client(address).await.query_one("SELECT free FROM account WHERE owner = 'ada'", &[]).await.unwrap();
        *balance = row.get(0);
    }
    found
}

/// The gids that are prepared in any of the two databases.
async fn prepared(addresses: &[String; 2]) -> Vec<String> {
    let mut all = Vec::new();
    for address in addresses {
        let look = "SELECT gid FROM pg_prepared_xacts WHERE database = current_database() ORDER BY gid";
        let rows = client(address).await.query(look, &[]).await.unwrap();
        all.extend(rows.iter().map(|row| row.get::<_, String>(0)));
    }
    all
}

fn quick() -> Config {
    Config { sweep: Duration::from_millis(100), pause: Duration::from_millis(20), ..Config::default() }
}

async fn coordinator(log: &Path, participants: [Arc<dyn Participant>; 2]) -> (Coordinator, Store) {
    let store = sqlite::open(&Env::real(), sqlite::Config::at(log)).await.unwrap();
    let coordinator = Coordinator::open(&store, quick()).await.unwrap();
    for (bank, participant) in BANKS.iter().zip(participants) {
        coordinator.register(name(bank), participant).unwrap();
    }
    (coordinator, store)
}

async fn close((coordinator, log): (Coordinator, Store)) {
    coordinator.close().await;
    log.close().await.unwrap();
}

/// Where something happens to a transaction, at which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Point {
    BeforePrepare,
    BehindPrepare,
    BeforeCommit,
    BehindCommit,
}

const POINTS: [Point; 4] = [Point::BeforePrepare, Point::BehindPrepare, Point::BeforeCommit, Point::BehindCommit];

type Hook = dyn Fn(Gid) -> BoxFuture<'static, ()> + Send + Sync;

/// A database at which something happens at a point, the first time it is reached.
struct Struck {
    inner: Postgres,
    at: Option<Point>,
    hook: Mutex<Option<Arc<Hook>>>,
}

impl Struck {
    async fn pass(&self, point: Point, gid: &Gid) {
        let hook = self.hook.lock().unwrap().take_if(|_| self.at == Some(point));
        if let Some(hook) = hook {
            hook(*gid).await;
        }
    }
}

impl Participant for Struck {
    fn prepare<'a>(&'a self, gid: &'a Gid, work: &'a Work) -> BoxFuture<'a, Result<Vote, ParticipantError>> {
        Box::pin(async move {
            self.pass(Point::BeforePrepare, gid).await;
            let vote = self.inner.prepare(gid, work).await;
            self.pass(Point::BehindPrepare, gid).await;
            vote
        })
    }

    fn commit<'a>(&'a self, gid: &'a Gid) -> BoxFuture<'a, Result<(), ParticipantError>> {
        Box::pin(async move {
            self.pass(Point::BeforeCommit, gid).await;
            let done = self.inner.commit(gid).await;
            self.pass(Point::BehindCommit, gid).await;
            done
        })
    }

    fn abort<'a>(&'a self, gid: &'a Gid) -> BoxFuture<'a, Result<(), ParticipantError>> {
        self.inner.abort(gid)
    }

    fn in_doubt(&self, coordinator: CoordinatorId) -> BoxFuture<'_, Result<Vec<Prepared>, ParticipantError>> {
        self.inner.in_doubt(coordinator)
    }
}

/// The participants, of which number `at` is struck at `point`.
fn struck(addresses: &[String; 2], at: usize, point: Point, hook: Arc<Hook>) -> [Arc<dyn Participant>; 2] {
    [0, 1].map(|n| {
        let (inner, at) = (participant(&Env::real(), &addresses[n]), (n == at).then_some(point));
        Arc::new(Struck { inner, at, hook: Mutex::new(Some(hook.clone())) }) as Arc<dyn Participant>
    })
}

async fn until<F: Future<Output = bool>>(what: &str, mut is: impl FnMut() -> F) -> Duration {
    let begun = Instant::now();
    while !is().await {
        assert!(begun.elapsed() < Duration::from_secs(30), "it did not come about that {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    begun.elapsed()
}

/// The child's part: a transfer that stands still at its point, until it is killed.
async fn stand_still(log: &Path, addresses: &[String; 2], round: usize) {
    let hook: Arc<Hook> = Arc::new(|gid| {
        Box::pin(async move {
            say(&format!("at {gid}"));
            std::future::pending().await
        })
    });
    let (coordinator, _log) = coordinator(log, struck(addresses, round % 2, POINTS[round / 2], hook)).await;
    let receipt = coordinator.run(transfer(10)).await.unwrap();
    say(&format!("told {}", u8::from(receipt.ended == Ended::Committed)));
    std::future::pending::<()>().await;
}

const KILLED: &str =
    "two_phase_commit::a_coordinator_killed_at_any_point_is_taken_over_and_both_databases_end_the_same";

#[test]
fn a_coordinator_killed_at_any_point_is_taken_over_and_both_databases_end_the_same() {
    run(async {
        if let Some(log) = std::env::var_os(STORE) {
            let log = Path::new(&log);
            let addresses = std::fs::read_to_string(log.with_file_name("addresses")).unwrap();
            let (left, right) = addresses.split_once(' ').unwrap();
            let round = std::env::var(ROUND).unwrap().parse().unwrap();
            return stand_still(log, &[left.to_owned(), right.to_owned()], round).await;
        }
        let Some(address) = server::address() else { return };
        let addresses = banks(&address).await;
        // Others' prepared transactions, one of them with a name like ours.
        let stranger = "quorate:0197f2a0-0000-7000-8000-000000000001:1-1";
        let strangers = client(&addresses[0]).await;
        for gid in ["their own", stranger] {
            let sql = format!(
                "BEGIN; UPDATE account SET free = free WHERE owner = 'bob' AND '{gid}' = ''; PREPARE TRANSACTION '{gid}'"
            );
            strangers.batch_execute(&sql).await.unwrap();
        }
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log.db");
        std::fs::write(folder.path().join("addresses"), addresses.join(" ")).unwrap();
        let mut expected = [100, 100];
        for round in 0..2 * POINTS.len() {
            let (bank, point) = (round % 2, POINTS[round / 2]);
            let mut child = child_of(KILLED, &log, round as u64);
            let mut lines = said(&mut child);
            let line = lines.find(|line| line.starts_with("at ")).unwrap();
            let gid = line.strip_prefix("at ").unwrap().to_owned();
            // The other one has all the time it needs.
            let (other, is_commit) = (addresses[1 - bank].clone(), round >= 4);
            until("the other participant has answered", async || {
                let look = "SELECT count(*) FROM pg_prepared_xacts WHERE starts_with(gid, $1 || ':') AND database = current_database()";
                let count: i64 = client(&other).await.query_one(look, &[&gid]).await.unwrap().get(0);
                count == i64::from(!is_commit)
            })
            .await;
            child.kill().unwrap();
            child.wait().unwrap();

            let begun = Instant::now();
            let (back, log_store) =
                coordinator(&log, [0, 1].map(|n| Arc::new(participant(&Env::real(), &addresses[n])) as _)).await;
            until("nothing is in doubt", async || prepared(&addresses).await == [stranger, "their own"]).await;
            let took = begun.elapsed();
            if is_commit {
                expected = [expected[0] - 10, expected[1] + 10];
            }
            assert_eq!(balances(&addresses).await, expected, "{point:?} at {}", BANKS[bank]);
            eprintln!("{point:?} at {}: ended {took:?} after the coordinator was back", BANKS[bank]);
            let gid: Gid = gid.parse().unwrap();
            assert_eq!(back.record(&gid).await.unwrap().is_decided, is_commit);
            assert_eq!(back.run(transfer(0)).await.unwrap().ended, Ended::Committed);
            until("it has ended", async || back.counts().unfinished == 0).await;
            close((back, log_store)).await;
        }
        for gid in ["their own", stranger] {
            strangers.batch_execute(&format!("ROLLBACK PREPARED '{gid}'")).await.unwrap();
        }
    });
}

#[test]
fn a_server_killed_at_any_point_leaves_both_databases_the_same() {
    run(async {
        let (Some(left), Some(right)) = (server::address(), server::Own::new("")) else { return };
        let right = Arc::new(right);
        let addresses = [banks(&left).await[0].clone(), banks(&right.address()).await[1].clone()];
        let folder = tempfile::tempdir().unwrap();
        let mut expected = [100, 100];
        for (n, point) in POINTS.into_iter().enumerate() {
            let server = right.clone();
            let hook: Arc<Hook> = Arc::new(move |_| {
                let server = server.clone();
                Box::pin(async move {
                    tokio::task::spawn_blocking({
                        let server = server.clone();
                        move || server.kill()
                    })
                    .await
                    .unwrap();
                    // It is away for a while.
                    tokio::task::spawn_blocking(move || {
                        std::thread::sleep(Duration::from_millis(300));
                        server.start();
                    });
                })
            });
            let (back, log) =
                coordinator(&folder.path().join(format!("{n}.db")), struck(&addresses, 1, point, hook)).await;
            // A connection that the server ends is among those that are used next.
            let ended = back.run(transfer(10)).await.unwrap().ended;
            assert_eq!(ended == Ended::Committed, point != Point::BeforePrepare, "{point:?}: {ended:?}");
            if ended == Ended::Committed {
                expected = [expected[0] - 10, expected[1] + 10];
            }
            until("the server is back", async || {
                postgres::connect(&Env::real(), &addresses[1].parse().unwrap()).await.is_ok()
            })
            .await;
            until("nothing is in doubt", async || prepared(&addresses).await.is_empty()).await;
            assert_eq!(balances(&addresses).await, expected, "{point:?}");
            close((back, log)).await;
        }
    });
}

#[test]
fn answers_that_are_lost_are_looked_for_and_nothing_is_done_twice_or_by_half() {
    run(async {
        let Some(address) = server::address() else { return };
        let addresses = banks(&address).await;
        let folder = tempfile::tempdir().unwrap();
        let lossy = Lossy::default();
        let participants: [Arc<dyn Participant>; 2] =
            [0, 1].map(|n| Arc::new(participant(&lossy.env(), &addresses[n])) as _);
        let (coordinator, log) = coordinator(&folder.path().join("log.db"), participants).await;
        let courses = [
            // The promise was made, and is found.
            (Some(Loss::Answer("PREPARE TRANSACTION")), Some(true)),
            // It did not arrive, or what came before it was not heard of.
            (Some(Loss::Request("PREPARE TRANSACTION")), Some(false)),
            (Some(Loss::AllAnswers("PREPARE TRANSACTION")), Some(false)),
            (Some(Loss::Answer("COMMIT PREPARED")), Some(true)),
            (Some(Loss::Request("COMMIT PREPARED")), Some(true)),
            (None, Some(true)),
        ];
        let mut expected = [100, 100];
        for (loss, commits) in courses {
            lossy.lose(loss);
            let ended = coordinator.run(transfer(5)).await.unwrap().ended;
            assert_eq!(Some(ended == Ended::Committed), commits, "{loss:?}: {ended:?}");
            if ended == Ended::Committed {
                expected = [expected[0] - 5, expected[1] + 5];
            }
            until("nothing is in doubt", async || {
                coordinator.counts().unfinished == 0 && prepared(&addresses).await.is_empty()
            })
            .await;
            assert_eq!(balances(&addresses).await, expected, "{loss:?}");
            assert!(lossy.is_done(), "{loss:?} did not come about");
        }
        // Alone, in one phase: the server knows what became of a commit.
        for (loss, commits) in [(Loss::Answer("COMMIT\0"), true), (Loss::Request("COMMIT\0"), false)] {
            lossy.lose(Some(loss));
            let ended = coordinator.run(Transaction::new().with(name("left"), change(-1))).await.unwrap().ended;
            assert_eq!(ended == Ended::Committed, commits, "{loss:?}: {ended:?}");
            expected[0] -= i32::from(commits);
            assert_eq!(balances(&addresses).await, expected, "{loss:?}");
        }
        close((coordinator, log)).await;
    });
}

#[test]
fn whoever_waits_for_a_row_keeps_nobody_from_ending_what_holds_it() {
    run(async {
        let Some(address) = server::address() else { return };
        let addresses = banks(&address).await;
        let folder = tempfile::tempdir().unwrap();
        let one = |address: &String| {
            let config = PostgresConfig::at(Address::from_str(address).unwrap(), address.rsplit('/').next().unwrap());
            let config = PostgresConfig { connections: 1, statement_timeout: Duration::from_secs(60), ..config };
            Arc::new(Postgres::new(&Env::real(), config).unwrap()) as Arc<dyn Participant>
        };
        let (coordinator, log) =
            coordinator(&folder.path().join("log.db"), [one(&addresses[0]), one(&addresses[1])]).await;
        // All of them want ada's row on the left, and none has to wait until somebody's time is up.
        let opens = |n: i64| {
            let account = Statement::of("INSERT INTO account VALUES ($1, 5)").with(format!("new {n}")).changing(1);
            let opened = SqlWork::default().prepare(account).work().unwrap();
            Transaction::new().with(name("left"), change(-5)).with(name("right"), opened)
        };
        let all = join_all((0..6).map(|n| coordinator.run(opens(n)))).await;
        assert!(all.iter().all(|receipt| receipt.as_ref().unwrap().ended == Ended::Committed), "{all:?}");
        until("it has ended", async || coordinator.counts().unfinished == 0).await;
        assert_eq!(balances(&addresses).await, [70, 100]);
        close((coordinator, log)).await;
    });
}

#[test]
fn of_two_nodes_over_one_log_the_one_that_took_over_decides() {
    run(async {
        let Some(logs) = stores(2).await else { return };
        let addresses = banks(&server::address().unwrap()).await;
        let open = async |node: usize| {
            let coordinator = Coordinator::open(&logs[node], quick()).await.unwrap();
            for (bank, address) in BANKS.iter().zip(&addresses) {
                coordinator.register(name(bank), Arc::new(participant(&Env::real(), address))).unwrap();
            }
            coordinator
        };
        let with_event = |id: &str| {
            let event = NewEvent::new(id, "/bank", "money.moved");
            transfer(10).append(name("ledger-1"), ExpectedVersion::Any, vec![event])
        };
        let first = open(0).await;
        let receipt = first.run(with_event("m-1")).await.unwrap();
        assert_eq!(receipt.ended, Ended::Committed);
        let second = open(1).await;
        assert_eq!((second.id(), second.takeover()), (first.id(), 2));
        assert!(second.record(&receipt.gid).await.unwrap().is_decided);
        // The first one prepares, and the log refuses its decision.
        let refused = first.run(with_event("m-2")).await.unwrap();
        assert!(matches!(refused.ended, Ended::Aborted { by: None, .. }), "{refused:?}");
        assert!(first.is_fenced());
        assert_eq!(second.run(with_event("m-3")).await.unwrap().ended, Ended::Committed);
        until("nothing is in doubt", async || prepared(&addresses).await.is_empty()).await;
        assert_eq!(balances(&addresses).await, [80, 120]);
        let place = logs[1].reach(logs[1].token(), Duration::from_secs(20)).await.unwrap();
        assert!(place.is_some());
        let lines = logs[1].read_stream(ReadStream::forward(name("ledger-1"), 10)).await.unwrap().events;
        assert_eq!(lines.iter().map(|line| line.id().to_owned()).collect::<Vec<_>>(), ["m-1", "m-3"]);
        first.close().await;
        second.close().await;
    });
}

#[test]
fn what_a_server_cannot_promise_is_a_no_that_says_why() {
    run(async {
        let Some(address) = server::address() else { return };
        let addresses = banks(&address).await;
        let env = Env::real();
        let database = participant(&env, &addresses[0]);
        database.check().await.unwrap();
        let gid = |n: u32| format!("quorate:0197f2a0-0000-7000-8000-00000000000b:1-{n}").parse::<Gid>().unwrap();
        let why = async |n: u32, work: &SqlWork| match database.prepare(&gid(n), &work.work().unwrap()).await {
            Ok(Vote::No { why }) => why,
            Err(ParticipantError::Unsuitable { what }) => what,
            other => panic!("{other:?}"),
        };
        let one = |sql: &str| SqlWork::default().prepare(Statement::of(sql));
        let overdraws = one("UPDATE account SET free = free - 101 WHERE owner = 'ada'");
        assert!(why(1, &overdraws).await.contains("23514"));
        let nobody =
            SqlWork::default().prepare(Statement::of("UPDATE account SET free = 1 WHERE owner = 'eve'").changing(1));
        assert!(why(2, &nobody).await.contains("changed 0 rows"));
        assert!(why(3, &one("UPDATE nothing SET x = 1")).await.contains("42P01"));
        for (n, sql) in ["COMMIT", "SET statement_timeout = 0", "DROP TABLE account", ""].into_iter().enumerate() {
            assert!(why(4 + u32::try_from(n).unwrap(), &one(sql)).await.contains("begins with INSERT"), "{sql}");
        }
        let notifies = one("INSERT INTO account SELECT 'n', 1 FROM (SELECT pg_notify('a', 'b')) AS n");
        assert!(
            why(8, &notifies).await.contains("PREPARE a transaction that has executed LISTEN"),
            "notifications are not prepared"
        );
        assert!(prepared(&addresses).await.is_empty());
        // What only looks holds nothing, unless it locks.
        let looks = one("SELECT free FROM account");
        assert_eq!(database.prepare(&gid(10), &looks.work().unwrap()).await, Ok(Vote::ReadOnly));
        let locks = one("SELECT free FROM account WHERE owner = 'ada' FOR UPDATE");
        assert_eq!(database.prepare(&gid(11), &locks.work().unwrap()).await, Ok(Vote::Yes));
        let held = database.in_doubt(gid(11).coordinator).await.unwrap();
        assert_eq!((held.len(), held[0].gid), (1, gid(11)));
        assert!(held[0].held.iter().any(|held| held.ends_with("on public.account")), "{held:?}");
        // Over the wrong database nothing is ended, and it is said so.
        let branch = addresses[0].rsplit('/').next().unwrap();
        let wrong = PostgresConfig::at(Address::from_str(&addresses[1]).unwrap(), branch);
        let elsewhere = Postgres::new(&env, wrong).unwrap().commit(&gid(11)).await;
        assert!(matches!(elsewhere, Err(ParticipantError::Failed { .. })), "{elsewhere:?}");
        for _ in 0..2 {
            assert_eq!(database.abort(&gid(11)).await, Ok(()));
            assert_eq!(database.commit(&gid(12)).await, Ok(()), "what is unknown has ended");
        }
        // What somebody rolls back by hand is told, as long as the process that prepared it runs.
        assert_eq!(database.prepare(&gid(20), &change(1)).await, Ok(Vote::Yes));
        let by_hand = format!("ROLLBACK PREPARED '{}:{branch}'", gid(20));
        client(&addresses[0]).await.batch_execute(&by_hand).await.unwrap();
        let told = database.commit(&gid(20)).await;
        assert!(
            matches!(&told, Err(ParticipantError::Contradicted { what }) if what.contains("rolled back")),
            "{told:?}"
        );
        let Some(own) = server::Own::new("-c max_prepared_transactions=0") else { return };
        let refused = participant(&env, &own.address()).check().await;
        assert!(
            matches!(&refused, Err(ParticipantError::Unsuitable { what }) if what.contains("ALTER SYSTEM SET max_prepared_transactions")),
            "{refused:?}"
        );
    });
}
