//! Stamps and marks: what the clock hands out, and what a disk keeps of it.

use std::{fmt, str::FromStr};

use crate::time::Wall;

/// When an event happened: wall time as far as known, and a counter where that does not tell events apart.
///
/// Ordered by wall time, then counter; bytes and text sort the same way. Stamps of one clock are unique. Two clocks can
/// hand out the same one: where that matters, pair it with a [`ReplicaId`](crate::ordering::ReplicaId).
///
/// # Example
/// ```
/// use quorate_foundations::{ordering::Stamp, time::Wall};
/// let stamp = Stamp::new(Wall::from_unix_nanos(1_700_000_000_123_456_789), 42);
/// assert_eq!(stamp.to_string(), "1700000000123456789.0000000042");
/// assert_eq!("1700000000123456789.0000000042".parse(), Ok(stamp));
/// assert_eq!(Stamp::from_bytes(stamp.to_bytes()), Ok(stamp));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp {
    // Invariant: at most i64::MAX, so that it is a `Wall` and its decimal text has 19 digits.
    nanos: u64,
    logical: u32,
}

/// A promise about the past: every stamp handed out so far has a wall time below this.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mark(Stamp);

/// Why bytes or text are not a stamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StampError {
    /// The text is not 19 digits, a point and 10 digits.
    #[error("a stamp is written as 19 digits, a point and 10 digits")]
    Malformed,
    /// The wall time is beyond the year 2262, or the counter beyond 32 bits.
    #[error("the stamp's wall time or counter is out of range")]
    OutOfRange,
}

impl Stamp {
    /// Before everything: no clock hands this out.
    pub const ZERO: Self = Self { nanos: 0, logical: 0 };
    /// How many bytes a stamp takes.
    pub const BYTES: usize = 12;
    /// How many characters a stamp takes.
    pub const TEXT_BYTES: usize = 30;
    const MAX_NANOS: u64 = i64::MAX as u64;

    /// The stamp with these parts. Times before 1970 count as 1970.
    pub const fn new(wall: Wall, logical: u32) -> Self {
        let nanos = wall.unix_nanos();
        Self { nanos: if nanos < 0 { 0 } else { nanos.unsigned_abs() }, logical }
    }

    /// The wall time in it: at or after every reading of the clock it came from.
    pub const fn wall(self) -> Wall {
        Wall::from_unix_nanos(self.nanos.cast_signed())
    }

    /// The counter in it.
    pub const fn logical(self) -> u32 {
        self.logical
    }

    /// The next larger stamp. A full counter carries into the wall time, by a nanosecond; `None` at the very end.
    pub const fn next(self) -> Option<Self> {
        match self.logical.checked_add(1) {
            Some(logical) => Some(Self { nanos: self.nanos, logical }),
            None if self.nanos < Self::MAX_NANOS => Some(Self { nanos: self.nanos + 1, logical: 0 }),
            None => None,
        }
    }

    /// Bytes that sort as stamps do: wall time in nanoseconds, then counter, both big-endian.
    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..8].copy_from_slice(&self.nanos.to_be_bytes());
        bytes[8..].copy_from_slice(&self.logical.to_be_bytes());
        bytes
    }

    /// The stamp that [`to_bytes`](Self::to_bytes) wrote.
    ///
    /// # Errors
    /// [`StampError::OutOfRange`]: the first bit is set, which it never is in a stamp.
    pub fn from_bytes(bytes: [u8; Self::BYTES]) -> Result<Self, StampError> {
        let [a, b, c, d, e, f, g, h, i, j, k, l] = bytes;
        Self::checked(u64::from_be_bytes([a, b, c, d, e, f, g, h]), u32::from_be_bytes([i, j, k, l]))
    }

    fn checked(nanos: u64, logical: u32) -> Result<Self, StampError> {
        if nanos > Self::MAX_NANOS { Err(StampError::OutOfRange) } else { Ok(Self { nanos, logical }) }
    }
}

impl Mark {
    /// The mark of a clock that has never handed out a stamp.
    pub const START: Self = Self(Stamp::ZERO);

    /// The mark at `wall`, as read back from where it was persisted. Times before 1970 count as 1970.
    pub const fn new(wall: Wall) -> Self {
        Self(Stamp::new(wall, 0))
    }

    /// The wall time that all stamps are below; persist its nanoseconds.
    pub const fn wall(self) -> Wall {
        self.0.wall()
    }

    /// The largest stamp that may have been handed out under this mark.
    pub(super) const fn last_below(self) -> Stamp {
        match self.0.nanos.checked_sub(1) {
            Some(nanos) => Stamp { nanos, logical: u32::MAX },
            None => Stamp::ZERO,
        }
    }

