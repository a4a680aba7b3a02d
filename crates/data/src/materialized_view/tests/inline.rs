//! Views kept in the append's own transaction.

use std::sync::atomic::Ordering;

use super::{super::*, world::*};
use crate::{
    event::NewEvent,
    store::{AppendError, ExpectedVersion, Store, TransactError},
};

async fn inline(store: &Store, code: Tally) -> (Views, View) {
    let views = Views::open(store).await.unwrap();
    let config = Config { max_attempts: 2, ..Config::inline() };
    let tally = views.start(code, config).await.unwrap();
    tally.until(1, |build| build.shards[0].standing == Standing::Inline).await;
    (views, tally)
}

#[tokio::test]
async fn an_append_and_its_rows_are_there_together() {
    let world = World::new();
    let store = world.open().await;
    append_many(&store, 3, 10).await;
    let (_views, tally) = inline(&store, Tally::new()).await;
    for _ in 0..20 {
        append(&store, "s-1", &["happened", "happened"]).await;
        assert_eq!(tally.rows_as_they_are().await, fold(&store).await);
    }
    let reading = tally.query("SELECT 1 FROM {tally}", vec![]).await.unwrap();
    assert_eq!(reading.position, store.head());
    assert!(tally.is_whole(1).await);
}

#[tokio::test]
async fn an_event_that_the_view_cannot_take_is_refused_and_others_are_not() {
    let world = World::new();
    let store = world.open().await;
    let (_views, tally) = inline(&store, Tally::new()).await;
    let kinds: Vec<&str> = (0..40).map(|n| if n % 10 == 7 { "poison" } else { "happened" }).collect();
    let streams: Vec<String> = (0..40).map(|n| format!("s-{n}")).collect();
    let appends =
        streams.iter().zip(&kinds).map(|(stream, kind)| try_append(&store, stream, std::slice::from_ref(kind)));
    let outcomes = futures_util::future::join_all(appends).await;
    for (kind, outcome) in kinds.iter().zip(&outcomes) {
        let refused = matches!(outcome, Err(AppendError::View { view, .. }) if &**view == "tally");
        assert_eq!((*kind == "poison", outcome.is_err()), (refused, refused), "{outcome:?}");
    }
    assert_eq!(store.head().get(), 36, "a refused append leaves no gap");
    assert_eq!(tally.rows_as_they_are().await, fold(&store).await);
    assert!(tally.is_whole(1).await);
}

#[tokio::test]
async fn a_transaction_whose_events_the_view_refuses_is_rolled_back() {
    let world = World::new();
    let store = world.open().await;
    let (_views, tally) = inline(&store, Tally::new()).await;
    let refused = store
        .transact(|tx| {
            Box::pin(async move {
                tx.execute("CREATE TABLE note (x)", &[]).await.map_err(|cause| cause.to_string())?;
                let poison = vec![NewEvent::new("e-1", "/test", "poison")];
                tx.append(&name("s"), ExpectedVersion::Any, poison).await.map_err(|cause| cause.to_string())
            })
        })
        .await;
    assert!(matches!(&refused, Err(TransactError::View { view, .. }) if &**view == "tally"), "{refused:?}");
    assert!(store.query("SELECT * FROM note", vec![]).await.is_err());
    assert_eq!(tally.rows_as_they_are().await, []);
}

#[tokio::test]
async fn a_transaction_sees_the_rows_of_everything_before_it() {
    let world = World::new();
    let store = world.open().await;
    inline(&store, Tally::new()).await;
    let count = |store: Store| async move {
        let counted = store.transact(|tx| {
            Box::pin(async move {
                let rows = tx.query("SELECT coalesce(sum(n), 0) FROM view__tally__1__tally", &[]).await?;
                let page = crate::store::ReadLog {
                    query: crate::store::Query::EVERYTHING,
                    after: Default::default(),
                    limit: 100,
                };
                let events = tx.read_log(page).await?.events.len();
                Ok::<_, crate::store::SqlError>((rows[0].at(0).as_i64().unwrap(), i64::try_from(events).unwrap()))
            })
        });
        counted.await.unwrap()
    };
    let appends = (0..20).map(|n| {
        let store = store.clone();
        async move { append(&store, &format!("s-{n}"), &["happened"]).await }
    });
    let counts = (0..20).map(|_| count(store.clone()));
    let (_, counts) = tokio::join!(futures_util::future::join_all(appends), futures_util::future::join_all(counts));
    for (in_rows, in_log) in counts {
        assert_eq!(in_rows, in_log);
    }
}

#[tokio::test]
async fn appends_made_without_the_views_code_are_caught_up_with() {
    let world = World::new();
    let store = world.open().await;
    let (views, tally) = inline(&store, Tally::new()).await;
    append(&store, "s", &["happened"]).await;
    assert_eq!(tally.rows_as_they_are().await.len(), 1);
    drop(views);
    store.close().await.unwrap();
    let store = world.open().await;
    append(&store, "s", &["happened"]).await;
    append(&store, "t", &["happened"]).await;
    let (_views, tally) = inline(&store, Tally::new()).await;
    append(&store, "t", &["happened"]).await;
    assert_eq!(tally.rows_as_they_are().await, fold(&store).await);
    assert!(tally.is_whole(1).await);
}

