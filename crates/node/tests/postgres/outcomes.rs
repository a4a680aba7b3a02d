//! What a database can do to a node, and what its clients are told.

use std::time::Duration;

use quorate_runtime::Env;
use serde_json::json;

use crate::{
    cable::Cable,
    client::{Reply, Request, get, post},
    database,
    node::{Node, event, start_in_world},
    server::Own,
    stranger::{stranger, try_stranger},
    subscribe::Subscriber,
};

/// A server of one's own with these options; without one the test has said that it is skipped, and ends.
macro_rules! own {
    ($options:expr) => {
        match Own::new($options) {
            Some(own) => own,
            None => return,
        }
    };
}

/// A node over the database at `address` that gives up soon.
async fn node_at(address: &str) -> Node {
    node_in_world(Env::real(), address).await
}

async fn node_in_world(env: Env, address: &str) -> Node {
    let folder = tempfile::tempdir().unwrap();
    let mut of = database(address, folder.path());
    of.patience = Duration::from_millis(400);
    start_in_world(env, folder, |config| config.database = Some(of)).await
}

fn append(id: &str) -> Request {
    post("/v1/streams/a/events").event(event(id, ""))
}

fn keyed(id: &str) -> Request {
    append(id).header("idempotency-key", id)
}

#[track_caller]
fn assert_refused(reply: &Reply, code: &str) {
    assert_eq!((reply.status, reply.code().as_str()), (503, code), "{}", reply.text());
    let document = reply.json();
    assert_eq!((&document["outcome"], &document["retry"]), (&json!("unchanged"), &json!("after")), "{document}");
    assert!(reply.header("retry-after").is_some(), "{reply:?}");
}

