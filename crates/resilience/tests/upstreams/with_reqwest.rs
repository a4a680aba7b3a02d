//! `reqwest` through a stack.

use std::{error::Error as _, time::Duration};

use h2::Reason;
use quorate_resilience::{
    CallError,
    client::rustls::RootCertStore,
    http::tls_fault,
    outcome::{Class, Rejection, Scope},
    reqwest::{Reqwest, SendThrough as _},
    stack::{Builder, Stack},
    timeout::{BodyError, Timers},
};
use quorate_runtime::Env;
use reqwest::Client;

use crate::{
    certificates::{Shown, bad, trusting},
    count, policies, quick,
    upstream::{BUSY, Does, OK, ONE, Speaks, TWO, Upstream, goes_away, nobody},
};

fn plain(two: bool) -> Client {
    client(Shown::good().roots(), two)
}

fn client(roots: RootCertStore, two: bool) -> Client {
    // Every attempt is the stack's.
    let builder =
        Client::builder().no_proxy().retry(reqwest::retry::never()).tls_backend_preconfigured(trusting(roots));
    if two { builder.http2_prior_knowledge() } else { builder }.build().unwrap()
}

fn stack(env: &Env, builder: Builder) -> Stack<Reqwest> {
    builder.build(&Timers::new(env), Reqwest).unwrap()
}

#[tokio::test]
async fn a_read_is_sent_again_and_every_attempt_says_what_is_left_and_who_retries() {
    let env = Env::real();
    let upstream = Upstream::new(&env, ONE, &[BUSY, Does::Says(200, &[("x-a", "b")], "seven")]).await;
    let stack = stack(&env, policies());
    let uri = upstream.uri("/items/7?all");
    let answer = plain(false).get(&uri).send_through(&stack).await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.url().as_str()), (200, uri.as_str()), "it is reqwest's own answer");
    assert_eq!(answer.headers()["x-a"], "b");
    assert_eq!(answer.text().await.unwrap(), "seven");
    let told = upstream.field("quorate-attempt");
    assert_eq!(told, [Some("attempt=1;spent=0;owned".into()), Some("attempt=2;spent=1;owned".into())]);
    assert!(upstream.field("quorate-timeout").iter().all(Option::is_some));
}

#[tokio::test]
async fn a_write_is_sent_again_only_with_a_key_and_then_as_it_was() {
    let env = Env::real();
    let stack = stack(&env, policies());
    let upstream = Upstream::new(&env, ONE, &[BUSY]).await;
    let once = plain(false).post(upstream.uri("/")).body("one").send_through(&stack).await.unwrap();
    assert_eq!((once.status().as_u16(), upstream.seen()), (503, 1));

    let upstream = Upstream::new(&env, ONE, &[BUSY]).await;
    let keyed = plain(false).post(upstream.uri("/")).header("idempotency-key", "\"k\"").body("two");
    assert_eq!(keyed.send_through(&stack).await.unwrap().status().as_u16(), 200);
    assert_eq!(upstream.bodies(), ["two", "two"]);
}

#[tokio::test]
async fn a_time_to_come_back_is_kept_and_one_that_is_too_long_ends_the_call() {
    let env = Env::real();
    let stack = stack(&env, policies());
    let upstream = Upstream::new(&env, ONE, &[Does::Says(429, &[("retry-after", "0")], "")]).await;
    assert_eq!(plain(false).get(upstream.uri("/")).send_through(&stack).await.unwrap().status().as_u16(), 200);
    let upstream = Upstream::new(&env, ONE, &[Does::Says(503, &[("retry-after", "3600")], "")]).await;
    let told = plain(false).get(upstream.uri("/")).send_through(&stack).await.unwrap();
    assert_eq!((told.status().as_u16(), upstream.seen()), (503, 1));
    assert_eq!(told.headers()["retry-after"], "3600", "what to do about it is the caller's to decide");
}

#[tokio::test]
async fn who_cannot_be_reached_was_asked_nothing_and_an_open_circuit_refuses() {
    let env = Env::real();
    let uri = nobody(&env).await;
    let stack = stack(&env, policies().breaker(quick()));
    let dead = plain(false).post(&uri).send_through(&stack).await.unwrap_err();
    let CallError::Upstream(error, _) = dead else { panic!("{dead:?}") };
    assert!(Reqwest::judge(&error).unprocessed, "{error:?}");
    let refused = plain(false).get(&uri).send_through(&stack).await.unwrap_err();
    assert!(matches!(refused, CallError::Rejected(Rejection::Breaker(_))), "{refused:?}");
    let wrong = plain(false).get("no address").send_through(&stack).await.unwrap_err();
    assert!(matches!(wrong, CallError::Upstream(error, _) if error.is_builder()));
}

#[tokio::test]
async fn an_attempt_that_takes_too_long_is_dropped_and_followed_by_another() {
    let env = Env::real();
    let mut upstream = Upstream::new(&env, ONE, &[Does::Waits]).await;
    let stack = stack(&env, policies().attempt(Duration::from_millis(50)));
    let answer = plain(false).get(upstream.uri("/")).send_through(&stack).await.unwrap();
    assert_eq!(answer.text().await.unwrap(), "ok");
    upstream.somebody_left().await;
}

