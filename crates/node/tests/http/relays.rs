//! Relays of the configuration, over the node's own queues: a group `billing` of the topic `orders` is the queue `orders.billing`.

use std::time::Duration;

use quorate_node::config::{Config, RelaySettings};
use serde_json::{Value, json};

use crate::{
    client::{PATIENCE, get, post, request},
    node::{Node, node_with, start},
};

const PATH: &str = "/v1/relays/orders-out";

fn of(settings: RelaySettings) -> impl Fn(&mut Config) + Copy {
    // Tests restart nodes with what they were started with.
    let settings = Box::leak(Box::new(settings));
    |config| config.relays = vec![settings.clone().try_into().unwrap()]
}

fn orders() -> RelaySettings {
    let (name, topic, categories) = ("orders-out".to_owned(), "orders".to_owned(), vec!["order".to_owned()]);
    RelaySettings { name, topic, categories, ..RelaySettings::default() }
}

async fn act(node: &Node, action: &str, body: Value) -> Value {
    let reply = node.send(post(format!("{PATH}/{action}")).json(body.to_string())).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.json()
}

/// Looks at the relay until `holds` is true of it.
async fn until(node: &Node, holds: impl Fn(&Value) -> bool) -> Value {
    let looking = async {
        loop {
            let shown = node.get(PATH).await.json();
            if holds(&shown) {
                return shown;
            }
            node.pause(Duration::from_millis(10)).await;
        }
    };
    quorate_runtime::Env::real().timeout(PATIENCE, looking).await.expect("it comes to be so")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_is_told_among_those_who_take_events_as_what_it_is() {
    let node = node_with(of(orders())).await;
    join(&node).await;
    node.fill("order-1", 1, 1).await;
    take(&node, 1).await;
    let shown = node.get("/v1/event-types/test.happened").await.json();
    let relay = json!({ "kind": "relay", "name": "orders-out", "names-the-type": false });
    assert_eq!(shown["consumers"], json!([relay]), "{shown}");
}

async fn join(node: &Node) {
    assert_eq!(node.send(request("PUT", "/v1/queues/orders.billing").json("{}")).await.status, 200);
}

/// The ids of the next `count` messages, each acknowledged.
async fn take(node: &Node, count: usize) -> Vec<String> {
    let mut ids = Vec::new();
    while ids.len() < count {
        let reply = node.send(post("/v1/queues/orders.billing/receive").json(r#"{"max":10,"wait":"1s"}"#)).await;
        for delivery in reply.json()["deliveries"].as_array().unwrap() {
            ids.push(delivery["event"]["quorateownid"].as_str().unwrap().to_owned());
            let leases = json!({ "leases": [delivery["lease"]] });
            let acked = node.send(post("/v1/queues/orders.billing/ack").json(leases.to_string())).await;
            assert_eq!(acked.status, 200, "{}", acked.text());
        }
    }
    ids
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_of_the_configuration_publishes_and_is_paused_and_resumed() {
    let with_relay = of(orders());
    let node = node_with(with_relay).await;
    join(&node).await;
    node.fill("order-17", 1, 2).await;
    node.fill("stock-1", 1, 1).await;
    assert_eq!(take(&node, 2).await, ["order-17-1", "order-17-2"]);
    let shown = until(&node, |shown| shown["subscription"]["lag-events"] == 0).await;
    assert_eq!(
        (&shown["state"], &shown["topic"], &shown["transport"]),
        (&json!("working"), &json!("orders"), &json!("embedded"))
    );
    assert_eq!(
        (&shown["counts"]["published"], &shown["paused"], &shown["last-error"]),
        (&json!(2), &Value::Null, &Value::Null)
    );

    let paused = act(&node, "pause", json!({ "reason": "they move" })).await;
    assert_eq!(paused["paused"]["reason"], "they move");
    until(&node, |shown| shown["state"] == "paused").await;
    node.fill("order-17", 3, 3).await;
    let node = start(node.end().await, with_relay).await;
    let shown = until(&node, |shown| shown["state"] == "paused" && shown["subscription"]["lag-events"] != 0).await;
    assert_eq!(shown["paused"], paused["paused"]);
    let metrics = node.send(get("/metrics")).await.text();
    for line in [r#"quorate_relay_paused{relay="orders-out"} 1"#, r#"quorate_relay_lag_events{relay="orders-out"} 1"#] {
        assert!(metrics.contains(line), "{line} is missing of {metrics}");
    }
    act(&node, "resume", json!({})).await;
    assert_eq!(take(&node, 1).await, ["order-17-3"]);
    let all = node.get("/v1/relays").await.json();
    assert_eq!((all["relays"].as_array().unwrap().len(), &all["relays"][0]["relay"]), (1, &json!("orders-out")));
    let shown = until(&node, |shown| shown["counts"]["published"] == 1).await;
    assert_eq!(shown["paused"], Value::Null);
    let metrics = node.send(get("/metrics")).await.text();
    let line = r#"quorate_relay_events_total{relay="orders-out",outcome="published"} 1"#;
    assert!(metrics.contains(line), "{line} is missing of {metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_relay_parks_is_seen_replayed_and_discarded() {
    let node = node_with(of(RelaySettings { max_attempts: 1, ..orders() })).await;
    node.fill("order-1", 1, 1).await;
    node.fill("order-2", 1, 1).await;
    // Nobody listens yet.
    let shown = until(&node, |shown| shown["subscription"]["parked"] == 2).await;
    assert!(shown["last-error"]["what"].as_str().unwrap().contains("no group"), "{shown}");
    let parked = node.get(&format!("{PATH}/parked?limit=1")).await.json();
    assert_eq!(parked["parked"][0]["key"], "order-1");
    join(&node).await;
    assert_eq!(act(&node, "discard", json!({ "key": "order-1" })).await, json!({ "events": 1 }));
    assert_eq!(act(&node, "replay", json!({ "all": true })).await, json!({ "events": 1 }));
    assert_eq!(take(&node, 1).await, ["order-2-1"]);
    act(&node, "wake", json!({})).await;
    let wrong = node.send(post(format!("{PATH}/replay")).json("{}")).await;
    assert_eq!((wrong.status, wrong.code().as_str()), (400, "invalid-parameter"));
    for (method, path) in [("GET", ""), ("POST", "/pause"), ("POST", "/resume"), ("POST", "/wake"), ("GET", "/parked")]
    {
        let none = node.send(request(method, format!("/v1/relays/none{path}")).json("{}")).await;
        assert_eq!((none.status, none.code().as_str()), (404, "relay-not-found"), "{method} {path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::disallowed_methods, reason = "a test puts a file there from outside")]
async fn a_relay_that_cannot_be_started_says_why_and_starts_once_it_can() {
    let folder = tempfile::tempdir().unwrap();
    let password_file = folder.path().join("password");
    // Nobody listens there either, which keeps no relay from starting.
    let transport = "nats://shop@127.0.0.1:9".to_owned();
    let node = node_with(of(RelaySettings { transport, password_file: password_file.clone(), ..orders() })).await;
    node.fill("order-1", 1, 1).await;
    let shown = until(&node, |shown| !shown["last-error"].is_null()).await;
    assert_eq!((&shown["state"], &shown["subscription"]), (&json!("starting"), &Value::Null));
    assert!(shown["last-error"]["what"].as_str().unwrap().contains("password"), "{shown}");
    let refused = node.send(post(format!("{PATH}/pause")).json("{}")).await;
    assert_eq!((refused.status, refused.code().as_str()), (503, "relay-not-started"));
    std::fs::write(&password_file, "s@cret\n").unwrap();
    let shown = until(&node, |shown| shown["state"] == "resting").await;
    let text = shown.to_string();
    assert!(text.contains("away") && !text.contains("cret"), "{text}");
    assert_eq!(shown["counts"]["published"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_else_takes_a_relays_events_and_one_whose_subscription_is_deleted_begins_anew() {
    let node = node_with(of(orders())).await;
    join(&node).await;
    node.fill("order-1", 1, 1).await;
    until(&node, |shown| shown["counts"]["published"] == 1).await;
    let path = "/v1/subscriptions/orders-out";
    assert_eq!(node.get(path).await.status, 200, "everybody may look");
    for reply in [
        node.send(request("PUT", path).json("{}")).await,
        node.send(post(format!("{path}/pull")).json("{}")).await,
        node.send(post(format!("{path}/discard")).json(r#"{"all":true}"#)).await,
    ] {
        assert_eq!((reply.status, reply.code().as_str()), (409, "subscription-of-relay"), "{}", reply.text());
    }
    assert_eq!(node.send(request("DELETE", path)).await.status, 200);
    let shown = until(&node, |shown| shown["counts"]["repeated"] == 1).await;
    assert_eq!(shown["counts"]["published"], 1, "it was published again, and known");
    assert_eq!(take(&node, 1).await, ["order-1-1"]);
}
