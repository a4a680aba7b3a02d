//! `tonic` through a stack: its client, and its server as well as answers that only others give.

use std::{
    collections::VecDeque,
    convert::Infallible,
    error::Error as _,
    future::{Ready, ready},
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf as _, BufMut as _};
use h2::Reason;
use http::uri::PathAndQuery;
use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::TokioIo;
use quorate_resilience::{
    CallError,
    http::{TlsFault, tls_fault},
    outcome::Scope,
    retry::Repeatable,
    stack::{Builder, Stack},
    timeout::Timers,
    tonic::{Grpc, grpc, through},
};
use quorate_runtime::Env;
use tonic::{
    Code, Request, Status,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    transport::{self, Channel},
};

use crate::{
    count, policies, quick,
    upstream::{Does, TWO, Tasks, Upstream, goes_away, nobody},
};

/// Texts, so that nothing has to be generated.
#[derive(Clone, Copy, Default)]
struct Text;

impl Codec for Text {
    type Encode = String;
    type Decode = String;
    type Encoder = Self;
    type Decoder = Self;
    fn encoder(&mut self) -> Self {
        Self
    }
    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Text {
    type Item = String;
    type Error = Status;
    fn encode(&mut self, text: String, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put_slice(text.as_bytes());
        Ok(())
    }
}

impl Decoder for Text {
    type Item = String;
    type Error = Status;
    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<String>, Status> {
        let text = from.copy_to_bytes(from.remaining());
        Ok(Some(String::from_utf8_lossy(&text).into_owned()))
    }
}

/// A function as a service.
#[derive(Clone)]
struct Handler<F>(F);

fn tower_fn<F>(function: F) -> Handler<F> {
    Handler(function)
}

impl<F> tower_service::Service<Request<String>> for Handler<F>
where
    F: Fn(Request<String>) -> Ready<Result<tonic::Response<String>, Status>>,
{
    type Response = tonic::Response<String>;
    type Error = Status;
    type Future = Ready<Result<tonic::Response<String>, Status>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, asked: Request<String>) -> Self::Future {
        (self.0)(asked)
    }
}

const OK: Does = Does::Trails(Some("seven"), &[("grpc-status", "0")]);

/// An answer that is its head alone.
macro_rules! head {
    ($code:literal $(, $name:literal: $value:literal)*) => {
        Does::Says(200, &[("content-type", "application/grpc"), ("grpc-status", $code) $(, ($name, $value))*], "")
    };
}

fn stack(env: &Env, builder: Builder) -> Stack<Grpc> {
    let knows = |method: &str| if method.ends_with("/Read") { Repeatable::Idempotent } else { Repeatable::No };
    builder.build(&Timers::new(env), grpc().knowing(knows)).unwrap()
}

async fn call(
    stack: &Stack<Grpc>,
    uri: &str,
    method: &'static str,
    request: Request<String>,
) -> Result<String, Status> {
    let channel = Channel::from_shared(uri.to_owned()).unwrap().connect_lazy();
    let mut client = tonic::client::Grpc::new(through(channel, stack));
    client.ready().await?;
    let answer = client.unary(request, PathAndQuery::from_static(method), Text).await?;
    Ok(answer.into_inner())
}

/// What became of a call, and how often it was seen.
async fn becomes(method: &'static str, deeds: &[Does]) -> (Result<String, Code>, usize) {
    let env = Env::real();
    let deeds: Vec<Does> = deeds.iter().copied().chain([OK; 3]).collect();
    let upstream = Upstream::new(&env, TWO, &deeds).await;
    let ended = call(&stack(&env, policies()), &upstream.uri(""), method, Request::new("asked".into())).await;
    (ended.map_err(|status| status.code()), upstream.seen())
}

const READ: &str = "/stock.Stock/Read";
const WRITE: &str = "/stock.Stock/Write";

#[tokio::test]
async fn a_status_drives_what_is_sent_again_wherever_it_stands() {
    let seven = || Ok("seven".to_owned());
    assert_eq!(becomes(READ, &[head!("14")]).await, (seven(), 2), "in the head");
    assert_eq!(becomes(READ, &[Does::Trails(None, &[("grpc-status", "14")])]).await, (seven(), 2), "behind the head");
    let behind = Does::Trails(Some("six"), &[("grpc-status", "14")]);
    assert_eq!(becomes(READ, &[behind]).await, (Err(Code::Unavailable), 1), "behind a message: the answer had begun");
    assert_eq!(becomes(WRITE, &[head!("14")]).await, (Err(Code::Unavailable), 1), "nobody knows whether it was done");
    for (lasts, code) in
        [(head!("3"), Code::InvalidArgument), (head!("4"), Code::DeadlineExceeded), (head!("13"), Code::Internal)]
    {
        assert_eq!(becomes(READ, &[lasts]).await, (Err(code), 1));
    }
    let failed = [head!("14"); 3];
    assert_eq!(becomes(READ, &failed).await, (Err(Code::Unavailable), 3), "all attempts were made");
}

