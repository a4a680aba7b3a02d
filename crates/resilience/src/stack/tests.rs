//! What a stack promises, with upstreams that do as they are told, in virtual time.

use std::{num::NonZeroU32, time::Duration};

use quorate_foundations::time::Mono;
use quorate_runtime::Env;
use tower_layer::Layer as _;
use tower_service::Service as _;

use super::*;

mod failing;
mod late;

use crate::{
    CallError, Rejection, Scope,
    bulkhead::{self, Ask},
    circuit_breaker::{self, State},
    dice::Dice,
    fallback::{Source, When},
    hedge,
    hop::Hop,
    kit::{Failed, Reply, Upstream},
    outcome::{Class, Verdict},
    retry::{self, Backoff, BudgetConfig, Jitter, Repeatable, Retries},
    timeout::{self, Timers},
};

const MILLI: Duration = Duration::from_millis(1);
type Judge = fn(Result<&u64, &Failed>) -> Verdict;

fn idempotent() -> Plain<Judge> {
    Plain::idempotent().judged_by(Upstream::judge)
}

fn attempts(attempts: u32) -> retry::Config {
    let backoff = Backoff { base: 100 * MILLI, cap: 1_000 * MILLI, jitter: Jitter::None };
    retry::Config { attempts: NonZeroU32::new(attempts).unwrap(), backoff, ..retry::Config::default() }
}

fn in_a_row(consecutive: u32) -> circuit_breaker::Config {
    circuit_breaker::Config { consecutive: NonZeroU32::new(consecutive), ..circuit_breaker::Config::default() }
}

fn named(name: &str) -> Builder {
    Stack::builder(name.parse().unwrap())
}

fn count<P>(stack: &Stack<P>, of: &str) -> u64 {
    stack.counts().into_iter().find(|(word, _)| *word == of).unwrap().1
}

#[tokio::test(start_paused = true)]
async fn a_read_is_sent_again_after_its_waits_until_it_succeeds() {
    let env = Env::real();
    let upstream = Upstream::new(&env);
    upstream.script([Reply::Fail, Reply::Fail]);
    let stack = named("a").retry(attempts(3), BudgetConfig::default()).build(&Timers::new(&env), idempotent()).unwrap();
    let begun = env.mono();
    assert_eq!(stack.layer(upstream.clone()).call(7).await, Ok(7));
    let waited: Vec<Duration> = upstream.heard().iter().map(|at| at.saturating_since(begun)).collect();
    assert_eq!(waited, [Duration::ZERO, 100 * MILLI, 300 * MILLI]);
    assert_eq!(count(&stack, "success"), 1, "one call, however many attempts");
}

#[tokio::test(start_paused = true)]
async fn what_may_not_be_done_twice_is_sent_once_unless_it_certainly_was_not_done() {
    let env = Env::real();
    let upstream = Upstream::new(&env);
    let judge: Judge = Upstream::judge;
    let protocol = Plain::new().judged_by(judge);
    let stack = named("a").retry(attempts(3), BudgetConfig::default()).build(&Timers::new(&env), protocol).unwrap();
    upstream.script([Reply::Fail]);
    assert!(matches!(stack.layer(upstream.clone()).call(7).await, Err(CallError::Upstream(_, Class::Fault))));
    assert_eq!(upstream.heard().len(), 1);
    upstream.script([Reply::Unprocessed]);
    assert_eq!(stack.layer(upstream.clone()).call(7).await, Ok(7));
}

#[tokio::test(start_paused = true)]
async fn a_call_ends_by_its_total_deadline_and_no_attempt_begins_that_would_not_fit() {
    let env = Env::real();
    let upstream = Upstream::new(&env);
    let mut config = attempts(9);
    config.backoff = Backoff { base: 500 * MILLI, cap: 500 * MILLI, jitter: Jitter::None };
    let stack = named("a")
        .total(1_000 * MILLI)
        .attempt(400 * MILLI)
        .retry(config, BudgetConfig::default())
        .build(&Timers::new(&env), idempotent())
        .unwrap();
    upstream.always(Reply::Hang);
    let begun = env.mono();
    let ended = stack.layer(upstream.clone()).call(7).await;
    assert_eq!(ended, Err(CallError::Timeout { scope: Scope::Total, waited: 1_000 * MILLI }));
    assert_eq!(env.mono().saturating_since(begun), 1_000 * MILLI);
    assert_eq!(upstream.heard().len(), 2, "nobody knows yet how long an attempt needs");
    assert_eq!(upstream.in_flight(), 0, "what ran out of time was dropped");
    // Once it is known that half of them need 150 ms, the 100 ms after the wait are not worth a second attempt.
    upstream.always(Reply::Answer);
    upstream.takes(150 * MILLI);
    for nth in 0..20 {
        assert!(stack.layer(upstream.clone()).call(nth).await.is_ok());
    }
    env.sleep(Duration::from_secs(1)).await;
    upstream.always(Reply::Hang);
    let (begun, heard) = (env.mono(), upstream.heard().len());
    let ended = stack.layer(upstream.clone()).call(7).await;
    assert!(matches!(ended, Err(CallError::Timeout { scope: Scope::Attempt, .. })), "{ended:?}");
    assert!(env.mono().saturating_since(begun) < 410 * MILLI, "nor for a wait that leads nowhere");
    assert_eq!(upstream.heard().len(), heard + 1);
}

