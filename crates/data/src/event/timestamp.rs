//! A moment as its producer wrote it.

use std::{fmt, str::FromStr, sync::Arc};

use quorate_foundations::time::Wall;

/// An RFC 3339 moment that keeps its text (offset and precision included) and knows its instant.
///
/// Two timestamps are equal when their texts are; compare [`instant`](Self::instant) to order them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Timestamp {
    text: Arc<str>,
    instant: Wall,
}

/// Why a text is no timestamp.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not an RFC 3339 time such as 2026-11-22T09:30:00Z")]
pub struct TimestampError {
    text: String,
}

impl Timestamp {
    /// The text as it was given.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The moment it names, clamped to the years 1678 to 2262.
    pub fn instant(&self) -> Wall {
        self.instant
    }
}

impl From<Wall> for Timestamp {
    /// Written in UTC, with as many digits as the reading has.
    fn from(instant: Wall) -> Self {
        let text = jiff::Timestamp::from_nanosecond(i128::from(instant.unix_nanos()))
            .unwrap_or_default() // every 64-bit count of nanoseconds is within jiff's range
            .to_string();
        Self { text: text.into(), instant }
    }
}

impl FromStr for Timestamp {
    type Err = TimestampError;

    fn from_str(text: &str) -> Result<Self, TimestampError> {
        let bytes = text.as_bytes();
        let shaped = bytes.len() >= 20 && bytes[4] == b'-' && bytes[7] == b'-' && matches!(bytes[10], b'T' | b't');
        let parsed = shaped.then(|| text.parse::<jiff::Timestamp>().ok()).flatten();
        let at = parsed.ok_or_else(|| TimestampError { text: text.chars().take(64).collect() })?;
        let nanos = at.as_nanosecond().clamp(i128::from(i64::MIN), i128::from(i64::MAX));
        Ok(Self { text: text.into(), instant: Wall::from_unix_nanos(i64::try_from(nanos).unwrap_or_default()) })
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::Timestamp;
    use quorate_foundations::time::Wall;

    #[test]
    fn a_timestamp_keeps_its_text_and_knows_its_instant() {
        let local: Timestamp = "2011-10-01T00:38:44.546+02:00".parse().unwrap();
        let utc: Timestamp = "2011-09-30T22:38:44.546Z".parse().unwrap();
        assert_eq!(local.as_str(), "2011-10-01T00:38:44.546+02:00");
        assert_eq!(local.instant(), utc.instant());
        assert_ne!(local, utc);
    }

    #[test]
    fn what_rfc_3339_does_not_allow_is_refused() {
        for text in ["", "now", "2011-10-01", "2011-10-01T00:38:44", "2011-13-01T00:00:00Z", "2011-10-01 00:38:44Z"] {
            assert!(text.parse::<Timestamp>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_clock_reading_is_written_in_utc_and_read_back() {
        let at = Wall::from_unix_nanos(1_700_000_000_123_456_789);
        let written = Timestamp::from(at);
        assert_eq!(written.as_str(), "2023-11-14T22:13:20.123456789Z");
        assert_eq!(written.as_str().parse::<Timestamp>().unwrap().instant(), at);
    }

    #[test]
    fn far_years_keep_their_text_and_clamp_their_instant() {
        let far: Timestamp = "9999-12-30T00:00:00Z".parse().unwrap();
        assert_eq!(far.instant(), Wall::from_unix_nanos(i64::MAX));
    }
}
