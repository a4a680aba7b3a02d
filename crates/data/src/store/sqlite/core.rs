//! The writer's core: what appending means, on the tail and the index, inside the open group.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, atomic::Ordering},
};

use bytes::BytesMut;
use quorate_foundations::{name::Name, time::Mono};
use quorate_runtime::Env;
use rusqlite::Connection;

use super::{
    backlog::Backlog,
    batch::{Ready, ReadyEvent, ReadyStream},
    block,
    checkpoint::Checkpoints,
    conditions::{self, Looks},
    connection::{self, failed, is_fatal},
    identity::{self, Largest, Origin},
    index,
    keys::{KeyState, missing},
    shared::Shared,
    sql::Guard,
    tables,
    tail::Slot,
};
use crate::{
    event::{Place, Position, Recorded, Version},
    store::{AfterCommit, AppendBatch, AppendError, Appended, StoreError, Token, UnitError},
};

/// The writing connection and what it needs. One thread at a time holds it.
pub(super) struct Core {
    pub(super) env: Env,
    pub(super) shared: Arc<Shared>,
    pub(super) connection: Connection,
    pub(super) largest: Largest,
    pub(super) guard: Guard,
    /// When the unit that is running must have ended.
    pub(super) deadline: Option<Mono>,
    pub(super) begun: bool,
    /// Why a statement of the unit that is running ended the whole transaction.
    pub(super) lost: Option<UnitError>,
    /// The bytes that the unit that is running has asked to write.
    pub(super) asked: usize,
    /// The same of quorate's own rooms, whose rows are not the caller's doing. They have a limit as high of their own.
    pub(super) asked_by_rooms: usize,
    pub(super) checkpoints: Checkpoints,
    pub(super) backlog: Backlog,
    pub(super) halted: bool,
    /// Events of the group up to here were taken in by the followers.
    pub(super) folded: u64,
    /// What the group's units want done once they are durable, in their order.
    pub(super) hooks: Vec<AfterCommit>,
    sealing: Sealing,
    buffer: BytesMut,
    /// Up to where readers were shown what is durable, before they were shown what may not be.
    #[cfg(feature = "museum")]
    shown_early: Option<u64>,
}

/// What the store says of itself about its sealed events: if it has any, it is not opened without its keys.
pub(super) struct Sealing {
    /// How many keys had been made when it last sealed events; 0 if it never did.
    pub(super) said: i64,
    /// It has sealed some since, in the group being written or one that was taken back.
    again: bool,
}

impl Sealing {
    /// What a store with `said` in its tables says.
    pub(super) fn new(said: i64) -> Self {
        Self { said, again: false }
    }
}

impl Core {
    pub(super) fn new(
        env: Env,
        shared: Arc<Shared>,
        connection: Connection,
        largest: Largest,
        guard: Guard,
        sealing: Sealing,
    ) -> Self {
        Self {
            env,
            shared,
            connection,
            largest,
            guard,
            deadline: None,
            begun: false,
            lost: None,
            asked: 0,
            asked_by_rooms: 0,
            checkpoints: Checkpoints::default(),
            backlog: Backlog::default(),
            halted: false,
            folded: 0,
            hooks: Vec::new(),
            sealing,
            buffer: BytesMut::new(),
            #[cfg(feature = "museum")]
            shown_early: None,
        }
    }

    /// Begins the group's transaction, unless it has begun.
    pub(super) fn begin(&mut self) -> Result<(), StoreError> {
        if self.halted {
            return Err(StoreError::Closed);
        }
        if !self.begun {
            self.run("BEGIN IMMEDIATE", "beginning a transaction")?;
            self.begun = true;
        }
        Ok(())
    }

    /// Begins a group: nothing of it was taken in by the followers.
    pub(super) fn begin_group(&mut self) {
        #[cfg(feature = "museum")]
        self.hide_again();
        self.folded = self.shared.tail().published();
    }

    /// The events of the group that the followers have yet to take in, which they now do.
    pub(super) fn unfolded(&mut self) -> Vec<Recorded> {
        let tail = self.shared.tail();
        let events = tail.events_after(self.folded).to_vec();
        self.folded = tail.end();
        events
    }

