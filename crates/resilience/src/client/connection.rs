//! Connections as they are handed out: HTTP/1.1 for one request at a time, HTTP/2 for many.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use http::{Request, Response};
use hyper::{
    body::Incoming,
    client::conn::{TrySendError, http1, http2},
    rt::Executor,
};
use quorate_foundations::time::Mono;
use quorate_runtime::Env;

use super::Outgoing;

/// What a request is sent on.
pub(super) enum Connection {
    One(http1::SendRequest<Outgoing>),
    Many(Shared),
}

/// A connection that many requests use at once. Clones are the same connection.
#[derive(Clone)]
pub(super) struct Shared {
    sender: http2::SendRequest<Outgoing>,
    life: Arc<Life>,
}

struct Life {
    /// When it was last used or answered, in nanoseconds of the monotonic clock.
    touched: AtomicU64,
    /// How often it answered.
    answers: AtomicU64,
}

pub(super) type Sent = Result<Response<Incoming>, TrySendError<Request<Outgoing>>>;

impl Connection {
    /// Whether it can take a request: false once it is closed.
    pub(super) async fn is_ready(&mut self) -> bool {
        match self {
            Self::One(sender) => sender.ready().await.is_ok(),
            Self::Many(shared) => shared.sender.ready().await.is_ok(),
        }
    }

    pub(super) fn is_shared(&self) -> bool {
        matches!(self, Self::Many(_))
    }
}

impl Shared {
    pub(super) fn new(sender: http2::SendRequest<Outgoing>, now: Mono) -> Self {
        let life = Life { touched: AtomicU64::new(now.as_nanos()), answers: AtomicU64::new(0) };
        Self { sender, life: Arc::new(life) }
    }

    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.life, &other.life)
    }

    pub(super) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// When it was last used or answered.
    pub(super) fn touched(&self) -> Mono {
        Mono::from_nanos(self.life.touched.load(Ordering::Relaxed))
    }

    /// How many answers have begun on it.
    pub(super) fn answers(&self) -> u64 {
        self.life.answers.load(Ordering::Relaxed)
    }

    pub(super) fn answered(&self, now: Mono) {
        self.touch(now);
        self.life.answers.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn send(&mut self, request: Request<Outgoing>, now: Mono) -> impl Future<Output = Sent> + use<> {
        self.touch(now);
        self.sender.try_send_request(request)
    }

    fn touch(&self, now: Mono) {
        self.life.touched.fetch_max(now.as_nanos(), Ordering::Relaxed);
    }
}

/// Has the environment run what a connection needs run.
#[derive(Clone)]
pub(super) struct Tasks(pub(super) Env);

impl<F: Future<Output: Send> + Send + 'static> Executor<F> for Tasks {
    fn execute(&self, work: F) {
        self.0.tasks().spawn("http client", async {
            let _ = work.await;
        });
    }
}
