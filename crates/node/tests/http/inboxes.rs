//! Inboxes of the configuration, over the node's own queues: what is sent to the queue `orders.billing` is a message of the topic `orders` for the
//! group `billing`.

use std::time::Duration;

use quorate_node::config::{Config, InboxSettings, RelaySettings};
use serde_json::{Value, json};

use crate::{
    client::{PATIENCE, get, post, request},
    node::{Node, node_with, start},
};

const PATH: &str = "/v1/inboxes/orders-in";

fn of(settings: InboxSettings) -> impl Fn(&mut Config) + Copy {
    let settings = Box::leak(Box::new(settings));
    |config| config.inboxes = vec![settings.clone().try_into().unwrap()]
}

fn orders() -> InboxSettings {
    let [name, topic, group] = ["orders-in", "orders", "billing"].map(str::to_owned);
    InboxSettings { name, topic, group, ..InboxSettings::default() }
}

async fn act(node: &Node, action: &str, body: Value) -> Value {
    let reply = node.send(post(format!("{PATH}/{action}")).json(body.to_string())).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.json()
}

/// Looks at the inbox until `holds` is true of it.
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

/// Publishes a message to the topic.
async fn publish(node: &Node, key: &str, id: &str, kind: &str, members: Value) {
    let mut event = json!({ "specversion": "1.0", "id": id, "source": "/shop", "type": kind, "data": { "total": 17 } });
    event.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
    let messages = json!({ "messages": [{ "event": event, "group": key }] });
    let sent = node.send(post("/v1/queues/orders.billing/messages").json(messages.to_string())).await;
    assert_eq!(sent.status, 201, "{}", sent.text());
}