#[tokio::test]
async fn who_drops_a_call_leaves_the_upstream() {
    let env = Env::real();
    for speaks in [ONE, TWO] {
        let client = plain(speaks.two);
        let mut upstream = Upstream::new(&env, speaks, &[Does::Waits]).await;
        let stack = stack(&env, policies());
        let call = client.get(upstream.uri("/")).send_through(&stack);
        assert!(env.timeout(Duration::from_millis(50), call).await.is_none());
        upstream.somebody_left().await;
        assert_eq!(count(&stack.counts(), "cancelled"), 1);
    }
}

#[tokio::test]
async fn the_time_that_a_request_sets_is_the_whole_calls() {
    let env = Env::real();
    let upstream = Upstream::new(&env, ONE, &[Does::Waits, Does::Waits, Does::Waits]).await;
    let request = plain(false).get(upstream.uri("/")).timeout(Duration::from_millis(50));
    let ended = request.send_through(&stack(&env, policies())).await.unwrap_err();
    // Either of the two clocks may ring first: the request's own, or the call's.
    match ended {
        CallError::Timeout { scope, .. } => assert_eq!(scope, Scope::Total),
        CallError::Upstream(error, _) => assert!(error.is_timeout(), "{error:?}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(upstream.seen(), 1, "no attempt is begun that would not end in time");
}

#[tokio::test]
async fn an_answer_that_began_is_not_asked_for_again_and_half_of_it_is_not_taken_for_whole() {
    let env = Env::real();
    type Late = BodyError<reqwest::Error>;
    for speaks in [ONE, TWO] {
        let client = plain(speaks.two);
        let upstream = Upstream::new(&env, speaks, &[Does::Breaks("half"), Does::Stalls("half")]).await;
        let broken = client.get(upstream.uri("/")).send_through(&stack(&env, policies())).await.unwrap();
        assert!(broken.bytes().await.is_err());
        let short = stack(&env, policies().total(Duration::from_millis(100)));
        let stalled = client.get(upstream.uri("/")).send_through(&short).await.unwrap();
        let error = stalled.bytes().await.unwrap_err();
        let causes = std::iter::successors(error.source(), |cause| (*cause).source());
        assert!(causes.into_iter().any(<dyn std::error::Error>::is::<Late>), "{error:?}");
        assert_eq!(upstream.seen(), 2);
    }
}

#[tokio::test]
async fn what_an_upstream_did_not_look_at_is_sent_again_whatever_it_does() {
    let env = Env::real();
    let stack = stack(&env, policies());
    let upstream = Upstream::new(&env, TWO, &[Does::Resets(Reason::REFUSED_STREAM)]).await;
    let write = plain(true).post(upstream.uri("/")).body("one").send_through(&stack).await.unwrap();
    assert_eq!((write.status().as_u16(), upstream.seen()), (200, 2));

    let away = goes_away(&env, &upstream).await;
    let write = plain(true).post(&away).body("two").send_through(&stack).await.unwrap();
    assert_eq!(write.status().as_u16(), 200);
    assert_eq!(upstream.bodies()[2..], ["two"]);
}

#[tokio::test]
async fn a_stream_that_is_reset_may_have_been_done_so_only_reads_are_sent_again() {
    let env = Env::real();
    let stack = stack(&env, policies());
    for speaks in [ONE, TWO] {
        let client = plain(speaks.two);
        let resets = Does::Resets(Reason::INTERNAL_ERROR);
        let upstream = Upstream::new(&env, speaks, &[resets, OK, resets]).await;
        assert!(client.get(upstream.uri("/")).send_through(&stack).await.is_ok());
        assert!(client.post(upstream.uri("/")).send_through(&stack).await.is_err());
        assert_eq!(upstream.seen(), 3);
    }
    let calm = Upstream::new(&env, TWO, &[Does::Resets(Reason::ENHANCE_YOUR_CALM)]).await;
    let told = plain(true).post(calm.uri("/")).send_through(&stack).await.unwrap_err();
    let CallError::Upstream(error, _) = told else { panic!("{told:?}") };
    assert_eq!(Reqwest::judge(&error).class, Class::Throttled);
}

#[tokio::test]
async fn who_shows_a_bad_certificate_is_asked_nothing_and_not_tried_again() {
    let env = Env::real();
    for (shown, roots, fault) in bad() {
        let upstream = Upstream::new(&env, Speaks { tls: Some(shown.server(&[])), ..ONE }, &[]).await;
        let client = client(roots, false);
        let stack = stack(&env, policies().breaker(quick()));
        let ended = client.get(upstream.uri("/")).send_through(&stack).await.unwrap_err();
        let CallError::Upstream(error, _) = &ended else { panic!("{ended:?}") };
        assert_eq!(tls_fault(error), Some(fault));
        assert_eq!((upstream.seen(), upstream.connections()), (0, 1), "{fault:?}");
        assert_eq!(count(&stack.counts(), "untrusted"), 1);
        let refused = client.get(upstream.uri("/")).send_through(&stack).await.unwrap_err();
        assert!(matches!(refused, CallError::Rejected(Rejection::Breaker(_))), "whoever repairs it is to be told soon");
    }
    let shown = Shown::good();
    let upstream = Upstream::new(&env, Speaks { tls: Some(shown.server(&[b"h2"])), ..ONE }, &[BUSY]).await;
    let client = client(shown.roots(), false);
    let answer = client.get(upstream.uri("/")).send_through(&stack(&env, policies())).await.unwrap();
    assert_eq!(answer.text().await.unwrap(), "ok");
}
