//! Watching connections, so that one that stalls costs nothing for long.
//!
//! A connection says what it is doing in a few atomic words; one task looks at all of them now and then and ends those
//! that have been at it for too long. No timer is armed per request, and none per connection.

use std::{
    collections::BTreeMap,
    io,
    net::IpAddr,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use http::Version;
use quorate_foundations::time::Mono;
use quorate_resilience::rate_limit::network;
use quorate_runtime::{Env, net::Io};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::Notify,
};

use super::{
    peers::Peer,
    sending::{Pace, Sending},
};
use crate::config::HttpConfig;

/// How often connections are looked at: deadlines are late by at most this.
pub(crate) const TICK: Duration = Duration::from_millis(250);

/// All open connections.
pub(crate) struct Connections {
    limits: HttpConfig,
    open: Mutex<BTreeMap<u64, Arc<Activity>>>,
    /// Those that hold connections; locked only by who holds `open`.
    peers: Mutex<BTreeMap<IpAddr, Arc<Peer>>>,
    next: AtomicU64,
    pub(crate) count: AtomicUsize,
}

/// What one connection is doing. `0` stands for *not*.
#[derive(Default)]
pub(crate) struct Activity {
    /// Requests in progress.
    busy: AtomicU32,
    /// When the newest thing began: the connection, a request's first byte, or the rest after a request.
    since: AtomicU64,
    /// Whether bytes came that belong to no request yet.
    reading: AtomicBool,
    /// Whether a request was seen, and in which protocol: after the first one of HTTP/2, frames come at any time.
    protocol: AtomicU32,
    /// Since when the client has accepted none of a reply's bytes.
    blocked: AtomicU64,
    /// Whose connection it is, where that is counted.
    pub(super) peer: Option<Arc<Peer>>,
    /// Replies on their way out.
    replies: Mutex<Vec<Arc<Sending>>>,
    verdict: AtomicU32,
    told: Notify,
}

/// What is to become of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Verdict {
    /// It may go on.
    Keep = 0,
    /// It may finish what it is doing and then ends.
    Finish = 1,
    /// It ends now.
    End = 2,
}

const UNKNOWN: u32 = 0;
const HTTP1: u32 = 1;
const HTTP2: u32 = 2;

impl Connections {
    pub(crate) fn new(limits: HttpConfig) -> Self {
        Self {
            limits,
            open: Mutex::default(),
            peers: Mutex::default(),
            next: AtomicU64::new(0),
            count: AtomicUsize::new(0),
        }
    }

    /// Adds a connection from `address`, unless there are too many, or too many of this peer.
    pub(crate) fn open(self: &Arc<Self>, now: Mono, address: IpAddr) -> Option<Open> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.len() >= self.limits.max_connections {
            return None;
        }
        let is_trusted = self.limits.trusted_peers.iter().any(|trusted| trusted.contains(address));
        let address = (!is_trusted).then(|| network(address));
        let of = match address.map(|address| self.welcome(address)) {
            None => None,
            Some(Some(peer)) => Some(peer),
            Some(None) => return None,
        };
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let activity = Arc::new(Activity { since: AtomicU64::new(stamp(now)), peer: of, ..Activity::default() });
        open.insert(id, activity.clone());
        self.count.store(open.len(), Ordering::Relaxed);
        Some(Open { connections: self.clone(), id, address, activity })
    }

    /// One more connection of a peer, if it may have one.
    fn welcome(&self, address: IpAddr) -> Option<Arc<Peer>> {
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        let peer = peers.entry(address).or_default();
        if peer.connections.load(Ordering::Relaxed) >= self.limits.max_peer_connections {
            return None;
        }
        peer.connections.fetch_add(1, Ordering::Relaxed);
        Some(peer.clone())
    }

    /// One connection less of a peer.
    fn farewell(&self, address: IpAddr) {
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        let left = peers.get(&address).map_or(0, |peer| peer.connections.fetch_sub(1, Ordering::Relaxed));
        if left <= 1 {
            peers.remove(&address);
        }
    }

    /// Looks at every connection.
    pub(crate) fn sweep(&self, now: Mono) {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.values().for_each(|activity| activity.tell(activity.judge(now, &self.limits)));
    }

    /// Tells every connection the same.
    pub(crate) fn tell_all(&self, verdict: Verdict) {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.values().for_each(|activity| activity.tell(verdict));
    }
}

/// A connection's place among the open ones, given back when it is dropped.
pub(crate) struct Open {
    connections: Arc<Connections>,
    id: u64,
    /// Whose it is, where that is counted.
    address: Option<IpAddr>,
    pub(crate) activity: Arc<Activity>,
}

