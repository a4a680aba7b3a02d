//! Sagas of several processes over one store: each runs its own, and takes over from whoever dies or stands still.
//!
//! The node that is killed or paused is this program again as its own child, in which the same test plays the other part.
#![allow(clippy::disallowed_methods, reason = "it is looked at from outside: processes")]

use std::{
    collections::BTreeMap,
    path::Path,
    process::{Child, Command},
    sync::{Arc, Mutex},
    time::Duration,
};

use quorate_consistency::saga::{
    Action, Config, Definition, Failure, Journal, Next, Sagas, Search, Started, Status, Step,
};
use quorate_data::store::{DynTx, SqlError, Store, TransactError, Value as Sql};
use quorate_foundations::name::Name;
use serde_json::{Value, json};

use super::{
    child::{STORE, child_of, said, say},
    open, place, run, stores,
};

const SAGAS: usize = 8;
/// A machine that has much to do gives its signs late: who is taken over without need has to lose nothing either.
const TAKEOVER: Duration = Duration::from_secs(2);
const PATIENCE: Duration = Duration::from_secs(120);

fn order() -> Name {
    Name::new("order").unwrap()
}

fn idle() -> Name {
    Name::new("idle").unwrap()
}

async fn opened(store: &Store, definition: Definition) -> Sagas {
    opened_within(store, definition, TAKEOVER).await
}

async fn opened_within(store: &Store, definition: Definition, takeover: Duration) -> Sagas {
    let sagas = Sagas::open(store, Config { takeover, ..Config::default() }).await.unwrap();
    sagas.define(definition).await.unwrap();
    sagas
}

async fn execute(store: &Store, sql: &'static str, params: Vec<Sql>) {
    let done = store.transact(move |tx| {
        let params = params.clone();
        Box::pin(async move { tx.execute(sql, &params).await })
    });
    done.await.unwrap();
}

async fn tables(store: &Store) {
    execute(store, "CREATE TABLE done_here (saga TEXT NOT NULL, step TEXT NOT NULL)", vec![]).await;
    execute(store, "CREATE TABLE done_there (key TEXT PRIMARY KEY, times INTEGER NOT NULL)", vec![]).await;
    execute(store, "CREATE TABLE go (n INTEGER NOT NULL)", vec![]).await;
}

async fn count(store: &Store, sql: &str) -> i64 {
    store.query(sql, vec![]).await.unwrap()[0].at(0).as_i64().unwrap()
}

/// Nothing keeps it from being done twice but the saga.
fn local() -> Action {
    Action::local(|tx, call| {
        Box::pin(async move {
            let row: [Sql; 2] = [(&*call.id).into(), (&*call.step).into()];
            tx.execute("INSERT INTO done_here (saga, step) VALUES ($1, $2)", &row).await?;
            Ok(Value::Null)
        })
    })
}

async fn take_in(tx: &mut DynTx, key: &str) -> Result<u64, SqlError> {
    tx.execute("INSERT INTO done_there (key, times) VALUES ($1, 1) ON CONFLICT (key) DO NOTHING", &[key.into()]).await
}

/// A participant that knows its keys. `stands_still`: before its effect, or behind it, until it is told to go on.
fn remote(store: &Store, stands_still: bool) -> Action {
    let store = store.clone();
    Action::remote(move |call| {
        let store = store.clone();
        async move {
            let is_early = call.id.ends_with(['0', '2', '4', '6']);
            if stands_still && is_early {
                stand_still(&store, &call.id).await;
            }
            let key = call.key().to_string();
            let served = store.transact(move |tx| {
                let key = key.clone();
                Box::pin(async move { take_in(tx, &key).await })
            });
            served.await.map_err(|failed: TransactError<SqlError>| Failure::unknown(failed))?;
            if stands_still && !is_early {
                stand_still(&store, &call.id).await;
            }
            Ok(json!("done"))
        }
    })
}

async fn stand_still(store: &Store, id: &str) {
    say(&format!("at {id}"));
    while count(store, "SELECT count(*) FROM go").await == 0 {
        store.env().sleep(Duration::from_millis(50)).await;
    }
}

