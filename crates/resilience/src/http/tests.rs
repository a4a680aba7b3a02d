//! What HTTP says of calls, at its edges.

use std::{num::NonZeroU32, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt as _, Full, StreamBody};
use quorate_runtime::Env;
use tower_layer::Layer as _;
use tower_service::Service as _;

use super::*;
use crate::{
    CallError,
    deadline::Deadline,
    kit::{Heard, HttpReply, HttpUpstream},
    outcome::Class,
    retry::{self, BudgetConfig},
    stack::Stack,
    timeout::Timers,
};

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    pairs.iter().map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap())).collect()
}

#[test]
fn what_is_written_for_the_next_hop_is_received_there() {
    let now = Mono::from_nanos(77);
    let deadline = Deadline::after(now, Duration::from_millis(1_500));
    for grpc in [false, true] {
        let mut sent = HeaderMap::new();
        if grpc {
            sent.insert("content-type", HeaderValue::from_static("application/grpc+proto"));
        }
        let hop = Hop { deadline, attempt: 3, spent: 5, owned: true };
        write(&mut sent, hop, now);
        assert_eq!(received(&sent, now), Ok(hop));
        assert_eq!(sent.contains_key(GRPC_TIMEOUT), grpc);
        assert_eq!(sent.get("grpc-previous-rpc-attempts").map(HeaderValue::as_bytes), grpc.then_some(&b"2"[..]));
        write(&mut sent, Hop::FIRST, now);
        assert_eq!(received(&sent, now), Ok(Hop::FIRST), "nothing is left of what a forwarded request brought");
    }
}

#[test]
fn whom_a_request_asks_and_for_what_is_told_without_passwords_and_numbers() {
    let told = |request: Request<()>| {
        let Asked { endpoint, operation } = asked(&request);
        (endpoint.to_owned(), operation.to_owned())
    };
    let pair = |endpoint: &str, operation: &str| (endpoint.to_owned(), operation.to_owned());
    let plain = || Request::post("http://anna:secret@10.0.0.7:443/cards/17/charges");
    assert_eq!(told(plain().body(()).unwrap()), pair("10.0.0.7:443", "POST"));
    let named = plain().extension(Operation("charge".parse().unwrap())).body(()).unwrap();
    assert_eq!(told(named), pair("10.0.0.7:443", "charge"));
    let replica = plain().extension(Endpoint("cards-2".parse().unwrap())).body(()).unwrap();
    assert_eq!(told(replica), pair("cards-2", "POST"));
    let grpc = Request::post("http://[::1]:50051/stock.Stock/Count").header("content-type", "application/grpc+proto");
    assert_eq!(told(grpc.body(()).unwrap()), pair("[::1]:50051", "stock.Stock/Count"));
    assert_eq!(told(Request::get("/stock").body(()).unwrap()), pair("", "GET"));
}

#[test]
fn a_timeout_that_cannot_be_read_is_refused_and_attempts_that_cannot_have_an_owner() {
    let now = Mono::ZERO;
    assert!(received(&headers(&[("quorate-timeout", "1s")]), now).is_err());
    assert!(received(&headers(&[("quorate-timeout", "1S"), ("quorate-timeout", "1S")]), now).is_err());
    assert!(received(&headers(&[("quorate-attempt", "many")]), now).unwrap().attempt == 1);
    assert!(received(&headers(&[("quorate-attempt", "attempt=x")]), now).unwrap().owned);
    let both = headers(&[("quorate-timeout", "2S"), ("grpc-timeout", "1S")]);
    assert_eq!(received(&both, now).unwrap().deadline, Deadline::after(now, Duration::from_secs(1)));
}

