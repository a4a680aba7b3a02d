//! What a store forgets, or moves out into files: streams that are truncated or deleted, what their rules keep no more, archives.

use std::sync::Arc;

use quorate_foundations::name::Name;

use super::{Store, own};
use crate::{
    event::{ArchiveId, Version},
    store::{
        AppendError, Archive, ArchiveError, ArchiveOrder, ExpectedVersion, MetadataError, Retire, Retired, Retry,
        Scavenged, SetMetadata, StoreError, StreamMetadata, StreamSummary,
    },
};

impl Store {
    /// Makes stubs of a stream's events: their data is forgotten, their place and hash stay.
    ///
    /// That they are gone is durable at once, whatever their number; their data is then taken out of the store's files
    /// slice by slice, between other writes, and has left them when this returns. After a crash that goes on by itself.
    ///
    /// # Errors
    /// [`AppendError::VersionConflict`] for a tombstone whose expectation does not hold, and [`StoreError::Forgetting`] where
    /// more is being forgotten than the store takes: nothing was changed. [`StoreError::NotWiped`] where the events are
    /// gone for everybody, and something, such as damage or a full disk, keeps their data in the file.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the wait, not the work. Repeating is safe.
    pub async fn retire(&self, stream: Name, what: Retire) -> Result<Retired, AppendError> {
        let asked = stream.clone();
        let retired = self.transact(move |tx| {
            let stream = asked.clone();
            Box::pin(async move { tx.retire(&stream, what).await })
        });
        let retired = retired.await.map_err(|failed| own(failed, "forgetting events"))?;
        self.wipe(stream).await?;
        Ok(retired)
    }

    /// Waits until data that `stream` forgot, or any stream, has left the store's files. What could not be wiped before is
    /// tried again.
    ///
    /// # Errors
    /// [`StoreError::NotWiped`] where something is in the way; other streams go on.
    pub async fn settle(&self, stream: Option<Name>) -> Result<(), StoreError> {
        self.backend.settle(stream).await
    }

    /// The same behind a transaction that forgot events of `stream`: that it committed is told by the error as well.
    ///
    /// # Errors
    /// [`StoreError::NotWiped`], whatever is in the way.
    pub async fn wipe(&self, stream: Name) -> Result<(), StoreError> {
        let settled = self.settle(Some(stream.clone())).await;
        settled.map_err(|cause| StoreError::not_wiped(stream.as_str().into(), cause))
    }

    /// The metadata of `stream`: what it keeps, and the user's own values.
    pub async fn metadata(&self, stream: Name) -> Result<SetMetadata, StoreError> {
        self.backend.metadata(stream).await
    }

    /// Sets the metadata of `stream` if their version still is what is `expected`; returns the new version. The stream need
    /// not exist. Readers see no more than its rules keep from the moment this commits; [`scavenge`](Self::scavenge) then
    /// forgets the rest.
    ///
    /// # Errors
    /// See [`MetadataError`]; nothing was changed.
    pub async fn set_metadata(
        &self,
        stream: Name,
        expected: ExpectedVersion,
        metadata: StreamMetadata,
    ) -> Result<Version, MetadataError> {
        let set = self.transact(move |tx| {
            let (stream, metadata) = (stream.clone(), metadata.clone());
            Box::pin(async move { tx.set_metadata(&stream, expected, metadata).await })
        });
        set.await.map_err(|failed| own(failed, "setting metadata"))
    }

    /// Forgets what no stream's rules keep any more, as [`Retire::Expired`] does for one stream. Between two streams others
    /// have their turn.
    ///
    /// # Errors
    /// Of streams that damage is in the way of, the first is told once all others are done.
    /// [`StoreError::PartlyForgotten`] and [`StoreError::NotWiped`]: some events are forgotten. With any other nothing was
    /// changed. Repeating is safe, and goes on.
    pub async fn scavenge(&self) -> Result<Scavenged, StoreError> {
        let mut done = Scavenged::default();
        let forgotten = self.forget_all_unkept(&mut done).await;
        let Scavenged { streams, events } = done;
        forgotten.map(|()| done).map_err(|cause| match cause {
            told @ StoreError::NotWiped { .. } => told,
            cause if events > 0 => StoreError::PartlyForgotten { streams, events, cause: Arc::new(cause) },
            cause => cause,
        })
    }

