//! `xtask/exceptions.toml`: every way around a rule, with its reason.

use anyhow::{Context, Result};
use serde::Deserialize;

use super::Finding;
use crate::tree::Tree;

/// Where the exceptions are written.
pub(super) const PATH: &str = "xtask/exceptions.toml";

/// All exceptions, as written.
#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(super) struct Exceptions {
    dev_dependency: Vec<DevDependency>,
    call: Vec<Call>,
}

/// A crate whose tests may use what the crate itself may not.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DevDependency {
    #[serde(rename = "crate")]
    pub(super) of: String,
    pub(super) on: String,
    pub(super) reason: String,
}

/// A file that may make a call that is forbidden elsewhere.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Call {
    pub(super) file: String,
    pub(super) path: String,
    pub(super) reason: String,
}

/// Exceptions of one kind, each remembering whether something needed it.
pub(super) struct Ledger<T> {
    entries: Vec<(T, bool)>,
}

/// What a ledger needs to know of its entries.
pub(super) trait Entry {
    fn reason(&self) -> &str;
    /// How a report calls it.
    fn title(&self) -> String;
}

impl Exceptions {
    /// Reads the exceptions; a tree without the file has none.
    ///
    /// # Errors
    /// When the file isn't valid.
    pub(super) fn read(tree: &Tree) -> Result<Self> {
        toml::from_str(tree.text(PATH).unwrap_or_default()).with_context(|| format!("{PATH} isn't valid"))
    }

    /// The dev-dependencies on packages that `concerns` the asking check.
    pub(super) fn dev_dependencies(self, concerns: impl Fn(&str) -> bool) -> Ledger<DevDependency> {
        Ledger::new(self.dev_dependency.into_iter().filter(|entry| concerns(&entry.on)))
    }

    pub(super) fn calls(self) -> Ledger<Call> {
        Ledger::new(self.call.into_iter())
    }
}

impl<T: Entry> Ledger<T> {
    fn new(entries: impl Iterator<Item = T>) -> Self {
        Self { entries: entries.map(|entry| (entry, false)).collect() }
    }

    /// Whether an entry satisfies `allows`; that entry then counts as needed.
    pub(super) fn permits(&mut self, allows: impl Fn(&T) -> bool) -> bool {
        let found = self.entries.iter_mut().find(|(entry, _)| allows(entry));
        found.map(|(_, needed)| *needed = true).is_some()
    }

    /// The entries that nothing needed, and those without a reason.
    pub(super) fn findings(&self) -> Vec<Finding> {
        let unneeded = self.entries.iter().filter(|(_, needed)| !needed);
        let unneeded = unneeded.map(|(entry, _)| format!("{} is needed by nothing; remove it", entry.title()));
        let unexplained = self.entries.iter().filter(|(entry, _)| entry.reason().trim().is_empty());
        let unexplained = unexplained.map(|(entry, _)| format!("{} gives no reason", entry.title()));
        unneeded.chain(unexplained).map(|what| Finding::new(PATH, what)).collect()
    }
}

impl Entry for DevDependency {
    fn reason(&self) -> &str {
        &self.reason
    }

    fn title(&self) -> String {
        format!("the dev-dependency of {} on {}", self.of, self.on)
    }
}

impl Entry for Call {
    fn reason(&self) -> &str {
        &self.reason
    }

    fn title(&self) -> String {
        format!("the exception for {} in {}", self.path, self.file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger(text: &str) -> Ledger<Call> {
        Exceptions::read(&Tree::from([(PATH, text)])).unwrap().calls()
    }

    #[test]
    fn an_exception_that_nothing_needs_is_reported() {
        let mut calls = ledger("[[call]]\nfile = \"a.rs\"\npath = \"std::fs\"\nreason = \"the one writer of dumps\"");
        assert_eq!(calls.findings()[0].what, "the exception for std::fs in a.rs is needed by nothing; remove it");
        assert!(calls.permits(|call| call.file == "a.rs"));
        assert_eq!(calls.findings(), []);
    }

    #[test]
    fn an_exception_without_a_reason_is_reported() {
        let mut calls = ledger("[[call]]\nfile = \"a.rs\"\npath = \"std::fs\"\nreason = \" \"");
        assert!(calls.permits(|_| true));
        assert_eq!(calls.findings()[0].what, "the exception for std::fs in a.rs gives no reason");
    }

    #[test]
    fn a_misspelt_key_is_an_error() {
        let tree = Tree::from([(PATH, "[[calls]]\nfile = \"a.rs\"")]);
        assert!(Exceptions::read(&tree).is_err());
    }
}
