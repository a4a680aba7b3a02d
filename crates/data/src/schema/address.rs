//! Where a node serves a version of a schema, which is what an event's `dataschema` names.

use super::version::SchemaVersion;
use std::fmt::Write as _;

const ROOT: &str = "/v1/schemas/";
const VERSIONS: &str = "/versions/";

/// The address of version `version` of `event_type`: a path, with the type's name as one segment.
///
/// # Example
/// ```
/// use quorate_data::schema::{SchemaVersion, address, version_named};
/// let second = SchemaVersion::FIRST.next();
/// assert_eq!(address("order.placed", second), "/v1/schemas/order.placed/versions/2");
/// assert_eq!(version_named("/v1/schemas/order.placed/versions/2", "order.placed"), Some(second));
/// ```
pub fn address(event_type: &str, version: SchemaVersion) -> String {
    let mut address = ROOT.to_owned();
    encode(event_type, &mut address);
    let _ = write!(address, "{VERSIONS}{version}");
    address
}

/// The version of `event_type` that a `dataschema` names; `None` if it is something else, or about another type.
///
/// On any host: behind a proxy a node does not know its own names. `/v1/schemas/{type}/{n}`, which quorate wrote before it
/// served schemas, counts as well.
pub fn version_named(dataschema: &str, event_type: &str) -> Option<SchemaVersion> {
    let path = match dataschema.strip_prefix("https://").or_else(|| dataschema.strip_prefix("http://")) {
        Some(rest) => &rest[rest.find('/')?..],
        None => dataschema,
    };
    let (subject, number) = path.strip_prefix(ROOT)?.rsplit_once('/')?;
    let subject = subject.strip_suffix("/versions").unwrap_or(subject);
    let is_meant = subject == event_type || {
        let mut encoded = String::new();
        encode(event_type, &mut encoded);
        subject == encoded
    };
    let is_plain = number.bytes().all(|byte| byte.is_ascii_digit()) && !number.starts_with('0');
    (is_meant && is_plain).then(|| number.parse().ok()).flatten().and_then(SchemaVersion::new)
}

/// The version that an event is of, whoever asks: the one that its `dataschema` names; the first where it has none, since a
/// producer that knows of no versions goes on writing what it wrote when there was one. `None`: it names something else.
///
/// # Example
/// ```
/// use quorate_data::schema::{SchemaVersion, version_of};
/// assert_eq!(version_of(None, "order.placed"), Some(SchemaVersion::FIRST));
/// assert_eq!(version_of(Some("urn:else"), "order.placed"), None);
/// ```
pub fn version_of(dataschema: Option<&str>, event_type: &str) -> Option<SchemaVersion> {
    dataschema.map_or(Some(SchemaVersion::FIRST), |dataschema| version_named(dataschema, event_type))
}

fn encode(text: &str, into: &mut String) {
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => into.push(char::from(byte)),
            _ => drop(write!(into, "%{byte:02X}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{SchemaVersion, address, version_named};

    #[test]
    fn a_version_survives_being_named_whatever_its_type_is_called() {
        let version = SchemaVersion::new(17).unwrap();
        for event_type in ["a", "order.placed", "com/example/placed", "a/versions", "é %2F", "versions/3"] {
            assert_eq!(version_named(&address(event_type, version), event_type), Some(version), "{event_type}");
        }
    }

    #[test]
    fn the_host_and_the_older_form_do_not_matter_and_everything_else_names_nothing() {
        let named = |dataschema| version_named(dataschema, "a.b").map(SchemaVersion::get);
        for good in [
            "/v1/schemas/a.b/versions/2",
            "https://events.example/v1/schemas/a.b/versions/2",
            "http://127.0.0.1:7400/v1/schemas/a.b/versions/2",
            "/v1/schemas/a.b/2",
        ] {
            assert_eq!(named(good), Some(2), "{good}");
        }
        for other in [
            "",
            "urn:x:1",
            "https://",
            "https://events.example",
            "/v1/schemas/",
            "/v1/schemas/a.b",
            "/v1/schemas/a.b/versions/",
            "/v1/schemas/a.b/versions/0",
            "/v1/schemas/a.b/versions/02",
            "/v1/schemas/a.b/versions/+2",
            "/v1/schemas/a.b/versions/99999999999",
            "/v1/schemas/a.c/versions/2",
            "ftp://x/v1/schemas/a.b/versions/2",
            "/v2/schemas/a.b/versions/2",
        ] {
            assert_eq!(named(other), None, "{other}");
        }
    }
}
