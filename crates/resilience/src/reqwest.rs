//! Stacks around [`reqwest`](::reqwest): the whole of them in a line.
//!
//! ```
//! use quorate_resilience::{
//!     circuit_breaker,
//!     reqwest::{Reqwest, SendThrough as _},
//!     retry,
//!     stack::Stack,
//!     timeout::{self, Timers},
//! };
//! use quorate_runtime::Env;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let http = reqwest::Client::new();
//! let stack = Stack::builder("stock".parse()?)
//!     .timeouts(timeout::Config::default())
//!     .retry(retry::Config::default(), retry::BudgetConfig::default())
//!     .breaker(circuit_breaker::Config::default())
//!     .build(&Timers::new(&Env::real()), Reqwest)?;
//!
//! let item = http.get("http://stock.internal/items/7").send_through(&stack).await?.text().await?;
//! # Ok(())
//! # }
//! ```
//!
//! A `reqwest::Client` is a `tower` service, so `stack.layer(http)` is one as well, for whoever keeps one.
//!
//! # What holds
//! * Answers and what prevents them are judged as in [`http`](crate::http), and by [`failed`](crate::http::failed).
//! * Answers are `reqwest`'s own, and their bodies part of the call: one that comes too slowly ends with an error.
//! * What is sent again is told once more from its beginning: a body that is a stream can't be, and is sent once.
//! * A time that the request sets (`RequestBuilder::timeout`) is a deadline of the whole call.
//! * What the hop before said ([`received`]) goes on in the request's headers: write it there with [`write`].
//!
//! `reqwest` sends again by itself what an HTTP/2 server refused to look at, at most twice. To have every attempt counted
//! and charged, build the client with `reqwest::retry::never()`.

use std::{future::Future, time::Duration};

use ::reqwest::{Body, Client, Error, Request, RequestBuilder, Response, ResponseBuilderExt as _};
use quorate_foundations::time::Mono;
use tower_layer::Layer;
use tower_service::Service;

use crate::{
    bulkhead::Ask,
    circuit_breaker::Asked,
    deadline::Deadline,
    hop::Hop,
    http::{failed, received, repeatable_by, to_come, transport::connecting, verdict, write},
    outcome::{CallError, Class, Verdict},
    stack::{Answers, Intent, Requests, Rest, Try},
};

/// How much later than the stack `reqwest` ends a call itself.
const LATER: Duration = Duration::from_secs(60);

/// What `reqwest` sends and receives, for a [`Stack`](crate::stack::Stack).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reqwest;

impl Reqwest {
    /// What an error of `reqwest` says about the upstream.
    pub fn judge(error: &Error) -> Verdict {
        if error.is_builder() {
            return Verdict { transient: false, unprocessed: true, ..Verdict::of(Class::Refusal) };
        }
        // It was answered, and the answers lead in a circle.
        if error.is_redirect() {
            return Verdict { transient: false, ..Verdict::of(Class::Refusal) };
        }
        let said = failed(error);
        if error.is_connect() { connecting(said) } else { said }
    }
}

impl Requests<Request> for Reqwest {
    type Sent = Request;
    type Kept = Request;

    fn intent(&self, request: &Request, now: Mono) -> Intent {
        let mut hop = received(request.headers(), now).unwrap_or(Hop { owned: true, ..Hop::FIRST });
        if let Some(span) = request.timeout() {
            hop.deadline = hop.deadline.earliest(Deadline::after(now, *span));
        }
        Intent { repeatable: repeatable_by(request.method(), request.headers()), hop, ask: Ask::default() }
    }

    fn split(&self, request: Request, keep: bool) -> (Request, Option<Request>) {
        let kept = keep.then(|| request.try_clone()).flatten();
        (request, kept)
    }

    fn again(&self, kept: &Request) -> Option<Request> {
        kept.try_clone()
    }

    fn stamp(&self, sent: &mut Request, attempt: Try, now: Mono) {
        // The stack ends the call when this time is up, and knows whose time it was. `reqwest` would end it at about the same moment,
        // with an error that looks like the upstream's; so it is to be the later one.
        if let Some(span) = sent.timeout_mut() {
            *span = span.saturating_add(LATER);
        }
        write(sent.headers_mut(), attempt.hop, now);
    }

    fn asked<'a>(&self, sent: &'a Request) -> Asked<'a> {
        let authority = sent.url().authority();
        let endpoint = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        Asked { endpoint, operation: sent.method().as_str() }
    }
}

impl Answers<Response, Error> for Reqwest {
    type Answer = Response;

    fn judge(&self, result: Result<&Response, &Error>) -> Verdict {
        match result {
            Ok(answer) => verdict(answer.status(), answer.headers()),
            Err(error) => Self::judge(error),
        }
    }

    fn deliver(&self, answer: Response, rest: Rest<'_>) -> Response {
        let url = answer.url().clone();
        let (head, body) = http::Response::from(answer).into_parts();
        // The address is kept where `reqwest` looks for it when it takes the answer back.
        let Ok(mut whole) = http::Response::builder().url(url).body(Body::wrap(to_come(body, rest))) else {
            unreachable!("a head with nothing but an address is one")
        };
        *whole.status_mut() = head.status;
        *whole.version_mut() = head.version;
        *whole.headers_mut() = head.headers;
        whole.extensions_mut().extend(head.extensions);
        whole.into()
    }
}

/// Sends what a `RequestBuilder` has built through a stack.
pub trait SendThrough {
    /// In place of `send`: the answer, after the policies of `stack`.
    ///
    /// # Errors
    /// [`CallError`]: what could not be built is an [`Upstream`](CallError::Upstream) error that no policy has seen.
    ///
    /// # Cancel safety
    /// Dropping it drops the attempt in progress; whether the upstream did what was asked is then unknown.
    fn send_through<L>(self, stack: &L) -> impl Future<Output = Result<Response, CallError<Error>>> + Send
    where
        L: Layer<Client> + Sync,
        L::Service: Service<Request, Response = Response, Error = CallError<Error>, Future: Send> + Send;
}

impl SendThrough for RequestBuilder {
    async fn send_through<L>(self, stack: &L) -> Result<Response, CallError<Error>>
    where
        L: Layer<Client> + Sync,
        L::Service: Service<Request, Response = Response, Error = CallError<Error>, Future: Send> + Send,
    {
        let (client, request) = self.build_split();
        let request = request.map_err(|error| CallError::Upstream(error, Class::Refusal))?;
        // A client is always ready.
        stack.layer(client).call(request).await
    }
}
