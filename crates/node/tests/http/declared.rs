//! Views that are declared over HTTP: from document to rows, over restarts, and by a folder.

use std::{io::Write as _, path::Path, time::Duration};

use quorate_node::{ServeError, Server, config::Config};
use quorate_runtime::Env;
use serde_json::{Value, json};

use crate::{
    client::{Reply, post, request},
    node::{Node, event, node, node_with},
};

/// How many events each stream has.
const COUNTS: &str = r#"view = "counts"
version = 1
on-poison = "park"

[tables.count]
key = "stream"
columns = { stream = "text", n = "integer", last = "text" }

[[on]]
bind = { stream = "$.stream", last = "$.id" }
sql = """
    INSERT INTO count (stream, n, last) VALUES (:stream, 1, :last)
    ON CONFLICT (stream) DO UPDATE SET n = count.n + 1, last = excluded.last"""

[[samples]]
events = [{ stream = "a", type = "x" }, { stream = "a", type = "y" }]
rows.count = [{ stream = "a", n = 2, last = "sample-2" }]
"#;

async fn declare(node: &Node, name: &str, text: &str) -> Reply {
    let put = request("PUT", format!("/v1/views/{name}/document"));
    node.send(put.header("content-type", "application/toml").body(text)).await
}

/// Waits until `is` holds of how the view stands.
async fn until(node: &Node, is: impl Fn(&Value) -> bool) -> Value {
    for _ in 0..4_000 {
        let view = node.get("/v1/views/counts").await.json();
        if is(&view) {
            return view;
        }
        node.pause(Duration::from_millis(5)).await;
    }
    panic!("it never came to that: {}", node.get("/v1/views/counts").await.text());
}

/// Waits until the view has seen everything, and returns how it stands.
async fn caught_up(node: &Node) -> Value {
    until(node, |view| {
        let newest = view["builds"].as_array().and_then(|builds| builds.last());
        newest.is_some_and(|newest| newest["lag-events"] == 0 && newest["live"] == true)
    })
    .await
}

