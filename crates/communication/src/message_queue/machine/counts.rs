//! How many messages are where.

use super::{Dispatcher, Phase};

/// How many messages are where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// All of them, dead letters included.
    pub messages: usize,
    /// Those that the next consumer could get.
    pub ready: usize,
    /// Those in consumers' hands.
    pub in_flight: usize,
    /// Those that rest (for a delay or after a failure), or wait behind the first of their group.
    pub waiting: usize,
    /// Dead letters.
    pub parked: usize,
}

impl Dispatcher {
    /// How many messages are where.
    pub fn counts(&self) -> Counts {
        let (messages, ready, in_flight, parked) =
            (self.entries.len(), self.ready.len(), self.leased, self.parked.len());
        Counts { messages, ready, in_flight, waiting: messages - ready - in_flight - parked, parked }
    }

    /// When the oldest message that is not a dead letter was sent, in nanoseconds of the wall clock.
    ///
    /// Looks past at most 10,000 dead letters that are older.
    pub fn oldest(&self) -> Option<i64> {
        let first = self.entries.values().take(10_000).find(|entry| entry.phase != Phase::Parked);
        first.map(|entry| entry.sent_ns)
    }
}
