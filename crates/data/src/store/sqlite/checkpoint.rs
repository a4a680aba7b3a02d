//! Writing the log back into the file, and what a failed sync means there.
//!
//! SQLite can do this by itself behind a commit, but would say nothing if it failed; and whoever waits for the commit would
//! wait for it too. So the writer does it, once everybody has an answer.

use std::{
    io,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use rusqlite::Connection;

use super::{
    connection::{BUSY, explained, failed},
    core::Core,
    mark,
    vfs::{self, LogEnd},
};
use crate::store::StoreError;

const CHECKPOINTING: &str = "writing the log back";

/// The log is written back once it has so many pages, about 16 MiB: a commit of the log dirties few, so that this is rare.
const FRAMES: usize = 4_000;

/// Where a reader kept a part from being written back, it is tried again after so many pages.
const FRAMES_AGAIN: usize = 1_000;

/// The file of a log that has grown so large is cut off as soon as nobody reads it.
const FRAMES_LARGE: usize = 16 * FRAMES;

/// What a checkpoint does about readers.
#[derive(Clone, Copy)]
enum Mode {
    /// Writes back what nobody needs as it was.
    Passive,
    /// Also empties the log, if nobody reads it.
    Truncate,
}

/// When the log is to be written back.
#[derive(Default)]
pub(super) struct Checkpoints {
    /// How many pages the log had at the last attempt, if it has not begun anew since.
    tried_at: usize,
    /// How far it was noted to be written back.
    noted: Option<LogEnd>,
}

impl Checkpoints {
    fn due(&mut self, frames: usize) -> bool {
        if frames < self.tried_at {
            self.tried_at = 0;
        }
        let due = frames >= FRAMES && (self.tried_at == 0 || frames >= self.tried_at + FRAMES_AGAIN);
        if due {
            self.tried_at = frames;
        }
        due
    }
}

impl Core {
    /// Writes the log back if it has grown. Nobody waits for it.
    pub(super) fn checkpoint_if_due(&mut self) {
        let frames = vfs::log_frames(&self.connection);
        let early = frames > 0 && self.env.buggify("store: the log is written back early");
        if self.is_halted() || !(self.checkpoints.due(frames) || early) {
            return;
        }
        self.checkpoint(if frames >= FRAMES_LARGE { Mode::Truncate } else { Mode::Passive });
    }

    /// Empties the log, in which old pages linger: if forgotten data may be among them, or for a quick opening. A reader
    /// that still sees it stands in the way; nobody waits for it, it is tried again later.
    pub(super) fn empty_log(&mut self) {
        let lingering = self.shared.lingering.load(Ordering::Relaxed);
        let is_empty = vfs::log_frames(&self.connection) == 0;
        if self.is_halted() || (is_empty && !lingering) {
            return;
        }
        let _ = self.connection.busy_timeout(Duration::ZERO);
        let emptied = self.checkpoint(Mode::Truncate);
        let _ = self.connection.busy_timeout(BUSY);
        if emptied {
            self.shared.lingering.store(false, Ordering::Relaxed);
        }
    }

    /// Whether all of the log is in the file now. What could not be written is in the log still, and nothing is lost.
    fn checkpoint(&mut self, mode: Mode) -> bool {
        // Ordering: before the first page goes into the file.
        let done = self.note_end().and_then(|()| checkpoint(&self.connection, mode));
        let cause = match done {
            Ok(complete) => {
                self.log_is_damaged(None);
                if complete {
                    self.env.reached("store: the log was written back");
                }
                return complete;
            }
            Err(cause) => explained(&self.connection, cause),
        };
        self.end_if_fatal(&cause);
        self.log_is_damaged(Some(&cause).filter(|cause| matches!(cause, StoreError::Corrupt { .. })));
        tracing::warn!(%cause, "the log could not be written back");
        false
    }

    /// Notes how far the log is about to be written back, unless that was done.
    fn note_end(&mut self) -> Result<(), StoreError> {
        let end = vfs::log_end(&self.connection).filter(|end| end.frames > 0);
        let Some(end) = end.filter(|end| self.checkpoints.noted != Some(*end)) else { return Ok(()) };
        match mark::write(&**self.env.disk(), &self.shared.path, end) {
            Ok(()) => self.checkpoints.noted = Some(end),
            // Emptying the log is what makes space: it goes without a second witness.
            Err(cause) if matches!(cause.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => {}
            Err(cause) => return Err(StoreError::Engine { doing: CHECKPOINTING, cause: Arc::new(cause) }),
        }
        Ok(())
    }

    /// Nothing is written any more, not even at closing: after a failed sync a second one proves nothing.
    pub(super) fn halt(&mut self) {
        self.halted = true;
        let _ = vfs::tidy_at_close(&self.connection, false);
        self.shared.close();
    }
}

fn checkpoint(connection: &Connection, mode: Mode) -> Result<bool, StoreError> {
    let sql = match mode {
        Mode::Passive => "PRAGMA wal_checkpoint(PASSIVE)",
        Mode::Truncate => "PRAGMA wal_checkpoint(TRUNCATE)",
    };
    let mut checkpoint = connection.prepare_cached(sql).map_err(failed(CHECKPOINTING))?;
    let (busy, frames, written): (i64, i64, i64) =
        checkpoint.query_row([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).map_err(failed(CHECKPOINTING))?;
    Ok(busy == 0 && frames == written)
}

/// Writes all of the log back and closes the connection, which nobody else shares; no log is left. Closing alone would say
/// nothing if it failed.
pub(super) fn complete(connection: Connection) -> Result<(), StoreError> {
    if !checkpoint(&connection, Mode::Truncate)? {
        return Err(StoreError::Busy);
    }
    vfs::tidy_at_close(&connection, true).map_err(failed(CHECKPOINTING))?;
    connection.close().map_err(|(_, cause)| failed("closing the store")(cause))
}

#[cfg(test)]
mod tests {
    use super::Checkpoints;

    #[test]
    fn a_log_that_a_reader_holds_is_tried_again_after_a_while_and_not_each_time() {
        let mut checkpoints = Checkpoints::default();
        let tried: Vec<usize> = (0..7_000).filter(|frames| checkpoints.due(*frames)).collect();
        assert_eq!(tried, [4_000, 5_000, 6_000]);
    }

    #[test]
    fn a_log_that_begins_anew_is_written_back_when_it_has_grown_again() {
        let mut checkpoints = Checkpoints::default();
        assert!(checkpoints.due(4_100));
        assert!(!checkpoints.due(4_200));
        assert!(!checkpoints.due(10));
        assert!(checkpoints.due(4_010));
    }
}
