//! Keeping up with the log: exactly once per build, in whatever batches, across restarts and owners.

use std::time::Duration;

use super::{super::*, world::*};
use crate::{
    event::Position,
    store::{SqlError, TransactError},
};

#[tokio::test]
async fn a_view_is_the_fold_of_the_log() {
    let world = World::new();
    let store = world.open().await;
    append_many(&store, 7, 100).await;
    let views = Views::open(&store).await.unwrap();
    let tally = views.start(Tally::new(), config()).await.unwrap();
    append_many(&store, 5, 100).await;
    assert_eq!(tally.rows_now(&store).await, fold(&store).await);
    assert!(tally.is_whole(1).await);
    assert!(store.verify(std::sync::Arc::new(|_, _| {})).await.unwrap().is_sound());
}

#[tokio::test]
async fn a_restart_goes_on_at_the_checkpoint_and_applies_nothing_twice() {
    let world = World::new();
    for round in 1..=3 {
        let store = world.open().await;
        let views = Views::open(&store).await.unwrap();
        let tally = views.start(Tally::new(), config()).await.unwrap();
        append_many(&store, 3, 20).await;
        assert_eq!(tally.rows_now(&store).await, fold(&store).await);
        let applied = tally.build(build(1)).await.shards[0].applied;
        assert_eq!(applied, round * 20);
        // Not shut down in order: what was committed is all that counts.
        store.close().await.unwrap();
    }
}

#[tokio::test]
async fn the_checkpoint_moves_over_events_that_do_not_matter() {
    let world = World::new();
    let store = world.open().await;
    let views = Views::open(&store).await.unwrap();
    let rare = views.start(Tally::of_types(&["rare"]), Config { stride: 10, ..config() }).await.unwrap();
    append(&store, "s", &["rare"]).await;
    append_many(&store, 2, 50).await;
    let reached = rare.wait(store.token(), LONG).await.unwrap();
    assert_eq!(reached, Position::new(51));
    let build = rare.until(1, |build| build.shards[0].checkpoint > Position::new(40)).await;
    assert_eq!((build.shards[0].applied, build.lag_events, build.lag), (1, 0, Some(Duration::ZERO)));
    assert!(rare.is_whole(1).await);
}

#[tokio::test]
async fn a_read_waits_for_its_own_write_or_is_told_how_far_the_view_is() {
    let world = World::new();
    let store = world.open().await;
    let views = Views::open(&store).await.unwrap();
    let tally = views.start(Tally::new(), config()).await.unwrap();
    append(&store, "s", &["happened"]).await;
    assert_eq!(tally.rows_now(&store).await.len(), 1);
    views.pause(tally.name(), build(1)).await.unwrap();
    tally.until(1, |build| build.shards[0].standing == Standing::Paused).await;
    append(&store, "t", &["happened"]).await;
    let fresh = Freshness { at_least: Some(store.token()), wait: Duration::from_millis(5), ..Freshness::default() };
    let behind = tally.query_fresh(fresh, "SELECT 1 FROM {tally}", vec![]).await.unwrap_err();
    let ViewError::Behind { applied, wanted, .. } = &behind else { panic!("{behind:?}") };
    assert_eq!((*applied, *wanted), (Position::new(1), Position::new(2)));
    views.resume(tally.name(), build(1)).await.unwrap();
    let fresh = Freshness { wait: LONG, ..fresh };
    let reading = tally.query_fresh(fresh, "SELECT 1 FROM {tally}", vec![]).await.unwrap();
    assert_eq!((reading.rows.len(), reading.position), (2, Position::new(2)));
}

#[tokio::test]
async fn a_token_of_another_store_is_refused() {
    let (here, there) = (World::new(), World::new());
    let store = here.open().await;
    let tally = Views::open(&store).await.unwrap().start(Tally::new(), config()).await.unwrap();
    let foreign = there.open().await.token();
    assert!(matches!(tally.wait(foreign, LONG).await, Err(ViewError::Token(_))));
}

#[tokio::test]
async fn an_owner_who_comes_back_late_writes_nothing() {
    let world = World::new();
    let store = world.open().await;
    let first = Views::open(&store).await.unwrap();
    let tally = first.start(Tally::new(), config()).await.unwrap();
    append_many(&store, 2, 10).await;
    tally.rows_now(&store).await;
    let second = Views::open(&store).await.unwrap();
    let taken = second.start(Tally::new(), config()).await.unwrap();
    append_many(&store, 2, 10).await;
    assert_eq!(taken.rows_now(&store).await, fold(&store).await);
    tally.until(1, |build| build.shards[0].standing == Standing::Fenced).await;
    append_many(&store, 2, 10).await;
    assert_eq!(taken.rows_now(&store).await, fold(&store).await);
    assert!(taken.is_whole(1).await);
}

