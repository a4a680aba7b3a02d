//! How many calls an upstream takes without becoming slower, found by watching: the rules, without clock or calls.
//!
//! *The usual time* is what calls take while few enough are under way. If they take longer than that while more are under way
//! than when it was learnt, they wait for each other somewhere, and the limit falls by as much. If they don't, and the
//! limit is used, it rises.
//!
//! The trap is learning the wrong usual time. One that is measured by pressing the limit down now and then drops traffic; one
//! that follows every time drifts up with the queue it should notice. Here a *longer* usual time is only believed while no
//! more calls are under way than when the shorter one was learnt: then it can't be a queue of our making.
//!
//! Source: Netflix, "Performance Under Load" (2018), and the gradient limits of concurrency-limits; Envoy's issues 8337, 9007
//! and 9038, for what probing for the shortest time does.

use std::time::Duration;

use super::config::Adaptive;

/// What was seen in one window.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Seen {
    /// Calls that succeeded.
    pub calls: u64,
    /// How long those took in the mean.
    pub mean: Duration,
    /// How many were under way, in the mean.
    pub concurrency: f64,
    /// Calls that ran out of time, or were asked to come later.
    pub overloads: u64,
}

/// A limit that follows what the upstream takes.
#[derive(Clone, Debug)]
pub struct Limiter {
    config: Adaptive,
    limit: f64,
    usual: Option<Usual>,
}

#[derive(Clone, Copy, Debug)]
struct Usual {
    nanos: f64,
    /// How many were under way when calls took so long.
    at: f64,
}

/// Fewer calls say nothing.
const FEWEST: u64 = 10;
/// What is this much above the usual time is still usual.
const NOISE: f64 = 1.05;

impl Limiter {
    /// A limit that starts where it is told.
    pub fn new(config: Adaptive) -> Self {
        Self { config, limit: f64::from(config.initial.get()), usual: None }
    }

    /// The limit.
    pub fn limit(&self) -> u32 {
        self.limit as u32
    }

    /// Lets other bounds hold; what was learnt stays.
    pub fn configure(&mut self, config: Adaptive) {
        self.config = config;
        self.clamp();
    }

    /// Whether a window with so many calls says anything.
    pub fn is_enough(calls: u64, overloads: u64) -> bool {
        calls + overloads >= FEWEST
    }

    /// Takes what was seen and says the limit. A window that says nothing changes nothing.
    pub fn watch(&mut self, seen: Seen) -> u32 {
        if Self::is_enough(seen.calls, seen.overloads) && seen.concurrency.is_finite() {
            if seen.overloads > 0 {
                // The upstream, or the clock, has said it: no need to guess. As much less as failed, at most half.
                let failed = seen.overloads as f64 / (seen.calls + seen.overloads) as f64;
                self.limit *= 1.0 - failed.min(0.5);
            } else {
                self.follow(seen.mean.as_nanos().max(1) as f64, seen.concurrency.max(0.0));
            }
            self.clamp();
        }
        self.limit()
    }

    fn follow(&mut self, nanos: f64, concurrency: f64) {
        let usual = self.learn(nanos, concurrency);
        let gradient = (self.config.tolerance * usual / nanos).clamp(0.5, 1.0);
        if gradient < 1.0 {
            // Half of the way, so that one odd window does little.
            self.limit *= f64::midpoint(1.0, gradient);
        } else if concurrency >= self.limit / 2.0 {
            // Who doesn't use what they may says nothing about more.
            self.limit += self.limit.sqrt() / 2.0;
        }
    }

    /// Learns from what calls took, and says what is usual.
    fn learn(&mut self, nanos: f64, concurrency: f64) -> f64 {
        let Some(usual) = &mut self.usual else {
            self.usual = Some(Usual { nanos, at: concurrency });
            return nanos;
        };
        if nanos <= usual.nanos * NOISE {
            usual.nanos += (nanos - usual.nanos) * 0.3;
            usual.at = usual.at.max(concurrency);
        } else if concurrency <= usual.at.max(f64::from(self.config.min.get())) {
            usual.nanos += (nanos - usual.nanos) * 0.1;
        }
        usual.nanos
    }

    fn clamp(&mut self) {
        self.limit = self.limit.clamp(f64::from(self.config.min.get()), f64::from(self.config.max.get()));
    }
}

#[cfg(test)]
mod tests;
