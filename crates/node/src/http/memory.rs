//! The memory for replies: what is being put together and what is on its way out, of all requests together.
//!
//! Whoever reads more than a little takes a share before it keeps it, and the share goes with the bytes until the last of
//! them has left the node. A page or a follower that finds none lets go of what it read, waits, and reads again; one that
//! finds none within the write timeout ends, and the client comes back to where it was.

use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use http::{Method, Response};
use http_body::Body as _;
use quorate_data::event::Recorded;
use tokio::sync::OwnedSemaphorePermit;

use super::{
    Node, RETRY, cloud_events,
    problem::{Code, Problem},
};

/// What is not more than this is not counted: there are only so many requests.
const LITTLE: usize = 16 << 10;

/// A part of the memory for replies; given back when the last clone is dropped.
#[derive(Clone, Default)]
pub(super) struct Share {
    taken: Option<Arc<OwnedSemaphorePermit>>,
}

impl Share {
    /// `bytes`, which hold the share until they have left.
    pub(super) fn with(&self, bytes: Bytes) -> Bytes {
        struct Charged(Bytes, #[expect(dead_code, reason = "held until the bytes are dropped")] Share);
        impl AsRef<[u8]> for Charged {
            fn as_ref(&self) -> &[u8] {
                &self.0
            }
        }
        if self.taken.is_none() { bytes } else { Bytes::from_owner(Charged(bytes, self.clone())) }
    }
}

impl Node {
    /// A share for `bytes`, if there is one now.
    pub(super) fn share(&self, bytes: usize) -> Option<Share> {
        let taken = match self.blocks(bytes) {
            0 => None,
            blocks => Some(Arc::new(self.replies.clone().try_acquire_many_owned(blocks).ok()?)),
        };
        Some(Share { taken })
    }

    /// A share for `bytes`, or why there is none.
    pub(super) fn share_or_refuse(&self, bytes: usize) -> Result<Share, Problem> {
        let why = "the memory for replies is taken: other clients are slow to read theirs";
        self.share(bytes).ok_or_else(|| Problem::new(Code::Overloaded, why).after(RETRY))
    }

    /// A share for `bytes` as soon as there is one; `None` if there is none within the write timeout. Whoever waits must
    /// not hold what it waits for.
    pub(super) async fn share_in_time(&self, bytes: usize) -> Option<Share> {
        let taking = self.replies.clone().acquire_many_owned(self.blocks(bytes));
        let taken = self.env.timeout(self.config.http.write_timeout, taking).await?.ok()?;
        Some(Share { taken: Some(Arc::new(taken)) })
    }

    /// The share of a reply that is in memory already. One that was counted while it was put together is not again.
    pub(super) fn share_of_whole(
        &self,
        method: &Method,
        response: &Response<Body>,
    ) -> Result<Option<OwnedSemaphorePermit>, Problem> {
        let size = response.body().size_hint().exact().and_then(|size| usize::try_from(size).ok()).unwrap_or(0);
        let blocks = self.blocks(size);
        if blocks == 0 {
            return Ok(None);
        }
        self.replies.clone().try_acquire_many_owned(blocks).map(Some).map_err(|_| {
            let why = "the memory for replies is taken: other clients are slow to read theirs";
            let problem = Problem::new(Code::Overloaded, why).after(RETRY);
            // It was done; only its reply cannot be given.
            if method.is_safe() { problem } else { problem.unknown() }
        })
    }

    /// Kibibytes to take for `bytes`. What is more than all there is takes all there is.
    fn blocks(&self, bytes: usize) -> u32 {
        if bytes <= LITTLE {
            return 0;
        }
        u32::try_from(bytes.min(self.config.http.reply_memory) >> 10).unwrap_or(u32::MAX)
    }
}

/// Bytes that `events` take together with their JSON, whose buffer is up to twice as large: it doubles when it is full.
pub(super) fn weight(events: &[Recorded]) -> usize {
    let one = |event: &Recorded| event.data().map_or(0, <[u8]>::len) + 2 * cloud_events::rendered_bytes(event);
    events.iter().map(one).sum()
}
