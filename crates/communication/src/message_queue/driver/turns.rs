//! Several processes on one queue: how memory comes to what the rows say, and who is told when they change.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use quorate_data::store::Store;
use quorate_runtime::random::Rng;
use tokio::sync::mpsc;

use super::{Core, EAGER_TRIES, MAX_REST, live::Live};
use crate::message_queue::{
    QueueError,
    machine::Seq,
    rows::{
        Batch,
        turn::{self, Glance},
    },
};

/// How often it is looked whether other processes changed a queue that somebody waits for.
const LOOK: Duration = Duration::from_millis(100);
/// How long the look-out rests after the store failed.
const REST: Duration = Duration::from_secs(1);
/// Queues that are looked at, at once.
const AT_ONCE: usize = 500;
/// News that may gather before a round takes a turn for nothing but them.
const GATHERED: usize = 64;
/// Messages that are always read one by one rather than the whole queue anew.
const LITTLE: usize = 10_000;
/// News that one turn moves under its revision.
const MOVED: usize = 2_000;

/// Up to where memory follows the rows.
#[derive(Debug, Default)]
pub(super) struct Followed {
    /// The revision that was taken in.
    revision: u64,
    /// News that were taken in, and stand under no revision yet.
    news: BTreeMap<i64, Vec<Seq>>,
    /// Whether all of those stand under none: they were read under this revision, and not before it.
    is_exact: bool,
}

/// What changes when something happens to a queue: its revision, and how many news stand under none. Within a revision they only grow.
/// Their ids would not do: a transaction that was given a lower one may commit later.
type Pulse = (u64, usize);

/// What a round writes besides, so that other processes follow it.
#[derive(Clone, Debug)]
pub(super) struct Turning {
    pub(super) revision: u64,
    pub(super) ahead: Duration,
    /// The news that stand under the new revision.
    pub(super) news: Vec<i64>,
    /// The messages that the round and the news touch.
    pub(super) seqs: Vec<Seq>,
}

impl Followed {
    pub(super) fn of(revision: u64) -> Self {
        Self { revision, ..Self::default() }
    }

    /// The turn that a round with `batch` needs; `None` if it needs none.
    pub(super) fn turning(&self, batch: &Batch, ahead: Duration) -> Option<Turning> {
        if !batch.decides() && self.news.len() < GATHERED {
            return None;
        }
        let moved = || self.news.iter().take(MOVED);
        let seqs = batch.seqs().chain(moved().flat_map(|(_, seqs)| seqs.clone())).collect();
        let news = moved().map(|(id, _)| *id).collect();
        Some(Turning { revision: self.revision, ahead, news, seqs })
    }

    /// The turn was taken.
    pub(super) fn turned(&mut self, turn: &Turning) {
        self.revision = turn.revision + 1;
        self.news.retain(|id, _| !turn.news.contains(id));
    }

    /// This process made news of messages that its memory knows.
    pub(super) fn told(&mut self, id: i64, seqs: Vec<Seq>) {
        self.news.insert(id, seqs);
    }

    /// All that was read: `news`, and then `revision`.
    fn read(&mut self, revision: u64, news: BTreeMap<i64, Vec<Seq>>) {
        // Where the revision moved between the two, it may have taken some of them in, and as many others may have come.
        let is_exact = self.revision == revision || news.is_empty();
        *self = Self { revision, news, is_exact };
    }

    /// What the rows say while nothing happens to the queue; where that is not known, what they never say.
    fn pulse(&self) -> Pulse {
        (self.revision, if self.is_exact { self.news.len() } else { usize::MAX })
    }
}

