//! All stacks of a process by the names of their dependencies: what they count, as metrics and at a glance.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{counter::ConstCounter, gauge::ConstGauge},
};
use quorate_foundations::name::Name;

use super::{Builder, ConfigError, Current, Stack, policies::Policies};
use crate::{bulkhead, rate_limit, retry, timeout::Timers};

/// All stacks by name. Cheap to clone; clones are the same registry. A stack that nobody holds any more is forgotten.
///
/// | metric | labels |
/// |---|---|
/// | `quorate_calls_total` | `dependency`, `outcome`: `success`, `fault`, `throttled`, `timeout_attempt`, `rejected_breaker`, … |
/// | `quorate_retries_total` | `dependency` |
/// | `quorate_retries_over_budget_total` | `dependency` |
/// | `quorate_retry_budget_left` | `dependency` |
/// | `quorate_fallbacks_total` | `dependency`, `source`: `static`, `stale`, `alternate`; those of [`Instead::counted_by`](super::Instead::counted_by) |
/// | `quorate_bulkhead_refused_total` | `dependency`, `reason`: `full`, `queue_full`, `shed`, `max_wait`, `deadline`, `tenant_share` |
/// | `quorate_bulkhead_limit`, `quorate_bulkhead_in_flight`, `quorate_bulkhead_waiting` | `dependency` |
/// | `quorate_rate_limit_remaining` | `dependency` |
/// | `quorate_rate_limit_uncounted_total` | `dependency`, `decided`: `allow`, `deny`, `local`, for calls that were decided without the shared count |
/// | `quorate_breaker_crowded_total` | `dependency`: attempts for which there was [no room for a circuit](crate::circuit_breaker::Each::crowded) |
#[derive(Clone)]
pub struct Stacks {
    inner: Arc<Inner>,
}

struct Inner {
    timers: Timers,
    known: Mutex<BTreeMap<Name, Known>>,
}

enum Known {
    /// A stack as it was built.
    Built(Weak<Policies>),
    /// One whose policies become others.
    Live(Weak<Current>),
}

impl Known {
    fn policies(&self) -> Option<Arc<Policies>> {
        match self {
            Self::Built(policies) => policies.upgrade(),
            Self::Live(current) => current.upgrade().map(|current| current.policies()),
        }
    }
}

