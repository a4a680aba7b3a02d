//! A publisher and a consumer, each a process with a store of its own, are killed again and again, and their broker as well: what was committed
//! takes effect once, in order of its key.
//!
//! The test starts this program again as its children, in which the same test plays the other parts. Each round waits until what it is about has
//! happened, however long a machine takes for that, and only then kills.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use super::{
    broker::Address,
    children::{self, open},
    part::{Orders, Part},
    server::Server,
};

const BEFORE_SETTLED: &str = "relay: published and not settled";
const BEFORE_COMMIT: &str = "inbox: handled and not committed";
const BEFORE_ACK: &str = "inbox: committed and not acknowledged";

/// How often somebody is killed; far more often in a nightly run.
fn rounds() -> u64 {
    if std::env::var_os("QUORATE_LONG").is_some() { 64 } else { 6 }
}

/// What consumers count.
#[derive(Clone, Copy, Default)]
struct Counts {
    done: u64,
    repeated: u64,
    rows: u64,
}

/// What a consumer counted last.
fn counts(heard: &[String]) -> Counts {
    let last = heard.iter().rev().find_map(|line| line.strip_prefix("counts "));
    let mut words = last.unwrap_or_default().split(' ').map_while(|word| word.parse().ok());
    let mut next = || words.next().unwrap_or_default();
    Counts { done: next(), repeated: next(), rows: next() }
}

fn is_up(heard: &[String]) -> bool {
    heard.iter().any(|line| line.starts_with("counts "))
}

fn committed(heard: &[String]) -> impl Iterator<Item = &str> {
    heard.iter().filter_map(|line| line.strip_prefix("committed "))
}

/// Where the children work.
struct Stage<'a> {
    test: &'a str,
    broker: &'a str,
    server: &'a Server,
    orders: &'a Path,
    billing: &'a Path,
    /// What publishers said that it was committed.
    committed: BTreeSet<String>,
    /// What came to consumers once more and was known.
    repeated: u64,
    /// Publishers so far: later ones have higher ids.
    publishers: u64,
}

impl Stage<'_> {
    fn publisher(&mut self, part: &str, die_at: &str) -> Part {
        self.publishers += 1;
        let Self { test, broker, orders: store, publishers: round, .. } = *self;
        Part::start(Orders { test, part, store, broker, round, die_at })
    }

    fn consumer(&self, round: u64, die_at: &str) -> Part {
        let Self { test, broker, billing: store, .. } = *self;
        Part::start(Orders { test, part: "consumer", store, broker, round, die_at })
    }

    fn note(&mut self, said: &[String]) {
        self.committed.extend(committed(said).map(str::to_owned));
        self.repeated += counts(said).repeated;
    }

    fn kill(&mut self, part: Part) {
        let said = part.kill();
        self.note(&said);
    }

    /// One round: both work until they have ended at their boundaries, or have done enough, and are killed then.
    fn round(&mut self, round: u64) {
        // Whoever comes behind one that ended between commit and acknowledgement is told once more what that one did.
        let (die_at, comes_again) = match round % 3 {
            0 => (BEFORE_COMMIT, false),
            1 => (BEFORE_ACK, false),
            _ => ("", true),
        };
        let mut consumer = self.consumer(round, die_at);
        if round == 0 {
            // The group first: what is published before there is one is refused.
            consumer.wait_until("it has joined", is_up);
        }
        if round % 2 == 1 {
            let mut publisher = self.publisher("publisher", BEFORE_SETTLED);
            publisher.wait_for_its_end();
            self.kill(publisher);
        }
        let mut publisher = self.publisher("publisher", "");
        publisher.wait_until("it has committed a dozen", |heard| committed(heard).count() >= 12);
        if die_at.is_empty() {
            let is_enough = |counts: Counts| counts.done >= 6 && (!comes_again || counts.repeated > 0);
            consumer.wait_until("six are done, and what comes again has come", |heard| is_enough(counts(heard)));
        } else {
            consumer.wait_for_its_end();
        }
        match round % 8 {
            // They find their broker gone, and are gone before it is back.
            2 => self.server.kill(),
            // They outlive it.
            5 => {
                self.server.kill();
                self.server.start();
                if !die_at.is_empty() {
                    self.kill(consumer);
                    consumer = self.consumer(round, "");
                }
                let before = counts(consumer.heard()).done;
                consumer.wait_until("it goes on with its broker", |heard| counts(heard).done > before + 3);
            }
            _ => {}
        }
        let (first, second) = if round.is_multiple_of(2) { (consumer, publisher) } else { (publisher, consumer) };
        self.kill(first);
        self.kill(second);
        if round % 8 == 2 {
            self.server.start();
        }
    }

    /// Has all that is left take effect. Returns how many events there are.
    fn finish(&mut self) -> u64 {
        let mut publisher = self.publisher("last publisher", "");
        let mut consumer = self.consumer(rounds(), "");
        let published = |heard: &[String]| heard.iter().find_map(|line| line.strip_prefix("published ")?.parse().ok());
        publisher.wait_until("all is published", |heard| published(heard).is_some());
        let events = published(publisher.heard()).unwrap();
        consumer.wait_until(&format!("all of {events} took effect"), |heard| counts(heard).rows >= events);
        self.kill(publisher);
        self.kill(consumer);
        events
    }
}

