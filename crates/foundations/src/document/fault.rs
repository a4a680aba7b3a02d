//! What is wrong with a document, and where.

use std::fmt;

/// One thing that is wrong with a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The line, counted from 1.
    pub line: u32,
    /// The column in characters, counted from 1.
    pub column: u32,
    /// The field, as in `on[2].sql`; empty for the document itself.
    pub field: String,
    /// What is wrong with it.
    pub what: String,
}

impl Fault {
    /// A fault at byte `at` of `text`.
    pub fn at(text: &str, at: usize, field: impl Into<String>, what: impl Into<String>) -> Self {
        let (line, column) = place(text, at);
        Self { line, column, field: field.into(), what: what.into() }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}: ", self.line, self.column)?;
        if !self.field.is_empty() {
            write!(f, "`{}`: ", self.field)?;
        }
        f.write_str(&self.what)
    }
}

/// Line and column of byte `at`, both counted from 1.
fn place(text: &str, at: usize) -> (u32, u32) {
    let before = text.get(..at.min(text.len())).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    (u32::try_from(line).unwrap_or(u32::MAX), u32::try_from(column).unwrap_or(u32::MAX))
}

/// Everything that is wrong with a document, in the order in which it stands there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Faults {
    /// The faults; at least one.
    pub list: Vec<Fault>,
    /// Whether there are more than are listed.
    pub more: bool,
}

impl Faults {
    /// The most that are listed.
    pub const MAX: usize = 20;

    /// These faults; `None` if there are none.
    pub fn of(mut list: Vec<Fault>) -> Option<Self> {
        list.sort_by_key(|fault| (fault.line, fault.column));
        let more = list.len() > Self::MAX;
        list.truncate(Self::MAX);
        (!list.is_empty()).then_some(Self { list, more })
    }
}

impl From<Fault> for Faults {
    fn from(fault: Fault) -> Self {
        Self { list: vec![fault], more: false }
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, fault) in self.list.iter().enumerate() {
            write!(f, "{}{fault}", if n == 0 { "" } else { "; " })?;
        }
        f.write_str(if self.more { "; and more" } else { "" })
    }
}
