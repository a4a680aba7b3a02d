//! Moving a store to another engine: event by event, with its places.
//!
//! Think of moving house with an archive. Nobody copies files by writing them anew; boxes are carried over, each goes onto the
//! shelf with the number it had, and a slip on the new door says that nobody lives there yet. Only when every shelf was
//! counted on both sides, the old door is closed for good, with the new address on it, and the slip is taken away.
//!
//! 1. *Adopt*: events go over in batches, with their positions, bytes, chains and times as they are. Each batch is one
//!    transaction of the destination, whose own end says how far it came: that is all there is to going on after a crash.
//! 2. *Hold*: the store that is left takes no more writes. On PostgreSQL that is one open transaction with triggers in it, so
//!    that nodes may run until then; the embedded store is held by its lock from the start.
//! 3. *Carry*: what came meanwhile, and the rows of rooms, in one transaction of the destination. Rows are counted and summed up
//!    on both sides.
//! 4. *Leave*: the hold is committed: whoever opens or writes to the store that was left is told where it went.
//! 5. *Arrive*: the destination's transaction is committed, and it opens, on a timeline of its own.
//!
//! **Guarantees.** Dying before the fourth step leaves the store that is moved as it was; dying behind it leaves two stores of
//! which none takes writes. The same call goes on in either case. At no time do both take writes. What the other engine cannot
//! hold is refused by name before anything is begun, and never dropped.
//!
//! **Ordering.** Leave before arrive: the other way round, a crash between them would leave two open stores.
//!
//! *When not to use it*: to another file, or another database of the same engine; back up and restore there.
//!
//! Source: Kleppmann, "Designing Data-Intensive Applications" (2017), chapter 5, for setting up a follower from a position; the fence is
//! that of a lease's holder, chapter 8.

mod course;
mod error;
mod port;
mod room;
mod sum;
#[cfg(test)]
mod tests;

use std::{path::PathBuf, sync::Arc};

use quorate_runtime::Env;

pub use self::{
    course::relocate,
    error::MoveError,
    room::{Can, Fate, Room, rooms},
    sum::TableSum,
};
pub(in crate::store) use self::{
    port::{Answer, Arriving, Column, Gone, Leaving, Mark, PAGE, PAGE_BYTES, Shape, Standing},
    room::Version,
};
use super::{Capabilities, OpenError, postgres, sqlite};

/// Where a store is, or is to be.
#[derive(Clone, Debug)]
pub enum Place {
    /// A file of the embedded store, in a folder that exists.
    Embedded(PathBuf),
    /// A schema of a database.
    Postgres(Box<postgres::Config>),
}

impl Place {
    fn capabilities(&self) -> &'static Capabilities {
        match self {
            Self::Embedded(_) => &sqlite::CAPABILITIES,
            Self::Postgres(_) => &postgres::CAPABILITIES,
        }
    }

    async fn leave(&self, env: &Env) -> Result<Box<dyn Leaving>, MoveError> {
        Ok(match self {
            Self::Embedded(path) => Box::new(sqlite::leave(env, path.clone()).await?),
            Self::Postgres(config) => Box::new(postgres::leave(env, config).await?),
        })
    }

    async fn arrive(&self, env: &Env, mark: Mark) -> Result<Box<dyn Arriving>, MoveError> {
        Ok(match self {
            Self::Embedded(path) => Box::new(sqlite::arrive(env, path.clone(), mark).await?),
            Self::Postgres(config) => Box::new(postgres::arrive(env, config, mark).await?),
        })
    }
}

/// As people read it: a path, or host, port, database and schema, without user and password.
impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Embedded(path) => write!(f, "{}", path.display()),
            Self::Postgres(config) => write!(f, "postgres://{} (schema {})", config.address, config.schema),
        }
    }
}

/// What to move.
#[derive(Clone, Debug)]
pub struct Order {
    /// The store.
    pub from: Place,
    /// Where it goes: there is nothing, or what a move of this store left that did not end.
    pub to: Place,
    /// Every room that may have tables in it, and what becomes of their rows. Tables of others are refused.
    pub rooms: Vec<Room>,
    /// Whether every stored byte is checked as well: of the store before anything is begun, of the destination before the
    /// store is left.
    pub verify: bool,
}

/// How far a move is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The store that is left is checked: events.
    Checking,
    /// Events go over: events.
    Events,
    /// The destination is checked: events.
    Verifying,
    /// The rows of rooms go over: tables.
    Rows,
}

/// Called now and then with what is being done, how much of it is, and how much there is.
pub type Told = Arc<dyn Fn(Step, u64, u64) + Send + Sync>;

/// What came of a move.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moved {
    /// Where the store is now.
    pub to: String,
    /// Events of its log.
    pub events: u64,
    /// Its tables of rooms that were carried over, with what they hold: the same on both sides. Empty where an earlier call
    /// had done it all.
    pub tables: Vec<(String, TableSum)>,
    /// Whether every stored byte was checked on both sides, by this call.
    pub verified: bool,
}

/// An error of opening, where there is no store.
pub(in crate::store) fn absent(place: &Place) -> MoveError {
    MoveError::Absent { place: place.to_string() }
}

impl From<OpenError> for MoveError {
    fn from(cause: OpenError) -> Self {
        match cause {
            OpenError::Store(cause) => Self::Store(cause),
            other => Self::Open(other),
        }
    }
}
