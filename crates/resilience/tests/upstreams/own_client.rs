//! quorate's own client through a stack.

use std::{num::NonZeroU32, time::Duration};

use bytes::Bytes;
use h2::Reason;
use http::{Method, Request, Response, Version};
use http_body_util::{BodyExt as _, Full};
use quorate_resilience::{
    CallError,
    client::{Client, Config, Error, Received, Tls, Versions},
    hedge::{self, After},
    http::{FreshConnection, Http, TlsFault},
    outcome::{Class, Rejection},
    stack::{Builder, Stack},
    timeout::Timers,
};
use quorate_runtime::Env;
use tower_layer::Layer as _;
use tower_service::Service as _;

use crate::{
    certificates::{Shown, bad},
    count, policies, quick,
    upstream::{BUSY, Does, OK, ONE, Speaks, TWO, Upstream, forgets_to_encrypt, goes_away},
};

type Judge = fn(&Error) -> quorate_resilience::Verdict;

fn stack(env: &Env, builder: Builder) -> Stack<Http<Judge>> {
    builder.build(&Timers::new(env), Http::default().failing_as(Client::judge as Judge)).unwrap()
}

fn plain(env: &Env, two: bool) -> Client {
    let versions = if two { Versions::Two } else { Versions::Either };
    Client::new(env, Config { versions, ..Config::default() })
}

fn request(method: Method, uri: &str) -> Request<Full<Bytes>> {
    Request::builder().method(method).uri(uri).body(Full::from("asked")).unwrap()
}

async fn text(answer: Response<Received>) -> String {
    String::from_utf8(answer.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

#[tokio::test]
async fn what_an_upstream_did_not_look_at_is_sent_again_whatever_it_does() {
    let env = Env::real();
    let mut guarded = stack(&env, policies()).layer(plain(&env, true));
    let upstream = Upstream::new(&env, TWO, &[OK, Does::Resets(Reason::REFUSED_STREAM)]).await;
    for seen in [1, 3] {
        let answer = guarded.call(request(Method::POST, &upstream.uri("/"))).await.unwrap();
        assert_eq!((answer.status().as_u16(), upstream.seen()), (200, seen));
    }
    let away = goes_away(&env, &upstream).await;
    assert!(guarded.call(request(Method::POST, &away)).await.is_ok());
    assert_eq!(upstream.bodies(), ["asked"; 4]);
}

#[tokio::test]
async fn a_stream_that_is_reset_may_have_been_done_so_only_reads_are_sent_again() {
    let env = Env::real();
    for speaks in [ONE, TWO] {
        let resets = Does::Resets(Reason::INTERNAL_ERROR);
        let mut guarded = stack(&env, policies()).layer(plain(&env, speaks.two));
        let upstream = Upstream::new(&env, speaks, &[resets, OK, resets]).await;
        assert!(guarded.call(request(Method::GET, &upstream.uri("/"))).await.is_ok());
        assert!(guarded.call(request(Method::POST, &upstream.uri("/"))).await.is_err());
        assert_eq!(upstream.seen(), 3);
    }
}

#[tokio::test]
async fn many_calls_share_a_connection_and_one_that_is_dropped_takes_it_from_nobody() {
    let env = Env::real();
    let mut upstream = Upstream::new(&env, TWO, &[OK, Does::Waits]).await;
    let mut client = plain(&env, true);
    let first = client.call(request(Method::GET, &upstream.uri("/"))).await.unwrap();
    assert_eq!((first.version(), client.idle()), (Version::HTTP_2, 1));
    let waits = client.call(request(Method::GET, &upstream.uri("/")));
    let mut waits = Box::pin(waits);
    assert!(env.timeout(Duration::from_millis(50), &mut waits).await.is_none());
    // Somebody else hears something meanwhile, so the connection lives.
    assert_eq!(text(client.call(request(Method::GET, &upstream.uri("/"))).await.unwrap()).await, "ok");
    drop(waits);
    upstream.somebody_left().await;
    assert_eq!(text(client.call(request(Method::GET, &upstream.uri("/"))).await.unwrap()).await, "ok");
    assert_eq!(upstream.connections(), 1);
}

#[tokio::test]
async fn the_loser_of_a_hedge_is_reset_and_its_connection_goes_on_with_the_winner() {
    let env = Env::real();
    let mut upstream = Upstream::new(&env, TWO, &[OK, Does::Waits]).await;
    let late = hedge::Config { after: After::Fixed(Duration::from_millis(30)), extra: NonZeroU32::MIN };
    let client = plain(&env, true);
    let mut patient = stack(&env, policies()).layer(client.clone());
    let mut hedged = stack(&env, policies().hedge(late)).layer(client);
    assert!(patient.call(request(Method::GET, &upstream.uri("/"))).await.is_ok());
    // The first of two is never answered.
    let answer = hedged.call(request(Method::GET, &upstream.uri("/"))).await.unwrap();
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "ok");
    upstream.somebody_left().await;
    assert_eq!((upstream.seen(), upstream.connections()), (3, 1));
    assert!(patient.call(request(Method::GET, &upstream.uri("/"))).await.is_ok());
    assert_eq!(upstream.connections(), 1);
}

#[tokio::test]
async fn a_connection_on_which_nothing_is_heard_is_left_to_those_who_wait_on_it() {
    let env = Env::real();
    let upstream = Upstream::new(&env, TWO, &[OK, Does::Waits]).await;
    let mut guarded = stack(&env, policies().attempt(Duration::from_millis(50))).layer(plain(&env, true));
    for _ in 0..2 {
        assert!(guarded.call(request(Method::GET, &upstream.uri("/"))).await.is_ok());
    }
    assert_eq!((upstream.seen(), upstream.connections()), (3, 2));
    let fresh = Client::new(&env, Config { versions: Versions::Two, ..Config::default() });
    for _ in 0..2 {
        let mut asked = request(Method::GET, &upstream.uri("/"));
        asked.extensions_mut().insert(FreshConnection);
        assert!(fresh.clone().call(asked).await.is_ok());
    }
    assert_eq!((upstream.connections(), fresh.idle()), (4, 1));
}

/// What a server offers, what the client is told to speak, and what both agree on.
type Offer = (&'static [&'static [u8]], Versions, Option<Version>);

