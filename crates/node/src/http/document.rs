//! JSON bodies that are no events.

mod digest;

use std::{collections::BTreeSet, fmt};

use http::{HeaderMap, header::CONTENT_TYPE};
use serde::{
    Deserialize, Deserializer,
    de::{self, DeserializeSeed, Error as _},
};

use super::{
    cloud_events::essence,
    problem::{Code, Problem},
    reply, request,
};

pub(super) use self::digest::digest;

/// Refuses a body of another media type than JSON.
pub(super) fn is_json(headers: &HeaderMap) -> Result<(), Problem> {
    let given = request::header(headers, &CONTENT_TYPE)?.unwrap_or_default();
    if essence(given).eq_ignore_ascii_case(reply::JSON) {
        return Ok(());
    }
    let detail = format!("`content-type: {}` is not {}", request::short(given), reply::JSON);
    Err(Problem::new(Code::UnsupportedMediaType, detail))
}

/// The JSON document in `body`: an object, in which no member stands twice.
pub(super) fn parsed<'b, T: Deserialize<'b>>(body: &'b [u8]) -> Result<T, Problem> {
    let document = envelope(body)?;
    match twice(body) {
        None => Ok(document),
        Some(path) => {
            let detail = format!(
                "the member `{}` stands there twice: readers would disagree on which counts",
                request::short(&path)
            );
            Err(Problem::new(Code::InvalidJson, detail).with("path", request::short(&path)))
        }
    }
}

/// The JSON document in `body`: an object that holds what is somebody else's, such as events, as it is.
pub(super) fn envelope<'b, T: Deserialize<'b>>(body: &'b [u8]) -> Result<T, Problem> {
    let text = std::str::from_utf8(body).map_err(|wrong| {
        Problem::new(Code::InvalidJson, format!("the body is not UTF-8 at byte {}", wrong.valid_up_to()))
    })?;
    // Members without their names would be taken for the object's, in the order in which we happen to declare them.
    if text.trim_start().starts_with('[') {
        return Err(Problem::new(Code::InvalidJson, "the body is a list, and an object was expected"));
    }
    serde_json::from_str(text).map_err(|wrong| Problem::of(Code::InvalidJson, &wrong))
}

/// The JSON pointer of the first member that stands twice in `json`, which is valid.
fn twice(json: &[u8]) -> Option<String> {
    let (mut path, mut found) = (String::new(), None);
    let mut reader = serde_json::Deserializer::from_slice(json);
    let _ = Members { path: &mut path, found: &mut found }.deserialize(&mut reader);
    found
}

/// Looks for members that stand twice in the value at `path`.
struct Members<'p> {
    path: &'p mut String,
    found: &'p mut Option<String>,
}

impl Members<'_> {
    /// Looks at the value that `token` leads to.
    fn within(&mut self, token: &str) -> Members<'_> {
        self.path.push('/');
        self.path.push_str(&token.replace('~', "~0").replace('/', "~1"));
        Members { path: self.path, found: self.found }
    }
}

impl<'de> DeserializeSeed<'de> for Members<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> de::Visitor<'de> for Members<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: de::SeqAccess<'de>>(mut self, mut from: A) -> Result<(), A::Error> {
        let here = self.path.len();
        for index in 0_usize.. {
            if from.next_element_seed(self.within(&index.to_string()))?.is_none() {
                break;
            }
            self.path.truncate(here);
        }
        self.path.truncate(here);
        Ok(())
    }

    fn visit_map<A: de::MapAccess<'de>>(mut self, mut from: A) -> Result<(), A::Error> {
        let (here, mut names) = (self.path.len(), BTreeSet::new());
        while let Some(name) = from.next_key::<String>()? {
            let value = self.within(&name);
            if names.contains(&name) {
                *value.found = Some(value.path.clone());
                return Err(A::Error::custom("a member stands twice"));
            }
            from.next_value_seed(value)?;
            self.path.truncate(here);
            names.insert(name);
        }
        Ok(())
    }
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
    use super::{Count, twice};

    #[test]
    fn a_member_that_stands_twice_is_found_wherever_it_is() {
        for (json, path) in [
            (r#"{"a":1,"a":2}"#, Some("/a")),
            (r#"{"a":1,"\u0061":2}"#, Some("/a")),
            (r#"{"a":[{},[1,{"b/c":{"~":1,"x":2,"~":3}}]],"a":1}"#, Some("/a/1/1/b~1c/~0")),
            (r#"{"a":{"a":1},"b":{"a":"a"},"c":[null,true,-1,1.5,"\n"]}"#, None),
            ("{}", None),
        ] {
            assert_eq!(twice(json.as_bytes()).as_deref(), path, "{json}");
        }
    }

    #[test]
    fn a_count_is_a_whole_number_with_or_without_quotes() {
        assert_eq!(serde_json::from_str::<Count>("17").unwrap(), Count(17));
        assert_eq!(serde_json::from_str::<Count>("\"17\"").unwrap(), Count(17));
        for bad in ["-1", "1.0", "\"\"", "\"x\"", "null", "18446744073709551616", "[]"] {
            assert!(serde_json::from_str::<Count>(bad).is_err(), "{bad}");
        }
    }
}
