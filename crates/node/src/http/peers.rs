//! Shares of peers: nobody takes all places alone.
//!
//! A peer is an address, or a /64 network of IPv6. It may hold so many connections and so many requests in progress; beyond
//! that it is told to wait, and others find the node as they left it. Addresses that stand for many clients (a proxy, a
//! balancer, this machine itself) are named in `http.trusted-peers` and have no share: they are to see to it themselves.
//! Whom a proxy speaks for is not looked at: a header that says so is only worth something from a proxy that is known.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::sync::OwnedSemaphorePermit;

use crate::config::HttpConfig;

/// One peer and what it holds.
#[derive(Debug, Default)]
pub(crate) struct Peer {
    pub(super) connections: AtomicUsize,
    requests: AtomicUsize,
    asking: AtomicUsize,
    probes: AtomicUsize,
}

/// What a request asks for: its peer has a share of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Request,
    /// What waits for a responder. It takes no place of the others, among which its answer comes.
    Asking,
    Probe,
}

/// How many may wait for responders beside so many `requests`.
pub(super) fn asking(requests: usize) -> usize {
    (requests / 2).max(1)
}

impl Kind {
    /// How many of them one peer may have in progress.
    pub(super) fn most(self, limits: &HttpConfig) -> usize {
        match self {
            Self::Request => limits.max_peer_requests,
            Self::Asking => asking(limits.max_peer_requests),
            // Whoever asks how the node is must not be kept from it by one who asks too often.
            Self::Probe => (limits.max_probes / 2).max(1),
        }
    }

    /// The setting that `most` comes from.
    pub(super) fn setting(self) -> &'static str {
        match self {
            Self::Request | Self::Asking => "http.max-peer-requests",
            Self::Probe => "http.max-probes",
        }
    }

    fn count(self, peer: &Peer) -> &AtomicUsize {
        match self {
            Self::Request => &peer.requests,
            Self::Asking => &peer.asking,
            Self::Probe => &peer.probes,
        }
    }
}

impl Peer {
    /// A place among the peer's requests, if it may have `most` of them.
    pub(super) fn enter(self: &Arc<Self>, kind: Kind, most: usize) -> Option<PeerPlace> {
        let more = |now: usize| (now < most).then_some(now + 1);
        kind.count(self).fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(PeerPlace { peer: self.clone(), kind })
    }
}

/// A peer's place; given back when it is dropped.
pub(super) struct PeerPlace {
    peer: Arc<Peer>,
    kind: Kind,
}

impl Drop for PeerPlace {
    fn drop(&mut self) {
        self.kind.count(&self.peer).fetch_sub(1, Ordering::Relaxed);
    }
}

/// A request's place among those in progress, and among its peer's.
pub(crate) struct Place {
    pub(super) _of_all: OwnedSemaphorePermit,
    pub(super) _of_peer: Option<PeerPlace>,
}
