//! How much may be taken in which time.

use std::{num::NonZeroU32, time::Duration};

/// `quota` units in every `window`, and up to `burst` of them at once.
///
/// # Example
/// ```
/// use quorate_resilience::rate_limit::Rate;
/// use std::{num::NonZeroU32, time::Duration};
///
/// let hundred = NonZeroU32::new(100).unwrap();
/// let rate = Rate::new(hundred, Duration::from_secs(60)).with_burst(NonZeroU32::new(10).unwrap());
/// assert_eq!(rate.check(), Ok(()));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Units in each window, over time.
    pub quota: NonZeroU32,
    /// The window.
    pub window: Duration,
    /// Units that may be taken at once by whoever has taken nothing for long enough.
    pub burst: NonZeroU32,
}

/// Why a rate can't be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// Units that come so fast can't be told apart.
    #[error("`quota` is {quota} in {window:?}, more than one in {least:?}; give units a larger size", least = Rate::SHORTEST)]
    TooFast {
        /// The quota.
        quota: u32,
        /// The window.
        window: Duration,
    },
    /// A bucket that would take longer than a year to fill again.
    #[error("`burst` of {burst} would take {fills:?} to fill again; more than a year")]
    TooSlow {
        /// The burst.
        burst: u32,
        /// How long.
        fills: Duration,
    },
}

impl Rate {
    /// Units may not come faster than one in so long: their distance is kept in whole nanoseconds, rounded up, so that a
    /// rate is at most one part in a hundred lower than what was asked for.
    pub const SHORTEST: Duration = Duration::from_nanos(100);

    /// `quota` units in each `window`, all of them at once if need be.
    pub const fn new(quota: NonZeroU32, window: Duration) -> Self {
        Self { quota, window, burst: quota }
    }

    /// The same, with at most `burst` at once.
    #[must_use]
    pub const fn with_burst(self, burst: NonZeroU32) -> Self {
        Self { burst, ..self }
    }

    /// Whether this can be.
    ///
    /// # Errors
    /// [`ConfigError`], which names the field.
    pub fn check(&self) -> Result<(), ConfigError> {
        let (quota, burst) = (self.quota.get(), self.burst.get());
        if self.window / quota < Self::SHORTEST {
            return Err(ConfigError::TooFast { quota, window: self.window });
        }
        let fills = Duration::try_from_secs_f64(self.window.as_secs_f64() / f64::from(quota) * f64::from(burst));
        let fills = fills.unwrap_or(Duration::MAX);
        if fills > YEAR {
            return Err(ConfigError::TooSlow { burst, fills });
        }
        Ok(())
    }
}

const YEAR: Duration = Duration::from_secs(365 * 24 * 3_600);
