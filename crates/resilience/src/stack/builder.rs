//! Stacks, and how they are put together.

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use quorate_foundations::name::Name;
use tower_layer::Layer;

use super::{
    Timed,
    policies::{Endpoint, Limit, Memory, Policies},
    service::Guarded,
};
use crate::{
    bulkhead::{self, Bulkhead},
    circuit_breaker::{self, Breaker, Each, Split},
    dice::Dice,
    hedge,
    rate_limit::{self, Limiter, Rate, Shared},
    retry::{self, Repeatable, Retries},
    timeout::{self, Timers},
};

/// The policies of one dependency, as a layer. Cheap to clone; all clones, and all services they are around, share the
/// policies: a circuit that opens is open for all of them.
#[derive(Clone)]
pub struct Stack<P> {
    pub(super) policies: Arc<Policies>,
    protocol: P,
}

/// Puts a stack together. The order of calls is of no account: the order of policies is always the same.
#[must_use = "a builder does nothing until `build`"]
pub struct Builder {
    name: Name,
    limit: Part<Rate, Limiter>,
    /// In place of `limit`.
    counted: Option<(Shared, Name)>,
    timeout: timeout::Config,
    breaker: Part<circuit_breaker::Config, Breaker>,
    bulkhead: Part<bulkhead::Config, Bulkhead>,
    retry: Part<(retry::Config, retry::BudgetConfig), Retries>,
    hedge: Option<hedge::Config>,
    endpoint: Part<circuit_breaker::Config, Breaker>,
    /// In place of `endpoint`.
    each: Part<(circuit_breaker::Config, Split), Each>,
    memory: Option<Arc<Memory>>,
}

/// A policy to be made, or one that others share.
enum Part<C, T> {
    Absent,
    Made(C),
    Shared(Arc<T>),
}

impl<C, T> Part<C, T> {
    fn build<E>(self, make: impl FnOnce(C) -> Result<T, E>) -> Result<Option<Arc<T>>, E> {
        match self {
            Self::Absent => Ok(None),
            Self::Made(config) => make(config).map(|made| Some(Arc::new(made))),
            Self::Shared(shared) => Ok(Some(shared)),
        }
    }
}

impl Stack<()> {
    /// A stack without policies for the dependency called `name`.
    pub fn builder(name: Name) -> Builder {
        Builder {
            name,
            limit: Part::Absent,
            counted: None,
            timeout: timeout::Config { total: None, attempt: None, idle: None, refuse_hopeless: true },
            breaker: Part::Absent,
            bulkhead: Part::Absent,
            retry: Part::Absent,
            hedge: None,
            endpoint: Part::Absent,
            each: Part::Absent,
            memory: None,
        }
    }
}

impl std::fmt::Debug for Builder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Builder").field("name", &self.name).finish_non_exhaustive()
    }
}

impl<P> Stack<P> {
    /// What became of calls so far, with a word for each thing that can: `success`, `fault`, `timeout_attempt`, …
    pub fn counts(&self) -> Vec<(&'static str, u64)> {
        self.policies.memory.counts.all().collect()
    }
}

impl Policies {
    /// Whether this hop takes it upon itself to retry a call: then the hops behind it don't.
    pub(super) fn claims(&self, repeatable: Repeatable) -> bool {
        let retries = self.retries.as_ref().is_some_and(|retries| retries.attempts() > 1);
        repeatable != Repeatable::No && (retries || self.hedge.is_some())
    }
}

impl Builder {
    /// How long a call may take, with all attempts and waits. A deadline that the call brings holds as well.
    pub fn total(mut self, span: Duration) -> Self {
        self.timeout.total = Some(span);
        self
    }

    /// A circuit for the whole dependency.
    pub fn breaker(mut self, config: circuit_breaker::Config) -> Self {
        self.breaker = Part::Made(config);
        self
    }

    /// A circuit for the whole dependency that others share, say one of a [`Registry`](circuit_breaker::Registry).
    pub fn shared_breaker(mut self, breaker: Arc<Breaker>) -> Self {
        self.breaker = Part::Shared(breaker);
        self
    }

    /// How many calls at once, and who waits.
    pub fn bulkhead(mut self, config: bulkhead::Config) -> Self {
        self.bulkhead = Part::Made(config);
        self
    }

    /// A bulkhead that others share.
    pub fn shared_bulkhead(mut self, bulkhead: Arc<Bulkhead>) -> Self {
        self.bulkhead = Part::Shared(bulkhead);
        self
    }

    /// When a call is sent a second time because its answer is late. Only what may be done twice is, by the hop that
    /// retries, and within the budget of retries; a stack without one gets the usual one, and sends nothing again that failed.
    pub fn hedge(mut self, config: hedge::Config) -> Self {
        self.hedge = Some(config);
        self
    }

    /// How calls are sent again, and how many retries the dependency is asked to bear.
    pub fn retry(mut self, config: retry::Config, budget: retry::BudgetConfig) -> Self {
        self.retry = Part::Made((config, budget));
        self
    }

    /// Rules of retrying, with their budget, that others share.
    pub fn shared_retry(mut self, retries: Arc<Retries>) -> Self {
        self.retry = Part::Shared(retries);
        self
    }

