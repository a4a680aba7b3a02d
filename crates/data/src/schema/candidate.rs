//! Holding an event that is about to be appended against the schema of its type.

use super::{
    address::version_of,
    document::clipped,
    registry::{Checked, Rejection, Schemas, Which},
    version::SchemaVersion,
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

    /// The version that it has to fit; `None` if its `dataschema` names none.
    fn version(&self) -> Option<SchemaVersion> {
        version_of(self.dataschema, self.event_type)
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
    /// Holds an event against the schema of its type, the [version that it is of](super::version_of): the one that its
    /// `dataschema` names, version 1 without one. An event without data counts as `null`.
    ///
    /// # Errors
    /// [`Rejection`]: what is wrong with it. Repeating does not help unless a schema is registered meanwhile.
    pub fn check(&self, event: &NewEvent) -> Result<Checked, Rejection> {
        self.check_candidate(Candidate::from(event))
    }

    /// Whether [checking](Self::check) `event` compiles nothing first.
    pub(crate) fn is_quick(&self, event: &NewEvent) -> bool {
        let event = Candidate::from(event);
        event.version().is_none_or(|version| self.is_made(event.event_type, Which::Exactly(version)))
    }

    pub(crate) fn check_candidate(&self, event: Candidate<'_>) -> Result<Checked, Rejection> {
        let latest = self.latest(event.event_type);
        if latest.is_some()
            && let Some(content_type) = event.content_type.filter(|content_type| !is_json(content_type))
        {
            return Err(Rejection::NotJsonType { content_type: clipped(content_type.to_owned(), 200) });
        }
        let which = match event.version() {
            Some(version) => Which::Exactly(version),
            None if latest.is_none() => Which::Latest,
            None => {
                let dataschema = clipped(event.dataschema.unwrap_or_default().to_owned(), 200);
                return Err(Rejection::NoVersion { dataschema });
            }
        };
        let checked = self.validate_bytes(event.event_type, which, event.data.unwrap_or(b"null"));
        let unnamed = latest.filter(|latest| event.dataschema.is_none() && *latest > SchemaVersion::FIRST);
        checked.map_err(|cause| cause.of_unnamed(unnamed))
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
        assert_eq!(check(r#"{"pence":1}"#, Some(&two)), Ok(Checked::Valid(second)));
        assert_eq!(check(r#"{"pounds":1}"#, None), Ok(Checked::Valid(first)), "whoever knows of no versions");
        let unnamed = check(r#"{"pence":1}"#, None).unwrap_err().to_string();
        assert!(unnamed.contains("version 1") && unnamed.ends_with("the newest is 2"), "{unnamed}");
        let named = check(r#"{"pence":1}"#, Some(&one)).unwrap_err().to_string();
        assert!(!named.contains("newest"), "{named}");
        for data in [r#"{"pence":1}"#, r#"{"pounds":1}"#] {
            let elsewhere = check(data, Some("urn:else"));
            assert_eq!(elsewhere, Err(Rejection::NoVersion { dataschema: "urn:else".into() }));
        }
        let other = NewEvent { kind: "else".into(), schema: Some("urn:else".into()), ..paid("{}") };
        assert_eq!(schemas.check(&other), Ok(Checked::NoSchema), "its type has no versions");
        let third = check(r#"{"pence":1}"#, Some("/v1/schemas/paid/versions/3"));
        assert!(matches!(third, Err(Rejection::UnknownVersion { .. })), "{third:?}");
    }

    #[test]
    fn data_that_is_not_json_fits_no_schema_and_no_data_is_null() {
        let registry = registry();
        let check = |event: &NewEvent| registry.current().check(event);
        let text = NewEvent { content_type: Some("text/plain".into()), ..paid(r#"{"pounds":1}"#) };
        assert!(matches!(check(&text), Err(Rejection::NotJsonType { .. })));
        let unsaid = NewEvent { content_type: None, ..paid(r#"{"pounds":1}"#) };
        assert!(check(&unsaid).is_ok(), "CloudEvents takes it for JSON");
        assert!(matches!(check(&paid("{")), Err(Rejection::NotJson { .. })));
        let twice = check(&paid(r#"{"pounds":"one","pounds":1}"#));
        assert!(matches!(twice, Err(Rejection::Twice { line: 1, .. })), "{twice:?}");
        let nested = "[".repeat(10_000);
        let nested = NewEvent { data: Some(nested.into()), ..paid("") };
        assert!(matches!(check(&nested), Err(Rejection::TooDeep { .. })), "{:?}", check(&nested));
        let nothing = NewEvent { data: None, ..paid("") };
        assert!(matches!(check(&nothing), Err(Rejection::Violations { .. })));
        let third = registry.register(&"paid".parse().unwrap(), &json!({"type": "null"}), Compatibility::None).unwrap();
        assert!(check(&NewEvent { schema: Some(address("paid", third).into()), ..nothing }).is_ok());
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