#[tokio::test]
async fn an_owner_is_waited_for_where_there_may_be_several() {
    let world = World::new();
    let store = world.open().await;
    let patient = Config { takeover: Some(Duration::from_millis(40)), ..config() };
    let first = Views::open(&store).await.unwrap();
    first.start(Tally::new(), patient.clone()).await.unwrap().rows_now(&store).await;
    let second = Views::open(&store).await.unwrap();
    let tally = second.start(Tally::new(), patient).await.unwrap();
    let beaten = store.env().mono() + Duration::from_millis(200);
    store.env().sleep_until(beaten).await;
    assert_eq!(tally.build(build(1)).await.shards[0].epoch, 1, "the owner has nothing to do, and says so");
    first.shut_down().await;
    append_many(&store, 2, 10).await;
    assert_eq!(tally.rows_now(&store).await, fold(&store).await);
    assert_eq!(tally.build(build(1)).await.shards[0].epoch, 2);
}

#[tokio::test]
async fn whoever_was_fenced_goes_on_once_the_later_owner_has_left() {
    let world = World::new();
    let store = world.open().await;
    let mut owners = Vec::new();
    for _ in 0..3 {
        let views = Views::open(&store).await.unwrap();
        let tally = views.start(Tally::new(), config()).await.unwrap();
        append_many(&store, 2, 10).await;
        tally.rows_now(&store).await;
        owners.push((views, tally));
    }
    let first = owners[0].1.clone();
    first.until(1, |build| build.shards[0].standing == Standing::Fenced).await;
    while let Some((last, _)) = owners.pop() {
        last.shut_down().await;
        append_many(&store, 2, 10).await;
        if let Some((_, tally)) = owners.last() {
            tally.until(1, |build| build.shards[0].standing == Standing::CaughtUp).await;
            assert_eq!(tally.rows_now(&store).await, fold(&store).await);
            assert!(tally.is_whole(1).await);
        }
        // Of those who stood by the newest goes on: whoever came before it still stands by.
        if owners.len() > 1 {
            assert_eq!(first.build(build(1)).await.shards[0].standing, Standing::Fenced);
        }
    }
    assert_eq!(first.build(build(1)).await.shards[0].standing, Standing::Idle);
}

#[tokio::test]
async fn a_paused_view_is_not_left_alone_by_an_owner_who_leaves() {
    let world = World::new();
    let store = world.open().await;
    let first = Views::open(&store).await.unwrap();
    let tally = first.start(Tally::new(), config()).await.unwrap();
    tally.rows_now(&store).await;
    first.pause(tally.name(), build(1)).await.unwrap();
    tally.until(1, |build| build.shards[0].standing == Standing::Paused).await;
    let second = Views::open(&store).await.unwrap();
    let taken = second.start(Tally::new(), config()).await.unwrap();
    taken.until(1, |build| build.shards[0].standing == Standing::Paused).await;
    second.shut_down().await;
    second.resume(tally.name(), build(1)).await.unwrap();
    append_many(&store, 2, 10).await;
    assert_eq!(tally.rows_now(&store).await, fold(&store).await);
}

#[tokio::test]
async fn what_somebody_asks_for_reaches_whoever_keeps_the_view() {
    let world = World::new();
    let store = world.open().await;
    let (keeper, other) = (Views::open(&store).await.unwrap(), Views::open(&store).await.unwrap());
    let tally = keeper.start(Tally::new(), config()).await.unwrap();
    tally.rows_now(&store).await;
    keeper.pause(tally.name(), build(1)).await.unwrap();
    tally.until(1, |build| build.shards[0].standing == Standing::Paused).await;
    append_many(&store, 2, 10).await;
    other.resume(tally.name(), build(1)).await.unwrap();
    assert_eq!(tally.rows_now(&store).await, fold(&store).await);
}

#[tokio::test]
async fn a_rebuild_goes_on_when_whoever_asked_for_it_has_left() {
    let world = World::new();
    let store = world.open().await;
    let first = Views::open(&store).await.unwrap();
    let tally = first.start(Tally::new(), config()).await.unwrap();
    append_many(&store, 2, 10).await;
    tally.rows_now(&store).await;
    let second = Views::open(&store).await.unwrap();
    let taken = second.start(Tally::new(), config()).await.unwrap();
    second.rebuild(tally.name(), Switch::Manual).await.unwrap();
    taken.until(2, |build| build.shards[0].standing == Standing::CaughtUp).await;
    second.shut_down().await;
    append_many(&store, 2, 10).await;
    tally.until(2, |build| build.shards[0].standing == Standing::CaughtUp && build.lag_events == 0).await;
    first.switch(tally.name(), build(2), false).await.unwrap();
    assert_eq!(tally.rows_now(&store).await, fold(&store).await);
}

#[tokio::test]
async fn nobody_waits_for_an_owner_who_let_go() {
    let world = World::new();
    let store = world.open().await;
    // Silence would take longer than this test would wait.
    let patient = Config { takeover: Some(LONG * 100), ..config() };
    let first = Views::open(&store).await.unwrap();
    first.start(Tally::new(), patient.clone()).await.unwrap().rows_now(&store).await;
    first.shut_down().await;
    let second = Views::open(&store).await.unwrap();
    let tally = second.start(Tally::new(), patient).await.unwrap();
    append_many(&store, 2, 10).await;
    assert_eq!(tally.rows_now(&store).await, fold(&store).await);
}

