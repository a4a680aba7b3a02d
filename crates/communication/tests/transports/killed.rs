//! A publisher and a consumer, each a process with a store of its own, are killed again and again, and their broker as well: what was committed
//! takes effect once, in order of its key.
//!
//! The test starts this program again as its children, in which the same test plays the other parts.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use quorate_communication::{
    inbox::{Failed, Inbox, InboxConfig},
    outbox::{Relay, RelayConfig},
    transports::{Topic, Transport, connect},
};
use quorate_data::{
    event::NewEvent,
    store::{AppendBatch, ExpectedVersion, Store, sqlite},
    subscription::Backoff,
};
use quorate_runtime::{Env, EnvParts, probe::Probe, random::Random};

use super::server::Server;

/// Says to this program that it is a child, and which store is meant.
const STORE: &str = "QUORATE_TEST_STORE";
const ROUND: &str = "QUORATE_TEST_ROUND";
/// Which broker a child works with.
const BROKER: &str = "QUORATE_TEST_BROKER";
/// Whether it publishes or consumes.
const PART: &str = "QUORATE_TEST_PART";
const KEYS: u64 = 3;
/// How long all that is on its way may take to arrive.
const PATIENCE: Duration = Duration::from_secs(90);

/// At which boundary a child ends itself: the third time that it gets there.
const DIE_AT: &str = "QUORATE_TEST_DIE_AT";
const BEFORE_SETTLED: &str = "relay: published and not settled";
const BEFORE_COMMIT: &str = "inbox: handled and not committed";
const BEFORE_ACK: &str = "inbox: committed and not acknowledged";

/// Ends the process at a boundary.
struct Boundary {
    at: String,
    passes: AtomicU32,
}

impl Probe for Boundary {
    fn buggify(&self, _: &'static str) -> bool {
        false
    }

    fn reached(&self, state: &'static str) {
        if state == self.at && self.passes.fetch_add(1, Ordering::SeqCst) == 2 {
            std::process::abort();
        }
    }
}

/// This machine, as far as the child's boundary.
fn env() -> Env {
    let at = std::env::var(DIE_AT).unwrap_or_default();
    let probe = Arc::new(Boundary { at, passes: AtomicU32::default() });
    Env::from_parts(EnvParts { probe, ..Env::real().into_parts() })
}

/// How often somebody is killed; far more often in a nightly run.
fn rounds() -> u64 {
    if std::env::var_os("QUORATE_LONG").is_some() { 64 } else { 6 }
}

pub(crate) fn is_child() -> bool {
    std::env::var_os(STORE).is_some()
}

fn topic() -> Topic {
    Topic { partitions: 2, hold: Duration::from_secs(1), ..Topic::new("orders".parse().unwrap()) }
}

async fn open(path: &Path) -> Store {
    sqlite::open(&env(), sqlite::Config::at(path)).await.unwrap()
}

/// Does its part until it is killed.
pub(crate) async fn child() {
    let (store, broker) = (std::env::var(STORE).unwrap(), std::env::var(BROKER).unwrap());
    let store = open(Path::new(&store)).await;
    let transport = connect(&env(), &broker.parse().unwrap(), None).unwrap();
    match &*std::env::var(PART).unwrap() {
        "publish" => publish(store, transport, &std::env::var(ROUND).unwrap()).await,
        _ => consume(store, transport).await,
    }
}

/// Appends for ever, and says what was committed; a relay publishes it meanwhile.
async fn publish(store: Store, transport: Arc<dyn Transport>, round: &str) {
    let mut config = RelayConfig::to(topic());
    config.subscription.lease_ttl = RelayConfig::MIN_TTL;
    config.longest_rest = Duration::from_millis(300);
    let relay = Relay::start(&store, &"orders".parse().unwrap(), transport, config).await.unwrap();
    say("up");
    // The last round publishes what is left.
    if round == "last" {
        while relay.describe().await.unwrap().subscription.lag_events > 0 {
            Env::real().sleep(Duration::from_millis(50)).await;
        }
        say("done");
        return std::future::pending().await;
    }
    for n in 0.. {
        for key in 0..KEYS {
            let id = format!("{key}-{round}-{n}");
            let event = NewEvent::new(id.as_str(), "/test", "order.placed").json("{}");
            let stream = format!("order-{key}").parse().unwrap();
            store.append(AppendBatch::to(stream, ExpectedVersion::Any, vec![event])).await.unwrap();
            say(&format!("committed {id}"));
        }
        Env::real().sleep(Duration::from_millis(5)).await;
    }
}

