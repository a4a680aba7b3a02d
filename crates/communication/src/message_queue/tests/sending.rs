//! Messages on their way in.

use std::time::Duration;

use quorate_data::store::TransactError;

use super::world::{World, beside, count, done, ids, message, name, seconds, waits, with_table, work};
use crate::message_queue::{Config, NewMessage, QueueError, Queues};

#[tokio::test]
async fn a_message_is_sent_once_however_often_it_is_sent() {
    let world = World::new();
    let (store, queue) = world.with(Config::default()).await;
    assert!(!queue.sends(&["a"]).await[0].repeated);
    let again = queue.sends(&["a", "b", "a", "b"]).await;
    assert_eq!(again.iter().map(|sent| sent.repeated).collect::<Vec<_>>(), [true, false, true, true]);
    let out = queue.takes(9).await;
    assert_eq!(ids(&out), ["a", "b"]);
    queue.ack(&[out[0].lease, out[1].lease]).await.unwrap();
    assert!(queue.sends(&["a"]).await[0].repeated, "it is remembered after it was done");
    let (_store, queue) = world.restart(store).await;
    assert!(queue.sends(&["b"]).await[0].repeated, "and over a restart");
    assert!(queue.takes(9).await.is_empty());
}

#[tokio::test]
async fn the_same_id_with_other_content_is_refused_and_nothing_of_its_call_is_sent() {
    let world = World::new();
    let (_store, queue) = world.with(Config::default()).await;
    queue.sends(&["a"]).await;
    let other = message("a").priority(9);
    // More than one statement takes, so that what was written before has to be taken back.
    let mut call: Vec<NewMessage> = (0..20).map(|n| message(&format!("n{n}"))).collect();
    call.push(other);
    let refused = queue.send(call.clone()).await.unwrap_err();
    assert!(matches!(refused, QueueError::IdReused { index: 20, ref id, .. } if id == "a"), "{refused:?}");
    assert_eq!(queue.holds().await, 1);
    call.pop();
    assert!(queue.send(call).await.unwrap().iter().all(|sent| !sent.repeated), "their ids are free");
    assert_eq!(queue.holds().await, 21);
}

#[tokio::test]
async fn an_id_is_remembered_for_the_horizon_and_as_long_as_its_message_is_here() {
    let world = World::new();
    let config = Config { dedupe: seconds(60), max_attempts: 1, ..Config::default() };
    let (_store, queue) = world.with(config).await;
    queue.sends(&["dead", "done"]).await;
    let out = queue.takes(2).await;
    queue.park(&[out[0].lease], "broken").await.unwrap();
    queue.ack(&[out[1].lease]).await.unwrap();
    world.pass(seconds(61));
    // What is sent pays for looking through what is remembered.
    for n in 0..10 {
        queue.send((0..100).map(|m| message(&format!("{n}-{m}"))).collect()).await.unwrap();
    }
    assert!(queue.sends(&["dead"]).await[0].repeated, "the dead letter may still be replayed");
    assert!(!queue.sends(&["done"]).await[0].repeated, "forgotten");
}

#[tokio::test]
async fn messages_of_a_transaction_are_there_if_it_commits_and_not_otherwise() {
    let world = World::new();
    let (store, queue) = world.with(Config::default()).await;
    with_table(&store).await;
    let sends = |fails: bool, id: &'static str| {
        let queue = queue.clone();
        store.transact(move |tx| {
            let queue = queue.clone();
            Box::pin(async move {
                count(tx, id).await?;
                queue.send_in(tx, vec![message(id).in_group("g")]).await?;
                if fails { Err(QueueError::invalid("no".to_owned())) } else { Ok(()) }
            })
        })
    };
    assert!(matches!(sends(true, "lost").await, Err(TransactError::Aborted(_))));
    assert_eq!(queue.holds().await, 0);
    sends(false, "kept").await.unwrap();
    assert_eq!(done(&store).await, [("kept".to_owned(), 1)]);
    assert_eq!(ids(&queue.takes(9).await), ["kept"]);
    sends(false, "lost").await.unwrap();
    assert_eq!(queue.holds().await, 2, "its id was not remembered");
}

#[tokio::test]
async fn a_message_of_a_transaction_wakes_who_waits_without_a_poll() {
    let world = World::new();
    let (store, queue) = world.with(Config::default()).await;
    // Time stands still here: a poll would never see it.
    let waiting = waits(&store, &queue, 60).await;
    let sender = queue.clone();
    let sent = store.transact(move |tx| {
        let queue = sender.clone();
        Box::pin(async move { queue.send_in(tx, vec![message("a")]).await.map(drop) })
    });
    sent.await.unwrap();
    assert_eq!(ids(&waiting.await.unwrap().unwrap()), ["a"]);
}

