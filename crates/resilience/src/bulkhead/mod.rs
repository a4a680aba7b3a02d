//! Bulkhead: so many calls at once, so that one slow upstream doesn't hold everything its callers have.
//!
//! Picture the walls inside a ship's hull: water that comes in somewhere stays there. An upstream that has become slow collects
//! callers, each of which holds memory, a connection and somebody's patience. A bulkhead says how many those may be, and
//! tells the rest at once, while they can still do something else.
//!
//! *When not to use it*: to bound how *often* something is called (that is the [rate limit](crate::rate_limit)); as a queue for
//! work that may take its time; with health checks in the same bulkhead as the traffic that makes them fail.
//!
//! # What holds
//! * **Never more calls under way than the limit**, of each priority than its share, of a tenant than its; also while the limit
//!   falls, nobody enters until enough have left.
//! * **A place is given back whatever becomes of the call**: when its permit is dropped. It is taken when a call is made, not
//!   when a service says it is ready, so that idle connections hold none.
//! * **Whoever matters less is refused first, and of those who came last**: a call that matters more takes the place of one in
//!   the queue that has waited for nothing yet.
//! * **Nobody is served whose deadline has passed**: it is sent away when it comes, while it waits, and when its turn comes.
//! * **Nobody overtakes** one who waits, matters as much, and could enter.
//! * **An adaptive limit doesn't drift**: a longer usual time is only believed while no more calls are under way than when the
//!   shorter one was learnt. It never presses the limit down to measure.
//!
//! # Example
//! ```
//! use quorate_foundations::time::Mono;
//! use quorate_resilience::{Class, Outcome, bulkhead::{Ask, Bulkhead, Config, Limit, Why}};
//!
//! let config = Config { limit: Limit::Fixed(std::num::NonZeroU32::new(2).unwrap()), ..Config::default() };
//! let (bulkhead, now, ask) = (Bulkhead::new(config, Mono::ZERO)?, Mono::ZERO, Ask::default());
//! let first = Bulkhead::try_enter(&bulkhead, now, &ask).unwrap();
//! let _second = Bulkhead::try_enter(&bulkhead, now, &ask).unwrap();
//! assert_eq!(Bulkhead::try_enter(&bulkhead, now, &ask).unwrap_err().why, Why::Full);
//! first.settle(now, Outcome::Upstream(Class::Success));
//! assert!(Bulkhead::try_enter(&bulkhead, now, &ask).is_ok());
//! # Ok::<_, quorate_resilience::bulkhead::ConfigError>(())
//! ```
//!
//! # Where ours differs
//! From tower's concurrency limit: places are taken by calls, not by readiness. From Envoy's adaptive concurrency: nothing is
//! measured by turning traffic away. From Netflix's gradient: the usual time doesn't follow every window.
//!
//! Sources: Nygard, *Release It!* (2nd ed., 2018), "Bulkheads"; Netflix, concurrency-limits; failsafe-go's priority limiters;
//! issues of Envoy, resilience4j and vector about limits that pin, drift, or are held by idle connections.

pub mod adaptive;
mod config;
mod entering;
mod front;
pub mod machine;
use crate::{stripes, sync};

pub use config::{Adaptive, Ask, Config, ConfigError, Limit, Priority, Queue, Shares};
pub use entering::Entering;
pub(crate) use front::Taken;
pub use front::{Bulkhead, Permit, Snapshot};
pub use machine::{Rejected, Why};

#[cfg(test)]
mod tests;
#[cfg(test)]
mod under_loom;
