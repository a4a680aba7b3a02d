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
    circuit_breaker::{Asked, Breaker, Each, machine::Ticket},
    deadline::Deadline,
    fallback::Source,
    hedge,
    latency::Latency,
    outcome::{Class, Outcome, Refuser, Rejection, Scope},
    rate_limit::{self, Limiter, Shared},
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
    pub(super) limit: Limit,
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
    pub(super) endpoint: Endpoint,
    pub(super) memory: Arc<Memory>,
}

/// How many calls in a time there may be.
pub(super) enum Limit {
    /// As many as like.
    None,
    /// As this process counts.
    Own(Arc<Limiter>),
    /// As all that share a count do, under the dependency's name.
    Shared(Shared, Name),
}

impl Limit {
    /// Whether a call may be made at `now`. `None`: the count has to be asked, with [`ask`](Self::ask).
    #[inline]
    pub(super) fn take(&self, now: Mono) -> Option<Result<(), Rejection>> {
        match self {
            Self::None => Some(Ok(())),
            Self::Own(limiter) => Some(limiter.take(now, 1).map(|_| ()).map_err(Rejection::from)),
            Self::Shared(shared, key) => {
                shared.take_known(key, 1).map(|known| known.map(|_| ()).map_err(Rejection::from))
            }
        }
    }

    /// The same for a call that ends by `deadline`, with the count being asked.
    pub(super) async fn ask(&self, now: Mono, deadline: Deadline) -> Result<(), Rejection> {
        match self {
            Self::Shared(shared, key) => Ok(shared.take_by(key, 1, deadline).await.map(|_| ())?),
            Self::None | Self::Own(_) => self.take(now).unwrap_or(Ok(())),
        }
    }

    /// What is left, as far as this process knows.
    pub(super) fn standing(&self, now: Mono) -> Option<rate_limit::Standing> {
        match self {
            Self::Own(limiter) => Some(limiter.standing(now)),
            Self::None | Self::Shared(..) => None,
        }
    }

    /// How many calls were decided without the count, and as what was declared; `None` where no count is shared.
    pub(super) fn uncounted(&self) -> Option<(&'static str, u64)> {
        match self {
            Self::Shared(shared, _) => Some((shared.config().on_unavailable.word(), shared.uncounted())),
            Self::None | Self::Own(_) => None,
        }
    }
}

/// Which circuit an attempt passes.
pub(super) enum Endpoint {
    /// None.
    None,
    /// The same as all others.
    One(Arc<Breaker>),
    /// That of what it asks.
    Each(Arc<Each>),
}

/// Leave of an endpoint's circuit for one attempt.
pub(super) struct Leave {
    ticket: Ticket,
    /// The circuit, where each endpoint has one.
    of: Option<Arc<Breaker>>,
}

/// Whom an attempt tried that was to find out whether it is well again: the circuit, where each endpoint has one.
pub(super) struct Probed(Option<Arc<Breaker>>);

impl Endpoint {
    /// Whom an attempt tries that holds `leave`, if that is what it is for: a circuit that only looks on has everybody pass meanwhile.
    pub(super) fn probed(&self, leave: Option<&Leave>) -> Option<Probed> {
        let tries = |leave: &&Leave| {
            leave.ticket.probe.is_some() && self.circuit(leave).is_some_and(|breaker| !breaker.is_operated())
        };
        leave.filter(tries).map(|leave| Probed(leave.of.clone()))
    }

    /// Whether an attempt that asks for what `asked` says passes the circuit that was tried.
    pub(super) fn passes<'a>(&self, now: Mono, asked: impl FnOnce() -> Asked<'a>, probed: &Probed) -> bool {
        match (self, &probed.0) {
            (Self::One(_), None) => true,
            (Self::Each(each), Some(breaker)) => Arc::ptr_eq(&each.of(asked(), now), breaker),
            (Self::None | Self::One(_) | Self::Each(_), _) => false,
        }
    }

    /// Leave for an attempt now, which asks for what `asked` says.
    #[inline]
    pub(super) fn acquire<'a>(&self, now: Mono, asked: impl FnOnce() -> Asked<'a>) -> Result<Option<Leave>, Rejection> {
        match self {
            Self::None => Ok(None),
            Self::One(breaker) => Ok(Some(Leave { ticket: breaker.acquire(now)?, of: None })),
            Self::Each(each) => {
                let breaker = each.of(asked(), now);
                Ok(Some(Leave { ticket: breaker.acquire(now)?, of: Some(breaker) }))
            }
        }
    }

    fn circuit<'a>(&'a self, leave: &'a Leave) -> Option<&'a Breaker> {
        match (self, &leave.of) {
            (_, Some(breaker)) | (Self::One(breaker), None) => Some(breaker),
            (Self::None | Self::Each(_), None) => None,
        }
    }

    /// Tells the circuit what became of the attempt, which took `took`.
    #[inline]
    pub(super) fn settle(&self, now: Mono, leave: Leave, ended: (Outcome, Duration), retry_after: Option<Duration>) {
        if let Some(breaker) = self.circuit(&leave) {
            breaker.settle(now, leave.ticket, ended, retry_after);
        }
    }

    /// Tells the circuit that the attempt said nothing.
    pub(super) fn give_back(&self, now: Mono, leave: Leave) {
        if let Some(breaker) = self.circuit(&leave) {
            breaker.give_back(now, leave.ticket);
        }
    }

    /// How often there was no room for a circuit.
    pub(super) fn crowded(&self) -> Option<u64> {
        match self {
            Self::None | Self::One(_) => None,
            Self::Each(each) => Some(each.crowded()),
        }
    }

    /// By when an attempt that tries whether the endpoint is well again has failed; `None` if it doesn't try.
    pub(super) fn probes_for(&self, leave: &Leave) -> Option<Duration> {
        leave.ticket.probe.and_then(|_| self.circuit(leave)).map(Breaker::probe_timeout)
    }
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
