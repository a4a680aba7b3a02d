//! Consumers with a window.

use super::world::{World, beside, ids, message, name, seconds, with_table, work};
use crate::message_queue::{Config, Consume, Consumer, Delivery, Queue, QueueError, Queues};

fn window(queue: &Queue, size: usize) -> Consumer {
    queue.consume(Consume { window: size, ttl: None }).unwrap()
}

/// Whether the consumer is handed nothing, as it stands.
async fn waits(queue: &Queue, consumer: &mut Consumer) -> bool {
    let look = async {
        // Several rounds go by while it waits.
        for _ in 0..5 {
            queue.describe().await.unwrap();
        }
    };
    tokio::select! {
        biased;
        _ = consumer.next() => false,
        () = look => true,
    }
}

#[tokio::test]
async fn a_consumer_is_handed_what_its_window_has_room_for_and_more_once_it_settled_some() {
    let world = World::new();
    let (store, queue) = world.with(Config::default()).await;
    with_table(&store).await;
    let mut consumer = window(&queue, 2);
    queue.sends(&["a", "b", "c", "d", "e"]).await;
    let first = consumer.next().await.unwrap();
    assert_eq!((ids(&first), consumer.held()), (vec!["a", "b"], 2));
    assert!(waits(&queue, &mut consumer).await, "its window is full");
    queue.ack(&[first[0].lease]).await.unwrap();
    let second = consumer.next().await.unwrap();
    assert_eq!(ids(&second), ["c"]);
    // Settled in a transaction, or given back: that makes room as well.
    work(&store, &queue, &first[1]).await.unwrap();
    queue.nack(&[second[0].lease], Some(seconds(600)), "").await.unwrap();
    let mut third = consumer.next().await.unwrap();
    while third.len() < 2 {
        third.extend(consumer.next().await.unwrap());
    }
    assert_eq!(ids(&third), ["d", "e"]);
    assert_eq!(consumer.held(), 2);
}

#[tokio::test]
async fn leases_that_run_out_make_room_and_their_messages_come_again() {
    let world = World::new();
    let (store, queue) = world.with(Config::default()).await;
    let mut consumer = window(&queue, 1);
    queue.sends(&["a"]).await;
    let first = consumer.next().await.unwrap();
    // Nobody but this consumer waits: it is what lets time pass.
    let (mut consumer, again) = (consumer, queue.clone());
    let next = beside(&store, async move { (consumer.next().await, consumer) });
    while queue.describe().await.unwrap().consumers == 0 {
        tokio::task::yield_now().await;
    }
    world.pass(seconds(31));
    let (second, consumer) = next.await.unwrap();
    let second: Vec<Delivery> = second.unwrap();
    assert_eq!((ids(&second), second[0].attempt, consumer.held()), (vec!["a"], 2, 1));
    assert!(matches!(again.ack(&[first[0].lease]).await, Err(QueueError::LeaseLost { .. })));
    again.ack(&[second[0].lease]).await.unwrap();
}

#[tokio::test]
async fn one_whose_window_is_full_is_in_nobodys_way() {
    let world = World::new();
    let (_store, queue) = world.with(Config::default()).await;
    let (mut slow, mut quick) = (window(&queue, 1), window(&queue, 8));
    queue.sends(&["a"]).await;
    assert_eq!(slow.next().await.unwrap().len(), 1);
    let (other, sending) = (queue.clone(), queue.clone());
    tokio::select! {
        _ = slow.next() => panic!("it has no room"),
        got = quick.next() => assert_eq!(ids(&got.unwrap()), ["b"]),
        () = async move { sending.sends(&["b"]).await; std::future::pending().await } => {}
    }
    assert_eq!(other.describe().await.unwrap().counts.in_flight, 2);
}

#[tokio::test]
async fn a_consumer_that_left_loses_nothing_and_a_deleted_queue_ends_it() {
    let world = World::new();
    let (store, queue) = world.with(Config::default()).await;
    let mut consumer = window(&queue, 4);
    assert!(waits(&queue, &mut consumer).await);
    drop(consumer);
    queue.send(vec![message("a")]).await.unwrap();
    let out = queue.takes(9).await;
    assert_eq!((ids(&out), out[0].attempt), (vec!["a"], 1));
    let mut consumer = window(&queue, 4);
    let next = beside(&store, async move { consumer.next().await });
    while queue.describe().await.unwrap().consumers == 0 {
        tokio::task::yield_now().await;
    }
    Queues::open(&store).await.unwrap().delete(&name("work")).await.unwrap();
    assert!(matches!(next.await.unwrap(), Err(QueueError::NotFound { .. })));
    assert!(queue.consume(Consume { window: 0, ttl: None }).is_err());
    assert!(queue.consume(Consume { window: 1, ttl: Some(seconds(0)) }).is_err());
}
