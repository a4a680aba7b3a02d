//! From the tail into the index, and what happens while that cannot be.
//!
//! What is appended is durable before it is in the index; until then it is held in memory. A damaged page can keep the index
//! from being written, or the log from being written back, for good: then appends are refused before memory runs out, or as
//! soon as more would be lost with a log that no opening accepts. Reading goes on.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use quorate_foundations::time::Mono;

use super::{
    connection::{explained, failed},
    core::Core,
    index, tables,
};
use crate::store::{Limits, StoreError};

const FLUSHING: &str = "writing the index";

/// The tail goes into the index tables when it holds so many events …
const FLUSH_EVENTS: usize = 8_192;
/// … or so many bytes.
const FLUSH_BYTES: usize = 8 << 20;

/// After an attempt in vain the next one waits so long, or so many times as long as the attempt took.
const REST: Duration = Duration::from_secs(1);
const REST_FACTOR: u32 = 8;

/// Why the last attempt was in vain, and until when the next one waits.
type InVain = (Arc<StoreError>, Mono);

/// What is in the way of writing.
#[derive(Default)]
pub(super) struct Backlog {
    /// Why the index could not be written.
    index: Option<InVain>,
    /// Why the log could not be written back: it is damaged.
    log: Option<InVain>,
}

impl Backlog {
    /// Whether an attempt at the index was in vain, and is too recent to be repeated.
    fn is_resting(&self, now: Mono) -> bool {
        self.index.as_ref().is_some_and(|(_, until)| now < *until)
    }

    /// Whether an attempt at the damaged log was, and is too recent.
    pub(super) fn is_log_resting(&self, now: Mono) -> bool {
        self.log.as_ref().is_some_and(|(_, until)| now < *until)
    }
}

impl Core {
    /// Moves the tail into the index tables, in a transaction of its own.
    pub(super) fn flush(&mut self) -> Result<(), StoreError> {
        if self.shared.tail().len() == 0 {
            return Ok(());
        }
        let begun = self.env.mono();
        let flushed = self.write_index();
        self.backlog.index = flushed.as_ref().err().map(|cause| self.in_vain(cause, begun));
        self.tell_refusal();
        flushed
    }

    /// An attempt that began at `begun`, and failed.
    fn in_vain(&self, cause: &StoreError, begun: Mono) -> InVain {
        let now = self.env.mono();
        let rest = REST.max(now.saturating_since(begun) * REST_FACTOR);
        (Arc::new(cause.clone()), now + rest)
    }

    fn write_index(&mut self) -> Result<(), StoreError> {
        self.begin()?;
        let now = self.shared.expiry.now().unix_nanos();
        let written = index::write(&self.connection, &self.shared.tail(), &mut self.largest)
            .and_then(|()| tables::set_meta(&self.connection, "clock", now))
            .map_err(failed(FLUSHING));
        match written.and_then(|()| self.make_durable(FLUSHING)) {
            Ok(()) => {
                self.begun = false;
                self.shared.tail_mut().drop_indexed();
                self.env.reached("store: the tail became index");
                Ok(())
            }
            Err(cause) => {
                self.env.reached("store: the index could not be written");
                let cause = explained(&self.connection, cause);
                self.roll_back();
                self.end_if_fatal(&cause);
                Err(cause)
            }
        }
    }

    /// Moves the tail into the index tables if it has grown, unless that was tried in vain a moment ago.
    pub(super) fn flush_if_due(&mut self) {
        let due = self.holds(FLUSH_EVENTS, FLUSH_BYTES) || self.env.buggify("store: the index is written early");
        if !due || self.backlog.is_resting(self.env.mono()) {
            self.tell_refusal();
            return;
        }
        if let Err(cause) = self.flush() {
            // Nothing is lost: the events are durable.
            tracing::warn!(%cause, "the index could not be written");
        }
        if self.shared.lingering.load(Ordering::Relaxed) {
            self.empty_log();
        }
    }

    /// As [`flush`](Self::flush), for nobody who would wait for it.
    pub(super) fn flush_idly(&mut self) {
        if !self.backlog.is_resting(self.env.mono()) {
            let _ = self.flush();
        }
    }

    /// Why nothing more is written, if so; looks again first whether it still is so.
    pub(super) fn refusal(&mut self) -> Option<StoreError> {
        self.shared.refusal()?;
        self.flush_if_due();
        self.shared.refusal()
    }

    /// The log could not be written back because it is damaged, at an attempt that began then; `None` once it could.
    pub(super) fn log_is_damaged(&mut self, in_vain: Option<(&StoreError, Mono)>) {
        self.backlog.log = in_vain.map(|(cause, begun)| self.in_vain(cause, begun));
        self.tell_refusal();
    }

    /// Why nothing is written that would be lost with a damaged log, if it is.
    pub(super) fn log_refusal(&self) -> Option<StoreError> {
        let (cause, _) = self.backlog.log.as_ref()?;
        let is_read = matches!(**cause, StoreError::Corrupt { .. });
        let what = if is_read { "the write-ahead log is damaged" } else { "the write-ahead log cannot be read" };
        Some(StoreError::Stuck { what, cause: cause.clone() })
    }

    /// Tells everybody whether, and why, nothing more is written.
    fn tell_refusal(&self) {
        // What has no checksum that holds is served to nobody, and a log that has it is refused when the store is opened.
        let log = self.log_refusal();
        let full = self.holds(Limits::UNINDEXED_EVENTS, Limits::UNINDEXED_BYTES);
        let index = self.backlog.index.as_ref().filter(|_| full);
        let what = "the index cannot be written, and no more may wait for it";
        let index = index.map(|(cause, _)| StoreError::Stuck { what, cause: cause.clone() });
        self.shared.refuse(log.or(index));
    }

    /// Whether the tail holds so many events, or so many bytes.
    fn holds(&self, events: usize, bytes: usize) -> bool {
        let tail = self.shared.tail();
        tail.len() >= events || tail.bytes() >= bytes
    }
}
