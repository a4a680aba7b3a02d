//! Materialized views: the answer to a question, kept beside the log and kept up to date.
//!
//! Think of the score board beside a playing field. Nobody adds up the goals again when asked for the score; somebody
//! watches the game and changes the board with each goal. If the board is lost, or should show something else, it is made
//! again from the record of the game, while the old one stays up until the new one is ready.
//!
//! Without Rust, a document says the same: see [`declared`].
//!
//! A [`Projection`] says which events, which tables, and how one changes the other. [`Views`] keeps views up to date and is
//! what an operator talks to; a [`View`] is what readers have.
//!
//! *When not to use it*: where a [query of the log](crate::store::Query) or a fold of one stream is fast enough; or to
//! decide upon a command, unless the view is kept in the append's own transaction.
//!
//! # Versions side by side
//! A view has a *version*, which its code says, and *builds*, which the store counts. A build is one set of tables filled
//! from the log's beginning: the first one, one for each later version, one for each rebuild. Build 12 of view `loans`
//! keeps its table `loan` as `view__loans__12__loan` (see [`Namespace`]), so builds never touch each other's rows, and
//! what they share is only the log. One build is *live*: that is the one readers are given. Switching is one row in one
//! transaction, and happens only once the other build has seen all that readers have seen: they never see a half-built view,
//! and never an older one.
//!
//! The application may read `view__…` tables in its own statements, and never writes them. Code of a projection reaches the
//! tables of its own build and nothing else; the store's authorizer sees to it.
//!
//! # What holds when things go wrong
//! * **A view is the fold of the log.** Rows, checkpoint, parked events and [effects](ViewTx::effect) of a batch commit in one
//!   transaction, so a crash at any point leaves a view as of its checkpoint. [`View::audit`] recounts the log and says
//!   whether an event was missed or taken twice: positions are dense, so it can tell.
//! * **One owner per shard.** An owner has an epoch; every write names it together with the checkpoint it starts from. An
//!   owner who was away and comes back late writes nothing: fences decide, not clocks. It stands by instead, and
//!   claims the shard again once the owner after it has left, or was silent for too long by the observer's own clock
//!   ([`Config::takeover`]): a shard has an owner for as long as anybody is there who could be.
//! * **Poison.** A batch that fails is halved until one event fails alone; it is tried again a few times, counted across
//!   restarts, unless it would [certainly](ApplyError::certain) fail again, and then the [policy](OnPoison) decides. A parked event holds back the later ones of its key, in order,
//!   and nobody else. What was parked or skipped, why, and by whom, is on record.
//! * **Effects** are carried out at least once, with the same key each time, after the commit that asked for them. One that fails
//!   [too often](Config::effect_attempts) is given up: it is on [record](View::effects), and tried anew when somebody
//!   [says so](View::retry_effects). Of all
//!   builds of a view only one has its effects carried out at any position: a rebuild leaves out what was carried out
//!   before, and the switch, at an exact position, releases what comes behind it.
//! * **Erasure.** A build knows the data subjects whose data it was made of. When one is erased, the projection
//!   [forgets](Projection::forget), or the build is made anew from what can still be read; the erasure is complete after
//!   that. Where no code of the view runs, the erasure fails and says so.
//! * **Changed code** under the same version is refused where a [fingerprint](Projection::fingerprint) notices: the error says
//!   what to do. Rust code that only computes otherwise is noticed by what its [probe](Projection::probe) leads to, or its
//!   [fold](Projection::fold) says, and not by itself. A [document](declared) that another version of quorate reads otherwise
//!   is made anew by itself, beside what readers have.
//! * **Inline views** share the append's transaction: once their code has caught up after the store was opened, a reader never
//!   finds the log ahead of them, and an event they cannot take is refused ([`AppendError::View`](crate::store::AppendError::View)). A transaction with a closure sees the rows
//!   of everything appended before it; of its own appends they show once it has committed.
//!
//! # Reading
//! Rows [by key](View::row), [page by page](View::rows), by [SQL](View::sql): an answer is of one build and one moment, and says
//! of which position. [`Freshness`] asks for one's own writes, or for no more than so much lag; of a view of other services'
//! events a contract says how far it may be behind what they [said](Feeds). [`View::follow`] tells all rows
//! and then those that change, deletions included; who comes back with a cursor misses nothing.
//!
//! # Where ours differs
//! From Marten's and Axon's projections: the checkpoint is not behind the rows but in their transaction, a parked event keeps
//! the order of its key, and a rebuild never touches what readers have. From both: effects are values, held during a rebuild
//! instead of switched off, so none is lost between the old build and the new one.
//!
//! Sources: Young, "CQRS Documents" (2010); Gupta and Mumick, "Maintenance of Materialized Views" (1995); Kleppmann, "How
//! to do distributed locking" (2016), for fencing; the sequenced dead-letter queue of Axon Framework.

