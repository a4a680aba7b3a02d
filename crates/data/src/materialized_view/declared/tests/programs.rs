//! Programs that make rows where paths are not enough, also of events whose data is gone.

use super::*;

/// Rows of what paths and SQL cannot take apart: members whose names are data, lists in lists, sums over them.
pub(super) const BASKETS: &str = r#"
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

    let build = views.rebuild(&declared.view, crate::materialized_view::Switch::WhenCaughtUp).await.unwrap();
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
pub(super) const PEOPLE: &str = r#"
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
