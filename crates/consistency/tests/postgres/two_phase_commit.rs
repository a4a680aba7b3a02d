//! Two databases of a PostgreSQL server as participants: coordinators are killed, servers are killed, answers are lost.
//!
//! The coordinator that is killed is this program again as its own child, in which the same test plays the other part.
#![allow(clippy::disallowed_methods, reason = "it is looked at from outside: processes, connections")]

mod banks;
mod beside;
mod lossy;
mod promises;

use std::{
    path::Path,
    str::FromStr,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use quorate_consistency::two_phase_commit::{
    Config, Coordinator, Ended, Gid, Participant, Postgres, PostgresConfig, SqlWork, Statement, Transaction,
};
use quorate_data::{
    event::NewEvent,
    store::{
        ExpectedVersion, ReadStream,
        postgres::{self, Address},
    },
};
use quorate_runtime::Env;

use self::{
    banks::{
        BANKS, Hook, POINTS, Point, balances, banks, change, client, close, coordinator, name, participant, prepared,
        quick, struck, transfer, until,
    },
    lossy::{Loss, Lossy},
};
use super::{
    child::{ROUND, STORE, child_of, said, say},
    run, server, stores,
};

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
        // The first one does not look by itself whether it was replaced: the log is to say it.
        let blind = Config { sweep: Duration::from_secs(3_600), ..quick() };
        let open = async |node: usize| {
            let config = if node == 0 { blind.clone() } else { quick() };
            let coordinator = Coordinator::open(&logs[node], config).await.unwrap();
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