/// Handles for ever: a row for each message, in the order in which they take effect. Some fail the first time.
async fn consume(store: Store, transport: Arc<dyn Transport>) {
    let backoff = Backoff { first: Duration::from_millis(10), max: Duration::from_millis(50) };
    let config = InboxConfig { max_attempts: 1_000, backoff, ..InboxConfig::of(topic(), "billing".parse().unwrap()) };
    let inbox = Inbox::start(&store, transport, config, |tx, message| {
        Box::pin(async move {
            if message.attempt == 1 && crc32(&message.identity).is_multiple_of(8) {
                return Err(Failed::again("not now"));
            }
            let sql = "INSERT INTO done (id) VALUES ($1)";
            tx.execute(sql, &[(&*message.event.id).into()]).await?;
            Ok(())
        })
    });
    let inbox = inbox.await.unwrap();
    say("up");
    loop {
        Env::real().sleep(Duration::from_millis(100)).await;
        let counts = inbox.counts();
        say(&format!("counts {} {}", counts.done, counts.repeated));
    }
}

fn crc32(text: &str) -> u32 {
    text.bytes().fold(5_381, |sum, byte| sum.wrapping_mul(33) ^ u32::from(byte))
}

/// Kills the children, and sometimes the broker, and judges what is in the consumer's store.
pub(crate) fn parent(test: &str, broker: &str, server: &Server) {
    let folder = tempfile::tempdir().unwrap();
    let (orders, billing) = (folder.path().join("orders.db"), folder.path().join("billing.db"));
    let start = |part: &str, store: &Path, round: &str, die_at: &str| {
        let mut child = Part::start(test, store, round, broker, (part, die_at));
        // One that ends itself may do so before it is up.
        child.wait_for("up", !die_at.is_empty());
        child
    };
    let rows = |path: &Path, sql: &'static str| {
        let store_path = path.to_owned();
        in_a_runtime(async move {
            let store = open(&store_path).await;
            let rows = store.query(sql, vec![]).await.unwrap();
            store.close().await.unwrap();
            rows.iter().map(|row| row.at(0).as_str().unwrap_or_default().to_owned()).collect::<Vec<_>>()
        })
    };
    {
        let path = billing.clone();
        in_a_runtime(async move {
            let store = open(&path).await;
            let table = "CREATE TABLE done (place INTEGER PRIMARY KEY, id TEXT NOT NULL)";
            store.transact(move |tx| Box::pin(tx.execute(table, &[]))).await.unwrap();
            store.close().await.unwrap();
        });
    }
    let mut rng = Random::from_os().stream("moments");
    let mut committed = BTreeSet::new();
    // The group first: what is published before there is one is refused.
    let mut consumer = start("consume", &billing, "0", "");
    let mut repeated = 0;
    for round in 0..rounds() {
        let die_at = if round % 2 == 1 { BEFORE_SETTLED } else { "" };
        let mut publisher = start("publish", &orders, &format!("{round:03}"), die_at);
        std::thread::sleep(Duration::from_millis(100 + rng.below(400)));
        let broker_dies = round % 8 == 2;
        if broker_dies {
            server.kill();
        }
        if round % 2 == 0 {
            repeated +=
                consumer.kill().iter().filter_map(|line| counts(line)).map(|(_, again)| again).max().unwrap_or(0);
            committed
                .extend(publisher.kill().iter().filter_map(|line| line.strip_prefix("committed ").map(str::to_owned)));
        } else {
            committed
                .extend(publisher.kill().iter().filter_map(|line| line.strip_prefix("committed ").map(str::to_owned)));
            repeated +=
                consumer.kill().iter().filter_map(|line| counts(line)).map(|(_, again)| again).max().unwrap_or(0);
        }
        if broker_dies {
            server.start();
        }
        // The last one ends between commit and acknowledgement, so that the next must be told once more.
        let die_at = match round % 3 {
            _ if round + 2 == rounds() => BEFORE_ACK,
            0 => BEFORE_COMMIT,
            1 => BEFORE_ACK,
            _ => "",
        };
        consumer = start("consume", &billing, "0", if round + 1 == rounds() { "" } else { die_at });
    }
    let mut publisher = start("publish", &orders, "last", "");
    publisher.wait_for("done", false);
    publisher.kill();
    let until = Instant::now() + PATIENCE;
    let mut all = Vec::new();
    // The store has one writer: it is looked into when its process is gone.
    while Instant::now() < until {
        std::thread::sleep(Duration::from_secs(2));
        repeated += consumer.kill().iter().filter_map(|line| counts(line)).map(|(_, again)| again).max().unwrap_or(0);
        all = rows(&billing, "SELECT id FROM done ORDER BY place");
        let there: BTreeSet<&String> = all.iter().collect();
        if committed.iter().all(|id| there.contains(id)) {
            break;
        }
        consumer = start("consume", &billing, "0", "");
    }
    drop(consumer);
    let there: BTreeSet<&String> = all.iter().collect();
    let lost: Vec<_> = committed.iter().filter(|id| !there.contains(id)).take(5).collect();
    assert!(lost.is_empty(), "committed and without effect: {lost:?} … of {}", committed.len());
    assert_eq!(there.len(), all.len(), "something took effect twice");
    let mut last: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for id in &all {
        let (key, place) = id.split_once('-').unwrap();
        let (round, n) = place.split_once('-').unwrap();
        let place = (round.parse().unwrap(), n.parse().unwrap());
        let before = last.insert(key, place);
        assert!(before < Some(place), "{id} took effect behind {before:?}");
    }
    eprintln!("{} committed, {} took effect, {repeated} came once more and were known", committed.len(), all.len());
    assert!(committed.len() > 50 && repeated > 0, "too little happened to prove anything");
}

