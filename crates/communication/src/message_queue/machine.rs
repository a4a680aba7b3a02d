//! Which message is handed out next, and whose it is: the rules, without a clock, a disk or a wait.
//!
//! Every change goes through one function (`put`), which keeps the indexes (what is ready, what time changes next, who is
//! in which group) true to the entries and, between [`begin`](Dispatcher::begin) and [`keep`](Dispatcher::keep), notes how
//! it was before: what could not be made durable is taken back as if it had never been decided.

mod counts;
mod indexes;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use quorate_foundations::time::Boot;

use super::{Config, Rate};
pub use counts::Counts;
use indexes::{Members, lease_of};

/// A message's number: rises in the order of sending, and is never used again.
pub type Seq = u64;

/// A message under a fence: what a consumer claims to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Claim {
    /// The message.
    pub seq: Seq,
    /// How often it had been handed out then; rises with each time, so that an older holder is told apart.
    pub delivery: u32,
}

/// Where a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It waits for its turn. `lapsed`: a lease on it expired, and its holder may still settle it.
    Waiting {
        /// Whether the last holder still may.
        lapsed: bool,
    },
    /// It is not handed out before a certain time.
    Resting {
        /// That time.
        until: Boot,
    },
    /// A consumer holds it.
    Leased {
        /// Until then.
        until: Boot,
    },
    /// A dead letter.
    Parked,
}

/// What the rules know of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its group.
    pub group: Option<Arc<str>>,
    /// Its priority.
    pub priority: u8,
    /// How often it was handed out, ever.
    pub deliveries: u32,
    /// How often since it was sent or replayed.
    pub attempts: u32,
    /// Where it is.
    pub phase: Phase,
    /// When it is of no use any more.
    pub expires: Option<Boot>,
    /// Its bytes, roughly.
    pub bytes: u32,
    /// When it was sent, in nanoseconds of the wall clock: for its age.
    pub sent_ns: i64,
}

/// A message that is handed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hand {
    /// The message, under its new fence.
    pub claim: Claim,
    /// The attempt, from 1.
    pub attempt: u32,
    /// Whether an earlier lease on it expired.
    pub lapsed: bool,
}

/// What time alone did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passed {
    /// The message is of no use any more and is gone.
    Outdated(Seq),
    /// The last lease on it expired after the last attempt: it is a dead letter now.
    Parked(Claim, u32),
}

/// What became of a message that its holder gave back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Returned {
    /// It is handed out again after so long.
    Rests(Duration),
    /// It had its last attempt.
    Parked,
}

/// The messages of a queue.
#[derive(Debug, Default)]
pub struct Dispatcher {
    config: Config,
    entries: BTreeMap<Seq, Entry>,
    /// What can be handed out: the highest priority, then the oldest first.
    ready: BTreeSet<(u8, Seq)>,
    groups: BTreeMap<Arc<str>, Members>,
    timers: BTreeSet<(Boot, Seq)>,
    parked: BTreeSet<Seq>,
    leased: usize,
    /// The time up to which the rate is used up, and how that was before what may be taken back.
    spent_until: Boot,
    spent_for_good: Boot,
    /// Leases that ended since somebody asked: settled, given back, expired.
    ended: Vec<Claim>,
    /// How many of them ended before what may be taken back.
    ended_for_good: usize,
    /// How entries were before, oldest first; `None` while nothing is to be taken back.
    undo: Option<Vec<(Seq, Option<Entry>)>>,
}

impl Dispatcher {
    /// An empty queue.
    pub fn new(config: Config) -> Self {
        Self { config, ..Self::default() }
    }

    /// How the queue is.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Goes by another configuration from now on.
    pub fn configure(&mut self, config: Config) {
        self.config = config;
    }

    /// How many messages there are, dead letters included.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// What is known of a message.
    pub fn get(&self, seq: Seq) -> Option<&Entry> {
        self.entries.get(&seq)
    }

