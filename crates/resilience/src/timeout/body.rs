//! Bodies that end in time: the deadline of a call holds until the last byte of its answer.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use super::{Alarm, Expired, Timers};
use crate::{deadline::Deadline, outcome::Scope};

pin_project! {
    /// A body that is dropped when its time runs out, which tells whoever sends it to stop (over HTTP/2 the stream is reset).
    ///
    /// Whoever reads it gets the error as the last thing, so that half an answer is never taken for a whole one.
    pub struct TimedBody<B> {
        // `None` once it ended, failed or ran out of time.
        #[pin]
        body: Option<B>,
        alarm: Alarm,
        deadline: Deadline,
        scope: Scope,
        idle: Option<Duration>,
        // Whether the alarm is set for as long as the current silence may last.
        begun: bool,
    }
}

/// Why a body ended before its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BodyError<E> {
    /// The body's own error.
    #[error("the body failed")]
    Body(#[source] E),
    /// The call's time ran out.
    #[error(transparent)]
    Expired(#[from] Expired),
    /// Nothing came for too long.
    #[error("nothing of the body came for {0:?}")]
    Idle(Duration),
}

impl<B> TimedBody<B> {
    /// `body`, for as long as `deadline` (the one of `scope`) and the silence between two pieces of it (`idle`) allow.
    pub fn new(body: B, timers: &Timers, (deadline, scope): (Deadline, Scope), idle: Option<Duration>) -> Self {
        Self { body: Some(body), alarm: timers.alarm(deadline), deadline, scope, idle, begun: false }
    }
}

impl<B: Body> Body for TimedBody<B> {
    type Data = B::Data;
    type Error = BodyError<B::Error>;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, Self::Error>>> {
        let mut this = self.project();
        let Some(body) = this.body.as_mut().as_pin_mut() else { return Poll::Ready(None) };
        let answer = match body.poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) if !this.alarm.has_passed(*this.deadline) => {
                *this.begun = false;
                return Poll::Ready(Some(Ok(frame)));
            }
            // It never was silent, and was read so slowly that nobody waits for it any more.
            Poll::Ready(Some(Ok(_))) => Some(Err(Expired { scope: *this.scope }.into())),
            Poll::Ready(Some(Err(error))) => Some(Err(BodyError::Body(error))),
            Poll::Ready(None) => None,
            Poll::Pending => {
                if let (Some(idle), false) = (*this.idle, *this.begun) {
                    let silence = Deadline::after(this.alarm.env().mono(), idle);
                    this.alarm.reset(this.deadline.earliest(silence));
                }
                *this.begun = true;
                ready!(this.alarm.ring(cx));
                Some(Err(match *this.idle {
                    Some(idle) if this.alarm.at() != *this.deadline => BodyError::Idle(idle),
                    _ => Expired { scope: *this.scope }.into(),
                }))
            }
        };
        // Dropped here, not when the reader gets around to it.
        this.body.set(None);
        this.alarm.reset(Deadline::NEVER);
        Poll::Ready(answer)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

impl<B> fmt::Debug for TimedBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TimedBody").field("deadline", &self.deadline).field("idle", &self.idle).finish_non_exhaustive()
    }
}
