//! Who waits for whom on PostgreSQL: groups of appends, and closures beside each other.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "nodes and strangers of these tests run beside each other, in real time"
)]

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use futures_util::future::{join, join_all};
use quorate_data::{
    schema::{Registrar, RegistrarError},
    store::{AppendError, ExpectedVersion, StoreError},
};
use serde_json::json;
use tokio_postgres::{Client, types::Type};

use crate::shared::{Schema, batch, event};

/// Longer than anything takes here that is waited for.
const PATIENT: Duration = Duration::from_secs(60);

macro_rules! schema {
    () => {
        match Schema::new() {
            Some(schema) => schema,
            None => return,
        }
    };
}

/// When the transaction began in which one of the store's sessions waits for somebody, once one does. From a connection that is in no
/// transaction: within one the server shows the sessions that it had when first asked.
async fn waits(watcher: &Client, schema: &Schema) -> SystemTime {
    const WAITS: &str = "SELECT a.xact_start FROM pg_locks l JOIN pg_stat_activity a USING (pid)
        WHERE NOT l.granted AND a.xact_start IS NOT NULL AND a.application_name = $1 LIMIT 1";
    loop {
        if let Some(row) = watcher.query_typed_opt(WAITS, &[(&schema.name, Type::TEXT)]).await.unwrap() {
            return row.get(0);
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// A stranger holds the row of a stream. Appends that shared a group, or a lane, with those to it are not kept by that, and those
/// to it come to the log in their order.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_somebody_holds_keeps_its_own_stream_alone() {
    const OTHERS: usize = 64;
    let schema = schema!();
    let (node, _) = schema.node(|config| config.patience = PATIENT).await;
    node.append(batch("held", vec![event("first")])).await.unwrap();
    let stranger = schema.stranger().await;
    let hold = format!("BEGIN; SELECT FROM {}.stream WHERE name = 'held' FOR UPDATE", schema.name);
    stranger.batch_execute(&hold).await.unwrap();
    for round in 0..3 {
        let append = |stream: &str, id: String| {
            let (node, batch) = (node.clone(), batch(stream, vec![event(id)]));
            tokio::spawn(async move { node.append(batch).await })
        };
        let mut held = vec![append("held", format!("held-{round}-0"))];
        for half in 0..2 {
            let others = (0..OTHERS).map(|n| append(&format!("other-{n}"), format!("{round}-{half}-{n}")));
            for done in join_all(others).await {
                done.unwrap().unwrap();
            }
            assert!(held.iter().all(|held| !held.is_finished()), "its row is held");
            held.push(append("held", format!("held-{round}-{}", half + 1)));
        }
        stranger.batch_execute("COMMIT").await.unwrap();
        for (n, held) in held.into_iter().enumerate() {
            assert_eq!(held.await.unwrap().unwrap().versions[0].1.get(), 2 + round * 3 + n as u64);
        }
        stranger.batch_execute(&hold).await.unwrap();
    }
    stranger.batch_execute("ROLLBACK").await.unwrap();
}

/// Many streams are held at once: no connection is left to wait for each, and others still find one.
#[tokio::test(flavor = "multi_thread")]
async fn more_held_streams_than_connections_keep_nobody_else() {
    const HELD: usize = 32;
    let schema = schema!();
    let (node, _) = schema.node(|config| (config.patience, config.connections) = (PATIENT, 8)).await;
    let name = |n| format!("held-{n}");
    for n in 0..HELD {
        node.append(batch(&name(n), vec![event(format!("first-{n}"))])).await.unwrap();
    }
    let stranger = schema.stranger().await;
    let hold = format!("BEGIN; SELECT FROM {}.stream FOR UPDATE", schema.name);
    stranger.batch_execute(&hold).await.unwrap();
    let held = |n| {
        let (node, batch) = (node.clone(), batch(&name(n), vec![event(format!("second-{n}"))]));
        tokio::spawn(async move { node.append(batch).await })
    };
    let held: Vec<_> = (0..HELD).map(held).collect();
    for n in 0..HELD {
        node.append(batch(&format!("other-{n}"), vec![event(format!("other-{n}"))])).await.unwrap();
    }
    assert!(held.iter().all(|held| !held.is_finished()), "their rows are held");
    stranger.batch_execute("COMMIT").await.unwrap();
    for held in held {
        held.await.unwrap().unwrap();
    }
}

/// Whoever gave up in somebody's way goes on with the same connections.
#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_that_gives_up_keeps_its_connection() {
    let schema = schema!();
    let (node, _) = schema.node(|config| (config.patience, config.connections) = (PATIENT, 1)).await;
    node.append(batch("held", vec![event("first")])).await.unwrap();
    let stranger = schema.stranger().await;
    let sessions = || async {
        let pids = "SELECT pid FROM pg_stat_activity WHERE application_name = $1 ORDER BY pid";
        let rows = stranger.query_typed(pids, &[(&schema.name, Type::TEXT)]).await.unwrap();
        rows.iter().map(|row| row.get::<_, i32>(0)).collect::<BTreeSet<_>>()
    };
    let before = sessions().await;
    let hold = format!("BEGIN; SELECT FROM {}.stream WHERE name = 'held' FOR UPDATE", schema.name);
    stranger.batch_execute(&hold).await.unwrap();
    let held = tokio::spawn({
        let node = node.clone();
        async move { node.append(batch("held", vec![event("second")])).await }
    });
    // Once it waits in a second transaction, the first one gave up.
    let watcher = schema.stranger().await;
    let first = waits(&watcher, &schema).await;
    while waits(&watcher, &schema).await == first {}
    stranger.batch_execute("COMMIT").await.unwrap();
    held.await.unwrap().unwrap();
    let now = sessions().await;
    assert!(before.is_subset(&now), "{before:?} are not all among {now:?}");
}

/// Whoever shares a group with hundreds waits for one patience, and not for that of each of them.
#[tokio::test(flavor = "multi_thread")]
async fn all_are_answered_when_the_patience_for_a_database_out_of_reach_is_over() {
    const APPENDS: usize = 320;
    let schema = schema!();
    let (node, cable) = schema.node(|config| config.patience = Duration::from_secs(2)).await;
    node.append(batch("first", vec![event("first")])).await.unwrap();
    cable.cut();
    let appends = (0..APPENDS).map(|n| node.append(batch(&format!("s-{n}"), vec![event(format!("e-{n}"))])));
    // One after the other they would take a minute and a half.
    let answers = tokio::time::timeout(Duration::from_secs(60), join_all(appends)).await;
    for answer in answers.expect("they are answered together") {
        let refused = answer.expect_err("nobody is there");
        assert!(matches!(refused, AppendError::Store(StoreError::Unreachable { .. })), "{refused}");
    }
    cable.mend();
    node.append(batch("last", vec![event("last")])).await.unwrap();
}

/// Its machine is gone, and nobody closes the connections: what was on its way may be in the log, and is answered so.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_falls_silent_is_waited_for_as_long_as_patience_is() {
    let schema = schema!();
    let (node, cable) = schema.node(|config| (config.patience, config.connections) = (Duration::from_secs(1), 2)).await;
    node.append(batch("s", vec![event("before")])).await.unwrap();
    cable.silence();
    // More than there are connections.
    let appends = (0..8).map(|n| node.append(batch(&format!("s-{n}"), vec![event(format!("e-{n}"))])));
    let answers = tokio::time::timeout(Duration::from_secs(60), join_all(appends)).await.expect("each is answered");
    for answer in &answers {
        let known =
            matches!(answer, Err(AppendError::Store(StoreError::Unreachable { .. } | StoreError::OutcomeUnknown)));
        assert!(known, "{answer:?}");
    }
    assert!(answers.iter().any(|answer| matches!(answer, Err(AppendError::Store(StoreError::OutcomeUnknown)))));
    cable.mend();
    // Whoever asks again learns what came of it.
    for n in 0..8 {
        let append = || node.append(batch(&format!("s-{n}"), vec![event(format!("e-{n}"))]));
        let mut again = append().await;
        while matches!(again, Err(AppendError::Store(_))) {
            again = append().await;
        }
        assert_eq!(again.unwrap().versions[0].1.get(), 1);
    }
}

