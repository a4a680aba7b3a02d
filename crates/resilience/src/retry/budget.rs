//! How many retries a dependency is asked to bear.

use std::{collections::VecDeque, time::Duration};

use quorate_foundations::time::Mono;

/// How large a part of its calls a dependency may be sent again. [`BudgetConfig::default`]: 20 % over ten seconds, and ten a
/// second whatever the calls, as the Gateway API has it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BudgetConfig {
    /// Retries per hundred calls of the interval.
    pub percent: u32,
    /// Over which time calls and retries are counted, in tenths.
    pub interval: Duration,
    /// So many retries a second are allowed beside, so that a quiet dependency may be retried at all.
    pub floor_per_second: u32,
}

impl Default for BudgetConfig {
    fn default() -> Self {
        Self { percent: 20, interval: Duration::from_secs(10), floor_per_second: 10 }
    }
}

/// The retries of one dependency: one for all of its callers in this process, since a budget per request is none.
///
/// A retry is charged when it is decided, before its wait: a thousand calls that fail together and wait for a second
/// would otherwise all pass now and all be sent later. What was charged stays charged, also if the caller leaves.
#[derive(Clone, Debug)]
pub struct Budget {
    config: BudgetConfig,
    parts: VecDeque<Part>,
    /// Calls in all, as last heard.
    heard: u64,
}

/// What a budget has been asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Calls in the interval.
    pub calls: u64,
    /// Retries charged in the interval.
    pub retries: u64,
    /// Retries that could be charged now.
    pub left: u64,
}

#[derive(Clone, Copy, Debug)]
struct Part {
    number: u64,
    calls: u64,
    retries: u64,
}

/// In how many parts the interval is kept.
const PARTS: u64 = 10;

impl Budget {
    /// A budget nothing was charged to.
    pub fn new(config: BudgetConfig) -> Self {
        Self { config, parts: VecDeque::new(), heard: 0 }
    }

    /// Counts a call: its first attempt, not its retries.
    pub fn call(&mut self, now: Mono) {
        self.part(now).calls += 1;
    }

    /// Tells how many calls there have been in all, where somebody else counts them. Comes before everything that is asked,
    /// and at the latest with the first call after [`turns_at`](Self::turns_at): what is new belongs to the part that was
    /// newest until then.
    pub fn calls(&mut self, now: Mono, total: u64) {
        let fresh = total.wrapping_sub(self.heard);
        self.heard = total;
        match self.parts.back_mut() {
            Some(part) => part.calls += fresh,
            None => self.part(now).calls += fresh,
        }
        self.part(now);
    }

    /// When calls that follow belong to another part of the interval.
    pub fn turns_at(&self) -> Mono {
        let ends = self.parts.back().map_or(0, |part| (part.number + 1).saturating_mul(self.part_nanos()));
        Mono::from_nanos(ends)
    }

    /// What is in the interval, and what is left of it.
    pub fn usage(&mut self, now: Mono) -> Usage {
        let left = self.left(now);
        let sum = |of: fn(&Part) -> u64| self.parts.iter().map(of).sum();
        Usage { calls: sum(|part| part.calls), retries: sum(|part| part.retries), left }
    }

    /// Lets other rules hold. What was counted stays, unless the interval is another.
    pub fn configure(&mut self, config: BudgetConfig) {
        if config.interval != self.config.interval {
            self.parts.clear();
        }
        self.config = config;
    }

    /// Charges one retry, unless the budget is spent.
    #[must_use]
    pub fn charge(&mut self, now: Mono) -> bool {
        let allowed = self.left(now) > 0;
        if allowed {
            self.part(now).retries += 1;
        }
        allowed
    }

    /// How many retries could be charged now.
    pub fn left(&mut self, now: Mono) -> u64 {
        self.part(now);
        let (calls, retries) =
            self.parts.iter().fold((0, 0), |(calls, retries), part| (calls + part.calls, retries + part.retries));
        self.allowance(calls).saturating_sub(retries)
    }

    /// How many retries `calls` calls in one interval may bring.
    pub fn allowance(&self, calls: u64) -> u64 {
        let floor = u128::from(self.config.floor_per_second) * self.config.interval.as_millis() / 1_000;
        let share = u128::from(calls) * u128::from(self.config.percent) / 100;
        u64::try_from(floor + share).unwrap_or(u64::MAX)
    }

    fn part_nanos(&self) -> u64 {
        u64::try_from(self.config.interval.as_nanos() / u128::from(PARTS)).unwrap_or(u64::MAX).max(1)
    }

    fn part(&mut self, now: Mono) -> &mut Part {
        let nanos = self.part_nanos();
        // Callers read the clock before they wait for the lock: one that is late counts as of now.
        let newest = self.parts.back().map_or(0, |part| part.number);
        let number = (now.as_nanos() / nanos).max(newest);
        if self.parts.is_empty() || number > newest {
            self.parts.push_back(Part { number, calls: 0, retries: 0 });
        }
        while self.parts.front().is_some_and(|part| part.number + PARTS <= number) {
            self.parts.pop_front();
        }
        self.parts.back_mut().unwrap_or_else(|| unreachable!("a part was pushed"))
    }
}
