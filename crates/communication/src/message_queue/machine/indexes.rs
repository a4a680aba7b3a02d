//! What is ready, what time changes next, and who is in which group: true to the entries after each change.

use std::{collections::BTreeSet, sync::Arc};

use quorate_foundations::time::Boot;

use super::{Claim, Dispatcher, Entry, Phase, Seq};

/// The messages of a group.
#[derive(Debug, Default)]
pub(super) struct Members {
    pub(super) all: BTreeSet<Seq>,
    /// How many of them consumers hold. Where several processes send, the one that is out need not be the first: a message
    /// with a lower number may have been committed behind it.
    pub(super) leased: usize,
}

impl Dispatcher {
    pub(super) fn put(&mut self, seq: Seq, entry: Option<Entry>) {
        let before = self.entries.remove(&seq);
        if let Some(before) = &before {
            self.unlist(seq, before);
        }
        if let Some(entry) = &entry {
            self.list(seq, entry);
        }
        let lease = |entry: &Option<Entry>| entry.as_ref().and_then(|entry| lease_of(seq, entry));
        self.ended.extend(lease(&before).filter(|had| lease(&entry) != Some(*had)));
        let groups = [before.as_ref(), entry.as_ref()].map(|entry| entry.and_then(|entry| entry.group.clone()));
        if let Some(entry) = entry {
            self.entries.insert(seq, entry);
        }
        // Who stands first in the group may have changed.
        for group in groups.into_iter().flatten() {
            self.ready_head(&group);
        }
        if let Some(undo) = &mut self.undo {
            undo.push((seq, before));
        }
    }

    fn list(&mut self, seq: Seq, entry: &Entry) {
        if let Some(due) = due(entry) {
            self.timers.insert((due, seq));
        }
        match entry.phase {
            Phase::Leased { .. } => self.leased += 1,
            Phase::Parked => drop(self.parked.insert(seq)),
            Phase::Waiting { .. } | Phase::Resting { .. } => {}
        }
        if let Some(group) = &entry.group {
            let members = self.groups.entry(group.clone()).or_default();
            // It may come in front of the one that was ready.
            let first = members.all.first().copied().filter(|first| *first > seq);
            members.all.insert(seq);
            members.leased += usize::from(matches!(entry.phase, Phase::Leased { .. }));
            if let Some(overtaken) = first.and_then(|first| self.entries.get(&first).map(|entry| rank(first, entry))) {
                self.ready.remove(&overtaken);
            }
        } else if matches!(entry.phase, Phase::Waiting { .. }) {
            self.ready.insert(rank(seq, entry));
        }
    }

    fn unlist(&mut self, seq: Seq, entry: &Entry) {
        if let Some(due) = due(entry) {
            self.timers.remove(&(due, seq));
        }
        match entry.phase {
            Phase::Leased { .. } => self.leased -= 1,
            Phase::Parked => drop(self.parked.remove(&seq)),
            Phase::Waiting { .. } | Phase::Resting { .. } => {}
        }
        self.ready.remove(&rank(seq, entry));
        if let Some(members) = entry.group.as_ref().and_then(|group| self.groups.get_mut(group)) {
            members.all.remove(&seq);
            members.leased -= usize::from(matches!(entry.phase, Phase::Leased { .. }));
        }
    }

    /// The first of a group is ready if it waits and nobody holds another one; a group without members is forgotten.
    fn ready_head(&mut self, group: &Arc<str>) {
        let Some(members) = self.groups.get(group) else { return };
        let Some(first) = members.all.first().copied() else {
            self.groups.remove(group);
            return;
        };
        let Some(entry) = self.entries.get(&first) else { return };
        let place = rank(first, entry);
        if matches!(entry.phase, Phase::Waiting { .. }) && members.leased == 0 {
            self.ready.insert(place);
        } else {
            self.ready.remove(&place);
        }
    }
}

/// Where a message stands among those that are ready.
fn rank(seq: Seq, entry: &Entry) -> (u8, Seq) {
    (u8::MAX - entry.priority, seq)
}

/// The lease on a message, if one runs.
pub(super) fn lease_of(seq: Seq, entry: &Entry) -> Option<Claim> {
    matches!(entry.phase, Phase::Leased { .. }).then_some(Claim { seq, delivery: entry.deliveries })
}

/// When time changes something about it.
fn due(entry: &Entry) -> Option<Boot> {
    match entry.phase {
        Phase::Waiting { .. } => entry.expires,
        Phase::Resting { until } => Some(entry.expires.map_or(until, |expires| expires.min(until))),
        Phase::Leased { until } => Some(until),
        Phase::Parked => None,
    }
}
