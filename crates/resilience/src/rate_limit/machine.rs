//! What may be taken when: the generic cell rate algorithm, without clock or memory.
//!
//! Picture units that arrive one by one, a fixed time apart, on a conveyor. Whoever takes one moves the *theoretical arrival
//! time* of the next by that distance. It may run ahead of the clock by the time that a burst takes to arrive, and no
//! further; while nobody takes, the clock catches up. So the whole state is one moment, a moment in the past is a full
//! bucket, and there is no window at whose border twice the rate could pass.
//!
//! Source: ITU-T Recommendation I.371 (2004), Annex A, "virtual scheduling algorithm".

use std::{num::NonZeroU32, time::Duration};

use quorate_foundations::time::Mono;

use super::config::{ConfigError, Rate};
use crate::dice::Dice;

/// The rule of one rate. The state it works on, when the next unit is due, belongs to whoever calls it: zero at first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gcra {
    /// Nanoseconds from one unit to the next.
    pub(super) apart: u64,
    /// How far ahead of the clock the next unit may be due, in nanoseconds.
    pub(super) tolerance: u64,
}

/// What a limiter has left at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Units that a full bucket has.
    pub burst: u32,
    /// Units that could be taken now.
    pub remaining: u32,
    /// How long until the bucket is full again, if nothing more is taken.
    pub reset: Duration,
}

/// Why units were not given. Nothing was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", match self.wait { Some(_) => "the rate is exceeded", None => "a call costs more than the limit ever allows" })]
pub struct Rejected {
    /// How long until as many units are there, if nobody else takes any. `None`: never, for it is more than a burst.
    pub wait: Option<Duration>,
    /// What is left.
    pub standing: Standing,
    /// How far apart those should come back who are refused together.
    pub(crate) spread: Duration,
}

impl Gcra {
    /// The rule of `rate`.
    ///
    /// # Errors
    /// [`ConfigError`]: the rate can't be.
    pub fn new(rate: Rate) -> Result<Self, ConfigError> {
        rate.check()?;
        let apart = rate.window.as_nanos().div_ceil(u128::from(rate.quota.get()));
        let tolerance = apart * u128::from(rate.burst.get());
        let nanos = |wide: u128| u64::try_from(wide).unwrap_or(u64::MAX);
        Ok(Self { apart: nanos(apart), tolerance: nanos(tolerance) })
    }

    /// When the next unit is due after `cost` units were taken at `now`, if they may be.
    ///
    /// # Errors
    /// The nanoseconds until they may be; `u64::MAX` if they never may.
    #[inline]
    pub fn take(self, due: u64, now: Mono, cost: u32) -> Result<u64, u64> {
        // `cost` times `apart` may be beyond a year, never beyond what 64 bits hold; a clock does not come near it.
        let price = self.apart.saturating_mul(u64::from(cost));
        let after = due.max(now.as_nanos()).saturating_add(price);
        let ahead = after - now.as_nanos();
        if ahead <= self.tolerance {
            return Ok(after);
        }
        Err(if price > self.tolerance { u64::MAX } else { ahead - self.tolerance })
    }

    /// Takes as many units as there are, `least` to `most` of them. How many, and when the next one is due then.
    ///
    /// # Errors
    /// There are fewer than `least`.
    pub fn lease(
        self,
        due: u64,
        now: Mono,
        least: NonZeroU32,
        most: NonZeroU32,
    ) -> Result<(NonZeroU32, u64), Rejected> {
        let there = self.standing(due, now).remaining.min(most.get());
        let units = NonZeroU32::new(there).filter(|there| *there >= least).unwrap_or(least);
        match self.take(due, now, units.get()) {
            Ok(after) => Ok((units, after)),
            Err(wait) => Err(self.refusal(due, now, wait)),
        }
    }

    /// The latest moment at which the next unit can be due at `now`: that of an empty bucket.
    pub const fn latest(self, now: Mono) -> u64 {
        now.as_nanos().saturating_add(self.tolerance)
    }

    /// What is left at `now`, when the next unit is due at `due`.
    pub fn standing(self, due: u64, now: Mono) -> Standing {
        let ahead = due.saturating_sub(now.as_nanos());
        let units = |nanos: u64| u32::try_from(nanos / self.apart).unwrap_or(u32::MAX);
        Standing {
            burst: units(self.tolerance),
            remaining: units(self.tolerance.saturating_sub(ahead)),
            reset: Duration::from_nanos(ahead),
        }
    }

    /// A refusal at `now`, `wait` nanoseconds too early.
    #[cold]
    pub(super) fn refusal(self, due: u64, now: Mono, wait: u64) -> Rejected {
        Rejected {
            wait: (wait != u64::MAX).then(|| Duration::from_nanos(wait)),
            standing: self.standing(due, now),
            spread: Duration::from_nanos(self.tolerance / 2).max(SPREAD),
        }
    }

    /// Where the next unit is due under this rule, so that as large a part of a burst is left as was under `before`.
    pub(super) fn carry(self, before: Self, due: u64, now: Mono) -> u64 {
        let ahead = u128::from(due.saturating_sub(now.as_nanos()).min(before.tolerance));
        let scaled = ahead * u128::from(self.tolerance) / u128::from(before.tolerance.max(1));
        now.as_nanos().saturating_add(u64::try_from(scaled).unwrap_or(u64::MAX))
    }
}

impl Rejected {
    /// The same refusal when so much time has passed and nothing was taken.
    pub(super) fn later(self, passed: Duration) -> Self {
        let Standing { burst, remaining, reset } = self.standing;
        let standing = Standing { burst, remaining, reset: reset.saturating_sub(passed) };
        Self { wait: self.wait.map(|wait| wait.saturating_sub(passed)), standing, ..self }
    }

    /// What to tell the caller in `Retry-After`: whole seconds, at least the wait, spread so that those who are refused
    /// together don't come back in the same second. `None` if no wait helps.
    pub fn retry_after(&self, dice: &mut Dice) -> Option<Duration> {
        let wait = self.wait?;
        let spread = dice.between(wait, wait.saturating_add(self.spread));
        let whole = spread.as_secs() + u64::from(spread.subsec_nanos() > 0);
        Some(Duration::from_secs(whole.max(1)))
    }
}

/// Those who are refused together come back at least so far apart, the last from the first.
const SPREAD: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;
