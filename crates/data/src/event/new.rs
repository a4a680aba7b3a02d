//! An event on its way into the log.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;

use super::{Tags, Timestamp};

/// An event as it is handed in: the attributes of CloudEvents 1.0, tags, and data as bytes.
///
/// # Example
/// ```
/// use quorate_data::event::NewEvent;
/// let paid = NewEvent::new("0197-1", "/shop", "payment.captured").json(br#"{"amount": 17}"#.as_slice());
/// assert_eq!(paid.content_type.as_deref(), Some("application/json"));
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct NewEvent {
    /// `id`: with `source`, unique in its stream. Appending it again changes nothing and answers as the first time did.
    pub id: Arc<str>,
    /// `source`: who says so, a URI reference.
    pub source: Arc<str>,
    /// `type`: what happened.
    pub kind: Arc<str>,
    /// `subject`, stored as given.
    pub subject: Option<Arc<str>>,
    /// `time`: when it happened, according to its producer.
    pub time: Option<Timestamp>,
    /// `datacontenttype`.
    pub content_type: Option<Arc<str>>,
    /// `dataschema`: the version of the type, see [`schema`](crate::schema).
    pub schema: Option<Arc<str>>,
    /// `correlationid`: the conversation it belongs to.
    pub correlation_id: Option<Arc<str>>,
    /// `causationid`: the message that caused it.
    pub causation_id: Option<Arc<str>>,
    /// `datasubject`: the person, or other data subject, that the data is about. The data is then encrypted with a key of
    /// that subject's, and [`Store::erase`](crate::store::Store::erase) makes it unreadable for ever.
    ///
    /// Only the data is encrypted: use a pseudonym here and in every other attribute.
    pub data_subject: Option<Arc<str>>,
    /// What it is about, for queries across streams.
    pub tags: Tags,
    /// Further extension attributes.
    pub extensions: Extensions,
    /// `data`, kept byte for byte.
    pub data: Option<Bytes>,
}

/// Extension attributes by name.
pub type Extensions = BTreeMap<String, Scalar>;

/// The value of an extension attribute.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(untagged)]
pub enum Scalar {
    /// True or false.
    Boolean(bool),
    /// A 32-bit signed integer.
    Integer(i32),
    /// A text; also URIs, times and base64.
    Text(String),
}

/// Why an event cannot be appended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidEvent {
    /// A required attribute is empty.
    #[error("`{attribute}` cannot be empty")]
    Empty {
        /// The attribute.
        attribute: &'static str,
    },
    /// An attribute is too long.
    #[error("`{attribute}` has at most {max} bytes, this one has {bytes}")]
    TooLong {
        /// The attribute.
        attribute: &'static str,
        /// Its length in bytes.
        bytes: usize,
        /// The limit in bytes.
        max: usize,
    },
    /// An attribute holds a control character.
    #[error("`{attribute}` holds a control character")]
    Control {
        /// The attribute.
        attribute: &'static str,
    },
    /// An attribute is no URI (RFC 3986).
    #[error("`{attribute}` {what}")]
    NoUri {
        /// The attribute.
        attribute: &'static str,
        /// What is wrong with it.
        what: &'static str,
    },
    /// An extension's name is not lower-case letters and digits.
    #[error("extension `{name}` is not 1 to 64 lower-case ASCII letters and digits")]
    ExtensionName {
        /// The name, shortened.
        name: String,
    },
    /// The store itself sets this attribute.
    #[error("`{name}` is set by the store and cannot be handed in")]
    Reserved {
        /// The attribute.
        name: String,
    },
}

impl NewEvent {
    /// The longest attribute, in bytes.
    pub const MAX_ATTRIBUTE_BYTES: usize = 4_096;
    /// The longest name of a data subject, in bytes.
    pub const MAX_DATA_SUBJECT_BYTES: usize = 512;
    /// The most extension attributes together, in bytes of names and values.
    pub const MAX_EXTENSION_BYTES: usize = 16_384;
    /// Attributes that the store sets on served events (decisions: events), or that have a field of their own here.
    pub const RESERVED: [&str; 19] = [
        "id",
        "source",
        "type",
        "subject",
        "time",
        "datacontenttype",
        "dataschema",
        "specversion",
        "data",
        "stream",
        "streamversion",
        "logposition",
        "recordedtime",
        "correlationid",
        "causationid",
        "tags",
        "datasubject",
        "stub",
        "archiveid",
    ];

