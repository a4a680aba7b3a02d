//! Holding an event that is about to be appended against the schema of its type.

use super::{
    address::version_named,
    document::clipped,
    registry::{Checked, Rejection, Schemas, Which},
};
use crate::event::{NewEvent, Recorded};

/// What of an event is looked at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Candidate<'e> {
    event_type: &'e str,
    dataschema: Option<&'e str>,
    content_type: Option<&'e str>,
    data: Option<&'e [u8]>,
}

impl<'e> Candidate<'e> {
    pub(crate) fn event_type(&self) -> &'e str {
        self.event_type
    }

    /// The version that it has to fit.
    fn which(&self) -> Which {
        let named = self.dataschema.and_then(|dataschema| version_named(dataschema, self.event_type));
        named.map_or(Which::Latest, Which::Exactly)
    }
}

impl<'e> From<&'e NewEvent> for Candidate<'e> {
    fn from(event: &'e NewEvent) -> Self {
        Self {
            event_type: &event.kind,
            dataschema: event.schema.as_deref(),
            content_type: event.content_type.as_deref(),
            data: event.data.as_deref(),
        }
    }
}

impl<'e> From<&'e Recorded> for Candidate<'e> {
    /// Of an event whose data is in the clear.
    fn from(event: &'e Recorded) -> Self {
        Self {
            event_type: event.kind(),
            dataschema: event.schema(),
            content_type: event.content_type(),
            data: event.data(),
        }
    }
}

impl Schemas {
    /// Holds an event against the schema of its type: the version that its `dataschema` names (see
    /// [`address`](super::address())), else the newest. An event without data counts as `null`.
    ///
    /// # Errors
    /// [`Rejection`]: what is wrong with it. Repeating does not help unless a schema is registered meanwhile.
    pub fn check(&self, event: &NewEvent) -> Result<Checked, Rejection> {
        self.check_candidate(Candidate::from(event))
    }

    /// Whether [checking](Self::check) `event` compiles nothing first.
    pub(crate) fn is_quick(&self, event: &NewEvent) -> bool {
        let event = Candidate::from(event);
        self.is_made(event.event_type, event.which())
    }

    pub(crate) fn check_candidate(&self, event: Candidate<'_>) -> Result<Checked, Rejection> {
        let which = event.which();
        if self.latest(event.event_type).is_some()
            && let Some(content_type) = event.content_type.filter(|content_type| !is_json(content_type))
        {
            return Err(Rejection::NotJsonType { content_type: clipped(content_type.to_owned(), 200) });
        }
        self.validate_bytes(event.event_type, which, event.data.unwrap_or(b"null"))
    }
}

/// Whether a media type is JSON: `application/json`, `text/json` or anything that ends in `+json` (RFC 6839).
fn is_json(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence.split_once('/').is_some_and(|(_, subtype)| subtype == "json" || subtype.ends_with("+json"))
}

#[cfg(test)]
mod tests {
    use super::{Checked, NewEvent, Rejection, is_json};
    use crate::schema::{Compatibility, RegistryPolicy, SchemaRegistry, SchemaVersion, address};
    use serde_json::json;

    fn registry() -> SchemaRegistry {
        let registry = SchemaRegistry::new(RegistryPolicy::default());
        for unit in ["pounds", "pence"] {
            let schema = json!({"type": "object", "required": [unit], "properties": {unit: {"type": "integer"}}});
            registry.register(&"paid".parse().unwrap(), &schema, Compatibility::None).unwrap();
        }
        registry
    }

    fn paid(data: &'static str) -> NewEvent {
        NewEvent::new("1", "/till", "paid").json(data.as_bytes())
    }

    #[test]
    fn the_version_that_an_event_names_is_the_one_it_has_to_fit() {
        let schemas = registry().current();
        let check = |data, dataschema: Option<&str>| {
            schemas.check(&NewEvent { schema: dataschema.map(Into::into), ..paid(data) })
        };
        let (first, second) = (SchemaVersion::FIRST, SchemaVersion::FIRST.next());
        let (one, two) = (address("paid", first), address("paid", second));
        assert_eq!(check(r#"{"pounds":1}"#, Some(&one)), Ok(Checked::Valid(first)));
        assert!(check(r#"{"pounds":1}"#, Some(&two)).is_err());
        assert!(check(r#"{"pounds":1}"#, None).is_err(), "the newest counts");
        assert_eq!(check(r#"{"pence":1}"#, None), Ok(Checked::Valid(second)));
        assert_eq!(check(r#"{"pence":1}"#, Some("urn:else")), Ok(Checked::Valid(second)));
        let third = check(r#"{"pence":1}"#, Some("/v1/schemas/paid/versions/3"));
        assert!(matches!(third, Err(Rejection::UnknownVersion { .. })), "{third:?}");
    }

    #[test]
    fn data_that_is_not_json_fits_no_schema_and_no_data_is_null() {
        let registry = registry();
        let check = |event: &NewEvent| registry.current().check(event);
        let text = NewEvent { content_type: Some("text/plain".into()), ..paid(r#"{"pence":1}"#) };
        assert!(matches!(check(&text), Err(Rejection::NotJsonType { .. })));
        let unsaid = NewEvent { content_type: None, ..paid(r#"{"pence":1}"#) };
        assert!(check(&unsaid).is_ok(), "CloudEvents takes it for JSON");
        assert!(matches!(check(&paid("{")), Err(Rejection::NotJson { .. })));
        let twice = check(&paid(r#"{"pence":"one","pence":1}"#));
        assert!(matches!(twice, Err(Rejection::Twice { line: 1, .. })), "{twice:?}");
        let nested = "[".repeat(10_000);
        let nested = NewEvent { data: Some(nested.into()), ..paid("") };
        assert!(matches!(check(&nested), Err(Rejection::TooDeep { .. })), "{:?}", check(&nested));
        let nothing = NewEvent { data: None, ..paid("") };
        assert!(matches!(check(&nothing), Err(Rejection::Violations { .. })));
        registry.register(&"paid".parse().unwrap(), &json!({"type": "null"}), Compatibility::None).unwrap();
        assert!(check(&nothing).is_ok());
        let other = NewEvent { kind: "else".into(), ..text };
        assert_eq!(check(&other), Ok(Checked::NoSchema));
    }

    #[test]
    fn json_is_told_by_its_media_type() {
        for json in ["application/json", "Application/JSON; charset=utf-8", "application/vnd.x+json", "text/json"] {
            assert!(is_json(json), "{json}");
        }
        for other in ["text/plain", "json", "application/jsonl", "application/xml", ""] {
            assert!(!is_json(other), "{other}");
        }
    }
}