impl Live {
    /// Takes in what other processes, and transactions, did to the queue.
    ///
    /// What is read here need not be of one moment. It is as new as the revision at least; whatever is newer belongs to a
    /// later revision, and then no round that is decided by it is written.
    pub(super) async fn catch_up(&mut self, core: &Core) -> Result<(), QueueError> {
        if core.lookout.is_none() {
            return Ok(());
        }
        loop {
            // Ordering: the news before the revision. What becomes part of one meanwhile is then known as news, or by its revision.
            let news = turn::news(&core.store, core.id).await?;
            let Some(Glance { revision, ahead, head: Some(head) }) = turn::glance(&core.store, core.id).await? else {
                return Err(core.gone());
            };
            if head.name != core.name || head.is_deleted {
                return Err(core.gone());
            }
            if let Some(damaged) = head.damaged {
                return Err(damaged);
            }
            if *self.machine.config() != head.config || *core.config() != head.config {
                self.machine.configure(head.config.clone());
                core.set_config(head.config);
            }
            // Reading the queue anew costs as much as it has messages.
            let most = LITTLE.max(2 * self.machine.counts().messages);
            let known = self.known.revision;
            let Some(changed) = turn::changes(&core.store, core.id, (known, revision), most).await? else {
                core.store.env().reached("queue: a process was too far behind");
                self.read_again(core).await?;
                core.waiters.wake_all();
                continue;
            };
            let unknown = news.iter().filter(|(id, _)| !self.known.news.contains_key(id));
            let touched: BTreeSet<Seq> =
                changed.into_iter().chain(unknown.flat_map(|(_, seqs)| seqs.clone())).collect();
            let touched: Vec<Seq> = touched.into_iter().collect();
            // Ordering: whoever is woken reads the rows by itself, and they say it already.
            core.waiters.wake(touched.iter().copied());
            let stored = turn::stored(&core.store, &touched).await?;
            if self.known.revision != revision {
                core.store.env().reached("queue: another process was followed");
                self.machine.spent_elsewhere(core.now(), ahead);
            }
            let mut entries: BTreeMap<Seq, _> = stored.into_iter().map(|one| (one.seq, one.entry)).collect();
            for seq in touched {
                // It may say something else by now.
                drop(self.take_message(seq));
                match entries.remove(&seq) {
                    Some(entry) => {
                        // What others sent, and transactions, is remembered as well: somebody has to forget it.
                        if self.machine.get(seq).is_none() {
                            self.sweep.due += 2;
                        }
                        self.machine.insert(seq, entry);
                    }
                    None => self.machine.forget(seq),
                }
            }
            self.known.read(revision, news.into_iter().collect());
            return Ok(());
        }
    }

    /// Has the look-out tell when others change the queue, while somebody waits for it here.
    pub(super) fn look_out(&self, core: &Arc<Core>) {
        if let Some(lookout) = &core.lookout {
            lookout.watched().insert(core.id, (Arc::downgrade(core), self.known.pulse()));
            let _looks_anyway = lookout.kick.try_send(());
        }
    }
}

impl Core {
    /// Whether several processes work on the queue.
    pub(in crate::message_queue) fn is_shared(&self) -> bool {
        self.lookout.is_some()
    }

    /// Whether the queue is followed for somebody who waits for the end of a message: what time does to it, and other processes.
    pub(super) fn is_followed(&self) -> bool {
        let is_over = || self.is_deleted() || self.store.env().tasks().stop().is_cancelled();
        !self.waiters.is_empty() && !is_over()
    }

    /// Gives other processes a moment, a random and growing one, after the first few tries.
    pub(super) async fn rest(&self, tried: u32) {
        let (Some(late), Some(lookout)) = (tried.checked_sub(EAGER_TRIES), &self.lookout) else { return };
        let longest = Duration::from_micros(500).saturating_mul(1 << late.min(10)).min(MAX_REST);
        let share = lookout.rests.lock().unwrap_or_else(PoisonError::into_inner).unit();
        self.store.env().sleep(longest.mul_f64(share)).await;
    }

    /// Another process deleted it.
    fn gone(&self) -> QueueError {
        self.mark_deleted();
        self.not_found()
    }
}

