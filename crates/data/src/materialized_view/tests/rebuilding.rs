//! Rebuilding beside what readers have.

use std::sync::atomic::Ordering;

use super::{super::*, world::*};
use crate::{
    event::NewEvent,
    store::{Query, QueryItem, Store},
};

async fn started(store: &Store, code: Tally) -> (Views, View) {
    let views = Views::open(store).await.unwrap();
    let tally = views.start(code, config()).await.unwrap();
    (views, tally)
}

#[tokio::test]
async fn readers_keep_what_they_have_until_the_new_build_has_caught_up() {
    let world = World::new();
    let store = world.open().await;
    append_many(&store, 3, 30).await;
    let (views, tally) = started(&store, Tally::new()).await;
    let before = tally.rows_now(&store).await;
    let second = views.start(Tally { weight: 10, ..Tally::version(2) }, Config { switch: Switch::Manual, ..config() });
    second.await.unwrap();
    tally.until(2, |build| build.lag_events == 0).await;
    assert_eq!(tally.rows_as_they_are().await, before, "not before somebody says so");
    assert_eq!(views.switch(tally.name(), build(2), false).await.unwrap().get(), 30);
    let after = tally.rows_now(&store).await;
    assert_eq!(after[0].1, before[0].1 * 10);
    append_many(&store, 3, 3).await;
    views.switch(tally.name(), build(1), false).await.ok();
    tally.until(1, |build| build.lag_events == 0).await;
    assert!(tally.is_whole(1).await && tally.is_whole(2).await, "both stay up to date, side by side");
}

#[tokio::test]
async fn a_build_that_has_not_caught_up_is_not_given_to_readers() {
    let world = World::new();
    let store = world.open().await;
    append(&store, "s", &["happened", "happened"]).await;
    let (views, tally) = started(&store, Tally::new()).await;
    tally.rows_now(&store).await;
    let code = Tally::version(2);
    append(&store, "s", &["happened"]).await;
    views.start(code, Config { switch: Switch::Manual, ..config() }).await.unwrap();
    views.pause(tally.name(), build(2)).await.unwrap();
    let paused = tally.until(2, |build| build.shards[0].standing == Standing::Paused).await;
    append(&store, "s", &["happened"]).await;
    tally.wait(store.token(), LONG).await.unwrap();
    assert!(paused.paused);
    let refused = views.switch(tally.name(), build(2), false).await;
    assert!(matches!(refused, Err(ViewError::NotCaughtUp { .. })), "{refused:?}");
    views.resume(tally.name(), build(2)).await.unwrap();
    tally.until(2, |build| build.lag_events == 0).await;
    views.switch(tally.name(), build(2), false).await.unwrap();
}

#[tokio::test]
async fn a_first_build_is_not_read_half_built() {
    let world = World::new();
    let store = world.open().await;
    append(&store, "s", &["happened", "poison"]).await;
    let (views, tally) = started(&store, Tally::new()).await;
    tally.until(1, |build| matches!(build.shards[0].standing, Standing::Stopped { .. })).await;
    let half = tally.query("SELECT 1 FROM {tally}", vec![]).await;
    assert!(matches!(half, Err(ViewError::NotBuilt { applied, .. }) if applied.get() == 1), "{half:?}");
    views.skip(tally.name(), build(1), crate::event::Position::new(2), "ada").await.unwrap();
    assert_eq!(tally.rows_now(&store).await.len(), 1);
}

#[tokio::test]
async fn a_rebuild_under_writes_ends_with_the_fold_of_the_log() {
    let world = World::new();
    let store = world.open().await;
    append_many(&store, 5, 50).await;
    let (views, tally) = started(&store, Tally::new()).await;
    tally.rows_now(&store).await;
    let begun = views.rebuild(tally.name(), Switch::WhenCaughtUp).await.unwrap();
    assert_eq!(begun, build(2));
    while !tally.build(begun).await.live {
        append_many(&store, 5, 5).await;
        assert_eq!(tally.rows_now(&store).await, fold(&store).await, "whichever build readers have");
    }
    append_many(&store, 5, 5).await;
    assert_eq!(tally.rows_now(&store).await, fold(&store).await);
    views.drop_build(tally.name(), build(1)).await.unwrap();
    assert!(store.query("SELECT * FROM view__tally__1__tally", vec![]).await.is_err(), "its rows are gone");
    let live = views.drop_build(tally.name(), begun).await;
    assert!(matches!(live, Err(ViewError::Live { .. })), "{live:?}");
    assert!(tally.is_whole(2).await);
}

