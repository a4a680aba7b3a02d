//! Stacks, and how they are put together.

use std::{sync::Arc, time::Duration};

use quorate_foundations::name::Name;
use quorate_runtime::Env;
use tower_layer::Layer;

use super::{
    policies::{Counts, Policies},
    service::Guarded,
};
use crate::{
    circuit_breaker::{self, Breaker},
    dice::Dice,
    retry::{self, Repeatable, Retries},
};

/// The policies of one dependency, as a layer. Cheap to clone; all clones, and all services they are around, share the
/// policies: a circuit that opens is open for all of them.
#[derive(Clone)]
pub struct Stack<P> {
    policies: Arc<Policies>,
    protocol: P,
}

/// Puts a stack together. The order of calls is of no account: the order of policies is always the same.
#[derive(Debug)]
#[must_use = "a builder does nothing until `build`"]
pub struct Builder {
    name: Name,
    total: Option<Duration>,
    breaker: Part<circuit_breaker::Config, Breaker>,
    retry: Part<(retry::Config, retry::BudgetConfig), Retries>,
    endpoint: Part<circuit_breaker::Config, Breaker>,
    attempt: Option<Duration>,
}

/// A policy to be made, or one that others share.
#[derive(Debug)]
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
        Builder { name, total: None, breaker: Part::Absent, retry: Part::Absent, endpoint: Part::Absent, attempt: None }
    }
}

impl<P> Stack<P> {
    /// What became of calls so far, with a word for each thing that can: `success`, `fault`, `timeout_attempt`, …
    pub fn counts(&self) -> Vec<(&'static str, u64)> {
        self.policies.counts.all().collect()
    }
}

impl Policies {
    /// Whether this hop takes it upon itself to retry a call: then the hops behind it don't.
    pub(super) fn claims(&self, repeatable: Repeatable) -> bool {
        repeatable != Repeatable::No && self.retries.as_ref().is_some_and(|retries| retries.attempts() > 1)
    }
}

impl Builder {
    /// How long a call may take, with all attempts and waits. A deadline that the call brings holds as well.
    pub fn total(mut self, span: Duration) -> Self {
        self.total = Some(span);
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

    /// How long one attempt may take.
    pub fn attempt(mut self, span: Duration) -> Self {
        self.attempt = Some(span);
        self
    }

    /// The stack, for requests and answers that `protocol` understands.
    ///
    /// # Errors
    /// [`ConfigError`](circuit_breaker::ConfigError): a breaker can't be as it was asked for.
    pub fn build<P>(self, env: &Env, protocol: P) -> Result<Stack<P>, circuit_breaker::ConfigError> {
        let dice = |purpose| Dice::from_rng(&mut env.random(purpose));
        let now = env.mono();
        let circuit = |config| Breaker::new(config, dice("circuit breaker"), now);
        let retries = |(config, budget)| Ok(Retries::new(config, budget, dice("retry")));
        let policies = Policies {
            env: env.clone(),
            name: self.name,
            total: self.total,
            breaker: self.breaker.build(circuit)?,
            retries: self.retry.build(retries)?,
            endpoint: self.endpoint.build(circuit)?,
            attempt: self.attempt,
            counts: Counts::new(),
        };
        Ok(Stack { policies: Arc::new(policies), protocol })
    }
}

impl<S, P: Clone> Layer<S> for Stack<P> {
    type Service = Guarded<S, P>;

    fn layer(&self, service: S) -> Self::Service {
        Guarded::new(service, self.policies.clone(), self.protocol.clone())
    }
}
