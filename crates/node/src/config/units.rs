//! Values with units.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A number of bytes: written `512`, `64KiB`, `1MiB`, `2GiB`, or with the decimal `kB`, `MB`, `GB`.
///
/// # Example
/// ```
/// use quorate_node::config::ByteSize;
/// assert_eq!("64KiB".parse::<ByteSize>()?.get(), 65_536);
/// assert_eq!(ByteSize::new(1 << 20).to_string(), "1MiB");
/// # Ok::<(), quorate_node::config::ByteSize>(()).map_err(|_| "")?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(usize);

/// A text that is no size.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no size such as 512, 64KiB or 1MiB")]
pub struct ByteSizeError {
    text: String,
}

const UNITS: [(&str, usize); 7] = [
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("B", 1),
];

impl ByteSize {
    /// So many bytes.
    pub const fn new(bytes: usize) -> Self {
        Self(bytes)
    }

    /// In bytes.
    pub const fn get(self) -> usize {
        self.0
    }
}

impl FromStr for ByteSize {
    type Err = ByteSizeError;

    fn from_str(text: &str) -> Result<Self, ByteSizeError> {
        let unit = UNITS.iter().find_map(|(name, size)| Some((text.strip_suffix(name)?, *size)));
        let (number, size) = unit.unwrap_or((text, 1));
        let bytes = number.trim_end().parse::<usize>().ok().and_then(|number| number.checked_mul(size));
        bytes.map(Self).ok_or_else(|| ByteSizeError { text: text.chars().take(64).collect() })
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let binary =
            UNITS.iter().find(|(name, size)| name.ends_with("iB") && self.0 > 0 && self.0.is_multiple_of(*size));
        match binary {
            Some((name, size)) => write!(f, "{}{name}", self.0 / size),
            None => self.0.fmt(f),
        }
    }
}

impl Serialize for ByteSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Size;
        impl de::Visitor<'_> for Size {
            type Value = ByteSize;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a size such as 512, \"64KiB\" or \"1MiB\"")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<ByteSize, E> {
                text.parse().map_err(E::custom)
            }
            fn visit_i64<E: de::Error>(self, bytes: i64) -> Result<ByteSize, E> {
                usize::try_from(bytes).map(ByteSize).map_err(|_| E::custom("a size cannot be negative"))
            }
            fn visit_u64<E: de::Error>(self, bytes: u64) -> Result<ByteSize, E> {
                usize::try_from(bytes).map(ByteSize).map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Size)
    }
}

#[cfg(test)]
mod tests {
    use super::ByteSize;

    #[test]
    fn a_size_is_read_with_and_without_a_unit() {
        for (text, bytes) in [("0", 0), ("512", 512), ("3 KiB", 3072), ("1MB", 1_000_000), ("2GiB", 2 << 30), ("7B", 7)]
        {
            assert_eq!(text.parse::<ByteSize>().unwrap().get(), bytes, "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused_by_name() {
        for text in ["", "MiB", "-1", "1.5MiB", "99999999999999999999", "1TiB", "18446744073709551615GiB"] {
            let wrong = text.parse::<ByteSize>().unwrap_err().to_string();
            assert!(wrong.contains(&format!("`{text}`")), "{wrong}");
        }
    }

    #[test]
    fn a_size_survives_its_text() {
        for bytes in [0, 1, 1000, 1024, 1 << 20, 3 << 29, 12_345_678] {
            assert_eq!(ByteSize::new(bytes).to_string().parse(), Ok(ByteSize::new(bytes)));
        }
    }
}
