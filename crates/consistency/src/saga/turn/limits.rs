//! How long a saga may get.

use super::{Phase, Run};

impl Run<'_> {
    /// Whether nothing more is tried: it is stuck, and to make up for it there is as much room again.
    pub(super) fn has_too_many_events(&self) -> bool {
        let max = self.work.turn.config.max_events;
        match self.journal.phase {
            Phase::Forward => self.journal.events > max && self.journal.stuck.is_some() && self.journal.abort.is_none(),
            Phase::Compensating => self.journal.events > 2 * max && self.journal.stuck.is_some(),
            Phase::Ended(_) => false,
        }
    }

    /// Why the plan is asked no more.
    pub(super) fn must_stop(&self) -> Option<String> {
        if matches!(self.journal.phase, Phase::Ended(_)) || self.journal.stuck.is_some() {
            return None;
        }
        let is_back = self.journal.phase == Phase::Compensating;
        if !is_back && self.journal.abort.is_some() {
            return None;
        }
        let max = self.work.turn.config.max_events * if is_back { 2 } else { 1 };
        let is_long = self.journal.events >= max;
        let too_long = is_long.then(|| format!("it has {} events, and may have {max}", self.journal.events));
        self.work.planless.clone().filter(|_| !is_back).or(too_long)
    }
}