#[tokio::test]
async fn numbers_of_dropped_builds_are_not_used_again() {
    let world = World::new();
    let store = world.open().await;
    let (views, tally) = started(&store, Tally::new()).await;
    tally.rows_now(&store).await;
    let second = views.rebuild(tally.name(), Switch::Manual).await.unwrap();
    views.drop_build(tally.name(), second).await.unwrap();
    assert!(views.rebuild(tally.name(), Switch::Manual).await.unwrap() > second);
}

#[tokio::test]
async fn a_deleted_view_is_gone_and_can_be_begun_anew() {
    let world = World::new();
    let store = world.open().await;
    append(&store, "s", &["happened"]).await;
    let (views, tally) = started(&store, Tally::new()).await;
    tally.rows_now(&store).await;
    views.rebuild(tally.name(), Switch::Manual).await.unwrap();
    views.delete(tally.name()).await.unwrap();
    assert!(matches!(views.get(tally.name()).await, Err(ViewError::NotFound { .. })));
    assert!(views.list().await.unwrap().is_empty());
    assert!(store.query("SELECT * FROM view__tally__1__tally", vec![]).await.is_err());
    let tally = views.start(Tally::new(), config()).await.unwrap();
    assert_eq!(tally.rows_now(&store).await, fold(&store).await);
    assert_eq!(tally.describe().await.unwrap().live, Some(build(3)));
}

#[tokio::test]
async fn changed_code_under_the_same_version_is_noticed() {
    let world = World::new();
    let store = world.open().await;
    append(&store, "s", &["happened"]).await;
    let (views, tally) = started(&store, Tally::new()).await;
    tally.rows_now(&store).await;
    drop(views);
    let views = Views::open(&store).await.unwrap();
    let changed = Tally { fold: "now in cents".into(), ..Tally::new() };
    let refused = views.start(changed.clone(), config()).await;
    assert!(matches!(refused, Err(ViewError::FoldChanged { version: 1, .. })), "{:?}", refused.err());
    let tally = views.get(&view("tally")).await.unwrap();
    assert_eq!(tally.rows_as_they_are().await.len(), 1, "readers keep what they have");
    let changed = Tally { query: Query::of([QueryItem::types(["other"])]), ..changed };
    views.start(changed, Config { changed: Changed::Rebuild, ..config() }).await.unwrap();
    tally.until(2, |build| build.live).await;
    let other = tally.audit(build(1)).await;
    assert!(matches!(other, Err(ViewError::NoCode { .. })), "this code does not know what it counts: {other:?}");
    assert!(tally.is_whole(2).await);
}

#[tokio::test]
async fn a_probe_notices_a_change_that_shows_in_the_rows() {
    let world = World::new();
    let store = world.open().await;
    let probe = vec![NewEvent::new("e-1", "/test", "happened")];
    let code = Tally { probe: probe.clone(), ..Tally::new() };
    started(&store, code.clone()).await;
    let same = Views::open(&store).await.unwrap().start(code, config()).await;
    assert!(same.is_ok(), "{:?}", same.err());
    let heavier = Tally { probe, weight: 2, ..Tally::new() };
    let refused = Views::open(&store).await.unwrap().start(heavier, config()).await;
    assert!(matches!(refused, Err(ViewError::FoldChanged { .. })), "{:?}", refused.err());
}

#[tokio::test]
async fn an_older_version_started_later_does_not_take_readers_back() {
    let world = World::new();
    let store = world.open().await;
    append(&store, "s", &["happened"]).await;
    let (views, tally) = started(&store, Tally::version(2)).await;
    tally.rows_now(&store).await;
    views.start(Tally::version(1), config()).await.unwrap();
    append(&store, "s", &["happened"]).await;
    tally.until(2, |build| build.lag_events == 0).await;
    let reading = tally.query("SELECT 1 FROM {tally}", vec![]).await.unwrap();
    assert_eq!(reading.version, 2);
}

