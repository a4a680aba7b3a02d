//! Queues that hold much, in a store whose pages are small.

use std::pin::pin;

use super::world::{World, ids, message, name, seconds};
use crate::message_queue::{Config, NewMessage, Queue, Queues, Selection};

/// A message with so many bytes.
fn large(id: &str, bytes: usize) -> NewMessage {
    let mut message = message(id);
    message.event.data = Some(vec![7; bytes].into());
    message
}

async fn send_many(queue: &Queue, count: usize) {
    for thousand in 0..count.div_ceil(1_000) {
        let ids = thousand * 1_000..count.min((thousand + 1) * 1_000);
        queue.send(ids.map(|n| message(&format!("m{n}"))).collect()).await.unwrap();
    }
}

#[tokio::test]
async fn a_queue_of_many_messages_is_read_again_whatever_the_page() {
    let world = World::of_small_pages();
    let (store, queue) = world.with(Config::default()).await;
    send_many(&queue, 2_000).await;
    let (_store, queue) = world.restart(store).await;
    assert_eq!(queue.holds().await, 2_000);
    assert_eq!(ids(&queue.takes(3).await), ["m0", "m1", "m2"]);
}

#[tokio::test]
async fn a_large_message_is_handed_out_again_and_set_aside_whatever_the_page() {
    let world = World::of_small_pages();
    let (store, queue) = world.with(Config::default()).await;
    queue.send((0..5).map(|n| large(&format!("m{n}"), 200 << 10)).collect()).await.unwrap();
    let out = queue.takes(9).await;
    assert_eq!(out.len(), 5);
    let leases: Vec<_> = out.iter().map(|delivery| delivery.lease).collect();
    queue.nack(&leases, Some(seconds(0)), "no room").await.unwrap();
    for delivery in queue.takes(9).await {
        assert_eq!(
            (delivery.attempt, delivery.message.event.data.as_ref().map(|data| data.len())),
            (2, Some(200 << 10))
        );
        queue.park(&[delivery.lease], "too large for me").await.unwrap();
    }
    let (_store, queue) = world.restart(store).await;
    assert_eq!(queue.dead_letters(0, 9).await.unwrap().len(), 5);
    assert_eq!(queue.discard(&Selection::ALL).await.unwrap(), 5);
    assert_eq!(queue.holds().await, 0);
}

#[tokio::test]
async fn many_queues_are_opened_again_whatever_the_page() {
    let world = World::of_small_pages();
    let store = world.open().await;
    let queues = Queues::open(&store).await.unwrap();
    for n in 0..1_200 {
        queues.declare(&name(&format!("queue-{n}")), Config::default()).await.unwrap();
    }
    drop(queues);
    store.close().await.unwrap();
    let store = world.open().await;
    let queues = Queues::open(&store).await.unwrap();
    let first = queues.list(None, 1_000).unwrap();
    let rest = queues.list(Some(&first[999].name), 1_000).unwrap();
    assert_eq!((first.len(), rest.len()), (1_000, 200));
}

#[tokio::test]
async fn a_declaration_that_nobody_waits_for_mixes_up_no_queues() {
    let world = World::new();
    let store = world.open().await;
    let queues = Queues::open(&store).await.unwrap();
    for polls in 1..8 {
        let dropped = name(&format!("dropped-{polls}"));
        {
            let mut declaring = pin!(queues.declare(&dropped, Config::default()));
            for _ in 0..polls {
                if futures_util::poll!(&mut declaring).is_ready() {
                    break;
                }
                tokio::task::yield_now().await;
            }
        }
        let kept = queues.declare(&name(&format!("kept-{polls}")), Config::default()).await.unwrap();
        kept.sends(&[&format!("m{polls}")]).await;
    }
    drop(queues);
    store.close().await.unwrap();
    let store = world.open().await;
    let queues = Queues::open(&store).await.unwrap();
    assert_eq!(queues.list(None, 99).unwrap().len(), 14);
    for polls in 1..8 {
        let kept = queues.get(&name(&format!("kept-{polls}"))).unwrap();
        assert_eq!(ids(&kept.takes(9).await), [&format!("m{polls}")]);
        assert_eq!(queues.get(&name(&format!("dropped-{polls}"))).unwrap().holds().await, 0);
    }
}
