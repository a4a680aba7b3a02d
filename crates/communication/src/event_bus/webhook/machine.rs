//! What an answer means for an event and for its endpoint, as rules that are told the time.

use std::time::Duration;

use quorate_data::subscription;
use quorate_foundations::time::{Boot, Wall};

/// What became of one attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// The endpoint answered.
    Answered {
        /// With this status.
        status: u16,
        /// When it asks to be called again.
        retry_after: Option<Duration>,
    },
    /// There was no answer, or none in time.
    Unanswered,
    /// A policy of ours refused the call: the endpoint heard nothing of it.
    Refused {
        /// When another call may try, if that is known.
        retry_after: Option<Duration>,
    },
}

/// What is to be done, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The endpoint has failed since then, for so long of what this process and those before it saw. To be written down.
    Failing {
        /// By the wall clock, for people.
        since: Wall,
        /// By the boot clock, for judging.
        so_far: Duration,
    },
    /// The endpoint has taken something after having failed. To be written down.
    Recovered,
    /// Nothing is to be sent any more until somebody enables the endpoint.
    Disable(Why),
    /// The event is done.
    Ack,
    /// The event was not taken: it comes again after `rest` (`None`: as the backoff says), or is parked.
    Nack(Option<Duration>),
    /// This was no attempt: the event goes back as if it had not been handed out.
    GiveBack,
    /// Nothing is to be sent to the endpoint for so long.
    Pause(Duration),
}

/// Why an endpoint disabled itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It says that it is gone (410).
    Gone,
    /// It has taken nothing for too long.
    Failing(Duration),
}

/// The numbers that an endpoint's machine goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// See [`Config::disable_after`](super::Config::disable_after).
    pub disable_after: Duration,
    /// The longest time between two failures in which the endpoint could have taken something and did not: one rest and one attempt.
    pub longest_gap: Duration,
    /// A `Retry-After` below this asks for less than the backoff would give, and is passed over.
    pub least_rest: Duration,
}

/// An endpoint, as far as its attempts say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Endpoint {
    failing: Option<Failing>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Failing {
    since: Wall,
    /// What processes before this one saw of it, and this one up to `last`.
    so_far: Duration,
    /// This process's last failure.
    last: Option<Boot>,
}

/// How long nothing is sent after a refusal that names no time.
const SHORT_PAUSE: Duration = Duration::from_millis(100);
/// How long one refusal, or one `Retry-After`, holds the whole endpoint at most.
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(3_600);
/// How long nothing is sent to one that is gone and cannot be disabled at once.
const GONE_PAUSE: Duration = Duration::from_secs(5);
/// How long one `Retry-After` lets an event rest at most.
const LONGEST_REST: Duration = subscription::Config::MAX_TTL;

impl Endpoint {
    /// One that has failed since `since`, for `so_far` of what processes saw; or one that is well.
    pub fn restored(failing: Option<(Wall, Duration)>) -> Self {
        Self { failing: failing.map(|(since, so_far)| Failing { since, so_far, last: None }) }
    }

    /// Takes in what became of an attempt that ended at `now` and `wall`.
    pub fn step(&mut self, (now, wall): (Boot, Wall), input: Input, rules: &Rules, effects: &mut Vec<Effect>) {
        match input {
            Input::Refused { retry_after } => {
                let pause = retry_after.unwrap_or(SHORT_PAUSE).clamp(SHORT_PAUSE, LONGEST_PAUSE);
                effects.extend([Effect::GiveBack, Effect::Pause(pause)]);
            }
            Input::Answered { status: 200..=299, .. } => {
                effects.extend(self.failing.take().map(|_| Effect::Recovered));
                effects.push(Effect::Ack);
            }
            Input::Answered { status: 410, .. } => {
                self.failed((now, wall), rules, effects);
                effects.extend([Effect::Disable(Why::Gone), Effect::GiveBack, Effect::Pause(GONE_PAUSE)]);
            }
            Input::Answered { status, retry_after } => {
                let so_far = self.failed((now, wall), rules, effects);
                let asked = retry_after.filter(|asked| *asked >= rules.least_rest);
                let rest = Effect::Nack(asked.map(|asked| asked.min(LONGEST_REST)));
                self.give_up(so_far, rules, effects);
                effects.push(rest);
                // What it asks for with these is about all that it is sent.
                let pause = retry_after.filter(|_| matches!(status, 429 | 503));
                effects.extend(pause.map(|pause| Effect::Pause(pause.clamp(SHORT_PAUSE, LONGEST_PAUSE))));
            }
            Input::Unanswered => {
                let so_far = self.failed((now, wall), rules, effects);
                self.give_up(so_far, rules, effects);
                effects.push(Effect::Nack(None));
            }
        }
    }

    /// Notes a failure. Time in which no process looked, or in which nothing was sent, is not the endpoint's.
    fn failed(&mut self, (now, wall): (Boot, Wall), rules: &Rules, effects: &mut Vec<Effect>) -> Duration {
        let failing = self.failing.get_or_insert(Failing { since: wall, so_far: Duration::ZERO, last: None });
        let gap = failing.last.map_or(Duration::ZERO, |last| now.saturating_since(last));
        failing.so_far += gap.min(rules.longest_gap);
        failing.last = Some(failing.last.map_or(now, |last| last.max(now)));
        effects.push(Effect::Failing { since: failing.since, so_far: failing.so_far });
        failing.so_far
    }

    fn give_up(&self, so_far: Duration, rules: &Rules, effects: &mut Vec<Effect>) {
        if so_far >= rules.disable_after {
            effects.push(Effect::Disable(Why::Failing(so_far)));
        }
    }
}

#[cfg(test)]
mod tests;
