use std::time::Duration;

use quorate_node::{ServeError, Server, config::Config};
use quorate_runtime::Env;
use serde_json::Value;

use crate::{
    client::{get, post, request},
    node::{event, node, node_with, start},
    view_queries::counting,
    views::node_with_a_view,
};

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_is_there_after_a_restart() {
    let node = node().await;
    node.fill("a", 1, 10).await;
    let node = node.restart().await;
    assert_eq!(node.get("/v1/streams/a/events").await.events().len(), 10);
    node.fill("a", 11, 11).await;
    assert_eq!(node.get("/v1/events?after=10").await.events()[0]["logposition"], "11");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_in_progress_is_finished_before_the_node_stops() {
    let node = node().await;
    let mut client = node.client().await;
    assert_eq!(client.send(get("/livez")).await.status, 200);
    let body = event("1", "");
    let head = format!(
        "POST /v1/streams/a/events HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/cloudevents+json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    client.write(head.as_bytes()).await;
    client.write(&body.as_bytes()[..10]).await;
    let env = Env::real();
    env.sleep(Duration::from_millis(50)).await; // so that the node has begun with it
    node.stop();
    env.sleep(Duration::from_millis(50)).await;
    client.write(&body.as_bytes()[10..]).await;
    let reply = client.reply().await.expect("a reply");
    assert_eq!((reply.status, reply.header("connection")), (201, Some("close")), "{}", reply.text());
    node.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_told_to_stop_says_so_for_a_while_and_serves_until_then() {
    let node = node_with(|config| config.http.drain_delay = Duration::from_secs(2)).await;
    node.fill("a", 1, 1).await;
    let mut kept = node.client().await;
    assert_eq!(kept.send(get("/readyz")).await.status, 200);
    node.stop();
    let told = node.get("/readyz").await;
    assert_eq!(told.status, 503, "{}", told.text());
    assert_eq!(told.json()["checks"]["accepting"], "fail: the node is stopping");
    assert_eq!(kept.send(get("/readyz")).await.status, 503, "on a connection of before, too");
    assert_eq!(node.get("/livez").await.status, 200);
    node.fill("a", 2, 2).await;
    assert_eq!(node.get("/v1/streams/a/events").await.events().len(), 2);
    assert!(kept.is_closed_within(crate::client::PATIENCE).await, "in the end it stops");
    let node = start(node.stopped().await, |_| {}).await;
    assert_eq!(node.get("/v1/streams/a/events").await.events().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn views_include_what_is_appended_while_a_node_that_is_told_to_stop_still_serves() {
    let (node, _views, _view) = counting(|config| config.http.drain_delay = Duration::from_secs(3)).await;
    node.stop();
    let appended = node.send(post("/v1/streams/late/events").event(event("1", ""))).await;
    assert_eq!(appended.status, 201, "{}", appended.text());
    let row = get("/v1/views/counts/tables/count/rows/late").header("prefer", "wait=2");
    let row = node.send(row.header("quorate-token", appended.header("quorate-token").unwrap())).await;
    assert_eq!((row.status, &row.json()["row"]["n"]), (200, &1.into()), "{}", row.text());
    node.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_never_ends_does_not_keep_the_node_from_stopping() {
    let node = node_with(|config| config.http.drain_timeout = Duration::from_millis(300)).await;
    let mut client = node.client().await;
    client.write(b"POST /v1/streams/a/events HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 5\r\ncontent-type: application/cloudevents+json\r\n\r\n{").await;
    let mut idle = node.client().await;
    assert_eq!(idle.send(get("/livez")).await.status, 200);
    node.stop();
    assert!(idle.is_closed_within(crate::client::PATIENCE).await);
    node.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_node_on_the_same_data_is_refused() {
    let node = node().await;
    let config = Config::in_folder(node.folder.path().join("data"));
    let refused = Server::bind(config, Env::real()).await.err().expect("refused");
    assert!(matches!(refused, ServeError::Open(_)), "{refused}");
    let mut taken = Config::in_folder(node.folder.path().join("other"));
    taken.listen = node.address;
    assert!(matches!(Server::bind(taken, Env::real()).await.err(), Some(ServeError::Listen { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn health_is_told_in_its_three_kinds() {
    let node = node().await;
    for path in ["/livez", "/readyz", "/startupz"] {
        let reply = node.get(path).await;
        assert_eq!((reply.status, reply.json()["status"].as_str()), (200, Some("pass")), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::disallowed_methods, reason = "a test damages the store's files from outside")]
async fn a_node_that_takes_no_appends_is_not_ready_and_says_why() {
    use std::os::unix::fs::FileExt;
    let node = node().await;
    node.fill("a", 1, 50).await;
    let log = node.folder.path().join("data/quorate.db-wal");
    let log = std::fs::File::options().read(true).write(true).open(log).unwrap();
    // In the page of the newest frame.
    let at = log.metadata().unwrap().len() - 2_000;
    let flip = || {
        let mut byte = [0];
        log.read_exact_at(&mut byte, at).unwrap();
        log.write_all_at(&[byte[0] ^ 4], at).unwrap();
    };
    flip();
    node.store.wipe("a".parse().unwrap()).await.unwrap();
    let told = node.get("/readyz").await;
    assert_eq!((told.status, told.json()["status"].as_str()), (503, Some("fail")), "{}", told.text());
    let why = told.json()["checks"]["store"].as_str().unwrap().to_owned();
    assert!(why.contains("nothing was written") && why.contains("of the write-ahead log: the checksum"), "{why}");
    let refused = node.send(post("/v1/streams/a/events").event(event("more", ""))).await;
    assert_eq!((refused.status, refused.code().as_str()), (500, "store-corrupt"), "{}", refused.text());
    assert_eq!(refused.json()["outcome"], "unchanged");
    assert_eq!(node.get("/v1/streams/a/events").await.events().len(), 50, "what is there can be read");
    flip();
    node.store.wipe("a".parse().unwrap()).await.unwrap();
    assert_eq!(node.get("/readyz").await.status, 200);
    node.fill("a", 51, 51).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_count_what_happened() {
    let node = node().await;
    node.fill("a", 1, 3).await;
    node.get("/nowhere").await;
    assert_eq!(node.metric("quorate_log_position").await, 3);
    assert_eq!(node.metric("quorate_http_replies_4xx_total").await, 1);
    assert!(node.metric("quorate_http_replies_2xx_total").await >= 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_documented_operation_is_served() {
    let node = node_with_a_view().await;
    node.fill("a", 1, 1).await;
    assert_eq!(node.send(post("/v1/schemas/a/versions").json("true")).await.status, 201);
    let document = node.get("/openapi.json").await.json();
    assert_eq!(document["openapi"], "3.1.0");
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys().filter(|key| *key != "parameters") {
            // Anew each time: one of the operations deletes it.
            let created = node.send(request("PUT", "/v1/subscriptions/a").json("{}")).await;
            assert_eq!(created.status, 200, "{}", created.text());
            let address = path.replace("{stream}", "a").replace("{version}", "1").replace("{code}", "overloaded");
            let name = if path.starts_with("/v1/views") { "counts" } else { "a" };
            let address = address.replace("{name}", name).replace("{type}", "a");
            let mut client = node.client().await;
            client.begin(&request(&method.to_uppercase(), address.clone())).await;
            let head = client.head().await.unwrap();
            assert!(![405, 500, 501].contains(&head.status), "{method} {path}: {}", head.status);
            if head.status == 404 {
                // What was asked of is not there; where nothing is served, the page itself is not.
                let reply = node.send(request(&method.to_uppercase(), address)).await;
                assert!(reply.code() != "not-found", "{method} {path}: {}", reply.text());
            }
            let declared = &item[method]["responses"];
            assert!(
                head.status >= 400 || declared.get(head.status.to_string()).is_some(),
                "{method} {path}: {}",
                head.status
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_problem_leads_to_a_page() {
    let node = node().await;
    let document = node.get("/openapi.json").await.json();
    let types = document["components"]["schemas"]["Problem"]["properties"]["type"]["enum"].as_array().unwrap().clone();
    assert!(types.len() > 30);
    let mut client = node.client().await;
    for address in types.iter().map(Value::as_str) {
        let page = client.send(get(address.unwrap())).await;
        assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
        assert!(page.text().contains("What to do."), "{address:?}");
    }
    let index = client.send(get("/")).await;
    assert!(index.text().contains("href=\"/openapi.json\"") && index.text().contains("href=\"/errors/overloaded\""));
}

#[tokio::test(flavor = "multi_thread")]
async fn replies_carry_the_date_and_requests_over_the_limit_are_refused() {
    let node = node_with(|config| config.http.max_requests = 1).await;
    let mut subscriber = node.client().await;
    subscriber.begin(&get("/v1/events/subscribe")).await;
    assert_eq!(subscriber.head().await.unwrap().status, 200);
    let reply = node.send(post("/v1/streams/a/events").event(event("1", ""))).await;
    assert_eq!((reply.status, reply.code().as_str()), (503, "overloaded"));
    assert!(reply.header("date").is_some_and(|date| date.ends_with(" GMT")));
}
