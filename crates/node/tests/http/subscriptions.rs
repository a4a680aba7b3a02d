use std::time::Duration;

use serde_json::{Value, json};

use crate::{
    client::{Client, Reply, get, post, request},
    node::{Node, event, node},
};

const PATH: &str = "/v1/subscriptions/billing";

async fn create(node: &Node, config: Value) -> Reply {
    node.send(request("PUT", PATH).json(config.to_string())).await
}

async fn act(node: &Node, action: &str, body: Value) -> Reply {
    node.send(post(format!("{PATH}/{action}")).json(body.to_string())).await
}

async fn pull(node: &Node, max: usize) -> Vec<Value> {
    let reply = act(node, "pull", json!({ "max": max, "owner": "worker-1" })).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.json()["deliveries"].as_array().unwrap().clone()
}

async fn described(node: &Node) -> Value {
    node.get(PATH).await.json()
}

fn lease(delivery: &Value) -> String {
    delivery["lease"].as_str().unwrap().to_owned()
}

/// A node with a subscription and one event in each of the streams `a`, `b` and `c`.
async fn three(config: Value) -> Node {
    let node = node().await;
    assert_eq!(create(&node, config).await.status, 200);
    for stream in ["a", "b", "c"] {
        node.fill(stream, 1, 1).await;
    }
    node
}

