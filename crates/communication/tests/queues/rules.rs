//! What holds of a queue over any store. Each test is a process with a store of its own.

use std::{
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use quorate_communication::message_queue::{
    Backoff, Config, Consume, Delivery, Failed, Job, Lease, Missed, NewMessage, Queue, QueueError, Queues, Rate,
    Receive, Schedule, Selection, Sent, WorkerConfig,
};
use quorate_data::{
    event::NewEvent,
    store::{Store, TransactError, Value},
};
use quorate_foundations::name::Name;

use crate::{Place, place};

/// Longer than anything takes here, also on a slow machine.
pub(crate) const LONG: Duration = Duration::from_secs(60);

pub(crate) fn name(text: &str) -> Name {
    text.parse().unwrap()
}

/// A message of this id.
pub(crate) fn message(id: &str) -> NewMessage {
    NewMessage::of(NewEvent::new(id, "/test", "work.due").json(format!(r#"{{"id":"{id}"}}"#)))
}

pub(crate) fn messages(ids: &[&str]) -> Vec<NewMessage> {
    ids.iter().map(|id| message(id)).collect()
}

/// The ids of deliveries.
pub(crate) fn ids(deliveries: &[Delivery]) -> Vec<&str> {
    deliveries.iter().map(|delivery| &*delivery.message.event.id).collect()
}

pub(crate) fn leases(deliveries: &[Delivery]) -> Vec<Lease> {
    deliveries.iter().map(|delivery| delivery.lease).collect()
}

/// At most `max` messages, at once.
pub(crate) async fn take(queue: &Queue, max: usize) -> Vec<Delivery> {
    queue.receive(Receive::of(max)).await.unwrap()
}

/// At most `max` messages, at least one, however long that takes.
pub(crate) async fn wait_for(queue: &Queue, max: usize) -> Vec<Delivery> {
    queue.receive(Receive::of(max).waiting(LONG)).await.unwrap()
}

/// A configuration with leases too long to run out in a test, and no rest after failures.
pub(crate) fn config() -> Config {
    let backoff = Backoff { first: Duration::ZERO, max: Duration::ZERO };
    Config { lease_ttl: Duration::from_secs(600), backoff, ..Config::default() }
}

async fn with(place: &Place, config: Config) -> (Store, Queue) {
    let store = place.open().await;
    let queue = Queues::open(&store).await.unwrap().declare(&name("work"), config).await.unwrap();
    (store, queue)
}

/// Counts a message in the application's table, and settles it, in one transaction.
pub(crate) async fn work(store: &Store, queue: &Queue, delivery: &Delivery) -> Result<(), TransactError<QueueError>> {
    let (queue, lease, id) = (queue.clone(), delivery.lease, delivery.message.event.id.clone());
    let unit = store.transact(move |tx| {
        let (queue, id) = (queue.clone(), id.clone());
        Box::pin(async move {
            queue.ack_in(tx, &lease).await?;
            // Whoever had it before may have done it by now: then this transaction rolled back above.
            tx.execute("INSERT INTO done (id) VALUES ($1)", &[Value::from(id)]).await?;
            Ok(())
        })
    });
    unit.await
}

pub(crate) async fn with_table(store: &Store) {
    let made = store.transact(|tx| {
        Box::pin(async move { tx.execute("CREATE TABLE IF NOT EXISTS done (id TEXT NOT NULL)", &[]).await })
    });
    made.await.unwrap();
}

/// The ids in the application's table.
pub(crate) async fn done(store: &Store) -> Vec<String> {
    let rows = store.query("SELECT id FROM done ORDER BY id", vec![]).await.unwrap();
    rows.iter().map(|row| row.at(0).as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_handed_out_once_settled_once_and_gone() {
    let place = place();
    let (store, queue) = with(&place, config()).await;
    let mut large = message("b");
    large.event = large.event.json(format!("\"{}\"", "7".repeat(100_000)));
    large.event.subject = Some("x".into());
    queue.send(vec![message("a").priority(9), large.clone()]).await.unwrap();
    let taken = take(&queue, 9).await;
    assert_eq!((ids(&taken), taken[0].attempt, taken[0].ttl), (vec!["a", "b"], 1, config().lease_ttl));
    assert_eq!(taken[1].message.event, large.event);
    assert!(take(&queue, 9).await.is_empty());
    assert_eq!(queue.describe().await.unwrap().counts.in_flight, 2);
    queue.ack(&leases(&taken)).await.unwrap();
    let again = queue.ack(&leases(&taken[..1])).await;
    assert!(matches!(again, Err(QueueError::LeaseLost { leases }) if leases == [taken[0].lease]));
    assert_eq!(queue.describe().await.unwrap().counts.messages, 0);
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_is_sent_once_and_never_with_other_content() {
    let place = place();
    let (store, queue) = with(&place, config()).await;
    let repeated = |sent: &[Sent]| sent.iter().map(|one| one.repeated).collect::<Vec<_>>();
    assert_eq!(repeated(&queue.send(messages(&["a", "b"])).await.unwrap()), [false, false]);
    assert_eq!(repeated(&queue.send(messages(&["b", "c", "c"])).await.unwrap()), [true, false, true]);
    let taken = take(&queue, 9).await;
    assert_eq!(ids(&taken), ["a", "b", "c"]);
    queue.ack(&leases(&taken)).await.unwrap();
    assert_eq!(repeated(&queue.send(messages(&["a"])).await.unwrap()), [true], "it is remembered when it is done");
    let other = queue.send(vec![message("d"), message("a").priority(0)]).await;
    assert!(matches!(other, Err(QueueError::IdReused { index: 1, .. })), "{other:?}");
    assert!(take(&queue, 9).await.is_empty(), "nothing of that was sent");
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_goes_in_order_one_at_a_time_and_others_by_priority() {
    let place = place();
    let (store, queue) = with(&place, config()).await;
    let group = |id: &str| message(id).in_group("g");
    queue.send(vec![group("a"), group("b").priority(9), message("x").priority(1), message("y")]).await.unwrap();
    let first = take(&queue, 9).await;
    assert_eq!(ids(&first), ["a", "y", "x"]);
    queue.nack(&leases(&first[..1]), None, "not now").await.unwrap();
    let again = take(&queue, 9).await;
    assert_eq!((ids(&again), again[0].attempt), (vec!["a"], 2), "what failed stands in the way of its group");
    queue.park(&leases(&again), "never").await.unwrap();
    assert!(take(&queue, 9).await.is_empty(), "a dead letter as well");
    assert_eq!(queue.discard(&Selection::one("a")).await.unwrap(), 1);
    assert_eq!(ids(&take(&queue, 9).await), ["b"]);
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_ran_out_is_good_until_somebody_else_has_the_message() {
    let place = place();
    let (store, queue) = with(&place, Config { lease_ttl: Duration::from_millis(100), ..config() }).await;
    queue.send(messages(&["a", "b"])).await.unwrap();
    let [late, lost]: [Delivery; 2] = take(&queue, 2).await.try_into().unwrap();
    queue.extend(&[late.lease], Some(LONG)).await.unwrap();
    let again = wait_for(&queue, 9).await;
    assert_eq!((ids(&again), again[0].attempt), (vec!["b"], 2));
    assert!(again[0].lease.fence() > lost.lease.fence());
    let mixed = queue.ack(&[late.lease, lost.lease]).await;
    assert!(matches!(mixed, Err(QueueError::LeaseLost { leases }) if leases == [lost.lease]));
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_had_its_attempts_is_a_dead_letter_that_can_be_replayed_edited_and_discarded() {
    let place = place();
    let (store, queue) = with(&place, Config { max_attempts: 2, ..config() }).await;
    queue.send(messages(&["a", "b", "c"])).await.unwrap();
    for _ in 0..2 {
        let taken = take(&queue, 9).await;
        assert_eq!(ids(&taken), ["a", "b", "c"]);
        queue.nack(&leases(&taken), None, "no\0 way").await.unwrap();
    }
    let page = queue.dead_letters(0, 2).await.unwrap();
    assert_eq!((page.letters.len(), page.next.is_some()), (2, true));
    let failures: Vec<_> = page.letters[0].failures.iter().map(|one| (one.attempt, &*one.reason)).collect();
    assert_eq!(failures, [(1, "no\0 way"), (2, "no\0 way")]);
    assert_eq!(queue.dead_letters(page.next.unwrap(), 9).await.unwrap().letters.len(), 1);
    let edited = NewEvent::new("b", "/test", "work.mended").json(&b"1"[..]);
    queue.replay_edited(edited.clone()).await.unwrap();
    assert_eq!(queue.replay(&Selection::one("a")).await.unwrap(), 1);
    let taken = take(&queue, 9).await;
    assert_eq!((ids(&taken), taken[0].attempt, &taken[1].message.event), (vec!["a", "b"], 1, &edited));
    assert_eq!(queue.discard(&Selection::ALL).await.unwrap(), 1);
    let counts = queue.describe().await.unwrap().counts;
    assert_eq!((counts.messages, counts.in_flight, counts.parked), (2, 2, 0));
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn work_and_acknowledgement_commit_together_and_of_two_holders_one_has_done_it() {
    let place = place();
    let (store, queue) = with(&place, Config { lease_ttl: Duration::from_millis(100), ..config() }).await;
    with_table(&store).await;
    queue.send(messages(&["a"])).await.unwrap();
    let first = take(&queue, 1).await.remove(0);
    let second = wait_for(&queue, 1).await.remove(0);
    queue.extend(&[second.lease], Some(LONG)).await.unwrap();
    let lost = work(&store, &queue, &first).await;
    assert!(matches!(lost, Err(TransactError::Aborted(QueueError::LeaseLost { .. }))), "{lost:?}");
    assert!(done(&store).await.is_empty(), "the work went with it");
    work(&store, &queue, &second).await.unwrap();
    assert_eq!(done(&store).await, ["a"]);
    assert!(matches!(queue.nack(&[second.lease], None, "").await, Err(QueueError::LeaseLost { .. })));
    assert_eq!(queue.describe().await.unwrap().counts.messages, 0);
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_a_transaction_are_there_if_it_commits_and_wake_who_waits() {
    let place = place();
    let (store, queue) = with(&place, config()).await;
    let send = |id: &'static str, commits: bool| {
        let queue = queue.clone();
        store.transact(move |tx| {
            let queue = queue.clone();
            Box::pin(async move {
                let sent = queue.send_in(tx, vec![message(id)]).await?;
                if commits { Ok(sent) } else { Err(QueueError::NoSchedule { queue: name("x"), name: name("x") }) }
            })
        })
    };
    assert!(send("a", false).await.is_err());
    assert!(take(&queue, 9).await.is_empty());
    let waiter = queue.clone();
    let (told, taken) = tokio::sync::oneshot::channel();
    store.env().tasks().spawn("waiter", async move { drop(told.send(wait_for(&waiter, 9).await)) });
    assert!(!send("b", true).await.unwrap()[0].repeated);
    assert_eq!(ids(&taken.await.unwrap()), ["b"]);
    assert!(send("b", true).await.unwrap()[0].repeated);
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_unique_key_one_message_waits_or_is_worked_on() {
    let place = place();
    let (store, queue) = with(&place, config()).await;
    let held = |sent: Vec<Sent>| sent.into_iter().map(|one| one.held_by.map(|id| id.to_string())).collect::<Vec<_>>();
    let unique = |id: &str| message(id).unique("k");
    let by_a = Some("a".to_owned());
    assert_eq!(
        held(queue.send(vec![unique("a"), unique("b"), message("c")]).await.unwrap()),
        [None, by_a.clone(), None]
    );
    let taken = take(&queue, 1).await;
    assert_eq!(held(queue.send(vec![unique("b")]).await.unwrap()), [by_a]);
    queue.park(&leases(&taken), "never").await.unwrap();
    assert_eq!(held(queue.send(vec![unique("b")]).await.unwrap()), [None], "a dead letter does not hold it");
    assert_eq!(queue.replay(&Selection::ALL).await.unwrap(), 0, "another has its key");
    let taken = take(&queue, 9).await;
    assert_eq!(ids(&taken), ["c", "b"]);
    queue.ack(&leases(&taken)).await.unwrap();
    assert_eq!(queue.replay(&Selection::ALL).await.unwrap(), 1);
    assert_eq!(ids(&take(&queue, 9).await), ["a"]);
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_outdated_is_dropped_and_what_is_delayed_comes_later() {
    let place = place();
    let (store, queue) = with(&place, config()).await;
    let short = Duration::from_millis(100);
    queue.send(vec![message("a").expiring(short), message("b").after(short)]).await.unwrap();
    store.env().sleep(short).await;
    assert_eq!(ids(&wait_for(&queue, 1).await), ["b"]);
    let counts = queue.describe().await.unwrap().counts;
    assert_eq!((counts.messages, counts.in_flight), (1, 1));
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_holds_its_limits() {
    let place = place();
    let limits = Config { max_messages: 5, max_in_flight: NonZeroU32::new(2), ..config() };
    let (store, queue) = with(&place, limits.clone()).await;
    queue.send(messages(&["a", "b", "c", "d", "e"])).await.unwrap();
    let full = queue.send(messages(&["f"])).await;
    assert!(matches!(full, Err(QueueError::Full { messages: 5, max: 5, .. })), "{full:?}");
    let taken = take(&queue, 9).await;
    assert_eq!(ids(&taken), ["a", "b"]);
    assert!(take(&queue, 9).await.is_empty());
    queue.ack(&leases(&taken)).await.unwrap();
    let queues = Queues::open(&store).await.unwrap();
    queues.declare(&name("work"), Config { paused: true, ..limits.clone() }).await.unwrap();
    assert!(take(&queue, 9).await.is_empty());
    let rate = Some(Rate { count: 2.try_into().unwrap(), per: Duration::from_secs(3_600) });
    queues.declare(&name("work"), Config { rate, max_in_flight: None, ..limits }).await.unwrap();
    assert_eq!(ids(&take(&queue, 9).await), ["c", "d"]);
    assert!(take(&queue, 9).await.is_empty());
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_queue_is_gone_with_its_messages_and_its_name_is_free() {
    let place = place();
    let (store, queue) = with(&place, config()).await;
    let queues = Queues::open(&store).await.unwrap();
    queue.send(messages(&["a", "b"])).await.unwrap();
    let lease = take(&queue, 1).await[0].lease;
    queues.delete(&name("work")).await.unwrap();
    assert!(matches!(queues.delete(&name("work")).await, Err(QueueError::NotFound { .. })));
    assert!(matches!(queue.send(messages(&["c"])).await, Err(QueueError::NotFound { .. })));
    let again = queues.declare(&name("work"), config()).await.unwrap();
    assert!(matches!(again.ack(&[lease]).await, Err(QueueError::LeaseLost { .. })));
    assert!(!again.send(messages(&["a"])).await.unwrap()[0].repeated, "ids are forgotten as well");
    assert_eq!(ids(&take(&again, 9).await), ["a"]);
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_is_handed_no_more_than_its_window() {
    let place = place();
    let (store, queue) = with(&place, config()).await;
    queue.send(messages(&["a", "b", "c"])).await.unwrap();
    let mut consumer = queue.consume(Consume { window: 2, ttl: None }).unwrap();
    let held = consumer.next().await.unwrap();
    assert_eq!((ids(&held), consumer.held()), (vec!["a", "b"], 2));
    queue.ack(&leases(&held[..1])).await.unwrap();
    assert_eq!(ids(&consumer.next().await.unwrap()), ["c"]);
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_of_workers_does_each_message_once_and_again_what_failed() {
    let place = place();
    let (store, queue) = with(&place, config()).await;
    let all: Vec<String> = (0..40).map(|n| n.to_string()).collect();
    queue.send(all.iter().map(|id| message(id)).collect()).await.unwrap();
    let done = Arc::new(AtomicUsize::new(0));
    let counting = done.clone();
    let workers = queue.work(WorkerConfig::default(), move |job: Job<serde_json::Value>| {
        let done = counting.clone();
        async move {
            if job.attempt() == 1 && job.body()["id"] == "7" {
                return Err(Failed::again("not now"));
            }
            done.fetch_add(1, Ordering::Relaxed);
            Ok(())
        }
    });
    let workers = workers.unwrap();
    while queue.describe().await.unwrap().counts.messages > 0 {
        store.env().sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(done.load(Ordering::Relaxed), all.len());
    assert_eq!((workers.counts().failed, workers.drain(LONG).await), (1, 0));
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_sends_each_moment_once_and_goes_with_its_queue() {
    let place = place();
    let (store, queue) = with(&place, config()).await;
    let queues = Queues::open(&store).await.unwrap();
    let tick = Schedule::new("* * * * * *", message("tick")).missed(Missed::All);
    assert!(queue.schedule(&name("seconds"), tick.clone()).await.unwrap().next.is_some());
    let mut seen = Vec::new();
    while seen.len() < 3 {
        let taken = wait_for(&queue, 9).await;
        seen.extend(ids(&taken).into_iter().map(str::to_owned));
        queue.ack(&leases(&taken)).await.unwrap();
    }
    let mut sorted = seen.clone();
    sorted.sort();
    sorted.dedup();
    assert_eq!(seen, sorted, "each once, in order");
    let twin = queue.schedule(&name("twin"), tick).await;
    assert!(matches!(twin, Err(QueueError::Invalid { .. })), "{twin:?}");
    queue.unschedule(&name("seconds")).await.unwrap();
    assert!(matches!(queue.scheduled(&name("seconds")), Err(QueueError::NoSchedule { .. })));
    queues.delete(&name("work")).await.unwrap();
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_is_there_for_the_next_process() {
    let place = place();
    let (store, queue) = with(&place, config()).await;
    queue.send(messages(&["a", "b", "c"])).await.unwrap();
    let taken = take(&queue, 2).await;
    queue.ack(&leases(&taken[..1])).await.unwrap();
    store.close().await.unwrap();
    drop((queue, store));
    let store = place.open().await;
    let queue = Queues::open(&store).await.unwrap().get(&name("work")).unwrap();
    let counts = queue.describe().await.unwrap().counts;
    assert_eq!((counts.messages, counts.in_flight, counts.ready), (2, 1, 1));
    assert!(queue.send(messages(&["a"])).await.unwrap()[0].repeated);
    queue.ack(&leases(&taken[1..])).await.unwrap();
    assert_eq!(ids(&take(&queue, 9).await), ["c"]);
    store.close().await.unwrap();
}
