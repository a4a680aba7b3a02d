//! Calls over HTTP: what is repeatable, what an answer says, and what the next hop is told in headers.
//!
//! | field | says | syntax |
//! |---|---|---|
//! | `Quorate-Timeout`, `grpc-timeout` | what is left of the deadline | `1500m`: one to eight digits and a unit of `H M S m u n` |
//! | `Quorate-Attempt` | which attempt this is, how many retries were spent on the way, whether one hop retries | `attempt=2;spent=1;owned` |
//!
//! A server reads them with [`received`] and puts what it found into the extensions of the calls it makes for the
//! request; a stack finds it there, takes the shorter deadline, and tells the next hop.
//!
//! # What is repeatable
//! GET, HEAD, OPTIONS, TRACE, PUT and DELETE are idempotent by their definition (RFC 9110, 9.2.2); anything with an
//! `Idempotency-Key` is keyed; the rest isn't. Whoever knows better puts a [`Repeatable`] into the request's extensions; an
//! [`Ask`], whose it is and how much it matters; an [`Operation`], what it asks for; and an [`Endpoint`], whom.
//!
//! # What answers say
//! | answer | class |
//! |---|---|
//! | 429; 503 with `Retry-After`; `RESOURCE_EXHAUSTED` | throttled |
//! | 5xx; 408; `UNAVAILABLE`, `UNKNOWN`, `INTERNAL`, `DATA_LOSS`, `DEADLINE_EXCEEDED` | fault |
//! | … of which 501, 505, 511 and all of gRPC's but `UNAVAILABLE` | don't pass by themselves |
//! | other 4xx, other codes | refusal |
//! | the rest | success |
//!
//! gRPC's status is read where it stands in the head of an answer (`Trailers-Only`), and behind a head that no message follows
//! if the service below is [`Listening`], and retried by; one that follows a message is told to circuits and counts when it comes,
//! and nothing is sent again for it, since the answer has begun. The body is a part of the call, see [`Held`]. `Retry-After` is
//! read in seconds, and as a date by the answer's own `Date`, so that no clock has to be right; a date without that says that the
//! upstream asks for fewer calls, not for how long. `grpc-retry-pushback-ms` that is
//! negative or can't be read forbids further attempts.
//!
//! What prevented an answer is judged by [`Http::failing_as`]: `http::failed`, with the feature `transport`, knows the errors of
//! hyper, h2 and rustls.

mod grpc;
mod headers;
mod held;
mod judge;
mod replay;
#[cfg(feature = "tls")]
mod tls;
#[cfg(feature = "transport")]
pub(crate) mod transport;

use http::{HeaderMap, Method, Request, Response};
use http_body::Body;
use quorate_foundations::{name::Name, time::Mono};

use crate::{
    bulkhead::Ask,
    circuit_breaker::Asked,
    hop::Hop,
    outcome::Verdict,
    retry::Repeatable,
    stack::{Answers, Intent, Requests, Rest, Try},
    timeout::TimedBody,
};

pub use grpc::{Begun, Grpc, Listen, Listening};
pub use headers::{ATTEMPT, GRPC_TIMEOUT, TIMEOUT, received, write};
pub use held::Held;
pub use judge::verdict;
pub use replay::{Elsewhere, Replay, TooLong};
#[cfg(feature = "tls")]
pub use tls::{TlsFault, tls_fault};
#[cfg(feature = "transport")]
pub use transport::failed;
#[cfg(feature = "client")]
pub(crate) use transport::find;

/// What goes with a request that must not be sent on a connection that was used before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FreshConnection;

/// What a request asks for, in a word of which there are few, such as `charge`: goes with it in its extensions, for
/// [circuits of operations](crate::circuit_breaker::Each).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation(pub Name);

/// Which endpoint a request asks, where its address says too little: a replica of which there are several under one name, or one of
/// the names behind a proxy. Goes with it in its extensions, for [circuits of endpoints](crate::circuit_breaker::Each), and has no say in
/// where the request is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint(pub Name);

/// Whom `request` asks, and for what. Who is asked is the [`Endpoint`] that goes with it, or else host and port as they stand in its
/// address, without anybody's password; for what is the [`Operation`] that goes with it, or else gRPC's method, or HTTP's.
pub(crate) fn asked<B>(request: &Request<B>) -> Asked<'_> {
    let endpoint = match (request.extensions().get::<Endpoint>(), request.uri().authority()) {
        (Some(Endpoint(name)), _) => name.as_str(),
        (None, Some(authority)) => authority.as_str().rsplit_once('@').map_or(authority.as_str(), |(_, host)| host),
        (None, None) => "",
    };
    let operation = match request.extensions().get::<Operation>() {
        Some(Operation(name)) => name.as_str(),
        None if headers::is_grpc(request.headers()) => request.uri().path().trim_start_matches('/'),
        None => request.method().as_str(),
    };
    Asked { endpoint, operation }
}