/// The rows that readers have.
async fn rows(node: &Node) -> Vec<(String, i64)> {
    let read = node.get("/v1/views/counts/tables/count/rows").await.json();
    let row = |row: &Value| (row["stream"].as_str().unwrap().to_owned(), row["n"].as_i64().unwrap());
    read["rows"].as_array().unwrap_or_else(|| panic!("{read}")).iter().map(row).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_is_declared_filled_and_goes_on_after_a_restart() {
    let node = node().await;
    node.fill("a", 1, 3).await;
    let declared = declare(&node, "counts", COUNTS).await;
    assert_eq!(declared.status, 201, "{}", declared.text());
    assert_eq!(declared.json(), json!({ "view": "counts", "version": 1, "new": true }));
    let again = declare(&node, "counts", COUNTS).await;
    assert_eq!((again.status, &again.json()["new"]), (200, &json!(false)));
    let view = caught_up(&node).await;
    assert_eq!((&view["declared"], &view["builds"][0]["tables"]), (&json!([1]), &json!(["count"])));
    assert_eq!(rows(&node).await, [("a".to_owned(), 3)]);

    let node = node.restart().await;
    node.fill("b", 1, 2).await;
    caught_up(&node).await;
    assert_eq!(rows(&node).await, [("a".to_owned(), 3), ("b".to_owned(), 2)]);
    let document = node.get("/v1/views/counts/document").await;
    assert_eq!((document.header("content-type"), document.header("etag")), (Some("application/toml"), Some("\"1\"")));
    assert_eq!(document.text(), COUNTS);
    assert_eq!(node.get("/v1/views/counts/document?version=2").await.code(), "view-not-found");
    node.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_declared_view_is_rebuilt_paused_audited_and_deleted_like_any_other() {
    let node = node().await;
    declare(&node, "counts", COUNTS).await;
    node.fill("a", 1, 3).await;
    caught_up(&node).await;
    let act = async |action: &str, body: Value| {
        node.send(post(format!("/v1/views/counts/{action}")).json(body.to_string())).await
    };
    let rebuilt = act("rebuild", json!({})).await;
    assert_eq!((rebuilt.status, &rebuilt.json()["build"]), (202, &json!(2)));
    assert_eq!(caught_up(&node).await["live"], 2);
    assert_eq!(act("audit", json!({ "build": 2 })).await.json()["whole"], true);
    assert_eq!(act("pause", json!({})).await.json()["paused"], true);
    assert_eq!(act("resume", json!({})).await.json()["paused"], false);
    let deleted = node.send(request("DELETE", "/v1/views/counts")).await;
    assert_eq!((deleted.status, &deleted.json()["deleted"]), (200, &json!(true)), "{}", deleted.text());
    assert_eq!(node.get("/v1/views/counts").await.code(), "view-not-found");
    assert_eq!(node.send(request("DELETE", "/v1/views/counts")).await.code(), "view-not-found");
    assert_eq!(declare(&node, "counts", COUNTS).await.status, 201, "its name is free again");
    node.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_document_needs_a_new_version_which_is_built_beside() {
    let node = node().await;
    declare(&node, "counts", COUNTS).await;
    node.fill("a", 1, 3).await;
    caught_up(&node).await;
    let changed = COUNTS.replace("count.n + 1", "count.n + 10").replace("n = 2", "n = 11");
    let refused = declare(&node, "counts", &changed).await;
    assert_eq!((refused.status, refused.code().as_str()), (409, "view-changed"));
    assert_eq!(declare(&node, "counts", &changed.replace("version = 1", "version = 2")).await.status, 201);
    let view = caught_up(&node).await;
    assert_eq!((&view["live"], &view["declared"]), (&json!(2), &json!([1, 2])));
    assert_eq!(rows(&node).await, [("a".to_owned(), 21)]);
    node.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_is_checked_and_each_fault_has_its_place() {
    let node = node().await;
    let check = async |text: String| {
        node.send(post("/v1/views/counts/check").header("content-type", "application/toml").body(text)).await
    };
    let fine = check(COUNTS.to_owned()).await;
    assert_eq!((fine.status, fine.json()), (200, json!({ "view": "counts", "version": 1, "valid": true })));
    for (from, to, line, field) in [
        ("version = 1", "version = 0", 2, "version"),
        ("INTO count", "INTO quorate_block", 12, "on[0].sql"),
        ("count.n + 1", "count.n + random()", 13, "on[0].sql"),
        ("count.n + 1", "count.nn + 1", 11, "on[0].sql"),
        ("n = 2", "n = 3", 17, "samples[0].rows.count[0]"),
    ] {
        let refused = check(COUNTS.replace(from, to)).await;
        assert_eq!((refused.status, refused.code().as_str()), (400, "invalid-view"), "{}", refused.text());
        let fault = &refused.json()["faults"][0];
        assert_eq!((&fault["line"], &fault["field"]), (&json!(line), &json!(field)), "{to}: {fault}");
    }
    let other = node.send(post("/v1/views/other/check").header("content-type", "application/toml").body(COUNTS)).await;
    assert_eq!((other.status, other.code().as_str()), (400, "invalid-view"));
    let text = node.send(post("/v1/views/counts/check").header("content-type", "text/plain").body(COUNTS)).await;
    assert_eq!((text.status, text.code().as_str()), (415, "unsupported-media-type"));
    let large = check(format!("# {}\n{COUNTS}", "x".repeat(256 << 10))).await;
    assert_eq!((large.status, large.code().as_str()), (413, "too-large"));
    assert_eq!(node.get("/v1/views").await.json()["views"], json!([]), "nothing was declared");
    let schema = node.get("/view.schema.json").await;
    assert_eq!(schema.json()["title"], "A declared view of quorate");
    node.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_is_explained_by_its_events() {
    let node = node().await;
    declare(&node, "counts", COUNTS).await;
    node.fill("a", 1, 2).await;
    node.fill("b", 1, 1).await;
    caught_up(&node).await;
    let why = node.get("/v1/views/counts/explain?table=count&key=a").await.json();
    assert_eq!((&why["total"], &why["row"]), (&json!(2), &json!({ "stream": "a", "n": 2, "last": "a-2" })));
    assert_eq!(why["events"][0]["before"], Value::Null);
    assert_eq!((&why["events"][1]["logposition"], &why["events"][1]["before"]["n"]), (&json!("2"), &json!(1)));
    for (query, code) in [
        ("table=count&key=a&key=b", "invalid-parameter"),
        ("table=nothing&key=a", "invalid-parameter"),
        ("key=a", "invalid-parameter"),
    ] {
        assert_eq!(node.get(&format!("/v1/views/counts/explain?{query}")).await.code(), code, "{query}");
    }
    assert_eq!(node.get("/v1/views/none/explain?table=count&key=a").await.code(), "view-not-found");
    node.end().await;
}

/// A version of it that stops at the first event.
fn stopping(version: u32) -> String {
    let without_samples = &COUNTS[..COUNTS.find("[[samples]]").unwrap()];
    let stops = without_samples.replace("on-poison = \"park\"\n", "").replace("$.id", "$.data.nowhere");
    stops.replace("version = 1", &format!("version = {version}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_that_stops_before_anybody_can_read_it_is_measured_as_stalled() {
    let node = node().await;
    node.fill("a", 1, 1).await;
    assert_eq!(declare(&node, "counts", &stopping(1)).await.status, 201);
    until(&node, |view| view["builds"][0]["shards"][0]["standing"] == "stopped").await;
    assert_eq!(node.metric("quorate_view_stalled{view=\"counts\"}").await, 1);
    assert_eq!(node.metric("quorate_view_lag_events{view=\"counts\"}").await, 1);
    node.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_next_version_that_stops_is_measured_as_stalled() {
    let node = node().await;
    node.fill("a", 1, 1).await;
    assert_eq!(declare(&node, "counts", COUNTS).await.status, 201);
    caught_up(&node).await;
    assert_eq!(node.metric("quorate_view_stalled{view=\"counts\"}").await, 0);
    assert_eq!(declare(&node, "counts", &stopping(2)).await.status, 201);
    until(&node, |view| view["builds"][1]["shards"][0]["standing"] == "stopped").await;
    assert_eq!(node.metric("quorate_view_stalled{view=\"counts\"}").await, 1);
    assert_eq!(node.metric("quorate_view_lag_events{view=\"counts\"}").await, 0, "what readers have is up to date");
    node.end().await;
}

fn write(path: &Path, text: &str) {
    Env::real().disk().create(path).unwrap().write_all(text.as_bytes()).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_in_a_folder_are_declared_when_they_come_and_when_they_change() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_owned();
    write(&path.join("broken.toml"), "view = 7");
    write(&path.join("readme.md"), "no document");
    let watched = path.clone();
    let node = node_with(|config| config.view_folder = Some((watched, Duration::from_millis(10)))).await;
    node.send(post("/v1/streams/a/events").event(event("a-1", ""))).await;
    write(&path.join("counts.toml"), COUNTS);
    caught_up(&node).await;
    write(&path.join("counts.toml"), &COUNTS.replace("version = 1", "version = 2"));
    until(&node, |view| view["declared"] == json!([1, 2])).await;
    Env::real().disk().remove(&path.join("counts.toml")).unwrap();
    assert_eq!(caught_up(&node).await["live"], 2, "a view outlives its file");
    node.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_could_not_start_leaves_no_view_at_work_that_holds_the_store() {
    let node = node().await;
    declare(&node, "counts", COUNTS).await;
    caught_up(&node).await;
    let (folder, env) = (node.end().await, Env::real());
    let policies = folder.path().join("policies");
    env.disk().create_dir_all(&policies).unwrap();
    write(&policies.join("bank.yaml"), "kind: Nothing");
    let config = || Config::in_folder(folder.path().join("data"));
    let wrong = Config { policy_folder: Some((policies, Duration::from_secs(1))), ..config() };
    assert!(matches!(Server::bind(wrong, env.clone()).await.err(), Some(ServeError::PolicyFolder { .. })));
    let again = async {
        while Server::bind(config(), env.clone()).await.is_err() {
            env.sleep(Duration::from_millis(10)).await;
        }
    };
    env.timeout(crate::client::PATIENCE, again).await.expect("the store is free");
}

/// How many things a shop has sold, at most an hour behind the shop.
const SALES: &str = r#"view = "sales"
version = 1
from = { source = "https://shop.example", heartbeat = "tick" }
staleness = { max-feed-seconds = 3600 }
tables.sale = { key = "id", columns = { id = "text" } }

[[on]]
type = "sold"
bind = { id = "$.id" }
sql = "INSERT INTO sale (id) VALUES (:id)"
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_view_behind_a_silent_feed_is_refused_or_flagged_with_its_age() {
    let node = node().await;
    assert_eq!(declare(&node, "sales", SALES).await.status, 201);
    let says = async |kind: &str, time: &str| {
        let event = json!({ "specversion": "1.0", "id": format!("{kind}-{time}"), "source": "https://shop.example", "type": kind, "time": time });
        let append = post("/v1/streams/shop-1/events").header("content-type", "application/cloudevents+json");
        let appended = node.send(append.body(event.to_string())).await;
        assert_eq!(appended.status, 201, "{}", appended.text());
        appended.header("quorate-token").unwrap().to_owned()
    };
    let read = async |query: &str, token: &str| {
        let get = request("GET", format!("/v1/views/sales/tables/sale/rows{query}")).header("prefer", "wait=20");
        node.send(get.header("quorate-token", token)).await
    };
    let old = says("sold", "2020-01-01T00:00:00Z").await;
    let flagged = read("?beyond=flag", &old).await;
    assert_eq!((flagged.status, flagged.header("quorate-stale")), (200, Some("true")), "{}", flagged.text());
    let feed = &flagged.json()["feeds"][0];
    assert_eq!((&feed["source"], &feed["stale"]), (&json!("https://shop.example"), &json!(true)));
    assert_eq!(feed["time"], "2020-01-01T00:00:00Z");
    assert!(flagged.header("quorate-feed-lag").unwrap().parse::<f64>().unwrap() > 1e8);
    let refused = node.get("/v1/views/sales/tables/sale/rows").await;
    assert_eq!((refused.status, refused.code().as_str()), (503, "view-feed-stale"), "{}", refused.text());
    assert_eq!((&refused.json()["source"], &refused.json()["max-feed-seconds"]), (&feed["source"], &json!(3600.0)));
    assert_eq!(node.metric("quorate_view_feed_stale{view=\"sales\"}").await, 1);

    let now = quorate_data::event::Timestamp::from(node.store.env().wall());
    let fresh = read("", &says("tick", now.as_str()).await).await;
    assert_eq!((fresh.status, &fresh.json()["stale"]), (200, &json!(false)), "{}", fresh.text());
    assert_eq!(fresh.json()["rows"].as_array().unwrap().len(), 1, "a heartbeat changes no row");
    assert_eq!(node.get("/v1/views/sales").await.json()["builds"][0]["feeds"][0]["stale"], false);
    node.end().await;
}
