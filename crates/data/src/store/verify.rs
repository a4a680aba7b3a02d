//! What a full check of a store found.

use std::fmt;

/// The result of checking every stored byte.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// Events checked: position, bytes, hash chain.
    pub events: u64,
    /// Streams checked: head, version, chain.
    pub streams: u64,
    /// Index entries and table rows checked.
    pub rows: u64,
    /// What is wrong; empty when all is well. At most [`Verified::MAX_FINDINGS`].
    pub findings: Vec<Finding>,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The table and row.
    pub place: String,
    /// What is wrong with it.
    pub what: String,
}

impl Verified {
    /// The most findings that are listed.
    pub const MAX_FINDINGS: usize = 100;

    /// Whether nothing is wrong.
    pub fn is_sound(&self) -> bool {
        self.findings.is_empty()
    }

    pub(crate) fn find(&mut self, place: impl Into<String>, what: impl Into<String>) {
        let finding = Finding { place: place.into(), what: what.into() };
        if self.findings.len() < Self::MAX_FINDINGS && !self.findings.contains(&finding) {
            self.findings.push(finding);
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.what)
    }
}
