//! A process that dies at each boundary of receive, handle, acknowledge: the store's file as it was at that moment is
//! what the next process finds.

use quorate_data::store::Store;

use super::world::{World, done, ids, name, seconds, with_table, work};
use crate::message_queue::{Config, Queue, Queues};

/// Does the message's work up to a boundary.
async fn until(boundary: usize, store: &Store, queue: &Queue) {
    if boundary == 0 {
        return;
    }
    let out = queue.takes(1).await;
    if boundary == 1 || out.is_empty() {
        return;
    }
    work(store, queue, &out[0]).await.unwrap();
}

#[tokio::test]
async fn whichever_boundary_a_process_dies_at_the_work_is_done_once() {
    for boundary in 0..=2 {
        let world = World::new();
        let (store, queue) = world.with(Config::default()).await;
        with_table(&store).await;
        queue.sends(&["a"]).await;
        until(boundary, &store, &queue).await;
        let (store, queue) = world.restart(store).await;
        world.pass(seconds(31));
        for delivery in queue.takes(9).await {
            assert_eq!(delivery.attempt, u32::try_from(boundary).unwrap() + 1, "the attempt was counted before");
            work(&store, &queue, &delivery).await.unwrap();
        }
        assert_eq!(done(&store).await, [("a".to_owned(), 1)], "boundary {boundary}");
        assert_eq!(queue.holds().await, 0);
    }
}

#[tokio::test]
async fn however_often_queues_are_opened_a_message_has_one_holder() {
    let world = World::new();
    let (store, queue) = world.with(Config::default()).await;
    let other = Queues::open(&store).await.unwrap().get(queue.name()).unwrap();
    queue.sends(&["a", "b"]).await;
    assert_eq!(ids(&other.takes(1).await), ["a"]);
    assert_eq!(ids(&queue.takes(9).await), ["b"]);
    drop((queue, other));
    let again = Queues::open(&store).await.unwrap().get(&name("work")).unwrap();
    assert!(again.takes(9).await.is_empty(), "read again, and their leases still hold");
}

#[tokio::test]
async fn a_lease_of_an_earlier_process_is_fenced_like_any_other() {
    let world = World::new();
    let (store, queue) = world.with(Config::default()).await;
    queue.sends(&["a"]).await;
    let old = queue.takes(1).await.remove(0);
    let (_store, queue) = world.restart(store).await;
    world.pass(seconds(31));
    let new = queue.takes(1).await.remove(0);
    assert!(new.lease.fence() > old.lease.fence());
    assert!(queue.ack(&[old.lease]).await.is_err());
    queue.ack(&[new.lease]).await.unwrap();
}

#[tokio::test]
async fn a_lease_never_stands_for_a_message_of_another_life() {
    let world = World::new();
    let (store, queue) = world.with(Config::default()).await;
    queue.sends(&["a"]).await;
    let old = queue.takes(1).await.remove(0);
    queue.ack(&[old.lease]).await.unwrap();
    let (_store, queue) = world.restart(store).await;
    queue.sends(&["b"]).await;
    let new = queue.takes(1).await;
    assert_eq!(ids(&new), ["b"]);
    assert!(queue.ack(&[old.lease]).await.is_err());
    assert_eq!(queue.holds().await, 1);
}
