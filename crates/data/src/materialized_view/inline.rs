//! Views kept in the append's own transaction.
//!
//! The store gathers what waits into a group and syncs once. A view is brought up to date once per group, with all of the
//! group's events, right before the commit: appends keep their fast path, and what the view costs is shared as the sync is.
//! If it cannot take the events, the group is run again one by one, and the append at fault alone is refused.

use std::sync::Arc;

use quorate_runtime::BoxFuture;

use super::{Namespace, ViewTx, advance::Halt, effects, erasure, feed, registered::Registered, rows, shared::Local};
use crate::{
    event::Recorded,
    store::{DynTx, Follower, FollowerError},
};

/// A build that appends keep up to date.
pub(super) struct Inline {
    pub(super) code: Arc<Registered>,
    pub(super) namespace: Namespace,
    pub(super) local: Arc<Local>,
}

impl Follower for Inline {
    fn name(&self) -> &str {
        self.code.name.as_str()
    }

    fn is_over(&self) -> bool {
        self.local.is_over()
    }

    fn wants(&self, event: &Recorded) -> bool {
        self.code.query.is_everything() || self.code.query.matches(event)
    }

    fn follow<'t>(&'t self, tx: &'t mut DynTx, events: &'t [Recorded]) -> BoxFuture<'t, Result<(), FollowerError>> {
        Box::pin(async move { self.apply(tx, events).await.map_err(of_halt) })
    }
}

impl Inline {
    async fn apply(&self, tx: &mut DynTx, events: &[Recorded]) -> Result<(), Halt> {
        let Some(row) =
            rows::shard(tx, self.namespace.build(), 0).await?.filter(|row| row.is_inline(self.code.opening))
        else {
            // Its runner is catching up, or has yet to claim it, and will come upon these events as well.
            return Ok(());
        };
        let new: Vec<Recorded> = events.iter().filter(|event| event.position() > row.checkpoint).cloned().collect();
        let Some(last) = new.last() else { return Ok(()) };
        let mut view = ViewTx::new(tx, &self.namespace);
        self.code.apply(&mut view, &new).await.map_err(Halt::Apply)?;
        let requested = view.into_effects();
        erasure::note(tx, &self.code, self.namespace.build(), &new).await?;
        feed::note(tx, &self.code, self.namespace.build(), &new).await?;
        if !requested.is_empty() {
            let build = rows::build(tx, self.namespace.build()).await?.ok_or(Halt::Gone)?;
            let threshold = effects::Threshold::of(tx, &build).await?;
            effects::keep(tx, &self.code, &build, &threshold, &new, requested).await?;
        }
        Ok(row.taken(tx, self.namespace.build(), &new, last.position()).await?)
    }
}

fn of_halt(halt: Halt) -> FollowerError {
    use super::{ApplyError, ViewError};
    use crate::store::SqlError;
    match halt {
        Halt::Apply(ApplyError::Sql(SqlError::Store(cause))) | Halt::View(ViewError::Store(cause)) => {
            FollowerError::Store(cause)
        }
        Halt::Apply(failed) => FollowerError::Refused(failed.to_string()),
        Halt::View(failed) => FollowerError::Refused(failed.to_string()),
        other => FollowerError::Refused(format!("{other:?}")),
    }
}
