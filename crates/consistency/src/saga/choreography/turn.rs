//! What a process does at once: events taken in and reacted to, or what is overdue told; with the record that it was done, or not at all.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use quorate_data::{
    event::{NewEvent, Position, Recorded},
    store::{AppendError, DynTx, ExpectedVersion, ReadLog, SqlError, StoreError},
};
use quorate_foundations::{name::Name, time::Wall};
use serde_json::{Value, json};

use super::{
    Process, ProcessError, ReactError, Reacted, Reacting, Reaction,
    definition::Act,
    machine::{Course, Pending, Seen, Taken},
    rows::{self, Kept, Place},
};

/// The type of the event that says that something is overdue.
pub const OVERDUE: &str = "quorate.process.overdue";
/// The type of the event that says that a course was stopped.
pub const STOPPED: &str = "quorate.process.stopped";
/// The type of the event that says that somebody had a stopped course go on.
pub const RESUMED: &str = "quorate.process.resumed";
/// The `source` of these.
pub const SOURCE: &str = "/quorate/process";

/// An event, and the course that it belongs to.
#[derive(Clone, Debug)]
pub(super) struct Belonging {
    pub(super) event: Recorded,
    pub(super) key: Arc<str>,
}

/// What happened in a turn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Events that were taken in.
    pub events: u64,
    /// Events that came once more.
    pub repeated: u64,
    /// Events that came behind the end.
    pub late: u64,
    /// Expectations that became overdue.
    pub overdue: u64,
    /// Courses that were stopped.
    pub stopped: u64,
    /// Courses that somebody had go on.
    pub resumed: u64,
    /// Courses that came to their end, or were undone.
    pub ended: u64,
    /// Events that process managers appended.
    pub emitted: u64,
}

/// Why a turn was not done. Nothing of it was.
#[derive(Debug)]
pub(super) enum Undone {
    /// Somebody else moved the process on.
    Overtaken,
    /// There are events that were not taken in yet: whether something is overdue nobody knows.
    Behind,
    /// A process manager did not react, and never will to this.
    Refused(Arc<str>),
    Failed(ProcessError),
}

impl<E: Into<ProcessError>> From<E> for Undone {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// What is done at once.
#[derive(Clone)]
pub(super) struct Turn {
    pub(super) process: Arc<Process>,
    pub(super) stream: Name,
    pub(super) place: Place,
    /// By the clock of the process, and by the wall clock.
    pub(super) now: Wall,
    pub(super) wall: Wall,
}

impl Turn {
    /// Takes in events, which stand behind each other in the log, and all up to `to` with them. `refused`: why a process manager does not
    /// react to them; their courses are stopped.
    pub(super) async fn take(
        &self,
        tx: &mut DynTx,
        events: &[Belonging],
        to: Position,
        refused: Option<&Arc<str>>,
    ) -> Result<Tally, Undone> {
        let (mut tally, mut courses) = (Tally::default(), BTreeMap::<Arc<str>, Kept>::new());
        self.move_on(tx, to).await?;
        for Belonging { event, key } in events {
            if !courses.contains_key(key) {
                let known = rows::course(tx, &self.process.name, key).await?;
                let new = || Kept { first_at: self.now, ..Kept::default() };
                courses.insert(key.clone(), known.unwrap_or_else(new));
            }
            let Some(kept) = courses.get_mut(key) else { unreachable!("invariant: it was put there") };
            self.take_one(tx, event, key, kept, refused, &mut tally).await?;
        }
        for (key, kept) in &courses {
            rows::write(tx, &self.process.name, key, kept, self.now).await?;
        }
        Ok(tally)
    }

    async fn take_one(
        &self,
        tx: &mut DynTx,
        event: &Recorded,
        key: &Arc<str>,
        kept: &mut Kept,
        refused: Option<&Arc<str>>,
        tally: &mut Tally,
    ) -> Result<(), Undone> {
        tally.events += 1;
        let lag = self.wall.saturating_since(event.recorded_at());
        let taken = kept.course.take(&self.process, &mut kept.trail, seen(event), lag, self.now);
        match taken {
            Taken::Repeated => tally.repeated += 1,
            Taken::Late => tally.late += 1,
            Taken::Stopped => {}
            Taken::New => {
                if let Some(why) = refused {
                    kept.course.stop(&**why);
                } else {
                    let emitted = self.react(tx, event, key, &mut kept.course).await?;
                    tally.emitted += emitted;
                }
                tally.ended += u64::from(kept.course.standing.is_over() && kept.course.reason.is_none());
            }
        }
        if matches!(taken, Taken::Stopped | Taken::New) && kept.course.reason.is_some() {
            tally.stopped += 1;
            let told = self.stopped(event, key, kept.course.reason.as_deref().unwrap_or_default());
            self.tell(tx, vec![told]).await?;
        }
        Ok(())
    }

