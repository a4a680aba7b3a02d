//! The events between the checkpoint and how far was scanned: each one's state, and every index over them.
//!
//! ```text
//!            parked ──┐            timers: leased and resting
//!                     ▼
//! checkpoint ──▶ open (waiting, leased, resting) and settled ahead ──▶ scanned
//!                     │
//!                     └─ ready: of each key the first, while it waits
//! ```

use std::collections::{BTreeMap, BTreeSet};

use quorate_foundations::time::Boot;

use super::{
    Changes, Counts, Moment, Selection,
    entry::{Cause, Entry, Key, Saved, State, Stored},
    unsaved::Unsaved,
};
use crate::event::Position;

/// The window, and what of it is still to be written.
#[derive(Debug)]
pub(super) struct Window {
    pub(super) checkpoint: Position,
    pub(super) scanned: Position,
    /// The last event that had a row when the machine was restored.
    last_restored: Position,
    entries: BTreeMap<Position, Entry>,
    /// Unsettled and parked events of each key.
    keys: BTreeMap<Key, BTreeSet<Position>>,
    /// Those that may be handed out now.
    pub(super) ready: BTreeSet<Position>,
    timers: BTreeSet<(Boot, Position)>,
    /// Beyond the checkpoint, neither settled nor parked: the first one holds the checkpoint.
    open: BTreeSet<Position>,
    /// Beyond the checkpoint, settled.
    settled: BTreeSet<Position>,
    pub(super) parked: BTreeSet<Position>,
    /// Up to the checkpoint: events that were gone before their turn.
    pub(super) passed_over: u64,
    /// The same beyond it: how many stand behind which event, and before the next that is known.
    gone: BTreeMap<Position, u64>,
    pub(super) unsaved: Unsaved,
}

impl Window {
    /// The window that `rows` describe; those that `before` has been watching are as it saw them.
    pub(super) fn restore(
        (revision, checkpoint): (u64, Position),
        rows: &[Stored],
        before: Option<&Self>,
        now: Moment,
    ) -> Self {
        let mut window = Self {
            checkpoint,
            scanned: checkpoint,
            last_restored: rows.last().map_or(Position::ZERO, |row| row.position),
            entries: BTreeMap::new(),
            keys: BTreeMap::new(),
            ready: BTreeSet::new(),
            timers: BTreeSet::new(),
            open: BTreeSet::new(),
            settled: BTreeSet::new(),
            parked: BTreeSet::new(),
            passed_over: 0,
            gone: BTreeMap::new(),
            unsaved: Unsaved::nothing(revision, checkpoint),
        };
        for row in rows {
            let watched = before.and_then(|before| before.watched(row));
            window.enter(row.position, watched.unwrap_or_else(|| Entry::load(row, now.boot)));
        }
        window.take_back_unheard();
        let keys: Vec<Key> = window.keys.keys().cloned().collect();
        keys.iter().for_each(|key| window.refresh(key, now));
        window.advance();
        window
    }

    /// Takes back leases behind another event of their key. Whoever decided them had settled that event, in a change whose last
    /// part was never written; until it is, nobody hears of what was decided.
    fn take_back_unheard(&mut self) {
        let behind = self.keys.values().flat_map(|of_key| of_key.iter().skip(1).copied());
        let is_leased = |position: &Position| matches!(self.entry(*position).state, State::Leased { .. });
        let unheard: Vec<Position> = behind.filter(is_leased).collect();
        for position in unheard {
            let entry = self.entry_mut(position);
            entry.attempts = entry.attempts.saturating_sub(1);
            entry.forgiven = entry.forgiven.min(entry.attempts);
            self.set(position, State::Waiting);
        }
    }

    fn watched(&self, row: &Stored) -> Option<Entry> {
        let same = |entry: &&Entry| {
            let unchanged = entry.saved == Some(Saved { changed: row.changed, state: row.phase });
            unchanged && entry.state.phase() == row.phase && !self.unsaved.is_put(row.position)
        };
        self.entries.get(&row.position).filter(same).cloned()
    }

    /// Takes in events of the log, which was read up to `to`.
    pub(super) fn scan(&mut self, events: Vec<(Position, Key)>, to: Position, now: Moment) {
        for (position, key) in events {
            // A row knows the event already when the machine was restored and reads the window again.
            if position > self.scanned && !self.entries.contains_key(&position) {
                self.enter(position, Entry::new(key.clone()));
                self.refresh(&key, now);
            }
        }
        self.scanned = self.scanned.max(to);
    }

    /// Notes that nothing is left of these events, which were just scanned. One that has a row was handed out while it was whole.
    pub(super) fn pass_over(&mut self, positions: &[Position]) {
        for position in positions.iter().filter(|position| !self.entries.contains_key(position)) {
            let before = self.entries.range(..position).next_back().map_or(self.checkpoint, |(before, _)| *before);
            *self.gone.entry(before).or_default() += 1;
        }
    }

    /// So many were passed over before the stored checkpoint.
    pub(super) fn restore_passed_over(&mut self, events: u64) {
        self.passed_over += events;
        self.unsaved.passed_over = events;
    }

    /// Events in the window. After a restart the rows name some ahead of `scanned`: they count when the scan reaches
    /// them, or a window full of them would keep it from ever getting there.
    pub(super) fn used(&self) -> usize {
        if self.scanned >= self.last_restored {
            return self.open.len() + self.settled.len();
        }
        self.open.range(..=self.scanned).count() + self.settled.range(..=self.scanned).count()
    }

