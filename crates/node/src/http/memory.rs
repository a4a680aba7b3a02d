//! The memory for replies: what is being put together and what is on its way out, of all requests together.
//!
//! Whoever reads more than a little takes a share before it keeps it, and the share goes with the bytes until the last of
//! them has left the node. A page or a follower that finds none lets go of what it read, waits, and reads again; one that
//! finds none within the write timeout ends, and the client comes back to where it was. Who changes something takes the
//! share of its reply before the change is done, or undoes it: that a reply cannot be given is told by nothing having
//! happened.
//!
//! A quarter of the memory is kept for small replies. Whoever needs much waits in turn for the rest, and what becomes free
//! of the rest is theirs first: so many small ones cannot starve it, nor it them.

use axum::body::Body;
use bytes::Bytes;
use http::{Method, Response};
use http_body::Body as _;
use quorate_data::event::Recorded;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{
    Node, RETRY,
    body_out::{Gone, Pieces},
    cloud_events,
    problem::{Code, Problem},
    sse::closing,
};

/// What is not more than this is not counted: there are only so many requests.
const LITTLE: usize = 16 << 10;

/// The memory itself, in kibibytes.
pub(super) struct ReplyMemory {
    /// For every reply.
    common: Arc<Semaphore>,
    most: u32,
    /// For small replies, while others have or wait for what is common.
    kept: Arc<Semaphore>,
    /// What is small.
    small: u32,
}

impl ReplyMemory {
    /// So many parts are kept for small replies.
    const KEPT: usize = 4;
    /// So many small replies find room in what is kept for them.
    const SMALL: u32 = 16;

    pub(super) fn new(bytes: usize) -> Self {
        let all = bytes >> 10;
        let (kept, common) = (all / Self::KEPT, all - all / Self::KEPT);
        let blocks = |blocks: usize| u32::try_from(blocks.min(Semaphore::MAX_PERMITS)).unwrap_or(u32::MAX);
        Self {
            common: Arc::new(Semaphore::new(common)),
            most: blocks(common),
            kept: Arc::new(Semaphore::new(kept)),
            small: blocks(kept) / Self::SMALL,
        }
    }

    /// Kibibytes to take for `bytes`. What is more than all there is takes all there is.
    fn blocks(&self, bytes: usize) -> u32 {
        if bytes <= LITTLE {
            return 0;
        }
        u32::try_from(bytes.div_ceil(1 << 10)).unwrap_or(u32::MAX).min(self.most)
    }

    /// A share for `bytes`, if there is one now.
    fn take(&self, bytes: usize) -> Option<Share> {
        let blocks = self.blocks(bytes);
        let of = |memory: &Arc<Semaphore>| memory.clone().try_acquire_many_owned(blocks).ok();
        let taken = match blocks {
            0 => None,
            _ if blocks <= self.small => Some(of(&self.common).or_else(|| of(&self.kept))?),
            _ => Some(of(&self.common)?),
        };
        Some(Share { taken: taken.map(Arc::new) })
    }

    /// A share for `bytes` as soon as there is one. Cancel safe.
    async fn wait(&self, bytes: usize) -> Option<Share> {
        let blocks = self.blocks(bytes);
        let of = |memory: &Arc<Semaphore>| memory.clone().acquire_many_owned(blocks);
        let taken = if blocks <= self.small {
            tokio::select! {
                biased;
                taken = of(&self.common) => taken,
                taken = of(&self.kept) => taken,
            }
        } else {
            of(&self.common).await
        };
        Some(Share { taken: Some(Arc::new(taken.ok()?)) })
    }
}

/// A part of the memory for replies; given back when the last clone is dropped.
#[derive(Clone, Default)]
pub(crate) struct Share {
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

    /// `response`, for which this share was taken before it was there.
    pub(super) fn of(self, mut response: Response<Body>) -> Response<Body> {
        response.extensions_mut().insert(self);
        response
    }

    fn blocks(&self) -> u32 {
        self.taken.as_ref().map_or(0, |taken| u32::try_from(taken.num_permits()).unwrap_or(u32::MAX))
    }
}

/// The shares of a follower, to whom one batch is told after another.
pub(super) struct Shares<'n> {
    node: &'n Node,
    spare: Option<Share>,
}

impl<'n> Shares<'n> {
    pub(super) fn of(node: &'n Node) -> Self {
        Self { node, spare: None }
    }

    /// A share for `bytes`, if there is one now: the one that was waited for, where it is large enough.
    pub(super) fn now(&mut self, bytes: usize) -> Option<Share> {
        let needed = self.node.replies.blocks(bytes);
        self.spare.take().filter(|spare| spare.blocks() >= needed).or_else(|| self.node.share(bytes))
    }

