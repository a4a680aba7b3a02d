//! `traceparent`: which trace, which span, which flags.

use std::{fmt, str::FromStr};

/// The header field `traceparent`, read from any version and written as version `00`.
///
/// # Example
/// ```
/// use quorate_foundations::trace::TraceParent;
/// let parent: TraceParent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".parse()?;
/// assert!(parent.flags.is_sampled());
/// assert_eq!(parent.parent_id.to_string(), "00f067aa0ba902b7");
/// # Ok::<(), quorate_foundations::trace::TraceParentError>(())
/// ```
/// Source: W3C Trace Context, sections 3.2 and 4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TraceParent {
    /// The trace.
    pub trace_id: TraceId,
    /// The span that caused this, as its own side knows it.
    pub parent_id: SpanId,
    /// What the caller recommends.
    pub flags: TraceFlags,
}

/// Flags of a trace: recommendations of the caller, which may be wrong or malicious.
///
/// Only the flags defined so far exist here; others are ignored when read and zero when written, as the standard demands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct TraceFlags(u8);

/// Why a `traceparent` was refused. Start a new trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TraceParentError {
    /// Version `00` has exactly 55 bytes, a higher one at least as many.
    #[error("a traceparent of version 00 has 55 bytes, this one has {bytes}")]
    Length {
        /// Its length in bytes.
        bytes: usize,
    },
    /// Something else stands where a lower-case hex digit belongs; capitals are refused too.
    #[error("byte {at} of the traceparent is not a lower-case hex digit")]
    Hex {
        /// Its offset in bytes.
        at: usize,
    },
    /// Something else stands where a dash belongs.
    #[error("byte {at} of the traceparent is not a dash")]
    Delimiter {
        /// Its offset in bytes.
        at: usize,
    },
    /// Version `ff` is forbidden for ever.
    #[error("version ff of traceparent is forbidden")]
    ForbiddenVersion,
    /// The trace id is all zeros.
    #[error("the trace id is all zeros")]
    ZeroTraceId,
    /// The parent id is all zeros.
    #[error("the parent id is all zeros")]
    ZeroParentId,
    /// There are several `traceparent` fields.
    #[error("there is more than one traceparent")]
    Repeated,
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $bytes:literal, $zero:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; $bytes]);

        impl $name {
            /// How many bytes an id takes; its text takes twice as many characters.
            pub const BYTES: usize = $bytes;

            /// The id with these bytes; `None` if all are zero. Draw them at random, and again if they are.
            pub fn from_bytes(bytes: [u8; $bytes]) -> Option<Self> {
                (bytes != [0; $bytes]).then_some(Self(bytes))
            }

            /// Its bytes; not all are zero.
            pub const fn to_bytes(self) -> [u8; $bytes] {
                self.0
            }

            /// Reads the id whose digits begin at `at`, which is within `text` together with all of them.
            fn read(text: &[u8], at: usize) -> Result<Self, TraceParentError> {
                hex(text, at).and_then(|bytes| Self::from_bytes(bytes).ok_or(TraceParentError::$zero))
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

        /// Lower-case hex digits, not all of them zero.
        impl FromStr for $name {
            type Err = TraceParentError;
            fn from_str(text: &str) -> Result<Self, TraceParentError> {
                if text.len() != 2 * $bytes {
                    return Err(TraceParentError::Length { bytes: text.len() });
                }
                Self::read(text.as_bytes(), 0)
            }
        }
    };
}

id! {
    /// The id of a whole trace: 16 bytes, not all zero.
    TraceId, 16, ZeroTraceId
}

id! {
    /// The id of one span in a trace: 8 bytes, not all zero.
    SpanId, 8, ZeroParentId
}

impl TraceParent {
    /// The length of version `00`, in bytes.
    pub const BYTES: usize = 55;

    /// What the span `span_id` passes on: same trace, same flags.
    pub const fn child(self, span_id: SpanId) -> Self {
        Self { parent_id: span_id, ..self }
    }

    /// Reads a header value, without white space around it.
    ///
    /// A version above `00` is read as far as `00` reaches; what follows it, after a dash, is ignored.
    ///
    /// # Errors
    /// [`TraceParentError`] with the first fault found.
    pub fn from_bytes(text: &[u8]) -> Result<Self, TraceParentError> {
        if text.len() < Self::BYTES {
            return Err(TraceParentError::Length { bytes: text.len() });
        }
        match hex(text, 0)? {
            [0xff] => return Err(TraceParentError::ForbiddenVersion),
            [0x00] if text.len() > Self::BYTES => return Err(TraceParentError::Length { bytes: text.len() }),
            _ => {}
        }
        if let Some(at) = [2, 35, 52, 55].into_iter().find(|at| text.get(*at).is_some_and(|byte| *byte != b'-')) {
            return Err(TraceParentError::Delimiter { at });
        }
        let [flags] = hex(text, 53)?;
        Ok(Self {
            trace_id: TraceId::read(text, 3)?,
            parent_id: SpanId::read(text, 36)?,
            flags: TraceFlags::from_bits(flags),
        })
    }
}

