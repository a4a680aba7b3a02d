//! Bodies that hold a place in the bulkhead until they have come.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
};

use http_body::{Body, Frame, SizeHint};

use crate::{
    outcome::Outcome,
    stack::{Place, Rest},
    timeout::Timers,
};

/// A body whose call is under way, as far as the bulkhead is concerned, until it has been read or is dropped.
pub struct Held<B> {
    body: B,
    hold: Option<(Place, Timers, Outcome)>,
}

impl<B: Body> Held<B> {
    pub(super) fn new(body: B, mut rest: Rest<'_>) -> Self {
        if body.is_end_stream() {
            rest.complete();
            return Self { body, hold: None };
        }
        let outcome = rest.outcome();
        let hold = rest.place().map(|place| (place, rest.timers().clone(), outcome));
        Self { body, hold }
    }
}

impl<B: Body + Unpin> Body for Held<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        match &frame {
            Some(Err(_)) => self.hold = None,
            _ if frame.is_none() || self.body.is_end_stream() => {
                if let Some((place, timers, outcome)) = self.hold.take() {
                    place.settle(timers.env().mono(), outcome);
                }
            }
            _ => {}
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<B: fmt::Debug> fmt::Debug for Held<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Held").field("body", &self.body).finish_non_exhaustive()
    }
}
