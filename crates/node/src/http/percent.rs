//! Percent-encoding in paths and query strings (RFC 3986), strictly.

use std::{borrow::Cow, fmt};

/// Why a text cannot be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wrong {
    /// A `%` without two hex digits behind it, at this byte.
    Escape(usize),
    /// What comes out is not UTF-8.
    Utf8,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Escape(at) => write!(f, "the `%` at byte {at} is not followed by two hex digits"),
            Self::Utf8 => f.write_str("it does not decode to UTF-8"),
        }
    }
}

/// Decodes one segment of a path.
pub(crate) fn decode(text: &str) -> Result<Cow<'_, str>, Wrong> {
    if !text.contains('%') {
        return Ok(Cow::Borrowed(text));
    }
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        if *byte == b'%' {
            let digit = |n| bytes.get(n).and_then(|digit| char::from(*digit).to_digit(16));
            let (Some(high), Some(low)) = (digit(at + 1), digit(at + 2)) else { return Err(Wrong::Escape(at)) };
            decoded.push((high << 4 | low) as u8);
            at += 3;
        } else {
            decoded.push(*byte);
            at += 1;
        }
    }
    String::from_utf8(decoded).map(Cow::Owned).map_err(|_| Wrong::Utf8)
}

/// Decodes one name or value of a query string, where `+` is a blank.
pub(crate) fn decode_query(text: &str) -> Result<Cow<'_, str>, Wrong> {
    if text.contains('+') {
        return decode(&text.replace('+', " ")).map(|decoded| Cow::Owned(decoded.into_owned()));
    }
    decode(text)
}

/// Writes `text` so that it is one segment, or one value, and nothing else.
pub(crate) fn encode(text: &str, into: &mut String) {
    use fmt::Write as _;
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => into.push(char::from(byte)),
            _ => drop(write!(into, "%{byte:02X}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Wrong, decode, decode_query, encode};
    use proptest::prelude::*;

    #[test]
    fn what_cannot_be_decoded_is_told_apart() {
        assert_eq!(decode("a%2Fb").unwrap(), "a/b");
        assert_eq!(decode("a+b").unwrap(), "a+b");
        assert_eq!(decode_query("a+b%2B").unwrap(), "a b+");
        assert_eq!(decode("ab%2"), Err(Wrong::Escape(2)));
        assert_eq!(decode("%zz"), Err(Wrong::Escape(0)));
        assert_eq!(decode("%"), Err(Wrong::Escape(0)));
        assert_eq!(decode("%ff"), Err(Wrong::Utf8));
        assert_eq!(decode("%c0%af"), Err(Wrong::Utf8));
    }

    proptest! {
        #[test]
        fn any_text_survives_a_segment(text in any::<String>()) {
            let mut segment = String::new();
            encode(&text, &mut segment);
            prop_assert!(!segment.contains(['/', '?', '#', '&', ' ']));
            prop_assert_eq!(decode(&segment).unwrap(), text.as_str());
            prop_assert_eq!(decode_query(&segment).unwrap(), text);
        }

        #[test]
        fn no_text_makes_decoding_panic(text in any::<String>()) {
            let _ = decode(&text);
            let _ = decode_query(&text);
        }
    }
}
