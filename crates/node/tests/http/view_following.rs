//! Following views over HTTP, by the standard of server-sent events.

use std::collections::BTreeMap;

use quorate_data::materialized_view::{Build, Switch};
use serde_json::{Value, json};

use crate::{
    client::{Client, get, post, request},
    node::{Node, event, node_with},
    view_queries::counting,
    views::append,
};

/// A client that keeps the rows it is told.
struct Browser {
    client: Client,
    text: String,
    rows: BTreeMap<String, i64>,
    last_id: String,
    told: Vec<(String, Value)>,
}

impl Browser {
    async fn open(node: &Node, query: &str, last_id: &str) -> Self {
        let mut client = node.client().await;
        let mut request = get(format!("/v1/views/counts/tables/count/follow{query}"));
        if !last_id.is_empty() {
            request = request.header("last-event-id", last_id);
        }
        client.begin(&request).await;
        let head = client.head().await.unwrap();
        assert_eq!((head.status, head.header("content-type")), (200, Some("text/event-stream")), "{head:?}");
        Self { client, text: String::new(), rows: BTreeMap::new(), last_id: last_id.to_owned(), told: Vec::new() }
    }

    /// Goes on from here on another connection.
    async fn again(self, node: &Node, query: &str) -> Self {
        Self { rows: self.rows, ..Self::open(node, query, &self.last_id).await }
    }

    /// The next event: kind and data.
    async fn next(&mut self) -> (String, Value) {
        loop {
            while let Some((block, rest)) = self.text.split_once("\n\n") {
                let block = block.to_owned();
                self.text = rest.to_owned();
                if let Some(told) = self.take(&block) {
                    return told;
                }
            }
            let chunk = self.client.chunk().await.expect("it does not break off").expect("it does not end");
            self.text += std::str::from_utf8(&chunk).unwrap();
        }
    }

    fn take(&mut self, block: &str) -> Option<(String, Value)> {
        let field =
            |name: &str| block.lines().find_map(|line| line.strip_prefix(&format!("{name}:"))).map(str::trim_start);
        if let Some(id) = field("id") {
            id.clone_into(&mut self.last_id);
        }
        let (event, data) = (field("event")?, serde_json::from_str::<Value>(field("data")?).unwrap());
        let key = || data["key"]["stream"].as_str().unwrap().to_owned();
        match event {
            "reset" => self.rows.clear(),
            "row" => drop(self.rows.insert(key(), data["row"]["n"].as_i64().unwrap())),
            "gone" => drop(self.rows.remove(&key())),
            _ => {}
        }
        self.told.push((event.to_owned(), data.clone()));
        Some((event.to_owned(), data))
    }

    /// Reads on until it has caught up with a position.
    async fn until(&mut self, position: u64) {
        loop {
            let (event, data) = self.next().await;
            if event == "caught-up" && data["logposition"].as_str().unwrap().parse::<u64>().unwrap() >= position {
                return;
            }
        }
    }

    fn kinds(&self) -> Vec<&str> {
        self.told.iter().map(|(event, _)| &**event).collect()
    }

