//! An endpoint becomes another one, or is told to begin anew: what is forgotten then, and what is not.

use std::time::Duration;

use quorate_foundations::time::Wall;
use tokio::sync::watch;

use super::world::{Does, World, first_arrivals, name};
use crate::event_bus::webhook::{
    Config, WebhookError,
    rows::{self, Head},
};

/// The row of `w`.
async fn row(world: &World) -> Head {
    rows::find(&world.store, &name("w")).await.unwrap().unwrap()
}

/// Writes down that `w`, at `revision`, has been failing for `so_far`.
async fn failed(world: &World, (id, revision): (u64, u64), so_far: Duration) {
    let written = world.store.transact(move |tx| {
        Box::pin(async move {
            rows::failing(tx, (id, revision), Wall::from_unix_nanos(1), so_far).await?;
            rows::pause(tx, (id, revision), Wall::from_unix_nanos(2)).await?;
            Ok::<_, WebhookError>(())
        })
    });
    written.await.unwrap();
}

/// Writes down that `w`, at `revision`, has taken something.
async fn taken(world: &World, (id, revision): (u64, u64)) {
    let written = world.store.transact(move |tx| Box::pin(async move { rows::recovered(tx, (id, revision)).await }));
    written.await.unwrap();
}

const HOUR: Duration = Duration::from_secs(3_600);

