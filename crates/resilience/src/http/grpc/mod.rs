//! gRPC, for a stack.

mod listening;

use std::{fmt, sync::Arc};

use http::{Request, Response};
use http_body::Body;
use quorate_foundations::time::Mono;

use super::{AnyFault, Held, Http, Kept, Replay, Transport, received};
use crate::{
    circuit_breaker::Asked,
    outcome::Verdict,
    retry::Repeatable,
    stack::{Answers, Intent, Requests, Rest, Try},
    timeout::TimedBody,
};

pub use listening::{Begun, Listen, Listening};

/// gRPC over HTTP/2, for a [`Stack`](crate::stack::Stack).
///
/// It is [`Http`] but for two things. A `grpc-timeout` that a request brings is a deadline of the whole call. And since
/// all calls are POST, a method is [`Repeatable`] if its request says so in its extensions, or if
/// [`knowing`](Self::knowing) does; other calls are sent again only if they certainly weren't done.
#[derive(Clone)]
pub struct Grpc<J = AnyFault> {
    http: Http<J>,
    methods: Option<Arc<Methods>>,
}

type Methods = dyn Fn(&str) -> Repeatable + Send + Sync;

impl Default for Grpc {
    fn default() -> Self {
        Self { http: Http::default(), methods: None }
    }
}

impl<J> Grpc<J> {
    /// The same, with errors of the transport judged by `transport`.
    pub fn failing_as<K>(self, transport: K) -> Grpc<K> {
        Grpc { http: self.http.failing_as(transport), methods: self.methods }
    }

    /// The same, with at most `bytes` of a request kept to be sent again: a longer one is sent once.
    #[must_use]
    pub fn keeping(self, bytes: usize) -> Self {
        Self { http: self.http.keeping(bytes), ..self }
    }

    /// The same, with `methods` saying what calling a method twice would do. It is given the path, such as `/stock.Stock/Count`.
    #[must_use]
    pub fn knowing(self, methods: impl Fn(&str) -> Repeatable + Send + Sync + 'static) -> Self {
        Self { methods: Some(Arc::new(methods)), ..self }
    }
}

impl<J, B: Body + Unpin> Requests<Request<B>> for Grpc<J> {
    type Sent = Request<Replay<B>>;
    type Kept = Kept<B>;

    fn intent(&self, request: &Request<B>, now: Mono) -> Intent {
        let mut intent = self.http.intent(request, now);
        // One that can't be read is replaced by what the call has, as all others are.
        if let Ok(asked) = received(request.headers(), now) {
            intent.hop.deadline = intent.hop.deadline.earliest(asked.deadline);
        }
        if let (None, Some(methods)) = (request.extensions().get::<Repeatable>(), &self.methods) {
            intent.repeatable = methods(request.uri().path());
        }
        intent
    }

    fn split(&self, request: Request<B>, keep: bool) -> (Self::Sent, Option<Kept<B>>) {
        self.http.split(request, keep)
    }

    fn again(&self, kept: &Kept<B>) -> Option<Self::Sent> {
        self.http.again(kept)
    }

    fn stamp(&self, sent: &mut Self::Sent, attempt: Try, now: Mono) {
        Requests::<Request<B>>::stamp(&self.http, sent, attempt, now);
    }

    fn asked<'a>(&self, sent: &'a Self::Sent) -> Asked<'a> {
        Requests::<Request<B>>::asked(&self.http, sent)
    }
}

impl<J: Transport<E>, B: Body + Send + 'static, E> Answers<Response<B>, E> for Grpc<J> {
    type Answer = Response<Held<TimedBody<B>>>;

    fn judge(&self, result: Result<&Response<B>, &E>) -> Verdict {
        self.http.judge(result)
    }

    fn deliver(&self, answer: Response<B>, rest: Rest<'_>) -> Self::Answer {
        Answers::<_, E>::deliver(&self.http, answer, rest)
    }
}

impl<J: fmt::Debug> fmt::Debug for Grpc<J> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grpc").field("http", &self.http).finish_non_exhaustive()
    }
}