/// Somebody is at work for long, and a schema is to be registered. Whoever comes meanwhile does not queue behind that.
#[tokio::test(flavor = "multi_thread")]
async fn a_registration_that_waits_for_a_closure_keeps_no_others() {
    let schema = schema!();
    let (node, _) = schema.node(|config| config.patience = PATIENT).await;
    let stranger = schema.stranger().await;
    stranger.batch_execute(&format!("BEGIN; LOCK TABLE {}.meta IN ROW SHARE MODE", schema.name)).await.unwrap();
    let registered = tokio::spawn({
        let node = node.clone();
        async move {
            let registrar = Registrar::of(&node);
            loop {
                match registrar.register(&"thing.made".parse().unwrap(), json!({"type": "object"}), None).await {
                    Err(RegistrarError::Store(StoreError::Busy)) => {}
                    done => return done,
                }
            }
        }
    });
    let watcher = schema.stranger().await;
    for round in 0..5 {
        assert!(!registered.is_finished(), "somebody is at work");
        waits(&watcher, &schema).await;
        let wrote = node.transact(move |tx| {
            Box::pin(async move {
                let happened = vec![event(format!("{round}"))];
                tx.append(&"s".parse().unwrap(), ExpectedVersion::Any, happened).await
            })
        });
        wrote.await.unwrap();
    }
    stranger.batch_execute("COMMIT").await.unwrap();
    registered.await.unwrap().unwrap();
}

