//! Many statements at once, and what is worked out of events before their transaction.

use std::{
    sync::{Arc, Mutex},
    thread::{self, ThreadId},
};

use quorate_runtime::BoxFuture;

use super::{
    super::*,
    world::{World, append_many, config, view},
};
use crate::{
    event::Recorded,
    store::{DynTx, Query, SqlError, Step, TransactError, Value},
};

const INSERT: &str = "INSERT INTO view__many__1__row (id, n) VALUES ($1, $2)";
const ADD: &str = "UPDATE view__many__1__row SET n = n + $2 WHERE id = $1";
const SELECT: &str = "SELECT n FROM view__many__1__row WHERE id = $1";

/// Runs `steps` on an empty table; what came of it, and the rows that are there then. Nothing stays.
async fn run(steps: &[(&str, &[i64])]) -> (Result<(), (usize, SqlError)>, Vec<Vec<i64>>) {
    let steps: Vec<(String, Vec<Value>)> =
        steps.iter().map(|(sql, params)| ((*sql).to_owned(), params.iter().map(|n| (*n).into()).collect())).collect();
    let steps = Arc::new(steps);
    let world = World::new();
    let store = world.open().await;
    let tried: Result<(), _> = store
        .transact(move |tx| {
            let steps = steps.clone();
            Box::pin(async move { Err(tried(tx, &steps).await) })
        })
        .await;
    match tried {
        Err(TransactError::Aborted(seen)) => seen,
        other => panic!("it was not rolled back: {other:?}"),
    }
}

async fn tried(tx: &mut DynTx, steps: &[(String, Vec<Value>)]) -> (Result<(), (usize, SqlError)>, Vec<Vec<i64>>) {
    let build = Build::new(1);
    tx.view_schema(build, "CREATE TABLE view__many__1__row (id BIGINT PRIMARY KEY, n BIGINT NOT NULL)").await.unwrap();
    let steps: Vec<Step<'_>> = steps.iter().map(|(sql, params)| Step { sql, params }).collect();
    let done = tx.view_execute_all(build, &steps).await;
    let keys: Vec<Vec<Value>> = (1_i64..=4).map(|id| vec![id.into()]).collect();
    let found = tx.view_query_all(build, SELECT, &keys).await.unwrap();
    let numbers = |rows: &Vec<crate::store::Row>| rows.iter().map(|row| row.at(0).as_i64().unwrap()).collect();
    (done, found.iter().map(numbers).collect())
}

#[tokio::test]
async fn statements_are_run_in_order_up_to_the_first_that_fails() {
    let (done, rows) = run(&[(INSERT, &[1, 5]), (ADD, &[1, 2]), (INSERT, &[2, 6]), (ADD, &[1, 3])]).await;
    assert_eq!((done.is_ok(), rows), (true, vec![vec![10], vec![6], vec![], vec![]]));

    let (done, rows) = run(&[(INSERT, &[1, 5]), (ADD, &[1, 1]), (INSERT, &[1, 7]), (INSERT, &[3, 8])]).await;
    assert!(matches!(done, Err((2, SqlError::Failed { .. }))), "{done:?}");
    assert_eq!(rows, [vec![6], vec![], vec![], vec![]], "what came before it was run, and nothing behind");

    let (done, _) = run(&[(INSERT, &[1, 5]), ("SELECT * FROM quorate_meta", &[])]).await;
    assert!(matches!(done, Err((1, SqlError::Refused { .. }))), "another table is out of reach: {done:?}");
    let (done, _) = run(&[(INSERT, &[1])]).await;
    assert!(matches!(&done, Err((0, SqlError::Failed { what })) if what.contains("$2")), "{done:?}");
    let (done, _) = run(&[("INSERT INTO view__many__1__row (id, n) VALUES (:a, $1)", &[1])]).await;
    assert!(matches!(&done, Err((0, SqlError::Failed { what })) if what.contains(":a")), "{done:?}");
}

#[tokio::test]
async fn more_statements_than_are_held_ready_are_run_all_the_same() {
    let texts: Vec<String> = (0..200).map(|n| format!("UPDATE view__many__1__row SET n = n + {n} + $1")).collect();
    let steps = texts.iter().chain(&texts).map(|sql| (sql.as_str(), &[1][..]));
    let steps: Vec<(&str, &[i64])> = [(INSERT, &[1, 0][..])].into_iter().chain(steps).collect();
    let (done, rows) = run(&steps).await;
    assert_eq!((done.is_ok(), &rows[0]), (true, &vec![2 * (199 * 200 / 2 + 200)]));
}

/// Counts events, and notes on which threads they are worked on.
#[derive(Clone)]
struct Threads {
    name: ViewName,
    /// Of each event that was applied: whether it had been worked out, and that on another thread.
    applied: Arc<Mutex<Vec<Option<bool>>>>,
}

impl Prepare for Threads {
    fn prepare(&self, _: &Recorded) -> Prepared {
        Prepared::new(thread::current().id(), 8)
    }
}

impl Projection for Threads {
    fn name(&self) -> &ViewName {
        &self.name
    }

    fn version(&self) -> u32 {
        1
    }

    fn query(&self) -> Query {
        Query::EVERYTHING
    }

    fn schema(&self) -> Schema {
        Schema::new().table("tally", "CREATE TABLE {tally} (stream TEXT PRIMARY KEY, n BIGINT NOT NULL)")
    }

    fn ahead(&self) -> Option<Arc<dyn Prepare>> {
        Some(Arc::new(self.clone()))
    }

    fn apply<'t, 'x: 't>(
        &'t self,
        tx: &'t mut ViewTx<'x>,
        events: &'t [Recorded],
    ) -> BoxFuture<'t, Result<(), ApplyError>> {
        Box::pin(async move {
            for event in events {
                let on = tx.prepared(event).and_then(Prepared::get::<ThreadId>);
                self.applied.lock().unwrap().push(on.map(|on| *on != thread::current().id()));
                let sql = "INSERT INTO {tally} (stream, n) VALUES ($1, 1) ON CONFLICT (stream) DO UPDATE SET n = n + 1";
                tx.execute(sql, &[event.stream().into()]).await?;
            }
            Ok(())
        })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_worked_out_beside_the_writer_and_ahead_of_their_transaction() {
    let world = World::new();
    let store = world.open().await;
    let code = Threads { name: view("threads"), applied: Arc::default() };
    append_many(&store, 3, 20).await;
    let views = Views::open(&store).await.unwrap();
    let kept = views.start(code.clone(), config()).await.unwrap();
    append_many(&store, 3, 5).await;
    kept.wait(store.token(), super::world::LONG).await.unwrap();
    let applied = code.applied.lock().unwrap().clone();
    assert!(applied.contains(&Some(true)), "the first of each page, however slow the machine: {applied:?}");
    assert!(!applied.contains(&Some(false)), "never by the writer: {applied:?}");
    assert!(kept.is_whole(1).await);
    views.shut_down().await;
}
