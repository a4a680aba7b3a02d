//! The types of columns and parameters, and how a JSON value becomes one of them.
//!
//! | type | is kept as | JSON that becomes one |
//! |---|---|---|
//! | `text` | text | a string, or a number as it is written |
//! | `integer` | a 64-bit whole number | a whole number, or a string of one |
//! | `real` | a 64-bit float | a number |
//! | `boolean` | 0 or 1 | `true`, `false` |
//! | `decimal(s)` | a whole number of units of the last place: 12.5 in `decimal(2)` is 1250 | a number or a string; exact, or refused |
//! | `timestamp` | microseconds since 1970 | an RFC 3339 string |
//! | `date` | text, `2011-10-01` | an RFC 3339 date, or a timestamp's date as it is written, in its own offset |
//! | `json` | text | anything |

use std::{borrow::Cow, fmt, str::FromStr};

use serde_json::value::RawValue;

use crate::{event::Timestamp, store::Value};

/// The type of a column or a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Text.
    Text,
    /// A 64-bit whole number.
    Integer,
    /// A 64-bit float.
    Real,
    /// True or false.
    Boolean,
    /// An exact number with so many places behind the point, 0 to 12.
    Decimal(u8),
    /// An instant, to the microsecond.
    Timestamp,
    /// A calendar day.
    Date,
    /// Any JSON.
    Json,
    /// A position of the log, served as a text like everywhere else. The runtime's own: no document names this type.
    Position,
}

impl Kind {
    /// The most places of a decimal.
    pub const MAX_PLACES: u8 = 12;

    /// What it is called, for an error that lists what there is.
    pub(super) const ALL: &'static str =
        "text, integer, real, boolean, decimal(0) to decimal(12), timestamp, date, json";

    /// The engine's type.
    pub(super) fn storage(self) -> &'static str {
        match self {
            Self::Text | Self::Date | Self::Json => "TEXT",
            Self::Integer | Self::Boolean | Self::Decimal(_) | Self::Timestamp | Self::Position => "INTEGER",
            Self::Real => "REAL",
        }
    }

    /// The value that `raw` says.
    ///
    /// # Errors
    /// What it says instead.
    pub(super) fn read(self, raw: &RawValue) -> Result<Value, String> {
        let text = raw.get();
        let first = text.as_bytes().first().copied().unwrap_or(b'n');
        if first == b'n' {
            return Ok(Value::Null);
        }
        if self == Self::Json {
            return Ok(text.into());
        }
        match first {
            b'"' => self.of_text(&string(text)),
            b't' | b'f' => match self {
                Self::Boolean => Ok((first == b't').into()),
                _ => Err(self.unlike(text)),
            },
            b'{' | b'[' => Err(self.unlike(text)),
            _ => self.of_number(text),
        }
    }

    /// The value that a text says.
    pub(in crate::materialized_view) fn of_text(self, text: &str) -> Result<Value, String> {
        let unlike = || self.unlike(&format!("{:?}", short(text)));
        match self {
            Self::Text | Self::Json => Ok(text.into()),
            Self::Integer | Self::Position => text.parse::<i64>().map(Into::into).map_err(|_| unlike()),
            Self::Decimal(places) => decimal(text, places).map(Into::into).ok_or_else(unlike),
            Self::Timestamp => {
                let time: Timestamp = text.parse().map_err(|_| unlike())?;
                Ok(micros(time.instant().unix_nanos()))
            }
            Self::Date => date(text).map(Into::into).ok_or_else(unlike),
            Self::Real | Self::Boolean => Err(unlike()),
        }
    }

    fn of_number(self, text: &str) -> Result<Value, String> {
        match self {
            Self::Text => Ok(text.into()),
            Self::Integer | Self::Position => text.parse::<i64>().map(Into::into).map_err(|_| self.unlike(text)),
            Self::Real => {
                text.parse::<f64>().ok().filter(|x| x.is_finite()).map(Into::into).ok_or_else(|| self.unlike(text))
            }
            Self::Decimal(places) => decimal(text, places).map(Into::into).ok_or_else(|| self.unlike(text)),
            _ => Err(self.unlike(text)),
        }
    }

    fn unlike(self, what: &str) -> String {
        format!("{} is no {self}", short(what))
    }

    /// The value as JSON, as it is served: decimals, timestamps and positions as texts, so that no reader rounds them.
    pub fn show(self, value: &Value) -> serde_json::Value {
        match (self, value) {
            (Self::Boolean, Value::Integer(n)) => (*n != 0).into(),
            (Self::Decimal(places), Value::Integer(n)) => spell(*n, places).into(),
            (Self::Timestamp, Value::Integer(n)) => instant(*n).into(),
            (Self::Position, Value::Integer(n)) => n.to_string().into(),
            (Self::Json, Value::Text(text)) => {
                serde_json::from_str(text).unwrap_or_else(|_| serde_json::Value::from(&**text))
            }
            _ => plain(value),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text => "text",
            Self::Integer => "integer",
            Self::Real => "real",
            Self::Boolean => "boolean",
            Self::Decimal(places) => return write!(f, "decimal({places})"),
            Self::Timestamp => "timestamp",
            Self::Date => "date",
            Self::Json => "json",
            Self::Position => "position",
        })
    }
}