/// Each makes streams of its own, and appends to them: none reads what another writes.
#[tokio::test(flavor = "multi_thread")]
async fn closures_that_append_to_streams_of_their_own_are_not_in_each_others_way() {
    const WRITERS: usize = 16;
    const ROUNDS: usize = 20;
    let schema = schema!();
    let (node, _) = schema.node(|config| config.connections = WRITERS).await;
    let ran = Arc::new(AtomicUsize::new(0));
    let write = |writer: usize| {
        let (node, ran) = (node.clone(), ran.clone());
        tokio::spawn(async move {
            for round in 0..ROUNDS {
                let ran = ran.clone();
                let done = node.transact(move |tx| {
                    // Ordering: a count that is read when all have ended.
                    ran.fetch_add(1, Ordering::Relaxed);
                    Box::pin(async move {
                        // A new one, and one that is there from the second round on; their names are neighbours.
                        for stream in [format!("new-{round}-{writer}"), format!("own-{writer}")] {
                            let happened = vec![event(format!("{writer}-{round}"))];
                            tx.append(&stream.parse().unwrap(), ExpectedVersion::Any, happened).await?;
                        }
                        Ok::<_, AppendError>(())
                    })
                });
                done.await.unwrap();
            }
        })
    };
    for done in join_all((0..WRITERS).map(write)).await {
        done.unwrap();
    }
    assert_eq!(ran.load(Ordering::Relaxed), WRITERS * ROUNDS, "each ran once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_that_was_renamed_goes_on_under_its_new_name() {
    let schema = schema!();
    let (node, _) = schema.node(|_| {}).await;
    node.append(batch("s", vec![event("before")])).await.unwrap();
    node.close().await.unwrap();
    let renamed = format!("{}_new", schema.name);
    schema.stranger().await.batch_execute(&format!("ALTER SCHEMA {} RENAME TO {renamed}", schema.name)).await.unwrap();
    let (node, _) = schema.node(|config| config.schema = renamed).await;
    let appended = node.append(batch("s", vec![event("behind")])).await.unwrap();
    assert_eq!(appended.versions[0].1.get(), 2);
}

/// Tables are brought to a new version while others are at work: whoever does it gives up soon where it has to wait, so that
/// nobody waits behind it for long, and tries again.
#[tokio::test(flavor = "multi_thread")]
async fn tables_get_a_new_version_once_nobody_holds_them() {
    let schema = schema!();
    let (node, _) = schema.node(|_| {}).await;
    node.append(batch("s", vec![event("before")])).await.unwrap();
    node.close().await.unwrap();
    let (stranger, watcher, s) = (schema.stranger().await, schema.stranger().await, &schema.name);
    let back = format!(
        "ALTER TABLE {s}.stream DROP COLUMN metadata; ALTER TABLE {s}.pending DROP COLUMN first; DROP TABLE {s}.metadata; UPDATE {s}.meta SET version = 4; \
         BEGIN; LOCK TABLE {s}.stream IN ACCESS SHARE MODE"
    );
    // Alone, so that the tables are as they were before anything is held.
    for statement in back.split("; ") {
        stranger.batch_execute(statement).await.unwrap();
    }
    let free = async {
        let first = waits(&watcher, &schema).await;
        while waits(&watcher, &schema).await == first {}
        stranger.batch_execute("COMMIT").await.unwrap();
    };
    let ((node, _), ()) = join(schema.node(|_| {}), free).await;
    let appended = node.append(batch("s", vec![event("behind")])).await.unwrap();
    assert_eq!(appended.versions[0].1.get(), 2);
}

/// Nodes of one version make the functions anew where they are not theirs: with other ones they would do so by turns.
#[test]
fn the_functions_are_those_of_their_version() {
    let text = include_str!("../../src/store/postgres/functions.sql");
    assert_eq!(
        crc32fast::hash(text.as_bytes()),
        0x32b0_ba87,
        "another text is another version: see `VERSIONS` in tables.rs"
    );
}
