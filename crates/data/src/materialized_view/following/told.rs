//! What a follower is told, and where it stands.

use std::sync::Arc;

use super::{
    super::{
        Build,
        query::{AnswerColumn, AsOf, Condition, Shown, row_bytes},
    },
    changes::Place,
};
use crate::store::Row;

/// What to follow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FollowQuery {
    /// The table. It has to have a key.
    pub table: String,
    /// The columns to show; all of them where none is named.
    pub columns: Vec<String>,
    /// What rows must be like. A row that no longer is counts as deleted.
    pub conditions: Vec<Condition>,
}

/// What a follower is told at once, in this order.
#[derive(Clone, Debug)]
pub struct Batch {
    /// What was told before holds no longer: forget all rows.
    pub reset: Option<Reset>,
    /// Rows that changed, or, behind a reset, rows that are there.
    pub changes: Vec<Change>,
    /// With all of it the follower has the rows as of this moment. `None`: there is more.
    pub caught_up: Option<AsOf>,
    /// The columns of the rows.
    pub columns: Arc<[AnswerColumn]>,
    /// The columns of the keys.
    pub key: Arc<[AnswerColumn]>,
    /// The cursor behind all of it; `None` in the middle of all rows, where a follower that comes back begins again.
    pub cursor: Option<String>,
    pub(super) before: State,
    pub(super) forgotten: u64,
}

impl Batch {
    /// About how many bytes its rows take in memory.
    pub fn bytes(&self) -> usize {
        self.changes.iter().map(|change| row_bytes(&change.key) + row_bytes(&change.row)).sum()
    }
}

/// Why a follower has to start over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reset {
    /// It has just begun.
    Begun,
    /// Its cursor is of another recording or another query, or older than what is on record.
    Outdated,
    /// Readers were given another build.
    Switched,
    /// A data subject was erased, or the recording was ended.
    Rerecorded,
}

impl Reset {
    /// In one word: `begun`, `outdated`, `switched`, `rerecorded`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Begun => "begun",
            Self::Outdated => "outdated",
            Self::Switched => "switched",
            Self::Rerecorded => "rerecorded",
        }
    }
}

/// A row that changed.
#[derive(Clone, Debug)]
pub struct Change {
    /// What happened to it, as far as this follower is concerned.
    pub kind: ChangeKind,
    /// Its key's values.
    pub key: Row,
    /// The row; for a deletion without values.
    pub row: Row,
    /// The cursor behind it.
    pub cursor: Option<String>,
}

/// What happened to a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// It is new in the table.
    Inserted,
    /// It changed; with conditions it may be new among the rows that are as wanted.
    Updated,
    /// It is gone, or no longer as wanted. The follower may never have been told of it.
    Deleted,
}

impl ChangeKind {
    /// In one word: `inserted`, `updated`, `deleted`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Inserted => "inserted",
            Self::Updated => "updated",
            Self::Deleted => "deleted",
        }
    }
}

impl Batch {
    /// A row as it is shown.
    pub fn shown<'a>(&'a self, row: &'a Row) -> impl serde::Serialize + 'a {
        Shown { columns: &self.columns, row }
    }

    /// A key as it is shown.
    pub fn shown_key<'a>(&'a self, key: &'a Row) -> impl serde::Serialize + 'a {
        Shown { columns: &self.key, row: key }
    }
}

/// Where a follower stands.
#[derive(Clone, Debug)]
pub(super) enum State {
    /// Nothing is known; a cursor may be.
    Begin { place: Option<Place>, reason: Reset },
    /// All rows are being told. `reset`: why, until that was told itself.
    All { of: Of, since: i64, after: Option<String>, reset: Option<Reset> },
    /// Changes are being told.
    Changes { of: Of, seq: i64, told: Told },
}

/// What has been told of the moment that a follower has seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// It has yet to be told that it has caught up.
    Changes,
    /// Everything.
    All,
}

/// The build and the recording that a follower reads.
#[derive(Clone, Debug)]
pub(super) struct Of {
    pub(super) build: Build,
    pub(super) recording: i64,
    /// How many changes it keeps.
    pub(super) kept: i64,
    pub(super) tag: u64,
}