fn three_steps(store: &Store, stands_still: bool) -> Definition {
    Definition::new(order(), 1)
        .step(Step::new("first", local()))
        .step(Step::new("second", remote(store, stands_still)))
        .step(Step::new("third", local()))
}

/// The child's part: sagas that stand still in their second step. It tells once it runs none of them any more.
async fn play(place: &str) {
    let store = open(place).await;
    let sagas = opened(&store, three_steps(&store, true)).await;
    // One that only waits: nothing that it writes tells it that it was taken over.
    sagas.define(patient(idle())).await.unwrap();
    sagas.start(&idle(), "idle", 7, None).await.unwrap();
    for n in 0..SAGAS {
        sagas.start(&order(), &format!("s-{n}"), n, None).await.unwrap();
    }
    while sagas.counts().open > 0 {
        store.env().sleep(Duration::from_millis(50)).await;
    }
    say("left");
    std::future::pending::<()>().await;
}

fn signal(child: &Child, what: &str) {
    assert!(Command::new("kill").args([what, &child.id().to_string()]).status().unwrap().success());
}

async fn journals(sagas: &Sagas) -> Vec<Arc<Journal>> {
    let mut journals = Vec::new();
    for n in 0..SAGAS {
        journals.push(sagas.settled(&order(), &format!("s-{n}"), PATIENCE).await.unwrap().journal);
    }
    journals
}

const TEST: &str = "sagas::a_node_that_is_killed_or_stands_still_is_taken_over_and_each_step_takes_effect_once";

#[test]
fn a_node_that_is_killed_or_stands_still_is_taken_over_and_each_step_takes_effect_once() {
    run(async {
        if let Some(place) = std::env::var_os(STORE) {
            return play(place.to_str().unwrap()).await;
        }
        for how in ["-KILL", "-STOP"] {
            let Some(place) = place() else { return };
            let store = open(&place).await;
            tables(&store).await;
            let mut child = child_of(TEST, Path::new(&place), 0);
            let mut lines = said(&mut child);
            let stand = lines.by_ref().filter(|line| line.starts_with("at ")).take(SAGAS).count();
            assert_eq!(stand, SAGAS);
            signal(&child, how);
            let sagas = opened(&store, three_steps(&store, false)).await;
            sagas.define(patient(idle())).await.unwrap();
            let ended = journals(&sagas).await;
            while sagas.counts().open == 0 {
                store.env().sleep(Duration::from_millis(20)).await;
            }
            for journal in &ended {
                assert_eq!(journal.status(), Status::Completed, "{how}: {journal:?}");
                assert!(journal.step("second").unwrap().forward.attempts > 1, "{how}: it was asked again");
            }
            if how == "-STOP" {
                // Now its answers come, and it writes what it knows.
                execute(&store, "INSERT INTO go (n) VALUES (1)", vec![]).await;
                signal(&child, "-CONT");
                assert!(lines.any(|line| line == "left"), "it lets go of what it lost");
            }
            assert_eq!(journals(&sagas).await, ended, "{how}: nothing was written late");
            sagas.signal(&idle(), "idle", "end", "go", "well").await.unwrap();
            assert_eq!(sagas.settled(&idle(), "idle", PATIENCE).await.unwrap().journal.status(), Status::Completed);
            let twice =
                "SELECT count(*) FROM (SELECT saga FROM done_here GROUP BY saga, step HAVING count(*) <> 1) AS many";
            assert_eq!(count(&store, twice).await, 0, "{how}");
            assert_eq!(count(&store, "SELECT count(*) FROM done_here").await, 2 * SAGAS as i64 + 1, "{how}");
            assert_eq!(count(&store, "SELECT count(*) FROM done_there").await, SAGAS as i64, "{how}");
            child.kill().unwrap();
            child.wait().unwrap();
        }
    });
}

const HEIRS: &str = "sagas::of_two_heirs_each_saga_has_one_and_keeps_it";

