//! Queues that hold much, in a store whose pages are small.

use std::pin::pin;

use super::world::{World, ids, message, name, seconds};
use crate::message_queue::{Config, NewMessage, Queue, Queues, Selection, driver::Work};

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
    assert_eq!(queue.dead_letters(0, 9).await.unwrap().letters.len(), 5);
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

#[tokio::test]
async fn one_round_hands_out_so_much_and_no_more_to_all_its_consumers() {
    let world = World::new();
    let (_store, queue) = world.with(Config::default()).await;
    for n in 0..8 {
        queue.send(vec![large(&format!("m{n}"), 1_000_000)]).await.unwrap();
    }
    // All of them come into one round, and who asks how the queue stands as well.
    let takes: Vec<_> = (0..4)
        .map(|_| queue.core.put(|reply| Work::Take { max: 9, ttl: None, until: None, window: None, reply }).unwrap())
        .collect();
    let look = queue.core.put(|reply| Work::Look { reply }).unwrap();
    assert_eq!(look.await.unwrap().unwrap().counts.in_flight, 5, "four mebibytes, and the message that exceeds them");
    let mut got = Vec::new();
    for take in takes {
        got.push(take.await.unwrap().unwrap().len());
    }
    assert_eq!(got.iter().sum::<usize>(), 8, "the others' turn comes at once: {got:?}");
}

#[tokio::test]
async fn a_page_of_dead_letters_ends_where_it_is_large_enough() {
    let world = World::new();
    let (_store, queue) = world.with(Config::default()).await;
    for n in 0..6 {
        queue.send(vec![large(&format!("m{n}"), 1_000_000)]).await.unwrap();
    }
    for delivery in [queue.takes(9).await, queue.takes(9).await].concat() {
        queue.park(&[delivery.lease], "too large for me").await.unwrap();
    }
    let page = queue.dead_letters(0, 100).await.unwrap();
    assert_eq!((page.letters.len(), page.next), (4, Some(page.letters[3].place())));
    let rest = queue.dead_letters(page.next.unwrap(), 100).await.unwrap();
    assert_eq!((rest.letters.len(), rest.next), (2, None));
    let one = queue.dead_letters(0, 1).await.unwrap();
    assert_eq!((one.letters.len(), one.next), (1, Some(page.letters[0].place())));
}

#[tokio::test]
async fn how_a_queue_stands_is_told_without_waiting_for_its_messages_to_be_read() {
    let world = World::new();
    let (store, queue) = world.with(Config::default()).await;
    send_many(&queue, 100).await;
    assert!(queue.describe_if_read().await.unwrap().is_some());
    let (_store, queue) = world.restart(store).await;
    assert!(queue.describe_if_read().await.unwrap().is_none(), "nobody asked for anything yet");
    // Having asked is enough.
    let described = loop {
        match queue.describe_if_read().await.unwrap() {
            Some(described) => break described,
            None => tokio::task::yield_now().await,
        }
    };
    assert_eq!(described.counts.ready, 100);
}
