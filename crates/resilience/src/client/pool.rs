//! Connections that wait for their next request, and the bodies that give them back.

use std::{
    collections::BTreeMap,
    fmt,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::{body::Incoming, client::conn::http1::SendRequest};
use quorate_foundations::time::Mono;
use quorate_runtime::Env;

use super::{
    Config, Outgoing,
    connection::{Connection, Shared},
};

/// Connections by endpoint: those that many use, and idle ones, of which those used last are used first, so that the others
/// may go.
pub(super) struct Pool {
    config: Config,
    kept: Mutex<BTreeMap<String, Kept>>,
}

#[derive(Default)]
struct Kept {
    shared: Option<Shared>,
    idle: Vec<Idle>,
}

struct Idle {
    sender: SendRequest<Outgoing>,
    since: Mono,
}

impl Kept {
    /// Lets go of what has been idle since before `oldest`, or is closed; false if nothing is left.
    fn tidy(&mut self, oldest: impl Fn(Mono) -> bool) -> bool {
        self.idle.retain(|idle| !oldest(idle.since) && !idle.sender.is_closed());
        self.shared.take_if(|shared| oldest(shared.touched()) || shared.is_closed());
        self.shared.is_some() || !self.idle.is_empty()
    }
}

impl Pool {
    pub(super) fn new(config: Config) -> Self {
        Self { config, kept: Mutex::default() }
    }

    /// A connection to `endpoint` that was idle for no longer than it may.
    pub(super) fn take(&self, endpoint: &str, now: Mono) -> Option<Connection> {
        let mut all = self.lock();
        let kept = all.get_mut(endpoint)?;
        if !kept.tidy(|since| self.is_old(since, now)) {
            all.remove(endpoint);
            return None;
        }
        if let Some(shared) = &kept.shared {
            return Some(Connection::Many(shared.clone()));
        }
        let taken = kept.idle.pop().map(|idle| Connection::One(idle.sender));
        if kept.idle.is_empty() {
            all.remove(endpoint);
        }
        taken
    }

    /// Keeps a connection that many may use, in place of the one before.
    pub(super) fn share(&self, endpoint: &str, shared: Shared, now: Mono) {
        self.keep(endpoint, now, |kept, _| kept.shared = Some(shared));
    }

    /// Uses `shared` for no further requests; those on it go on.
    pub(super) fn forget(&self, endpoint: &str, shared: &Shared) {
        let mut all = self.lock();
        let Some(kept) = all.get_mut(endpoint) else { return };
        kept.shared.take_if(|known| known.is(shared));
        if kept.shared.is_none() && kept.idle.is_empty() {
            all.remove(endpoint);
        }
    }

    fn give(&self, endpoint: &str, sender: SendRequest<Outgoing>, now: Mono) {
        if sender.is_closed() {
            return;
        }
        self.keep(endpoint, now, |kept, config| {
            if kept.idle.len() < config.most_idle {
                kept.idle.push(Idle { sender, since: now });
            }
        });
    }

    fn keep(&self, endpoint: &str, now: Mono, put: impl FnOnce(&mut Kept, &Config)) {
        let mut all = self.lock();
        if !all.contains_key(endpoint) && all.len() >= self.config.most_endpoints {
            all.retain(|_, kept| kept.tidy(|since| self.is_old(since, now)));
            if all.len() >= self.config.most_endpoints {
                return;
            }
        }
        let kept = all.entry(endpoint.to_owned()).or_default();
        kept.tidy(|since| self.is_old(since, now));
        put(kept, &self.config);
    }

    fn is_old(&self, since: Mono, now: Mono) -> bool {
        now.saturating_since(since) >= self.config.idle
    }

    pub(super) fn len(&self) -> usize {
        self.lock().values().map(|kept| kept.idle.len() + usize::from(kept.shared.is_some())).sum()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where a connection goes back to.
pub(super) type Home = (SendRequest<Outgoing>, String, Arc<Pool>);

/// The body of an answer. Over HTTP/1.1 it gives its connection back once it was read to its end, and closes it if it is
/// dropped before; over HTTP/2 it resets its stream then, and nobody else's.
pub struct Received {
    body: Incoming,
    home: Option<Home>,
    env: Env,
}

impl Received {
    pub(super) fn new(body: Incoming, home: Option<Home>, env: Env) -> Self {
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
