//! Timeout: a moment after which nobody waits any more, for the whole call and for each attempt, and the work stops then.
//!
//! A call without an end holds whatever it holds for as long as somebody else likes: a connection, a permit, a user. A time
//! limit gives it back. But a limit only helps if the *work* ends with it, up to the last byte of the answer; and if the next
//! hop knows of it, so that it doesn't work for somebody who has left.
//!
//! *When not to use it*: as a substitute for cancelling (a user who leaves shouldn't cost the rest of the time); shorter than
//! what good calls need (then it makes the outage it should soften); on work that can't be stopped: what `work` has spawned
//! or handed to a thread goes on, and only what it holds itself is dropped.
//!
//! # What holds
//! * **Never early, at most [`Timers::GRAIN`] late**, on the monotonic clock: a wall clock that jumps changes nothing.
//! * **Expiry drops the work.** The answer's body is part of it: a [`TimedBody`] ends with an error, never as if it were
//!   whole, and what sends it is dropped in the same moment. Silence has a limit of its own, for answers without an end.
//! * **Attempts fit into the call**: [`Config::attempt`] never ends after what [`Config::total`] gave, nor that after what the
//!   caller's [`Deadline`](crate::deadline::Deadline) left.
//! * **What is hopeless isn't begun.** If less is left than half of the calls need, the call is refused as
//!   [`Hopeless`], an outcome of its own which counts against nobody. If nothing was measured lately, nothing is refused.
//! * **An alarm that doesn't ring costs no allocation**, and the calls of two threads don't wait for each other.
//!
//! # Example
//! ```
//! use quorate_foundations::time::Mono;
//! use quorate_resilience::{deadline::Deadline, timeout::Config};
//! use std::time::Duration;
//!
//! let (now, config) = (Mono::ZERO, Config::default());
//! let total = config.total(now, Deadline::after(now, Duration::from_secs(2)));
//! assert_eq!(total.remaining(now), Duration::from_secs(2), "the caller has less than we would take");
//! let later = now + Duration::from_millis(1_900);
//! assert_eq!(config.attempt(later, total), total, "an attempt has no more than what is left");
//! let refused = config.admit(later, total, Some(Duration::from_millis(250))).unwrap_err();
//! assert_eq!(refused.remaining, Duration::from_millis(100));
//! ```
//!
//! Sources: Nygard, *Release It!* (2nd ed., 2018), "Timeouts"; gRPC, "Deadlines"; Varghese and Lauck (1987) for the
//! wheel; issues of resilience4j and failsafe-go about timeouts that don't stop the work.

mod body;
mod driven;
pub mod machine;
mod planned;
mod timers;
mod wheel;
use crate::sync;

pub use body::{BodyError, TimedBody};
pub use machine::{Config, ConfigError, Hopeless};
pub use timers::{Alarm, Timers};

use crate::outcome::Scope;

/// Time ran out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the time of the {} ran out", match self.scope { Scope::Attempt => "attempt", Scope::Total => "call" })]
pub struct Expired {
    /// Which time.
    pub scope: Scope,
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod under_loom;
