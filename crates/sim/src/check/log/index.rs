//! The final log, by what checkers ask for.

use std::collections::BTreeMap;

use crate::check::api::LoggedEvent;

/// Finds events by position, by stream, and by id.
pub(in crate::check) struct Index<'l> {
    positions: BTreeMap<u64, &'l LoggedEvent>,
    streams: BTreeMap<&'l str, Vec<&'l LoggedEvent>>,
    ids: BTreeMap<(&'l str, &'l str), &'l LoggedEvent>,
}

impl<'l> Index<'l> {
    pub(in crate::check) fn of(log: &'l [LoggedEvent]) -> Self {
        let mut index = Self { positions: BTreeMap::new(), streams: BTreeMap::new(), ids: BTreeMap::new() };
        for logged in log {
            index.positions.entry(logged.position).or_insert(logged);
            index.streams.entry(&logged.stream).or_default().push(logged);
            index.ids.entry((&logged.stream, &logged.event.id)).or_insert(logged);
        }
        index
    }

    pub(in crate::check) fn at(&self, position: u64) -> Option<&'l LoggedEvent> {
        self.positions.get(&position).copied()
    }

    pub(in crate::check) fn find(&self, stream: &str, id: &str) -> Option<&'l LoggedEvent> {
        self.ids.get(&(stream, id)).copied()
    }

    /// The events of a stream, or of the log, in order.
    pub(in crate::check) fn scope(&self, stream: Option<&str>) -> Vec<&'l LoggedEvent> {
        match stream {
            Some(stream) => self.streams.get(stream).cloned().unwrap_or_default(),
            None => self.positions.values().copied().collect(),
        }
    }
}
