//! What clients write down: what they asked, when, and what they were told.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use quorate_sim::{
    Sim,
    check::api::{Append, Read},
};
use serde::Serialize;
use serde_json::Value;

/// Notes of all clients of a run, in the order in which they were completed. Cheap to clone; clones are the same notes.
#[derive(Clone)]
pub(crate) struct Notes {
    clock: Arc<dyn Fn() -> u64 + Send + Sync>,
    written: Arc<Mutex<Written>>,
}

#[derive(Default)]
struct Written {
    all: Vec<Note>,
    /// The newest token that anybody was given.
    token: Option<String>,
    /// The most rounds of work that a client has begun.
    rounds: u64,
    /// What was begun and is not over.
    open: BTreeMap<u64, Note>,
    begun: u64,
}

/// Something that a client has begun.
pub(crate) struct Begun(u64);

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
    /// Appended events, under whatever expectations, conditions and key.
    Append {
        /// What was asked.
        append: Append,
        /// What was told.
        told: Told,
    },
    /// Read a stream, or the log, to its end.
    Read {
        /// What was asked.
        read: Read,
        /// The events.
        events: Vec<Seen>,
        /// What a later read is sent with to see at least as much.
        token: Option<String>,
    },
    /// Read, and was told that this cannot be asked.
    ReadRefused {
        /// What was asked.
        read: Read,
        /// The status and the type of the problem.
        problem: String,
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
    /// Had a stream keep its newest events alone, or all again.
    SetRule {
        /// The stream.
        stream: String,
        /// How many.
        max_count: Option<u64>,
        /// What was told.
        told: Told,
    },
    /// Had the node forget what no rule keeps.
    Scavenged {
        /// Whether that was confirmed.
        done: bool,
    },
    /// Looked where a stream begins and ends.
    Head {
        /// The stream.
        stream: String,
        /// The first version that is there.
        first: u64,
        /// The last one.
        version: u64,
    },
    /// Began to follow the log.
    Connected {
        /// Which subscription.
        subscription: String,
        /// Behind which position.
        after: u64,
    },
    /// Heard that nothing is new, when nothing went wrong any more and nobody wrote.
    HeardNothingNew {
        /// From which subscription.
        subscription: String,
        /// Behind which position, the last that it was told of.
        after: u64,
        /// Where the log ends.
        end: u64,
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
    /// Sent messages to a queue, again and again until it was answered.
    Sent {
        /// Their group.
        group: Option<String>,
        /// Their ids, in order.
        ids: Vec<String>,
        /// Why they were refused, if they were.
        refused: Option<String>,
    },
    /// Was handed a message by a queue.
    Delivered {
        /// The lease.
        lease: String,
        /// The message's id.
        id: String,
        /// Its group, as it came.
        group: Option<String>,
        /// The attempt.
        attempt: u64,
    },
    /// Said what became of a message that was held.
    Handled {
        /// The lease.
        lease: String,
        /// What.
        how: Handling,
        /// Whether that was accepted; `None` where nobody knows.
        done: Option<bool>,
    },
    /// Decided what becomes of a dead letter.
    Buried {
        /// The message's id.
        id: String,
        /// Whether it is handed out again, or given up.
        replayed: bool,
        /// Whether there was such a dead letter; `None` where nobody knows.
        done: Option<bool>,
    },
    /// Was given a stamp of a hybrid clock.
    Stamp {
        /// Its bytes, in hexadecimal: they sort as the stamps do.
        stamp: String,
    },
    /// Had the node check every byte of its store: what it found wrong, if anything.
    Verified(Option<String>),
    /// Read the whole log where it is kept, when everything had come to rest.
    WholeLog {
        /// The events.
        events: Vec<Seen>,
    },
    /// Had to do with a desk that takes commands and answers questions.
    Dealt(crate::commands::Dealing),
    /// Was sent a letter that a view asked for.
    Letter {
        /// The effect's key.
        key: String,
    },
    /// Read a view to its end, when everything had come to rest.
    ReadView {
        /// The view.
        view: String,
        /// For each key, in order: how many events, and the sum of their positions.
        rows: Vec<(String, i64, i64)>,
        /// Whether a recount of the log agreed that every event was dealt with once.
        whole: bool,
        /// By how much what its builds were handed was not what they did, as they say at any time.
        unaccounted: u64,
        /// How far its checkpoint was.
        checkpoint: u64,
        /// The end of the log.
        head: u64,
    },
    /// Looked at a view while it was being written to.
    LookedAt {
        /// The view.
        view: String,
        /// Up to where it said it was.
        position: u64,
        /// How many events its rows held.
        events: i64,
    },
    /// Had a view rebuilt when everything had come to rest.
    Rebuilt {
        /// How many letters had been sent before.
        before: usize,
        /// And how many after readers were given the new build.
        after: usize,
    },
}

#[cfg(test)]
impl Action {
    /// A read that was given no token.
    pub(crate) fn read(read: Read, events: Vec<Seen>) -> Self {
        Self::Read { read, events, token: None }
    }
}

/// What a worker says of a message that it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Handling {
    /// It is done.
    Ack,
    /// It failed this time.
    Nack,
    /// It takes longer.
    Extend,
}