async fn ids(node: &Node, stream: &str) -> Vec<String> {
    let events = node.get(&format!("/v1/streams/{stream}/events")).await.events();
    events.iter().map(|event| event["id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_are_appended_once_and_in_order_also_over_a_restart() {
    let with_inbox = of(InboxSettings { stream: "in-{key}".to_owned(), ..orders() });
    let node = node_with(with_inbox).await;
    until(&node, |shown| shown["state"] == "receiving").await;
    for (key, id) in [("a", "1"), ("b", "2"), ("a", "3")] {
        publish(&node, key, id, "order.placed", json!({ "retries": 3, "urgent": true })).await;
    }
    let shown = until(&node, |shown| shown["counts"]["done"] == 3).await;
    assert_eq!(
        (&shown["stream"], &shown["topic"], &shown["group"]),
        (&json!("in-{key}"), &json!("orders"), &json!("billing"))
    );
    assert_eq!(
        (ids(&node, "in-a").await, ids(&node, "in-b").await),
        (vec!["1".to_owned(), "3".to_owned()], vec!["2".to_owned()])
    );
    let event = node.get("/v1/streams/in-a/events").await.events().remove(0);
    assert_eq!(
        (&event["retries"], &event["urgent"], &event["data"]),
        (&json!(3), &json!(true), &json!({ "total": 17 }))
    );
    let metrics = node.send(get("/metrics")).await.text();
    let line = r#"quorate_inbox_messages_total{inbox="orders-in",outcome="done"} 3"#;
    assert!(metrics.contains(line), "{line} is missing of {metrics}");

    let node = start(node.end().await, with_inbox).await;
    until(&node, |shown| shown["state"] == "receiving").await;
    // The queue has forgotten nothing, but somebody publishes it anew: a queue that is made again knows no ids.
    assert_eq!(node.send(request("DELETE", "/v1/queues/orders.billing")).await.status, 200);
    let joined = async {
        while node.get("/v1/queues/orders.billing").await.status != 200 {
            node.pause(Duration::from_millis(10)).await;
        }
    };
    quorate_runtime::Env::real().timeout(PATIENCE, joined).await.expect("the inbox joins anew");
    publish(&node, "a", "1", "order.placed", json!({ "retries": 3, "urgent": true })).await;
    publish(&node, "a", "4", "order.placed", json!({})).await;
    let shown = until(&node, |shown| shown["counts"]["done"] == 1).await;
    assert_eq!(shown["counts"]["repeated"], 1);
    assert_eq!(ids(&node, "in-a").await, ["1", "3", "4"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_taken_in_is_parked_with_its_key_replayed_and_discarded() {
    let node = node_with(of(InboxSettings { stream: "order-{aggregateid}".to_owned(), ..orders() })).await;
    until(&node, |shown| shown["state"] == "receiving").await;
    publish(&node, "a", "1", "order.placed", json!({})).await;
    publish(&node, "a", "2", "order.paid", json!({ "aggregatetype": "order", "aggregateid": "17" })).await;
    publish(&node, "b", "3", "order.placed", json!({})).await;
    until(&node, |shown| shown["parked"] == 3).await;
    let parked = node.get(&format!("{PATH}/parked")).await.json();
    let first = &parked["parked"][0];
    assert_eq!((&first["identity"], &first["event"]["data"]), (&json!("/shop 1"), &json!({ "total": 17 })));
    assert!(first["failures"][0]["reason"].as_str().unwrap().contains("`aggregateid`"), "{first}");
    assert_eq!(act(&node, "replay", json!({ "all": true })).await, json!({ "messages": 0, "failed-keys": 2 }));
    assert_eq!(act(&node, "discard", json!({ "identity": "/shop 1" })).await, json!({ "messages": 1 }));
    assert_eq!(act(&node, "replay", json!({ "key": "a" })).await, json!({ "messages": 1, "failed-keys": 0 }));
    // The stream names no kind of aggregate, so the message is kept under its whole identity.
    assert_eq!(ids(&node, "order-17").await, ["/shop 2 order 17"]);
    for (body, code) in [
        (json!({ "identity": "/shop 1" }), "message-not-parked"),
        (json!({}), "invalid-parameter"),
        (json!({ "all": true, "key": "a" }), "invalid-parameter"),
    ] {
        let refused = node.send(post(format!("{PATH}/discard")).json(body.to_string())).await;
        assert_eq!(refused.code(), code, "{body}");
    }
    for (method, path) in [("GET", ""), ("GET", "/parked"), ("POST", "/replay"), ("POST", "/discard")] {
        let none = request(method, format!("/v1/inboxes/none{path}")).json(r#"{"all":true}"#);
        let none = node.send(none).await;
        assert_eq!((none.status, none.code().as_str()), (404, "inbox-not-found"), "{method} {path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_would_be_written_in_the_place_of_a_coordinator_or_a_saga_is_parked_at_once() {
    let stream = "{aggregatetype}-{aggregateid}".to_owned();
    let node = node_with(of(InboxSettings { stream, ..orders() })).await;
    until(&node, |shown| shown["state"] == "receiving").await;
    let gid = "quorate:0197f2a0-0000-7000-8000-000000000001:1-1";
    for (key, kind, aggregate, id) in [
        ("a", "order.placed", "txn", gid),
        ("b", "order.placed", "txncoordinator", "main"),
        ("c", "quorate.txn.taken", "order", "17"),
        ("d", "order.placed", "saga", "order:17"),
        ("e", "order.placed", "txn", "17"),
    ] {
        publish(&node, key, key, kind, json!({ "aggregatetype": aggregate, "aggregateid": id })).await;
    }
    let shown = until(&node, |shown| shown["parked"] == 4 && shown["counts"]["done"] == 1).await;
    assert_eq!(shown["state"], "receiving");
    let parked = node.get(&format!("{PATH}/parked")).await.json();
    for one in parked["parked"].as_array().unwrap() {
        assert_eq!(one["failures"].as_array().unwrap().len(), 1, "{one}");
    }
    assert_eq!(ids(&node, "txn-17").await, ["e"]);
    for empty in ["txncoordinator-main", "order-17", "saga-order:17"] {
        assert_eq!(node.get(&format!("/v1/streams/{empty}/events")).await.status, 404, "{empty}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_node_relays_another_inbox_sends_to_a_queue_each_event_once() {
    let inbox = InboxSettings { queue: "work".to_owned(), ..orders() };
    let (topic, categories) = ("orders".to_owned(), vec!["order".to_owned()]);
    let relay = RelaySettings { name: "orders-out".to_owned(), topic, categories, ..RelaySettings::default() };
    let node = node_with(|config| {
        config.inboxes = vec![inbox.clone().try_into().unwrap()];
        config.relays = vec![relay.clone().try_into().unwrap()];
    })
    .await;
    // It waits for its queue, and says so.
    let shown = until(&node, |shown| !shown["last-error"].is_null()).await;
    assert_eq!(shown["state"], "starting");
    assert!(shown["last-error"]["what"].as_str().unwrap().contains("work"), "{shown}");
    assert_eq!(node.send(request("PUT", "/v1/queues/work").json("{}")).await.status, 200);
    until(&node, |shown| shown["state"] == "receiving").await;
    // The same ids in two streams.
    for stream in ["order-1", "order-2"] {
        let event = crate::node::event("1", "");
        let sent = node.send(post(format!("/v1/streams/{stream}/events")).event(event)).await;
        assert_eq!(sent.status, 201, "{}", sent.text());
    }
    until(&node, |shown| shown["counts"]["done"] == 2).await;
    let queue = node.get("/v1/queues/work").await.json();
    assert_eq!(queue["messages"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_is_full_or_gone_holds_messages_and_parks_none() {
    let node = node_with(of(InboxSettings { queue: "work".to_owned(), max_attempts: 1, ..orders() })).await;
    let declare = async || {
        let declared = node.send(request("PUT", "/v1/queues/work").json(r#"{"max-messages": 1}"#)).await;
        assert_eq!(declared.status, 200, "{}", declared.text());
    };
    declare().await;
    until(&node, |shown| shown["state"] == "receiving").await;
    publish(&node, "a", "1", "order.placed", json!({})).await;
    until(&node, |shown| shown["counts"]["done"] == 1).await;
    publish(&node, "b", "2", "order.placed", json!({})).await;
    let says = |shown: &Value, text: &str| shown["last-error"]["what"].as_str().is_some_and(|what| what.contains(text));
    let shown = until(&node, |shown| says(shown, "which takes 1") || shown["parked"] != 0).await;
    assert_eq!(shown["parked"], 0, "{shown}");
    assert_eq!(node.send(request("DELETE", "/v1/queues/work")).await.status, 200);
    let shown = until(&node, |shown| says(shown, "there is no queue") || shown["parked"] != 0).await;
    assert_eq!(shown["parked"], 0, "{shown}");
    declare().await;
    until(&node, |shown| shown["counts"]["done"] == 2).await;
}