/// Looks for all queues that somebody waits for in this process whether others changed them.
pub(in crate::message_queue) struct Lookout {
    watched: Mutex<BTreeMap<u64, (Weak<Core>, Pulse)>>,
    /// Wakes the task, which ends once this is dropped.
    kick: mpsc::Sender<()>,
    /// How long to rest where others were first.
    rests: Mutex<Rng>,
}

impl std::fmt::Debug for Lookout {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lookout").finish_non_exhaustive()
    }
}

impl Lookout {
    /// One that looks as long as somebody has it.
    pub(in crate::message_queue) fn start(store: &Store) -> Arc<Self> {
        let (kick, kicked) = mpsc::channel(1);
        let lookout =
            Arc::new(Self { watched: Mutex::default(), kick, rests: Mutex::new(store.env().random("queues/rests")) });
        store.env().tasks().spawn("queues", run(store.clone(), Arc::downgrade(&lookout), kicked));
        lookout
    }

    /// By number: who waits, and what of the queue is known there.
    fn watched(&self) -> MutexGuard<'_, BTreeMap<u64, (Weak<Core>, Pulse)>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nobody waits for the queue any more.
    pub(super) fn forget(&self, queue: u64) {
        self.watched().remove(&queue);
    }

    /// Wakes whoever waits for a queue that is not as it was. Whether somebody still waits.
    async fn look(&self, store: &Store) -> Result<bool, QueueError> {
        let queues: Vec<u64> = self.watched().keys().copied().collect();
        for some in queues.chunks(AT_ONCE) {
            let found: BTreeMap<u64, Pulse> = turn::pulses(store, some).await?.into_iter().collect();
            let mut watched = self.watched();
            for queue in some {
                let is_same = watched.get(queue).is_some_and(|(_, known)| found.get(queue) == Some(known));
                if !is_same && let Some((core, _)) = watched.remove(queue) {
                    core.upgrade().inspect(|core| core.kick.notify_one());
                }
            }
        }
        Ok(!self.watched().is_empty())
    }
}

async fn run(store: Store, lookout: Weak<Lookout>, mut kicked: mpsc::Receiver<()>) {
    let stop = store.env().tasks().stop().clone();
    let mut rest = None;
    loop {
        let waited = async {
            match rest {
                Some(rest) => store.env().sleep(rest).await,
                None => drop(kicked.recv().await),
            }
        };
        let Some(()) = stop.run_until_cancelled(waited).await else { return };
        let Some(lookout) = lookout.upgrade() else { return };
        let look = lookout.look(&store);
        rest = match stop.run_until_cancelled(look).await {
            None => return,
            Some(Ok(true)) => Some(LOOK),
            Some(Ok(false)) => None,
            Some(Err(_)) => Some(REST),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn news(ids: &[i64]) -> BTreeMap<i64, Vec<Seq>> {
        ids.iter().map(|id| (*id, vec![id.cast_unsigned()])).collect()
    }

    #[test]
    fn news_that_a_turn_may_have_taken_in_are_not_counted_as_waiting() {
        let mut known = Followed::of(7);
        assert_ne!(known.pulse(), (7, 0), "it was not looked yet");
        known.read(7, news(&[]));
        assert_eq!(known.pulse(), (7, 0));
        // Between the two reads another process took a turn for these two, and two others came.
        known.read(8, news(&[1, 2]));
        assert_ne!(known.pulse(), (8, 2), "whoever waits would not be woken for them");
        known.read(8, news(&[3, 4]));
        assert_eq!(known.pulse(), (8, 2));
        known.told(5, vec![5]);
        assert_eq!(known.pulse(), (8, 3));
        let turn = Turning { revision: 8, ahead: Duration::ZERO, news: vec![3, 4], seqs: vec![] };
        known.turned(&turn);
        assert_eq!(known.pulse(), (9, 1));
        known.read(10, news(&[]));
        assert_eq!(known.pulse(), (10, 0), "there were none before it, and there may be some now");
    }
}
