//! Stacks around [`tonic`](::tonic)'s channels: the whole of them in a line.
//!
//! ```no_run
//! use quorate_resilience::{
//!     retry::{self, Repeatable},
//!     stack::Stack,
//!     timeout::{self, Timers},
//!     tonic::{Grpc, grpc, through},
//! };
//! use quorate_runtime::Env;
//! use tonic::transport::Channel;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let knows = |method: &str| if method.ends_with("/Count") { Repeatable::Idempotent } else { Repeatable::No };
//! let stack = Stack::builder("stock".parse()?)
//!     .timeouts(timeout::Config::default())
//!     .retry(retry::Config::default(), retry::BudgetConfig::default())
//!     .build(&Timers::new(&Env::real()), grpc().knowing(knows))?;
//!
//! let channel = Channel::from_static("http://stock.internal:50051").connect_lazy();
//! // Where a generated client is made: `StockClient::new(through(channel, &stack))`.
//! let mut stock = tonic::client::Grpc::new(through(channel, &stack));
//! # stock.ready().await?;
//! # Ok(())
//! # }
//! ```
//!
//! # What holds
//! * The status is read in the head of an answer and behind a head that no message follows (see
//!   [`Listening`]); `grpc-retry-pushback-ms` is honoured. A call is never sent again once a message of its answer came.
//! * `tonic::Request::set_timeout` is a deadline of the whole call, and each attempt tells what is left of it. The
//!   answer's messages are part of the call.
//! * A method is sent again if its request says so ([`Repeatable`](crate::retry::Repeatable) in its extensions), if
//!   [`Grpc::knowing`] does, or if it certainly wasn't done.
//! * Callers are given a `Status` as they would be without a stack, with the [`CallError`] as its source:
//!
//! | what became of the call | code |
//! |---|---|
//! | a time ran out, or too little was left to begin | `DEADLINE_EXCEEDED` |
//! | the circuit is open | `UNAVAILABLE` |
//! | the bulkhead is full, the rate is exceeded | `RESOURCE_EXHAUSTED` |
//! | the transport failed | what `tonic` says of it, and `UNAVAILABLE` where it doesn't know |

use std::{
    error::Error,
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use ::tonic::{Code, ConnectError, Status, TimeoutExpired, body::Body as Boxed};
use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use http_body_util::BodyExt as _;
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use crate::{
    deadline::Deadline,
    http::{self as of_http, Listening, Replay, Transport, failed, received, transport::find},
    outcome::{CallError, Class, Refuser, Verdict},
    stack::Timed,
    timeout::{BodyError, Timers},
};

/// gRPC of `tonic`, for a [`Stack`](crate::stack::Stack).
pub type Grpc = of_http::Grpc<Judge>;

/// gRPC whose transport is `tonic`'s.
pub fn grpc() -> Grpc {
    of_http::Grpc::default().failing_as(Judge)
}

/// Judges errors of a channel.
#[derive(Clone, Copy, Debug, Default)]
pub struct Judge;

impl<E: Error + 'static> Transport<E> for Judge {
    fn failed(&self, error: &E) -> Verdict {
        let said = failed(error);
        let unsent = said.class == Class::Fault && find::<ConnectError>(error).is_some();
        if unsent { Verdict::UNSENT } else { said }
    }
}

/// `channel` with the policies of `stack` around it, for the `new` of a generated client. `stack` understands [`grpc`].
pub fn through<S, L>(channel: S, stack: &L) -> Through<L::Service>
where
    L: Layer<Listening<Channel<S>>> + Timed,
{
    let timers = stack.timers();
    Through { guarded: stack.layer(Listening::new(Channel { channel, timers: timers.clone() }, &timers)) }
}

/// A channel that takes bodies which may be sent again, and leaves deadlines to the stack.
#[derive(Clone)]
pub struct Channel<S> {
    channel: S,
    timers: Timers,
}

impl<S: fmt::Debug> fmt::Debug for Channel<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel").field("channel", &self.channel).finish_non_exhaustive()
    }
}

impl<S, B> Service<Request<Replay<B>>> for Channel<S>
where
    S: Service<Request<Boxed>, Error: Error + 'static>,
    B: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>> + Send + Sync + 'static> + Send + Unpin + 'static,
    Replay<B>: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Send,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Sending<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.channel.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Replay<B>>) -> Self::Future {
        let told = received(request.headers(), self.timers.env().mono());
        let deadline = told.map_or(Deadline::NEVER, |told| told.deadline);
        Sending { call: self.channel.call(request.map(Boxed::new)), deadline, timers: self.timers.clone(), over: false }
    }
}

