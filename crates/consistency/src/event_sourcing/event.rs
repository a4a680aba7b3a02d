//! Typed events: an enum of ours on one side, a type name, a version and JSON on the other.

use super::payload;

/// A type of event as it is written: its name for all readers, and the version of its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventType {
    /// `type` of the event, such as `account.opened`.
    pub name: &'static str,
    /// The version of its data, counted from 1. Raised when the data changes its meaning or shape.
    pub version: u32,
}

/// All that can happen to one kind of thing. [`event_types!`](crate::event_types) implements it for an enum.
pub trait DomainEvent: Sized + Send + Sync + 'static {
    /// Its types, each in the version that this code writes.
    const TYPES: &'static [EventType];

    /// Which of [`TYPES`](Self::TYPES) this one is.
    fn type_index(&self) -> usize;

    /// Writes its data, as JSON, behind what `data` already holds.
    ///
    /// # Errors
    /// What serde says: a map with keys that are no texts, or a serializer that refuses.
    fn encode(&self, data: &mut Vec<u8>) -> Result<(), serde_json::Error>;

    /// Reads the data of an event of type `TYPES[type_index]`, in the version given there.
    ///
    /// # Errors
    /// What serde says about data of another shape.
    fn decode(type_index: usize, data: &[u8]) -> Result<Self, serde_json::Error>;

    /// What it is about, for queries across streams: words such as `course:17`.
    fn tags(&self) -> Vec<String> {
        Vec::new()
    }

    /// The person, or other data subject, that its data is about: then the data is encrypted, and
    /// [erasing](quorate_data::store::Store::erase) the subject takes the event out of every state.
    fn data_subject(&self) -> Option<String> {
        None
    }

    /// Whether the declaration holds together. Asked once, at start-up.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    fn check() -> Result<(), String> {
        check_types(Self::TYPES)
    }
}

/// Whether names are unique and versions counted from 1.
pub(crate) fn check_types(types: &[EventType]) -> Result<(), String> {
    for (n, this) in types.iter().enumerate() {
        if this.version == 0 {
            return Err(format!("event type `{}` has version 0: versions count from 1", this.name));
        }
        if types[..n].iter().any(|other| other.name == this.name) {
            return Err(format!("event type `{}` is declared twice", this.name));
        }
    }
    Ok(())
}

/// What [`event_types!`](crate::event_types) calls.
#[doc(hidden)]
pub fn check_enum<E: serde::de::DeserializeOwned>(types: &[EventType], variants: &[&str]) -> Result<(), String> {
    check_types(types)?;
    payload::check_variants::<E>(variants)
}

/// Implements [`DomainEvent`] for an enum that has serde's derives.
///
/// Each variant gets a type name and a version, tags where events are to be found across streams, and `about` a data
/// subject where the data is a person's; the data is the variant's content without its name. A variant left out is a compile error.
///
/// # Example
/// ```
/// use quorate_consistency::{event_sourcing::DomainEvent, event_types};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Debug, PartialEq, Serialize, Deserialize)]
/// enum Event {
///     Defined { course: u32, seats: u32 },
///     Enrolled { course: u32, student: String },
///     Excused { student: String, reason: String },
///     Closed,
/// }
///
/// event_types! {
///     Event {
///         Defined { course } = "course.defined" version 2 tags ["course:{course}"],
///         Enrolled { course, student } = "course.enrolled" version 1 tags ["course:{course}", "student:{student}"],
///         Excused { student } = "student.excused" version 1 about "student:{student}",
///         Closed = "course.closed" version 1,
///     }
/// }
///
/// let excused = Event::Excused { student: "s-4".into(), reason: "flu".into() };
/// assert_eq!(excused.data_subject().as_deref(), Some("student:s-4"));
/// let event = Event::Enrolled { course: 7, student: "ada".into() };
/// let mut data = vec![];
/// event.encode(&mut data)?;
/// assert_eq!(data, br#"{"course":7,"student":"ada"}"#);
/// assert_eq!(event.tags(), ["course:7", "student:ada"]);
/// assert_eq!(Event::decode(1, &data)?, event);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[macro_export]
macro_rules! event_types {
    ($event:ty { $(
        $variant:ident $({ $($field:ident),* $(,)? })? = $name:literal version $version:literal
        $(tags [$($tag:literal),* $(,)?])? $(about $subject:literal)?
    ),+ $(,)? }) => {
        impl $crate::event_sourcing::DomainEvent for $event {
            const TYPES: &'static [$crate::event_sourcing::EventType] =
                &[$($crate::event_sourcing::EventType { name: $name, version: $version }),+];

            fn type_index(&self) -> usize {
                #[allow(non_camel_case_types)]
                enum Index { $($variant),+ }
                match self { $(Self::$variant { .. } => Index::$variant as usize),+ }
            }

            fn encode(&self, data: &mut Vec<u8>) -> Result<(), $crate::event_sourcing::JsonError> {
                $crate::event_sourcing::encode_variant(self, data)
            }

            fn decode(type_index: usize, data: &[u8]) -> Result<Self, $crate::event_sourcing::JsonError> {
                const VARIANTS: &[&str] = &[$(stringify!($variant)),+];
                $crate::event_sourcing::decode_variant(VARIANTS[type_index], data)
            }

            #[allow(unused_variables)]
            fn tags(&self) -> Vec<String> {
                match self {
                    $(Self::$variant { $($($field,)*)? .. } => vec![$($(format!($tag)),*)?]),+
                }
            }

            #[allow(unused_variables)]
            fn data_subject(&self) -> Option<String> {
                match self {
                    $(Self::$variant { $($($field,)*)? .. } => None::<String>$(.or_else(|| Some(format!($subject))))?),+
                }
            }

            fn check() -> Result<(), String> {
                $crate::event_sourcing::check_enum::<Self>(Self::TYPES, &[$(stringify!($variant)),+])
            }
        }
    };
}

