//! Running: the queues whose requests somebody wants to be told of are followed, and no others.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use quorate_data::store::{StoreError, TransactError};
use quorate_foundations::time::Mono;
use quorate_runtime::Env;

use super::{Callbacks, PLACES, outcome};
use crate::{
    message_queue::{Ends, Followed, Heard, Queue, QueueError, WorkerConfig, Workers, callbacks as rows},
    request::DurableError,
};

/// How often a process looks for what others asked.
const LOOK_AROUND: Duration = Duration::from_secs(2);
/// How long it rests when it cannot look.
const REST: Duration = Duration::from_secs(1);
/// How long calls may go on when the process stops; what has not ended then is called again.
const GRACE: Duration = Duration::from_secs(3);
/// How often what is left of discarded outcomes is deleted.
const SWEEP: Duration = Duration::from_secs(3_600);
/// Requests that one look at a queue reads at once.
const PAGE: u32 = 500;

/// What one who runs them knows.
struct Round {
    callbacks: Callbacks,
    ends: Arc<Ends>,
    followed: BTreeMap<u64, (Queue, Followed)>,
    workers: Option<(Queue, Workers)>,
    /// When what is left of discarded outcomes was last deleted.
    swept: Option<Mono>,
}

impl Callbacks {
    /// Tells of outcomes and delivers them until the tasks of `env` are told to stop. Calls under way then get a few seconds to end.
    ///
    /// Several processes on one store may run them: they share the work. While nobody waits to be told, nobody looks at the store; where several processes share it,
    /// each looks every other second.
    pub async fn run(self, env: Env) {
        let (stop, others) = (env.tasks().stop().clone(), self.queues.store().capabilities().several_writers);
        let (room, ends) = (self.room.clone(), Arc::<Ends>::default());
        let mut round =
            Round { callbacks: self, ends: ends.clone(), followed: BTreeMap::new(), workers: None, swept: None };
        loop {
            // What is dropped in the middle of it is found by whoever looks next.
            let Some(turned) = stop.run_until_cancelled(round.turn()).await else { break };
            if let Err(cause) = turned {
                tracing::warn!(%cause, "callbacks could not be looked through");
                ends.miss();
                // Not sooner, whoever asks meanwhile.
                let _stopped = stop.run_until_cancelled(env.sleep(REST)).await;
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = ends.woken() => {}
                () = room.asked.notified() => {}
                () = env.sleep(LOOK_AROUND), if others => {}
            }
        }
        round.followed.clear();
        if let Some((_, workers)) = round.workers.take() {
            workers.drain(GRACE).await;
        }
    }
}

impl Round {
    /// Tells of what is over, and sees to it that somebody hears of the rest.
    async fn turn(&mut self) -> Result<(), DurableError> {
        let store = self.callbacks.queues.store().clone();
        let is_told = rows::are_told(&store).await?;
        let now = store.env().mono();
        if self.swept.is_none_or(|last| now.saturating_since(last) >= SWEEP) {
            if is_told {
                self.sweep().await?;
            }
            self.swept = Some(now);
        }
        // Before anything is told: there may be no room for that until somebody delivers.
        if self.workers.is_some() || is_told {
            self.work().await?;
        }
        let Heard { seqs, missed } = self.ends.take();
        // Ordering: behind what was heard, so that what is asked from now on is followed by the next turn at the latest.
        let mut wanted = rows::queues(&store).await?;
        if wanted.iter().any(|number| !self.followed.contains_key(number)) {
            self.callbacks.queues.refresh().await?;
        }
        let mut told = false;
        for number in &wanted {
            let is_new = self.follow(*number);
            if let Some((queue, _)) = self.followed.get(number).filter(|_| is_new || missed) {
                queue.look().await?;
                told |= self.look_through(*number, queue).await?;
            }
        }
        let seqs: Vec<_> = seqs.into_iter().collect();
        for due in rows::among(&store, &seqs).await? {
            let of = self.followed.values().find(|(queue, _)| queue.numbers(due.seq));
            if let Some((queue, _)) = of {
                told |= self.tell(queue, due).await?;
            }
        }
        if told {
            wanted = rows::queues(&store).await?;
        }
        self.followed.retain(|number, _| wanted.contains(number));
        // Also what another process has told, which may be gone.
        if self.workers.is_some() || rows::are_told(&store).await? {
            self.work().await?;
        }
        Ok(())
    }

    /// Follows the queue of this number; whether it was not followed before.
    fn follow(&mut self, number: u64) -> bool {
        let Some(queue) = self.callbacks.queues.numbered(number) else {
            self.followed.remove(&number);
            return false;
        };
        if self.followed.get(&number).is_some_and(|(known, _)| known.is(&queue)) {
            return false;
        }
        let followed = queue.follow(&self.ends);
        self.followed.insert(number, (queue, followed));
        true
    }

    /// Tells of all requests of a queue that are over.
    async fn look_through(&self, number: u64, queue: &Queue) -> Result<bool, DurableError> {
        let (mut after, mut told) = (0, false);
        loop {
            let page = rows::due(self.callbacks.queues.store(), number, after, PAGE).await?;
            let is_last = page.len() < PAGE as usize;
            for due in page {
                after = due.seq;
                told |= self.tell(queue, due).await?;
            }
            if is_last {
                return Ok(told);
            }
        }
    }

    /// As [`Callbacks::tell`], but for a row that is damaged, which keeps nothing from the others.
    async fn tell(&self, queue: &Queue, due: rows::Due) -> Result<bool, DurableError> {
        let seq = due.seq;
        match self.callbacks.tell(queue, due).await {
            Err(DurableError::Queue(QueueError::Store(cause @ StoreError::Corrupt { .. }))) => {
                tracing::error!(queue = %queue.name(), seq, %cause, "nobody can be told what became of a request");
                Ok(false)
            }
            told => told,
        }
    }

    /// Has somebody deliver. A queue that was deleted and declared anew is another one.
    async fn work(&mut self) -> Result<(), QueueError> {
        let queue = self.callbacks.queue().await?;
        if self.workers.as_ref().is_some_and(|(known, _)| known.is(&queue)) {
            return Ok(());
        }
        let (callbacks, config) =
            (self.callbacks.clone(), WorkerConfig { concurrency: PLACES, ..WorkerConfig::default() });
        let workers = queue.work_on_messages(config, move |job| {
            let callbacks = callbacks.clone();
            async move { callbacks.deliver(job).await }
        })?;
        self.workers = Some((queue, workers));
        Ok(())
    }

    async fn sweep(&self) -> Result<(), QueueError> {
        let number = self.callbacks.queue().await?.number();
        let sweeping = self.callbacks.queues.store().transact(move |tx| {
            Box::pin(async move { Ok::<_, QueueError>(rows::sweep(tx, number, outcome::SOURCE).await?) })
        });
        sweeping.await.map(drop).map_err(|failed: TransactError<QueueError>| QueueError::of_transaction(failed))
    }
}
