//! A limit that holds for several processes together: units are leased from whoever keeps the count.

use std::{
    collections::BTreeMap,
    num::{NonZeroU32, NonZeroUsize},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use quorate_foundations::{name::Name, time::Mono};
use quorate_runtime::{BoxFuture, Env};

use super::{
    Keyed, Rejected,
    config::{ConfigError, Rate},
    machine::{Gcra, Standing},
};

/// Who keeps the count of a limit that several processes share: a store, as a rule.
pub trait Quota: Send + Sync {
    /// Takes `least` to `most` units of `rate` from what `key` has, as many as there are, or none if there are fewer than
    /// `least`.
    ///
    /// # Errors
    /// [`Unavailable`]: whether units were taken is unknown. The limit stays true: they may be lost, never given twice.
    fn take<'a>(
        &'a self,
        key: &'a Name,
        rate: Rate,
        least: NonZeroU32,
        most: NonZeroU32,
    ) -> BoxFuture<'a, Result<Portion, Unavailable>>;
}

/// What a [`Quota`] gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Portion {
    /// So many units, and what is left there.
    Given {
        /// At least what was asked for.
        units: NonZeroU32,
        /// What is left.
        left: Standing,
    },
    /// Too few are there.
    Refused(Rejected),
}

/// Whoever keeps the count can't be asked.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the shared count can't be reached")]
pub struct Unavailable(#[source] pub Arc<dyn std::error::Error + Send + Sync>);

/// What holds while whoever keeps the count can't be reached. There is no default: each choice hurts somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnUnavailable {
    /// Calls pass. What is behind the limit must bear them.
    Allow,
    /// Calls are refused. An outage of the store is one of the service.
    Deny,
    /// Each process keeps to this rate by itself. Together they allow as many times as much as there are processes.
    Local(Rate),
}

/// How a shared limit is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharedConfig {
    /// The rate for each key, over all processes.
    pub rate: Rate,
    /// Up to how many units are leased at once. What is leased counts as taken, also if it is never used: of a burst, as
    /// many processes as there are may hold so many each. One asks for every call.
    pub portion: NonZeroU32,
    /// How long leased units may be used; unused ones are forgotten then.
    pub lease: Duration,
    /// How long an answer is waited for.
    pub patience: Duration,
    /// What holds when there is none.
    pub on_unavailable: OnUnavailable,
    /// Of how many keys units are held, at most; the others ask for every call.
    pub most_keys: NonZeroUsize,
}

/// A rate limit that several processes share. Cheap to clone; clones hold the same leases.
#[derive(Clone)]
pub struct Shared(Arc<Inner>);

struct Inner {
    env: Env,
    quota: Arc<dyn Quota>,
    config: SharedConfig,
    rule: Gcra,
    held: Mutex<BTreeMap<Name, Held>>,
    alone: Option<Keyed<Name>>,
}

#[derive(Clone, Copy)]
struct Held {
    units: u32,
    until: Mono,
    left: Standing,
}

/// What a shared limit allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowed {
    /// By which count.
    pub by: Count,
    /// What was left at that count when it was last heard of; `None` where nothing was counted.
    pub left: Option<Standing>,
}

/// Whose count was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Count {
    /// That of all processes.
    Shared,
    /// That of this process, as [`OnUnavailable::Local`] says.
    Alone,
    /// None, as [`OnUnavailable::Allow`] says.
    Nobodys,
}

