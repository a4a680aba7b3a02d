//! Calls that fail well: one policy for everything that is asked of somebody else.
//!
//! Whoever calls another service depends on it being quick, being up, and not being asked too much. Each room here is
//! one answer to one of those going wrong. The rules are machines, told the time and what happened; the shells around
//! them read the clock once and wait.

pub mod circuit_breaker;
pub mod deadline;
pub mod dice;
pub mod outcome;
pub mod retry;
mod stripes;
mod sync;

#[cfg(test)]
mod stripes_tests;
#[cfg(test)]
mod stripes_under_loom;

pub use outcome::{CallError, Class, Outcome, Refuser, Rejection, Scope, Verdict};
