//! Events that cannot be applied.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use quorate_runtime::BoxFuture;

use super::{super::*, world::*};
use crate::event::Position;

fn parking() -> Config {
    Config { on_poison: OnPoison::Park, ..config() }
}

#[tokio::test]
async fn a_view_stops_before_an_event_it_cannot_apply_and_says_which() {
    let world = World::new();
    let store = world.open().await;
    let views = Views::open(&store).await.unwrap();
    let code = Tally::new();
    append(&store, "s", &["happened", "poison", "happened"]).await;
    let tally = views.start(code.clone(), Config { switch: Switch::Manual, ..config() }).await.unwrap();
    let stopped = |build: &BuildDescription| matches!(build.shards[0].standing, Standing::Stopped { .. });
    let found = tally.until(1, stopped).await;
    let wanted = Standing::Stopped { position: Position::new(2), reason: "it is poison".into() };
    assert_eq!((&found.shards[0].standing, found.position, found.lag_events), (&wanted, Position::new(1), 2));
    assert!(found.lag.is_some_and(|lag| !lag.is_zero()));
    code.poisonous.store(false, Ordering::Relaxed);
    views.resume(tally.name(), build(1)).await.unwrap();
    tally.until(1, |build| build.position == Position::new(3)).await;
    assert!(tally.is_whole(1).await);
}

#[tokio::test]
async fn what_stops_a_view_can_be_left_out_by_somebody_and_is_on_record() {
    let world = World::new();
    let store = world.open().await;
    let views = Views::open(&store).await.unwrap();
    append(&store, "s", &["happened", "poison", "happened"]).await;
    let tally = views.start(Tally::new(), config()).await.unwrap();
    tally.until(1, |build| matches!(build.shards[0].standing, Standing::Stopped { .. })).await;
    let elsewhere = views.skip(tally.name(), build(1), Position::new(3), "ada").await;
    assert!(matches!(elsewhere, Err(ViewError::Invalid { .. })), "{elsewhere:?}");
    views.skip(tally.name(), build(1), Position::new(2), "ada").await.unwrap();
    assert_eq!(tally.rows_now(&store).await, [("s".to_owned(), 2, 4)]);
    let skipped = views.skipped(tally.name(), build(1), Position::ZERO, 10).await.unwrap();
    let told = (skipped[0].position, &*skipped[0].kind, &*skipped[0].skipped_by);
    assert_eq!(told, (Position::new(2), "poison", "ada"), "who said so, and not the policy");
    assert!(tally.is_whole(1).await);
}

#[tokio::test]
async fn poison_is_parked_with_what_follows_in_its_key_and_other_keys_go_on() {
    let world = World::new();
    let store = world.open().await;
    let views = Views::open(&store).await.unwrap();
    let code = Tally::new();
    let tally = views.start(code.clone(), parking()).await.unwrap();
    append(&store, "bad", &["happened", "poison", "happened"]).await;
    append(&store, "good", &["happened"]).await;
    append(&store, "bad", &["happened"]).await;
    assert_eq!(tally.rows_now(&store).await, [("bad".to_owned(), 1, 1), ("good".to_owned(), 1, 4)]);
    let parked = views.parked(tally.name(), build(1), Position::ZERO, 10).await.unwrap();
    let told: Vec<_> = parked.iter().map(|event| (event.position.get(), event.attempts, &*event.reason)).collect();
    let behind = "an earlier event of its key is parked";
    assert_eq!(told, [(2, 2, "it is poison"), (3, 0, behind), (5, 0, behind)]);
    assert_eq!(tally.query("SELECT 1 FROM {tally}", vec![]).await.unwrap().parked, 3);
    assert!(tally.is_whole(1).await, "parked is dealt with, and counted");
    let still = views.replay(tally.name(), build(1), "bad").await;
    assert!(matches!(still, Err(ViewError::StillPoison { position, .. }) if position.get() == 2), "{still:?}");
    code.poisonous.store(false, Ordering::Relaxed);
    assert_eq!(views.replay(tally.name(), build(1), "bad").await.unwrap(), 3);
    append(&store, "bad", &["happened"]).await;
    assert_eq!(tally.rows_now(&store).await, fold(&store).await);
    assert!(tally.is_whole(1).await);
}

