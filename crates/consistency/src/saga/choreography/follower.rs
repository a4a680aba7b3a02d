//! The loop of one process: it follows the log, takes in what belongs to it, and wakes when something is due.

use std::{sync::Arc, time::Duration};

use quorate_data::{
    event::{Position, Recorded},
    store::{Store, StoreError, TransactError},
    subscription::{Batch, CatchUp},
};
use quorate_foundations::{
    jq::{Limits, Value as Jq},
    name::Name,
    time::{Boot, Wall},
};
use quorate_runtime::{BoxFuture, tasks::Tasks};
use serde_json::Value;

use super::{
    By, Process, ProcessError,
    rows::{self, Place},
    service::Room,
    turn::{Belonging, SOURCE, Turn, Undone, is_of_store},
    watched::Watched,
};

/// Events that are taken in at once.
const CHUNK: usize = 64;
/// Courses that are told to be overdue, or are forgotten, at once.
const AT_ONCE: i64 = 64;
/// So far the log is followed without anything that belongs to the process before that is written down.
const UNWRITTEN: u64 = 10_000;
/// At most so long it sleeps at once: a machine that was suspended does not count its sleep.
const NAP: Duration = Duration::from_secs(60);
/// How often an event is taken in again that took too long, a second apart, before its course is stopped for it.
const SLOW: u32 = 5;
/// How often courses are looked for that are over for long enough.
const SWEEP: Duration = Duration::from_secs(3_600);
/// What the program that finds a key may take.
const LIMITS: Limits = Limits { steps: 20_000, bytes: 1 << 20, depth: 1_000, outputs: 2 };

/// Follows the log for one process.
pub(super) struct Follower {
    pub(super) store: Store,
    pub(super) process: Arc<Process>,
    pub(super) stream: Name,
    pub(super) watched: Arc<Watched>,
    /// The clock of the processes when they were opened, and the boot clock then: from there on only the latter counts.
    pub(super) clock: (Wall, Boot),
    pub(super) swept: Option<Boot>,
    /// Held, so that whoever opens the processes again finds those that are followed, and follows none a second time.
    pub(super) _room: Option<Arc<Room>>,
}

/// Why it does not go on as it did.
enum Halt {
    /// It was told to stop, the process was taken back, or the store has closed.
    Over,
    /// Somebody else moved it on: it is to be read anew.
    Anew,
    Failed(ProcessError),
}

impl<E: Into<ProcessError>> From<E> for Halt {
    fn from(error: E) -> Self {
        let error = error.into();
        if matches!(is_of_store(&error), Some(StoreError::Closed)) { Self::Over } else { Self::Failed(error) }
    }
}

impl Follower {
    /// Runs until it is told to stop, the process is taken back, or the store closes.
    pub(super) async fn run(mut self, stop: Tasks) {
        let mut failures = 0_u32;
        loop {
            let cause = match self.follow(&stop, &mut failures).await {
                Ok(()) | Err(Halt::Over) => return,
                Err(Halt::Anew) => continue,
                Err(Halt::Failed(cause)) => cause,
            };
            if failures == 0 {
                tracing::warn!(process = self.process.name.as_str(), %cause, "a process does not go on for now");
            }
            self.watched.trouble(Some(chained(&cause)));
            failures = failures.saturating_add(1);
            let rest = Duration::from_millis(100 << failures.min(8)).min(Duration::from_secs(20));
            tokio::select! {
                biased;
                () = stop.stop().cancelled() => return,
                () = self.store.env().sleep(rest) => {}
            }
        }
    }

    async fn follow(&mut self, tasks: &Tasks, failures: &mut u32) -> Result<(), Halt> {
        let Some(mut place) = rows::place(&self.store, &self.process.name).await? else { return Err(Halt::Over) };
        let mut reader = CatchUp::log(&self.store, self.process.query(), place.checkpoint).page_events(CHUNK);
        let mut scanned = place.checkpoint;
        let mut due = rows::next_due(&self.store, &self.process.name).await?;
        let mut is_behind = false;
        loop {
            // What is due is told once the log is read to its end: until then the reader is not to be interrupted.
            let waits = due.filter(|_| reader.is_live() && !is_behind);
            // Ordering: first the clock that is slept by. Where time passes in between it wakes too early, and not too late.
            let mono = self.store.env().mono();
            let nap = waits.map_or(NAP, |due| due.saturating_since(self.now()).min(NAP));
            let batch = tokio::select! {
                biased;
                () = tasks.stop().cancelled() => return Ok(()),
                () = self.watched.woken() => return Err(Halt::Anew),
                batch = reader.next_batch() => Some(batch?),
                () = self.store.env().sleep_until(mono + nap) => None,
            };
            // Who has a course go on may have gone before it could wake anybody: looked at now and then.
            let mut has_changed = batch.is_none();
            if let Some(batch) = batch {
                if let Some(first) = batch.events.first()
                    && reader.is_stale()
                {
                    reader.go_back(first);
                    continue;
                }
                scanned = batch.position;
                has_changed |= self.take(tasks, &mut place, batch).await?;
            }
            is_behind = false;
            if due.is_some_and(|due| due <= self.now()) && reader.is_live() {
                is_behind = !self.ring(&mut place, scanned).await?;
                has_changed = true;
            }
            self.sweep(&mut place).await?;
            if has_changed {
                due = rows::next_due(&self.store, &self.process.name).await?;
            }
            *failures = 0;
            self.watched.trouble(None);
            self.watched.progress(scanned);
        }
    }

