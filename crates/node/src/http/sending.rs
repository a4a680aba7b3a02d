//! Watching replies on their way out, so that a client that takes little of one loses it.
//!
//! A reply counts as being sent until its last byte has left the node, not until the connection has been handed it: over
//! HTTP/2, bytes wait there for as long as a client opens no window. It holds its place among the requests in progress
//! and its share of the memory for replies until then. The task that looks at the connections compares how far each
//! reply came; nothing here reads a clock.
//!
//! A client has to take [`LEAST`] bytes within each write timeout, or all there is: one that takes nothing and one that
//! takes a byte now and then are the same. What ends is the stream over HTTP/2, and the connection over HTTP/1. If the
//! whole rest of a reply was handed to an HTTP/2 connection, its stream cannot be ended alone any more; the connection
//! ends then, too.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::{Buf, Bytes};
use quorate_foundations::time::Mono;
use tokio::sync::Notify;

use super::{connection::Busy, memory::Share, peers::Place};

/// Bytes of a reply that a client has to take within each write timeout.
pub(crate) const LEAST: u64 = 8 << 10;

/// How long an HTTP/2 stream that was cut may take to go.
const GRACE: Duration = Duration::from_secs(1);

tokio::task_local! {
    /// Ends the HTTP/2 stream whose task this is.
    static STREAM: Arc<Notify>;
}

/// Runs the task of an HTTP/2 stream until it ends or is cut. Dropping it resets the stream.
pub(crate) async fn stream(task: impl Future<Output = ()>) {
    let cut = Arc::new(Notify::new());
    STREAM
        .scope(cut.clone(), async {
            tokio::select! {
                biased;
                () = cut.notified() => {}
                () = task => {}
            }
        })
        .await;
}

/// How far a reply came.
pub(crate) struct Sending {
    /// Bytes the connection was handed.
    handed: AtomicU64,
    /// Bytes that left it.
    passed: AtomicU64,
    /// Whether the connection waits for more of the reply.
    asking: AtomicBool,
    /// How often the client had taken all there was.
    caught_up: AtomicU64,
    /// Ends the stream, where there is one.
    cut: Option<Arc<Notify>>,
    seen: Mutex<Seen>,
}

/// What was seen when it was last looked at and had moved.
struct Seen {
    passed: u64,
    caught_up: u64,
    at: Option<Mono>,
    cut: bool,
}

/// What is to become of a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    /// It goes on.
    Fair,
    /// Its stream was cut.
    Cut,
    /// Its connection has to end.
    Stuck,
}

