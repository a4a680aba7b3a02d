//! Policies in force: documents become stacks, and documents that change become other stacks without losing anything.
//!
//! Read, prove, then swap: either all documents hold from one moment on, or what held before still does. What a policy is about
//! keeps its memory: an open circuit stays open, a spent budget spent, whoever has a place keeps it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use quorate_foundations::{name::Name, time::Mono};

use super::{
    Document, Finding, Policy,
    parts::{Circuits, Limit, Parts},
    prove,
};
use crate::{
    bulkhead,
    circuit_breaker::{self, Full, Snapshot},
    rate_limit::{self, Quota, Unavailable},
    retry,
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

pub(super) struct Inner {
    pub(super) stacks: Stacks,
    pub(super) breakers: circuit_breaker::Registry,
    /// Who counts for several processes.
    pub(super) quota: Option<Arc<dyn Quota>>,
    known: Mutex<BTreeMap<Name, Entry>>,
    /// Held by whoever applies documents, from the first look at what is known until circuits go by them.
    applying: Mutex<()>,
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
    /// Two circuits would have one name.
    #[error("`{dependency}` is a name of circuits of `{of}`, which has one for each endpoint or operation")]
    Within {
        /// What a policy applies to.
        dependency: Name,
        /// Another one.
        of: Name,
    },
    /// A store is to count, and none does here.
    #[error("the rate of `{dependency}` is to be counted by the store, and there is none")]
    NoCount {
        /// The dependency.
        dependency: Name,
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
    /// How its circuit stands; where endpoints or operations have their own, the one that is for what has none.
    pub breaker: Option<Snapshot>,
    /// Those of endpoints or operations, where they have any.
    pub circuits: Option<Apart>,
    /// How many are under way, and how many wait.
    pub bulkhead: Option<bulkhead::Snapshot>,
    /// What was sent again.
    pub retries: Option<retry::Counts>,
    /// What is left of the rate; `None` where there is none, or the store counts.
    pub limit: Option<rate_limit::Standing>,
    /// How many calls were decided without the store's count; `None` where it doesn't count.
    pub uncounted: Option<u64>,
}

/// The circuits of a dependency's endpoints or operations.
#[derive(Clone, Debug)]
pub struct Apart {
    /// How each stands, in order of names.
    pub all: Vec<(Name, Snapshot)>,
    /// How often an attempt passed the dependency's own circuit since there was no room for another.
    pub crowded: u64,
}

impl Apart {
    fn of(each: &circuit_breaker::Each, now: Mono) -> Self {
        Self { all: each.snapshots(now), crowded: each.crowded() }
    }
}

impl Registry {
    /// To how many dependencies policies may apply.
    pub const MOST: usize = 1_000;

    /// A registry in which nothing is declared. Its stacks count among `stacks`, and its circuits are those of `breakers`, each
    /// under the name of its dependency.
    pub fn new(stacks: &Stacks, breakers: &circuit_breaker::Registry) -> Self {
        Self::of(stacks, breakers, None)
    }

    /// The same, with `quota` keeping the counts of rates for several processes, each under the name of its dependency.
    pub fn counting_in(stacks: &Stacks, breakers: &circuit_breaker::Registry, quota: Arc<dyn Quota>) -> Self {
        Self::of(stacks, breakers, Some(quota))
    }

    fn of(stacks: &Stacks, breakers: &circuit_breaker::Registry, quota: Option<Arc<dyn Quota>>) -> Self {
        let inner = Inner {
            stacks: stacks.clone(),
            breakers: breakers.clone(),
            quota,
            known: Mutex::default(),
            applying: Mutex::default(),
        };
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
        let _applying = self.inner.applying.lock().unwrap_or_else(PoisonError::into_inner);
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
            let parts = Parts::of(&self.inner, &name, policy, before.map(|entry| &entry.parts))?;
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
        let (mut circuits, mut configured): (Vec<Circuits>, _) = (Vec::new(), Vec::new());
        for (name, policy, parts, memory, stack) in next {
            let policy = Arc::new(policy);
            configured.push((parts.clone(), policy.clone()));
            let current = fresh.remove(&name).or_else(|| {
                let current = known.get(&name)?.current.clone();
                current.replace(stack);
                Some(current)
            });
            let Some(current) = current else { unreachable!("it is known, or was made") };
            let entry = Entry { policy: Some(policy), parts, memory, current };
            circuits.extend(known.insert(name, entry).and_then(|before| before.parts.circuits));
        }
        for (stack, name) in without {
            if let Some(entry) = known.get_mut(&name) {
                entry.current.replace(stack);
                circuits.extend(entry.parts.take().circuits);
                entry.policy = None;
            }
            changes.removed.push(name);
        }
        // What is still in use is held, and stays. Those of endpoints and operations go when the last of them is done with.
        let names: Vec<Name> = circuits.iter().map(|circuits| circuits.name().clone()).collect();
        drop(circuits);
        names.iter().for_each(|name| self.inner.breakers.forget_idle(name));
        known.retain(|_, entry| entry.policy.is_some() || Arc::strong_count(&entry.current) > 1);
        // Whoever hears what circuits make of it may ask for any of them: nothing is locked but against others who apply.
        drop(known);
        let now = self.inner.stacks.timers().env().mono();
        configured.iter().for_each(|(parts, policy)| parts.configure(policy, now));
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

    /// Forgets what was taken from the rate limit of a dependency, by all processes that share its count. Returns whether it has one.
    ///
    /// # Errors
    /// [`Unavailable`]: a store counts, and whether it has forgotten is unknown.
    pub async fn reset_limit(&self, dependency: &Name) -> Result<bool, Unavailable> {
        let limit = self.lock().get(dependency).and_then(|entry| entry.parts.limit.clone());
        match &limit {
            Some(limit) => limit.reset().await.map(|()| true),
            None => Ok(false),
        }
    }

    fn standing_of(&self, dependency: Name, entry: &Entry) -> Option<Standing> {
        let now = self.inner.stacks.timers().env().mono();
        let Parts { limit, circuits, bulkhead, retries, counts: _ } = &entry.parts;
        Some(Standing {
            dependency,
            policy: entry.policy.clone()?,
            outcomes: entry.memory.outcomes(),
            breaker: circuits.as_ref().map(|circuits| circuits.own().snapshot(now)),
            circuits: circuits.as_ref().and_then(Circuits::each).map(|each| Apart::of(each, now)),
            bulkhead: bulkhead.as_ref().map(|bulkhead| bulkhead.snapshot()),
            retries: retries.as_ref().map(|retries| retries.counts(now)),
            limit: limit.as_ref().and_then(|limit| limit.standing(now)),
            uncounted: limit.as_ref().and_then(Limit::uncounted),
        })
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
        let Parts { limit, circuits, bulkhead, retries, counts: _ } = parts.clone();
        builder = limit.into_iter().fold(builder, |builder, limit| limit.into_stack(builder));
        builder = circuits.into_iter().fold(builder, |builder, circuits| circuits.into_stack(builder));
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
    for (of, _) in applies.iter().filter(|(_, policy)| policy.circuits.is_some()) {
        let begins = |name: &&Name| name.as_str().strip_prefix(of.as_str()).is_some_and(|rest| rest.starts_with('/'));
        if let Some(dependency) = applies.keys().find(begins) {
            return Err(ApplyError::Within { dependency: dependency.clone(), of: of.clone() });
        }
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
