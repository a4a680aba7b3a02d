//! Statements of views that want more memory than they may have.

use std::time::Duration;

use quorate_runtime::Env;

use super::{
    super::*,
    world::{LONG, name},
};
use crate::{
    event::NewEvent,
    materialized_view::declared::{Document, Format},
    store::{AppendBatch, AppendError, ExpectedVersion, Limits, Store, sqlite},
};

/// Has notes, and makes pairs of all of them at once, sorted by what they say.
const PAIRS: &str = r#"
view = "pairs"
version = 1
on-poison = "park"

[tables.note]
key = "id"
columns = { id = "text", body = "text" }

[tables.pair]
key = "id"
columns = { id = "text", body = "text" }

[[on]]
type = "noted"
bind = { id = "$.id", body = "$.data.body" }
sql = "INSERT INTO note (id, body) VALUES (:id, :body)"

[[on]]
type = "paired"
bind = { most = { path = "$.data.most", type = "text" } }
sql = """
    INSERT INTO pair (id, body) SELECT a.id || b.id, a.body || b.id FROM note AS a CROSS JOIN note AS b
    WHERE a.id < :most ORDER BY a.body || b.id"""
"#;

async fn open(folder: &tempfile::TempDir) -> Store {
    // What is tried is memory: a loaded machine may take its time.
    let limits = Limits { unit_time: Duration::from_secs(60), ..Limits::default() };
    let config = sqlite::Config { limits, ..sqlite::Config::at(folder.path().join("log.db")) };
    sqlite::open(&Env::real(), config).await.unwrap()
}

async fn append(store: &Store, id: &str, kind: &str, data: String) -> Result<(), AppendError> {
    let event = NewEvent::new(id, "/test", kind).json(data);
    store.append(AppendBatch::to(name("notes"), ExpectedVersion::Any, vec![event])).await.map(drop)
}

/// 40 notes of 60,000 bytes: all pairs of them are 96 MB.
async fn fill(store: &Store) {
    for n in 10..50 {
        let body = format!(r#"{{"body": "{}"}}"#, "x".repeat(60_000));
        append(store, &format!("{n}"), "noted", body).await.unwrap();
    }
}

async fn count(view: &View, table: &str) -> i64 {
    let read = view.query(&format!("SELECT count(*) FROM {{{table}}}"), vec![]).await.unwrap();
    read.rows[0].at(0).as_i64().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_sorts_too_much_is_poison_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder).await;
    let views = Views::open(&store).await.unwrap();
    let declared = views.declare(Document::read(PAIRS, Format::Toml).unwrap()).await.unwrap();
    let view = views.get(&declared.view).await.unwrap();
    fill(&store).await;
    append(&store, "all", "paired", r#"{"most": "99"}"#.to_owned()).await.unwrap();
    append(&store, "few", "paired", r#"{"most": "11"}"#.to_owned()).await.unwrap();
    append(&store, "last", "noted", r#"{"body": ""}"#.to_owned()).await.unwrap();
    // They are of one stream, and parked behind each other.
    view.wait(store.token(), LONG).await.unwrap();
    let parked = views.parked(view.name(), Build::new(1), crate::event::Position::ZERO, 10).await.unwrap();
    let first = &parked[0];
    assert!(first.reason.contains("needs more than 67108864 bytes of memory"), "{}", first.reason);
    assert!(first.reason.contains("on[1].sql"), "its place in the document: {}", first.reason);
    assert_eq!((count(&view, "note").await, count(&view, "pair").await), (40, 0), "it left nothing");
    views.skip(view.name(), Build::new(1), first.position, "test").await.unwrap();
    views.replay(view.name(), Build::new(1), &first.key).await.unwrap();
    assert_eq!(count(&view, "pair").await, 40, "what takes less is carried out, on the same connection");
    assert!(view.audit(Build::new(1)).await.unwrap().is_whole());
    views.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_append_is_refused_where_its_inline_view_takes_too_much() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder).await;
    let views = Views::open(&store).await.unwrap();
    let inline = PAIRS.replace("on-poison = \"park\"", "mode = \"inline\"");
    let declared = views.declare(Document::read(&inline, Format::Toml).unwrap()).await.unwrap();
    let view = views.get(&declared.view).await.unwrap();
    view.until(1, |build| build.shards[0].standing == Standing::Inline).await;
    fill(&store).await;
    let refused = append(&store, "all", "paired", r#"{"most": "99"}"#.to_owned()).await;
    let Err(AppendError::View { what, .. }) = &refused else { panic!("{refused:?}") };
    assert!(what.contains("needs more than 67108864 bytes of memory"), "{what}");
    append(&store, "few", "paired", r#"{"most": "11"}"#.to_owned()).await.unwrap();
    assert_eq!((count(&view, "note").await, count(&view, "pair").await), (40, 40));
    views.shut_down().await;
}