#[tokio::test]
async fn a_parked_event_can_be_skipped_and_the_rest_of_its_key_replayed() {
    let world = World::new();
    let store = world.open().await;
    let views = Views::open(&store).await.unwrap();
    append(&store, "bad", &["poison", "happened"]).await;
    let tally = views.start(Tally::new(), parking()).await.unwrap();
    tally.until(1, |build| build.shards[0].parked == 2).await;
    views.skip(tally.name(), build(1), Position::new(1), "ada").await.unwrap();
    assert_eq!(views.replay(tally.name(), build(1), "bad").await.unwrap(), 1);
    let shard = tally.build(build(1)).await.shards.remove(0);
    assert_eq!((shard.applied, shard.parked, shard.skipped), (1, 0, 1));
    let skipped = views.skipped(tally.name(), build(1), Position::ZERO, 10).await.unwrap();
    assert_eq!(&*skipped[0].skipped_by, "ada");
    assert!(tally.is_whole(1).await);
}

#[tokio::test]
async fn keys_stay_parked_over_a_restart() {
    let world = World::new();
    let store = world.open().await;
    let views = Views::open(&store).await.unwrap();
    let tally = views.start(Tally::new(), parking()).await.unwrap();
    append(&store, "bad", &["poison"]).await;
    tally.rows_now(&store).await;
    store.close().await.unwrap();
    let store = world.open().await;
    append(&store, "bad", &["happened"]).await;
    let views = Views::open(&store).await.unwrap();
    let tally = views.start(Tally::new(), parking()).await.unwrap();
    assert_eq!(tally.rows_now(&store).await, []);
    assert_eq!(tally.build(build(1)).await.shards[0].parked, 2);
}

#[tokio::test]
async fn a_policy_of_skipping_leaves_a_record() {
    let world = World::new();
    let store = world.open().await;
    let views = Views::open(&store).await.unwrap();
    append(&store, "s", &["poison", "happened"]).await;
    let tally = views.start(Tally::new(), Config { on_poison: OnPoison::Skip, ..config() }).await.unwrap();
    assert_eq!(tally.rows_now(&store).await, [("s".to_owned(), 1, 2)]);
    let skipped = views.skipped(tally.name(), build(1), Position::ZERO, 10).await.unwrap();
    assert_eq!((skipped.len(), &*skipped[0].skipped_by, &*skipped[0].reason), (1, "policy", "it is poison"));
}

#[tokio::test]
async fn too_many_parked_events_stop_a_view() {
    let world = World::new();
    let store = world.open().await;
    let views = Views::open(&store).await.unwrap();
    append(&store, "bad", &["poison", "happened", "happened"]).await;
    let tally = views.start(Tally::new(), Config { max_parked: 1, ..parking() }).await.unwrap();
    tally.until(1, |build| build.shards[0].standing == Standing::ParkedFull).await;
    assert_eq!(tally.build(build(1)).await.position, Position::new(1));
}

#[tokio::test]
async fn an_event_over_whose_key_the_projection_panics_is_poison() {
    for (mode, shards) in [(Mode::Async, 1), (Mode::Async, 3)] {
        let world = World::new();
        let store = world.open().await;
        let views = Views::open(&store).await.unwrap();
        let code = Tally::new();
        append(&store, "bad", &["happened", "unkeyed", "happened"]).await;
        append(&store, "good", &["happened"]).await;
        let tally = views.start(code.clone(), Config { mode, shards, ..parking() }).await.unwrap();
        assert_eq!(tally.rows_now(&store).await, [("bad".to_owned(), 1, 1), ("good".to_owned(), 1, 4)]);
        let parked = views.parked(tally.name(), build(1), Position::ZERO, 10).await.unwrap();
        let told: Vec<_> = parked.iter().map(|event| (event.position.get(), &*event.reason)).collect();
        let reason = "its key cannot be told: nobody knows whose it is";
        assert_eq!(told, [(2, reason), (3, "an earlier event of its key is parked")]);
        let still = views.replay(tally.name(), build(1), "bad").await;
        assert!(matches!(still, Err(ViewError::StillPoison { position, .. }) if position.get() == 2), "{still:?}");
        code.poisonous.store(false, Ordering::Relaxed);
        assert_eq!(views.replay(tally.name(), build(1), "bad").await.unwrap(), 2);
        assert_eq!(tally.rows_now(&store).await, fold(&store).await);
    }
}