/// There is no such type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no such type")]
pub struct UnknownKind;

impl FromStr for Kind {
    type Err = UnknownKind;

    fn from_str(text: &str) -> Result<Self, UnknownKind> {
        Ok(match text {
            "text" => Self::Text,
            "integer" => Self::Integer,
            "real" => Self::Real,
            "boolean" => Self::Boolean,
            "timestamp" => Self::Timestamp,
            "date" => Self::Date,
            "json" => Self::Json,
            _ => {
                let places = text.strip_prefix("decimal(").and_then(|rest| rest.strip_suffix(')'));
                let places = places.and_then(|places| places.parse().ok()).filter(|places| *places <= Self::MAX_PLACES);
                Self::Decimal(places.ok_or(UnknownKind)?)
            }
        })
    }
}

/// What `raw` says where nobody said what it should be: texts, whole numbers and floats as they are, anything nested as
/// JSON.
pub(super) fn as_it_is(raw: &RawValue) -> Value {
    let text = raw.get();
    match text.as_bytes().first().copied().unwrap_or(b'n') {
        b'n' => Value::Null,
        b't' => true.into(),
        b'f' => false.into(),
        b'"' => Value::Text(string(text).into()),
        b'{' | b'[' => text.into(),
        _ => text.parse::<i64>().map_or_else(|_| text.parse::<f64>().map_or(Value::Null, Into::into), Into::into),
    }
}

/// A value of which nobody said what it is, as JSON.
pub(super) fn plain(value: &Value) -> serde_json::Value {
    match value {
        Value::Null => serde_json::Value::Null,
        Value::Integer(n) => (*n).into(),
        Value::Real(x) => (*x).into(),
        Value::Text(text) => serde_json::Value::from(&**text),
        Value::Blob(bytes) => {
            use base64::Engine as _;
            base64::engine::general_purpose::STANDARD.encode(bytes).into()
        }
    }
}

/// The text of a JSON string.
fn string(json: &str) -> Cow<'_, str> {
    let inner = json.get(1..json.len().saturating_sub(1)).unwrap_or_default();
    if inner.contains('\\') {
        return serde_json::from_str::<String>(json).map_or(Cow::Borrowed(inner), Cow::Owned);
    }
    Cow::Borrowed(inner)
}

/// Microseconds since 1970.
pub(super) fn micros(unix_nanos: i64) -> Value {
    unix_nanos.div_euclid(1_000).into()
}

/// An instant as RFC 3339 writes it.
pub(super) fn instant(micros: i64) -> String {
    let time = jiff::Timestamp::from_microsecond(micros).unwrap_or_default();
    time.strftime("%Y-%m-%dT%H:%M:%S%.fZ").to_string()
}

/// The date in `2011-10-01` or `2011-10-01T00:38:44.546+02:00`, as it is written.
fn date(text: &str) -> Option<&str> {
    let (day, rest) = (text.get(..10)?, &text[10..]);
    let fits = rest.is_empty() || text.parse::<Timestamp>().is_ok();
    (fits && day.parse::<jiff::civil::Date>().is_ok()).then_some(day)
}

/// A number of units of the last of `places` places: exact, or nothing.
fn decimal(text: &str, places: u8) -> Option<i64> {
    let (negative, digits) = text.strip_prefix('-').map_or((false, text), |digits| (true, digits));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let given = |digits: &str| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    if !given(whole) || (digits.contains('.') && !given(fraction)) {
        return None;
    }
    let fraction = fraction.trim_end_matches('0');
    let missing = usize::from(places).checked_sub(fraction.len())?;
    let all = whole.bytes().chain(fraction.bytes()).chain(std::iter::repeat_n(b'0', missing));
    // Counted downwards, since there is one more number below zero than above.
    let units =
        all.into_iter().try_fold(0_i64, |units, digit| units.checked_mul(10)?.checked_sub(i64::from(digit - b'0')))?;
    if negative { Some(units) } else { units.checked_neg() }
}

