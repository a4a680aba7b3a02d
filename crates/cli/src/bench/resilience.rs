//! `quorate bench resilience`: what passing a policy costs, beside one atomic add shared by the same threads.

use std::{
    hint::black_box,
    num::{NonZeroU32, NonZeroUsize},
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use clap::Args;
use quorate_foundations::time::Mono;
use quorate_resilience::{
    Class, Outcome,
    bulkhead::{self, Ask, Bulkhead},
    circuit_breaker::{self, Breaker},
    dice::Dice,
    rate_limit::{Limiter, Rate},
};

use super::{failed, figure::Figures, stack};
use crate::exit::Failure;

/// How to measure.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Print JSON instead of a table
    #[arg(long)]
    pub(super) json: bool,
    /// One short round: shows that it works, proves nothing
    #[arg(long)]
    quick: bool,
    /// How often to measure each figure, for its median [default: 9, quick: 1]
    #[arg(long, value_name = "COUNT")]
    rounds: Option<NonZeroUsize>,
}

/// Measures everything.
pub(super) fn measure(options: &Options) -> Result<Figures, Failure> {
    let (rounds, calls) = if options.quick { (1, 1_000_000) } else { (9, 20_000_000) };
    let rounds = options.rounds.map_or(rounds, NonZeroUsize::get);
    let mut figures = Figures::default();
    for threads in [1, 2] {
        let made = Made::new().map_err(|cause| failed("making the policies", cause))?;
        let shared = AtomicU64::new(0);
        let mut limit = Vec::new();
        let mut ours: [Vec<f64>; 3] = Default::default();
        for _ in 0..rounds {
            limit.push(nanos_per_call(threads, calls, || {
                shared.fetch_add(1, Ordering::Relaxed);
            }));
            ours[0].push(nanos_per_call(threads, calls, || made.pass_breaker()));
            ours[1].push(nanos_per_call(threads, calls, || made.pass_limiter()));
            ours[2].push(nanos_per_call(threads, calls, || made.pass_bulkhead()));
        }
        for (name, spans) in ["breaker", "limiter", "bulkhead"].iter().zip(&ours) {
            figures.put(&format!("{name}/success/{threads}"), "ns", spans, Some(&limit));
        }
        made.check((threads * rounds) as u64 * calls)?;
    }
    stack::measure(&mut figures, rounds, calls / 4)?;
    Ok(figures)
}

/// One of each policy. The time is an argument: a stack of policies reads the clock once for all of them.
struct Made {
    now: Mono,
    breaker: Breaker,
    limiter: Limiter,
    bulkhead: Bulkhead,
    ask: Ask,
    /// Calls that a policy refused, which none should.
    refused: AtomicU64,
}

impl Made {
    fn new() -> Result<Self, Box<dyn std::error::Error>> {
        let now = Mono::ZERO + Duration::from_millis(1);
        // A burst that outlasts the measurement.
        let rate = Rate::new(const { NonZeroU32::new(10_000_000).unwrap() }, Duration::from_secs(1));
        Ok(Self {
            now,
            breaker: Breaker::new(circuit_breaker::Config::default(), Dice::seeded(1), now)?,
            limiter: Limiter::new(rate.with_burst(NonZeroU32::MAX))?,
            bulkhead: Bulkhead::new(bulkhead::Config::default(), now)?,
            ask: Ask::default(),
            refused: AtomicU64::new(0),
        })
    }

    fn pass_breaker(&self) {
        match self.breaker.permit(black_box(self.now)) {
            Ok(permit) => permit.settle(black_box(self.now), SUCCESS, None),
            Err(_) => self.refuse(),
        }
    }

    fn pass_limiter(&self) {
        if self.limiter.take(black_box(self.now), black_box(1)).is_err() {
            self.refuse();
        }
    }

    fn pass_bulkhead(&self) {
        match Bulkhead::try_enter(&self.bulkhead, black_box(self.now), black_box(&self.ask)) {
            Ok(permit) => permit.settle(black_box(self.now), SUCCESS),
            Err(_) => self.refuse(),
        }
    }

    #[cold]
    fn refuse(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether all of `made` calls passed every policy, and left no place taken.
    fn check(&self, made: u64) -> Result<(), Failure> {
        let counted = self.breaker.snapshot(Mono::ZERO).counts.calls;
        if counted != made {
            return Err(failed("counting calls", format!("{counted} of {made} were counted")));
        }
        let (refused, inside) = (self.refused.load(Ordering::Relaxed), self.bulkhead.snapshot().in_flight);
        if (refused, inside) != (0, 0) {
            return Err(failed("passing policies", format!("{refused} calls were refused, {inside} never left")));
        }
        Ok(())
    }
}

const SUCCESS: Outcome = Outcome::Upstream(Class::Success);

/// Nanoseconds that a call takes each of `threads` threads, which all begin together.
pub(super) fn nanos_per_call(threads: usize, calls: u64, call: impl Fn() + Sync) -> f64 {
    nanos_per_call_of(threads, calls, || &call)
}

/// The same, for calls that each thread makes in a way of its own.
pub(super) fn nanos_per_call_of<C: FnMut()>(threads: usize, calls: u64, caller: impl Fn() -> C + Sync) -> f64 {
    let (caller, start) = (&caller, &std::sync::Barrier::new(threads));
    let spans: Vec<Duration> = thread::scope(|scope| {
        let run = || {
            let mut call = caller();
            start.wait();
            let begun = Instant::now();
            (0..calls).for_each(|_| call());
            begun.elapsed()
        };
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(run)).collect();
        running.into_iter().filter_map(|thread| thread.join().ok()).collect()
    });
    let sum: f64 = spans.iter().map(Duration::as_secs_f64).sum();
    sum * 1e9 / (calls as f64 * threads as f64)
}
