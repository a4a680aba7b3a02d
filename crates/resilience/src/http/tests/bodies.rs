//! Answers are a part of their calls up to their last byte.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use quorate_runtime::BoxFuture;

use super::*;
use crate::{
    bulkhead::{self, Bulkhead, Limit},
    circuit_breaker::{self, Breaker, State},
    dice::Dice,
    timeout,
};

const SECOND: Duration = Duration::from_secs(1);

/// How a body goes on after its pieces.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Then {
    Ends,
    Hangs,
    Breaks,
    Says(&'static str),
}

/// A body, counted while it lives.
struct Scripted {
    pieces: VecDeque<Bytes>,
    then: Then,
    alive: Arc<AtomicUsize>,
}

impl Body for Scripted {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if let Some(piece) = self.pieces.pop_front() {
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        match std::mem::replace(&mut self.then, Then::Ends) {
            Then::Ends => Poll::Ready(None),
            Then::Hangs => {
                self.then = Then::Hangs;
                Poll::Pending
            }
            Then::Breaks => Poll::Ready(Some(Err(std::io::ErrorKind::ConnectionReset.into()))),
            Then::Says(code) => Poll::Ready(Some(Ok(Frame::trailers(headers(&[("grpc-status", code)]))))),
        }
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.alive.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Answers at once with a head and a scripted body.
#[derive(Clone)]
struct Answers {
    pieces: usize,
    then: Then,
    sent: Arc<AtomicUsize>,
    alive: Arc<AtomicUsize>,
}

impl Answers {
    fn of(pieces: usize, then: Then) -> Self {
        Self { pieces, then, sent: Arc::default(), alive: Arc::default() }
    }
}

impl<B> tower_service::Service<Request<B>> for Answers {
    type Response = Response<Scripted>;
    type Error = std::io::Error;
    type Future = std::future::Ready<Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<B>) -> Self::Future {
        self.sent.fetch_add(1, Ordering::Relaxed);
        self.alive.fetch_add(1, Ordering::Relaxed);
        let pieces = (0..self.pieces).map(|_| Bytes::from_static(b"piece")).collect();
        let body = Scripted { pieces, then: self.then, alive: self.alive.clone() };
        std::future::ready(Ok(Response::builder().header("content-type", "application/grpc").body(body).unwrap()))
    }
}

fn get() -> Request<Full<Bytes>> {
    Request::get("http://a/").body(Full::default()).unwrap()
}

fn circuit(env: &Env) -> Arc<Breaker> {
    let config = circuit_breaker::Config { consecutive: NonZeroU32::new(3), ..circuit_breaker::Config::default() };
    Arc::new(Breaker::new(config, Dice::seeded(1), env.mono()).unwrap())
}

fn named(name: &str) -> crate::stack::Builder {
    Stack::builder(name.parse().unwrap())
}

fn counted<P>(stack: &Stack<P>) -> Vec<(&'static str, u64)> {
    stack.counts().into_iter().filter(|(_, count)| *count > 0).collect()
}

#[tokio::test(start_paused = true)]
async fn an_attempts_time_holds_to_the_last_byte_of_its_answer() {
    let env = Env::real();
    let stack = named("a").attempt(SECOND).build(&Timers::new(&env), Http::default()).unwrap();
    let answer = stack.layer(Answers::of(1, Then::Hangs)).call(get()).await.unwrap();
    let (begun, collected) = (env.mono(), answer.into_body().collect());
    let ended = env.timeout(60 * SECOND, collected).await.expect("it ends");
    assert!(matches!(ended, Err(timeout::BodyError::Expired(expired)) if expired.scope == crate::Scope::Attempt));
    assert!(env.mono().saturating_since(begun) < SECOND + SECOND / 10);
    assert_eq!(counted(&stack), [("timeout_attempt", 1)]);
}

#[tokio::test(start_paused = true)]
async fn answers_that_break_off_or_hang_are_failures_to_both_circuits() {
    let env = Env::real();
    for (then, word) in [(Then::Breaks, "fault"), (Then::Hangs, "timeout_total"), (Then::Says("14"), "fault")] {
        let (endpoint, dependency) = (circuit(&env), circuit(&env));
        let stack = named("a")
            .total(SECOND)
            .shared_endpoint_breaker(endpoint.clone())
            .shared_breaker(dependency.clone())
            .retry(retry::Config::default(), BudgetConfig::default())
            .build(&Timers::new(&env), Http::default())
            .unwrap();
        let service = Answers::of(1, then);
        for _ in 0..3 {
            let answer = stack.layer(service.clone()).call(get()).await.unwrap();
            let read = answer.into_body().collect().await;
            assert_eq!(read.is_ok(), matches!(then, Then::Says(_)), "{then:?}");
        }
        for breaker in [endpoint, dependency] {
            assert_eq!(breaker.snapshot(env.mono()).state, State::Open, "{then:?}");
        }
        assert_eq!(counted(&stack), [(word, 3)], "{then:?}");
        assert_eq!(service.sent.load(Ordering::Relaxed), 3, "what has begun is not sent again: {then:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_probe_closes_the_circuit_when_its_answer_is_complete_and_not_before() {
    let env = Env::real();
    for complete in [true, false] {
        let breaker = circuit(&env);
        let stack = named("a")
            .total(SECOND)
            .shared_endpoint_breaker(breaker.clone())
            .build(&Timers::new(&env), Http::default())
            .unwrap();
        for _ in 0..3 {
            let answer = stack.layer(Answers::of(0, Then::Breaks)).call(get()).await.unwrap();
            assert!(answer.into_body().collect().await.is_err());
        }
        env.sleep(3 * SECOND).await;
        let then = if complete { Then::Ends } else { Then::Breaks };
        let answer = stack.layer(Answers::of(2, then)).call(get()).await.unwrap();
        assert_eq!(breaker.snapshot(env.mono()).state, State::HalfOpen, "a head proves nothing");
        assert!(stack.layer(Answers::of(2, then)).call(get()).await.is_err(), "one probe at a time");
        assert_eq!(answer.into_body().collect().await.is_ok(), complete);
        let expected = if complete { State::Closed } else { State::Open };
        assert_eq!(breaker.snapshot(env.mono()).state, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_probe_whose_answer_may_have_no_end_is_judged_by_its_head() {
    let env = Env::real();
    let breaker = circuit(&env);
    let stack = named("a").shared_endpoint_breaker(breaker.clone()).build(&Timers::new(&env), Http::default()).unwrap();
    for _ in 0..3 {
        let answer = stack.layer(Answers::of(0, Then::Breaks)).call(get()).await.unwrap();
        assert!(answer.into_body().collect().await.is_err());
    }
    env.sleep(3 * SECOND).await;
    let _endless = stack.layer(Answers::of(1, Then::Hangs)).call(get()).await.unwrap();
    assert_eq!(breaker.snapshot(env.mono()).state, State::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_probe_whose_answer_may_take_longer_than_a_probe_is_judged_by_its_head() {
    let env = Env::real();
    for of_dependency in [true, false] {
        let breaker = circuit(&env);
        let builder = named("a").total(30 * SECOND);
        let builder = if of_dependency {
            builder.shared_breaker(breaker.clone())
        } else {
            builder.shared_endpoint_breaker(breaker.clone())
        };
        let stack = builder.build(&Timers::new(&env), Http::default()).unwrap();
        for _ in 0..3 {
            let answer = stack.layer(Answers::of(0, Then::Breaks)).call(get()).await.unwrap();
            assert!(answer.into_body().collect().await.is_err());
        }
        env.sleep(3 * SECOND).await;
        let long = stack.layer(Answers::of(1, Then::Hangs)).call(get()).await.unwrap();
        assert_eq!(breaker.snapshot(env.mono()).state, State::Closed);
        env.sleep(15 * SECOND).await;
        assert_eq!(breaker.snapshot(env.mono()).state, State::Closed, "a probe has ten seconds, and its answer more");
        drop(long);
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_that_comes_with_a_later_attempt_is_read_to_its_end() {
    /// Fails a first attempt, by hanging or with a status, and answers the next with a 404.
    #[derive(Clone)]
    struct Later {
        first: Option<StatusCode>,
        sent: Arc<AtomicUsize>,
    }

    impl<B> tower_service::Service<Request<B>> for Later {
        type Response = Response<Full<Bytes>>;
        type Error = std::io::Error;
        type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: Request<B>) -> Self::Future {
            let first = (self.sent.fetch_add(1, Ordering::Relaxed) == 0).then_some(self.first);
            Box::pin(async move {
                let status = match first {
                    Some(None) => std::future::pending().await,
                    Some(Some(status)) => status,
                    None => StatusCode::NOT_FOUND,
                };
                Ok(Response::builder().status(status).body(Full::from("why")).unwrap())
            })
        }
    }

    let env = Env::real();
    let backoff = retry::Backoff { base: 2 * SECOND, cap: 2 * SECOND, jitter: retry::Jitter::None };
    let config = retry::Config { backoff, ..retry::Config::default() };
    for first in [None, Some(StatusCode::SERVICE_UNAVAILABLE)] {
        let stack = named("a")
            .total(9 * SECOND)
            .attempt(SECOND)
            .retry(config, BudgetConfig::default())
            .build(&Timers::new(&env), Http::default())
            .unwrap();
        let service = Later { first, sent: Arc::default() };
        let answer = stack.layer(service.clone()).call(get()).await.unwrap();
        assert_eq!((answer.status(), service.sent.load(Ordering::Relaxed)), (StatusCode::NOT_FOUND, 2));
        assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "why");
        assert_eq!(counted(&stack), [("refusal", 1)]);
    }
    // The same for an attempt that began late since its call had to wait for a place.
    let queue = bulkhead::Queue { length: 1, max_wait: 5 * SECOND };
    let limit = bulkhead::Config { limit: Limit::Fixed(NonZeroU32::MIN), queue, ..bulkhead::Config::default() };
    let stack = named("a").attempt(SECOND).bulkhead(limit).build(&Timers::new(&env), Http::default()).unwrap();
    let before = stack.layer(Later { first: None, sent: Arc::default() }).call(get());
    let mut after = stack.layer(Later { first: None, sent: Arc::new(AtomicUsize::new(1)) });
    let (before, after) = tokio::join!(before, after.call(get()));
    assert!(before.is_err());
    assert_eq!(after.unwrap().into_body().collect().await.unwrap().to_bytes(), "why");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_nobody_reads_is_dropped_with_its_place_when_its_time_is_up() {
    let env = Env::real();
    let bulkhead = bulkhead::Config { limit: Limit::Fixed(NonZeroU32::MIN), ..bulkhead::Config::default() };
    let bulkhead = Arc::new(Bulkhead::new(bulkhead, env.mono()).unwrap());
    let breaker = circuit(&env);
    let stack = named("a")
        .total(SECOND)
        .shared_bulkhead(bulkhead.clone())
        .shared_endpoint_breaker(breaker.clone())
        .build(&Timers::new(&env), Http::default())
        .unwrap();
    let service = Answers::of(2, Then::Hangs);
    let answer = stack.layer(service.clone()).call(get()).await.unwrap();
    assert_eq!((bulkhead.snapshot().in_flight, service.alive.load(Ordering::Relaxed)), (1, 1));
    env.sleep(2 * SECOND).await;
    assert_eq!((bulkhead.snapshot().in_flight, service.alive.load(Ordering::Relaxed)), (0, 0));
    assert_eq!(counted(&stack), [("timeout_total", 1)]);
    assert_eq!(breaker.snapshot(env.mono()).counts.failures, 0, "whoever didn't read is not the upstream");
    let mut body = answer.into_body();
    assert!(!body.is_end_stream(), "half an answer is never taken for a whole one");
    assert!(matches!(body.frame().await, Some(Err(timeout::BodyError::Expired(_)))));
    assert!(body.frame().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn who_leaves_while_it_waits_was_cancelled_and_who_has_read_enough_was_served() {
    let env = Env::real();
    let breaker = circuit(&env);
    let stack = named("a")
        .total(SECOND)
        .shared_endpoint_breaker(breaker.clone())
        .build(&Timers::new(&env), Http::default())
        .unwrap();
    let service = Answers::of(1, Then::Hangs);
    let answer = stack.layer(service.clone()).call(get()).await.unwrap();
    assert!(env.timeout(SECOND / 10, answer.into_body().collect()).await.is_none());
    assert_eq!(counted(&stack), [("cancelled", 1)]);
    let mut answer = stack.layer(service.clone()).call(get()).await.unwrap();
    answer.body_mut().frame().await.unwrap().unwrap();
    drop(answer);
    assert_eq!(counted(&stack), [("cancelled", 1), ("success", 1)]);
    assert_eq!(service.alive.load(Ordering::Relaxed), 0);
    assert_eq!(breaker.snapshot(env.mono()).counts.calls, 1);
}

#[test]
fn a_date_to_come_back_is_told_by_the_answers_own() {
    let (date, later) = ("Sun, 06 Nov 1994 08:49:37 GMT", "Sun, 06 Nov 1994 08:50:07 GMT");
    let said = |pairs: &[(&'static str, &str)]| verdict(StatusCode::SERVICE_UNAVAILABLE, &headers(pairs));
    let both = said(&[("retry-after", later), ("date", date)]);
    assert_eq!((both.class, both.retry_after), (Class::Throttled, Some(30 * SECOND)));
    assert_eq!(said(&[("retry-after", date), ("date", later)]).retry_after, Some(Duration::ZERO), "long past");
    let alone = said(&[("retry-after", later)]);
    assert_eq!((alone.class, alone.retry_after), (Class::Throttled, None));
    assert_eq!(said(&[("retry-after", "tomorrow"), ("date", date)]).class, Class::Fault);
}
