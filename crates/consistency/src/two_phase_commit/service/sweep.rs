//! What is in doubt: found by asking the participants, and ended as the log says.
//!
//! What a fenced coordinator began is under way nowhere: what has no decision in the log by now will never have one. What one of the others
//! beside this one began is that one's, for as long as it is not fenced.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, PoisonError, Weak, atomic::Ordering},
    time::Duration,
};

use futures_util::{StreamExt, future::join_all, stream};
use quorate_foundations::{name::Name, time::Mono};
use quorate_runtime::Env;

use super::{Shared, ending::Told};
use crate::two_phase_commit::{Gid, Participant, ParticipantError, Prepared, TxnError, TxnId};

/// How many branches of one participant are ended at a time.
const AT_ONCE: usize = 64;

/// Which transactions of this takeover were under way at a moment.
struct Begun {
    last: u64,
    live: BTreeSet<u64>,
}

/// What a participant said when it was last asked what is in doubt with it.
#[derive(Clone, Debug, Default)]
pub struct Swept {
    /// What it still held after it was last asked with success, each with when and how old it was when this coordinator first
    /// heard of it.
    pub held: BTreeMap<Gid, (Mono, Duration)>,
    /// Why it could not be asked since, and since when.
    pub failing: Option<(ParticipantError, Mono)>,
    /// Why the log did not say how something of that ends, when it was read last. Until it does that is left as it is.
    pub unreadable: Option<String>,
}

/// What a sweep left.
#[derive(Default)]
struct Left {
    held: Vec<Prepared>,
    unreadable: Option<String>,
}

impl Swept {
    /// For how long the oldest of it has been so.
    fn oldest(&self, now: Mono) -> Option<Duration> {
        let held = self.held.values().map(|(since, age)| now.saturating_since(*since) + *age).max();
        held.max(self.failing.as_ref().map(|(_, since)| now.saturating_since(*since)))
    }
}

/// Asks every participant now and then, and when one is new, until the coordinator is gone or replaced.
pub(super) async fn run(shared: Weak<Shared>, env: Env) {
    let stop = env.tasks().stop().clone();
    loop {
        let Some((asked, pause)) = shared.upgrade().map(|shared| (shared.sweep.clone(), shared.config.sweep)) else {
            return;
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = asked.notified() => {}
            () = env.sleep(pause) => {}
        }
        let Some(shared) = shared.upgrade() else { return };
        // What it left behind is its successor's.
        if shared.is_replaced().await {
            return;
        }
        // Each by itself: one that hangs keeps no other waiting.
        for (name, participant) in shared.all() {
            let (shared, stop) = (shared.clone(), stop.clone());
            env.tasks().spawn("txn/sweep one", async move {
                tokio::select! {
                    biased;
                    () = stop.cancelled() => {}
                    () = shared.sweep_if_free(&name, &*participant) => {}
                }
            });
        }
    }
}

impl Shared {
    fn begun(&self) -> Begun {
        let unfinished = self.unfinished();
        Begun { last: unfinished.last, live: unfinished.live.keys().copied().collect() }
    }

    /// Whether somebody fenced this coordinator. Where the log cannot be read this one goes on: what it ends is as the log says.
    pub(super) async fn is_replaced(&self) -> bool {
        if !self.is_fenced.load(Ordering::Relaxed) {
            match self.standing.look(&self.store, &self.config.name).await {
                Ok(true) => {}
                Ok(false) => self.is_fenced.store(true, Ordering::Relaxed),
                Err(cause) => tracing::warn!(%cause, "it cannot be told whether this coordinator was fenced"),
            }
        }
        self.is_fenced.load(Ordering::Relaxed)
    }

    /// Asks every participant, each once nobody else does.
    async fn sweep_all(&self) {
        let all = self.all();
        let asked = all.iter().map(|(name, participant)| async move {
            let _turn = self.sweeping.take(name.clone()).await;
            self.sweep_one(name, &**participant).await;
        });
        join_all(asked).await;
    }

    async fn sweep_if_free(&self, name: &Name, participant: &dyn Participant) {
        if let Some(_turn) = self.sweeping.take_if_free(name.clone()) {
            self.sweep_one(name, participant).await;
        }
    }

