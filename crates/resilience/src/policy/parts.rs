//! What of a policy has a memory of its own, and keeps it when the policy becomes another.

use std::{
    num::NonZeroUsize,
    sync::{Arc, atomic::AtomicU64},
};

use quorate_foundations::{name::Name, time::Mono};

use super::{
    Policy,
    registry::{ApplyError, Inner},
};
use crate::{
    bulkhead::{self, Bulkhead},
    circuit_breaker::{Breaker, Each},
    dice::Dice,
    rate_limit::{self, Limiter, OnUnavailable, Shared, SharedConfig, Unavailable},
    retry::{self, BudgetConfig, Retries},
    stack::{Builder, ConfigError},
};

/// What has a memory of its own.
#[derive(Clone, Default)]
pub(super) struct Parts {
    pub(super) limit: Option<Limit>,
    pub(super) circuits: Option<Circuits>,
    pub(super) bulkhead: Option<Arc<Bulkhead>>,
    pub(super) retries: Option<Arc<Retries>>,
    pub(super) counts: Counts,
}

/// What goes on being counted while the policies of a dependency are there, or its calls are made, whatever they are: a counter never
/// begins anew because a document says something else.
#[derive(Clone, Default)]
pub(super) struct Counts {
    /// What there was last, also while no document asks for it.
    bulkhead: Option<Arc<Bulkhead>>,
    retries: Option<Arc<Retries>>,
    crowded: Arc<AtomicU64>,
    /// By what was declared.
    uncounted: [Arc<AtomicU64>; 3],
}

impl Counts {
    /// Calls that were decided without the count, as `on_unavailable` says.
    fn uncounted(&self, on_unavailable: OnUnavailable) -> Arc<AtomicU64> {
        let [allow, deny, local] = &self.uncounted;
        match on_unavailable {
            OnUnavailable::Allow => allow,
            OnUnavailable::Deny => deny,
            OnUnavailable::Local(_) => local,
        }
        .clone()
    }
}

/// The rate limit of one dependency.
#[derive(Clone)]
pub(super) enum Limit {
    /// As this process counts.
    Own(Arc<Limiter>),
    /// As the store does for all.
    Shared(Shared, Name),
}

impl Limit {
    /// The one that `policy` asks for: the same as `before`, as it is configured still, where it asked for the same.
    fn of(inner: &Inner, name: &Name, policy: &Policy, before: &Parts) -> Result<Option<Self>, ApplyError> {
        let (before, counts) = (before.limit.as_ref(), &before.counts);
        let Some(rate) = policy.rate_limit else { return Ok(None) };
        let wrong = |cause| ApplyError::Stack { dependency: name.clone(), cause: ConfigError::Limit(cause) };
        rate.check().map_err(wrong)?;
        let Some(on_unavailable) = policy.counted else {
            return Ok(Some(match before {
                Some(Self::Own(limiter)) => Self::Own(limiter.clone()),
                _ => Self::Own(Arc::new(Limiter::new(rate).map_err(wrong)?)),
            }));
        };
        let config = SharedConfig::of(rate, on_unavailable, ONE);
        if let Some(Self::Shared(shared, _)) = before
            && *shared.config() == config
        {
            return Ok(before.cloned());
        }
        let quota = inner.quota.clone().ok_or_else(|| ApplyError::NoCount { dependency: name.clone() })?;
        let uncounted = counts.uncounted(on_unavailable);
        let shared = Shared::counting_on(inner.stacks.timers().env(), quota, config, uncounted).map_err(wrong)?;
        Ok(Some(Self::Shared(shared, name.clone())))
    }

    /// Lets the rate of `policy` hold; `None` if there is nothing to be changed. Says whether it can.
    fn configure(&self, policy: &Policy, now: Mono) -> Option<bool> {
        match self {
            Self::Own(limiter) => Some(limiter.configure(policy.rate_limit?, now).is_ok()),
            Self::Shared(..) => None,
        }
    }

    pub(super) fn standing(&self, now: Mono) -> Option<rate_limit::Standing> {
        match self {
            Self::Own(limiter) => Some(limiter.standing(now)),
            Self::Shared(..) => None,
        }
    }

    /// How many calls were decided without the store's count; `None` where this process counts.
    pub(super) fn uncounted(&self) -> Option<u64> {
        match self {
            Self::Own(_) => None,
            Self::Shared(shared, _) => Some(shared.uncounted()),
        }
    }

    /// Forgets what was taken.
    pub(super) async fn reset(&self) -> Result<(), Unavailable> {
        match self {
            Self::Own(limiter) => limiter.reset(),
            Self::Shared(shared, key) => shared.reset(key).await?,
        }
        Ok(())
    }

    pub(super) fn into_stack(self, builder: Builder) -> Builder {
        match self {
            Self::Own(limiter) => builder.shared_limit(limiter),
            Self::Shared(shared, key) => builder.counted_limit(shared, key),
        }
    }
}

/// A dependency's count has one key.
const ONE: NonZeroUsize = NonZeroUsize::MIN;

/// The circuits of one dependency.
#[derive(Clone)]
pub(super) enum Circuits {
    /// One for all calls.
    One(Name, Arc<Breaker>),
    /// One for each endpoint or operation.
    Each(Name, Arc<Each>),
}

