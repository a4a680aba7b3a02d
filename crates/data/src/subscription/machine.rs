//! Who may have which event next: the rules of a durable subscription, without clock, log or tables.
//!
//! ```text
//!      checkpoint                    scanned        head of the log
//!  ────────┼──────────────────────────┼─ ─ ─ ─ ─ ─ ─ ─┼
//!   settled│  the window: waiting,    │  not yet looked at
//!  or parked  leased, resting, settled│
//! ```
//!
//! * Everything at or before the checkpoint was settled (acknowledged or discarded) or parked.
//! * Of each key only the first unsettled event may be handed out, so a leased, resting or parked one holds back the
//!   rest of its key and nobody else's. What is behind a parked event is parked behind it.
//! * An attempt is counted, and its fence drawn, by the change that must be durable *before* the event leaves.
//! * A lease that has expired stands until someone else is given the event or it is parked: only then do its holder's
//!   words count for nothing.
//!
//! Rows hold what cannot be read off the log again: leased, resting and parked events, replayed ones, and those settled
//! ahead of the checkpoint. Waiting events that were never handed out have none.

mod entry;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

pub use entry::{Cause, Failure, Key, Moment, Phase, Saved, Stored};
use entry::{Entry, State};
use quorate_foundations::time::Boot;

use super::{Backoff, Claim, Config};
use crate::event::Position;

/// The numbers a machine goes by.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// See [`Config::lease_ttl`].
    pub lease_ttl: Duration,
    /// See [`Config::max_attempts`].
    pub max_attempts: u32,
    /// See [`Config::window`].
    pub window: usize,
    /// See [`Config::max_parked`].
    pub max_parked: usize,
    /// See [`Config::backoff`].
    pub backoff: Backoff,
}

/// What can happen to a subscription.
#[derive(Clone, Debug)]
pub enum Input {
    /// The log was read up to `to`, from [`Dispatcher::scanned`] on; these of its events are to be handed out.
    Scanned {
        /// In order of position.
        events: Vec<(Position, Key)>,
        /// How far was read.
        to: Position,
    },
    /// A consumer asks for events.
    Take {
        /// At most so many.
        max: usize,
        /// Who asks.
        owner: Arc<str>,
    },
    /// The holder is done with the event.
    Ack(Claim),
    /// The holder could not do it this time.
    Nack {
        /// What it holds.
        claim: Claim,
        /// How long to rest; `None` lets the backoff decide.
        rest: Option<Duration>,
        /// Why.
        reason: String,
    },
    /// The holder needs longer: `ttl` from now on.
    Extend {
        /// What it holds.
        claim: Claim,
        /// How long.
        ttl: Duration,
    },
    /// The holder says that trying again will not help.
    Park {
        /// What it holds.
        claim: Claim,
        /// Why.
        reason: String,
    },
    /// The event never reached the consumer: as if it had not been handed out.
    Return(Claim),
    /// A transaction that committed elsewhere has settled the event, and its row says so.
    SettledElsewhere(Claim),
    /// Parked events shall be handed out again, each with all its attempts.
    Replay(Selection),
    /// Parked events shall be given up.
    Discard(Selection),
}

/// Which parked events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// All.
    All,
    /// Those of a key.
    Key(Key),
    /// One. Replaying it replays what is parked before it in its key too: order is kept.
    Event(Position),
}

/// What should happen. None may be carried out before the machine's [`Changes`] are durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Hand the event out.
    Hand {
        /// Which, and under which fence.
        claim: Claim,
        /// What it belongs to.
        key: Key,
        /// How often it has now been handed out, counted from 1.
        attempt: u32,
        /// For how long.
        ttl: Duration,
    },
    /// Tell the holder that the event is no longer its own; nothing changed.
    Lost(Claim),
    /// Tell the operator how many parked events were replayed or discarded.
    Selected(usize),
}

/// What must be durable before effects are carried out.
#[derive(Clone, Debug, PartialEq)]
pub struct Changes {
    /// The revision they are based on; they make the next one. Another one found: nothing may be written.
    pub based_on: u64,
    /// See [`Dispatcher::checkpoint`].
    pub checkpoint: Position,
    /// The last fence given out.
    pub fence: u64,
    /// Rows to insert (`None`) or to replace, if they still are as known.
    pub put: Vec<(Stored, Option<Saved>)>,
    /// Rows to delete, if they still are as known.
    pub delete: Vec<(Position, Saved)>,
}

/// Why nothing more can be handed out although there is more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stall {
    /// So many events are unsettled.
    Window(usize),
    /// So many events are parked.
    Parked(usize),
}