/// Judges what prevented an answer.
pub trait Transport<E> {
    /// What `error` says about the upstream.
    fn failed(&self, error: &E) -> Verdict;
}

impl<E, F: Fn(&E) -> Verdict> Transport<E> for F {
    fn failed(&self, error: &E) -> Verdict {
        self(error)
    }
}

/// Takes every error for a fault that may pass, of a call that may have been done.
#[derive(Clone, Copy, Debug, Default)]
pub struct AnyFault;

impl<E> Transport<E> for AnyFault {
    fn failed(&self, _: &E) -> Verdict {
        Verdict::FAULT
    }
}

/// HTTP, for a [`Stack`](crate::stack::Stack).
#[derive(Clone, Copy, Debug)]
pub struct Http<J = AnyFault> {
    transport: J,
    most_kept: usize,
}

impl Default for Http {
    fn default() -> Self {
        Self { transport: AnyFault, most_kept: Self::MOST_KEPT }
    }
}

impl Http {
    /// How much of a body is kept to be sent again, in bytes, unless told otherwise.
    pub const MOST_KEPT: usize = 64 << 10;
}

impl<J> Http<J> {
    /// The same, with errors of the transport judged by `transport`.
    pub fn failing_as<K>(self, transport: K) -> Http<K> {
        Http { transport, most_kept: self.most_kept }
    }

    /// The same, with at most `bytes` of a body kept to be sent again: a longer one is sent once.
    #[must_use]
    pub fn keeping(self, bytes: usize) -> Self {
        Self { most_kept: bytes, ..self }
    }
}

/// A request that can be sent again.
#[derive(Debug)]
pub struct Kept<B> {
    head: Request<()>,
    body: replay::Kept<B>,
}

impl<J, B: Body + Unpin> Requests<Request<B>> for Http<J> {
    type Sent = Request<Replay<B>>;
    type Kept = Kept<B>;

    fn intent(&self, request: &Request<B>, _: Mono) -> Intent {
        let hop = request.extensions().get::<Hop>().copied().unwrap_or(Hop::FIRST);
        let ask = request.extensions().get::<Ask>().cloned().unwrap_or_default();
        Intent { repeatable: repeatable(request), hop, ask }
    }

    fn split(&self, request: Request<B>, keep: bool) -> (Self::Sent, Option<Kept<B>>) {
        let (head, body) = request.into_parts();
        if !keep {
            return (Request::from_parts(head, Replay::once(body)), None);
        }
        let (body, kept) = Replay::kept(body, self.most_kept);
        let again = Kept { head: Request::from_parts(head.clone(), ()), body: kept };
        (Request::from_parts(head, body), Some(again))
    }

    fn again(&self, kept: &Kept<B>) -> Option<Self::Sent> {
        let body = kept.body.again()?;
        Some(kept.head.clone().map(|()| body))
    }

    fn stamp(&self, sent: &mut Self::Sent, attempt: Try, now: Mono) {
        write(sent.headers_mut(), attempt.hop, now);
        // A stack further in, around the same service, finds it where a server would have put it.
        if attempt.hop != Hop::FIRST {
            sent.extensions_mut().insert(attempt.hop);
        }
        if attempt.fresh_connection {
            sent.extensions_mut().insert(FreshConnection);
        }
    }

    fn asked<'a>(&self, sent: &'a Self::Sent) -> Asked<'a> {
        asked(sent)
    }
}

impl<J: Transport<E>, B: Body + Send + 'static, E> Answers<Response<B>, E> for Http<J> {
    type Answer = Response<Held<TimedBody<B>>>;

    fn judge(&self, result: Result<&Response<B>, &E>) -> Verdict {
        match result {
            Ok(answer) => verdict(answer.status(), answer.headers()),
            Err(error) => self.transport.failed(error),
        }
    }

    fn deliver(&self, answer: Response<B>, rest: Rest<'_>) -> Self::Answer {
        answer.map(|body| to_come(body, rest))
    }
}

/// `body`, which is part of its call for as long as it comes.
pub(crate) fn to_come<B: Body + Send + 'static>(body: B, rest: Rest<'_>) -> Held<TimedBody<B>> {
    let timed = TimedBody::new(body, rest.timers(), (rest.deadline, rest.scope), rest.idle());
    Held::new(timed, rest)
}

fn repeatable<B>(request: &Request<B>) -> Repeatable {
    let said = request.extensions().get::<Repeatable>().copied();
    said.unwrap_or_else(|| repeatable_by(request.method(), request.headers()))
}

/// What `method` and `headers` say of doing a request twice.
pub(crate) fn repeatable_by(method: &Method, headers: &HeaderMap) -> Repeatable {
    match *method {
        Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE => {
            Repeatable::Idempotent
        }
        _ if headers.contains_key("idempotency-key") => Repeatable::Keyed,
        _ => Repeatable::No,
    }
}

#[cfg(test)]
mod tests;
