//! Policies as documents: what a dependency's calls pass, written down, read strictly, and proved to be able to work.
//!
//! Policies fail on paper before they fail at night: three attempts of 800 ms in a call that ends after two seconds; a
//! breaker that wants twenty calls in thirty seconds from somebody who makes one a minute; three services that each send
//! three for one. [`Document::read_all`] finds what can't be read, [`prove`] what can't work.
//!
//! *When not to use it*: for policies that a program decides by itself; it takes a [`stack`](crate::stack).
//!
//! # The document
//! In YAML, TOML or JSON; several in one YAML file, between which `---` stands. Names are those of the Kubernetes Gateway API
//! where it has any: `timeouts.request`, `timeouts.backendRequest`, `retry.attempts` (which counts the *further* attempts), and
//! `retryBudget` as its `retryConstraint`. Times have units, `1m30s`; [`SCHEMA`] is the JSON Schema.
//! ```yaml
//! kind: ResiliencePolicy
//! metadata: {name: orders}
//! spec:
//!   from: shop
//!   targetRefs: [{kind: Backend, name: orders-v1}, {kind: Backend, name: orders-v2}]
//!   timeouts: {request: 3s, backendRequest: 800ms, idle: 5s}
//!   retry: {attempts: 2, backoff: 50ms, jitter: full}
//!   retryBudget: {percent: 20, interval: 10s, minRetryRate: {count: 10, interval: 1s}}
//!   breaker:
//!     consecutive: 7
//!     successRate: {below: 0.8, window: 30s, minRequests: 20}
//!     open: {min: 1s, max: 60s}
//!     probes: 1
//!     probeTimeout: 2s
//!   concurrency: {mode: adaptive, max: 200, queue: {length: 50, maxWait: 100ms}}
//!   hedge: {percentile: 0.95, atLeast: 20ms}
//!   rateLimit: {requests: 100, per: 1s, burst: 20}
//!   traffic: {requestsPerSecond: 40}
//! ```
//!
//! # Example
//! ```
//! use quorate_foundations::document::Format;
//! use quorate_resilience::policy::{Document, prove};
//!
//! let text = "
//! kind: ResiliencePolicy
//! metadata: {name: orders}
//! spec:
//!   timeouts: {request: 2s, backendRequest: 800ms}
//!   retry: {attempts: 2}
//! ";
//! let documents = Document::read_all(text, Format::Yaml)?;
//! let finding = &prove(&documents)[0].fault;
//! assert_eq!((finding.line, finding.field.as_str()), (6, "spec.retry.attempts"));
//! assert!(finding.what.contains("2.4s"), "{finding}");
//! # Ok::<_, quorate_foundations::document::Faults>(())
//! ```

mod fields;
mod parts;
mod prove;
mod read;
mod registry;

use std::{num::NonZeroU32, ops::Range, time::Duration};

use quorate_foundations::name::Name;

use crate::{
    bulkhead,
    circuit_breaker::{self, Split},
    hedge,
    rate_limit::{OnUnavailable, Rate},
    retry::{self, BudgetConfig},
    stack::{Builder, Stack},
    timeout,
};

pub use prove::{Finding, prove};
pub use registry::{Apart, ApplyError, Changes, Registry, Standing};

/// The JSON Schema (draft 2020-12) of one document.
pub const SCHEMA: &str = include_str!("policy.schema.json");

/// What the calls of one dependency pass.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// What it is called: also its circuits and counters.
    pub name: Name,
    /// Who makes these calls, if that is said.
    pub from: Option<Name>,
    /// Whom they are made to.
    pub targets: Vec<Name>,
    /// How long things may take.
    pub timeouts: timeout::Config,
    /// How calls are sent again, and how many retries the dependency is asked to bear.
    pub retry: Option<(retry::Config, BudgetConfig)>,
    /// Whether hops further on are told who retries.
    pub ownership: Ownership,
    /// When calls are refused because they fail.
    pub breaker: Option<circuit_breaker::Config>,
    /// What has a circuit of its own; `None`: all calls share the dependency's.
    pub circuits: Option<Split>,
    /// How many calls at once.
    pub concurrency: Option<bulkhead::Config>,
    /// When a call is sent a second time because it is late.
    pub hedge: Option<hedge::Config>,
    /// How many calls in a time.
    pub rate_limit: Option<Rate>,
    /// What holds while the store can't count them; `None`: each process counts for itself.
    pub counted: Option<OnUnavailable>,
    /// What is expected of the dependency's callers; only the prover looks at it.
    pub traffic: Traffic,
}