/// What the calls of one stack came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// What the dependency is called.
    pub dependency: Name,
    /// What became of calls, with the word for it.
    pub outcomes: Vec<(&'static str, u64)>,
    /// Lesser answers that were served instead, with the word for where they came from.
    pub fallbacks: Vec<(&'static str, u64)>,
    /// What was sent again; `None` where nothing is.
    pub retries: Option<retry::Counts>,
    /// How many are under way, and how many wait; `None` where as many may be as like.
    pub bulkhead: Option<bulkhead::Snapshot>,
    /// What is left of the rate; `None` where there is none, or a count that is shared.
    pub limit: Option<rate_limit::Standing>,
    /// How many calls were decided without the count that is shared, and as what was declared; `None` where none is.
    pub uncounted: Option<(&'static str, u64)>,
    /// How often there was no room for the circuit of an endpoint or operation; `None` where they have none.
    pub crowded: Option<u64>,
}

/// Why a stack was not built.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// There is one for that dependency, whose counts would be mixed up with this one's.
    #[error("there is a stack for `{0}` already: clone it")]
    Known(Name),
    /// A policy can't be as it was asked for.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

impl Stacks {
    /// An empty registry whose metrics the environment of `timers` serves. One for each environment.
    pub fn new(timers: &Timers) -> Self {
        let registry = Self { inner: Arc::new(Inner { timers: timers.clone(), known: Mutex::default() }) };
        timers.env().metrics().register_collector(Box::new(Scrape(Arc::downgrade(&registry.inner))));
        registry
    }

    /// Builds a stack that this registry knows from then on.
    ///
    /// # Errors
    /// [`BuildError`]: nothing was built.
    pub fn build<P>(&self, builder: Builder, protocol: P) -> Result<Stack<P>, BuildError> {
        let stack = builder.build(&self.inner.timers, protocol)?;
        self.know(&stack.policies.name, Known::Built(Arc::downgrade(&stack.policies)))?;
        Ok(stack)
    }

    /// Knows a stack whose policies become others.
    pub(crate) fn know_live(&self, name: &Name, current: &Arc<Current>) -> Result<(), BuildError> {
        self.know(name, Known::Live(Arc::downgrade(current)))
    }

    /// Where alarms are set.
    pub(crate) fn timers(&self) -> &Timers {
        &self.inner.timers
    }

    fn know(&self, name: &Name, one: Known) -> Result<(), BuildError> {
        let mut known = self.lock();
        known.retain(|_, one| one.policies().is_some());
        if known.contains_key(name) {
            return Err(BuildError::Known(name.clone()));
        }
        known.insert(name.clone(), one);
        Ok(())
    }

    /// What every stack's calls came to, in order of names.
    pub fn standings(&self) -> Vec<Standing> {
        let known: Vec<_> =
            self.lock().iter().filter_map(|(name, known)| Some((name.clone(), known.policies()?))).collect();
        let standing = |(dependency, policies): (Name, Arc<Policies>)| Standing {
            dependency,
            outcomes: policies.memory.counts.all().collect(),
            fallbacks: policies.memory.fallbacks().collect(),
            retries: policies.retries.as_ref().map(|retries| retries.counts(policies.now())),
            bulkhead: policies.bulkhead.as_ref().map(|bulkhead| bulkhead.snapshot()),
            limit: policies.limit.standing(policies.now()),
            uncounted: policies.limit.uncounted(),
            crowded: policies.endpoint.crowded(),
        };
        known.into_iter().map(standing).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Name, Known>> {
        self.inner.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Stacks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.lock().keys()).finish()
    }
}

/// Writes what every stack counts when metrics are asked for.
struct Scrape(Weak<Inner>);

impl fmt::Debug for Scrape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scrape").finish_non_exhaustive()
    }
}

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let Some(inner) = self.0.upgrade() else { return Ok(()) };
        let standings = Stacks { inner }.standings();
        let kind = ConstCounter::new(0_u64).metric_type();
        let mut calls = encoder.encode_descriptor("quorate_calls", "What became of calls", None, kind)?;
        for standing in &standings {
            for (outcome, count) in &standing.outcomes {
                let labels = [("dependency", standing.dependency.as_str()), ("outcome", *outcome)];
                ConstCounter::new(*count).encode(calls.encode_family(&labels)?)?;
            }
        }
        let kind = ConstCounter::new(0_u64).metric_type();
        let mut served =
            encoder.encode_descriptor("quorate_fallbacks", "Lesser answers that were served", None, kind)?;
        for standing in &standings {
            for (source, count) in &standing.fallbacks {
                let labels = [("dependency", standing.dependency.as_str()), ("source", *source)];
                ConstCounter::new(*count).encode(served.encode_family(&labels)?)?;
            }
        }
        let (kind, help) = (ConstCounter::new(0_u64).metric_type(), "Calls that found no place, by reason");
        let mut refused = encoder.encode_descriptor("quorate_bulkhead_refused", help, None, kind)?;
        for standing in &standings {
            for (why, count) in standing.bulkhead.iter().flat_map(|bulkhead| &bulkhead.refused) {
                let labels = [("dependency", standing.dependency.as_str()), ("reason", why.word())];
                ConstCounter::new(*count).encode(refused.encode_family(&labels)?)?;
            }
        }
        let retried: Vec<_> =
            standings.iter().filter_map(|one| Some((one.dependency.as_str(), one.retries?))).collect();
        type Count = fn(&retry::Counts) -> u64;
        let counters: [(&str, &str, Count); 2] = [
            ("quorate_retries", "Calls that were sent again", |counts| counts.retries),
            ("quorate_retries_over_budget", "Calls that were not, since the budget was spent", |counts| {
                counts.over_budget
            }),
        ];
        for (name, help, of) in counters {
            let kind = ConstCounter::new(0_u64).metric_type();
            let mut family = encoder.encode_descriptor(name, help, None, kind)?;
            for (dependency, counts) in &retried {
                ConstCounter::new(of(counts)).encode(family.encode_family(&[("dependency", *dependency)])?)?;
            }
        }
        let (kind, help) =
            (ConstCounter::new(0_u64).metric_type(), "Attempts for which there was no room for a circuit");
        let mut crowded = encoder.encode_descriptor("quorate_breaker_crowded", help, None, kind)?;
        for (dependency, count) in standings.iter().filter_map(|one| Some((one.dependency.as_str(), one.crowded?))) {
            ConstCounter::new(count).encode(crowded.encode_family(&[("dependency", dependency)])?)?;
        }
        let (kind, help) = (ConstCounter::new(0_u64).metric_type(), "Calls that were decided without the shared count");
        let mut uncounted = encoder.encode_descriptor("quorate_rate_limit_uncounted", help, None, kind)?;
        for (dependency, (decided, count)) in
            standings.iter().filter_map(|one| Some((one.dependency.as_str(), one.uncounted?)))
        {
            let labels = [("dependency", dependency), ("decided", decided)];
            ConstCounter::new(count).encode(uncounted.encode_family(&labels)?)?;
        }
        type Gauge = fn(&Standing) -> Option<i64>;
        let gauges: [(&str, &str, Gauge); 5] = [
            ("quorate_retry_budget_left", "Retries that could be charged now", |standing| {
                Some(i64::try_from(standing.retries?.usage.left).unwrap_or(i64::MAX))
            }),
            ("quorate_bulkhead_limit", "Calls that may be under way at once", |standing| {
                Some(standing.bulkhead.as_ref()?.limit.into())
            }),
            ("quorate_bulkhead_in_flight", "Calls that are under way", |standing| {
                Some(standing.bulkhead.as_ref()?.in_flight.into())
            }),
            ("quorate_bulkhead_waiting", "Calls that wait for a place", |standing| {
                Some(i64::try_from(standing.bulkhead.as_ref()?.waiting).unwrap_or(i64::MAX))
            }),
            ("quorate_rate_limit_remaining", "Calls that the rate allows now", |standing| {
                Some(standing.limit?.remaining.into())
            }),
        ];
        for (name, help, of) in gauges {
            let kind = ConstGauge::new(0_i64).metric_type();
            let mut family = encoder.encode_descriptor(name, help, None, kind)?;
            for (dependency, value) in standings.iter().filter_map(|one| Some((one.dependency.as_str(), of(one)?))) {
                ConstGauge::new(value).encode(family.encode_family(&[("dependency", dependency)])?)?;
            }
        }
        Ok(())
    }
}
