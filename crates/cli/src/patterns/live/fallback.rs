//! An upstream that dies behind a good fallback: callers are served, and nobody is deceived.

use std::{
    num::NonZeroU32,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::Full;
use quorate_resilience::{
    CallError,
    circuit_breaker::Config,
    client::Error,
    fallback::{Keep, Source, Stale, When},
    stack::Instead,
};
use quorate_runtime::{BoxFuture, Env};
use tower_layer::Layer as _;
use tower_service::Service as _;

use super::{
    show::Shown,
    stage::{Called, called, named, request, stack},
    upstream::{Does, Upstream},
};
use crate::exit::Failure;

const EVERY: Duration = Duration::from_millis(10);
const PHASE: u32 = 100;

pub(super) async fn run(env: &Env) -> Result<Shown, Failure> {
    let upstream = Upstream::start(env).await?;
    let config = Config { consecutive: NonZeroU32::new(5), ..Config::default() };
    let stack = stack(env, named("upstream")?.endpoint_breaker(config))?;
    // What was answered last, with its age, in place of what can't be had.
    let kept = Arc::new(Mutex::new(Stale::new(Keep::default())));
    let (of_instead, clock) = (kept.clone(), env.clone());
    let instead = Instead::new(When::default(), move |_, _| {
        let mut kept = of_instead.lock().unwrap_or_else(PoisonError::into_inner);
        kept.stale(clock.mono(), &"price").map(|(price, source)| (Err(price), source))
    });
    let begun = env.mono();
    let (mut fresh, mut stale, mut nothing) = (Vec::new(), Vec::new(), 0);
    let (mut died, mut oldest) = (begun, Duration::ZERO);
    for nth in 0..2 * PHASE {
        if nth == PHASE {
            upstream.does(Does::Close);
            died = env.mono();
        }
        let answer = instead.layer(Prices(called(env, &stack))).call(request(Method::GET, &upstream.url())).await;
        match answer {
            Ok(served) => {
                if let Source::Stale { age } = served.source {
                    stale.push(env.mono());
                    oldest = oldest.max(age);
                } else {
                    fresh.push(env.mono());
                    let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                    kept.remember(env.mono(), "price", nth, 8);
                }
            }
            Err(_) => nothing += 1,
        }
        env.sleep(EVERY).await;
    }
    let until = env.mono();

    let mut shown = Shown {
        scene: "100 calls a second for a price; after a second the upstream closes every connection. The last price stands in, with its age; a circuit opens after 5 failures.".to_owned(),
        ..Shown::default()
    };
    shown.count("FRESH", begun, fresh.iter().copied());
    shown.count("STALE", begun, stale.iter().copied());
    shown.count("REACHED THE UPSTREAM", begun, upstream.seen().arrivals);
    shown.unwell(begun, died, until);
    let counted = stack.counts();
    let of = |word: &str| counted.iter().find(|(known, _)| *known == word).map_or(0, |(_, count)| *count);
    let hidden = stale.len() as u64 - of("rejected_breaker").min(stale.len() as u64);
    shown.figure("oldest price that was served", format!("{:.1} s", oldest.as_secs_f64()));
    shown.figure("calls that the stack counted as failed", of("fault"));
    shown.figure("calls that the open circuit refused", of("rejected_breaker"));
    shown.claim("every caller was served", nothing == 0 && stale.len() == PHASE as usize);
    shown.claim("what stood in said so, and how old it was", oldest > Duration::ZERO);
    shown.claim("the outage was not hidden: failures were counted and the circuit opened", {
        of("fault") + of("stale") >= hidden && of("rejected_breaker") > 0
    });
    Ok(shown)
}

/// The price, and what stood in for it as the error: so that they can be told apart.
type Told = Result<u16, u32>;

/// A service whose answers are prices.
struct Prices(Called);

impl tower_service::Service<Request<Full<Bytes>>> for Prices {
    type Response = Told;
    type Error = CallError<Error>;
    type Future = BoxFuture<'static, Result<Told, CallError<Error>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Full<Bytes>>) -> Self::Future {
        let call = self.0.call(request);
        Box::pin(async move { Ok(Ok(call.await?.status().as_u16())) })
    }
}
