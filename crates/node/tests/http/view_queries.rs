//! Reading views over HTTP.

use std::time::Duration;

use quorate_data::materialized_view::{Config, View, Views};
use serde_json::{Value, json};

use crate::{
    client::{Reply, get, post},
    node::{Node, node_with},
    views::{Counts, append},
};

const FOR_EVER: &str = "WITH RECURSIVE c(x) AS (VALUES (1) UNION ALL SELECT x + 1 FROM c) SELECT count(*) FROM c";

/// A node with a view that a program on the same store keeps up to date: stream `s-n` has n events, for n up to 5.
pub(crate) async fn counting(change: impl FnOnce(&mut quorate_node::config::Config)) -> (Node, Views, View) {
    let node = node_with(change).await;
    let views = Views::open(&node.store).await.unwrap();
    let view = views.start(Counts("counts".parse().unwrap()), Config::default()).await.unwrap();
    for n in 1..=5 {
        for _ in 0..n {
            append(&node.store, &format!("s-{n}"), "happened").await;
        }
    }
    view.wait(node.store.token(), Duration::from_secs(20)).await.unwrap();
    (node, views, view)
}

async fn rows(node: &Node, query: &str) -> Reply {
    node.get(&format!("/v1/views/counts/tables/count/rows{query}")).await
}

async fn sql(node: &Node, body: Value) -> Reply {
    node.send(post("/v1/views/counts/query").json(body.to_string())).await
}

