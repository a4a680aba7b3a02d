//! The end: nothing more is taken, and what was handed out is seen off.

use quorate_foundations::{name::Name, time::Mono};

use super::{Effect, Machine, Outcome, Refusal};

impl Machine {
    /// Takes no more requests, and refuses those that wait for a place. Those that are handed out go on.
    pub fn close(&mut self, now: Mono, effects: &mut Vec<Effect>) {
        self.tick(now, effects);
        self.is_closing = true;
        let kinds: Vec<Name> = self.kinds.keys().cloned().collect();
        kinds.iter().for_each(|kind| self.turn_away(kind, &Outcome::Refused(Refusal::Closing), effects));
    }

    /// Whether it takes no more requests.
    pub fn is_closing(&self) -> bool {
        self.is_closing
    }

    /// Whether nothing is handed out any more, and nobody waits for what was.
    pub fn is_seen_off(&self) -> bool {
        // Each of them waits for a place, and is refused by then, or is handed out.
        self.is_closing && self.requests.is_empty()
    }
}