    /// Writes the group's events and commits; then they are durable and visible.
    pub(super) fn commit(&mut self) -> Result<(), StoreError> {
        #[cfg(feature = "museum")]
        self.hide_again();
        if self.shared.tail().end() > self.shared.tail().published() {
            self.begin()?;
            self.write_blocks()?;
        }
        let keys = self.shared.keys.made().max(1);
        let seals = self.sealing.again && keys > self.sealing.said;
        if seals {
            self.begin()?;
            tables::set_meta(&self.connection, "sealed", keys).map_err(failed("writing quorate_meta"))?;
        }
        #[cfg(feature = "museum")]
        self.show_early();
        if self.begun {
            self.make_durable("committing")?;
            self.begun = false;
        }
        #[cfg(feature = "museum")]
        if let Some(durable) = self.shown_early.take() {
            self.shared.tail_mut().show(durable);
        }
        if seals {
            self.sealing = Sealing::new(keys);
        }
        let (published, moved, forgets) = {
            let mut tail = self.shared.tail_mut();
            let forgets = tail.forgets();
            let appended = tail.events_after(tail.published()).iter().map(Recorded::stream);
            let moved = self.shared.streams.of(appended.chain(tail.changed()));
            tail.publish();
            (Position::new(tail.published()), moved, forgets)
        };
        if forgets {
            self.shared.forget();
        }
        self.shared.head.send_if_modified(|head| std::mem::replace(head, published) != published);
        self.shared.streams.wake(moved, published);
        for hook in std::mem::take(&mut self.hooks) {
            // Whoever's it is, the writer and everybody else go on.
            if catch_unwind(AssertUnwindSafe(hook)).is_err() {
                tracing::error!("what a transaction wanted done after its commit panicked");
            }
        }
        Ok(())
    }

    /// A bug of the museum: readers see events whose commit may still fail, until the next group begins.
    #[cfg(feature = "museum")]
    fn show_early(&mut self) {
        if self.env.planted("position-reused") {
            let mut tail = self.shared.tail_mut();
            let end = tail.end();
            self.shown_early = Some(tail.show(end));
        }
    }

    /// Takes back what was shown early and is not durable: its positions go to others.
    #[cfg(feature = "museum")]
    fn hide_again(&mut self) {
        if let Some(durable) = self.shown_early.take() {
            let mut tail = self.shared.tail_mut();
            tail.show(durable);
            tail.rewind(durable);
        }
    }

