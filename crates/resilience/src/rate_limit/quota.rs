//! Who counts for several processes, how it is asked, and what holds while it can't be.

use std::{
    num::{NonZeroU32, NonZeroUsize},
    sync::Arc,
    time::Duration,
};

use quorate_foundations::name::Name;
use quorate_runtime::BoxFuture;

use super::{Rejected, config::Rate, machine::Standing};

/// Who keeps the count of a limit that several processes share: a store, as a rule.
pub trait Quota: Send + Sync {
    /// Takes `least` to `most` units of `rate` from what `key` has, as many as there are, or none if there are fewer than
    /// `least`.
    ///
    /// # Errors
    /// [`Unavailable`]: whether units were taken is unknown. The limit stays true: they may be lost, never given twice.
    fn take<'a>(
        &'a self,
        key: &'a Name,
        rate: Rate,
        least: NonZeroU32,
        most: NonZeroU32,
    ) -> BoxFuture<'a, Result<Portion, Unavailable>>;

    /// Forgets what was taken from what `key` has.
    ///
    /// # Errors
    /// [`Unavailable`]: whether it was forgotten is unknown.
    fn forget<'a>(&'a self, key: &'a Name) -> BoxFuture<'a, Result<(), Unavailable>>;
}

/// What a [`Quota`] gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Portion {
    /// So many units, and what is left there.
    Given {
        /// At least what was asked for.
        units: NonZeroU32,
        /// What is left.
        left: Standing,
    },
    /// Too few are there.
    Refused(Rejected),
}

/// Whoever keeps the count can't be asked.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the shared count can't be reached")]
pub struct Unavailable(#[source] pub Arc<dyn std::error::Error + Send + Sync>);

/// What holds while whoever keeps the count can't be reached. There is no default: each choice hurts somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnUnavailable {
    /// Calls pass. What is behind the limit must bear them.
    Allow,
    /// Calls are refused. An outage of the store is one of the service.
    Deny,
    /// Each process keeps to this rate by itself. Together they allow as many times as much as there are processes.
    Local(Rate),
}

impl OnUnavailable {
    /// The word for it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
            Self::Local(_) => "local",
        }
    }
}

/// How a shared limit is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharedConfig {
    /// The rate for each key, over all processes.
    pub rate: Rate,
    /// Up to how many units are leased at once. What is leased counts as taken, also if it is never used: of a burst, as
    /// many processes as there are may hold so many each. One asks for every call.
    pub portion: NonZeroU32,
    /// How long leased units may be used; unused ones are forgotten then. So long at most a refusal is repeated without asking
    /// again, if the time that it names isn't over before.
    pub lease: Duration,
    /// How long an answer is waited for, and never longer than a quarter of what a call has left. When there was none, calls are decided
    /// without asking for a second; then one asks again.
    pub patience: Duration,
    /// What holds when there is none.
    pub on_unavailable: OnUnavailable,
    /// Of how many keys units and refusals are remembered, at most; the others ask for every call.
    pub most_keys: NonZeroUsize,
}

impl SharedConfig {
    /// As it suits most: an eighth of a burst is leased at once, for five seconds, and an answer waited for a quarter of one.
    pub fn of(rate: Rate, on_unavailable: OnUnavailable, most_keys: NonZeroUsize) -> Self {
        let portion = NonZeroU32::new(rate.burst.get() / 8).unwrap_or(NonZeroU32::MIN);
        let (lease, patience) = (Duration::from_secs(5), Duration::from_millis(250));
        Self { rate, portion, lease, patience, on_unavailable, most_keys }
    }
}
