//! What was counted lately, where quick successes are only a number that somebody else counts.

use std::{collections::VecDeque, time::Duration};

use quorate_foundations::time::Mono;

use crate::circuit_breaker::config::{Weight, Window};

/// In how many parts a window of time is kept.
const PARTS: u64 = 10;

/// Calls, and what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// All that succeeded or failed.
    pub calls: u64,
    /// Those that failed.
    pub failures: u64,
    /// Those that were slow.
    pub slow: u64,
}

/// The window, and how many failures came in a row.
#[derive(Clone, Debug)]
pub(super) struct Tally {
    shape: Shape,
    in_a_row: u32,
    /// Quick successes in all when the last failure came: another number means that one came since.
    at_last_failure: u64,
}

#[derive(Clone, Debug)]
enum Shape {
    Calls(ByCalls),
    Time(ByTime),
}

impl Tally {
    /// An empty window, when there have been `successes` quick successes in all.
    pub(super) fn new(window: Window, now: Mono, successes: u64) -> Self {
        let shape = match window {
            Window::Calls(last) => Shape::Calls(ByCalls::new(u64::from(last.get()), successes)),
            Window::Time(span) => Shape::Time(ByTime::new(span, now, successes)),
        };
        Self { shape, in_a_row: 0, at_last_failure: successes }
    }

    /// Credits quick successes to the part of the window they came in.
    pub(super) fn turn(&mut self, now: Mono, successes: u64) {
        if let Shape::Time(window) = &mut self.shape {
            window.turn(now, successes);
        }
    }

    pub(super) fn turns_at(&self) -> Option<Mono> {
        match &self.shape {
            Shape::Calls(_) => None,
            Shape::Time(window) => Some(Mono::from_nanos((window.part + 1).saturating_mul(window.nanos_per_part))),
        }
    }

    pub(super) fn record(&mut self, now: Mono, successes: u64, weight: Weight, slow: bool) {
        let failed = matches!(weight, Weight::Failure | Weight::Throttled);
        match &mut self.shape {
            Shape::Calls(window) => window.record(successes, failed, slow),
            Shape::Time(window) => window.record(now, successes, failed, slow),
        }
        match weight {
            Weight::Failure if self.at_last_failure == successes => self.in_a_row = self.in_a_row.saturating_add(1),
            Weight::Failure => self.in_a_row = 1,
            Weight::Success => self.in_a_row = 0,
            Weight::Throttled | Weight::Nothing => return,
        }
        self.at_last_failure = successes;
    }

    pub(super) fn in_a_row(&self) -> u32 {
        self.in_a_row
    }

    pub(super) fn counts(&self, successes: u64) -> Counts {
        match &self.shape {
            Shape::Calls(window) => window.counts(successes),
            Shape::Time(window) => window.counts(successes),
        }
    }
}

/// The last so many calls. Only those that were no quick successes are kept, each with its number.
#[derive(Clone, Debug)]
struct ByCalls {
    last: u64,
    base: u64,
    /// Calls that were no quick successes.
    others: u64,
    kept: VecDeque<Kept>,
}

#[derive(Clone, Copy, Debug)]
struct Kept {
    /// Its number among all calls, counted from 1.
    number: u64,
    failed: bool,
    slow: bool,
}

impl ByCalls {
    fn new(last: u64, base: u64) -> Self {
        Self { last, base, others: 0, kept: VecDeque::new() }
    }

    fn total(&self, successes: u64) -> u64 {
        successes.wrapping_sub(self.base) + self.others
    }

    fn record(&mut self, successes: u64, failed: bool, slow: bool) {
        self.others += 1;
        let number = self.total(successes);
        self.kept.push_back(Kept { number, failed, slow });
        while self.kept.front().is_some_and(|kept| kept.number + self.last <= number) {
            self.kept.pop_front();
        }
    }

    fn counts(&self, successes: u64) -> Counts {
        let total = self.total(successes);
        let within = || self.kept.iter().filter(|kept| kept.number + self.last > total);
        Counts {
            calls: total.min(self.last),
            failures: within().filter(|kept| kept.failed).count() as u64,
            slow: within().filter(|kept| kept.slow).count() as u64,
        }
    }
}

/// The calls of the last so long, in parts.
#[derive(Clone, Debug)]
struct ByTime {
    nanos_per_part: u64,
    /// The number of the part that is being filled.
    part: u64,
    /// Quick successes in all when that part began.
    base: u64,
    /// Each part at its number modulo their count, with the number it is of.
    parts: Vec<(u64, Counts)>,
}

impl ByTime {
    fn new(span: Duration, now: Mono, base: u64) -> Self {
        let nanos_per_part = u64::try_from(span.as_nanos() / u128::from(PARTS)).unwrap_or(u64::MAX).max(1);
        let part = now.as_nanos() / nanos_per_part;
        // One more than the parts of the span: the one being filled has only begun.
        Self { nanos_per_part, part, base, parts: vec![(part, Counts::default()); PARTS as usize + 1] }
    }

    fn at(&mut self, part: u64) -> &mut Counts {
        let place = (part % self.parts.len() as u64) as usize;
        let (of, counts) = &mut self.parts[place];
        if *of != part {
            (*of, *counts) = (part, Counts::default());
        }
        counts
    }

    fn turn(&mut self, now: Mono, successes: u64) {
        // Callers read the clock before they wait for the lock, so one may be late: its call counts as of now.
        let part = (now.as_nanos() / self.nanos_per_part).max(self.part);
        if part != self.part {
            let came = successes.wrapping_sub(self.base);
            self.at(self.part).calls += came;
            (self.part, self.base) = (part, successes);
        }
    }

    fn record(&mut self, now: Mono, successes: u64, failed: bool, slow: bool) {
        self.turn(now, successes);
        let counts = self.at(self.part);
        counts.calls += 1;
        counts.failures += u64::from(failed);
        counts.slow += u64::from(slow);
    }

    fn counts(&self, successes: u64) -> Counts {
        let came = Counts { calls: successes.wrapping_sub(self.base), ..Counts::default() };
        let recent = self.parts.iter().filter(|(of, _)| of + PARTS >= self.part && *of <= self.part);
        recent.fold(came, |sum, (_, part)| Counts {
            calls: sum.calls + part.calls,
            failures: sum.failures + part.failures,
            slow: sum.slow + part.slow,
        })
    }
}