    pub(super) fn allows(self, stamp: Stamp) -> bool {
        stamp < self.0
    }

    /// The lowest mark that allows `stamp`; `None` at the very end of time.
    pub(super) fn above(stamp: Stamp) -> Option<Self> {
        Stamp { logical: u32::MAX, ..stamp }.next().map(Self)
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:019}.{:010}", self.nanos, self.logical)
    }
}

impl fmt::Debug for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Stamp {
    type Err = StampError;
    fn from_str(text: &str) -> Result<Self, StampError> {
        let (nanos, logical) = text.split_once('.').ok_or(StampError::Malformed)?;
        let logical = digits(logical, 10)?.try_into().map_err(|_| StampError::OutOfRange)?;
        Self::checked(digits(nanos, 19)?, logical)
    }
}

/// Exactly `width` digits (at most 19, so that they fit) as a number.
fn digits(text: &str, width: usize) -> Result<u64, StampError> {
    if text.len() != width || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(StampError::Malformed);
    }
    text.parse().map_err(|_| StampError::OutOfRange)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Mark, Stamp, StampError};
    use crate::time::Wall;

    fn stamp(nanos: i64, logical: u32) -> Stamp {
        Stamp::new(Wall::from_unix_nanos(nanos), logical)
    }

    #[test]
    fn a_full_counter_carries_into_the_wall_time() {
        assert_eq!(stamp(7, 3).next(), Some(stamp(7, 4)));
        assert_eq!(stamp(7, u32::MAX).next(), Some(stamp(8, 0)));
        assert_eq!(stamp(i64::MAX, u32::MAX).next(), None);
    }

    #[test]
    fn times_before_1970_count_as_1970() {
        assert_eq!(stamp(-1, 5), stamp(0, 5));
        assert_eq!(stamp(i64::MIN, 0), Stamp::ZERO);
    }

    #[test]
    fn a_mark_allows_exactly_the_stamps_below_it() {
        let mark = Mark::new(Wall::from_unix_nanos(10));
        assert!(mark.allows(stamp(9, u32::MAX)) && mark.allows(mark.last_below()));
        assert!(!mark.allows(stamp(10, 0)));
        assert_eq!(Mark::above(mark.last_below()), Some(mark));
        assert_eq!(Mark::above(stamp(i64::MAX, 0)), None);
        assert_eq!(Mark::START.last_below(), Stamp::ZERO);
    }

    #[test]
    fn only_the_canonical_form_is_read() {
        for text in ["", ".", "1.1", "1700000000123456789,0000000042", "+700000000123456789.0000000042"] {
            assert_eq!(text.parse::<Stamp>(), Err(StampError::Malformed), "{text}");
        }
        for text in ["9223372036854775808.0000000000", "0000000000000000000.4294967296"] {
            assert_eq!(text.parse::<Stamp>(), Err(StampError::OutOfRange), "{text}");
        }
        assert_eq!(Stamp::from_bytes([0xff; 12]), Err(StampError::OutOfRange));
    }

    proptest! {
        #[test]
        fn bytes_and_text_are_read_back_and_sort_like_stamps(a in any_stamp(), b in any_stamp()) {
            prop_assert_eq!(Stamp::from_bytes(a.to_bytes()), Ok(a));
            prop_assert_eq!(a.to_string().parse(), Ok(a));
            prop_assert_eq!(a.to_string().len(), Stamp::TEXT_BYTES);
            prop_assert_eq!(a.to_bytes().cmp(&b.to_bytes()), a.cmp(&b));
            prop_assert_eq!(a.to_string().cmp(&b.to_string()), a.cmp(&b));
        }

        #[test]
        fn arbitrary_text_and_bytes_are_refused_or_read_back_as_they_were(
            text in "[0-9]{18,20}\\.[0-9]{9,11}|.{0,32}",
            bytes in any::<[u8; 12]>(),
        ) {
            if let Ok(stamp) = text.parse::<Stamp>() {
                prop_assert_eq!(stamp.to_string(), text);
            }
            if let Ok(stamp) = Stamp::from_bytes(bytes) {
                prop_assert_eq!(stamp.to_bytes(), bytes);
            }
        }
    }

    /// Often close together, so that every part gets to decide an order.
    fn any_stamp() -> impl Strategy<Value = Stamp> {
        let nanos = prop_oneof![0..3_i64, any::<i64>(), Just(i64::MAX)];
        let logical = prop_oneof![0..3_u32, any::<u32>(), Just(u32::MAX)];
        (nanos, logical).prop_map(|(nanos, logical)| stamp(nanos, logical))
    }
}
