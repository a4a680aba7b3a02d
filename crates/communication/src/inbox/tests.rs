use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use quorate_data::{
    event::NewEvent,
    store::{DynTx, SqlError, Store, sqlite},
    subscription::Backoff,
};
use quorate_runtime::Env;

use super::{Failed, Inbox, InboxConfig, InboxError, Replayed, Selection, handling::Became};
use crate::{
    message_queue::Queues,
    transports::{Embedded, Faults, Faulty, Incoming, Outgoing, Topic, Transport},
};

/// Two services, each with a store: one is the bus, the other the consumer's.
struct World {
    _folder: tempfile::TempDir,
    store: Store,
    bus: Embedded,
}

impl World {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let open =
            async |file: &str| sqlite::open(&Env::real(), sqlite::Config::at(folder.path().join(file))).await.unwrap();
        let (bus, store) = (open("bus.db").await, open("billing.db").await);
        let table = "CREATE TABLE done (place INTEGER PRIMARY KEY, id TEXT NOT NULL)";
        store.transact(move |tx| Box::pin(tx.execute(table, &[]))).await.unwrap();
        let bus = Embedded::new(&bus, Queues::open(&bus).await.unwrap());
        Self { _folder: folder, store, bus }
    }

    async fn publish(&self, key: &str, id: &str) {
        let message = Outgoing::new(key, NewEvent::new(id, "/shop", "order.placed").json("{}"));
        self.bus.publish(&topic(), vec![message]).await.remove(0).unwrap();
    }

    /// What took effect, in order.
    async fn done(&self) -> Vec<String> {
        let rows = self.store.query("SELECT id FROM done ORDER BY place", vec![]).await.unwrap();
        rows.iter().map(|row| row.at(0).as_str().unwrap().to_owned()).collect()
    }

    async fn until<F: AsyncFn() -> bool>(&self, what: &str, holds: F) {
        let reached = async {
            while !holds().await {
                self.store.env().sleep(Duration::from_millis(5)).await;
            }
        };
        assert!(self.store.env().timeout(Duration::from_secs(30), reached).await.is_some(), "not reached: {what}");
    }

    /// An inbox whose handler fails for messages whose ids begin with `bad`, as long as that is so.
    async fn inbox(&self, config: InboxConfig, is_broken: &Arc<AtomicBool>) -> Inbox {
        let is_broken = is_broken.clone();
        let started = Inbox::start(&self.store, Arc::new(self.bus.clone()), config, move |tx, message| {
            let fails = message.event.id.starts_with("bad") && is_broken.load(Ordering::SeqCst);
            Box::pin(async move {
                if fails {
                    return Err(Failed::again("it is broken"));
                }
                Ok(count(tx, &message).await?)
            })
        });
        started.await.unwrap()
    }
}

async fn count(tx: &mut DynTx, message: &Incoming) -> Result<(), SqlError> {
    tx.execute("INSERT INTO done (id) VALUES ($1)", &[(&*message.event.id).into()]).await.map(drop)
}

fn topic() -> Topic {
    Topic::new("orders".parse().unwrap())
}

fn config() -> InboxConfig {
    let backoff = Backoff { first: Duration::from_millis(1), max: Duration::from_millis(5) };
    InboxConfig { max_attempts: 3, backoff, ..InboxConfig::of(topic(), "billing".parse().unwrap()) }
}

fn incoming(id: &str) -> Incoming {
    let event = NewEvent::new(id, "/shop", "order.placed").json("{}");
    let identity = Outgoing::new("a", event.clone()).identity();
    Incoming { identity, key: "a".into(), event, unreadable: None, redelivered: true, attempt: 2 }
}

#[tokio::test]
async fn lost_acknowledgements_and_broken_connections_make_no_second_effect_and_reorder_no_key() {
    let world = World::new().await;
    let faults = Faults { broken: 100, lost_acks: 400, ..Faults::default() };
    let faulty = Arc::new(Faulty::new(world.store.env(), world.bus.clone(), faults));
    let inbox = Inbox::start(&world.store, faulty, InboxConfig { max_attempts: 1_000, ..config() }, |tx, message| {
        Box::pin(async move { Ok(count(tx, &message).await?) })
    });
    let inbox = inbox.await.unwrap();
    for n in 0..20 {
        for key in ["a", "b", "c"] {
            world.publish(key, &format!("{key}{n:02}")).await;
        }
    }
    world.until("all took effect", async || world.done().await.len() >= 60).await;
    inbox.stop().await;
    let mut by_key: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for id in world.done().await {
        by_key.entry(id[..1].to_owned()).or_default().push(id);
    }
    for (key, ids) in by_key {
        assert_eq!(ids, (0..20).map(|n| format!("{key}{n:02}")).collect::<Vec<_>>());
    }
    assert!(inbox.counts().repeated > 0, "{:?}", inbox.counts());
}

