//! JSON, read piece by piece: serde_json hands out each member as the slice of the text that it is, and a slice knows its
//! place.

use std::{borrow::Cow, fmt};

use serde::{Deserialize, Deserializer, de};
use serde_json::value::RawValue;

use super::{Entry, Fault, MAX_DEPTH, Node, Value};

pub(super) fn parse(text: &str) -> Result<Node, Fault> {
    let wrong = |wrong: serde_json::Error| {
        let (line, column) = (u32::try_from(wrong.line()), u32::try_from(wrong.column()));
        let (line, column) = (line.unwrap_or(1), column.unwrap_or(1).max(1));
        Fault { line, column, field: String::new(), what: format!("this is not JSON: {wrong}") }
    };
    let raw: &RawValue = serde_json::from_str(text).map_err(wrong)?;
    node(text, raw, 0)
}

fn node(text: &str, raw: &RawValue, depth: usize) -> Result<Node, Fault> {
    let slice = raw.get();
    let start = slice.as_ptr() as usize - text.as_ptr() as usize;
    let fault = |what: String| Fault::at(text, start, "", what);
    if depth > MAX_DEPTH {
        return Err(fault(format!("a document is nested at most {MAX_DEPTH} deep")));
    }
    let unreadable = |wrong: serde_json::Error| fault(format!("this is not JSON: {wrong}"));
    let value = match slice.as_bytes().first() {
        Some(b'{') => {
            let members: Members<'_> = serde_json::from_str(slice).map_err(unreadable)?;
            Value::Table(members.0.into_iter().map(|member| entry(text, member, depth)).collect::<Result<_, _>>()?)
        }
        Some(b'[') => {
            let items: Vec<&RawValue> = serde_json::from_str(slice).map_err(unreadable)?;
            Value::List(items.into_iter().map(|item| node(text, item, depth + 1)).collect::<Result<_, _>>()?)
        }
        Some(b'"') => Value::Text(serde_json::from_str(slice).map_err(unreadable)?),
        Some(b't') => Value::Boolean(true),
        Some(b'f') => Value::Boolean(false),
        Some(b'n') => Value::Null,
        _ => Value::Number(slice.to_owned()),
    };
    Ok(Node { span: start..start + slice.len(), value })
}

fn entry(text: &str, (key, raw): (&RawValue, &RawValue), depth: usize) -> Result<Entry, Fault> {
    let node = node(text, raw, depth + 1)?;
    let start = key.get().as_ptr() as usize - text.as_ptr() as usize;
    let name: Cow<'_, str> = serde_json::from_str::<String>(key.get()).map_or(Cow::Borrowed(key.get()), Cow::Owned);
    Ok(Entry { key: name.into_owned(), key_span: start..start + key.get().len(), node })
}

/// The members of an object in their order, those that stand there twice included.
struct Members<'t>(Vec<(&'t RawValue, &'t RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Members<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        from.deserialize_map(Visitor)
    }
}
