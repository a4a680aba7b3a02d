//! How endpoints are called: the client, and the policies around every attempt.

use std::{error::Error, fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use quorate_foundations::name::Name;
use quorate_resilience::{
    CallError, Class, Verdict, circuit_breaker,
    client::{self, Client, Tls, rustls::RootCertStore},
    http::{Http, verdict},
    policy,
    retry::Repeatable,
    stack::{Stack, Stacks},
    timeout::Timers,
};
use quorate_runtime::{BoxFuture, Env};
use tokio::sync::OnceCell;
use tower_layer::Layer as _;
use tower_service::Service as _;

use super::{Allowed, Config, WebhookError, machine::Input};
use crate::roots::roots_of_this_machine;

/// What a node lends to webhooks for calling endpoints. Cheap to clone.
#[derive(Clone)]
pub struct Calls {
    env: Env,
    timers: Timers,
    policies: policy::Registry,
    breakers: circuit_breaker::Registry,
    allowed: Allowed,
    roots: Arc<dyn Fn() -> RootCertStore + Send + Sync>,
    plain: Arc<OnceCell<Client>>,
    secure: Arc<OnceCell<Client>>,
}

/// Bytes of an answer's body that are looked at.
const MOST_READ: usize = 4_096;
/// Characters of it that a failure quotes.
const MOST_QUOTED: usize = 200;

impl Calls {
    /// Calls over the network of `env`, to public addresses alone, trusting whom this machine trusts, with breakers and policies
    /// of their own.
    pub fn new(env: &Env) -> Self {
        let (timers, breakers) = (Timers::new(env), circuit_breaker::Registry::new(env));
        let policies = policy::Registry::new(&Stacks::new(&timers), &breakers);
        Self::with(env, timers, policies, breakers)
    }

    /// The same with policies and breakers that others show and operate: an endpoint's breaker is called `webhook-endpoint/{name}`, and
    /// policies for the dependency `webhook/{name}` hold for its calls.
    pub fn with(env: &Env, timers: Timers, policies: policy::Registry, breakers: circuit_breaker::Registry) -> Self {
        let (allowed, roots) = (Allowed::public(), Arc::new(roots_of_this_machine));
        Self {
            env: env.clone(),
            timers,
            policies,
            breakers,
            allowed,
            roots,
            plain: Arc::default(),
            secure: Arc::default(),
        }
    }

    /// The same, calling whom `allowed` allows.
    #[must_use]
    pub fn allowing(self, allowed: Allowed) -> Self {
        Self { allowed, plain: Arc::default(), secure: Arc::default(), ..self }
    }

    /// The same, trusting who one of `roots` vouches for. They are asked for before the first call over TLS.
    #[must_use]
    pub fn trusting(self, roots: impl Fn() -> RootCertStore + Send + Sync + 'static) -> Self {
        Self { roots: Arc::new(roots), secure: Arc::default(), ..self }
    }

    /// Whom they call.
    pub fn allowed(&self) -> &Allowed {
        &self.allowed
    }

    /// A bare client that calls only whom these calls may call; `encrypts`: with or without TLS. It is the same every time, and keeps
    /// connections for as long as it is there.
    pub async fn client(&self, encrypts: bool) -> Client {
        let config = client::Config::default();
        let guarded = || self.allowed.guard(&self.env);
        if !encrypts {
            return self.plain.get_or_init(|| async { Client::new(&guarded(), config) }).await.clone();
        }
        let secure = self.secure.get_or_init(|| async {
            let (env, roots) = (guarded(), self.roots.clone());
            let roots = self.env.run_blocking(move || roots()).await;
            let tls = Tls::trusting(&env, roots);
            Client::encrypting(&env, config, tls)
        });
        secure.await.clone()
    }

    /// How the breaker of the endpoint `name` stands; `None` while it was not called in this process.
    pub(super) fn breaker(&self, name: &Name) -> Option<circuit_breaker::Snapshot> {
        let breaker = self.breakers.get(&breaker_of(name).ok()?)?;
        Some(breaker.snapshot(self.env.mono()))
    }

    /// Forgets what is known of the endpoint `name`: it is another one now.
    pub(super) fn reset(&self, name: &Name) {
        let breaker = breaker_of(name).ok().and_then(|breaker| self.breakers.get(&breaker));
        breaker.into_iter().for_each(|breaker| breaker.reset(self.env.mono()));
    }

    /// A line to the endpoint `name`, as `config` says; without a breaker where it is only to be tried.
    pub(crate) async fn line(&self, name: &Name, config: &Config, guarded: bool) -> Result<Line, WebhookError> {
        let wrong =
            |cause: &dyn fmt::Display| WebhookError::Invalid { what: format!("the calls cannot be made: {cause}") };
        let mut builder = Stack::builder(dependency(name)?).total(config.timeout);
        if guarded {
            let breaker = self.breakers.breaker(&breaker_of(name)?, &circuit_breaker::Config::default());
            builder = builder.shared_breaker(breaker.map_err(|cause| wrong(&cause))?);
        }
        let inner = self.policies.stack(&dependency(name)?, Http::default().failing_as(Client::judge));
        let inner = inner.map_err(|cause| wrong(&cause))?;
        let outer = builder.build(&self.timers, Http::default().failing_as(judged));
        let outer = outer.map_err(|cause| wrong(&cause))?;
        let service = outer.layer(inner.layer(self.client(config.encrypts()).await));
        // Each call is a clone, so that one service may make several at a time.
        let call = move |request| {
            let mut service = service.clone();
            Box::pin(async move {
                let answered = service.call(request).await.map_err(Failed::of)?;
                let (head, mut body) = answered.into_parts();
                let mut read = Vec::new();
                while read.len() < MOST_READ {
                    match body.frame().await {
                        Some(Ok(frame)) => read.extend(frame.into_data().unwrap_or_default()),
                        // An answer that breaks off is none: whether it was taken is unknown.
                        Some(Err(cause)) => return Err(Failed::Unanswered(told(&cause))),
                        None => break,
                    }
                }
                Ok(Response::from_parts(head, Bytes::from(read)))
            }) as BoxFuture<'static, Result<Response<Bytes>, Failed>>
        };
        Ok(Line { call: Arc::new(call), url: config.url.clone() })
    }
}

impl fmt::Debug for Calls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Calls").field("allowed", &self.allowed).finish_non_exhaustive()
    }
}

