//! What is asked and answered, as it travels.

use std::borrow::Cow;

use bytes::Bytes;

/// What is asked or answered, as it travels: bytes, and what they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Payload {
    /// The media type, as whoever sent it wrote it: at most [`MAX_CONTENT_TYPE`](Self::MAX_CONTENT_TYPE) bytes.
    pub content_type: Option<Cow<'static, str>>,
    /// The bytes, which nobody looks at on the way.
    pub bytes: Bytes,
}

impl Payload {
    /// The longest media type, in bytes.
    pub const MAX_CONTENT_TYPE: usize = 255;

    /// `bytes` that are JSON.
    pub fn json(bytes: impl Into<Bytes>) -> Self {
        Self { content_type: Some(Cow::Borrowed("application/json")), bytes: bytes.into() }
    }

    /// How many bytes it takes, those of the media type included.
    pub fn len(&self) -> usize {
        self.bytes.len() + self.content_type.as_ref().map_or(0, |media| media.len())
    }

    /// Whether it takes none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl From<Bytes> for Payload {
    fn from(bytes: Bytes) -> Self {
        Self { content_type: None, bytes }
    }
}
