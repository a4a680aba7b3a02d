//! What is known of a process at work, and how it is told.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use quorate_data::event::Position;
use quorate_foundations::{name::Name, time::Wall};
use tokio::sync::{Notify, watch};

use super::{Course, Document, Process, ProcessError, Processes, Seen, Standing, Tally};

/// What is known of a process at work.
pub(super) struct Watched {
    trouble: Mutex<Option<Arc<str>>>,
    counts: Mutex<Counts>,
    progress: watch::Sender<Position>,
    moved: Notify,
}

/// What happened in a process since it is followed here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// What its turns did.
    pub tally: Tally,
    /// Events of its types that belong to no course, for they have no key.
    pub keyless: u64,
}

/// How a process stands.
#[derive(Clone, Debug)]
pub struct Description {
    /// Its name.
    pub name: Name,
    /// What it says; `None`: the program that declared it did not do so yet, or its document cannot be read any more.
    pub process: Option<Arc<Process>>,
    /// Its document, if it has one that can be read.
    pub document: Option<Document>,
    /// Whether a program declared it, and no document.
    pub is_of_program: bool,
    /// Why it does not go on right now.
    pub trouble: Option<Arc<str>>,
    /// So far the log was followed.
    pub position: Position,
    /// What happened since it is followed here.
    pub counts: Counts,
    /// How many courses stand how, of each at most one more than [`Processes::MAX_COUNTED`].
    pub courses: Vec<(Standing, u64)>,
}

/// How a process stands, as far as that is cheap to say.
#[derive(Clone, Debug)]
pub struct Overview {
    /// Its name.
    pub name: Name,
    /// Why it does not go on right now.
    pub trouble: Option<Arc<str>>,
    /// So far the log was followed; `None`: it cannot be read right now.
    pub position: Option<Position>,
    /// What happened since it is followed here.
    pub counts: Counts,
    /// How many courses stand how, of those that are [open](Standing::OPEN), of each at most one more than [`Processes::MAX_COUNTED`]; or why
    /// they cannot be counted right now.
    pub open: Result<Vec<(Standing, u64)>, ProcessError>,
}

/// What came of declaring a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Declared {
    /// There was none of this name.
    New,
    /// It says something else than before.
    Changed,
    /// It says what it said.
    Unchanged,
}

/// How a course stands, and what has happened in it.
#[derive(Clone, Debug)]
pub struct Looked {
    /// The course.
    pub course: Course,
    /// Its events, in the order of the log.
    pub trail: Vec<Seen>,
    /// When its first event was taken in.
    pub first_at: Wall,
}

/// What is looked for.
#[derive(Clone, Debug)]
pub struct Search {
    /// Only those that stand so.
    pub standing: Option<Standing>,
    /// Only those behind this one.
    pub after: Arc<str>,
    /// At most so many: 1 to [`Processes::MAX_PAGE`].
    pub limit: usize,
}

impl Default for Search {
    fn default() -> Self {
        Self { standing: None, after: "".into(), limit: Processes::MAX_PAGE }
    }
}

impl Watched {
    pub(super) fn new() -> Self {
        let progress = watch::Sender::new(Position::ZERO);
        Self { trouble: Mutex::default(), counts: Mutex::default(), progress, moved: Notify::new() }
    }

    /// Why it does not go on right now.
    pub(super) fn why(&self) -> Option<Arc<str>> {
        lock(&self.trouble).clone()
    }

    pub(super) fn counts(&self) -> Counts {
        *lock(&self.counts)
    }

    /// So far the log was followed; `None` before its follower has looked.
    pub(super) fn position(&self) -> Option<Position> {
        Some(*self.progress.borrow()).filter(|seen| *seen != Position::ZERO)
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<Position> {
        self.progress.subscribe()
    }

    /// Has its follower read its place anew: somebody else moved the process on.
    pub(super) fn wake(&self) {
        self.moved.notify_one();
    }

    /// Waits until it is [woken](Self::wake).
    pub(super) async fn woken(&self) {
        self.moved.notified().await;
    }

    pub(super) fn trouble(&self, why: Option<String>) {
        *lock(&self.trouble) = why.map(Into::into);
    }

    pub(super) fn count(&self, more: Tally) {
        let mut counts = lock(&self.counts);
        let tally = &mut counts.tally;
        tally.events += more.events;
        tally.repeated += more.repeated;
        tally.late += more.late;
        tally.overdue += more.overdue;
        tally.stopped += more.stopped;
        tally.resumed += more.resumed;
        tally.ended += more.ended;
        tally.emitted += more.emitted;
    }

    pub(super) fn keyless(&self) {
        lock(&self.counts).keyless += 1;
    }

    /// Tells that something was done, and how far the log was followed.
    pub(super) fn progress(&self, to: Position) {
        self.progress.send_replace(to);
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
