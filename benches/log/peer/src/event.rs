//! The events, the same in content and size as those of `quorate bench log`.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Streams that producers spread their events over.
pub const STREAMS: usize = 1_000;

/// The type of every event.
pub const TYPE: &str = "bench.happened";

/// One event of about 350 bytes, in a form that every peer can make its own from.
pub struct Event {
    /// The stream it belongs to.
    pub stream: String,
    /// Its version there, counted from 1.
    pub version: usize,
    /// Time-ordered, for peers that take an id.
    pub id: Uuid,
    /// Two tags.
    pub tags: [String; 2],
    /// What happened, about 200 bytes as JSON.
    pub data: Happened,
}

/// What an event says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Happened {
    /// Who appended it.
    pub producer: usize,
    /// How many the producer had appended before.
    pub n: u64,
    /// Weight.
    pub note: String,
}

impl Event {
    /// The `n`-th event of `producer`, as the `version`-th of `stream`.
    pub(crate) fn new(stream: String, version: usize, producer: usize, n: u64) -> Self {
        let tags = [format!("producer:{producer}"), format!("item:{}", n % 1_000)];
        let data = Happened { producer, n, note: "x".repeat(160) };
        Self { stream, version, id: Uuid::now_v7(), tags, data }
    }
}

/// The `s`-th stream of a kind.
pub(crate) fn stream(kind: &str, s: usize) -> String {
    format!("{kind}-{s}")
}

/// Which stream, and which version there, the `n`-th event of `producer` gets when each of `producers` has streams of
/// its own: peers that append at an exact version only must not meet.
pub(crate) fn place(producers: usize, producer: usize, n: u64) -> (usize, usize) {
    let own = STREAMS / producers;
    let n = n as usize;
    (producer + producers * (n % own), n / own + 1)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn no_two_producers_share_a_stream_and_versions_have_no_gap() {
        for producers in [1, 16, 256] {
            let mut streams = BTreeMap::new();
            for producer in 0..producers {
                for n in 0..2_500 {
                    let (stream, version) = place(producers, producer, n);
                    let (owner, last) = streams.entry(stream).or_insert((producer, 0));
                    assert_eq!((*owner, *last + 1), (producer, version));
                    *last = version;
                }
            }
            assert!(streams.keys().all(|stream| *stream < STREAMS));
        }
    }
}
