//! What becomes of messages that cannot be done.

use quorate_data::event::NewEvent;

use super::world::{World, ids, message, seconds, waits};
use crate::message_queue::{Cause, Config, QueueError, Selection};

#[tokio::test]
async fn a_message_that_fails_each_time_is_set_aside_with_its_history() {
    let world = World::new();
    let (store, queue) = world.with(Config { max_attempts: 3, ..Config::default() }).await;
    queue.sends(&["a"]).await;
    let out = queue.takes(1).await;
    queue.nack(&[out[0].lease], Some(seconds(0)), "no room").await.unwrap();
    queue.takes(1).await;
    world.pass(seconds(30));
    queue.takes(1).await;
    // The consumer of the last attempt never comes back, and neither does its process.
    let (_store, queue) = world.restart(store).await;
    world.pass(seconds(30));
    assert!(queue.takes(1).await.is_empty());
    let dead = queue.dead_letters(0, 9).await.unwrap().letters;
    assert_eq!((&*dead[0].message.event.id, dead[0].attempts), ("a", 3));
    let told: Vec<_> = dead[0].failures.iter().map(|one| (one.attempt, one.cause, one.reason.as_str())).collect();
    assert_eq!(told, [(1, Cause::Nacked, "no room"), (2, Cause::Expired, ""), (3, Cause::Expired, "")]);
    assert_eq!(queue.describe().await.unwrap().counts.parked, 1);
}

#[tokio::test]
async fn a_dead_letter_holds_back_its_group_alone_and_is_replayed_in_its_place() {
    let world = World::new();
    let (store, queue) = world.with(Config::default()).await;
    queue.send(["a1", "a2", "b1"].map(|id| message(id).in_group(&id[..1])).to_vec()).await.unwrap();
    let out = queue.takes(9).await;
    assert_eq!(ids(&out), ["a1", "b1"]);
    queue.park(&[out[0].lease], "poison").await.unwrap();
    queue.ack(&[out[1].lease]).await.unwrap();
    assert!(queue.takes(9).await.is_empty());
    let (_store, queue) = world.restart(store).await;
    assert!(queue.takes(9).await.is_empty(), "over a restart as well");
    assert_eq!(queue.replay(&Selection::ALL).await.unwrap(), 1);
    let again = queue.takes(9).await;
    assert_eq!((ids(&again), again[0].attempt), (vec!["a1"], 1));
    queue.ack(&[again[0].lease]).await.unwrap();
    assert_eq!(ids(&queue.takes(9).await), ["a2"]);
}

#[tokio::test]
async fn dead_letters_are_selected_by_id_group_and_type() {
    let world = World::new();
    let (_store, queue) = world.with(Config::default()).await;
    let mut other = message("c");
    other.event.kind = "other".into();
    queue.send(vec![message("a").in_group("g"), message("b"), other, message("d")]).await.unwrap();
    for delivery in queue.takes(9).await {
        queue.park(&[delivery.lease], "").await.unwrap();
    }
    let of_group = Selection { group: Some("g".into()), ..Selection::ALL };
    let of_kind = Selection { kind: Some("other".into()), ..Selection::ALL };
    assert_eq!(queue.discard(&of_group).await.unwrap(), 1);
    assert_eq!(queue.replay(&of_kind).await.unwrap(), 1);
    assert_eq!(queue.replay(&Selection::one("nobody")).await.unwrap(), 0);
    assert_eq!(queue.replay(&Selection::one("b")).await.unwrap(), 1);
    assert_eq!(ids(&queue.takes(9).await), ["b", "c"]);
    let left = queue.dead_letters(0, 9).await.unwrap().letters;
    assert_eq!(left.iter().map(|one| &*one.message.event.id).collect::<Vec<_>>(), ["d"]);
}

#[tokio::test]
async fn an_edited_dead_letter_says_something_else_and_keeps_its_id() {
    let world = World::new();
    let (_store, queue) = world.with(Config::default()).await;
    queue.sends(&["a"]).await;
    let out = queue.takes(1).await;
    let edited = || NewEvent::new("a", "/test", "work.due").json(&br#"{"id":"mended"}"#[..]);
    let refused = queue.replay_edited(edited()).await.unwrap_err();
    assert!(matches!(refused, QueueError::NotParked { .. }), "a consumer has it: {refused:?}");
    queue.park(&[out[0].lease], "garbled").await.unwrap();
    queue.replay_edited(edited()).await.unwrap();
    let again = queue.takes(1).await;
    assert_eq!(again[0].message.event.data.as_deref(), Some(&br#"{"id":"mended"}"#[..]));
    assert!(queue.sends(&["a"]).await[0].repeated, "what was sent first is still known");
}

#[tokio::test]
async fn a_consumer_that_waits_is_handed_a_dead_letter_as_it_was_edited() {
    let world = World::new();
    let (store, queue) = world.with(Config::default()).await;
    queue.sends(&["a"]).await;
    queue.park(&[queue.takes(1).await[0].lease], "poison").await.unwrap();
    let waiting = waits(&store, &queue, 60).await;
    queue.replay_edited(NewEvent::new("a", "/test", "work.due").json("8")).await.unwrap();
    let handed = waiting.await.unwrap().unwrap();
    assert_eq!(handed[0].message.event.data.as_deref(), Some(&b"8"[..]));
}
