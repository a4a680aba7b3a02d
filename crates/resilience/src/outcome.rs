//! What can become of a call, in types: each policy says which outcomes it counts.
//!
//! A policy that judges by "error or not" counts its neighbours' refusals, the caller's own mistakes and calls that
//! nobody waits for any more as failures of the upstream. So a call ends in one of four ways, and every room has a
//! table of what each way means to it.
//!
//! | outcome | circuit breaker | retry |
//! |---|---|---|
//! | `Upstream(Success)` | success | – |
//! | `Upstream(Fault)` | failure | again |
//! | `Upstream(Throttled)` | failure for the rate, not for those in a row; never closes | again |
//! | `Upstream(Refusal)` (the caller's mistake) | neither | never |
//! | `Upstream(Untrusted)` (TLS found no trusted way to it) | failure | never |
//! | `Upstream(Stale)` (an idle connection was closed) | neither | once, at once, on a new one |
//! | `Timeout(Attempt)` | failure | again |
//! | `Timeout(Total)` | failure where the attempt had time enough, a probe's as well; otherwise neither, unless told so | never |
//! | `Rejected(_)` | neither | never |
//! | `Cancelled` | neither; permits return | never |

use std::time::Duration;

use crate::{bulkhead, circuit_breaker, rate_limit, timeout};

/// What became of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The upstream, or the way to it, answered.
    Upstream(Class),
    /// Time ran out.
    Timeout(Scope),
    /// A policy refused it; the upstream never saw it.
    Rejected(Refuser),
    /// Nobody waited for it any more.
    Cancelled,
}

/// What kind of answer the upstream gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// What was asked for.
    Success,
    /// The upstream's fault: an error of its own, a broken connection.
    Fault,
    /// It asks for fewer calls: 429, `RESOURCE_EXHAUSTED`, 503 with a time to come back.
    Throttled,
    /// The caller's fault, and the upstream is well: most of 4xx.
    Refusal,
    /// There is no trusted way to it: its certificate is another's, has expired or is vouched for by nobody, or the two have no
    /// encryption in common. Nothing was asked of it where that was found while connecting; it may have been where encryption broke
    /// later. The next attempt would find the same.
    Untrusted,
    /// A connection that had been idle turned out to be closed before any of the answer came. Nobody's fault.
    Stale,
}

/// Which time ran out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// That of one attempt.
    Attempt,
    /// That of the whole call.
    Total,
}

/// Which policy refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refuser {
    /// The circuit is open.
    Breaker,
    /// Too many calls at once.
    Bulkhead,
    /// Too many calls in a time.
    Limit,
    /// No retry is left in the budget.
    Budget,
    /// What is left of the deadline is too short to be worth trying.
    Deadline,
}

/// A judgement on one answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// What kind of answer it is.
    pub class: Class,
    /// Whether it is certain that the upstream did nothing: no connection, `REFUSED_STREAM`, a GOAWAY below ours. Such
    /// a call may be sent again whatever it does.
    pub unprocessed: bool,
    /// Whether another attempt could fare better: not so for a fault that lasts, such as 501.
    pub transient: bool,
    /// When the upstream asks to be called again.
    pub retry_after: Option<Duration>,
}

impl Verdict {
    /// A verdict that says no more than its class.
    pub const fn of(class: Class) -> Self {
        Self { class, unprocessed: false, transient: true, retry_after: None }
    }

    /// What was asked for.
    pub const SUCCESS: Self = Self::of(Class::Success);
    /// A fault that may pass.
    pub const FAULT: Self = Self::of(Class::Fault);
    /// A fault that may pass, of a call that certainly wasn't done.
    pub const UNSENT: Self = Self { unprocessed: true, ..Self::FAULT };
    /// No trusted way, found before anything was sent.
    pub const UNTRUSTED: Self = Self { unprocessed: true, transient: false, ..Self::of(Class::Untrusted) };
}

/// Judges answers. A function from a result to a [`Verdict`] is one.
pub trait Classify<T, E> {
    /// What `result` says about the upstream.
    fn classify(&self, result: Result<&T, &E>) -> Verdict;
}

impl<T, E, F: Fn(Result<&T, &E>) -> Verdict> Classify<T, E> for F {
    fn classify(&self, result: Result<&T, &E>) -> Verdict {
        self(result)
    }
}

/// Takes every `Ok` for a success and every `Err` for a fault that may pass.
#[derive(Clone, Copy, Debug, Default)]
pub struct ByResult;

impl<T, E> Classify<T, E> for ByResult {
    fn classify(&self, result: Result<&T, &E>) -> Verdict {
        if result.is_ok() { Verdict::SUCCESS } else { Verdict::FAULT }
    }
}

/// Why a call has no answer, or which error was its answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CallError<E> {
    /// The upstream's own error, after all attempts that were allowed.
    #[error("the call failed")]
    Upstream(
        #[source] E,
        /// What it says about the upstream.
        Class,
    ),
    /// Time ran out. Whether the upstream did what was asked is unknown.
    #[error("no answer within {waited:?}")]
    Timeout {
        /// Which time.
        scope: Scope,
        /// How long the call had been waited for.
        waited: Duration,
    },
    /// A policy refused the call before its first attempt. Nothing was sent. A further attempt that is refused leaves the call the
    /// outcome of the one before.
    #[error(transparent)]
    Rejected(#[from] Rejection),
}

/// Why a policy refused a call.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Rejection {
    /// The circuit is open.
    #[error(transparent)]
    Breaker(#[from] circuit_breaker::Rejected),
    /// Too many calls at once.
    #[error(transparent)]
    Bulkhead(#[from] bulkhead::Rejected),
    /// Too many calls in a time.
    #[error(transparent)]
    Limit(#[from] rate_limit::Rejected),
    /// A rate limit that several processes share can't be asked, and was declared to refuse then.
    #[error("the shared rate limit can't be asked, and refuses meanwhile")]
    Uncounted,
    /// What is left of the deadline is too short to be worth trying.
    #[error(transparent)]
    Deadline(#[from] timeout::Hopeless),
}

impl From<rate_limit::SharedRejected> for Rejection {
    fn from(rejected: rate_limit::SharedRejected) -> Self {
        match rejected {
            rate_limit::SharedRejected::Limit(rejected) => Self::Limit(rejected),
            // Why was told where it was asked.
            rate_limit::SharedRejected::Unavailable(_) | rate_limit::SharedRejected::Silent { .. } => Self::Uncounted,
        }
    }
}

impl Rejection {
    /// Which policy it was.
    pub fn by(&self) -> Refuser {
        match self {
            Self::Breaker(_) => Refuser::Breaker,
            Self::Bulkhead(_) => Refuser::Bulkhead,
            Self::Limit(_) | Self::Uncounted => Refuser::Limit,
            Self::Deadline(_) => Refuser::Deadline,
        }
    }

    /// After how long another try makes sense, if that is known.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Breaker(rejected) => rejected.remaining,
            Self::Limit(rejected) => rejected.wait,
            Self::Bulkhead(_) | Self::Uncounted | Self::Deadline(_) => None,
        }
    }
}

impl<E> CallError<E> {
    /// What became of the call.
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::Upstream(_, class) => Outcome::Upstream(*class),
            Self::Timeout { scope, .. } => Outcome::Timeout(*scope),
            Self::Rejected(rejection) => Outcome::Rejected(rejection.by()),
        }
    }
}
