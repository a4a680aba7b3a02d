//! What a whole stack of policies costs, beside the bare service it stands around.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    hint::black_box,
    num::{NonZeroU32, NonZeroUsize},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::FutureExt as _;
use quorate_foundations::{name::Name, time::Mono};
use quorate_resilience::{
    Verdict, bulkhead,
    circuit_breaker::{Asked, Config, Per, Split},
    rate_limit::{OnUnavailable, Portion, Quota, Rate, Shared, SharedConfig, Standing, Unavailable},
    retry,
    stack::{Answers, Builder, Intent, Plain, Requests, Rest, Stack, Try},
    timeout::{self, Timers},
};
use quorate_runtime::{BoxFuture, Env};
use tower_layer::Layer as _;
use tower_service::Service;

use super::{
    failed,
    figure::Figures,
    resilience::{nanos_per_call, nanos_per_call_of},
};
use crate::exit::Failure;

/// The whole stack around a service that answers at once: rate limit, deadline, two breakers, bulkhead,
/// retry with its budget, timeout. Then with a circuit for each endpoint, and for each operation of each, in place of the endpoint's; and
/// with a rate that a store counts, of which units are leased.
pub(super) fn measure(figures: &mut Figures, rounds: usize, calls: u64) -> Result<(), Failure> {
    let (env, name) = (Env::real(), Name::new("bench").map_err(|cause| failed("naming a stack", cause))?);
    let timers = Timers::new(&env);
    let plenty = NonZeroU32::new(1_000_000_000).unwrap_or(NonZeroU32::MIN);
    let own = Rate::new(plenty, Duration::from_secs(1_000));
    let whole = || {
        Stack::builder(name.clone())
            .timeouts(timeout::Config::default())
            .breaker(Config::default())
            .bulkhead(bulkhead::Config::default())
            .retry(retry::Config::default(), retry::BudgetConfig::default())
    };
    let measuring = Measuring { timers, rounds, calls };
    let one = whole().limit(own).endpoint_breaker(Config::default());
    measuring.put(figures, "success", one)?;
    for (figure, per) in [("per-endpoint", Per::Endpoint), ("per-operation", Per::EndpointAndOperation)] {
        let each = whole().limit(own).endpoint_breakers(Config::default(), Split::per(per));
        measuring.put(figures, figure, each)?;
    }
    let shared = leased(&env, &name)?;
    let counted = whole().counted_limit(shared.clone(), name.clone()).endpoint_breaker(Config::default());
    measuring.put(figures, "counted-by-store", counted)?;
    match shared.uncounted() {
        0 => Ok(()),
        uncounted => Err(failed("counting calls", format!("{uncounted} were decided without the store"))),
    }
}

/// How a stack is measured.
struct Measuring {
    timers: Timers,
    rounds: usize,
    calls: u64,
}

impl Measuring {
    /// Measures the stack that `builder` makes, beside the bare service.
    fn put(&self, figures: &mut Figures, name: &str, builder: Builder) -> Result<(), Failure> {
        let Self { timers, rounds, calls } = self;
        let stack = builder.build(timers, Said(Plain::idempotent()));
        let stack = stack.map_err(|cause| failed("building a stack", cause))?;
        for threads in [1, 2] {
            let (mut bare, mut ours) = (Vec::new(), Vec::new());
            for _ in 0..*rounds {
                bare.push(nanos_per_call(threads, *calls, || {
                    let mut service = Prompt;
                    black_box(service.call(black_box(1)).now_or_never());
                }));
                ours.push(nanos_per_call_of(threads, *calls, || {
                    let mut service = stack.layer(Prompt);
                    move || {
                        black_box(service.call(black_box(1)).now_or_never());
                    }
                }));
            }
            figures.put(&format!("stack/{name}/{threads}"), "ns", &ours, Some(&bare));
        }
        let answered = stack.counts().into_iter().find(|(word, _)| *word == "success").map_or(0, |(_, count)| count);
        let made = 3 * *rounds as u64 * calls;
        if answered != made {
            return Err(failed("counting calls", format!("{answered} of {made} passed the stack for {name}")));
        }
        Ok(())
    }
}

/// A rate that a store counts, with units leased for longer than anything is measured.
fn leased(env: &Env, name: &Name) -> Result<Shared, Failure> {
    let quick = const { NonZeroU32::new(10_000_000).unwrap() };
    let rate = Rate::new(quick, Duration::from_secs(1)).with_burst(NonZeroU32::MAX);
    let config = SharedConfig {
        portion: NonZeroU32::MAX,
        lease: Duration::from_secs(24 * 3_600),
        ..SharedConfig::of(rate, OnUnavailable::Deny, NonZeroUsize::MIN)
    };
    let shared = Shared::new(env, Arc::new(Plenty), config).map_err(|cause| failed("making a shared rate", cause))?;
    let asked = tokio::runtime::Handle::current().block_on(shared.take(name, 1));
    asked.map_err(|cause| failed("leasing units", cause))?;
    Ok(shared)
}

/// A store that has as much as is asked for.
struct Plenty;

impl Quota for Plenty {
    fn take<'a>(
        &'a self,
        _: &'a Name,
        rate: Rate,
        _: NonZeroU32,
        units: NonZeroU32,
    ) -> BoxFuture<'a, Result<Portion, Unavailable>> {
        let left = Standing { burst: rate.burst.get(), remaining: 0, reset: Duration::ZERO };
        Box::pin(ready(Ok(Portion::Given { units, left })))
    }

    fn forget<'a>(&'a self, _: &'a Name) -> BoxFuture<'a, Result<(), Unavailable>> {
        Box::pin(ready(Ok(())))
    }
}

/// Numbers, which all ask the same of the same endpoint.
#[derive(Clone, Copy)]
struct Said(Plain);

impl Requests<u64> for Said {
    type Sent = u64;
    type Kept = u64;

    fn intent(&self, number: &u64, now: Mono) -> Intent {
        self.0.intent(number, now)
    }

    fn split(&self, number: u64, keep: bool) -> (u64, Option<u64>) {
        self.0.split(number, keep)
    }

    fn again(&self, kept: &u64) -> Option<u64> {
        Some(*kept)
    }

    fn stamp(&self, _: &mut u64, _: Try, _: Mono) {}

    fn asked<'a>(&self, sent: &'a u64) -> Asked<'a> {
        black_box(sent);
        Asked { endpoint: "10.0.0.7:443", operation: "charge" }
    }
}

impl Answers<u64, Infallible> for Said {
    type Answer = u64;

    fn judge(&self, result: Result<&u64, &Infallible>) -> Verdict {
        self.0.judge(result)
    }

    fn deliver(&self, number: u64, rest: Rest<'_>) -> u64 {
        rest.complete();
        number
    }
}

/// Answers at once.
#[derive(Clone)]
struct Prompt;

impl Service<u64> for Prompt {
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