#[tokio::test]
async fn pushback_is_obeyed() {
    let seven = || Ok("seven".to_owned());
    assert_eq!(becomes(READ, &[head!("8")]).await, (seven(), 2));
    assert_eq!(becomes(READ, &[head!("8", "grpc-retry-pushback-ms": "0")]).await, (seven(), 2));
    for never in [head!("8", "grpc-retry-pushback-ms": "-1"), head!("14", "grpc-retry-pushback-ms": "3600000")] {
        assert_eq!(becomes(READ, &[never]).await.1, 1);
    }
    let behind = Does::Trails(None, &[("grpc-status", "14"), ("grpc-retry-pushback-ms", "-1")]);
    assert_eq!(becomes(READ, &[behind]).await, (Err(Code::Unavailable), 1));
}

#[tokio::test]
async fn what_a_server_did_not_look_at_is_sent_again_whatever_it_does() {
    let refused = Does::Resets(Reason::REFUSED_STREAM);
    assert_eq!(becomes(WRITE, &[refused]).await, (Ok("seven".into()), 2));
    let (ended, seen) = becomes(WRITE, &[Does::Resets(Reason::INTERNAL_ERROR)]).await;
    assert!(ended.is_err() && seen == 1, "{ended:?}");
    assert_eq!(becomes(READ, &[Does::Resets(Reason::INTERNAL_ERROR)]).await, (Ok("seven".into()), 2));

    let env = Env::real();
    let upstream = Upstream::new(&env, TWO, &[OK]).await;
    let away = goes_away(&env, &upstream).await;
    let ended = call(&stack(&env, policies()), &away, WRITE, Request::new("asked".into())).await;
    assert_eq!((ended.unwrap().as_str(), upstream.seen()), ("seven", 1));
}

#[tokio::test]
async fn every_attempt_says_what_is_left_of_the_requests_own_time() {
    let env = Env::real();
    let upstream = Upstream::new(&env, TWO, &[head!("14"), OK]).await;
    let mut request = Request::new("asked".to_owned());
    request.set_timeout(Duration::from_secs(5));
    call(&stack(&env, policies()), &upstream.uri(""), READ, request).await.unwrap();
    assert_eq!(upstream.field("grpc-previous-rpc-attempts"), [None, Some("1".into())]);
    let left = |told: &Option<String>| -> u64 { told.as_ref().unwrap().strip_suffix('u').unwrap().parse().unwrap() };
    let told: Vec<u64> = upstream.field("grpc-timeout").iter().map(left).collect();
    assert!(5_000_000 >= told[0] && told[0] > told[1], "{told:?}");
}

#[tokio::test]
async fn a_call_ends_by_the_requests_own_time_and_its_work_with_it() {
    let env = Env::real();
    let mut upstream = Upstream::new(&env, TWO, &[Does::Waits]).await;
    let mut request = Request::new("asked".to_owned());
    request.set_timeout(Duration::from_millis(100));
    let stack = stack(&env, policies());
    let ended = call(&stack, &upstream.uri(""), READ, request).await.unwrap_err();
    assert_eq!(ended.code(), Code::DeadlineExceeded);
    upstream.somebody_left().await;
    assert_eq!(count(&stack.counts(), "timeout_total"), 1);
}

#[tokio::test]
async fn why_a_policy_refused_is_found_in_the_status() {
    type Failed = CallError<transport::Error>;
    let env = Env::real();
    let uri = nobody(&env).await;
    let stack = stack(&env, policies().breaker(quick()));
    let dead = call(&stack, &uri, WRITE, Request::new("asked".into())).await.unwrap_err();
    assert_eq!(dead.code(), Code::Unavailable, "{dead:?}");
    let refused = call(&stack, &uri, WRITE, Request::new("asked".into())).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    let why = refused.source().and_then(|why| why.downcast_ref::<Failed>());
    assert!(matches!(why, Some(CallError::Rejected(_))), "{refused:?}");
    assert_eq!(count(&stack.counts(), "rejected_breaker"), 1);

    let upstream = Upstream::new(&env, TWO, &[Does::Waits; 3]).await;
    let short = self::stack(&env, policies().total(Duration::from_millis(50)));
    let late = call(&short, &upstream.uri(""), READ, Request::new("asked".into())).await.unwrap_err();
    let why = late.source().and_then(|why| why.downcast_ref::<Failed>());
    assert!(matches!(why, Some(CallError::Timeout { scope: Scope::Total, .. })), "{late:?}");
}

