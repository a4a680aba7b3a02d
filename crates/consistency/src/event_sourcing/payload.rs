//! An enum's variant as JSON without the variant's name around it.
//!
//! Serde's own representation of an enum puts the name of the variant into the data, where it would repeat the event's
//! type and tie the log to the names in our code. These two small adapters take it off and put it back.

use serde::{
    Deserialize, Serialize, Serializer,
    de::{DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer, VariantAccess, Visitor},
    forward_to_deserialize_any,
    ser::{Impossible, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTupleVariant},
};
use serde_json::Error;

const NOT_DEFAULT: &str = "an event is an enum in serde's default representation";

fn refusal(why: &str) -> Error {
    serde::de::Error::custom(why)
}

/// Writes the content of the variant that `event` is.
#[doc(hidden)]
pub fn encode_variant<E: Serialize>(event: &E, data: &mut Vec<u8>) -> Result<(), Error> {
    event.serialize(Content { json: &mut serde_json::Serializer::new(data) })
}

/// Reads the content of `variant`.
#[doc(hidden)]
pub fn decode_variant<E: DeserializeOwned>(variant: &'static str, data: &[u8]) -> Result<E, Error> {
    E::deserialize(Named { variant, data })
}

/// Whether serde calls the variants of `E` by the names in `variants`.
pub(crate) fn check_variants<E: DeserializeOwned>(variants: &[&str]) -> Result<(), String> {
    let mut known = None;
    let _ = E::deserialize(Ask { known: &mut known });
    let known = known.ok_or_else(|| NOT_DEFAULT.to_owned())?;
    match variants.iter().find(|variant| !known.contains(variant)) {
        Some(variant) => Err(format!("serde knows no variant `{variant}`, only {known:?}: variants cannot be renamed")),
        None => Ok(()),
    }
}

struct Content<'a> {
    json: &'a mut serde_json::Serializer<&'a mut Vec<u8>>,
}

type JsonCompound<'a> = <&'a mut serde_json::Serializer<&'a mut Vec<u8>> as Serializer>::SerializeStruct;

struct Fields<'a>(JsonCompound<'a>);

macro_rules! refuse {
    ($($method:ident($($arg:ty),*) -> $ok:ty;)*) => {
        $(fn $method(self, $(_: $arg),*) -> Result<$ok, Error> {
            Err(refusal(NOT_DEFAULT))
        })*
    };
}

impl<'a> Serializer for Content<'a> {
    type Ok = ();
    type Error = Error;
    type SerializeSeq = Impossible<(), Error>;
    type SerializeTuple = Impossible<(), Error>;
    type SerializeTupleStruct = Impossible<(), Error>;
    type SerializeTupleVariant = Fields<'a>;
    type SerializeMap = Impossible<(), Error>;
    type SerializeStruct = Impossible<(), Error>;
    type SerializeStructVariant = Fields<'a>;

