//! Materialized views: the answer to a question, kept beside the log and kept up to date.
//!
//! Think of the score board beside a playing field. Nobody adds up the goals again when asked for the score; somebody
//! watches the game and changes the board with each goal. If the board is lost, or should show something else, it is made
//! again from the record of the game, while the old one stays up until the new one is ready.
//!
//! A [`Projection`] says which events, which tables, and how one changes the other. The rows of a view and its
//! *checkpoint*, the position up to which they hold, commit in one transaction of the store.
//!
//! *When not to use it*: where a [query of the log](crate::store::Query) or a fold of one stream is fast enough; or to
//! decide upon a command, unless the view is kept in the append's own transaction.
//!
//! # Versions side by side
//! A view has a *version*, which its code says, and *builds*, which the store counts. A build is one set of tables filled
//! from the log's beginning: the first one, one for each later version, one for each rebuild. Build 12 of view `loans`
//! keeps its table `loan` as `view__loans__12__loan` (see [`Namespace`]), so builds never touch each other's rows, and
//! what they share is only the log. One build is *live*: that is the one readers are given. Switching is one row in one
//! transaction.
//!
//! The application may read `view__…` tables in its own statements, and never writes them. Code of a projection reaches the
//! tables of its own build and nothing else; the store's authorizer sees to it.

mod name;
mod projection;
mod tx;

pub(crate) use name::TABLE_PREFIX;
pub use name::{Build, Namespace, ViewName, ViewNameError};
pub use projection::{ApplyError, EffectType, Fingerprint, InvalidSchema, OnRebuild, Projection, Schema};
pub use tx::ViewTx;
