//! The policies of one stack, shared by all of its services.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use quorate_foundations::{name::Name, time::Mono};

use crate::{
    bulkhead::Bulkhead,
    circuit_breaker::Breaker,
    fallback::Source,
    hedge,
    latency::Latency,
    outcome::{Class, Outcome, Refuser, Scope},
    rate_limit::Limiter,
    retry::Retries,
    stripes::Stripes,
    sync::lane,
    timeout::{self, Timers},
};

/// The policies as the calls of one service hold them: how many do is counted on a line of that service's own, so that
/// threads which make calls through clones of a stack don't all write the same one.
pub(super) type Held = Arc<Arc<Policies>>;

/// What calls to one dependency pass, in the order of the fields. What is `None` isn't passed.
pub(super) struct Policies {
    pub(super) timers: Timers,
    /// What the dependency is called in logs and metrics.
    pub(super) name: Name,
    /// How many calls in a time.
    pub(super) limiter: Option<Arc<Limiter>>,
    /// How long a call, an attempt and a silence may take.
    pub(super) timeout: timeout::Config,
    /// The circuit of the dependency.
    pub(super) breaker: Option<Arc<Breaker>>,
    /// How many calls at once.
    pub(super) bulkhead: Option<Arc<Bulkhead>>,
    /// When it is sent a second time because it is late.
    pub(super) hedge: Option<hedge::Config>,
    /// How it is sent again.
    pub(super) retries: Option<Arc<Retries>>,
    /// The circuit of the endpoint.
    pub(super) endpoint: Option<Arc<Breaker>>,
    pub(super) memory: Arc<Memory>,
}

/// What is known of the dependency's calls, whatever the policies.
pub(crate) struct Memory {
    /// How long attempts take that succeed.
    pub(super) latency: Latency,
    pub(super) counts: Counts,
    /// Lesser answers that were served, by where they came from.
    fallbacks: [AtomicU64; 3],
}

/// Over which time it is known how long attempts take.
const LATENCY_WINDOW: Duration = Duration::from_secs(30);

impl Memory {
    pub(crate) fn new() -> Self {
        let fallbacks = [const { AtomicU64::new(0) }; 3];
        Self { latency: Latency::new(LATENCY_WINDOW), counts: Counts::new(), fallbacks }
    }

    /// What became of calls, with the word for it.
    pub(crate) fn outcomes(&self) -> Vec<(&'static str, u64)> {
        self.counts.all().collect()
    }

    /// A lesser answer was served.
    pub(super) fn fell_back(&self, source: &Source) {
        if let Some(nth) = FALLBACKS.iter().position(|word| *word == source.word()) {
            self.fallbacks[nth].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many lesser answers were served, with the word for where they came from.
    pub(super) fn fallbacks(&self) -> impl Iterator<Item = (&'static str, u64)> {
        FALLBACKS.into_iter().zip(&self.fallbacks).map(|(word, count)| (word, count.load(Ordering::Relaxed)))
    }
}

/// From where lesser answers come.
const FALLBACKS: [&str; 3] = ["static", "stale", "alternate"];

impl Policies {
    pub(super) fn now(&self) -> Mono {
        self.timers.env().mono()
    }
}

/// What became of calls.
pub(super) struct Counts {
    /// Successes raise a cell of their thread's own.
    successes: Stripes,
    others: [AtomicU64; KINDS.len()],
}

/// What can become of a call, success aside, and the word for it.
const KINDS: [(Outcome, &str); 14] = [
    (Outcome::Upstream(Class::Fault), "fault"),
    (Outcome::Upstream(Class::Throttled), "throttled"),
    (Outcome::Upstream(Class::Refusal), "refusal"),
    (Outcome::Upstream(Class::Untrusted), "untrusted"),
    (Outcome::Upstream(Class::Stale), "stale"),
    (Outcome::Timeout(Scope::Attempt), "timeout_attempt"),
    (Outcome::Timeout(Scope::Total), "timeout_total"),
    (Outcome::Rejected(Refuser::Breaker), "rejected_breaker"),
    (Outcome::Rejected(Refuser::Bulkhead), "rejected_bulkhead"),
    (Outcome::Rejected(Refuser::Limit), "rejected_limit"),
    (Outcome::Rejected(Refuser::Budget), "rejected_budget"),
    (Outcome::Rejected(Refuser::Deadline), "rejected_deadline"),
    (Outcome::Cancelled, "cancelled"),
    (Outcome::Upstream(Class::Success), "success"),
];

impl Counts {
    pub(super) fn new() -> Self {
        Self { successes: Stripes::new(), others: [const { AtomicU64::new(0) }; KINDS.len()] }
    }

    #[inline]
    pub(super) fn ended(&self, outcome: Outcome) {
        if outcome == Outcome::Upstream(Class::Success) {
            self.successes.raise(lane());
            return;
        }
        if let Some(nth) = KINDS.iter().position(|(kind, _)| *kind == outcome) {
            self.others[nth].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How often what became of calls, with the word for it, in a fixed order.
    pub(super) fn all(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let others = KINDS.iter().zip(&self.others);
        others.map(|((kind, word), count)| match kind {
            Outcome::Upstream(Class::Success) => (*word, self.successes.sum()),
            _ => (*word, count.load(Ordering::Relaxed)),
        })
    }
}
