//! The disk is full: queues are opened, tell what they hold, refuse what they cannot write, and go on when there is space; the catalogue of
//! events tells what it knows.
#![expect(clippy::unwrap_used, reason = "tests")]

#[path = "../../data/tests/sqlite/faulty.rs"]
mod faulty;

use faulty::What;
use quorate_communication::{
    event_bus::catalogue::Catalogue,
    message_queue::{Config, Delivery, NewMessage, Queue, QueueError, Queues, Receive},
};
use quorate_data::{
    event::{NewEvent, Position},
    store::{AppendBatch, ExpectedVersion, Store, StoreError, sqlite},
};
use quorate_runtime::Env;
use rusqlite::ffi;
use tempfile::TempDir;

struct Bench(TempDir);

impl Bench {
    fn new() -> Self {
        let bench = Self(tempfile::tempdir().unwrap());
        bench.clear();
        bench
    }

    async fn open(&self) -> Store {
        sqlite::open(&Env::real(), sqlite::Config::at(self.0.path().join("store.db"))).await.unwrap()
    }

    fn fill(&self) {
        faulty::on(self.0.path(), |what, _| (what == What::Write).then_some(ffi::SQLITE_FULL));
    }

    fn clear(&self) {
        faulty::mend(self.0.path());
    }
}

fn is_full<T>(outcome: &Result<T, QueueError>) -> bool {
    matches!(outcome, Err(QueueError::Store(StoreError::DiskFull)))
}

fn message(id: &str) -> NewMessage {
    NewMessage::of(NewEvent::new(id, "/test", "work.due"))
}

async fn send(queue: &Queue, id: &str) -> Result<(), QueueError> {
    queue.send(vec![message(id)]).await.map(drop)
}

fn ids(deliveries: &[Delivery]) -> Vec<&str> {
    deliveries.iter().map(|delivery| &*delivery.message.event.id).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn queues_that_are_there_are_opened_on_a_full_disk_and_go_on_when_there_is_space() {
    let bench = Bench::new();
    let name = "work".parse().unwrap();
    let store = bench.open().await;
    let queue = Queues::open(&store).await.unwrap().declare(&name, Config::default()).await.unwrap();
    send(&queue, "a").await.unwrap();
    let early = queue.receive(Receive::of(1)).await.unwrap();
    drop(queue);
    store.close().await.unwrap();
    drop(store);

    let store = bench.open().await;
    bench.fill();
    let queues = Queues::open(&store).await.expect("opening writes nothing");
    let queue = queues.get(&name).unwrap();
    assert_eq!(queue.describe().await.unwrap().counts.messages, 1);
    assert!(is_full(&send(&queue, "b").await));
    assert!(is_full(&queue.ack(&[early[0].lease]).await));
    assert!(is_full(&queues.declare(&"more".parse().unwrap(), Config::default()).await));
    assert!(is_full(&queues.delete(&name).await));
    assert_eq!(queue.describe().await.unwrap().counts.messages, 1, "nothing that was refused has happened");

    bench.clear();
    queue.ack(&[early[0].lease]).await.unwrap();
    send(&queue, "b").await.unwrap();
    assert_eq!(ids(&queue.receive(Receive::of(9)).await.unwrap()), ["b"]);
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn queues_that_find_no_space_for_their_tables_are_opened_when_there_is_some() {
    let bench = Bench::new();
    let store = bench.open().await;
    bench.fill();
    assert!(is_full(&Queues::open(&store).await.map(drop)));
    bench.clear();
    let queues = Queues::open(&store).await.unwrap();
    let queue = queues.declare(&"work".parse().unwrap(), Config::default()).await.unwrap();
    send(&queue, "a").await.unwrap();
    assert_eq!(ids(&queue.receive(Receive::of(9)).await.unwrap()), ["a"]);
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_catalogue_of_events_tells_what_it_knows_and_goes_on_when_there_is_space() {
    let bench = Bench::new();
    let store = bench.open().await;
    let append = async |id: &str| {
        let event = NewEvent::new(id, "/test", "work.due");
        let batch = AppendBatch::to("s".parse().unwrap(), ExpectedVersion::Any, vec![event]);
        store.append(batch).await.unwrap();
    };
    append("a").await;
    bench.fill();
    let catalogue = Catalogue::new(&store);
    let reach = catalogue.look().await.unwrap();
    assert_eq!((reach.scanned, reach.head, reach.is_all()), (Position::ZERO, Position::new(1), false));
    assert_eq!(catalogue.list(None, 10).await.unwrap(), [], "it has no table yet");
    assert_eq!(catalogue.get("work.due").await.unwrap(), None);

    bench.clear();
    assert!(catalogue.look().await.unwrap().is_all());
    append("b").await;
    bench.fill();
    let reach = catalogue.look().await.unwrap();
    assert_eq!((reach.scanned, reach.is_all()), (Position::new(1), false));
    assert_eq!(catalogue.get("work.due").await.unwrap().unwrap().events, 1);

    bench.clear();
    assert!(catalogue.look().await.unwrap().is_all());
    assert_eq!(catalogue.get("work.due").await.unwrap().unwrap().events, 2);
    store.close().await.unwrap();
}