impl Drop for Open {
    fn drop(&mut self) {
        let mut open = self.connections.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.remove(&self.id);
        if let Some(address) = self.address {
            self.connections.farewell(address);
        }
        self.connections.count.store(open.len(), Ordering::Relaxed);
    }
}

impl Activity {
    /// A request begins; it ends when what this returns is dropped.
    pub(crate) fn begin(self: &Arc<Self>, env: Env, version: Version) -> Busy {
        let protocol = if version == Version::HTTP_2 { HTTP2 } else { HTTP1 };
        self.protocol.store(protocol, Ordering::Relaxed);
        self.busy.fetch_add(1, Ordering::Relaxed);
        self.reading.store(false, Ordering::Relaxed);
        Busy { activity: self.clone(), env }
    }

    /// What is to become of the connection at `now`.
    pub(crate) fn judge(&self, now: Mono, limits: &HttpConfig) -> Verdict {
        let passed = |stamp: &AtomicU64, span: Duration| {
            let since = stamp.load(Ordering::Relaxed);
            since != 0 && now.saturating_since(Mono::from_nanos(since)) >= span
        };
        if passed(&self.blocked, limits.write_timeout) || self.is_stuck(now, limits.write_timeout) {
            return Verdict::End;
        }
        if self.busy.load(Ordering::Relaxed) > 0 {
            return Verdict::Keep;
        }
        match (self.protocol.load(Ordering::Relaxed), self.reading.load(Ordering::Relaxed)) {
            (UNKNOWN, _) | (HTTP1, true) if passed(&self.since, limits.header_timeout) => Verdict::End,
            // Asked to finish, and it did not.
            (HTTP1 | HTTP2, _) if passed(&self.since, limits.idle_timeout + limits.write_timeout) => Verdict::End,
            (HTTP1 | HTTP2, _) if passed(&self.since, limits.idle_timeout) => Verdict::Finish,
            _ => Verdict::Keep,
        }
    }

    /// Cuts the replies that the client takes too little of; whether one of them can be ended only with the connection.
    fn is_stuck(&self, now: Mono, patience: Duration) -> bool {
        let replies = self.replies.lock().unwrap_or_else(PoisonError::into_inner);
        // Each of them is looked at: how far it came is compared with what was seen the last time.
        replies.iter().filter(|reply| reply.judge(now, patience) == Pace::Stuck).count() > 0
    }

    fn tell(&self, verdict: Verdict) {
        // Told once each: a connection that is asked to finish and does not is ended by the drain's deadline, or when it
        // has rested for longer still.
        if self.verdict.fetch_max(verdict as u32, Ordering::Relaxed) < verdict as u32 {
            self.told.notify_one();
        }
    }

    /// Waits until something is to become of the connection. Cancel safe.
    pub(crate) async fn verdict(&self) -> Verdict {
        self.told.notified().await;
        match self.verdict.load(Ordering::Relaxed) {
            2 => Verdict::End,
            1 => Verdict::Finish,
            _ => Verdict::Keep,
        }
    }
}

/// A request in progress.
pub(crate) struct Busy {
    activity: Arc<Activity>,
    env: Env,
}

impl Busy {
    /// Its reply is being sent.
    pub(crate) fn sends(&self, reply: &Arc<Sending>) {
        self.activity.replies.lock().unwrap_or_else(PoisonError::into_inner).push(reply.clone());
    }

    /// Its reply was sent or given up.
    pub(crate) fn sent(&self, reply: &Arc<Sending>) {
        let mut replies = self.activity.replies.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = replies.iter().position(|one| Arc::ptr_eq(one, reply)) {
            replies.swap_remove(at);
        }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.activity.since.store(stamp(self.env.mono()), Ordering::Relaxed);
        self.activity.busy.fetch_sub(1, Ordering::Relaxed);
    }
}

fn stamp(now: Mono) -> u64 {
    now.as_nanos().max(1)
}

/// A connection's bytes, with an eye on how they move.
pub(crate) struct Watched {
    io: Box<dyn Io>,
    activity: Arc<Activity>,
    env: Env,
}

impl Watched {
    pub(crate) fn new(io: Box<dyn Io>, activity: Arc<Activity>, env: Env) -> Self {
        Self { io, activity, env }
    }

