//! JSON events, read.
//!
//! Decoding never trusts: any bytes yield events or a [`Fault`] that says where they go wrong.

use std::{
    borrow::Cow,
    cell::{Cell, RefCell},
    fmt,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use quorate_data::event::{InvalidEvent, NewEvent, Scalar};
use serde::{
    Deserialize, Deserializer,
    de::{self, DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use super::{Form, SET_BY_THE_STORE};
use crate::http::json;

/// What is wrong with events as they were sent, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    /// Which event of a batch, counted from 0.
    pub(crate) index: Option<usize>,
    /// Which attribute.
    pub(crate) attribute: Option<String>,
    /// What is wrong.
    pub(crate) what: String,
    /// Whether it is the size that is wrong.
    pub(crate) too_large: bool,
}

impl Fault {
    pub(super) fn of(attribute: &str, what: impl Into<String>) -> Self {
        Self { index: None, attribute: Some(attribute.to_owned()), what: what.into(), too_large: false }
    }

    fn text(what: impl Into<String>) -> Self {
        Self { index: None, attribute: None, what: what.into(), too_large: false }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.index, &self.attribute) {
            (Some(index), Some(attribute)) => write!(f, "event {index}, `{attribute}`: {}", self.what),
            (Some(index), None) => write!(f, "event {index}: {}", self.what),
            (None, Some(attribute)) => write!(f, "`{attribute}`: {}", self.what),
            (None, None) => f.write_str(&self.what),
        }
    }
}

/// The one event that `json`, a slice of `body`, holds. Data shares the body's bytes.
pub(crate) fn event(body: &Bytes, json: &[u8]) -> Result<NewEvent, Fault> {
    let place = Place::default();
    read(json, &place, OneEvent { body, place: &place })
}

/// The events of the array that `json`, a slice of `body`, holds; at most `max`. Data shares the body's bytes.
pub(crate) fn batch(body: &Bytes, json: &[u8], max: usize) -> Result<Vec<NewEvent>, Fault> {
    let place = Place::default();
    read(json, &place, Batch { body, place: &place, max })
}

/// Where reading is.
#[derive(Default)]
struct Place {
    index: Cell<Option<usize>>,
    attribute: RefCell<Option<Cow<'static, str>>>,
    too_large: Cell<bool>,
}

impl Place {
    fn at(&self, attribute: impl Into<Cow<'static, str>>) {
        *self.attribute.borrow_mut() = Some(attribute.into());
    }

    fn between(&self) {
        *self.attribute.borrow_mut() = None;
    }

    fn fault(&self, what: String) -> Fault {
        let attribute = self.attribute.borrow().as_deref().map(|name| name.chars().take(64).collect());
        Fault { index: self.index.get(), attribute, what, too_large: self.too_large.get() }
    }
}

fn read<'de, S: DeserializeSeed<'de>>(json: &'de [u8], place: &Place, seed: S) -> Result<S::Value, Fault> {
    if json.starts_with(b"\xef\xbb\xbf") {
        return Err(Fault::text("the body begins with a byte order mark, which JSON does not allow"));
    }
    let text = std::str::from_utf8(json)
        .map_err(|wrong| Fault::text(format!("the body is not UTF-8 at byte {}", wrong.valid_up_to())))?;
    let mut reader = serde_json::Deserializer::from_str(text);
    let value = seed.deserialize(&mut reader).map_err(|wrong| place.fault(wrong.to_string()))?;
    let ended = reader.end();
    ended.map_err(|wrong| Fault::text(format!("something follows the JSON value: {wrong}")))?;
    Ok(value)
}

#[derive(Clone, Copy)]
struct Batch<'b> {
    body: &'b Bytes,
    place: &'b Place,
    max: usize,
}

impl<'de> DeserializeSeed<'de> for Batch<'_> {
    type Value = Vec<NewEvent>;
    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Batch<'_> {
    type Value = Vec<NewEvent>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of events")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let mut events = Vec::new();
        let one = OneEvent { body: self.body, place: self.place };
        loop {
            self.place.index.set(Some(events.len()));
            match items.next_element_seed(one)? {
                Some(_) if events.len() == self.max => {
                    self.place.too_large.set(true);
                    self.place.index.set(None);
                    self.place.between();
                    return Err(A::Error::custom(format!("a batch has at most {} events", self.max)));
                }
                Some(event) => events.push(event),
                None => break,
            }
        }
        self.place.index.set(None);
        Ok(events)
    }
}