#[tokio::test]
async fn a_delayed_message_comes_in_time_whatever_the_wall_clock_says() {
    let world = World::new();
    let (store, queue) = world.with(Config::default()).await;
    queue.send(vec![message("later").after(seconds(60)), message("now")]).await.unwrap();
    world.set_wall(3_600);
    assert_eq!(ids(&queue.takes(9).await), ["now"]);
    world.set_wall(-7_200);
    world.pass(seconds(59));
    assert!(queue.takes(9).await.iter().all(|delivery| &*delivery.message.event.id == "now"));
    world.pass(seconds(1));
    assert_eq!(ids(&queue.takes(9).await), ["later"]);
    queue.send(vec![message("much later").after(seconds(60))]).await.unwrap();
    // An hour back: by the wall clock there is more than an hour to wait, but nobody asked for more than a minute.
    world.set_wall(-3_600);
    let (_store, queue) = world.restart(store).await;
    world.pass(seconds(60));
    assert!(ids(&queue.takes(9).await).contains(&"much later"));
}

#[tokio::test]
async fn a_message_whose_time_is_over_is_dropped() {
    let world = World::new();
    let (store, queue) = world.with(Config::default()).await;
    queue.send(vec![message("stale").expiring(seconds(10)), message("held").expiring(seconds(10))]).await.unwrap();
    let (_, held) = (queue.takes(1).await, queue.takes(1).await);
    world.pass(seconds(11));
    queue.ack(&[held[0].lease]).await.unwrap();
    world.pass(seconds(20));
    assert!(queue.takes(9).await.is_empty());
    assert_eq!(queue.holds().await, 0);
    let (_store, queue) = world.restart(store).await;
    assert_eq!(queue.holds().await, 0);
}

#[tokio::test]
async fn a_full_queue_refuses_and_says_how_full_it_is() {
    let world = World::new();
    let (store, queue) = world.with(Config { max_messages: 2, ..Config::default() }).await;
    queue.sends(&["a"]).await;
    let refused = queue.send(vec![message("b"), message("c")]).await.unwrap_err();
    assert!(matches!(refused, QueueError::Full { messages: 1, max: 2, .. }), "{refused:?}");
    queue.sends(&["b"]).await;
    let sender = queue.clone();
    let sent = store.transact(move |tx| {
        let queue = sender.clone();
        Box::pin(async move { queue.send_in(tx, vec![message("c")]).await.map(drop) })
    });
    assert!(matches!(sent.await, Err(TransactError::Aborted(QueueError::Full { messages: 2, .. }))));
}

#[tokio::test]
async fn what_breaks_a_rule_is_refused_with_the_rule() {
    let world = World::new();
    let (_store, queue) = world.with(Config::default()).await;
    let said = |message: NewMessage| {
        let queue = queue.clone();
        async move { queue.send(vec![message]).await.unwrap_err().to_string() }
    };
    assert!(said(message("a").priority(10)).await.contains("`priority` is 0 to 9"));
    assert!(said(message("a").in_group("")).await.contains("`group`"));
    assert!(said(message("a").after(seconds(2)).expiring(seconds(1))).await.contains("longer than `delay`"));
    let mut secret = message("a");
    secret.event.data_subject = Some("customer-17".into());
    assert!(said(secret).await.contains("data of a data subject"));
    assert!(said(message("")).await.contains("message 0"));
    assert!(matches!(queue.send(vec![]).await, Err(QueueError::Invalid { .. })));
}

