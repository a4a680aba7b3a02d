use quorate_data::{
    event::{NewEvent, Recorded},
    materialized_view::{ApplyError, Config, OnPoison, Projection, Schema, Switch, ViewName, ViewTx, Views},
    store::{AppendBatch, ExpectedVersion, Query, Store, sqlite},
};
use quorate_runtime::{BoxFuture, Env};
use serde_json::{Value, json};

use crate::{
    client::{Reply, post},
    node::{Node, node, node_in},
};

/// How many events each stream has, but for those of type `poison`.
pub(crate) struct Counts(pub(crate) ViewName);

impl Projection for Counts {
    fn name(&self) -> &ViewName {
        &self.0
    }

    fn version(&self) -> u32 {
        1
    }

    fn query(&self) -> Query {
        Query::EVERYTHING
    }

    fn schema(&self) -> Schema {
        Schema::new().table("count", "CREATE TABLE {count} (stream TEXT PRIMARY KEY, n BIGINT NOT NULL)")
    }

    fn apply<'t, 'x: 't>(
        &'t self,
        tx: &'t mut ViewTx<'x>,
        events: &'t [Recorded],
    ) -> BoxFuture<'t, Result<(), ApplyError>> {
        Box::pin(async move {
            for event in events {
                if event.kind() == "poison" {
                    return Err(ApplyError::event(event, "it is poison"));
                }
                let sql = "INSERT INTO {count} VALUES ($1, 1) ON CONFLICT (stream) DO UPDATE SET n = n + 1";
                tx.execute(sql, &[event.stream().into()]).await?;
            }
            Ok(())
        })
    }
}

pub(crate) async fn append(store: &Store, stream: &str, kind: &str) {
    let event = NewEvent::new(store.event_id(), "/test", kind);
    store.append(AppendBatch::to(stream.parse().unwrap(), ExpectedVersion::Any, vec![event])).await.unwrap();
}

/// A node whose store has a view that a program with code of its own kept: two builds, the older one live, one key parked.
pub(crate) async fn node_with_a_view() -> Node {
    node_with_a_view_after(None).await
}

/// The same, once `harm` was done to what the store says of the view.
async fn node_with_a_view_after(harm: Option<&'static str>) -> Node {
    let folder = tempfile::tempdir().unwrap();
    let config = quorate_node::config::Config::in_folder(folder.path().join("data"));
    Env::real().disk().create_dir_all(&config.data).unwrap();
    let store = sqlite::open(&Env::real(), config.store()).await.unwrap();
    let views = Views::open(&store).await.unwrap();
    let config = Config { on_poison: OnPoison::Park, max_attempts: 1, ..Config::default() };
    let view = views.start(Counts("counts".parse().unwrap()), config).await.unwrap();
    for (stream, kind) in [("good", "happened"), ("bad", "poison"), ("bad", "happened")] {
        append(&store, stream, kind).await;
    }
    view.wait(store.token(), std::time::Duration::from_secs(20)).await.unwrap();
    let second = views.rebuild(view.name(), Switch::Manual).await.unwrap();
    while view.describe().await.unwrap().builds.iter().any(|build| build.build == second && build.lag_events > 0) {
        tokio::task::yield_now().await;
    }
    views.shut_down().await;
    if let Some(sql) = harm {
        let done = store.transact(move |tx| Box::pin(async move { tx.room_execute(sql, &[]).await }));
        assert_eq!(done.await.unwrap(), 1);
    }
    store.close().await.unwrap();
    node_in(folder).await
}

async fn act(node: &Node, action: &str, body: Value) -> Reply {
    node.send(post(format!("/v1/views/counts/{action}")).json(body.to_string())).await
}

