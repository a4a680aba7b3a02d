//! The retries of one dependency, as all callers of a process share them.
//!
//! A call that succeeds raises a counter of its own thread, no more; the budget behind the lock is asked only after a
//! failure, and by the first call of each tenth of its interval, which tells it how many calls there have been.

use std::{fmt, sync::PoisonError, time::Duration};

use quorate_foundations::time::Mono;

use super::{
    budget::{Budget, BudgetConfig, Usage},
    machine::{Attempts, Config, Decision, Ended, Repeatable, Stop},
    stripes::Stripes,
    sync::{AtomicU32, AtomicU64, Mutex, Ordering, lane},
};
use crate::{deadline::Deadline, dice::Dice};

/// How often calls to one dependency are sent again, and how many retries it is asked to bear. Share it by `Arc`.
pub struct Retries {
    calls: Stripes,
    turns_at: AtomicU64,
    /// `Config::attempts`, for callers that want to know no more.
    attempts: AtomicU32,
    rules: Mutex<Rules>,
    decided: AtomicU64,
    over_budget: AtomicU64,
}

struct Rules {
    config: Config,
    budget: Budget,
    dice: Dice,
}

/// What there has been since the beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Calls, retries not included.
    pub calls: u64,
    /// Retries that were decided.
    pub retries: u64,
    /// Calls that ended because the budget was spent.
    pub over_budget: u64,
    /// What the budget's interval holds.
    pub usage: Usage,
}

impl Retries {
    /// Rules of retrying with a budget nothing was charged to.
    pub fn new(config: Config, budget: BudgetConfig, dice: Dice) -> Self {
        let rules = Rules { config, budget: Budget::new(budget), dice };
        Self {
            calls: Stripes::new(),
            turns_at: AtomicU64::new(0),
            attempts: AtomicU32::new(config.attempts.get()),
            rules: Mutex::new(rules),
            decided: AtomicU64::new(0),
            over_budget: AtomicU64::new(0),
        }
    }

    /// Counts a call, whatever becomes of it: its first attempt, not its retries.
    #[inline]
    pub fn call(&self, now: Mono) {
        // The clock of the part that ended comes before the call that begins the next one.
        if now.as_nanos() >= self.turns_at.load(Ordering::Relaxed) {
            self.turn(now);
        }
        self.calls.raise(lane());
    }

    #[cold]
    fn turn(&self, now: Mono) {
        // Whoever holds the lock turns, or will: a call waits for nobody here.
        if let Ok(mut rules) = self.rules.try_lock() {
            rules.budget.calls(now, self.calls.sum());
            self.turns_at.store(rules.budget.turns_at().as_nanos(), Ordering::Relaxed);
        }
    }

    /// The attempts of a call, the first of which is about to be made. `owner`: whether this hop is the one that retries.
    pub fn begin(&self, repeatable: Repeatable, owner: bool, deadline: Deadline) -> Attempts {
        let config = self.with(|rules| rules.config);
        Attempts::new(config, repeatable, owner, deadline)
    }

    /// What to do now that the current attempt has ended; see [`Attempts::ended`].
    pub fn ended(&self, now: Mono, attempts: &mut Attempts, ended: Ended, needs: Duration) -> Decision {
        let decision = self.with(|rules| {
            rules.budget.calls(now, self.calls.sum());
            self.turns_at.store(rules.budget.turns_at().as_nanos(), Ordering::Relaxed);
            attempts.ended(now, ended, needs, &mut rules.budget, &mut rules.dice)
        });
        match decision {
            Decision::Again { .. } => _ = self.decided.fetch_add(1, Ordering::Relaxed),
            Decision::Stop(Stop::Budget) => _ = self.over_budget.fetch_add(1, Ordering::Relaxed),
            Decision::Stop(_) => {}
        }
        decision
    }

    /// The same, with a budget that isn't charged yet.
    #[cfg(feature = "museum")]
    pub(crate) fn ended_uncharged(
        &self,
        now: Mono,
        attempts: &mut Attempts,
        ended: Ended,
        needs: Duration,
    ) -> Decision {
        self.with(|rules| {
            rules.budget.calls(now, self.calls.sum());
            attempts.ended(now, ended, needs, &mut rules.budget.clone(), &mut rules.dice)
        })
    }

    /// Charges one call beyond the first, such as a hedge, unless the budget is spent.
    #[must_use]
    pub fn charge(&self, now: Mono) -> bool {
        let charged = self.with(|rules| {
            rules.budget.calls(now, self.calls.sum());
            rules.budget.charge(now)
        });
        let counter = if charged { &self.decided } else { &self.over_budget };
        counter.fetch_add(1, Ordering::Relaxed);
        charged
    }

    /// How many attempts a call may have.
    pub fn attempts(&self) -> u32 {
        self.attempts.load(Ordering::Relaxed)
    }

    /// Its rules.
    pub fn config(&self) -> Config {
        self.with(|rules| rules.config)
    }

    /// Lets other rules hold from the next call on. What was counted stays, unless the budget's interval is another.
    pub fn configure(&self, config: Config, budget: BudgetConfig, now: Mono) {
        self.attempts.store(config.attempts.get(), Ordering::Relaxed);
        self.with(|rules| {
            rules.config = config;
            // The calls so far belong to the interval that ends, and the next part of the new one begins in its own time.
            rules.budget.calls(now, self.calls.sum());
            rules.budget.configure(budget);
            self.turns_at.store(rules.budget.turns_at().as_nanos(), Ordering::Relaxed);
        });
    }

    /// What there has been.
    pub fn counts(&self, now: Mono) -> Counts {
        // Summed under the lock: a sum that another one has overtaken would count backwards.
        let (calls, usage) = self.with(|rules| {
            let calls = self.calls.sum();
            rules.budget.calls(now, calls);
            (calls, rules.budget.usage(now))
        });
        let (retries, over_budget) = (self.decided.load(Ordering::Relaxed), self.over_budget.load(Ordering::Relaxed));
        Counts { calls, retries, over_budget, usage }
    }

    fn with<T>(&self, act: impl FnOnce(&mut Rules) -> T) -> T {
        act(&mut self.rules.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl fmt::Debug for Retries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Retries").field("config", &self.config()).finish_non_exhaustive()
    }
}