#[tokio::test(start_paused = true)]
async fn a_thousand_calls_that_fail_together_are_retried_within_the_budget_when_they_come_back() {
    let env = Env::real();
    let upstream = Upstream::new(&env);
    upstream.always(Reply::Fail);
    let budget = BudgetConfig { percent: 20, interval: Duration::from_secs(10), floor_per_second: 10 };
    let mut config = attempts(4);
    config.backoff = Backoff { base: Duration::from_secs(5), cap: Duration::from_secs(5), jitter: Jitter::None };
    let stack = named("a").retry(config, budget).build(&Timers::new(&env), idempotent()).unwrap();
    let mut calls = tokio::task::JoinSet::new();
    for nth in 0..1_000 {
        let mut service = stack.layer(upstream.clone());
        calls.spawn(async move { service.call(nth).await });
    }
    assert!(calls.join_all().await.iter().all(Result::is_err));
    // 20 % of 1,000, and 10 a second over ten seconds.
    assert_eq!(upstream.heard().len(), 1_000 + 200 + 100);
}

#[tokio::test(start_paused = true)]
async fn a_budget_remembers_no_calls_of_long_ago() {
    let env = Env::real();
    let budget = BudgetConfig { percent: 20, interval: Duration::from_secs(10), floor_per_second: 0 };
    let retries = Retries::new(attempts(2), budget, Dice::seeded(1));
    let burst = Mono::ZERO + Duration::from_secs(100);
    (0..1_000).for_each(|_| retries.call(burst));
    assert_eq!(retries.counts(burst).usage.left, 200);
    let hour = burst + Duration::from_secs(3_600);
    (0..10).for_each(|_| retries.call(hour));
    let counts = retries.counts(hour);
    assert_eq!((counts.calls, counts.usage.calls, counts.usage.left), (1_010, 10, 2));
    // Nobody has looked between the burst and now: the burst is still one of long ago.
    let quiet = Retries::new(attempts(2), budget, Dice::seeded(1));
    (0..1_000).for_each(|_| quiet.call(burst));
    quiet.call(hour);
    assert_eq!(quiet.counts(hour).usage.calls, 1);
    drop(env);
}

