//! Tags: what an event is about, for queries across streams.

use std::{fmt, str::FromStr};

/// A sorted set of tags, usually `key:value` (`account:17`), without blanks or control characters.
///
/// Kept as one text with a blank between tags, which is also how the `tags` attribute travels.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tags(String);

/// Why tags were refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TagError {
    /// A tag is empty or holds a blank or a control character.
    #[error("tag `{tag}` is empty, or holds a blank or a control character")]
    Malformed {
        /// The tag, shortened.
        tag: String,
    },
    /// There are too many tags.
    #[error("an event has at most {max} tags, this one has {count}", max = Tags::MAX_COUNT)]
    TooMany {
        /// How many there are.
        count: usize,
    },
    /// A tag is too long.
    #[error("a tag has at most {max} bytes, `{tag}`… has {bytes}", max = Tags::MAX_BYTES)]
    TooLong {
        /// Its beginning.
        tag: String,
        /// Its length in bytes.
        bytes: usize,
    },
}

impl Tags {
    /// The most tags an event has.
    pub const MAX_COUNT: usize = 32;
    /// The longest tag, in bytes.
    pub const MAX_BYTES: usize = 256;

    /// A set of the given tags; order and repetition do not matter.
    pub fn new<T: AsRef<str>>(tags: impl IntoIterator<Item = T>) -> Result<Self, TagError> {
        let tags: Vec<T> = tags.into_iter().collect();
        Self::of(tags.iter().map(AsRef::as_ref).collect())
    }

    fn of(mut tags: Vec<&str>) -> Result<Self, TagError> {
        tags.iter().try_for_each(|tag| Self::check(tag))?;
        tags.sort_unstable();
        tags.dedup();
        if tags.len() > Self::MAX_COUNT {
            return Err(TagError::TooMany { count: tags.len() });
        }
        Ok(Self(tags.join(" ")))
    }

    /// Whether `tag` could be one, and if not, why.
    pub fn check(tag: &str) -> Result<(), TagError> {
        if tag.len() > Self::MAX_BYTES {
            return Err(TagError::TooLong { tag: tag.chars().take(32).collect(), bytes: tag.len() });
        }
        let plain = tag.bytes().all(|byte| byte.is_ascii_graphic());
        if tag.is_empty() || (!plain && tag.contains(|c: char| c.is_whitespace() || c.is_control())) {
            return Err(TagError::Malformed { tag: tag.to_owned() });
        }
        Ok(())
    }

    /// All tags with a blank between them; empty if there are none.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The tags in order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.split(' ').filter(|tag| !tag.is_empty())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromStr for Tags {
    type Err = TagError;
    fn from_str(text: &str) -> Result<Self, TagError> {
        Self::of(text.split(' ').filter(|tag| !tag.is_empty()).collect())
    }
}

impl fmt::Display for Tags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::{TagError, Tags};

    #[test]
    fn tags_are_a_set() {
        assert_eq!(Tags::new(["b:2", "a:1", "b:2"]).unwrap().as_str(), "a:1 b:2");
        assert_eq!("b:2  a:1".parse::<Tags>().unwrap().iter().collect::<Vec<_>>(), ["a:1", "b:2"]);
        assert!(Tags::default().iter().next().is_none());
    }

    #[test]
    fn what_could_not_travel_as_one_word_is_refused() {
        assert!(matches!(Tags::new(["a b"]), Err(TagError::Malformed { .. })));
        assert!(matches!(Tags::new([""]), Err(TagError::Malformed { .. })));
        assert!(matches!(Tags::new(["a\u{7}"]), Err(TagError::Malformed { .. })));
        assert!(matches!(Tags::new(["x".repeat(257)]), Err(TagError::TooLong { bytes: 257, .. })));
        assert!(matches!(Tags::new((0..33).map(|n| n.to_string())), Err(TagError::TooMany { count: 33 })));
    }
}
