//! Rules about age, stamps of a hybrid clock, and a wall clock that somebody sets.

use std::{
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use quorate_data::{
    event::NewEvent,
    store::{
        AppendBatch, ExpectedVersion, First, HybridClock, Inbox, RoomTables, Rules, Store, StreamMetadata, sqlite,
    },
};
use quorate_foundations::{
    ordering::hlc::{Config, Stamp},
    time::{Boot, Mono, Wall},
};
use quorate_runtime::{
    BoxFuture, Env, EnvParts,
    blocking::{Blocking, Dedicated, Kick, Work},
    clock::Clocks,
    random::Random,
};

const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(24 * 3_600);
const YEAR: Duration = Duration::from_secs(365 * 24 * 3_600);

/// Clocks that move when told to; the wall clock also by itself.
#[derive(Clone, Default)]
struct Hands {
    passed: Arc<AtomicU64>,
    set_ahead: Arc<AtomicI64>,
}

impl Hands {
    fn pass(&self, span: Duration) {
        self.passed.fetch_add(u64::try_from(span.as_nanos()).unwrap(), Ordering::SeqCst);
    }

    fn set_ahead_by(&self, span: Duration) {
        self.set_ahead.store(i64::try_from(span.as_nanos()).unwrap(), Ordering::SeqCst);
    }
}

impl Clocks for Hands {
    fn wall(&self) -> Wall {
        let passed = self.passed.load(Ordering::SeqCst).cast_signed();
        Wall::from_unix_nanos(1_700_000_000_000_000_000 + passed + self.set_ahead.load(Ordering::SeqCst))
    }

    fn mono(&self) -> Mono {
        Mono::from_nanos(self.passed.load(Ordering::SeqCst))
    }

    fn boot(&self) -> Boot {
        Boot::from_nanos(self.passed.load(Ordering::SeqCst))
    }

    fn sleep_until(&self, _due: Mono) -> BoxFuture<'static, ()> {
        Box::pin(std::future::pending())
    }
}

/// Blocking work inline.
struct Inline;

impl Blocking for Inline {
    fn run(&self, job: Box<dyn FnOnce() + Send>) -> BoxFuture<'static, ()> {
        job();
        Box::pin(std::future::ready(()))
    }

    fn dedicate(&self, _name: &str, worker: Box<dyn Dedicated>) -> Kick {
        let worker = Mutex::new(Some(worker));
        Kick::new(move || {
            let mut worker = worker.lock().unwrap();
            if worker.as_mut().is_some_and(|worker| worker.work() == Work::Over) {
                *worker = None;
            }
        })
    }
}

async fn open(hands: &Hands, folder: &Path) -> Store {
    let env = Env::from_parts(EnvParts {
        clocks: Arc::new(hands.clone()),
        random: Random::from_seed([7; 32]),
        blocking: Arc::new(Inline),
        fatal: Arc::new(|why| panic!("{why}")),
        ..Env::real().into_parts()
    });
    sqlite::open(&env, sqlite::Config::at(folder.join("log.db"))).await.unwrap()
}

/// Three events in a stream that keeps a day.
async fn fill(store: &Store) {
    let events = (0..3).map(|n| NewEvent::new(n.to_string(), "/test", "t")).collect();
    store.append(AppendBatch::to("s".parse().unwrap(), ExpectedVersion::Any, events)).await.unwrap();
    let rules = Rules { max_count: None, max_age: Some(DAY) };
    let metadata = StreamMetadata { rules, ..StreamMetadata::default() };
    store.set_metadata("s".parse().unwrap(), ExpectedVersion::Any, metadata).await.unwrap();
}

async fn first(store: &Store) -> u64 {
    store.stream_head(&"s".parse().unwrap()).await.unwrap().first.get()
}