/// Repeats a request that is safe to repeat, until it is done.
async fn until_done(node: &Node, request: &Request) -> Reply {
    loop {
        let reply = node.send(request.clone()).await;
        if reply.status < 300 {
            return reply;
        }
        assert_eq!(reply.status, 503, "{}", reply.text());
        node.pause(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_killed_is_told_of_and_found_again_and_nothing_is_lost() {
    let own = own!("");
    let node = node_at(&own.address()).await;
    node.fill("a", 1, 3).await;
    let mut subscriber = Subscriber::start(&node, get("/v1/events/subscribe")).await;
    assert_eq!(subscriber.until_caught_up().await, [1, 2, 3]);
    own.kill();
    for request in [append("4"), keyed("4"), get("/v1/events"), get("/v1/streams/a/events"), get("/v1/streams")] {
        assert_refused(&node.send(request).await, "store-unreachable");
    }
    assert_eq!((node.get("/livez").await.status, node.get("/readyz").await.status), (200, 503));
    own.start();
    assert_eq!(until_done(&node, &append("4")).await.header("etag"), Some("\"4\""));
    assert_eq!(until_done(&node, &append("4")).await.header("etag"), Some("\"4\""), "it is known");
    assert_eq!(node.get("/readyz").await.status, 200);
    // Who followed goes on, on its connection or, where a look was in vain, on another.
    let mut last = 3;
    while last < 4 {
        match subscriber.next().await {
            Some(told) if told.event == "closing" => {
                assert_eq!(told.json()["reason"], "store-unreachable");
                let again = get("/v1/events/subscribe").header("last-event-id", last.to_string());
                subscriber = Subscriber::start(&node, again).await;
            }
            Some(told) if told.event.is_empty() && !told.comment => last = told.id.unwrap(),
            Some(_) => {}
            None => panic!("it is told before it ends"),
        }
    }
    assert_eq!(last, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_whose_answer_was_lost_is_known_by_its_key_or_its_event() {
    let Some(address) = crate::server::address() else { return };
    for (n, arrives) in [(1, true), (2, false)] {
        let cable = Cable::default();
        let node = node_in_world(cable.env(), &address).await;
        node.fill("a", 1, 1).await;
        for (what, request) in [("id", append("lost")), ("key", keyed("lost-too"))] {
            cable.lose_commit(1, arrives);
            let reply = node.send(request.clone()).await;
            // What can be looked up at once is; what cannot is said to be unknown.
            if reply.status != 201 {
                assert_eq!((reply.status, reply.code().as_str()), (500, "outcome-unknown"), "{n} {what}");
                let document = reply.json();
                assert_eq!((&document["outcome"], &document["retry"]), (&json!("unknown"), &json!("now")));
            }
            let again = node.send(request.clone()).await;
            assert_eq!(again.status, 201, "{n} {what}: {}", again.text());
        }
        let ids = node.get("/v1/streams/a/events").await.events();
        let ids: Vec<_> = ids.iter().map(|event| event["id"].as_str().unwrap().to_owned()).collect();
        assert_eq!(ids, ["a-1", "lost", "lost-too"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_is_read_and_says_that_it_takes_no_writes_until_it_is_promoted() {
    let own = own!("");
    let node = node_at(&own.address()).await;
    node.fill("a", 1, 3).await;
    let token = node.get("/v1/events").await.header("quorate-token").unwrap().to_owned();
    own.kill();
    own.demote();
    own.start();
    assert_eq!(until_done(&node, &get("/v1/streams/a/events")).await.events().len(), 3);
    assert_eq!(node.send(get("/v1/events").header("quorate-token", &token)).await.events().len(), 3);
    assert_eq!(node.get("/v1/streams").await.json()["streams"][0]["streamversion"], "3");
    for request in [append("4"), keyed("4")] {
        assert_refused(&node.send(request).await, "store-read-only");
    }
    let unready = node.get("/readyz").await;
    assert_eq!(unready.status, 503, "{}", unready.text());
    assert!(unready.json()["checks"]["store"].as_str().unwrap().starts_with("fail: "), "{}", unready.text());
    let refused = node_refused(&own.address()).await;
    assert!(refused.contains("standby"), "{refused}");
    own.promote();
    assert_eq!(until_done(&node, &keyed("4")).await.status, 201);
    assert_eq!(until_done(&node, &append("5")).await.header("etag"), Some("\"5\""));
    assert_eq!(node.get("/readyz").await.status, 200);
}

/// Why a node does not start over the database at `address`.
async fn node_refused(address: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let mut config = quorate_node::config::Config::in_folder(folder.path().join("data"));
    config.database = Some(database(address, folder.path()));
    match quorate_node::Server::bind(config, Env::real()).await {
        Ok(_) => panic!("it should not start"),
        Err(refused) => refused.to_string(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_somebody_made_read_only_says_so_and_is_written_again_afterwards() {
    let own = own!("");
    let node = node_at(&own.address()).await;
    let admin = stranger(&own.address()).await;
    let set = |to: &str| {
        format!(
            "ALTER DATABASE postgres SET default_transaction_read_only = {to};
             SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'quorate'"
        )
    };
    node.fill("a", 1, 1).await;
    admin.batch_execute(&set("on")).await.unwrap();
    for request in [append("2"), keyed("2")] {
        assert_refused(&node.send(request).await, "store-read-only");
    }
    assert_eq!(node.get("/v1/streams/a/events").await.events().len(), 1);
    admin.batch_execute("SET default_transaction_read_only = off").await.unwrap();
    admin.batch_execute("ALTER DATABASE postgres SET default_transaction_read_only = off").await.unwrap();
    admin.batch_execute(&set("off")).await.unwrap();
    assert_eq!(until_done(&node, &append("2")).await.status, 201);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_connections_left_says_so_and_gives_some_later() {
    let own = own!("-c max_connections=12 -c superuser_reserved_connections=0");
    let node = node_at(&own.address()).await;
    node.fill("a", 1, 1).await;
    let admin = stranger(&own.address()).await;
    let mut crowd = Vec::new();
    // Where the node's connections end, others take their places.
    let refused = loop {
        let ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'quorate'";
        admin.batch_execute(ended).await.unwrap();
        while let Ok(one) = try_stranger(&own.address()).await {
            crowd.push(one);
        }
        let reply = node.get("/v1/streams/a/events").await;
        if reply.status != 200 {
            break reply;
        }
    };
    assert_refused(&refused, "store-unreachable");
    assert!(refused.json()["detail"].as_str().unwrap().contains("too many"), "{}", refused.text());
    assert_refused(&node.send(append("2")).await, "store-unreachable");
    drop(crowd);
    assert_eq!(until_done(&node, &append("2")).await.status, 201);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_takes_longer_than_the_database_allows_is_refused_and_can_be_repeated() {
    let own = own!("-c statement_timeout=300ms");
    let node = node_at(&own.address()).await;
    node.fill("a", 1, 1).await;
    let mut admin = stranger(&own.address()).await;
    let held = admin.transaction().await.unwrap();
    let schema = held.query_one("SELECT nspname::text FROM pg_namespace WHERE nspname ~ '^h[0-9a-f]{20}$'", &[]).await;
    let schema: String = schema.unwrap().get(0);
    held.batch_execute(&format!("LOCK TABLE {schema}.event IN ACCESS EXCLUSIVE MODE")).await.unwrap();
    for request in [get("/v1/streams/a/events"), get("/v1/events")] {
        assert_refused(&node.send(request).await, "overloaded");
    }
    // A transaction has its own limit, which the node sets.
    let late = node.send(keyed("2")).await;
    assert_eq!((late.status, late.code().as_str()), (503, "overloaded"), "{}", late.text());
    assert_eq!(late.json()["outcome"], "unchanged");
    held.rollback().await.unwrap();
    assert_eq!(until_done(&node, &keyed("2")).await.status, 201);
    assert_eq!(node.get("/v1/streams/a/events").await.events().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_ready_only_while_its_database_answers_and_stops_while_it_does_not() {
    let own = own!("");
    let node = node_at(&own.address()).await;
    assert_eq!(node.get("/readyz").await.status, 200);
    own.kill();
    let ready = node.get("/readyz").await;
    assert_eq!(ready.status, 503);
    assert!(ready.json()["checks"]["store"].as_str().unwrap().contains("cannot be reached"), "{}", ready.text());
    node.end().await;
}