    fn wrote(&self, outcome: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        let blocked = &self.activity.blocked;
        let since = blocked.load(Ordering::Relaxed);
        match outcome {
            Poll::Pending if since == 0 => blocked.store(stamp(self.env.mono()), Ordering::Relaxed),
            Poll::Ready(_) if since != 0 => blocked.store(0, Ordering::Relaxed),
            _ => {}
        }
        outcome
    }
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let outcome = Pin::new(&mut self.io).poll_read(cx, buf);
        let activity = &self.activity;
        let came = buf.filled().len() > before && activity.busy.load(Ordering::Relaxed) == 0;
        if came && !activity.reading.swap(true, Ordering::Relaxed) && activity.protocol.load(Ordering::Relaxed) == HTTP1
        {
            activity.since.store(stamp(self.env.mono()), Ordering::Relaxed);
        }
        outcome
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.io).poll_write(cx, buf);
        self.wrote(outcome)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.wrote(outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        net::{IpAddr, Ipv4Addr},
        sync::Arc,
        time::Duration,
    };

    use http::Version;
    use quorate_foundations::time::Mono;
    use quorate_runtime::Env;

    use super::{Connections, Ordering, Verdict, stamp};
    use crate::config::{Config, HttpConfig};

    const HOME: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    fn limits() -> HttpConfig {
        HttpConfig { max_connections: 2, ..Config::in_folder("unused").http }
    }

    fn at(seconds: u64) -> Mono {
        Mono::ZERO + Duration::from_secs(seconds)
    }

    #[test]
    fn a_connection_that_never_ends_its_first_headers_is_ended() {
        let connections = Arc::new(Connections::new(limits()));
        let one = connections.open(at(1), HOME).unwrap();
        assert_eq!(one.activity.judge(at(10), &limits()), Verdict::Keep);
        one.activity.reading.store(true, Ordering::Relaxed);
        assert_eq!(one.activity.judge(at(11), &limits()), Verdict::End);
    }

    #[test]
    fn a_connection_at_rest_is_asked_to_finish_later_than_one_that_dawdles_is_ended() {
        let connections = Arc::new(Connections::new(limits()));
        let one = connections.open(at(0), HOME).unwrap();
        let env = Env::real();
        drop(one.activity.begin(env, Version::HTTP_11));
        one.activity.since.store(stamp(at(100)), Ordering::Relaxed);
        assert_eq!(one.activity.judge(at(174), &limits()), Verdict::Keep);
        assert_eq!(one.activity.judge(at(175), &limits()), Verdict::Finish);
        assert_eq!(one.activity.judge(at(185), &limits()), Verdict::End, "it did not finish");
        one.activity.reading.store(true, Ordering::Relaxed);
        assert_eq!(one.activity.judge(at(110), &limits()), Verdict::End);
    }

    #[test]
    fn a_request_in_progress_may_take_its_time_but_not_if_nobody_reads_its_reply() {
        let connections = Arc::new(Connections::new(limits()));
        let one = connections.open(at(0), HOME).unwrap();
        let _busy = one.activity.begin(Env::real(), Version::HTTP_11);
        assert_eq!(one.activity.judge(at(9_999), &limits()), Verdict::Keep);
        one.activity.blocked.store(stamp(at(10_000)), Ordering::Relaxed);
        assert_eq!(one.activity.judge(at(10_009), &limits()), Verdict::Keep);
        assert_eq!(one.activity.judge(at(10_010), &limits()), Verdict::End);
    }

    #[test]
    fn there_are_only_so_many_and_a_place_is_given_back() {
        let connections = Arc::new(Connections::new(limits()));
        let one = connections.open(at(0), HOME).unwrap();
        let _two = connections.open(at(0), HOME).unwrap();
        assert!(connections.open(at(0), HOME).is_none());
        drop(one);
        assert!(connections.open(at(0), HOME).is_some());
    }

    #[test]
    fn a_peer_has_a_share_of_the_connections_and_who_is_trusted_has_none() {
        let limits = HttpConfig { max_connections: 10, max_peer_connections: 2, ..limits() };
        let connections = Arc::new(Connections::new(limits));
        let open = |address: &str| connections.open(at(0), address.parse().unwrap());
        let (one, _two) = (open("192.0.2.1").unwrap(), open("192.0.2.1").unwrap());
        assert!(open("192.0.2.1").is_none() && open("::ffff:192.0.2.1").is_none());
        let _other = open("192.0.2.2").unwrap();
        drop(one);
        let _again = open("192.0.2.1").unwrap();
        let _six = (open("2001:db8::1").unwrap(), open("2001:db8::2").unwrap());
        assert!(open("2001:db8::3").is_none(), "one network is one peer");
        let _trusted: Vec<_> = (0..5).map(|_| open("127.0.0.1").unwrap()).collect();
        assert!(open("127.0.0.1").is_none(), "there are only so many in all");
    }

    #[test]
    fn a_peer_that_has_left_is_forgotten() {
        let connections = Arc::new(Connections::new(limits()));
        drop(connections.open(at(0), "192.0.2.1".parse().unwrap()));
        assert!(connections.peers.lock().unwrap().is_empty());
    }
}
