//! The limiter as callers see it: one word, moved by whoever takes.

use std::fmt;

use quorate_foundations::time::Mono;

use super::{
    config::{ConfigError, Rate},
    machine::{Gcra, Rejected, Standing},
    sync::{AtomicU64, Ordering},
};

/// A rate limit for everybody who shares it, in one word: no lock, no clock, no memory that grows. Share it by reference or
/// by `Arc`; every method takes the time, so that one reading of the clock serves all policies of a call.
///
/// However many take at once, no span of `t` sees more than `burst + t × quota / window` units taken.
pub struct Limiter {
    /// When the next unit is due.
    due: Line,
    /// The rule. On a line of its own, which is only read.
    apart: AtomicU64,
    tolerance: AtomicU64,
}

/// A word far enough from its neighbours, whose lines processors fetch in pairs.
#[repr(align(128))]
struct Line(AtomicU64);

/// Units that were taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    rule: Gcra,
    due: u64,
    now: Mono,
}

impl Limiter {
    /// A limiter nothing was taken from.
    ///
    /// # Errors
    /// [`ConfigError`]: the rate can't be.
    pub fn new(rate: Rate) -> Result<Self, ConfigError> {
        Ok(Self::of(Gcra::new(rate)?))
    }

    pub(super) fn of(rule: Gcra) -> Self {
        Self {
            due: Line(AtomicU64::new(0)),
            apart: AtomicU64::new(rule.apart),
            tolerance: AtomicU64::new(rule.tolerance),
        }
    }

    /// Takes `cost` units at `now`: all of them or none. A call that costs nothing passes.
    ///
    /// # Errors
    /// [`Rejected`], with the time until they could be had.
    #[inline]
    pub fn take(&self, now: Mono, cost: u32) -> Result<Taken, Rejected> {
        let rule = self.rule();
        let mut due = self.due.0.load(Ordering::Relaxed);
        loop {
            let after = match rule.take(due, now, cost) {
                Ok(after) => after,
                Err(wait) => return Err(rule.refusal(due, now, wait)),
            };
            // Ordering: the word is all there is, nothing else is read by its leave.
            match self.due.0.compare_exchange_weak(due, after, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Ok(Taken { rule, due: after, now }),
                Err(moved) => due = moved,
            }
        }
    }

    /// What is left.
    pub fn standing(&self, now: Mono) -> Standing {
        self.rule().standing(self.due.0.load(Ordering::Relaxed), now)
    }

    /// Forgets what was taken: the bucket is full.
    pub fn reset(&self) {
        self.due.0.store(0, Ordering::Relaxed);
    }

    /// Lets another rate hold. As large a part of a burst stays taken as was; calls under way in this very moment may be
    /// judged by a mixture of both.
    ///
    /// # Errors
    /// [`ConfigError`]: the rate can't be, and the old one stays.
    pub fn configure(&self, rate: Rate, now: Mono) -> Result<(), ConfigError> {
        let (before, rule) = (self.rule(), Gcra::new(rate)?);
        if rule != before {
            self.apart.store(rule.apart, Ordering::Relaxed);
            self.tolerance.store(rule.tolerance, Ordering::Relaxed);
            let mut due = self.due.0.load(Ordering::Relaxed);
            while let Err(moved) = self.due.0.compare_exchange_weak(
                due,
                rule.carry(before, due, now),
                Ordering::Relaxed,
                Ordering::Relaxed,
            ) {
                due = moved;
            }
        }
        Ok(())
    }

    fn rule(&self) -> Gcra {
        Gcra { apart: self.apart.load(Ordering::Relaxed), tolerance: self.tolerance.load(Ordering::Relaxed) }
    }
}

impl Taken {
    pub(super) const fn of(rule: Gcra, due: u64, now: Mono) -> Self {
        Self { rule, due, now }
    }

    /// What was left after these were taken.
    pub fn standing(&self) -> Standing {
        self.rule.standing(self.due, self.now)
    }
}

impl fmt::Debug for Limiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limiter").field("rule", &self.rule()).finish_non_exhaustive()
    }
}
