//! JSON bodies that are no events.

use std::fmt;

use http::{HeaderMap, header::CONTENT_TYPE};
use serde::{Deserialize, Deserializer, de};

use super::{
    cloud_events::essence,
    problem::{Code, Problem},
    reply, request,
};

/// Refuses a body of another media type than JSON.
pub(super) fn is_json(headers: &HeaderMap) -> Result<(), Problem> {
    let given = request::header(headers, &CONTENT_TYPE)?.unwrap_or_default();
    if essence(given).eq_ignore_ascii_case(reply::JSON) {
        return Ok(());
    }
    let detail = format!("`content-type: {}` is not {}", request::short(given), reply::JSON);
    Err(Problem::new(Code::UnsupportedMediaType, detail))
}

/// The JSON document in `body`: an object.
pub(super) fn parsed<'b, T: Deserialize<'b>>(body: &'b [u8]) -> Result<T, Problem> {
    let text = std::str::from_utf8(body).map_err(|wrong| {
        Problem::new(Code::InvalidJson, format!("the body is not UTF-8 at byte {}", wrong.valid_up_to()))
    })?;
    // Members without their names would be taken for the object's, in the order in which we happen to declare them.
    if text.trim_start().starts_with('[') {
        return Err(Problem::new(Code::InvalidJson, "the body is a list, and an object was expected"));
    }
    serde_json::from_str(text).map_err(|wrong| Problem::of(Code::InvalidJson, &wrong))
}

/// A position or version in JSON: `17` or, as quorate writes them, `"17"`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Count(pub(super) u64);

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Whole;
        impl de::Visitor<'_> for Whole {
            type Value = Count;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number such as 17 or \"17\"")
            }
            fn visit_u64<E>(self, count: u64) -> Result<Count, E> {
                Ok(Count(count))
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Count, E> {
                request::whole(text).map(Count).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
            }
        }
        from.deserialize_any(Whole)
    }
}

#[cfg(test)]
mod tests {
    use super::Count;

    #[test]
    fn a_count_is_a_whole_number_with_or_without_quotes() {
        assert_eq!(serde_json::from_str::<Count>("17").unwrap(), Count(17));
        assert_eq!(serde_json::from_str::<Count>("\"17\"").unwrap(), Count(17));
        for bad in ["-1", "1.0", "\"\"", "\"x\"", "null", "18446744073709551616", "[]"] {
            assert!(serde_json::from_str::<Count>(bad).is_err(), "{bad}");
        }
    }
}
