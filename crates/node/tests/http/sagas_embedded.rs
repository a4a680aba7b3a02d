//! What only the embedded store does to sagas: it forgets their journals.

use quorate_consistency::saga::{Action, Config, Definition, Next, Sagas, Step};

use crate::{
    client::post,
    node::node,
    sagas::{GO, declare, go, settled, start},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_saga_that_has_ended_may_be_forgotten_and_is_still_known() {
    let node = node().await;
    assert_eq!(declare(&node, GO).await.status, 201);
    start(&node, "1", "17").await;
    let tombstone = || post("/v1/streams/saga-order:1/tombstone");
    assert_eq!(node.send(tombstone()).await.code(), "stream-of-saga");
    assert_eq!(go(&node, "1").await.status, 200);
    assert_eq!(settled(&node, "1").await["status"], "completed");
    assert_eq!(node.send(tombstone()).await.status, 200);
    let node = node.restart().await;
    assert_eq!(settled(&node, "1").await["status"], "completed", "its row still says so");
    assert_eq!(start(&node, "1", "17").await.json()["repeated"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_started_by_an_older_version_where_the_newest_cannot_be_read_any_more() {
    let node = node().await;
    assert_eq!(declare(&node, GO).await.status, 201);
    start(&node, "1", "17").await;
    // As a newer quorate left it.
    let newer = GO.replace("version: 1", "version: 2").replace("- wait: go", "- await: go");
    let left = node.store.transact(move |tx| {
        let row = [newer.clone().into()];
        Box::pin(async move {
            let sql =
                "INSERT INTO quorate_saga_document (name, version, format, document) VALUES ('order', 2, 'yaml', $1)";
            tx.room_execute(sql, &row).await
        })
    });
    left.await.unwrap();
    let node = node.restart().await;
    let refused = start(&node, "2", "17").await;
    assert_eq!((refused.status, refused.code().as_str()), (409, "saga-stalled"), "{}", refused.text());
    assert_eq!(go(&node, "1").await.status, 200);
    assert_eq!(settled(&node, "1").await["status"], "completed", "what runs by the older one goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_programs_saga_is_not_taken_for_the_document_of_its_version() {
    let node = node().await;
    let sagas = Sagas::open(&node.store, Config::default()).await.unwrap();
    let step = Step::new("never", Action::remote(|_| async { Ok(serde_json::Value::Null) }));
    let waits = Definition::new("order".parse().unwrap(), 1).step(step).plan(|_| Next::Wait(None));
    sagas.define(waits).await.unwrap();
    // As a node without that program leaves it.
    let left = node.store.transact(move |tx| {
        Box::pin(async move {
            let sql =
                "INSERT INTO quorate_saga_document (name, version, format, document) VALUES ('order', 1, 'yaml', $1)";
            tx.room_execute(sql, &[GO.into()]).await
        })
    });
    left.await.unwrap();
    assert_eq!(declare(&node, GO).await.code(), "saga-taken");
    let refused = start(&node, "1", "17").await;
    assert_eq!((refused.status, refused.code().as_str()), (409, "saga-stalled"), "{}", refused.text());
    let newer = GO.replace("version: 1", "version: 2");
    assert_eq!(declare(&node, &newer).await.status, 201);
    assert_eq!(start(&node, "1", "17").await.json()["version"], 2);
}