#[tokio::test]
async fn a_rebuild_of_an_inline_view_ends_inline_at_an_exact_position() {
    let world = World::new();
    let store = world.open().await;
    append_many(&store, 3, 30).await;
    let (views, tally) = inline(&store, Tally::new()).await;
    let begun = views.rebuild(tally.name(), Switch::WhenCaughtUp).await.unwrap();
    while !tally.build(begun).await.live {
        append_many(&store, 3, 3).await;
        assert_eq!(tally.rows_as_they_are().await, fold(&store).await, "whichever build readers have");
    }
    append_many(&store, 3, 3).await;
    assert_eq!(tally.rows_as_they_are().await, fold(&store).await);
    assert!(tally.is_whole(1).await && tally.is_whole(2).await);
}

#[tokio::test]
async fn a_paused_inline_view_holds_up_no_append_and_catches_up() {
    let world = World::new();
    let store = world.open().await;
    let (views, tally) = inline(&store, Tally::new()).await;
    views.pause(tally.name(), build(1)).await.unwrap();
    append(&store, "s", &["happened"]).await;
    assert_eq!(tally.rows_as_they_are().await, []);
    views.resume(tally.name(), build(1)).await.unwrap();
    tally.until(1, |build| build.shards[0].standing == Standing::Inline).await;
    append(&store, "s", &["happened"]).await;
    assert_eq!(tally.rows_as_they_are().await, fold(&store).await);
}

#[tokio::test]
async fn an_inline_view_whose_code_does_not_run_says_how_far_it_is() {
    let world = World::new();
    let store = world.open().await;
    let (views, _) = inline(&store, Tally::new()).await;
    append(&store, "s", &["happened"]).await;
    drop(views);
    store.close().await.unwrap();
    let store = world.open().await;
    append(&store, "s", &["happened"]).await;
    let tally = Views::open(&store).await.unwrap().get(&view("tally")).await.unwrap();
    let reading = tally.query("SELECT 1 FROM {tally}", vec![]).await.unwrap();
    assert_eq!((reading.position.get(), store.head().get()), (1, 2));
    let waited = tally.wait(store.token(), std::time::Duration::ZERO).await;
    assert!(matches!(waited, Err(ViewError::Behind { .. })), "{waited:?}");
    assert_eq!(tally.build(build(1)).await.lag_events, 1);
}

/// The appends of a program before and while its views begin: `claimed` says whether the shard's owner came before the
/// second one.
async fn appends_around_the_first_claim(claimed: bool) {
    let world = World::new();
    let store = world.open().await;
    let (views, _) = inline(&store, Tally::new()).await;
    append(&store, "s", &["happened"]).await;
    drop(views);
    store.close().await.unwrap();
    let store = world.open().await;
    append(&store, "s", &["happened"]).await;
    let views = Views::open(&store).await.unwrap();
    // As `launch` does, in slow motion: appends are followed first, then a runner claims the shard.
    let code = std::sync::Arc::new(
        registered::Registered::new(&store, std::sync::Arc::new(Tally::new()), Config::inline(), false).await.unwrap(),
    );
    let (namespace, local) = (Namespace::new(view("tally"), build(1)), std::sync::Arc::new(shared::Local::new(1)));
    store.follow(std::sync::Arc::new(super::super::inline::Inline { code, namespace, local })).unwrap();
    if claimed {
        claim::run(&views.shared, &Config::inline(), build(1), 0, false).await.unwrap();
    }
    append(&store, "s", &["happened"]).await;
    let tally = views.start(Tally::new(), Config::inline()).await.unwrap();
    tally.until(1, |build| build.shards[0].standing == Standing::Inline).await;
    append(&store, "s", &["happened"]).await;
    assert_eq!(tally.rows_as_they_are().await, fold(&store).await);
    assert!(tally.is_whole(1).await);
}

#[tokio::test]
async fn appends_before_the_first_claim_are_not_lost() {
    appends_around_the_first_claim(false).await;
}

#[tokio::test]
async fn appends_behind_the_first_claim_are_not_lost() {
    appends_around_the_first_claim(true).await;
}

#[tokio::test]
async fn a_first_build_with_parked_events_is_read_until_appends_can_keep_it() {
    let world = World::new();
    let store = world.open().await;
    let views = Views::open(&store).await.unwrap();
    append(&store, "bad", &["happened", "poison", "happened"]).await;
    let code = Tally::new();
    let parking = Config { on_poison: OnPoison::Park, max_attempts: 1, ..Config::inline() };
    let tally = views.start(code.clone(), parking).await.unwrap();
    assert_eq!(
        tally.rows_now(&store).await,
        [("bad".to_owned(), 1, 1)],
        "something with its gaps named is better than nothing"
    );
    assert_eq!(tally.query("SELECT 1 FROM {tally}", vec![]).await.unwrap().parked, 2);
    append(&store, "good", &["happened"]).await;
    assert_eq!(tally.rows_now(&store).await.len(), 2);
    code.poisonous.store(false, Ordering::Relaxed);
    views.replay(tally.name(), build(1), "bad").await.unwrap();
    tally.until(1, |build| build.shards[0].standing == Standing::Inline).await;
    append(&store, "bad", &["happened"]).await;
    assert_eq!(tally.rows_as_they_are().await, fold(&store).await);
    assert!(tally.is_whole(1).await);
}
