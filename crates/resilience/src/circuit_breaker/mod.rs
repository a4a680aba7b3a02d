//! Circuit breaker: stop asking an upstream that can't answer, and find out cheaply when it can again.
//!
//! Picture the fuse of a house. When something behind it draws too much, it opens, and what would have burnt stays cold.
//! Unlike a fuse this one tries by itself: after a while it lets one call through, and closes if that went well.
//!
//! A caller whose calls fail slowly holds threads, connections and users while they do, and an upstream that is
//! struggling is kept down by everybody who keeps asking. An open circuit answers at once, says how long to stay away,
//! and lets the upstream rest.
//!
//! *When not to use it*: for a failure of one call among thousands (that is what [retries](crate::retry) are for); for one
//! breaker around a whole service with many replicas (one bad replica would open it for all: give each endpoint and
//! operation its own, through [`Registry`]); where refusing is worse than waiting.
//!
//! # What holds
//! * **Half open admits as many calls as it should, however many come at once**, since a probe is reserved when it is
//!   admitted. Dropping it, or an outcome that says nothing, gives its place to the next caller; one that never ends
//!   fails after [`Config::probe_timeout`]. There is no way to stay half open for ever.
//! * **Late results change nothing.** Each change of state begins a generation; a call that was admitted in an earlier one
//!   isn't counted.
//! * **Only the upstream's failures count.** Refusals by policies, calls that nobody waits for any more and the caller's own
//!   mistakes say nothing about it; [`Counts`] says the rest.
//! * **One failure opens nothing** unless [`Config::consecutive`] says so: rates need [`Config::minimum_calls`].
//! * **Throttling is not an outage**: 429 counts for the rate and not for failures in a row, but it doesn't close a
//!   half-open circuit either; `Retry-After` lengthens the time open, up to [`Open::max`].
//! * **One bad replica is not the whole service**: where it is asked for, [each](Each) endpoint and operation has a circuit of its
//!   own, as many as there may be and no more.
//! * **Counts survive reconfiguration.** A breaker is its identity; new settings change its rules, not its memory.
//!
//! # Example
//! ```
//! use quorate_foundations::time::Mono;
//! use quorate_resilience::{Class, Outcome, circuit_breaker::{Breaker, Config}, dice::Dice};
//! use std::time::Duration;
//!
//! let config = Config { consecutive: std::num::NonZeroU32::new(2), ..Config::default() };
//! let breaker = Breaker::new(config, Dice::seeded(7), Mono::ZERO)?;
//! let now = Mono::ZERO + Duration::from_millis(1);
//! for _ in 0..2 {
//!     breaker.permit(now).unwrap().settle(now, Outcome::Upstream(Class::Fault), None);
//! }
//! let refused = breaker.permit(now).err().unwrap();
//! assert!(refused.remaining >= Some(Duration::from_secs(1)));
//!
//! let later = now + Duration::from_secs(2);
//! let probe = breaker.permit(later).unwrap();
//! assert!(breaker.permit(later).is_err(), "one probe at a time");
//! probe.settle(later, Outcome::Upstream(Class::Success), None);
//! assert!(breaker.permit(later).is_ok());
//! # Ok::<_, quorate_resilience::circuit_breaker::ConfigError>(())
//! ```
//!
//! # Where ours differs
//! From resilience4j: half open has an end, and quick successes take no lock. From Envoy's outlier detection: rates and
//! numbers in a row are dimensions of one breaker. From linkerd2-proxy, whose semantics of 429 these are: windows of calls
//! and slow calls besides.
//!
//! Sources: Nygard, *Release It!* (2nd ed., 2018), "Circuit Breaker"; linkerd2-proxy's failure accrual; issues of
//! resilience4j, Polly, opossum and monix about circuits that stayed half open.

mod config;
mod each;
mod front;
pub mod machine;
mod registry;
use crate::{stripes, sync};

pub use config::{Config, ConfigError, Counts, Open, Weight, Window};
pub use each::{Asked, Each, Per, Split};
pub use front::{Breaker, Listener, Permit, Snapshot};
pub use machine::{Change, Mode, Rejected, State, Why};
pub use registry::{Full, NamedListener, Registry};

#[cfg(test)]
mod under_loom;
