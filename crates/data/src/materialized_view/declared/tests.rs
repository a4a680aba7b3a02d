//! Declared views against a real store: declared, restarted, changed, explained.

mod kept;
mod programs;
mod upgrades;

use std::{pin::Pin, sync::Arc, time::Duration};

use futures_util::FutureExt as _;

use super::super::{
    Build, Changed, Config, Projection as _, Standing, Switch, View, ViewError, ViewName, Views,
    tests::world::{LONG, World, name},
};
use super::{Asked, Document, Explanation, Faults, Format, projection::Declared};
use crate::{
    event::NewEvent,
    store::{AppendBatch, AppendError, ExpectedVersion, Store, Value},
};

const ORDERS: &str = r#"
view = "orders"
version = 1
description = "What is ordered, and by whom."
on-poison = "park"

[tables.customer]
key = "name"
columns = { name = "text", orders = "integer", eur = "decimal(2)", since = "timestamp?" }
indexes = { eur = ["eur", "name"] }

[tables.line]
key = ["order_id", "sku"]
columns = { order_id = "text", sku = "text", pieces = "integer", open = "boolean" }

[[on]]
type = "ordered"
bind = { name = "$.data.customer.name", eur = "$.data.eur", since = { path = "$.time", optional = true } }
sql = """
    INSERT INTO customer (name, orders, eur, since) VALUES (:name, 1, :eur, :since)
    ON CONFLICT (name) DO UPDATE SET orders = customer.orders + 1, eur = customer.eur + excluded.eur"""

[[on]]
type = "ordered"
each = "$.data.lines"
bind = { order_id = "$.stream", sku = "$.item.sku", pieces = "$.item.pieces" }
sql = "INSERT INTO line (order_id, sku, pieces, open) VALUES (:order_id, :sku, :pieces, TRUE)"

[[on]]
type = "ship*"
bind = { order_id = "$.stream" }
sql = ["UPDATE line SET open = FALSE WHERE order_id = :order_id", "DELETE FROM line WHERE order_id = :order_id AND pieces = 0"]

[[samples]]
events = [
    { stream = "order-1", type = "ordered", time = "2026-11-22T09:30:00Z", data = { customer = { name = "Ada" }, eur = 12.5, lines = [{ sku = "a", pieces = 2 }, { sku = "b", pieces = 0 }] } },
    { stream = "order-1", type = "shipped" },
]
rows.customer = [{ name = "Ada", orders = 1, eur = "12.50", since = "2026-11-22T10:30:00+01:00" }]
rows.line = [{ sku = "a", open = false }]
"#;

fn orders() -> Document {
    read(ORDERS).unwrap_or_else(|faults| panic!("{faults}"))
}

fn read(text: &str) -> Result<Document, Faults> {
    Document::read(text, Format::Toml)
}

async fn ordered(store: &Store, stream: &str, data: &str) {
    append(store, stream, NewEvent::new(store.event_id(), "/shop", "ordered").json(data.to_owned())).await;
}

async fn append(store: &Store, stream: &str, event: NewEvent) {
    store.append(AppendBatch::to(name(stream), ExpectedVersion::Any, vec![event])).await.unwrap();
}

async fn rows(view: &View, store: &Store, sql: &str) -> Vec<Vec<Value>> {
    view.wait(store.token(), LONG).await.unwrap();
    let read = view.query(sql, Vec::new()).await.unwrap();
    read.rows.into_iter().map(|row| row.values).collect()
}