#[tokio::test]
async fn a_new_build_with_parked_events_waits_for_somebody_to_accept_that() {
    let world = World::new();
    let store = world.open().await;
    append(&store, "s", &["poison", "happened"]).await;
    let calm = Tally::new();
    calm.poisonous.store(false, Ordering::Relaxed);
    let (views, tally) = started(&store, calm).await;
    tally.rows_now(&store).await;
    let parking = Config { on_poison: OnPoison::Park, ..config() };
    views.start(Tally::version(2), parking).await.unwrap();
    tally.until(2, |build| build.shards[0].parked == 2 && build.lag_events == 0).await;
    assert!(!tally.build(build(2)).await.live);
    let refused = views.switch(tally.name(), build(2), false).await;
    assert!(matches!(refused, Err(ViewError::Incomplete { parked: 2, .. })), "{refused:?}");
    views.switch(tally.name(), build(2), true).await.unwrap();
    assert_eq!(tally.rows_as_they_are().await, []);
}

mod effects {
    use std::{sync::Arc, time::Duration};

    use quorate_runtime::BoxFuture;

    use super::*;

    async fn with_letters(store: &Store, code: Tally) -> (Views, View, Letterbox) {
        let (views, letters) = (Views::open(store).await.unwrap(), Letterbox::default());
        let handler: Arc<dyn EffectHandler> = Arc::new(letters.clone());
        let tally = views.start_shared(Arc::new(code), config(), Some(handler)).await.unwrap();
        (views, tally, letters)
    }

    async fn arrived(letters: &Letterbox, count: usize) -> Vec<String> {
        let env = quorate_runtime::Env::real();
        let waiting = async {
            while letters.letters().len() < count {
                env.sleep(std::time::Duration::from_millis(2)).await;
            }
        };
        let in_time = env.timeout(LONG, waiting).await;
        assert!(in_time.is_some(), "{:?}", letters.letters());
        letters.letters()
    }

    #[tokio::test]
    async fn effects_begin_where_the_view_does_and_not_with_history() {
        let world = World::new();
        let store = world.open().await;
        append(&store, "s", &["mailed"]).await;
        let (_views, tally, letters) = with_letters(&store, Tally::new()).await;
        append(&store, "s", &["mailed"]).await;
        append(&store, "s", &["mailed"]).await;
        tally.rows_now(&store).await;
        assert_eq!(arrived(&letters, 2).await, ["tally/2/0", "tally/3/0"]);
    }

    #[tokio::test]
    async fn a_rebuild_sends_nothing_again_and_goes_on_at_the_next_position() {
        let world = World::new();
        let store = world.open().await;
        let (views, tally, letters) = with_letters(&store, Tally::new()).await;
        for _ in 0..10 {
            append(&store, "s", &["mailed"]).await;
        }
        tally.rows_now(&store).await;
        arrived(&letters, 10).await;
        let begun = views.rebuild(tally.name(), Switch::WhenCaughtUp).await.unwrap();
        while !tally.build(begun).await.live {
            append(&store, "s", &["mailed"]).await;
        }
        append(&store, "s", &["mailed"]).await;
        tally.rows_now(&store).await;
        let count = usize::try_from(store.head().get()).unwrap();
        let mut letters = arrived(&letters, count).await;
        letters.sort_by_key(|key| key.split('/').nth(1).unwrap().parse::<u64>().unwrap());
        let wanted: Vec<_> = (1..=count).map(|n| format!("tally/{n}/0")).collect();
        assert_eq!(letters, wanted, "each once, none twice, none lost");
    }