fn counts(line: &str) -> Option<(u64, u64)> {
    let mut words = line.strip_prefix("counts ")?.split(' ');
    Some((words.next()?.parse().ok()?, words.next()?.parse().ok()?))
}

/// A runtime of its own: this thread belongs to another one.
fn in_a_runtime<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> T {
    std::thread::spawn(|| tokio::runtime::Runtime::new().unwrap().block_on(work)).join().unwrap()
}

/// Says something to the parent, past whatever captures output.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "\nsaid {line}");
    let _ = out.flush();
}

/// A child and what it says.
struct Part {
    child: Child,
    lines: Box<dyn Iterator<Item = String>>,
    heard: Vec<String>,
}

impl Part {
    fn start(test: &str, store: &Path, round: &str, broker: &str, (part, die_at): (&str, &str)) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args([test, "--exact", "--nocapture", "--test-threads=1"])
            .env(STORE, store)
            .envs([(ROUND, round), (BROKER, broker), (PART, part), (DIE_AT, die_at)])
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit());
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let lines = Box::new(lines.filter_map(|line| line.strip_prefix("said ").map(str::to_owned)));
        Self { child, lines, heard: Vec::new() }
    }

    /// Waits until it has said `word`, or has ended where it may.
    fn wait_for(&mut self, word: &str, may_end: bool) {
        for line in self.lines.by_ref() {
            let is_it = line == word;
            self.heard.push(line);
            if is_it {
                return;
            }
        }
        assert!(
            may_end,
            "the child ended before it said `{word}`: {:?}",
            self.heard.iter().rev().take(5).collect::<Vec<_>>()
        );
    }

    /// Kills it, and returns all that it said.
    fn kill(&mut self) -> Vec<String> {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.heard.extend(self.lines.by_ref());
        std::mem::take(&mut self.heard)
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}