/// Kills whoever works with the broker, and the broker; or plays the part of a child.
pub(crate) async fn kills_everybody(test: &str, server: impl FnOnce() -> Option<Server>, address: Address) {
    if children::is_child() {
        return children::child().await;
    }
    let Some(server) = server() else { return };
    tokio::task::block_in_place(|| parent(test, &address(server.port()), &server));
}

/// Kills the children, and sometimes the broker, and judges what is in the consumer's store.
fn parent(test: &str, broker: &str, server: &Server) {
    let folder = tempfile::tempdir().unwrap();
    let (orders, billing) = (folder.path().join("orders.db"), folder.path().join("billing.db"));
    let path = billing.clone();
    in_a_runtime(async move {
        let store = open(&path).await;
        let table = "CREATE TABLE done (place INTEGER PRIMARY KEY, id TEXT NOT NULL)";
        store.transact(move |tx| Box::pin(tx.execute(table, &[]))).await.unwrap();
        store.close().await.unwrap();
    });
    let (orders, path, committed) = (&*orders, &*billing, BTreeSet::new());
    let mut stage = Stage { test, broker, server, orders, billing: path, committed, repeated: 0, publishers: 0 };
    for round in 0..rounds() {
        stage.round(round);
    }
    let events = stage.finish();
    let Stage { committed, repeated, .. } = stage;
    let all = in_a_runtime(async move {
        let store = open(&billing).await;
        let rows = store.query("SELECT id FROM done ORDER BY place", vec![]).await.unwrap();
        store.close().await.unwrap();
        rows.iter().map(|row| row.at(0).as_str().unwrap_or_default().to_owned()).collect::<Vec<_>>()
    });
    judge(&all, &committed, events);
    eprintln!("{} committed, {} took effect, {repeated} came once more and were known", committed.len(), all.len());
    assert!(repeated > 0, "nothing came twice, so that nothing was proved");
}

/// Whether what took effect, in this order, is what was committed.
fn judge(all: &[String], committed: &BTreeSet<String>, events: u64) {
    let there: BTreeSet<&String> = all.iter().collect();
    let lost: Vec<_> = committed.iter().filter(|id| !there.contains(id)).take(5).collect();
    assert!(lost.is_empty(), "committed and without effect: {lost:?} … of {}", committed.len());
    assert_eq!(there.len(), all.len(), "something took effect twice");
    assert_eq!(all.len() as u64, events, "what is in the log took effect, and nothing else");
    let mut last: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for id in all {
        let (key, place) = id.split_once('-').unwrap();
        let (round, n) = place.split_once('-').unwrap();
        let place = (round.parse().unwrap(), n.parse().unwrap());
        let before = last.insert(key, place);
        assert!(before < Some(place), "{id} took effect behind {before:?}");
    }
}

/// A runtime of its own: this thread belongs to another one.
fn in_a_runtime<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> T {
    std::thread::spawn(|| tokio::runtime::Runtime::new().unwrap().block_on(work)).join().unwrap()
}
