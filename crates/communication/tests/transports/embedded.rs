//! The embedded transport: its broker is the store, which ends with the process.

use std::sync::Arc;

use quorate_communication::{
    message_queue::{Config, Queues},
    transports::{
        Embedded, Topic, Transport,
        conformance::{self, Place},
    },
};
use quorate_data::store::{Store, sqlite};
use quorate_runtime::{BoxFuture, Env};
use tokio::sync::Mutex;

struct Bus {
    env: Env,
    folder: tempfile::TempDir,
    store: Mutex<Option<Store>>,
}

impl Bus {
    fn new() -> Self {
        Self { env: Env::real(), folder: tempfile::tempdir().unwrap(), store: Mutex::default() }
    }
}

impl Place for Bus {
    fn env(&self) -> &Env {
        &self.env
    }

    fn transport(&self) -> BoxFuture<'_, Arc<dyn Transport>> {
        Box::pin(async move {
            let mut kept = self.store.lock().await;
            if kept.is_none() {
                let config = sqlite::Config::at(self.folder.path().join("bus.db"));
                *kept = Some(sqlite::open(&self.env, config).await.unwrap());
            }
            let store = kept.as_ref().unwrap();
            Arc::new(Embedded::new(store, Queues::open(store).await.unwrap())) as Arc<dyn Transport>
        })
    }

    fn kill(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            if let Some(store) = self.store.lock().await.take() {
                store.close().await.unwrap();
            }
        })
    }

    fn start(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }

    fn outlives(&self) -> bool {
        false
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_embedded_transport_keeps_the_promises_of_transports() {
    conformance::all(&Bus::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_joins_a_group_leaves_its_queue_as_others_have_declared_it() {
    let bus = Bus::new();
    let transport = bus.transport().await;
    let (orders, billing) = (Topic::new("orders".parse().unwrap()), "billing".parse().unwrap());
    let first = Topic { max_messages: 500, ..orders.clone() };
    drop(transport.join(&first, &billing).await.unwrap());
    let store = bus.store.lock().await.clone().unwrap();
    let queues = Queues::open(&store).await.unwrap();
    let queue = queues.get(&"orders.billing".parse().unwrap()).unwrap();
    assert_eq!(
        (queue.config().max_messages, queue.config().lease_ttl),
        (500, first.hold),
        "a new one is as its topic says"
    );
    let operated = Config { paused: true, max_attempts: 3, ..(*queue.config()).clone() };
    queues.declare(queue.name(), operated.clone()).await.unwrap();
    drop(transport.join(&orders, &billing).await.unwrap());
    assert_eq!(*queue.config(), operated);
}
