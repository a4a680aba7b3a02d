//! A pool of workers: handlers are called, leases renewed, messages settled by what came of them.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use quorate_data::{event::NewEvent, store::Store};
use serde::Deserialize;
use tokio::sync::{Notify, mpsc};

use super::world::{World, beside, count, done, ids, message, seconds, with_table};
use crate::message_queue::{
    Backoff, Cause, Config, Failed, Job, NewMessage, Queue, QueueError, Receive, WorkerConfig, WorkerCounts, Workers,
};

#[derive(Deserialize)]
struct Work {
    id: String,
}

/// A queue whose messages come again at once, three times.
async fn hasty(world: &World) -> (Store, Queue) {
    let backoff = Backoff { first: std::time::Duration::ZERO, max: std::time::Duration::ZERO };
    world.with(Config { max_attempts: 3, backoff, ..Config::default() }).await
}

/// Lets everybody else go on until `is` so.
async fn until(is: impl AsyncFn() -> bool) {
    for _ in 0..10_000 {
        if is().await {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("it never was so");
}

async fn until_counted(workers: &Workers, is: impl Fn(WorkerCounts) -> bool) {
    until(async || is(workers.counts())).await;
}

/// Does a message's work and acknowledges it in one transaction.
async fn in_a_transaction(store: &Store, job: &Job<Work>) -> Result<(), Failed> {
    let job = job.clone();
    let counted = store.transact(move |tx| {
        let job = job.clone();
        Box::pin(async move {
            count(tx, &job.body().id).await?;
            job.ack_in(tx).await
        })
    });
    counted.await?;
    Ok(())
}

#[tokio::test]
async fn handlers_do_typed_work_and_it_is_acknowledged_with_it() {
    let world = World::new();
    let (store, queue) = hasty(&world).await;
    with_table(&store).await;
    queue.sends(&["a", "b", "c"]).await;
    let of_handler = store.clone();
    let workers = queue.work(WorkerConfig::default(), move |job: Job<Work>| {
        let store = of_handler.clone();
        async move { in_a_transaction(&store, &job).await }
    });
    let workers = workers.unwrap();
    until_counted(&workers, |counts| counts.done == 3).await;
    queue.sends(&["d"]).await;
    until_counted(&workers, |counts| counts.done == 4).await;
    assert_eq!(done(&store).await, ["a", "b", "c", "d"].map(|id| (id.to_owned(), 1)));
    assert_eq!(queue.holds().await, 0);
    assert_eq!(workers.drain(seconds(9)).await, 0);
    queue.sends(&["e"]).await;
    assert_eq!(ids(&queue.takes(9).await), ["e"], "nobody takes it any more");
}

#[tokio::test]
async fn what_fails_comes_again_and_what_nobody_can_read_is_set_aside() {
    let world = World::new();
    let (_store, queue) = hasty(&world).await;
    let unreadable = NewMessage::of(NewEvent::new("unreadable", "/test", "work.due").json(&br#"{"id": 7}"#[..]));
    queue
        .send(vec![message("fails"), message("panics"), message("parks"), message("works"), unreadable])
        .await
        .unwrap();
    let workers = queue.work(WorkerConfig::default(), |job: Job<Work>| async move {
        match job.body().id.as_str() {
            "fails" => Err(QueueError::invalid("the mailbox is full".to_owned()))?,
            "panics" => panic!("at the mailbox"),
            "parks" => return Err(Failed::park("there is no such mailbox")),
            _ => {}
        }
        Ok(())
    });
    let workers = workers.unwrap();
    let all = WorkerCounts { running: 0, done: 1, failed: 6, parked: 2, lost: 0 };
    until_counted(&workers, |counts| counts == all).await;
    let dead = queue.dead_letters(0, 9).await.unwrap().letters;
    let told: Vec<_> = dead
        .iter()
        .map(|letter| {
            let last = letter.failures.last().unwrap();
            (&*letter.message.event.id, letter.attempts, last.cause, last.reason.as_str())
        })
        .collect();
    assert_eq!(
        told[..3],
        [
            ("fails", 3, Cause::Nacked, "the mailbox is full"),
            ("panics", 3, Cause::Nacked, "the handler panicked: at the mailbox"),
            ("parks", 1, Cause::Parked, "there is no such mailbox"),
        ]
    );
    let (id, attempts, cause, reason) = told[3];
    assert_eq!((id, attempts, cause), ("unreadable", 1, Cause::Parked));
    assert!(reason.starts_with("the message cannot be read: invalid type"), "{reason}");
    workers.drain(seconds(9)).await;
}

#[tokio::test]
async fn a_message_is_held_for_as_long_as_its_handler_runs() {
    let world = World::new();
    let (store, queue) = hasty(&world).await;
    queue.sends(&["a"]).await;
    let (begun, goes_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (begins, waits) = (begun.clone(), goes_on.clone());
    let workers = queue.work_on_messages(WorkerConfig::default(), move |job| {
        let (begins, waits) = (begins.clone(), waits.clone());
        async move {
            assert_eq!(job.attempt(), 1);
            begins.notify_one();
            waits.notified().await;
            Ok(())
        }
    });
    let workers = workers.unwrap();
    begun.notified().await;
    let other = queue.clone();
    let waiting = beside(&store, async move { other.receive(Receive::of(1).waiting(seconds(200))).await });
    // A lease is of 30 seconds.
    for _ in 0..15 {
        world.pass(seconds(11));
        for _ in 0..200 {
            tokio::task::yield_now().await;
        }
    }
    goes_on.notify_one();
    until_counted(&workers, |counts| counts.done == 1).await;
    world.pass(seconds(200));
    assert!(waiting.await.unwrap().unwrap().is_empty(), "nobody else was ever handed it");
    assert_eq!(queue.holds().await, 0);
    workers.drain(seconds(9)).await;
}

/// Says when it is dropped.
struct Dropped(Arc<AtomicBool>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[tokio::test]
async fn a_handler_whose_message_is_lost_or_that_takes_too_long_is_stopped() {
    let world = World::new();
    let (_store, queue) = hasty(&world).await;
    let stopped = Arc::new(AtomicBool::new(false));
    let (leases, mut leased) = mpsc::unbounded_channel();
    let stops = stopped.clone();
    let config = WorkerConfig { time_limit: seconds(100), ..WorkerConfig::default() };
    let workers = queue.work_on_messages(config, move |job| {
        let (stops, leases) = (Dropped(stops.clone()), leases.clone());
        async move {
            let _stops = stops;
            leases.send(job.delivery().lease).unwrap();
            std::future::pending().await
        }
    });
    let workers = workers.unwrap();
    queue.sends(&["a"]).await;
    queue.ack(&[leased.recv().await.unwrap()]).await.unwrap();
    world.pass(seconds(11));
    until_counted(&workers, |counts| counts.lost == 1 && counts.running == 0).await;
    assert!(stopped.swap(false, Ordering::Relaxed));

    queue.sends(&["b"]).await;
    leased.recv().await.unwrap();
    for _ in 0..10 {
        world.pass(seconds(11));
        for _ in 0..200 {
            tokio::task::yield_now().await;
        }
    }
    until_counted(&workers, |counts| counts.failed == 1).await;
    assert!(stopped.load(Ordering::Relaxed));
    workers.drain(std::time::Duration::ZERO).await;
}

#[tokio::test]
async fn draining_waits_for_handlers_takes_nothing_and_gives_back_what_is_not_done_in_time() {
    let world = World::new();
    let (store, queue) = hasty(&world).await;
    let (begun, goes_on) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
    let (begins, waits) = (begun.clone(), goes_on.clone());
    let config = WorkerConfig { concurrency: 2, ..WorkerConfig::default() };
    let workers = queue.work(config, move |job: Job<Work>| {
        let (begins, waits) = (begins.clone(), waits.clone());
        async move {
            begins.fetch_add(1, Ordering::Relaxed);
            if job.body().id == "slow" {
                std::future::pending::<()>().await;
            }
            waits.notified().await;
            Ok(())
        }
    });
    let workers = workers.unwrap();
    queue.sends(&["quick", "slow", "never"]).await;
    until(async || begun.load(Ordering::Relaxed) == 2).await;
    let pool = queue.clone();
    let drained = beside(&store, async move { workers.drain(seconds(5)).await });
    until(async || pool.describe().await.unwrap().consumers == 0).await;
    goes_on.notify_one();
    until(async || pool.holds().await == 2).await;
    world.pass(seconds(6));
    assert_eq!(drained.await.unwrap(), 1, "one was stopped");
    let left = queue.takes(9).await;
    let told: Vec<_> = left.iter().map(|one| (&*one.message.event.id, one.attempt)).collect();
    assert_eq!(told, [("slow", 2), ("never", 1)]);
    assert_eq!(begun.load(Ordering::Relaxed), 2, "the third was never begun");
}
