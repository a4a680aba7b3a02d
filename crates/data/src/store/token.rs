//! Tokens: proof of a write that a later read can be asked to include.

use std::{fmt, str::FromStr};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use quorate_runtime::Env;

/// Which store, and which of its timelines: restoring a backup or moving to another engine begins a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Timeline {
    /// The store's id, drawn when it was made.
    pub store: u64,
    /// Raised by every restore and move.
    pub epoch: u32,
}

impl Timeline {
    /// The timeline that begins now; `None` where there is no later one. Its number also follows the clock, and chance: the same
    /// backup restored twice gives two timelines, not one twice, within a second as well.
    pub(super) fn later(self, env: &Env) -> Option<Self> {
        let epoch = i64::from(self.epoch);
        let now = env.wall().unix_nanos() / 1_000_000_000;
        let chance = env.random("store/restore").below(1 << 16).cast_signed();
        let next = now.max(epoch + 1).saturating_add(chance).min(i64::from(u32::MAX));
        let later = u32::try_from(next).ok().filter(|next| *next > self.epoch)?;
        Some(Self { epoch: later, ..self })
    }
}

/// Opaque to its holder: the newest append that a reply saw, on which timeline.
///
/// # Example
/// ```
/// use quorate_data::store::{Timeline, Token};
/// let token = Token::new(Timeline { store: 7, epoch: 1 }, 42);
/// assert_eq!(token.to_string().parse::<Token>(), Ok(token));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    timeline: Timeline,
    append: u64,
}

/// A text that is no token of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is not a token that quorate gave out")]
pub struct TokenError;

impl Token {
    /// The token of append number `append` on `timeline`.
    pub const fn new(timeline: Timeline, append: u64) -> Self {
        Self { timeline, append }
    }

    /// Which store and timeline.
    pub const fn timeline(&self) -> Timeline {
        self.timeline
    }

    /// The append's number: on the embedded store, the position of its last event.
    pub const fn append(&self) -> u64 {
        self.append
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = [0; 24];
        bytes[..8].copy_from_slice(&self.timeline.store.to_be_bytes());
        bytes[8..12].copy_from_slice(&self.timeline.epoch.to_be_bytes());
        bytes[12..20].copy_from_slice(&self.append.to_be_bytes());
        let check = crc32fast::hash(&bytes[..20]);
        bytes[20..].copy_from_slice(&check.to_be_bytes());
        f.write_str(&URL_SAFE_NO_PAD.encode(bytes))
    }
}

impl FromStr for Token {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let bytes: [u8; 24] = URL_SAFE_NO_PAD.decode(text).ok().and_then(|b| b.try_into().ok()).ok_or(TokenError)?;
        let (body, check) = bytes.split_at(20);
        if crc32fast::hash(body).to_be_bytes() != check {
            return Err(TokenError);
        }
        let number = |range: std::ops::Range<usize>| body[range].iter().fold(0, |n, byte| n << 8 | u64::from(*byte));
        let epoch = u32::try_from(number(8..12)).map_err(|_| TokenError)?;
        Ok(Self::new(Timeline { store: number(0..8), epoch }, number(12..20)))
    }
}

#[cfg(test)]
mod tests {
    use super::{Timeline, Token, TokenError};

    #[test]
    fn a_token_survives_its_text_and_a_typo_does_not() {
        let token = Token::new(Timeline { store: u64::MAX - 5, epoch: 3 }, 262_200);
        let text = token.to_string();
        assert_eq!(text.parse(), Ok(token));
        let mut typo = text.into_bytes();
        typo[9] = if typo[9] == b'A' { b'B' } else { b'A' };
        assert_eq!(String::from_utf8(typo).unwrap().parse::<Token>(), Err(TokenError));
        assert_eq!("".parse::<Token>(), Err(TokenError));
    }
}
