//! A limit that holds for several processes together: units are leased from whoever keeps the count.

mod asking;

use std::{
    collections::BTreeMap,
    num::NonZeroU32,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use quorate_foundations::{name::Name, time::Mono};
use quorate_runtime::Env;

use self::asking::{Answer, Waiting};
use super::{
    Keyed, OnUnavailable, Quota, Rejected, SharedConfig, Unavailable,
    config::ConfigError,
    machine::{Gcra, Standing},
};
use crate::deadline::Deadline;

/// A rate limit that several processes share. Cheap to clone; clones hold the same leases.
#[derive(Clone)]
pub struct Shared(Arc<Inner>);

struct Inner {
    env: Env,
    quota: Arc<dyn Quota>,
    config: SharedConfig,
    rule: Gcra,
    memory: Mutex<Memory>,
    /// Those who wait for an answer about a key, while one is asked for.
    waiting: Mutex<Waiting>,
    alone: Option<Keyed<Name>>,
    silence: Mutex<Silence>,
    /// Also of those that were in its place before.
    uncounted: Arc<AtomicU64>,
}

#[derive(Default)]
struct Memory {
    keys: BTreeMap<Name, Held>,
    /// Forgetting what is over is not tried again before, so that a flood of keys costs no more than that.
    swept_again_at: Mono,
}

/// What is known of a key without asking.
#[derive(Clone, Copy)]
struct Held {
    until: Mono,
    what: What,
}

#[derive(Clone, Copy)]
enum What {
    /// These are leased.
    Units(NonZeroU32, Standing),
    /// So many were refused at that moment.
    Refused(NonZeroU32, Rejected, Mono),
}

/// Calls that were decided without the count, and when that was last told.
#[derive(Default)]
struct Silence {
    told: Option<Mono>,
    calls: u64,
    /// Nobody asks before, for there was no answer.
    asked_again_at: Option<Mono>,
}

/// How long nobody asks whoever gave no answer: each who does waits in vain.
const SILENT: Duration = Duration::from_secs(1);

/// That the count can't be asked is told so often, however many calls it concerns.
const TOLD_EVERY: Duration = Duration::from_secs(30);

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
        Self::counting_on(env, quota, config, Arc::default())
    }

    /// The same, counting on from `uncounted`.
    pub(crate) fn counting_on(
        env: &Env,
        quota: Arc<dyn Quota>,
        config: SharedConfig,
        uncounted: Arc<AtomicU64>,
    ) -> Result<Self, ConfigError> {
        let alone = match config.on_unavailable {
            OnUnavailable::Local(rate) => {
                Some(Keyed::new(rate, config.most_keys, env.random("shared rate limit").u64())?)
            }
            OnUnavailable::Allow | OnUnavailable::Deny => None,
        };
        let rule = Gcra::new(config.rate)?;
        let (memory, waiting, silence) = (Mutex::default(), Mutex::default(), Mutex::default());
        let inner = Inner { env: env.clone(), quota, config, rule, memory, waiting, alone, silence, uncounted };
        Ok(Self(Arc::new(inner)))
    }

    /// How it is used.
    pub fn config(&self) -> &SharedConfig {
        &self.0.config
    }

    /// How many calls were decided without the count, as [`OnUnavailable`] says.
    pub fn uncounted(&self) -> u64 {
        self.0.uncounted.load(Ordering::Relaxed)
    }

    /// Forgets what was taken from what `key` has, at whoever keeps the count and here. Other processes refuse, and give what they
    /// have leased, for up to a [lease](SharedConfig::lease) more.
    ///
    /// # Errors
    /// [`Unavailable`]: whether it was forgotten is unknown.
    pub async fn reset(&self, key: &Name) -> Result<(), Unavailable> {
        self.0.quota.forget(key).await?;
        self.forget();
        Ok(())
    }

    /// Takes `cost` units from what `key` has in all processes together.
    ///
    /// # Errors
    /// [`SharedRejected`], with the time until they could be had.
    ///
    /// # Cancel safety
    /// Units that were leased for a call that is dropped while it waits are for whoever comes next, or lost; none is given twice.
    pub async fn take(&self, key: &Name, cost: u32) -> Result<Allowed, SharedRejected> {
        self.take_by(key, cost, Deadline::NEVER).await
    }

    /// The same for a call that ends by `deadline`: an answer is waited for no longer than a quarter of what is left of it, so that what
    /// [`OnUnavailable`] says holds in the rest.
    ///
    /// # Errors
    /// [`SharedRejected`], with the time until they could be had.
    ///
    /// # Cancel safety
    /// That of [`take`](Self::take).
    pub async fn take_by(&self, key: &Name, cost: u32, deadline: Deadline) -> Result<Allowed, SharedRejected> {
        let now = self.0.env.mono();
        let Some(cost) = NonZeroU32::new(cost) else { return Ok(Allowed { by: Count::Nobodys, left: None }) };
        if let Some(known) = self.known(key, now, cost) {
            return Ok(known?);
        }
        if !self.may_ask(now) {
            return self.without(key, cost, None);
        }
        // Who has little time learns nothing of whoever keeps the count, and speaks for nobody else.
        let patience = self.0.config.patience.min(deadline.remaining(now) / 4);
        match self.0.env.timeout(patience, self.ask(key, cost)).await {
            Some(Ok(Answer::Given(left))) => Ok(Allowed { by: Count::Shared, left: Some(left) }),
            Some(Ok(Answer::Refused(refused))) => Err(refused.into()),
            Some(Ok(Answer::Unavailable(cause))) => self.without(key, cost, Some(cause)),
            Some(Ok(Answer::Silence) | Err(_)) | None => self.without(key, cost, None),
        }
    }

    /// What `key` may have of `cost` units by what is known of it, without asking anybody. `None`: ask, through
    /// [`take`](Self::take).
    pub fn take_known(&self, key: &Name, cost: u32) -> Option<Result<Allowed, Rejected>> {
        self.known(key, self.0.env.mono(), NonZeroU32::new(cost)?)
    }

    /// Forgets what this process knows of every key: it asks again. Call it when whoever keeps the count has forgotten what was
    /// taken; other processes do what they know for up to a [lease](SharedConfig::lease) more.
    pub fn forget(&self) {
        self.lock().keys.clear();
        if let Some(alone) = &self.0.alone {
            alone.reset();
        }
    }

    /// Decides without the count.
    fn without(&self, key: &Name, cost: NonZeroU32, cause: Option<Unavailable>) -> Result<Allowed, SharedRejected> {
        self.0.uncounted.fetch_add(1, Ordering::Relaxed);
        self.tell(key, cause.as_ref());
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

    /// Whether the count is asked at `now`: while there was no answer only one asks at a time.
    fn may_ask(&self, now: Mono) -> bool {
        let mut silence = self.silence();
        let Some(at) = silence.asked_again_at else { return true };
        let may = at <= now;
        if may {
            silence.asked_again_at = Some(now + SILENT);
        }
        may
    }

    fn silence(&self) -> MutexGuard<'_, Silence> {
        self.0.silence.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, key: &Name, cause: Option<&Unavailable>) {
        let now = self.0.env.mono();
        let mut silence = self.silence();
        silence.calls += 1;
        if silence.told.is_some_and(|told| now < told + TOLD_EVERY) {
            return;
        }
        let calls = std::mem::take(&mut silence.calls);
        silence.told = Some(now);
        drop(silence);
        let cause = cause.map(|cause| cause.0.to_string());
        tracing::warn!(key = key.as_str(), calls, cause, "shared limit can't be asked");
    }

    fn known(&self, key: &Name, now: Mono, cost: NonZeroU32) -> Option<Result<Allowed, Rejected>> {
        let keys = &mut self.lock().keys;
        let found = keys.get_mut(key)?;
        if found.until <= now {
            keys.remove(key);
            return None;
        }
        match &mut found.what {
            What::Units(units, left) => {
                let (rest, left) = (units.get().checked_sub(cost.get())?, *left);
                match NonZeroU32::new(rest) {
                    Some(rest) => *units = rest,
                    None => _ = keys.remove(key),
                }
                Some(Ok(Allowed { by: Count::Shared, left: Some(left) }))
            }
            What::Refused(least, refused, at) if *least <= cost => Some(Err(refused.later(now.saturating_since(*at)))),
            What::Refused(..) => None,
        }
    }

    fn hold(&self, key: &Name, now: Mono, units: u32, left: Standing) {
        let Some(units) = NonZeroU32::new(units) else { return };
        self.keep(key, now, |known| {
            let before = known.and_then(|known| match known.what {
                What::Units(units, _) if known.until > now => Some(units.get()),
                _ => None,
            });
            let units = units.saturating_add(before.unwrap_or(0));
            Held { until: now + self.0.config.lease, what: What::Units(units, left) }
        });
    }

    /// Others may take units meanwhile, and nobody gives any back: until the time is over that was named, whoever was refused
    /// so many is refused as many.
    fn remember(&self, key: &Name, now: Mono, cost: NonZeroU32, refused: Rejected) {
        let lease = self.0.config.lease;
        let until = now + refused.wait.map_or(lease, |wait| wait.min(lease));
        let refusal = Held { until, what: What::Refused(cost, refused, now) };
        self.keep(key, now, |known| match known {
            Some(known) if known.until > now && matches!(known.what, What::Units(..)) => *known,
            _ => refusal,
        });
    }

    fn keep(&self, key: &Name, now: Mono, next: impl FnOnce(Option<&Held>) -> Held) {
        let mut memory = self.lock();
        let Memory { keys, swept_again_at } = &mut *memory;
        let most = self.0.config.most_keys.get();
        if !keys.contains_key(key) && keys.len() >= most {
            if now >= *swept_again_at {
                keys.retain(|_, known| known.until > now);
                *swept_again_at = now + self.0.config.lease / 16;
            }
            if keys.len() >= most {
                return;
            }
        }
        let next = next(keys.get(key));
        keys.insert(key.clone(), next);
    }

    fn lock(&self) -> MutexGuard<'_, Memory> {
        self.0.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("config", &self.0.config).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
