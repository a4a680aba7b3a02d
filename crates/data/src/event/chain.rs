//! The hash chain of a stream: each event's hash covers the one before it.
//!
//! `hash(n) = BLAKE3(hash(n-1) ‖ version ‖ recorded time ‖ header ‖ BLAKE3(data))`, where the header is the event's
//! attributes, length-prefixed, in fixed order (see `codec`), and data is taken as stored: ciphertext where the event
//! is encrypted. No position is in it, so that a chain survives a move to another store; erasing or truncating data
//! keeps its hash, so that a chain stays verifiable.

use std::fmt;

macro_rules! hash {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash)]
        pub struct $name([u8; 32]);

        impl $name {
            /// From its 32 bytes.
            pub const fn from_bytes(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }

            /// Its 32 bytes.
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

hash! {
    /// One link: covers an event and, through the link before, everything earlier in its stream.
    ChainHash
}

hash! {
    /// The hash of an event's data as stored; of no bytes where there is no data.
    DataHash
}

impl Default for ChainHash {
    fn default() -> Self {
        Self::START
    }
}

impl ChainHash {
    /// What the first event of a stream continues from.
    pub const START: Self = Self([0; 32]);

    /// The link after this one.
    pub fn link(&self, version: u64, recorded_at: i64, header: &[u8], data: &DataHash) -> Self {
        Self(blake3_of(&[&self.0, &version.to_le_bytes(), &recorded_at.to_le_bytes(), header, &data.0]))
    }
}

/// The BLAKE3 hash of `parts` as one text.
pub(crate) fn blake3_of(parts: &[&[u8]]) -> [u8; 32] {
    // Most texts are short, and hashing one in place takes less than setting up a hasher to be fed.
    let mut short = [0; 512];
    let mut end = 0;
    for part in parts {
        let Some(room) = short.get_mut(end..end + part.len()) else {
            let mut hasher = blake3::Hasher::new();
            for part in parts {
                hasher.update(part);
            }
            return *hasher.finalize().as_bytes();
        };
        room.copy_from_slice(part);
        end += part.len();
    }
    *blake3::hash(&short[..end]).as_bytes()
}

impl DataHash {
    /// The hash of `data`.
    pub fn of(data: &[u8]) -> Self {
        Self(*blake3::hash(data).as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::blake3_of;

    #[test]
    fn parts_of_any_length_hash_as_the_text_they_make() {
        for length in [0, 1, 100, 255, 256, 257, 511, 512, 5_000] {
            let text: Vec<u8> = (0..=255).cycle().take(2 * length).collect();
            let parts = text.split_at(length);
            assert_eq!(&blake3_of(&[parts.0, parts.1]), blake3::hash(&text).as_bytes(), "{length}");
        }
    }
}
