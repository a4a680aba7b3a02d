//! Live queries: the rows of a table as they change.
//!
//! A follower is told all rows first, and then each row that is inserted, updated or deleted, by its key. It comes back with
//! the cursor of the last thing it was told and misses nothing, deletions included: which keys changed is on record, in the
//! transaction that changed them.
//!
//! # The record
//! For each followed table of a build, a table of its own says of every key that changed, once: when last (a number that
//! counts changes), whether the row is gone, and since which change it has been there. Triggers write it, so whatever changes a row is on record:
//! batches, parked events that are applied later, erasures. It is kept from the first follower on until nobody has followed
//! for ten minutes, and holds the last [`QueryLimits::changes`](super::QueryLimits): views that nobody follows pay nothing.
//!
//! # Starting over
//! A follower whose cursor is older than the record, or of a build that readers no longer have, cannot be told only what
//! changed. It is told so ([`Batch::reset`]), and then all rows again.
//!
//! *What it does not see*: rows that `INSERT OR REPLACE` displaces by a unique index other than the key.

mod changes;
mod follower;
mod recording;
mod told;

pub use follower::Follower;
pub(crate) use recording::TABLES;
pub(super) use recording::{Following, end_all, resume_tending};
pub use told::{Batch, Change, ChangeKind, FollowQuery, Reset};

use std::time::Duration;

/// How long changes are recorded after the last follower has gone.
pub(super) const KEPT: Duration = Duration::from_secs(600);