    /// Appends what the process itself says. What the log refuses, because somebody registered a schema for it or set a tombstone on the stream, is
    /// left out: the row says the same, and other courses do not wait for it.
    async fn tell(&self, tx: &mut DynTx, told: Vec<NewEvent>) -> Result<(), Undone> {
        match tx.room_append(&self.stream, ExpectedVersion::Any, told).await {
            Ok(_) => Ok(()),
            Err(AppendError::Store(cause)) => Err(cause.into()),
            Err(cause) => {
                let process = self.process.name.as_str();
                tracing::warn!(process, %cause, "what a process says of a course is refused by the log");
                Ok(())
            }
        }
    }

    /// Tells what is overdue in at most `limit` courses, if all up to the end of the log was taken in; `scanned`: so far nothing else
    /// belongs to the process. Whether there may be more.
    pub(super) async fn ring(&self, tx: &mut DynTx, scanned: Position, limit: i64) -> Result<(Tally, bool), Undone> {
        // Within this transaction nobody appends: what is told to be overdue has no answer in the log.
        let (mut after, mut pages) = (scanned, 0);
        loop {
            let page = tx.read_log(ReadLog { query: self.process.query(), after, limit: 1 }).await?;
            if !page.events.is_empty() || pages == MAX_PAGES {
                return Err(Undone::Behind);
            }
            if page.scanned >= page.head {
                break;
            }
            (after, pages) = (page.scanned, pages + 1);
        }
        let due = rows::due(tx, &self.process.name, self.now, limit).await?;
        let mut tally = Tally::default();
        for key in &due {
            let Some(mut kept) = rows::course(tx, &self.process.name, key).await? else { continue };
            let rung = kept.course.ring(self.now);
            let told: Vec<NewEvent> = rung.iter().map(|one| self.overdue(key, one)).collect();
            tally.overdue += told.len() as u64;
            if !told.is_empty() {
                self.tell(tx, told).await?;
            }
            rows::write(tx, &self.process.name, key, &kept, self.now).await?;
        }
        self.move_on(tx, scanned.max(self.place.checkpoint)).await?;
        Ok((tally, due.len() as i64 == limit))
    }

    /// Forgets courses that are over for long enough.
    pub(super) async fn sweep(&self, tx: &mut DynTx, limit: i64) -> Result<u64, Undone> {
        self.move_on(tx, self.place.checkpoint).await?;
        Ok(rows::sweep(tx, &self.process.name, self.now - self.process.keep, limit).await?)
    }

    pub(super) async fn move_on(&self, tx: &mut DynTx, to: Position) -> Result<(), Undone> {
        match rows::advance(tx, &self.process.name, self.place, to, self.now).await? {
            true => Ok(()),
            false => Err(Undone::Overtaken),
        }
    }

    /// Has the process managers react, in order; returns how many events they appended.
    async fn react(
        &self,
        tx: &mut DynTx,
        event: &Recorded,
        key: &Arc<str>,
        course: &mut Course,
    ) -> Result<u64, Undone> {
        let mut emitted = 0;
        for (n, reaction) in self.process.reactions.iter().enumerate() {
            let Some(act) = reaction.act.as_ref().filter(|_| *reaction.on == *event.kind()) else { continue };
            let reacted =
                call(act, tx, Reacting { event: event.clone(), key: key.clone(), state: course.state.clone() }).await?;
            check(reaction, &reacted)?;
            course.state = reacted.state;
            for (m, (stream, new)) in reacted.events.into_iter().enumerate() {
                let new = self.derived(new, event, n, m);
                tx.append(&stream, ExpectedVersion::Any, vec![new]).await.map_err(not_appended)?;
                emitted += 1;
            }
        }
        Ok(emitted)
    }

    /// An event that comes of another one: the same whenever it is made.
    fn derived(&self, new: NewEvent, of: &Recorded, reaction: usize, n: usize) -> NewEvent {
        let id = self.id(&["reaction", of.source(), of.id(), of.stream(), &reaction.to_string(), &n.to_string()]);
        let correlation_id = Some(of.correlation_id().unwrap_or(of.id()).into());
        NewEvent { id, correlation_id, causation_id: Some(of.id().into()), ..new }
    }

