//! Effects of a view that were given up, over HTTP: listed, tried anew, left out.

use std::{sync::Arc, time::Duration};

use quorate_data::{
    event::Recorded,
    materialized_view::{
        ApplyError, Config, Effect, EffectHandler, EffectType, OnRebuild, Projection, Schema, ViewName, ViewTx, Views,
    },
    store::{Query, sqlite},
};
use quorate_runtime::{BoxFuture, Env};
use serde_json::{Value, json};

use crate::{
    client::{Reply, post},
    node::{Node, node_in},
    views::append,
};

/// Two mails for every event.
struct Mails(ViewName);

impl Projection for Mails {
    fn name(&self) -> &ViewName {
        &self.0
    }

    fn version(&self) -> u32 {
        1
    }

    fn query(&self) -> Query {
        Query::EVERYTHING
    }

    fn schema(&self) -> Schema {
        Schema::new().table("none", "CREATE TABLE {none} (id TEXT PRIMARY KEY)")
    }

    fn effects(&self) -> Vec<EffectType> {
        vec![EffectType { name: "mail", on_rebuild: OnRebuild::Suppress }]
    }

    fn apply<'t, 'x: 't>(
        &'t self,
        tx: &'t mut ViewTx<'x>,
        events: &'t [Recorded],
    ) -> BoxFuture<'t, Result<(), ApplyError>> {
        Box::pin(async move {
            for event in events {
                tx.effect(event, "mail", format!("to {}", event.stream()));
                tx.effect(event, "mail", "to the office".to_owned());
            }
            Ok(())
        })
    }
}

struct Closed;

impl EffectHandler for Closed {
    fn carry_out<'e>(&'e self, _: &'e Effect) -> BoxFuture<'e, Result<(), String>> {
        Box::pin(async { Err("the post office is closed".to_owned()) })
    }
}

/// A node whose store has four effects that a program gave up.
async fn node_with_given_up_effects() -> Node {
    let folder = tempfile::tempdir().unwrap();
    let config = quorate_node::config::Config::in_folder(folder.path().join("data"));
    Env::real().disk().create_dir_all(&config.data).unwrap();
    let store = sqlite::open(&Env::real(), config.store()).await.unwrap();
    let views = Views::open(&store).await.unwrap();
    let (mails, once) = (Mails("mails".parse().unwrap()), Config { effect_attempts: 1, ..Config::default() });
    let view = views.start_shared(Arc::new(mails), once, Some(Arc::new(Closed))).await.unwrap();
    append(&store, "ada", "happened").await;
    append(&store, "bob", "happened").await;
    while view.describe().await.unwrap().effects != (0, 4) {
        store.env().sleep(Duration::from_millis(5)).await;
    }
    views.shut_down().await;
    store.close().await.unwrap();
    node_in(folder).await
}

async fn act(node: &Node, action: &str, body: Value) -> Reply {
    node.send(post(format!("/v1/views/mails/effects/{action}")).json(body.to_string())).await
}

async fn effects(node: &Node) -> Vec<Value> {
    node.get("/v1/views/mails/effects").await.json()["effects"].as_array().unwrap().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn effects_that_were_given_up_are_listed_page_by_page_left_out_and_tried_anew() {
    let node = node_with_given_up_effects().await;
    let first = node.get("/v1/views/mails/effects?limit=3").await;
    let shown = first.json()["effects"].clone();
    let expected = json!({
        "logposition": "1", "ordinal": 0, "kind": "mail", "key": "mails/1/0", "payload": "to ada", "attempts": 1,
        "reason": "the post office is closed", "given-up": false,
    });
    assert_eq!(shown[0], expected, "how often it is tried is known to the program alone");
    assert!(first.header("link").is_some_and(|link| link.contains("after=2-0")), "{:?}", first.header("link"));
    let behind = node.get("/v1/views/mails/effects?limit=3&after=2-0").await.json();
    assert_eq!((&behind["effects"][0]["key"], behind["effects"].as_array().unwrap().len()), (&json!("mails/2/1"), 1));

    let skipped = act(&node, "skip", json!({ "logposition": "1", "ordinal": 1 })).await;
    assert_eq!((skipped.status, skipped.json()), (200, json!({ "effects": 1 })), "{}", skipped.text());
    assert_eq!(act(&node, "skip", json!({ "logposition": "1", "ordinal": 1 })).await.json(), json!({ "effects": 0 }));
    let retried = act(&node, "retry", json!({})).await;
    assert_eq!((retried.status, retried.json()), (200, json!({ "effects": 3 })), "{}", retried.text());
    let left = effects(&node).await;
    assert_eq!(left.len(), 3);
    assert!(left.iter().all(|effect| effect["attempts"] == 0), "the program tries them when it runs: {left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_effects_cannot_be_asked_is_refused() {
    let node = node_with_given_up_effects().await;
    for after in ["2", "x-1", "2-x", "18446744073709551615-0", "-"] {
        let refused = node.get(&format!("/v1/views/mails/effects?after={after}")).await;
        assert_eq!((refused.status, refused.code().as_str()), (400, "invalid-parameter"), "{after}");
    }
    assert_eq!(node.get("/v1/views/nobody/effects").await.code(), "view-not-found");
    assert_eq!(act(&node, "skip", json!({ "logposition": "1" })).await.status, 400);
    assert_eq!(act(&node, "retry", json!({ "all": true })).await.status, 400);
    assert_eq!(effects(&node).await.len(), 4);
}
