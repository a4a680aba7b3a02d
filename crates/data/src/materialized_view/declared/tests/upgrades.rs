//! A document means what it meant, whichever quorate reads it.

use super::{
    programs::{BASKETS, PEOPLE},
    *,
};
use crate::materialized_view::declared::{self, is_kept};

#[tokio::test(flavor = "multi_thread")]
async fn a_build_begins_only_of_the_document_that_was_read_for_it() {
    let world = World::new();
    let store = world.open().await;
    let views = Views::open(&store).await.unwrap();
    let declared = views.declare(orders()).await.unwrap();
    let code = views.shared.code().values().next().cloned().unwrap();
    let kept = declared::kept(&mut &store, &code).await.unwrap();
    assert_eq!(kept.text, ORDERS);
    let is_kept = async || {
        let kept = kept.clone();
        let asked = store.transact(move |tx| {
            let kept = kept.clone();
            Box::pin(async move { is_kept(tx, &kept).await })
        });
        asked.await.map_err(ViewError::of_transaction)
    };
    assert!(is_kept().await.unwrap());
    views.declare(read(&format!("# Of a shop.\n{ORDERS}")).unwrap()).await.unwrap();
    assert!(!is_kept().await.unwrap(), "it is read once more");
    views.rebuild(&declared.view, crate::materialized_view::Switch::Manual).await.unwrap();
    views.delete(&declared.view).await.unwrap();
    assert!(matches!(is_kept().await, Err(ViewError::NotFound { .. })));
    assert!(matches!(declared::kept(&mut &store, &code).await, Err(ViewError::NotFound { .. })));
    views.shut_down().await;
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
