//! The transport over queues, with each of its members at a process of its own.

use std::sync::Arc;

use quorate_communication::{
    message_queue::Queues,
    transports::{
        Embedded, Transport,
        conformance::{self, Place as Broker},
    },
};
use quorate_data::store::Store;
use quorate_runtime::{BoxFuture, Env};
use tokio::sync::Mutex;

use crate::{Place, place};

struct Bus {
    env: Env,
    place: Place,
    stores: Mutex<Vec<Store>>,
}

impl Broker for Bus {
    fn env(&self) -> &Env {
        &self.env
    }

    fn transport(&self) -> BoxFuture<'_, Arc<dyn Transport>> {
        Box::pin(async move {
            let store = self.place.open().await;
            let transport = Embedded::new(&store, Queues::open(&store).await.unwrap());
            self.stores.lock().await.push(store);
            Arc::new(transport) as Arc<dyn Transport>
        })
    }

    fn kill(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            for store in self.stores.lock().await.drain(..) {
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

#[tokio::test(flavor = "multi_thread")]
async fn the_transport_over_queues_keeps_the_promises_of_transports_at_several_processes() {
    conformance::all(&Bus { env: Env::real(), place: place(), stores: Mutex::default() }).await;
}
