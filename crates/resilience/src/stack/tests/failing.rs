//! What upstreams that fail and hang are to circuits, limits and budgets.

use std::sync::Arc;

use super::*;
use crate::{
    bulkhead::{Adaptive, Bulkhead, Limit, Why},
    circuit_breaker::{Breaker, Mode},
};

fn circuit(env: &Env, consecutive: u32) -> Arc<Breaker> {
    Arc::new(Breaker::new(in_a_row(consecutive), Dice::seeded(1), env.mono()).unwrap())
}

fn state(breaker: &Breaker, env: &Env) -> State {
    breaker.snapshot(env.mono()).state
}

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn an_upstream_that_hangs_opens_the_circuit_also_where_only_the_whole_call_has_a_time() {
    let env = Env::real();
    let upstream = Upstream::new(&env);
    upstream.always(Reply::Hang);
    let breaker = circuit(&env, 3);
    let stack = named("a")
        .total(SECOND)
        .shared_endpoint_breaker(breaker.clone())
        .build(&Timers::new(&env), idempotent())
        .unwrap();
    for nth in 0..100 {
        assert!(stack.layer(upstream.clone()).call(nth).await.is_err());
    }
    assert_eq!(upstream.heard().len(), 3);
    assert_eq!(count(&stack, "timeout_total"), 3, "a caller is told which time ran out");
    // A probe that hangs opens it again, instead of leaving it half open.
    env.sleep(3 * SECOND).await;
    let generation = breaker.snapshot(env.mono()).generation;
    assert!(stack.layer(upstream.clone()).call(0).await.is_err());
    let after = breaker.snapshot(env.mono());
    assert_eq!((after.state, after.generation), (State::Open, generation + 1));
}

#[tokio::test(start_paused = true)]
async fn a_dependency_whose_attempts_run_out_before_the_call_does_opens_its_circuit() {
    let env = Env::real();
    let upstream = Upstream::new(&env);
    upstream.always(Reply::Hang);
    let mut config = attempts(9);
    config.backoff = Backoff { base: 500 * MILLI, cap: 500 * MILLI, jitter: Jitter::None };
    let breaker = circuit(&env, 3);
    let stack = named("a")
        .total(SECOND)
        .attempt(400 * MILLI)
        .shared_breaker(breaker.clone())
        .retry(config, BudgetConfig::default())
        .build(&Timers::new(&env), idempotent())
        .unwrap();
    for nth in 0..3 {
        let ended = stack.layer(upstream.clone()).call(nth).await;
        assert!(matches!(ended, Err(CallError::Timeout { scope: Scope::Total, .. })), "{ended:?}");
    }
    assert_eq!(state(&breaker, &env), State::Open);
}

