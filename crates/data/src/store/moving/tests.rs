//! Stores that move, and that die on the way.
#![allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "this is the world outside of the store")]

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex, Once,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use quorate_runtime::Env;
use serde_json::json;

use super::{Can, Fate, Mark, MoveError, Moved, Order, Place, Room, Step, Told, relocate, rooms};
use crate::{
    event::{NewEvent, Position, Recorded, Tags},
    schema::Registrar,
    store::{
        AppendBatch, AppendError, ExpectedVersion, First, HybridClock, Inbox, OpenError, Query, ReadLog, Retire,
        RoomTables, Store, StoreError, TransactError, postgres, sqlite,
    },
    subscription::{self, Pull, Subscriptions},
};

/// Two places for a store.
struct World {
    env: Env,
    folder: tempfile::TempDir,
    address: String,
    schema: String,
}

static MADE: AtomicUsize = AtomicUsize::new(0);

impl World {
    fn new() -> Option<Self> {
        let address = postgres::server::address()?;
        let schema = format!("m_{}_{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        Some(Self { env: Env::real(), folder: tempfile::tempdir().unwrap(), address, schema })
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn embedded(&self, name: &str) -> Place {
        Place::Embedded(self.file(name))
    }

    fn config(&self, name: &str) -> postgres::Config {
        let schema = format!("{}_{name}", self.schema);
        let application = format!("{schema}_app");
        postgres::Config { schema, application, ..postgres::Config::at(&self.address).unwrap() }
    }

    fn database(&self, name: &str) -> Place {
        Place::Postgres(Box::new(self.config(name)))
    }

    async fn open(&self, place: &Place) -> Result<Store, OpenError> {
        match place {
            Place::Embedded(path) => sqlite::open(&self.env, sqlite::Config::at(path)).await,
            Place::Postgres(config) => postgres::open(&self.env, (**config).clone()).await,
        }
    }

    async fn go(&self, from: &Place, to: &Place, told: Told) -> Result<Moved, MoveError> {
        let order = Order { from: from.clone(), to: to.clone(), rooms: rooms(), verify: true };
        relocate(&self.env, &order, told).await
    }

    async fn to(&self, from: &Place, to: &Place) -> Result<Moved, MoveError> {
        self.go(from, to, Arc::new(|_, _, _| {})).await
    }

    async fn stranger(&self) -> tokio_postgres::Client {
        postgres::connect(&self.env, &self.address.parse().unwrap()).await.unwrap()
    }
}

macro_rules! world {
    () => {
        match World::new() {
            Some(world) => world,
            None => return,
        }
    };
}

fn event(n: usize) -> NewEvent {
    let event = NewEvent::new(format!("e-{n}"), "/test", "thing.happened").json(format!("{{\"n\": {n}}}"));
    if n.is_multiple_of(3) { event.tagged(Tags::new(["third:yes", "odd:one"]).unwrap()) } else { event }
}

fn batch(stream: &str, events: Vec<NewEvent>) -> AppendBatch {
    AppendBatch::to(stream.parse().unwrap(), ExpectedVersion::Any, events)
}

/// Appends `count` events to three streams.
async fn fill(store: &Store, count: usize) {
    for first in (0..count).step_by(100) {
        let events = (first..count.min(first + 100)).map(event).collect();
        store.append(batch(&format!("stream-{}", first / 100 % 3), events)).await.unwrap();
    }
}

async fn log(store: &Store) -> Vec<Recorded> {
    let mut log: Vec<Recorded> = Vec::new();
    loop {
        let after = Position::new(log.len() as u64);
        let page = store.read_log(ReadLog { query: Query::EVERYTHING, after, limit: 1_000 }).await.unwrap();
        log.extend(page.events);
        if log.len() as u64 >= page.head.get() {
            return log;
        }
    }
}

async fn take(store: &Store, inbox: &Inbox, message: &'static str) -> First {
    let inbox = inbox.clone();
    let taken = store.transact(move |tx| {
        let inbox = inbox.clone();
        Box::pin(async move { tx.once(&inbox, message).await })
    });
    taken.await.unwrap()
}

/// Has rooms keep something.
async fn furnish(store: &Store) {
    let inbox = Inbox::open(store, "billing".parse().unwrap()).await.unwrap();
    assert_eq!(take(store, &inbox, "message 1").await, First::Now);
    HybridClock::open(store, "clock".parse().unwrap(), Default::default()).await.unwrap().tick().await.unwrap();
    let subscriptions = Subscriptions::open(store).await.unwrap();
    let billing = subscriptions.create(&"billing".parse().unwrap(), subscription::Config::default()).await.unwrap();
    let pulled = billing.pull(Pull { max: 1, wait: Duration::ZERO, owner: "me".into() }).await.unwrap();
    let leases: Vec<_> = pulled.into_iter().map(|delivery| delivery.lease).collect();
    billing.ack(&leases).await.unwrap();
    let schema = json!({ "type": "object", "required": ["n"] });
    Registrar::of(store).register(&"thing.happened".parse().unwrap(), schema, None).await.unwrap();
}

/// What was furnished is there, and goes on where it was.
async fn assert_furnished(store: &Store, left: &[Recorded]) {
    assert_eq!(log(store).await, left, "events are what and where they were");
    let verified = store.verify(Arc::new(|_, _| {})).await.unwrap();
    assert!(verified.is_sound(), "{verified:?}");
    let inbox = Inbox::open(store, "billing".parse().unwrap()).await.unwrap();
    assert!(take(store, &inbox, "message 1").await.is_repeat());
    let subscriptions = Subscriptions::open(store).await.unwrap();
    let described = subscriptions.get(&"billing".parse().unwrap()).await.unwrap().describe().await.unwrap();
    assert_eq!(described.checkpoint, Position::new(1));
    let refused = store.append(batch("stream-0", vec![NewEvent::new("x", "/test", "thing.happened").json("{}")])).await;
    assert!(matches!(refused, Err(AppendError::Schema { .. })), "schemas are in force: {refused:?}");
    let known = store.append(batch("stream-0", vec![event(0)])).await.unwrap();
    assert!(known.repeated, "what was appended is known");
}

async fn closed(store: Store) {
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_moves_to_a_database_and_back_with_everything_at_its_place() {
    let world = world!();
    let (here, there, back) = (world.embedded("here.db"), world.database("there"), world.embedded("back.db"));
    let store = world.open(&here).await.unwrap();
    fill(&store, 2_500).await;
    furnish(&store).await;
    let (before, mut left) = (store.timeline(), log(&store).await);
    closed(store).await;

    for (from, to) in [(&here, &there), (&there, &back)] {
        let moved = world.to(from, to).await.unwrap();
        assert_eq!((moved.events, moved.verified, &moved.to), (left.len() as u64, true, &to.to_string()));
        assert!(moved.tables.iter().any(|(table, sum)| table == "quorate_inbox" && sum.rows == 1), "{moved:?}");
        let refused = world.open(from).await.map(drop);
        assert!(matches!(&refused, Err(OpenError::Moved { to: told, .. }) if *told == to.to_string()), "{refused:?}");

        let store = world.open(to).await.unwrap();
        assert_eq!(store.timeline().store, before.store);
        assert!(store.timeline().epoch > before.epoch, "tokens of before are of another timeline");
        assert_furnished(&store, &left).await;
        let appended = store.append(batch("stream-1", vec![event(left.len() + 10_000)])).await.unwrap();
        store.reach(appended.token, Duration::from_secs(30)).await.unwrap().expect("it has a position soon");
        left = log(&store).await;
        assert_eq!(left.len() as u64, moved.events + 1, "what is appended goes on behind");
        closed(store).await;
    }
}

/// Moves, and dies when it was told for the `n`-th time. Whether it ended before.
async fn moves_and_dies(world: &World, from: &Place, to: &Place, n: usize) -> bool {
    let (told, died) = (Arc::new(AtomicUsize::new(0)), Arc::new(tokio::sync::Notify::new()));
    let of_told = died.clone();
    let count: Told = Arc::new(move |step, _, _| {
        let is_on_the_way = matches!(step, Step::Events | Step::Rows);
        if is_on_the_way && told.fetch_add(1, Ordering::Relaxed) == n {
            of_told.notify_one();
        }
    });
    for _ in 0..600 {
        let ended = tokio::select! {
            biased;
            () = died.notified() => return false,
            ended = world.go(from, to, count.clone()) => ended,
        };
        match ended {
            Ok(_) => return true,
            // What blocks when a future is dropped goes on for a moment.
            Err(MoveError::Open(OpenError::Locked { .. })) => tokio::time::sleep(Duration::from_millis(50)).await,
            Err(cause) => panic!("{cause:?}"),
        }
    }
    panic!("the lock is never given back")
}

#[tokio::test(flavor = "multi_thread")]
async fn wherever_a_move_dies_the_same_call_goes_on() {
    let world = world!();
    let (here, there, back) = (world.embedded("here.db"), world.database("there"), world.embedded("back.db"));
    let store = world.open(&here).await.unwrap();
    fill(&store, 3_300).await;
    furnish(&store).await;
    let left = log(&store).await;
    closed(store).await;
    for (from, to) in [(&here, &there), (&there, &back)] {
        let mut deaths = 0;
        while !moves_and_dies(&world, from, to, deaths).await {
            deaths += 1;
            let opened = world.open(to).await.map(drop);
            assert!(
                matches!(
                    opened,
                    Err(OpenError::Arriving { .. } | OpenError::Unrestored { .. } | OpenError::Locked { .. })
                ),
                "after {deaths} deaths: {opened:?}"
            );
        }
        assert!(deaths > 5, "{deaths}");
        let again = world.to(from, to).await.unwrap();
        assert_eq!((again.events, again.tables.len()), (left.len() as u64, 0), "it had been done");
        let store = world.open(to).await.unwrap();
        assert_furnished(&store, &left).await;
        closed(store).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_was_left_goes_where_it_was_left_for_and_nowhere_else() {
    let world = world!();
    let (here, there, back) = (world.embedded("here.db"), world.database("there"), world.embedded("back.db"));
    let store = world.open(&here).await.unwrap();
    fill(&store, 20).await;
    furnish(&store).await;
    let left = log(&store).await;
    closed(store).await;
    for (from, to, other) in [(&here, &there, &world.database("other")), (&there, &back, &world.embedded("other.db"))] {
        // It dies between leaving and arriving.
        let mut leaving = from.leave(&world.env).await.unwrap();
        let mark = Mark { from: leaving.standing().timeline, arrival: None };
        let arriving = to.arrive(&world.env, mark).await.unwrap();
        let gone = super::Gone { to: to.to_string(), arrival: arriving.arrival() };
        leaving.hold(gone, Vec::new()).await.unwrap();
        leaving.leave().await.unwrap();
        drop((leaving, arriving));

        for closed in [from, to] {
            let opened = world.open(closed).await.map(drop);
            let is_closed = matches!(
                opened,
                Err(OpenError::Moved { .. } | OpenError::Arriving { .. } | OpenError::Unrestored { .. })
            );
            assert!(is_closed, "{opened:?}");
        }
        let elsewhere = world.to(from, other).await;
        assert!(matches!(&elsewhere, Err(MoveError::Gone { to: told }) if *told == to.to_string()), "{elsewhere:?}");
        let moved = world.to(from, to).await.unwrap();
        assert_eq!(moved.events, left.len() as u64);
        assert!(!moved.tables.is_empty());
        let store = world.open(to).await.unwrap();
        assert_furnished(&store, &left).await;
        store.close().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_over_a_database_write_until_it_is_left_and_are_refused_then() {
    let world = world!();
    let (there, back) = (world.database("there"), world.embedded("back.db"));
    let nodes = [world.open(&there).await.unwrap(), world.open(&there).await.unwrap()];
    fill(&nodes[0], 1_500).await;
    furnish(&nodes[0]).await;
    let inbox = Inbox::open(&nodes[1], "billing".parse().unwrap()).await.unwrap();
    // One appends while the other's events go over.
    let late = nodes[1].clone();
    let (wanted, mut wants) = tokio::sync::mpsc::unbounded_channel();
    let (is_in, was_appended) = std::sync::mpsc::channel();
    let (was_appended, first) = (Mutex::new(was_appended), Once::new());
    let appending = tokio::spawn(async move {
        let mut appended = 0;
        while wants.recv().await.is_some() {
            match late.append(batch("late-1", vec![event(100_000 + appended)])).await {
                Ok(_) => {
                    appended += 1;
                    let _ = is_in.send(());
                }
                // It came when the store was held, and waited until it was left.
                Err(AppendError::Store(StoreError::Moved { .. })) => {}
                Err(cause) => panic!("{cause:?}"),
            }
        }
        appended
    });
    let told: Told = Arc::new(move |step, _, _| {
        if step == Step::Events {
            let _ = wanted.send(());
            // Nothing is held yet when it is first told: the move goes on once something has come in.
            first.call_once(|| {
                tokio::task::block_in_place(|| {
                    was_appended.lock().unwrap().recv_timeout(Duration::from_secs(30)).unwrap()
                })
            });
        }
    });
    let moved = world.go(&there, &back, told).await.unwrap();
    let appended = appending.await.unwrap();
    assert!(appended > 0);
    assert_eq!(moved.events, 1_500 + appended as u64, "whatever was acknowledged arrived");

    let refused = nodes[0].append(batch("stream-0", vec![event(5_000)])).await;
    let is_refused = matches!(&refused, Err(AppendError::Store(StoreError::Moved { to })) if *to == back.to_string());
    assert!(is_refused, "{refused:?}");
    let of_inbox = inbox.clone();
    let refused = nodes[1].transact(move |tx| {
        let inbox = of_inbox.clone();
        Box::pin(async move { tx.once(&inbox, "message 2").await })
    });
    let refused = refused.await.map(drop);
    assert!(matches!(&refused, Err(TransactError::Aborted(_) | TransactError::Store(_))), "{refused:?}");
    assert!(format!("{refused:?}").contains("Moved"), "rows alone are refused as well: {refused:?}");
    assert_eq!(log(&nodes[1]).await.len() as u64, moved.events, "what was there can be read");

    let store = world.open(&back).await.unwrap();
    let inbox = Inbox::open(&store, "billing".parse().unwrap()).await.unwrap();
    assert_eq!(take(&store, &inbox, "message 2").await, First::Now, "what was refused did not happen");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_go_is_named_before_anything_is_begun() {
    let world = world!();
    let there = world.database("there");
    let named = async |name: &str, word: &str| {
        let tried = world.to(&world.embedded(name), &there).await;
        let Err(MoveError::Refused { obstacles }) = &tried else { panic!("{tried:?}") };
        assert!(obstacles.iter().any(|what| what.contains(word)), "{obstacles:?}");
        assert!(world.open(&world.embedded(name)).await.is_ok(), "it is as it was");
    };
    let new = async |name: &str| {
        let store = world.open(&world.embedded(name)).await.unwrap();
        fill(&store, 5).await;
        store
    };

    let store = new("truncated.db").await;
    store
        .retire("stream-0".parse().unwrap(), Retire::Truncate { before: crate::event::Version::new(3) })
        .await
        .unwrap();
    closed(store).await;
    named("truncated.db", "`stream-0`").await;

    let store = new("application.db").await;
    let made = store.transact(|tx| Box::pin(async { tx.execute("CREATE TABLE guest (name TEXT)", &[]).await }));
    made.await.unwrap();
    closed(store).await;
    named("application.db", "`guest`").await;

    let store = new("strange.db").await;
    let versions = &["CREATE TABLE quorate_strange (name TEXT)"];
    store.declare(RoomTables { room: "strange", versions }).await.unwrap();
    closed(store).await;
    named("strange.db", "room strange").await;

    let store = new("secret.db").await;
    let secret = NewEvent::new("s", "/test", "thing.happened").json("{}").about("anna");
    store.append(batch("stream-0", vec![secret])).await.unwrap();
    closed(store).await;
    named("secret.db", "data subjects").await;

    assert!(world.open(&there).await.is_ok(), "nothing was begun there");
}

#[tokio::test(flavor = "multi_thread")]
async fn views_stay_where_they_are() {
    let world = world!();
    let (here, there) = (world.embedded("here.db"), world.database("there"));
    let store = world.open(&here).await.unwrap();
    let versions = &["CREATE TABLE quorate_look (name TEXT PRIMARY KEY)"];
    let look = RoomTables { room: "look", versions };
    store.declare(look).await.unwrap();
    closed(store).await;
    let rooms = vec![Room {
        tables: look,
        fate: Fate::Where { can: Can::KeepViews, tables: &[], what: "views: drop them" },
        leaving: None,
    }];
    let order = Order { from: here.clone(), to: there.clone(), rooms, verify: false };
    let store = world.open(&here).await.unwrap();
    let put = "INSERT INTO quorate_look (name) VALUES ('sales')";
    store.transact(move |tx| Box::pin(async move { tx.room_execute(put, &[]).await })).await.unwrap();
    closed(store).await;
    let tried = relocate(&world.env, &order, Arc::new(|_, _, _| {})).await;
    assert!(matches!(&tried, Err(MoveError::Refused { obstacles }) if obstacles[0].contains("drop them")), "{tried:?}");
    let store = world.open(&here).await.unwrap();
    let drop = "DELETE FROM quorate_look";
    store.transact(move |tx| Box::pin(async move { tx.room_execute(drop, &[]).await })).await.unwrap();
    closed(store).await;
    relocate(&world.env, &order, Arc::new(|_, _, _| {})).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_place_that_is_taken_or_empty_is_refused() {
    let world = world!();
    let (here, there) = (world.embedded("here.db"), world.database("there"));
    let nowhere = world.to(&world.embedded("nowhere.db"), &there).await;
    assert!(matches!(nowhere, Err(MoveError::Absent { .. })), "{nowhere:?}");
    let nowhere = world.to(&there, &here).await;
    assert!(matches!(nowhere, Err(MoveError::Absent { .. })), "{nowhere:?}");
    let same = world.to(&here, &world.embedded("other.db")).await;
    assert!(matches!(same, Err(MoveError::SameEngine { .. })), "{same:?}");

    let (store, other) = (world.open(&here).await.unwrap(), world.open(&there).await.unwrap());
    fill(&store, 5).await;
    let held = world.to(&here, &there).await;
    assert!(matches!(held, Err(MoveError::Open(OpenError::Locked { .. }))), "its node runs: {held:?}");
    closed(store).await;
    let taken = world.to(&here, &there).await;
    assert!(matches!(taken, Err(MoveError::Occupied { .. })), "{taken:?}");
    let taken = world.to(&there, &here).await;
    assert!(matches!(taken, Err(MoveError::Occupied { .. })), "{taken:?}");
    fill(&other, 5).await;
    assert!(world.open(&here).await.is_ok(), "both are as they were");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_destination_that_took_in_something_else_is_refused() {
    let world = world!();
    let (here, there) = (world.embedded("here.db"), world.database("there"));
    let store = world.open(&here).await.unwrap();
    fill(&store, 2_500).await;
    closed(store).await;
    assert!(!moves_and_dies(&world, &here, &there, 2).await);
    // An event's bytes are changed, and its hash with them: a chain of another past.
    let client = world.stranger().await;
    let s = world.config("there").schema;
    let swap = format!(
        "WITH last AS (SELECT max(position) AS p FROM {s}.log)
         UPDATE {s}.event SET body = (SELECT body FROM {s}.event WHERE id = (SELECT p - 1 FROM last)) WHERE id = (SELECT p FROM last)"
    );
    assert_eq!(client.execute(&swap, &[]).await.unwrap(), 1);
    let diverged = world.to(&here, &there).await;
    assert!(matches!(diverged, Err(MoveError::Diverged { .. })), "{diverged:?}");
    assert!(world.open(&here).await.is_ok());
}

/// Nodes of the version before may be at work over an open store, and none over one that is on its way.
#[tokio::test(flavor = "multi_thread")]
async fn a_move_upgrades_no_tables_but_those_of_a_store_that_is_on_its_way() {
    let world = world!();
    let (from, to) = (world.database("from"), world.embedded("to"));
    let store = world.open(&from).await.unwrap();
    fill(&store, 200).await;
    closed(store).await;
    let (stranger, s) = (world.stranger().await, world.config("from").schema);
    let older = format!(
        "ALTER TABLE {s}.stream DROP COLUMN metadata; ALTER TABLE {s}.pending DROP COLUMN first; DROP TABLE {s}.metadata; \
         UPDATE {s}.meta SET version = 4"
    );
    let version = async || {
        let row = stranger.query_typed_one(&format!("SELECT version FROM {s}.meta"), &[]).await.unwrap();
        row.get::<_, i32>(0)
    };
    stranger.batch_execute(&older).await.unwrap();
    let refused = world.to(&from, &to).await.unwrap_err();
    assert!(matches!(refused, MoveError::Open(OpenError::Unsuitable { .. })), "{refused:?}");
    assert_eq!(version().await, 4);
    closed(world.open(&from).await.unwrap()).await;
    world.to(&from, &to).await.unwrap();
    stranger.batch_execute(&older).await.unwrap();
    world.to(&from, &to).await.unwrap();
    assert_eq!(version().await, 5);
}
