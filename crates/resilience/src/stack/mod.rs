//! The stack: every policy that a call passes, in the one order that works.
//!
//! Policies that are right alone can be wrong together. A timeout outside of a retry ends the retries, one inside ends an
//! attempt; a breaker that counts the refusals of the one below it opens for ever; a bulkhead taken anew with each attempt
//! lets a storm of retries through. So the order isn't a choice:
//!
//! ```text
//! caller ─▶ rate limit ─▶ total deadline ─▶ breaker of the dependency ─▶ bulkhead ─▶ retry or hedge, with one budget
//!                                                                                │ each attempt
//!                                                       breaker of the endpoint ◀┘ ─▶ timeout of the attempt ─▶ service
//! ```
//!
//! Lesser answers in place of failures ([`Instead`]) stand around all of it but the caller, so that no circuit is deceived.
//! A rate limit by key, or one that several processes share, is a layer around it as well: [`LimitBy`].
//! Each policy may be absent, so a stack of one is that policy as a layer. What belongs between the two halves (a
//! balancer, say) goes between two stacks, one of each half.
//!
//! *When not to use it*: around calls that can't fail by themselves; twice around the same call, unless the outer one does not
//! retry.
//!
//! # What holds
//! * **A call that is dropped leaves nothing behind**: permits, probes and places are given back, and no policy counts it.
//! * **A call ends by its deadline**, whatever is below: work is dropped, waits are not begun that would not end before. An answer
//!   is a part of its attempt and of its call up to its last byte: what is not complete in time is dropped, whether anybody
//!   reads it or not, and an answer that breaks off is a failure, whatever its head said.
//! * **Each policy judges only what it is about**: what became of a call is an [`Outcome`], and the table there
//!   says what it is to whom.
//! * **One hop retries**: the first that can says so on every attempt, and those behind it make one attempt each. See
//!   [`hop`](crate::hop).
//! * **A call that succeeds at once allocates nothing**, waits for no lock and reads the clock twice.
//!
//! # Example
//! ```
//! use quorate_resilience::{
//!     circuit_breaker, retry,
//!     stack::{Plain, Stack},
//!     timeout::Timers,
//! };
//! use quorate_runtime::Env;
//! use std::{convert::Infallible, time::Duration};
//! use tower_layer::Layer as _;
//! use tower_service::Service as _;
//!
//! # #[derive(Clone)]
//! # struct Ledger;
//! # impl tower_service::Service<u64> for Ledger {
//! #     type Response = u64;
//! #     type Error = Infallible;
//! #     type Future = std::future::Ready<Result<u64, Infallible>>;
//! #     fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Infallible>> { Ok(()).into() }
//! #     fn call(&mut self, account: u64) -> Self::Future { std::future::ready(Ok(account * 2)) }
//! # }
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let env = Env::real();
//! let stack = Stack::builder("ledger".parse()?)
//!     .total(Duration::from_secs(2))
//!     .breaker(circuit_breaker::Config::default())
//!     .retry(retry::Config::default(), retry::BudgetConfig::default())
//!     .attempt(Duration::from_millis(500))
//!     .build(&Timers::new(&env), Plain::idempotent())?;
//! let mut balances = stack.layer(Ledger);
//! assert_eq!(balances.call(21).await?, 42);
//! # Ok(())
//! # }
//! ```
//!
//! Sources: the standard pipeline of Microsoft.Extensions.Http.Resilience; linkerd2-proxy, which retries above the balancer and has
//! a breaker for each endpoint below it.

mod attempt;
mod builder;
mod course;
mod instead;
mod limited;
mod live;
mod permits;
mod policies;
mod protocol;
mod registry;
mod replaced;
mod service;
use crate::sync;

use std::time::Duration;

use quorate_foundations::time::Mono;

use self::permits::Permits;
use crate::{
    deadline::Deadline,
    outcome::{Outcome, Scope},
    timeout::Timers,
};

pub use builder::{Builder, ConfigError, Stack};
pub use instead::{Asking, AtOnce, CountsFallbacks, Instead, Keeps, OrInstead, Part, Replaces, Whole, WithInstead};
pub use limited::{IfAllowed, LimitBy, Limited};
pub(crate) use live::Current;
pub use live::{Live, Living};
pub(crate) use policies::Memory;
pub use protocol::{Answers, Intent, Plain, Requests, Try};
pub use registry::{BuildError, Stacks, Standing};
pub use service::{Call, Guarded};

/// A layer of policies that sets alarms: a [`Stack`], or one that is [`Live`].
pub trait Timed {
    /// What its alarms are set with.
    fn timers(&self) -> Timers;
}

/// What is left of a call once its answer has begun.
///
/// An answer that is there as a whole [completes](Self::complete) the call. One that is still to come [keeps](Self::keep) it: then
/// nobody is told yet what became of it, and its place in the bulkhead and the circuits' probes are held until it ends.
pub struct Rest<'a> {
    /// When the answer has to be complete: the attempt's time, or the whole call's.
    pub deadline: Deadline,
    /// Which of the two that is.
    pub scope: Scope,
    permits: &'a mut Permits,
    now: Mono,
    outcome: Outcome,
}

/// A call whose answer is still to come. Dropping it is leaving: everything is given back, and no circuit counts it.
pub struct Ongoing {
    permits: Permits,
    outcome: Outcome,
}

impl Rest<'_> {
    /// How long nothing of it may come.
    pub fn idle(&self) -> Option<Duration> {
        self.permits.policies.timeout.idle
    }

    /// What alarms are set with.
    pub fn timers(&self) -> &Timers {
        &self.permits.policies.timers
    }

    /// The answer is still to come: the call, to be ended when it has.
    pub fn keep(self) -> Ongoing {
        Ongoing { permits: self.permits.taken(), outcome: self.outcome }
    }

    /// The answer is complete: gives the place back, and tells how it went.
    #[inline]
    pub fn complete(self) {
        // Dropping it does.
    }

    /// What became of the call, as far as the answer's head says.
    pub fn outcome(&self) -> Outcome {
        self.outcome
    }
}

impl Drop for Rest<'_> {
    /// Unless it is kept, the answer is as complete as it will be.
    #[inline]
    fn drop(&mut self) {
        self.permits.end(self.now, self.outcome, None);
    }
}

impl Ongoing {
    /// The answer came as a whole, and is what its head said.
    pub fn complete(self) {
        let outcome = self.outcome;
        self.end(outcome, None);
    }

    /// The answer ended with `outcome`, such as a fault, or what follows it in trailers. `retry_after` is when the upstream asked to
    /// be called again.
    pub fn end(mut self, outcome: Outcome, retry_after: Option<Duration>) {
        let now = self.permits.policies.now();
        self.permits.end(now, outcome, retry_after);
    }

    /// Time ran out. `waited`: whether it was the upstream that was waited for, rather than whoever reads the answer, of whom the
    /// circuits hear nothing.
    pub fn expire(mut self, scope: Scope, waited: bool) {
        if waited {
            let now = self.permits.policies.now();
            self.permits.expire(now, scope);
        } else {
            self.permits.abandon(Outcome::Timeout(scope));
        }
    }
}

impl std::fmt::Debug for Ongoing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ongoing").field("outcome", &self.outcome).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod under_loom;
