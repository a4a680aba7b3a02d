//! When a circuit opens, for how long, and what closes it.

use std::{num::NonZeroU32, time::Duration};

use crate::outcome::{Class, Outcome, Scope};

/// When a circuit opens, for how long, and what closes it.
///
/// [`Config::default`] opens at 7 failures in a row, or once half of at least 20 calls within 30 seconds failed, stays
/// open for 1 to 60 seconds, and lets one call try.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Opens after this many failures in a row; `None` never does.
    pub consecutive: Option<NonZeroU32>,
    /// Over which calls rates are taken.
    pub window: Window,
    /// Opens when at least this part of the window's calls failed, from above 0 to 1; `None` never does.
    pub failure_rate: Option<f64>,
    /// Opens when at least this part of the window's calls was slow; probes of which that part is slow do not close it
    /// then. `None` never does.
    pub slow_rate: Option<f64>,
    /// A call that took at least so long is slow.
    pub slow_after: Duration,
    /// Rates say nothing before the window has so many calls.
    pub minimum_calls: NonZeroU32,
    /// How long the circuit stays open.
    pub open: Open,
    /// How many calls may try while the circuit is half open, and how many must succeed for it to close.
    pub probes: NonZeroU32,
    /// A probe that has not ended by then has failed. In a stack one whose answer may take longer ends with the answer's head.
    pub probe_timeout: Duration,
    /// Which outcomes are failures.
    pub counts: Counts,
}

/// The calls that rates are taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Window {
    /// The last so many calls that succeeded or failed.
    Calls(NonZeroU32),
    /// The calls of the last so long, in tenths: what is older than the span is left out, and up to a tenth more.
    Time(Duration),
}

/// How long a circuit stays open: `min`, twice as long each time it opens again without having been closed for as long
/// as it was open, up to `max`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Open {
    /// The first time.
    pub min: Duration,
    /// At most. Also caps what a `Retry-After` asks for.
    pub max: Duration,
    /// Up to this part longer, at random, so that callers don't come back together: 0.2 makes 10 s up to 12 s.
    pub jitter: f64,
}

/// Which outcomes count as failures of the upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    /// [`Class::Throttled`]: for the rate, never for failures in a row.
    pub throttled: bool,
    /// [`Scope::Attempt`]. A [stack](crate::stack) says so as well of an attempt that was cut off by the whole call's time and had as
    /// long as half of the calls need, or, where that isn't known, half of the call and a tenth of the time that is set for an
    /// attempt, or else for the call.
    pub attempt_timeout: bool,
    /// [`Scope::Total`]: it may have run out in somebody else's retries, or in a queue. A probe's is always a failure.
    pub total_timeout: bool,
}

/// What an outcome is to the breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    /// A success.
    Success,
    /// A failure.
    Failure,
    /// A failure for the rate alone. As a probe it fails.
    Throttled,
    /// Says nothing about the upstream.
    Nothing,
}

/// Why a configuration can't be.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A rate outside of what rates are.
    #[error("`{field}` is {rate}; it must be above 0 and at most 1")]
    Rate {
        /// Which.
        field: &'static str,
        /// What it was.
        rate: f64,
    },
    /// The window is too short to have tenths.
    #[error("`window` is {0:?}; it must be at least 10 ms")]
    Window(Duration),
    /// A window of calls smaller than the number that rates need.
    #[error("`minimum_calls` is {minimum}, more than the {window} calls of `window`: rates would never say anything")]
    Unreachable {
        /// What rates need.
        minimum: u32,
        /// What the window has.
        window: u32,
    },
    /// The longest time open is shorter than the shortest.
    #[error("`open.max` is {max:?}, less than `open.min`, {min:?}")]
    Open {
        /// `open.min`.
        min: Duration,
        /// `open.max`.
        max: Duration,
    },
    /// A jitter that is no part.
    #[error("`open.jitter` is {0}; it must be from 0 to 1")]
    Jitter(f64),
    /// A time that must not be zero.
    #[error("`{0}` must be longer than zero")]
    Zero(&'static str),
    /// Neither a number in a row nor a rate.
    #[error("nothing opens this circuit: set `consecutive`, `failure_rate` or `slow_rate`")]
    Nothing,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            consecutive: NonZeroU32::new(7),
            window: Window::Time(Duration::from_secs(30)),
            failure_rate: Some(0.5),
            slow_rate: None,
            slow_after: Duration::from_secs(5),
            minimum_calls: const { NonZeroU32::new(20).unwrap() },
            open: Open { min: Duration::from_secs(1), max: Duration::from_secs(60), jitter: 0.2 },
            probes: NonZeroU32::MIN,
            probe_timeout: Duration::from_secs(10),
            counts: Counts { throttled: true, attempt_timeout: true, total_timeout: false },
        }
    }
}

impl Config {
    /// Whether this can be.
    ///
    /// # Errors
    /// [`ConfigError`], which names the field.
    pub fn check(&self) -> Result<(), ConfigError> {
        for (field, rate) in [("failure_rate", self.failure_rate), ("slow_rate", self.slow_rate)] {
            if let Some(rate) = rate.filter(|rate| !(*rate > 0.0 && *rate <= 1.0)) {
                return Err(ConfigError::Rate { field, rate });
            }
        }
        match self.window {
            Window::Time(span) if span < Duration::from_millis(10) => return Err(ConfigError::Window(span)),
            Window::Calls(window) if window < self.minimum_calls && self.takes_rates() => {
                let (minimum, window) = (self.minimum_calls.get(), window.get());
                return Err(ConfigError::Unreachable { minimum, window });
            }
            _ => {}
        }
        let Open { min, max, jitter } = self.open;
        if max < min {
            return Err(ConfigError::Open { min, max });
        }
        if !(0.0..=1.0).contains(&jitter) {
            return Err(ConfigError::Jitter(jitter));
        }
        let spans = [("open.min", min), ("probe_timeout", self.probe_timeout), ("slow_after", self.slow_after)];
        if let Some((field, _)) = spans.into_iter().find(|(_, span)| span.is_zero()) {
            return Err(ConfigError::Zero(field));
        }
        if self.consecutive.is_none() && !self.takes_rates() {
            return Err(ConfigError::Nothing);
        }
        Ok(())
    }

    fn takes_rates(&self) -> bool {
        self.failure_rate.is_some() || self.slow_rate.is_some()
    }
}

impl Counts {
    /// What `outcome` is to a breaker.
    pub fn weigh(self, outcome: Outcome) -> Weight {
        let failure_if = |counted| if counted { Weight::Failure } else { Weight::Nothing };
        match outcome {
            Outcome::Upstream(Class::Success) => Weight::Success,
            Outcome::Upstream(Class::Fault | Class::Untrusted) => Weight::Failure,
            Outcome::Upstream(Class::Throttled) if self.throttled => Weight::Throttled,
            Outcome::Upstream(Class::Throttled | Class::Refusal | Class::Stale) => Weight::Nothing,
            Outcome::Timeout(Scope::Attempt) => failure_if(self.attempt_timeout),
            Outcome::Timeout(Scope::Total) => failure_if(self.total_timeout),
            Outcome::Rejected(_) | Outcome::Cancelled => Weight::Nothing,
        }
    }
}