    /// Waits until there is a share for `bytes`, of which the caller has let go. Where there is none in time, the follower is
    /// told so, and its stream is over: `false`.
    pub(super) async fn wait(&mut self, bytes: usize, pieces: &Pieces) -> Result<bool, Gone> {
        self.spare = self.node.share_in_time(bytes).await;
        if self.spare.is_none() {
            pieces.send(closing("overloaded")).await?;
        }
        Ok(self.spare.is_some())
    }
}

impl Node {
    /// A share for `bytes`, if there is one now.
    pub(super) fn share(&self, bytes: usize) -> Option<Share> {
        self.replies.take(bytes)
    }

    /// A share for `bytes`, or why there is none.
    pub(super) fn share_or_refuse(&self, bytes: usize) -> Result<Share, Problem> {
        self.share(bytes).ok_or_else(taken)
    }

    /// A share for `bytes` as soon as there is one; `None` if there is none within the write timeout. Whoever waits must
    /// not hold what it waits for.
    pub(super) async fn share_in_time(&self, bytes: usize) -> Option<Share> {
        self.env.timeout(self.config.http.write_timeout, self.replies.wait(bytes)).await?
    }

    /// The share of a reply that is in memory already. One that was counted before it was there, or while it was put
    /// together, is not again.
    pub(super) fn share_of_whole(&self, method: &Method, response: &mut Response<Body>) -> Result<Share, Problem> {
        if let Some(reserved) = response.extensions_mut().remove() {
            return Ok(reserved);
        }
        let size = response.body().size_hint().exact().and_then(|size| usize::try_from(size).ok()).unwrap_or(0);
        // What was done was done; only its reply cannot be given.
        self.share(size).ok_or_else(|| if method.is_safe() { taken() } else { taken().done() })
    }
}

/// Why there is no share.
pub(super) fn taken() -> Problem {
    Problem::new(Code::Overloaded, "the memory for replies is taken: other clients are slow to read theirs")
        .after(RETRY)
}

/// Bytes that `events` take together with their JSON, whose buffer is up to twice as large: it doubles when it is full.
pub(super) fn weight<'e>(events: impl IntoIterator<Item = &'e Recorded>) -> usize {
    let one = |event: &Recorded| event.data().map_or(0, <[u8]>::len) + 2 * cloud_events::rendered_bytes(event);
    events.into_iter().map(one).sum()
}

#[cfg(test)]
mod tests {
    use super::{ReplyMemory, Share};

    const KIB: usize = 1 << 10;

    /// 16 MiB: 12 for all, 4 for replies of up to 256 KiB.
    fn memory() -> ReplyMemory {
        ReplyMemory::new(16 << 20)
    }

    #[tokio::test]
    async fn small_replies_get_past_a_large_one_that_waits_and_do_not_starve_it() {
        let memory = memory();
        let held = memory.take(11 << 20).unwrap();
        let mut large = std::pin::pin!(memory.wait(8 << 20));
        assert!(futures_util::poll!(large.as_mut()).is_pending());
        // All that is left of the common memory is promised to it.
        assert!(memory.take(512 * KIB).is_none(), "who needs much comes behind it");
        let small: Vec<Share> = (0..16).map(|_| memory.take(256 * KIB).expect("small ones get past")).collect();
        assert!(memory.take(256 * KIB).is_none(), "as many as there is room for");
        drop(held);
        let served = large.await;
        assert!(served.is_some(), "the small ones took nothing of what it waits for");
        drop(small);
    }

    #[tokio::test]
    async fn a_small_reply_that_waits_takes_whichever_is_free_first() {
        let memory = memory();
        let common = memory.take(12 << 20).unwrap();
        let kept: Vec<Share> = (0..16).map(|_| memory.take(256 * KIB).unwrap()).collect();
        for _ in 0..2 {
            let mut waiting = std::pin::pin!(memory.wait(200 * KIB));
            assert!(futures_util::poll!(waiting.as_mut()).is_pending());
        }
        let mut waiting = std::pin::pin!(memory.wait(200 * KIB));
        assert!(futures_util::poll!(waiting.as_mut()).is_pending());
        drop(kept);
        let share = waiting.await.unwrap();
        assert_eq!(share.blocks(), 200);
        drop(common);
        drop(share);
        assert!(memory.take(12 << 20).is_some(), "nothing was lost on the way");
    }

    #[test]
    fn what_is_more_than_all_there_is_takes_all_there_is_and_a_little_nothing() {
        let memory = memory();
        assert_eq!(memory.take(16 * KIB).unwrap().blocks(), 0);
        assert_eq!(memory.take(16 * KIB + 1).unwrap().blocks(), 17);
        assert_eq!(memory.take(1 << 30).unwrap().blocks(), 12 << 10);
    }
}
