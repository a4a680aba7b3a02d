//! Questions that are answered as of one moment, within bounds.

use std::{fmt, sync::Arc, time::Duration};

use tokio::sync::OwnedSemaphorePermit;

use super::{Row, Scope, Value};

/// A statement with its parameters: `$1`, `$2`, …
#[derive(Clone, Debug, PartialEq)]
pub struct Statement {
    /// The text.
    pub sql: String,
    /// The values.
    pub params: Vec<Value>,
}

impl Statement {
    /// A statement.
    pub fn new(sql: impl Into<String>, params: impl Into<Vec<Value>>) -> Self {
        Self { sql: sql.into(), params: params.into() }
    }
}

/// Statements that are answered as of one moment: those of a room first, then one of a reader's own.
#[derive(Debug)]
pub struct Inquiry {
    /// Asked of the tables of rooms and views, in order.
    pub room: Vec<Statement>,
    /// A reader's, or asked on behalf of one.
    pub own: Option<Statement>,
    /// What the own statement may reach.
    pub scope: Scope,
    /// How much of everything the own statement may take.
    pub bounds: Bounds,
    /// Kept until the statements have ended, whether somebody still waits for them or not.
    pub turn: Option<OwnedSemaphorePermit>,
}

/// How much of everything one statement may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// From its beginning to its last row.
    pub time: Duration,
    /// Rows.
    pub rows: usize,
    /// Bytes of its rows together.
    pub bytes: usize,
    /// Memory of the engine meanwhile, in bytes: for sorting, grouping, joining.
    pub memory: usize,
}

/// One of the [`Bounds`], with its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// Time.
    Time(Duration),
    /// Rows.
    Rows(usize),
    /// Bytes of rows.
    Bytes(usize),
    /// Memory, in bytes.
    Memory(usize),
}

impl Bound {
    /// What it bounds, in one word: `time`, `rows`, `bytes`, `memory`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Time(_) => "time",
            Self::Rows(_) => "rows",
            Self::Bytes(_) => "bytes",
            Self::Memory(_) => "memory",
        }
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Time(most) => write!(f, "it takes longer than {most:?}"),
            Self::Rows(most) => write!(f, "it has more than {most} rows"),
            Self::Bytes(most) => write!(f, "its rows have more than {most} bytes"),
            Self::Memory(most) => write!(f, "it needs more than {most} bytes of memory"),
        }
    }
}

/// What an [`Inquiry`] found.
#[derive(Clone, Debug)]
pub struct Findings {
    /// The rows of the room's statements, in order.
    pub room: Vec<Vec<Row>>,
    /// What the own statement found, where there was one.
    pub own: Option<Found>,
}

/// The rows of a statement.
#[derive(Clone, Debug)]
pub struct Found {
    /// The names of its columns, in order.
    pub columns: Arc<[Arc<str>]>,
    /// The rows, up to the first that was too many or too much.
    pub rows: Vec<Row>,
    /// Why there are no more of them, where there would have been: [`Bound::Rows`] or [`Bound::Bytes`].
    pub cut: Option<Bound>,
}

/// A column of a table, as the engine knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableColumn {
    /// Its name.
    pub name: String,
    /// Its type, as it was declared.
    pub declared: String,
    /// Its place in the primary key, counted from 1; `None` where it is not in it.
    pub key: Option<u32>,
}
