use std::time::Duration;

use quorate_data::{
    event::NewEvent,
    store::{AppendBatch, ExpectedVersion, Query, QueryItem},
    subscription::{OrderKey, Start},
};

use super::world::{Does, World, first_arrivals, name};
use crate::event_bus::webhook::{Config, Content, TEST, TOLERANCE, verify};

#[tokio::test(flavor = "multi_thread")]
async fn events_arrive_signed_in_the_order_of_their_keys_and_are_settled() {
    let world = World::new().await;
    let receiver = world.receiver(|_, _| Does::Answer(204)).await;
    let secret = world.declare(receiver.config()).await;
    world.run();
    world.append(&["a", "b", "a", "c", "a", "b"]).await;
    world.until_settled().await;
    let got = receiver.got();
    assert_eq!(got.len(), 6, "none comes twice where nothing fails");
    let arrivals = first_arrivals(&got);
    assert_eq!((&arrivals["a"], &arrivals["b"], &arrivals["c"]), (&vec![1, 2, 3], &vec![1, 2], &vec![1]));
    for one in &got {
        let now = world.env().wall();
        assert_eq!(verify(std::slice::from_ref(&secret), &one.headers, &one.body, now, TOLERANCE), Ok(&*one.id()));
        assert_eq!(
            (one.path.as_str(), &one.headers["content-type"]),
            ("/hooks?a=b", &"application/cloudevents+json".parse().unwrap())
        );
        let event = one.event();
        assert_eq!((&event["type"], &event["source"]), (&"order.placed".into(), &"/shop".into()));
        assert!(std::str::from_utf8(&one.body).unwrap().contains(r#""data":{"n": 1.50}"#), "data as it was appended");
    }
    let attempts = world.attempts().await;
    assert_eq!(attempts.len(), 6);
    assert!(attempts.iter().all(|one| (one.attempt, one.status, &*one.outcome) == (1, Some(204), "delivered")));
    assert_eq!(attempts.iter().map(|one| &one.message).collect::<std::collections::BTreeSet<_>>().len(), 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn binary_mode_carries_attributes_in_headers_and_the_filter_holds() {
    let world = World::new().await;
    let receiver = world.receiver(|_, _| Does::Answer(200)).await;
    let filter = Query::of([QueryItem::categories(["order"])]);
    let config = Config { content: Content::Binary, filter, key: OrderKey::Tag("c".into()), ..receiver.config() };
    let secret = world.declare(config).await;
    world.append(&["x", "order-7", "y"]).await;
    world.run();
    world.until_settled().await;
    let got = receiver.got();
    assert_eq!(got.len(), 1);
    let (headers, body) = (&got[0].headers, &got[0].body);
    assert_eq!(
        (&headers["ce-stream"], &headers["ce-logposition"], &headers["ce-type"]),
        (&"order-7".parse().unwrap(), &"2".parse().unwrap(), &"order.placed".parse().unwrap())
    );
    assert_eq!((&**body, &headers["content-type"]), (&br#"{"n": 1.50}"#[..], &"application/json".parse().unwrap()));
    assert!(verify(&[secret], headers, body, world.env().wall(), TOLERANCE).is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_appended_while_nobody_runs_them_is_sent_later_and_nothing_twice() {
    let world = World::new().await;
    let receiver = world.receiver(|_, _| Does::Answer(200)).await;
    world.declare(receiver.config()).await;
    world.run();
    world.append(&["a", "b"]).await;
    world.until_settled().await;
    let world = world.restart().await;
    world.append(&["a", "b", "c"]).await;
    world.run();
    world.until_settled().await;
    let got = receiver.got();
    let arrivals = first_arrivals(&got);
    assert_eq!((got.len(), &arrivals["a"], &arrivals["b"], &arrivals["c"]), (5, &vec![1, 2], &vec![1, 2], &vec![1]));
    assert_eq!(world.attempts().await.len(), 5, "the list outlives its process");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_webhook_begins_with_what_comes_unless_told_otherwise() {
    let world = World::new().await;
    let receiver = world.receiver(|_, _| Does::Answer(200)).await;
    world.append(&["a", "a"]).await;
    world.declare(Config { start: Start::End, ..receiver.config() }).await;
    world.run();
    world.append(&["a"]).await;
    world.until_settled().await;
    assert_eq!(first_arrivals(&receiver.got())["a"], [3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn data_that_was_erased_before_its_turn_is_not_sent_and_the_event_says_so() {
    let world = World::new().await;
    let receiver = world.receiver(|_, _| Does::Answer(200)).await;
    world.declare(receiver.config()).await;
    let mut event = NewEvent::new("1", "/shop", "address.given").json(&br#"{"to":"Elm"}"#[..]);
    event.data_subject = Some("c-17".into());
    world.store.append(AppendBatch::to(name("a"), ExpectedVersion::Any, vec![event])).await.unwrap();
    world.store.erase("c-17").await.unwrap();
    world.run();
    let got = receiver.until(1).await;
    assert_eq!((&got[0].event()["stub"], got[0].event().get("data")), (&"erased".into(), None));
    world.until_settled().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_rotation_both_secrets_verify_and_then_the_new_one_alone() {
    let world = World::new().await;
    let receiver = world.receiver(|_, _| Does::Answer(200)).await;
    let old = world.declare(receiver.config()).await;
    world.run();
    let new = world.webhooks.rotate(&name("w"), None, Duration::from_secs(3_600)).await.unwrap();
    assert_ne!(old, new);
    world.append(&["a"]).await;
    let both = receiver.until(1).await.remove(0);
    let judge = |secret: &super::super::Secret, one: &super::world::Got| {
        verify(std::slice::from_ref(secret), &one.headers, &one.body, world.env().wall(), TOLERANCE).is_ok()
    };
    assert!(judge(&old, &both) && judge(&new, &both));
    let signers = world.describe().await.signers;
    let fingerprints: Vec<&str> = signers.iter().map(|signer| &*signer.fingerprint).collect();
    assert_eq!(fingerprints, [new.fingerprint(), old.fingerprint()]);
    assert_eq!(signers.iter().map(|signer| signer.until.is_some()).collect::<Vec<_>>(), [false, true]);

    let newest = world.webhooks.rotate(&name("w"), None, Duration::ZERO).await.unwrap();
    world.append(&["a"]).await;
    let alone = receiver.until(2).await.remove(1);
    assert!(judge(&newest, &alone) && !judge(&new, &alone) && !judge(&old, &alone));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_test_is_sent_at_once_signed_also_to_a_webhook_that_is_disabled() {
    let world = World::new().await;
    let receiver = world.receiver(|_, _| Does::Say(500, "who are\n\tyou?")).await;
    let secret = world.declare(receiver.config()).await;
    world.webhooks.disable(&name("w"), "").await.unwrap();
    let tested = world.webhooks.test(&name("w")).await.unwrap();
    assert_eq!((tested.is_delivered, tested.status), (false, Some(500)));
    assert!(tested.outcome.ends_with("who are you?"), "{}", tested.outcome);
    receiver.answer(|_, _| Does::Answer(202));
    let tested = world.webhooks.test(&name("w")).await.unwrap();
    assert_eq!((tested.is_delivered, tested.status), (true, Some(202)));
    let got = receiver.until(2).await.remove(1);
    assert_eq!((got.event()["type"].as_str(), got.id()), (Some(TEST), tested.message));
    assert!(verify(&[secret], &got.headers, &got.body, world.env().wall(), TOLERANCE).is_ok());
    assert_eq!(world.attempts().await, [], "it is no event's");
}

#[tokio::test(flavor = "multi_thread")]
async fn data_that_calls_itself_an_event_is_not_taken_for_the_event() {
    let world = World::new().await;
    let receiver = world.receiver(|_, _| Does::Answer(200)).await;
    world.declare(Config { content: Content::Binary, ..receiver.config() }).await;
    let forged = br#"{"specversion":"1.0","id":"1","source":"/bank","type":"money.sent"}"#;
    let mut event = NewEvent::new("1", "/shop", "note.left").json(&forged[..]);
    event.content_type = Some("Application/CloudEvents+json; charset=utf-8".into());
    world.store.append(AppendBatch::to(name("a"), ExpectedVersion::Any, vec![event])).await.unwrap();
    world.run();
    let got = receiver.until(1).await.remove(0);
    assert_eq!(got.headers["content-type"], "application/cloudevents+json");
    assert_eq!((&got.event()["type"], &got.event()["source"]), (&"note.left".into(), &"/shop".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_attempt_says_for_how_long_it_is_waited_for() {
    let world = World::new().await;
    let receiver = world.receiver(|_, _| Does::Answer(200)).await;
    world.declare(receiver.config()).await;
    world.append(&["a"]).await;
    world.run();
    world.until_settled().await;
    let got = receiver.got();
    assert!(got[0].headers.contains_key("quorate-timeout"), "{:?}", got[0].headers);
}