#[tokio::test]
async fn an_owner_who_is_paused_still_gives_signs_of_life() {
    let world = World::new();
    let store = world.open().await;
    let views = Views::open(&store).await.unwrap();
    let patient = Config { takeover: Some(Duration::from_millis(40)), ..config() };
    let tally = views.start(Tally::new(), patient).await.unwrap();
    tally.rows_now(&store).await;
    views.pause(tally.name(), build(1)).await.unwrap();
    tally.until(1, |build| build.shards[0].standing == Standing::Paused).await;
    let beat = async || {
        let rows = store.room_query("SELECT beat FROM quorate_view_shard", vec![]).await.unwrap();
        rows[0].at(0).as_i64().unwrap()
    };
    let (before, env) = (beat().await, store.env());
    let beaten = env.timeout(LONG, async {
        while beat().await < before + 3 {
            env.sleep(Duration::from_millis(5)).await;
        }
    });
    assert!(beaten.await.is_some(), "nobody heard of it any more");
}

#[tokio::test]
async fn shards_together_are_the_fold_of_the_log() {
    let world = World::new();
    let store = world.open().await;
    append_many(&store, 13, 200).await;
    let views = Views::open(&store).await.unwrap();
    let tally = views.start(Tally::new(), Config { shards: 4, ..config() }).await.unwrap();
    append_many(&store, 17, 100).await;
    assert_eq!(tally.rows_now(&store).await, fold(&store).await);
    let shards = tally.build(build(1)).await.shards;
    assert_eq!(shards.iter().map(|shard| shard.applied).sum::<u64>(), 300);
    assert!(shards.iter().all(|shard| shard.applied > 0), "{shards:?}");
    assert!(tally.is_whole(1).await);
}

#[tokio::test]
async fn the_application_reads_a_view_and_never_writes_it() {
    let world = World::new();
    let store = world.open().await;
    append(&store, "s", &["happened"]).await;
    let tally = Views::open(&store).await.unwrap().start(Tally::new(), config()).await.unwrap();
    tally.rows_now(&store).await;
    let rows = store.query("SELECT n FROM view__tally__1__tally", vec![]).await.unwrap();
    assert_eq!(rows.len(), 1);
    for sql in [
        "DELETE FROM view__tally__1__tally",
        "UPDATE view__tally__1__tally SET n = 0",
        "DROP TABLE view__tally__1__tally",
        "ALTER TABLE view__tally__1__tally ADD COLUMN x",
        "CREATE TABLE view__mine__9__mine (x)",
        "CREATE TRIGGER t AFTER INSERT ON view__tally__1__tally BEGIN SELECT 1; END",
    ] {
        let refused = store.transact(move |tx| Box::pin(tx.execute(sql, &[]))).await;
        assert!(matches!(refused, Err(TransactError::Aborted(SqlError::Refused { .. }))), "`{sql}`: {refused:?}");
    }
}

#[tokio::test]
async fn statements_of_a_view_reach_its_own_tables_and_no_others() {
    let world = World::new();
    let store = world.open().await;
    let views = Views::open(&store).await.unwrap();
    let tally = views.start(Tally::new(), config()).await.unwrap();
    let other = views.start(Tally { name: view("other"), ..Tally::new() }, config()).await.unwrap();
    other.rows_now(&store).await;
    tally.rows_now(&store).await;
    for sql in [
        "SELECT * FROM view__other__2__tally",
        "SELECT * FROM quorate_block",
        "SELECT * FROM quorate_view",
        "SELECT * FROM sqlite_schema",
        "SELECT random() FROM {tally}",
        "SELECT current_timestamp FROM {tally}",
        "PRAGMA table_info(quorate_block)",
        "ATTACH ':memory:' AS other",
        "DELETE FROM {tally}",
        "CREATE TABLE {more} (x)",
    ] {
        let refused = tally.query(sql, vec![]).await;
        assert!(matches!(refused, Err(ViewError::Sql(_))), "`{sql}`: {refused:?}");
    }
}

#[tokio::test]
async fn statements_that_change_a_view_tell_no_time() {
    let world = World::new();
    let store = world.open().await;
    let views = Views::open(&store).await.unwrap();
    let tally = views.start(Tally::new(), config()).await.unwrap();
    tally.until(1, |build| build.live).await;
    for time in ["datetime('now')", "DATE()", "strftime('%s', $1)", "unixepoch()", "julianday('now')", "current_date"] {
        let sql = format!("INSERT INTO view__tally__1__tally (stream, n, places) VALUES ({time}, 1, 1)");
        let refused = store.transact(move |tx| {
            let sql = sql.clone();
            Box::pin(async move { tx.view_execute(build(1), &sql, &["now".into()]).await })
        });
        let refused = format!("{:?}", refused.await.unwrap_err());
        assert!(refused.contains("not authorized to use function"), "{time}: {refused}");
    }
    let asked = tally.query("SELECT strftime('%Y', '2011-10-01')", vec![]).await.unwrap();
    assert_eq!(asked.rows[0].at(0).as_str(), Some("2011"), "whoever reads may");
}
