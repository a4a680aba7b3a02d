//! Whether a call is sent again, and when: the rules of retrying, without clock, sleep or request.

use std::{num::NonZeroU32, time::Duration};

use quorate_foundations::time::Mono;

use super::{Backoff, Budget};
use crate::{
    deadline::Deadline,
    dice::Dice,
    outcome::{Class, Outcome, Scope, Verdict},
};

/// How often and how far apart a call is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// All attempts, the first one included.
    pub attempts: NonZeroU32,
    /// How long to wait between them.
    pub backoff: Backoff,
    /// A `Retry-After` longer than this ends the call instead of being waited for.
    pub longest_retry_after: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            attempts: const { NonZeroU32::new(3).unwrap() },
            backoff: Backoff::default(),
            longest_retry_after: Duration::from_secs(10),
        }
    }
}

/// What doing a call twice would do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Repeatable {
    /// No more than doing it once: a read, or a write that sets what is.
    Idempotent,
    /// No more than doing it once, because it carries an idempotency key that the upstream honours.
    Keyed,
    /// Something else. Sent again only if it is certain that the upstream did nothing.
    No,
}

/// What the attempt that ended had been.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// What became of it.
    pub outcome: Outcome,
    /// What the answer says, where there was one.
    pub verdict: Option<Verdict>,
    /// Whether the caller has already been given a part of the answer.
    pub answer_begun: bool,
}

/// What to do after an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Give the caller what there is.
    Stop(Stop),
    /// Wait, then send it again. It is charged already.
    Again {
        /// How long to wait.
        after: Duration,
        /// Whether the connection that was used must not be used again.
        fresh_connection: bool,
    },
}

/// Why a call isn't sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stop {
    /// It succeeded.
    Done,
    /// Another attempt would fare no better, or it is not the upstream that failed.
    Final,
    /// A part of the answer was given away.
    AnswerBegun,
    /// Doing it twice might do something twice.
    NotRepeatable,
    /// All attempts were made.
    Attempts,
    /// Another hop of this request retries; if each did, failures would multiply.
    OwnedElsewhere,
    /// The upstream asked for a longer rest than the caller can wait.
    RetryAfter,
    /// The next attempt wouldn't fit before the deadline.
    Deadline,
    /// The dependency's budget is spent.
    Budget,
}

/// The attempts of one call.
#[derive(Clone, Debug)]
pub struct Attempts {
    config: Config,
    repeatable: Repeatable,
    /// Whether this hop is the one that retries.
    owner: bool,
    deadline: Deadline,
    made: u32,
    stale: bool,
    previous: Duration,
}

impl Attempts {
    /// A call whose first attempt is about to be made; the budget has been told of it.
    pub fn new(config: Config, repeatable: Repeatable, owner: bool, deadline: Deadline) -> Self {
        Self { config, repeatable, owner, deadline, made: 1, stale: false, previous: Duration::ZERO }
    }

    /// The number of the current attempt, counted from 1.
    pub fn number(&self) -> u32 {
        self.made
    }

    /// What to do now that the current attempt has ended. `needs` is how long an attempt usually takes; one that would be
    /// cut off isn't begun.
    pub fn ended(
        &mut self,
        now: Mono,
        ended: Ended,
        needs: Duration,
        budget: &mut Budget,
        dice: &mut Dice,
    ) -> Decision {
        let decision = match self.could_go_on(ended) {
            Err(stop) => return Decision::Stop(stop),
            // An idle connection that was closed is no sign of trouble: once, at once, on another one.
            Ok(Class::Stale) => {
                self.stale = true;
                Decision::Again { after: Duration::ZERO, fresh_connection: true }
            }
            Ok(_) => match self.wait(ended.verdict.and_then(|verdict| verdict.retry_after), dice) {
                Err(stop) => return Decision::Stop(stop),
                Ok(after) => Decision::Again { after, fresh_connection: false },
            },
        };
        let Decision::Again { after, .. } = decision else { return decision };
        if !self.deadline.allows(now, after.saturating_add(needs)) {
            return Decision::Stop(Stop::Deadline);
        }
        // Charged last, so that what isn't sent costs nothing, and before the wait, so that what waits is counted.
        if !budget.charge(now) {
            return Decision::Stop(Stop::Budget);
        }
        self.made += 1;
        self.previous = after;
        decision
    }

    /// Of which class the failure is, if anything speaks for another attempt.
    fn could_go_on(&self, ended: Ended) -> Result<Class, Stop> {
        let class = match ended.outcome {
            Outcome::Upstream(Class::Success) => return Err(Stop::Done),
            Outcome::Upstream(Class::Refusal) | Outcome::Rejected(_) | Outcome::Cancelled => return Err(Stop::Final),
            Outcome::Timeout(Scope::Total) => return Err(Stop::Deadline),
            Outcome::Timeout(Scope::Attempt) => Class::Fault,
            Outcome::Upstream(class) => class,
        };
        if class == Class::Stale && self.stale || ended.verdict.is_some_and(|verdict| !verdict.transient) {
            return Err(Stop::Final);
        }
        if ended.answer_begun {
            return Err(Stop::AnswerBegun);
        }
        let unprocessed = ended.verdict.is_some_and(|verdict| verdict.unprocessed);
        if self.repeatable == Repeatable::No && !unprocessed {
            return Err(Stop::NotRepeatable);
        }
        if class != Class::Stale && !self.owner {
            return Err(Stop::OwnedElsewhere);
        }
        if self.made >= self.config.attempts.get() {
            return Err(Stop::Attempts);
        }
        Ok(class)
    }

    fn wait(&self, retry_after: Option<Duration>, dice: &mut Dice) -> Result<Duration, Stop> {
        let wait = self.config.backoff.wait(self.made, self.previous, dice);
        match retry_after {
            Some(asked) if asked > self.config.longest_retry_after => Err(Stop::RetryAfter),
            // Not exactly then, or everybody who was told the same comes back at the same moment.
            Some(asked) => Ok(asked.saturating_add(wait)),
            None => Ok(wait),
        }
    }
}

#[cfg(test)]
mod tests;
