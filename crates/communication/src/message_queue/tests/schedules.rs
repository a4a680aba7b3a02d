//! Messages that a queue is sent by the clock on the wall. It begins at 1970-01-02T00:00:00Z.

use std::time::Duration;

use quorate_data::{
    event::{NewEvent, Timestamp},
    store::Store,
};
use quorate_foundations::time::Wall;

use super::world::{World, name, seconds};
use crate::message_queue::{Config, Missed, NewMessage, Queue, QueueError, Queues, Receive, Schedule};

const HOUR: u64 = 3_600;

fn hourly() -> Schedule {
    let event = NewEvent::new("tick", "/test", "tick.due").json(&br#"{"n": 1.50}"#[..]);
    Schedule::new("0 * * * *", NewMessage::of(event).in_group("ticks"))
}

async fn damage(store: &Store, sql: &'static str) {
    store.transact(move |tx| Box::pin(tx.room_execute(sql, &[]))).await.unwrap();
}

/// Up to when schedules have come.
async fn dones(store: &Store) -> Vec<String> {
    let rows = store.room_query("SELECT done_ns FROM quorate_queue_schedule", vec![]).await.unwrap();
    let told = |ns| Timestamp::from(Wall::from_unix_nanos(ns)).as_str().to_owned();
    rows.iter().filter_map(|row| row.at(0).as_i64()).map(told).collect()
}

/// Lets all that a turned clock began come to its end: what is due is sent once the schedules' rows say so.
async fn settled(store: &Store, until: &str) {
    while dones(store).await.iter().any(|done| done.as_str() < until) {
        tokio::task::yield_now().await;
    }
}

/// The moments of the messages that are there; they are done now.
async fn moments(queue: &Queue) -> Vec<String> {
    let mut moments = Vec::new();
    loop {
        let out = queue.receive(Receive::of(100)).await.unwrap();
        if out.is_empty() {
            return moments;
        }
        for delivery in out {
            let event = &delivery.message.event;
            let (id, moment) = event.id.split_once('@').unwrap();
            assert_eq!((id, event.time.as_ref().map(|time| time.as_str())), ("tick", Some(moment)));
            moments.push(moment.to_owned());
            queue.ack(&[delivery.lease]).await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_message_is_sent_at_each_moment_and_wakes_who_waits() {
    let world = World::new();
    let (store, queue) = world.with(Config::default()).await;
    let planned = queue.schedule(&name("hourly"), hourly()).await.unwrap();
    assert_eq!(planned.next.map(|at| at.unix_nanos()), Some((86_400 + 3_600) * 1_000_000_000));
    let waiting = super::world::waits(&store, &queue, 300).await;
    world.pass(seconds(HOUR - 60));
    assert_eq!(queue.holds().await, 0);
    let waiting = {
        assert!(waiting.await.unwrap().unwrap().is_empty(), "it waited for five minutes");
        super::world::waits(&store, &queue, 300).await
    };
    world.pass(seconds(60));
    let out = waiting.await.unwrap().unwrap();
    let message = &out[0].message;
    assert_eq!((&*message.event.id, message.group.as_deref()), ("tick@1970-01-02T01:00:00Z", Some("ticks")));
    assert_eq!(message.event.data.as_deref(), Some(&br#"{"n": 1.50}"#[..]));
    queue.ack(&[out[0].lease]).await.unwrap();
    world.pass(seconds(HOUR));
    settled(&store, "1970-01-02T02:00:00Z").await;
    assert_eq!(moments(&queue).await, ["1970-01-02T02:00:00Z"]);
}

#[tokio::test]
async fn missed_moments_are_made_up_for_as_the_schedule_says_also_after_a_restart() {
    for (missed, sent) in [(Missed::Skip, 0), (Missed::Once, 1), (Missed::All, 5)] {
        let world = World::new();
        let (store, queue) = world.with(Config::default()).await;
        queue.schedule(&name("hourly"), hourly().missed(missed)).await.unwrap();
        drop(queue);
        store.close().await.unwrap();
        world.pass(seconds(5 * HOUR + 1_800));
        let store = world.open().await;
        let queue = Queues::open(&store).await.unwrap().get(&name("work")).unwrap();
        assert_eq!(*queue.scheduled(&name("hourly")).unwrap().schedule.unwrap(), hourly().missed(missed));
        settled(&store, "1970-01-02T05:30:00Z").await;
        let got = moments(&queue).await;
        assert_eq!(got.len(), sent, "{missed:?}: {got:?}");
        assert!(sent == 0 || got.last().is_some_and(|last| last == "1970-01-02T05:00:00Z"));
        world.pass(seconds(1_800));
        settled(&store, "1970-01-02T06:00:00Z").await;
        assert_eq!(moments(&queue).await, ["1970-01-02T06:00:00Z"], "the next one comes in time");
    }
}

#[tokio::test]
async fn a_clock_that_is_set_back_repeats_no_moment_and_one_that_is_set_forward_and_back_leaves_none_out() {
    let world = World::new();
    let (store, queue) = world.with(Config::default()).await;
    queue.schedule(&name("hourly"), hourly()).await.unwrap();
    world.pass(seconds(2 * HOUR));
    settled(&store, "1970-01-02T02:00:00Z").await;
    assert_eq!(moments(&queue).await, ["1970-01-02T02:00:00Z"], "one for both");
    world.set_wall(-5_400);
    // It is noticed within a minute; then two o'clock comes once more.
    world.pass(seconds(60));
    while dones(&store).await != ["1970-01-02T00:31:00Z"] {
        tokio::task::yield_now().await;
    }
    world.pass(seconds(5_400));
    settled(&store, "1970-01-02T02:01:00Z").await;
    assert_eq!(moments(&queue).await, [""; 0], "two o'clock was, and one o'clock is long over");
    // Ten years ahead, and back: what comes then is not taken for over.
    let decade = 3_650 * 24 * 3_600;
    world.set_wall(decade);
    world.pass(seconds(60));
    settled(&store, "1979").await;
    assert_eq!(moments(&queue).await.len(), 1);
    world.set_wall(-decade);
    world.pass(seconds(60));
    while dones(&store).await.iter().any(|done| done.as_str() > "1971") {
        tokio::task::yield_now().await;
    }
    world.pass(seconds(HOUR));
    settled(&store, "1970-01-02T03:00:00Z").await;
    assert_eq!(moments(&queue).await, ["1970-01-02T03:00:00Z"]);
}

#[tokio::test]
async fn a_moment_that_finds_the_queue_full_is_sent_once_there_is_room() {
    let world = World::new();
    let (store, queue) = world.with(Config { max_messages: 1, ..Config::default() }).await;
    queue.schedule(&name("hourly"), hourly()).await.unwrap();
    queue.sends(&["full"]).await;
    world.pass(seconds(HOUR));
    let out = queue.takes(1).await;
    // It is tried again after some seconds, and was not missed yet.
    queue.ack(&[out[0].lease]).await.unwrap();
    let before = queue.holds().await;
    while queue.holds().await == 0 {
        world.pass(Duration::from_millis(100));
        tokio::task::yield_now().await;
    }
    settled(&store, "1970-01-02T01:00:00Z").await;
    assert_eq!((before <= 1, moments(&queue).await), (true, vec!["1970-01-02T01:00:00Z".to_owned()]));
}

#[tokio::test]
async fn a_schedule_whose_last_message_is_not_done_passes_its_moment_over_if_it_has_a_unique_key() {
    let world = World::new();
    let (store, queue) = world.with(Config::default()).await;
    let mut singleton = hourly();
    singleton.message = singleton.message.unique("tick");
    queue.schedule(&name("hourly"), singleton).await.unwrap();
    for hour in 1..4 {
        world.pass(seconds(HOUR));
        settled(&store, &format!("1970-01-02T0{hour}:00:00Z")).await;
    }
    assert_eq!(moments(&queue).await, ["1970-01-02T01:00:00Z"]);
    world.pass(seconds(HOUR));
    settled(&store, "1970-01-02T04:00:00Z").await;
    assert_eq!(moments(&queue).await, ["1970-01-02T04:00:00Z"]);
}

#[tokio::test]
async fn schedules_are_declared_changed_listed_and_deleted_with_their_queue() {
    let world = World::new();
    let (store, queue) = world.with(Config::default()).await;
    queue.schedule(&name("b"), hourly()).await.unwrap();
    let twin = queue.schedule(&name("a"), hourly()).await.unwrap_err();
    assert!(twin.to_string().contains("`b`"), "{twin}");
    let mut other = hourly();
    other.message.event.id = "other".into();
    queue.schedule(&name("a"), other.clone()).await.unwrap();
    other.cron = "30 * * * *".into();
    queue.schedule(&name("a"), other).await.unwrap();
    let listed = queue.schedules(None, 9).unwrap();
    assert_eq!(listed.iter().map(|one| one.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(listed[0].next.map(|at| at.unix_nanos()), Some((86_400 + 1_800) * 1_000_000_000));
    assert_eq!(queue.schedules(Some(&name("a")), 9).unwrap().len(), 1);
    queue.unschedule(&name("a")).await.unwrap();
    assert!(matches!(queue.unschedule(&name("a")).await, Err(QueueError::NoSchedule { .. })));
    assert!(matches!(queue.scheduled(&name("a")), Err(QueueError::NoSchedule { .. })));
    let refused = |schedule: Schedule| {
        let queue = queue.clone();
        async move { queue.schedule(&name("c"), schedule).await.unwrap_err().to_string() }
    };
    assert!(refused(Schedule::new("0 0 30 2 *", hourly().message)).await.contains("never due"));
    assert!(refused(hourly().in_time_zone("Mars/Olympus")).await.contains("`time-zone`"));
    let mut large = hourly();
    large.message.event.data = Some(vec![b'x'; Schedule::MAX_BYTES].into());
    assert!(refused(large).await.contains("bytes"));
    let queues = Queues::open(&store).await.unwrap();
    queues.delete(&name("work")).await.unwrap();
    assert!(matches!(queue.schedule(&name("b"), hourly()).await, Err(QueueError::NotFound { .. })));
    assert!(store.room_query("SELECT name FROM quorate_queue_schedule", vec![]).await.unwrap().is_empty());
    let again = queues.declare(&name("work"), Config::default()).await.unwrap();
    assert!(again.schedules(None, 9).unwrap().is_empty());
}

#[tokio::test]
async fn a_schedule_whose_row_is_damaged_is_listed_as_such_and_in_nobodys_way() {
    let world = World::new();
    let (store, queue) = world.with(Config::default()).await;
    queue.schedule(&name("good"), hourly()).await.unwrap();
    let mut bad = hourly();
    bad.message.event.id = "bad".into();
    queue.schedule(&name("bad"), bad.clone()).await.unwrap();
    damage(&store, "UPDATE quorate_queue_schedule SET spec = '{' WHERE name = 'bad'").await;
    let (store, queue) = world.restart(store).await;
    let listed = queue.schedules(None, 9).unwrap();
    assert_eq!(listed.iter().map(|one| one.schedule.is_ok()).collect::<Vec<_>>(), [false, true]);
    world.pass(seconds(HOUR));
    while queue.holds().await == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(moments(&queue).await, ["1970-01-02T01:00:00Z"]);
    assert!(queue.schedule(&name("bad"), bad).await.unwrap().schedule.is_ok());
    drop(store);
}
