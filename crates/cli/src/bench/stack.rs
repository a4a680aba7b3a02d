//! What a whole stack of policies costs, beside the bare service it stands around.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    hint::black_box,
    num::NonZeroU32,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::FutureExt as _;
use quorate_resilience::{
    bulkhead,
    circuit_breaker::Config,
    rate_limit::Rate,
    retry,
    stack::{Plain, Stack},
    timeout::{self, Timers},
};
use quorate_runtime::Env;
use tower_layer::Layer as _;
use tower_service::Service;

use super::{
    failed,
    figure::Figures,
    resilience::{nanos_per_call, nanos_per_call_of},
};
use crate::exit::Failure;

/// The whole stack around a service that answers at once: rate limit, deadline, two breakers, bulkhead,
/// retry with its budget, timeout.
pub(super) fn measure(figures: &mut Figures, rounds: usize, calls: u64) -> Result<(), Failure> {
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
