//! The key that tells a repeated command from a new one.

use std::{fmt, sync::Arc};

/// Names one wish of one caller: whoever repeats the wish repeats the key. 1 to 255 printable ASCII characters.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Key(Arc<str>);

/// A text that is no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an idempotency key has 1 to {max} printable ASCII characters", max = Key::MAX_BYTES)]
pub struct KeyError;

impl Key {
    /// The longest key in bytes.
    pub const MAX_BYTES: usize = 255;

    /// Checks `text` and keeps it as a key.
    pub fn new(text: impl Into<Arc<str>>) -> Result<Self, KeyError> {
        let text = text.into();
        let is_key =
            (1..=Self::MAX_BYTES).contains(&text.len()) && text.bytes().all(|c| c.is_ascii_graphic() || c == b' ');
        if is_key { Ok(Self(text)) } else { Err(KeyError) }
    }

    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(super) fn shared(&self) -> Arc<str> {
        self.0.clone()
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}
