//! Rows that cannot be read: they are set aside, and everything else goes on.

use quorate_data::store::{Store, StoreError};

use super::world::{World, ids, message, name, seconds};
use crate::message_queue::{Cause, Config, NewMessage, QueueError, Queues, Selection};

/// Writes into the queues' tables what quorate never would.
async fn damage(store: &Store, sql: &'static str) {
    let damaged = store.transact(move |tx| Box::pin(async move { tx.room_execute(sql, &[]).await }));
    assert_eq!(damaged.await.unwrap(), 1, "{sql}");
}

fn in_group(id: &str, group: &str) -> NewMessage {
    message(id).in_group(group)
}

#[tokio::test]
async fn a_message_that_cannot_be_read_becomes_a_dead_letter_and_the_others_come() {
    for sql in [
        "UPDATE quorate_queue_message SET attributes = '{' WHERE id = 'a'",
        "UPDATE quorate_queue_message SET priority = 'high' WHERE id = 'a'",
        "UPDATE quorate_queue_message SET sent_ns = 'yesterday', ttl_ms = 5 WHERE id = 'a'",
        "UPDATE quorate_queue_message SET kind = x'00' WHERE id = 'a'",
    ] {
        let world = World::new();
        let (store, queue) = world.with(Config::default()).await;
        let all = [in_group("a", "g"), in_group("behind-a", "g"), in_group("b", "h"), message("c")];
        queue.send(all.to_vec()).await.unwrap();
        damage(&store, sql).await;
        let (store, queue) = world.restart(store).await;
        assert_eq!(ids(&queue.takes(9).await), ["b", "c"], "{sql}");
        let (_store, queue) = world.restart(store).await;
        let dead = queue.dead_letters(0, 9).await.unwrap().letters;
        let last = dead[0].failures.last().unwrap();
        assert_eq!((dead.len(), &*dead[0].message.event.id, last.cause), (1, "a", Cause::Parked), "{sql}");
        assert!(last.reason.contains("cannot be read"), "{}", last.reason);
        assert_eq!(queue.discard(&Selection::one("a")).await.unwrap(), 1);
        assert_eq!(ids(&queue.takes(9).await), ["behind-a"], "{sql}");
    }
}

#[tokio::test]
async fn who_waits_for_a_message_gets_the_one_behind_one_that_cannot_be_read() {
    let world = World::new();
    let (store, queue) = world.with(Config::default()).await;
    queue.sends(&["a", "b"]).await;
    damage(&store, "UPDATE quorate_queue_message SET attributes = '{' WHERE id = 'a'").await;
    let (_store, queue) = world.restart(store).await;
    assert_eq!(ids(&queue.takes(1).await), ["b"]);
    assert_eq!(queue.describe().await.unwrap().counts.parked, 1);
}

#[tokio::test]
async fn a_message_of_which_nothing_says_whose_it_is_becomes_a_dead_letter_that_can_be_replayed() {
    for sql in [
        "UPDATE quorate_queue_state SET deliveries = 'many' WHERE deliveries = 2",
        "UPDATE quorate_queue_state SET attempts = x'00' WHERE deliveries = 2",
        "UPDATE quorate_queue_state SET phase = 'lost', failures = '[' WHERE deliveries = 2",
    ] {
        let world = World::new();
        let (store, queue) = world.with(Config::default()).await;
        queue.sends(&["a"]).await;
        let first = queue.takes(1).await;
        queue.nack(&[first[0].lease], Some(seconds(0)), "busy").await.unwrap();
        let held = queue.takes(1).await;
        queue.sends(&["b"]).await;
        damage(&store, sql).await;
        let (store, queue) = world.restart(store).await;
        assert_eq!(ids(&queue.takes(9).await), ["b"], "{sql}");
        assert!(queue.ack(&[held[0].lease]).await.is_err(), "nobody can say that it still holds");
        assert_eq!(&*queue.dead_letters(0, 9).await.unwrap().letters[0].message.event.id, "a", "{sql}");
        assert_eq!(queue.replay(&Selection::ALL).await.unwrap(), 1);
        let (store, queue) = world.restart(store).await;
        let again = queue.takes(9).await;
        assert_eq!((ids(&again), again[0].attempt), (vec!["a"], 1), "{sql}");
        queue.ack(&[again[0].lease]).await.unwrap();
        let (_store, queue) = world.restart(store).await;
        assert_eq!(queue.holds().await, 1, "{sql}");
    }
}

