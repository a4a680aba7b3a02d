//! Reading what one understands, and saying what one left out.
//!
//! A tolerant reader takes the fields it knows and ignores the rest, so that a producer may add fields first. Ignored
//! silently, though, a misspelt or renamed field looks like an absent one. [`read`] ignores and reports.

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, EnumAccess, IntoDeserializer, MapAccess, SeqAccess, VariantAccess, Visitor},
    forward_to_deserialize_any,
};
use serde_json::{Error, Value};
use std::cell::RefCell;

/// Most dropped fields that are reported of one document.
pub const MAX_DROPPED: usize = 64;

/// A value that was read, and what was not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tolerant<T> {
    /// What was understood.
    pub value: T,
    /// JSON pointers of what was ignored, in reading order; at most [`MAX_DROPPED`].
    pub dropped: Vec<String>,
}

/// Reads a `T` from `data` and reports the fields that `T` ignored.
///
/// Types that first collect their input (`#[serde(untagged)]`, `flatten`, internally tagged enums) hide from here what
/// they ignore; within them nothing is reported. `deny_unknown_fields` refuses as ever.
///
/// # Errors
/// What `T` says about data it cannot read.
///
/// # Example
/// ```
/// use quorate_data::schema::upcast::tolerant;
/// use serde_json::json;
///
/// #[derive(serde::Deserialize, Debug, PartialEq)]
/// struct Line { sku: String }
/// #[derive(serde::Deserialize, Debug, PartialEq)]
/// struct Order { lines: Vec<Line> }
///
/// let data = json!({"lines": [{"sku": "a", "colour": "red"}], "note/d": {"by": "me"}});
/// let order = tolerant::read::<Order>(&data)?;
/// assert_eq!(order.value, Order { lines: vec![Line { sku: "a".into() }] });
/// assert_eq!(order.dropped, ["/lines/0/colour", "/note~1d"]);
/// # Ok::<(), serde_json::Error>(())
/// ```
pub fn read<'de, T: Deserialize<'de>>(data: &'de Value) -> Result<Tolerant<T>, Error> {
    let dropped = RefCell::new(vec![]);
    let value = T::deserialize(Reader { value: data, at: &At::Root, dropped: &dropped })?;
    Ok(Tolerant { value, dropped: dropped.into_inner() })
}

/// Where the reader is, without allocating before something is dropped.
enum At<'p> {
    Root,
    Member(&'p At<'p>, &'p str),
    Item(&'p At<'p>, usize),
}

impl At<'_> {
    fn pointer(&self) -> String {
        match self {
            Self::Root => String::new(),
            Self::Member(parent, name) => crate::schema::vocabulary::join(&parent.pointer(), name),
            Self::Item(parent, index) => format!("{}/{index}", parent.pointer()),
        }
    }
}

#[derive(Clone, Copy)]
struct Reader<'de, 'p> {
    value: &'de Value,
    at: &'p At<'p>,
    dropped: &'p RefCell<Vec<String>>,
}

impl<'de> Reader<'de, '_> {
    fn drop_it(&self) {
        let mut dropped = self.dropped.borrow_mut();
        if dropped.len() < MAX_DROPPED {
            dropped.push(self.at.pointer());
        }
    }
}

impl<'de> Deserializer<'de> for Reader<'de, '_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.value {
            Value::Array(items) => visitor.visit_seq(Items { parent: self, rest: items.iter().enumerate() }),
            Value::Object(members) => visitor.visit_map(Members { parent: self, rest: members.iter(), next: None }),
            scalar => scalar.deserialize_any(visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.value.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.value.as_object().filter(|members| members.len() == 1).and_then(|members| members.iter().next()) {
            Some((variant, value)) => visitor.visit_enum(Variant { parent: self, variant, value }),
            None => self.value.deserialize_enum(name, variants, visitor),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.drop_it();
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map struct identifier
    }
}

struct Items<'de, 'p> {
    parent: Reader<'de, 'p>,
    rest: std::iter::Enumerate<std::slice::Iter<'de, Value>>,
}

impl<'de> SeqAccess<'de> for Items<'de, '_> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        let Some((index, value)) = self.rest.next() else { return Ok(None) };
        seed.deserialize(Reader { value, at: &At::Item(self.parent.at, index), ..self.parent }).map(Some)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.rest.len())
    }
}

struct Members<'de, 'p> {
    parent: Reader<'de, 'p>,
    rest: serde_json::map::Iter<'de>,
    next: Option<(&'de String, &'de Value)>,
}

impl<'de> MapAccess<'de> for Members<'de, '_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        self.next = self.rest.next();
        self.next.map(|(name, _)| seed.deserialize(Key(name))).transpose()
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Error> {
        let none = || <Error as serde::de::Error>::custom("a value was asked for before its key");
        let (name, value) = self.next.take().ok_or_else(none)?;
        seed.deserialize(Reader { value, at: &At::Member(self.parent.at, name), ..self.parent })
    }
}

