//! Retention: what a stream keeps, by rules that stand in its metadata.
//!
//! Picture a shelf with a label: *the last hundred*, or *nothing older than a month*. Readers see what the label allows
//! as soon as it is there; the rest is thrown out when somebody comes to tidy up. A clock that ran wild must not empty the
//! shelf, so that the age of things is told by a [clock](TrustedClock) that distrusts jumps.
//!
//! A stream's *metadata* are its [`Rules`] and values of the user's own. It has a version of its own, counted from 1,
//! and is set on the condition that nobody else did meanwhile. It commits with the transaction that sets it.
//!
//! *When not to use it*: when an event must be gone at a certain moment (rules are carried out at the next
//! [scavenge](super::Store::scavenge)), or for a person's data (erase the data subject, which reaches backups too).
//!
//! Source: KurrentDB's stream metadata (`$maxCount`, `$maxAge`). Ours differs in that ages distrust the clock, and in that
//! only a prefix of a stream is ever hidden: an event is expired when it and everything before it is too old.

mod clock;

use std::{collections::BTreeMap, time::Duration};

use quorate_foundations::{name::Name, time::Wall};

pub use self::clock::TrustedClock;
use super::StoreError;
use crate::event::{ArchiveId, Version};

/// What a stream keeps. Without a rule it keeps everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// Its newest so many events; at least 1.
    pub max_count: Option<u64>,
    /// Events that were recorded at most so long ago; at least 1 ms and at most [`Rules::MAX_AGE`].
    pub max_age: Option<Duration>,
}

impl Rules {
    /// The largest `max_age`: 100 years.
    pub const MAX_AGE: Duration = Duration::from_secs(100 * 365 * 24 * 3_600);
    /// The largest `max_count`.
    pub const MAX_COUNT: u64 = 1 << 53;
    /// The smallest `max_age`.
    const MIN_AGE: Duration = Duration::from_millis(1);

    /// Whether everything is kept.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether they may hide what `before` did not.
    pub(crate) fn are_stricter_than(&self, before: &Self) -> bool {
        fn is_less<T: PartialOrd>(now: Option<T>, before: Option<T>) -> bool {
            now.is_some_and(|now| before.is_none_or(|before| now < before))
        }
        is_less(self.max_count, before.max_count) || is_less(self.max_age, before.max_age)
    }

    /// Whether an event that was recorded then has expired by now.
    pub(crate) fn has_expired(&self, recorded_at: Wall, now: Wall) -> bool {
        self.max_age.is_some_and(|max_age| now.saturating_since(recorded_at) > max_age)
    }

    /// The first version that `max_count` keeps of a stream at `version`.
    pub(crate) fn first_counted(&self, version: Version) -> Version {
        Version::new(self.max_count.map_or(1, |count| (version.get() + 1).saturating_sub(count).max(1)))
    }
}

/// A stream's metadata, as it is set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamMetadata {
    /// What the stream keeps.
    pub rules: Rules,
    /// The user's own, by key.
    pub values: BTreeMap<String, String>,
}

impl StreamMetadata {
    /// The most values.
    pub const MAX_VALUES: usize = 64;
    /// The longest key, in bytes.
    pub const MAX_KEY_BYTES: usize = 128;
    /// The most bytes of keys and values together.
    pub const MAX_BYTES: usize = 16_384;

    /// Whether it is within the limits.
    pub fn check(&self) -> Result<(), InvalidMetadata> {
        let Rules { max_count, max_age } = self.rules;
        if max_count.is_some_and(|count| count == 0 || count > Rules::MAX_COUNT) {
            return Err(InvalidMetadata::MaxCount);
        }
        if max_age.is_some_and(|age| age < Rules::MIN_AGE || age > Rules::MAX_AGE) {
            return Err(InvalidMetadata::MaxAge);
        }
        if self.values.len() > Self::MAX_VALUES {
            return Err(InvalidMetadata::Values { count: self.values.len() });
        }
        let well_formed =
            |key: &str| !key.is_empty() && key.len() <= Self::MAX_KEY_BYTES && !key.contains(char::is_control);
        if let Some(key) = self.values.keys().find(|key| !well_formed(key)) {
            return Err(InvalidMetadata::Key { key: key.chars().take(64).collect() });
        }
        let bytes = self.bytes();
        if bytes > Self::MAX_BYTES { Err(InvalidMetadata::Bytes { bytes }) } else { Ok(()) }
    }

    /// What its values take.
    pub(crate) fn bytes(&self) -> usize {
        self.values.iter().map(|(key, value)| key.len() + value.len()).sum()
    }
}

/// Metadata as it stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SetMetadata {
    /// Its version: how often it was set. Zero: never.
    pub version: Version,
    /// What was set last.
    pub metadata: StreamMetadata,
}

/// Which limit metadata breaks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidMetadata {
    /// `max_count` is out of range.
    #[error("a stream keeps at least 1 and at most {max} events by count", max = Rules::MAX_COUNT)]
    MaxCount,
    /// `max_age` is out of range.
    #[error("a stream keeps events for at least 1 ms and at most 36,500 days by age")]
    MaxAge,
    /// Too many values.
    #[error("metadata has at most {max} values, this has {count}", max = StreamMetadata::MAX_VALUES)]
    Values {
        /// How many there are.
        count: usize,
    },
    /// A key cannot be one.
    #[error("`{key}` is no key: 1 to {max} bytes without control characters", max = StreamMetadata::MAX_KEY_BYTES)]
    Key {
        /// The key, shortened.
        key: String,
    },
    /// Keys and values are too long together.
    #[error("keys and values have at most {max} bytes together, these have {bytes}", max = StreamMetadata::MAX_BYTES)]
    Bytes {
        /// How many they have.
        bytes: usize,
    },
}