pin_project! {
    /// A call on a channel.
    ///
    /// `tonic` ends a call itself when the time is up that the call tells the server. That is the stack's to say, which
    /// knows whose time it was, and says so at the same moment.
    pub struct Sending<F> {
        #[pin]
        call: F,
        deadline: Deadline,
        timers: Timers,
        over: bool,
    }
}

impl<F: Future<Output = Result<T, E>>, T, E: Error + 'static> Future for Sending<F> {
    type Output = Result<T, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if *this.over {
            return Poll::Pending;
        }
        let ended = ready!(this.call.poll(cx));
        let expired = ended.as_ref().is_err_and(|error| find::<TimeoutExpired>(error).is_some());
        // A channel may have a time of its own as well, of which the stack knows nothing.
        if expired && this.deadline.has_passed(this.timers.env().mono()) {
            *this.over = true;
            return Poll::Pending;
        }
        Poll::Ready(ended)
    }
}

/// A channel behind a stack. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Through<G> {
    guarded: G,
}

impl<G, B, E, C> Service<Request<Boxed>> for Through<G>
where
    G: Service<Request<Boxed>, Response = Response<B>, Error = CallError<E>>,
    B: Body<Data = Bytes, Error = BodyError<C>> + Send + 'static,
    E: Error + Send + Sync + 'static,
    C: Into<Box<dyn Error + Send + Sync>> + 'static,
{
    type Response = Response<Boxed>;
    type Error = Status;
    type Future = Told<G::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Status>> {
        self.guarded.poll_ready(cx).map_err(of_call)
    }

    fn call(&mut self, request: Request<Boxed>) -> Self::Future {
        Told { call: self.guarded.call(request) }
    }
}

pin_project! {
    /// A call that tells as a status why it failed.
    pub struct Told<F> {
        #[pin]
        call: F,
    }
}

impl<F, B, E, C> Future for Told<F>
where
    F: Future<Output = Result<Response<B>, CallError<E>>>,
    B: Body<Data = Bytes, Error = BodyError<C>> + Send + 'static,
    E: Error + Send + Sync + 'static,
    C: Into<Box<dyn Error + Send + Sync>> + 'static,
{
    type Output = Result<Response<Boxed>, Status>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = ready!(self.project().call.poll(cx)).map_err(of_call)?;
        Poll::Ready(Ok(answer.map(|body| Boxed::new(body.map_err(of_body)))))
    }
}

fn of_call<E: Error + Send + Sync + 'static>(error: CallError<E>) -> Status {
    let code = match &error {
        CallError::Upstream(..) => None,
        CallError::Timeout { .. } => Some(Code::DeadlineExceeded),
        CallError::Rejected(rejection) => Some(match rejection.by() {
            Refuser::Breaker => Code::Unavailable,
            Refuser::Deadline => Code::DeadlineExceeded,
            Refuser::Bulkhead | Refuser::Limit | Refuser::Budget => Code::ResourceExhausted,
        }),
    };
    match (code, error) {
        (None, CallError::Upstream(error, _)) => of_transport(Box::new(error)),
        (code, error) => {
            let mut status = Status::new(code.unwrap_or(Code::Unavailable), error.to_string());
            status.set_source(Arc::new(error));
            status
        }
    }
}

fn of_body<C: Into<Box<dyn Error + Send + Sync>>>(error: BodyError<C>) -> Status {
    match error {
        BodyError::Body(error) => of_transport(error.into()),
        BodyError::Expired(expired) => Status::deadline_exceeded(expired.to_string()),
        BodyError::Idle(span) => Status::deadline_exceeded(format!("nothing of the answer came for {span:?}")),
    }
}

fn of_transport(error: Box<dyn Error + Send + Sync>) -> Status {
    Status::try_from_error(error).unwrap_or_else(|error| {
        let code = if failed(&*error).class == Class::Throttled { Code::ResourceExhausted } else { Code::Unavailable };
        let mut status = Status::new(code, in_full(&*error));
        status.set_source(error.into());
        status
    })
}

/// What went wrong, with what caused it.
fn in_full(error: &dyn Error) -> String {
    let (mut text, mut cause) = (error.to_string(), error.source());
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
