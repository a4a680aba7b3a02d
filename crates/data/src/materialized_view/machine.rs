//! The rules of one shard: what to apply next, how much at once, and what a failure leads to.
//!
//! Events wait in a queue in the order of the log. A batch is a stretch of it, and moves the checkpoint to its end. A batch
//! that fails is halved until one event alone fails; that one is tried again after a rest, unless it would certainly fail
//! again, and then the policy decides.
//! The events of a key that is parked are parked behind their first one, in order, without being tried.

mod handed;
mod pace;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

pub(super) use handed::Handed;
use handed::Stretches;
pub(super) use pace::Pace;
use quorate_foundations::time::Mono;

use super::config::{Config, OnPoison};
use crate::event::Position;

/// An event, as far as the rules care.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Item {
    pub(super) position: Position,
    pub(super) key: Arc<str>,
}

/// What is to be done with one event of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// Apply it.
    Apply,
    /// Park it behind the parked events of its key.
    ParkBehind,
    /// Park it as the first of its key: it was tried in vain.
    Park,
    /// Leave it out and keep a record: it was tried in vain.
    Skip,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Plan {
    /// Commit the first events of the queue, each as its fate says, and move the checkpoint to `to`.
    Commit { fates: Vec<Fate>, to: Position },
    /// Wait: the event at the front failed a moment ago.
    Rest { until: Mono },
    /// Read on, or wait for more: nothing is left to do.
    Read,
    /// Stop: the event at the front cannot be applied, and the policy says to stop then.
    Stop,
}

/// What is known of the event that holds the shard up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Trouble {
    /// Where it stands in the log.
    pub(super) position: Position,
    /// How often it was tried, alone.
    pub(super) attempts: u32,
    /// Why it failed last.
    pub(super) reason: String,
    /// What somebody said should become of it, whatever the policy.
    pub(super) ordered: Option<Ordered>,
    /// Whether another attempt would fail as well. Not written down: a new owner finds out again.
    pub(super) certain: bool,
}

/// What somebody said should become of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ordered {
    pub(super) verdict: OnPoison,
    /// Who said so, for the record.
    pub(super) by: String,
}

/// Why a batch could not be applied.
#[derive(Clone, Debug, Default)]
pub(super) struct Failure {
    /// The event at fault, where it is known.
    pub(super) culprit: Option<Position>,
    pub(super) reason: String,
    /// Whether the culprit would fail the same way again.
    pub(super) certain: bool,
}

/// Patience with events that fail.
#[derive(Clone, Debug)]
pub(super) struct Patience {
    max_attempts: u32,
    first_rest: Duration,
    longest_rest: Duration,
    on_poison: OnPoison,
}

/// One shard, as its owner knows it.
#[derive(Clone, Debug)]
pub(super) struct Shard {
    patience: Patience,
    pace: Pace,
    stride: u64,
    checkpoint: Position,
    scanned: Position,
    queue: VecDeque<Item>,
    stretches: Stretches,
    parked: BTreeSet<Arc<str>>,
    /// Batches may not be larger while a failing event is looked for.
    narrow: Option<usize>,
    trouble: Option<Trouble>,
    rest_until: Option<Mono>,
}

impl From<&Config> for Patience {
    fn from(config: &Config) -> Self {
        Self {
            max_attempts: config.max_attempts,
            first_rest: config.first_rest,
            longest_rest: config.longest_rest,
            on_poison: config.on_poison,
        }
    }
}

impl Shard {
    /// A shard as its rows say.
    pub(super) fn new(
        config: &Config,
        checkpoint: Position,
        parked: BTreeSet<Arc<str>>,
        mut trouble: Option<Trouble>,
    ) -> Self {
        if config.on_poison == OnPoison::Stop
            && let Some(trouble) = &mut trouble
        {
            // Whoever starts it again after it had stopped wants to see whether it works now.
            trouble.attempts = trouble.attempts.min(config.max_attempts - 1);
        }
        Self {
            patience: config.into(),
            pace: Pace::new(config.batch_time, config.batch_events),
            stride: config.stride,
            checkpoint,
            scanned: checkpoint,
            queue: VecDeque::new(),
            stretches: Stretches::default(),
            parked,
            narrow: None,
            trouble,
            rest_until: None,
        }
    }

    /// Every event up to here was applied, parked or skipped, durably.
    pub(super) fn checkpoint(&self) -> Position {
        self.checkpoint
    }

    /// How far the log was read.
    pub(super) fn scanned(&self) -> Position {
        self.scanned
    }

    /// How far the view is: everything up to here that matters to it is in its rows, parked or skipped.
    pub(super) fn reached(&self) -> Position {
        self.queue.front().map_or(self.scanned, |next| Position::new(next.position.get() - 1))
    }

    /// What holds it up.
    pub(super) fn trouble(&self) -> Option<&Trouble> {
        self.trouble.as_ref()
    }

    /// Whether a key's events are parked.
    pub(super) fn is_parked(&self, key: &str) -> bool {
        self.parked.contains(key)
    }

    /// How many events to read ahead.
    pub(super) fn appetite(&self) -> usize {
        self.pace.batch().saturating_mul(2).saturating_sub(self.queue.len())
    }