#[tokio::test]
async fn a_stream_without_messages_yet_is_not_waited_for() {
    let env = Env::real();
    let upstream = Upstream::new(&env, TWO, &[Does::Stalls("")]).await;
    let channel = Channel::from_shared(upstream.uri("")).unwrap().connect_lazy();
    let mut client = tonic::client::Grpc::new(through(channel, &stack(&env, policies())));
    client.ready().await.unwrap();
    let asked = Request::new("asked".to_owned());
    let began = client.server_streaming(asked, PathAndQuery::from_static(READ), Text).await;
    assert!(began.is_ok(), "{:?}", began.err());
}

/// `tonic`'s own server, whose first answers are those of `deeds`.
async fn server(env: &Env, deeds: impl IntoIterator<Item = Result<&'static str, Status>>) -> String {
    let listener = env.net().listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let deeds: Arc<Mutex<VecDeque<_>>> = Arc::new(Mutex::new(deeds.into_iter().collect()));
    let tasks = env.clone();
    env.tasks().spawn("tonic's server", async move {
        while let Ok((io, _)) = listener.accept().await {
            let deeds = deeds.clone();
            let service = service_fn(move |request: http::Request<Incoming>| {
                let does = deeds.lock().unwrap().pop_front().unwrap_or(Ok("done"));
                let handler = tower_fn(move |asked: Request<String>| {
                    ready(does.clone().map(|text| tonic::Response::new(format!("{text}: {}", asked.into_inner()))))
                });
                async move { Ok::<_, Infallible>(tonic::server::Grpc::new(Text).unary(handler, request).await) }
            });
            let serving = http2::Builder::new(Tasks(tasks.clone())).serve_connection(TokioIo::new(io), service);
            tasks.tasks().spawn("connection", async {
                // That the client leaves is the end of it.
                _ = serving.await;
            });
        }
    });
    format!("http://{address}")
}

#[tokio::test]
async fn what_tonics_own_server_says_is_understood() {
    let env = Env::real();
    let mut limited = Status::resource_exhausted("later");
    limited.metadata_mut().insert("grpc-retry-pushback-ms", "0".parse().unwrap());
    let uri = server(&env, [Err(Status::unavailable("starting")), Err(limited), Err(Status::aborted("no"))]).await;
    let stack = stack(&env, policies());
    let ended = call(&stack, &uri, READ, Request::new("asked".into())).await.unwrap_err();
    assert_eq!(
        (ended.code(), ended.message()),
        (Code::Aborted, "no"),
        "the third attempt, with a status of the caller's"
    );
    assert_eq!(call(&stack, &uri, WRITE, Request::new("asked".into())).await.unwrap(), "done: asked");
}

#[tokio::test]
async fn a_bad_certificate_is_told_from_an_upstream_that_is_down() {
    for (shown, roots, fault) in crate::certificates::bad() {
        let env = Env::real();
        let tls = Some(shown.server(&[b"h2"]));
        let upstream = Upstream::new(&env, crate::upstream::Speaks { tls, two: true }, &[]).await;
        let anchors = transport::ClientTlsConfig::new().trust_anchors(roots.roots);
        let endpoint = Channel::from_shared(upstream.uri("")).unwrap().tls_config(anchors).unwrap();
        let stack = stack(&env, policies());
        let mut client = tonic::client::Grpc::new(through(endpoint.connect_lazy(), &stack));
        client.ready().await.unwrap();
        let asked = Request::new("asked".to_owned());
        let ended = client.unary(asked, PathAndQuery::from_static(READ), Text).await;
        let status = ended.map(tonic::Response::into_inner).unwrap_err();
        assert_eq!((tls_fault(&status), status.code()), (Some(fault), Code::Unavailable), "{status:?}");
        assert_ne!(fault, TlsFault::Handshake);
        assert_eq!((count(&stack.counts(), "untrusted"), upstream.connections()), (1, 1));
    }
}
