//! The rules of queues over the embedded store: one text with `tests/queues_postgres`.
#![expect(clippy::unwrap_used, reason = "a test ends where it is surprised")]

mod rules;

use quorate_data::store::{Store, sqlite};
use quorate_runtime::Env;

/// Where a store is.
pub(crate) struct Place(tempfile::TempDir);

/// A place of its own.
pub(crate) fn place() -> Place {
    Place(tempfile::tempdir().unwrap())
}

impl Place {
    /// A process that has the store open: the only one.
    pub(crate) async fn open(&self) -> Store {
        sqlite::open(&Env::real(), sqlite::Config::at(self.0.path().join("log.db"))).await.unwrap()
    }
}