    #[tokio::test]
    async fn what_the_old_build_never_came_to_is_carried_out_by_the_new_one() {
        let world = World::new();
        let store = world.open().await;
        let (views, tally, letters) = with_letters(&store, Tally::new()).await;
        append(&store, "s", &["mailed"]).await;
        tally.rows_now(&store).await;
        arrived(&letters, 1).await;
        views.pause(tally.name(), build(1)).await.unwrap();
        tally.until(1, |build| build.shards[0].standing == Standing::Paused).await;
        append(&store, "s", &["mailed"]).await;
        let begun = views.rebuild(tally.name(), Switch::WhenCaughtUp).await.unwrap();
        tally.until(begun.get(), |build| build.live).await;
        assert_eq!(arrived(&letters, 2).await, ["tally/1/0", "tally/2/0"]);
    }

    #[tokio::test]
    async fn effects_that_may_be_repeated_are() {
        let world = World::new();
        let store = world.open().await;
        append(&store, "s", &["mailed"]).await;
        let code = Tally { on_rebuild: OnRebuild::Repeat, ..Tally::new() };
        let (views, tally, letters) = with_letters(&store, code).await;
        tally.rows_now(&store).await;
        arrived(&letters, 1).await;
        let begun = views.rebuild(tally.name(), Switch::WhenCaughtUp).await.unwrap();
        tally.until(begun.get(), |build| build.live).await;
        assert_eq!(arrived(&letters, 2).await, ["tally/1/0", "tally/1/0"]);
    }

    #[tokio::test]
    async fn what_was_parked_on_both_sides_of_a_switch_is_carried_out_once_it_is_replayed() {
        let world = World::new();
        let store = world.open().await;
        let (views, letters) = (Views::open(&store).await.unwrap(), Letterbox::default());
        let handler: Arc<dyn EffectHandler> = Arc::new(letters.clone());
        let code = Tally::new();
        let parking = Config { on_poison: OnPoison::Park, ..config() };
        let tally = views.start_shared(Arc::new(code.clone()), parking, Some(handler)).await.unwrap();
        append(&store, "t", &["mailed"]).await;
        append(&store, "s", &["poison", "mailed"]).await;
        tally.rows_now(&store).await;
        arrived(&letters, 1).await;
        let begun = views.rebuild(tally.name(), Switch::Manual).await.unwrap();
        tally.until(begun.get(), |build| build.position == store.head() && build.shards[0].parked == 2).await;
        views.switch(tally.name(), begun, true).await.unwrap();
        code.poisonous.store(false, std::sync::atomic::Ordering::Relaxed);
        views.replay(tally.name(), begun, "s").await.unwrap();
        append(&store, "t", &["mailed"]).await;
        arrived(&letters, 3).await;
        // A further build finds nothing left to send.
        let third = views.rebuild(tally.name(), Switch::WhenCaughtUp).await.unwrap();
        tally.until(third.get(), |build| build.live).await;
        append(&store, "t", &["mailed"]).await;
        let mut sent = arrived(&letters, 4).await;
        sent.sort();
        assert_eq!(sent, ["tally/1/0", "tally/3/0", "tally/4/0", "tally/5/0"]);
    }

    #[tokio::test]
    async fn what_only_the_new_build_parked_was_carried_out_by_the_old_one() {
        let world = World::new();
        let store = world.open().await;
        let (views, letters) = (Views::open(&store).await.unwrap(), Letterbox::default());
        let handler: Arc<dyn EffectHandler> = Arc::new(letters.clone());
        let code = Tally::new();
        code.poisonous.store(false, std::sync::atomic::Ordering::Relaxed);
        let parking = Config { on_poison: OnPoison::Park, ..config() };
        let tally = views.start_shared(Arc::new(code.clone()), parking, Some(handler)).await.unwrap();
        append(&store, "s", &["poison", "mailed"]).await;
        tally.rows_now(&store).await;
        arrived(&letters, 1).await;
        code.poisonous.store(true, std::sync::atomic::Ordering::Relaxed);
        let second = views.rebuild(tally.name(), Switch::Manual).await.unwrap();
        tally.until(second.get(), |build| build.position == store.head() && build.shards[0].parked == 2).await;
        views.switch(tally.name(), second, true).await.unwrap();
        // Neither a third build nor the replay sends it again.
        code.poisonous.store(false, std::sync::atomic::Ordering::Relaxed);
        let third = views.rebuild(tally.name(), Switch::WhenCaughtUp).await.unwrap();
        tally.until(third.get(), |build| build.live).await;
        views.replay(tally.name(), second, "s").await.unwrap();
        append(&store, "t", &["mailed"]).await;
        assert_eq!(arrived(&letters, 2).await, ["tally/2/0", "tally/3/0"]);
    }

