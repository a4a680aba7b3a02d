//! Retry: send a call again when that can help, so seldom and so far apart that it cannot hurt.
//!
//! A failure that passes by itself, such as a replica that restarts, should not reach whoever asked. But a retry is also a
//! second call to something that just failed: when everybody sends three for one, an upstream that stumbled stays
//! down. So the number of retries is bounded for the dependency, not for the request, and waits are spread.
//!
//! *When not to use it*: for calls that would do something twice (give them an idempotency key first); at more than one hop
//! of a request (three hops of three attempts are twenty-seven); instead of a queue, where minutes don't matter.
//!
//! # What holds
//! * **A call that isn't repeatable is sent twice only if the upstream certainly did nothing** with the first.
//! * **Nothing is sent again once a part of the answer was given away**, after success, when nobody waits any more, or when a
//!   policy refused it.
//! * **The budget is charged when a retry is decided**: a thousand calls that fail together spend it before the first of
//!   them has waited, and what waits is counted.
//! * **No attempt begins that would not end before the deadline**, by the time attempts usually take.
//! * **One hop retries.** The others fail fast; only a connection that was found closed is replaced by whoever held it.
//! * `Retry-After` is a floor, never exactly the moment; beyond a cap the call ends instead.
//!
//! # Example
//! ```
//! use quorate_foundations::time::Mono;
//! use quorate_resilience::{
//!     Class, Outcome, Verdict,
//!     deadline::Deadline,
//!     dice::Dice,
//!     retry::{Attempts, Budget, BudgetConfig, Config, Decision, Ended, Repeatable, Stop},
//! };
//! use std::time::Duration;
//!
//! let (now, mut dice) = (Mono::ZERO, Dice::seeded(7));
//! let mut budget = Budget::new(BudgetConfig::default());
//! let failed = Ended {
//!     outcome: Outcome::Upstream(Class::Fault), verdict: Some(Verdict::FAULT), answer_begun: false,
//! };
//! let deadline = Deadline::after(now, Duration::from_secs(5));
//!
//! let mut read = Attempts::new(Config::default(), Repeatable::Idempotent, true, deadline);
//! let decision = read.ended(now, failed, Duration::from_millis(20), &mut budget, &mut dice);
//! assert!(matches!(decision, Decision::Again { .. }));
//!
//! let mut order = Attempts::new(Config::default(), Repeatable::No, true, deadline);
//! let decision = order.ended(now, failed, Duration::from_millis(20), &mut budget, &mut dice);
//! assert_eq!(decision, Decision::Stop(Stop::NotRepeatable));
//! ```
//!
//! Sources: Brooker, "Exponential Backoff And Jitter" (2015); the retry budgets of Finagle and linkerd2-proxy; the Kubernetes
//! Gateway API, `retryConstraint`; Envoy's issue 30205, for charging when deciding.

mod backoff;
mod budget;
mod front;
pub mod machine;
#[cfg(test)]
mod under_loom;

use crate::{stripes, sync};

pub use backoff::{Backoff, Jitter};
pub use budget::{Budget, BudgetConfig, Usage};
pub use front::{Counts, Retries};
pub use machine::{Attempts, Config, Decision, Ended, Repeatable, Stop};