    fn is(&self, rows: &[(&str, i64)]) {
        let expected: BTreeMap<String, i64> = rows.iter().map(|(stream, n)| ((*stream).to_owned(), *n)).collect();
        assert_eq!(self.rows, expected, "{:#?}", self.told);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_is_told_all_rows_and_then_those_that_change() {
    let (node, _views, _) = counting(|_| {}).await;
    let mut browser = Browser::open(&node, "", "").await;
    browser.until(15).await;
    browser.is(&[("s-1", 1), ("s-2", 2), ("s-3", 3), ("s-4", 4), ("s-5", 5)]);
    assert_eq!(browser.kinds(), ["reset", "row", "row", "row", "row", "row", "caught-up"]);
    assert_eq!(browser.told[0].1["reason"], "begun");
    append(&node.store, "s-2", "happened").await;
    append(&node.store, "new", "happened").await;
    browser.until(17).await;
    browser.is(&[("new", 1), ("s-1", 1), ("s-2", 3), ("s-3", 3), ("s-4", 4), ("s-5", 5)]);
    let changes: Vec<&Value> =
        browser.told.iter().filter(|(event, _)| event == "row").map(|(_, data)| &data["change"]).collect();
    assert_eq!(changes[5..], [&json!("updated"), &json!("inserted")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_comes_back_misses_nothing_and_is_told_nothing_twice() {
    let (node, _views, _) = counting(|_| {}).await;
    let mut browser = Browser::open(&node, "", "").await;
    browser.until(15).await;
    append(&node.store, "s-1", "happened").await;
    append(&node.store, "s-9", "happened").await;
    append(&node.store, "s-9", "happened").await;
    let mut browser = browser.again(&node, "").await;
    browser.until(18).await;
    browser.is(&[("s-1", 2), ("s-2", 2), ("s-3", 3), ("s-4", 4), ("s-5", 5), ("s-9", 2)]);
    assert!(!browser.kinds().contains(&"reset") && browser.kinds().len() <= 5, "{:?}", browser.kinds());
    let mut other = browser.again(&node, "?where=n.gt.3").await;
    other.until(18).await;
    assert_eq!(other.told[0].1["reason"], "outdated", "a cursor belongs to its query");
    other.is(&[("s-4", 4), ("s-5", 5)]);
    append(&node.store, "s-3", "happened").await;
    other.until(19).await;
    other.is(&[("s-3", 4), ("s-4", 4), ("s-5", 5)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_switch_of_builds_is_told_and_all_rows_with_it() {
    let (node, views, view) = counting(|_| {}).await;
    let mut browser = Browser::open(&node, "", "").await;
    browser.until(15).await;
    views.rebuild(view.name(), Switch::WhenCaughtUp).await.unwrap();
    loop {
        let (event, data) = browser.next().await;
        if event == "reset" {
            assert_eq!(data["reason"], "switched");
            break;
        }
    }
    browser.until(15).await;
    browser.is(&[("s-1", 1), ("s-2", 2), ("s-3", 3), ("s-4", 4), ("s-5", 5)]);
    assert_eq!(browser.told.last().unwrap().1["build"], 2);
    views.drop_build(view.name(), Build::new(1)).await.unwrap();
    append(&node.store, "s-1", "happened").await;
    browser.until(16).await;
    assert_eq!(browser.rows["s-1"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_followed_is_refused_before_anything_is_told() {
    let (node, _views, _) = counting(|_| {}).await;
    for (address, code) in [
        ("/v1/views/counts/tables/none/follow", "view-table-not-found"),
        ("/v1/views/none/tables/count/follow", "view-not-found"),
        ("/v1/views/counts/tables/count/follow?where=m.eq.1", "invalid-view-query"),
        ("/v1/views/counts/tables/count/follow?limit=1", "invalid-parameter"),
    ] {
        assert_eq!(node.get(address).await.code(), code, "{address}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_view_is_heard_now_and_then() {
    let (node, _views, _) = counting(|config| config.http.heartbeat = std::time::Duration::from_millis(20)).await;
    let mut browser = Browser::open(&node, "", "").await;
    browser.until(15).await;
    while !browser.text.contains(": heartbeat\n\n") {
        let chunk = browser.client.chunk().await.unwrap().unwrap();
        browser.text += std::str::from_utf8(&chunk).unwrap();
    }
}

/// A row for each stream, with all of its data.
const LARGE: &str = r#"view = "counts"
version = 1

[tables.count]
key = "stream"
columns = { stream = "text", n = "integer", data = "text" }

[[on]]
bind = { stream = "$.stream", data = "$.data" }
sql = """
    INSERT INTO count (stream, n, data) VALUES (:stream, 1, :data)
    ON CONFLICT (stream) DO UPDATE SET n = count.n + 1, data = excluded.data"""
"#;

/// Fills 400 rows of 60 kB each.
async fn fill_large(client: &mut Client, turn: usize) {
    let data = format!(r#","data":"{}""#, "x".repeat(60_000));
    for n in 0..400 {
        let append = post(format!("/v1/streams/s-{n}/events")).event(event(&format!("{turn}"), &data));
        assert_eq!(client.send(append).await.status, 201);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_never_reads_is_let_go_and_can_come_back() {
    let node = node_with(|config| config.http.write_timeout = std::time::Duration::from_millis(300)).await;
    let put = request("PUT", "/v1/views/counts/document").header("content-type", "application/toml").body(LARGE);
    assert_eq!(node.send(put).await.status, 201);
    while node.get("/v1/views/counts/tables/count/rows").await.status != 200 {
        node.pause(std::time::Duration::from_millis(10)).await;
    }
    let mut client = node.client().await;
    // One takes nothing of what there is, another nothing of what changes.
    let mut early = Browser::open(&node, "", "").await;
    early.until(0).await;
    fill_large(&mut client, 1).await;
    let deaf = Browser::open(&node, "", "").await;
    let env = quorate_runtime::Env::real();
    let gone = env.timeout(crate::client::PATIENCE, async {
        while node.metric("quorate_http_subscribers").await > 0 || node.metric("quorate_http_connections").await > 2 {
            env.sleep(std::time::Duration::from_millis(20)).await;
        }
    });
    assert!(gone.await.is_some(), "24 MB wait for each of them, and they are still being served");
    drop(deaf);

    let mut back = early.again(&node, "").await;
    back.until(400).await;
    assert_eq!(back.rows.len(), 400);
    assert!(back.rows.values().all(|n| *n == 1), "{:?}", back.rows);
}
