//! The truth that clocks are tested against: every event with the full set of events that happened before it.

use std::collections::{BTreeMap, BTreeSet};

/// Events of several processes, each numbered in the order in which the test made them happen.
#[derive(Default)]
pub(super) struct History {
    pasts: Vec<BTreeSet<usize>>,
    latest: BTreeMap<usize, usize>,
}

impl History {
    /// Lets something happen at `process`, caused by its own past and, for a receipt, by the event `sent`.
    pub(super) fn event(&mut self, process: usize, sent: Option<usize>) -> usize {
        let causes = self.latest.get(&process).copied().into_iter().chain(sent);
        let past = causes.flat_map(|cause| self.pasts[cause].iter().copied().chain([cause])).collect();
        self.pasts.push(past);
        let event = self.pasts.len() - 1;
        self.latest.insert(process, event);
        event
    }

    /// Every pair of which the first happened before the second.
    pub(super) fn ordered_pairs(&self) -> impl Iterator<Item = (usize, usize)> {
        self.pasts.iter().enumerate().flat_map(|(event, past)| past.iter().map(move |cause| (*cause, event)))
    }
}

#[test]
fn the_model_follows_messages_and_keeps_strangers_apart() {
    let mut history = History::default();
    let sent = history.event(0, None);
    let alone = history.event(1, None);
    let received = history.event(1, Some(sent));
    assert_eq!(history.ordered_pairs().collect::<Vec<_>>(), [(sent, received), (alone, received)]);
}