    /// Does what a scavenge does, and counts it in `done`.
    async fn forget_all_unkept(&self, done: &mut Scavenged) -> Result<(), StoreError> {
        const STREAMS: usize = 256;
        let (mut damaged, mut after) = (None, None);
        loop {
            let ruled = self.backend.ruled(after.take(), STREAMS).await?;
            let more = ruled.len() == STREAMS;
            let mut changed = Vec::new();
            for summary in ruled {
                after = Some(summary.stream.clone());
                let events = or_damaged(self.forget_unkept(&summary, &mut changed).await, &mut damaged)?.unwrap_or(0);
                done.events += events;
                done.streams += u64::from(events > 0);
            }
            or_damaged(self.settle_each(&mut changed).await, &mut damaged)?;
            if !more {
                return damaged.map_or(Ok(()), Err);
            }
        }
    }

    /// Forgets what the rules of a stream no longer keep, and adds it to `changed` if that is anything.
    async fn forget_unkept(&self, summary: &StreamSummary, changed: &mut Vec<Name>) -> Result<u64, StoreError> {
        let StreamSummary { stream, head } = summary;
        if self.stream_head(stream).await?.first <= head.first {
            return Ok(0);
        }
        let mut forgotten = self.forget_expired(stream).await;
        if let Err(StoreError::Forgetting { .. }) = forgotten {
            self.settle_each(changed).await?;
            forgotten = self.forget_expired(stream).await;
        }
        changed.push(stream.clone());
        Ok(forgotten?.events)
    }

    /// Waits until what each of `streams` forgot has left the files. Not for any stream: others may go on forgetting for
    /// ever.
    async fn settle_each(&self, streams: &mut Vec<Name>) -> Result<(), StoreError> {
        let mut damaged = None;
        for stream in streams.drain(..) {
            or_damaged(self.wipe(stream).await, &mut damaged)?;
        }
        damaged.map_or(Ok(()), Err)
    }

    /// Forgets what the rules of `stream` no longer keep, without waiting until its data has left the files.
    async fn forget_expired(&self, stream: &Name) -> Result<Retired, StoreError> {
        let stream = stream.clone();
        let retired = self.transact(move |tx| {
            let stream = stream.clone();
            Box::pin(async move { tx.retire(&stream, Retire::Expired).await })
        });
        retired.await.map_err(|failed| match own(failed, EXPIRING) {
            AppendError::Store(cause) => cause,
            other => StoreError::Engine { doing: EXPIRING, cause: Arc::new(other) },
        })
    }

    /// Moves events of a stream out of the store into a file, which [`archive`](crate::store::archive) reads.
    ///
    /// The file is complete, synced and read back before an event becomes a stub: a crash leaves the events in the store,
    /// or in both, never in neither. Repeated after a crash it goes on with the file that is there, and repeated after it
    /// was done it answers as the first time. Events that the stream's rules hide and that no scavenge has forgotten are
    /// moved as well.
    ///
    /// # Errors
    /// See [`ArchiveError`]; whatever it is, no event is lost.
    ///
    /// # Cancel safety
    /// Dropping the future may leave a file and the events in the store. Repeat it: it goes on with that file.
    pub async fn archive(&self, order: ArchiveOrder) -> Result<Archive, ArchiveError> {
        let stream = order.stream.clone();
        let archive = self.backend.archive(order).await?;
        self.wipe(stream).await?;
        Ok(archive)
    }

    /// At most `limit` archives of any stream behind archive `after`, in order of their ids. Those whose rows are damaged are
    /// left out: [`verify`](Self::verify) names them.
    pub async fn all_archives(&self, after: ArchiveId, limit: usize) -> Result<Vec<Archive>, StoreError> {
        self.backend.all_archives(after, limit).await
    }

    /// The archives of `stream`, in order of their versions.
    pub async fn archives(&self, stream: Name) -> Result<Vec<Archive>, StoreError> {
        self.backend.archives(stream).await
    }
}

/// Keeps an error that is about one stream alone for later.
fn or_damaged<T>(done: Result<T, StoreError>, damaged: &mut Option<StoreError>) -> Result<Option<T>, StoreError> {
    match done {
        Ok(done) => Ok(Some(done)),
        // What may pass by itself is in the way of every stream.
        Err(cause @ (StoreError::Corrupt { .. } | StoreError::NotWiped { .. })) if cause.retry() == Retry::Never => {
            damaged.get_or_insert(cause);
            Ok(None)
        }
        Err(cause) => Err(cause),
    }
}

const EXPIRING: &str = "forgetting expired events";
