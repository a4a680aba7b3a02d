//! What a call through a stack allocates. A process of its own, with an allocator that counts by thread.

#![expect(unsafe_code, reason = "an allocator is unsafe by its contract; this one counts and passes everything on")]
#![expect(clippy::unwrap_used, reason = "a test ends where it is surprised")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    convert::Infallible,
    future::{Ready, ready},
    num::{NonZeroU32, NonZeroUsize},
    sync::Arc,
    task::{Context, Poll},
};

use quorate_foundations::{name::Name, time::Mono};
use quorate_resilience::{
    Verdict, bulkhead,
    circuit_breaker::{self, Asked, Per, Split},
    rate_limit::{OnUnavailable, Portion, Quota, Rate, Shared, SharedConfig, Standing, Unavailable},
    retry::{self, BudgetConfig},
    stack::{Answers, Builder, Intent, Plain, Requests, Rest, Stack, Try},
    timeout::{self, Timers},
};
use quorate_runtime::{BoxFuture, Env};
use tower_layer::Layer as _;
use tower_service::Service;

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: everything is passed on as it came; counting touches a thread-local without a destructor and allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: as the caller promised.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as the caller promised.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Answers at once, and once after it was asked again.
#[derive(Clone)]
struct Doubles;

impl Service<u64> for Doubles {
    type Response = u64;
    type Error = Infallible;
    type Future = Ready<Result<u64, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, number: u64) -> Self::Future {
        ready(Ok(number * 2))
    }
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
        let left = Standing { burst: rate.burst.get(), remaining: 0, reset: std::time::Duration::ZERO };
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

    fn asked<'a>(&self, _: &'a u64) -> Asked<'a> {
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

fn plenty() -> Rate {
    Rate::new(1_000_000.try_into().unwrap(), std::time::Duration::from_secs(1))
}

fn whole() -> Builder {
    Stack::builder("ledger".parse().unwrap())
        .timeouts(timeout::Config::default())
        .breaker(circuit_breaker::Config::default())
        .bulkhead(bulkhead::Config::default())
        .retry(retry::Config::default(), BudgetConfig::default())
}

/// A thousand calls through the stack that `builder` makes, when a hundred have been made.
async fn allocates_nothing(env: &Env, builder: Builder) {
    let stack = builder.build(&Timers::new(env), Said(Plain::idempotent())).unwrap();
    let mut service = stack.layer(Doubles);
    for _ in 0..100 {
        assert_eq!(service.call(1).await.unwrap(), 2);
    }
    let calls = 1_000;
    let before = ALLOCATIONS.get();
    for _ in 0..calls {
        service.call(1).await.unwrap();
    }
    let allocated = ALLOCATIONS.get() - before;
    assert_eq!(allocated, 0, "by {calls} calls");
}

#[tokio::test]
async fn a_call_that_succeeds_passes_every_policy_and_allocates_nothing() {
    let env = Env::real();
    let each = Split::per(Per::EndpointAndOperation);
    allocates_nothing(&env, whole().limit(plenty()).endpoint_breaker(circuit_breaker::Config::default())).await;
    allocates_nothing(&env, whole().limit(plenty()).endpoint_breakers(circuit_breaker::Config::default(), each)).await;
}

#[tokio::test]
async fn a_call_for_which_units_of_the_stores_count_are_leased_allocates_nothing() {
    let (env, name) = (Env::real(), "ledger".parse::<Name>().unwrap());
    let lease = std::time::Duration::from_secs(3_600);
    let config = SharedConfig { lease, ..SharedConfig::of(plenty(), OnUnavailable::Deny, NonZeroUsize::MIN) };
    let shared = Shared::new(&env, Arc::new(Plenty), config).unwrap();
    allocates_nothing(&env, whole().counted_limit(shared, name)).await;
}
