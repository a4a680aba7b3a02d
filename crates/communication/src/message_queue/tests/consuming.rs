//! Messages on their way out.

use std::time::Duration;

use quorate_data::store::TransactError;

use super::world::{World, beside, done, ids, message, seconds, waits, with_table, work};
use crate::message_queue::{Config, QueueError, Receive};

#[tokio::test]
async fn what_is_acknowledged_does_not_come_again_and_what_is_not_does() {
    let world = World::new();
    let (store, queue) = world.with(Config::default()).await;
    queue.sends(&["a", "b"]).await;
    let out = queue.takes(9).await;
    queue.ack(&[out[0].lease]).await.unwrap();
    let (_store, queue) = world.restart(store).await;
    assert!(queue.takes(9).await.is_empty(), "the lease runs its full time again");
    world.pass(seconds(30));
    let again = queue.takes(9).await;
    assert_eq!((ids(&again), again[0].attempt), (vec!["b"], 2));
}

#[tokio::test]
async fn a_late_acknowledgement_rolls_its_transaction_back() {
    let world = World::new();
    let (store, queue) = world.with(Config::default()).await;
    with_table(&store).await;
    queue.sends(&["a"]).await;
    let slow = queue.takes(1).await.remove(0);
    world.pass(seconds(30));
    let quick = queue.takes(1).await.remove(0);
    work(&store, &queue, &quick).await.unwrap();
    let late = work(&store, &queue, &slow).await;
    assert!(matches!(late, Err(TransactError::Aborted(QueueError::LeaseLost { .. }))), "{late:?}");
    assert_eq!(done(&store).await, [("a".to_owned(), 1)]);
    assert_eq!(queue.holds().await, 0);
}

#[tokio::test]
async fn a_late_consumer_may_still_settle_what_nobody_else_was_given() {
    let world = World::new();
    let (store, queue) = world.with(Config::default()).await;
    with_table(&store).await;
    queue.sends(&["a", "b"]).await;
    let out = queue.takes(2).await;
    world.pass(seconds(90));
    queue.ack(&[out[0].lease]).await.unwrap();
    work(&store, &queue, &out[1]).await.unwrap();
    assert!(queue.takes(9).await.is_empty());
}

#[tokio::test]
async fn work_and_its_acknowledgement_commit_together_or_not_at_all() {
    let world = World::new();
    let (store, queue) = world.with(Config::default()).await;
    with_table(&store).await;
    queue.send(vec![message("a").in_group("g"), message("b").in_group("g")]).await.unwrap();
    let first = queue.takes(9).await.remove(0);
    let (failing, lease) = (queue.clone(), first.lease);
    let failed = store.transact(move |tx| {
        let queue = failing.clone();
        Box::pin(async move {
            queue.ack_in(tx, &lease).await?;
            Err::<(), _>(QueueError::invalid("no".to_owned()))
        })
    });
    assert!(failed.await.is_err());
    assert!(queue.takes(9).await.is_empty(), "it is still out, and its group waits");
    work(&store, &queue, &first).await.unwrap();
    assert_eq!(ids(&queue.takes(9).await), ["b"], "the group goes on at once");
    assert_eq!(done(&store).await, [("a".to_owned(), 1)]);
}

#[tokio::test]
async fn an_extended_lease_outlasts_a_restart_and_its_first_time() {
    let world = World::new();
    let (store, queue) = world.with(Config::default()).await;
    queue.sends(&["a"]).await;
    let out = queue.takes(1).await.remove(0);
    queue.extend(&[out.lease], Some(seconds(600))).await.unwrap();
    world.pass(seconds(300));
    assert!(queue.takes(1).await.is_empty());
    let (_store, queue) = world.restart(store).await;
    world.pass(seconds(599));
    assert!(queue.takes(1).await.is_empty());
    queue.ack(&[out.lease]).await.unwrap();
    assert_eq!(queue.holds().await, 0);
}

#[tokio::test]
async fn a_failed_message_rests_as_long_as_was_said_and_over_a_restart() {
    let world = World::new();
    let (store, queue) = world.with(Config::default()).await;
    queue.sends(&["a"]).await;
    let out = queue.takes(1).await.remove(0);
    queue.nack(&[out.lease], Some(seconds(60)), "busy").await.unwrap();
    assert!(matches!(queue.ack(&[out.lease]).await, Err(QueueError::LeaseLost { .. })), "it was given back");
    world.pass(seconds(40));
    let (_store, queue) = world.restart(store).await;
    assert!(queue.takes(1).await.is_empty());
    world.pass(seconds(20));
    assert_eq!(queue.takes(1).await[0].attempt, 2);
}

#[tokio::test]
async fn a_lost_lease_does_not_spoil_the_others_of_its_call() {
    let world = World::new();
    let (_store, queue) = world.with(Config::default()).await;
    queue.sends(&["a", "b"]).await;
    let out = queue.takes(2).await;
    queue.ack(&[out[0].lease]).await.unwrap();
    let failed = queue.ack(&[out[0].lease, out[1].lease]).await.unwrap_err();
    assert!(matches!(failed, QueueError::LeaseLost { ref leases } if *leases == [out[0].lease]), "{failed:?}");
    assert_eq!(queue.holds().await, 0);
}

