//! Answers whose status stands behind an empty body, brought into the head, where policies look for it.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use http::{Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tower_service::Service;

use super::super::headers::is_grpc;
use crate::{
    deadline::Deadline,
    timeout::{Alarm, Timers},
};

/// A service whose gRPC answers are given once it is known how they begin: a status that follows the head without a message between
/// them is moved into the head. For below a stack.
///
/// A server that fails a call after it has said something (a header of its own, say) sends head and status apart. Nothing of
/// the answer has been given to anybody then, so the call may be sent again.
///
/// Once the first piece is there, or [`longest`](Self::waiting) has passed, the head is given as it is: whoever opens a stream whose
/// first message comes late waits no longer than that for its head.
#[derive(Clone)]
pub struct Listening<S> {
    service: S,
    timers: Timers,
    longest: Duration,
}

impl<S> Listening<S> {
    /// How long a head is held unless told otherwise.
    pub const LONGEST: Duration = Duration::from_millis(10);

    /// `service`, with heads held for no longer than [`LONGEST`](Self::LONGEST).
    pub fn new(service: S, timers: &Timers) -> Self {
        Self { service, timers: timers.clone(), longest: Self::LONGEST }
    }

    /// The same, with heads held for no longer than `longest`; zero looks only at what is there already.
    #[must_use]
    pub fn waiting(self, longest: Duration) -> Self {
        Self { longest, ..self }
    }
}

impl<S, R, B> Service<R> for Listening<S>
where
    S: Service<R, Response = Response<B>>,
    B: Body + Unpin,
{
    type Response = Response<Begun<B>>;
    type Error = S::Error;
    type Future = Listen<S::Future, B>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.service.poll_ready(cx)
    }

    fn call(&mut self, request: R) -> Self::Future {
        let (timers, longest) = (self.timers.clone(), self.longest);
        Listen { call: self.service.call(request), held: None, timers, longest }
    }
}

impl<S: fmt::Debug> fmt::Debug for Listening<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listening")
            .field("service", &self.service)
            .field("longest", &self.longest)
            .finish_non_exhaustive()
    }
}

pin_project! {
    /// A call whose answer is listened to. Dropping it drops the call.
    pub struct Listen<F, B> {
        #[pin]
        call: F,
        // The head that came, and until when it is held.
        held: Option<(Response<B>, Option<Alarm>)>,
        timers: Timers,
        longest: Duration,
    }
}

impl<F, B, E> Future for Listen<F, B>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: Body + Unpin,
{
    type Output = Result<Response<Begun<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if this.held.is_none() {
            let answer = ready!(this.call.poll(cx))?;
            if !lacks_status(&answer) {
                return Poll::Ready(Ok(answer.map(|body| Begun { first: None, body: Some(body) })));
            }
            *this.held = Some((answer, None));
        }
        let Some((mut answer, mut alarm)) = this.held.take() else { unreachable!("it was held or has just come") };
        match Pin::new(answer.body_mut()).poll_frame(cx) {
            Poll::Ready(first) => Poll::Ready(Ok(began(answer, first))),
            Poll::Pending => {
                let timers = &*this.timers;
                let longest = *this.longest;
                let until = || timers.alarm(Deadline::after(timers.env().mono(), longest));
                if longest.is_zero() || alarm.get_or_insert_with(until).ring(cx).is_ready() {
                    return Poll::Ready(Ok(answer.map(|body| Begun { first: None, body: Some(body) })));
                }
                *this.held = Some((answer, alarm));
                Poll::Pending
            }
        }
    }
}

fn lacks_status<B>(answer: &Response<B>) -> bool {
    let headers = answer.headers();
    answer.status() == StatusCode::OK && is_grpc(headers) && !headers.contains_key("grpc-status")
}

/// The answer, with what came first of its body.
fn began<B: Body>(answer: Response<B>, first: Option<Result<Frame<B::Data>, B::Error>>) -> Response<Begun<B>> {
    let (mut head, body) = answer.into_parts();
    let begun = match first {
        None => Begun { first: None, body: None },
        Some(Err(error)) => Begun { first: Some(Err(error)), body: None },
        Some(Ok(frame)) => match frame.into_trailers() {
            Ok(trailers) => {
                head.headers.extend(trailers);
                Begun { first: None, body: None }
            }
            Err(data) => Begun { first: Some(Ok(data)), body: Some(body) },
        },
    };
    Response::from_parts(head, begun)
}

/// A body of which the first piece may have been read.
pub struct Begun<B: Body> {
    first: Option<Result<Frame<B::Data>, B::Error>>,
    // `None` where nothing more comes.
    body: Option<B>,
}

// Nothing in it is pinned but the body, which has to be `Unpin` to be polled.
impl<B: Body + Unpin> Unpin for Begun<B> {}

impl<B: Body + Unpin> Body for Begun<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(first));
        }
        self.body.as_mut().map_or(Poll::Ready(None), |body| Pin::new(body).poll_frame(cx))
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        match (&self.first, &self.body) {
            (None, None) => SizeHint::with_exact(0),
            (None, Some(body)) => body.size_hint(),
            (Some(_), _) => SizeHint::default(),
        }
    }
}

impl<B: Body> fmt::Debug for Begun<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Begun").field("heard", &self.first.is_some()).finish_non_exhaustive()
    }
}