#[tokio::test]
async fn a_queue_is_declared_changed_listed_and_deleted_with_all_it_holds() {
    let world = World::new();
    let store = world.open().await;
    let queues = Queues::open(&store).await.unwrap();
    let queue = queues.declare(&name("b"), Config::default()).await.unwrap();
    queues.declare(&name("a"), Config::default()).await.unwrap();
    queue.sends(&["x", "y"]).await;
    let changed = Config { max_attempts: 3, paused: true, ..Config::default() };
    queues.declare(&name("b"), changed.clone()).await.unwrap();
    assert!(queue.takes(9).await.is_empty(), "it is paused");
    assert_eq!(queue.holds().await, 2);
    let listed = queues.list(None, 9).unwrap();
    assert_eq!(listed.iter().map(|one| one.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(**listed[1].config.as_ref().unwrap(), changed);
    assert_eq!(queues.list(Some(&name("a")), 9).unwrap().len(), 1);

    queues.delete(&name("b")).await.unwrap();
    assert!(matches!(queues.get(&name("b")), Err(QueueError::NotFound { .. })));
    assert!(matches!(queue.send(vec![message("z")]).await, Err(QueueError::NotFound { .. })));
    let anew = queues.declare(&name("b"), Config::default()).await.unwrap();
    assert_eq!(anew.holds().await, 0);
    assert!(!anew.sends(&["x"]).await[0].repeated, "another queue remembers nothing");
    store.close().await.unwrap();
    let store = world.open().await;
    let queues = Queues::open(&store).await.unwrap();
    assert_eq!(ids(&queues.get(&name("b")).unwrap().takes(9).await), ["x"]);
}

#[tokio::test]
async fn a_transaction_that_sends_while_a_queue_is_deleted_leaves_nothing_behind() {
    let world = World::new();
    let store = world.open().await;
    let queues = Queues::open(&store).await.unwrap();
    let queue = queues.declare(&name("a"), Config::default()).await.unwrap();
    for batch in 0..3 {
        queue.send((0..500).map(|n| message(&format!("m{batch}-{n}"))).collect()).await.unwrap();
    }
    let (deleting, senders) = (queues.clone(), 40);
    let deleted = beside(&store, async move { deleting.delete(&name("a")).await });
    let mut sent = 0;
    for n in 0..senders {
        let queue = queue.clone();
        let done = store.transact(move |tx| {
            let queue = queue.clone();
            Box::pin(async move { queue.send_in(tx, vec![message(&format!("t{n}"))]).await })
        });
        match done.await {
            Ok(_) => sent += 1,
            Err(TransactError::Aborted(QueueError::NotFound { .. })) => {}
            Err(other) => panic!("{other:?}"),
        }
        tokio::task::yield_now().await;
    }
    deleted.await.unwrap().unwrap();
    assert!(sent < senders, "some were refused");
    for table in ["quorate_queue", "quorate_queue_message", "quorate_queue_state", "quorate_queue_known"] {
        let rows = store.room_query(&format!("SELECT count(*) FROM {table}"), vec![]).await.unwrap();
        assert_eq!(rows[0].at(0).as_i64(), Some(0), "{table}, after {sent} were sent");
    }
    let anew = queues.declare(&name("a"), Config::default()).await.unwrap();
    assert_eq!(anew.holds().await, 0);
}

#[tokio::test]
async fn a_queue_whose_deletion_a_crash_cut_short_is_gone_and_makes_room_for_another() {
    let world = World::new();
    let (store, queue) = world.with(Config::default()).await;
    queue.sends(&["a", "b"]).await;
    let id = store.room_query("SELECT id FROM quorate_queue", vec![]).await.unwrap()[0]
        .at(0)
        .as_i64()
        .unwrap()
        .cast_unsigned();
    store.transact(move |tx| Box::pin(crate::message_queue::rows::mark_deleted(tx, id))).await.unwrap();
    drop(queue);
    store.close().await.unwrap();
    let store = world.open().await;
    let queues = Queues::open(&store).await.unwrap();
    assert!(matches!(queues.get(&name("work")), Err(QueueError::NotFound { .. })));
    assert!(queues.list(None, 9).unwrap().is_empty());
    let anew = queues.declare(&name("work"), Config::default()).await.unwrap();
    assert_eq!(anew.holds().await, 0);
    assert!(!anew.sends(&["a"]).await[0].repeated);
    assert_eq!(ids(&anew.takes(9).await), ["a"]);
}

#[tokio::test]
async fn a_queue_is_read_when_it_is_asked_for_and_a_damaged_one_harms_no_other() {
    let world = World::new();
    let (store, queue) = world.with(Config::default()).await;
    let other = Queues::open(&store).await.unwrap().declare(&name("other"), Config::default()).await.unwrap();
    queue.sends(&["a"]).await;
    other.sends(&["b"]).await;
    let damage = "UPDATE quorate_queue_message SET priority = 'high' WHERE id = 'a'";
    let damaged = store.transact(move |tx| Box::pin(async move { tx.room_execute(damage, &[]).await }));
    damaged.await.unwrap();
    drop((queue, other));
    store.close().await.unwrap();
    let store = world.open().await;
    let queues = Queues::open(&store).await.expect("no message is looked at");
    assert_eq!(ids(&queues.get(&name("other")).unwrap().takes(9).await), ["b"]);
    let queue = queues.get(&name("work")).unwrap();
    assert!(queue.takes(9).await.is_empty());
    assert_eq!(queue.describe().await.unwrap().counts.parked, 1);
}

async fn holds_its_limit_after_a_restart(world: World) {
    let (store, queue) = world.with(Config { max_messages: 3, ..Config::default() }).await;
    queue.sends(&["a", "b"]).await;
    let (store, queue) = world.restart(store).await;
    let send = |id: &'static str| {
        let queue = queue.clone();
        store.transact(move |tx| {
            let queue = queue.clone();
            Box::pin(async move { queue.send_in(tx, vec![message(id)]).await })
        })
    };
    send("c").await.unwrap();
    assert_eq!(queue.holds().await, 3);
    let full = send("d").await;
    assert!(matches!(full, Err(TransactError::Aborted(QueueError::Full { messages: 3, .. }))), "{full:?}");
    assert_eq!(ids(&queue.takes(9).await), ["a", "b", "c"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_that_only_transactions_send_to_holds_its_limit_after_a_restart() {
    holds_its_limit_after_a_restart(World::new()).await;
    // With a writer on a thread of its own.
    holds_its_limit_after_a_restart(World::of_this_machine()).await;
}

#[tokio::test]
async fn every_attribute_comes_out_as_it_went_in() {
    let world = World::new();
    let (store, queue) = world.with(Config::default()).await;
    let mut sent = message("a").in_group("g").priority(7);
    sent.event.subject = Some("s".into());
    sent.event.time = Some("2026-11-29T07:00:00+01:00".parse().unwrap());
    sent.event.schema = Some("/schemas/work.due/1".into());
    sent.event.correlation_id = Some("c".into());
    sent.event.causation_id = Some("d".into());
    sent.event.tags = quorate_data::event::Tags::new(["customer:17"]).unwrap();
    sent.event.extensions.insert("tenant".into(), quorate_data::event::Scalar::Text("t-1".into()));
    sent.event.data = Some(vec![0, 159, 146, 150].into());
    sent.event.content_type = Some("application/octet-stream".into());
    queue.send(vec![sent.clone()]).await.unwrap();
    // From memory the first time, from the rows the second.
    assert_eq!(queue.takes(1).await[0].message.event, sent.event);
    let (_store, queue) = world.restart(store).await;
    world.pass(Duration::from_secs(31));
    let again = queue.takes(1).await;
    assert_eq!(again[0].message.event, sent.event);
    assert_eq!((again[0].message.group.as_deref(), again[0].message.priority), (Some("g"), 7));
    assert!(queue.send(vec![sent]).await.unwrap()[0].repeated);
}

#[tokio::test]
async fn messages_that_transactions_settle_make_room_for_others() {
    let world = World::new();
    let (store, queue) = world.with(Config { max_messages: 100, ..Config::default() }).await;
    with_table(&store).await;
    queue.send((0..100).map(|n| message(&format!("m{n}"))).collect()).await.unwrap();
    for delivery in queue.takes(100).await {
        work(&store, &queue, &delivery).await.unwrap();
    }
    let sender = queue.clone();
    let sent = store.transact(move |tx| {
        let queue = sender.clone();
        Box::pin(async move { queue.send_in(tx, vec![message("after")]).await.map(drop) })
    });
    sent.await.unwrap();
    assert_eq!(queue.holds().await, 1);
}

#[tokio::test]
async fn one_transaction_sends_no_more_than_there_is_room_for_and_a_rollback_gives_it_back() {
    let world = World::new();
    let (store, queue) = world.with(Config { max_messages: 3, ..Config::default() }).await;
    let sends = |count: usize| {
        let sender = queue.clone();
        store.transact(move |tx| {
            let queue = sender.clone();
            Box::pin(async move {
                for n in 0..count {
                    queue.send_in(tx, vec![message(&format!("m{n}"))]).await?;
                }
                Ok(())
            })
        })
    };
    for _ in 0..3 {
        let full = sends(4).await;
        assert!(matches!(full, Err(TransactError::Aborted(QueueError::Full { messages: 3, max: 3, .. }))), "{full:?}");
    }
    sends(2).await.unwrap();
    // The same again changes nothing, and takes no room.
    sends(2).await.unwrap();
    sends(3).await.unwrap();
    assert_eq!(queue.holds().await, 3);
}
