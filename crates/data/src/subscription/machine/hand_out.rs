//! Handing out: who may have an event, for how long, and what time does to it.

use std::{sync::Arc, time::Duration};

use super::{
    super::Claim,
    Dispatcher, Effect,
    entry::{Cause, Moment, State},
};
use crate::event::Position;

impl Dispatcher {
    /// Hands the first `max` of those that are ready to `owner`.
    pub(super) fn take(&mut self, max: usize, owner: &Arc<str>, now: Moment, effects: &mut Vec<Effect>) {
        for _ in 0..max.min(self.ready()) {
            let Some(position) = self.window.ready.pop_first() else { return };
            self.hand_out(position, owner, now, effects);
        }
    }

    fn hand_out(&mut self, position: Position, owner: &Arc<str>, now: Moment, effects: &mut Vec<Effect>) {
        let ttl = self.rules.lease_ttl;
        if matches!(self.window.entry(position).state, State::Leased { .. }) {
            self.window.fail(position, Cause::Expired, "the lease expired", now);
        }
        self.fence += 1;
        let claim = Claim::new(position, self.fence);
        let expires_at = now.boot + ttl;
        self.window.set(position, State::Leased { fence: claim.fence, owner: owner.clone(), ttl, expires_at });
        let entry = self.window.entry_mut(position);
        entry.attempts += 1;
        effects.push(Effect::Hand { claim, key: entry.key.clone(), attempt: entry.attempts, ttl });
    }

    /// The holder's lease begins anew, for `ttl`.
    pub(super) fn extend(&mut self, position: Position, ttl: Duration, now: Moment) {
        let State::Leased { fence, owner, .. } = self.window.entry(position).state.clone() else { return };
        self.window.set(position, State::Leased { fence, owner, ttl, expires_at: now.boot + ttl });
    }

    /// As if the event had not been handed out.
    pub(super) fn put_back(&mut self, position: Position, now: Moment) {
        self.window.entry_mut(position).attempts -= 1;
        self.window.wait(position, now);
    }

    /// A lease or a rest has ended.
    pub(super) fn time_is_up(&mut self, position: Position, now: Moment) {
        let Some(entry) = self.window.get(position) else { return };
        let expired = matches!(entry.state, State::Leased { .. });
        if expired && entry.tried() >= self.rules.max_attempts {
            self.window.fail(position, Cause::Expired, "the lease expired", now);
            self.window.park(position, now);
        } else {
            self.window.ready.insert(position);
        }
    }
}