#[tokio::test(start_paused = true)]
async fn a_caller_who_leaves_less_than_an_attempt_may_take_disarms_no_circuit() {
    let env = Env::real();
    let upstream = Upstream::new(&env);
    let breaker = circuit(&env, 3);
    let stack = named("a")
        .total(3 * SECOND)
        .attempt(800 * MILLI)
        .shared_endpoint_breaker(breaker.clone())
        .build(&Timers::new(&env), Headers)
        .unwrap();
    let leaving = |left| Carrying(Hop::until(Deadline::after(env.mono(), left)));
    upstream.always(Reply::Hang);
    for _ in 0..3 {
        assert!(stack.layer(upstream.clone()).call(leaving(500 * MILLI)).await.is_err());
    }
    assert_eq!(state(&breaker, &env), State::Open);
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_was_cut_off_before_half_of_the_calls_are_done_says_nothing() {
    let env = Env::real();
    let upstream = Upstream::new(&env);
    let breaker = circuit(&env, 1);
    let mut timeouts = timeout::Config { total: None, attempt: None, idle: None, refuse_hopeless: false };
    timeouts.total = Some(9 * SECOND);
    let stack = named("a")
        .timeouts(timeouts)
        .shared_endpoint_breaker(breaker.clone())
        .build(&Timers::new(&env), Headers)
        .unwrap();
    upstream.takes(400 * MILLI);
    for _ in 0..30 {
        assert!(stack.layer(upstream.clone()).call(Carrying(Hop::FIRST)).await.is_ok());
    }
    let leaving = |left| Carrying(Hop::until(Deadline::after(env.mono(), left)));
    assert!(stack.layer(upstream.clone()).call(leaving(100 * MILLI)).await.is_err());
    assert_eq!(state(&breaker, &env), State::Closed, "nobody could have answered in that time");
    upstream.always(Reply::Hang);
    assert!(stack.layer(upstream.clone()).call(leaving(500 * MILLI)).await.is_err());
    assert_eq!(state(&breaker, &env), State::Open);
}

#[tokio::test(start_paused = true)]
async fn who_leaves_a_millisecond_neither_opens_a_circuit_nor_keeps_it_open() {
    let env = Env::real();
    let upstream = Upstream::new(&env);
    let (endpoint, dependency) = (circuit(&env, 1), circuit(&env, 1));
    let states = || [state(&endpoint, &env), state(&dependency, &env)];
    let stack = named("a")
        .total(9 * SECOND)
        .shared_endpoint_breaker(endpoint.clone())
        .shared_breaker(dependency.clone())
        .build(&Timers::new(&env), Headers)
        .unwrap();
    let leaving = |left| Carrying(Hop::until(Deadline::after(env.mono(), left)));
    upstream.takes(20 * MILLI);
    for _ in 0..3 {
        assert!(stack.layer(upstream.clone()).call(leaving(MILLI)).await.is_err());
    }
    assert_eq!(states(), [State::Closed; 2], "nobody could have answered in that time");
    upstream.script([Reply::Fail]);
    assert!(stack.layer(upstream.clone()).call(Carrying(Hop::FIRST)).await.is_err());
    assert_eq!(states(), [State::Open; 2]);
    env.sleep(3 * SECOND).await;
    for _ in 0..3 {
        assert!(stack.layer(upstream.clone()).call(leaving(MILLI)).await.is_err());
        assert_eq!(states(), [State::HalfOpen; 2], "it found nothing out, and the next one tries");
    }
    assert!(stack.layer(upstream.clone()).call(Carrying(Hop::FIRST)).await.is_ok());
    assert_eq!(states(), [State::Closed; 2]);
    assert_eq!(upstream.heard().len(), 8);
}

#[tokio::test(start_paused = true)]
async fn an_adaptive_limit_learns_from_calls_that_hang_until_their_own_end() {
    let env = Env::real();
    let upstream = Upstream::new(&env);
    upstream.always(Reply::Hang);
    let bulkhead = bulkhead::Config { limit: Limit::Adaptive(Adaptive::default()), ..bulkhead::Config::default() };
    let bulkhead = Arc::new(Bulkhead::new(bulkhead, env.mono()).unwrap());
    let stack =
        named("a").total(SECOND).shared_bulkhead(bulkhead.clone()).build(&Timers::new(&env), idempotent()).unwrap();
    let before = bulkhead.snapshot().limit;
    for _ in 0..3 {
        let mut calls = tokio::task::JoinSet::new();
        for nth in 0..20 {
            let mut service = stack.layer(upstream.clone());
            calls.spawn(async move { service.call(nth).await });
        }
        calls.join_all().await;
    }
    assert!(bulkhead.snapshot().limit < before, "{:?}", bulkhead.snapshot());
}

#[tokio::test(start_paused = true)]
async fn what_never_reaches_the_upstream_feeds_no_budget() {
    let env = Env::real();
    let upstream = Upstream::new(&env);
    upstream.always(Reply::Fail);
    upstream.takes(100 * MILLI);
    let share = BudgetConfig { percent: 20, interval: Duration::from_secs(10), floor_per_second: 0 };
    let retries = |attempts_of_each| Arc::new(Retries::new(attempts(attempts_of_each), share, Dice::seeded(1)));
    let (limited, refusing) = (retries(3), retries(3));
    let limit = bulkhead::Config { limit: Limit::Fixed(NonZeroU32::new(10).unwrap()), ..bulkhead::Config::default() };
    let stack =
        named("a").bulkhead(limit).shared_retry(limited.clone()).build(&Timers::new(&env), idempotent()).unwrap();
    let mut calls = tokio::task::JoinSet::new();
    for nth in 0..5_000 {
        let mut service = stack.layer(upstream.clone());
        calls.spawn(async move { service.call(nth).await });
        env.sleep(MILLI).await;
    }
    let answers = calls.join_all().await;
    let reached = answers.iter().filter(|answer| !matches!(answer, Err(CallError::Rejected(_)))).count();
    let heard = upstream.heard().len();
    assert!(reached > 50 && heard * 5 <= reached * 6, "{reached} calls became {heard}");
    let circuit = circuit(&env, 1);
    circuit.operate(Mode::ForcedOpen, env.mono());
    let stack = named("b")
        .shared_endpoint_breaker(circuit)
        .shared_retry(refusing.clone())
        .build(&Timers::new(&env), idempotent())
        .unwrap();
    for nth in 0..1_000 {
        assert!(stack.layer(upstream.clone()).call(nth).await.is_err());
    }
    assert_eq!(refusing.counts(env.mono()).usage.left, 0);
}

#[tokio::test(start_paused = true)]
async fn a_budget_whose_interval_becomes_shorter_credits_no_calls_of_before() {
    let budget = |seconds| BudgetConfig { percent: 20, interval: Duration::from_secs(seconds), floor_per_second: 0 };
    let at = |millis| Mono::ZERO + Duration::from_millis(millis);
    let (changed, same) = (
        Retries::new(attempts(2), budget(600), Dice::seeded(1)),
        Retries::new(attempts(2), budget(10), Dice::seeded(1)),
    );
    (0..1_000).for_each(|_| changed.call(at(1_000)));
    changed.configure(attempts(2), budget(10), at(1_000));
    for millis in 1_001..50_000 {
        changed.call(at(millis));
        same.call(at(millis));
    }
    assert_eq!(changed.counts(at(50_000)).usage, same.counts(at(50_000)).usage);
}

#[tokio::test(start_paused = true)]
async fn who_finds_no_place_is_counted_once_and_who_waits_for_one_is_not() {
    let env = Env::real();
    let upstream = Upstream::new(&env);
    upstream.takes(10 * MILLI);
    let of = |length| Arc::new(Bulkhead::new(one_at_a_time(length), env.mono()).unwrap());
    for (length, calls, expected) in [(0_u32, 100_u64, 99_u64), (50, 40, 0), (1, 40, 38)] {
        let bulkhead = of(length);
        let stack = named("a").shared_bulkhead(bulkhead.clone()).build(&Timers::new(&env), idempotent()).unwrap();
        let mut all = tokio::task::JoinSet::new();
        for nth in 0..calls {
            let mut service = stack.layer(upstream.clone());
            all.spawn(async move { service.call(nth).await });
        }
        let failed = all.join_all().await.iter().filter(|answer| answer.is_err()).count() as u64;
        let refused: u64 = bulkhead.snapshot().refused.iter().map(|(_, count)| count).sum();
        assert_eq!((failed, refused), (expected, expected), "{length} may wait");
        assert_eq!(count(&stack, "rejected_bulkhead"), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_tenant_at_its_share_waits_where_there_is_a_queue() {
    let env = Env::real();
    let bulkhead = bulkhead::Config {
        limit: Limit::Fixed(NonZeroU32::new(4).unwrap()),
        tenant_share: Some(0.25),
        ..one_at_a_time(4)
    };
    let bulkhead = Bulkhead::new(bulkhead, env.mono()).unwrap();
    let ask = Ask { tenant: Some("loud".parse().unwrap()), ..Ask::default() };
    let inside = bulkhead.take_or_wait(env.mono(), &ask).unwrap();
    assert!(inside.is_none(), "the hall is asked with a waker");
    assert!(bulkhead.snapshot().refused.iter().all(|(_, count)| *count == 0));
    let _one = Bulkhead::try_enter(&bulkhead, env.mono(), &ask).unwrap();
    assert_eq!(Bulkhead::try_enter(&bulkhead, env.mono(), &ask).unwrap_err().why, Why::TenantShare);
}

#[tokio::test(start_paused = true)]
async fn a_probe_of_the_dependency_is_one_call_whatever_is_sent_again_otherwise() {
    let env = Env::real();
    let upstream = Upstream::new(&env);
    let late = hedge::Config { after: hedge::After::Fixed(5 * MILLI), extra: NonZeroU32::new(2).unwrap() };
    let breaker = circuit(&env, 1);
    let stack = named("a")
        .total(9 * SECOND)
        .shared_breaker(breaker.clone())
        .retry(attempts(3), BudgetConfig::default())
        .hedge(late)
        .build(&Timers::new(&env), idempotent())
        .unwrap();
    upstream.always(Reply::Fail);
    assert!(stack.layer(upstream.clone()).call(0).await.is_err());
    assert_eq!((state(&breaker, &env), upstream.heard().len()), (State::Open, 3));
    env.sleep(3 * SECOND).await;
    upstream.takes(50 * MILLI);
    let mut calls = tokio::task::JoinSet::new();
    for nth in 0..1_000 {
        let mut service = stack.layer(upstream.clone());
        calls.spawn(async move { service.call(nth).await });
    }
    assert!(calls.join_all().await.iter().all(Result::is_err));
    assert_eq!(upstream.heard().len(), 4);
    // A connection that was closed meanwhile is nobody's fault, and no second probe either.
    env.sleep(10 * SECOND).await;
    upstream.script([Reply::Stale]);
    upstream.always(Reply::Answer);
    assert_eq!(stack.layer(upstream.clone()).call(7).await, Ok(7));
    assert_eq!(state(&breaker, &env), State::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_listener_that_panics_costs_no_place() {
    let env = Env::real();
    let upstream = Upstream::new(&env);
    upstream.always(Reply::Fail);
    let breaker = Breaker::new(in_a_row(1), Dice::seeded(1), env.mono()).unwrap();
    let breaker = Arc::new(breaker.with_listener(Arc::new(|_| panic!("as the test wants"))));
    let bulkhead = Arc::new(Bulkhead::new(bulkhead::Config::default(), env.mono()).unwrap());
    let stack = named("a")
        .shared_breaker(breaker)
        .shared_bulkhead(bulkhead.clone())
        .build(&Timers::new(&env), idempotent())
        .unwrap();
    let mut service = stack.layer(upstream);
    let mut calls = tokio::task::JoinSet::new();
    calls.spawn(async move { service.call(1).await });
    assert!(calls.join_next().await.unwrap().is_err());
    assert_eq!(bulkhead.snapshot().in_flight, 0);
}

#[tokio::test(start_paused = true)]
async fn copies_and_the_attempts_after_them_tell_the_next_hop_what_was_spent() {
    let env = Env::real();
    let upstream = Upstream::new(&env);
    let late = hedge::Config { after: hedge::After::Fixed(50 * MILLI), extra: NonZeroU32::new(2).unwrap() };
    let stack =
        named("a").hedge(late).retry(attempts(2), BudgetConfig::default()).build(&Timers::new(&env), Headers).unwrap();
    upstream.script([Reply::Hang, Reply::Hang]);
    let heard = stack.layer(upstream.clone()).call(Carrying(Hop::FIRST)).await.unwrap().0;
    assert_eq!((heard.attempt, heard.spent), (3, 2), "it was the third of this call");
}

#[tokio::test(start_paused = true)]
async fn what_the_caller_did_wrong_is_not_replaced_and_what_is_is_counted() {
    let env = Env::real();
    let stacks = Stacks::new(&Timers::new(&env));
    let upstream = Upstream::new(&env);
    let stack = stacks.build(named("prices"), idempotent()).unwrap();
    let usual = Instead::new(When::default(), |_, request: u64| Some((request + 1, Source::Static))).counted_by(&stack);
    let mut service = usual.layer(stack.layer(upstream.clone()));
    upstream.always(Reply::Refuse);
    assert!(matches!(service.call(7).await, Err(CallError::Upstream(_, Class::Refusal))));
    upstream.always(Reply::Throttle(None));
    let busy = service.call(7).await.unwrap();
    assert_eq!((busy.value, busy.instead_of), (8, Some(Outcome::Upstream(Class::Throttled))));
    let patient = Instead::new(When { throttled: false, ..When::default() }, |_, _| Some((1, Source::Static)));
    assert!(patient.layer(stack.layer(upstream.clone())).call(7).await.is_err());
    // Somebody else may be asked, and may have nothing either.
    upstream.always(Reply::Fail);
    let archive = Upstream::new(&env);
    let source = Source::Alternate(
        crate::fallback::Alternate::new(&"archive".parse().unwrap(), &"prices".parse().unwrap()).unwrap(),
    );
    let (of_instead, asked) = (archive.clone(), source.clone());
    let other = Instead::asking(When::default(), move |_, request: u64| {
        let (mut archive, source) = (of_instead.clone(), asked.clone());
        async move { Some((archive.call(request).await.ok()?, source)) }
    });
    let mut service = other.counted_by(&stack).layer(stack.layer(upstream));
    assert_eq!(service.call(7).await.unwrap().source, source);
    archive.always(Reply::Fail);
    assert!(service.call(7).await.is_err());
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &env.metrics()).unwrap();
    for line in [
        r#"quorate_fallbacks_total{dependency="prices",source="static"} 1"#,
        r#"quorate_fallbacks_total{dependency="prices",source="alternate"} 1"#,
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_circuit_that_only_looks_on_takes_no_retry_from_a_call() {
    let env = Env::real();
    let upstream = Upstream::new(&env);
    let breaker = circuit(&env, 1);
    breaker.operate(circuit_breaker::Mode::MetricsOnly, env.mono());
    let stack = named("a")
        .total(9 * SECOND)
        .shared_breaker(breaker.clone())
        .retry(attempts(3), BudgetConfig::default())
        .build(&Timers::new(&env), idempotent())
        .unwrap();
    upstream.always(Reply::Fail);
    assert!(stack.layer(upstream.clone()).call(0).await.is_err());
    assert_eq!((state(&breaker, &env), upstream.heard().len()), (State::Open, 3));
    env.sleep(3 * SECOND).await;
    assert!(stack.layer(upstream.clone()).call(0).await.is_err());
    assert_eq!(upstream.heard().len(), 6, "also the one by which it sees whether it may close");
}
