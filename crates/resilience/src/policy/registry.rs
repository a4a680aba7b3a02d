//! Policies in force: documents become stacks, and documents that change become other stacks without losing anything.
//!
//! Read, prove, then swap: either all documents hold from one moment on, or what held before still does. What a policy is about
//! keeps its memory: an open circuit stays open, a spent budget spent, whoever has a place keeps it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use quorate_foundations::name::Name;

use super::{Document, Finding, Policy, prove};
use crate::{
    bulkhead::{self, Bulkhead},
    circuit_breaker::{self, Breaker, Full},
    dice::Dice,
    rate_limit::{self, Limiter, Rate},
    retry::{self, BudgetConfig, Retries},
    stack::{BuildError, Builder, ConfigError, Current, Live, Memory, Stack, Stacks},
};

/// The policies of a process, by what they apply to. Cheap to clone; clones are the same registry.
///
/// A policy applies to each of its targets by itself, or, if it names none, to what it is called itself: each of these
/// dependencies has a circuit, a budget, a limit of its own.
///
/// # Example
/// ```
/// use quorate_foundations::document::Format;
/// use quorate_resilience::{
///     circuit_breaker,
///     kit::{Reply, Upstream},
///     policy::{Document, Registry},
///     stack::{Plain, Stacks},
///     timeout::Timers,
/// };
/// use quorate_runtime::Env;
/// use tower_layer::Layer as _;
/// use tower_service::Service as _;
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let env = Env::real();
/// let (stacks, breakers) = (Stacks::new(&Timers::new(&env)), circuit_breaker::Registry::new(&env));
/// let policies = Registry::new(&stacks, &breakers);
///
/// let upstream = Upstream::new(&env);
/// upstream.script([Reply::Fail]);
/// let stack = policies.stack(&"ledger".parse()?, Plain::idempotent().judged_by(Upstream::judge))?;
/// let mut ledger = stack.layer(upstream.clone());
/// assert!(ledger.call(7).await.is_err(), "nothing is declared yet, so nothing is sent again");
///
/// let text = "{kind: ResiliencePolicy, metadata: {name: ledger}, spec: {retry: {attempts: 2}}}";
/// policies.apply(&Document::read_all(text, Format::Yaml)?)?;
/// upstream.script([Reply::Fail]);
/// assert_eq!(ledger.call(7).await?, 7, "the service that is there already heeds it");
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Registry {
    inner: Arc<Inner>,
}

struct Inner {
    stacks: Stacks,
    breakers: circuit_breaker::Registry,
    known: Mutex<BTreeMap<Name, Entry>>,
}

/// One dependency.
#[derive(Clone)]
struct Entry {
    /// `None` while none is declared.
    policy: Option<Arc<Policy>>,
    parts: Parts,
    memory: Arc<Memory>,
    current: Arc<Current>,
}

/// What has a memory of its own.
#[derive(Clone, Default)]
struct Parts {
    limiter: Option<Arc<Limiter>>,
    breaker: Option<Arc<Breaker>>,
    bulkhead: Option<Arc<Bulkhead>>,
    retries: Option<Arc<Retries>>,
}

/// What became of the policies that are in force, by the names of dependencies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Those that had none.
    pub added: Vec<Name>,
    /// Those whose policy is another one.
    pub changed: Vec<Name>,
    /// Those that have none any more.
    pub removed: Vec<Name>,
}

