//! Message queues of several nodes over one database.

use serde_json::{Value, json};

use crate::{
    client::{get, post, request},
    node::Node,
    queue_schedules::{put, schedule},
    queues::{PATH, act, declare, lease, receive, send},
    several_nodes::two,
    subscribe::Subscriber,
};

/// The next message, however long that takes.
async fn wait_for(node: &Node) -> Value {
    for _ in 0..6 {
        let waited = act(node, "receive", json!({ "max": 1, "wait": "10s", "ttl": "10m" })).await;
        assert_eq!(waited.status, 200, "{}", waited.text());
        if let [delivery] = &waited.json()["deliveries"].as_array().unwrap()[..] {
            return delivery.clone();
        }
    }
    panic!("no message comes");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_is_one_whichever_node_is_asked() {
    let [one, other] = two().await;
    assert_eq!(declare(&one, json!({ "lease-ttl": "10m" })).await.status, 200);
    assert_eq!(send(&other, &["a", "b"]).await.status, 201, "it was declared a moment ago, at the other node");
    let taken = receive(&one, 9).await;
    assert_eq!((taken.len(), receive(&other, 9).await.len()), (1, 0), "one of a group at a time");
    assert_eq!(act(&other, "ack", json!({ "leases": [lease(&taken[0])] })).await.status, 200);
    let late = act(&one, "ack", json!({ "leases": [lease(&taken[0])] })).await;
    assert_eq!((late.status, late.code().as_str()), (409, "lease-lost"));
    assert_eq!(wait_for(&one).await["event"]["id"], "b");
    let stands = other.get(PATH).await.json();
    assert_eq!((&stands["messages"], &stands["in-flight"]), (&json!(1), &json!(1)));
    assert_eq!(other.get("/v1/queues").await.json()["queues"].as_array().map(Vec::len), Some(1));
    assert_eq!(other.send(request("DELETE", PATH)).await.status, 200);
    assert_eq!(one.get(PATH).await.code(), "queue-not-found");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_follows_a_queue_at_one_node_is_sent_what_comes_in_at_another() {
    let [one, other] = two().await;
    declare(&one, json!({})).await;
    let mut subscriber = Subscriber::start(&other, get(format!("{PATH}/subscribe?window=4&ttl=60s"))).await;
    for id in ["a", "b", "c"] {
        assert_eq!(send(&one, &[id]).await.status, 201);
        let told = subscriber.told().await.json();
        assert_eq!(told["event"]["id"], id);
        assert_eq!(act(&one, "ack", json!({ "leases": [lease(&told)] })).await.status, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_sent_again_under_its_key_or_id_at_another_node_is_sent_once() {
    let [one, other] = two().await;
    declare(&one, json!({})).await;
    let body = json!({ "messages": [{ "event": crate::queues::event("a") }] }).to_string();
    for node in [&one, &other, &one] {
        let path = format!("{PATH}/messages");
        let sent = node.send(post(path.as_str()).header("idempotency-key", "k").json(body.clone())).await;
        assert_eq!(sent.status, 201, "{}", sent.text());
        let sent: Value = node.send(post(path.as_str()).json(body.clone())).await.json();
        assert_eq!(sent["messages"][0]["repeated"], json!(true), "{sent}");
    }
    assert_eq!(other.get(PATH).await.json()["messages"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_stopped_node_held_is_handed_out_by_another() {
    let [one, other] = two().await;
    declare(&one, json!({ "lease-ttl": "500ms" })).await;
    send(&one, &["a"]).await;
    let held = receive(&one, 1).await;
    one.stop();
    let again = wait_for(&other).await;
    assert_eq!((&again["event"]["id"], &again["attempt"]), (&json!("a"), &json!(2)));
    let late = act(&other, "ack", json!({ "leases": [lease(&held[0])] })).await;
    assert_eq!((late.status, late.code().as_str()), (409, "lease-lost"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_that_was_declared_at_one_node_is_known_at_another() {
    let [one, other] = two().await;
    assert_eq!(put(&one, "", "{}").await.status, 200);
    assert_eq!(put(&one, "/schedules/nightly", &schedule("30 2 * * *")).await.status, 200);
    let path = "/v1/queues/reports/schedules/nightly";
    assert_eq!(other.get(path).await.status, 200);
    assert_eq!(other.send(request("DELETE", path)).await.status, 200);
    assert_eq!(one.get(path).await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_durable_request_is_asked_at_one_node_and_answered_at_another_and_who_waits_at_either_is_told() {
    let [one, other] = two().await;
    let declared = request("PUT", "/v1/request-types/report").json(r#"{"exchange":"durable"}"#);
    assert_eq!(one.send(declared).await.status, 200);
    let asked = other.send(post("/v1/requests/report?id=1").body("tea")).await;
    assert_eq!(asked.status, 202, "{}", asked.text());
    let mut responder = Subscriber::start(&one, get("/v1/request-types/report/serve")).await;
    let told = responder.told().await.json();
    assert_eq!((&told["id"], &told["attempt"]), (&json!("1"), &json!(1)));
    let mut waiting = Vec::new();
    for node in [&one, &other] {
        let mut client = node.client().await;
        client.begin(&get("/v1/requests/report/1?wait=20s")).await;
        waiting.push(client);
    }
    let named = told["request"].as_str().unwrap();
    let said = other.send(post(format!("/v1/request-types/report/requests/{named}/answer")).body("250")).await;
    assert_eq!(said.status, 200, "{}", said.text());
    for mut client in waiting {
        let status = client.reply().await.unwrap().json();
        assert_eq!((&status["status"], &status["answer"]["body"]), (&json!("done"), &json!("250")));
    }
    let late = one.send(post(format!("/v1/request-types/report/requests/{named}/answer")).body("late")).await;
    assert_eq!((late.status, late.code().as_str()), (409, "lease-lost"));
}