#[tokio::test]
async fn what_is_spoken_is_agreed_on_and_who_does_not_speak_it_is_told() {
    let env = Env::real();
    let shown = Shown::good();
    let offers: [Offer; 5] = [
        (&[b"h2", b"http/1.1"], Versions::Either, Some(Version::HTTP_2)),
        (&[b"h2", b"http/1.1"], Versions::One, Some(Version::HTTP_11)),
        (&[], Versions::Either, Some(Version::HTTP_11)),
        (&[], Versions::Two, None),
        (&[b"http/1.1"], Versions::Two, None),
    ];
    for (offered, versions, agreed) in offers {
        let upstream = Upstream::new(&env, Speaks { tls: Some(shown.server(offered)), ..ONE }, &[]).await;
        let tls = Tls::trusting(&env, shown.roots());
        let mut client = Client::encrypting(&env, Config { versions, ..Config::default() }, tls);
        let answer = client.call(request(Method::GET, &upstream.uri("/"))).await;
        assert_eq!(answer.as_ref().ok().map(Response::version), agreed, "{offered:?} {versions:?} {answer:?}");
        if let Ok(answer) = answer {
            assert_eq!(text(answer).await, "ok");
            assert_eq!(client.idle(), 1);
        }
    }
}

#[tokio::test]
async fn who_shows_a_bad_certificate_is_asked_nothing_and_not_tried_again() {
    let env = Env::real();
    for (shown, roots, expected) in bad() {
        let upstream = Upstream::new(&env, Speaks { tls: Some(shown.server(&[])), ..ONE }, &[]).await;
        let client = Client::encrypting(&env, Config::default(), Tls::trusting(&env, roots));
        let stack = stack(&env, policies().breaker(quick()));
        let mut guarded = stack.layer(client);
        let ended = guarded.call(request(Method::GET, &upstream.uri("/"))).await.unwrap_err();
        let CallError::Upstream(Error::Tls { fault, .. }, _) = ended else { panic!("{ended:?}") };
        assert_eq!((fault, upstream.seen(), upstream.connections()), (expected, 0, 1));
        assert_eq!(count(&stack.counts(), "untrusted"), 1);
        let refused = guarded.call(request(Method::GET, &upstream.uri("/"))).await.unwrap_err();
        assert!(matches!(refused, CallError::Rejected(Rejection::Breaker(_))), "{refused:?}");
    }
}

#[tokio::test]
async fn who_does_not_speak_tls_is_no_fault_that_passes() {
    let env = Env::real();
    let upstream = Upstream::new(&env, ONE, &[BUSY]).await;
    let tls = Tls::trusting(&env, Shown::good().roots());
    let mut guarded = stack(&env, policies()).layer(Client::encrypting(&env, Config::default(), tls));
    let uri = upstream.uri("/").replace("http:", "https:");
    let ended = guarded.call(request(Method::GET, &uri)).await.unwrap_err();
    assert!(matches!(ended, CallError::Upstream(Error::Tls { fault: TlsFault::Handshake, .. }, _)), "{ended:?}");
    assert_eq!(upstream.connections(), 1);
}

#[tokio::test]
async fn encryption_that_breaks_when_the_request_is_there_does_not_say_that_it_was_not_done() {
    let env = Env::real();
    let shown = Shown::good();
    let uri = forgets_to_encrypt(&env, shown.server(&[])).await;
    let client = Client::encrypting(&env, Config::default(), Tls::trusting(&env, shown.roots()));
    let ended = stack(&env, policies()).layer(client).call(request(Method::POST, &uri)).await.unwrap_err();
    let CallError::Upstream(error, Class::Untrusted) = &ended else { panic!("{ended:?}") };
    assert!(matches!(error, Error::Broken { .. }), "{error:?}");
    assert!(!Client::judge(error).unprocessed);
}
