//! What a JSON document says, whichever way it is written.

use std::fmt;

use blake3::Hasher;
use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess},
};
use serde_json::value::RawValue;

use crate::http::{
    problem::{Code, Problem},
    request,
};

/// How deep a document may be.
const DEPTH: usize = 128;

/// A digest that documents share that say the same: whatever the order of their members and the space between them. Numbers are the same where
/// they are written alike, so that none is taken for another that a reader here could not tell from it.
pub(in crate::http) fn digest(json: &[u8]) -> Result<[u8; 32], Problem> {
    let mut hasher = Hasher::new();
    let whole: &RawValue = serde_json::from_slice(json).map_err(|wrong| invalid(&wrong))?;
    take(whole, DEPTH, &mut hasher)?;
    Ok(*hasher.finalize().as_bytes())
}

fn invalid(wrong: &serde_json::Error) -> Problem {
    Problem::of(Code::InvalidJson, wrong)
}

fn take(value: &RawValue, depth: usize, into: &mut Hasher) -> Result<(), Problem> {
    let text = value.get();
    let Some(below) = depth.checked_sub(1) else {
        return Err(Problem::new(Code::InvalidJson, format!("it is more than {DEPTH} deep")));
    };
    match text.as_bytes().first() {
        Some(b'{') => {
            let Members(mut members) = serde_json::from_str(text).map_err(|wrong| invalid(&wrong))?;
            members.sort_by(|(one, _), (other, _)| one.cmp(other));
            if let Some(twice) = members.windows(2).find(|pair| pair[0].0 == pair[1].0) {
                let name = request::short(&twice[0].0);
                let detail = format!("the member `{name}` stands there twice: readers would disagree on which counts");
                return Err(Problem::new(Code::InvalidJson, detail));
            }
            into.update(b"{");
            for (name, value) in members {
                string(&name, into);
                into.update(b":");
                take(value, below, into)?;
                into.update(b",");
            }
            into.update(b"}");
        }
        Some(b'[') => {
            let all: Vec<&RawValue> = serde_json::from_str(text).map_err(|wrong| invalid(&wrong))?;
            into.update(b"[");
            for value in all {
                take(value, below, into)?;
                into.update(b",");
            }
            into.update(b"]");
        }
        Some(b'"') => string(&serde_json::from_str::<String>(text).map_err(|wrong| invalid(&wrong))?, into),
        _ => {
            into.update(text.as_bytes());
        }
    }
    Ok(())
}

/// However its characters were escaped.
fn string(text: &str, into: &mut Hasher) {
    into.update(serde_json::Value::from(text).to_string().as_bytes());
}

/// The members of an object as they stand there, also those that stand there twice.
struct Members<'b>(Vec<(String, &'b RawValue)>);

impl<'de: 'b, 'b> Deserialize<'de> for Members<'b> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct All;
        impl<'de> de::Visitor<'de> for All {
            type Value = Vec<(String, &'de RawValue)>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut from: A) -> Result<Self::Value, A::Error> {
                let mut all = Vec::new();
                while let Some(member) = from.next_entry()? {
                    all.push(member);
                }
                Ok(all)
            }
        }
        from.deserialize_map(All).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::{DEPTH, digest};

    #[test]
    fn documents_that_say_the_same_share_a_digest_and_no_number_is_taken_for_another() {
        let of = |json: &str| digest(json.as_bytes()).unwrap();
        let one = of(r#"{"a":[1,"x",null],"b":{"c":1.50}}"#);
        assert_eq!(one, of(" { \"b\": {\"c\" : 1.50},\n\"\\u0061\": [ 1, \"\\u0078\", null ] } "));
        for other in [
            r#"{"a":[1,"x",null],"b":{"c":1.500000000000000000001}}"#,
            r#"{"a":["x",1,null],"b":{"c":1.50}}"#,
            r#"{"a":["1","x",null],"b":{"c":1.50}}"#,
            r#"{"a":[1,"x",null,{}],"b":{"c":1.50}}"#,
            r#"{"a":[1,"x"],"b":{"c":1.50}}"#,
        ] {
            assert_ne!(one, of(other), "{other}");
        }
        assert_ne!(of("18446744073709551617"), of("18446744073709551616"));
        for bad in [r#"{"a":1e999,"b":{"x":1,"\u0078":2}}"#, r#"["\ud800"]"#, "{", &"[".repeat(DEPTH + 1)] {
            assert!(digest(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(digest(("[".repeat(DEPTH + 1) + &"]".repeat(DEPTH + 1)).as_bytes()).is_err());
    }
}