impl Circuits {
    /// Those that `policy` asks for: the same as `before`, as they are configured still, where it asked for the same.
    fn of(inner: &Inner, name: &Name, policy: &Policy, before: &Parts) -> Result<Option<Self>, ApplyError> {
        let (before, crowded) = (before.circuits.as_ref(), &before.counts.crowded);
        let Some(config) = &policy.breaker else { return Ok(None) };
        Ok(Some(match (policy.circuits, before) {
            (Some(split), Some(Self::Each(name, each))) if each.per() == split.per => {
                Self::Each(name.clone(), each.clone())
            }
            (Some(split), _) => {
                let each = Each::prepared(&inner.breakers, name.clone(), config.clone(), split)?;
                Self::Each(name.clone(), Arc::new(each.counting_on(crowded)))
            }
            (None, _) => {
                let known = inner.breakers.get(name);
                Self::One(name.clone(), known.map_or_else(|| inner.breakers.breaker(name, config), Ok)?)
            }
        }))
    }

    /// Lets the rules of `policy` hold; `None` if it has none. Says whether they can.
    fn configure(&self, policy: &Policy, now: Mono) -> Option<bool> {
        let config = policy.breaker.as_ref()?;
        Some(match (self, policy.circuits) {
            (Self::Each(_, each), Some(split)) => each.configure(config, split.most, now).is_ok(),
            (circuits, _) => circuits.own().configure(config.clone(), now).is_ok(),
        })
    }

    /// The dependency's own.
    pub(super) fn own(&self) -> &Breaker {
        match self {
            Self::One(_, breaker) => breaker,
            Self::Each(_, each) => each.own(),
        }
    }

    pub(super) fn each(&self) -> Option<&Each> {
        match self {
            Self::One(..) => None,
            Self::Each(_, each) => Some(each),
        }
    }

    /// What the dependency's own is called.
    pub(super) fn name(&self) -> &Name {
        let (Self::One(name, _) | Self::Each(name, _)) = self;
        name
    }

    pub(super) fn into_stack(self, builder: Builder) -> Builder {
        match self {
            Self::One(_, breaker) => builder.shared_endpoint_breaker(breaker),
            Self::Each(_, each) => builder.shared_endpoint_breakers(each),
        }
    }
}

impl Parts {
    /// What a policy needs: of what is there already the same, as it is configured still.
    pub(super) fn of(inner: &Inner, name: &Name, policy: &Policy, before: Option<&Self>) -> Result<Self, ApplyError> {
        let env = inner.stacks.timers().env();
        let wrong = |cause| ApplyError::Stack { dependency: name.clone(), cause };
        let now = env.mono();
        if let Some(config) = &policy.concurrency {
            config.check().map_err(|cause| wrong(ConfigError::Bulkhead(cause)))?;
        }
        if let Some(config) = &policy.breaker {
            config.check().map_err(|cause| wrong(ConfigError::Breaker(cause)))?;
        }
        let bulkhead = |config: &bulkhead::Config| {
            Bulkhead::new(config.clone(), now).map(Arc::new).map_err(|cause| wrong(ConfigError::Bulkhead(cause)))
        };
        let retries = |(config, budget): (retry::Config, BudgetConfig)| {
            let dice = Dice::from_rng(&mut env.random("retry"));
            Ok::<_, ApplyError>(Arc::new(Retries::new(config, budget, dice)))
        };
        let none = Self::default();
        let before = before.unwrap_or(&none);
        let bulkhead = kept_or(policy.concurrency.as_ref(), before.counts.bulkhead.clone(), bulkhead)?;
        let retries = kept_or(policy.retries(), before.counts.retries.clone(), retries)?;
        let counts = Counts {
            bulkhead: bulkhead.clone().or_else(|| before.counts.bulkhead.clone()),
            retries: retries.clone().or_else(|| before.counts.retries.clone()),
            ..before.counts.clone()
        };
        Ok(Self {
            limit: Limit::of(inner, name, policy, before)?,
            circuits: Circuits::of(inner, name, policy, before)?,
            bulkhead,
            retries,
            counts,
        })
    }

    /// Takes out all that calls pass.
    pub(super) fn take(&mut self) -> Self {
        let counts = self.counts.clone();
        std::mem::replace(self, Self { counts, ..Self::default() })
    }

    /// Lets what a policy says hold for what has a memory. All of it was checked.
    pub(super) fn configure(&self, policy: &Policy, now: Mono) {
        let limit = self.limit.as_ref().and_then(|limit| limit.configure(policy, now));
        let circuits = self.circuits.as_ref().and_then(|circuits| circuits.configure(policy, now));
        let bulkhead = self.bulkhead.as_ref().zip(policy.concurrency.clone());
        let bulkhead = bulkhead.map(|(bulkhead, config)| bulkhead.configure(config, now).is_ok());
        assert!(
            [limit, circuits, bulkhead].iter().flatten().all(|done| *done),
            "what is configured was checked before"
        );
        if let Some((retries, (config, budget))) = self.retries.as_ref().zip(policy.retries()) {
            retries.configure(config, budget, now);
        }
    }
}

/// What was there, or what is made; nothing where nothing is wanted.
fn kept_or<C, T>(
    wanted: Option<C>,
    before: Option<T>,
    make: impl FnOnce(C) -> Result<T, ApplyError>,
) -> Result<Option<T>, ApplyError> {
    match (wanted, before) {
        (None, _) => Ok(None),
        (Some(_), Some(before)) => Ok(Some(before)),
        (Some(config), None) => make(config).map(Some),
    }
}