#[derive(Clone, Copy)]
struct OneEvent<'b> {
    body: &'b Bytes,
    place: &'b Place,
}

impl<'de> DeserializeSeed<'de> for OneEvent<'_> {
    type Value = NewEvent;
    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<NewEvent, D::Error> {
        self.place.between();
        from.deserialize_map(self)
    }
}

/// The members of an event as they come.
#[derive(Default)]
struct Members<'de> {
    seen: u16,
    version: Option<Text<'de>>,
    data: Option<&'de RawValue>,
    data_base64: Option<Text<'de>>,
}

impl<'de> Visitor<'de> for OneEvent<'_> {
    type Value = NewEvent;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an event: a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<NewEvent, A::Error> {
        let mut event = NewEvent::new("", "", "");
        let mut members = Members::default();
        loop {
            self.place.between();
            let Some(key) = map.next_key::<Text<'de>>()? else { break };
            self.member(&key.0, &mut map, &mut event, &mut members)?;
        }
        self.finish(event, &members)
    }
}

/// Attributes with a field of their own, in the order of their bits in [`Members::seen`].
const KNOWN: [&str; 14] = [
    "specversion",
    "id",
    "source",
    "type",
    "subject",
    "time",
    "datacontenttype",
    "dataschema",
    "correlationid",
    "causationid",
    "tags",
    "datasubject",
    "data",
    "data_base64",
];

impl<'b> OneEvent<'b> {
    fn member<'de, A: MapAccess<'de>>(
        self,
        key: &str,
        map: &mut A,
        event: &mut NewEvent,
        members: &mut Members<'de>,
    ) -> Result<(), A::Error> {
        let Some(bit) = KNOWN.iter().position(|known| *known == key) else { return self.extension(key, map, event) };
        self.place.at(KNOWN[bit]);
        if members.seen & 1 << bit != 0 {
            return Err(A::Error::custom("the member stands there twice"));
        }
        members.seen |= 1 << bit;
        match bit {
            0 => members.version = map.next_value()?,
            1 => event.id = required(map)?,
            2 => event.source = required(map)?,
            3 => event.kind = required(map)?,
            4 => event.subject = optional(map)?,
            5 => event.time = parsed(map)?,
            6 => event.content_type = optional(map)?,
            7 => event.schema = optional(map)?,
            8 => event.correlation_id = optional(map)?,
            9 => event.causation_id = optional(map)?,
            10 => event.tags = parsed(map)?.unwrap_or_default(),
            11 => event.data_subject = optional(map)?,
            12 => members.data = Some(map.next_value()?),
            _ => members.data_base64 = map.next_value()?,
        }
        Ok(())
    }

    fn extension<'de, A: MapAccess<'de>>(self, key: &str, map: &mut A, event: &mut NewEvent) -> Result<(), A::Error> {
        self.place.at(key.to_owned());
        if SET_BY_THE_STORE.contains(&key) {
            return Err(A::Error::custom("the store sets this attribute; it cannot be handed in"));
        }
        if event.extensions.contains_key(key) {
            return Err(A::Error::custom("the member stands there twice"));
        }
        if let Some(value) = map.next_value::<Option<Plain>>()? {
            event.extensions.insert(key.to_owned(), value.0);
        }
        Ok(())
    }

    fn finish<E: de::Error>(self, mut event: NewEvent, members: &Members<'_>) -> Result<NewEvent, E> {
        for (bit, name) in KNOWN.iter().enumerate().take(4) {
            if members.seen & 1 << bit == 0 {
                self.place.at(*name);
                return Err(E::custom("the attribute is missing"));
            }
        }
        if members.version.as_ref().map(|version| &*version.0) != Some("1.0") {
            self.place.at("specversion");
            return Err(E::custom("only CloudEvents 1.0 is understood: \"1.0\""));
        }
        if let (Some(_), Some(_)) = (members.data, &members.data_base64) {
            self.place.at("data_base64");
            return Err(E::custom("an event has `data` or `data_base64`, not both"));
        }
        if let Some(data) = members.data {
            self.place.at("data");
            event.data = Some(self.data(data, &mut event)?);
        }
        if let Some(data) = &members.data_base64 {
            self.place.at("data_base64");
            let bytes = STANDARD.decode(&*data.0).map_err(|_| E::custom("this is no base64"))?;
            // Where it is JSON it is served as JSON.
            if Form::of(event.content_type.as_deref()) == Form::Json
                && json::is_json(&bytes)
                && let Some(flaw) = json::flaw(&bytes)
            {
                return Err(E::custom(flaw));
            }
            event.data = Some(bytes.into());
        }
        checked(&event).map_err(|(attribute, what)| {
            attribute.map_or_else(|| self.place.between(), |name| self.place.at(name));
            E::custom(what)
        })?;
        self.place.between();
        Ok(event)
    }