    /// Takes in what was read behind `after`: `items` in order, and how far the reading came.
    ///
    /// # Panics
    /// If the log gave events out of order or behind what was read: a broken invariant of the store, which would lose events.
    pub(super) fn take_in(&mut self, after: Position, items: impl IntoIterator<Item = Item>, scanned: Position) {
        let mut last = self.scanned;
        for item in items {
            assert!(item.position > last, "invariant: the log is read in order ({} after {last})", item.position);
            last = item.position;
            self.queue.push_back(item);
        }
        assert!(scanned >= last, "invariant: what was read was looked at");
        self.scanned = scanned;
        self.stretches.read(after, scanned);
    }

    /// What the shard was handed between its checkpoint and `to`, as it was read.
    pub(super) fn handed(&self, to: Position) -> Handed {
        let positions = self.stretches.up_to(to);
        let events = self.queue.iter().map(|item| item.position).take_while(|position| *position <= to);
        events.fold(Handed { positions, ..Handed::default() }, Handed::and)
    }

    /// What to do next. `idle`: the log has nothing more right now, so that even a small step of the checkpoint is worth
    /// writing.
    pub(super) fn plan(&self, now: Mono, idle: bool) -> Plan {
        if let Some(until) = self.rest_until.filter(|until| *until > now) {
            return Plan::Rest { until };
        }
        let Some(front) = self.queue.front() else {
            let ahead = self.scanned.get() - self.checkpoint.get();
            let due = ahead >= self.stride || (idle && ahead > 0);
            return if due { Plan::Commit { fates: Vec::new(), to: self.scanned } } else { Plan::Read };
        };
        if let Some(fate) = self.verdict(front) {
            return fate.map_or(Plan::Stop, |fate| self.commit(vec![fate]));
        }
        let most = self.narrow.unwrap_or(usize::MAX).min(self.pace.batch()).max(1);
        self.commit(self.queue.iter().take(most).map(|item| self.fate(item)).collect())
    }

    fn fate(&self, item: &Item) -> Fate {
        if self.is_parked(&item.key) { Fate::ParkBehind } else { Fate::Apply }
    }

    /// What becomes of the event at the front if it was tried often enough; `Some(None)` says stop.
    fn verdict(&self, front: &Item) -> Option<Option<Fate>> {
        let trouble = self.trouble.as_ref().filter(|trouble| trouble.position == front.position)?;
        let verdict = match &trouble.ordered {
            Some(ordered) => ordered.verdict,
            None if trouble.certain || trouble.attempts >= self.patience.max_attempts => self.patience.on_poison,
            None => return None,
        };
        Some(match verdict {
            OnPoison::Stop => None,
            OnPoison::Park => Some(Fate::Park),
            OnPoison::Skip => Some(Fate::Skip),
        })
    }

    fn commit(&self, fates: Vec<Fate>) -> Plan {
        let last = &self.queue[fates.len() - 1];
        // Behind the last event that waits, everything that was read is dealt with as well.
        let to = if fates.len() == self.queue.len() { self.scanned } else { last.position };
        Plan::Commit { fates, to }
    }

    /// A planned commit happened, and took so long.
    pub(super) fn committed(&mut self, fates: &[Fate], to: Position, took: Duration) {
        for fate in fates {
            let Some(item) = self.queue.pop_front() else { break };
            if *fate == Fate::Park {
                self.parked.insert(item.key);
            }
        }
        self.checkpoint = to;
        self.stretches.committed(to);
        self.rest_until = None;
        if self.trouble.as_ref().is_some_and(|trouble| trouble.position <= to) {
            self.trouble = None;
            self.narrow = None;
        } else if let Some(narrow) = &mut self.narrow {
            *narrow = narrow.saturating_mul(2);
            if *narrow >= self.pace.batch() {
                self.narrow = None;
            }
        }
        self.pace.took(fates.len(), took);
    }

    /// A batch of `count` events failed, and nothing of it was kept.
    ///
    /// Returns what to write down where one event alone failed: attempts are counted across restarts.
    pub(super) fn failed(
        &mut self,
        now: Mono,
        count: usize,
        Failure { culprit, reason, certain }: Failure,
    ) -> Option<Trouble> {
        let index = culprit.and_then(|culprit| self.queue.iter().take(count).position(|item| item.position == culprit));
        self.narrow = match index {
            Some(0) => Some(1),
            Some(before) => Some(before),
            None => Some(count / 2).map(|half| half.max(1)),
        };
        let alone = count == 1;
        let position = self.queue.front().filter(|_| alone)?.position;
        let known = self.trouble.take().filter(|trouble| trouble.position == position);
        let attempts = known.map_or(0, |trouble| trouble.attempts) + 1;
        let rest = self.patience.first_rest.saturating_mul(1 << (attempts - 1).min(16));
        self.rest_until =
            (!certain && attempts < self.patience.max_attempts).then(|| now + rest.min(self.patience.longest_rest));
        let trouble = Trouble { position, attempts, reason, ordered: None, certain };
        self.trouble = Some(trouble.clone());
        Some(trouble)
    }

    /// A batch took too long for a transaction: the next one is smaller.
    pub(super) fn too_long(&mut self, count: usize) {
        self.pace.too_long(count);
    }
}
