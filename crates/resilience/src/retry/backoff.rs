//! How long to wait before the next attempt.

use std::time::Duration;

use crate::dice::Dice;

/// How waits between attempts grow, and how far apart callers that failed together are spread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The first wait, before jitter.
    pub base: Duration,
    /// No wait is longer.
    pub cap: Duration,
    /// The spread.
    pub jitter: Jitter,
}

/// How waits are spread. Without, callers that failed together come back together.
///
/// Source: Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog (2015).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Jitter {
    /// `min(cap, base × 2ⁿ)` exactly.
    None,
    /// From half of that up to it.
    Equal,
    /// From zero up to it.
    #[default]
    Full,
    /// From `base` up to three times the wait before, at most `cap`.
    Decorrelated,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { base: Duration::from_millis(50), cap: Duration::from_secs(5), jitter: Jitter::default() }
    }
}

impl Backoff {
    /// The shortest wait that there can be before attempt `failed + 1`, when `failed` attempts have failed (at least 1).
    pub fn least(&self, failed: u32) -> Duration {
        let doublings = failed.saturating_sub(1);
        let grown = self.base.saturating_mul(1_u32.checked_shl(doublings).unwrap_or(u32::MAX)).min(self.cap);
        match self.jitter {
            Jitter::None => grown,
            Jitter::Equal => grown / 2,
            Jitter::Full => Duration::ZERO,
            Jitter::Decorrelated => self.base.min(self.cap),
        }
    }

    /// The wait before attempt `failed + 1`, when `failed` attempts have failed (at least 1) and the wait before the
    /// last of them was `previous` (zero if there was none).
    pub fn wait(&self, failed: u32, previous: Duration, dice: &mut Dice) -> Duration {
        let doublings = failed.saturating_sub(1);
        let grown = self.base.saturating_mul(1_u32.checked_shl(doublings).unwrap_or(u32::MAX)).min(self.cap);
        match self.jitter {
            Jitter::None => grown,
            Jitter::Equal => dice.between(grown / 2, grown),
            Jitter::Full => dice.between(Duration::ZERO, grown),
            Jitter::Decorrelated => {
                let before = previous.max(self.base);
                dice.between(self.base, before.saturating_mul(3)).min(self.cap)
            }
        }
    }
}