/// Whether the hop that retries tells those behind it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ownership {
    /// It does, and they heed it.
    #[default]
    Carried,
    /// It doesn't, or they don't: each hop retries by itself.
    Ignored,
}

/// What is expected of callers.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Traffic {
    /// Calls a second, in quiet hours.
    pub requests_per_second: Option<f64>,
    /// How many calls one call at the first hop may become at the last; 4 unless said otherwise.
    pub max_amplification: Option<u32>,
}

/// A policy with the places where its fields stand.
#[derive(Clone, Debug)]
pub struct Document {
    policy: Policy,
    text: std::sync::Arc<str>,
    places: Vec<(String, Range<usize>)>,
}

impl Document {
    /// The policy.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// The text that it was read from, other documents in it included.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Where a field stands, in bytes; of what isn't there, where the nearest field around it does.
    fn place(&self, field: &str) -> usize {
        let mut field = field;
        loop {
            if let Some((_, span)) = self.places.iter().find(|(known, _)| known == field) {
                return span.start;
            }
            match field.rsplit_once('.') {
                Some((around, _)) => field = around,
                None => return self.places.first().map_or(0, |(_, span)| span.start),
            }
        }
    }
}

impl Policy {
    /// A stack of these policies, to be built. The breaker is the endpoint's, which every attempt passes.
    ///
    /// # Errors
    /// [`ApplyError::NoCount`]: a store is to count the rate. Whoever has one gives it to a [`Registry`]; a limit of each process
    /// would let through as many times as much as there are processes.
    pub fn stack(&self) -> Result<Builder, ApplyError> {
        if self.rate_limit.is_some() && self.counted.is_some() {
            return Err(ApplyError::NoCount { dependency: self.name.clone() });
        }
        let mut stack = Stack::builder(self.name.clone()).timeouts(self.timeouts);
        if let Some((retry, budget)) = &self.retry {
            stack = stack.retry(*retry, *budget);
        }
        if let Some(breaker) = &self.breaker {
            stack = match self.circuits {
                Some(split) => stack.endpoint_breakers(breaker.clone(), split),
                None => stack.endpoint_breaker(breaker.clone()),
            };
        }
        if let Some(concurrency) = &self.concurrency {
            stack = stack.bulkhead(concurrency.clone());
        }
        if let Some(hedge) = self.hedge {
            stack = stack.hedge(hedge);
        }
        if let Some(rate) = self.rate_limit {
            stack = stack.limit(rate);
        }
        Ok(stack)
    }

    /// What it applies to: its targets, or if it names none what it is called itself.
    pub fn dependencies(&self) -> &[Name] {
        if self.targets.is_empty() { std::slice::from_ref(&self.name) } else { &self.targets }
    }

    /// How calls are sent again; a hedge without that is charged to the usual budget, and sends nothing again that failed.
    fn retries(&self) -> Option<(retry::Config, BudgetConfig)> {
        let once = retry::Config { attempts: NonZeroU32::MIN, ..retry::Config::default() };
        self.retry.or_else(|| self.hedge.map(|_| (once, BudgetConfig::default())))
    }

    /// All attempts of a call, the first one included.
    fn tries(&self) -> u32 {
        self.retry.map_or(1, |(retry, _)| retry.attempts.get())
    }
}

/// A span of time as documents write it, in at most two units.
fn shown(span: Duration) -> String {
    let millis = span.as_millis();
    match millis {
        0 => format!("{}us", span.as_micros()),
        _ if millis < 1_000 => format!("{millis}ms"),
        _ if millis.is_multiple_of(1_000) => format!("{}s", millis / 1_000),
        _ => format!("{}s", span.as_secs_f64()),
    }
}

#[cfg(test)]
mod tests;
