//! What a world will do to its hosts, and when.

use std::collections::BTreeMap;

use quorate_runtime::fault::Fault;

use crate::host::{HostId, Life};

/// Something to be done.
pub(super) enum Entry {
    /// A fault begins.
    Begin(Fault),
    /// Something begins that lasts, by its number.
    Last(usize),
    /// A cut of the network may be over.
    LookAgain,
    /// A host starts, unless it runs already.
    Start(HostId),
    /// A host's disk is sound again.
    Mend(HostId),
    /// A host that stood still goes on, if it is still in that life.
    Resume(HostId, Life),
}

/// What is to be done, in order of time and, at one time, in the order in which it was planned.
#[derive(Default)]
pub(super) struct Agenda {
    entries: BTreeMap<(u64, u64), Entry>,
    nth: u64,
}

impl Agenda {
    pub(super) fn add(&mut self, at: u64, entry: Entry) {
        self.nth += 1;
        self.entries.insert((at, self.nth), entry);
    }

    /// When the next thing is to be done.
    pub(super) fn next(&self) -> Option<u64> {
        self.entries.keys().next().map(|(at, _)| *at)
    }

    /// The next thing to be done by `now`.
    pub(super) fn take(&mut self, now: u64) -> Option<Entry> {
        let first = self.entries.first_entry()?;
        (first.key().0 <= now).then(|| first.remove())
    }

    /// Forgets the faults that have not begun.
    pub(super) fn drop_faults(&mut self) {
        self.entries.retain(|_, entry| !matches!(entry, Entry::Begin(_)));
    }
}