    #[tokio::test]
    async fn effects_of_an_inline_view_are_carried_out_without_anything_else_to_wake_for() {
        let world = World::new();
        let store = world.open().await;
        let (views, letters) = (Views::open(&store).await.unwrap(), Letterbox::default());
        let handler: Arc<dyn EffectHandler> = Arc::new(letters.clone());
        let tally = views.start_shared(Arc::new(Tally::new()), Config::inline(), Some(handler)).await.unwrap();
        tally.until(1, |build| build.shards[0].standing == Standing::Inline).await;
        append(&store, "s", &["mailed"]).await;
        assert_eq!(arrived(&letters, 1).await, ["tally/1/0"]);
    }

    /// Takes its time, so that two that do the same would meet.
    #[derive(Clone, Default)]
    struct Slow(Letterbox);

    impl EffectHandler for Slow {
        fn carry_out<'e>(&'e self, effect: &'e Effect) -> BoxFuture<'e, Result<(), String>> {
            Box::pin(async move {
                quorate_runtime::Env::real().sleep(Duration::from_millis(20)).await;
                self.0.carry_out(effect).await
            })
        }
    }

    fn handler(slow: &Slow) -> Option<Arc<dyn EffectHandler>> {
        Some(Arc::new(slow.clone()))
    }

    async fn all_carried_out(tally: &View, store: &Store) {
        while tally.describe().await.unwrap().effects != (0, 0) {
            store.env().sleep(Duration::from_millis(2)).await;
        }
    }

    #[tokio::test]
    async fn versions_side_by_side_carry_each_effect_out_once() {
        let world = World::new();
        let store = world.open().await;
        let (views, slow) = (Views::open(&store).await.unwrap(), Slow::default());
        let tally = views.start_shared(Arc::new(Tally::version(1)), config(), handler(&slow)).await.unwrap();
        tally.until(1, |build| build.live).await;
        views.start_shared(Arc::new(Tally::version(2)), config(), handler(&slow)).await.unwrap();
        tally.until(2, |build| build.live).await;
        // Another handle to the views of the store is one more.
        let beside = Views::open(&store).await.unwrap();
        beside.start_shared(Arc::new(Tally::version(2)), config(), handler(&slow)).await.unwrap();
        append(&store, "s", &["mailed", "mailed", "mailed"]).await;
        tally.rows_now(&store).await;
        all_carried_out(&tally, &store).await;
        assert_eq!(arrived(&slow.0, 3).await, ["tally/1/0", "tally/2/0", "tally/3/0"]);
    }

    /// Two versions side by side, the second of which readers have.
    async fn two_versions(store: &Store, on_rebuild: OnRebuild) -> (Views, View, Slow) {
        let (views, slow) = (Views::open(store).await.unwrap(), Slow::default());
        for version in [1, 2] {
            let code = Tally { on_rebuild, ..Tally::version(version) };
            let tally = views.start_shared(Arc::new(code), config(), handler(&slow)).await.unwrap();
            tally.until(version, |build| build.live).await;
        }
        let tally = views.get(&view("tally")).await.unwrap();
        (views, tally, slow)
    }

    async fn paused(views: &Views, tally: &View, number: u32) {
        views.pause(tally.name(), build(number)).await.unwrap();
        tally.until(number, |build| build.shards[0].standing == Standing::Paused).await;
    }

