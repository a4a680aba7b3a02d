//! Who wrote it.

use std::{fmt, str::FromStr};

/// One life of a replica: a writer that remembers everything it has ever counted.
///
/// A replica that lost its disk has forgotten which counters it used; coming back under its old id it would give one
/// counter to two events, and peers would swallow the second as known. It must therefore take a **new id**, for example
/// 64 random bits drawn when its store is created. Written as 16 lower-case hex digits, so that text sorts as numbers do.
///
/// # Example
/// ```
/// use quorate_foundations::ordering::ReplicaId;
/// let id = ReplicaId::new(0x2a);
/// assert_eq!(id.to_string(), "000000000000002a");
/// assert_eq!("000000000000002a".parse(), Ok(id));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplicaId(u64);

/// Why text is not a replica id: it takes exactly 16 lower-case hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a replica id is 16 lower-case hex digits")]
pub struct ReplicaIdError;

impl ReplicaId {
    /// The id with this number.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// Its number.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for ReplicaId {
    type Err = ReplicaIdError;
    fn from_str(text: &str) -> Result<Self, ReplicaIdError> {
        let canonical = text.len() == 16 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        // The check comes first because `from_str_radix` would also take a sign and capitals.
        let number = canonical.then(|| u64::from_str_radix(text, 16).ok()).flatten();
        number.map(Self).ok_or(ReplicaIdError)
    }
}

#[cfg(test)]
mod tests {
    use super::ReplicaId;

    #[test]
    fn text_is_read_back_and_sorts_like_the_ids() {
        let ids = [0, 9, 0x10, 0xabc, u64::MAX].map(ReplicaId::new);
        assert!(ids.map(|id| id.to_string()).is_sorted());
        assert_eq!(ids.map(|id| id.to_string().parse::<ReplicaId>().unwrap()), ids);
    }

    #[test]
    fn only_the_canonical_spelling_is_read() {
        for text in ["", "2a", "000000000000002A", "+00000000000002a", "0000000000000002a", "00000000000000é"] {
            text.parse::<ReplicaId>().unwrap_err();
        }
    }
}