impl FromStr for TraceParent {
    type Err = TraceParentError;
    fn from_str(text: &str) -> Result<Self, TraceParentError> {
        Self::from_bytes(text.as_bytes())
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{}-{}-{:02x}", self.trace_id, self.parent_id, self.flags.bits())
    }
}

impl TraceFlags {
    /// No flag.
    pub const NONE: Self = Self(0);
    /// The caller may have recorded this trace.
    pub const SAMPLED: Self = Self(0b01);
    /// The last seven bytes of the trace id are random, so that samplers may decide by them (Level 2).
    pub const RANDOM: Self = Self(0b10);

    /// The defined flags among `bits`.
    pub const fn from_bits(bits: u8) -> Self {
        Self(bits & (Self::SAMPLED.0 | Self::RANDOM.0))
    }

    /// The flags as bits.
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// Whether the caller may have recorded this trace.
    pub const fn is_sampled(self) -> bool {
        self.0 & Self::SAMPLED.0 != 0
    }

    /// Whether the trace id says that it is random.
    pub const fn is_random(self) -> bool {
        self.0 & Self::RANDOM.0 != 0
    }

    /// The same flags with *sampled* as given. The standard allows this only together with a new parent id.
    pub const fn with_sampled(self, sampled: bool) -> Self {
        Self(self.0 & !Self::SAMPLED.0 | sampled as u8)
    }