#[tokio::test]
async fn a_message_that_fails_for_the_last_time_is_parked_with_its_key_and_replayed_in_order() {
    let world = World::new().await;
    let is_broken = Arc::new(AtomicBool::new(true));
    let inbox = world.inbox(config(), &is_broken).await;
    for (key, id) in [("a", "bad"), ("a", "a2"), ("b", "b1"), ("a", "a3")] {
        world.publish(key, id).await;
    }
    world.until("three are parked", async || inbox.describe().await.unwrap().parked == 3).await;
    world.until("the other key went on", async || world.done().await == ["b1"]).await;
    let parked = inbox.parked(0, 10).await.unwrap();
    let ids: Vec<&str> = parked.iter().map(|parked| &*parked.message.event.id).collect();
    assert_eq!((ids, parked[0].attempts), (vec!["bad", "a2", "a3"], 3));
    assert!(parked[0].failures.iter().all(|failure| failure.reason.contains("broken")), "{:?}", parked[0]);
    assert_eq!(parked[0].failures.len(), 3);
    assert!(parked[1].failures[0].reason.contains("of its key"), "{:?}", parked[1]);

    assert_eq!(inbox.replay(&Selection::All).await.unwrap(), Replayed { done: 0, failed: 1 });
    is_broken.store(false, Ordering::SeqCst);
    assert_eq!(inbox.replay(&Selection::Message("/shop a2".into())).await.unwrap(), Replayed { done: 2, failed: 0 });
    assert_eq!(world.done().await, ["b1", "bad", "a2"]);
    world.publish("a", "a4").await;
    world.until("what comes is parked behind", async || inbox.describe().await.unwrap().parked == 2).await;
    assert_eq!(inbox.replay(&Selection::Key("a".into())).await.unwrap(), Replayed { done: 2, failed: 0 });
    world.publish("a", "a5").await;
    world.until("the key is free", async || world.done().await == ["b1", "bad", "a2", "a3", "a4", "a5"]).await;
    let nowhere = inbox.replay(&Selection::Message("/shop a2".into())).await;
    assert!(matches!(nowhere, Err(InboxError::NotParked { .. })));
    inbox.stop().await;
}

#[tokio::test]
async fn what_a_handler_has_to_wait_for_costs_no_attempt() {
    let world = World::new().await;
    let is_there = Arc::new(AtomicBool::new(false));
    let seen = is_there.clone();
    let config = InboxConfig { max_attempts: 2, ..config() };
    let inbox = Inbox::start(&world.store, Arc::new(world.bus.clone()), config, move |tx, message| {
        let is_there = seen.load(Ordering::SeqCst);
        Box::pin(async move {
            if !is_there {
                return Err(Failed::not_now("the queue is full"));
            }
            Ok(count(tx, &message).await?)
        })
    });
    let inbox = inbox.await.unwrap();
    world.publish("a", "1").await;
    world.publish("a", "2").await;
    world.until("it was tried twice", async || inbox.counts().held_back > 1).await;
    let redelivered = Arc::new(Incoming { key: "b".into(), ..incoming("3") });
    for _time in 0..2 {
        let again = inbox.work.handle(&redelivered).await;
        assert!(matches!(again, Err(InboxError::NotNow { .. })), "{again:?}");
    }
    let description = inbox.describe().await.unwrap();
    assert_eq!((description.parked, description.last_error.unwrap().1), (0, "the queue is full".to_owned()));
    is_there.store(true, Ordering::SeqCst);
    world.until("both took effect", async || world.done().await == ["1", "2"]).await;
    inbox.stop().await;
}

#[tokio::test]
async fn what_is_discarded_never_takes_effect_also_when_it_comes_again() {
    let world = World::new().await;
    let inbox = world.inbox(config(), &Arc::new(AtomicBool::new(true))).await;
    world.publish("a", "bad").await;
    world.until("it is parked", async || inbox.describe().await.unwrap().parked == 1).await;
    assert_eq!(inbox.discard(&Selection::All).await.unwrap(), 1);
    let again = inbox.work.handle(&Arc::new(incoming("bad"))).await.unwrap();
    assert!(matches!(again, Became::Repeated), "{again:?}");
    assert_eq!((world.done().await.len(), inbox.describe().await.unwrap().parked), (0, 0));
    inbox.stop().await;
}