/// Why a shared limit refused a call.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SharedRejected {
    /// By count.
    #[error(transparent)]
    Limit(#[from] Rejected),
    /// As [`OnUnavailable::Deny`] says.
    #[error("the shared limit can't be asked, and refuses meanwhile")]
    Unavailable(#[source] Unavailable),
    /// As [`OnUnavailable::Deny`] says, for there was no answer in time.
    #[error("the shared limit didn't answer within {patience:?}, and refuses meanwhile")]
    Silent {
        /// How long it was waited for.
        patience: Duration,
    },
}

impl Shared {
    /// A limit whose count `quota` keeps.
    ///
    /// # Errors
    /// [`ConfigError`]: a rate can't be.
    pub fn new(env: &Env, quota: Arc<dyn Quota>, config: SharedConfig) -> Result<Self, ConfigError> {
        let alone = match config.on_unavailable {
            OnUnavailable::Local(rate) => {
                Some(Keyed::new(rate, config.most_keys, env.random("shared rate limit").u64())?)
            }
            OnUnavailable::Allow | OnUnavailable::Deny => None,
        };
        let rule = Gcra::new(config.rate)?;
        let inner = Inner { env: env.clone(), quota, config, rule, held: Mutex::default(), alone };
        Ok(Self(Arc::new(inner)))
    }

    /// Takes `cost` units from what `key` has in all processes together.
    ///
    /// # Errors
    /// [`SharedRejected`], with the time until they could be had.
    ///
    /// # Cancel safety
    /// Units that were leased for a call that is dropped while it waits may be lost; none is given twice.
    pub async fn take(&self, key: &Name, cost: u32) -> Result<Allowed, SharedRejected> {
        let now = self.0.env.mono();
        let Some(cost) = NonZeroU32::new(cost) else { return Ok(Allowed { by: Count::Nobodys, left: None }) };
        if let Some(left) = self.spend_held(key, now, cost) {
            return Ok(Allowed { by: Count::Shared, left: Some(left) });
        }
        // Never more than a burst, or nothing would ever be given.
        let burst = self.0.rule.standing(0, now).burst;
        let most = NonZeroU32::new(self.0.config.portion.get().min(burst)).map_or(cost, |portion| portion.max(cost));
        let asked = self.0.quota.take(key, self.0.config.rate, cost, most);
        match self.0.env.timeout(self.0.config.patience, asked).await {
            Some(Ok(Portion::Given { units, left })) => {
                self.hold(key, self.0.env.mono(), units.get().saturating_sub(cost.get()), left);
                Ok(Allowed { by: Count::Shared, left: Some(left) })
            }
            Some(Ok(Portion::Refused(refused))) => Err(refused.into()),
            Some(Err(cause)) => self.without(key, cost, Some(cause)),
            None => self.without(key, cost, None),
        }
    }

    /// Takes `cost` units from what was leased for `key` before, without asking anybody. `None`: ask, through
    /// [`take`](Self::take).
    pub fn take_held(&self, key: &Name, cost: u32) -> Option<Allowed> {
        let left = self.spend_held(key, self.0.env.mono(), NonZeroU32::new(cost)?)?;
        Some(Allowed { by: Count::Shared, left: Some(left) })
    }

    /// Decides without the count.
    fn without(&self, key: &Name, cost: NonZeroU32, cause: Option<Unavailable>) -> Result<Allowed, SharedRejected> {
        tracing::warn!(
            key = key.as_str(),
            cause = cause.as_ref().map(|cause| cause.0.to_string()),
            "shared limit can't be asked"
        );
        match (self.0.config.on_unavailable, &self.0.alone) {
            (OnUnavailable::Allow, _) => Ok(Allowed { by: Count::Nobodys, left: None }),
            (OnUnavailable::Local(_), Some(alone)) => {
                let taken = alone.take(self.0.env.mono(), key, cost.get())?;
                Ok(Allowed { by: Count::Alone, left: Some(taken.standing()) })
            }
            (OnUnavailable::Deny | OnUnavailable::Local(_), _) => Err(match cause {
                Some(cause) => SharedRejected::Unavailable(cause),
                None => SharedRejected::Silent { patience: self.0.config.patience },
            }),
        }
    }

    fn spend_held(&self, key: &Name, now: Mono, cost: NonZeroU32) -> Option<Standing> {
        let mut held = self.lock();
        let lease = held.get_mut(key)?;
        if lease.until <= now {
            held.remove(key);
            return None;
        }
        lease.units = lease.units.checked_sub(cost.get())?;
        let Held { units, left, .. } = *lease;
        if units == 0 {
            held.remove(key);
        }
        Some(left)
    }

    fn hold(&self, key: &Name, now: Mono, units: u32, left: Standing) {
        if units == 0 {
            return;
        }
        let mut held = self.lock();
        if !held.contains_key(key) && held.len() >= self.0.config.most_keys.get() {
            held.retain(|_, lease| lease.until > now);
            if held.len() >= self.0.config.most_keys.get() {
                return;
            }
        }
        let lease = held.entry(key.clone()).or_insert(Held { units: 0, until: now, left });
        let kept = if lease.until > now { lease.units } else { 0 };
        *lease = Held { units: kept.saturating_add(units), until: now + self.0.config.lease, left };
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Name, Held>> {
        self.0.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("config", &self.0.config).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
