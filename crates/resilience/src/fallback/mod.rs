//! Fallback: a lesser answer instead of none, that says that it is a lesser one.
//!
//! When recommendations can't be had, the best sellers do; when the rate of exchange can't be asked, the one from five minutes ago
//! is better than an empty page. What mustn't happen is that nobody notices: an upstream that is down for a week behind a
//! good fallback is still down.
//!
//! *When not to use it*: for answers that somebody acts on as if they were true (a balance, a permission: say that you don't
//! know); for writes; with an alternative that hangs from the same nail.
//!
//! # What holds
//! * **An outage is never hidden**: a fallback stands around the breaker, the retries and the timeouts, and looks at what has
//!   become of the call after they have counted it. What is served carries the [`Outcome`] that it stands for, and where it
//!   came from ([`Source`]), so that responses, metrics and traces say so.
//! * **Only failures are replaced.** Not a success, not the caller's own mistake, not a call that nobody waits for any more; of
//!   the rest, what [`When`] says.
//! * **A stale answer has an age**, on the clock of this process, and none is older than is allowed.
//! * **Memory is bounded**: in number and in weight; what was used longest ago goes first.
//! * **An alternative is somebody else**: one that names the dependency it stands in for is refused when it is declared.
//!
//! # Example
//! ```
//! use quorate_foundations::time::Mono;
//! use quorate_resilience::{
//!     Class, Outcome,
//!     fallback::{Keep, Source, Stale, When, first},
//! };
//! use std::time::Duration;
//!
//! let mut rates = Stale::new(Keep::default());
//! let now = Mono::ZERO;
//! rates.remember(now, "EUR/USD", 1.0842, 8);
//!
//! let later = now + Duration::from_secs(300);
//! let failed = Outcome::Upstream(Class::Fault);
//! assert!(When::default().replaces(failed));
//! let served = first(failed, [rates.stale(later, &"EUR/USD"), Some((1.0, Source::Static))]).unwrap();
//! assert_eq!(served.value, 1.0842);
//! assert_eq!(served.source, Source::Stale { age: Duration::from_secs(300) });
//! assert_eq!(served.instead_of, Some(failed));
//! ```
//!
//! Sources: Nygard, *Release It!* (2nd ed., 2018), "Fail Fast" and "Handshaking"; RFC 5861, `stale-if-error`; the pages of
//! Polly and Hystrix on fallbacks.

mod stale;

use std::time::Duration;

use quorate_foundations::name::Name;

pub use stale::{Keep, Stale};

use crate::outcome::{Class, Outcome};

/// Which failures a fallback stands in for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct When {
    /// The upstream's fault, and connections that broke.
    pub fault: bool,
    /// The upstream asks for fewer calls.
    pub throttled: bool,
    /// Time ran out.
    pub timeout: bool,
    /// A policy refused the call: the circuit is open, the bulkhead full, the rate exceeded, the deadline hopeless.
    pub rejected: bool,
}

impl Default for When {
    /// All of them.
    fn default() -> Self {
        Self { fault: true, throttled: true, timeout: true, rejected: true }
    }
}

impl When {
    /// Whether a fallback stands in for what became of a call.
    pub fn replaces(self, outcome: Outcome) -> bool {
        match outcome {
            Outcome::Upstream(Class::Success | Class::Refusal) | Outcome::Cancelled => false,
            Outcome::Upstream(Class::Fault | Class::Untrusted | Class::Stale) => self.fault,
            Outcome::Upstream(Class::Throttled) => self.throttled,
            Outcome::Timeout(_) => self.timeout,
            Outcome::Rejected(_) => self.rejected,
        }
    }
}

/// Where an answer came from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// From who was asked.
    Upstream,
    /// It is always the same.
    Static,
    /// From who was asked, some time ago.
    Stale {
        /// How long ago.
        age: Duration,
    },
    /// From somebody else.
    Alternate(Alternate),
}

/// Somebody else who answers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Alternate(Name);

/// Why somebody can't stand in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{}` can't stand in for itself: when it is down, so is its fallback", .0.as_str())]
pub struct SameDependency(Name);

impl Alternate {
    /// `who` stands in for `dependency`.
    ///
    /// # Errors
    /// [`SameDependency`]: they are the same.
    pub fn new(who: &Name, dependency: &Name) -> Result<Self, SameDependency> {
        if who == dependency { Err(SameDependency(who.clone())) } else { Ok(Self(who.clone())) }
    }

    /// Who it is.
    pub fn who(&self) -> &Name {
        &self.0
    }
}

/// An answer, and what it is worth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Served<T> {
    /// The answer.
    pub value: T,
    /// Where it came from.
    pub source: Source,
    /// What became of the call that it stands in for; `None` for an answer of the upstream.
    pub instead_of: Option<Outcome>,
}

impl<T> Served<T> {
    /// An answer of the upstream itself.
    pub const fn fresh(value: T) -> Self {
        Self { value, source: Source::Upstream, instead_of: None }
    }

    /// Whether this is less than what was asked for. Say so to whoever gets it.
    pub fn is_degraded(&self) -> bool {
        self.instead_of.is_some()
    }

    /// What to count for the call: what became of it, not how well it was replaced.
    pub fn outcome(&self) -> Outcome {
        self.instead_of.unwrap_or(Outcome::Upstream(Class::Success))
    }
}

impl Source {
    /// A word for it.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Upstream => "upstream",
            Self::Static => "static",
            Self::Stale { .. } => "stale",
            Self::Alternate(_) => "alternate",
        }
    }
}

/// The first of the answers that stand in for a call that ended with `outcome`, in the order of preference.
pub fn first<T>(outcome: Outcome, answers: impl IntoIterator<Item = Option<(T, Source)>>) -> Option<Served<T>> {
    let (value, source) = answers.into_iter().flatten().next()?;
    Some(Served { value, source, instead_of: Some(outcome) })
}

#[cfg(test)]
mod tests;