/// Numbers for people.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Handed out and not settled.
    pub in_flight: usize,
    /// Resting after a failure.
    pub resting: usize,
    /// Known and waiting for their turn.
    pub waiting: usize,
    /// Set aside.
    pub parked: usize,
    /// Settled ahead of the checkpoint.
    pub settled_ahead: usize,
}

/// Says who may have which event next: the state of one durable subscription.
#[derive(Debug)]
pub struct Dispatcher {
    rules: Rules,
    revision: u64,
    checkpoint: Position,
    saved_checkpoint: Position,
    scanned: Position,
    /// The last event that had a row when the machine was restored.
    last_restored: Position,
    fence: u64,
    entries: BTreeMap<Position, Entry>,
    /// Unsettled and parked events of each key.
    keys: BTreeMap<Key, BTreeSet<Position>>,
    /// Those that may be handed out now.
    ready: BTreeSet<Position>,
    timers: BTreeSet<(Boot, Position)>,
    /// Beyond the checkpoint, neither settled nor parked: the first one holds the checkpoint.
    open: BTreeSet<Position>,
    /// Beyond the checkpoint, settled.
    settled: BTreeSet<Position>,
    parked: BTreeSet<Position>,
    dirty: BTreeSet<Position>,
    doomed: BTreeMap<Position, Saved>,
}

impl From<&Config> for Rules {
    fn from(config: &Config) -> Self {
        Self {
            lease_ttl: config.lease_ttl,
            max_attempts: config.max_attempts,
            window: config.window,
            max_parked: config.max_parked,
            backoff: config.backoff,
        }
    }
}

impl Dispatcher {
    /// The machine that `rows`, in order of position, describe, at `revision` with `checkpoint` and `fence` as stored.
    ///
    /// Leases and rests begin anew, except those that `before`, an earlier machine of the same process, has been
    /// watching already: for a row it knows in the same version, its deadline stands.
    pub fn restore(
        rules: Rules,
        (revision, checkpoint, fence): (u64, Position, u64),
        rows: &[Stored],
        before: Option<&Self>,
        now: Moment,
    ) -> Self {
        let mut machine = Self {
            rules,
            revision,
            checkpoint,
            saved_checkpoint: checkpoint,
            scanned: checkpoint,
            last_restored: rows.last().map_or(Position::ZERO, |row| row.position),
            fence,
            entries: BTreeMap::new(),
            keys: BTreeMap::new(),
            ready: BTreeSet::new(),
            timers: BTreeSet::new(),
            open: BTreeSet::new(),
            settled: BTreeSet::new(),
            parked: BTreeSet::new(),
            dirty: BTreeSet::new(),
            doomed: BTreeMap::new(),
        };
        for row in rows {
            let watched = before.and_then(|before| before.watched(row));
            machine.enter(row.position, watched.unwrap_or_else(|| Entry::load(row, now.boot)));
        }
        let keys: Vec<Key> = machine.keys.keys().cloned().collect();
        keys.iter().for_each(|key| machine.refresh(key, now));
        machine.advance();
        machine
    }

    fn watched(&self, row: &Stored) -> Option<Entry> {
        let same = |entry: &&Entry| {
            let unchanged = entry.saved == Some(Saved { changed: row.changed, state: row.phase });
            unchanged && entry.state.phase() == row.phase && !self.dirty.contains(&row.position)
        };
        self.entries.get(&row.position).filter(same).cloned()
    }

    /// Takes one input at `now` and pushes what should happen, once [`changes`](Self::changes) are durable.
    pub fn step(&mut self, now: Moment, input: Input, effects: &mut Vec<Effect>) {
        self.tick(now);
        match input {
            Input::Scanned { events, to } => self.scan(events, to, now),
            Input::Take { max, owner } => self.take(max, &owner, now, effects),
            Input::Ack(claim) => self.held(claim, effects, |machine| machine.settle(claim.position, now)),
            Input::SettledElsewhere(claim) => self.settled_elsewhere(claim, now),
            Input::Nack { claim, rest, reason } => {
                self.held(claim, effects, |machine| machine.nack(claim.position, rest, &reason, now));
            }
            Input::Extend { claim, ttl } => {
                self.held(claim, effects, |machine| machine.extend(claim.position, ttl, now));
            }
            Input::Park { claim, reason } => self.held(claim, effects, |machine| {
                machine.fail(claim.position, Cause::Parked, &reason, now);
                machine.park(claim.position, now);
            }),
            Input::Return(claim) => self.held(claim, effects, |machine| machine.put_back(claim.position, now)),
            Input::Replay(which) => self.replay(&which, now, effects),
            Input::Discard(which) => self.discard(&which, now, effects),
        }
        self.advance();
    }

