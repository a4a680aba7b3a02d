//! What is kept of declared views outlives processes, and what was deleted leaves nothing.

use super::*;
use crate::materialized_view::declared::Origin;

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

        let again = here.rebuild(&declared.view, crate::materialized_view::Switch::WhenCaughtUp).await.unwrap();
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

#[tokio::test]
async fn a_document_that_is_kept_no_more_begins_no_build() {
    let world = World::new();
    let store = world.open().await;
    let views = Views::open(&store).await.unwrap();
    let name = declare(&views, ORDERS).await.name().clone();
    let other = Arc::new(read(&ORDERS.replace("customer.orders + 1", "customer.orders + 2")).unwrap());
    views.shared.forget(|_| true);
    let config = Config { changed: Changed::Rebuild, ..other.config().clone() };
    let started = views.start_keeping(Arc::new(Declared(other.clone())), config, None, Some(Origin::Kept(other))).await;
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