async fn described(node: &Node) -> Value {
    node.get("/v1/views/counts").await.json()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_says_how_it_and_each_of_its_builds_stands() {
    let node = node_with_a_view().await;
    let view = described(&node).await;
    assert_eq!((&view["live"], &view["head"]), (&json!(1), &json!("3")));
    let first = &view["builds"][0];
    assert_eq!((&first["applied"], &first["parked"], &first["logposition"]), (&json!(1), &json!(2), &json!("3")));
    assert_eq!(first["shards"][0]["standing"], "idle", "its code does not run here");
    assert_eq!(first["lag-seconds"], Value::Null, "so nobody knows which events matter");
    assert_eq!(node.get("/v1/views").await.json()["views"], json!([view]));
    assert_eq!(node.get("/v1/views?after=counts").await.json()["views"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_is_measured_while_it_is_there() {
    let node = node_with_a_view().await;
    assert_eq!(node.metric("quorate_view_parked_events{view=\"counts\"}").await, 2);
    assert_eq!(node.metric("quorate_view_lag_events{view=\"counts\"}").await, 0);
    assert_eq!(node.metric("quorate_view_unaccounted{view=\"counts\"}").await, 0);
    node.fill("a", 1, 3).await;
    assert_eq!(node.metric("quorate_view_lag_events{view=\"counts\"}").await, 3, "nobody keeps it up to date");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_view_lost_is_measured_and_shown_without_anybody_asking_for_a_recount() {
    // Of the build that is on its way, too.
    let lost = "UPDATE quorate_view_shard SET applied = applied - 1 WHERE build = 2";
    let node = node_with_a_view_after(Some(lost)).await;
    assert_eq!(node.metric("quorate_view_unaccounted{view=\"counts\"}").await, 1);
    let builds = described(&node).await["builds"].clone();
    assert_eq!((&builds[0]["unaccounted"], &builds[1]["unaccounted"]), (&json!(0), &json!(1)));
    let shard = &builds[0]["shards"][0];
    let counts = ["applied", "parked", "skipped", "filtered", "unaccounted"].map(|name| shard[name].as_u64().unwrap());
    assert_eq!((counts, &shard["checkpoint"]), ([1, 2, 0, 0, 0], &json!("3")));
}

#[tokio::test(flavor = "multi_thread")]
async fn parked_events_are_listed_page_by_page_and_skipped_on_record() {
    let node = node_with_a_view().await;
    let page = node.get("/v1/views/counts/parked?limit=1").await;
    assert_eq!(page.json()["parked"][0]["reason"], "it is poison");
    assert!(page.header("link").is_some_and(|link| link.contains("after=2")), "{:?}", page.header("link"));
    let behind = node.get("/v1/views/counts/parked?after=2").await.json();
    assert_eq!((&behind["parked"][0]["logposition"], &behind["parked"][0]["attempts"]), (&json!("3"), &json!(0)));
    let skipped = act(&node, "skip", json!({ "logposition": "2", "by": "ada" })).await;
    assert_eq!((skipped.status, skipped.json()), (200, json!({ "events": 1 })), "{}", skipped.text());
    let record = node.get("/v1/views/counts/skipped").await.json();
    assert_eq!((&record["skipped"][0]["by"], &record["skipped"][0]["type"]), (&json!("ada"), &json!("poison")));
    assert_eq!(described(&node).await["builds"][0]["skipped"], 1);
    assert_eq!(act(&node, "skip", json!({ "logposition": 1 })).await.code(), "invalid-parameter");
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_are_given_another_build_when_somebody_accepts_what_it_lacks() {
    let node = node_with_a_view().await;
    let refused = act(&node, "switch", json!({})).await;
    assert_eq!(
        (refused.status, refused.code().as_str(), &refused.json()["parked"]),
        (409, "view-incomplete", &json!(2))
    );
    let switched = act(&node, "switch", json!({ "accept-parked": true })).await;
    assert_eq!(switched.json(), json!({ "view": "counts", "build": 2, "logposition": "3" }));
    let live = act(&node, "drop", json!({ "build": 2 })).await;
    assert_eq!((live.status, live.code().as_str()), (409, "view-live"));
    assert_eq!(act(&node, "drop", json!({ "build": 1 })).await.status, 200);
    assert_eq!(described(&node).await["builds"].as_array().unwrap().len(), 1);
    assert_eq!(act(&node, "drop", json!({ "build": 1 })).await.code(), "view-not-found");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_stays_paused_over_a_restart() {
    let node = node_with_a_view().await;
    let paused = act(&node, "pause", json!({})).await;
    assert_eq!(paused.json(), json!({ "view": "counts", "build": 2, "paused": true }), "the newest one");
    let node = node.restart().await;
    assert_eq!(described(&node).await["builds"][1]["paused"], true);
    assert_eq!(act(&node, "resume", json!({ "build": 2 })).await.json()["paused"], false);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_needs_the_views_code_says_so() {
    let node = node_with_a_view().await;
    for (action, body) in [("rebuild", json!({})), ("audit", json!({})), ("replay", json!({ "key": "bad" }))] {
        let refused = act(&node, action, body).await;
        assert_eq!(
            (refused.status, refused.code().as_str()),
            (409, "view-without-code"),
            "{action}: {}",
            refused.text()
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn views_that_are_not_there_and_names_that_are_none_are_told_apart() {
    let node = node().await;
    assert_eq!(node.get("/v1/views").await.json(), json!({ "views": [] }));
    assert_eq!(node.get("/v1/views/nothing").await.code(), "view-not-found");
    assert_eq!(node.get("/v1/views/No%20Name").await.code(), "invalid-name");
    let reply = node.send(post("/v1/views/nothing/rebuild".to_owned()).json("{}".to_owned())).await;
    assert_eq!((reply.status, reply.code().as_str()), (404, "view-not-found"));
}
