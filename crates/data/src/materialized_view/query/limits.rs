//! What a query may take, and how fresh its answer has to be.

use std::{sync::Arc, time::Duration};

use quorate_runtime::Env;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::super::{ViewError, WhenStale};
use crate::store::{Bounds, Token};

/// What queries of views may take at most.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueryLimits {
    /// How long one may run. Default 2 s.
    pub time: Duration,
    /// Rows of one answer. Default 10,000.
    pub rows: usize,
    /// Bytes of one answer's values. Default 16 MiB.
    pub bytes: usize,
    /// Memory that the engine may take for one: for sorting, grouping, joining. Default 64 MiB.
    pub memory: usize,
    /// How many run at once; others wait for their turn. Default 4.
    pub concurrent: usize,
    /// Changes of a followed table that are kept for followers who come back. Default 100,000.
    pub changes: usize,
}

impl Default for QueryLimits {
    fn default() -> Self {
        Self {
            time: Duration::from_secs(2),
            rows: 10_000,
            bytes: 16 << 20,
            memory: 64 << 20,
            concurrent: 4,
            changes: 100_000,
        }
    }
}

impl QueryLimits {
    /// As bounds of one statement with at most `rows` rows.
    pub(super) fn bounds(&self, rows: usize) -> Bounds {
        Bounds { time: self.time, rows: rows.min(self.rows), bytes: self.bytes, memory: self.memory }
    }
}

/// Lets so many queries through at once.
pub(in super::super) struct Gate {
    pub(in super::super) limits: QueryLimits,
    turns: Arc<Semaphore>,
}

impl Gate {
    pub(in super::super) fn new(limits: QueryLimits) -> Self {
        Self { turns: Arc::new(Semaphore::new(limits.concurrent.max(1))), limits }
    }

    /// Waits for a turn, as long as a query may run.
    ///
    /// # Errors
    /// [`ViewError::Busy`].
    pub(super) async fn enter(&self, env: &Env) -> Result<OwnedSemaphorePermit, ViewError> {
        let turn = env.timeout(self.limits.time, self.turns.clone().acquire_owned()).await;
        turn.and_then(Result::ok).ok_or(ViewError::Busy { concurrent: self.limits.concurrent })
    }

    /// How many queries run right now.
    pub(in super::super) fn running(&self) -> usize {
        self.limits.concurrent.max(1).saturating_sub(self.turns.available_permits())
    }
}

/// What a reader asks of a view's freshness.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Freshness {
    /// The view has to have seen this append.
    pub at_least: Option<Token>,
    /// How long to wait for it, and for a view that is older than `max_lag`.
    pub wait: Duration,
    /// How old the oldest event may be that matters to the view and is not in its rows yet; `None`: as the view's
    /// [contract](super::super::Config::staleness) says. Where no
    /// code of the view runs here, nobody knows which events matter: then any event behind its position counts as too old.
    pub max_lag: Option<Duration>,
    /// What becomes of an answer that is older than that, or than the view's contract allows, that of its
    /// [feeds](super::super::Config::feeds) included, which holds whatever `max_lag` says. `None`: what the contract says,
    /// and a refusal where it says nothing.
    pub beyond: Option<WhenStale>,
}
