//! What can be set, and what is counted.

use std::{
    num::{NonZeroU32, NonZeroUsize},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// How commands are carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// `source` of events whose command names none. Default: `/` and the category, or `/decisions`.
    pub source: Option<Arc<str>>,
    /// How often a command is decided while other writers are first. Default 10.
    pub attempts: NonZeroU32,
    /// The longest first wait between two attempts; doubled each time, and a random part of it is waited. The first
    /// repetition does not wait. Default 1 ms.
    pub backoff: Duration,
    /// The longest wait between two attempts. Default 50 ms.
    pub backoff_max: Duration,
    /// States kept in memory. Zero keeps none. Default 10,000.
    pub cached_states: usize,
    /// Events read at a time. Default 1,000.
    pub page_events: NonZeroUsize,
    /// The largest snapshot, in bytes of JSON; larger states are folded from their events. Default 1 MiB.
    pub snapshot_bytes: usize,
    /// What to do about events in a stream that this code does not know.
    pub unknown_events: UnknownEvents,
    /// What to do about events of a [boundary](super::DynamicBoundary) that were truncated or archived.
    pub forgotten_events: ForgottenEvents,
}

/// What to do about events of a boundary that were truncated or archived.
///
/// Of a single stream an [`Aggregate`](super::Aggregate) folds what is left, which begins at one version and has no holes; a
/// boundary has them wherever one of its streams was cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ForgottenEvents {
    /// Fail: a state folded without them might allow what they forbid, such as a name that is taken.
    #[default]
    Refuse,
    /// Leave them out, and count them. Right where what was cut was closed first, by an event that says what it came to.
    Skip,
}

/// What to do about events in a stream that this code does not know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnknownEvents {
    /// Fail: a state folded without them might allow what they forbid.
    #[default]
    Refuse,
    /// Leave them out, and count them. Right where they belong to somebody who shares the stream.
    Skip,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            source: None,
            attempts: const { NonZeroU32::new(10).unwrap() },
            backoff: Duration::from_millis(1),
            backoff_max: Duration::from_millis(50),
            cached_states: 10_000,
            page_events: const { NonZeroUsize::new(1_000).unwrap() },
            snapshot_bytes: 1 << 20,
            unknown_events: UnknownEvents::default(),
            forgotten_events: ForgottenEvents::default(),
        }
    }
}

impl Config {
    /// The most that is waited before attempt `attempt`, counted from 1.
    pub(super) fn backoff_before(&self, attempt: u32) -> Duration {
        let doublings = attempt.saturating_sub(3).min(20);
        if attempt < 3 { Duration::ZERO } else { (self.backoff * (1 << doublings)).min(self.backoff_max) }
    }
}

/// What has happened since the service was set up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Commands whose state was found in memory.
    pub cache_hits: u64,
    /// Commands whose state had to be loaded.
    pub cache_misses: u64,
    /// Decisions made again because another writer was first.
    pub conflicts: u64,
    /// Commands answered as the first time.
    pub repeated: u64,
    /// Snapshots written.
    pub snapshots_written: u64,
    /// Snapshots that a load began with.
    pub snapshots_used: u64,
    /// Snapshots discarded because the fold has changed since.
    pub snapshots_stale: u64,
    /// Snapshots discarded because they could not be read.
    pub snapshots_undecodable: u64,
    /// Snapshots discarded because the stream is not, or no longer, the one they were made of.
    pub snapshots_foreign: u64,
    /// Snapshots not written: too large, of encrypted data, of a stream that changed meanwhile, or refused by the store.
    pub snapshots_skipped: u64,
    /// Unknown events left out of states.
    pub unknown_events: u64,
    /// Events of erased data subjects left out of states.
    pub erased_events: u64,
    /// Truncated and archived events left out of boundaries.
    pub forgotten_events: u64,
}

macro_rules! counters {
    ($($name:ident),* $(,)?) => {
        /// [`Statistics`] as they grow.
        #[derive(Debug, Default)]
        pub(super) struct Counters {
            $(pub(super) $name: Count,)*
        }

        impl Counters {
            pub(super) fn read(&self) -> Statistics {
                Statistics { $($name: self.$name.0.load(Ordering::Relaxed),)* }
            }
        }
    };
}

counters! {
    cache_hits, cache_misses, conflicts, repeated, snapshots_written, snapshots_used, snapshots_stale,
    snapshots_undecodable, snapshots_foreign, snapshots_skipped, unknown_events, erased_events,
    forgotten_events,
}

/// A number that only grows.
#[derive(Debug, Default)]
pub(super) struct Count(AtomicU64);

impl Count {
    pub(super) fn up(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::Config;
    use std::time::Duration;

    #[test]
    fn waits_double_from_the_third_attempt_on_and_are_bounded() {
        let config = Config::default();
        let waits: Vec<_> = [1, 2, 3, 4, 5, 8, 9, u32::MAX].map(|n| config.backoff_before(n).as_millis()).into();
        assert_eq!(waits, [0, 0, 1, 2, 4, 32, 50, 50]);
        assert_eq!(config.backoff_before(u32::MAX), Duration::from_millis(50));
    }
}
