//! `quorate bench resilience`: what passing a policy costs, beside one atomic add shared by the same threads.

use std::{
    hint::black_box,
    num::NonZeroUsize,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use clap::Args;
use quorate_foundations::time::Mono;
use quorate_resilience::{
    Class, Outcome,
    circuit_breaker::{Breaker, Config},
    dice::Dice,
};

use super::{failed, figure::Figures};
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
        let breaker = Breaker::new(Config::default(), Dice::seeded(1), Mono::ZERO);
        let breaker = breaker.map_err(|cause| failed("making a breaker", cause))?;
        let shared = AtomicU64::new(0);
        let (mut limit, mut ours) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            limit.push(nanos_per_call(threads, calls, || {
                shared.fetch_add(1, Ordering::Relaxed);
            }));
            // The time is an argument: a stack of policies reads the clock once for all of them.
            let now = black_box(Mono::ZERO + Duration::from_millis(1));
            ours.push(nanos_per_call(threads, calls, || {
                if let Ok(permit) = breaker.permit(black_box(now)) {
                    permit.settle(black_box(now), Outcome::Upstream(Class::Success), None);
                }
            }));
        }
        figures.put(&format!("breaker/success/{threads}"), "ns", &ours, Some(&limit));
        let counted = breaker.snapshot(Mono::ZERO).counts.calls;
        let made = (threads * rounds) as u64 * calls;
        if counted != made {
            return Err(failed("counting calls", format!("{counted} of {made} were counted")));
        }
    }
    Ok(figures)
}

/// Nanoseconds that a call takes each of `threads` threads, which all begin together.
fn nanos_per_call(threads: usize, calls: u64, call: impl Fn() + Sync) -> f64 {
    let (call, start) = (&call, &std::sync::Barrier::new(threads));
    let spans: Vec<Duration> = thread::scope(|scope| {
        let run = || {
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
