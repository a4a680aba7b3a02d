//! Names that people choose (streams, subscriptions, views, …), checked once where they enter.

use std::{borrow::Borrow, fmt, str::FromStr, sync::Arc};

/// A name of 1 to 512 bytes of UTF-8 without control characters that is neither `.` nor `..`.
///
/// Everything else is allowed, spaces, slashes and emoji included; in a URL path `/` is written `%2F`.
/// Cheap to clone.
///
/// # Example
/// ```
/// use quorate_foundations::name::{Name, NameError};
/// assert_eq!("order/17 ☂".parse::<Name>()?.as_str(), "order/17 ☂");
/// assert_eq!("..".parse::<Name>(), Err(NameError::Dots));
/// # Ok::<(), NameError>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Arc<str>);

/// Why a name was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// The name is empty.
    #[error("a name cannot be empty")]
    Empty,
    /// The name is too long.
    #[error("a name has at most {max} bytes, this one has {bytes}", max = Name::MAX_BYTES)]
    TooLong {
        /// Its length in bytes.
        bytes: usize,
    },
    /// The name holds a control character.
    #[error("a name holds no control characters, this one has U+{code:04X} at byte {at}")]
    Control {
        /// The character's code point.
        code: u32,
        /// Its offset in bytes.
        at: usize,
    },
    /// The name is `.` or `..`, which path handling would eat.
    #[error("a name cannot be `.` or `..`")]
    Dots,
}

impl Name {
    /// The longest name, in bytes of UTF-8.
    pub const MAX_BYTES: usize = 512;

    /// Checks `text` and keeps it as a name.
    pub fn new(text: impl Into<Arc<str>> + AsRef<str>) -> Result<Self, NameError> {
        Self::check(text.as_ref()).map(|()| Self(text.into()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether `text` is a name, and if not, why.
    pub fn check(text: &str) -> Result<(), NameError> {
        match text {
            "" => Err(NameError::Empty),
            "." | ".." => Err(NameError::Dots),
            _ if text.len() > Self::MAX_BYTES => Err(NameError::TooLong { bytes: text.len() }),
            _ => match text.char_indices().find(|(_, c)| c.is_control()) {
                Some((at, c)) => Err(NameError::Control { code: c.into(), at }),
                None => Ok(()),
            },
        }
    }
}

impl FromStr for Name {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::new(text)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for Name {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::{Name, NameError};

    #[test]
    fn any_readable_utf8_within_the_limit_is_a_name() {
        for text in ["a", "order-17", "a/b", " ", "…", "☂🧾", "%2F", &"x".repeat(512)] {
            assert_eq!(Name::new(text).unwrap().as_str(), text);
        }
    }

    #[test]
    fn what_paths_or_terminals_would_mangle_is_refused_with_the_reason() {
        assert_eq!(Name::new(""), Err(NameError::Empty));
        assert_eq!(Name::new("."), Err(NameError::Dots));
        assert_eq!(Name::new(".."), Err(NameError::Dots));
        assert_eq!(Name::new("x".repeat(513)), Err(NameError::TooLong { bytes: 513 }));
        assert_eq!(Name::new("a\u{0}b"), Err(NameError::Control { code: 0, at: 1 }));
        assert_eq!(Name::new("é\u{85}"), Err(NameError::Control { code: 0x85, at: 2 }));
    }
}
