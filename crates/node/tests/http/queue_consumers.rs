//! Messages of a queue as server-sent events.

use std::time::Duration;

use quorate_runtime::Env;
use serde_json::{Value, json};

use crate::{
    client::{PATIENCE, get, post, request},
    node::{Node, event, node, node_with},
    subscribe::Subscriber,
};

const PATH: &str = "/v1/queues/mails";

async fn declare(node: &Node, config: Value) {
    let declared = node.send(request("PUT", PATH).json(config.to_string())).await;
    assert_eq!(declared.status, 200, "{}", declared.text());
}

async fn act(node: &Node, action: &str, body: Value) -> Value {
    let reply = node.send(post(format!("{PATH}/{action}")).json(body.to_string())).await;
    assert!((200..300).contains(&reply.status), "{}", reply.text());
    reply.json()
}

async fn send(node: &Node, ids: &[&str], data: &str) {
    let messages: Vec<String> = ids.iter().map(|id| format!(r#"{{"event":{}}}"#, event(id, data))).collect();
    let body = format!(r#"{{"messages":[{}]}}"#, messages.join(","));
    let reply = node.send(post(format!("{PATH}/messages")).json(body)).await;
    assert_eq!(reply.status, 201, "{}", reply.text());
}

/// The lease, the id and the attempt of the next message.
async fn message(subscriber: &mut Subscriber) -> (String, String, u64) {
    let told = subscriber.told().await;
    assert_eq!(told.event, "message", "{told:?}");
    let delivery = told.json();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    (text(&delivery["lease"]), text(&delivery["event"]["id"]), delivery["attempt"].as_u64().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_come_as_events_under_leases_and_no_more_than_the_window_has_room_for() {
    let node = node_with(|config| config.http.heartbeat = Duration::from_millis(100)).await;
    declare(&node, json!({})).await;
    let mut subscriber = Subscriber::start(&node, get(format!("{PATH}/subscribe?window=2&ttl=60s"))).await;
    send(&node, &["a", "b", "c"], "").await;
    let (first, second) = (message(&mut subscriber).await, message(&mut subscriber).await);
    assert_eq!((&*first.1, &*second.1, first.2), ("a", "b", 1));
    let beat = subscriber.next().await.unwrap();
    assert!(beat.comment, "its window is full: {beat:?}");
    let stood = node.get(PATH).await.json();
    assert_eq!((&stood["in-flight"], &stood["ready"]), (&json!(2), &json!(1)));
    act(&node, "ack", json!({ "leases": [first.0] })).await;
    assert_eq!(message(&mut subscriber).await.1, "c");
    act(&node, "nack", json!({ "leases": [second.0], "delay": "0s" })).await;
    let again = message(&mut subscriber).await;
    assert_eq!((&*again.1, again.2), ("b", 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn leases_run_out_and_their_messages_come_again_on_this_connection_or_the_next() {
    let node = node().await;
    declare(&node, json!({ "lease-ttl": "200ms" })).await;
    send(&node, &["a"], "").await;
    let mut subscriber = Subscriber::start(&node, get(format!("{PATH}/subscribe?window=1"))).await;
    let (lost, ..) = message(&mut subscriber).await;
    assert_eq!(message(&mut subscriber).await.2, 2);
    let refused = node.send(post(format!("{PATH}/ack")).json(json!({ "leases": [lost] }).to_string())).await;
    assert_eq!(refused.code(), "lease-lost");
    drop(subscriber);
    let mut back = Subscriber::start(&node, get(format!("{PATH}/subscribe?window=1&ttl=60s"))).await;
    let (lease, id, attempt) = message(&mut back).await;
    assert!(id == "a" && attempt >= 3, "{attempt}");
    act(&node, "ack", json!({ "leases": [lease] })).await;
    assert_eq!(node.get(PATH).await.json()["messages"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_never_reads_is_let_go_and_what_it_was_not_sent_is_others() {
    let node = node_with(|config| config.http.write_timeout = Duration::from_millis(300)).await;
    declare(&node, json!({})).await;
    let data = format!(r#","data":"{}""#, "x".repeat(100_000));
    for batch in 0..8 {
        let ids: Vec<String> = (0..32).map(|n| format!("{batch}-{n}")).collect();
        send(&node, &ids.iter().map(String::as_str).collect::<Vec<_>>(), &data).await;
    }
    let mut deaf = node.client().await;
    deaf.begin(&get(format!("{PATH}/subscribe?window=256&ttl=1h"))).await;
    // 25 MB wait for it; the sockets' buffers hold a few.
    let env = Env::real();
    let gone = env.timeout(PATIENCE, async {
        while node.get(PATH).await.json()["in-flight"] == 0 || node.metric("quorate_http_subscribers").await > 0 {
            env.sleep(Duration::from_millis(20)).await;
        }
    });
    assert!(gone.await.is_some(), "the consumer is still being served");
    let given_back = env.timeout(PATIENCE, async {
        while node.get(PATH).await.json()["ready"].as_u64() < Some(128) {
            env.sleep(Duration::from_millis(20)).await;
        }
    });
    assert!(given_back.await.is_some(), "what it was not sent is held for it: {}", node.get(PATH).await.text());
    let received = act(&node, "receive", json!({ "max": 1 })).await;
    assert_eq!(received["deliveries"][0]["attempt"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_is_told_why_it_ends() {
    let node = node().await;
    let refused = node.get(&format!("{PATH}/subscribe")).await;
    assert_eq!((refused.status, refused.code().as_str()), (404, "queue-not-found"));
    declare(&node, json!({})).await;
    for (wrong, code) in
        [("window=0", "invalid-parameter"), ("window=257", "limit-exceeded"), ("ttl=soon", "invalid-parameter")]
    {
        assert_eq!(node.get(&format!("{PATH}/subscribe?{wrong}")).await.code(), code, "{wrong}");
    }
    let mut subscriber = Subscriber::start(&node, get(format!("{PATH}/subscribe"))).await;
    let deleted = node.send(request("DELETE", PATH)).await;
    assert_eq!(deleted.status, 200);
    let closing = subscriber.told().await;
    assert_eq!((&*closing.event, closing.json()), ("closing", json!({ "reason": "queue-gone" })));
    declare(&node, json!({})).await;
    let mut subscriber = Subscriber::start(&node, get(format!("{PATH}/subscribe"))).await;
    node.stop();
    assert_eq!(subscriber.told().await.json(), json!({ "reason": "shutting-down" }));
}
