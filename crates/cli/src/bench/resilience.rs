//! `quorate bench resilience`: what passing a policy costs, beside one atomic add shared by the same threads.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    hint::black_box,
    num::{NonZeroU32, NonZeroUsize},
    sync::atomic::{AtomicU64, Ordering},
    task::{Context, Poll},
    thread,
    time::{Duration, Instant},
};

use clap::Args;
use futures_util::FutureExt as _;
use quorate_foundations::time::Mono;
use quorate_resilience::{
    Class, Outcome, bulkhead,
    circuit_breaker::{Breaker, Config},
    dice::Dice,
    rate_limit::Rate,
    retry,
    stack::{Plain, Stack},
    timeout::{self, Timers},
};
use quorate_runtime::Env;
use tower_layer::Layer as _;
use tower_service::Service;

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
    stack(&mut figures, rounds, calls / 4)?;
    Ok(figures)
}

/// The whole stack around a service that answers at once: rate limit, deadline, two breakers, bulkhead,
/// retry with its budget, timeout.
fn stack(figures: &mut Figures, rounds: usize, calls: u64) -> Result<(), Failure> {
    let timers = Timers::new(&Env::real());
    let plenty = NonZeroU32::new(1_000_000_000).unwrap_or(NonZeroU32::MIN);
    let stack = Stack::builder("bench".parse().map_err(|cause| failed("naming a stack", cause))?)
        .limit(Rate::new(plenty, Duration::from_secs(1_000)))
        .timeouts(timeout::Config::default())
        .breaker(Config::default())
        .bulkhead(bulkhead::Config::default())
        .retry(retry::Config::default(), retry::BudgetConfig::default())
        .endpoint_breaker(Config::default())
        .build(&timers, Plain::idempotent())
        .map_err(|cause| failed("building a stack", cause))?;
    for threads in [1, 2] {
        let (mut bare, mut ours) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            bare.push(nanos_per_call(threads, calls, || {
                let mut service = Answers;
                black_box(service.call(black_box(1)).now_or_never());
            }));
            ours.push(nanos_per_call_of(threads, calls, || {
                let mut service = stack.layer(Answers);
                move || {
                    black_box(service.call(black_box(1)).now_or_never());
                }
            }));
        }
        figures.put(&format!("stack/success/{threads}"), "ns", &ours, Some(&bare));
    }
    let answered = stack.counts().into_iter().find(|(word, _)| *word == "success").map_or(0, |(_, count)| count);
    let made = 3 * rounds as u64 * calls;
    if answered != made {
        return Err(failed("counting calls", format!("{answered} of {made} passed the stack")));
    }
    Ok(())
}

/// Answers at once.
#[derive(Clone)]
struct Answers;

impl Service<u64> for Answers {
    type Response = u64;
    type Error = Infallible;
    type Future = Ready<Result<u64, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, number: u64) -> Self::Future {
        ready(Ok(number))
    }
}

/// Nanoseconds that a call takes each of `threads` threads, which all begin together.
fn nanos_per_call(threads: usize, calls: u64, call: impl Fn() + Sync) -> f64 {
    nanos_per_call_of(threads, calls, || &call)
}

/// The same, for calls that each thread makes in a way of its own.
fn nanos_per_call_of<C: FnMut()>(threads: usize, calls: u64, caller: impl Fn() -> C + Sync) -> f64 {
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
