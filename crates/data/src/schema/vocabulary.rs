//! Where JSON Schema 2020-12 puts subschemas inside a schema, and how JSON pointers name them.

use serde_json::Value;
use std::borrow::Cow;

/// Which value a subschema speaks about, seen from the schema it stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// The same value.
    Here,
    /// A part of it: a property, an item, a property's name.
    Inside,
    /// None until something refers to it.
    Shelf,
}

/// A subschema and where it stands.
pub(super) struct Sub<'a> {
    pub(super) keyword: &'static str,
    /// The member of the keyword: a property's name, an index; `None` where the keyword holds one schema.
    pub(super) key: Option<Cow<'a, str>>,
    pub(super) place: Place,
    pub(super) schema: &'a Value,
}

impl Sub<'_> {
    /// How much longer its pointer is than that of the schema it stands in, before anything is escaped.
    pub(super) fn pointer_bytes(&self) -> usize {
        1 + self.keyword.len() + self.key.as_ref().map_or(0, |key| 1 + key.len())
    }

    /// The pointer of this subschema, given that of the schema it stands in.
    pub(super) fn pointer(&self, parent: &str) -> String {
        match &self.key {
            Some(key) => join(&join(parent, self.keyword), key),
            None => join(parent, self.keyword),
        }
    }
}

const SINGLE: [(&str, Place); 11] = [
    ("not", Place::Here),
    ("if", Place::Here),
    ("then", Place::Here),
    ("else", Place::Here),
    ("items", Place::Inside),
    ("contains", Place::Inside),
    ("additionalProperties", Place::Inside),
    ("propertyNames", Place::Inside),
    ("unevaluatedItems", Place::Inside),
    ("unevaluatedProperties", Place::Inside),
    ("contentSchema", Place::Shelf),
];
const LISTS: [(&str, Place); 4] =
    [("allOf", Place::Here), ("anyOf", Place::Here), ("oneOf", Place::Here), ("prefixItems", Place::Inside)];
const MAPS: [(&str, Place); 6] = [
    ("dependentSchemas", Place::Here),
    ("dependencies", Place::Here),
    ("properties", Place::Inside),
    ("patternProperties", Place::Inside),
    ("$defs", Place::Shelf),
    ("definitions", Place::Shelf),
];

/// The direct subschemas of `schema`, in a fixed order; `$ref` is not followed.
pub(super) fn subschemas(schema: &Value) -> Vec<Sub<'_>> {
    let Value::Object(members) = schema else { return vec![] };
    let single = SINGLE.iter().filter_map(|&(keyword, place)| {
        Some(Sub { keyword, key: None, place, schema: members.get(keyword).filter(|value| is_schema(value))? })
    });
    let lists = LISTS.iter().flat_map(|&(keyword, place)| {
        let items = members.get(keyword).and_then(Value::as_array).into_iter().flatten().enumerate();
        items.map(move |(index, schema)| Sub { keyword, key: Some(index.to_string().into()), place, schema })
    });
    let maps = MAPS.iter().flat_map(|&(keyword, place)| {
        let entries = members.get(keyword).and_then(Value::as_object).into_iter().flatten();
        let schemas = entries.filter(|(_, value)| is_schema(value));
        schemas.map(move |(key, schema)| Sub { keyword, key: Some(key.into()), place, schema })
    });
    single.chain(lists).chain(maps).collect()
}

fn is_schema(value: &Value) -> bool {
    value.is_object() || value.is_boolean()
}

/// `parent` extended by one reference token, escaped as RFC 6901 asks.
pub(super) fn join(parent: &str, token: &str) -> String {
    format!("{parent}/{}", token.replace('~', "~0").replace('/', "~1"))
}

/// The pointer that a `$ref` names within its own document; `None` if it leads anywhere else.
pub(super) fn local_pointer(reference: &str) -> Option<String> {
    let fragment = reference.strip_prefix('#')?;
    (fragment.is_empty() || fragment.starts_with('/')).then(|| percent_decoded(fragment)).flatten()
}

/// A text without its escapes (`%2F`); `None` where one is none, or it is no UTF-8.
pub(crate) fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        let escape = (byte == b'%').then(|| tail.get(..2).and_then(|hex| std::str::from_utf8(hex).ok()));
        rest = match escape {
            None => {
                bytes.push(byte);
                tail
            }
            Some(hex) => {
                bytes.push(u8::from_str_radix(hex.filter(|hex| !hex.starts_with('+'))?, 16).ok()?);
                &tail[2..]
            }
        };
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::{join, local_pointer, subschemas};
    use serde_json::json;

    #[test]
    fn only_references_into_the_same_document_by_pointer_are_local() {
        assert_eq!(local_pointer("#").as_deref(), Some(""));
        assert_eq!(local_pointer("#/$defs/a%20b~1c").as_deref(), Some("/$defs/a b~1c"));
        for elsewhere in ["", "#anchor", "other.json", "https://example.com/s#/a", "#/%f", "#/%+f", "#/%ff"] {
            assert_eq!(local_pointer(elsewhere), None, "{elsewhere}");
        }
    }

    #[test]
    fn subschemas_are_found_by_position_and_not_by_looks() {
        let schema = json!({
            "properties": {"$ref": {"type": "string"}, "a/b": true},
            "const": {"not": {}}, "items": false, "dependencies": {"x": ["y"], "z": {}}
        });
        let found: Vec<_> = subschemas(&schema).iter().map(|sub| sub.pointer("")).collect();
        assert_eq!(found, ["/items", "/dependencies/z", "/properties/$ref", "/properties/a~1b"]);
        assert_eq!(join("/x", "a~b"), "/x/a~0b");
    }
}