#[test]
fn statuses_and_codes_are_judged_as_the_table_says() {
    fn http(status: u16, pairs: &[(&'static str, &str)]) -> Verdict {
        verdict(StatusCode::from_u16(status).unwrap(), &headers(pairs))
    }
    for (status, class, transient) in [
        (200, Class::Success, true),
        (304, Class::Success, true),
        (404, Class::Refusal, true),
        (408, Class::Fault, true),
        (429, Class::Throttled, true),
        (500, Class::Fault, true),
        (501, Class::Fault, false),
        (503, Class::Fault, true),
    ] {
        let said = http(status, &[]);
        assert_eq!((said.class, said.transient), (class, transient), "{status}");
    }
    let said = http(503, &[("retry-after", "7")]);
    assert_eq!((said.class, said.retry_after), (Class::Throttled, Some(Duration::from_secs(7))));
    assert_eq!(http(503, &[("retry-after", "-7")]).retry_after, None);
    let grpc = |code: &str, pushback: Option<&str>| {
        let mut all = vec![("content-type", "application/grpc"), ("grpc-status", code)];
        all.extend(pushback.map(|ms| ("grpc-retry-pushback-ms", ms)));
        http(200, &all)
    };
    assert_eq!(grpc("0", None), Verdict::SUCCESS);
    assert_eq!(grpc("14", None), Verdict::FAULT);
    assert_eq!(grpc("8", Some("250")).retry_after, Some(Duration::from_millis(250)));
    assert!(!grpc("14", Some("-1")).transient, "told not to come back");
    assert_eq!(grpc("3", None).class, Class::Refusal);
    assert_eq!(grpc("?", None).class, Class::Fault);
}

#[test]
fn a_post_is_repeatable_with_a_key_alone_or_where_the_caller_says_so() {
    let request = |method: Method| Request::builder().method(method).body(()).unwrap();
    assert_eq!(repeatable(&request(Method::GET)), Repeatable::Idempotent);
    assert_eq!(repeatable(&request(Method::PATCH)), Repeatable::No);
    let mut post = request(Method::POST);
    assert_eq!(repeatable(&post), Repeatable::No);
    post.headers_mut().insert("idempotency-key", HeaderValue::from_static("\"a\""));
    assert_eq!(repeatable(&post), Repeatable::Keyed);
    post.extensions_mut().insert(Repeatable::Idempotent);
    assert_eq!(repeatable(&post), Repeatable::Idempotent);
}

/// A body of many pieces and trailers.
fn pieces(count: u8) -> impl Body<Data = Bytes, Error = std::convert::Infallible> + Unpin {
    let mut trailers = HeaderMap::new();
    trailers.insert("checksum", HeaderValue::from_static("7"));
    let frames: Vec<_> = (0..count).map(|nth| Ok(Frame::data(Bytes::from(vec![nth; 10])))).collect();
    let mut frames = frames.into_iter().chain([Ok(Frame::trailers(trailers))]);
    StreamBody::new(Frames(Box::new(move || frames.next())))
}

type Next = dyn FnMut() -> Option<Result<Frame<Bytes>, std::convert::Infallible>> + Send;
struct Frames(Box<Next>);

impl futures_core::Stream for Frames {
    type Item = Result<Frame<Bytes>, std::convert::Infallible>;
    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        std::task::Poll::Ready((self.0)())
    }
}

async fn whole<B: Body<Data = Bytes> + Unpin>(body: Replay<B>) -> Option<(usize, bool)> {
    let collected = body.collect().await.ok()?;
    let trailers = collected.trailers().is_some();
    Some((collected.to_bytes().len(), trailers))
}

#[tokio::test]
async fn a_body_is_told_again_with_its_trailers_also_when_the_first_reader_left_half_way() {
    let (mut first, kept) = Replay::kept(pieces(6), 60);
    for _ in 0..3 {
        first.frame().await.unwrap().unwrap();
    }
    drop(first);
    assert_eq!(whole(kept.again().unwrap()).await, Some((60, true)));
    assert_eq!(whole(kept.again().unwrap()).await, Some((60, true)));
}

#[tokio::test]
async fn a_body_that_is_too_long_is_sent_whole_and_told_no_second_time() {
    let (first, kept) = Replay::kept(pieces(6), 59);
    assert_eq!(whole(first).await, Some((60, true)));
    assert!(kept.again().is_none());
    let (_first, known) = Replay::kept(Full::new(Bytes::from(vec![0; 60])), 59);
    assert!(known.again().is_none(), "what says its length is not kept in part");
}

#[tokio::test]
async fn of_two_who_read_a_body_that_becomes_too_long_one_has_it_and_the_other_is_told() {
    let (mut first, kept) = Replay::kept(pieces(6), 30);
    for _ in 0..3 {
        first.frame().await.unwrap().unwrap();
    }
    let second = kept.again().unwrap();
    assert_eq!(whole(second).await, Some((60, true)));
    assert!(matches!(first.frame().await, Some(Err(TooLong::Lost(_)))));
}

/// An upstream that answers so many times that it is unavailable.
fn unavailable(env: &Env, times: usize) -> HttpUpstream {
    let upstream = HttpUpstream::new(env);
    upstream.script(vec![HttpReply::status(StatusCode::SERVICE_UNAVAILABLE); times]);
    upstream
}

/// What an upstream was told of attempts, with the bodies.
fn heard(upstream: &HttpUpstream) -> Vec<String> {
    let one = |heard: Heard| {
        let told = heard.request.headers().get(ATTEMPT).map_or("", |value| value.to_str().unwrap());
        format!("{told} {}", String::from_utf8_lossy(heard.request.body()))
    };
    upstream.heard().into_iter().map(one).collect()
}

#[tokio::test(start_paused = true)]
async fn a_keyed_post_is_sent_again_with_its_body_and_a_bare_one_is_not() {
    let env = Env::real();
    let config = retry::Config { attempts: NonZeroU32::new(3).unwrap(), ..retry::Config::default() };
    let stack = Stack::builder("a".parse().unwrap())
        .retry(config, BudgetConfig::default())
        .build(&Timers::new(&env), Http::default())
        .unwrap();
    let upstream = unavailable(&env, 1);
    let post = || Request::post("/").body(Full::new(Bytes::from("order"))).unwrap();
    let answer = stack.layer(upstream.clone()).call(post()).await.unwrap();
    assert_eq!(answer.status(), 503, "an answer is handed over, whatever it says");
    let mut keyed = post();
    keyed.headers_mut().insert("idempotency-key", HeaderValue::from_static("\"a\""));
    upstream.script([HttpReply::status(StatusCode::SERVICE_UNAVAILABLE)]);
    let answer = stack.layer(upstream.clone()).call(keyed).await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(heard(&upstream), [" order", "attempt=1;spent=0;owned order", "attempt=2;spent=1;owned order"]);
}

mod bodies;
mod replays;

#[tokio::test(start_paused = true)]
async fn of_two_stacks_around_one_service_the_outer_one_retries_and_the_inner_one_passes_on_what_it_said() {
    let env = Env::real();
    let config = retry::Config { attempts: NonZeroU32::new(3).unwrap(), ..retry::Config::default() };
    let stack = |name: &str| {
        Stack::builder(name.parse().unwrap())
            .retry(config, BudgetConfig::default())
            .build(&Timers::new(&env), Http::default())
            .unwrap()
    };
    let upstream = unavailable(&env, 9);
    let mut service = stack("outer").layer(stack("inner").layer(upstream.clone()));
    let request = Request::get("/").body(Full::<Bytes>::default()).unwrap();
    assert_eq!(service.call(request).await.unwrap().status(), 503);
    let heard = heard(&upstream);
    assert_eq!(heard.len(), 3, "not 9: {heard:?}");
    assert!(heard.iter().all(|told| told.contains("owned")), "{heard:?}");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_breaks_off_an_upload_that_does_and_a_silence_are_what_they_are() {
    let env = Env::real();
    let upstream = HttpUpstream::new(&env);
    let stack = Stack::builder("a".parse().unwrap())
        .total(Duration::from_secs(1))
        .build(&Timers::new(&env), Http::default())
        .unwrap();
    let mut service = stack.layer(upstream.clone());
    let get = || Request::get("/").body(Full::<Bytes>::default()).unwrap();
    upstream.script([HttpReply::BreaksOff(Response::new(Bytes::from("half"))), HttpReply::Hang, HttpReply::Breaks]);
    let mut answer = service.call(get()).await.unwrap().into_body();
    assert_eq!(answer.frame().await.unwrap().unwrap().into_data().unwrap(), "half");
    assert!(answer.frame().await.unwrap().is_err());
    assert!(matches!(service.call(get()).await, Err(CallError::Timeout { .. })));
    assert_eq!(upstream.in_flight(), 0, "whom nobody waits for any more is not at work");
    assert!(matches!(service.call(get()).await, Err(CallError::Upstream(_, Class::Fault))));
    let broken = Request::post("/").body(replays::Half::default()).unwrap();
    assert!(stack.layer(upstream.clone()).call(broken).await.is_err());
    let last = upstream.heard().pop().unwrap();
    assert_eq!((&last.request.body()[..], last.is_whole), (&b"half"[..], false));
}
