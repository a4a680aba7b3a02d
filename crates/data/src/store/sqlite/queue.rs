//! What waits for the writer.

use std::{
    collections::VecDeque,
    mem,
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
};

use quorate_runtime::blocking::Kick;

use super::writer::Job;
use crate::store::{Limits, StoreError};

/// A group takes at most so many bytes, so that the first of it is not kept waiting for long.
pub(super) const GROUP_BYTES: usize = 4 << 20;

/// Jobs in order of arrival, bounded by number and bytes.
pub(super) struct Queue {
    inner: Mutex<Inner>,
    kick: OnceLock<Kick>,
    max_jobs: usize,
    max_bytes: usize,
}

struct Inner {
    jobs: VecDeque<Job>,
    bytes: usize,
    /// The writer is woken when so many wait; it is at work, and looks again by itself, while there is no number.
    wakes_at: Option<usize>,
    closed: bool,
}

impl Queue {
    pub(super) fn new(limits: &Limits) -> Self {
        let (max_jobs, max_bytes) = (limits.waiting_writes, limits.waiting_bytes);
        let inner = Inner { jobs: VecDeque::new(), bytes: 0, wakes_at: Some(1), closed: false };
        Self { inner: Mutex::new(inner), kick: OnceLock::new(), max_jobs, max_bytes }
    }

    /// Says how to wake the writer.
    pub(super) fn connect(&self, kick: Kick) {
        let _ = self.kick.set(kick);
    }

    /// Adds a job, or says why not.
    pub(super) fn submit(&self, job: Job) -> Result<(), StoreError> {
        let bytes = job.bytes();
        {
            let mut inner = self.lock();
            if inner.closed {
                return Err(StoreError::Closed);
            }
            let waiting = inner.jobs.len();
            // A store that is too busy to be closed could never be.
            let may_wait = matches!(job, Job::Close(_));
            if !may_wait && (waiting >= self.max_jobs || (inner.bytes + bytes > self.max_bytes && waiting > 0)) {
                return Err(StoreError::Overloaded { waiting });
            }
            let gathers = job.is_for_a_group();
            inner.jobs.push_back(job);
            inner.bytes += bytes;
            // A writer at work looks at the queue again before it rests: no need to wake it.
            let Some(wakes_at) = inner.wakes_at else { return Ok(()) };
            if gathers && inner.jobs.len() < wakes_at && inner.bytes < GROUP_BYTES {
                return Ok(());
            }
            inner.wakes_at = None;
        }
        if let Some(kick) = self.kick.get() {
            kick.kick();
        }
        Ok(())
    }

    /// How many jobs wait.
    pub(super) fn waiting(&self) -> usize {
        self.lock().jobs.len()
    }

    /// The next group; `None` when nothing waits, and the writer may rest.
    pub(super) fn take(&self) -> Option<Vec<Job>> {
        let mut inner = self.lock();
        let mut bytes = 0;
        let beyond = inner.jobs.iter().position(|job| {
            bytes += job.bytes();
            bytes > GROUP_BYTES
        });
        let count = beyond.map_or(inner.jobs.len(), |n| n.max(1));
        inner.wakes_at = (count == 0).then_some(1);
        if count == 0 {
            return None;
        }
        let group: Vec<Job> = inner.jobs.drain(..count).collect();
        inner.bytes -= group.iter().map(Job::bytes).sum::<usize>();
        Some(group)
    }

    /// Has the writer woken only when `wanted` jobs wait, or something that is not for a group; `false` if they do already.
    pub(super) fn wake_at(&self, wanted: usize) -> bool {
        let mut inner = self.lock();
        // More than may wait are never there.
        let wanted = wanted.min(self.max_jobs);
        let is_short =
            inner.jobs.len() < wanted && inner.bytes < GROUP_BYTES && inner.jobs.iter().all(Job::is_for_a_group);
        inner.wakes_at = is_short.then_some(wanted);
        is_short
    }

    /// Accepts nothing from now on, and returns what was waiting.
    pub(super) fn close(&self) -> VecDeque<Job> {
        let mut inner = self.lock();
        inner.closed = true;
        mem::take(&mut inner.jobs)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