    /// An event with the three required attributes and nothing else.
    pub fn new(id: impl Into<Arc<str>>, source: impl Into<Arc<str>>, kind: impl Into<Arc<str>>) -> Self {
        Self {
            id: id.into(),
            source: source.into(),
            kind: kind.into(),
            subject: None,
            time: None,
            content_type: None,
            schema: None,
            correlation_id: None,
            causation_id: None,
            data_subject: None,
            tags: Tags::default(),
            extensions: Extensions::new(),
            data: None,
        }
    }

    /// With `data` that is JSON.
    #[must_use]
    pub fn json(mut self, data: impl Into<Bytes>) -> Self {
        self.content_type = Some("application/json".into());
        self.data = Some(data.into());
        self
    }

    /// With `tags`.
    #[must_use]
    pub fn tagged(mut self, tags: Tags) -> Self {
        self.tags = tags;
        self
    }

    /// About the data subject `subject`: see [`data_subject`](Self::data_subject).
    #[must_use]
    pub fn about(mut self, subject: impl Into<Arc<str>>) -> Self {
        self.data_subject = Some(subject.into());
        self
    }

    /// Whether it has data that is to be encrypted.
    pub(crate) fn is_secret(&self) -> bool {
        self.data_subject.is_some() && self.data.is_some()
    }

    /// The bytes it will roughly take in the log.
    pub fn size(&self) -> usize {
        let optional = [
            &self.subject,
            &self.content_type,
            &self.schema,
            &self.correlation_id,
            &self.causation_id,
            &self.data_subject,
        ];
        let extensions = self.extensions.iter().map(|(name, value)| name.len() + value.size()).sum::<usize>();
        self.id.len()
            + self.source.len()
            + self.kind.len()
            + optional.into_iter().flatten().map(|text| text.len()).sum::<usize>()
            + self.time.as_ref().map_or(0, |time| time.as_str().len())
            + self.tags.as_str().len()
            + extensions
            + self.data.as_ref().map_or(0, Bytes::len)
    }

    /// Whether the attributes keep CloudEvents' rules and our limits. Data is not looked at.
    pub fn check(&self) -> Result<(), InvalidEvent> {
        for (attribute, text) in [("id", &self.id), ("source", &self.source), ("type", &self.kind)] {
            if text.is_empty() {
                return Err(InvalidEvent::Empty { attribute });
            }
            check_text(attribute, text)?;
        }
        let optional = [
            ("subject", &self.subject),
            ("datacontenttype", &self.content_type),
            ("dataschema", &self.schema),
            ("correlationid", &self.correlation_id),
            ("causationid", &self.causation_id),
        ];
        for (attribute, text) in optional {
            text.as_deref().map_or(Ok(()), |text| check_text(attribute, text))?;
        }
        // What is not there is left out (CloudEvents 1.0.2, "Optional Attributes"); words of one's own may be empty.
        for (attribute, text) in &optional[..3] {
            if text.as_deref().is_some_and(str::is_empty) {
                return Err(InvalidEvent::Empty { attribute });
            }
        }
        check_blanks("source", &self.source)?;
        self.schema.as_deref().map_or(Ok(()), check_schema)?;
        self.data_subject.as_deref().map_or(Ok(()), check_data_subject)?;
        check_extensions(&self.extensions)
    }
}

impl Scalar {
    fn size(&self) -> usize {
        match self {
            Self::Boolean(_) => 5,
            Self::Integer(_) => 11,
            Self::Text(text) => text.len(),
        }
    }
}

/// Whether `subject` can name a data subject.
pub(crate) fn check_data_subject(subject: &str) -> Result<(), InvalidEvent> {
    let (attribute, bytes, max) = ("datasubject", subject.len(), NewEvent::MAX_DATA_SUBJECT_BYTES);
    match bytes {
        0 => Err(InvalidEvent::Empty { attribute }),
        _ if bytes > max => Err(InvalidEvent::TooLong { attribute, bytes, max }),
        _ => check_text(attribute, subject),
    }
}

fn check_text(attribute: &'static str, text: &str) -> Result<(), InvalidEvent> {
    if text.len() > NewEvent::MAX_ATTRIBUTE_BYTES {
        return Err(InvalidEvent::TooLong { attribute, bytes: text.len(), max: NewEvent::MAX_ATTRIBUTE_BYTES });
    }
    // Looking at bytes is enough for nearly every text, and several times as fast.
    let plain = text.bytes().fold(true, |plain, byte| plain & (b' '..=b'~').contains(&byte));
    if !plain && text.contains(char::is_control) {
        return Err(InvalidEvent::Control { attribute });
    }
    Ok(())
}

