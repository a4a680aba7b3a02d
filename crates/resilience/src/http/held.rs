//! Bodies that are a part of their call: it ends when they do.

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Wake, Waker},
};

use http_body::{Body, Frame, SizeHint};

use super::judge;
use crate::{
    deadline::Deadline,
    outcome::{Class, Outcome, Scope},
    stack::{Ongoing, Rest},
    timeout::{Alarm, BodyError, Expired, TimedBody},
};

/// A body whose call is under way until it has come: circuits and counts are told what became of the call when the body ends, and
/// the place in the bulkhead is held until then.
///
/// | the body | the call |
/// |---|---|
/// | ends | is what the head said, or what a `grpc-status` in its trailers says |
/// | breaks off | is a fault |
/// | is silent for too long | ran out of time, and so did the upstream |
/// | is not complete in time while it is waited for | ran out of time |
/// | … while nobody reads it | ran out of time, of which no circuit hears |
/// | is dropped while it is waited for | was cancelled |
/// | is dropped by a reader who has read enough | is what the head said |
///
/// When time runs out, the body is dropped and the place given back in that moment, also if nobody reads.
pub struct Held<B> {
    /// `None` for a body that was empty from the beginning.
    slot: Option<Arc<Slot<B>>>,
    /// Empties the slot.
    alarm: Option<Alarm>,
}

struct Slot<B> {
    scope: Scope,
    content: Mutex<Content<B>>,
}

struct Content<B> {
    /// The body, and the call that ends with it; `None` once it has.
    held: Option<(B, Ongoing)>,
    /// Who waits for the next piece.
    reader: Option<Waker>,
    /// Whether time ran out and the reader doesn't know.
    expired: bool,
}

/// How a body ended.
enum End {
    Complete,
    With(Outcome, Option<std::time::Duration>),
    Expired(Scope),
}

impl<B: Body + Send + 'static> Held<TimedBody<B>> {
    pub(super) fn new(body: TimedBody<B>, rest: Rest<'_>) -> Self {
        if body.is_end_stream() {
            rest.complete();
            return Self { slot: None, alarm: None };
        }
        let mut alarm = (rest.deadline != Deadline::NEVER).then(|| rest.timers().alarm(rest.deadline));
        let scope = rest.scope;
        let content = Content { held: Some((body, rest.keep())), reader: None, expired: false };
        let slot = Arc::new(Slot { scope, content: Mutex::new(content) });
        if let Some(alarm) = &mut alarm {
            // It rings for the slot, not for whoever reads.
            _ = alarm.ring(&Context::from_waker(&Waker::from(slot.clone())));
        }
        Self { slot: Some(slot), alarm }
    }
}

impl<B> Slot<B> {
    fn lock(&self) -> MutexGuard<'_, Content<B>> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<B: Send + 'static> Wake for Slot<B> {
    /// The time of the body is up.
    fn wake(self: Arc<Self>) {
        let (held, reader) = {
            let mut content = self.lock();
            content.expired = content.held.is_some();
            (content.held.take(), content.reader.take())
        };
        // Outside of the lock: what is dropped and told here is anybody's. Whoever turns the timers has others to wake, and
        // mustn't die of it.
        let waited = reader.is_some();
        let emptied = catch_unwind(AssertUnwindSafe(|| {
            if let Some((body, call)) = held {
                drop(body);
                call.expire(self.scope, waited);
            }
        }));
        if emptied.is_err() {
            tracing::error!("a body that was dropped when its time was up, or a listener of its circuit, panicked");
        }
        reader.into_iter().for_each(Waker::wake);
    }
}

impl<B: Body + Unpin> Body for Held<TimedBody<B>> {
    type Data = B::Data;
    type Error = BodyError<B::Error>;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, Self::Error>>> {
        let Some(slot) = self.slot.clone() else { return Poll::Ready(None) };
        let mut content = slot.lock();
        if std::mem::take(&mut content.expired) {
            return Poll::Ready(Some(Err(Expired { scope: slot.scope }.into())));
        }
        let Some((body, _)) = &mut content.held else { return Poll::Ready(None) };
        let Poll::Ready(frame) = Pin::new(&mut *body).poll_frame(cx) else {
            content.reader = Some(cx.waker().clone());
            return Poll::Pending;
        };
        let end = match &frame {
            Some(Ok(frame)) => match frame.trailers_ref().and_then(judge::of_trailers) {
                Some(verdict) => Some(End::With(Outcome::Upstream(verdict.class), verdict.retry_after)),
                None => body.is_end_stream().then_some(End::Complete),
            },
            Some(Err(BodyError::Body(_))) => Some(End::With(Outcome::Upstream(Class::Fault), None)),
            Some(Err(BodyError::Idle(_))) => Some(End::With(Outcome::Timeout(Scope::Attempt), None)),
            Some(Err(BodyError::Expired(expired))) => Some(End::Expired(expired.scope)),
            None => Some(End::Complete),
        };
        let waited = content.reader.take().is_some();
        let ended = end.and_then(|end| content.held.take().map(|(body, call)| (end, body, call)));
        drop(content);
        if let Some((end, body, call)) = ended {
            self.alarm = None;
            drop(body);
            match end {
                End::Complete => call.complete(),
                End::With(outcome, retry_after) => call.end(outcome, retry_after),
                End::Expired(scope) => call.expire(scope, waited),
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        let Some(slot) = &self.slot else { return true };
        let content = slot.lock();
        !content.expired && content.held.as_ref().is_none_or(|(body, _)| body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        let Some(slot) = &self.slot else { return SizeHint::with_exact(0) };
        match &*slot.lock() {
            Content { held: Some((body, _)), .. } => body.size_hint(),
            Content { expired: true, .. } => SizeHint::default(),
            Content { .. } => SizeHint::with_exact(0),
        }
    }
}

impl<B> Drop for Held<B> {
    fn drop(&mut self) {
        let Some(slot) = &self.slot else { return };
        let (held, reader) = {
            let mut content = slot.lock();
            (content.held.take(), content.reader.take())
        };
        let Some((body, call)) = held else { return };
        drop(body);
        // Whoever leaves while it waits says nothing about the upstream; whoever has read enough was given what it asked for.
        if reader.is_none() {
            call.complete();
        }
    }
}

impl<B> fmt::Debug for Held<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Held").field("alarm", &self.alarm).finish_non_exhaustive()
    }
}