    /// Commits the transaction: one sync of the write-ahead log.
    ///
    /// Behind that sync SQLite notes the commit in its shared index. If it cannot, it takes the commit back, but until the
    /// next one a power cut would bring it back: the outcome is unknown.
    pub(super) fn make_durable(&self, doing: &'static str) -> Result<(), StoreError> {
        let commit = self.connection.prepare_cached("COMMIT").and_then(|mut commit| commit.raw_execute());
        commit.map_err(|cause| match connection::extended_code(&cause) {
            Some(code) if connection::is_behind_the_sync(code) => StoreError::OutcomeUnknown,
            _ => failed(doing)(cause),
        })?;
        // Ordering: a count for people; nothing is decided by it.
        self.shared.commits.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Whether the group's transaction, if it began, is still there.
    pub(super) fn is_open(&self) -> bool {
        !self.begun || !self.connection.is_autocommit()
    }

    /// Takes the whole group back.
    pub(super) fn roll_back(&mut self) {
        self.begun = false;
        self.hooks.clear();
        // SQLite may have rolled back by itself already (disk full); there is nothing left to fail.
        if !self.connection.is_autocommit() {
            let _ = self.run("ROLLBACK", "rolling back");
        }
        let mut tail = self.shared.tail_mut();
        let published = tail.published();
        tail.rewind(published);
        tail.undo(0);
    }

    /// Runs one of our own statements.
    pub(super) fn run(&self, sql: &str, doing: &'static str) -> Result<(), StoreError> {
        let mut statement = self.connection.prepare_cached(sql).map_err(failed(doing))?;
        statement.raw_execute().map(|_| ()).map_err(failed(doing))
    }

    /// Begins or ends interrupting statements that run beyond the deadline.
    pub(super) fn watch_deadline(&self, on: bool) {
        let watch = self.deadline.filter(|_| on).map(|deadline| {
            let env = self.env.clone();
            move || env.mono() > deadline
        });
        self.guard.interrupt_when(watch);
    }

    /// Counts bytes that the unit that is running asks to write; refuses them beyond the limit.
    pub(super) fn charge(&mut self, bytes: usize) -> Result<(), StoreError> {
        self.asked = self.asked.saturating_add(bytes);
        self.within(self.asked)
    }

    /// The same for what a room writes beside: it takes no room from the events and rows that it accompanies.
    pub(super) fn charge_room(&mut self, bytes: usize) -> Result<(), StoreError> {
        self.asked_by_rooms = self.asked_by_rooms.saturating_add(bytes);
        self.within(self.asked_by_rooms)
    }

    fn within(&self, asked: usize) -> Result<(), StoreError> {
        let max = self.shared.limits.unit_bytes();
        if asked <= max { Ok(()) } else { Err(StoreError::TooMuch { what: "a transaction's bytes", max, asked }) }
    }

    /// Whether the unit that is running has asked for more than the limit.
    pub(super) fn overcharged(&self) -> bool {
        self.asked.max(self.asked_by_rooms) > self.shared.limits.unit_bytes()
    }

    fn write_blocks(&self) -> Result<(), StoreError> {
        const WRITING: &str = "writing events";
        let tail = self.shared.tail();
        let mut insert = self
            .connection
            .prepare_cached("INSERT INTO quorate_block (first, body) VALUES (?1, ?2)")
            .map_err(failed(WRITING))?;
        block::write(tail.events_after(tail.published()), |first, body| {
            insert.execute(rusqlite::params![first.cast_signed(), body]).map(|_| ()).map_err(failed(WRITING))
        })
    }

    /// Ends the process if going on after `cause` could lose what was acknowledged. Where somebody else ends it, such as the
    /// simulator, nothing is written until then.
    pub(super) fn end_if_fatal(&mut self, cause: &StoreError) {
        if is_fatal(cause) && !self.halted {
            self.halt();
            self.env.fatal(&format!("a sync of {} failed: {cause:?}", self.shared.path.display()));
        }
    }

    /// Whether a sync failed.
    pub(super) fn is_halted(&self) -> bool {
        self.halted
    }

    /// Appends a batch to the open group. Keys that it lacks are made once nothing is against it.
    pub(super) fn append(&mut self, batch: &Ready) -> Result<Appended, AppendError> {
        if let Some(repeated) = self.judge(batch)? {
            return Ok(repeated);
        }
        let keyed = batch.keyed(&self.shared.keys)?;
        Ok(self.write(keyed.as_ref().unwrap_or(batch)))
    }

    /// What the open group says to a batch: the first answer again, a refusal, or nothing that is against writing it.
    pub(super) fn judge(&mut self, batch: &Ready) -> Result<Option<Appended>, AppendError> {
        let renewed = batch.renewed(&self.shared.keys)?;
        let batch = renewed.as_ref().unwrap_or(batch);
        self.shared.tail_mut().make_room(batch.streams.len());
        for part in &batch.streams {
            self.remember(&part.stream)?;
        }
        // Looking for known events takes many small reads: inside the group's transaction they need no lock of their own.
        if batch.streams.iter().any(|part| self.is_indexed(&part.stream)) {
            self.begin()?;
        }
        if let Some(repeated) = self.repeated(batch)? {
            return Ok(Some(repeated));
        }
        batch.check(&self.shared.schemas)?;
        for part in &batch.streams {
            self.check_expected(part)?;
        }
        self.check_conditions(batch)?;
        Ok(None)
    }

    fn check_conditions(&self, batch: &Ready) -> Result<(), AppendError> {
        if batch.conditions.is_empty() {
            return Ok(());
        }
        let until = self.deadline.unwrap_or_else(|| self.env.mono() + self.shared.limits.unit_time);
        let mut looks = Looks::new(AppendBatch::MAX_LOOKS_OF_WRITER, &self.env, until);
        let view = self.shared.view(&self.connection);
        conditions::enforce(&self.shared, view, &batch.conditions, &batch.looked, &mut looks)
    }

    /// Makes sure that the tail knows what the index tables say of a stream.
    pub(super) fn remember(&self, stream: &Name) -> Result<(), StoreError> {
        if self.shared.tail().slot(stream.as_str()).is_some() {
            return Ok(());
        }
        let row = index::stream(&self.connection, stream.as_str())?;
        let slot = row.map_or_else(Slot::default, |row| Slot::indexed(row.head, row.hash));
        self.shared.tail_mut().remember(stream.as_str(), slot);
        Ok(())
    }

    /// Whether the index tables may know events of `stream`.
    fn is_indexed(&self, stream: &Name) -> bool {
        self.shared.tail().slot(stream.as_str()).is_some_and(|slot| slot.base.version > Version::ZERO)
    }

    fn check_expected(&self, part: &ReadyStream) -> Result<(), AppendError> {
        let tail = self.shared.tail();
        let (actual, tombstoned) = tail
            .slot(part.stream.as_str())
            .map(Slot::own_head)
            .map_or((Version::ZERO, false), |head| (head.version, head.tombstoned));
        let stream = part.stream.clone();
        if tombstoned {
            return Err(AppendError::Tombstoned { stream });
        }
        if !part.expected.accepts(actual) {
            return Err(AppendError::VersionConflict { stream, expected: part.expected, actual });
        }
        Ok(())
    }

    /// The first answer again, if all events of the batch are known.
    fn repeated(&self, batch: &Ready) -> Result<Option<Appended>, AppendError> {
        let mut known = 0;
        let mut versions = Vec::new();
        let mut newest = 0;
        for part in &batch.streams {
            let mut version = Version::ZERO;
            for recorded in self.known(part)? {
                known += 1;
                version = version.max(recorded.version());
                newest = newest.max(recorded.position().get());
            }
            versions.push((part.stream.clone(), version));
        }
        let total = batch.len();
        match known {
            0 => Ok(None),
            known if known == total => {
                self.env.reached("store: an append was known already");
                let token = Token::new(self.shared.timeline, newest);
                Ok(Some(Appended { versions, token, repeated: true }))
            }
            known => Err(AppendError::PartlyKnown { known, total }),
        }
    }

    /// The events of `part` that the log already has, with the same content.
    fn known(&self, part: &ReadyStream) -> Result<Vec<Recorded>, AppendError> {
        let (mut known, mut origin) = (Vec::new(), Origin::default());
        let (stream, indexed) = (part.stream.as_str(), self.is_indexed(&part.stream));
        for event in &part.events {
            let in_tail = self.shared.tail().known(event.identity);
            let position = match in_tail {
                // A stream without indexed events has no known ones either, which spares the look-up.
                None if indexed => {
                    let event = (stream, &*event.source, &*event.id);
                    identity::find(&self.connection, &self.largest, &mut origin, event)?
                }
                found => found,
            };
            let Some(position) = position else { continue };
            let recorded = self.shared.event(self.shared.view(&self.connection), position)?;
            #[cfg(feature = "museum")]
            if recorded.stub().is_some() && self.env.planted("dedupe-forgotten") {
                continue;
            }
            if !self.is_repeated(event, &recorded)? {
                return Err(AppendError::IdReused {
                    stream: part.stream.clone(),
                    source_uri: event.source.to_string(),
                    id: event.id.to_string(),
                    version: recorded.version(),
                });
            }
            known.push(recorded);
        }
        Ok(known)
    }

    /// Whether `recorded` is `event`. Sealing gives the same bytes each time; of what was sealed with a key that is destroyed
    /// only the attributes can tell.
    fn is_repeated(&self, event: &ReadyEvent, recorded: &Recorded) -> Result<bool, StoreError> {
        if event.prepared.is(recorded) || !event.prepared.is_alike(recorded) || !recorded.is_encrypted() {
            return Ok(event.prepared.is(recorded));
        }
        match self.shared.keys.state_of(recorded)? {
            Some(KeyState::Erased) => Ok(true),
            Some(KeyState::Lives(_)) => Ok(false),
            Some(KeyState::Missing) | None => Err(missing(recorded)),
        }
    }

    fn write(&mut self, batch: &Ready) -> Appended {
        assert!(!batch.is_keyless(), "invariant: what is written was sealed");
        self.sealing.again |= batch.is_sealed();
        let recorded_at = self.env.wall();
        let mut tail = self.shared.tail_mut();
        let mut versions = Vec::with_capacity(batch.streams.len());
        self.buffer.reserve(batch.bytes);
        for part in &batch.streams {
            let stream = part.stream.as_str();
            let (mut version, mut previous) =
                tail.slot(stream).map_or_else(Default::default, |slot| (slot.version(), slot.hash()));
            for event in &part.events {
                version = version.next();
                let place = Place { version, position: Position::new(tail.end() + 1), recorded_at, previous };
                let recorded = event.prepared.record(&place, &mut self.buffer);
                previous = recorded.hash();
                tail.push(recorded, event.identity);
            }
            versions.push((part.stream.clone(), version));
        }
        Appended { versions, token: Token::new(self.shared.timeline, tail.end()), repeated: false }
    }
}