    fn overdue(&self, key: &Arc<str>, one: &Pending) -> NewEvent {
        let position = one.position.to_string();
        let id = self.id(&["overdue", key, &one.after, &one.event, &position, &one.any_of.join("\n")]);
        let data = json!({
            "process": self.process.name.as_str(), "course": &**key,
            "after": { "type": &*one.after, "id": &*one.event, "logposition": position },
            "expected": one.any_of.iter().map(|kind| &**kind).collect::<Vec<_>>(),
            "within": humantime(Duration::from_nanos(one.within_nanos)),
        });
        self.told(id, OVERDUE, key, one.event.clone(), &data)
    }

    fn stopped(&self, event: &Recorded, key: &Arc<str>, why: &str) -> NewEvent {
        let data = json!({
            "process": self.process.name.as_str(), "course": &**key,
            "at": { "type": event.kind(), "id": event.id(), "logposition": event.position().get().to_string() }, "reason": why,
        });
        self.told(
            self.id(&["stopped", key, &event.position().get().to_string()]),
            STOPPED,
            key,
            event.id().into(),
            &data,
        )
    }

    fn told(&self, id: Arc<str>, kind: &str, key: &Arc<str>, cause: Arc<str>, data: &serde_json::Value) -> NewEvent {
        let mut event = NewEvent::new(id, SOURCE, kind).json(data.to_string().into_bytes());
        event.subject = Some(key.clone());
        event.causation_id = Some(cause);
        if matches!(self.process.by, super::By::Correlation) {
            event.correlation_id = Some(key.clone());
        }
        event
    }

    fn id(&self, parts: &[&str]) -> Arc<str> {
        let mut hash = blake3::Hasher::new();
        for part in [self.process.name.as_str(), &self.place.born.to_string()].iter().chain(parts) {
            hash.update(&(part.len() as u64).to_le_bytes());
            hash.update(part.as_bytes());
        }
        hash.finalize().to_hex().as_str()[..32].into()
    }
}

/// Pages that are read within a transaction to see whether anything is left: more than this would keep everybody waiting.
const MAX_PAGES: u32 = 4;

async fn call(act: &Act, tx: &mut DynTx, reacting: Reacting) -> Result<Reacted, Undone> {
    act(tx, reacting).await.map_err(|cause| match cause {
        ReactError::Refused(why) => Undone::Refused(why.into()),
        ReactError::Sql(SqlError::Store(cause)) => cause.into(),
        ReactError::Append(cause) => not_appended(cause),
        ReactError::Sql(other) => Undone::Refused(format!("a statement of a process manager failed: {other}").into()),
    })
}

fn not_appended(cause: AppendError) -> Undone {
    match cause {
        AppendError::Store(cause) => cause.into(),
        other => Undone::Refused(format!("an event of a process manager could not be appended: {other}").into()),
    }
}

/// What a process manager answers is what it was declared to.
fn check(reaction: &Reaction, reacted: &Reacted) -> Result<(), Undone> {
    let refused = |why: String| Err(Undone::Refused(why.into()));
    if reacted.events.len() > Process::MAX_EMITTED {
        return refused(format!("a process manager answers with at most {} events", Process::MAX_EMITTED));
    }
    if let Some((_, odd)) = reacted.events.iter().find(|(_, event)| !reaction.emits.contains(&event.kind)) {
        return refused(format!("the reaction to `{}` was not declared to emit `{}`", reaction.on, odd.kind));
    }
    let state = reacted.state.to_string();
    // As deep as it lies in what is written.
    if serde_json::from_str::<Value>(&format!("[[[[{state}]]]]")).is_err() {
        return refused("what a process manager keeps is nested too deep to be read again".to_owned());
    }
    if state.len() > Process::MAX_STATE_BYTES {
        return refused(format!("a process manager keeps at most {} bytes", Process::MAX_STATE_BYTES));
    }
    Ok(())
}

fn seen(event: &Recorded) -> Seen {
    Seen {
        position: event.position(),
        source: event.source().into(),
        id: event.id().into(),
        kind: event.kind().into(),
        stream: event.stream().into(),
        causation: event.causation_id().map(Into::into),
        depth: 0,
        at: event.recorded_at(),
    }
}

fn humantime(span: Duration) -> String {
    humantime_serde::re::humantime::format_duration(span).to_string()
}

/// Whether it is the store that is in the way, so that it may be tried again.
pub(super) fn is_of_store(cause: &ProcessError) -> Option<&StoreError> {
    match cause {
        ProcessError::Store(cause) | ProcessError::Sql(SqlError::Store(cause)) => Some(cause),
        _ => None,
    }
}

mod resuming;

pub(super) use resuming::Wish;

#[cfg(test)]
mod tests;
