//! What only the embedded store does to queues: it finds its disk full, and opens a thousand of them in a moment.

use std::time::Duration;

use quorate_communication::message_queue::{Config, Queues};
use quorate_runtime::Env;
use serde_json::json;

use crate::{
    client::PATIENCE,
    faulty::{self, What},
    node::{Node, node, node_in},
    queues::{declare, receive, send},
};

/// The queues that `/metrics` tells of.
async fn measured(node: &Node) -> usize {
    let text = node.get("/metrics").await.text();
    text.lines().filter(|line| line.starts_with("quorate_queue_ready{")).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_thousand_queues_are_measured_as_soon_as_they_were_read() {
    let node = node().await;
    let queues = Queues::open(&node.store).await.unwrap();
    for n in 0..1_001 {
        queues.declare(&format!("queue-{n:04}").parse().unwrap(), Config::default()).await.unwrap();
    }
    drop(queues);
    let node = node.restart().await;
    assert_eq!(measured(&node).await, 0, "nobody waits for a thousand queues to be read");
    let env = Env::real();
    let all = async {
        while measured(&node).await < 1_000 {
            env.sleep(Duration::from_millis(20)).await;
        }
    };
    env.timeout(PATIENCE, all).await.expect("all of them are measured in the end");
    assert_eq!(measured(&node).await, 1_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_comes_up_on_a_full_disk_and_has_queues_once_there_is_space() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    faulty::mend(&data);
    let older = node_in(folder).await;
    // As a node without queues left it.
    let forgotten = older.store.transact(|tx| {
        Box::pin(async move {
            for table in ["", "_numbers", "_message", "_state", "_known", "_schedule", "_answer", "_callback"] {
                tx.room_execute(&format!("DROP TABLE quorate_queue{table}"), &[]).await?;
            }
            tx.room_execute("DELETE FROM quorate_room WHERE room = 'queue'", &[]).await
        })
    });
    forgotten.await.unwrap();
    let folder = older.end().await;
    faulty::on(&data, |what, _| (what == What::Write).then_some(rusqlite::ffi::SQLITE_FULL));
    let node = node_in(folder).await;
    for refused in [declare(&node, json!({})).await, send(&node, &["a"]).await, node.get("/v1/queues").await] {
        assert_eq!((refused.status, refused.code().as_str()), (507, "disk-full"), "{}", refused.text());
    }
    assert_eq!(node.get("/v1/streams").await.status, 200, "everything else goes on");

    faulty::mend(&data);
    assert_eq!(declare(&node, json!({})).await.status, 200);
    assert_eq!(send(&node, &["a"]).await.status, 201);
    assert_eq!(receive(&node, 9).await.len(), 1);
}
