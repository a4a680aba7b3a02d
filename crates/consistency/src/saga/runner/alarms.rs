//! When a runner wakes by itself.

use std::collections::BTreeMap;

use super::Runner;
use crate::saga::machine::{self, Alarm};

impl Runner {
    /// Sets the alarms that the journal asks for. What was set before keeps its time; what a restart finds runs for what is left
    /// by the wall clock, and never longer than it was to; a quiet time runs in full.
    pub(super) fn rearm(&mut self, is_reloaded: bool) {
        let (boot, wall) = (self.shared.store.env().boot(), self.shared.store.env().wall());
        let mut due = BTreeMap::new();
        for (alarm, since, span) in machine::alarms(&self.journal, &self.definition) {
            let at = match self.due.get(&alarm) {
                Some((known, at)) if *known == since => *at,
                _ if is_reloaded && !matches!(alarm, Alarm::Quiet(_)) => {
                    boot + span.saturating_sub(wall.saturating_since(since)).min(span)
                }
                _ => boot + span,
            };
            due.insert(alarm, (since, at));
        }
        self.due = due;
        // What is due is due; what was set anew is not.
        self.rung.retain(|alarm| self.due.get(alarm).is_some_and(|(_, at)| *at <= boot));
    }
}