#[tokio::test(flavor = "multi_thread")]
async fn failures_are_forgiven_with_the_change_and_only_with_it() {
    let world = World::new().await;
    world.declare(Config::to("http://127.0.0.1:9/x")).await;
    let before = row(&world).await;
    failed(&world, (before.id, before.revision), HOUR).await;
    assert_eq!(row(&world).await.failing.map(|(_, so_far)| so_far), Some(HOUR));

    // Somebody else was first: nothing is changed, and nothing forgiven.
    let outdated = Head { revision: before.revision - 1, ..before.clone() };
    assert!(!world.webhooks.change(&outdated, true).await.unwrap());
    assert!(row(&world).await.failing.is_some());

    let elsewhere = Config::to("http://127.0.0.1:9/y");
    world.webhooks.declare(&name("w"), elsewhere.clone(), None).await.unwrap();
    let after = row(&world).await;
    assert_eq!((after.failing, after.paused), (None, None));
    // An attempt that was under way then ended badly: that was the other address.
    failed(&world, (before.id, before.revision), HOUR).await;
    assert_eq!((row(&world).await.failing, row(&world).await.paused), (None, None));

    // Nor does what the other address took say anything about this one.
    failed(&world, (after.id, after.revision), HOUR).await;
    taken(&world, (before.id, before.revision)).await;
    assert!(row(&world).await.failing.is_some());

    // Another number of places makes it no other endpoint: what was under way says what it said before.
    world.webhooks.declare(&name("w"), Config { places: 2, ..elsewhere }, None).await.unwrap();
    assert!(row(&world).await.failing.is_some());
    taken(&world, (after.id, after.revision)).await;
    assert_eq!(row(&world).await.failing, None);
    failed(&world, (after.id, after.revision), 2 * HOUR).await;
    assert_eq!(row(&world).await.failing.map(|(_, so_far)| so_far), Some(2 * HOUR));
    assert!(row(&world).await.paused.is_some());
    world.webhooks.rotate(&name("w"), None, Duration::ZERO).await.unwrap();
    assert_eq!((row(&world).await.failing, row(&world).await.paused), (None, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_is_enabled_begins_anew_also_in_the_memory_of_who_serves_it() {
    let world = World::new().await;
    let receiver = world.receiver(|_, _| Does::Answer(500)).await;
    world.declare(Config { max_attempts: 1_000, ..receiver.config() }).await;
    let head = row(&world).await;
    failed(&world, (head.id, head.revision), HOUR).await;
    world.append(&["a"]).await;
    world.run();
    receiver.until(1).await;
    world.webhooks.enable(&name("w")).await.unwrap();
    let sent = receiver.got().len();
    // One may have been under way; what comes behind it is its failure of now.
    receiver.until(sent + 3).await;
    world.until(|standing| standing.summary.failing.is_some()).await;
    let (since, so_far) = row(&world).await.failing.unwrap();
    assert!(so_far < HOUR && since > Wall::from_unix_nanos(1), "{since:?} {so_far:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_disabled_itself_is_sent_to_again_under_another_address_or_secret() {
    let world = World::new().await;
    let gone = world.receiver(|_, _| Does::Answer(410)).await;
    let receiver = world.receiver(|_, _| Does::Answer(200)).await;
    world.declare(gone.config()).await;
    world.append(&["a"]).await;
    world.run();
    let standing = world.until(|standing| standing.summary.disabled.is_some()).await;
    assert!(standing.summary.disabled.unwrap().is_automatic);
    world.webhooks.declare(&name("w"), receiver.config(), None).await.unwrap();
    world.until_settled().await;
    assert_eq!(first_arrivals(&receiver.got())["a"], [1]);

    receiver.answer(|_, n| Does::Answer(if n == 2 { 410 } else { 200 }));
    world.append(&["a"]).await;
    world.until(|standing| standing.summary.disabled.is_some()).await;
    world.webhooks.rotate(&name("w"), None, Duration::ZERO).await.unwrap();
    world.until_settled().await;
    assert_eq!(receiver.got().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_person_disabled_stays_so_whatever_is_changed_until_a_person_enables_it() {
    let world = World::new().await;
    let (old, new) = (world.receiver(|_, _| Does::Answer(410)).await, world.receiver(|_, _| Does::Answer(200)).await);
    world.declare(old.config()).await;
    world.append(&["a"]).await;
    world.run();
    world.until(|standing| standing.summary.disabled.is_some()).await;
    // What disabled itself is a person's from here on.
    world.webhooks.disable(&name("w"), "they move").await.unwrap();
    let why = async |world: &World| world.describe().await.summary.disabled.map(|disabled| disabled.why);
    world.webhooks.declare(&name("w"), new.config(), None).await.unwrap();
    assert_eq!(why(&world).await.as_deref(), Some("they move"));
    world.webhooks.rotate(&name("w"), None, Duration::ZERO).await.unwrap();
    world.webhooks.declare(&name("w"), Config { places: 3, ..new.config() }, None).await.unwrap();
    let world = world.restart().await;
    world.run();
    assert_eq!(why(&world).await.as_deref(), Some("they move"));
    assert!(new.got().is_empty());
    world.webhooks.enable(&name("w")).await.unwrap();
    world.until_settled().await;
    assert_eq!(first_arrivals(&new.got())["a"], [1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_asks_for_time_is_left_alone_also_by_who_serves_it_next() {
    for restarts in [false, true] {
        let mut world = World::new().await;
        let receiver = world.receiver(|_, n| if n == 1 { Does::Ask(503, 3) } else { Does::Answer(200) }).await;
        let config = Config { places: 1, ..receiver.config() };
        world.declare(config.clone()).await;
        world.append(&["a", "b"]).await;
        world.run();
        world.until(|standing| standing.summary.paused.is_some()).await;
        if restarts {
            world = world.restart().await;
            world.run();
        } else {
            world.webhooks.declare(&name("w"), Config { places: 2, ..config }, None).await.unwrap();
        }
        world.until_settled().await;
        let attempts = world.attempts().await;
        let rest = attempts[1].began.saturating_since(attempts[0].began);
        assert!(rest >= Duration::from_secs(3), "{rest:?}, restarts: {restarts}");
        assert_eq!(world.describe().await.summary.paused, None, "it is over");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_endpoint_asks_for_while_its_places_change_is_heeded_all_the_same() {
    let world = World::new().await;
    let (open, opened) = watch::channel(false);
    let asks = move |n| if n == 1 { Does::AskOnce(opened.clone(), 2) } else { Does::Answer(200) };
    let receiver = world.receiver(move |_, n| asks(n)).await;
    let config = Config { places: 1, timeout: Duration::from_secs(20), ..receiver.config() };
    world.declare(config.clone()).await;
    world.append(&["a", "b"]).await;
    world.run();
    receiver.until(1).await;
    world.webhooks.declare(&name("w"), Config { places: 2, ..config }, None).await.unwrap();
    open.send_replace(true);
    world.until_settled().await;
    let attempts = world.attempts().await;
    let rest = attempts[1].began.saturating_since(attempts[0].began);
    assert!(rest >= Duration::from_secs(2), "{rest:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_endpoint_asked_another_process_for_is_heeded_by_this_one() {
    let world = World::new().await;
    let (receiver, other) =
        (world.receiver(|_, _| Does::Answer(200)).await, world.receiver(|_, _| Does::Answer(200)).await);
    world.declare(receiver.config()).await;
    world.append(&["a"]).await;
    world.run();
    world.until_settled().await;
    let (head, until) = (row(&world).await, world.env().wall() + Duration::from_secs(3));
    let asked =
        world.store.transact(move |tx| Box::pin(async move { rows::pause(tx, (head.id, head.revision), until).await }));
    asked.await.unwrap();
    // Who runs them looks at all when another one is declared, at this one first.
    world.webhooks.declare(&name("x"), other.config(), None).await.unwrap();
    other.until(1).await;
    world.append(&["b"]).await;
    world.until_settled().await;
    let early = until.saturating_since(world.attempts().await[1].began);
    assert!(early < Duration::from_millis(100), "{early:?} before it wants to be called");
}