fn streams(reply: &Reply) -> Vec<String> {
    let rows = reply.json()["rows"].as_array().unwrap_or_else(|| panic!("{}", reply.text())).clone();
    rows.iter().map(|row| row["stream"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_are_listed_and_rows_read_by_key() {
    let (node, _views, _) = counting(|_| {}).await;
    let columns = json!([{ "name": "stream", "type": "text" }, { "name": "n", "type": "integer" }]);
    let tables = json!([{ "table": "count", "columns": columns, "key": ["stream"] }]);
    assert_eq!(node.get("/v1/views/counts/tables").await.json()["tables"], tables);
    let row = rows(&node, "/s-3").await;
    assert_eq!(row.json()["row"], json!({ "stream": "s-3", "n": 3 }), "{}", row.text());
    let told = [row.header("quorate-position"), row.header("quorate-lag"), row.header("quorate-build")];
    assert_eq!(told, [Some("15"), Some("0"), Some("1")]);
    assert_eq!(row.header("quorate-token").map(str::to_owned), Some(node.store.token().to_string()));
    append(&node.store, "a,b/c", "happened").await;
    let client = get("/v1/views/counts/tables/count/rows/a%2Cb%2Fc")
        .header("quorate-token", node.store.token().to_string())
        .header("prefer", "wait=20");
    assert_eq!(node.send(client).await.json()["row"]["n"], 1, "a read sees the write whose token it has");
    for (address, code) in [
        ("/v1/views/counts/tables/count/rows/none", "row-not-found"),
        ("/v1/views/counts/tables/count/rows/a,b", "invalid-view-query"),
        ("/v1/views/counts/tables/none/rows", "view-table-not-found"),
        ("/v1/views/none/tables/count/rows", "view-not-found"),
        ("/v1/views/counts/tables/count/rows/%zz", "invalid-name"),
    ] {
        assert_eq!(node.get(address).await.code(), code, "{address}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_filtered_ordered_and_read_page_by_page() {
    let (node, _views, _) = counting(|_| {}).await;
    assert_eq!(streams(&rows(&node, "?where=n.gte.2&where=n.lt.4").await), ["s-2", "s-3"]);
    let first = rows(&node, "?order=n.desc&limit=2").await;
    assert_eq!(streams(&first), ["s-5", "s-4"]);
    let second = node.get(&first.next().unwrap()).await;
    assert_eq!(streams(&second), ["s-3", "s-2"]);
    let last = node.get(&second.next().unwrap()).await;
    assert_eq!((streams(&last), last.next(), &last.json()["next"]), (vec!["s-1".to_owned()], None, &Value::Null));
    let narrow = rows(&node, "?columns=n&where=stream.eq.s-4").await.json();
    assert_eq!((&narrow["rows"], &narrow["logposition"]), (&json!([{ "n": 4 }]), &json!("15")));
    for wrong in [
        "?where=n",
        "?where=n.eq.x",
        "?order=m",
        "?columns=m",
        "?after=x",
        "?beyond=x",
        "?maxlag=soon",
        "?nothing=1",
        "?limit=0",
    ] {
        assert_eq!(rows(&node, wrong).await.status, 400, "{wrong}");
    }
    assert_eq!(rows(&node, "?limit=100000").await.code(), "limit-exceeded");
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_come_as_lines_and_are_not_sent_twice_to_who_has_them() {
    let (node, _views, _) = counting(|_| {}).await;
    let lines = get("/v1/views/counts/tables/count/rows?limit=2&order=n").header("accept", "application/x-ndjson");
    let lines = node.send(lines).await;
    assert_eq!(lines.text(), "{\"stream\":\"s-1\",\"n\":1}\n{\"stream\":\"s-2\",\"n\":2}\n");
    assert!(lines.header("content-type") == Some("application/x-ndjson") && lines.next().is_some());
    let first = rows(&node, "").await;
    let tag = first.header("etag").unwrap().to_owned();
    let again = get("/v1/views/counts/tables/count/rows").header("if-none-match", tag.clone());
    let same = node.send(again).await;
    assert_eq!((same.status, same.body.len(), same.header("etag")), (304, 0, Some(&*tag)));
    assert_eq!((first.header("vary"), same.header("vary")), (Some("accept"), Some("accept")));
    append(&node.store, "s-1", "happened").await;
    let other = get("/v1/views/counts/tables/count/rows")
        .header("if-none-match", tag)
        .header("quorate-token", node.store.token().to_string())
        .header("prefer", "wait=20");
    assert_eq!(node.send(other).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn sql_is_answered_with_its_parameters_bound() {
    let (node, _views, _) = counting(|_| {}).await;
    let found = sql(
        &node,
        json!({ "sql": "SELECT sum(n) AS total, $2 AS text FROM count WHERE n > $1", "params": [2, "'; --"] }),
    )
    .await;
    assert_eq!(found.json()["rows"], json!([{ "total": 12, "text": "'; --" }]), "{}", found.text());
    assert_eq!((found.header("quorate-position"), found.header("cache-control")), (Some("15"), Some("no-store")));
    for (wrong, status, code) in [
        (json!({ "sql": "SELEC" }), 400, "invalid-view"),
        (json!({ "sql": "SELECT * FROM quorate_meta" }), 400, "invalid-view"),
        (json!({ "sql": "DELETE FROM count" }), 400, "invalid-view"),
        (json!({ "sql": "SELECT $1 AS x" }), 400, "invalid-view"),
        (json!({ "sql": "SELECT n, n FROM count" }), 400, "invalid-view-query"),
        (json!({ "sql": "SELECT 1 AS x", "params": [[1]] }), 400, "invalid-json"),
        (json!({ "sql": "SELECT 1 AS x", "params": [18446744073709551615_u64] }), 400, "invalid-json"),
        (json!({ "query": "SELECT 1" }), 400, "invalid-json"),
    ] {
        let refused = sql(&node, wrong.clone()).await;
        assert_eq!((refused.status, &*refused.code()), (status, code), "{wrong}: {}", refused.text());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_that_takes_too_much_is_told_which_limit_and_how_to_raise_it() {
    let hurried = counting(|config| config.queries.time = Duration::from_millis(50)).await;
    let (node, _views, _) = counting(|config| {
        config.queries.rows = 3;
        config.queries.time = Duration::from_secs(3_600);
        config.queries.memory = 8 << 20;
    })
    .await;
    let sorting = "WITH RECURSIVE c(x) AS (VALUES (1) UNION ALL SELECT x + 1 FROM c WHERE x < 3000000)
        SELECT x FROM c ORDER BY hex(zeroblob(x % 1000)) LIMIT 1 OFFSET 2900000";
    let asked = [(&hurried.0, FOR_EVER, "time"), (&node, "SELECT * FROM count", "rows"), (&node, sorting, "memory")];
    for (node, statement, exceeded) in asked {
        let stopped = sql(node, json!({ "sql": statement })).await;
        let problem = stopped.json();
        assert_eq!((stopped.status, &*stopped.code()), (422, "query-stopped"), "{problem}");
        assert_eq!((&problem["exceeded"], &problem["retry"]), (&json!(exceeded), &json!("never")), "{problem}");
        let (setting, detail) = (format!("views.max-query-{exceeded}"), problem["detail"].as_str().unwrap());
        assert!(problem["setting"] == setting.as_str() && detail.contains("QUORATE_VIEWS_MAX_QUERY_"), "{problem}");
    }
    assert_eq!(streams(&rows(&node, "?limit=3").await).len(), 3, "and the next query is answered");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_ends_when_its_client_goes() {
    let (node, _views, _) = counting(|config| {
        config.queries.time = Duration::from_secs(3_600);
        config.queries.concurrent = 1;
    })
    .await;
    let mut client = node.client().await;
    client.begin(&post("/v1/views/counts/query").json(json!({ "sql": FOR_EVER }).to_string())).await;
    while node.metric("quorate_view_queries").await == 0 {
        node.pause(Duration::from_millis(5)).await;
    }
    drop(client);
    let after = rows(&node, "").await;
    assert_eq!(streams(&after).len(), 5, "its turn goes to the next");
    assert_eq!(node.metric("quorate_view_queries").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_that_is_behind_is_refused_or_flagged() {
    let (node, views, view) = counting(|_| {}).await;
    views.pause(view.name(), quorate_data::materialized_view::Build::new(1)).await.unwrap();
    append(&node.store, "s-1", "happened").await;
    let behind = get("/v1/views/counts/tables/count/rows").header("quorate-token", node.store.token().to_string());
    let refused = node.send(behind).await;
    assert_eq!((refused.status, &*refused.code(), &refused.json()["applied"]), (503, "view-behind", &json!("15")));
    assert!(refused.header("retry-after").is_some());
    let stale = rows(&node, "?maxlag=0s").await;
    assert_eq!(
        (stale.status, &*stale.code(), &stale.json()["applied"]),
        (503, "view-stale", &json!("15")),
        "{}",
        stale.text()
    );
    let flagged = rows(&node, "?maxlag=0s&beyond=flag").await;
    assert_eq!((&flagged.json()["stale"], flagged.header("quorate-stale")), (&json!(true), Some("true")));
    assert_eq!(flagged.json()["lag-events"], 1);
}
