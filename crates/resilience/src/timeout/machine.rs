//! Which times a call has, and whether it is worth beginning: the rules of timeouts, without clock or calls.

use std::time::Duration;

use quorate_foundations::time::Mono;

use crate::deadline::Deadline;

/// How long things may take. `None` is without a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// The whole call: all attempts, the waits between them, and the answer's last byte.
    pub total: Option<Duration>,
    /// One attempt, from sending to the answer's last byte.
    pub attempt: Option<Duration>,
    /// The silence between two pieces of an answer's body. The only limit of an answer that has no end.
    pub idle: Option<Duration>,
    /// Whether calls are refused whose deadline leaves less than half of the calls need.
    pub refuse_hopeless: bool,
}

/// Why times can't be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A time that must not be zero.
    #[error("`{0}` must be longer than zero; leave it out for no limit")]
    Zero(&'static str),
    /// An attempt that would be cut off by the whole call's time, so that there is never a second.
    #[error("`attempt` is {attempt:?}, not less than `total`, {total:?}: it would never run out")]
    Attempt {
        /// `attempt`.
        attempt: Duration,
        /// `total`.
        total: Duration,
    },
}

/// Why a call wasn't begun: half of the calls take longer than what was left for this one. The upstream never saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{remaining:?} are left, and half of the calls need {needs:?}")]
pub struct Hopeless {
    /// What was left.
    pub remaining: Duration,
    /// What half of the calls need at least.
    pub needs: Duration,
}

impl Default for Config {
    /// 10 s in all, 3 s for an attempt, 5 s of silence.
    fn default() -> Self {
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        Self { total: seconds(10), attempt: seconds(3), idle: seconds(5), refuse_hopeless: true }
    }
}

impl Config {
    /// Whether this can be.
    ///
    /// # Errors
    /// [`ConfigError`], which names the field.
    pub fn check(&self) -> Result<(), ConfigError> {
        let fields = [("total", self.total), ("attempt", self.attempt), ("idle", self.idle)];
        if let Some((field, _)) = fields.into_iter().find(|(_, span)| *span == Some(Duration::ZERO)) {
            return Err(ConfigError::Zero(field));
        }
        match (self.attempt, self.total) {
            (Some(attempt), Some(total)) if attempt >= total => Err(ConfigError::Attempt { attempt, total }),
            _ => Ok(()),
        }
    }

    /// The deadline of a call that begins at `now`, if whoever called us has set `inherited`.
    #[inline]
    pub fn total(&self, now: Mono, inherited: Deadline) -> Deadline {
        after(now, self.total).earliest(inherited)
    }

    /// The deadline of an attempt that begins at `now`, within a call's.
    #[inline]
    pub fn attempt(&self, now: Mono, total: Deadline) -> Deadline {
        after(now, self.attempt).earliest(total)
    }

    /// Whether a call is worth beginning at `now`, where half of the calls need `median` at least, if that is known.
    ///
    /// # Errors
    /// [`Hopeless`]: it would probably be cut off, and the work be lost.
    #[inline]
    pub fn admit(&self, now: Mono, deadline: Deadline, median: Option<Duration>) -> Result<(), Hopeless> {
        match median {
            Some(needs) if self.refuse_hopeless && !deadline.allows(now, needs) => {
                Err(Hopeless { remaining: deadline.remaining(now), needs })
            }
            _ if deadline.has_passed(now) => Err(Hopeless { remaining: Duration::ZERO, needs: Duration::ZERO }),
            _ => Ok(()),
        }
    }
}

#[inline]
fn after(now: Mono, span: Option<Duration>) -> Deadline {
    span.map_or(Deadline::NEVER, |span| Deadline::after(now, span))
}
