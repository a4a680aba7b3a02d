//! What a call brings from the hop before and hands to the next one: how long is left, and who retries.
//!
//! Picture a relay in which each runner may start over when he stumbles. Three runners with three tries each are
//! twenty-seven starts of the last one, for one race. So the baton carries a note: *somebody before you retries*. Whoever
//! reads it runs once, and says at once how it went.

use quorate_foundations::time::Mono;

use crate::deadline::Deadline;

/// What travels with a call from hop to hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hop {
    /// When nobody waits any more.
    pub deadline: Deadline,
    /// Which attempt this is of the hop that sent it, counted from 1.
    pub attempt: u32,
    /// Retries that all hops before have spent on the request this call belongs to.
    pub spent: u32,
    /// Whether one of the hops before retries: then this one doesn't.
    pub owned: bool,
}

/// Why what came over the wire was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("what is said of attempts is `attempt=N;spent=N`, with `;owned` where somebody else retries")]
pub struct WireError;

impl Hop {
    /// A call that nobody has made before, without a deadline, and with nobody who retries it.
    pub const FIRST: Self = Self { deadline: Deadline::NEVER, attempt: 1, spent: 0, owned: false };

    /// A first call with a deadline.
    pub const fn until(deadline: Deadline) -> Self {
        Self { deadline, ..Self::FIRST }
    }

    /// What the next hop is told with attempt `attempt` of a call that brought `self`: what is left until `deadline`, and that
    /// it is retried here, if it is.
    #[must_use]
    pub fn next(self, attempt: u32, owner: bool, deadline: Deadline) -> Self {
        let spent = self.spent.saturating_add(attempt.saturating_sub(1));
        Self { deadline: self.deadline.earliest(deadline), attempt, spent, owned: self.owned || owner }
    }

    /// What the next hop is told with copy `number` of the same attempt, counted from 0: each copy is one more call that was spent.
    #[must_use]
    pub fn copied(self, number: u32) -> Self {
        Self { attempt: self.attempt.saturating_add(number), spent: self.spent.saturating_add(number), ..self }
    }

    /// What is said of attempts, as text: `attempt=2;spent=1;owned`.
    pub fn to_wire(self) -> String {
        let owned = if self.owned { ";owned" } else { "" };
        format!("attempt={};spent={}{owned}", self.attempt, self.spent)
    }

    /// Reads what [`to_wire`](Self::to_wire) wrote, for a call that began at `now` with `left` as its time, written as
    /// `grpc-timeout` is. Members that are not known are left out; what is absent is as in [`FIRST`](Self::FIRST).
    ///
    /// # Errors
    /// [`WireError`]: the attempts can't be read. Whoever can't read who retries must not: take it for
    /// [`owned`](Self::owned). A time that can't be read is the other error.
    pub fn from_wire(attempts: Option<&str>, left: Option<&str>, now: Mono) -> Result<Self, HopError> {
        let deadline = left.map_or(Ok(Deadline::NEVER), |left| Deadline::from_wire(left, now))?;
        let mut hop = Self::until(deadline);
        for member in attempts.into_iter().flat_map(|text| text.split(';')).map(str::trim) {
            match member.split_once('=') {
                Some(("attempt", number)) => hop.attempt = count(number).filter(|n| *n > 0).ok_or(WireError)?,
                Some(("spent", number)) => hop.spent = count(number).ok_or(WireError)?,
                None if member == "owned" => hop.owned = true,
                Some((name, _)) if is_name(name) => {}
                None if is_name(member) => {}
                _ => return Err(WireError.into()),
            }
        }
        Ok(hop)
    }
}

/// Why what a call brought could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HopError {
    /// The attempts.
    #[error(transparent)]
    Attempts(#[from] WireError),
    /// The time that is left.
    #[error(transparent)]
    Deadline(#[from] crate::deadline::WireError),
}

/// A number of at most nine digits and nothing else.
fn count(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.len() <= 9 && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-')
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_malformed_is_refused_and_what_is_unknown_is_left_out() {
        for text in
            ["", ";", "attempt", "attempt=0;;", "attempt=0", "attempt=-1", "spent=1234567890", "owned=1 2;=", "Ü"]
        {
            let read = Hop::from_wire(Some(text), None, Mono::ZERO);
            if text == "attempt" {
                assert_eq!(read, Ok(Hop::FIRST), "a bare word that is not known says nothing");
            } else {
                assert_eq!(read, Err(HopError::Attempts(WireError)), "{text:?}");
            }
        }
        let read = Hop::from_wire(Some("colour=red; attempt=2 ;owned;new"), Some("250m"), Mono::ZERO).unwrap();
        let deadline = Deadline::after(Mono::ZERO, Duration::from_millis(250));
        assert_eq!(read, Hop { deadline, attempt: 2, spent: 0, owned: true });
        assert!(matches!(Hop::from_wire(None, Some("soon"), Mono::ZERO), Err(HopError::Deadline(_))));
    }

    #[test]
    fn the_retries_of_all_hops_add_up_and_an_owner_stays_the_owner() {
        let first = Hop::FIRST.next(3, true, Deadline::NEVER);
        assert_eq!((first.attempt, first.spent, first.owned), (3, 2, true));
        let second = first.next(2, false, Deadline::at(Mono::from_nanos(9)));
        assert_eq!((second.attempt, second.spent, second.owned), (2, 3, true));
        assert_eq!(second.deadline, Deadline::at(Mono::from_nanos(9)));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(attempt in 1_u32..1_000_000, spent in 0_u32..1_000_000, owned: bool) {
            let hop = Hop { deadline: Deadline::NEVER, attempt, spent, owned };
            prop_assert_eq!(Hop::from_wire(Some(&hop.to_wire()), None, Mono::ZERO), Ok(hop));
        }

        #[test]
        fn nothing_that_comes_over_the_wire_panics(text in ".{0,40}", left in ".{0,12}") {
            let _ = Hop::from_wire(Some(&text), Some(&left), Mono::ZERO);
        }
    }
}