#[tokio::test(flavor = "multi_thread")]
async fn creating_again_changes_nothing_and_another_configuration_is_refused() {
    let node = node().await;
    let config = json!({ "lease-ttl": "45s", "key": { "tag": "customer" }, "start": { "after": "7" } });
    let first = create(&node, config.clone()).await;
    assert_eq!(first.status, 200, "{}", first.text());
    assert_eq!(first.json()["config"]["lease-ttl"], "45s");
    assert_eq!(create(&node, config.clone()).await.body, first.body);
    assert_eq!(create(&node, first.json()["config"].clone()).await.body, first.body, "what is shown can be sent");
    let other = create(&node, json!({ "lease-ttl": "46s" })).await;
    assert_eq!((other.status, other.code().as_str()), (409, "subscription-exists"));
    assert_eq!(described(&node).await["config"], first.json()["config"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_pulled_as_the_log_serves_them_and_settled_for_good_also_over_a_restart() {
    let node = three(json!({})).await;
    let deliveries = pull(&node, 10).await;
    let events: Vec<Value> = deliveries.iter().map(|delivery| delivery["event"].clone()).collect();
    assert_eq!(events, node.get("/v1/events").await.events());
    assert_eq!(
        (&deliveries[0]["attempt"], &deliveries[0]["key"], &deliveries[0]["ttl"]),
        (&json!(1), &json!("a"), &json!("30s"))
    );
    assert_eq!(described(&node).await["in-flight"], 3);
    let acked = act(&node, "ack", json!({ "leases": deliveries.iter().map(lease).collect::<Vec<_>>() })).await;
    assert_eq!((acked.status, acked.json()), (200, json!({ "leases": 3 })), "{}", acked.text());
    let node = node.restart().await;
    assert_eq!(pull(&node, 10).await, Vec::<Value>::new());
    let standing = described(&node).await;
    assert_eq!(
        (&standing["checkpoint"], &standing["lag-events"], &standing["oldest"]),
        (&json!("3"), &json!(0), &Value::Null)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_lease_is_named_and_the_reply_says_whether_others_were_settled() {
    let node = three(json!({})).await;
    let held: Vec<String> = pull(&node, 2).await.iter().map(lease).collect();
    assert_eq!(act(&node, "ack", json!({ "leases": [held[0]] })).await.status, 200);
    let before = described(&node).await;
    for action in ["ack", "nack", "extend", "park"] {
        let stale = act(&node, action, json!({ "leases": [held[0]] })).await;
        assert_eq!((stale.status, stale.code().as_str()), (409, "lease-lost"), "{action}");
        assert_eq!((&stale.json()["leases"], &stale.json()["outcome"]), (&json!([held[0]]), &json!("unchanged")));
    }
    let after = described(&node).await;
    for member in ["checkpoint", "in-flight", "parked", "resting", "oldest"] {
        assert_eq!(before[member], after[member], "{member}");
    }
    let mixed = act(&node, "ack", json!({ "leases": held })).await;
    assert_eq!((mixed.status, mixed.code().as_str()), (409, "lease-lost"));
    assert_eq!((&mixed.json()["leases"], &mixed.json()["outcome"]), (&json!([held[0]]), &json!("partial")));
    assert_eq!(described(&node).await["in-flight"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_event_returns_with_its_attempts_counted() {
    let node = three(json!({})).await;
    let first = pull(&node, 1).await;
    let nack = json!({ "leases": [lease(&first[0])], "delay": "0s", "reason": "busy" });
    assert_eq!(act(&node, "nack", nack).await.status, 200);
    let second = pull(&node, 1).await;
    assert_eq!((&second[0]["event"], &second[0]["attempt"]), (&first[0]["event"], &json!(2)));
    assert_ne!(lease(&first[0]), lease(&second[0]));
    let extended = act(&node, "extend", json!({ "leases": [lease(&second[0])], "ttl": "1m" })).await;
    assert_eq!(extended.status, 200, "{}", extended.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn parked_events_are_listed_page_by_page_and_replayed_or_discarded_by_key() {
    let node = three(json!({})).await;
    let leases: Vec<String> = pull(&node, 3).await.iter().map(lease).collect();
    assert_eq!(act(&node, "park", json!({ "leases": leases, "reason": "no such customer" })).await.status, 200);
    let page = node.get(&format!("{PATH}/parked?limit=2")).await;
    let parked = page.json()["parked"].clone();
    assert_eq!((&parked[0]["logposition"], &parked[0]["key"]), (&json!("1"), &json!("a")));
    assert_eq!(
        (&parked[0]["failures"][0]["cause"], &parked[0]["failures"][0]["reason"]),
        (&json!("parked"), &json!("no such customer"))
    );
    let rest = node.get(&page.next().unwrap()).await;
    assert_eq!((&rest.json()["parked"][0]["key"], rest.next()), (&json!("c"), None));
    assert_eq!(act(&node, "discard", json!({ "key": "a" })).await.json(), json!({ "events": 1 }));
    assert_eq!(act(&node, "replay", json!({ "key": "c" })).await.json(), json!({ "events": 1 }));
    assert_eq!(pull(&node, 10).await[0]["event"]["stream"], "c");
    assert_eq!(act(&node, "replay", json!({ "all": true })).await.json(), json!({ "events": 1 }));
    assert_eq!(described(&node).await["parked"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_waits_for_an_event_and_ends_when_the_node_drains() {
    let node = node().await;
    create(&node, json!({})).await;
    let waiting = post(format!("{PATH}/pull")).json(r#"{"wait":"20s"}"#);
    let mut client = Client::connect(node.address).await;
    client.begin(&waiting).await;
    assert!(!client.is_closed_within(Duration::from_millis(100)).await, "it waits");
    node.fill("a", 1, 1).await;
    let reply = client.reply().await.unwrap();
    assert_eq!(reply.json()["deliveries"][0]["event"]["id"], "a-1");
    client.begin(&waiting).await;
    assert!(!client.is_closed_within(Duration::from_millis(100)).await, "it waits");
    node.stop();
    let reply = client.reply().await.unwrap();
    assert_eq!((reply.status, reply.code().as_str()), (503, "shutting-down"));
    node.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_window_and_too_many_parked_events_are_told_apart_from_nothing_to_do() {
    let node = three(json!({ "window": 1, "max-parked": 1 })).await;
    let held = pull(&node, 10).await;
    assert_eq!(held.len(), 1);
    let full = act(&node, "pull", json!({})).await;
    assert_eq!((full.status, full.code().as_str(), &full.json()["limit"]), (409, "window-full", &json!(1)));
    act(&node, "park", json!({ "leases": [lease(&held[0])] })).await;
    let full = act(&node, "pull", json!({})).await;
    assert_eq!((full.status, full.code().as_str(), &full.json()["limit"]), (409, "parked-full", &json!(1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn subscriptions_are_listed_by_name_and_deleted_with_all_they_know() {
    let node = three(json!({})).await;
    assert_eq!(node.send(request("PUT", "/v1/subscriptions/a%2Fb").json("{}")).await.status, 200);
    let page = node.get("/v1/subscriptions?limit=1").await;
    assert_eq!(page.json()["subscriptions"][0]["subscription"], "a/b");
    let next = node.get(&page.next().unwrap()).await;
    assert_eq!(next.json()["subscriptions"][0]["subscription"], "billing");
    let held = pull(&node, 1).await;
    assert_eq!(node.send(request("DELETE", PATH)).await.status, 200);
    for gone in [node.send(request("DELETE", PATH)).await, node.get(PATH).await, act(&node, "pull", json!({})).await] {
        assert_eq!((gone.status, gone.code().as_str()), (404, "subscription-not-found"));
    }
    create(&node, json!({})).await;
    assert_eq!(act(&node, "ack", json!({ "leases": [lease(&held[0])] })).await.code(), "lease-lost");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_request_with_a_key_settles_once_and_is_answered_alike() {
    let node = three(json!({})).await;
    let body = json!({ "leases": [lease(&pull(&node, 1).await[0])] }).to_string();
    for replayed in [None, Some("true")] {
        let ack = post(format!("{PATH}/ack")).header("idempotency-key", "k").json(body.clone());
        let reply = node.send(ack).await;
        assert_eq!((reply.status, reply.header("idempotency-replayed")), (200, replayed), "{}", reply.text());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_meant_is_refused_and_nothing_happens() {
    let node = three(json!({})).await;
    let held = lease(&pull(&node, 1).await[0]);
    for (action, body, code) in [
        ("pull", json!({ "most": 1 }), "invalid-json"),
        ("pull", json!({ "max": -1 }), "invalid-json"),
        ("pull", json!({ "max": 0 }), "invalid-parameter"),
        ("pull", json!({ "max": 257 }), "limit-exceeded"),
        ("pull", json!({ "wait": "31s" }), "limit-exceeded"),
        ("pull", json!({ "wait": "soon" }), "invalid-json"),
        ("pull", json!({ "owner": "x".repeat(257) }), "invalid-parameter"),
        ("ack", json!({}), "invalid-json"),
        ("ack", json!({ "leases": [] }), "invalid-parameter"),
        ("ack", json!({ "leases": ["x"] }), "invalid-parameter"),
        ("ack", json!({ "leases": [held, held] }), "invalid-parameter"),
        ("ack", json!({ "leases": vec!["x"; 1_001] }), "limit-exceeded"),
        ("ack", json!({ "leases": [held], "reason": "done" }), "invalid-json"),
        ("nack", json!({ "leases": [held], "delay": "13h" }), "invalid-parameter"),
        ("extend", json!({ "leases": [held], "ttl": "1ms" }), "invalid-parameter"),
        ("park", json!({ "leases": [held], "delay": "1s" }), "invalid-json"),
        ("replay", json!({}), "invalid-parameter"),
        ("replay", json!({ "key": "a", "all": true }), "invalid-parameter"),
        ("discard", json!({ "everything": true }), "invalid-json"),
    ] {
        let reply = act(&node, action, body.clone()).await;
        assert_eq!((reply.status, reply.code().as_str()), (400, code), "{action} {body}");
    }
    for config in
        [json!({ "lease-ttl": "1ms" }), json!({ "window": 0 }), json!({ "backoff": { "first": "2s", "max": "1s" } })]
    {
        assert_eq!(create(&node, config.clone()).await.status, 400, "{config}");
    }
    assert_eq!(create(&node, json!({ "ttl": "30s" })).await.code(), "invalid-json");
    assert_eq!(node.get(&format!("{PATH}/parked?limit=1001")).await.code(), "limit-exceeded");
    assert_eq!(node.get("/v1/subscriptions?limit=1001").await.code(), "limit-exceeded");
    assert_eq!(node.send(get(format!("{PATH}/pull"))).await.code(), "method-not-allowed");
    assert_eq!(node.send(post(format!("{PATH}/pull")).event(event("1", ""))).await.code(), "unsupported-media-type");
    assert_eq!(described(&node).await["in-flight"], 1, "the event is still held");
}
