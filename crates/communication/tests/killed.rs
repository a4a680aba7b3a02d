//! A process with producers and workers is killed, again and again: what was acknowledged is there, each message's work is
//! done once, and in order of its group. A schedule sends one message for each of its moments, and leaves none out.
//!
//! The test starts this program again as its child, in which the same test plays the other part.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a test looks at the store from outside: its files, its processes"
)]

#[path = "../../data/tests/sqlite/child.rs"]
mod child;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    time::Duration,
};

use child::{ROUND, STORE, child_of, said, say};
use quorate_communication::message_queue::{
    Backoff, Config, Delivery, Missed, NewMessage, Queue, QueueError, Queues, Receive, Schedule,
};
use quorate_data::{
    event::{NewEvent, Timestamp},
    store::{DynTx, Store, TransactError, sqlite},
};
use quorate_runtime::{Env, random::Random};

const TEST: &str = "a_process_that_is_killed_loses_no_message_and_does_none_twice";
const ROUNDS: u64 = 16;
const PRODUCERS: u64 = 3;
const WORKERS: u64 = 4;
/// What the ids of a schedule's messages begin with.
const TICK: &str = "tick";

async fn open(path: &Path) -> (Store, Queue) {
    let store = sqlite::open(&Env::real(), sqlite::Config::at(path)).await.unwrap();
    let config = Config {
        lease_ttl: Duration::from_millis(100),
        max_attempts: 1_000,
        backoff: Backoff { first: Duration::from_millis(1), max: Duration::from_millis(20) },
        ..Config::default()
    };
    let queue = Queues::open(&store).await.unwrap().declare(&"work".parse().unwrap(), config).await.unwrap();
    let each_second = NewMessage::of(NewEvent::new(TICK, "/test", "work.due"));
    // The same again changes nothing: it goes on where it was.
    queue
        .schedule(&"seconds".parse().unwrap(), Schedule::new("* * * * * *", each_second).missed(Missed::All))
        .await
        .unwrap();
    (store, queue)
}

/// Sends for ever, in a group of its own, and says what was acknowledged. The last producer sends in a transaction.
async fn produce(store: Store, queue: Queue, round: u64, producer: u64) {
    for n in 0.. {
        let id = format!("{producer}-{round}-{n}");
        let message = NewMessage::of(NewEvent::new(id.as_str(), "/test", "work.due")).in_group(format!("g{producer}"));
        if producer == PRODUCERS - 1 {
            let queue = queue.clone();
            let sent = store.transact(move |tx| {
                let (queue, message) = (queue.clone(), message.clone());
                Box::pin(async move { queue.send_in(tx, vec![message]).await })
            });
            sent.await.unwrap();
        } else {
            queue.send(vec![message]).await.unwrap();
        }
        say(&format!("sent {id}"));
    }
}

/// Does a message's work: a row that says so, and the acknowledgement, in one transaction.
async fn work(store: &Store, queue: &Queue, delivery: &Delivery) -> Result<(), TransactError<QueueError>> {
    let (queue, lease, id) = (queue.clone(), delivery.lease, delivery.message.event.id.clone());
    let done = store.transact(move |tx: &mut DynTx| {
        let (queue, id) = (queue.clone(), id.clone());
        Box::pin(async move {
            queue.ack_in(tx, &lease).await?;
            // Whoever had it before may have done it by now: then this transaction rolled back above.
            tx.execute("INSERT INTO done (id) VALUES ($1)", &[id.into()]).await?;
            Ok(())
        })
    });
    done.await
}

/// Takes messages for ever, does their work, and says what was confirmed. Some are given back first, some are held too long.
async fn consume(store: Store, queue: Queue, round: u64, worker: u64) {
    let env = Env::real();
    let mut rng = Random::from_os().stream(&format!("worker {round} {worker}"));
    loop {
        let deliveries = queue.receive(Receive::of(3).waiting(Duration::from_millis(200))).await.unwrap();
        deliveries.iter().for_each(|one| say(&format!("handed {} {}", one.message.event.id, one.attempt)));
        for delivery in deliveries {
            let id = delivery.message.event.id.clone();
            match rng.below(10) {
                0 => drop(queue.nack(&[delivery.lease], None, "not now").await),
                1 => env.sleep(Duration::from_millis(150)).await,
                _ => {}
            }
            match work(&store, &queue, &delivery).await {
                Ok(()) => say(&format!("done {id}")),
                Err(TransactError::Aborted(QueueError::LeaseLost { .. })) => {}
                Err(other) => say(&format!("broken {id} {other:?}")),
            }
        }
    }
}