#[tokio::test]
async fn who_waits_is_woken_by_a_message_and_by_the_end_of_a_rest() {
    let world = World::new();
    let (store, queue) = world.with(Config::default()).await;
    let waiting = waits(&store, &queue, 300).await;
    queue.send(vec![message("later").after(seconds(60)), message("now")]).await.unwrap();
    let now = waiting.await.unwrap().unwrap();
    assert_eq!(ids(&now), ["now"]);
    queue.ack(&[now[0].lease]).await.unwrap();
    let waiting = waits(&store, &queue, 300).await;
    world.pass(seconds(61));
    let later = waiting.await.unwrap().unwrap();
    assert_eq!(ids(&later), ["later"]);
    queue.ack(&[later[0].lease]).await.unwrap();
    let waiting = waits(&store, &queue, 10).await;
    world.pass(seconds(11));
    assert!(waiting.await.unwrap().unwrap().is_empty(), "nothing came");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn patience_that_ends_while_messages_are_written_gives_none_of_them_back() {
    let world = World::of_this_machine();
    let (_store, queue) = world.with(Config::default()).await;
    let sent: Vec<_> = (0..500).map(|n| message(&n.to_string())).collect();
    queue.send(sent).await.unwrap();
    let mut got = Vec::new();
    for _ in 0..5 {
        // Writing a hundred leases takes longer than that.
        got.extend(queue.receive(Receive::of(100).waiting(Duration::from_nanos(1))).await.unwrap());
    }
    assert_eq!(got.len(), 500);
    assert!(got.iter().all(|delivery| delivery.lease.fence() == 1));
}

#[tokio::test]
async fn a_consumer_that_left_costs_no_attempt_and_holds_nothing() {
    let world = World::new();
    let (_store, queue) = world.with(Config { max_attempts: 1, ..Config::default() }).await;
    for _ in 0..20 {
        tokio::select! {
            biased;
            got = queue.receive(Receive::of(1).waiting(seconds(300))) => panic!("there was {got:?}"),
            () = tokio::task::yield_now() => {}
        }
    }
    queue.sends(&["a"]).await;
    let out = queue.receive(Receive::of(1).waiting(seconds(1))).await.unwrap();
    assert_eq!(out[0].attempt, 1);
}

#[tokio::test]
async fn of_one_group_only_one_message_is_out_and_they_come_in_order() {
    let world = World::new();
    let (_store, queue) = world.with(Config::default()).await;
    let sent = ["a1", "a2", "b1", "a3"].map(|id| message(id).in_group(&id[..1]).priority(u8::from(id == "a3") * 5));
    queue.send(sent.to_vec()).await.unwrap();
    let mut order = Vec::new();
    loop {
        let out = queue.takes(9).await;
        if out.is_empty() {
            break;
        }
        order.push(ids(&out).join("+"));
        queue.ack(&out.iter().map(|delivery| delivery.lease).collect::<Vec<_>>()).await.unwrap();
    }
    assert_eq!(order, ["a1+b1", "a2", "a3"]);
}

#[tokio::test]
async fn a_stopped_node_hands_out_nothing_and_still_takes_what_was_done() {
    let world = World::new();
    let (store, queue) = world.with(Config::default()).await;
    queue.sends(&["a"]).await;
    let out = queue.takes(1).await;
    let waiting = waits(&store, &queue, 300).await;
    world.env().tasks().stop().cancel();
    assert!(waiting.await.unwrap().is_err(), "nobody waits for what will not come");
    queue.ack(&[out[0].lease]).await.unwrap();
    world.env().tasks().shut_down().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_consumers_share_the_work_and_none_of_it_is_done_twice() {
    let world = World::of_this_machine();
    let (store, queue) = world.with(Config::default()).await;
    with_table(&store).await;
    let producers = (0..4).map(|producer| {
        let queue = queue.clone();
        beside(&store, async move {
            for n in 0..50 {
                let sent = message(&format!("{producer}-{n:02}")).in_group(format!("g{producer}"));
                queue.send(vec![sent]).await.unwrap();
            }
        })
    });
    let producers: Vec<_> = producers.collect();
    let order = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let consumers = (0..4).map(|_| {
        let (store, queue, order, tasks) = (store.clone(), queue.clone(), order.clone(), store.clone());
        beside(&tasks, async move {
            while order.lock().unwrap().len() < 200 {
                let receive = Receive::of(5).waiting(Duration::from_millis(50));
                for delivery in queue.receive(receive).await.unwrap() {
                    order.lock().unwrap().push(delivery.message.event.id.to_string());
                    work(&store, &queue, &delivery).await.unwrap();
                }
            }
        })
    });
    let consumers: Vec<_> = consumers.collect();
    for task in producers.into_iter().chain(consumers) {
        task.await.unwrap();
    }
    let counted = done(&store).await;
    assert_eq!(counted.len(), 200);
    assert!(counted.iter().all(|(_, times)| *times == 1));
    let order = order.lock().unwrap().clone();
    for producer in 0..4 {
        let prefix = format!("{producer}-");
        let of_group: Vec<&String> = order.iter().filter(|id| id.starts_with(&prefix)).collect();
        assert!(of_group.is_sorted(), "{of_group:?}");
    }
    assert_eq!(queue.holds().await, 0);
}