    /// The clock of the processes: it goes on evenly, whatever is done to the wall clock.
    fn now(&self) -> Wall {
        self.clock.0 + self.store.env().boot().saturating_since(self.clock.1)
    }

    fn turn(&self, place: Place) -> Turn {
        let (process, stream) = (self.process.clone(), self.stream.clone());
        Turn { process, stream, place, now: self.now(), wall: self.store.env().wall() }
    }

    /// Takes in a page. Whether anything was in it.
    async fn take(&self, tasks: &Tasks, place: &mut Place, batch: Batch) -> Result<bool, Halt> {
        let to = batch.position;
        let events: Vec<Belonging> = batch.events.into_iter().filter_map(|event| self.belonging(event)).collect();
        if events.is_empty() {
            if to.get().saturating_sub(place.checkpoint.get()) > UNWRITTEN {
                let turn = self.turn(*place);
                self.write(place, to, move |tx| {
                    let turn = turn.clone();
                    Box::pin(async move { turn.move_on(tx, to).await })
                })
                .await
                .map_err(Failed::into_halt)?;
            }
            return Ok(false);
        }
        let events: Arc<[Belonging]> = events.into();
        match self.take_in(place, events.clone(), to, None).await {
            Ok(()) => return Ok(true),
            Err(Failed::Unit(_) | Failed::Slow(_)) => {}
            Err(other) => return Err(other.into_halt()),
        }
        // One of them is to blame: each for itself.
        for (n, one) in events.iter().enumerate() {
            let to = if n + 1 == events.len() { to } else { one.event.position() };
            let alone: Arc<[Belonging]> = [one.clone()].into();
            let mut taken = self.take_in(place, alone.clone(), to, None).await;
            // What takes too long may do so because the disk does: nobody is blamed for that before it was given time.
            for _ in 0..SLOW {
                if !matches!(taken, Err(Failed::Slow(_))) {
                    break;
                }
                // Whoever tells it to stop waits for it.
                tokio::select! {
                    biased;
                    () = tasks.stop().cancelled() => return Err(Halt::Over),
                    () = self.store.env().sleep(Duration::from_secs(1)) => {}
                }
                taken = self.take_in(place, alone.clone(), to, None).await;
            }
            match taken {
                Ok(()) => {}
                Err(Failed::Unit(why) | Failed::Slow(why)) => {
                    self.take_in(place, alone, to, Some(why)).await.map_err(Failed::into_halt)?;
                }
                Err(other) => return Err(other.into_halt()),
            }
        }
        Ok(true)
    }

    async fn take_in(
        &self,
        place: &mut Place,
        events: Arc<[Belonging]>,
        to: Position,
        refused: Option<Arc<str>>,
    ) -> Result<(), Failed> {
        let turn = self.turn(*place);
        let tally = self
            .write(place, to, move |tx| {
                let (turn, events, refused) = (turn.clone(), events.clone(), refused.clone());
                Box::pin(async move { turn.take(tx, &events, to, refused.as_ref()).await })
            })
            .await?;
        self.watched.count(tally);
        Ok(())
    }

    /// Tells what is overdue, if all of the log was taken in. Whether it was.
    async fn ring(&self, place: &mut Place, scanned: Position) -> Result<bool, Halt> {
        let mut at_once = AT_ONCE;
        loop {
            let turn = self.turn(*place);
            let rung = self.write(place, scanned.max(place.checkpoint), move |tx| {
                let turn = turn.clone();
                Box::pin(async move { turn.ring(tx, scanned, at_once).await })
            });
            match rung.await {
                Ok((tally, more)) => {
                    self.watched.count(tally);
                    if !more {
                        return Ok(true);
                    }
                }
                // The reader brings what is missing, and then it is asked again.
                Err(Failed::Behind) => return Ok(false),
                // Too much for one transaction: one by one.
                Err(Failed::Unit(_) | Failed::Slow(_)) if at_once > 1 => at_once = 1,
                Err(other) => return Err(other.into_halt()),
            }
        }
    }

