//! Two processes with producers and workers share a queue; one after the other is stopped for longer than its leases, now and then
//! for longer than a transaction of the other waits, or killed:
//! what was acknowledged is there, each message's work is done once, and in order of its group. A schedule that both have sends
//! one message for each of its moments.
//!
//! The test starts this program again as its children, in which the same test plays the other part.
#![expect(clippy::disallowed_methods, reason = "processes are ended as an operator, or a machine, would")]

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    process::{Child, Command},
    time::Duration,
};

use futures_util::future::join_all;
use quorate_communication::message_queue::{
    Backoff, Config, Missed, NewMessage, Queue, QueueError, Queues, Receive, Schedule,
};
use quorate_data::{
    event::{NewEvent, Timestamp},
    store::{Retry, Store, TransactError},
};
use quorate_runtime::{Env, random::Random};

use crate::{
    Place,
    child::{ROUND, STORE, child_of, said, say},
    place,
    rules::{name, work},
};

const TEST: &str = "killed::processes_that_are_killed_and_stopped_lose_no_message_and_do_none_twice";
const ROUNDS: u64 = 6;
/// Of each process.
const PRODUCERS: u64 = 2;
const WORKERS: u64 = 2;
/// What a transaction of theirs takes at most.
const UNIT_TIME: Duration = Duration::from_secs(1);
/// What the ids of a schedule's messages begin with.
const TICK: &str = "tick";

async fn open(store: Store) -> (Store, Queue) {
    let config = Config {
        lease_ttl: Duration::from_millis(200),
        max_attempts: 1_000,
        backoff: Backoff { first: Duration::from_millis(1), max: Duration::from_millis(20) },
        ..Config::default()
    };
    let queue = Queues::open(&store).await.unwrap().declare(&name("work"), config).await.unwrap();
    let each_second = NewMessage::of(NewEvent::new(TICK, "/test", "work.due"));
    // The same again changes nothing: it goes on where it was.
    let each_second = Schedule::new("* * * * * *", each_second).missed(Missed::All);
    queue.schedule(&name("seconds"), each_second).await.unwrap();
    (store, queue)
}

/// Whether what failed so may be repeated, and then says what became of it.
fn may_be_repeated(failed: &TransactError<QueueError>) -> bool {
    match failed {
        TransactError::TooLong { .. } => true,
        TransactError::Aborted(own) => own.retry() != Retry::Never,
        TransactError::Store(cause) => cause.retry() != Retry::Never,
        _ => false,
    }
}

/// Sends for ever, in a group of its own, and says what was acknowledged. The last producer sends in a transaction.
async fn produce(store: Store, queue: Queue, (which, round): (u64, u64), producer: u64) {
    let group = which * PRODUCERS + producer;
    for n in 0.. {
        let id = format!("{group}-{round}-{n}");
        let message = NewMessage::of(NewEvent::new(id.as_str(), "/test", "work.due")).in_group(format!("g{group}"));
        loop {
            let (queue, message) = (queue.clone(), message.clone());
            let sent = if producer == PRODUCERS - 1 {
                let sent = store.transact(move |tx| {
                    let (queue, message) = (queue.clone(), message.clone());
                    Box::pin(async move { queue.send_in(tx, vec![message]).await })
                });
                sent.await
            } else {
                queue.send(vec![message]).await.map_err(TransactError::Aborted)
            };
            match sent {
                Ok(_) => break,
                Err(failed) if may_be_repeated(&failed) => {}
                Err(other) => return say(&format!("broken {id} {other:?}")),
            }
        }
        say(&format!("sent {id}"));
    }
}

