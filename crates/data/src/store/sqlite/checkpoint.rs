//! Writing the log back into the file, and what a failed sync means there.
//!
//! SQLite can do this by itself behind a commit, but would say nothing if it failed; and whoever waits for the commit would
//! wait for it too. So the writer does it, once everybody has an answer.

use std::{sync::atomic::Ordering, time::Duration};

use quorate_runtime::disk::unfinished;
use rusqlite::Connection;

use super::{
    connection::{self, BUSY, explained, failed},
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

/// What an attempt to write the log back says of the log.
#[derive(Debug, PartialEq, Eq)]
enum Told {
    /// All that is needed of it was read, and it is empty now.
    Sound,
    /// Not all of it is what was written, or can be read.
    Damaged,
    /// Neither: something else was in the way.
    Nothing,
}

impl Told {
    fn by(done: &Result<bool, StoreError>, mode: Mode) -> Self {
        match (done, mode) {
            (Ok(true), Mode::Truncate) => Self::Sound,
            // A frame that nobody needs any more is not read, and would still be in front of what is written next.
            (Ok(_), _) => Self::Nothing,
            (Err(StoreError::Corrupt { .. }), _) => Self::Damaged,
            (Err(cause), _) if connection::is_unreadable(cause) => Self::Damaged,
            (Err(_), _) => Self::Nothing,
        }
    }
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
        if self.is_halted() || (is_empty && !lingering && self.log_refusal().is_none()) {
            return;
        }
        let _ = self.connection.busy_timeout(Duration::ZERO);
        let emptied = self.checkpoint(Mode::Truncate);
        let _ = self.connection.busy_timeout(BUSY);
        if emptied {
            self.shared.lingering.store(false, Ordering::Relaxed);
        }
    }

    /// As [`empty_log`](Self::empty_log), for nobody who would wait for it: unless it was in vain a moment ago.
    pub(super) fn empty_log_idly(&mut self) {
        if !self.backlog.is_log_resting(self.env.mono()) {
            self.empty_log();
        }
    }

    /// Whether all of the log is in the file now. What could not be written is in the log still, and nothing is lost.
    fn checkpoint(&mut self, mode: Mode) -> bool {
        let begun = self.env.mono();
        // Ordering: before the first page goes into the file.
        self.note_end();
        let done = checkpoint(&self.connection, mode).map_err(|cause| explained(&self.connection, cause));
        if let Err(cause) = &done {
            self.end_if_fatal(cause);
            if self.log_refusal().is_none() {
                tracing::warn!(%cause, "the log could not be written back");
            }
        }
        match Told::by(&done, mode) {
            Told::Sound => self.log_is_damaged(None),
            Told::Damaged => self.log_is_damaged(done.as_ref().err().map(|cause| (cause, begun))),
            Told::Nothing => {}
        }
        let complete = matches!(done, Ok(true));
        if complete {
            self.env.reached("store: the log was written back");
        }
        complete
    }

    /// Notes how far the log is about to be written back, unless that was done. Where that fails, on a full disk as
    /// anywhere, the log goes without a second witness: it is what keeps it from growing for ever. It is tried again.
    fn note_end(&mut self) {
        // What has no name yet needs none: if it is damaged, it is begun anew.
        if unfinished::is_unfinished(&self.shared.path) {
            return;
        }
        let end = vfs::log_end(&self.connection).filter(|end| end.frames > 0);
        let Some(end) = end.filter(|end| self.checkpoints.noted != Some(*end)) else { return };
        match mark::write(&**self.env.disk(), &self.shared.path, end) {
            Ok(()) => self.checkpoints.noted = Some(end),
            Err(cause) => tracing::warn!(%cause, "how far the log is written back could not be noted"),
        }
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
    use rusqlite::ffi;

    use super::{Checkpoints, Mode, Told};
    use crate::store::{
        StoreError,
        sqlite::connection::{corrupt, failed},
    };

    #[test]
    fn a_log_is_sound_only_once_it_is_empty_and_damaged_only_if_reading_it_failed() {
        let code = |code| Err(failed("trying")(rusqlite::Error::SqliteFailure(ffi::Error::new(code), None)));
        let told = |done| [Mode::Passive, Mode::Truncate].map(|mode| Told::by(&done, mode));
        assert_eq!(told(Ok(true)), [Told::Nothing, Told::Sound], "what rotted may be superseded, and in the log still");
        assert_eq!(told(Ok(false)), [Told::Nothing, Told::Nothing], "a reader or another program was in the way");
        let rotted = Err(corrupt("frame 1 of the write-ahead log", "it rotted"));
        assert_eq!(told(rotted), [Told::Damaged, Told::Damaged]);
        for damaged in
            [ffi::SQLITE_IOERR_DATA, ffi::SQLITE_IOERR_READ, ffi::SQLITE_IOERR_SHORT_READ, ffi::SQLITE_IOERR_CORRUPTFS]
        {
            assert_eq!(told(code(damaged)), [Told::Damaged, Told::Damaged], "{damaged}");
        }
        for other in [ffi::SQLITE_FULL, ffi::SQLITE_IOERR_WRITE, ffi::SQLITE_BUSY, ffi::SQLITE_IOERR_FSYNC] {
            assert_eq!(told(code(other)), [Told::Nothing, Told::Nothing], "{other}");
        }
        assert_eq!(told(Err(StoreError::Closed)), [Told::Nothing, Told::Nothing]);
    }

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