/// How a write ended, as its client knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Told {
    /// It is durable; the last event has this version.
    Done {
        /// The version.
        version: u64,
        /// What a later read is sent with to see it.
        token: Option<String>,
    },
    /// Nothing was written.
    Refused(Refusal),
    /// Nobody knows.
    Unknown,
}

/// Why nothing was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Refusal {
    /// A stream is at another version.
    Version {
        /// Which, where it was told.
        actual: Option<u64>,
    },
    /// An id is known with other content, or only a part of the ids is known.
    Id,
    /// A condition does not hold.
    Condition,
    /// The idempotency key came with another request before.
    Key,
    /// Something that a client of ours should never hear.
    Other {
        /// The type of the problem.
        problem: String,
    },
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
    /// Its type.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its tags.
    pub tags: Vec<String>,
    /// A digest of its data; `None` where its data was forgotten.
    pub content: Option<u64>,
}

/// A digest of an event's data, so that changed data is noticed.
pub(crate) fn digest(data: &Value) -> u64 {
    let hash = blake3::hash(data.to_string().as_bytes());
    hash.as_bytes().iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
}

impl Notes {
    /// No notes yet; `clock` tells nanoseconds since the run began, and never goes back.
    pub(crate) fn new(clock: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        Self { clock: Arc::new(clock), written: Arc::default() }
    }

    /// Notes that are timed by the true time of the world.
    pub(crate) fn of_world(sim: &Sim) -> Self {
        let time = sim.true_time();
        Self::new(move || time.nanos())
    }

    fn written(&self) -> MutexGuard<'_, Written> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nanoseconds since the run began.
    pub(crate) fn now(&self) -> u64 {
        (self.clock)()
    }

    /// Writes down what began at `invoked` and is over now.
    pub(crate) fn add(&self, client: &str, invoked: u64, what: Action) {
        let note = Note { client: client.to_owned(), invoked, completed: self.now(), what };
        self.written().all.push(note);
    }

    /// Remembers the token of a reply.
    pub(crate) fn keep_token(&self, token: Option<&str>) {
        if let Some(token) = token {
            self.written().token = Some(token.to_owned());
        }
    }

    /// The newest token that anybody was given.
    pub(crate) fn token(&self) -> Option<String> {
        self.written().token.clone()
    }

    /// A client begins another round of its work, after `done` rounds.
    pub(crate) fn round(&self, done: usize) {
        let mut written = self.written();
        written.rounds = written.rounds.max(done as u64 + 1);
    }

    /// The most rounds of work that a client has begun.
    pub(crate) fn rounds(&self) -> u64 {
        self.written().rounds
    }

    /// How many notes so far are such as `is` says.
    pub(crate) fn count(&self, is: impl Fn(&Action) -> bool) -> usize {
        self.written().all.iter().filter(|note| is(&note.what)).count()
    }

    /// Writes down what begins to have an effect now, as it is if nobody ever hears what came of it.
    pub(crate) fn begin(&self, client: &str, what: Action) -> Begun {
        let note = Note { client: client.to_owned(), invoked: self.now(), completed: u64::MAX, what };
        let mut written = self.written();
        written.begun += 1;
        let nth = written.begun;
        written.open.insert(nth, note);
        Begun(nth)
    }

    /// It is over, with this in the end.
    pub(crate) fn end(&self, Begun(nth): Begun, what: Action) {
        let completed = self.now();
        let mut written = self.written();
        if let Some(note) = written.open.remove(&nth) {
            written.all.push(Note { completed, what, ..note });
        }
    }

    /// Everything so far. What is not over was given up now.
    pub(crate) fn take(&self) -> Vec<Note> {
        let completed = self.now();
        let Written { mut all, open, .. } = std::mem::take(&mut *self.written());
        all.extend(open.into_values().map(|note| Note { completed, ..note }));
        all
    }
}