mod accounts;
mod adopt;
mod advance;
mod ahead;
mod builds;
mod carrier;
mod claim;
mod config;
pub mod declared;
mod effects;
mod erasure;
mod error;
mod feed;
mod fold;
mod following;
mod inline;
mod look;
mod machine;
mod name;
mod open_effects;
mod parked;
mod presence;
mod projection;
mod query;
mod registered;
mod row;
mod rows;
mod runner;
mod scratch;
mod service;
mod shared;
mod switch;
#[cfg(test)]
mod tests;
mod tx;
mod view;

pub use ahead::{Prepare, Prepared};
pub use config::{Changed, Config, Mode, OnPoison, Staleness, Switch, WhenStale};
pub use declared::Kind;
pub(crate) use declared::TABLES as DOCUMENT_TABLES;
pub use effects::{Effect, EffectHandler};
pub use erasure::Forgotten;
pub use error::ViewError;
pub use feed::{FeedStanding, Feeds, Silence};
pub use fold::{Fold, Folded};
pub(crate) use following::TABLES as FOLLOW_TABLES;
pub use following::{Batch, Change, ChangeKind, FollowQuery, Follower, Reset};
pub(crate) use name::TABLE_PREFIX;
pub use name::{Build, Namespace, ViewName, ViewNameError};
pub use open_effects::OpenEffect;
pub use parked::{ParkedEvent, SkippedEvent};
pub(crate) use presence::Presence;
pub use projection::{ApplyError, EffectType, Fingerprint, InvalidSchema, OnRebuild, Projection, Schema};
pub use query::{
    Answer, AnswerColumn, AsOf, ColumnDescription, Condition, Direction, Freshness, OrderBy, QueryLimits, RowsQuery,
    TableDescription, Test,
};
pub use row::{Column, ViewRow, define};
use rows::BuildRow;
pub(crate) use rows::TABLES;
pub use scratch::{Given, Made, given};
pub use service::Views;
pub use shared::Standing;
pub use tx::ViewTx;
pub use view::{Audit, BuildDescription, Description, Reading, ShardDescription, View};

/// Every limit of views that cannot be set: its name, and the most there may be; bytes where the name ends so.
pub fn fixed_limits() -> Vec<(&'static str, usize)> {
    let own = [
        ("builds", builds::MAX_BUILDS),
        ("count", builds::MAX_VIEWS),
        ("effect-bytes", effects::MAX_PAYLOAD),
        ("effects-per-event", effects::MAX_PER_EVENT as usize),
        ("feeds", Feeds::MAX),
        ("name-bytes", name::MAX_BYTES),
        ("prepared-bytes", ahead::MAX_BYTES),
        ("page", Views::MAX_PAGE as usize),
        ("statement-memory-bytes", crate::store::Limits::VIEW_STATEMENT_BYTES),
        ("tables-and-indexes", Schema::MAX_ENTRIES),
        ("trial-events", scratch::MAX_EVENTS),
    ];
    own.into_iter().chain(declared::FIXED).chain(query::FIXED).collect()
}

/// The hash of an event's key, which says in which shard it belongs. Stored, so it never changes.
fn key_hash(key: &str) -> u32 {
    crc32fast::hash(key.as_bytes())
}