/// The ids whose work is done, in the order in which it was.
async fn done(store: &Store) -> Vec<String> {
    let rows = store.query("SELECT id FROM done ORDER BY place", vec![]).await.unwrap();
    rows.iter().map(|row| row.at(0).as_str().unwrap().to_owned()).collect()
}

/// The second for which a schedule sent the message of this id.
fn second(id: &str) -> Option<i64> {
    let moment: Timestamp = id.strip_prefix(TICK)?.strip_prefix('@')?.parse().unwrap();
    Some(moment.instant().unix_nanos() / 1_000_000_000)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_is_killed_loses_no_message_and_does_none_twice() {
    if let Some(path) = std::env::var_os(STORE) {
        let round = std::env::var(ROUND).unwrap().parse().unwrap();
        let (store, queue) = open(Path::new(&path)).await;
        say("open");
        let producers = (0..PRODUCERS).map(|n| tokio::spawn(produce(store.clone(), queue.clone(), round, n)));
        let all: Vec<_> = producers
            .chain((0..WORKERS).map(|n| tokio::spawn(consume(store.clone(), queue.clone(), round, n))))
            .collect();
        for one in all {
            one.await.unwrap();
        }
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let (store, _) = open(&path).await;
    let table = "CREATE TABLE done (place INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE)";
    store.transact(|tx| Box::pin(tx.execute(table, &[]))).await.unwrap();
    store.close().await.unwrap();
    drop(store);

    let mut rng = Random::from_os().stream("moments");
    let (mut sent, mut confirmed) = (BTreeSet::new(), BTreeSet::new());
    let mut attempts: BTreeMap<String, Vec<u32>> = BTreeMap::new();
    for round in 0..ROUNDS {
        let mut child = child_of(TEST, &path, round);
        let mut lines = said(&mut child);
        // Some are killed while they open.
        let opening = round % 8 == 7;
        if !opening {
            assert_eq!(lines.next().as_deref(), Some("open"));
        }
        std::thread::sleep(Duration::from_millis(if opening { rng.below(12) } else { rng.below(250) }));
        child.kill().unwrap();
        child.wait().unwrap();
        for line in lines {
            let words: Vec<&str> = line.split(' ').collect();
            match words[..] {
                ["sent", id] => drop(sent.insert(id.to_owned())),
                ["broken", ..] => panic!("{line}"),
                ["done", id] => drop(confirmed.insert(id.to_owned())),
                ["handed", id, attempt] => {
                    // The last line may be cut short.
                    attempts.entry(id.to_owned()).or_default().extend(attempt.parse::<u32>().ok());
                }
                _ => {}
            }
        }
    }
    let (store, queue) = open(&path).await;
    let before: BTreeSet<String> = done(&store).await.into_iter().collect();
    let lost: Vec<_> = confirmed.difference(&before).collect();
    assert!(lost.is_empty(), "work that was confirmed and is not there: {lost:?}");
    queue.unschedule(&"seconds".parse().unwrap()).await.unwrap();
    while queue.describe().await.unwrap().counts.messages > 0 {
        for delivery in queue.receive(Receive::of(100).waiting(Duration::from_millis(200))).await.unwrap() {
            assert!(!before.contains(&*delivery.message.event.id), "what was done came again");
            work(&store, &queue, &delivery).await.unwrap();
        }
    }
    let all = done(&store).await;
    let there: BTreeSet<&String> = all.iter().collect();
    assert_eq!(there.len(), all.len());
    let lost: Vec<_> = sent.iter().filter(|id| !there.contains(id)).collect();
    assert!(lost.is_empty(), "messages that were acknowledged and are not there: {lost:?}");
    let mut last: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
    let ticks: Vec<i64> = there.iter().filter_map(|id| second(id)).collect();
    assert!(ticks.len() > 1 && ticks.windows(2).all(|two| two[0] + 1 == two[1]), "a moment is missing: {ticks:?}");
    for id in all.iter().filter(|id| second(id).is_none()) {
        let numbers: Vec<u64> = id.split('-').map(|number| number.parse().unwrap()).collect();
        let (producer, place) = (numbers[0], (numbers[1], numbers[2]));
        let before = last.insert(producer, place);
        assert!(before < Some(place), "{id} was done behind {before:?}");
    }
    for (id, attempts) in &attempts {
        let different: BTreeSet<&u32> = attempts.iter().collect();
        assert_eq!(different.len(), attempts.len(), "an attempt of {id} was not counted: {attempts:?}");
    }
    let repeated = attempts.values().filter(|attempts| attempts.len() > 1).count();
    eprintln!(
        "{} sent, {} done, {} confirmed, {repeated} handed out more than once",
        sent.len(),
        all.len(),
        confirmed.len()
    );
    assert!(sent.len() > 100 && repeated > 0, "too little happened to prove anything");
    store.close().await.unwrap();
}
