//! What a view was handed against what it did: whether anything was lost on the way shows at any time.

use std::sync::atomic::Ordering;

use super::{super::*, world::*};
use crate::{event::Position, store::Store};

/// Whether what was applied, parked, skipped and passed over is the checkpoint of every shard.
fn comes_out(build: &BuildDescription) -> bool {
    let is_sum = |shard: &ShardDescription| {
        shard.applied + shard.parked + shard.skipped + shard.filtered == shard.checkpoint.get()
    };
    build.unaccounted() == 0 && build.shards.iter().all(is_sum)
}

async fn room(store: &Store, sql: &'static str) {
    let done = store.transact(move |tx| Box::pin(async move { tx.room_execute(sql, &[]).await }));
    done.await.unwrap_or_else(|failed| panic!("{sql}: {failed}"));
}

#[tokio::test]
async fn what_was_handed_is_what_was_done_through_poison_replays_restarts_and_rebuilds() {
    let world = World::new();
    let parking = Config { on_poison: OnPoison::Park, stride: 10, ..config() };
    for (mode, shards) in [(Mode::Async, 1), (Mode::Async, 3), (Mode::Inline, 1)] {
        let store = world.open().await;
        let views = Views::open(&store).await.unwrap();
        let of = |poisonous| {
            let code = Tally {
                name: view(&format!("tally-{}{shards}", mode.as_str())),
                ..Tally::of_types(&["happened", "poison"])
            };
            code.poisonous.store(poisonous, Ordering::Relaxed);
            code
        };
        append_many(&store, 5, 30).await;
        append(&store, "s-1", &["rare", "poison", "happened"]).await;
        let code = of(true);
        let config = Config { mode, shards, ..parking.clone() };
        let tally = views.start(code.clone(), config.clone()).await.unwrap();
        tally.wait(store.token(), LONG).await.unwrap();
        let first = tally.describe().await.unwrap().builds[0].build;
        let parked = views.parked(tally.name(), first, Position::ZERO, 10).await.unwrap();
        assert!(comes_out(&tally.build(first).await), "with {} parked", parked.len());
        views.skip(tally.name(), first, parked[0].position, "ada").await.unwrap();
        code.poisonous.store(false, Ordering::Relaxed);
        views.replay(tally.name(), first, "s-1").await.unwrap();
        append(&store, "s-1", &["rare", "happened", "rare"]).await;
        tally.rows_now(&store).await;
        assert!(comes_out(&tally.build(first).await), "{:#?}", tally.build(first).await);
        store.close().await.unwrap();
        let store = world.open().await;
        let views = Views::open(&store).await.unwrap();
        let tally = views.start(of(false), config).await.unwrap();
        append_many(&store, 5, 20).await;
        let second = views.rebuild(tally.name(), Switch::WhenCaughtUp).await.unwrap();
        append_many(&store, 5, 20).await;
        tally.until(second.get(), |build| build.live).await;
        tally.rows_now(&store).await;
        for build in tally.describe().await.unwrap().builds {
            assert!(comes_out(&build), "{build:#?}");
        }
        assert!(tally.is_whole(second.get()).await);
        store.close().await.unwrap();
    }
}

#[tokio::test]
async fn what_was_lost_or_taken_twice_shows_without_a_recount_and_does_not_go_away() {
    let world = World::new();
    let store = world.open().await;
    append_many(&store, 2, 10).await;
    for (n, (sql, unaccounted)) in [
        // The checkpoint went on without what lies behind it.
        ("UPDATE quorate_view_shard SET checkpoint = checkpoint - 3, looked = looked - 5", 2),
        // Rows were committed apart from their checkpoint: once too few, once too many.
        ("UPDATE quorate_view_shard SET applied = applied - 4", 4),
        ("UPDATE quorate_view_shard SET applied = applied + 1", 1),
        // One event for another.
        ("UPDATE quorate_view_shard SET checksum = checksum + 1", 1),
        // Nothing is set off against anything else.
        ("UPDATE quorate_view_shard SET looked = looked - 2, skipped = skipped + 2", 4),
    ]
    .into_iter()
    .enumerate()
    {
        let views = Views::open(&store).await.unwrap();
        let name = view(&format!("tally-{n}"));
        let tally = views.start(Tally { name: name.clone(), ..Tally::new() }, config()).await.unwrap();
        tally.rows_now(&store).await;
        views.shut_down().await;
        let build = tally.describe().await.unwrap().builds[0].build;
        assert!(comes_out(&tally.build(build).await));
        room(&store, sql).await;
        assert_eq!(tally.build(build).await.unaccounted(), unaccounted, "{sql}");
        let views = Views::open(&store).await.unwrap();
        let tally = views.start(Tally { name: name.clone(), ..Tally::new() }, config()).await.unwrap();
        append_many(&store, 2, 5).await;
        tally.wait(store.token(), LONG).await.unwrap();
        views.shut_down().await;
        let found = tally.build(build).await;
        // What the checkpoint was set back by is looked at, and applied, once more.
        assert!(found.unaccounted() >= unaccounted, "{sql}: {found:#?}");
        views.delete(&name).await.unwrap();
    }
}

#[tokio::test]
async fn counting_begins_where_a_view_of_an_older_store_is() {
    let world = World::new();
    let store = world.open().await;
    let views = Views::open(&store).await.unwrap();
    let tally = views.start(Tally::of_types(&["rare"]), config()).await.unwrap();
    append(&store, "s", &["rare", "happened", "rare"]).await;
    tally.rows_now(&store).await;
    views.shut_down().await;
    for sql in [
        "ALTER TABLE quorate_view_shard DROP COLUMN looked",
        "ALTER TABLE quorate_view_shard DROP COLUMN handed",
        "ALTER TABLE quorate_view_shard DROP COLUMN handed_sum",
        "ALTER TABLE quorate_view_shard DROP COLUMN ordered_by",
        "ALTER TABLE quorate_view_build DROP COLUMN was_live",
    ] {
        room(&store, sql).await;
    }
    let sum: i64 = crc32fast::hash(&[&b"view"[..], &3_i64.to_le_bytes()].concat()).into();
    let older = store.transact(move |tx| {
        let sql = "UPDATE quorate_room SET version = 3, sum = $1 WHERE room = 'view'";
        Box::pin(async move { tx.room_execute(sql, &[sum.into()]).await })
    });
    assert_eq!(older.await.unwrap(), 1);
    let views = Views::open(&store).await.unwrap();
    let tally = views.start(Tally::of_types(&["rare"]), config()).await.unwrap();
    assert!(comes_out(&tally.build(build(1)).await));
    append(&store, "s", &["happened", "rare"]).await;
    tally.rows_now(&store).await;
    assert!(comes_out(&tally.build(build(1)).await));
    assert!(tally.is_whole(1).await);
}