impl Sending {
    /// A reply of which nothing was sent, of the stream whose task this is called in.
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            handed: AtomicU64::new(0),
            passed: AtomicU64::new(0),
            asking: AtomicBool::new(false),
            caught_up: AtomicU64::new(0),
            cut: STREAM.try_with(Arc::clone).ok(),
            seen: Mutex::new(Seen { passed: 0, caught_up: 0, at: None, cut: false }),
        })
    }

    /// Looks at it; to be called now and then.
    pub(crate) fn judge(&self, now: Mono, patience: Duration) -> Pace {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let (passed, caught_up) = (self.passed.load(Ordering::Relaxed), self.caught_up.load(Ordering::Relaxed));
        let moved = passed - seen.passed >= LEAST || caught_up != seen.caught_up || self.has_all();
        let Some(since) = seen.at.filter(|_| !moved || seen.cut) else {
            *seen = Seen { passed, caught_up, at: Some(now), cut: false };
            return Pace::Fair;
        };
        let waited = now.saturating_since(since);
        match &self.cut {
            Some(cut) if !seen.cut && waited >= patience => {
                (seen.cut, seen.at) = (true, Some(now));
                cut.notify_one();
                Pace::Cut
            }
            Some(_) if seen.cut && waited >= GRACE => Pace::Stuck,
            None if waited >= patience => Pace::Stuck,
            _ => Pace::Fair,
        }
    }

    /// Whether the client has taken all there is for now.
    fn has_all(&self) -> bool {
        self.asking.load(Ordering::Relaxed)
            && self.passed.load(Ordering::Relaxed) == self.handed.load(Ordering::Relaxed)
    }

    fn note(&self) {
        if self.has_all() {
            self.caught_up.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// What a reply holds until its last byte has left.
pub(crate) struct Held {
    pub(crate) busy: Busy,
    pub(crate) _place: Option<Place>,
    pub(crate) _share: Share,
    pub(crate) sending: Arc<Sending>,
}

impl Held {
    /// The connection asked for more and there was none.
    pub(crate) fn asked_in_vain(&self) {
        self.sending.asking.store(true, Ordering::Relaxed);
        self.sending.note();
    }

    /// Hands over bytes of the reply.
    pub(crate) fn hand(self: &Arc<Self>, bytes: Bytes) -> Outgoing {
        self.sending.asking.store(false, Ordering::Relaxed);
        self.sending.handed.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Outgoing { bytes, held: self.clone() }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.busy.sent(&self.sending);
    }
}

/// Bytes of a reply that have not left yet.
pub(crate) struct Outgoing {
    bytes: Bytes,
    held: Arc<Held>,
}

impl Buf for Outgoing {
    fn remaining(&self) -> usize {
        self.bytes.len()
    }

    fn chunk(&self) -> &[u8] {
        &self.bytes
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
        self.held.sending.passed.fetch_add(count as u64, Ordering::Relaxed);
        self.held.sending.note();
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{Arc, atomic::Ordering},
        time::Duration,
    };

    use quorate_foundations::time::Mono;

    use super::{LEAST, Pace, STREAM, Sending};

    const PATIENCE: Duration = Duration::from_secs(10);

    fn at(seconds: u64) -> Mono {
        Mono::ZERO + Duration::from_secs(seconds)
    }

    fn take(sending: &Sending, bytes: u64) {
        sending.passed.fetch_add(bytes, Ordering::Relaxed);
        sending.note();
    }

    #[test]
    fn a_reply_that_nobody_takes_is_stuck_when_the_write_timeout_is_over() {
        let sending = Sending::new();
        assert_eq!(sending.judge(at(1), PATIENCE), Pace::Fair);
        assert_eq!(sending.judge(at(10), PATIENCE), Pace::Fair);
        assert_eq!(sending.judge(at(11), PATIENCE), Pace::Stuck);
    }

    #[test]
    fn a_byte_now_and_then_is_no_progress_and_the_least_is() {
        let (slow, fair) = (Sending::new(), Sending::new());
        for sending in [&slow, &fair] {
            sending.handed.store(1 << 20, Ordering::Relaxed);
        }
        let paces: Vec<_> = (0..60)
            .map(|second| {
                take(&slow, 1);
                take(&fair, LEAST / 10 + 1);
                (slow.judge(at(second), PATIENCE), fair.judge(at(second), PATIENCE))
            })
            .collect();
        assert!(paces.iter().any(|(slow, _)| *slow == Pace::Stuck));
        assert!(paces.iter().all(|(_, fair)| *fair == Pace::Fair));
    }

    #[test]
    fn a_client_that_takes_all_there_is_may_wait_for_more() {
        let sending = Sending::new();
        sending.asking.store(true, Ordering::Relaxed);
        for hour in 0..10 {
            assert_eq!(sending.judge(at(hour * 3600), PATIENCE), Pace::Fair);
        }
        // Little is told at a time, and whenever it is looked at the newest of it is still on its way.
        assert_eq!(sending.judge(at(36_000), PATIENCE), Pace::Fair);
        for second in 0..100 {
            sending.handed.fetch_add(10, Ordering::Relaxed);
            assert_eq!(sending.judge(at(36_000 + second), PATIENCE), Pace::Fair);
            take(&sending, 10);
        }
    }

    #[tokio::test]
    async fn a_stream_is_cut_first_and_its_connection_ends_only_if_it_stays() {
        let cut = Arc::new(tokio::sync::Notify::new());
        let sending = STREAM.scope(cut.clone(), async { Sending::new() }).await;
        assert_eq!(sending.judge(at(0), PATIENCE), Pace::Fair);
        assert_eq!(sending.judge(at(10), PATIENCE), Pace::Cut);
        cut.notified().await;
        assert_eq!(sending.judge(at(10), PATIENCE), Pace::Fair);
        assert_eq!(sending.judge(at(11), PATIENCE), Pace::Stuck);
    }
}
