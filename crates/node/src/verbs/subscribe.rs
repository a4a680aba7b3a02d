//! Following a stream or the log: what is there, then what comes.

use std::time::Duration;

use quorate_data::{
    event::{Position, Version},
    store::{Query, Store},
    subscription::CatchUp,
};
use quorate_foundations::name::Name;

use super::ReadError;

/// What to follow, and behind which position.
#[derive(Clone, Debug)]
pub enum Source {
    /// The whole log.
    Log {
        /// Which events.
        query: Query,
        /// Begin behind this position.
        after: Position,
    },
    /// One stream, from a version on.
    Stream {
        /// The stream; it need not exist yet.
        stream: Name,
        /// The version to begin with.
        from: Version,
    },
    /// One stream, behind a position of the log: how a reader resumes.
    StreamAfter {
        /// The stream.
        stream: Name,
        /// The position of the last event it has seen.
        after: Position,
    },
}

/// Events read at a time.
const PAGE: usize = 256;

/// How long a follower that found nothing of its own in the newest events rests before it looks again. It bounds what a
/// selective follower costs on a busy log, and what it adds to the latency.
const RESTS: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(16));

pub(super) async fn start(store: &Store, source: Source) -> Result<CatchUp, ReadError> {
    if let Source::Log { after: position, .. } | Source::StreamAfter { after: position, .. } = source
        && position > store.head()
    {
        return Err(ReadError::Ahead { position, head: store.head() });
    }
    if let Source::Stream { stream, .. } | Source::StreamAfter { stream, .. } = &source
        && store.stream_head(stream).await?.tombstoned
    {
        return Err(ReadError::Tombstoned { stream: stream.clone() });
    }
    let reader = match source {
        Source::Log { query, after } => CatchUp::log(store, query, after),
        Source::Stream { stream, from } => CatchUp::stream(store, stream, Version::new(from.get().saturating_sub(1))),
        Source::StreamAfter { stream, after } => CatchUp::stream_behind(store, stream, after).await?,
    };
    Ok(reader.page_events(PAGE).resting(RESTS.0, RESTS.1))
}