    /// A circuit for the endpoint, which every attempt passes.
    pub fn endpoint_breaker(mut self, config: circuit_breaker::Config) -> Self {
        self.endpoint = Part::Made(config);
        self
    }

    /// A circuit for the endpoint that others share.
    pub fn shared_endpoint_breaker(mut self, breaker: Arc<Breaker>) -> Self {
        self.endpoint = Part::Shared(breaker);
        self
    }

    /// A circuit for each endpoint or operation, as the protocol [tells them](super::Requests::asked), in place of one for all.
    pub fn endpoint_breakers(mut self, config: circuit_breaker::Config, split: Split) -> Self {
        self.each = Part::Made((config, split));
        self
    }

    /// Circuits of endpoints or operations that others share, say those of a policy, in place of one for all.
    pub fn shared_endpoint_breakers(mut self, each: Arc<Each>) -> Self {
        self.each = Part::Shared(each);
        self
    }

    /// How long one attempt may take.
    pub fn attempt(mut self, span: Duration) -> Self {
        self.timeout.attempt = Some(span);
        self
    }

    /// All times at once.
    pub fn timeouts(mut self, config: timeout::Config) -> Self {
        self.timeout = config;
        self
    }

    /// How many calls the dependency is asked for in a time. Each call counts once, whatever its attempts.
    pub fn limit(mut self, rate: Rate) -> Self {
        self.limit = Part::Made(rate);
        self
    }

    /// A rate limit that others share.
    pub fn shared_limit(mut self, limiter: Arc<Limiter>) -> Self {
        self.limit = Part::Shared(limiter);
        self
    }

    /// A rate limit whose count several processes share, under `key`, in place of one that this process keeps. A call for which units
    /// are leased waits for nobody. Another one waits for the count, no longer than its own time, and what holds if that can't be
    /// asked was [declared](rate_limit::OnUnavailable).
    pub fn counted_limit(mut self, shared: Shared, key: Name) -> Self {
        self.counted = Some((shared, key));
        self
    }

    /// With what is known of the dependency's calls already.
    pub(crate) fn remembering(mut self, memory: Arc<Memory>) -> Self {
        self.memory = Some(memory);
        self
    }

    /// The stack, for requests and answers that `protocol` understands.
    ///
    /// # Errors
    /// [`ConfigError`]: a policy can't be as it was asked for.
    pub fn build<P>(mut self, timers: &Timers, protocol: P) -> Result<Stack<P>, ConfigError> {
        self.timeout.check()?;
        if let Some(hedge) = &self.hedge {
            hedge.check()?;
            if let Part::Absent = self.retry {
                let once = retry::Config { attempts: NonZeroU32::MIN, ..retry::Config::default() };
                self.retry = Part::Made((once, retry::BudgetConfig::default()));
            }
        }
        let env = timers.env();
        let dice = |purpose| Dice::from_rng(&mut env.random(purpose));
        let now = env.mono();
        let circuit = |config| Breaker::new(config, dice("circuit breaker"), now).map_err(ConfigError::Breaker);
        let name = self.name.clone();
        let each = |(config, split)| Each::alone(env, name, config, split).map_err(ConfigError::Breaker);
        let endpoint = match self.each.build(each)? {
            Some(each) => Endpoint::Each(each),
            None => self.endpoint.build(circuit)?.map_or(Endpoint::None, Endpoint::One),
        };
        let retries = |(config, budget)| Ok::<_, ConfigError>(Retries::new(config, budget, dice("retry")));
        let own = self.limit.build(|rate| Limiter::new(rate).map_err(ConfigError::Limit))?;
        let limit = match self.counted {
            Some((shared, key)) => Limit::Shared(shared, key),
            None => own.map_or(Limit::None, Limit::Own),
        };
        let policies = Policies {
            timers: timers.clone(),
            name: self.name,
            limit,
            timeout: self.timeout,
            breaker: self.breaker.build(circuit)?,
            bulkhead: self.bulkhead.build(|config| Bulkhead::new(config, now).map_err(ConfigError::Bulkhead))?,
            hedge: self.hedge,
            retries: self.retry.build(retries)?,
            endpoint,
            memory: self.memory.unwrap_or_else(|| Arc::new(Memory::new())),
        };
        Ok(Stack { policies: Arc::new(policies), protocol })
    }
}

/// Why a stack can't be as it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A breaker.
    #[error("the breaker can't be")]
    Breaker(#[source] circuit_breaker::ConfigError),
    /// The times.
    #[error("the timeouts can't be")]
    Timeout(#[from] timeout::ConfigError),
    /// The bulkhead.
    #[error("the bulkhead can't be")]
    Bulkhead(#[source] bulkhead::ConfigError),
    /// The hedge.
    #[error("the hedge can't be")]
    Hedge(#[from] hedge::ConfigError),
    /// The rate limit.
    #[error("the rate limit can't be")]
    Limit(#[source] rate_limit::ConfigError),
}

impl<P> Timed for Stack<P> {
    fn timers(&self) -> Timers {
        self.policies.timers.clone()
    }
}

impl<S, P: Clone> Layer<S> for Stack<P> {
    type Service = Guarded<S, P>;

    fn layer(&self, service: S) -> Self::Service {
        Guarded::new(service, self.policies.clone(), self.protocol.clone())
    }
}