    /// Dead letters in order, behind `after`.
    pub fn parked(&self, after: Seq) -> impl Iterator<Item = Seq> + '_ {
        self.parked.range(after + 1..).copied()
    }

    /// All messages in order, behind `after`.
    pub fn all(&self, after: Seq) -> impl Iterator<Item = Seq> + '_ {
        self.entries.range(after + 1..).map(|(seq, _)| *seq)
    }

    /// From now on changes can be taken back.
    pub fn begin(&mut self) {
        self.undo = Some(Vec::new());
        self.spent_for_good = self.spent_until;
        self.ended_for_good = self.ended.len();
    }

    /// What was changed since [`begin`](Self::begin) is durable.
    pub fn keep(&mut self) {
        self.undo = None;
    }

    /// Takes back what was changed since [`begin`](Self::begin).
    pub fn take_back(&mut self) {
        let Some(undo) = self.undo.take() else { return };
        for (seq, before) in undo.into_iter().rev() {
            self.put(seq, before);
        }
        self.spent_until = self.spent_for_good;
        // The others have not ended, and those that were handed out had not begun.
        self.ended.truncate(self.ended_for_good);
    }

    /// Takes in a message, as it was sent or as it was stored.
    pub fn insert(&mut self, seq: Seq, entry: Entry) {
        self.put(seq, Some(entry));
    }

    /// Lets time act.
    pub fn tick(&mut self, now: Boot) -> Vec<Passed> {
        self.tick_some(now, usize::MAX)
    }

    /// The same, until time has done something to `most` messages that somebody has to write down. The others are still due.
    pub fn tick_some(&mut self, now: Boot, most: usize) -> Vec<Passed> {
        let mut passed = Vec::new();
        while let Some((due, seq)) = self.timers.first().copied().filter(|(due, _)| *due <= now && passed.len() < most)
        {
            let Some(mut entry) = self.entries.get(&seq).cloned() else {
                unreachable!("invariant: whoever has a timer is there")
            };
            let outdated = entry.expires.is_some_and(|expires| expires <= now);
            entry.phase = match entry.phase {
                Phase::Waiting { .. } | Phase::Resting { .. } if outdated => {
                    self.put(seq, None);
                    passed.push(Passed::Outdated(seq));
                    continue;
                }
                Phase::Resting { .. } => Phase::Waiting { lapsed: false },
                Phase::Leased { .. } if entry.attempts >= self.config.max_attempts => {
                    passed.push(Passed::Parked(Claim { seq, delivery: entry.deliveries }, entry.attempts));
                    Phase::Parked
                }
                Phase::Leased { .. } => Phase::Waiting { lapsed: true },
                Phase::Waiting { .. } | Phase::Parked => unreachable!("invariant: nothing was due at {due:?}"),
            };
            self.put(seq, Some(entry));
        }
        passed
    }

    /// When [`tick`](Self::tick) is next due, or more can be handed out; `None` while time changes nothing.
    pub fn wake_at(&self, now: Boot) -> Option<Boot> {
        let timer = self.timers.first().map(|(due, _)| *due);
        let rate = self.ready.first().and(self.allowed_at()).filter(|at| !self.config.paused && *at > now);
        timer.into_iter().chain(rate).min()
    }

    /// Hands out at most `max` messages of at most `max_bytes` together (one always fits), each for `ttl`.
    pub fn take(&mut self, now: Boot, max: usize, max_bytes: usize, ttl: Duration) -> Vec<Hand> {
        let mut hands = Vec::new();
        let mut bytes = 0;
        while hands.len() < max && self.may_hand_out(now) {
            let Some((_, seq)) = self.ready.first().copied() else { break };
            let Some(mut entry) = self.entries.get(&seq).cloned() else {
                unreachable!("invariant: what is ready is there")
            };
            bytes += entry.bytes as usize;
            if bytes > max_bytes && !hands.is_empty() {
                break;
            }
            entry.deliveries += 1;
            entry.attempts += 1;
            let lapsed = entry.phase == Phase::Waiting { lapsed: true };
            entry.phase = Phase::Leased { until: now + ttl };
            hands.push(Hand { claim: Claim { seq, delivery: entry.deliveries }, attempt: entry.attempts, lapsed });
            self.put(seq, Some(entry));
            if let Some(Rate { count, per }) = self.config.rate {
                self.spent_until = self.spent_until.max(now) + per / count.get();
            }
        }
        hands
    }

    /// Whether something can be handed out now.
    pub fn has_ready(&self, now: Boot) -> bool {
        !self.ready.is_empty() && self.may_hand_out(now)
    }

    fn may_hand_out(&self, now: Boot) -> bool {
        let crowded = self.config.max_in_flight.is_some_and(|max| self.leased >= max.get() as usize);
        !self.config.paused && !crowded && self.allowed_at().is_none_or(|at| at <= now)
    }

    /// When the rate lets one more out; `None` where there is none, or it is unused.
    fn allowed_at(&self) -> Option<Boot> {
        let Rate { count, per } = self.config.rate?;
        // The generic cell rate algorithm: what one message costs, and as many at once as one span allows.
        let slack = per.saturating_sub(per / count.get());
        Some(Boot::from_nanos(self.spent_until.as_nanos().saturating_sub(nanos(slack))))
    }

    /// How much of the rate is used up ahead of `now`: what another process that hands out of the same queue has to go by.
    pub fn spent_ahead(&self, now: Boot) -> Duration {
        self.spent_until.saturating_since(now)
    }

    /// Another process had used up so much of the rate, at a moment that is no later than `now`.
    pub fn spent_elsewhere(&mut self, now: Boot, ahead: Duration) {
        let most = self.config.rate.map_or(Duration::ZERO, |rate| rate.per);
        self.spent_until = self.spent_until.max(now + ahead.min(most));
    }

    /// Whether the claim holds.
    pub fn holds(&self, claim: Claim) -> bool {
        self.held(claim).is_some()
    }

    /// Whether the claim's lease runs.
    pub fn is_out(&self, claim: Claim) -> bool {
        let entry = self.entries.get(&claim.seq);
        entry.is_some_and(|entry| lease_of(claim.seq, entry) == Some(claim))
    }

    /// The claims whose leases ended since this was last asked: their messages were settled or given back, or time ran out.
    pub fn take_ended(&mut self) -> Vec<Claim> {
        std::mem::take(&mut self.ended)
    }

    fn held(&self, claim: Claim) -> Option<Entry> {
        let entry = self.entries.get(&claim.seq)?;
        let out = matches!(entry.phase, Phase::Leased { .. } | Phase::Waiting { lapsed: true });
        (out && entry.deliveries == claim.delivery).then(|| entry.clone())
    }

    /// The message is done. Whether the claim held.
    pub fn ack(&mut self, claim: Claim) -> bool {
        let held = self.holds(claim);
        if held {
            self.put(claim.seq, None);
        }
        held
    }

    /// Somebody's transaction settled the message, which its rows prove.
    pub fn settled_elsewhere(&mut self, claim: Claim) {
        if self.entries.get(&claim.seq).is_some_and(|entry| entry.deliveries == claim.delivery) {
            self.put(claim.seq, None);
        }
    }

    /// A row proved that the message is not there any more.
    pub fn forget(&mut self, seq: Seq) {
        self.put(seq, None);
    }

    /// The message failed this time; it rests for `delay`, or as the configuration says. `None` if the claim did not hold.
    pub fn nack(&mut self, now: Boot, claim: Claim, delay: Option<Duration>) -> Option<Returned> {
        let mut entry = self.held(claim)?;
        if entry.attempts >= self.config.max_attempts {
            entry.phase = Phase::Parked;
            self.put(claim.seq, Some(entry));
            return Some(Returned::Parked);
        }
        let rest = delay.unwrap_or_else(|| self.config.backoff.delay(entry.attempts, claim.seq));
        entry.phase =
            if rest.is_zero() { Phase::Waiting { lapsed: false } } else { Phase::Resting { until: now + rest } };
        self.put(claim.seq, Some(entry));
        Some(Returned::Rests(rest))
    }

    /// The message never reached its holder: as if it had not been handed out, but for the fence.
    pub fn hand_back(&mut self, claim: Claim) -> bool {
        let Some(mut entry) = self.held(claim) else { return false };
        entry.attempts = entry.attempts.saturating_sub(1);
        entry.phase = Phase::Waiting { lapsed: false };
        self.put(claim.seq, Some(entry));
        true
    }

    /// The holder needs the message for `ttl` from now on. Whether the claim held, and nobody holds another one of its group: of a
    /// lease that ran out, one in front of it may be out by now.
    pub fn extend(&mut self, now: Boot, claim: Claim, ttl: Duration) -> bool {
        let Some(mut entry) = self.held(claim) else { return false };
        let group = entry.group.as_ref().and_then(|group| self.groups.get(group));
        if matches!(entry.phase, Phase::Waiting { .. }) && group.is_some_and(|members| members.leased > 0) {
            return false;
        }
        entry.phase = Phase::Leased { until: now + ttl };
        self.put(claim.seq, Some(entry));
        true
    }

    /// The holder sets the message aside. Its attempts; `None` if the claim did not hold.
    pub fn park(&mut self, claim: Claim) -> Option<u32> {
        let mut entry = self.held(claim)?;
        let attempts = entry.attempts;
        entry.phase = Phase::Parked;
        self.put(claim.seq, Some(entry));
        Some(attempts)
    }

    /// A dead letter is handed out again, in its old place. Whether it was one.
    pub fn replay(&mut self, seq: Seq) -> bool {
        let Some(mut entry) = self.entries.get(&seq).filter(|entry| entry.phase == Phase::Parked).cloned() else {
            return false;
        };
        entry.attempts = 0;
        entry.phase = Phase::Waiting { lapsed: false };
        // Whoever replays it wants it done now.
        entry.expires = None;
        self.put(seq, Some(entry));
        true
    }

    /// A dead letter is given up. Whether it was one.
    pub fn discard(&mut self, seq: Seq) -> bool {
        let parked = self.parked.contains(&seq);
        if parked {
            self.put(seq, None);
        }
        parked
    }
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