    #[tokio::test]
    async fn a_build_that_readers_have_left_repeats_no_effect() {
        let world = World::new();
        let store = world.open().await;
        let (views, tally, slow) = two_versions(&store, OnRebuild::Repeat).await;
        paused(&views, &tally, 1).await;
        append(&store, "s", &["mailed"]).await;
        arrived(&slow.0, 1).await;
        all_carried_out(&tally, &store).await;
        views.resume(tally.name(), build(1)).await.unwrap();
        tally.until(1, |build| build.position == store.head()).await;
        all_carried_out(&tally, &store).await;
        append(&store, "s", &["mailed"]).await;
        tally.until(1, |build| build.position == store.head()).await;
        assert_eq!(arrived(&slow.0, 2).await, ["tally/1/0", "tally/2/0"]);
        let again = views.rebuild(tally.name(), Switch::WhenCaughtUp).await.unwrap();
        tally.until(again.get(), |build| build.live).await;
        assert_eq!(arrived(&slow.0, 4).await[2..], ["tally/1/0", "tally/2/0"], "a rebuild does");
    }

    #[tokio::test]
    async fn what_a_build_beside_holds_is_let_go_of_once_the_live_one_has_come_to_it() {
        let world = World::new();
        let store = world.open().await;
        let (views, tally, slow) = two_versions(&store, OnRebuild::Suppress).await;
        let kept = async || {
            let sql = "SELECT count(*) FROM quorate_view_effect";
            store.room_query(sql, Vec::new()).await.unwrap()[0].at(0).as_i64().unwrap()
        };
        paused(&views, &tally, 2).await;
        append(&store, "s", &["mailed", "mailed"]).await;
        tally.until(1, |build| build.position == store.head()).await;
        assert_eq!(kept().await, 2, "it would carry them out if readers were given it");
        views.resume(tally.name(), build(2)).await.unwrap();
        assert_eq!(arrived(&slow.0, 2).await, ["tally/1/0", "tally/2/0"]);
        all_carried_out(&tally, &store).await;
        assert_eq!(kept().await, 0);
    }

    #[tokio::test]
    async fn the_handler_of_a_deleted_view_carries_nothing_out_for_the_next_one_of_its_name() {
        let world = World::new();
        let store = world.open().await;
        let (views, before, now) = (Views::open(&store).await.unwrap(), Slow::default(), Slow::default());
        let tally = views.start_shared(Arc::new(Tally::new()), config(), handler(&before)).await.unwrap();
        tally.until(1, |build| build.live).await;
        views.delete(tally.name()).await.unwrap();
        let tally = views.start_shared(Arc::new(Tally::new()), config(), handler(&now)).await.unwrap();
        append(&store, "s", &["mailed", "mailed", "mailed", "mailed"]).await;
        assert_eq!(arrived(&now.0, 4).await, ["tally/1/0", "tally/2/0", "tally/3/0", "tally/4/0"]);
        all_carried_out(&tally, &store).await;
        assert!(before.0.letters().is_empty());
    }

    /// Says that it was asked, and never ends.
    struct Hanging(Arc<tokio::sync::Notify>);

    impl EffectHandler for Hanging {
        fn carry_out<'e>(&'e self, _: &'e Effect) -> BoxFuture<'e, Result<(), String>> {
            self.0.notify_one();
            Box::pin(std::future::pending())
        }
    }

    #[tokio::test]
    async fn a_handler_that_never_ends_is_left_where_its_view_is_deleted() {
        let world = World::new();
        let store = world.open().await;
        let (views, now, asked) = (Views::open(&store).await.unwrap(), Slow::default(), Arc::default());
        let hanging: Arc<dyn EffectHandler> = Arc::new(Hanging(Arc::clone(&asked)));
        let tally = views.start_shared(Arc::new(Tally::new()), config(), Some(hanging)).await.unwrap();
        tally.until(1, |build| build.live).await;
        append(&store, "s", &["mailed"]).await;
        asked.notified().await;
        views.delete(tally.name()).await.unwrap();
        views.start_shared(Arc::new(Tally::new()), config(), handler(&now)).await.unwrap();
        append(&store, "s", &["mailed"]).await;
        let arrived = store.env().timeout(std::time::Duration::from_secs(60), arrived(&now.0, 1)).await;
        assert_eq!(arrived.expect("nobody waits for it"), ["tally/2/0"]);
    }
}
