//! Who waits for whom on PostgreSQL: groups of appends, and closures beside each other.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "nodes and strangers of these tests run beside each other, in real time"
)]

mod postgres;

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use futures_util::{StreamExt, future::join_all, stream::FuturesUnordered};
use postgres::{Schema, batch, event};
use quorate_data::store::{AppendError, ExpectedVersion};

macro_rules! schema {
    () => {
        match Schema::new() {
            Some(schema) => schema,
            None => return,
        }
    };
}

/// A stranger holds the row of a stream. Appends that shared a group with one to it are not kept by that.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_somebody_holds_keeps_its_own_lane_alone() {
    const OTHERS: usize = 64;
    let schema = schema!();
    let (node, _) = schema.node(|_| {}).await;
    node.append(batch("held", vec![event("first")])).await.unwrap();
    let stranger = schema.stranger().await;
    let hold = format!("BEGIN; SELECT FROM {}.stream WHERE name = 'held' FOR UPDATE", schema.name);
    stranger.batch_execute(&hold).await.unwrap();
    for round in 0..3 {
        let held = node.append(batch("held", vec![event(format!("held-{round}"))]));
        let name = |n| format!("other-{n}");
        let mut others: FuturesUnordered<_> =
            (0..OTHERS).map(|n| node.append(batch(&name(n), vec![event(format!("{round}-{n}"))]))).collect();
        tokio::pin!(held);
        // One lane of eight waits: what shares it, and nothing else. The hash spreads them well enough for this to hold.
        for _ in 0..OTHERS / 2 {
            tokio::select! {
                done = &mut held => panic!("its row is held: {done:?}"),
                done = others.next() => done.unwrap().unwrap(),
            };
        }
        stranger.batch_execute("COMMIT").await.unwrap();
        assert_eq!(held.await.unwrap().versions[0].1.get(), round + 2);
        while let Some(done) = others.next().await {
            done.unwrap();
        }
        stranger.batch_execute(&hold).await.unwrap();
    }
    stranger.batch_execute("ROLLBACK").await.unwrap();
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
