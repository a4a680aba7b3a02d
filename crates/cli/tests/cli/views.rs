//! Views from the command line. What needs a view that is kept up to date is tried with declared ones.

use quorate_data::{
    event::{NewEvent, Recorded},
    materialized_view::{Config, Fold, Folded, Views},
    store::{AppendBatch, ExpectedVersion, Query, sqlite},
    view_row,
};
use quorate_runtime::Env;

use crate::harness::Node;

#[test]
fn a_script_tells_missing_and_unusable_views_apart() {
    let node = Node::start();
    let run = |args: &[&str]| node.run(&[&["view"], args].concat());
    assert_eq!(run(&["list"]).ok().rows(), Vec::<Vec<&str>>::new());
    for action in [
        &["show", "x"][..],
        &["rebuild", "x"],
        &["pause", "x"],
        &["resume", "x"],
        &["switch", "x"],
        &["drop", "x", "--build", "1"],
        &["parked", "x"],
        &["skipped", "x"],
        &["replay", "x", "--key", "k"],
        &["skip", "x", "7"],
        &["audit", "x"],
    ] {
        assert!(run(action).failed(3).contains("view-not-found"), "{action:?}");
    }
    assert!(run(&["query", "x"]).failed(3).contains("view-not-found"));
    run(&["drop", "x"]).failed(2);
    assert!(run(&["show", "No Name"]).failed(2).contains("invalid-name"));
}

/// A node on a store that a program left with a view: stream `s-n` has n events, for n from 1 to 9.
fn node_with_a_view() -> (Node, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    std::fs::create_dir(&data).unwrap();
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let env = Env::real();
        let store = sqlite::open(&env, sqlite::Config::at(data.join("quorate.db"))).await.unwrap();
        let views = Views::open(&store).await.unwrap();
        let view = views.start(Folded::new(Counts), Config::default()).await.unwrap();
        for n in 1..=9 {
            let events = (0..n).map(|_| NewEvent::new(store.event_id(), "/test", "happened")).collect();
            let batch = AppendBatch::to(format!("s-{n}").parse().unwrap(), ExpectedVersion::Any, events);
            store.append(batch).await.unwrap();
        }
        view.wait(store.token(), std::time::Duration::from_secs(20)).await.unwrap();
        views.shut_down().await;
        store.close().await.unwrap();
    });
    (Node::start_in(folder.path(), &[]), folder)
}

view_row! {
    /// How many events a stream has.
    struct Count in "count" {
        stream: String,
        n: i64,
    }
}

struct Counts;

impl Fold for Counts {
    const NAME: &'static str = "counts";
    const VERSION: u32 = 1;
    type Row = Count;

    fn query(&self) -> Query {
        Query::EVERYTHING
    }

    fn key(&self, event: &Recorded) -> Option<String> {
        Some(event.stream().to_owned())
    }

    fn fold(&self, count: Option<Count>, event: &Recorded) -> Result<Option<Count>, String> {
        let n = count.map_or(0, |count| count.n) + 1;
        Ok(Some(Count { stream: event.stream().to_owned(), n }))
    }
}

#[test]
fn views_are_listed_with_what_is_unaccounted_for() {
    let (node, _folder) = node_with_a_view();
    assert_eq!(node.run(&["view", "list"]).ok().rows(), [["counts", "1", "1", "45", "0", "0", "0"]]);
    let shown = node.run(&["view", "show", "counts", "--output", "json"]).ok().json();
    assert_eq!(shown["builds"][0]["unaccounted"], 0);
}

#[test]
fn rows_are_queried_as_a_table_or_as_lines_of_json() {
    let (node, _folder) = node_with_a_view();
    let query = |args: &[&str]| node.run(&[&["view", "query", "counts"], args].concat());
    assert_eq!(
        node.run(&["view", "tables", "counts"]).ok().rows(),
        [vec!["count", "stream", "text", "1"], vec!["count", "n", "integer"]]
    );
    let two = query(&["--where", "n>=3", "--where", "n!=4", "--order", "n.desc", "--limit", "2"]).ok();
    assert_eq!(two.rows(), [["s-9", "9"], ["s-8", "8"]]);
    assert!(two.stderr.contains("there may be more"), "{}", two.stderr);
    let lines = query(&["--all", "--columns", "n", "--output", "json"]).ok();
    assert_eq!(lines.stdout.lines().collect::<Vec<_>>()[..2], ["{\"n\":1}", "{\"n\":2}"]);
    assert_eq!(lines.stdout.lines().count(), 9);
    assert_eq!(query(&["--key", "s-7"]).ok().rows(), [["stream", "s-7"], ["n", "7"]]);
    let sum =
        query(&["--sql", "SELECT sum(n) AS total, $2 AS word FROM count WHERE n > $1", "--param", "7", "--param", "x"]);
    assert_eq!(sum.ok().rows(), [["17", "x"]]);
    assert!(query(&["--key", "none"]).failed(3).contains("row-not-found"));
    assert!(query(&["--where", "m=1"]).failed(2).contains("invalid-view-query"));
    assert!(query(&["--sql", "DELETE FROM count"]).failed(1).contains("invalid-view"));
    let endless = "WITH RECURSIVE c(x) AS (VALUES (1) UNION ALL SELECT x + 1 FROM c) SELECT count(*) FROM c";
    assert!(query(&["--sql", endless]).failed(1).contains("views.max-query-time"));
}

#[test]
fn a_table_is_followed_until_all_is_told() {
    let (node, _folder) = node_with_a_view();
    let follow =
        ["view", "follow", "counts", "--table", "count", "--where", "n>7", "--until-caught-up", "--output", "json"];
    let told = node.run(&follow).ok();
    let events: Vec<serde_json::Value> = told.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let kinds: Vec<&str> = events.iter().map(|event| event["event"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["reset", "row", "row", "caught-up"]);
    assert_eq!(events[1]["data"]["row"], serde_json::json!({ "stream": "s-8", "n": 8 }));
}