    /// Numbers for people.
    pub(super) fn counts(&self) -> Counts {
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

    /// The first event that is neither settled nor parked.
    pub(super) fn oldest(&self) -> Option<Position> {
        self.open.first().copied()
    }

    /// Whether the event is known and has not been handed out.
    pub(super) fn waits(&self, position: Position) -> bool {
        self.entries.get(&position).is_some_and(|entry| entry.state == State::Waiting)
    }

    /// What is known of an event, if it is.
    pub(super) fn get(&self, position: Position) -> Option<&Entry> {
        self.entries.get(&position)
    }

    pub(super) fn entry(&self, position: Position) -> &Entry {
        self.entries.get(&position).unwrap_or_else(|| unreachable!("invariant: indexes name entries that exist"))
    }

    pub(super) fn entry_mut(&mut self, position: Position) -> &mut Entry {
        self.entries.get_mut(&position).unwrap_or_else(|| unreachable!("invariant: indexes name entries that exist"))
    }

    /// When time next changes something.
    pub(super) fn next_due(&self) -> Option<Boot> {
        self.timers.first().map(|(due, _)| *due)
    }

    /// An event whose lease or rest has ended by `now`, once.
    pub(super) fn due(&mut self, now: Boot) -> Option<Position> {
        let (due, position) = self.timers.first().copied().filter(|(due, _)| *due <= now)?;
        self.timers.remove(&(due, position));
        Some(position)
    }

    pub(super) fn selected(&self, which: &Selection, with_earlier: bool) -> Vec<Position> {
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
    pub(super) fn settle(&mut self, position: Position, now: Moment) {
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

    /// The event is set aside, and with it what stands behind it in its key.
    pub(super) fn park(&mut self, position: Position, now: Moment) {
        self.set(position, State::Parked);
        let key = self.entry(position).key.clone();
        self.refresh(&key, now);
    }

    /// The event waits for its turn.
    pub(super) fn wait(&mut self, position: Position, now: Moment) {
        self.set(position, State::Waiting);
        let key = self.entry(position).key.clone();
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

    /// [`refresh`](Self::refresh)es each key of `positions`.
    pub(super) fn refresh_keys_of(&mut self, positions: &[Position], now: Moment) {
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

    /// Notes that an attempt, or the hope of one, ended without settling the event.
    pub(super) fn fail(&mut self, position: Position, cause: Cause, reason: &str, now: Moment) {
        self.entry_mut(position).fail(now.wall, cause, reason);
    }

    /// Moves the checkpoint as far as it goes and forgets what was settled ahead of it.
    pub(super) fn advance(&mut self) {
        let held = self.open.first().map(|first| Position::new(first.get() - 1));
        self.checkpoint = held.map_or(self.scanned, |held| held.min(self.scanned)).max(self.checkpoint);
        // Between two known events nothing holds the checkpoint: what is gone there lies before it together.
        while let Some(gone) = self.gone.first_entry().filter(|gone| *gone.key() <= self.checkpoint) {
            self.passed_over += gone.remove();
        }
        while let Some(position) = self.settled.first().copied().filter(|first| *first <= self.checkpoint) {
            self.forget(position);
        }
    }

    fn forget(&mut self, position: Position) {
        self.settled.remove(&position);
        let saved = self.entries.remove(&position).and_then(|entry| entry.saved);
        self.unsaved.delete(position, saved);
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
    pub(super) fn set(&mut self, position: Position, state: State) {
        if let Some(due) = self.entry(position).state.due_at() {
            self.timers.remove(&(due, position));
        }
        for index in [&mut self.ready, &mut self.open, &mut self.settled, &mut self.parked] {
            index.remove(&position);
        }
        self.index(position, &state);
        self.entry_mut(position).state = state;
        self.unsaved.put(position);
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

    /// What is to be written next, with `fence` as the last one given out: rows of at most so many bytes, or one. With the
    /// last of them, and not before, go the checkpoint and the rows that it makes superfluous.
    pub(super) fn changes(&self, fence: u64, most: usize) -> Changes {
        let revision = self.unsaved.revision;
        let (mut put, mut bytes, mut all) = (Vec::new(), 0_usize, true);
        for position in self.unsaved.to_put() {
            let Some(entry) = self.entries.get(&position) else { continue };
            let row = entry.store(position, revision + 1);
            bytes = bytes.saturating_add(row.bytes());
            if bytes > most && !put.is_empty() {
                all = false;
                break;
            }
            put.push((row, entry.saved));
        }
        let (checkpoint, passed_over, delete) = match all {
            true => (self.checkpoint, self.passed_over, self.unsaved.to_delete().collect()),
            false => (self.unsaved.checkpoint, self.unsaved.passed_over, Vec::new()),
        };
        Changes { based_on: revision, checkpoint, fence, passed_over, put, delete }
    }

    /// `changes` are durable.
    pub(super) fn saved(&mut self, changes: &Changes) {
        let reached = (changes.checkpoint, changes.passed_over);
        self.unsaved.saved(reached, changes.delete.iter().map(|(position, _)| *position));
        for (row, _) in &changes.put {
            self.unsaved.put_saved(row.position);
            if let Some(entry) = self.entries.get_mut(&row.position) {
                entry.saved = Some(Saved { changed: row.changed, state: row.phase });
            }
        }
    }
}