#[test]
fn of_two_heirs_each_saga_has_one_and_keeps_it() {
    /// Long enough that no machine is so slow that one of the heirs counts as gone.
    const SILENCE: Duration = Duration::from_secs(8);
    run(async {
        if let Some(place) = std::env::var_os(STORE) {
            return play(place.to_str().unwrap()).await;
        }
        let Some(place) = place() else { return };
        let stores = [open(&place).await, open(&place).await];
        tables(&stores[0]).await;
        let mut child = child_of(HEIRS, Path::new(&place), 0);
        let stand = said(&mut child).filter(|line| line.starts_with("at ")).take(SAGAS).count();
        assert_eq!(stand, SAGAS);
        signal(&child, "-KILL");
        child.wait().unwrap();
        let asked = Arc::new(Mutex::new(BTreeMap::<String, u32>::new()));
        let mut heirs = Vec::new();
        for store in &stores {
            let (asked, env) = (asked.clone(), store.env().clone());
            let second = Action::remote(move |call| {
                let (asked, env) = (asked.clone(), env.clone());
                async move {
                    *asked.lock().unwrap().entry(call.id.to_string()).or_default() += 1;
                    // Whoever would take it from the other one does it now.
                    env.sleep(Duration::from_secs(1)).await;
                    Ok(Value::Null)
                }
            });
            let definition = Definition::new(order(), 1)
                .step(Step::new("first", local()))
                .step(Step::new("second", second))
                .step(Step::new("third", local()));
            heirs.push(opened_within(store, definition, SILENCE).await);
        }
        for journal in journals(&heirs[0]).await {
            assert_eq!(journal.status(), Status::Completed, "{journal:?}");
        }
        let once = (0..SAGAS).map(|n| (format!("s-{n}"), 1)).collect();
        assert_eq!(*asked.lock().unwrap(), once, "each was asked again by one of the two");
    });
}

fn patient(name: Name) -> Definition {
    let plan = |journal: &Journal| match (journal.is_done("first"), journal.signal("go")) {
        (false, _) => Next::steps(["first"]),
        (true, None) => Next::Wait(None),
        (true, Some(said)) => Next::Done(said.clone()),
    };
    Definition::new(name, 1).step(Step::new("first", local()).compensated_by(local())).plan(plan)
}

#[test]
fn a_saga_is_started_once_and_told_by_any_node_and_whoever_ran_it_lets_go() {
    run(async {
        let Some(stores) = stores(2).await else { return };
        tables(&stores[0]).await;
        let (one, two) = (opened(&stores[0], patient(order())).await, opened(&stores[1], patient(order())).await);
        let (name, start) = (order(), |sagas: Sagas| async move { sagas.start(&order(), "1", 7, None).await.unwrap() });
        let (a, b) = tokio::join!(start(one.clone()), start(two.clone()));
        let shown = format!("{:?}", [&a.journal, &b.journal]);
        let repeated = [a, b].map(|Started { repeated, .. }| repeated);
        assert!(repeated == [true, false] || repeated == [false, true], "{repeated:?}");
        assert_eq!(count(&stores[0], "SELECT count(*) FROM done_here").await, 1, "{shown}");
        // Whoever runs it, each is told something, and then the other.
        for (n, sagas) in [&one, &two, &one].into_iter().enumerate() {
            let told = sagas.signal(&name, "1", &n.to_string(), "nothing", ()).await.unwrap();
            assert_eq!((told.status(), told.signals.len()), (Status::Running, n + 1));
        }
        two.signal(&name, "1", "end", "go", "well").await.unwrap();
        let ended = one.settled(&name, "1", PATIENCE).await.unwrap().journal;
        assert_eq!((ended.status(), &ended.output), (Status::Completed, &json!("well")));
        // The same again is known everywhere.
        one.signal(&name, "1", "end", "go", "well").await.unwrap();
        let again = one.start(&name, "1", 7, None).await.unwrap();
        assert_eq!((again.repeated, again.journal.status()), (true, Status::Completed));
        one.start(&name, "2", 7, None).await.unwrap();
        two.abort(&name, "2", "ada", "not wanted").await.unwrap();
        assert_eq!(one.settled(&name, "2", PATIENCE).await.unwrap().journal.status(), Status::Compensated);
        while one.counts().open + two.counts().open > 0 {
            stores[0].env().sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(two.list(Search { limit: 9, ..Search::default() }).await.unwrap().len(), 2);
    });
}
