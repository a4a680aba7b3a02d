//! What clients write down: what they asked, when, and what they were told.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use quorate_sim::Sim;
use serde::Serialize;

/// Notes of all clients of a run, in the order in which they were completed. Cheap to clone; clones are the same notes.
#[derive(Clone)]
pub(crate) struct Notes {
    clock: Arc<dyn Fn() -> u64 + Send + Sync>,
    all: Arc<Mutex<Vec<Note>>>,
}

/// One thing that a client did.
#[derive(Clone, Debug, Serialize)]
pub struct Note {
    /// Who.
    pub client: String,
    /// When it began, in nanoseconds since the run did, by a clock that all clients share: the simulated world's true time, or the
    /// monotonic clock of the process that the clients run in.
    pub invoked: u64,
    /// When the client was told, or gave up.
    pub completed: u64,
    /// What.
    pub what: Action,
}

/// What a client did and was told.
#[derive(Clone, Debug, Serialize)]
pub enum Action {
    /// Appended events to a stream.
    Append {
        /// The stream.
        stream: String,
        /// The ids of the events, in order.
        ids: Vec<String>,
        /// What the stream had to be like.
        expected: Expected,
        /// What was told.
        told: Told,
    },
    /// Appended on the condition that nothing tagged so came after a position.
    AppendIf {
        /// The stream.
        stream: String,
        /// The id of the event.
        id: String,
        /// The tag, on the event and in the condition.
        tag: String,
        /// The position that the client had read up to.
        after: u64,
        /// What was told.
        told: Told,
    },
    /// Read a stream to its end.
    ReadStream {
        /// The stream.
        stream: String,
        /// Ids in order of their versions, from 1.
        ids: Vec<String>,
    },
    /// Read the log to its end.
    ReadLog {
        /// The events.
        events: Vec<Seen>,
    },
    /// Forgot the data of a stream's events before a version.
    Truncate {
        /// The stream.
        stream: String,
        /// The first version that stays.
        before: u64,
        /// What was told.
        told: Told,
    },
    /// Was told of an event by a subscription.
    Told {
        /// Which subscription.
        subscription: String,
        /// The event.
        event: Seen,
    },
    /// Was handed an event by a durable subscription.
    Handed {
        /// The lease.
        lease: String,
        /// The event.
        event: Seen,
    },
    /// Settled a lease.
    Settled {
        /// The lease.
        lease: String,
        /// Whether the event is done with, or to come again.
        acknowledged: bool,
        /// Whether that was accepted; `None` where nobody knows.
        done: Option<bool>,
    },
    /// Was given a stamp of a hybrid clock.
    Stamp {
        /// Its bytes, in hexadecimal: they sort as the stamps do.
        stamp: String,
    },
    /// Had an effect under an idempotency key.
    Keyed {
        /// The key.
        key: String,
        /// The stream.
        stream: String,
        /// What was told.
        told: Told,
    },
}

/// What a stream has to be like for an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Expected {
    /// Anything.
    Any,
    /// New.
    New,
    /// At this version.
    Exact(u64),
}

/// How a write ended, as its client knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Told {
    /// It is durable; the last event has this version.
    Done {
        /// The version.
        version: u64,
    },
    /// Nothing was written, since the stream was at this version, or the condition did not hold.
    Refused {
        /// The stream's version, where it was told.
        actual: Option<u64>,
    },
    /// Nobody knows.
    Unknown,
}

/// An event as it was read.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Seen {
    /// Its place in the log.
    pub position: u64,
    /// Its stream.
    pub stream: String,
    /// Its place in the stream.
    pub version: u64,
    /// Its id.
    pub id: String,
}

impl Notes {
    /// No notes yet; `clock` tells nanoseconds since the run began, and never goes back.
    pub(crate) fn new(clock: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        Self { clock: Arc::new(clock), all: Arc::default() }
    }

    /// Notes that are timed by the true time of the world.
    pub(crate) fn of_world(sim: &Sim) -> Self {
        let time = sim.true_time();
        Self::new(move || time.nanos())
    }

    fn all(&self) -> MutexGuard<'_, Vec<Note>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nanoseconds since the run began.
    pub(crate) fn now(&self) -> u64 {
        (self.clock)()
    }

    /// Writes down what began at `invoked` and is over now.
    pub(crate) fn add(&self, client: &str, invoked: u64, what: Action) {
        let note = Note { client: client.to_owned(), invoked, completed: self.now(), what };
        self.all().push(note);
    }

    /// Everything so far.
    pub(crate) fn take(&self) -> Vec<Note> {
        std::mem::take(&mut *self.all())
    }
}
