//! Work that is SQL: what the participants of a store and of PostgreSQL understand.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{ParticipantError, Work};

/// A statement, with what it is given and how many rows it has to change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Statement {
    /// The text; `$1`, `$2`, … stand for `params`.
    pub sql: Arc<str>,
    /// What it is given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub params: Vec<Param>,
    /// How many rows it has to change; with any other number the vote is *no*.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
}

/// What a statement is given.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Param {
    /// Nothing.
    Null,
    /// True or false.
    Boolean(bool),
    /// A whole number.
    Integer(i64),
    /// Another number.
    Real(f64),
    /// A text.
    Text(Arc<str>),
}

/// The work of a participant in SQL.
///
/// PostgreSQL holds what `prepare` did until it is told how it ends, and takes nothing else. The embedded store commits what
/// `prepare` did, so that it is a *reservation* that others see (money set aside, a seat held): `commit` then makes it good, `abort` takes it
/// back, and `claims` keeps other transactions of this kind from what is named until then.
///
/// # Example
/// ```
/// use quorate_consistency::two_phase_commit::{SqlWork, Statement};
/// let set_aside = SqlWork::default()
///     .claiming("account ada")
///     .prepare(Statement::of("UPDATE account SET free = free - $1 WHERE owner = $2 AND free >= $1").with(30).with("ada").changing(1))
///     .commit(Statement::of("UPDATE account SET total = total - $1 WHERE owner = $2").with(30).with("ada"))
///     .abort(Statement::of("UPDATE account SET free = free + $1 WHERE owner = $2").with(30).with("ada"));
/// assert!(set_aside.work().is_ok());
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SqlWork {
    /// What nobody else may prepare until this has ended.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub claims: Vec<Arc<str>>,
    /// What is done when it is prepared.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub prepare: Vec<Statement>,
    /// What is done when it is committed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub commit: Vec<Statement>,
    /// What is done when it is aborted.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub abort: Vec<Statement>,
}

impl Statement {
    /// One without parameters.
    pub fn of(sql: impl Into<Arc<str>>) -> Self {
        Self { sql: sql.into(), params: Vec::new(), rows: None }
    }

    /// The same, with one more parameter.
    #[must_use]
    pub fn with(mut self, param: impl Into<Param>) -> Self {
        self.params.push(param.into());
        self
    }

    /// The same, which has to change so many rows.
    #[must_use]
    pub fn changing(mut self, rows: u64) -> Self {
        self.rows = Some(rows);
        self
    }

    /// Why it changed so many rows and no other number, where that matters.
    pub(super) fn objection(&self, changed: u64) -> Option<String> {
        let wanted = self.rows.filter(|wanted| *wanted != changed)?;
        let sql: String = self.sql.chars().take(80).collect();
        Some(format!("`{sql}` changed {changed} rows and has to change {wanted}"))
    }
}

impl SqlWork {
    /// The most statements of each of its parts.
    pub const MAX_STATEMENTS: usize = 30;
    /// The most claims.
    pub const MAX_CLAIMS: usize = 100;
    /// The longest claim, in bytes.
    pub const MAX_CLAIM_BYTES: usize = 512;

    /// The same, which nobody else may prepare with the same claim until this has ended.
    #[must_use]
    pub fn claiming(mut self, claim: impl Into<Arc<str>>) -> Self {
        self.claims.push(claim.into());
        self
    }

    /// The same, with one more statement when it is prepared.
    #[must_use]
    pub fn prepare(mut self, statement: Statement) -> Self {
        self.prepare.push(statement);
        self
    }

    /// The same, with one more statement when it is committed.
    #[must_use]
    pub fn commit(mut self, statement: Statement) -> Self {
        self.commit.push(statement);
        self
    }

    /// The same, with one more statement when it is aborted.
    #[must_use]
    pub fn abort(mut self, statement: Statement) -> Self {
        self.abort.push(statement);
        self
    }

    /// As a participant is given it.
    ///
    /// # Errors
    /// [`WorkError`](super::WorkError) where it is too large.
    pub fn work(&self) -> Result<Work, super::WorkError> {
        Work::json(self)
    }

    /// Reads what a participant was given.
    pub(super) fn read(work: &Work) -> Result<Self, ParticipantError> {
        let unsuitable = |what: String| ParticipantError::Unsuitable { what };
        let read: Self = serde_json::from_slice(work.as_bytes())
            .map_err(|cause| unsuitable(format!("this is not work in SQL: {cause}")))?;
        for (part, statements) in [("prepare", &read.prepare), ("commit", &read.commit), ("abort", &read.abort)] {
            let (max, found) = (Self::MAX_STATEMENTS, statements.len());
            if found > max {
                return Err(unsuitable(format!("`{part}` has at most {max} statements, this one has {found}")));
            }
        }
        let is_long = read.claims.iter().any(|claim| claim.len() > Self::MAX_CLAIM_BYTES);
        if read.claims.len() > Self::MAX_CLAIMS || is_long {
            let (max, bytes) = (Self::MAX_CLAIMS, Self::MAX_CLAIM_BYTES);
            return Err(unsuitable(format!("there are at most {max} claims of at most {bytes} bytes each")));
        }
        Ok(read)
    }
}

macro_rules! into_param {
    ($($from:ty => |$value:ident| $into:expr),* $(,)?) => {
        $(impl From<$from> for Param {
            fn from($value: $from) -> Self {
                $into
            }
        })*
    };
}

into_param! {
    i64 => |n| Self::Integer(n),
    i32 => |n| Self::Integer(n.into()),
    u32 => |n| Self::Integer(n.into()),
    f64 => |x| Self::Real(x),
    bool => |b| Self::Boolean(b),
    &str => |text| Self::Text(text.into()),
    String => |text| Self::Text(text.into()),
    Arc<str> => |text| Self::Text(text),
}