    fn data<E: de::Error>(self, raw: &RawValue, event: &mut NewEvent) -> Result<Bytes, E> {
        if let Some(flaw) = json::flaw(raw.get().as_bytes()) {
            return Err(E::custom(flaw));
        }
        if Form::of(event.content_type.as_deref()) == Form::Json {
            event.content_type.get_or_insert_with(|| "application/json".into());
            return Ok(self.body.slice_ref(raw.get().as_bytes()));
        }
        let text: Text<'_> = serde_json::from_str(raw.get())
            .map_err(|_| E::custom("data of a `datacontenttype` that is not JSON is a string, or `data_base64`"))?;
        Ok(Bytes::copy_from_slice(text.0.as_bytes()))
    }
}

/// Whether the attributes keep the rules; else which one does not, and how.
pub(super) fn checked(event: &NewEvent) -> Result<(), (Option<String>, String)> {
    event.check().map_err(|wrong| {
        let attribute = match &wrong {
            InvalidEvent::Empty { attribute }
            | InvalidEvent::TooLong { attribute, .. }
            | InvalidEvent::Control { attribute }
            | InvalidEvent::NoUri { attribute, .. } => Some((*attribute).to_owned()),
            InvalidEvent::ExtensionName { name } | InvalidEvent::Reserved { name } => Some(name.clone()),
            _ => None,
        };
        (attribute, wrong.to_string())
    })
}

fn required<'de, A: MapAccess<'de>>(map: &mut A) -> Result<std::sync::Arc<str>, A::Error> {
    map.next_value::<Text<'de>>().map(|text| (&*text.0).into())
}

/// A text; `null` stands for an attribute that is not there.
fn optional<'de, A: MapAccess<'de>>(map: &mut A) -> Result<Option<std::sync::Arc<str>>, A::Error> {
    Ok(map.next_value::<Option<Text<'de>>>()?.map(|text| (&*text.0).into()))
}

fn parsed<'de, A: MapAccess<'de>, T>(map: &mut A) -> Result<Option<T>, A::Error>
where
    T: std::str::FromStr<Err: fmt::Display>,
{
    let text = map.next_value::<Option<Text<'de>>>()?;
    text.map(|text| text.0.parse()).transpose().map_err(A::Error::custom)
}

/// A JSON string, borrowed where it holds no escapes.
struct Text<'de>(Cow<'de, str>);

impl<'de> Deserialize<'de> for Text<'de> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Borrowing;
        impl<'de> Visitor<'de> for Borrowing {
            type Value = Text<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        from.deserialize_str(Borrowing)
    }
}

/// The value of an extension attribute.
struct Plain(Scalar);

impl<'de> Deserialize<'de> for Plain {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Any;
        impl Visitor<'_> for Any {
            type Value = Plain;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string, a boolean or a 32-bit integer")
            }
            fn visit_bool<E>(self, value: bool) -> Result<Plain, E> {
                Ok(Plain(Scalar::Boolean(value)))
            }
            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Plain, E> {
                let small = i32::try_from(value).map_err(|_| E::invalid_value(de::Unexpected::Signed(value), &self))?;
                Ok(Plain(Scalar::Integer(small)))
            }
            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Plain, E> {
                let small =
                    i32::try_from(value).map_err(|_| E::invalid_value(de::Unexpected::Unsigned(value), &self))?;
                Ok(Plain(Scalar::Integer(small)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Plain, E> {
                Ok(Plain(Scalar::Text(text.to_owned())))
            }
        }
        from.deserialize_any(Any)
    }
}

#[cfg(test)]
mod tests;