    /// The flags of both.
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// Reads `N` bytes from the `2 * N` hex digits that begin at `at`.
fn hex<const N: usize>(text: &[u8], at: usize) -> Result<[u8; N], TraceParentError> {
    let mut bytes = [0; N];
    for (nth, byte) in bytes.iter_mut().enumerate() {
        let at = at + 2 * nth;
        *byte = digit(text, at)? << 4 | digit(text, at + 1)?;
    }
    Ok(bytes)
}

fn digit(text: &[u8], at: usize) -> Result<u8, TraceParentError> {
    match text[at] {
        digit @ b'0'..=b'9' => Ok(digit - b'0'),
        letter @ b'a'..=b'f' => Ok(letter - b'a' + 10),
        _ => Err(TraceParentError::Hex { at }),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{SpanId, TraceFlags, TraceId, TraceParent, TraceParentError as Error};

    const ID: &str = "12345678901234567890123456789012-1234567890123456";

    fn read(text: impl AsRef<str>) -> Result<String, Error> {
        text.as_ref().parse::<TraceParent>().map(|parent| parent.to_string())
    }

    // The specification's test suite (test.py), group test_traceparent_*.
    #[test]
    fn version_00_has_exactly_its_four_fields() {
        assert_eq!(read(format!("00-{ID}-01")), Ok(format!("00-{ID}-01")));
        assert_eq!(read(format!("00-{ID}-01.")), Err(Error::Length { bytes: 56 }));
        assert_eq!(read(format!("00-{ID}-01-what-the-future-will-be-like")), Err(Error::Length { bytes: 84 }));
        assert_eq!(read(""), Err(Error::Length { bytes: 0 }));
    }

    #[test]
    fn a_higher_version_is_read_as_far_as_known_and_written_as_00() {
        for version in ["01", "cc", "fe"] {
            for rest in ["", "-what-the-future-will-be-like", "-"] {
                assert_eq!(read(format!("{version}-{ID}-01{rest}")), Ok(format!("00-{ID}-01")));
            }
        }
        assert_eq!(read(format!("cc-{ID}-01.what-the-future-will-be-like")), Err(Error::Delimiter { at: 55 }));
        assert_eq!(read(format!("cc-{ID}-1")), Err(Error::Length { bytes: 54 }));
    }

    #[test]
    fn a_bad_version_is_refused() {
        assert_eq!(read(format!("ff-{ID}-01")), Err(Error::ForbiddenVersion));
        assert_eq!(read(format!(".0-{ID}-01")), Err(Error::Hex { at: 0 }));
        assert_eq!(read(format!("0.-{ID}-01")), Err(Error::Hex { at: 1 }));
        assert_eq!(read(format!("CC-{ID}-01")), Err(Error::Hex { at: 0 }));
        assert_eq!(read(format!("000-{ID}-01")), Err(Error::Length { bytes: 56 }));
        assert_eq!(read(format!("0000-{ID}-01")), Err(Error::Length { bytes: 57 }));
        assert_eq!(read(format!("cc0-{ID}-01")), Err(Error::Delimiter { at: 2 }));
        assert_eq!(read(format!("0-{ID}-01")), Err(Error::Length { bytes: 54 }));
    }

    #[test]
    fn ids_of_zeros_are_refused() {
        let zero = "00-00000000000000000000000000000000-1234567890123456-01";
        assert_eq!(read(zero), Err(Error::ZeroTraceId));
        assert_eq!(read("00-12345678901234567890123456789012-0000000000000000-01"), Err(Error::ZeroParentId));
        assert_eq!(TraceId::from_bytes([0; 16]), None);
        assert_eq!(SpanId::from_bytes([0; 8]), None);
        assert_eq!("0000000000000000".parse::<SpanId>(), Err(Error::ZeroParentId));
    }

    #[test]
    fn anything_but_lower_case_hex_is_refused_where_it_stands() {
        let cases = [
            ("00-.2345678901234567890123456789012-1234567890123456-01", 3),
            ("00-1234567890123456789012345678901.-1234567890123456-01", 34),
            ("00-12345678901234567890123456789012-.234567890123456-01", 36),
            ("00-12345678901234567890123456789012-123456789012345.-01", 51),
            ("00-12345678901234567890123456789012-1234567890123456-.0", 53),
            ("00-12345678901234567890123456789012-1234567890123456-0.", 54),
            ("00-4BF92F3577B34DA6A3CE929D0E0E4736-1234567890123456-01", 4),
            ("00-12345678901234567890123456789012-00F067AA0BA902B7-01", 38),
            ("00-12345678901234567890123456789012-1234567890123456-0A", 54),
        ];
        for (text, at) in cases {
            assert_eq!(read(text), Err(Error::Hex { at }), "{text}");
        }
    }

    #[test]
    fn fields_of_other_lengths_are_refused() {
        for text in [
            "00-123456789012345678901234567890123-1234567890123456-01",
            "00-1234567890123456789012345678901-1234567890123456-01",
            "00-12345678901234567890123456789012-12345678901234567-01",
            "00-12345678901234567890123456789012-123456789012345-01",
            "00-12345678901234567890123456789012-1234567890123456-001",
            "00-12345678901234567890123456789012-1234567890123456-1",
        ] {
            assert_eq!(read(text), Err(Error::Length { bytes: text.len() }));
        }
        let shifted = "00-123456789012345678901234567890123-123456789012345-01";
        assert_eq!(read(shifted), Err(Error::Delimiter { at: 35 }));
    }

    #[test]
    fn undefined_flags_are_ignored_and_written_as_zero() {
        assert_eq!(read(format!("00-{ID}-ff")), Ok(format!("00-{ID}-03")));
        assert_eq!(read(format!("00-{ID}-08")), Ok(format!("00-{ID}-00")));
        let parent: TraceParent = format!("00-{ID}-09").parse().unwrap();
        assert!(parent.flags.is_sampled() && !parent.flags.is_random());
    }

    #[test]
    fn the_sampled_flag_is_set_and_cleared_alone() {
        let both = TraceFlags::SAMPLED.union(TraceFlags::RANDOM);
        assert_eq!(both.with_sampled(false), TraceFlags::RANDOM);
        assert_eq!(TraceFlags::RANDOM.with_sampled(true), both);
        assert_eq!(TraceFlags::NONE.with_sampled(false), TraceFlags::NONE);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            trace in any::<[u8; 16]>(), span in any::<[u8; 8]>(), flags in any::<u8>(),
        ) {
            let (Some(trace_id), Some(parent_id)) = (TraceId::from_bytes(trace), SpanId::from_bytes(span)) else {
                return Err(TestCaseError::reject("all zeros"));
            };
            let parent = TraceParent { trace_id, parent_id, flags: TraceFlags::from_bits(flags) };
            prop_assert_eq!(parent.to_string().len(), TraceParent::BYTES);
            prop_assert_eq!(parent.to_string().parse(), Ok(parent));
            prop_assert_eq!(trace_id.to_string().parse(), Ok(trace_id));
        }

        #[test]
        fn arbitrary_bytes_are_read_or_refused_without_a_panic(
            mut text in prop::collection::vec(any::<u8>(), 0..70), valid in any::<bool>(),
        ) {
            if valid {
                // A well-formed value with a few bytes overwritten comes closer to the edges than noise does.
                let mut near = format!("cc-{ID}-01-more").into_bytes();
                text.iter().take(3).for_each(|byte| { let at = usize::from(*byte) % near.len(); near[at] = *byte; });
                text = near;
            }
            if let Ok(parent) = TraceParent::from_bytes(&text) {
                prop_assert_eq!(&parent.to_string().into_bytes()[2..53], &text[2..53]);
            }
        }
    }
}
