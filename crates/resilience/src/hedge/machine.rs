//! When a second copy of a call is sent, and which of them counts: the rules of hedging, without clock or calls.
//!
//! ```text
//!   sent ──▶ waiting for the first answer ──▶ it is late, and nothing forbids it: another one is sent
//!                      │                                             │
//!                      │ a good answer                               │ the first good answer
//!                      ▼                                             ▼
//!                  delivered                         delivered, and all others are cancelled
//! ```
//!
//! A copy is sent because the first is *late*, not because it failed: that is what retries are for, which wait first. One that
//! fails while others are under way is forgotten; the last one to fail is what the caller gets.

use std::{num::NonZeroU32, time::Duration};

use quorate_foundations::{machine::Machine, time::Mono};

use crate::{deadline::Deadline, retry::Repeatable};

/// When and how often a call is sent a second time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Config {
    /// When the answer is late.
    pub after: After,
    /// So many copies beside the first, each as late after the one before.
    pub extra: NonZeroU32,
}

/// When an answer is late.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum After {
    /// After so long.
    Fixed(Duration),
    /// After as long as the part `part` of the calls takes: 0.95 sends a copy of one call in twenty. While too little is known of
    /// the calls, none is sent.
    Percentile {
        /// The part, from above 0 to below 1.
        part: f64,
        /// Never sooner.
        at_least: Duration,
    },
}

/// Why a configuration can't be.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// Not a part.
    #[error("`after.part` is {0}; it must be at least 0.5 and below 1: a copy of every call doubles the load")]
    Part(f64),
    /// Copies at once.
    #[error("`{0}` must be longer than zero: copies sent at once multiply the load")]
    Zero(&'static str),
    /// Too many copies.
    #[error("`extra` is {0}; more than {MOST_EXTRA} copies help nobody")]
    Extra(u32),
}

impl Config {
    /// Whether this can be.
    ///
    /// # Errors
    /// [`ConfigError`], which names the field.
    pub fn check(&self) -> Result<(), ConfigError> {
        match self.after {
            After::Fixed(Duration::ZERO) => return Err(ConfigError::Zero("after")),
            After::Percentile { at_least: Duration::ZERO, .. } => return Err(ConfigError::Zero("after.at_least")),
            After::Percentile { part, .. } if !(0.5..1.0).contains(&part) => return Err(ConfigError::Part(part)),
            After::Fixed(_) | After::Percentile { .. } => {}
        }
        if self.extra.get() > MOST_EXTRA { Err(ConfigError::Extra(self.extra.get())) } else { Ok(()) }
    }

    /// After how long an answer is late, where the percentile asked for is `known`.
    pub fn delay(&self, percentile: impl FnOnce(f64) -> Option<Duration>) -> Option<Duration> {
        match self.after {
            After::Fixed(span) => Some(span),
            After::Percentile { part, at_least } => percentile(part).map(|span| span.max(at_least)),
        }
    }
}

const MOST_EXTRA: u32 = 10;

/// What can happen to a call of which there may be copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// A copy ended.
    Ended {
        /// Which: counted from 0, the first.
        copy: u32,
        /// Whether its answer is what was asked for, or a refusal of the first that its copies would repeat.
        good: bool,
    },
    /// What [`Effect::Ask`] asked: whether the budget allows another copy. If it doesn't, no more are sent; those under way
    /// go on.
    Budget(bool),
}

/// What should happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Charge the budget for a copy, and say whether it allowed it.
    Ask,
    /// Send this copy.
    Send(u32),
    /// This answer is the caller's.
    Deliver(u32),
    /// Drop this copy, which ends it.
    Cancel(u32),
}

/// The copies of one call. The first has been sent.
#[derive(Clone, Debug)]
pub struct Copies {
    /// Those under way: a bit for each, since there are never more than eleven.
    running: u32,
    sent: u32,
    /// How many may still be sent.
    left: u32,
    delay: Duration,
    deadline: Deadline,
    /// When the next one is due.
    due: Option<Mono>,
    done: bool,
}

impl Copies {
    /// A call that was sent at `now`. `delay` is after how long its answer is late, if that is known.
    pub fn new(config: Config, delay: Option<Duration>, repeatable: Repeatable, deadline: Deadline, now: Mono) -> Self {
        // A copy of what isn't repeatable might do it twice, and nobody would know.
        let left = if repeatable == Repeatable::No { 0 } else { config.extra.get().min(MOST_EXTRA) };
        let (due, delay) = (delay.map(|delay| now + delay).filter(|_| left > 0), delay.unwrap_or_default());
        Self { running: 1, sent: 1, left, delay, deadline, due, done: false }
    }

    /// How many were sent, the first included.
    pub fn sent(&self) -> u32 {
        self.sent
    }

    fn ended(&mut self, copy: u32, good: bool, effects: &mut Vec<Effect>) {
        let bit = 1_u32.checked_shl(copy).unwrap_or(0);
        if self.running & bit == 0 {
            return;
        }
        self.running &= !bit;
        if good || self.running == 0 {
            (self.done, self.due) = (true, None);
            effects.push(Effect::Deliver(copy));
            effects.extend((0..self.sent).filter(|other| self.running & 1 << other != 0).map(Effect::Cancel));
        }
    }
}

impl Machine for Copies {
    type Input = Input;
    type Effect = Effect;

    fn step(&mut self, now: Mono, input: Input, effects: &mut Vec<Effect>) {
        if self.done {
            return;
        }
        match input {
            Input::Ended { copy, good } => self.ended(copy, good, effects),
            Input::Budget(false) => (self.left, self.due) = (0, None),
            Input::Budget(true) if self.left > 0 && self.deadline.allows(now, self.delay) => {
                let copy = self.sent;
                (self.sent, self.left) = (self.sent + 1, self.left - 1);
                self.running |= 1 << copy;
                self.due = (self.left > 0).then(|| now + self.delay);
                effects.push(Effect::Send(copy));
            }
            Input::Budget(true) => {}
        }
    }

    fn tick(&mut self, now: Mono, effects: &mut Vec<Effect>) {
        if self.due.take_if(|due| *due <= now).is_none() {
            return;
        }
        // One that could only end after the deadline costs the upstream, and helps nobody: it takes as long as the first should.
        if self.deadline.allows(now, self.delay) {
            effects.push(Effect::Ask);
        } else {
            self.left = 0;
        }
    }

    fn wake_at(&self) -> Option<Mono> {
        self.due
    }
}

#[cfg(test)]
mod tests;
