//! The store: an append-only log of events and the application's own tables, under one transaction.
//!
//! Think of a ledger with an index. Everything that happened is written down once, in order, and never changed; beside
//! it lie tables that whoever needs them keeps up to date. A [`transact`](Store::transact) closure may append to several
//! streams, change tables, and record what it has seen, and all of it becomes durable together or not at all. Everything
//! else in quorate that must survive a crash (projections, queues, sagas, subscriptions) is built from this one move.
//!
//! *When not to use it*: blobs beyond a megabyte (store them elsewhere, append their hash), or data nobody will ask the
//! history of.
//!
//! # Example
//! ```
//! use quorate_data::{event::NewEvent, store::{AppendBatch, ExpectedVersion, ReadStream, sqlite}};
//! # tokio::runtime::Runtime::new()?.block_on(async {
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("shop.db");
//! let store = sqlite::open(&quorate_runtime::Env::real(), sqlite::Config::at(path)).await?;
//! let order = "order-17".parse()?;
//! let placed = NewEvent::new("e-1", "/shop", "order.placed").json(&br#"{"items": 3}"#[..]);
//! let appended = store.append(AppendBatch::to(order, ExpectedVersion::NoStream, vec![placed])).await?;
//! assert_eq!(appended.version().get(), 1);
//!
//! let page = store.read_stream(ReadStream::forward("order-17".parse()?, 100)).await?;
//! assert_eq!(page.events[0].kind(), "order.placed");
//! # store.close().await?;
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! ```
//!
//! Sources: Helland, "Immutability Changes Everything" (2015), for the log; the DCB specification for conditional
//! appends; Gray and Reuter (1992), section 9.4, for group commit.

mod append;
pub mod archive;
mod backend;
mod chains;
mod checked;
pub mod conformance;
pub mod erasure;
mod error;
mod follower;
mod handle;
mod hybrid_clock;
mod inbox;
mod inquiry;
mod limits;
pub mod moving;
pub mod postgres;
mod query;
mod reserved;
pub mod retention;
mod rooms;
mod shape;
pub mod sqlite;
mod token;
mod tx;
mod verify;

pub use append::{AppendBatch, AppendCondition, AppendError, Appended, ExpectedVersion, StreamAppend};
pub use backend::{
    Aborted, ArchiveOrder, Backend, Capabilities, Committed, Progress, Retire, Retired, Statistics, StreamSummary,
    Unit, UnitError,
};
pub use checked::{CheckedBatch, Look, Looked, Objection, Spent};
pub use erasure::{EraseError, EraseHook};
pub use error::{OpenError, Retry, StoreError};
pub use follower::{Follower, FollowerError};
pub use handle::Store;
pub use hybrid_clock::{HybridClock, HybridClockError};
pub use inbox::{First, Inbox, InboxError};
pub use inquiry::{Bound, Bounds, Findings, Found, Inquiry, Statement, TableColumn};
pub use limits::Limits;
pub use query::{Direction, InvalidQuery, LogPage, Query, QueryItem, ReadLog, ReadStream, StreamHead, StreamPage};
pub use reserved::reserved_for;
pub use retention::{
    Archive, ArchiveError, InvalidMetadata, MetadataError, Rules, Scavenged, SetMetadata, StreamMetadata,
};
pub use rooms::RoomTables;
pub use token::{Timeline, Token, TokenError};
pub use tx::{AfterCommit, DynTx, Row, Scope, SqlError, Step, TransactError, TxOps, Value};
pub use verify::{Finding, Verified};
