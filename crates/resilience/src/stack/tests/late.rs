//! Calls that are late, or wait until they are: copies and what is known of them, what is not worth sending any more, and calls that are
//! dropped at any moment.

use std::{future::poll_fn, sync::Arc};

use super::*;

/// A copy fifty milliseconds after the first.
fn copied() -> hedge::Config {
    hedge::Config { after: hedge::After::Fixed(50 * MILLI), extra: NonZeroU32::MIN }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_lost_against_its_copy_is_known_to_have_been_late() {
    let env = Env::real();
    let upstream = Upstream::new(&env);
    upstream.takes(10 * MILLI);
    let stack = named("a").hedge(copied()).build(&Timers::new(&env), idempotent()).unwrap();
    // As many as the floor of the budget allows.
    for nth in 0..40 {
        upstream.script([Reply::Hang]);
        assert_eq!(stack.layer(upstream.clone()).call(nth).await, Ok(nth));
    }
    let known = stack.policies.memory.latency.quantile(env.mono(), 0.9);
    assert!(known >= Some(50 * MILLI), "{known:?}");
}

#[tokio::test(start_paused = true)]
async fn a_late_refusal_is_not_dropped_for_a_copy_that_is_under_way() {
    let env = Env::real();
    let upstream = Upstream::new(&env);
    upstream.takes(60 * MILLI);
    upstream.script([Reply::Refuse, Reply::Hang]);
    let stack = named("a").total(1_000 * MILLI).hedge(copied()).build(&Timers::new(&env), idempotent()).unwrap();
    let ended = stack.layer(upstream.clone()).call(7).await;
    assert!(matches!(ended, Err(CallError::Upstream(_, Class::Refusal))), "{ended:?}");
    assert_eq!((upstream.heard().len(), upstream.in_flight()), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn who_has_waited_until_too_little_is_left_is_not_sent() {
    let env = Env::real();
    let upstream = Upstream::new(&env);
    upstream.takes(100 * MILLI);
    let stack =
        named("a").total(250 * MILLI).bulkhead(one_at_a_time(2)).build(&Timers::new(&env), idempotent()).unwrap();
    for nth in 0..20 {
        assert!(stack.layer(upstream.clone()).call(nth).await.is_ok());
    }
    env.sleep(Duration::from_secs(1)).await;
    upstream.script([Reply::Hang]);
    let (mut holds, mut waits) = (stack.layer(upstream.clone()), stack.layer(upstream.clone()));
    let (gone, waited) = tokio::join!(env.timeout(200 * MILLI, holds.call(7)), waits.call(8));
    assert!(gone.is_none());
    assert!(matches!(waited, Err(CallError::Rejected(Rejection::Deadline(_)))), "{waited:?}");
    assert_eq!(upstream.heard().len(), 21);
}

#[tokio::test(start_paused = true)]
async fn no_attempt_begins_when_its_wait_has_ended_too_late() {
    let env = Env::real();
    let upstream = Upstream::new(&env);
    upstream.always(Reply::Fail);
    // It would end just in time, and alarms are up to a millisecond late.
    let wait = 10 * MILLI - Duration::from_nanos(1);
    let mut config = attempts(2);
    config.backoff = Backoff { base: wait, cap: wait, jitter: Jitter::None };
    let stack = named("a")
        .total(10 * MILLI)
        .retry(config, BudgetConfig::default())
        .build(&Timers::new(&env), idempotent())
        .unwrap();
    let ended = stack.layer(upstream.clone()).call(7).await;
    assert!(matches!(ended, Err(CallError::Upstream(_, Class::Fault))), "{ended:?}");
    assert_eq!(upstream.heard().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn two_hundred_services_that_are_ready_hold_no_place() {
    let env = Env::real();
    let upstream = Upstream::new(&env);
    let stack = named("a").bulkhead(one_at_a_time(0)).build(&Timers::new(&env), idempotent()).unwrap();
    let mut idle: Vec<_> = (0..200).map(|_| stack.layer(upstream.clone())).collect();
    for service in &mut idle {
        poll_fn(|cx| tower_service::Service::<u64>::poll_ready(service, cx)).await.unwrap();
    }
    assert_eq!(idle[199].call(7).await, Ok(7));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_dropped_at_any_moment_leaves_nothing_behind() {
    for cut in 0..400_u32 {
        let env = Env::real();
        let upstream = Upstream::new(&env);
        upstream.takes(20 * MILLI);
        upstream.script([Reply::Fail, Reply::Hang, Reply::Fail, Reply::Hang]);
        let places = Arc::new(bulkhead::Bulkhead::new(one_at_a_time(4), env.mono()).unwrap());
        let stack = named("a")
            .total(2_000 * MILLI)
            .attempt(90 * MILLI)
            .breaker(in_a_row(9))
            .endpoint_breaker(in_a_row(9))
            .shared_bulkhead(places.clone())
            .retry(attempts(3), BudgetConfig::default())
            .hedge(copied())
            .build(&Timers::new(&env), idempotent())
            .unwrap();
        let (mut first, mut second) = (stack.layer(upstream.clone()), stack.layer(upstream.clone()));
        let cut = cut * MILLI;
        _ = tokio::join!(env.timeout(cut, first.call(1)), env.timeout(cut + 7 * MILLI, second.call(2)));
        let left = places.snapshot();
        assert_eq!((left.in_flight, left.waiting, upstream.in_flight()), (0, 0, 0), "dropped after {cut:?}");
        upstream.script([]);
        assert_eq!(stack.layer(upstream).call(3).await, Ok(3), "dropped after {cut:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_copy_is_refused_does_not_win_against_the_first() {
    let env = Env::real();
    let upstream = Upstream::new(&env);
    upstream.takes(80 * MILLI);
    let stack = named("a").total(1_000 * MILLI).hedge(copied()).build(&Timers::new(&env), idempotent()).unwrap();
    // The copy is refused at 60 ms, as where it meets the first one at work, which is done at 80.
    let meanwhile = async {
        env.sleep(40 * MILLI).await;
        upstream.takes(10 * MILLI);
        upstream.script([Reply::Refuse]);
    };
    let mut service = stack.layer(upstream.clone());
    let (ended, ()) = tokio::join!(service.call(7), meanwhile);
    assert_eq!(ended, Ok(7));
}

#[tokio::test(start_paused = true)]
async fn copies_of_which_none_is_answered_say_nothing_of_how_long_calls_take() {
    let env = Env::real();
    let upstream = Upstream::new(&env);
    upstream.always(Reply::Hang);
    let stack = named("a").total(500 * MILLI).hedge(copied()).build(&Timers::new(&env), idempotent()).unwrap();
    for nth in 0..25 {
        assert!(matches!(stack.layer(upstream.clone()).call(nth).await, Err(CallError::Timeout { .. })));
    }
    assert_eq!(stack.policies.memory.latency.quantile(env.mono(), 0.5), None);
}