    /// Asks one participant. Only for whoever has its turn.
    async fn sweep_one(&self, name: &Name, participant: &dyn Participant) {
        // Ordering: what was under way when the participant was asked is its own course's to end, also if it has ended by now.
        let begun = self.begun();
        let found = self.all_in_doubt(participant).await;
        let held = match found {
            Ok(found) => Ok(self.end_all(name, participant, found, &begun).await),
            Err(cause) => {
                tracing::warn!(participant = %name, %cause, "a participant does not say what is in doubt with it");
                Err(cause)
            }
        };
        // Ordering: as in `remove`, so that nothing is told of who was taken away while it was asked.
        let known = self.participants.read().unwrap_or_else(PoisonError::into_inner);
        if !known.contains_key(name) {
            return;
        }
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let (now, swept) = (self.env.mono(), seen.entry(name.clone()).or_default());
        match held {
            Ok(Left { held, unreadable }) => {
                let before = std::mem::take(&mut swept.held);
                let known = |one: Prepared| {
                    let first = before.get(&one.gid).copied();
                    (one.gid, first.unwrap_or((now, one.age.unwrap_or_default())))
                };
                *swept = Swept { held: held.into_iter().map(known).collect(), failing: None, unreadable };
            }
            Err(cause) => {
                let since = swept.failing.take().map_or(now, |(_, since)| since);
                swept.failing = Some((cause, since));
            }
        }
    }

    /// Everything in doubt with a participant, of earlier timelines too.
    pub(super) async fn all_in_doubt(&self, participant: &dyn Participant) -> Result<Vec<Prepared>, ParticipantError> {
        let mut all = Vec::new();
        for id in self.ids() {
            all.extend(self.call(participant.in_doubt(id)).await?.into_iter().filter(|one| one.gid.coordinator == id));
        }
        Ok(all)
    }

    /// Ends what is in doubt with a participant and not under way. Returns what it could not end.
    async fn end_all(&self, name: &Name, participant: &dyn Participant, found: Vec<Prepared>, begun: &Begun) -> Left {
        let (own, takeover, holders) = (self.standing.id, self.standing.takeover, self.standing.holders());
        let is_ended = |one: &Prepared| {
            let TxnId { takeover: under, number } = one.gid.txn;
            let had_ended = number <= begun.last && !begun.live.contains(&number);
            one.gid.coordinator != own || holders.is_behind(under) || under == takeover && had_ended
        };
        let ours: Vec<Prepared> = found.into_iter().filter(is_ended).collect();
        let ended = stream::iter(ours)
            .map(|one| async move { (self.end_one(name, participant, &one.gid).await, one) })
            .buffer_unordered(AT_ONCE);
        let left = ended.fold(Left::default(), |mut left, (ended, one)| async move {
            match ended {
                Ok(true) => return left,
                Ok(false) => {}
                Err(cause) => left.unreadable = Some(cause.to_string()),
            }
            left.held.push(one);
            left
        });
        left.await
    }

    /// Ends a branch as the log says. Whether it has ended; why the log does not say, where it cannot be read.
    async fn end_one(&self, name: &Name, participant: &dyn Participant, gid: &Gid) -> Result<bool, TxnError> {
        match self.tell((gid, name), participant, None, false).await {
            Told::Ended(_) => {
                self.env.reached("txn: a branch in doubt was ended");
                self.counts().resolved += 1;
                Ok(true)
            }
            Told::Unreadable(cause) => Err(cause),
            // It lists what it says it ended: it is asked again.
            Told::Contradicted | Told::Left => Ok(false),
            Told::NotDone(cause) => {
                tracing::warn!(%gid, participant = %name, %cause, "a branch in doubt could not be ended");
                Ok(false)
            }
        }
    }

    /// For how long the oldest branch has been in doubt that a sweep could not end, or a participant could not be asked.
    pub(super) fn oldest(&self) -> Option<Duration> {
        let (seen, now) = (self.seen.lock().unwrap_or_else(PoisonError::into_inner), self.env.mono());
        seen.values().filter_map(|swept| swept.oldest(now)).max()
    }
}

impl super::Coordinator {
    /// Asks every participant at once what is in doubt with it, and ends what can be ended. Where another sweep is at it already
    /// this one waits for its turn, so that what was in doubt when it was called has been looked at when it returns.
    ///
    /// # Cancel safety
    /// Cancel safe: what was not ended is ended by a later sweep.
    pub async fn sweep(&self) {
        self.shared.sweep_all().await;
    }

    /// What each participant said when it was last asked; those that were not asked yet are missing.
    pub fn swept(&self) -> BTreeMap<Name, Swept> {
        self.shared.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// For how long the oldest branch has been in doubt that this coordinator could not end, or the participant that has been
    /// silent for longest did not say what it holds: for alarms, and readiness. Nothing of one that was replaced: what that left
    /// behind is its successor's to end, and to tell of.
    pub fn oldest_doubt(&self) -> Option<Duration> {
        if self.is_fenced() {
            return None;
        }
        let live = self.shared.unfinished().live.values().map(|live| live.since).min();
        let stuck = live.map(|since| self.shared.env.mono().saturating_since(since));
        // A transaction that is on its way, and has not taken longer than it may, is no doubt.
        let slow = self.shared.config.prepare_timeout + self.shared.config.decision_patience;
        self.shared.oldest().max(stuck.filter(|span| *span > slow))
    }
}

/// How the sweep's task is woken.
pub(super) type Asked = Arc<tokio::sync::Notify>;
