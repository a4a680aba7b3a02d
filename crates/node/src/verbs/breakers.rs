//! Circuit breakers by name: how they stand, and what an operator asks of them.

use quorate_foundations::name::Name;
use quorate_resilience::circuit_breaker::{Mode, Registry, Snapshot};
use quorate_runtime::Env;

/// The verbs on circuit breakers. Cheap to clone.
///
/// What is asked of a breaker holds in this process until it is asked for something else or the process ends.
#[derive(Clone)]
pub struct Breakers {
    env: Env,
    registry: Registry,
}

/// There is no breaker of that name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no circuit breaker is called `{name}`")]
pub struct NoBreaker {
    /// The name.
    pub name: Name,
}

impl Breakers {
    /// The verbs on an empty registry whose metrics `env` serves.
    pub fn new(env: &Env) -> Self {
        Self { env: env.clone(), registry: Registry::new(env) }
    }

    /// The breakers themselves: to make some, and to call through them.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// How each breaker stands, at most `limit` of those behind `after`, in order of their names.
    pub fn list(&self, after: Option<&Name>, limit: usize) -> Vec<(Name, Snapshot)> {
        let behind = |(name, _): &(Name, Snapshot)| after.is_none_or(|after| name > after);
        self.registry.snapshots().into_iter().filter(behind).take(limit).collect()
    }

    /// How a breaker stands.
    ///
    /// # Errors
    /// [`NoBreaker`].
    pub fn describe(&self, name: &Name) -> Result<Snapshot, NoBreaker> {
        let breaker = self.registry.get(name).ok_or_else(|| NoBreaker { name: name.clone() })?;
        Ok(breaker.snapshot(self.env.mono()))
    }

    /// Changes the mode of a breaker, which then is closed if it isn't forced open. Returns how it stands.
    ///
    /// # Errors
    /// [`NoBreaker`].
    pub fn operate(&self, name: &Name, mode: Mode) -> Result<Snapshot, NoBreaker> {
        let (breaker, now) =
            (self.registry.get(name).ok_or_else(|| NoBreaker { name: name.clone() })?, self.env.mono());
        breaker.operate(mode, now);
        Ok(breaker.snapshot(now))
    }

    /// Closes a breaker and forgets what was counted, also of the circuits of its endpoints and operations; the mode of each stays.
    /// Returns how it stands.
    ///
    /// # Errors
    /// [`NoBreaker`].
    pub fn reset(&self, name: &Name) -> Result<Snapshot, NoBreaker> {
        self.registry.reset(name).ok_or_else(|| NoBreaker { name: name.clone() })
    }
}