/// Panics over the first letter it is to carry out, twice.
#[derive(Clone, Default)]
struct Clumsy(Letterbox, Arc<AtomicU32>);

impl EffectHandler for Clumsy {
    fn carry_out<'e>(&'e self, effect: &'e Effect) -> BoxFuture<'e, Result<(), String>> {
        let falls = self.1.fetch_add(1, Ordering::Relaxed);
        // Once before there is a future, once inside.
        assert!(falls != 0, "it fell");
        Box::pin(async move {
            assert!(falls != 1, "it fell again");
            self.0.carry_out(effect).await
        })
    }
}

#[tokio::test]
async fn a_handler_that_panics_carries_the_effect_out_again() {
    let world = World::new();
    let store = world.open().await;
    let views = Views::open(&store).await.unwrap();
    let clumsy = Clumsy::default();
    let handler: Arc<dyn EffectHandler> = Arc::new(clumsy.clone());
    views.start_shared(Arc::new(Tally::new()), config(), Some(handler)).await.unwrap();
    append(&store, "s", &["mailed", "mailed"]).await;
    while clumsy.0.letters().len() < 2 {
        store.env().sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(clumsy.0.letters(), ["tally/1/0", "tally/2/0"]);
}

/// Carries nothing out until it may.
#[derive(Clone, Default)]
struct Closed(Letterbox, Arc<std::sync::atomic::AtomicBool>);

impl EffectHandler for Closed {
    fn carry_out<'e>(&'e self, effect: &'e Effect) -> BoxFuture<'e, Result<(), String>> {
        Box::pin(async move {
            if self.1.load(Ordering::Relaxed) { self.0.carry_out(effect).await } else { Err("it is closed".to_owned()) }
        })
    }
}

#[tokio::test]
async fn an_effect_that_was_given_up_is_on_record_and_tried_anew_or_left_out_when_somebody_says_so() {
    let world = World::new();
    let store = world.open().await;
    let views = Views::open(&store).await.unwrap();
    let post = Closed::default();
    let handler: Arc<dyn EffectHandler> = Arc::new(post.clone());
    let once = Config { effect_attempts: 1, ..config() };
    let tally = views.start_shared(Arc::new(Tally::new()), once, Some(handler)).await.unwrap();
    append(&store, "s", &["mailed", "mailed"]).await;
    while tally.describe().await.unwrap().effects != (0, 2) {
        store.env().sleep(Duration::from_millis(5)).await;
    }
    let all = tally.effects(None, 10).await.unwrap();
    let told: Vec<_> = all.iter().map(|open| (open.effect.key(), &*open.reason, open.given_up)).collect();
    assert_eq!(told, [("tally/1/0".into(), "it is closed", true), ("tally/2/0".into(), "it is closed", true)]);
    let behind = tally.effects(Some((Position::new(1), 0)), 10).await.unwrap();
    assert_eq!(behind, all[1..]);
    assert!(tally.skip_effect(Position::new(1), 0).await.unwrap());
    assert!(!tally.skip_effect(Position::new(1), 0).await.unwrap(), "it is gone");
    post.1.store(true, Ordering::Relaxed);
    assert_eq!(tally.retry_effects().await.unwrap(), 1);
    while post.0.letters().is_empty() {
        store.env().sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(post.0.letters(), ["tally/2/0"]);
}