#[tokio::test(start_paused = true)]
async fn an_open_circuit_of_the_endpoint_leaves_a_call_what_its_last_attempt_came_to_and_is_not_held_against_the_dependency()
 {
    let env = Env::real();
    let upstream = Upstream::new(&env);
    upstream.always(Reply::Fail);
    let dependency =
        std::sync::Arc::new(circuit_breaker::Breaker::new(in_a_row(2), Dice::seeded(1), env.mono()).unwrap());
    let stack = named("a")
        .shared_breaker(dependency.clone())
        .retry(attempts(3), BudgetConfig::default())
        .endpoint_breaker(in_a_row(2))
        .build(&Timers::new(&env), idempotent())
        .unwrap();
    let ended = stack.layer(upstream.clone()).call(7).await;
    assert!(matches!(ended, Err(CallError::Upstream(_, Class::Fault))), "{ended:?}");
    assert_eq!((upstream.heard().len(), count(&stack, "fault")), (2, 1));
    // Of the next one nothing is sent, and that is what is said of it.
    let ended = stack.layer(upstream.clone()).call(7).await;
    assert!(matches!(ended, Err(CallError::Rejected(Rejection::Breaker(_)))), "{ended:?}");
    assert_eq!(upstream.heard().len(), 2);
    assert_eq!(dependency.snapshot(env.mono()).state, State::Closed, "a refusal says nothing about the upstream");
    assert_eq!(count(&stack, "rejected_breaker"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_dropped_gives_its_probe_back_and_counts_for_nothing() {
    let env = Env::real();
    let upstream = Upstream::new(&env);
    let stack =
        named("a").endpoint_breaker(in_a_row(1)).breaker(in_a_row(1)).build(&Timers::new(&env), idempotent()).unwrap();
    upstream.script([Reply::Fail]);
    assert!(stack.layer(upstream.clone()).call(1).await.is_err());
    env.sleep(Duration::from_secs(3)).await;
    upstream.script([Reply::Hang]);
    let mut service = stack.layer(upstream.clone());
    assert!(env.timeout(10 * MILLI, service.call(2)).await.is_none());
    assert_eq!(count(&stack, "cancelled"), 1);
    assert_eq!(stack.layer(upstream.clone()).call(3).await, Ok(3), "the next caller may try at once");
}

#[tokio::test(start_paused = true)]
async fn while_half_open_a_thousand_callers_reach_the_upstream_once() {
    let env = Env::real();
    let upstream = Upstream::new(&env);
    let stack = named("a")
        .breaker(in_a_row(1))
        .retry(attempts(3), BudgetConfig::default())
        .build(&Timers::new(&env), idempotent())
        .unwrap();
    upstream.always(Reply::Fail);
    assert!(stack.layer(upstream.clone()).call(0).await.is_err());
    assert_eq!(upstream.heard().len(), 3);
    upstream.takes(50 * MILLI);
    for (reply, succeed) in [(Reply::Fail, 0), (Reply::Answer, 1)] {
        env.sleep(Duration::from_secs(10)).await;
        upstream.always(reply);
        let heard = upstream.heard().len();
        let mut calls = tokio::task::JoinSet::new();
        for nth in 0..1_000 {
            let mut service = stack.layer(upstream.clone());
            calls.spawn(async move { service.call(nth).await });
        }
        let answers = calls.join_all().await;
        assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), succeed);
        assert_eq!(upstream.heard().len(), heard + 1, "the one that tries is not sent again either");
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_found_closed_is_replaced_at_once_and_only_once() {
    let env = Env::real();
    let upstream = Upstream::new(&env);
    let stack = named("a").retry(attempts(5), BudgetConfig::default()).build(&Timers::new(&env), idempotent()).unwrap();
    upstream.script([Reply::Stale]);
    let begun = env.mono();
    assert_eq!(stack.layer(upstream.clone()).call(7).await, Ok(7));
    assert_eq!(env.mono(), begun, "without a wait");
    upstream.script([Reply::Stale, Reply::Stale]);
    assert!(stack.layer(upstream.clone()).call(7).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_retry_after_is_a_floor_and_one_that_is_too_long_ends_the_call() {
    let env = Env::real();
    let upstream = Upstream::new(&env);
    let stack = named("a").retry(attempts(2), BudgetConfig::default()).build(&Timers::new(&env), idempotent()).unwrap();
    upstream.script([Reply::Throttle(Some(Duration::from_secs(2)))]);
    let begun = env.mono();
    assert_eq!(stack.layer(upstream.clone()).call(7).await, Ok(7));
    assert!(env.mono().saturating_since(begun) >= Duration::from_secs(2));
    upstream.script([Reply::Throttle(Some(Duration::from_secs(3_600)))]);
    assert!(stack.layer(upstream.clone()).call(7).await.is_err());
}

fn one_at_a_time(length: u32) -> bulkhead::Config {
    let queue = bulkhead::Queue { length, max_wait: Duration::from_secs(1) };
    bulkhead::Config { limit: bulkhead::Limit::Fixed(NonZeroU32::MIN), queue, ..bulkhead::Config::default() }
}

#[tokio::test(start_paused = true)]
async fn what_became_of_calls_and_retries_are_metrics_and_a_dependency_has_one_stack() {
    let env = Env::real();
    let stacks = Stacks::new(&Timers::new(&env));
    let upstream = Upstream::new(&env);
    upstream.script([Reply::Fail, Reply::Answer, Reply::Refuse]);
    let stack = stacks.build(named("bank").retry(attempts(2), BudgetConfig::default()), idempotent()).unwrap();
    assert_eq!(stack.layer(upstream.clone()).call(7).await, Ok(7));
    assert!(stack.layer(upstream.clone()).call(7).await.is_err());
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &env.metrics()).unwrap();
    for line in [
        r#"quorate_calls_total{dependency="bank",outcome="success"} 1"#,
        r#"quorate_calls_total{dependency="bank",outcome="refusal"} 1"#,
        r#"quorate_retries_total{dependency="bank"} 1"#,
        r#"quorate_retry_budget_left{dependency="bank"} 99"#,
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
    assert_eq!(stacks.standings()[0].retries.unwrap().calls, 2);
    assert!(matches!(stacks.build(named("bank"), idempotent()), Err(BuildError::Known(_))));
    drop(stack);
    assert!(stacks.standings().is_empty());
    assert!(stacks.build(named("bank"), idempotent()).is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_lesser_answer_says_that_it_is_one_and_hides_no_outage_from_the_circuit() {
    let env = Env::real();
    let upstream = Upstream::new(&env);
    upstream.always(Reply::Fail);
    let stack = named("a").breaker(in_a_row(2)).build(&Timers::new(&env), idempotent()).unwrap();
    let usual = Instead::new(When::default(), |_, _| Some((100, Source::Static)));
    let mut service = usual.layer(stack.layer(upstream.clone()));
    for _ in 0..3 {
        let served = service.call(7).await.unwrap();
        assert_eq!((served.value, served.is_degraded()), (100, true));
    }
    assert_eq!(upstream.heard().len(), 2, "the circuit opened behind it");
    assert_eq!(count(&stack, "rejected_breaker"), 1);
    let strict = Instead::new(When { rejected: false, ..When::default() }, |_, _| Some((100, Source::Static)));
    assert!(strict.layer(stack.layer(upstream)).call(7).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn calls_wait_for_a_place_and_a_dropped_one_gives_its_place_to_the_next() {
    let env = Env::real();
    let upstream = Upstream::new(&env);
    upstream.takes(100 * MILLI);
    let stack = named("a").bulkhead(one_at_a_time(2)).build(&Timers::new(&env), idempotent()).unwrap();
    let mut calls = tokio::task::JoinSet::new();
    for nth in 0..4 {
        let mut service = stack.layer(upstream.clone());
        calls.spawn(async move { service.call(nth).await });
    }
    let answers = calls.join_all().await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 3, "{answers:?}");
    assert!(answers.iter().any(|answer| matches!(answer, Err(CallError::Rejected(Rejection::Bulkhead(_))))));
    assert_eq!(upstream.most_in_flight(), 1);
    upstream.script([Reply::Hang]);
    let mut hangs = stack.layer(upstream.clone());
    assert!(env.timeout(10 * MILLI, hangs.call(7)).await.is_none());
    assert_eq!(stack.layer(upstream.clone()).call(8).await, Ok(8));
}

#[tokio::test(start_paused = true)]
async fn a_late_read_is_sent_twice_within_the_budget_and_a_write_is_not() {
    let env = Env::real();
    let upstream = Upstream::new(&env);
    let late = hedge::Config { after: hedge::After::Fixed(50 * MILLI), extra: NonZeroU32::MIN };
    let stack = named("a").hedge(late).build(&Timers::new(&env), idempotent()).unwrap();
    upstream.script([Reply::Hang]);
    let begun = env.mono();
    assert_eq!(stack.layer(upstream.clone()).call(7).await, Ok(7));
    let waited = env.mono().saturating_since(begun);
    assert!((50 * MILLI..55 * MILLI).contains(&waited), "{waited:?}");
    assert_eq!((upstream.heard().len(), upstream.in_flight()), (2, 0), "the one that was late was dropped");
    let judge: Judge = Upstream::judge;
    let writes = named("a").hedge(late).build(&Timers::new(&env), Plain::new().judged_by(judge)).unwrap();
    upstream.script([Reply::Hang]);
    let mut write = writes.layer(upstream.clone());
    assert!(env.timeout(Duration::from_secs(1), write.call(7)).await.is_none());
    assert_eq!(upstream.heard().len(), 3);
}

/// Requests that carry what the hop before said, as headers would.
#[derive(Clone, Copy, Debug)]
struct Carrying(Hop);

#[derive(Clone, Copy)]
struct Headers;

impl Requests<Carrying> for Headers {
    type Sent = Carrying;
    type Kept = Carrying;

    fn intent(&self, request: &Carrying, _: Mono) -> Intent {
        Intent { repeatable: Repeatable::Idempotent, hop: request.0, ask: Ask::default() }
    }

    fn split(&self, request: Carrying, keep: bool) -> (Carrying, Option<Carrying>) {
        (request, keep.then_some(request))
    }

    fn again(&self, kept: &Carrying) -> Option<Carrying> {
        Some(*kept)
    }

    fn stamp(&self, sent: &mut Carrying, attempt: Try, _: Mono) {
        sent.0 = attempt.hop;
    }
}

impl Answers<Carrying, Failed> for Headers {
    type Answer = Carrying;

    fn judge(&self, result: Result<&Carrying, &Failed>) -> Verdict {
        Upstream::judge(result)
    }

    fn deliver(&self, answer: Carrying, _: Rest<'_>) -> Carrying {
        answer
    }
}

#[tokio::test(start_paused = true)]
async fn of_three_hops_that_could_retry_the_first_does_and_the_upstream_sees_its_attempts_alone() {
    let env = Env::real();
    let upstream = Upstream::new(&env);
    upstream.always(Reply::Fail);
    let hop = |name: &str| {
        named(name)
            .total(Duration::from_secs(9))
            .retry(attempts(3), BudgetConfig::default())
            .build(&Timers::new(&env), Headers)
    };
    let (edge, middle, back) = (hop("middle").unwrap(), hop("back").unwrap(), hop("upstream").unwrap());
    let flat = |result: Result<Carrying, CallError<Failed>>| match result {
        Err(CallError::Upstream(failed, _)) => Err(failed),
        Ok(answer) => Ok(answer),
        Err(other) => panic!("{other}"),
    };
    let chain = |first: &Stack<Headers>, rest: Vec<Stack<Headers>>| {
        let (first, upstream) = (first.clone(), upstream.clone());
        async move {
            let mut services = rest.into_iter();
            let (middle, back) = (services.next().unwrap(), services.next().unwrap());
            let last = Hand(move |request| {
                let mut service = back.layer(upstream.clone());
                async move { flat(service.call(request).await) }
            });
            let between = Hand(move |request| {
                let mut service = middle.layer(last.clone());
                async move { flat(service.call(request).await) }
            });
            first.layer(between).call(Carrying(Hop::FIRST)).await
        }
    };
    assert!(chain(&edge, vec![middle, back]).await.is_err());
    assert_eq!(upstream.heard().len(), 3, "not 27");
}

/// A function as a service.
#[derive(Clone)]
struct Hand<F>(F);

impl<F, Fut> tower_service::Service<Carrying> for Hand<F>
where
    F: FnMut(Carrying) -> Fut,
    Fut: Future<Output = Result<Carrying, Failed>>,
{
    type Response = Carrying;
    type Error = Failed;
    type Future = Fut;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Failed>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Carrying) -> Fut {
        (self.0)(request)
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_next_hop_is_told_counts_attempts_and_carries_the_shorter_deadline() {
    let env = Env::real();
    let upstream = Upstream::new(&env);
    upstream.script([Reply::Fail]);
    let stack = named("a")
        .total(Duration::from_secs(9))
        .retry(attempts(3), BudgetConfig::default())
        .build(&Timers::new(&env), Headers)
        .unwrap();
    let deadline = Deadline::after(env.mono(), Duration::from_secs(1));
    let before = Hop { spent: 4, ..Hop::until(deadline) };
    let heard = stack.layer(upstream).call(Carrying(before)).await.unwrap().0;
    assert_eq!(heard, Hop { deadline, attempt: 2, spent: 5, owned: true });
}

#[tokio::test(start_paused = true)]
async fn the_next_hop_is_told_for_how_long_its_attempt_is_waited_for() {
    let env = Env::real();
    let upstream = Upstream::new(&env);
    upstream.script([Reply::Fail]);
    let stack = named("a")
        .total(Duration::from_secs(9))
        .attempt(200 * MILLI)
        .retry(attempts(3), BudgetConfig::default())
        .build(&Timers::new(&env), Headers)
        .unwrap();
    let heard = stack.layer(upstream.clone()).call(Carrying(Hop::FIRST)).await.unwrap().0;
    assert_eq!(heard.deadline, Deadline::after(upstream.heard()[1], 200 * MILLI));
    let heard = stack.layer(upstream.clone()).call(Carrying(Hop::FIRST)).await.unwrap().0;
    assert_eq!(heard.deadline, Deadline::after(upstream.heard()[2], 200 * MILLI), "of a first attempt as well");
}
