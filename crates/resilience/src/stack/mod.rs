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
//! * **A call ends by its deadline**, whatever is below: work is dropped, waits are not begun that would not end before.
//! * **Each policy judges only what it is about**: what became of a call is an [`Outcome`], and the table there
//!   says what it is to whom.
//! * **One hop retries**: the first that can says so on every attempt, and those behind it make one attempt each. See
//!   [`hop`](crate::hop).
//! * **A call that succeeds at once allocates nothing**, takes no lock and reads the clock twice.
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
mod service;

use std::{sync::Arc, time::Duration};

use quorate_foundations::time::Mono;

use self::policies::Policies;
use crate::{
    bulkhead::{self, Bulkhead},
    deadline::Deadline,
    outcome::Outcome,
    timeout::Timers,
};

pub use builder::{Builder, ConfigError, Stack};
pub use instead::{Instead, OrInstead, WithInstead};
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
pub struct Rest<'a> {
    /// When the answer has to be complete.
    pub deadline: Deadline,
    policies: &'a Policies,
    place: Option<bulkhead::Taken>,
    now: Mono,
    outcome: Outcome,
}

/// A place in a bulkhead.
pub type Place = bulkhead::Permit<Arc<Bulkhead>>;

impl Rest<'_> {
    /// How long nothing of it may come.
    pub fn idle(&self) -> Option<Duration> {
        self.policies.timeout.idle
    }

    /// What alarms are set with.
    pub fn timers(&self) -> &Timers {
        &self.policies.timers
    }

    /// The answer is still to come: its place in the bulkhead, to be held until it is complete.
    pub fn place(&mut self) -> Option<Place> {
        let bulkhead = self.policies.bulkhead.as_ref()?;
        self.place.take().map(|taken| taken.kept(bulkhead.clone()))
    }

    /// The answer is complete: gives the place back, and tells how it went.
    #[inline]
    pub fn complete(mut self) {
        if let (Some(bulkhead), Some(mut place)) = (&self.policies.bulkhead, self.place.take()) {
            bulkhead.settle(&mut place, self.now, self.outcome);
        }
    }

    /// What became of the call.
    pub fn outcome(&self) -> Outcome {
        self.outcome
    }
}

impl Drop for Rest<'_> {
    /// Nobody wanted the place: the answer is as complete as it will be.
    #[inline]
    fn drop(&mut self) {
        if let (Some(bulkhead), Some(mut place)) = (&self.policies.bulkhead, self.place.take()) {
            bulkhead.give_back(&mut place);
        }
    }
}

#[cfg(test)]
mod tests;
