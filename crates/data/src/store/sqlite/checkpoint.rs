//! Writing the log back into the file, and what a failed sync means there.
//!
//! SQLite can do this by itself behind a commit, but would say nothing if it failed; and whoever waits for the commit would
//! wait for it too. So the writer does it, once everybody has an answer.

use std::{sync::atomic::Ordering, time::Duration};

use rusqlite::{Connection, config::DbConfig};

use super::{
    connection::{BUSY, explained, failed},
    core::Core,
    vfs,
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
        let done = checkpoint(&self.connection, mode);
        let cause = match done {
            Ok(complete) => {
                if complete {
                    self.env.reached("store: the log was written back");
                }
                return complete;
            }
            Err(cause) => explained(&self.connection, cause),
        };
        self.end_if_fatal(&cause);
        tracing::warn!(%cause, "the log could not be written back");
        false
    }

    /// Nothing is written any more, not even at closing: after a failed sync a second one proves nothing.
    pub(super) fn halt(&mut self) {
        self.halted = true;
        let _ = self.connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
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

/// Writes all of the log back before a connection that nobody else shares is closed. Closing does that too, but would say
/// nothing if it failed.
pub(super) fn complete(connection: &Connection) -> Result<(), StoreError> {
    match checkpoint(connection, Mode::Truncate)? {
        true => Ok(()),
        false => Err(StoreError::Busy),
    }
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