/// What policies for the endpoint's calls are declared for.
fn dependency(name: &Name) -> Result<Name, WebhookError> {
    too_long(Name::new(format!("webhook/{name}")))
}

fn breaker_of(name: &Name) -> Result<Name, WebhookError> {
    too_long(Name::new(format!("webhook-endpoint/{name}")))
}

fn too_long<E>(name: Result<Name, E>) -> Result<Name, WebhookError> {
    name.map_err(|_| WebhookError::Invalid { what: "a webhook's name has at most 480 bytes".to_owned() })
}

/// What the inner policies' errors say about the endpoint: nothing, where they refused.
fn judged(failed: &CallError<client::Error>) -> Verdict {
    match failed {
        CallError::Upstream(cause, _) => Client::judge(cause),
        CallError::Timeout { .. } => Verdict::FAULT,
        _ => Verdict { unprocessed: true, ..Verdict::of(Class::Refusal) },
    }
}

type Call = dyn Fn(Request<Full<Bytes>>) -> BoxFuture<'static, Result<Response<Bytes>, Failed>> + Send + Sync;

/// A way to call one endpoint. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Line {
    call: Arc<Call>,
    url: String,
}

/// Why there is no answer.
#[derive(Debug)]
enum Failed {
    Unanswered(String),
    Refused(String, Option<Duration>),
}

/// What one attempt came to.
#[derive(Clone, Debug)]
pub(crate) struct Ended {
    pub(crate) input: Input,
    /// The answer's status, if there was one.
    pub(super) status: Option<u16>,
    /// In words of ours, which quote nobody.
    pub(super) outcome: String,
    /// What the endpoint said to it, if it said something that can be read.
    pub(super) quoted: Option<String>,
}

impl Failed {
    fn of(error: CallError<CallError<client::Error>>) -> Self {
        match error {
            CallError::Rejected(ref rejection) => Self::Refused(rejection.to_string(), rejection.retry_after()),
            CallError::Upstream(CallError::Rejected(ref rejection), _) => {
                Self::Refused(rejection.to_string(), rejection.retry_after())
            }
            CallError::Upstream(CallError::Upstream(ref cause, _), _) => Self::Unanswered(told(cause)),
            CallError::Timeout { waited, .. } | CallError::Upstream(CallError::Timeout { waited, .. }, _) => {
                Self::Unanswered(format!("no answer within {waited:?}"))
            }
            ref other => Self::Unanswered(told(other)),
        }
    }
}

impl Line {
    /// Makes one attempt.
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection; whether the endpoint has taken it is then unknown.
    pub(crate) async fn post(&self, headers: http::HeaderMap, body: Bytes) -> Ended {
        let request = Request::builder().method(Method::POST).uri(&self.url).extension(Repeatable::Keyed);
        let mut request = match request.body(Full::new(body)) {
            Ok(request) => request,
            Err(cause) => return Ended::unanswered(told(&cause)),
        };
        *request.headers_mut() = headers;
        match (self.call)(request).await {
            Ok(answer) => Ended::answered(&answer),
            Err(Failed::Unanswered(why)) => Ended::unanswered(why),
            Err(Failed::Refused(why, retry_after)) => {
                Ended { input: Input::Refused { retry_after }, status: None, outcome: why, quoted: None }
            }
        }
    }
}

impl Ended {
    fn unanswered(why: String) -> Self {
        Self { input: Input::Unanswered, status: None, outcome: why, quoted: None }
    }

    fn answered(answer: &Response<Bytes>) -> Self {
        let status = answer.status();
        let retry_after = verdict(status, answer.headers()).retry_after;
        let outcome = match status {
            _ if status.is_success() => "delivered".to_owned(),
            StatusCode::GONE => "the endpoint is gone (410)".to_owned(),
            _ if status.is_redirection() => format!("answered {status}, and redirections are not followed"),
            _ => format!("answered {status}"),
        };
        let quoted = if status.is_success() { None } else { quoted(answer.body()) };
        Self {
            input: Input::Answered { status: status.as_u16(), retry_after },
            status: Some(status.as_u16()),
            outcome,
            quoted,
        }
    }

    /// For whoever looks at a parked event.
    pub(crate) fn reason(&self) -> String {
        match &self.quoted {
            Some(quoted) => format!("{}: {quoted}", self.outcome),
            None => self.outcome.clone(),
        }
    }
}

/// The beginning of what an endpoint said, on one line.
fn quoted(body: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(body);
    let words: Vec<&str> = text
        .split(|letter: char| letter.is_whitespace() || letter.is_control())
        .filter(|word| !word.is_empty())
        .collect();
    let line: String = words.join(" ").chars().take(MOST_QUOTED).collect();
    (!line.is_empty()).then_some(line)
}

/// An error and its causes.
fn told(error: &(dyn Error + 'static)) -> String {
    let causes = std::iter::successors(error.source(), |cause: &&(dyn std::error::Error + 'static)| (*cause).source());
    let mut text = error.to_string();
    for cause in causes.map(ToString::to_string) {
        if !text.ends_with(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}
