//! The embedded store: SQLite, one file, nothing to install.
//!
//! Picture a clerk with a pile of slips. While one page is being made durable, new slips gather; then all of them go onto
//! the next page together. One thread writes; each commit makes a whole group of appends and transactions durable with a
//! single sync, so that the price of a sync is shared and a lone writer does not wait for company.
//!
//! | file | holds |
//! |---|---|
//! | `queue`, `writer`, `core`, `unit`, `checkpoint`, `mark` | from a job to a commit, and from the log into the file |
//! | `batch`, `block` | what is made ready by the caller, and the rows of the log |
//! | `tail`, `backlog`, `index`, `run`, `identity` | the index: in memory while young, then in sorted runs |
//! | `read`, `search`, `cache`, `shared` | reading streams, the log, and queries |
//! | `conditions` | what conditional appends must not find |
//! | `inquire`, `heap` | statements of readers, within bounds |
//! | `keys`, `ledger`, `erase` | data subjects: the second file, who was erased, and erasing |
//! | `schemas` | the schemas as they were registered |
//! | `metadata`, `expiry`, `retire`, `retiring`, `archive` | retention: rules, what they hide, forgetting, moving away |
//! | `leaving`, `arriving` | moving away, and being moved into |
//! | `verify`, `tables`, `connection`, `sql` | checks, the schema, SQLite itself |
//! | `memory` | a database in memory, to try a view's statements in |
//! | `vfs` | checksums of pages, below SQLite |
//!
//! **Guarantees.** An acknowledged append survives power loss (`synchronous=FULL`); a failed sync ends the process. A full
//! disk refuses writes and loses nothing. A second process is refused. Positions are dense and in commit order.
//!
//! *When not to use it*: several machines writing to one log; see the PostgreSQL store.
//!
//! Sources: SQLite, "Write-Ahead Logging"; Gray and Reuter (1992), section 9.4, for group commit; O'Neil et al., "The
//! Log-Structured Merge-Tree" (1996), for the tail that becomes runs.

mod archive;
mod arriving;
mod backend;
mod backlog;
mod backup;
mod batch;
mod block;
mod cache;
mod checkpoint;
mod conditions;
mod connection;
mod core;
mod erase;
mod expiry;
mod functions;
mod gather;
mod heap;
mod identity;
mod index;
mod inquire;
mod inspect;
mod keys;
mod leaving;
mod ledger;
mod mark;
mod memory;
mod metadata;
mod moves;
mod open;
mod pattern;
mod queue;
mod read;
mod restore;
mod retire;
mod retiring;
mod run;
mod schemas;
mod search;
mod shared;
mod sql;
mod tables;
mod tail;
mod unit;
mod verify;
mod vfs;
mod writer;

use std::{ffi::CStr, path::PathBuf};

pub(super) use self::{arriving::arrive, leaving::leave};
pub use self::{
    backend::CAPABILITIES,
    inspect::{VerifiedFile, verify_file},
    open::{give_up_keys, open},
    restore::{restore, restore_with},
};
pub(crate) use self::{block::events_of as events_of_block, memory::Memory, run::positions_of as positions_of_run};
use super::{Limits, StoreError};
use crate::schema::RegistryPolicy;

/// The name by which SQLite knows the file system that checks a store's pages, for whoever opens a store's file besides.
/// What is written through another one reads as damaged afterwards.
///
/// # Errors
/// [`StoreError::Engine`] if SQLite refuses to know it.
pub fn file_system() -> Result<&'static CStr, StoreError> {
    vfs::name().map_err(connection::failed("registering the file system"))
}

/// Where the embedded store lives and what it accepts.
#[derive(Clone, Debug)]
pub struct Config {
    /// The database file; its folder must exist.
    pub path: PathBuf,
    /// What it accepts at most.
    pub limits: Limits,
    /// The rules for schemas, and for events that have none.
    pub schemas: RegistryPolicy,
}

impl Config {
    /// A store at `path` with the default limits and rules.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), limits: Limits::default(), schemas: RegistryPolicy::default() }
    }
}