    /// Lets time alone act.
    pub fn tick(&mut self, now: Moment) {
        while let Some((due, position)) = self.timers.first().copied().filter(|(due, _)| *due <= now.boot) {
            self.timers.remove(&(due, position));
            let Some(entry) = self.entries.get(&position) else { continue };
            let expired = matches!(entry.state, State::Leased { .. });
            if expired && entry.tried() >= self.rules.max_attempts {
                self.fail(position, Cause::Expired, "the lease expired", now);
                self.park(position, now);
            } else {
                self.ready.insert(position);
            }
        }
        self.advance();
    }

    /// When [`tick`](Self::tick) is next due.
    pub fn wake_at(&self) -> Option<Boot> {
        self.timers.first().map(|(due, _)| *due)
    }

    /// Every event that is to be handed out, up to here, was settled or parked. Never moves back.
    pub fn checkpoint(&self) -> Position {
        self.checkpoint
    }

    /// How far the log was looked at.
    pub fn scanned(&self) -> Position {
        self.scanned
    }

    /// The revision its rows are at.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// How many events can be handed out right now.
    pub fn ready(&self) -> usize {
        if self.parked.len() < self.rules.max_parked { self.ready.len() } else { 0 }
    }

    /// How many more events the window takes.
    pub fn room(&self) -> usize {
        if self.parked.len() >= self.rules.max_parked {
            return 0;
        }
        self.rules.window.saturating_sub(self.used())
    }

    /// Events in the window. After a restart the rows name some ahead of `scanned`: they count when the scan reaches
    /// them, or a window full of them would keep it from ever getting there.
    fn used(&self) -> usize {
        if self.scanned >= self.last_restored {
            return self.open.len() + self.settled.len();
        }
        self.open.range(..=self.scanned).count() + self.settled.range(..=self.scanned).count()
    }

    /// What holds the subscription up, if something does.
    pub fn stall(&self) -> Option<Stall> {
        if self.parked.len() >= self.rules.max_parked {
            return Some(Stall::Parked(self.parked.len()));
        }
        (self.room() == 0).then_some(Stall::Window(self.used()))
    }

    /// The first event that is neither settled nor parked.
    pub fn oldest(&self) -> Option<Position> {
        self.open.first().copied()
    }

    /// Whether the event is held under that fence.
    pub fn holds(&self, claim: Claim) -> bool {
        self.entries.get(&claim.position).is_some_and(|entry| entry.is_held_under(claim.fence))
    }

    /// Whether the event is known and has not been handed out.
    pub fn waits(&self, position: Position) -> bool {
        self.entries.get(&position).is_some_and(|entry| entry.state == State::Waiting)
    }

