//! Several nodes over one database.

use futures_util::future::join;
use serde_json::json;

use crate::{
    client::{get, post},
    node::{Node, event, node, start},
    subscribe::Subscriber,
};

/// Two nodes over one store.
async fn two() -> [Node; 2] {
    let one = node().await;
    let of = one.folder.path().to_owned();
    let other = start(tempfile::tempdir().unwrap(), |config| crate::choose_store(config, &of)).await;
    [one, other]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_one_node_makes_a_read_of_another_include_its_write() {
    let [one, other] = two().await;
    for n in 0..20 {
        let stream = format!("s-{n}");
        let written = one.send(post(format!("/v1/streams/{stream}/events")).event(event("1", ""))).await;
        let token = written.header("quorate-token").unwrap().to_owned();
        let read = get(format!("/v1/events?category=s&after={n}")).header("quorate-token", &token);
        let read = other.send(read.header("prefer", "wait=20")).await;
        assert_eq!(read.events()[0]["stream"], json!(stream));
        let back = one.send(get("/v1/streams").header("quorate-token", read.header("quorate-token").unwrap())).await;
        assert_eq!(back.status, 200, "a token of a read is good on either: {}", back.text());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_follows_one_node_hears_what_is_appended_on_another_in_the_order_of_the_log() {
    let [one, other] = two().await;
    let mut subscriber = Subscriber::start(&other, get("/v1/events/subscribe")).await;
    assert!(subscriber.until_caught_up().await.is_empty());
    join(one.fill("a", 1, 50), other.fill("b", 1, 50)).await;
    assert_eq!(subscriber.positions(100).await, (1..=100).collect::<Vec<u64>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_requests_with_one_key_to_two_nodes_at_once_are_done_once() {
    let [one, other] = two().await;
    for n in 0..10 {
        let request =
            post("/v1/streams/a/events").header("idempotency-key", format!("k{n}")).event(event(&n.to_string(), ""));
        let (first, second) = join(one.send(request.clone()), other.send(request)).await;
        assert_eq!((first.status, second.status), (201, 201), "{} {}", first.text(), second.text());
        assert_eq!(first.body, second.body);
    }
    assert_eq!(one.get("/v1/streams/a/events").await.events().len(), 10);
}
