//! The embedded store and the processes around it: a second one is refused, a killed one loses nothing.
//!
//! Each test starts this program again as its child, in which the same test plays the other part.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use quorate_data::{
    event::{NewEvent, Tags, Version},
    store::{AppendError, HybridClock, OpenError, ReadStream, Store, TransactError},
};
use quorate_foundations::ordering::hlc::{Config, Stamp};

use crate::{
    child::{ROUND, STORE, child_of, said, say},
    shared::{self, Folder, batch, event, open, pause, photograph},
};

#[tokio::test]
async fn a_second_process_is_refused_until_the_first_has_ended() {
    if let Some(store) = std::env::var_os(STORE) {
        let _store = open(Path::new(&store)).await.unwrap();
        say("open");
        pause(60_000);
        return;
    }
    let folder = Folder::new();
    let mut child = child_of("process::a_second_process_is_refused_until_the_first_has_ended", &folder.file(), 0);
    assert_eq!(said(&mut child).next().as_deref(), Some("open"));
    for _ in 0..3 {
        let refused = open(&folder.file()).await.map(|_| ()).unwrap_err();
        assert!(matches!(&refused, OpenError::Locked { path } if *path == folder.file()), "{refused:?}");
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let store = open(&folder.file()).await.unwrap();
    store.append(batch("s", vec![event(1)])).await.unwrap();
}

/// Producers in the child; each writes a stream of its own, one append after the other, as fast as it can.
const PRODUCERS: u64 = 6;

/// How many events the `n`-th append of a producer has.
fn size(producer: u64, n: u64) -> u64 {
    match producer {
        0 => 60,
        1 => 1 + n % 3,
        _ => 1,
    }
}

/// The `n`-th append of a producer in a round.
fn nth(round: u64, producer: u64, n: u64) -> Vec<NewEvent> {
    let tags = Tags::new([format!("producer:{producer}"), format!("round:{round}")]).unwrap();
    (0..size(producer, n)).map(|m| event(format!("{round}-{producer}-{n}-{m}")).tagged(tags.clone())).collect()
}

fn stream(producer: u64) -> String {
    format!("producer-{producer}")
}

/// Appends for ever, and says what was acknowledged: producer, number, version.
async fn produce(store: Store, round: u64, producer: u64) {
    for n in 0.. {
        let version = if producer == PRODUCERS - 1 {
            let appended = in_transaction(&store, round, producer, n).await.unwrap();
            appended.get()
        } else {
            store.append(batch(&stream(producer), nth(round, producer, n))).await.unwrap().version().get()
        };
        say(&format!("{producer} {n} {version}"));
    }
}

/// The last producer also writes a row with each event.
async fn in_transaction(
    store: &Store,
    round: u64,
    producer: u64,
    n: u64,
) -> Result<Version, TransactError<AppendError>> {
    store
        .transact(move |tx| {
            Box::pin(async move {
                let appended = tx.append_batch(batch(&stream(producer), nth(round, producer, n))).await?;
                if !appended.repeated {
                    let row = [format!("{round}-{producer}-{n}-0").into()];
                    tx.execute("INSERT INTO written (id) VALUES ($1)", &row).await.unwrap();
                }
                Ok(appended.version())
            })
        })
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_kill_9_once_and_in_order() {
    const ROUNDS: u64 = 40;
    if let Some(path) = std::env::var_os(STORE) {
        let round = std::env::var(ROUND).unwrap().parse().unwrap();
        let store = open(&PathBuf::from(path)).await.unwrap();
        say("open");
        let producers: Vec<_> =
            (0..PRODUCERS).map(|producer| tokio::spawn(produce(store.clone(), round, producer))).collect();
        for producer in producers {
            producer.await.unwrap();
        }
        return;
    }
    let folder = Folder::new();
    let store = folder.store().await;
    store.transact(|tx| Box::pin(tx.execute("CREATE TABLE written (id TEXT PRIMARY KEY)", &[]))).await.unwrap();
    store.close().await.unwrap();
    let mut rng = quorate_runtime::random::Random::from_os().stream("moments");
    let mut acknowledged = 0;
    // By producer and round, how many appends are known to be there.
    let mut there: BTreeMap<(u64, u64), u64> = BTreeMap::new();
    for round in 0..ROUNDS {
        let mut child =
            child_of("process::what_was_acknowledged_survives_kill_9_once_and_in_order", &folder.file(), round);
        let mut lines = said(&mut child);
        // Some are killed while they open.
        let opening = round % 8 == 7;
        if !opening {
            assert_eq!(lines.next().as_deref(), Some("open"));
        }
        pause(if opening { rng.below(12) } else { rng.below(150) });
        child.kill().unwrap();
        child.wait().unwrap();
        let acks: Vec<Vec<u64>> = lines
            .filter(|line| line != "open")
            .filter_map(|line| line.split(' ').map(|word| word.parse().ok()).collect::<Option<Vec<u64>>>())
            .filter(|ack| ack.len() == 3)
            .collect();
        acknowledged += acks.len();
        // Half of the time the next child finds the files exactly as the killed one left them.
        let copy = folder.path("copy.db");
        let looked_at = if round % 2 == 0 { folder.file() } else { copy.clone() };
        if looked_at == copy {
            for suffix in ["", "-wal", "-shm"] {
                let _ = std::fs::remove_file(shared::with_suffix(&copy, suffix));
            }
            photograph(&folder.file(), &copy);
        }
        let store = open(&looked_at).await.unwrap();
        check(&store, round, &acks, &mut there).await;
        store.close().await.unwrap();
    }
    println!("{acknowledged} appends were acknowledged in {ROUNDS} lives");
    assert!(acknowledged > 200, "only {acknowledged} acknowledged appends: this proves little");
}

/// Everything acknowledged is there once and in order, what was not is there whole or not at all, and repeating answers
/// the same.
async fn check(store: &Store, round: u64, acks: &[Vec<u64>], there: &mut BTreeMap<(u64, u64), u64>) {
    for producer in 0..PRODUCERS {
        let ids: Vec<String> = ids(store, &stream(producer)).await;
        let mut expected = Vec::new();
        let mut by_life: BTreeMap<u64, u64> = BTreeMap::new();
        for id in &ids {
            let life = id.split('-').next().and_then(|life| life.parse().ok()).unwrap_or(u64::MAX);
            *by_life.entry(life).or_default() += 1;
        }
        for life in 0..=round {
            // How many whole appends of this life are there?
            let present = by_life.get(&life).copied().unwrap_or(0);
            let (mut appends, mut events) = (0, 0);
            while events < present {
                events += size(producer, appends);
                appends += 1;
            }
            assert_eq!(events, present, "producer {producer}, life {life}: an append is there in part");
            let known = there.entry((producer, life)).or_insert(appends);
            assert!(appends >= *known, "producer {producer}, life {life}: what was there is gone");
            *known = appends;
            let ids = |n| (0..size(producer, n)).map(move |m| format!("{life}-{producer}-{n}-{m}"));
            expected.extend((0..appends).flat_map(ids));
        }
        assert!(ids == expected, "producer {producer}: each event once, in order");
        let own: Vec<&Vec<u64>> = acks.iter().filter(|ack| ack[0] == producer).collect();
        assert!(own.len() as u64 <= there[&(producer, round)], "producer {producer}: an acknowledged append is gone");
        for ack in own.iter().rev().take(5).chain(own.iter().take(2)) {
            let again = store.append(batch(&stream(producer), nth(round, producer, ack[1]))).await.unwrap();
            assert!(again.repeated, "{ack:?} is known");
            assert_eq!(again.version().get(), ack[2], "the answer of the first time");
            let last = nth(round, producer, ack[1]).pop().unwrap().id;
            assert_eq!(ids[ack[2] as usize - 1], *last, "the version that was acknowledged");
        }
    }
    let rows = store.query("SELECT count(*) FROM written", vec![]).await.unwrap();
    let written = ids(store, &stream(PRODUCERS - 1)).await.len() as i64;
    assert_eq!(rows[0].at(0).as_i64(), Some(written), "events and rows together");
    if round.is_multiple_of(5) {
        let verified = store.verify(std::sync::Arc::new(|_, _| {})).await.unwrap();
        assert!(verified.is_sound(), "{:?}", verified.findings);
        assert_eq!(verified.events, store.head().get());
    }
}

async fn ids(store: &Store, stream: &str) -> Vec<String> {
    let mut read = ReadStream::forward(stream.parse().unwrap(), 10_000);
    let mut ids = Vec::new();
    loop {
        let page = store.read_stream(read.clone()).await.unwrap();
        ids.extend(page.events.iter().map(|event| event.id().to_owned()));
        match page.next {
            Some(next) => read = read.from(next),
            None => return ids,
        }
    }
}

/// A window so narrow that a killed process was mostly writing a mark.
fn narrow() -> Config {
    Config::new(std::time::Duration::from_secs(3_600), std::time::Duration::from_micros(200)).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_stamp_of_a_hybrid_clock_comes_again_after_kill_9() {
    const ROUNDS: u64 = 20;
    if let Some(path) = std::env::var_os(STORE) {
        let store = open(&PathBuf::from(path)).await.unwrap();
        let clock = HybridClock::open(&store, "orders".parse().unwrap(), narrow()).await.unwrap();
        // What has been heard of is ahead, so that no later life is saved by its wall clock.
        let ahead = Stamp::new(store.env().wall() + std::time::Duration::from_secs(600), 0);
        say(&clock.observe(ahead).await.unwrap().to_string());
        loop {
            let stamps = futures_util::future::join_all((0..4).map(|_| clock.tick())).await;
            for stamp in stamps {
                say(&stamp.unwrap().to_string());
            }
        }
    }
    let folder = Folder::new();
    let mut rng = quorate_runtime::random::Random::from_os().stream("moments");
    let (mut last, mut given) = (Stamp::ZERO, 0);
    for round in 0..ROUNDS {
        let mut child = child_of("process::no_stamp_of_a_hybrid_clock_comes_again_after_kill_9", &folder.file(), round);
        let mut lines = said(&mut child);
        let first: Stamp = lines.next().unwrap().parse().unwrap();
        assert!(first > last, "{first} in life {round}, after {last}");
        last = first;
        pause(rng.below(60));
        child.kill().unwrap();
        child.wait().unwrap();
        // The last line may have been cut off.
        for stamp in lines.filter_map(|line| line.parse::<Stamp>().ok()) {
            assert!(stamp > last, "{stamp} in life {round}, after {last}");
            (last, given) = (stamp, given + 1);
        }
    }
    assert!(given > 200, "only {given} stamps: this proves little");
}
