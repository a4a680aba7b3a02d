//! What other processes declare and delete.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, atomic::Ordering},
};

use quorate_data::store::{DynTx, Store};
use quorate_foundations::name::Name;
use quorate_runtime::BoxFuture;

use super::{Core, Queues, Room};
use crate::message_queue::{
    QueueError,
    rows::{self, Head, Heads, turn},
};

impl Queues {
    /// Takes in which queues and schedules other processes declared and deleted. On a store that one process has this costs
    /// nothing, and on another one as a rule one query.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn refresh(&self) -> Result<(), QueueError> {
        self.room.refresh(&self.store).await
    }

    /// Changes queues in a transaction, if they are as they are known, and has everybody who waits for the one of number `queue` look
    /// at it again. `false`: another process changed something meanwhile, and nothing was written.
    pub(super) async fn change<F>(&self, queue: u64, unit: F) -> Result<bool, QueueError>
    where
        F: for<'t> Fn(&'t mut DynTx) -> BoxFuture<'t, Result<(), QueueError>> + Send + Sync + 'static,
    {
        self.room.change(&self.store, Some(queue), unit).await
    }
}

impl Room {
    /// As [`Queues::refresh`].
    pub(in crate::message_queue) async fn refresh(&self, store: &Store) -> Result<(), QueueError> {
        if !self.is_shared() || turn::of_all(store).await? == self.revision() {
            return Ok(());
        }
        let _alone = self.shared().following.lock().await;
        self.follow(store).await
    }

    /// Whether several processes work on the queues.
    pub(in crate::message_queue) fn is_shared(&self) -> bool {
        self.shared().common.lookout.is_some()
    }

    fn revision(&self) -> u64 {
        // Ordering: what it stands for is behind locks of its own.
        self.shared().revision.load(Ordering::Acquire)
    }

    /// The same for whoever holds the lock of following.
    pub(super) async fn follow(&self, store: &Store) -> Result<(), QueueError> {
        if !self.is_shared() {
            return Ok(());
        }
        let shared = self.shared();
        let _no_schedule_is_changed = shared.plan.alone.lock().await;
        // Ordering: before the rows, as when they were first read.
        let revision = turn::of_all(store).await?;
        if revision == self.revision() {
            return Ok(());
        }
        let Heads { heads, nameless } = rows::heads(store).await?;
        let names = heads.iter().filter(|head| !head.is_deleted).map(|head| (head.id, head.name.clone())).collect();
        shared.plan.read_again(store, &names).await?;
        *shared.nameless.lock().unwrap_or_else(PoisonError::into_inner) = nameless;
        self.take_over(store, heads);
        shared.revision.store(revision, Ordering::Release);
        Ok(())
    }

    /// Has memory know the queues that the rows tell, and no others.
    fn take_over(&self, store: &Store, heads: Vec<Head>) {
        let mut cores = self.shared().cores.lock().unwrap_or_else(PoisonError::into_inner);
        let mut before: BTreeMap<Name, Arc<Core>> = std::mem::take(&mut *cores);
        for head in heads {
            let is_same = |core: &Arc<Core>| {
                core.id == head.id
                    && core.is_deleted() == head.is_deleted
                    && core.damaged.is_some() == head.damaged.is_some()
            };
            let core = match before.remove(&head.name) {
                Some(core) if is_same(&core) => {
                    core.set_config(head.config);
                    core
                }
                another => {
                    another.inspect(|gone| gone.mark_deleted());
                    Arc::new(Core::new(store, head, self.shared().common.clone()))
                }
            };
            cores.insert(core.name.clone(), core);
        }
        before.into_values().for_each(|gone| gone.mark_deleted());
    }

    /// As [`Queues::change`]; without a queue, of schedules alone.
    pub(in crate::message_queue) async fn change<F>(
        &self,
        store: &Store,
        queue: Option<u64>,
        unit: F,
    ) -> Result<bool, QueueError>
    where
        F: for<'t> Fn(&'t mut DynTx) -> BoxFuture<'t, Result<(), QueueError>> + Send + Sync + 'static,
    {
        let (is_shared, known) = (self.is_shared(), self.revision());
        let unit = Arc::new(unit);
        let changed = store.transact(move |tx| {
            let unit = unit.clone();
            Box::pin(async move {
                if is_shared {
                    if !turn::take_all(tx, known).await? {
                        return Ok(false);
                    }
                    if let Some(queue) = queue {
                        turn::bump(tx, queue).await?;
                    }
                }
                unit(tx).await?;
                Ok(true)
            })
        });
        let changed = changed.await.map_err(QueueError::of_transaction)?;
        if changed && is_shared {
            // Whoever changes something holds the lock that others would change it under.
            self.shared().revision.store(known + 1, Ordering::Release);
        }
        Ok(changed)
    }
}
