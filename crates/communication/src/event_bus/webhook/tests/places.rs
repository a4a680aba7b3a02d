//! Several at a time: keys, endpoints, leases, and the end.

use std::{collections::BTreeSet, time::Duration};

use quorate_data::{event::Version, store::Retire, subscription::Backoff};
use tokio::sync::watch;

use super::world::{Does, World, first_arrivals, name};
use crate::event_bus::webhook::{
    Config, WebhookError,
    rows::{self, Head},
};

#[tokio::test(flavor = "multi_thread")]
async fn places_hold_events_of_different_keys_and_each_key_keeps_its_order() {
    let world = World::new().await;
    let (open, opened) = watch::channel(false);
    let receiver = world.receiver(move |_, _| Does::Once(opened.clone())).await;
    world.declare(Config { places: 8, ..receiver.config() }).await;
    world.append(&["a", "a", "b", "a", "b", "c", "c"]).await;
    world.run();
    let first: BTreeSet<(String, u64)> = receiver.until(3).await.iter().map(|one| one.place()).collect();
    let heads = ["a", "b", "c"].map(|stream| (stream.to_owned(), 1));
    assert_eq!(first, BTreeSet::from(heads), "the first of each key, at one time");
    open.send_replace(true);
    world.until_settled().await;
    let got = receiver.got();
    let arrivals = first_arrivals(&got);
    assert_eq!((&arrivals["a"], &arrivals["b"], &arrivals["c"]), (&vec![1, 2, 3], &vec![1, 2], &vec![1, 2]));
    assert_eq!(got.len(), 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_failing_first_of_a_key_holds_up_its_key_alone() {
    let world = World::new().await;
    let receiver = world.receiver(|got, _| Does::Answer(if got.is_of("ill") { 500 } else { 200 })).await;
    let backoff = Backoff { first: Duration::from_secs(3_600), max: Duration::from_secs(3_600) };
    world.declare(Config { places: 2, backoff, ..receiver.config() }).await;
    world.append(&["ill", "ill", "a", "b", "a", "ill", "b"]).await;
    world.run();
    let got = receiver.until(5).await;
    let standing =
        world.until(|standing| standing.subscription.as_ref().is_some_and(|fed| fed.counts.in_flight == 0)).await;
    let arrivals = first_arrivals(&got);
    assert_eq!((&arrivals["ill"], &arrivals["a"], &arrivals["b"]), (&vec![1], &vec![1, 2], &vec![1, 2]));
    let counts = standing.subscription.unwrap().counts;
    assert_eq!((counts.resting, counts.waiting, counts.settled_ahead), (1, 2, 4));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_does_not_answer_keeps_no_other_waiting() {
    let world = World::new().await;
    let (slow, quick) = (world.receiver(|_, _| Does::Nothing).await, world.receiver(|_, _| Does::Answer(200)).await);
    let patient = Config { timeout: Config::MAX_TIMEOUT, places: Config::MAX_PLACES, ..slow.config() };
    world.webhooks.declare(&name("a-slow-one"), patient, None).await.unwrap();
    world.declare(quick.config()).await;
    let streams: Vec<String> = (0..100).map(|n| format!("s{n}")).collect();
    world.append(&streams.iter().map(String::as_str).collect::<Vec<_>>()).await;
    world.run();
    slow.until(Config::MAX_PLACES).await;
    world.until_settled().await;
    assert_eq!((quick.got().len(), slow.got().len()), (100, Config::MAX_PLACES));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_kept_for_as_long_as_its_delivery_takes() {
    let world = World::new().await;
    let (open, opened) = watch::channel(false);
    let receiver = world.receiver(move |_, _| Does::Once(opened.clone())).await;
    // Leases of two seconds, for attempts that take longer.
    world.declare(Config { timeout: Duration::from_secs(1), ..receiver.config() }).await;
    let head = rows::find(&world.store, &name("w")).await.unwrap().unwrap();
    let config = Config { timeout: Config::MAX_TIMEOUT, ..head.config.clone() };
    assert!(world.webhooks.change(&Head { config, ..head }, false).await.unwrap());
    world.append(&["a", "a"]).await;
    world.run();
    receiver.until(1).await;
    world.env().sleep(Duration::from_secs(5)).await;
    open.send_replace(true);
    world.until_settled().await;
    let places: Vec<u64> = receiver.got().iter().map(|one| one.place().1).collect();
    assert_eq!(places, [1, 2], "nothing came twice");
    assert_eq!(world.attempts().await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_ending_already_hears_that_the_process_stops() {
    let world = World::new().await;
    let receiver = world.receiver(|_, _| Does::Nothing).await;
    world.declare(Config { timeout: Config::MAX_TIMEOUT, ..receiver.config() }).await;
    world.append(&["a"]).await;
    world.run();
    receiver.until(1).await;
    // Nothing more is sent, and what is under way has a minute to end.
    world.webhooks.disable(&name("w"), "they move").await.unwrap();
    world.until(|standing| standing.summary.disabled.is_some()).await;
    world.env().sleep(Duration::from_millis(100)).await;
    assert!(world.stop().await, "whoever stops gives it its few seconds, and not the minute");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_truncated_before_its_turn_is_passed_over_and_counted() {
    let world = World::new().await;
    let receiver = world.receiver(|_, _| Does::Answer(200)).await;
    world.declare(receiver.config()).await;
    world.append(&["a", "b", "a", "a", "a"]).await;
    world.store.retire(name("a"), Retire::Truncate { before: Version::new(4) }).await.unwrap();
    world.run();
    let standing = world.until_settled().await;
    let arrivals = first_arrivals(&receiver.got());
    assert_eq!((&arrivals["a"], &arrivals["b"]), (&vec![4], &vec![1]));
    assert_eq!(standing.subscription.unwrap().passed_over, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_who_make_a_webhook_of_one_name_the_second_is_told_and_changes_nothing() {
    let world = World::new().await;
    let (first, second) = (Config::to("http://127.0.0.1:9/first"), Config::to("http://127.0.0.1:9/second"));
    world.declare(first.clone()).await;
    // Both had found the name free.
    let refused = world.webhooks.declare_over(None, &name("w"), (&second, None)).await.unwrap_err();
    assert!(matches!(&refused, WebhookError::Taken { name } if name.as_str() == "w"), "{refused:?}");
    let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".parse().unwrap();
    let refused = world.webhooks.declare_over(None, &name("w"), (&first, Some(&secret))).await.unwrap_err();
    assert!(matches!(refused, WebhookError::Taken { .. }), "its secret is another one: {refused:?}");
    assert_eq!(world.describe().await.summary.config, first);
    let same = world.webhooks.declare_over(None, &name("w"), (&first, None)).await.unwrap();
    assert!(!same.is_new && same.secret.is_none(), "whoever wants the same has it");
    // Who finds it there means to change it.
    assert!(!world.webhooks.declare(&name("w"), second.clone(), None).await.unwrap().is_new);
    assert_eq!(world.describe().await.summary.config, second);
}