    async fn sweep(&mut self, place: &mut Place) -> Result<(), Halt> {
        let now = self.store.env().boot();
        if self.swept.is_some_and(|before| now.saturating_since(before) < SWEEP) {
            return Ok(());
        }
        let turn = self.turn(*place);
        let swept = self.write(place, place.checkpoint, move |tx| {
            let turn = turn.clone();
            Box::pin(async move { turn.sweep(tx, AT_ONCE).await })
        });
        let swept = swept.await.map_err(Failed::into_halt)?;
        // As many as there may be at once: the next ones with the next thing that happens.
        self.swept = if swept == AT_ONCE.cast_unsigned() { None } else { Some(now) };
        Ok(())
    }

    /// Runs a transaction that moves the process on to `to`.
    async fn write<T: Send + 'static>(
        &self,
        place: &mut Place,
        to: Position,
        unit: impl for<'t> Fn(&'t mut quorate_data::store::DynTx) -> BoxFuture<'t, Result<T, Undone>>
        + Send
        + Sync
        + 'static,
    ) -> Result<T, Failed> {
        let unit = Arc::new(unit);
        let once = || {
            let unit = unit.clone();
            self.store.transact(move |tx| unit(tx))
        };
        let mut done = once().await;
        // A machine that was suspended in the middle, say: the next one is as quick as any.
        if matches!(done, Err(TransactError::TooLong { .. })) {
            done = once().await;
        }
        let done = done.map_err(|failed| match failed {
            TransactError::Aborted(Undone::Overtaken) => Failed::Overtaken,
            TransactError::Aborted(Undone::Behind) => Failed::Behind,
            TransactError::Aborted(Undone::Refused(why)) => Failed::Unit(why),
            TransactError::Aborted(Undone::Failed(cause)) => Failed::Other(cause),
            // Whether it was done, the rows say.
            TransactError::Store(StoreError::OutcomeUnknown) => Failed::Overtaken,
            TransactError::Store(cause) => Failed::Other(cause.into()),
            slow @ TransactError::TooLong { .. } => Failed::Slow(slow.to_string().into()),
            other => Failed::Unit(other.to_string().into()),
        })?;
        (place.revision, place.checkpoint) = (place.revision + 1, to);
        Ok(done)
    }

    /// The course that an event belongs to, if it does to any.
    fn belonging(&self, event: Recorded) -> Option<Belonging> {
        event.stub().is_none().then_some(())?;
        // It becomes an attribute of our own events, which has no control characters.
        let is_key =
            |key: &Arc<str>| !key.is_empty() && key.len() <= Process::MAX_KEY_BYTES && !key.contains(char::is_control);
        let key = self.key(&event).filter(is_key);
        if key.is_none() {
            self.watched.keyless();
        }
        Some(Belonging { key: key?, event })
    }

    fn key(&self, event: &Recorded) -> Option<Arc<str>> {
        // What this process told itself says whom it is about.
        if event.source() == SOURCE && event.stream() == self.stream.as_str() {
            return event.subject().map(Into::into);
        }
        match &self.process.by {
            By::Correlation => Some(event.correlation_id().unwrap_or(event.id()).into()),
            By::Subject => event.subject().map(Into::into),
            By::Stream => Some(event.stream().into()),
            By::Data(program) => {
                if event.data_subject().is_some() {
                    return None;
                }
                let data = Jq::read(std::str::from_utf8(event.data()?).ok()?).ok()?;
                match &program.run(data, LIMITS).ok()?[..] {
                    [one] => match serde_json::from_str(one).ok()? {
                        Value::String(text) => Some(text.into()),
                        Value::Number(number) if !number.is_f64() => Some(number.to_string().into()),
                        _ => None,
                    },
                    _ => None,
                }
            }
        }
    }
}

/// Why a transaction was not done.
enum Failed {
    Overtaken,
    Behind,
    /// What was to be done in it is to blame.
    Unit(Arc<str>),
    /// It took longer than a transaction may.
    Slow(Arc<str>),
    Other(ProcessError),
}

impl Failed {
    fn into_halt(self) -> Halt {
        match self {
            Self::Overtaken | Self::Behind => Halt::Anew,
            Self::Unit(what) | Self::Slow(what) => Halt::Failed(ProcessError::Invalid { what: what.to_string() }),
            Self::Other(cause) => cause.into(),
        }
    }
}

fn chained(cause: &ProcessError) -> String {
    let mut text = cause.to_string();
    let mut next = std::error::Error::source(cause);
    while let Some(cause) = next {
        text.push_str(&format!(": {cause}"));
        next = cause.source();
    }
    text
}