#[tokio::test]
async fn a_clock_that_jumps_ahead_and_is_set_right_costs_no_event() {
    let (hands, folder) = (Hands::default(), tempfile::tempdir().unwrap());
    let store = open(&hands, folder.path()).await;
    fill(&store).await;
    hands.pass(HOUR);
    assert_eq!(first(&store).await, 1);
    hands.set_ahead_by(YEAR);
    hands.pass(HOUR / 2);
    assert_eq!((first(&store).await, store.scavenge().await.unwrap().events), (1, 0));
    // A restart believes no more than the process before did.
    store.close().await.unwrap();
    let store = open(&hands, folder.path()).await;
    assert_eq!((first(&store).await, store.scavenge().await.unwrap().events), (1, 0));
    hands.pass(HOUR / 2);
    hands.set_ahead_by(Duration::ZERO);
    assert_eq!(first(&store).await, 1);
    hands.pass(DAY - 3 * HOUR);
    assert_eq!(first(&store).await, 1, "they are kept as long as the rule says");
    hands.pass(2 * HOUR);
    assert_eq!(first(&store).await, 4);
    assert_eq!(store.scavenge().await.unwrap().events, 3);
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_jump_that_stands_for_an_hour_is_believed() {
    let (hands, folder) = (Hands::default(), tempfile::tempdir().unwrap());
    let store = open(&hands, folder.path()).await;
    fill(&store).await;
    hands.set_ahead_by(YEAR);
    assert_eq!(first(&store).await, 1);
    hands.pass(HOUR);
    assert_eq!(first(&store).await, 4);
    // Set back before a scavenge, the events are there again.
    hands.set_ahead_by(Duration::ZERO);
    assert_eq!(first(&store).await, 1);
    store.close().await.unwrap();
}

#[tokio::test]
async fn an_event_keeps_what_is_behind_it_however_its_clock_went() {
    let (hands, folder) = (Hands::default(), tempfile::tempdir().unwrap());
    let store = open(&hands, folder.path()).await;
    let append = async |id: &str| {
        let event = NewEvent::new(id, "/test", "t");
        store.append(AppendBatch::to("s".parse().unwrap(), ExpectedVersion::Any, vec![event])).await.unwrap();
    };
    append("now").await;
    hands.set_ahead_by(YEAR);
    append("from a year ahead").await;
    hands.set_ahead_by(Duration::ZERO);
    append("now again").await;
    fill(&store).await;
    hands.pass(2 * DAY);
    assert_eq!(first(&store).await, 2, "no hole behind an event that seems young");
    store.close().await.unwrap();
}

async fn take(store: &Store, inbox: &Inbox, message: &'static str) -> First {
    let inbox = inbox.clone();
    let taken = store.transact(move |tx| {
        let inbox = inbox.clone();
        Box::pin(async move { tx.once(&inbox, message).await })
    });
    taken.await.unwrap()
}

#[tokio::test]
async fn a_clock_that_jumps_ahead_and_is_set_right_has_no_inbox_forget() {
    let (hands, folder) = (Hands::default(), tempfile::tempdir().unwrap());
    let store = open(&hands, folder.path()).await;
    let inbox = Inbox::open(&store, "billing".parse().unwrap()).await.unwrap();
    assert_eq!(take(&store, &inbox, "m-1").await, First::Now);
    hands.set_ahead_by(YEAR);
    assert_eq!(inbox.forget(DAY).await.unwrap(), 0);
    assert_eq!(take(&store, &inbox, "while ahead").await, First::Now);
    store.close().await.unwrap();
    // A restart believes no more than the process before did.
    let store = open(&hands, folder.path()).await;
    let inbox = Inbox::open(&store, "billing".parse().unwrap()).await.unwrap();
    assert_eq!(inbox.forget(DAY).await.unwrap(), 0);
    hands.set_ahead_by(Duration::ZERO);
    hands.pass(DAY - HOUR);
    assert_eq!(inbox.forget(DAY).await.unwrap(), 0);
    assert!(take(&store, &inbox, "m-1").await.is_repeat());
    // Nobody looked for longer than a minute: the clock has to stand for an hour.
    hands.pass(HOUR + HOUR / 2);
    inbox.forget(DAY).await.unwrap();
    hands.pass(HOUR);
    inbox.forget(DAY).await.unwrap();
    assert_eq!(take(&store, &inbox, "m-1").await, First::Now);
    store.close().await.unwrap();
}

#[tokio::test]
async fn an_inbox_made_before_its_clock_was_written_down_goes_on_from_its_newest_message() {
    let (hands, folder) = (Hands::default(), tempfile::tempdir().unwrap());
    let store = open(&hands, folder.path()).await;
    let old = RoomTables {
        room: "inbox",
        versions: &["CREATE TABLE quorate_inbox (
            consumer TEXT NOT NULL, message TEXT NOT NULL, taken_at INTEGER NOT NULL, PRIMARY KEY (consumer, message)
        ) WITHOUT ROWID;
        CREATE INDEX quorate_inbox_by_age ON quorate_inbox (consumer, taken_at)"],
    };
    store.declare(old).await.unwrap();
    let now = hands.wall().unix_nanos();
    let insert = "INSERT INTO quorate_inbox (consumer, message, taken_at) VALUES ('billing', 'm-1', $1)";
    store
        .transact(move |tx| Box::pin(async move { tx.room_execute(insert, &[now.into()]).await.map(|_| ()) }))
        .await
        .unwrap();
    hands.set_ahead_by(YEAR);
    let inbox = Inbox::open(&store, "billing".parse().unwrap()).await.unwrap();
    assert_eq!(inbox.forget(DAY).await.unwrap(), 0);
    assert!(take(&store, &inbox, "m-1").await.is_repeat());
    hands.pass(HOUR);
    assert_eq!(inbox.forget(DAY).await.unwrap(), 1);
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_hybrid_clock_hands_out_larger_stamps_after_restarts_however_far_the_wall_clock_is_set_back() {
    let (hands, folder) = (Hands::default(), tempfile::tempdir().unwrap());
    let mut last = Stamp::ZERO;
    for set_ahead in [YEAR, HOUR, Duration::ZERO, YEAR * 2, DAY] {
        hands.set_ahead_by(set_ahead);
        let store = open(&hands, folder.path()).await;
        let clock = HybridClock::open(&store, "orders".parse().unwrap(), Config::default()).await.unwrap();
        for _ in 0..100 {
            // More than a window, so that marks are renewed, and sometimes less.
            hands.pass(Duration::from_millis(17));
            let stamp = clock.tick().await.unwrap();
            assert!(stamp > last, "{stamp} after {last}, set ahead by {set_ahead:?}");
            last = stamp;
        }
        let ahead = clock.ahead();
        let is_right = set_ahead == YEAR || set_ahead == YEAR * 2;
        assert_eq!(ahead < Duration::from_millis(1), is_right, "{ahead:?} ahead, set ahead by {set_ahead:?}");
        store.close().await.unwrap();
    }
}