/// Whether `text` can be a URI reference, as far as that can be said without taking it apart.
fn check_blanks(attribute: &'static str, text: &str) -> Result<(), InvalidEvent> {
    if text.contains(char::is_whitespace) {
        return Err(InvalidEvent::NoUri { attribute, what: "holds a blank, and is a URI: write `%20`" });
    }
    Ok(())
}

/// Whether `text` can be a `dataschema`: a URI, or an address of the store's own schemas, which begins with `/`.
fn check_schema(text: &str) -> Result<(), InvalidEvent> {
    let attribute = "dataschema";
    check_blanks(attribute, text)?;
    let scheme = text.split_once(':').map_or("", |(scheme, _)| scheme);
    let is_scheme = scheme.starts_with(|letter: char| letter.is_ascii_alphabetic())
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    if is_scheme || text.starts_with('/') {
        return Ok(());
    }
    Err(InvalidEvent::NoUri { attribute, what: "is neither a URI nor begins with `/`" })
}

fn check_extensions(extensions: &Extensions) -> Result<(), InvalidEvent> {
    for name in extensions.keys() {
        let spelled = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        if !spelled || name.is_empty() || name.len() > 64 {
            return Err(InvalidEvent::ExtensionName { name: name.chars().take(80).collect() });
        }
        if NewEvent::RESERVED.contains(&name.as_str()) {
            return Err(InvalidEvent::Reserved { name: name.clone() });
        }
    }
    let bytes = extensions.iter().map(|(name, value)| name.len() + value.size()).sum();
    if bytes > NewEvent::MAX_EXTENSION_BYTES {
        return Err(InvalidEvent::TooLong { attribute: "extensions", bytes, max: NewEvent::MAX_EXTENSION_BYTES });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{InvalidEvent, NewEvent, Scalar};

    #[test]
    fn required_attributes_must_say_something() {
        assert_eq!(NewEvent::new("", "/s", "t").check(), Err(InvalidEvent::Empty { attribute: "id" }));
        assert_eq!(NewEvent::new("1", "/s", "").check(), Err(InvalidEvent::Empty { attribute: "type" }));
        assert_eq!(NewEvent::new("1", "/s\n", "t").check(), Err(InvalidEvent::Control { attribute: "source" }));
        assert_eq!(NewEvent::new("1", "/s", "t").check(), Ok(()));
    }

    #[test]
    fn attributes_that_are_there_say_something() {
        let event = |change: fn(&mut NewEvent)| {
            let mut event = NewEvent::new("1", "/s", "t");
            change(&mut event);
            event.check()
        };
        let empty = |attribute| Err(InvalidEvent::Empty { attribute });
        assert_eq!(event(|event| event.subject = Some("".into())), empty("subject"));
        assert_eq!(event(|event| event.content_type = Some("".into())), empty("datacontenttype"));
        assert_eq!(event(|event| event.schema = Some("".into())), empty("dataschema"));
        assert_eq!(event(|event| event.correlation_id = Some("".into())), Ok(()));
    }

    #[test]
    fn sources_and_schemas_are_uris_and_names_are_free() {
        for source in ["not a uri", "/s\u{a0}", " /s"] {
            let refused = NewEvent::new("1", source, "t").check();
            assert!(matches!(refused, Err(InvalidEvent::NoUri { attribute: "source", .. })), "{source}");
        }
        for source in ["/s", "s", "urn:x", "https://x/y?z#1", "/größe"] {
            assert_eq!(NewEvent::new("1 2", source, "a type of its own").check(), Ok(()), "{source}");
        }
        let schema = |text: &str| NewEvent { schema: Some(text.into()), ..NewEvent::new("1", "/s", "t") }.check();
        for text in ["/v1/schemas/a/versions/1", "//host/x", "urn:x:1", "https://x/y", "a+b-c.d:e"] {
            assert_eq!(schema(text), Ok(()), "{text}");
        }
        for text in ["relative/x", "./x", "1:x", ":x", "a_b:c", "urn:x y"] {
            assert!(matches!(schema(text), Err(InvalidEvent::NoUri { attribute: "dataschema", .. })), "{text}");
        }
    }

    #[test]
    fn extensions_cannot_pose_as_what_the_store_sets() {
        let mut event = NewEvent::new("1", "/s", "t");
        event.extensions.insert("logposition".into(), Scalar::Text("1".into()));
        assert_eq!(event.check(), Err(InvalidEvent::Reserved { name: "logposition".into() }));
        event.extensions.clear();
        event.extensions.insert("Not-Lower".into(), Scalar::Boolean(true));
        assert!(matches!(event.check(), Err(InvalidEvent::ExtensionName { .. })));
    }
}
