//! tower-resilience: its layers around a service that answers at once, and its time limit around one that takes a moment.

use std::{hint::black_box, pin::pin, time::Duration};

use tower::{Layer, Service};
use tower_resilience::{
    bulkhead::BulkheadLayer, circuitbreaker::CircuitBreakerLayer, ratelimiter::RateLimiterLayer,
    timelimiter::TimeLimiterLayer,
};

use super::{Contender, Twice, in_runtime};

const NAME: &str = "tower-resilience";
/// More than is called.
const PLENTY: usize = 1 << 40;
/// Longer than is measured.
const LONG: Duration = Duration::from_secs(3_600);

type Answer = Result<u64, tower::BoxError>;

fn answers() -> impl Service<u64, Response = u64, Error = tower::BoxError, Future: Send> + Clone + Send + Sync + 'static
{
    tower::service_fn(|n: u64| std::future::ready(Answer::Ok(n)))
}

/// Calls `service` in a runtime; every thread has a clone.
fn called<S>(service: S) -> Contender
where
    S: Service<u64> + Clone + Sync + 'static,
{
    in_runtime(NAME, move || {
        let mut service = service.clone();
        move |cx| {
            assert!(matches!(service.poll_ready(cx), std::task::Poll::Ready(Ok(()))));
            let mut call = pin!(service.call(black_box(1)));
            while call.as_mut().poll(cx).is_pending() {}
        }
    })
}

pub(super) fn breaker() -> Contender {
    called(CircuitBreakerLayer::builder().build().expect("a valid circuit").layer(answers()))
}

pub(super) fn limiter() -> Contender {
    let layer = RateLimiterLayer::builder().limit_for_period(PLENTY).refresh_period(LONG).build();
    called(layer.expect("a valid rate").layer(answers()))
}

pub(super) fn bulkhead() -> Contender {
    let layer = BulkheadLayer::builder().max_concurrent_calls(100).build();
    called(layer.expect("a valid limit").layer(answers()))
}

pub(super) fn timeout() -> Contender {
    let service = tower::service_fn(|_: u64| Twice(false));
    called(TimeLimiterLayer::builder().timeout_duration(Duration::from_secs(10)).build().layer(service))
}

/// What of a stack it has: a rate limit, a circuit, a bulkhead and a time limit, each a layer.
pub(super) fn stack() -> Contender {
    let limit = RateLimiterLayer::builder().limit_for_period(PLENTY).refresh_period(LONG).build();
    let bulkhead = BulkheadLayer::builder().max_concurrent_calls(100).build().expect("a valid limit");
    let time = TimeLimiterLayer::builder().timeout_duration(Duration::from_secs(10)).build();
    let inner = CircuitBreakerLayer::builder().build().expect("a valid circuit").layer(time.layer(answers()));
    called(limit.expect("a valid rate").layer(bulkhead.layer(inner)))
}
