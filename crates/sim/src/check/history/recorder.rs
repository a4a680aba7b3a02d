//! The handle through which clients write into one history.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use quorate_foundations::time::Mono;

use super::{ClientId, History, OpId};

/// Records one history for many clients. Cheap to clone; clones write into the same history.
///
/// Record an invocation *before* the request leaves and a completion *after* the reply is there: then whatever the
/// history says happened before something else really did.
///
/// ```
/// use quorate_foundations::time::Mono;
/// use quorate_sim::check::history::Recorder;
///
/// let recorder: Recorder<&str, u64> = Recorder::new();
/// let client = recorder.client();
/// let read = recorder.invoke(client, "read", Mono::from_nanos(10));
/// recorder.ok(read, 7, Mono::from_nanos(25));
/// assert_eq!(recorder.history().tally().ok, 1);
/// ```
#[derive(Debug)]
pub struct Recorder<O, R> {
    shared: Arc<Mutex<Shared<O, R>>>,
}

#[derive(Debug)]
struct Shared<O, R> {
    history: History<O, R>,
    clients: u32,
}

impl<O, R> Clone for Recorder<O, R> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<O, R> Default for Recorder<O, R> {
    fn default() -> Self {
        Self { shared: Arc::new(Mutex::new(Shared { history: History::new(), clients: 0 })) }
    }
}

impl<O, R> Recorder<O, R> {
    /// A recorder of an empty history.
    pub fn new() -> Self {
        Self::default()
    }

    /// A client that did not exist before.
    pub fn client(&self) -> ClientId {
        let mut shared = self.lock();
        let client = ClientId(shared.clients);
        shared.clients += 1;
        client
    }

    /// See [`History::invoke`].
    pub fn invoke(&self, client: ClientId, op: O, at: Mono) -> OpId {
        self.lock().history.invoke(client, op, at)
    }

    /// See [`History::ok`].
    pub fn ok(&self, id: OpId, value: R, at: Mono) {
        self.lock().history.ok(id, value, at);
    }

    /// See [`History::failed`].
    pub fn failed(&self, id: OpId, reason: impl Into<String>, at: Mono) {
        self.lock().history.failed(id, reason, at);
    }

    /// See [`History::unknown`].
    pub fn unknown(&self, id: OpId, reason: impl Into<String>, at: Mono) {
        self.lock().history.unknown(id, reason, at);
    }

    /// Takes the history out; what is recorded from now on begins a new one.
    pub fn take(&self) -> History<O, R> {
        std::mem::take(&mut self.lock().history)
    }

    // A client that panicked while recording left a whole history behind: every change to it is one statement.
    fn lock(&self) -> MutexGuard<'_, Shared<O, R>> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<O: Clone, R: Clone> Recorder<O, R> {
    /// The history so far.
    pub fn history(&self) -> History<O, R> {
        self.lock().history.clone()
    }
}
