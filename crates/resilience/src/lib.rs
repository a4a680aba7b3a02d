//! Calls that fail well: one policy for everything that is asked of somebody else.
//!
//! Whoever calls another service depends on it being quick, being up, and not being asked too much. Each room here is
//! one answer to one of those going wrong. All of them are rules: told the time and what happened, they say what to do, and
//! the caller reads the clock once for all of them, waits and sends. [`outcome`] is the vocabulary they share.

pub mod bulkhead;
pub mod circuit_breaker;
#[cfg(feature = "client")]
pub mod client;
pub mod deadline;
pub mod dice;
pub mod fallback;
pub mod hedge;
pub mod hop;
pub mod http;
pub mod kit;
pub mod latency;
pub mod outcome;
pub mod policy;
pub mod rate_limit;
#[cfg(feature = "reqwest")]
pub mod reqwest;
pub mod retry;
pub mod stack;
mod stripes;
mod sync;
pub mod timeout;
#[cfg(feature = "tonic")]
pub mod tonic;

#[cfg(test)]
mod latency_tests;
#[cfg(test)]
mod latency_under_loom;
#[cfg(test)]
mod stripes_tests;
#[cfg(test)]
mod stripes_under_loom;

pub use outcome::{CallError, Class, Outcome, Refuser, Rejection, Scope, Verdict};
