//! A consumer that did not exist when the first events were published: it makes itself a durable subscription from the beginning, and takes.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use quorate_runtime::Env;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{
    KIND,
    books::{Arrival, Books, named},
};
use crate::{
    client::{Call, Client, JSON, Target},
    exit::Failure,
    patterns::live::node::client,
};

/// Its subscription.
pub(super) const NAME: &str = "audit";
/// How many events it takes at once.
const AT_ONCE: usize = 8;
/// How long it rests when the node did not answer.
const REST: Duration = Duration::from_millis(50);

/// The consumer, and what it was told.
#[derive(Clone, Default)]
pub(super) struct Latecomer(Arc<Mutex<Told>>);

#[derive(Default)]
struct Told {
    books: Books,
    ids: BTreeSet<String>,
}

impl Latecomer {
    /// Begins to take events, until `over`.
    pub(super) async fn begin(&self, env: &Env, url: &str, over: &CancellationToken) -> Result<(), Failure> {
        let node = client(env, url)?;
        let filter = json!({ "items": [{ "types": [KIND] }] });
        let config = json!({ "filter": filter, "start": "beginning", "key": "stream", "lease-ttl": "1s" });
        node.answer(&Call::post(Target::path(&["v1", "subscriptions", NAME]), JSON, config.to_string()).put()).await?;
        let (consumer, own, over) = (self.clone(), env.clone(), over.clone());
        env.tasks().spawn("patterns-latecomer", async move {
            while !over.is_cancelled() {
                // Whatever failed, the events come again when their leases have run out.
                if consumer.take(&own, &node).await.is_err() {
                    own.sleep(REST).await;
                }
            }
        });
        Ok(())
    }

    /// What it was told so far.
    pub(super) fn books(&self) -> Books {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).books.clone()
    }

    async fn take(&self, env: &Env, node: &Client) -> Result<(), Failure> {
        let verb = |verb: &str| Target::path(&["v1", "subscriptions", NAME, verb]);
        let pull = json!({ "max": AT_ONCE, "wait": "200ms" }).to_string();
        let told = node.answer(&Call::post(verb("pull"), JSON, pull)).await?;
        let deliveries = told["deliveries"].as_array().map_or(&[][..], Vec::as_slice);
        for delivery in deliveries {
            self.hear(env, &delivery["event"]);
        }
        let leases: Vec<&Value> = deliveries.iter().map(|delivery| &delivery["lease"]).collect();
        if leases.is_empty() {
            return Ok(());
        }
        node.answer(&Call::post(verb("ack"), JSON, json!({ "leases": leases }).to_string())).await.map(drop)
    }

    fn hear(&self, env: &Env, event: &Value) {
        let Some((stream, event)) = named(event) else { return };
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = !told.ids.insert(event.clone());
        told.books.arrivals.push(Arrival { stream, event, known, at: env.boot().as_nanos() });
    }
}
