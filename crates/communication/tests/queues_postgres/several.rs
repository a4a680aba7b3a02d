//! Several processes on one queue: each has a store, connections and a memory of its own.

use std::{
    num::NonZeroU32,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::future::{join_all, try_join_all};
use quorate_communication::message_queue::{Config, NewMessage, Queue, QueueError, Queues, Rate, Receive, Selection};
use quorate_data::store::{Store, StoreError, TransactError, Value};
use tokio::sync::oneshot;

use crate::{
    Place, place,
    rules::{LONG, config, done, ids, leases, message, messages, name, take, wait_for, with_table, work},
};

/// A process, and the queue `work` in it.
pub(crate) struct Process {
    pub(crate) store: Store,
    pub(crate) queues: Queues,
    pub(crate) queue: Queue,
}

pub(crate) async fn process(place: &Place, config: Config) -> Process {
    process_of(place.open().await, config).await
}

async fn process_of(store: Store, config: Config) -> Process {
    let queues = Queues::open(&store).await.unwrap();
    let queue = queues.declare(&name("work"), config).await.unwrap();
    Process { store, queues, queue }
}

pub(crate) async fn processes<const N: usize>(place: &Place, config: Config) -> [Process; N] {
    let mut all = Vec::new();
    for _ in 0..N {
        all.push(process(place, config.clone()).await);
    }
    all.try_into().unwrap_or_else(|_| unreachable!("there are as many"))
}

pub(crate) fn short(config: Config) -> Config {
    Config { lease_ttl: Duration::from_millis(300), ..config }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_process_declares_and_deletes_holds_for_all() {
    let place = place();
    let [one, other] = processes(&place, config()).await;
    let declared = join_all((0..8).map(|n| {
        let queues = if n % 2 == 0 { &one.queues } else { &other.queues };
        let name = name(&format!("q-{}", n / 2));
        async move { queues.declare(&name, config()).await }
    }));
    assert!(declared.await.iter().all(Result::is_ok), "four names at two processes at once");
    for process in [&one, &other] {
        process.queues.refresh().await.unwrap();
        let names: Vec<String> =
            process.queues.list(None, 99).unwrap().iter().map(|one| one.name.to_string()).collect();
        assert_eq!(names, ["q-0", "q-1", "q-2", "q-3", "work"]);
    }
    one.queue.send(messages(&["a"])).await.unwrap();
    one.queues.declare(&name("work"), Config { paused: true, ..config() }).await.unwrap();
    assert!(take(&other.queue, 1).await.is_empty(), "it is paused everywhere");
    one.queues.delete(&name("work")).await.unwrap();
    assert!(matches!(other.queue.send(messages(&["b"])).await, Err(QueueError::NotFound { .. })));
    let again = one.queues.declare(&name("other"), config()).await.unwrap();
    again.send(messages(&["c"])).await.unwrap();
    let late = other.queue.receive(Receive::of(1)).await;
    assert!(matches!(late, Err(QueueError::NotFound { .. })), "not that of another queue: {late:?}");
    assert!(matches!(other.queues.delete(&name("work")).await, Err(QueueError::NotFound { .. })));
    assert_eq!(ids(&take(&again, 9).await), ["c"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_at_one_process_is_woken_by_what_another_does() {
    let place = place();
    let [one, other] = processes(&place, config()).await;
    let waits = |queue: &Queue| {
        let (queue, (told, taken)) = (queue.clone(), oneshot::channel());
        one.store.env().tasks().spawn("waits", async move { drop(told.send(wait_for(&queue, 1).await)) });
        taken
    };
    let waiting = waits(&other.queue);
    one.queue.send(messages(&["a"])).await.unwrap();
    let taken = waiting.await.unwrap();
    assert_eq!(ids(&taken), ["a"]);
    let waiting = waits(&one.queue);
    other.queue.nack(&leases(&taken), None, "not now").await.unwrap();
    assert_eq!(ids(&waiting.await.unwrap()), ["a"]);
    one.queues.declare(&name("work"), Config { paused: true, ..config() }).await.unwrap();
    let waiting = waits(&other.queue);
    let queue = one.queue.clone();
    let sent = one.store.transact(move |tx| {
        let queue = queue.clone();
        Box::pin(async move { queue.send_in(tx, messages(&["b"])).await })
    });
    sent.await.unwrap();
    one.queues.declare(&name("work"), config()).await.unwrap();
    assert_eq!(ids(&waiting.await.unwrap()), ["b"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_of_one_process_is_good_and_settled_at_any() {
    let place = place();
    let [one, other] = processes(&place, config()).await;
    with_table(&one.store).await;
    one.queue.send(messages(&["a", "b", "c", "d"])).await.unwrap();
    let taken = take(&one.queue, 9).await;
    assert!(take(&other.queue, 9).await.is_empty());
    other.queue.ack(&leases(&taken[..1])).await.unwrap();
    work(&other.store, &other.queue, &taken[1]).await.unwrap();
    other.queue.park(&leases(&taken[2..3]), "never").await.unwrap();
    other.queue.nack(&leases(&taken[3..]), None, "not now").await.unwrap();
    let lost = one.queue.ack(&leases(&taken)).await;
    assert!(matches!(lost, Err(QueueError::LeaseLost { leases }) if leases.len() == 4));
    let counts = one.queue.describe().await.unwrap().counts;
    assert_eq!((counts.messages, counts.ready, counts.parked), (2, 1, 1));
    assert_eq!(one.queue.replay(&Selection::ALL).await.unwrap(), 1);
    assert_eq!(ids(&take(&other.queue, 9).await), ["c", "d"]);
    assert_eq!(done(&one.store).await, ["b"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_dead_process_held_is_handed_out_by_another_and_its_late_word_is_refused() {
    let place = place();
    let [one, other] = processes(&place, short(config())).await;
    with_table(&one.store).await;
    one.queue.send(vec![message("a").in_group("g"), message("b").in_group("g")]).await.unwrap();
    // It does nothing from now on, as if it were stopped.
    let held = take(&one.queue, 9).await;
    let again = wait_for(&other.queue, 9).await;
    assert_eq!((ids(&again), again[0].attempt), (vec!["a"], 2));
    other.queue.extend(&leases(&again), Some(LONG)).await.unwrap();
    for refused in [
        one.queue.ack(&leases(&held)).await,
        one.queue.extend(&leases(&held), None).await,
        one.queue.nack(&leases(&held), None, "").await,
        one.queue.park(&leases(&held), "").await,
    ] {
        assert!(matches!(refused, Err(QueueError::LeaseLost { .. })), "{refused:?}");
    }
    let refused = work(&one.store, &one.queue, &held[0]).await;
    assert!(matches!(refused, Err(TransactError::Aborted(QueueError::LeaseLost { .. }))), "{refused:?}");
    other.queue.ack(&leases(&again)).await.unwrap();
    assert_eq!(ids(&take(&one.queue, 9).await), ["b"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_is_renewed_at_one_process_holds_at_another() {
    let place = place();
    let [one, other] = processes(&place, short(config())).await;
    one.queue.send(messages(&["a"])).await.unwrap();
    let held = take(&one.queue, 1).await;
    let waiting = other.queue.clone();
    let (told, taken) = oneshot::channel();
    one.store.env().tasks().spawn("waits", async move { drop(told.send(wait_for(&waiting, 1).await)) });
    for _ in 0..30 {
        one.store.env().sleep(Duration::from_millis(50)).await;
        // A machine that stands still for longer than a lease loses it, as it should.
        if one.queue.extend(&leases(&held), None).await.is_err() {
            eprintln!("this machine stood still");
            return;
        }
    }
    one.queue.extend(&leases(&held), Some(LONG)).await.unwrap();
    one.queue.ack(&leases(&held)).await.unwrap();
    one.queue.send(messages(&["b"])).await.unwrap();
    assert_eq!(ids(&taken.await.unwrap()), ["b"], "it never got the other one");
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_and_unique_keys_are_one_for_all_processes_also_at_once() {
    let place = place();
    let all: [Process; 3] = processes(&place, config()).await;
    for round in 0..5 {
        let batch = || (0..20).map(|n| message(&format!("{round}-{n}"))).collect();
        let sent = try_join_all(all.iter().map(|process| process.queue.send(batch()))).await.unwrap();
        let new = sent.iter().flatten().filter(|one| !one.repeated).count();
        assert_eq!(new, 20, "each was new for one of them");
        let sent = all.iter().enumerate().map(|(n, process)| {
            process.queue.send(vec![message(&format!("u-{round}-{n}")).unique(format!("k-{round}"))])
        });
        let sent = try_join_all(sent).await.unwrap();
        assert_eq!(sent.iter().flatten().filter(|one| one.held_by.is_none()).count(), 1, "{sent:?}");
    }
    assert_eq!(all[2].queue.describe().await.unwrap().counts.messages, 5 * 21);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_be_in_hands_and_how_fast_is_one_limit_for_all_processes() {
    let place = place();
    let limits = Config { max_in_flight: NonZeroU32::new(3), ..config() };
    let [one, other] = processes(&place, limits.clone()).await;
    one.queue.send((0..30).map(|n| message(&n.to_string())).collect()).await.unwrap();
    let taken = take(&one.queue, 2).await;
    assert_eq!(take(&other.queue, 9).await.len(), 1);
    assert!(take(&one.queue, 9).await.is_empty());
    other.queue.ack(&leases(&taken)).await.unwrap();
    assert_eq!(take(&one.queue, 9).await.len(), 2);
    let rate = Some(Rate { count: 4.try_into().unwrap(), per: Duration::from_secs(3_600) });
    one.queues.declare(&name("work"), Config { rate, max_in_flight: None, ..limits }).await.unwrap();
    assert_eq!(take(&one.queue, 3).await.len(), 3);
    assert_eq!(take(&other.queue, 9).await.len(), 1);
    assert!(take(&one.queue, 9).await.is_empty());
    let late = process(&place, Config { rate, ..config() }).await;
    assert!(take(&late.queue, 9).await.is_empty(), "who comes later goes by it as well");
}

/// A transaction that sends `message` and commits when it is told to. It has drawn what it needs once this returns.
async fn begun(process: &Process, message: NewMessage) -> (oneshot::Sender<()>, oneshot::Receiver<bool>) {
    let ((begun, has_begun), (commit, may_commit)) = (oneshot::channel(), oneshot::channel::<()>());
    let (begun, may_commit) = (Arc::new(Mutex::new(Some(begun))), Arc::new(tokio::sync::Mutex::new(may_commit)));
    let (queue, store, (told, sent)) = (process.queue.clone(), process.store.clone(), oneshot::channel());
    process.store.env().tasks().spawn("sends", async move {
        let sending = store.transact(move |tx| {
            let (queue, message) = (queue.clone(), message.clone());
            let (begun, may_commit) = (begun.clone(), may_commit.clone());
            Box::pin(async move {
                let sent = queue.send_in(tx, vec![message]).await;
                begun.lock().unwrap().take().map(|begun| begun.send(()));
                let mut may_commit = may_commit.lock().await;
                // Where it is run again, it was told to before.
                if !may_commit.is_terminated() {
                    let _dropped = (&mut *may_commit).await;
                }
                sent
            })
        });
        let _gone = told.send(sending.await.is_ok());
    });
    has_begun.await.unwrap();
    (commit, sent)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_committed_late_is_not_out_beside_another_of_its_group() {
    let place = place();
    let [one, other] = processes(&place, config()).await;
    let (commit, sent) = begun(&one, message("early").in_group("g")).await;
    other.queue.send(vec![message("late").in_group("g")]).await.unwrap();
    let taken = take(&other.queue, 9).await;
    assert_eq!(ids(&taken), ["late"]);
    commit.send(()).unwrap();
    assert!(sent.await.unwrap());
    for queue in [&one.queue, &other.queue] {
        assert!(take(queue, 9).await.is_empty(), "one of its group is out");
    }
    one.queue.ack(&leases(&taken)).await.unwrap();
    assert_eq!(ids(&take(&one.queue, 9).await), ["early"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_committed_behind_a_later_one_wakes_who_waits() {
    let place = place();
    let [one, other] = processes(&place, config()).await;
    let (commit, sent) = begun(&one, message("early")).await;
    // It rests, so that nobody takes a turn for it.
    other.queue.send(vec![message("late").after(Duration::from_secs(3_600))]).await.unwrap();
    let waiting = other.queue.clone();
    let (told, taken) = oneshot::channel();
    one.store.env().tasks().spawn("waits", async move { drop(told.send(wait_for(&waiting, 1).await)) });
    while other.queue.describe().await.unwrap().consumers == 0 {
        one.store.env().sleep(Duration::from_millis(10)).await;
    }
    commit.send(()).unwrap();
    assert!(sent.await.unwrap());
    assert_eq!(ids(&taken.await.unwrap()), ["early"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_finds_another_inside_a_transaction_for_too_long_may_try_again() {
    let place = place();
    let one = process(&place, config()).await;
    let (unit_time, patience) = (Duration::from_millis(500), Duration::from_secs(1));
    let other = process_of(place.open_with(unit_time, patience).await, config()).await;
    let (commit, sent) = begun(&one, message("a")).await;
    let refused = other.queue.send(messages(&["a"])).await.unwrap_err();
    assert!(matches!(refused, QueueError::Store(StoreError::Busy)), "{refused:?}");
    let queue = other.queue.clone();
    let in_transaction = other.store.transact(move |tx| {
        let queue = queue.clone();
        Box::pin(async move { queue.send_in(tx, messages(&["a"])).await })
    });
    let refused = in_transaction.await.unwrap_err();
    assert!(matches!(refused, TransactError::Store(StoreError::Busy)), "{refused:?}");
    commit.send(()).unwrap();
    assert!(sent.await.unwrap());
    assert!(other.queue.send(messages(&["a"])).await.unwrap()[0].repeated);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_handed_out_whose_time_to_live_is_over_however_much_that_is() {
    let place = place();
    let [one, other] = processes(&place, config()).await;
    let ttl = Duration::from_millis(50);
    let outdated = (0..200).map(|n| message(&n.to_string()).expiring(ttl)).collect();
    one.queue.send(outdated).await.unwrap();
    one.queue.send(messages(&["good"])).await.unwrap();
    one.store.env().sleep(2 * ttl).await;
    // It says at once what there is, but not before time is done with the others.
    assert_eq!(ids(&take(&one.queue, 128).await), ["good"]);
    assert!(take(&other.queue, 128).await.is_empty());
    assert_eq!(other.queue.describe().await.unwrap().counts.messages, 1);
}

/// Does to a table of the queues what another process, or damage, might.
pub(crate) async fn change(process: &Process, sql: &'static str, param: Value) -> u64 {
    let changed = process.store.transact(move |tx| {
        let param = param.clone();
        Box::pin(async move { tx.room_execute(sql, &[param]).await })
    });
    changed.await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_declared_is_declared_though_the_queue_cannot_be_looked_at() {
    let place = place();
    let one = process(&place, config()).await;
    one.queue.send(messages(&["a"])).await.unwrap();
    let sql = "INSERT INTO quorate_queue_turn_news (queue, seqs) SELECT id, $1 FROM quorate_queue";
    assert_eq!(change(&one, sql, Value::from(vec![7_u8])).await, 1);
    assert!(one.queue.describe().await.is_err(), "nobody can tell what the queue holds");
    let paused = Config { paused: true, ..config() };
    one.queues.declare(&name("work"), paused.clone()).await.unwrap();
    assert!(one.queue.config().paused);
    let late = process(&place, paused).await;
    assert!(late.queue.config().paused);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_that_was_replayed_meanwhile_is_not_given_up() {
    let place = place();
    let one = process(&place, config()).await;
    one.queue.send(vec![message("a").unique("k"), message("b")]).await.unwrap();
    let taken = take(&one.queue, 2).await;
    one.queue.park(&leases(&taken), "broken").await.unwrap();
    // As another process does that has not told it yet.
    let sql = "UPDATE quorate_queue_state SET phase = 0 WHERE seq IN
        (SELECT seq FROM quorate_queue_message WHERE id = $1)";
    assert_eq!(change(&one, sql, "a".into()).await, 1);
    let refused = one.queue.discard(&Selection::ALL).await;
    assert!(matches!(refused, Err(QueueError::Store(StoreError::Busy))), "{refused:?}");
    let late = process(&place, config()).await;
    assert_eq!(ids(&take(&late.queue, 9).await), ["a"]);
    assert_eq!(late.queue.discard(&Selection::ALL).await.unwrap(), 1);
}