/// Why documents didn't come into force. What held before still does.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ApplyError {
    /// Something in them can't work.
    #[error("{} of the policies cannot work: {}", .0.len(), .0.first().map_or_else(String::new, |finding| finding.fault.to_string()))]
    Impossible(Vec<Finding>),
    /// Two of them apply to the same dependency.
    #[error("`{dependency}` has two policies: `{first}` and `{second}`")]
    Twice {
        /// What they both apply to.
        dependency: Name,
        /// The policy that came first.
        first: Name,
        /// The policy that came after it.
        second: Name,
    },
    /// There are too many of them.
    #[error("policies apply to {count} dependencies, and at most {} may have one", Registry::MOST)]
    TooMany {
        /// How many there are.
        count: usize,
    },
    /// There can't be so many circuit breakers.
    #[error("a circuit breaker cannot be made")]
    Breakers(#[from] Full),
    /// A stack can't be as it is written.
    #[error("the policy for `{dependency}` makes no stack")]
    Stack {
        /// The dependency.
        dependency: Name,
        /// Why.
        #[source]
        cause: ConfigError,
    },
    /// A stack that isn't of this registry has the name.
    #[error(transparent)]
    Known(#[from] BuildError),
}

/// How the calls to one dependency stand.
#[derive(Clone, Debug)]
pub struct Standing {
    /// The dependency.
    pub dependency: Name,
    /// What its calls pass.
    pub policy: Arc<Policy>,
    /// What became of calls, with the word for it.
    pub outcomes: Vec<(&'static str, u64)>,
    /// How its circuit stands.
    pub breaker: Option<circuit_breaker::Snapshot>,
    /// How many are under way, and how many wait.
    pub bulkhead: Option<bulkhead::Snapshot>,
    /// What was sent again.
    pub retries: Option<retry::Counts>,
    /// What is left of the rate.
    pub limit: Option<rate_limit::Standing>,
}

impl Registry {
    /// To how many dependencies policies may apply.
    pub const MOST: usize = 1_000;

    /// A registry in which nothing is declared. Its stacks count among `stacks`, and its circuits are those of `breakers`, each
    /// under the name of its dependency.
    pub fn new(stacks: &Stacks, breakers: &circuit_breaker::Registry) -> Self {
        let inner = Inner { stacks: stacks.clone(), breakers: breakers.clone(), known: Mutex::default() };
        Self { inner: Arc::new(inner) }
    }

    /// Whether `documents` could come into force together.
    ///
    /// # Errors
    /// [`ApplyError`], of those that can be told without making anything.
    pub fn check(documents: &[Document]) -> Result<(), ApplyError> {
        dependencies(documents).map(|_| ())
    }

    /// Lets `documents` be all the policies there are.
    ///
    /// # Errors
    /// [`ApplyError`]: nothing changed.
    pub fn apply(&self, documents: &[Document]) -> Result<Changes, ApplyError> {
        let wanted = dependencies(documents)?;
        let mut known = self.lock();
        known.retain(|_, entry| entry.policy.is_some() || Arc::strong_count(&entry.current) > 1);
        // Everything that can fail comes first.
        let mut next = Vec::new();
        let (mut changes, gone) = (Changes::default(), gone(&known, &wanted));
        for (name, policy) in wanted {
            let before = known.get(&name);
            if before.and_then(|entry| entry.policy.as_deref()) == Some(policy) {
                continue;
            }
            let parts = self.parts(&name, policy, before.map(|entry| &entry.parts))?;
            let memory = before.map_or_else(|| Arc::new(Memory::new()), |entry| entry.memory.clone());
            let stack = self.build(&name, Some(policy), &parts, &memory)?;
            let declared = before.is_some_and(|entry| entry.policy.is_some());
            if declared { &mut changes.changed } else { &mut changes.added }.push(name.clone());
            next.push((name, policy.clone(), parts, memory, stack));
        }
        let mut without = Vec::new();
        for name in gone {
            let memory = known.get(&name).map_or_else(|| Arc::new(Memory::new()), |entry| entry.memory.clone());
            without.push((self.build(&name, None, &Parts::default(), &memory)?, name));
        }
        let fresh = next.iter().filter(|(name, ..)| !known.contains_key(name));
        let fresh: Vec<(Name, Arc<Current>)> =
            fresh.map(|(name, .., stack)| (name.clone(), Arc::new(Current::new(stack.clone())))).collect();
        for (name, current) in &fresh {
            self.inner.stacks.know_live(name, current)?;
        }
        let mut fresh: BTreeMap<Name, Arc<Current>> = fresh.into_iter().collect();
        // From here on nothing does.
        for (name, policy, parts, memory, stack) in next {
            self.configure(&policy, &parts);
            let current = fresh.remove(&name).or_else(|| {
                let current = known.get(&name)?.current.clone();
                current.replace(stack);
                Some(current)
            });
            let Some(current) = current else { unreachable!("it is known, or was made") };
            known.insert(name, Entry { policy: Some(Arc::new(policy)), parts, memory, current });
        }
        for (stack, name) in without {
            if let Some(entry) = known.get_mut(&name) {
                entry.current.replace(stack);
                (entry.policy, entry.parts) = (None, Parts::default());
            }
            self.inner.breakers.forget_idle(&name);
            changes.removed.push(name);
        }
        for name in &changes.changed {
            if known.get(name).is_some_and(|entry| entry.parts.breaker.is_none()) {
                self.inner.breakers.forget_idle(name);
            }
        }
        known.retain(|_, entry| entry.policy.is_some() || Arc::strong_count(&entry.current) > 1);
        Ok(changes)
    }

    /// The policies of a dependency as a layer, for requests and answers that `protocol` understands. While none are declared it
    /// lets everything through; once some are, calls pass them.
    ///
    /// # Errors
    /// [`ApplyError::Known`]: there is a stack of this name that isn't this registry's.
    pub fn stack<P>(&self, dependency: &Name, protocol: P) -> Result<Live<P>, ApplyError> {
        let mut known = self.lock();
        if let Some(entry) = known.get(dependency) {
            return Ok(Live::new(entry.current.clone(), protocol));
        }
        known.retain(|_, entry| entry.policy.is_some() || Arc::strong_count(&entry.current) > 1);
        let (parts, memory) = (Parts::default(), Arc::new(Memory::new()));
        let current = Arc::new(Current::new(self.build(dependency, None, &parts, &memory)?));
        self.inner.stacks.know_live(dependency, &current)?;
        known.insert(dependency.clone(), Entry { policy: None, parts, memory, current: current.clone() });
        Ok(Live::new(current, protocol))
    }

    /// How the calls to every dependency stand that has a policy, in order of names.
    pub fn standings(&self) -> Vec<Standing> {
        let known = self.lock().clone();
        known.into_iter().filter_map(|(name, entry)| self.standing_of(name, &entry)).collect()
    }

    /// How the calls to one dependency stand, if it has a policy.
    pub fn standing(&self, dependency: &Name) -> Option<Standing> {
        let entry = self.lock().get(dependency).cloned()?;
        self.standing_of(dependency.clone(), &entry)
    }

    /// Forgets what was taken from the rate limit of a dependency. Returns whether it has one.
    pub fn reset_limit(&self, dependency: &Name) -> bool {
        let limiter = self.lock().get(dependency).and_then(|entry| entry.parts.limiter.clone());
        limiter.inspect(|limiter| limiter.reset()).is_some()
    }

    fn standing_of(&self, dependency: Name, entry: &Entry) -> Option<Standing> {
        let now = self.inner.stacks.timers().env().mono();
        let Parts { limiter, breaker, bulkhead, retries } = &entry.parts;
        Some(Standing {
            dependency,
            policy: entry.policy.clone()?,
            outcomes: entry.memory.outcomes(),
            breaker: breaker.as_ref().map(|breaker| breaker.snapshot(now)),
            bulkhead: bulkhead.as_ref().map(|bulkhead| bulkhead.snapshot()),
            retries: retries.as_ref().map(|retries| retries.counts(now)),
            limit: limiter.as_ref().map(|limiter| limiter.standing(now)),
        })
    }

    /// What a policy needs: of what is there already the same, as it is configured still.
    fn parts(&self, name: &Name, policy: &Policy, before: Option<&Parts>) -> Result<Parts, ApplyError> {
        let env = self.inner.stacks.timers().env();
        let wrong = |cause| ApplyError::Stack { dependency: name.clone(), cause };
        let now = env.mono();
        if let Some(rate) = &policy.rate_limit {
            rate.check().map_err(|cause| wrong(ConfigError::Limit(cause)))?;
        }
        if let Some(config) = &policy.concurrency {
            config.check().map_err(|cause| wrong(ConfigError::Bulkhead(cause)))?;
        }
        if let Some(config) = &policy.breaker {
            config.check().map_err(|cause| wrong(ConfigError::Breaker(cause)))?;
        }
        let limiter = |rate: Rate| Limiter::new(rate).map(Arc::new).map_err(|cause| wrong(ConfigError::Limit(cause)));
        let bulkhead = |config: &bulkhead::Config| {
            Bulkhead::new(config.clone(), now).map(Arc::new).map_err(|cause| wrong(ConfigError::Bulkhead(cause)))
        };
        let retries = |(config, budget): (retry::Config, BudgetConfig)| {
            let dice = Dice::from_rng(&mut env.random("retry"));
            Ok::<_, ApplyError>(Arc::new(Retries::new(config, budget, dice)))
        };
        let breaker = |config: &circuit_breaker::Config| match self.inner.breakers.get(name) {
            Some(known) => Ok(known),
            None => self.inner.breakers.breaker(name, config),
        };
        Ok(Parts {
            limiter: kept_or(policy.rate_limit, before.and_then(|parts| parts.limiter.clone()), limiter)?,
            bulkhead: kept_or(policy.concurrency.as_ref(), before.and_then(|parts| parts.bulkhead.clone()), bulkhead)?,
            retries: kept_or(policy.retries(), before.and_then(|parts| parts.retries.clone()), retries)?,
            breaker: policy.breaker.as_ref().map(breaker).transpose()?,
        })
    }

    /// Lets what a policy says hold for what has a memory. All of it was checked.
    fn configure(&self, policy: &Policy, parts: &Parts) {
        let now = self.inner.stacks.timers().env().mono();
        let limit =
            parts.limiter.as_ref().zip(policy.rate_limit).map(|(limiter, rate)| limiter.configure(rate, now).is_ok());
        let breaker = parts.breaker.as_ref().zip(policy.breaker.clone());
        let breaker = breaker.map(|(breaker, config)| breaker.configure(config, now).is_ok());
        let bulkhead = parts.bulkhead.as_ref().zip(policy.concurrency.clone());
        let bulkhead = bulkhead.map(|(bulkhead, config)| bulkhead.configure(config, now).is_ok());
        assert!([limit, breaker, bulkhead].iter().flatten().all(|done| *done), "what is configured was checked before");
        if let Some((retries, (config, budget))) = parts.retries.as_ref().zip(policy.retries()) {
            retries.configure(config, budget, now);
        }
    }

    fn build(
        &self,
        name: &Name,
        policy: Option<&Policy>,
        parts: &Parts,
        memory: &Arc<Memory>,
    ) -> Result<Stack<()>, ApplyError> {
        let mut builder: Builder = Stack::builder(name.clone()).remembering(memory.clone());
        if let Some(policy) = policy {
            builder = builder.timeouts(policy.timeouts);
            if let Some(hedge) = policy.hedge {
                builder = builder.hedge(hedge);
            }
        }
        let Parts { limiter, breaker, bulkhead, retries } = parts.clone();
        builder = limiter.into_iter().fold(builder, Builder::shared_limit);
        builder = breaker.into_iter().fold(builder, Builder::shared_endpoint_breaker);
        builder = bulkhead.into_iter().fold(builder, Builder::shared_bulkhead);
        builder = retries.into_iter().fold(builder, Builder::shared_retry);
        builder
            .build(self.inner.stacks.timers(), ())
            .map_err(|cause| ApplyError::Stack { dependency: name.clone(), cause })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Name, Entry>> {
        self.inner.known.lock().unwrap_or_else(PoisonError::into_inner)
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

/// Which policy applies to what.
fn dependencies(documents: &[Document]) -> Result<BTreeMap<Name, &Policy>, ApplyError> {
    let mut applies: BTreeMap<Name, &Policy> = BTreeMap::new();
    for policy in documents.iter().map(Document::policy) {
        for dependency in policy.dependencies() {
            if let Some(first) = applies.insert(dependency.clone(), policy) {
                let (dependency, first, second) = (dependency.clone(), first.name.clone(), policy.name.clone());
                return Err(ApplyError::Twice { dependency, first, second });
            }
        }
    }
    if applies.len() > Registry::MOST {
        return Err(ApplyError::TooMany { count: applies.len() });
    }
    let findings = prove(documents);
    if findings.is_empty() { Ok(applies) } else { Err(ApplyError::Impossible(findings)) }
}

/// Those that have a policy and won't.
fn gone(known: &BTreeMap<Name, Entry>, wanted: &BTreeMap<Name, &Policy>) -> BTreeSet<Name> {
    let declared = known.iter().filter(|(_, entry)| entry.policy.is_some()).map(|(name, _)| name);
    declared.filter(|name| !wanted.contains_key(*name)).cloned().collect()
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.lock().keys()).finish()
    }
}

#[cfg(test)]
mod tests;