#[tokio::test]
async fn what_happened_to_a_message_may_be_unreadable_and_it_is_handed_out_all_the_same() {
    let world = World::new();
    let (store, queue) = world.with(Config::default()).await;
    queue.sends(&["a"]).await;
    let out = queue.takes(1).await;
    damage(&store, "UPDATE quorate_queue_state SET failures = '['").await;
    queue.nack(&[out[0].lease], Some(seconds(0)), "busy").await.unwrap();
    let out = queue.takes(1).await;
    queue.park(&[out[0].lease], "poison").await.unwrap();
    let dead = queue.dead_letters(0, 9).await.unwrap().letters;
    let told: Vec<_> = dead[0].failures.iter().map(|one| one.reason.as_str()).collect();
    assert!(told[0].contains("cannot be read") && told[1..] == ["busy", "poison"], "{told:?}");
}

#[tokio::test]
async fn a_queue_whose_row_is_damaged_is_named_and_the_others_go_on() {
    for sql in [
        "UPDATE quorate_queue SET config = '{' WHERE name = 'bad'",
        "UPDATE quorate_queue SET deleted = 'perhaps' WHERE name = 'bad'",
    ] {
        let world = World::new();
        let (store, queue) = world.with(Config::default()).await;
        queue.sends(&["a"]).await;
        let bad = Queues::open(&store).await.unwrap().declare(&name("bad"), Config::default()).await.unwrap();
        bad.sends(&["b"]).await;
        damage(&store, sql).await;
        drop((queue, bad));
        store.close().await.unwrap();
        let store = world.open().await;
        let queues = Queues::open(&store).await.expect("the others can be used");
        assert_eq!(ids(&queues.get(&name("work")).unwrap().takes(9).await), ["a"]);
        let refused = queues.get(&name("bad"));
        assert!(matches!(refused, Err(QueueError::Store(StoreError::Corrupt { .. }))), "{refused:?}");
        let listed = queues.list(None, 9).unwrap();
        let told: Vec<_> = listed.iter().map(|one| (one.name.as_str(), one.config.is_ok())).collect();
        assert_eq!(told, [("bad", false), ("work", true)], "it is listed as what it is");
        let declared = queues.declare(&name("bad"), Config { max_attempts: 2, ..Config::default() }).await.unwrap();
        assert_eq!(ids(&declared.takes(9).await), ["b"], "{sql}");
        drop((queues, declared));
        store.close().await.unwrap();
        let store = world.open().await;
        let queues = Queues::open(&store).await.unwrap();
        assert_eq!(queues.get(&name("bad")).unwrap().config().max_attempts, 2, "{sql}");
        queues.delete(&name("bad")).await.unwrap();
        assert_eq!(queues.list(None, 9).unwrap().len(), 1);
    }
}

#[tokio::test]
async fn a_queue_whose_row_is_damaged_can_be_deleted() {
    let world = World::new();
    let (store, queue) = world.with(Config::default()).await;
    queue.sends(&["a"]).await;
    damage(&store, "UPDATE quorate_queue SET config = '{'").await;
    drop(queue);
    store.close().await.unwrap();
    let store = world.open().await;
    let queues = Queues::open(&store).await.unwrap();
    queues.delete(&name("work")).await.unwrap();
    assert!(matches!(queues.get(&name("work")), Err(QueueError::NotFound { .. })));
    assert_eq!(queues.declare(&name("work"), Config::default()).await.unwrap().holds().await, 0);
}

#[tokio::test]
async fn a_queue_whose_name_cannot_be_read_keeps_its_number_and_its_messages() {
    for sql in [
        "UPDATE quorate_queue SET name = '' WHERE name = 'work'",
        "UPDATE quorate_queue SET name = x'00' WHERE name = 'work'",
    ] {
        let world = World::new();
        let (store, queue) = world.with(Config::default()).await;
        queue.sends(&["a"]).await;
        damage(&store, sql).await;
        drop(queue);
        store.close().await.unwrap();
        let store = world.open().await;
        let queues = Queues::open(&store).await.expect("there are others");
        assert!(queues.list(None, 9).unwrap().is_empty());
        let other = queues.declare(&name("work"), Config::default()).await.unwrap();
        assert_eq!(other.holds().await, 0, "it got a number of its own");
        let kept = store.room_query("SELECT id FROM quorate_queue_message", vec![]).await.unwrap();
        assert_eq!(kept.len(), 1);
    }
}
