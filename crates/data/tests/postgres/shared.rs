//! What the tests of the PostgreSQL store share.

use std::{
    path::PathBuf,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use quorate_data::{
    event::NewEvent,
    store::{AppendBatch, ExpectedVersion, Limits, Store, conformance::Place, postgres},
};
use quorate_runtime::{BoxFuture, Env};
use tokio_postgres::Client;

use crate::{
    bouncer::{self, Bouncer},
    server,
};
pub(crate) use crate::{cable::Cable, stranger::stranger};

/// A schema with one store in it.
pub(crate) struct Schema {
    pub(crate) name: String,
    address: String,
    folder: tempfile::TempDir,
    /// The network of the process that has the store open now.
    cable: std::sync::Mutex<Cable>,
    /// Nodes reach the server through it.
    bouncer: Option<Bouncer>,
}

static MADE: AtomicUsize = AtomicUsize::new(0);

impl Schema {
    /// A new one, or nothing where there is no server.
    pub(crate) fn new() -> Option<Self> {
        let address = server::address()?;
        let name = format!("t_{}_{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        let cable = std::sync::Mutex::new(Cable::default());
        Some(Self { name, address, folder: tempfile::tempdir().unwrap(), cable, bouncer: None })
    }

    /// The same behind a proxy that pools transactions, or nothing where there is none.
    pub(crate) fn pooled() -> Option<Self> {
        let schema = Self::new()?;
        let bouncer = Some(Bouncer::before(&schema.address)?);
        Some(Self { bouncer, ..schema })
    }

    pub(crate) fn config(&self, limits: Limits) -> postgres::Config {
        // By this name the server knows this store's connections.
        let server = self.bouncer.as_ref().map_or_else(|| self.address.clone(), |bouncer| bouncer.address("postgres"));
        let address = format!("{server}?application_name={}", self.name);
        postgres::Config {
            notifications: self.bouncer.is_none(),
            // As the guide says it: together, nodes hold fewer than the proxy has.
            connections: if self.bouncer.is_some() { bouncer::SERVED / 2 - 1 } else { 16 },
            schema: self.name.clone(),
            application: format!("{}_app", self.name),
            limits,
            ..postgres::Config::at(&address).unwrap()
        }
    }

    /// A node: a store with a network of its own, and the way to cut it.
    pub(crate) async fn node(&self, change: impl FnOnce(&mut postgres::Config)) -> (Store, Cable) {
        let cable = Cable::default();
        // Machines that test may be slow; what is tried here is not.
        let limits = Limits { unit_time: Duration::from_secs(20), ..Limits::default() };
        let mut config = self.config(limits);
        change(&mut config);
        let store = postgres::open(&cable.env(), config).await.unwrap();
        (store, cable)
    }

    /// Somebody else's connection to the same server.
    pub(crate) async fn stranger(&self) -> Client {
        stranger(&self.address).await
    }

    /// The address of another database of the same server.
    pub(crate) fn in_database(&self, database: &str) -> String {
        let (server, _) = self.address.rsplit_once('/').unwrap();
        format!("{server}/{database}")
    }
}

impl Place for Schema {
    fn open(&self, limits: Limits) -> BoxFuture<'_, Store> {
        let cable = Cable::default();
        *self.cable.lock().unwrap() = cable.clone();
        Box::pin(async move { postgres::open(&cable.env(), self.config(limits)).await.unwrap() })
    }

    /// What a kill leaves of a process is that its connections end.
    fn crash(&self, store: Store) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            self.cable.lock().unwrap().cut();
            drop(store);
        })
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

pub(crate) fn event(id: impl ToString) -> NewEvent {
    let id = id.to_string();
    let data = format!("{{\"of\": {id:?}}}");
    NewEvent::new(id, "/test", "thing.happened").json(data)
}

pub(crate) fn batch(stream: &str, events: Vec<NewEvent>) -> AppendBatch {
    AppendBatch::to(stream.parse().unwrap(), ExpectedVersion::Any, events)
}

/// The environment of a process whose network nobody cuts.
pub(crate) fn env() -> Env {
    Env::real()
}
