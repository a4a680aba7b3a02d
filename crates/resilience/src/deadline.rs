//! Deadlines: one moment for a whole call, spent by every step of it and carried to the next hop as what is left.

use std::time::Duration;

use quorate_foundations::time::Mono;

/// The moment after which nobody waits for the answer any more, on the monotonic clock of this process.
///
/// It is made once and handed down; a fresh timeout at every step would multiply. Between processes travels what is left
/// of it ([`to_wire`](Self::to_wire)), since their clocks have nothing in common.
///
/// # Example
/// ```
/// use quorate_foundations::time::Mono;
/// use quorate_resilience::deadline::Deadline;
/// use std::time::Duration;
///
/// let now = Mono::ZERO;
/// let deadline = Deadline::after(now, Duration::from_millis(1_500));
/// let wire = deadline.to_wire(now + Duration::from_millis(500)).unwrap();
/// assert_eq!(wire, "1000000u");
/// assert_eq!(Deadline::from_wire(&wire, now).unwrap().remaining(now), Duration::from_secs(1));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Deadline(Mono);

/// Why a time that came over the wire was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a time left is one to eight digits and one of H, M, S, m, u, n")]
pub struct WireError;

impl Deadline {
    /// No deadline.
    pub const NEVER: Self = Self(Mono::from_nanos(u64::MAX));

    /// `span` from `now`.
    #[inline]
    pub fn after(now: Mono, span: Duration) -> Self {
        Self(now + span)
    }

    /// At `at`.
    pub const fn at(at: Mono) -> Self {
        Self(at)
    }

    /// The moment; `None` if there is none.
    #[inline]
    pub fn moment(self) -> Option<Mono> {
        (self != Self::NEVER).then_some(self.0)
    }

    /// How much is left; zero once it has passed.
    #[inline]
    pub fn remaining(self, now: Mono) -> Duration {
        if self == Self::NEVER { Duration::MAX } else { self.0.saturating_since(now) }
    }

    /// Whether it has passed.
    #[inline]
    pub fn has_passed(self, now: Mono) -> bool {
        self.0 <= now && self != Self::NEVER
    }

    /// Whether work that takes `span` could end before it. At it is too late.
    #[inline]
    pub fn allows(self, now: Mono, span: Duration) -> bool {
        self.0 > now + span || self == Self::NEVER
    }

    /// The earlier of the two.
    #[must_use]
    #[inline]
    pub fn earliest(self, other: Self) -> Self {
        self.min(other)
    }

    /// What is left, as `grpc-timeout` writes it; `None` if there is no deadline. Rounded down, so that the next hop never
    /// believes in more than there is.
    pub fn to_wire(self, now: Mono) -> Option<String> {
        self.moment()?;
        let left = self.remaining(now);
        let units: [(u128, char); 4] =
            [(left.as_nanos(), 'n'), (left.as_micros(), 'u'), (left.as_millis(), 'm'), (left.as_secs().into(), 'S')];
        let fitting = units.iter().find(|(count, _)| *count <= MOST_ON_WIRE);
        let (count, unit) = fitting.copied().unwrap_or((MOST_ON_WIRE, 'S'));
        Some(format!("{count}{unit}"))
    }

    /// The deadline that `text`, as `grpc-timeout` writes it, sets for work that began at `now`.
    ///
    /// # Errors
    /// [`WireError`]: it is no such text. Whoever sent it meant something: refuse the call rather than letting it run
    /// without a deadline.
    pub fn from_wire(text: &str, now: Mono) -> Result<Self, WireError> {
        let (digits, unit) = text.split_at_checked(text.len().wrapping_sub(1)).ok_or(WireError)?;
        if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
            return Err(WireError);
        }
        let count: u64 = digits.parse().map_err(|_| WireError)?;
        let span = match unit {
            "H" => Duration::from_secs(count * 3_600),
            "M" => Duration::from_secs(count * 60),
            "S" => Duration::from_secs(count),
            "m" => Duration::from_millis(count),
            "u" => Duration::from_micros(count),
            "n" => Duration::from_nanos(count),
            _ => return Err(WireError),
        };
        Ok(Self::after(now, span))
    }
}

/// Eight digits.
const MOST_ON_WIRE: u128 = 99_999_999;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_no_time_left_is_refused() {
        for text in ["", "S", "1", "1s", "-1S", "+1S", "1.5S", "123456789S", "1 S", "1٣S", "1S ", "é"] {
            assert_eq!(Deadline::from_wire(text, Mono::ZERO), Err(WireError), "{text:?}");
        }
        assert_eq!(Deadline::from_wire("99999999H", Mono::ZERO).map(|late| late.has_passed(Mono::ZERO)), Ok(false));
    }

    #[test]
    fn the_earlier_deadline_wins_and_never_is_the_latest() {
        let soon = Deadline::after(Mono::ZERO, Duration::from_secs(1));
        assert_eq!(soon.earliest(Deadline::NEVER), soon);
        assert!(soon.allows(Mono::ZERO, Duration::from_millis(999)));
        assert!(!soon.allows(Mono::ZERO, Duration::from_secs(1)), "at the deadline is too late");
        assert_eq!(Deadline::NEVER.to_wire(Mono::ZERO), None);
    }

    proptest! {
        #[test]
        fn a_hop_never_gains_time_and_loses_less_than_a_hundred_thousandth(nanos in 0_u64..u64::MAX / 2) {
            let deadline = Deadline::after(Mono::ZERO, Duration::from_nanos(nanos));
            let there = Deadline::from_wire(&deadline.to_wire(Mono::ZERO).unwrap(), Mono::ZERO).unwrap();
            let (left, passed_on) = (deadline.remaining(Mono::ZERO), there.remaining(Mono::ZERO));
            prop_assert!(passed_on <= left);
            // In seconds the wire holds three years; nobody waits for longer.
            let lost = left.min(Duration::from_secs(99_999_999)) - passed_on.min(left);
            prop_assert!(lost <= left / 99_999 , "{left:?} became {passed_on:?}");
        }
    }
}