/// Why metadata was not set. Nothing was changed.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MetadataError {
    /// Somebody else set it first. Read, decide anew.
    #[error("the metadata of stream `{stream}` {}", super::append::Mismatch::of_metadata(*expected, *actual))]
    Conflict {
        /// The stream.
        stream: Name,
        /// What was asked for.
        expected: super::ExpectedVersion,
        /// What it is.
        actual: Version,
    },
    /// It breaks a limit.
    #[error("the metadata was refused")]
    Invalid(#[from] InvalidMetadata),
    /// The stream was closed for good.
    #[error("stream `{stream}` is tombstoned: its metadata stays as it is")]
    Tombstoned {
        /// The stream.
        stream: Name,
    },
    /// The store could not take it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What a scavenge did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scavenged {
    /// Streams that kept less afterwards than before.
    pub streams: u64,
    /// Events that became stubs.
    pub events: u64,
}

/// An archive, as the store that it is of remembers it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Archive {
    /// Which archive it is: stubs name it.
    pub id: ArchiveId,
    /// The stream it is of.
    pub stream: Name,
    /// The name of its file.
    pub name: String,
    /// The first version in it.
    pub first: Version,
    /// The last version in it.
    pub last: Version,
    /// The stream's hash chain at `last`: what the file must lead to.
    pub hash: crate::event::ChainHash,
    /// The file's size in bytes.
    pub bytes: u64,
    /// When it was made.
    pub made_at: Wall,
}

/// Why nothing was archived. No event was moved; a file may be there already.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArchiveError {
    /// There is a file of this name, and it is not the one that would be written.
    #[error("`{name}` exists already and holds something else")]
    Exists {
        /// The file's name.
        name: String,
    },
    /// There is no such stream.
    #[error("stream `{stream}` does not exist: there is nothing to archive")]
    NoStream {
        /// The stream.
        stream: Name,
    },
    /// There is no event to move.
    #[error("stream `{stream}` has no event before version {before} to archive")]
    Nothing {
        /// The stream.
        stream: Name,
        /// The first version to keep.
        before: Version,
    },
    /// The stream was truncated, tombstoned or archived while it was being copied. Repeat.
    #[error("stream `{stream}` was truncated or closed while its events were being copied")]
    Overtaken {
        /// The stream.
        stream: Name,
    },
    /// The file does not hold what was written to it.
    #[error("the archive was written but does not read back")]
    Unreadable(#[source] super::archive::DamagedArchive),
    /// The disk failed.
    #[error("the archive could not be written")]
    Io(#[source] std::io::Error),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use quorate_foundations::time::Wall;

    use super::{InvalidMetadata, Rules, StreamMetadata};
    use crate::event::Version;

    #[test]
    fn the_newest_events_are_counted() {
        let first = |max_count, version| Rules { max_count, max_age: None }.first_counted(Version::new(version)).get();
        assert_eq!([first(None, 9), first(Some(3), 9), first(Some(9), 9), first(Some(10), 9)], [1, 7, 1, 1]);
        assert_eq!([first(Some(1), 0), first(Some(u64::MAX), u64::MAX - 1)], [1, 1]);
    }

    #[test]
    fn an_event_as_old_as_the_rule_allows_is_kept() {
        let rules = Rules { max_count: None, max_age: Some(Duration::from_secs(10)) };
        let at = |seconds: i64| Wall::from_unix_nanos(seconds * 1_000_000_000);
        assert!(!rules.has_expired(at(90), at(100)) && rules.has_expired(at(89), at(100)));
        assert!(!rules.has_expired(at(200), at(100)), "what comes from the future is young");
        assert!(!Rules::default().has_expired(at(0), at(i64::from(i32::MAX))));
    }

    #[test]
    fn each_limit_of_metadata_is_named() {
        let with = |rules| StreamMetadata { rules, ..StreamMetadata::default() }.check();
        assert_eq!(with(Rules { max_count: Some(0), max_age: None }), Err(InvalidMetadata::MaxCount));
        assert_eq!(with(Rules { max_count: None, max_age: Some(Duration::ZERO) }), Err(InvalidMetadata::MaxAge));
        assert_eq!(with(Rules { max_count: None, max_age: Some(Duration::MAX) }), Err(InvalidMetadata::MaxAge));
        assert_eq!(with(Rules { max_count: Some(1), max_age: Some(Rules::MAX_AGE) }), Ok(()));
        let of = |key: String, value: usize, count: usize| {
            let values = (0..count).map(|n| (format!("{key}{n}"), "v".repeat(value))).collect();
            StreamMetadata { values, ..StreamMetadata::default() }.check()
        };
        assert_eq!(of(String::new(), 1, 64), Ok(()));
        assert_eq!(of(String::new(), 1, 65), Err(InvalidMetadata::Values { count: 65 }));
        assert_eq!(of("a".into(), 16_384, 1), Err(InvalidMetadata::Bytes { bytes: 16_386 }));
        assert!(matches!(of("k".repeat(128), 1, 1), Err(InvalidMetadata::Key { .. })));
        assert!(matches!(of("a\nb".into(), 1, 1), Err(InvalidMetadata::Key { .. })));
    }
}
