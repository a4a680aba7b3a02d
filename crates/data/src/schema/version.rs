//! Versions of an event type.

use serde::{Deserialize, Serialize};
use std::{fmt, num::NonZeroU32};

/// The version of an event type's schema, counted from 1 without gaps.
///
/// # Example
/// ```
/// use quorate_data::schema::SchemaVersion;
/// let second = SchemaVersion::FIRST.next();
/// assert_eq!((second.get(), second.to_string()), (2, "2".to_owned()));
/// assert_eq!(SchemaVersion::new(0), None);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SchemaVersion(NonZeroU32);

impl SchemaVersion {
    /// Version 1.
    pub const FIRST: Self = Self(NonZeroU32::MIN);

    /// The version numbered `number`; `None` for 0.
    pub fn new(number: u32) -> Option<Self> {
        NonZeroU32::new(number).map(Self)
    }

    /// Its number.
    pub fn get(self) -> u32 {
        self.0.get()
    }

    /// The version after this one; the last of all is its own successor.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// Every version from the first to this one.
    pub fn and_earlier(self) -> impl DoubleEndedIterator<Item = Self> {
        (1..=self.get()).filter_map(Self::new)
    }
}

impl fmt::Display for SchemaVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
