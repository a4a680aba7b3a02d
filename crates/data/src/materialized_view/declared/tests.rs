//! Declared views against a real store: declared, restarted, changed, explained.

use std::sync::Arc;

use super::super::{
    Build, Changed, Config, Projection as _, Standing, View, ViewError, Views,
    tests::world::{LONG, World, name},
};
use super::{Asked, Document, Faults, Format, projection::Declared};
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
async fn a_kept_document_that_cannot_be_read_is_told_of_and_readers_keep_what_they_had() {
    let world = World::new();
    let store = world.open().await;
    let views = Views::open(&store).await.unwrap();
    ordered(&store, "order-1", BY_ADA).await;
    let declared = views.declare(orders()).await.unwrap();
    let view = views.get(&declared.view).await.unwrap();
    view.wait(store.token(), LONG).await.unwrap();
    views.shut_down().await;
    let spoiled = store.transact(|tx| {
        Box::pin(async {
            let sql =
                "UPDATE quorate_view_document SET document = 'view = \"orders\"\nversion = 1\nfrom-the-future = 1'";
            tx.room_execute(sql, &[]).await.map_err(ViewError::from)
        })
    });
    assert_eq!(spoiled.await.unwrap(), 1);
    store.close().await.unwrap();

    let store = world.open().await;
    let views = Views::open(&store).await.unwrap();
    let failed = views.start_declared().await.unwrap();
    let [one] = failed.as_slice() else { panic!("{failed:?}") };
    assert_eq!((&one.view, one.version), (&declared.view, 1));
    assert!(one.reason.contains("from-the-future"), "{}", one.reason);
    let view = views.get(&declared.view).await.unwrap();
    assert_eq!(view.describe().await.unwrap().not_started, [(1, one.reason.clone())]);
    let read = view.query("SELECT orders FROM {customer}", Vec::new()).await.unwrap();
    assert_eq!(read.rows.first().map(|row| row.values.clone()), Some(vec![1_i64.into()]));
    views.delete(&declared.view).await.unwrap();
    views.declare(orders()).await.unwrap();
    assert!(views.get(&declared.view).await.unwrap().describe().await.unwrap().not_started.is_empty());
    views.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_declared_goes_on_once_it_has_left() {
    let world = World::new();
    let store = world.open().await;
    let stays = Views::open(&store).await.unwrap();
    assert!(stays.start_declared().await.unwrap().is_empty());
    let leaves = Views::open(&store).await.unwrap();
    let declared = leaves.declare(orders()).await.unwrap();
    let view = stays.get(&declared.view).await.unwrap();
    view.wait(store.token(), LONG).await.unwrap();
    leaves.shut_down().await;
    ordered(&store, "order-1", BY_ADA).await;
    assert_eq!(rows(&view, &store, "SELECT orders FROM {customer}").await, [vec![1_i64.into()]]);
    stays.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_others_deleted_and_declared_anew_shows_nothing_of_what_it_was() {
    for inline in [false, true] {
        let mode = |text: &str| {
            if inline { text.replace("on-poison = \"park\"", "mode = \"inline\"") } else { text.to_owned() }
        };
        let world = World::new();
        let store = world.open().await;
        let (here, there) = (Views::open(&store).await.unwrap(), Views::open(&store).await.unwrap());
        assert!(here.start_declared().await.unwrap().is_empty());
        let declared = here.declare(read(&mode(ORDERS)).unwrap()).await.unwrap();
        ordered(&store, "order-1", BY_ADA).await;
        let view = here.get(&declared.view).await.unwrap();
        let orders = "SELECT orders FROM {customer}";
        assert_eq!(rows(&view, &store, orders).await, [vec![1_i64.into()]]);

        // Another meaning under the same name and version, and not all of the columns.
        let anew = mode(ORDERS)
            .replace("customer.orders + 1", "customer.orders + 10")
            .replace("(:name, 1, :eur", "(:name, 5, :eur");
        let anew = anew
            .replace("orders = 1, eur", "orders = 5, eur")
            .replace("eur = \"decimal(2)\"", "eur = \"decimal(3)\"")
            .replace("\"12.50\"", "\"12.500\"");
        there.delete(&declared.view).await.unwrap();
        assert!(matches!(here.get(&declared.view).await, Err(ViewError::NotFound { .. })));
        ordered(&store, "order-2", BY_ADA).await;
        assert!(there.declare(read(&anew).unwrap()).await.unwrap().new);
        ordered(&store, "order-3", BY_ADA).await;

        let view = here.get(&declared.view).await.unwrap();
        view.until(2, |build| build.live).await;
        assert_eq!(
            rows(&view, &store, orders).await,
            [vec![25_i64.into()]],
            "it is made of all events, by what it says now"
        );
        let of_build: Vec<u32> = view.describe().await.unwrap().builds.iter().map(|build| build.build.get()).collect();
        assert_eq!(of_build, [2]);
        let asked = Asked { table: "customer".to_owned(), key: vec!["Ada".to_owned()] };
        let explained = here.explain(&declared.view, &asked).await.unwrap();
        assert_eq!(explained.row.unwrap()["eur"], "3.300", "types are those of now");
        assert_eq!((explained.build.get(), explained.total), (2, 3));
        assert_eq!(here.document(&declared.view, None).await.unwrap().text, anew);
        assert!(matches!(here.declare(read(&mode(ORDERS)).unwrap()).await, Err(ViewError::FoldChanged { .. })));

        let again = here.rebuild(&declared.view, super::super::Switch::WhenCaughtUp).await.unwrap();
        view.until(again.get(), |build| build.live).await;
        assert_eq!(rows(&view, &store, orders).await, [vec![25_i64.into()]]);
        assert!(view.audit(again).await.unwrap().is_whole());

        // Deleted and declared again as it was: a build of its own, and nothing of the one before.
        there.delete(&declared.view).await.unwrap();
        assert!(here.declare(read(&anew).unwrap()).await.unwrap().new);
        let view = here.get(&declared.view).await.unwrap();
        view.until(4, |build| build.live).await;
        assert_eq!(rows(&view, &store, orders).await, [vec![25_i64.into()]]);
        here.shut_down().await;
        there.shut_down().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_that_was_deleted_and_declared_anew_between_restarts_begins_from_nothing() {
    let world = World::new();
    let store = world.open().await;
    let views = Views::open(&store).await.unwrap();
    let declared = views.declare(orders()).await.unwrap();
    let poison = NewEvent::new("p", "/shop", "ordered");
    append(&store, "order-1", poison).await;
    ordered(&store, "order-2", BY_ADA).await;
    let view = views.get(&declared.view).await.unwrap();
    view.wait(store.token(), LONG).await.unwrap();
    assert_eq!(views.parked(&declared.view, Build::new(1), Default::default(), 10).await.unwrap().len(), 1);
    views.delete(&declared.view).await.unwrap();
    views.shut_down().await;
    store.close().await.unwrap();

    let store = world.open().await;
    let views = Views::open(&store).await.unwrap();
    assert!(views.start_declared().await.unwrap().is_empty());
    assert!(views.list().await.unwrap().is_empty());
    let anew = ORDERS.replace("type = \"ship*\"", "type = \"sent\"").replace("type = \"shipped\"", "type = \"sent\"");
    assert!(views.declare(read(&anew).unwrap()).await.unwrap().new);
    let view = views.get(&declared.view).await.unwrap();
    view.until(2, |build| build.live).await;
    let described = view.describe().await.unwrap();
    let [build] = described.builds.as_slice() else { panic!("{described:?}") };
    assert_eq!((build.build.get(), build.shards[0].applied, build.shards[0].parked), (2, 1, 1));
    assert_eq!(views.declared_versions(&declared.view).await.unwrap(), [1]);
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

/// Rows of what paths and SQL cannot take apart: members whose names are data, lists in lists, sums over them.
const BASKETS: &str = r#"
view = "baskets"
version = 1
on-poison = "park"

[tables.piece]
key = ["basket", "sku"]
columns = { basket = "text", sku = "text", pieces = "integer", eur = "decimal(2)" }

[[on]]
type = "filled"
jq = """
    .stream as $basket
    | .data.shops | to_entries[] | .key as $shop
    | .value[] | select(.pieces > 0)
    | { basket: $basket, sku: "\\($shop)/\\(.sku)", pieces, eur: (.each * .pieces) }
"""
bind = { basket = "$.item.basket", sku = "$.item.sku", pieces = "$.item.pieces", eur = "$.item.eur" }
sql = """
    INSERT INTO piece (basket, sku, pieces, eur) VALUES (:basket, :sku, :pieces, :eur)
    ON CONFLICT (basket, sku) DO UPDATE SET pieces = piece.pieces + excluded.pieces, eur = piece.eur + excluded.eur"""

[[samples]]
events = [{ stream = "basket-1", type = "filled", data = { shops = { a = [{ sku = "x", pieces = 3, each = 0.1 }, { sku = "y", pieces = 0, each = 1 }] } } }]
rows.piece = [{ basket = "basket-1", sku = "a/x", pieces = 3, eur = "0.30" }]
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_program_makes_rows_where_paths_are_not_enough() {
    let world = World::new();
    let store = world.open().await;
    let views = Views::open(&store).await.unwrap();
    let filled = async |stream: &str, data: &str| {
        append(&store, stream, NewEvent::new(store.event_id(), "/shop", "filled").json(data.to_owned())).await;
    };
    let declared = views.declare(read(BASKETS).unwrap_or_else(|faults| panic!("{faults}"))).await.unwrap();
    let view = views.get(&declared.view).await.unwrap();
    filled(
        "basket-1",
        r#"{"shops": {"a": [{"sku": "x", "pieces": 2, "each": 0.10}], "b": [{"sku": "x", "pieces": 1, "each": 7}]}}"#,
    )
    .await;
    filled("basket-2", r#"{"shops": {}}"#).await;
    filled("basket-3", r#"{"shops": [{"pieces": 1}]}"#).await;
    filled("basket-4", r#"{"shops": {"a": [{"sku": "z", "pieces": 1, "each": 0.005}]}}"#).await;
    filled("basket-1", r#"{"shops": {"a": [{"sku": "x", "pieces": 1, "each": 0.10}]}}"#).await;
    let all = "SELECT basket, sku, pieces, eur FROM {piece} ORDER BY sku";
    let wanted: Vec<Vec<Value>> = vec![
        vec!["basket-1".into(), "a/x".into(), 3_i64.into(), 30_i64.into()],
        vec!["basket-1".into(), "b/x".into(), 1_i64.into(), 700_i64.into()],
    ];
    assert_eq!(rows(&view, &store, all).await, wanted);
    let parked = views.parked(&declared.view, Build::new(1), Default::default(), 10).await.unwrap();
    let reasons: Vec<&str> = parked.iter().map(|parked| parked.reason.as_str()).collect();
    assert!(reasons[0].contains("on[0]: `jq`: cannot index number 1 with"), "{reasons:?}");
    assert!(reasons[1].contains("item 0: `$.item.eur` for `:eur`: 0.005 is no decimal(2)"), "{reasons:?}");

    let asked = Asked { table: "piece".to_owned(), key: vec!["basket-1".to_owned(), "a/x".to_owned()] };
    let explained = views.explain(&declared.view, &asked).await.unwrap();
    assert_eq!((explained.total, explained.changes[1].position.get()), (2, 5));

    let build = views.rebuild(&declared.view, super::super::Switch::WhenCaughtUp).await.unwrap();
    view.until(build.get(), |build| build.position == store.head()).await;
    // Its events are parked again, so somebody has to say that readers may have it.
    views.switch(&declared.view, build, true).await.unwrap();
    assert_eq!(rows(&view, &store, all).await, wanted);

    let other = BASKETS.replace("pieces > 0", "pieces > 1");
    let refused = views.declare(read(&other).unwrap_or_else(|faults| panic!("{faults}"))).await.unwrap_err();
    assert!(matches!(refused, ViewError::Document(_)) || matches!(refused, ViewError::FoldChanged { .. }), "{refused}");
    views.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_does_not_end_is_told_of_by_the_sample_and_parks_its_event() {
    let world = World::new();
    let store = world.open().await;
    let views = Views::open(&store).await.unwrap();
    let endless = BASKETS.replace(
        ".stream as $basket",
        "(if .stream == \"basket-9\" then last(range(1e30)) else . end) | .stream as $basket",
    );
    let declared = views.declare(read(&endless).unwrap_or_else(|faults| panic!("{faults}"))).await.unwrap();
    for stream in ["basket-9", "basket-1"] {
        let data = r#"{"shops": {"a": [{"sku": "x", "pieces": 2, "each": 0.10}]}}"#;
        append(&store, stream, NewEvent::new(store.event_id(), "/shop", "filled").json(data.to_owned())).await;
    }
    let view = views.get(&declared.view).await.unwrap();
    assert_eq!(rows(&view, &store, "SELECT basket FROM {piece}").await, [vec!["basket-1".into()]]);
    let parked = views.parked(&declared.view, Build::new(1), Default::default(), 10).await.unwrap();
    assert!(parked[0].reason.contains("on[0]: `jq`: it takes more than 500000 steps"), "{}", parked[0].reason);

    let sampled = BASKETS
        .replace("view = \"baskets\"", "view = \"others\"")
        .replace("    .stream as $basket", "    def f: 1 + f; f | .stream as $basket");
    let Err(ViewError::Document(faults)) =
        views.declare(read(&sampled).unwrap_or_else(|faults| panic!("{faults}"))).await
    else {
        panic!()
    };
    let fault = &faults.list[0];
    assert_eq!(fault.field, "samples[0].events[0]");
    assert!(fault.what.contains("lie in each other more than 4000 deep"), "{fault}");
    views.shut_down().await;
}

/// Rules that take events whose data is gone, in every way in which they get at data.
const PEOPLE: &str = r#"
view = "people"
version = 1

[tables.person]
key = "stream"
columns = { stream = "text", name = "text?", tags = "integer" }

[tables.tag]
key = ["stream", "tag"]
columns = { stream = "text", tag = "text" }

[[on]]
type = "joined"
erased = "null"
jq = "{ name: .data.name, tags: (.data.tags | length) }"
bind = { stream = "$.stream", name = "$.item.name", tags = "$.item.tags" }
sql = "INSERT INTO person (stream, name, tags) VALUES (:stream, :name, :tags)"

[[on]]
type = "joined"
erased = "null"
jq = ".data.tags[] | ascii_downcase"
bind = { stream = "$.stream", tag = "$.item" }
sql = "INSERT INTO tag (stream, tag) VALUES (:stream, :tag)"

[[on]]
type = "joined"
erased = "null"
bind = { stream = "$.stream", name = "$.data.name" }
sql = "UPDATE person SET name = :name WHERE stream = :stream"
"#;

#[tokio::test(flavor = "multi_thread")]
async fn rules_that_take_events_of_somebody_erased_find_null_in_place_of_the_data() {
    let world = World::new();
    let store = world.open().await;
    let views = Views::open(&store).await.unwrap();
    let declared = views.declare(read(PEOPLE).unwrap_or_else(|faults| panic!("{faults}"))).await.unwrap();
    for person in ["ada", "bob"] {
        let data = format!(r#"{{"name": "{person}", "tags": ["X", "Y"]}}"#);
        append(&store, person, NewEvent::new(store.event_id(), "/club", "joined").json(data).about(person)).await;
    }
    let view = views.get(&declared.view).await.unwrap();
    let tags = "SELECT stream, tag FROM {tag} ORDER BY stream, tag";
    assert_eq!(rows(&view, &store, tags).await.len(), 4);
    store.erase("ada").await.unwrap();
    let people = "SELECT stream, name, tags FROM {person} ORDER BY stream";
    let bob = |last: Value| vec![Value::from("bob"), last];
    assert_eq!(
        rows(&view, &store, people).await,
        [vec!["ada".into(), Value::Null, 0_i64.into()], vec!["bob".into(), "bob".into(), 2_i64.into()]]
    );
    assert_eq!(rows(&view, &store, tags).await, [bob("x".into()), bob("y".into())]);
    views.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_begins_only_of_the_document_that_was_read_for_it() {
    let world = World::new();
    let store = world.open().await;
    let views = Views::open(&store).await.unwrap();
    let declared = views.declare(orders()).await.unwrap();
    let code = views.shared.code().values().next().cloned().unwrap();
    let kept = super::kept(&mut &store, &code).await.unwrap();
    assert_eq!(kept.text, ORDERS);
    let is_kept = async || {
        let kept = kept.clone();
        let asked = store.transact(move |tx| {
            let kept = kept.clone();
            Box::pin(async move { super::is_kept(tx, &kept).await })
        });
        asked.await.map_err(ViewError::of_transaction)
    };
    assert!(is_kept().await.unwrap());
    views.declare(read(&format!("# Of a shop.\n{ORDERS}")).unwrap()).await.unwrap();
    assert!(!is_kept().await.unwrap(), "it is read once more");
    views.rebuild(&declared.view, super::super::Switch::Manual).await.unwrap();
    views.delete(&declared.view).await.unwrap();
    assert!(matches!(is_kept().await, Err(ViewError::NotFound { .. })));
    assert!(matches!(super::kept(&mut &store, &code).await, Err(ViewError::NotFound { .. })));
    views.shut_down().await;
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

#[test]
fn types_that_are_told_by_use_are_part_of_the_fingerprint_and_no_others() {
    let fold = |text: &str| {
        let document = Arc::new(read(text).unwrap_or_else(|faults| panic!("{faults}")));
        let fold = Declared(document.clone()).fold();
        fold.strip_prefix(document.meaning()).unwrap().to_owned()
    };
    assert_eq!((fold(ORDERS), fold(BASKETS), fold(PEOPLE)), Default::default());
    let insert = "INSERT INTO t (id, eur) VALUES (:id, :amount)";
    let untold = one_table("eur = \"decimal(2)\"", "amount = \"$.data.n\"", insert);
    assert_eq!(fold(&untold), "on[0].amount=decimal(2),");
    let said = untold.replace("\"$.data.n\"", "{ path = \"$.data.n\", type = \"decimal(2)\" }");
    assert_eq!(fold(&said), "");
    let otherwise = untold.replace("columns = {", "columns = { amount = \"integer?\",");
    assert_eq!(fold(&otherwise), "on[0].amount=decimal(2),");
    assert_eq!(fold(&otherwise.replace("integer?", "decimal(2)?")), "");
}

/// What an earlier quorate leaves that read the document otherwise.
async fn made_by_an_earlier_reading(store: &Store, builds: u64) {
    let changed = store.transact(|tx| {
        Box::pin(async {
            let sql = "UPDATE quorate_view_build SET fingerprint = 'of-before'";
            tx.room_execute(sql, &[]).await.map_err(ViewError::from)
        })
    });
    assert_eq!(changed.await.unwrap(), builds);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_view_that_is_read_otherwise_since_an_upgrade_the_version_that_readers_left_stays_as_it_was() {
    let world = World::new();
    let store = world.open().await;
    let views = Views::open(&store).await.unwrap();
    ordered(&store, "order-1", BY_ADA).await;
    declare(&views, ORDERS).await.until(1, |build| build.live).await;
    let view = declare(&views, &ORDERS.replace("version = 1", "version = 2")).await;
    view.until(2, |build| build.live && build.version == 2).await;
    let name = view.name().clone();
    views.shut_down().await;
    made_by_an_earlier_reading(&store, 2).await;
    store.close().await.unwrap();

    let store = world.open().await;
    let views = Views::open(&store).await.unwrap();
    let left = views.start_declared().await.unwrap();
    assert_eq!(left.iter().map(|one| one.version).collect::<Vec<_>>(), [1], "{left:?}");
    let view = views.get(&name).await.unwrap();
    view.until(3, |build| build.live && build.version == 2).await;
    assert_eq!(view.describe().await.unwrap().builds.len(), 3, "both of before, and the new one of version 2");
    assert_eq!(rows(&view, &store, "SELECT orders FROM {customer}").await, [vec![1_i64.into()]]);
    views.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_that_is_read_otherwise_since_an_upgrade_is_made_anew_beside_what_readers_have() {
    for declared_again in [false, true] {
        let world = World::new();
        let store = world.open().await;
        let views = Views::open(&store).await.unwrap();
        let of_ada = NewEvent::new(store.event_id(), "/shop", "ordered").json(BY_ADA).about("ada");
        append(&store, "order-1", of_ada).await;
        let view = declare(&views, ORDERS).await;
        view.until(1, |build| build.live).await;
        let name = view.name().clone();
        views.shut_down().await;
        made_by_an_earlier_reading(&store, 1).await;
        store.close().await.unwrap();

        let store = world.open().await;
        let views = Views::open(&store).await.unwrap();
        ordered(&store, "order-2", BY_ADA).await;
        if declared_again {
            let retold = ORDERS.replace("What is ordered", "Who orders");
            assert!(!views.declare(read(&retold).unwrap()).await.unwrap().new);
            assert_eq!(views.document(&name, None).await.unwrap().text, retold);
        } else {
            assert!(views.start_declared().await.unwrap().is_empty());
        }
        let view = views.get(&name).await.unwrap();
        view.until(2, |build| build.live && build.version == 1).await;
        assert_eq!(rows(&view, &store, "SELECT orders FROM {customer}").await, [vec![2_i64.into()]]);
        store.erase("ada").await.unwrap();
        assert_eq!(rows(&view, &store, "SELECT orders FROM {customer}").await, [vec![1_i64.into()]]);
        views.shut_down().await;
    }
}

#[tokio::test]
async fn a_document_that_is_kept_no_more_begins_no_build() {
    let world = World::new();
    let store = world.open().await;
    let views = Views::open(&store).await.unwrap();
    let name = declare(&views, ORDERS).await.name().clone();
    let other = Arc::new(read(&ORDERS.replace("customer.orders + 1", "customer.orders + 2")).unwrap());
    views.shared.forget(|_| true);
    let config = Config { changed: Changed::Rebuild, ..other.config().clone() };
    let started =
        views.start_keeping(Arc::new(Declared(other.clone())), config, None, Some(super::Origin::Kept(other))).await;
    assert!(matches!(started.map(drop), Err(ViewError::NoCode { .. })));
    assert_eq!(views.get(&name).await.unwrap().describe().await.unwrap().builds.len(), 1);
    views.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_inline_view_whose_deletion_was_cut_short_refuses_nothing() {
    let world = World::new();
    let store = world.open().await;
    let views = Views::open(&store).await.unwrap();
    let view = declare(&views, &ORDERS.replace("on-poison = \"park\"", "mode = \"inline\"")).await;
    view.until(1, |build| build.live && build.shards[0].standing == Standing::Inline).await;
    // Whoever asked for it leaves before what keeps it here is told.
    views.forget_all(view.name()).await.unwrap();
    ordered(&store, "order-1", "{}").await;
    views.shut_down().await;
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

#[tokio::test]
async fn a_view_whose_deletion_was_cut_short_is_gone_all_the_same() {
    let world = World::new();
    let store = world.open().await;
    let views = Views::open(&store).await.unwrap();
    ordered(&store, "order-1", BY_ADA).await;
    let name = declare(&views, ORDERS).await.name().clone();
    views.rebuild(&name, crate::materialized_view::Switch::Manual).await.unwrap();
    // The process ends before anything is swept away.
    let left = views.forget_all(&name).await.unwrap();
    assert_eq!(left.len(), 2);
    views.shut_down().await;
    store.close().await.unwrap();
    let store = world.open().await;
    let views = Views::open(&store).await.unwrap();
    assert!(views.list().await.unwrap().is_empty());
    let sql = "SELECT count(*) FROM sqlite_master WHERE name LIKE 'view\\_\\_%' ESCAPE '\\'";
    let tables = store.query(sql, vec![]).await.unwrap();
    assert_eq!(tables[0].at(0).as_i64(), Some(0), "what was left was swept away");
    assert!(views.declare(orders()).await.unwrap().new, "its name is free");
}
