//! Settling: how an event's attempt ends, and what an operator makes of those that were parked.

use std::time::Duration;

use super::{
    super::Claim,
    Dispatcher, Effect, Selection,
    entry::{Cause, Moment, Phase, State},
};
use crate::event::Position;

impl Dispatcher {
    /// Does `act` if `claim` is what its holder believes.
    pub(super) fn held(&mut self, claim: Claim, effects: &mut Vec<Effect>, act: impl FnOnce(&mut Self)) {
        if self.holds(claim) { act(self) } else { effects.push(Effect::Lost(claim)) }
    }

    /// A transaction that committed elsewhere settled the event and its row.
    pub(super) fn settled_elsewhere(&mut self, claim: Claim, now: Moment) {
        if !self.holds(claim) {
            return;
        }
        if let Some(saved) = &mut self.window.entry_mut(claim.position).saved {
            saved.state = Phase::Settled;
        }
        self.window.settle(claim.position, now);
    }

    /// The event rests, or is parked after its last attempt.
    pub(super) fn nack(&mut self, position: Position, rest: Option<Duration>, reason: &str, now: Moment) {
        self.window.fail(position, Cause::Nacked, reason, now);
        let tried = self.window.entry(position).tried();
        if tried >= self.rules.max_attempts {
            return self.window.park(position, now);
        }
        let rest = rest.unwrap_or_else(|| self.rules.backoff.delay(tried, position.get()));
        self.window.set(position, State::Resting { rest, due_at: now.boot + rest });
        self.tick(now);
    }

    /// Parked events wait again, each with all its attempts.
    pub(super) fn replay(&mut self, which: &Selection, now: Moment, effects: &mut Vec<Effect>) {
        let chosen = self.window.selected(which, true);
        for position in &chosen {
            let entry = self.window.entry_mut(*position);
            entry.forgiven = entry.attempts;
        }
        // All of them before any key is looked at: one behind a parked event would be parked again.
        for position in &chosen {
            self.window.set(*position, State::Waiting);
        }
        self.window.refresh_keys_of(&chosen, now);
        effects.push(Effect::Selected(chosen.len()));
    }

    /// Parked events are given up.
    pub(super) fn discard(&mut self, which: &Selection, now: Moment, effects: &mut Vec<Effect>) {
        let chosen = self.window.selected(which, false);
        for position in &chosen {
            self.window.settle(*position, now);
        }
        effects.push(Effect::Selected(chosen.len()));
    }
}