#[tokio::test]
async fn a_handler_that_panics_has_failed_and_one_that_ends_its_process_each_time_is_parked() {
    let world = World::new().await;
    let calls = Arc::new(AtomicUsize::default());
    let counted = calls.clone();
    let inbox = Inbox::start(&world.store, Arc::new(world.bus.clone()), config(), move |_, _| {
        counted.fetch_add(1, Ordering::SeqCst);
        panic!("the handler is out of its mind")
    });
    let inbox = inbox.await.unwrap();
    world.publish("a", "1").await;
    world.until("it is parked", async || inbox.describe().await.unwrap().parked == 1).await;
    let parked = inbox.parked(0, 10).await.unwrap();
    assert!(parked[0].failures[0].reason.contains("out of its mind"), "{parked:?}");
    assert_eq!(calls.load(Ordering::SeqCst), 3);

    // So far a process gets each time that dies in the handler.
    let deadly = Arc::new(Incoming { key: "b".into(), ..incoming("2") });
    for attempt in 2..=3 {
        assert_eq!(inbox.work.begin(&deadly).await.unwrap(), attempt);
    }
    assert!(matches!(inbox.work.handle(&deadly).await.unwrap(), Became::Parked));
    assert_eq!(calls.load(Ordering::SeqCst), 3, "it is not tried once more");
    inbox.stop().await;
}

#[tokio::test]
async fn what_cannot_be_read_and_what_the_broker_gave_up_on_are_parked_once() {
    let world = World::new().await;
    let inbox = world.inbox(config(), &Arc::default()).await;
    let garbled = Arc::new(Incoming { unreadable: Some("it has no id".to_owned()), ..incoming("1") });
    for _copy in 0..2 {
        assert!(matches!(inbox.work.handle(&garbled).await.unwrap(), Became::Parked));
    }
    let given_up = Arc::new(Incoming { key: "b".into(), ..incoming("2") });
    for _copy in 0..2 {
        let became = inbox.work.park(&given_up, crate::message_queue::Cause::Parked, "the broker gave up on it").await;
        assert!(matches!(became.unwrap(), Became::Parked));
    }
    let parked = inbox.parked(0, 10).await.unwrap();
    assert_eq!(parked.len(), 2);
    assert_eq!(parked[1].message.event, given_up.event);
    // What cannot be read does not become readable; what the broker gave up on may well go now.
    assert_eq!(inbox.replay(&Selection::All).await.unwrap(), Replayed { done: 1, failed: 1 });
    assert_eq!(world.done().await, ["2"]);
    inbox.stop().await;
}

#[tokio::test]
async fn when_too_many_are_parked_further_ones_stay_with_the_broker() {
    let world = World::new().await;
    let is_broken = Arc::new(AtomicBool::new(true));
    let inbox = world.inbox(InboxConfig { max_parked: 1, max_attempts: 1, ..config() }, &is_broken).await;
    world.publish("a", "bad1").await;
    world.until("one is parked", async || inbox.describe().await.unwrap().parked == 1).await;
    world.publish("b", "bad2").await;
    world.until("another is held back", async || inbox.counts().held_back > 0).await;
    let description = inbox.describe().await.unwrap();
    assert_eq!(description.parked, 1);
    assert!(description.last_error.unwrap().1.contains("limit is 1"));
    is_broken.store(false, Ordering::SeqCst);
    world.publish("b", "b2").await;
    world.until("it is tried again", async || world.done().await == ["bad2", "b2"]).await;
    inbox.stop().await;
}

#[tokio::test]
async fn what_is_parked_about_a_data_subject_goes_when_it_is_erased() {
    let world = World::new().await;
    let inbox = world.inbox(config(), &Arc::default()).await;
    let mut personal = incoming("1");
    personal.event = personal.event.about("customer-4");
    personal.unreadable = Some("quoting: {}".to_owned());
    assert!(matches!(inbox.work.handle(&Arc::new(personal)).await.unwrap(), Became::Parked));
    assert!(inbox.parked(0, 10).await.unwrap()[0].message.event.data.is_some());
    world.store.erase("customer-4").await.unwrap();
    let parked = inbox.parked(0, 10).await.unwrap();
    assert_eq!((parked[0].message.event.data.clone(), parked[0].failures.len()), (None, 0));
    inbox.stop().await;
}

#[tokio::test]
async fn parked_messages_that_are_large_can_be_listed_replayed_and_discarded() {
    let world = World::new().await;
    let inbox = world.inbox(config(), &Arc::default()).await;
    for n in 0..24 {
        let mut large = incoming(&format!("{n:02}"));
        large.event.data = Some(vec![b' '; 1 << 20].into());
        large.key = format!("k{}", n % 8).into();
        let parked = inbox.work.park(&Arc::new(large), crate::message_queue::Cause::Parked, "for a test").await;
        assert!(matches!(parked.unwrap(), Became::Parked));
    }
    let page = inbox.parked(0, 100).await.unwrap();
    assert!((1..=5).contains(&page.len()), "a page ends early, and holds something: {}", page.len());
    assert_eq!(inbox.discard(&Selection::Key("k7".into())).await.unwrap(), 3);
    assert_eq!(inbox.replay(&Selection::All).await.unwrap(), Replayed { done: 21, failed: 0 });
    assert_eq!((world.done().await.len(), inbox.describe().await.unwrap().parked), (21, 0));
    inbox.stop().await;
}

