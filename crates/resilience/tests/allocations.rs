//! What a call through a stack allocates. A process of its own, with an allocator that counts by thread.

#![expect(unsafe_code, reason = "an allocator is unsafe by its contract; this one counts and passes everything on")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    convert::Infallible,
    future::{Ready, ready},
    task::{Context, Poll},
};

use quorate_resilience::{
    bulkhead, circuit_breaker,
    rate_limit::Rate,
    retry::{self, BudgetConfig},
    stack::{Plain, Stack},
    timeout::{self, Timers},
};
use quorate_runtime::Env;
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

#[tokio::test]
async fn a_call_that_succeeds_passes_every_policy_and_allocates_nothing() {
    let env = Env::real();
    let plenty = Rate::new(1_000_000.try_into().unwrap(), std::time::Duration::from_secs(1));
    let stack = Stack::builder("ledger".parse().unwrap())
        .limit(plenty)
        .timeouts(timeout::Config::default())
        .breaker(circuit_breaker::Config::default())
        .bulkhead(bulkhead::Config::default())
        .retry(retry::Config::default(), BudgetConfig::default())
        .endpoint_breaker(circuit_breaker::Config::default())
        .build(&Timers::new(&env), Plain::idempotent())
        .unwrap();
    let mut service = stack.layer(Doubles);
    for _ in 0..100 {
        assert_eq!(service.call(1).await.unwrap(), 2);
    }
    // The median of all calls is computed anew now and then: not by each of a few in a row.
    let calls = 1_000;
    let before = ALLOCATIONS.get();
    for _ in 0..calls {
        service.call(1).await.unwrap();
    }
    let allocated = ALLOCATIONS.get() - before;
    assert!(allocated * 100 < calls, "{calls} calls allocated {allocated} times");
}