/// A member's name, read as text or, for maps with numeric keys, as the number it spells.
struct Key<'de>(&'de str);

macro_rules! numeric_keys {
    ($($method:ident => $visit:ident,)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            match self.0.parse() {
                Ok(number) => visitor.$visit(number),
                Err(_) => visitor.visit_borrowed_str(self.0),
            }
        })*
    };
}

impl<'de> Deserializer<'de> for Key<'de> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_borrowed_str(self.0)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_enum(IntoDeserializer::<Error>::into_deserializer(self.0))
    }

    numeric_keys! {
        deserialize_i8 => visit_i8, deserialize_i16 => visit_i16, deserialize_i32 => visit_i32,
        deserialize_i64 => visit_i64, deserialize_u8 => visit_u8, deserialize_u16 => visit_u16,
        deserialize_u32 => visit_u32, deserialize_u64 => visit_u64,
    }

    forward_to_deserialize_any! {
        bool i128 u128 f32 f64 char str string bytes byte_buf option unit unit_struct seq tuple tuple_struct map struct
        identifier ignored_any
    }
}

/// `{"variant": value}`.
struct Variant<'de, 'p> {
    parent: Reader<'de, 'p>,
    variant: &'de str,
    value: &'de Value,
}

impl<'de, 'p> EnumAccess<'de> for Variant<'de, 'p> {
    type Error = Error;
    type Variant = Self;

    fn variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<(T::Value, Self), Error> {
        Ok((seed.deserialize(Key(self.variant))?, self))
    }
}

impl<'de> Variant<'de, '_> {
    /// Hands what the variant holds to `read`.
    fn held<T>(self, read: impl FnOnce(Reader<'de, '_>) -> Result<T, Error>) -> Result<T, Error> {
        read(Reader { value: self.value, at: &At::Member(self.parent.at, self.variant), ..self.parent })
    }
}

impl<'de> VariantAccess<'de> for Variant<'de, '_> {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        self.held(|reader| Deserialize::deserialize(reader))
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Error> {
        self.held(|reader| seed.deserialize(reader))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Error> {
        self.held(|reader| reader.deserialize_any(visitor))
    }

    fn struct_variant<V: Visitor<'de>>(self, _: &'static [&'static str], visitor: V) -> Result<V::Value, Error> {
        self.held(|reader| reader.deserialize_any(visitor))
    }
}

#[cfg(test)]
mod tests {
    use super::{MAX_DROPPED, read};
    use serde::Deserialize;
    use serde_json::json;
    use std::collections::BTreeMap;

    #[derive(Debug, Deserialize, PartialEq)]
    struct Id(u32);

    #[derive(Debug, Deserialize, PartialEq)]
    enum Means {
        Cash,
        Card { last4: String },
        Split(f64, f64),
        Other(Option<Id>),
    }

    #[derive(Debug, Deserialize, PartialEq)]
    struct Paid {
        id: Id,
        #[serde(default)]
        note: Option<String>,
        means: Vec<Means>,
        by_day: BTreeMap<u8, i64>,
    }

    #[test]
    fn every_shape_is_read_and_what_is_ignored_is_named_where_it_stands() {
        let data = json!({
            "id": 7, "note": null, "by_day": {"1": 2, "30": -1}, "extra": [1, 2],
            "means": ["Cash", {"Card": {"last4": "4242", "cvc": 1}}, {"Split": [1, 0.5]}, {"Other": 3}, {"Other": null}],
        });
        let read = read::<Paid>(&data).unwrap();
        let means = vec![
            Means::Cash,
            Means::Card { last4: "4242".into() },
            Means::Split(1.0, 0.5),
            Means::Other(Some(Id(3))),
            Means::Other(None),
        ];
        assert_eq!(read.value, Paid { id: Id(7), note: None, means, by_day: BTreeMap::from([(1, 2), (30, -1)]) });
        assert_eq!(read.dropped, ["/extra", "/means/1/Card/cvc"]);
    }

    #[test]
    fn what_does_not_fit_is_an_error_and_not_a_default() {
        for data in [
            json!({"id": "x"}),
            json!([]),
            json!({"id": 1, "means": ["Cheque"], "by_day": {}}),
            json!({"id": 1, "means": [], "by_day": {"first": 1}}),
        ] {
            assert!(read::<Paid>(&data).is_err(), "{data}");
        }
    }

    #[test]
    fn a_document_of_strangers_is_reported_within_bounds() {
        let strangers: BTreeMap<_, _> = (0..10_000).map(|at| (format!("s{at}"), at)).collect();
        #[derive(Debug, Deserialize)]
        struct Nothing {}
        assert_eq!(read::<Nothing>(&json!(strangers)).unwrap().dropped.len(), MAX_DROPPED);
    }
}
