//! Calls through a stack at a pace, and what became of them, second by second.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt as _, Full};
use quorate_foundations::time::Mono;
use quorate_resilience::{
    CallError, Verdict,
    client::{Client, Config, Error},
    http::Http,
    stack::{Builder, Guarded, Stack},
    timeout::Timers,
};
use quorate_runtime::Env;
use tokio::sync::Mutex;
use tower_layer::Layer as _;
use tower_service::Service as _;

use crate::exit::{Exit, Failure};

type Judge = fn(&Error) -> Verdict;
/// A client behind a stack.
pub(super) type Called = Guarded<Client, Http<Judge>>;
type Answer = <Called as tower_service::Service<Request<Full<Bytes>>>>::Response;

/// What became of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// A whole answer.
    Answered,
    /// An answer that says that it failed, or none.
    Failed,
    /// Time ran out, also while the answer came.
    Late,
    /// A policy refused it; nothing was sent.
    Refused,
}

/// A call that ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ended {
    pub(super) began: Mono,
    pub(super) took: Duration,
    pub(super) end: End,
}

/// A stack around a client.
pub(super) fn stack(env: &Env, builder: Builder) -> Result<Stack<Http<Judge>>, Failure> {
    let judge: Judge = Client::judge;
    let built = builder.build(&Timers::new(env), Http::default().failing_as(judge));
    built.map_err(|wrong| Failure::of(Exit::Failed, &wrong))
}

/// A builder of a stack.
pub(super) fn named(name: &str) -> Result<Builder, Failure> {
    Ok(Stack::builder(name.parse().map_err(|wrong| Failure::of(Exit::Failed, &wrong))?))
}

/// The client behind a stack.
pub(super) fn called(env: &Env, stack: &Stack<Http<Judge>>) -> Called {
    stack.layer(Client::new(env, Config::default()))
}

/// A request without a body.
pub(super) fn request(method: Method, url: &str) -> Request<Full<Bytes>> {
    let mut request = Request::new(Full::default());
    *request.method_mut() = method;
    *request.uri_mut() = url.parse().unwrap_or_default();
    request
}

/// Makes one call, and reads its answer to the end.
pub(super) async fn call(env: &Env, service: &mut Called, method: Method, url: &str) -> Ended {
    let began = env.mono();
    let end = read(service.call(request(method, url)).await).await;
    Ended { began, took: env.mono().saturating_since(began), end }
}

/// Reads an answer to its end.
pub(super) async fn read(answer: Result<Answer, CallError<Error>>) -> End {
    match answer {
        Ok(answer) if answer.status().is_success() => match answer.into_body().collect().await {
            Ok(_) => End::Answered,
            Err(_) => End::Late,
        },
        Ok(_) | Err(CallError::Upstream(..)) => End::Failed,
        Err(CallError::Timeout { .. }) => End::Late,
        Err(_) => End::Refused,
    }
}

/// Calls at a pace.
pub(super) struct Pace {
    env: Env,
    ended: Arc<Mutex<Vec<Ended>>>,
}

impl Pace {
    pub(super) fn new(env: &Env) -> Self {
        Self { env: env.clone(), ended: Arc::default() }
    }

    /// Begins a call every `every`, for `span`, whether those before have ended or not.
    pub(super) async fn calls(&self, service: &Called, url: &str, every: Duration, span: Duration) {
        let until = self.env.mono() + span;
        let mut next = self.env.mono();
        while next < until {
            let (env, ended, mut service, url) =
                (self.env.clone(), self.ended.clone(), service.clone(), url.to_owned());
            self.env.tasks().spawn("call", async move {
                let one = call(&env, &mut service, Method::GET, &url).await;
                ended.lock().await.push(one);
            });
            next = next + every;
            self.env.sleep(next.saturating_since(self.env.mono())).await;
        }
    }

    /// All calls that have ended, once all have, in the order in which they began.
    pub(super) async fn all(&self, expected: usize) -> Vec<Ended> {
        let patience = self.env.mono() + Duration::from_secs(20);
        loop {
            let mut ended = self.ended.lock().await.clone();
            if ended.len() >= expected || self.env.mono() > patience {
                ended.sort_by_key(|one| one.began);
                return ended;
            }
            self.env.sleep(Duration::from_millis(10)).await;
        }
    }
}
