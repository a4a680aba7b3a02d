//! While others hold the memory for replies: what was not done is told as not done, and small replies get past.

use std::time::Duration;

use quorate_runtime::Env;
use serde_json::{Value, json};

use crate::{
    client::{Client, PATIENCE, Reply, get, post, request},
    http2::raw,
    node::{Node, event, node_with},
};

/// Eight megabytes for replies: six for all, two for those of up to 128 KiB.
async fn narrow() -> Node {
    let node = node_with(|config| {
        config.http.reply_memory = 8 << 20;
        config.http.write_timeout = Duration::from_secs(60);
    })
    .await;
    let data = format!(r#","data":"{}""#, "x".repeat(50_000));
    for n in 0..10 {
        let append = post(format!("/v1/streams/wide-{n}/events")).event(event("1", &data));
        assert_eq!(node.send(append).await.status, 201);
    }
    for batch in 0..4 {
        let events: Vec<String> = (0..25).map(|n| event(&format!("{batch}-{n}"), &data)).collect();
        let reply = node.send(post("/v1/streams/large/events").batch(format!("[{}]", events.join(",")))).await;
        assert_eq!(reply.status, 201, "{}", reply.text());
    }
    node
}

/// Readers that take nothing, as many as there is memory for. `path`: of a page that is in memory as a whole.
async fn fill(node: &Node, path: &str) -> Vec<Client> {
    let env = Env::real();
    let filling = async {
        let mut deaf = Vec::new();
        while node.get(path).await.status != 503 {
            deaf.push(raw(node, 0, &[path; 10]).await);
            env.sleep(Duration::from_millis(20)).await;
        }
        deaf
    };
    env.timeout(PATIENCE, filling).await.expect("the memory never fills")
}

/// Repeats a request until it is not turned away any more.
async fn eventually(node: &Node, wanted: impl Fn() -> crate::client::Request) -> Reply {
    let env = Env::real();
    let asking = async {
        loop {
            let reply = node.send(wanted()).await;
            if reply.status != 503 {
                return reply;
            }
            env.sleep(Duration::from_millis(20)).await;
        }
    };
    env.timeout(PATIENCE, asking).await.expect("still turned away")
}

/// A page of 150 KB.
const LARGE: &str = "/v1/streams/large/events?limit=3";

fn outcome(reply: &Reply) -> (u16, String, Value) {
    (reply.status, reply.code(), reply.json()["outcome"].clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_that_finds_no_memory_for_its_reply_has_pulled_nothing() {
    let node = narrow().await;
    let created = node.send(request("PUT", "/v1/subscriptions/billing").json(r#"{"lease-ttl":"1h"}"#)).await;
    assert_eq!(created.status, 200, "{}", created.text());
    let pull = || post("/v1/subscriptions/billing/pull").json(r#"{"max":20}"#);
    let deaf = fill(&node, LARGE).await;
    let refused = node.send(pull()).await;
    assert_eq!(outcome(&refused), (503, "overloaded".to_owned(), json!("unchanged")));
    drop(deaf);
    let pulled = eventually(&node, pull).await;
    let deliveries = pulled.json()["deliveries"].as_array().unwrap().clone();
    // Nothing waits for a lease of an hour, and nothing counts as tried.
    assert_eq!((&deliveries[0]["event"]["id"], deliveries.len()), (&json!("1"), 11));
    assert!(deliveries.iter().all(|delivery| delivery["attempt"] == 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receive_that_finds_no_memory_for_its_reply_has_received_nothing() {
    let node = narrow().await;
    let declared = node.send(request("PUT", "/v1/queues/mails").json(r#"{"lease-ttl":"1h"}"#)).await;
    assert_eq!(declared.status, 200, "{}", declared.text());
    let data = format!(r#","data":"{}""#, "x".repeat(50_000));
    let events: Vec<String> = (0..20).map(|n| event(&n.to_string(), &data)).collect();
    let sent = node.send(post("/v1/queues/mails/messages").batch(format!("[{}]", events.join(",")))).await;
    assert_eq!(sent.status, 201, "{}", sent.text());
    let receive = || post("/v1/queues/mails/receive").json(r#"{"max":20}"#);
    let deaf = fill(&node, LARGE).await;
    for _ in 0..3 {
        let refused = node.send(receive()).await;
        assert_eq!(outcome(&refused), (503, "overloaded".to_owned(), json!("unchanged")));
    }
    drop(deaf);
    let deliveries = eventually(&node, receive).await.json()["deliveries"].as_array().unwrap().clone();
    // Nothing waits for a lease of an hour, and nothing counts as tried.
    assert_eq!((&deliveries[0]["event"]["id"], deliveries.len()), (&json!("0"), 20));
    assert!(deliveries.iter().all(|delivery| delivery["attempt"] == 1));
    let leases: Vec<&Value> = deliveries.iter().map(|delivery| &delivery["lease"]).collect();
    let parked = node.send(post("/v1/queues/mails/park").json(json!({ "leases": leases }).to_string())).await;
    assert_eq!(parked.status, 200, "{}", parked.text());
    let deaf = fill(&node, LARGE).await;
    assert_eq!(node.get("/v1/queues/mails/parked").await.status, 503, "nor is there any for dead letters");
    drop(deaf);
    let dead = eventually(&node, || get("/v1/queues/mails/parked")).await;
    assert_eq!(dead.json()["parked"].as_array().unwrap().len(), 20);
}

/// An append whose reply names streams with names of 500 bytes.
fn wordy(streams: usize) -> String {
    let stream = |n: usize| {
        let name = format!("{}-{n}", "s".repeat(500));
        json!({ "stream": name, "events": [{ "specversion": "1.0", "id": "1", "source": "/t", "type": "t" }] })
    };
    json!({ "streams": (0..streams).map(stream).collect::<Vec<_>>() }).to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_append_whose_reply_finds_no_memory_was_not_done() {
    let node = narrow().await;
    let deaf = fill(&node, LARGE).await;
    for key in [None, Some("k")] {
        let append = post("/v1/events").json(wordy(200));
        let append = key.into_iter().fold(append, |append, key| append.header("idempotency-key", key));
        let refused = node.send(append).await;
        assert_eq!(outcome(&refused), (503, "overloaded".to_owned(), json!("unchanged")));
    }
    let head = node.get("/v1/events?after=110&limit=1").await;
    assert_eq!(head.events().len(), 0, "nothing was written");
    drop(deaf);
    let append = || post("/v1/events").json(wordy(200)).header("idempotency-key", "k");
    let done = eventually(&node, append).await;
    assert_eq!((done.status, done.header("idempotency-replayed")), (201, None));
    assert_eq!(done.json()["streams"].as_array().unwrap().len(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn small_replies_get_past_large_ones_that_wait() {
    let node = narrow().await;
    let data = format!(r#","data":"{}""#, "y".repeat(20_000));
    assert_eq!(node.send(post("/v1/streams/small/events").event(event("1", &data))).await.status, 201);
    let mut deaf = fill(&node, LARGE).await;
    // A follower waits for more than is left, and whatever becomes free is its.
    deaf.push(raw(&node, 0, &["/v1/events/subscribe"; 10]).await);
    let env = Env::real();
    for _ in 0..20 {
        let reply = node.get("/v1/streams/small/events").await;
        assert_eq!((reply.status, reply.body.len() > 16 << 10), (200, true), "{}", reply.text());
        env.sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(node.get(LARGE).await.status, 503, "large ones find nothing meanwhile");
    drop(deaf);
    assert_eq!(eventually(&node, || get(LARGE)).await.events().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_done_and_finds_no_memory_for_its_reply_says_that_it_was_done() {
    let node = narrow().await;
    let data = format!(r#","data":"{}""#, "y".repeat(20_000));
    assert_eq!(node.send(post("/v1/streams/small/events").event(event("1", &data))).await.status, 201);
    let schema = |kind: &str, title: &str| {
        let properties: serde_json::Map<String, Value> =
            (0..40).map(|n| (format!("p{n}"), json!({ "type": kind }))).collect();
        json!({ "title": title, "type": "object", "properties": properties }).to_string()
    };
    for title in ["one", "two", "three", "four"] {
        let register = post("/v1/schemas/paid/versions?mode=full-transitive").json(schema("string", title));
        let registered = node.send(register).await;
        assert!((200..300).contains(&registered.status), "{}", registered.text());
    }
    let check = || post("/v1/schemas/paid/check").json(schema("integer", "five"));
    let told = node.send(check()).await;
    assert_eq!((told.status, told.body.len() > 16 << 10), (200, true), "{}", told.body.len());
    let mut deaf = fill(&node, LARGE).await;
    deaf.extend(fill(&node, "/v1/streams/small/events").await);
    assert_eq!(outcome(&node.send(check()).await), (503, "overloaded".to_owned(), json!("done")));
    drop(deaf);
    assert_eq!(eventually(&node, check).await.body, told.body);
}
