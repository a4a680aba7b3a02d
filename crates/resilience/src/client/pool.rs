//! Connections that wait for their next request, and the bodies that give them back.

use std::{
    collections::BTreeMap,
    fmt,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::uri::Authority;
use http_body::{Body, Frame, SizeHint};
use hyper::{body::Incoming, client::conn::http1::SendRequest};
use quorate_foundations::time::Mono;
use quorate_runtime::Env;

use super::{Config, Outgoing};

/// Idle connections by endpoint; those used last are used first, so that the others may go.
pub(super) struct Pool {
    config: Config,
    idle: Mutex<BTreeMap<String, Vec<Idle>>>,
}

struct Idle {
    sender: SendRequest<Outgoing>,
    since: Mono,
}

impl Pool {
    pub(super) fn new(config: Config) -> Self {
        Self { config, idle: Mutex::default() }
    }

    /// A connection to `endpoint` that was idle for no longer than it may.
    pub(super) fn take(&self, endpoint: &Authority, now: Mono) -> Option<SendRequest<Outgoing>> {
        let mut idle = self.lock();
        let kept = idle.get_mut(endpoint.as_str())?;
        let taken = kept.pop().filter(|kept| now.saturating_since(kept.since) < self.config.idle);
        // The others have been idle for longer still.
        if taken.is_none() || kept.is_empty() {
            idle.remove(endpoint.as_str());
        }
        taken.map(|kept| kept.sender)
    }

    fn give(&self, endpoint: &Authority, sender: SendRequest<Outgoing>, now: Mono) {
        if sender.is_closed() {
            return;
        }
        let mut idle = self.lock();
        if !idle.contains_key(endpoint.as_str()) && idle.len() >= self.config.most_endpoints {
            let old = |kept: &mut Vec<Idle>| {
                kept.retain(|kept| now.saturating_since(kept.since) < self.config.idle && !kept.sender.is_closed());
                !kept.is_empty()
            };
            idle.retain(|_, kept| old(kept));
            if idle.len() >= self.config.most_endpoints {
                return;
            }
        }
        let kept = idle.entry(endpoint.as_str().to_owned()).or_default();
        kept.retain(|kept| now.saturating_since(kept.since) < self.config.idle && !kept.sender.is_closed());
        if kept.len() < self.config.most_idle {
            kept.push(Idle { sender, since: now });
        }
    }

    pub(super) fn len(&self) -> usize {
        self.lock().values().map(Vec::len).sum()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Vec<Idle>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The body of an answer. Read to its end it gives its connection back; dropped before, it closes it.
pub struct Received {
    body: Incoming,
    home: Option<(SendRequest<Outgoing>, Authority, Arc<Pool>)>,
    env: Env,
}

impl Received {
    pub(super) fn new(body: Incoming, home: Option<(SendRequest<Outgoing>, Authority, Arc<Pool>)>, env: Env) -> Self {
        let mut received = Self { body, home, env };
        if received.body.is_end_stream() {
            received.give_back();
        }
        received
    }

    fn give_back(&mut self) {
        if let Some((sender, endpoint, pool)) = self.home.take() {
            pool.give(&endpoint, sender, self.env.mono());
        }
    }
}

impl Body for Received {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        match &frame {
            Some(Err(_)) => self.home = None,
            _ if frame.is_none() || self.body.is_end_stream() => self.give_back(),
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

impl fmt::Debug for Received {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Received").field("body", &self.body).finish_non_exhaustive()
    }
}
