//! The rules of queues over PostgreSQL, one text with `tests/queues`, and what holds of several processes on one queue.
#![expect(clippy::unwrap_used, reason = "a test ends where it is surprised")]

#[path = "../../../data/tests/sqlite/child.rs"]
mod child;
mod killed;
#[path = "../queues/rules.rs"]
mod rules;
mod runs;
#[path = "../../../data/tests/postgres/server.rs"]
#[allow(dead_code, reason = "other tests end the server")]
mod server;
mod several;
mod transport;

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use quorate_data::store::{Limits, Store, postgres};
use quorate_runtime::Env;

/// A schema with one store in it.
pub(crate) struct Place {
    address: String,
    schema: String,
}

static MADE: AtomicUsize = AtomicUsize::new(0);

/// A place of its own.
pub(crate) fn place() -> Place {
    let Some(address) = server::address() else {
        // It was said, and there is nothing that these tests could try.
        std::process::exit(0);
    };
    Place { address, schema: format!("q_{}_{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed)) }
}

impl Place {
    /// The same place for another process to open, as a text.
    pub(crate) fn to_text(&self) -> String {
        format!("{}|{}", self.address, self.schema)
    }

    pub(crate) fn from_text(text: &str) -> Self {
        let (address, schema) = text.split_once('|').unwrap();
        Self { address: address.to_owned(), schema: schema.to_owned() }
    }

    /// One more process that has the store open.
    pub(crate) async fn open(&self) -> Store {
        // Machines that test may be slow; what is tried here is not.
        self.open_with(Duration::from_secs(20), Duration::from_secs(30)).await
    }

    /// The same where a transaction takes at most `unit_time`, and waits for others as long as it has `patience`.
    pub(crate) async fn open_with(&self, unit_time: Duration, patience: Duration) -> Store {
        let limits = Limits { unit_time, ..Limits::default() };
        let config = postgres::Config {
            schema: self.schema.clone(),
            application: format!("{}_app", self.schema),
            connections: 4,
            patience,
            limits,
            ..postgres::Config::at(&self.address).unwrap()
        };
        postgres::open(&Env::real(), config).await.unwrap()
    }
}