#[cfg(test)]
mod tests {
    use super::{DomainEvent, EventType};
    use serde::{Deserialize, Serialize};

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    enum Mixed {
        Unit,
        Newtype(u32),
        Tuple(u32, String),
        Struct { a: Option<u32> },
    }
    event_types! {
        Mixed {
            Unit = "mixed.unit" version 1,
            Newtype = "mixed.newtype" version 1,
            Tuple = "mixed.tuple" version 3,
            Struct { a } = "mixed.struct" version 1 tags ["a:{a:?}"],
        }
    }

    fn round_trip(event: &Mixed) -> (String, Mixed) {
        let mut data = vec![];
        event.encode(&mut data).unwrap();
        let back = Mixed::decode(event.type_index(), &data).unwrap();
        (String::from_utf8(data).unwrap(), back)
    }

    #[test]
    fn data_is_the_variants_content_without_its_name_and_comes_back() {
        let cases = [
            (Mixed::Unit, "{}"),
            (Mixed::Newtype(7), "7"),
            (Mixed::Tuple(7, "x".into()), r#"[7,"x"]"#),
            (Mixed::Struct { a: None }, r#"{"a":null}"#),
        ];
        for (event, json) in cases {
            assert_eq!(round_trip(&event), (json.to_owned(), event));
        }
    }

    #[test]
    fn a_reader_tolerates_members_it_does_not_know() {
        assert_eq!(Mixed::decode(3, br#"{"a":1,"later":true}"#).unwrap(), Mixed::Struct { a: Some(1) });
        assert_eq!(Mixed::decode(0, br#"{"later":true}"#).unwrap(), Mixed::Unit);
        assert_eq!(Mixed::decode(0, b"").unwrap(), Mixed::Unit);
    }

    #[test]
    fn data_of_another_shape_is_an_error_and_so_is_what_follows_it() {
        for data in [&b""[..], b"[]", br#"{"a":-1}"#, b"{", br#"{"a":1} x"#, b"\xff"] {
            assert!(Mixed::decode(3, data).is_err(), "{data:?}");
        }
        assert!(Mixed::decode(1, b"7 8").is_err());
    }

    #[test]
    fn a_declaration_that_does_not_hold_together_is_named() {
        assert_eq!(Mixed::check(), Ok(()));
        let twice = [EventType { name: "a", version: 1 }, EventType { name: "a", version: 2 }];
        assert!(super::check_types(&twice).unwrap_err().contains("`a` is declared twice"));
        assert!(super::check_types(&[EventType { name: "a", version: 0 }]).unwrap_err().contains("version 0"));
    }

    #[test]
    fn serde_attributes_that_hide_the_variants_are_found_at_start_up() {
        #[derive(Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        enum Renamed {
            OneThing,
        }
        event_types! { Renamed { OneThing = "thing" version 1 } }
        assert!(Renamed::check().unwrap_err().contains("`OneThing`"), "{:?}", Renamed::check());

        #[derive(Serialize, Deserialize)]
        #[serde(tag = "kind")]
        enum Tagged {
            Thing { n: u32 },
        }
        event_types! { Tagged { Thing = "thing" version 1 } }
        assert!(Tagged::check().unwrap_err().contains("serde's default"), "{:?}", Tagged::check());
    }
}
