//! Messages of which one is enough.

use super::world::{World, done, ids, message, seconds, with_table, work};
use crate::message_queue::{Config, NewMessage, Selection};

fn unique(id: &str) -> NewMessage {
    message(id).unique("report")
}

#[tokio::test]
async fn of_one_key_no_second_message_is_sent_while_one_waits_rests_or_is_worked_on() {
    let world = World::new();
    let (store, queue) = world.with(Config::default()).await;
    let sent = queue.send(vec![unique("a"), message("other"), unique("b")]).await.unwrap();
    let told: Vec<_> = sent.iter().map(|sent| (sent.repeated, sent.held_by.as_deref())).collect();
    assert_eq!(told, [(false, None), (false, None), (false, Some("a"))], "also in one call");
    assert!(queue.send(vec![unique("a")]).await.unwrap()[0].repeated, "the same message is a repetition");
    let out = queue.takes(1).await;
    assert_eq!(queue.send(vec![unique("b")]).await.unwrap()[0].held_by.as_deref(), Some("a"), "it is worked on");
    queue.nack(&[out[0].lease], Some(seconds(60)), "").await.unwrap();
    assert_eq!(queue.send(vec![unique("b")]).await.unwrap()[0].held_by.as_deref(), Some("a"), "it rests");
    let (_store, queue) = world.restart(store).await;
    assert_eq!(queue.send(vec![unique("b")]).await.unwrap()[0].held_by.as_deref(), Some("a"), "over a restart as well");
    world.pass(seconds(60));
    for delivery in queue.takes(9).await {
        queue.ack(&[delivery.lease]).await.unwrap();
    }
    assert_eq!(queue.holds().await, 0, "none of the others was sent");
    let sent = queue.send(vec![unique("b")]).await.unwrap();
    assert_eq!((sent[0].repeated, &sent[0].held_by), (false, &None), "its id was not remembered");
    assert_eq!(ids(&queue.takes(9).await), ["b"]);
}

#[tokio::test]
async fn a_key_is_of_one_queue_and_free_once_its_message_is_out_of_date() {
    let world = World::new();
    let (store, queue) = world.with(Config::default()).await;
    let queues = crate::message_queue::Queues::open(&store).await.unwrap();
    let other = queues.declare(&"other".parse().unwrap(), Config::default()).await.unwrap();
    queue.send(vec![unique("a").expiring(seconds(10))]).await.unwrap();
    assert_eq!(other.send(vec![unique("a")]).await.unwrap()[0].held_by, None);
    world.pass(seconds(10));
    assert_eq!(queue.send(vec![unique("b")]).await.unwrap()[0].held_by, None);
    assert_eq!(ids(&queue.takes(9).await), ["b"]);
}

#[tokio::test]
async fn transactions_that_race_for_a_key_send_one_message_and_a_rolled_back_one_holds_none() {
    let world = World::new();
    let (store, queue) = world.with(Config::default()).await;
    with_table(&store).await;
    let sends = |id: &'static str, fails: bool| {
        let queue = queue.clone();
        store.transact(move |tx| {
            let queue = queue.clone();
            Box::pin(async move {
                let sent = queue.send_in(tx, vec![unique(id)]).await?;
                if fails { Err(crate::message_queue::QueueError::invalid("no".to_owned())) } else { Ok(sent) }
            })
        })
    };
    sends("lost", true).await.unwrap_err();
    let (a, b) = tokio::join!(sends("a", false), sends("b", false));
    let held: Vec<_> = [a.unwrap(), b.unwrap()].iter().map(|sent| sent[0].held_by.clone()).collect();
    assert_eq!(held, [None, Some("a".into())]);
    let out = queue.takes(9).await;
    assert_eq!(ids(&out), ["a"]);
    work(&store, &queue, &out[0]).await.unwrap();
    sends("b", false).await.unwrap();
    assert_eq!(ids(&queue.takes(9).await), ["b"], "settled in a transaction, it holds nothing");
    assert_eq!(done(&store).await.len(), 1);
}

#[tokio::test]
async fn a_dead_letter_holds_no_key_and_is_not_replayed_while_another_message_has_it() {
    let world = World::new();
    let (store, queue) = world.with(Config::default()).await;
    queue.send(vec![unique("a")]).await.unwrap();
    let out = queue.takes(1).await;
    queue.park(&[out[0].lease], "poison").await.unwrap();
    assert_eq!(queue.send(vec![unique("b")]).await.unwrap()[0].held_by, None);
    assert_eq!(queue.replay(&Selection::ALL).await.unwrap(), 0, "the other one has the key");
    assert!(queue.replay_edited(message("a").event).await.is_err());
    let out = queue.takes(9).await;
    assert_eq!(ids(&out), ["b"]);
    queue.ack(&[out[0].lease]).await.unwrap();
    let (_store, queue) = world.restart(store).await;
    assert_eq!(queue.replay(&Selection::ALL).await.unwrap(), 1);
    assert_eq!(queue.send(vec![unique("c")]).await.unwrap()[0].held_by.as_deref(), Some("a"), "it has the key again");
    let again = queue.takes(9).await;
    assert_eq!((ids(&again), again[0].attempt, again[0].lease.fence()), (vec!["a"], 1, 2));
    queue.ack(&[again[0].lease]).await.unwrap();
    assert_eq!(queue.holds().await, 0);
}
