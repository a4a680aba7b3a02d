//! Message queues over HTTP.

use serde_json::{Value, json};

use crate::{
    client::{Reply, post, request},
    node::{Node, node},
};

pub(crate) const PATH: &str = "/v1/queues/mails";

pub(crate) async fn declare(node: &Node, config: Value) -> Reply {
    node.send(request("PUT", PATH).json(config.to_string())).await
}

pub(crate) async fn act(node: &Node, action: &str, body: Value) -> Reply {
    node.send(post(format!("{PATH}/{action}")).json(body.to_string())).await
}

pub(crate) fn event(id: &str) -> Value {
    json!({ "specversion": "1.0", "id": id, "source": "/shop", "type": "mail.due", "datacontenttype": "application/json", "data": { "to": id } })
}

pub(crate) async fn send(node: &Node, ids: &[&str]) -> Reply {
    let messages: Vec<Value> = ids.iter().map(|id| json!({ "event": event(id), "group": "g" })).collect();
    act(node, "messages", json!({ "messages": messages })).await
}

pub(crate) async fn receive(node: &Node, max: usize) -> Vec<Value> {
    let reply = act(node, "receive", json!({ "max": max })).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.json()["deliveries"].as_array().unwrap().clone()
}

pub(crate) fn lease(delivery: &Value) -> &str {
    delivery["lease"].as_str().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_is_declared_changed_listed_and_deleted() {
    let node = node().await;
    let first = declare(&node, json!({ "lease-ttl": "45s", "rate": { "count": 5, "per": "1s" } })).await;
    assert_eq!(first.status, 200, "{}", first.text());
    assert_eq!((&first.json()["config"]["lease-ttl"], &first.json()["messages"]), (&json!("45s"), &json!(0)));
    assert_eq!(declare(&node, first.json()["config"].clone()).await.body, first.body, "what is shown can be sent");
    assert_eq!(declare(&node, json!({ "paused": true })).await.json()["config"]["paused"], true);
    let wrong = declare(&node, json!({ "max-attempts": 0 })).await;
    assert_eq!((wrong.status, wrong.code().as_str()), (400, "invalid-parameter"));
    assert_eq!(node.get("/v1/queues").await.json()["queues"][0]["queue"], "mails");
    assert_eq!(node.send(request("DELETE", PATH)).await.json(), json!({ "queue": "mails", "deleted": true }));
    let gone = node.get(PATH).await;
    assert_eq!((gone.status, gone.code().as_str()), (404, "queue-not-found"));
    assert_eq!(send(&node, &["a"]).await.code(), "queue-not-found", "sending makes no queue");
}

#[tokio::test(flavor = "multi_thread")]
async fn json_with_blanks_around_it_is_json_to_everybody_and_byte_for_byte_to_whoever_asks() {
    let node = node().await;
    declare(&node, json!({})).await;
    let mut blank = event("a");
    blank.as_object_mut().unwrap().remove("data");
    blank["data_base64"] = json!("eyJhIjoxfQo=");
    assert_eq!(act(&node, "messages", json!({ "messages": [{ "event": blank }] })).await.status, 201);
    let plain = receive(&node, 1).await.remove(0);
    assert_eq!((&plain["event"]["data"], plain["event"].get("data_base64")), (&json!({ "a": 1 }), None));
    assert_eq!(act(&node, "nack", json!({ "leases": [lease(&plain)], "delay": "0s" })).await.status, 200);
    let reply = act(&node, "receive", json!({ "wait": "10s", "data": "base64" })).await.json();
    let exact = &reply["deliveries"][0]["event"];
    assert_eq!((&exact["data_base64"], exact.get("data")), (&json!("eyJhIjoxfQo="), None), "{reply}");
    assert_eq!(act(&node, "receive", json!({ "data": "hex" })).await.status, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_are_sent_received_and_settled_for_good_also_over_a_restart() {
    let node = node().await;
    declare(&node, json!({})).await;
    let sent = send(&node, &["a", "b"]).await;
    assert_eq!(sent.status, 201, "{}", sent.text());
    assert_eq!(sent.json()["messages"][0], json!({ "id": "a", "repeated": false }));
    assert_eq!(send(&node, &["a"]).await.json()["messages"][0]["repeated"], true);
    let out = receive(&node, 9).await;
    assert_eq!((out.len(), &out[0]["event"], &out[0]["group"]), (1, &event("a"), &json!("g")));
    assert_eq!((&out[0]["attempt"], &out[0]["ttl"], &out[0]["priority"]), (&json!(1), &json!("30s"), &json!(4)));
    let acked = act(&node, "ack", json!({ "leases": [lease(&out[0])] })).await;
    assert_eq!((acked.status, acked.json()), (200, json!({ "leases": 1 })), "{}", acked.text());
    let again = act(&node, "ack", json!({ "leases": [lease(&out[0])] })).await;
    assert_eq!((again.status, again.code().as_str()), (409, "lease-lost"));
    let node = node.restart().await;
    let stood = node.get(PATH).await.json();
    assert_eq!((&stood["messages"], &stood["ready"]), (&json!(1), &json!(1)));
    assert_eq!(receive(&node, 9).await[0]["event"], event("b"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_waits_gets_the_message_when_it_comes() {
    let node = node().await;
    declare(&node, json!({})).await;
    let waiting = act(&node, "receive", json!({ "wait": "10s" }));
    let sending = async {
        while node.get(PATH).await.json()["consumers"] == 0 {}
        let body = event("a").to_string();
        node.send(post(format!("{PATH}/messages")).header("content-type", "application/cloudevents+json").body(body))
            .await
    };
    let (got, sent) = tokio::join!(waiting, sending);
    assert_eq!(sent.status, 201, "{}", sent.text());
    assert_eq!(got.json()["deliveries"][0]["event"], event("a"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_is_told_parked_edited_replayed_and_discarded() {
    let node = node().await;
    declare(&node, json!({})).await;
    send(&node, &["a"]).await;
    let out = receive(&node, 1).await;
    let nacked = act(&node, "nack", json!({ "leases": [lease(&out[0])], "delay": "0s", "reason": "busy" })).await;
    assert_eq!(nacked.status, 200, "{}", nacked.text());
    let out = receive(&node, 1).await;
    assert_eq!(out[0]["attempt"], 2);
    assert_eq!(act(&node, "extend", json!({ "leases": [lease(&out[0])], "ttl": "60s" })).await.status, 200);
    assert_eq!(act(&node, "park", json!({ "leases": [lease(&out[0])], "reason": "poison" })).await.status, 200);
    let parked = node.get(&format!("{PATH}/parked")).await.json()["parked"][0].clone();
    assert_eq!((&parked["event"], &parked["attempts"]), (&event("a"), &json!(2)));
    let told: Vec<_> =
        parked["failures"].as_array().unwrap().iter().map(|one| [&one["cause"], &one["reason"]]).collect();
    assert_eq!(told, [[&json!("nacked"), &json!("busy")], [&json!("parked"), &json!("poison")]]);
    let mut mended = event("a");
    mended["data"] = json!({ "to": "mended" });
    assert_eq!(act(&node, "replay", json!({ "event": event("x") })).await.code(), "dead-letter-not-found");
    let replayed = act(&node, "replay", json!({ "event": mended })).await;
    assert_eq!(replayed.json(), json!({ "messages": 1 }), "{}", replayed.text());
    let out = receive(&node, 1).await;
    assert_eq!((&out[0]["event"], &out[0]["attempt"]), (&mended, &json!(1)));
    act(&node, "park", json!({ "leases": [lease(&out[0])] })).await;
    assert_eq!(act(&node, "discard", json!({})).await.code(), "invalid-parameter", "all of them must be said");
    assert_eq!(act(&node, "discard", json!({ "type": "mail.due" })).await.json(), json!({ "messages": 1 }));
    assert_eq!(node.get(PATH).await.json()["messages"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_messages_are_refused_with_their_number_and_a_full_queue_with_its_limit() {
    let node = node().await;
    declare(&node, json!({ "max-messages": 1 })).await;
    let wrong = json!({ "messages": [{ "event": event("a") }, { "event": { "specversion": "1.0", "id": "b" } }] });
    let refused = act(&node, "messages", wrong).await;
    assert_eq!((refused.status, refused.code().as_str(), &refused.json()["index"]), (400, "invalid-event", &json!(1)));
    let unknown = act(&node, "messages", json!({ "messages": [{ "event": event("a"), "prio": 1 }] })).await;
    assert_eq!((unknown.status, unknown.code().as_str()), (400, "invalid-json"));
    let full = send(&node, &["a", "b"]).await;
    assert_eq!((full.status, full.code().as_str(), &full.json()["limit"]), (409, "queue-full", &json!(1)));
    send(&node, &["a"]).await;
    let other = json!({ "messages": [{ "event": event("a"), "group": "another" }] });
    assert_eq!(declare(&node, json!({})).await.status, 200);
    let reused = act(&node, "messages", other).await;
    assert_eq!((reused.status, reused.code().as_str(), &reused.json()["id"]), (409, "id-reused", &json!("a")));
}

#[tokio::test(flavor = "multi_thread")]
async fn depth_age_and_what_is_in_flight_are_measured_for_each_queue() {
    let node = node().await;
    declare(&node, json!({})).await;
    send(&node, &["a", "b", "c"]).await;
    receive(&node, 1).await;
    let text = node.get("/metrics").await.text();
    let line = |name: &str| {
        let start = format!("quorate_queue_{name}{{queue=\"mails\"}} ");
        text.lines().find_map(|line| line.strip_prefix(&start)).map(str::to_owned)
    };
    assert_eq!(line("in_flight").as_deref(), Some("1"));
    assert_eq!(
        (line("ready").as_deref(), line("waiting").as_deref()),
        (Some("0"), Some("2")),
        "they stand in one group"
    );
    assert!(line("age_seconds").is_some_and(|age| age.parse::<f64>().unwrap() >= 0.0));
    node.send(request("DELETE", PATH)).await;
    assert!(!node.get("/metrics").await.text().contains("mails"));
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_come_in_pages_of_so_many_bytes() {
    let node = node().await;
    declare(&node, json!({})).await;
    for n in 0..6 {
        let mut event = event(&n.to_string());
        event["data"] = "x".repeat(1_000_000).into();
        let sent = act(&node, "messages", json!({ "messages": [{ "event": event }] })).await;
        assert_eq!(sent.status, 201, "{}", sent.text());
    }
    for delivery in [receive(&node, 9).await, receive(&node, 9).await].concat() {
        assert_eq!(act(&node, "park", json!({ "leases": [lease(&delivery)] })).await.status, 200);
    }
    let page = node.get(&format!("{PATH}/parked")).await;
    assert_eq!(page.json()["parked"].as_array().unwrap().len(), 4);
    let link = page.header("link").unwrap().to_owned();
    let next = link.trim_start_matches('<').split_once('>').unwrap().0.to_owned();
    let rest = node.get(&next).await;
    assert_eq!((rest.json()["parked"].as_array().unwrap().len(), rest.header("link")), (2, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_reply_is_kept_under_its_idempotency_key() {
    let node = node().await;
    declare(&node, json!({})).await;
    let long = "m".repeat(200);
    let messages: Vec<Value> = (0..1_000).map(|n| json!({ "event": event(&format!("{long}-{n}")) })).collect();
    let body = json!({ "messages": messages }).to_string();
    let send = || node.send(post(format!("{PATH}/messages")).header("idempotency-key", "k").json(body.clone()));
    let first = send().await;
    assert_eq!((first.status, first.body.len() > 128 << 10), (201, true), "{}", first.text());
    let again = send().await;
    assert_eq!((again.status, again.header("idempotency-replayed")), (201, Some("true")), "{}", again.text());
    assert_eq!(again.body, first.body);
}