#[tokio::test]
async fn the_id_of_a_message_that_goes_on_coming_is_kept_from_its_last_copy_on() {
    let world = World::new().await;
    let inbox = world.inbox(config(), &Arc::default()).await;
    let message = Arc::new(Incoming { redelivered: false, ..incoming("1") });
    assert!(matches!(inbox.work.handle(&message).await.unwrap(), Became::Done));
    // As if it had been taken long ago.
    let renew = |age: Duration| {
        let (work, message) = (inbox.work.shared(), message.clone());
        world.store.transact(move |tx| {
            let (work, message) = (work.clone(), message.clone());
            Box::pin(async move { tx.renew(&work.ids, &message.identity, age).await })
        })
    };
    assert!(!renew(Duration::from_secs(60)).await.unwrap(), "what is young is left as it is");
    assert!(renew(Duration::ZERO).await.unwrap());
    assert!(matches!(inbox.work.handle(&message).await.unwrap(), Became::Repeated));
    inbox.stop().await;
}

#[tokio::test]
async fn messages_that_wait_for_their_turn_are_held_for_as_long_as_that_takes() {
    let world = World::new().await;
    let hold = Duration::from_secs(4);
    let config = InboxConfig { topic: Topic { hold, ..topic() }, concurrency: 1, ..config() };
    let handled = Arc::new(Mutex::new(Vec::new()));
    let seen = handled.clone();
    let inbox = Inbox::start(&world.store, Arc::new(world.bus.clone()), config, move |_, message| {
        seen.lock().unwrap().push((message.event.id.to_string(), message.attempt));
        Box::pin(async move { Ok(()) })
    });
    let inbox = inbox.await.unwrap();
    // As if one that may have ended the process took its time: the first has a place and waits for it, the second waits for a place.
    let alone = inbox.work.alone.write().await;
    for (key, id) in [("a", "1"), ("b", "2")] {
        world.publish(key, id).await;
    }
    world.store.env().sleep(hold + hold / 2).await;
    drop(alone);
    // Behind the first, and behind a copy of it if there were one.
    world.publish("a", "3").await;
    world.until("all are done", async || inbox.counts().done == 3).await;
    assert_eq!(inbox.counts().repeated, 0, "neither was handed out again meanwhile");
    inbox.stop().await;
    let mut handled = handled.lock().unwrap().clone();
    handled.sort();
    assert_eq!(handled, ["1", "2", "3"].map(|id| (id.to_owned(), 1)));
}

#[tokio::test]
async fn a_message_that_may_have_ended_the_process_is_tried_alone() {
    let world = World::new().await;
    let inbox = world.inbox(config(), &Arc::default()).await;
    let attempts = async || {
        let rows = world.store.room_query("SELECT count(*) FROM quorate_inbox_message", vec![]).await.unwrap();
        rows[0].at(0).as_i64().unwrap()
    };
    // Another one is being handled.
    let other = inbox.work.alone.read().await;
    let suspect = Arc::new(Incoming { key: "b".into(), ..incoming("2") });
    let early = world.store.env().timeout(Duration::from_millis(300), inbox.work.handle(&suspect)).await;
    assert!(early.is_none() && attempts().await == 0, "nothing is charged to it beside another one: {early:?}");
    drop(other);
    assert!(matches!(inbox.work.handle(&suspect).await.unwrap(), Became::Done));
    inbox.stop().await;
}

#[tokio::test]
async fn what_is_said_of_a_message_that_fails_goes_with_its_data_subject() {
    let world = World::new().await;
    let inbox = world.inbox(config(), &Arc::new(AtomicBool::new(true))).await;
    let mut personal = Incoming { redelivered: false, ..incoming("bad") };
    personal.event = personal.event.about("customer-4");
    assert!(matches!(inbox.work.handle(&Arc::new(personal)).await.unwrap(), Became::Again { .. }));
    let failures = async || {
        let rows = world.store.room_query("SELECT failures FROM quorate_inbox_message", vec![]).await.unwrap();
        rows[0].at(0).as_str().unwrap().to_owned()
    };
    assert!(failures().await.contains("it is broken"));
    world.store.erase("customer-4").await.unwrap();
    assert_eq!(failures().await, "[]");
    inbox.stop().await;
}