    fn serialize_unit_variant(self, _: &'static str, _: u32, _: &'static str) -> Result<(), Error> {
        SerializeStruct::end(self.json.serialize_struct("", 0)?)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        value: &T,
    ) -> Result<(), Error> {
        value.serialize(self.json)
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        len: usize,
    ) -> Result<Fields<'a>, Error> {
        self.json.serialize_seq(Some(len)).map(Fields)
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        len: usize,
    ) -> Result<Fields<'a>, Error> {
        self.json.serialize_struct("", len).map(Fields)
    }

    refuse! {
        serialize_bool(bool) -> ();
        serialize_i8(i8) -> ();
        serialize_i16(i16) -> ();
        serialize_i32(i32) -> ();
        serialize_i64(i64) -> ();
        serialize_u8(u8) -> ();
        serialize_u16(u16) -> ();
        serialize_u32(u32) -> ();
        serialize_u64(u64) -> ();
        serialize_f32(f32) -> ();
        serialize_f64(f64) -> ();
        serialize_char(char) -> ();
        serialize_str(&str) -> ();
        serialize_bytes(&[u8]) -> ();
        serialize_none() -> ();
        serialize_unit() -> ();
        serialize_unit_struct(&'static str) -> ();
        serialize_seq(Option<usize>) -> Self::SerializeSeq;
        serialize_tuple(usize) -> Self::SerializeTuple;
        serialize_tuple_struct(&'static str, usize) -> Self::SerializeTupleStruct;
        serialize_map(Option<usize>) -> Self::SerializeMap;
        serialize_struct(&'static str, usize) -> Self::SerializeStruct;
    }

    fn serialize_some<T: Serialize + ?Sized>(self, _: &T) -> Result<(), Error> {
        Err(refusal(NOT_DEFAULT))
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Result<(), Error> {
        value.serialize(self)
    }
}

impl SerializeStructVariant for Fields<'_> {
    type Ok = ();
    type Error = Error;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, key: &'static str, value: &T) -> Result<(), Error> {
        SerializeStruct::serialize_field(&mut self.0, key, value)
    }

    fn skip_field(&mut self, key: &'static str) -> Result<(), Error> {
        SerializeStruct::skip_field(&mut self.0, key)
    }

    fn end(self) -> Result<(), Error> {
        SerializeStruct::end(self.0)
    }
}

impl SerializeTupleVariant for Fields<'_> {
    type Ok = ();
    type Error = Error;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        SerializeSeq::serialize_element(&mut self.0, value)
    }

    fn end(self) -> Result<(), Error> {
        SerializeSeq::end(self.0)
    }
}

/// Content that says which variant it belongs to.
struct Named<'de> {
    variant: &'static str,
    data: &'de [u8],
}

impl<'de> Named<'de> {
    /// Reads one JSON value to its end and makes sure that nothing follows it.
    fn read<T>(
        self,
        read: impl FnOnce(&mut serde_json::Deserializer<serde_json::de::SliceRead<'de>>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let mut json = serde_json::Deserializer::from_slice(self.data);
        let value = read(&mut json)?;
        json.end().map(|()| value)
    }
}

impl<'de> Deserializer<'de> for Named<'de> {
    type Error = Error;

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_enum(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
        Err(refusal(NOT_DEFAULT))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        seq tuple tuple_struct map struct identifier ignored_any
    }
}

impl<'de> EnumAccess<'de> for Named<'de> {
    type Error = Error;
    type Variant = Self;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self), Error> {
        let variant = IntoDeserializer::<Error>::into_deserializer(self.variant);
        seed.deserialize(variant).map(|variant| (variant, self))
    }
}

impl<'de> VariantAccess<'de> for Named<'de> {
    type Error = Error;

    /// Whatever the data holds: a variant that lost its last field still reads its old events.
    fn unit_variant(self) -> Result<(), Error> {
        if self.data.is_empty() {
            return Ok(());
        }
        self.read(|json| serde::de::IgnoredAny::deserialize(json).map(|_| ()))
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Error> {
        self.read(|json| seed.deserialize(json))
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Error> {
        self.read(|json| json.deserialize_tuple(len, visitor))
    }

    fn struct_variant<V: Visitor<'de>>(self, fields: &'static [&'static str], visitor: V) -> Result<V::Value, Error> {
        self.read(|json| json.deserialize_map(MapOnly(visitor, fields)))
    }
}

/// Refuses `[1, 2]` where `{"a": 1, "b": 2}` is meant: order of fields in code is not part of the log's format.
struct MapOnly<V>(V, &'static [&'static str]);

impl<'de, V: Visitor<'de>> Visitor<'de> for MapOnly<V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "an object with {:?}", self.1)
    }

    fn visit_map<A: serde::de::MapAccess<'de>>(self, map: A) -> Result<V::Value, A::Error> {
        self.0.visit_map(map)
    }
}

/// Learns what serde calls the variants, and answers nothing.
struct Ask<'a> {
    known: &'a mut Option<&'static [&'static str]>,
}

impl<'de> Deserializer<'de> for Ask<'_> {
    type Error = Error;

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Error> {
        *self.known = Some(variants);
        Err(refusal("only asked"))
    }

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
        Err(refusal(NOT_DEFAULT))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}
