//! Whoever has to take in events in the transaction that appends them.

use quorate_runtime::BoxFuture;

use super::{DynTx, StoreError};
use crate::event::Recorded;

/// Takes in events in the transaction that appends them, so that both commit together or neither does.
///
/// An engine that commits appends in groups calls it once per group, behind the group's events and before its commit, and
/// once more before each transaction with a closure, so that this sees everything that was appended before it. If it
/// refuses, the engine finds the append, or the transaction, that it refuses: the others go on.
pub trait Follower: Send + Sync + 'static {
    /// Who it is, for errors.
    fn name(&self) -> &str;

    /// Whether it takes in nothing any more, and is let go. Asked on the writer's thread: be quick.
    fn is_over(&self) -> bool {
        false
    }

    /// Whether it has to take in `event`. Asked on the writer's thread: be quick.
    fn wants(&self, event: &Recorded) -> bool;

    /// Takes in `events`, in order. Await nothing but the transaction, and append nothing.
    ///
    /// # Errors
    /// Nothing of the append is kept then.
    fn follow<'t>(&'t self, tx: &'t mut DynTx, events: &'t [Recorded]) -> BoxFuture<'t, Result<(), FollowerError>>;
}

/// Why a follower did not take in events.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FollowerError {
    /// They do not fit.
    #[error("{0}")]
    Refused(String),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}
