//! How many calls at once, and who waits for how long.

use std::{num::NonZeroU32, time::Duration};

use quorate_foundations::name::Name;

use crate::deadline::Deadline;

/// How many calls at once, and who waits for how long. [`Config::default`]: 100 at once, nobody waits, all are alike.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// How many calls may be under way at once.
    pub limit: Limit,
    /// Who may wait.
    pub queue: Queue,
    /// What of the limit is kept for calls that matter more.
    pub shares: Shares,
    /// The part of the limit, and of the queue, that one tenant may use at most: from above 0 to 1. Calls without a tenant are
    /// bound by the limit alone. `None`: tenants are not told apart.
    pub tenant_share: Option<f64>,
}

/// How many calls may be under way at once.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Limit {
    /// So many.
    Fixed(NonZeroU32),
    /// As many as the upstream takes without becoming slower.
    Adaptive(Adaptive),
}

/// Within which bounds a limit is found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Adaptive {
    /// Never fewer. Also so many calls are believed never to slow down the upstream.
    pub min: NonZeroU32,
    /// At first.
    pub initial: NonZeroU32,
    /// Never more.
    pub max: NonZeroU32,
    /// How often the limit is thought over, if enough calls have ended.
    pub window: Duration,
    /// How many times as long as usual calls may take before the limit falls: above 1.
    pub tolerance: f64,
}

/// Who may wait for a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queue {
    /// So many at most. Zero: whoever finds no place is refused at once.
    pub length: u32,
    /// For so long at most, and never past the deadline of the call.
    pub max_wait: Duration,
}

/// The part of the limit that each priority may fill: from above 0 to 1, and no lower for a higher one. Critical calls may fill
/// all of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shares {
    /// For [`Priority::Background`].
    pub background: f64,
    /// For [`Priority::Normal`].
    pub normal: f64,
}

/// How much a call matters. Under overload those that matter less are refused first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// Can be done later: prefetching, statistics.
    Background = 0,
    /// Somebody waits for it.
    #[default]
    Normal = 1,
    /// Everything else depends on it: health checks, logins.
    Critical = 2,
}

impl Priority {
    /// All of them, the least first.
    pub const ALL: [Self; 3] = [Self::Background, Self::Normal, Self::Critical];
}

/// What a bulkhead has to know of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// How much it matters.
    pub priority: Priority,
    /// Whose it is.
    pub tenant: Option<Name>,
    /// After which nobody waits for it.
    pub deadline: Deadline,
}

impl Default for Ask {
    /// Normal, nobody's, without a deadline.
    fn default() -> Self {
        Self { priority: Priority::default(), tenant: None, deadline: Deadline::NEVER }
    }
}

/// Why a configuration can't be.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A share outside of what shares are.
    #[error("`{field}` is {share}; it must be above 0 and at most 1")]
    Share {
        /// Which.
        field: &'static str,
        /// What it was.
        share: f64,
    },
    /// Calls that matter less may fill more.
    #[error("`shares.background` is {background}, more than `shares.normal`, {normal}")]
    Upside {
        /// `shares.background`.
        background: f64,
        /// `shares.normal`.
        normal: f64,
    },
    /// A limit that starts outside of its bounds.
    #[error("`limit` starts at {initial}, outside of {min} to {max}")]
    Initial {
        /// The lower bound.
        min: u32,
        /// The start.
        initial: u32,
        /// The upper bound.
        max: u32,
    },
    /// A tolerance that finds every call too slow.
    #[error("`limit.tolerance` is {0}; it must be above 1 and at most 10")]
    Tolerance(f64),
    /// A time that must not be zero.
    #[error("`{0}` must be longer than zero")]
    Zero(&'static str),
    /// A queue that nobody can wait in, or that has no end.
    #[error("`queue.length` is {length}, above {most}")]
    Queue {
        /// What it was.
        length: u32,
        /// What it may be.
        most: u32,
    },
}

impl Default for Config {
    fn default() -> Self {
        Self {
            limit: Limit::Fixed(const { NonZeroU32::new(100).unwrap() }),
            queue: Queue::NONE,
            shares: Shares { background: 1.0, normal: 1.0 },
            tenant_share: None,
        }
    }
}

impl Default for Adaptive {
    /// 4 to 1,000, from 20 on, ten times a second, half as long again as usual.
    fn default() -> Self {
        let min = const { NonZeroU32::new(4).unwrap() };
        let initial = const { NonZeroU32::new(20).unwrap() };
        let max = const { NonZeroU32::new(1_000).unwrap() };
        Self { min, initial, max, window: Duration::from_millis(100), tolerance: 1.5 }
    }
}

impl Queue {
    /// Nobody waits.
    pub const NONE: Self = Self { length: 0, max_wait: Duration::from_millis(1) };
    /// The longest.
    pub const MOST: u32 = 100_000;
}

impl Config {
    /// Whether this can be.
    ///
    /// # Errors
    /// [`ConfigError`], which names the field.
    pub fn check(&self) -> Result<(), ConfigError> {
        let Shares { background, normal } = self.shares;
        let shares = [
            ("shares.background", Some(background)),
            ("shares.normal", Some(normal)),
            ("tenant_share", self.tenant_share),
        ];
        for (field, share) in shares {
            if let Some(share) = share.filter(|share| !(*share > 0.0 && *share <= 1.0)) {
                return Err(ConfigError::Share { field, share });
            }
        }
        if background > normal {
            return Err(ConfigError::Upside { background, normal });
        }
        if self.queue.length > Queue::MOST {
            return Err(ConfigError::Queue { length: self.queue.length, most: Queue::MOST });
        }
        if self.queue.max_wait.is_zero() {
            return Err(ConfigError::Zero("queue.max_wait"));
        }
        match self.limit {
            Limit::Fixed(_) => Ok(()),
            Limit::Adaptive(adaptive) => adaptive.check(),
        }
    }
}

impl Adaptive {
    fn check(&self) -> Result<(), ConfigError> {
        let (min, initial, max) = (self.min.get(), self.initial.get(), self.max.get());
        if !(min..=max).contains(&initial) {
            return Err(ConfigError::Initial { min, initial, max });
        }
        if !(self.tolerance > 1.0 && self.tolerance <= 10.0) {
            return Err(ConfigError::Tolerance(self.tolerance));
        }
        if self.window.is_zero() {
            return Err(ConfigError::Zero("limit.window"));
        }
        Ok(())
    }
}
