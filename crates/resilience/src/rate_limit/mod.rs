//! Rate limit: so many in a time, and the next one is told when to come.
//!
//! Picture a turnstile that a spring turns back: it lets a few through at once, then one every so often. Whoever is early is
//! told how early. It bounds what one client can take from the others, what a tenant has paid for, and what we ask of
//! somebody who has told us their limit.
//!
//! *When not to use it*: to protect something from more work than it can do at once (a rate says nothing about how long calls
//! take: that is the [bulkhead](crate::bulkhead)); where a call that comes late is worth as much as one in time (a queue).
//!
//! # What holds
//! * **No span of any length sees more than a burst and what the rate allows in it**, however many take at once, and also at
//!   the borders of windows, for there are none.
//! * **All or nothing**: a call that costs ten takes ten units or none; what costs more than a burst is refused for good, and
//!   says so.
//! * **Keys are bounded.** [`Keyed`] remembers as many as it is told; the rest share one bucket, so that coming under many
//!   names buys nothing. An IPv6 customer is [one client](network).
//! * **Those who are refused together don't come back together**: [`Rejected::retry_after`] is spread.
//! * **A limit of one process is no limit of all.** One that holds for several is asked of the store, through a [`Quota`],
//!   and says beforehand what holds when that [can't be reached](OnUnavailable).
//! * **What was taken survives a new rate**, as the same part of a burst.
//!
//! # Example
//! ```
//! use quorate_foundations::time::Mono;
//! use quorate_resilience::rate_limit::{Limiter, Rate, headers};
//! use std::{num::NonZeroU32, time::Duration};
//!
//! let rate = Rate::new(NonZeroU32::new(100).unwrap(), Duration::from_secs(60));
//! let limiter = Limiter::new(rate)?;
//! let now = Mono::ZERO;
//! let taken = limiter.take(now, 95).unwrap();
//! assert_eq!(headers::standing("per-client", &taken.standing(), None), r#""per-client";r=5;t=57"#);
//! let refused = limiter.take(now, 10).unwrap_err();
//! assert_eq!(refused.wait, Some(Duration::from_secs(3)));
//! # Ok::<_, quorate_resilience::rate_limit::ConfigError>(())
//! ```
//!
//! # Where ours differs
//! From governor: the time is an argument, keys are bounded, calls have a cost, and a limit can be shared. From counters per
//! window: no border lets twice the rate pass. From limiters in a shared store: units are leased in portions, not asked for
//! one by one.
//!
//! Sources: ITU-T I.371, Annex A; draft-ietf-httpapi-ratelimit-headers-10; issues of APISIX, Traefik and others about borders
//! of windows, keys that can be forged, and stores that are down.

mod config;
mod front;
pub mod headers;
mod keyed;
pub mod machine;
mod quota;
mod shared;
use crate::sync;

pub use config::{ConfigError, Rate};
pub use front::{Limiter, Taken};
pub use keyed::{Keyed, network};
pub use machine::{Gcra, Rejected, Standing};
pub use quota::{OnUnavailable, Portion, Quota, SharedConfig, Unavailable};
pub use shared::{Allowed, Count, Shared, SharedRejected};

#[cfg(test)]
mod under_loom;