    /// Numbers for people.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts { parked: self.parked.len(), settled_ahead: self.settled.len(), ..Counts::default() };
        for entry in self.entries.values() {
            match entry.state {
                State::Leased { .. } => counts.in_flight += 1,
                State::Resting { .. } => counts.resting += 1,
                State::Waiting => counts.waiting += 1,
                State::Parked | State::Settled => {}
            }
        }
        counts
    }

    /// What must be durable before any effect so far is carried out; `None` if nothing must.
    pub fn changes(&self) -> Option<Changes> {
        (!self.dirty.is_empty() || !self.doomed.is_empty()).then(|| self.all_changes())
    }

    /// As [`changes`](Self::changes), and also when the checkpoint alone has moved by `stride` or more.
    pub fn changes_or_checkpoint(&self, stride: u64) -> Option<Changes> {
        let moved = self.checkpoint.get() - self.saved_checkpoint.get() >= stride;
        if moved { Some(self.all_changes()) } else { self.changes() }
    }

    fn all_changes(&self) -> Changes {
        let put = |position: &Position| {
            let entry = self.entries.get(position)?;
            Some((entry.store(*position, self.revision + 1), entry.saved))
        };
        Changes {
            based_on: self.revision,
            checkpoint: self.checkpoint,
            fence: self.fence,
            put: self.dirty.iter().filter_map(put).collect(),
            delete: self.doomed.iter().map(|(position, saved)| (*position, *saved)).collect(),
        }
    }

    /// The [`Changes`] last asked for are durable.
    pub fn saved(&mut self) {
        self.revision += 1;
        self.saved_checkpoint = self.checkpoint;
        self.doomed.clear();
        for position in std::mem::take(&mut self.dirty) {
            if let Some(entry) = self.entries.get_mut(&position) {
                entry.saved = Some(Saved { changed: self.revision, state: entry.state.phase() });
            }
        }
    }

    fn scan(&mut self, events: Vec<(Position, Key)>, to: Position, now: Moment) {
        for (position, key) in events {
            // A row knows the event already when the machine was restored and reads the window again.
            if position > self.scanned && !self.entries.contains_key(&position) {
                self.enter(position, Entry::new(key.clone()));
                self.refresh(&key, now);
            }
        }
        self.scanned = self.scanned.max(to);
    }

    fn take(&mut self, max: usize, owner: &Arc<str>, now: Moment, effects: &mut Vec<Effect>) {
        for _ in 0..max.min(self.ready()) {
            let Some(position) = self.ready.pop_first() else { return };
            self.hand_out(position, owner, now, effects);
        }
    }

    fn hand_out(&mut self, position: Position, owner: &Arc<str>, now: Moment, effects: &mut Vec<Effect>) {
        let ttl = self.rules.lease_ttl;
        if matches!(self.entry(position).state, State::Leased { .. }) {
            self.fail(position, Cause::Expired, "the lease expired", now);
        }
        self.fence += 1;
        let claim = Claim::new(position, self.fence);
        let expires_at = now.boot + ttl;
        self.set(position, State::Leased { fence: claim.fence, owner: owner.clone(), ttl, expires_at });
        let entry = self.entry_mut(position);
        entry.attempts += 1;
        effects.push(Effect::Hand { claim, key: entry.key.clone(), attempt: entry.attempts, ttl });
    }

    /// Does `act` if `claim` is what its holder believes.
    fn held(&mut self, claim: Claim, effects: &mut Vec<Effect>, act: impl FnOnce(&mut Self)) {
        if self.holds(claim) { act(self) } else { effects.push(Effect::Lost(claim)) }
    }

    fn settled_elsewhere(&mut self, claim: Claim, now: Moment) {
        if !self.holds(claim) {
            return;
        }
        if let Some(saved) = &mut self.entry_mut(claim.position).saved {
            saved.state = Phase::Settled;
        }
        self.settle(claim.position, now);
    }

    fn nack(&mut self, position: Position, rest: Option<Duration>, reason: &str, now: Moment) {
        self.fail(position, Cause::Nacked, reason, now);
        let tried = self.entry(position).tried();
        if tried >= self.rules.max_attempts {
            return self.park(position, now);
        }
        let rest = rest.unwrap_or_else(|| self.rules.backoff.delay(tried, position.get()));
        self.set(position, State::Resting { rest, due_at: now.boot + rest });
        self.tick(now);
    }

    fn extend(&mut self, position: Position, ttl: Duration, now: Moment) {
        let State::Leased { fence, owner, .. } = self.entry(position).state.clone() else { return };
        self.set(position, State::Leased { fence, owner, ttl, expires_at: now.boot + ttl });
    }

    fn put_back(&mut self, position: Position, now: Moment) {
        self.entry_mut(position).attempts -= 1;
        self.wait(position, now);
    }

    fn park(&mut self, position: Position, now: Moment) {
        self.set(position, State::Parked);
        let key = self.entry(position).key.clone();
        self.refresh(&key, now);
    }

    fn wait(&mut self, position: Position, now: Moment) {
        self.set(position, State::Waiting);
        let key = self.entry(position).key.clone();
        self.refresh(&key, now);
    }

    fn replay(&mut self, which: &Selection, now: Moment, effects: &mut Vec<Effect>) {
        let chosen = self.selected(which, true);
        for position in &chosen {
            let entry = self.entry_mut(*position);
            entry.forgiven = entry.attempts;
        }
        // All of them before any key is looked at: one behind a parked event would be parked again.
        for position in &chosen {
            self.set(*position, State::Waiting);
        }
        self.refresh_keys_of(&chosen, now);
        effects.push(Effect::Selected(chosen.len()));
    }

    fn discard(&mut self, which: &Selection, now: Moment, effects: &mut Vec<Effect>) {
        let chosen = self.selected(which, false);
        for position in &chosen {
            self.settle(*position, now);
        }
        effects.push(Effect::Selected(chosen.len()));
    }

    fn selected(&self, which: &Selection, with_earlier: bool) -> Vec<Position> {
        match which {
            Selection::All => self.parked.iter().copied().collect(),
            Selection::Key(key) => self.parked_of(key).collect(),
            Selection::Event(position) => match self.entries.get(position).filter(|_| self.parked.contains(position)) {
                Some(entry) if with_earlier => self.parked_of(&entry.key).take_while(|p| p <= position).collect(),
                Some(_) => vec![*position],
                None => Vec::new(),
            },
        }
    }

    fn parked_of(&self, key: &Key) -> impl Iterator<Item = Position> + '_ {
        self.keys.get(key).into_iter().flatten().copied().filter(|position| self.parked.contains(position))
    }

    /// The event is done with.
    fn settle(&mut self, position: Position, now: Moment) {
        self.set(position, State::Settled);
        let key = self.entry(position).key.clone();
        if let Some(of_key) = self.keys.get_mut(&key) {
            of_key.remove(&position);
            if of_key.is_empty() {
                self.keys.remove(&key);
            }
        }
        if position <= self.checkpoint {
            self.forget(position);
        }
        self.refresh(&key, now);
    }

    /// Lets the first event of `key` have its turn, and parks what stands behind a parked one.
    fn refresh(&mut self, key: &Key, now: Moment) {
        let Some(first) = self.keys.get(key).and_then(BTreeSet::first).copied() else { return };
        match self.entry(first).state {
            State::Waiting => {
                self.ready.insert(first);
            }
            State::Parked => self.park_behind(key, first, now),
            State::Leased { .. } | State::Resting { .. } | State::Settled => {}
        }
    }

    fn refresh_keys_of(&mut self, positions: &[Position], now: Moment) {
        let keys: BTreeSet<Key> = positions.iter().map(|position| self.entry(*position).key.clone()).collect();
        keys.iter().for_each(|key| self.refresh(key, now));
    }

    fn park_behind(&mut self, key: &Key, first: Position, now: Moment) {
        let waiting = |position: &&Position| self.entries.get(position).is_some_and(|e| e.state == State::Waiting);
        let behind: Vec<Position> = self.keys.get(key).into_iter().flatten().filter(waiting).copied().collect();
        for position in behind {
            self.fail(position, Cause::Behind, &format!("waits behind position {first} of its key"), now);
            self.set(position, State::Parked);
        }
    }

    fn fail(&mut self, position: Position, cause: Cause, reason: &str, now: Moment) {
        self.entry_mut(position).fail(now.wall, cause, reason);
    }

    /// Moves the checkpoint as far as it goes and forgets what was settled ahead of it.
    fn advance(&mut self) {
        let held = self.open.first().map(|first| Position::new(first.get() - 1));
        self.checkpoint = held.map_or(self.scanned, |held| held.min(self.scanned)).max(self.checkpoint);
        while let Some(position) = self.settled.first().copied().filter(|first| *first <= self.checkpoint) {
            self.forget(position);
        }
    }

    fn forget(&mut self, position: Position) {
        self.settled.remove(&position);
        self.dirty.remove(&position);
        if let Some(saved) = self.entries.remove(&position).and_then(|entry| entry.saved) {
            self.doomed.insert(position, saved);
        }
    }

    fn enter(&mut self, position: Position, entry: Entry) {
        if !matches!(entry.state, State::Settled) {
            self.keys.entry(entry.key.clone()).or_default().insert(position);
        }
        let state = entry.state.clone();
        self.entries.insert(position, entry);
        self.index(position, &state);
    }

    /// Changes an event's state and every index with it.
    fn set(&mut self, position: Position, state: State) {
        if let Some(due) = self.entry(position).state.due_at() {
            self.timers.remove(&(due, position));
        }
        for index in [&mut self.ready, &mut self.open, &mut self.settled, &mut self.parked] {
            index.remove(&position);
        }
        self.index(position, &state);
        self.entry_mut(position).state = state;
        self.dirty.insert(position);
    }

    fn index(&mut self, position: Position, state: &State) {
        if let Some(due) = state.due_at() {
            self.timers.insert((due, position));
        }
        let ahead = position > self.checkpoint;
        match state {
            State::Waiting | State::Leased { .. } | State::Resting { .. } if ahead => self.open.insert(position),
            State::Waiting | State::Leased { .. } | State::Resting { .. } => false,
            State::Parked => self.parked.insert(position),
            State::Settled => self.settled.insert(position),
        };
    }

    fn entry(&self, position: Position) -> &Entry {
        self.entries.get(&position).unwrap_or_else(|| unreachable!("invariant: indexes name entries that exist"))
    }

    fn entry_mut(&mut self, position: Position) -> &mut Entry {
        self.entries.get_mut(&position).unwrap_or_else(|| unreachable!("invariant: indexes name entries that exist"))
    }
}

#[cfg(test)]
mod tests;