const BY_ADA: &str = r#"{"customer": {"name": "Ada"}, "eur": "1.10", "lines": [{"sku": "a", "pieces": 3}]}"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_declared_view_is_filled_and_goes_on_after_a_restart() {
    let world = World::new();
    let store = world.open().await;
    let views = Views::open(&store).await.unwrap();
    ordered(&store, "order-1", BY_ADA).await;
    let declared = views.declare(orders()).await.unwrap();
    assert!(declared.new);
    let view = views.get(&declared.view).await.unwrap();
    let customers = "SELECT name, orders, eur, logposition FROM {customer}";
    assert_eq!(rows(&view, &store, customers).await, [vec!["Ada".into(), 1_i64.into(), 110_i64.into(), 1_i64.into()]]);
    views.shut_down().await;
    store.close().await.unwrap();

    let store = world.open().await;
    let views = Views::open(&store).await.unwrap();
    ordered(&store, "order-2", BY_ADA).await;
    append(&store, "order-2", NewEvent::new("s-2", "/shop", "shipped")).await;
    assert!(views.start_declared().await.unwrap().is_empty());
    let view = views.get(&declared.view).await.unwrap();
    assert_eq!(rows(&view, &store, customers).await, [vec!["Ada".into(), 2_i64.into(), 220_i64.into(), 2_i64.into()]]);
    let lines = "SELECT order_id, open FROM {line} ORDER BY order_id";
    assert_eq!(
        rows(&view, &store, lines).await,
        [vec!["order-1".into(), 1_i64.into()], vec!["order-2".into(), 0_i64.into()]]
    );
    assert!(view.audit(Build::new(1)).await.unwrap().is_whole());
    assert_eq!(views.document(&declared.view, None).await.unwrap().text, ORDERS);
    views.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_keeps_its_meaning_and_another_one_is_built_beside_it() {
    let world = World::new();
    let store = world.open().await;
    let views = Views::open(&store).await.unwrap();
    let declared = views.declare(orders()).await.unwrap();
    assert!(!views.declare(orders()).await.unwrap().new, "the same again");
    let retold = ORDERS.replace("What is ordered", "# Who orders");
    assert!(!views.declare(read(&retold).unwrap()).await.unwrap().new, "its description makes no difference");
    assert_eq!(views.document(&declared.view, Some(1)).await.unwrap().text, retold);

    let changed = ORDERS.replace("customer.orders + 1", "customer.orders + 2");
    let refused = views.declare(read(&changed).unwrap()).await.unwrap_err();
    assert!(matches!(refused, ViewError::FoldChanged { version: 1, .. }), "{refused}");
    assert_eq!(views.document(&declared.view, Some(1)).await.unwrap().text, retold, "nothing was kept of it");

    ordered(&store, "order-1", BY_ADA).await;
    ordered(&store, "order-2", BY_ADA).await;
    let second = changed.replace("version = 1", "version = 2");
    assert!(views.declare(read(&second).unwrap()).await.unwrap().new);
    let view = views.get(&declared.view).await.unwrap();
    view.until(2, |build| build.live).await;
    assert_eq!(rows(&view, &store, "SELECT orders FROM {customer}").await, [vec![3_i64.into()]]);
    assert_eq!(views.declared_versions(&declared.view).await.unwrap(), [1, 2]);

    // A version whose builds were dropped is not begun again by a restart.
    views.drop_build(&declared.view, Build::new(1)).await.unwrap();
    views.shut_down().await;
    store.close().await.unwrap();
    let store = world.open().await;
    let views = Views::open(&store).await.unwrap();
    assert!(views.start_declared().await.unwrap().is_empty());
    let builds = views.get(&declared.view).await.unwrap().describe().await.unwrap().builds;
    assert_eq!(builds.iter().map(|build| build.version).collect::<Vec<_>>(), [2]);

    views.delete(&declared.view).await.unwrap();
    assert!(matches!(views.document(&declared.view, None).await, Err(ViewError::NotFound { .. })));
    assert!(views.declare(orders()).await.unwrap().new, "its name is free again");
    views.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_without_a_value_is_parked_with_the_parameter_it_lacks() {
    let world = World::new();
    let store = world.open().await;
    let views = Views::open(&store).await.unwrap();
    let declared = views.declare(orders()).await.unwrap();
    ordered(&store, "order-1", r#"{"customer": {}, "eur": 1}"#).await;
    ordered(
        &store,
        "order-2",
        r#"{"customer": {"name": "Bob"}, "eur": 1, "lines": [{"sku": "a", "pieces": 1}, {"sku": "a", "pieces": 1}]}"#,
    )
    .await;
    ordered(&store, "order-3", BY_ADA).await;
    let view = views.get(&declared.view).await.unwrap();
    assert_eq!(rows(&view, &store, "SELECT name FROM {customer}").await, [vec!["Ada".into()]], "no half of an event");
    let parked = views.parked(&declared.view, Build::new(1), Default::default(), 10).await.unwrap();
    let reasons: Vec<&str> = parked.iter().map(|parked| parked.reason.as_str()).collect();
    assert!(reasons[0].contains("on[0]: there is nothing at `$.data.customer.name` for `:name`"), "{reasons:?}");
    assert!(reasons[1].contains("on[1].sql: UNIQUE constraint failed"), "{reasons:?}");
    views.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_is_explained_by_the_events_that_made_it() {
    let world = World::new();
    let store = world.open().await;
    let views = Views::open(&store).await.unwrap();
    let declared = views.declare(orders()).await.unwrap();
    for stream in ["order-1", "order-2"] {
        ordered(&store, stream, BY_ADA).await;
        ordered(&store, "order-3", &BY_ADA.replace("Ada", "Bob").replace("\"a\"", &format!("\"{stream}\""))).await;
    }
    let poison = NewEvent::new("p", "/shop", "ordered");
    append(&store, "order-1", poison).await;
    let view = views.get(&declared.view).await.unwrap();
    view.wait(store.token(), LONG).await.unwrap();
    let asked = |table: &str, key: &[&str]| Asked {
        table: table.to_owned(),
        key: key.iter().map(|text| (*text).to_owned()).collect(),
    };
    let ada = views.explain(&declared.view, &asked("customer", &["Ada"])).await.unwrap();
    let places: Vec<u64> = ada.changes.iter().map(|change| change.position.get()).collect();
    assert_eq!((places, ada.total, ada.position.get()), (vec![1, 3], 2, 5));
    assert_eq!(ada.row, Some(serde_json::json!({ "name": "Ada", "orders": 2, "eur": "2.20", "since": null })));
    assert_eq!((&ada.changes[0].before, &ada.changes[1].after), (&None, &ada.row));
    assert_eq!((ada.changes[1].stream.as_str(), ada.changes[1].before.is_some()), ("order-2", true));
    let nobody = views.explain(&declared.view, &asked("customer", &["Eve"])).await.unwrap();
    assert_eq!((nobody.row, nobody.total), (None, 0));
    let line = views.explain(&declared.view, &asked("line", &["order-2", "a"])).await.unwrap();
    assert_eq!(line.total, 1);
    for (table, key) in [("lines", &["x"][..]), ("line", &["x"])] {
        let refused = views.explain(&declared.view, &asked(table, key)).await.unwrap_err();
        assert!(matches!(refused, ViewError::Invalid { .. }), "{refused}");
    }
    views.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_explanation_of_before_an_erasure_is_given_to_nobody() {
    let world = World::new();
    let store = world.open().await;
    let views = Views::open(&store).await.unwrap();
    let declared = views.declare(orders()).await.unwrap();
    append(&store, "order-1", NewEvent::new("e-1", "/shop", "ordered").json(BY_ADA).about("ada")).await;
    let view = views.get(&declared.view).await.unwrap();
    view.wait(store.token(), LONG).await.unwrap();
    let asked = Asked { table: "customer".to_owned(), key: vec!["Ada".to_owned()] };
    assert_eq!(views.explain(&declared.view, &asked).await.unwrap().total, 1);
    let explaining = begun(&views, &declared.view, &asked).await;
    store.erase("ada").await.unwrap();
    let told = explaining.await;
    assert!(matches!(told, Err(ViewError::Unexplained { .. })), "{told:?}");
    assert_eq!(views.explain(&declared.view, &asked).await.unwrap().total, 0);
    views.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_explanation_by_a_build_that_was_dropped_meanwhile_is_none() {
    let world = World::new();
    let store = world.open().await;
    let views = Views::open(&store).await.unwrap();
    let declared = views.declare(orders()).await.unwrap();
    ordered(&store, "order-1", BY_ADA).await;
    let view = views.get(&declared.view).await.unwrap();
    view.wait(store.token(), LONG).await.unwrap();
    let asked = Asked { table: "customer".to_owned(), key: vec!["Ada".to_owned()] };
    let mut live = Build::new(1);
    let mut told = Vec::new();
    // On a busy machine all may be read before the build is dropped.
    while told.len() < 20 && told.iter().all(Result::is_ok) {
        let explaining = begun(&views, &declared.view, &asked).await;
        let next = views.rebuild(&declared.view, Switch::WhenCaughtUp).await.unwrap();
        view.until(next.get(), |build| build.live).await;
        views.drop_build(&declared.view, live).await.unwrap();
        live = next;
        told.push(explaining.await);
    }
    assert!(matches!(told.pop(), Some(Err(ViewError::Unexplained { .. }))), "{told:?}");
    views.shut_down().await;
}

type Explaining<'v> = Pin<Box<dyn Future<Output = Result<Explanation, ViewError>> + Send + 'v>>;

/// An explanation that knows by which build it explains, and has not ended.
async fn begun<'v>(views: &'v Views, view: &'v ViewName, asked: &'v Asked) -> Explaining<'v> {
    loop {
        let mut explaining: Explaining<'v> = Box::pin(views.explain(view, asked));
        // One that ends at its first look, as may be on a busy machine, leaves nothing to disturb.
        while (&mut explaining).now_or_never().is_none() {
            if views.shared.explaining.try_lock().is_err() {
                return explaining;
            }
            views.shared.store.env().sleep(Duration::from_millis(1)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_kept_by_code_is_not_taken_over_by_a_document() {
    let world = World::new();
    let store = world.open().await;
    let views = Views::open(&store).await.unwrap();
    let tally = super::super::tests::world::Tally::new();
    let view = views.start(tally, super::super::tests::world::config()).await.unwrap();
    let document = ORDERS.replace("\"orders\"", "\"tally\"");
    let refused = views.declare(read(&document).unwrap()).await.unwrap_err();
    assert!(refused.to_string().contains("kept by code"), "{refused}");
    assert_ne!(view.build(Build::new(1)).await.shards[0].standing, Standing::Fenced);
    views.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_engine_or_a_sample_says_against_a_document_names_its_place() {
    let world = World::new();
    let store = world.open().await;
    let views = Views::open(&store).await.unwrap();
    for (from, to, field, what) in [
        ("customer.orders + 1", "customer.ordres + 1", "on[0].sql", "no such column"),
        (
            "orders = 1, eur = \"12.50\"",
            "orders = 2, eur = \"12.50\"",
            "samples[0].rows.customer[0]",
            "there is no such row",
        ),
        ("rows.line = [{ sku = \"a\", open = false }]", "rows.line = []", "samples[0].rows.line", "1 rows more"),
        ("pieces = 2", "pieces = \"two\"", "samples[0].events[0]", "is no integer"),
        (
            "(name, orders, eur, since) VALUES (:name, 1,",
            "(name, orders, eur, since) VALUES (:name, 'x' || '',",
            "samples[0].events[0]",
            "cannot store TEXT",
        ),
    ] {
        assert!(ORDERS.contains(from), "{from}");
        let document = read(&ORDERS.replace(from, to)).unwrap_or_else(|faults| panic!("{to}: {faults}"));
        let Err(ViewError::Document(faults)) = views.declare(document).await else { panic!("{to}") };
        let fault = &faults.list[0];
        assert!(fault.field == field && fault.what.contains(what), "{to}: {faults}");
        assert!(fault.line > 5, "{faults}");
    }
    assert!(views.list().await.unwrap().is_empty(), "nothing was begun");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_declared_view_in_the_appends_transaction_refuses_what_it_cannot_take() {
    let world = World::new();
    let store = world.open().await;
    let views = Views::open(&store).await.unwrap();
    let inline = ORDERS.replace("on-poison = \"park\"", "mode = \"inline\"");
    let declared = views.declare(read(&inline).unwrap()).await.unwrap();
    let view = views.get(&declared.view).await.unwrap();
    view.until(1, |build| build.live && build.shards[0].standing == Standing::Inline).await;
    ordered(&store, "order-1", BY_ADA).await;
    let found = view.query("SELECT orders FROM {customer}", Vec::new()).await.unwrap();
    assert_eq!(found.rows[0].at(0), &Value::Integer(1), "no wait");
    let bad = NewEvent::new(store.event_id(), "/shop", "ordered").json("{}");
    let refused = store.append(AppendBatch::to(name("order-2"), ExpectedVersion::Any, vec![bad])).await;
    assert!(matches!(refused, Err(AppendError::View { .. })), "{refused:?}");
    views.shut_down().await;
}

/// A view with one table, into which one statement puts things.
fn one_table(columns: &str, bind: &str, sql: &str) -> String {
    format!(
        "view = \"typed\"\nversion = 1\non-poison = \"park\"\n[tables.t]\nkey = \"id\"\ncolumns = {{ id = \"text\", {columns} }}\n[[on]]\nbind = {{ id = \"$.stream\", {bind} }}\nsql = \"{sql}\"\n"
    )
}

async fn declare(views: &Views, text: &str) -> View {
    let declared = views.declare(read(text).unwrap_or_else(|faults| panic!("{faults}"))).await.unwrap();
    views.get(&declared.view).await.unwrap()
}

#[tokio::test]
async fn a_parameter_of_another_name_has_the_type_of_its_column() {
    let (world, money) = (
        World::new(),
        one_table("eur = \"decimal(2)\"", "amount = \"$.data.n\"", "INSERT INTO t (id, eur) VALUES (:id, :amount)"),
    );
    let store = world.open().await;
    let views = Views::open(&store).await.unwrap();
    let refused = read(&money.replace("\"$.data.n\"", "{ path = \"$.data.n\", type = \"integer\" }")).unwrap_err();
    assert!(refused.to_string().contains("`t.eur` is decimal(2), and `:amount` is bound as integer"), "{refused}");
    let view = declare(&views, &money).await;
    ordered(&store, "order-1", r#"{"n": 1200}"#).await;
    view.wait(store.token(), LONG).await.unwrap();
    let reading = view.query("SELECT eur FROM {t}", vec![]).await.unwrap();
    assert_eq!(reading.rows[0].at(0), &Value::Integer(120_000), "1200 is 1200.00, and not 12.00");
}

#[tokio::test]
async fn what_an_expression_makes_of_a_date_is_checked_by_the_table_and_parked_at_once() {
    let world = World::new();
    let store = world.open().await;
    let views = Views::open(&store).await.unwrap();
    let days = one_table("day = \"date\"", "y = \"$.data.y\"", "INSERT INTO t (id, day) VALUES (:id, :y || '-02-30')");
    let view = declare(&views, &days).await;
    ordered(&store, "a-1", r#"{"y": "2011"}"#).await;
    view.wait(store.token(), LONG).await.unwrap();
    let parked = views.parked(view.name(), Build::new(1), Default::default(), 10).await.unwrap();
    assert_eq!((parked.len(), parked[0].attempts), (1, 1), "nothing would change at another attempt: {parked:?}");
}

#[tokio::test]
async fn a_statement_over_a_large_event_takes_no_longer_than_its_length() {
    let world = World::new();
    let store = world.open().await;
    let views = Views::open(&store).await.unwrap();
    let text = one_table(
        "x = \"text\"",
        "x = \"$.data.x\", word = \"$.data.word\"",
        "INSERT INTO t (id, x) VALUES (:id, rtrim(trim(replace(:x, :word, ''), :word), :word))",
    );
    let view = declare(&views, &text).await;
    let (x, word) = ("a".repeat(600_000), format!("{}b", "a".repeat(300_000)));
    ordered(&store, "a-1", &format!(r#"{{"x": "{x}c", "word": "{word}"}}"#)).await;
    view.wait(store.token(), LONG).await.unwrap();
    let reading = view.query("SELECT length(x) FROM {t}", vec![]).await.unwrap();
    assert_eq!((reading.rows[0].at(0).as_i64(), reading.parked), (Some(1), 0));
}