/// Takes messages for ever, does their work, and says what was confirmed. Some are given back first, some are held too long.
async fn consume(store: Store, queue: Queue, (which, round): (u64, u64), worker: u64) {
    let mut rng = Random::from_os().stream(&format!("worker {which} {round} {worker}"));
    loop {
        let deliveries = match queue.receive(Receive::of(3).waiting(Duration::from_millis(200))).await {
            Ok(deliveries) => deliveries,
            Err(failed) if failed.retry() != Retry::Never => continue,
            Err(other) => return say(&format!("broken receive {other:?}")),
        };
        deliveries.iter().for_each(|one| say(&format!("handed {} {}", one.message.event.id, one.attempt)));
        for delivery in deliveries {
            let id = delivery.message.event.id.clone();
            match rng.below(10) {
                0 => drop(queue.nack(&[delivery.lease], None, "not now").await),
                1 => store.env().sleep(Duration::from_millis(300)).await,
                _ => {}
            }
            match work(&store, &queue, &delivery).await {
                Ok(()) => say(&format!("done {id}")),
                Err(TransactError::Aborted(QueueError::LeaseLost { .. })) => {}
                // It comes again.
                Err(failed) if may_be_repeated(&failed) => {}
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

/// What the children said.
#[derive(Default)]
struct Said {
    sent: BTreeSet<String>,
    confirmed: BTreeSet<String>,
    attempts: BTreeMap<String, Vec<u32>>,
}

impl Said {
    fn hear(&mut self, lines: impl Iterator<Item = String>) {
        for line in lines {
            let words: Vec<&str> = line.split(' ').collect();
            match words[..] {
                ["sent", id] => drop(self.sent.insert(id.to_owned())),
                ["broken", ..] => panic!("{line}"),
                ["done", id] => drop(self.confirmed.insert(id.to_owned())),
                ["handed", id, attempt] => {
                    // The last line may be cut short.
                    self.attempts.entry(id.to_owned()).or_default().extend(attempt.parse::<u32>().ok());
                }
                _ => {}
            }
        }
    }
}

fn signal(child: &Child, what: &str) {
    assert!(Command::new("kill").args([what, &child.id().to_string()]).status().unwrap().success());
}

/// Plays the part of a child: `which` of the two, in this round.
async fn play(place: &Place, part: (u64, u64)) {
    let (store, queue) = open(place.open_with(UNIT_TIME, Duration::from_secs(30)).await).await;
    say("open");
    let producers = (0..PRODUCERS).map(|n| tokio::spawn(produce(store.clone(), queue.clone(), part, n)));
    let workers = (0..WORKERS).map(|n| tokio::spawn(consume(store.clone(), queue.clone(), part, n)));
    join_all(producers.chain(workers).map(|one| async {
        if let Err(panicked) = one.await {
            say(&format!("broken {panicked}"));
        }
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_that_are_killed_and_stopped_lose_no_message_and_do_none_twice() {
    if let Some(store) = std::env::var_os(STORE) {
        let round: u64 = std::env::var(ROUND).unwrap().parse().unwrap();
        return play(&Place::from_text(store.to_str().unwrap()), (round % 2, round / 2)).await;
    }
    let place = place();
    let (store, queue) = open(place.open().await).await;
    let table = "CREATE TABLE done (place INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE)";
    store.transact(|tx| Box::pin(tx.execute(table, &[]))).await.unwrap();

    let (env, mut rng) = (Env::real(), Random::from_os().stream("moments"));
    let mut said_by_children = Said::default();
    for round in 0..ROUNDS {
        let mut both: Vec<(Child, _)> = (0..2)
            .map(|which| {
                let mut child = child_of(TEST, Path::new(&place.to_text()), 2 * round + which);
                let mut lines = said(&mut child);
                assert_eq!(lines.next().as_deref(), Some("open"));
                (child, lines)
            })
            .collect();
        // Their pipes are read meanwhile: whoever finds one full would stand still.
        let hearing: Vec<_> = both
            .drain(..)
            .map(|(child, lines)| (child, std::thread::spawn(move || lines.collect::<Vec<String>>())))
            .collect();
        let victim = usize::try_from(round % 2).unwrap();
        env.sleep(Duration::from_millis(100 + rng.below(400))).await;
        // Longer than its leases: the other one is handed what it holds. Where it stands inside its turn, the other one
        // is told that it may try again.
        let is_long = round % 3 == 2;
        signal(&hearing[1 - victim].0, "-STOP");
        env.sleep(Duration::from_millis(rng.below(200)) + if is_long { 2 * UNIT_TIME } else { UNIT_TIME * 3 / 10 })
            .await;
        signal(&hearing[1 - victim].0, "-CONT");
        signal(&hearing[victim].0, "-KILL");
        env.sleep(Duration::from_millis(300 + rng.below(400))).await;
        signal(&hearing[1 - victim].0, "-KILL");
        for (mut child, lines) in hearing {
            child.wait().unwrap();
            said_by_children.hear(lines.join().unwrap().into_iter());
        }
    }
    let Said { sent, confirmed, attempts } = said_by_children;
    let before: BTreeSet<String> = done(&store).await.into_iter().collect();
    let lost: Vec<_> = confirmed.difference(&before).collect();
    assert!(lost.is_empty(), "work that was confirmed and is not there: {lost:?}");
    queue.unschedule(&name("seconds")).await.unwrap();
    while queue.describe().await.unwrap().counts.messages > 0 {
        for delivery in queue.receive(Receive::of(100).waiting(Duration::from_millis(200))).await.unwrap() {
            assert!(!before.contains(&*delivery.message.event.id), "what was done came again");
            match work(&store, &queue, &delivery).await {
                Ok(()) | Err(TransactError::Aborted(QueueError::LeaseLost { .. })) => {}
                Err(other) => panic!("{other:?}"),
            }
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
    assert!(sent.len() > 30 && repeated > 0, "too little happened to prove anything");
}