/// A number of units of the last place, as a decimal is written.
fn spell(units: i64, places: u8) -> String {
    let places = usize::from(places);
    let digits = format!("{:0>width$}", units.unsigned_abs(), width = places + 1);
    let (whole, fraction) = digits.split_at(digits.len() - places);
    let sign = if units < 0 { "-" } else { "" };
    if places == 0 { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") }
}

/// The beginning of what somebody wrote.
pub(super) fn short(text: &str) -> Cow<'_, str> {
    const MAX: usize = 80;
    match text.char_indices().nth(MAX) {
        None => text.into(),
        Some((end, _)) => format!("{}…", &text[..end]).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::{Kind, as_it_is, decimal, spell};
    use crate::store::Value;
    use proptest::prelude::*;
    use serde_json::value::RawValue;

    fn read(kind: Kind, json: &str) -> Result<Value, String> {
        kind.read(&RawValue::from_string(json.to_owned()).unwrap())
    }

    proptest! {
        #[test]
        fn a_decimal_survives_being_written_and_read(units: i64, places in 0_u8..=12) {
            prop_assert_eq!(decimal(&spell(units, places), places), Some(units));
        }
    }

    #[test]
    fn decimals_are_exact_or_refused() {
        assert_eq!(read(Kind::Decimal(2), "12.5"), Ok(Value::Integer(1250)));
        assert_eq!(read(Kind::Decimal(2), "\"-0.07\""), Ok(Value::Integer(-7)));
        assert_eq!(read(Kind::Decimal(2), "12.500"), Ok(Value::Integer(1250)));
        assert_eq!(read(Kind::Decimal(0), "-9223372036854775808"), Ok(Value::Integer(i64::MIN)));
        for bad in ["12.345", "1e3", "\"\"", "\"1.\"", "\".5\"", "\"1_0\"", "9223372036854775808", "true", "[]"] {
            assert!(read(Kind::Decimal(2), bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_day_is_the_one_on_the_producers_wall() {
        let late = "\"2011-10-01T00:38:44.546+02:00\"";
        assert_eq!(read(Kind::Date, late), Ok("2011-10-01".into()));
        assert_eq!(read(Kind::Date, "\"2011-10-01\""), Ok("2011-10-01".into()));
        for bad in ["\"2011-02-30\"", "\"2011-10-01T\"", "\"2011-10-1\"", "\"é2011-10-01\"", "20111001"] {
            assert!(read(Kind::Date, bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn timestamps_are_instants_whatever_their_offset() {
        let one = read(Kind::Timestamp, "\"2011-10-01T00:38:44.546+02:00\"").unwrap();
        assert_eq!(one, read(Kind::Timestamp, "\"2011-09-30T22:38:44.546Z\"").unwrap());
        assert_eq!(Kind::Timestamp.show(&one), "2011-09-30T22:38:44.546Z");
        assert!(read(Kind::Timestamp, "\"2011-10-01\"").is_err());
    }

    #[test]
    fn whole_numbers_beyond_a_float_keep_their_last_digit() {
        assert_eq!(read(Kind::Integer, "9007199254740993"), Ok(Value::Integer(9_007_199_254_740_993)));
        assert_eq!(read(Kind::Integer, "\"9007199254740993\""), Ok(Value::Integer(9_007_199_254_740_993)));
        assert!(read(Kind::Integer, "1.0").is_err() && read(Kind::Integer, "9223372036854775808").is_err());
    }

    #[test]
    fn null_is_null_in_every_type() {
        for kind in [Kind::Text, Kind::Json, Kind::Boolean, Kind::Decimal(3)] {
            assert_eq!(read(kind, "null"), Ok(Value::Null));
        }
    }

    #[test]
    fn what_has_no_type_is_taken_as_it_is() {
        let taken = |json: &str| as_it_is(&RawValue::from_string(json.to_owned()).unwrap());
        assert_eq!(taken("\"a\\u00e9\""), "aé".into());
        assert_eq!(taken("[1, 2]"), "[1, 2]".into());
        assert_eq!((taken("17"), taken("1.5"), taken("true")), (17_i64.into(), 1.5.into(), true.into()));
    }

    #[test]
    fn every_type_is_read_from_its_name() {
        let kinds = [
            Kind::Text,
            Kind::Integer,
            Kind::Real,
            Kind::Boolean,
            Kind::Decimal(2),
            Kind::Timestamp,
            Kind::Date,
            Kind::Json,
        ];
        assert!(kinds.iter().all(|kind| kind.to_string().parse() == Ok(*kind)));
        assert!(["decimal", "decimal(13)", "decimal(-1)", "Text", ""].iter().all(|name| name.parse::<Kind>().is_err()));
    }
}
