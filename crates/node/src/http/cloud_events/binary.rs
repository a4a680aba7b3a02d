//! Binary mode: attributes as `ce-…` headers, data as the body.

use std::{fmt, str::FromStr, sync::Arc};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName,
    header::{CONTENT_LENGTH, CONTENT_TYPE},
};
use quorate_data::event::{NewEvent, Scalar};

use super::{Fault, Form, SET_BY_THE_STORE, essence, parse::checked};
use crate::http::json::{flaw, is_json};

/// Whether a request carries one event in binary mode.
pub(crate) fn is_binary(headers: &HeaderMap) -> bool {
    let structured = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let structured =
        structured.is_some_and(|media| essence(media).to_ascii_lowercase().starts_with("application/cloudevents"));
    !structured && headers.keys().any(|name| name.as_str().starts_with("ce-"))
}

/// The event that headers and body carry. Data shares the body's bytes.
pub(crate) fn from_headers(headers: &HeaderMap, body: Bytes) -> Result<NewEvent, Fault> {
    let mut event = NewEvent::new("", "", "");
    let mut version = None;
    let ours = headers.keys().filter_map(|name| Some((name, name.as_str().strip_prefix("ce-")?)));
    for (header, name) in ours {
        let text = value(headers, header, name)?;
        match name {
            "specversion" => version = Some(text),
            "id" => event.id = text.into(),
            "source" => event.source = text.into(),
            "type" => event.kind = text.into(),
            "subject" => event.subject = Some(text.into()),
            "time" => event.time = Some(parsed(name, &text)?),
            "dataschema" => event.schema = Some(text.into()),
            "correlationid" => event.correlation_id = Some(text.into()),
            "causationid" => event.causation_id = Some(text.into()),
            "datasubject" => event.data_subject = Some(text.into()),
            "tags" => event.tags = parsed(name, &text)?,
            "datacontenttype" => return Err(Fault::of(name, "in binary mode this is the header `content-type`")),
            _ if SET_BY_THE_STORE.contains(&name) => {
                return Err(Fault::of(name, "the store sets this attribute; it cannot be handed in"));
            }
            _ => drop(event.extensions.insert(name.to_owned(), Scalar::Text(text))),
        }
    }
    match version.as_deref() {
        Some("1.0") => {}
        Some(_) => return Err(Fault::of("specversion", "only CloudEvents 1.0 is understood: `ce-specversion: 1.0`")),
        None => return Err(Fault::of("specversion", "the header `ce-specversion` is missing")),
    }
    (event.content_type, event.data) = content(headers, body)?;
    checked(&event).map_err(|(attribute, what)| Fault { attribute, ..Fault::of("", what) })?;
    Ok(event)
}

/// Content type and data; without a body, none of either is needed.
fn content(headers: &HeaderMap, body: Bytes) -> Result<(Option<Arc<str>>, Option<Bytes>), Fault> {
    let media = match headers.get(CONTENT_TYPE) {
        Some(value) => Some(value.to_str().map_err(|_| Fault::of("datacontenttype", "`content-type` is not ASCII"))?),
        None => None,
    };
    // An empty body is data only where somebody says so: `content-length: 0` beside a type of content.
    if body.is_empty() && !(media.is_some() && headers.contains_key(CONTENT_LENGTH)) {
        return Ok((media.map(Into::into), None));
    }
    if body.is_empty() && Form::of(media) == Form::Json {
        return Ok((media.map(Into::into), None));
    }
    let media = media.unwrap_or("application/octet-stream");
    if Form::of(Some(media)) == Form::Json {
        if !is_json(&body) {
            return Err(Fault::of("data", format!("the body is not JSON, although `content-type` is {media}")));
        }
        if let Some(flaw) = flaw(&body) {
            return Err(Fault::of("data", flaw));
        }
    }
    Ok((Some(media.into()), Some(body)))
}

fn value(headers: &HeaderMap, header: &HeaderName, name: &str) -> Result<String, Fault> {
    let mut values = headers.get_all(header).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return Err(Fault::of(name, "the header stands there twice"));
    };
    decoded(value.as_bytes()).ok_or_else(|| Fault::of(name, "the header is not percent-encoded UTF-8"))
}

fn parsed<T: FromStr<Err: fmt::Display>>(name: &str, text: &str) -> Result<T, Fault> {
    text.parse().map_err(|wrong: T::Err| Fault::of(name, wrong.to_string()))
}

/// Section 3.1.3.2 of the HTTP binding: quotes first, then percent-encoding.
fn decoded(value: &[u8]) -> Option<String> {
    let unquoted = value.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\""));
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = unquoted.unwrap_or(value).iter().copied();
    while let Some(byte) = rest.next() {
        match byte {
            b'\\' if unquoted.is_some() => bytes.push(rest.next()?),
            b'%' => bytes.push(hex(rest.next()?)? << 4 | hex(rest.next()?)?),
            byte => bytes.push(byte),
        }
    }
    String::from_utf8(bytes).ok()
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use super::{decoded, from_headers, is_binary};
    use bytes::Bytes;
    use http::{HeaderMap, HeaderName, HeaderValue};
    use proptest::prelude::*;
    use quorate_communication::cloud_events::header_value as encoded;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &str)| {
            (HeaderName::from_static(name), HeaderValue::from_bytes(value.as_bytes()).unwrap())
        };
        pairs.iter().map(pair).collect()
    }

    const REQUIRED: [(&str, &str); 4] =
        [("ce-specversion", "1.0"), ("ce-id", "1"), ("ce-source", "/s"), ("ce-type", "t")];

    #[test]
    fn attributes_come_from_headers_and_data_from_the_body() {
        let mut all = REQUIRED.to_vec();
        all.extend([
            ("ce-subject", "Euro%20%E2%82%AC"),
            ("ce-datasubject", "c-17"),
            ("ce-priority", "\"a \\\"b\\\"\""),
            ("content-type", "text/plain"),
        ]);
        let event = from_headers(&headers(&all), Bytes::from_static(b"hello")).unwrap();
        assert_eq!(event.subject.as_deref(), Some("Euro €"));
        assert_eq!(event.data_subject.as_deref(), Some("c-17"));
        assert_eq!(event.extensions["priority"], quorate_data::event::Scalar::Text("a \"b\"".into()));
        assert_eq!(event.data.as_deref(), Some(&b"hello"[..]));
    }

    #[test]
    fn a_header_that_is_wrong_is_named() {
        let cases: [(&[(&str, &str)], &str); 7] = [
            (&REQUIRED[1..], "`specversion`: the header `ce-specversion` is missing"),
            (
                &[&REQUIRED[..], &[("ce-time", "now")]].concat(),
                "`time`: `now` is not an RFC 3339 time such as 2026-11-22T09:30:00Z",
            ),
            (&[&REQUIRED[..], &[("ce-subject", "%E2")]].concat(), "`subject`: the header is not percent-encoded UTF-8"),
            (&[&REQUIRED[..], &[("ce-subject", "%zz")]].concat(), "`subject`: the header is not percent-encoded UTF-8"),
            (
                &[&REQUIRED[..], &[("ce-streamversion", "7")]].concat(),
                "`streamversion`: the store sets this attribute; it cannot be handed in",
            ),
            (&[&REQUIRED[..3]].concat(), "`type`: `type` cannot be empty"),
            (
                &[&REQUIRED[..], &[("content-type", "application/json")]].concat(),
                "`data`: the body is not JSON, although `content-type` is application/json",
            ),
        ];
        for (given, expected) in cases {
            let fault = from_headers(&headers(given), Bytes::from_static(b"nope")).unwrap_err();
            assert_eq!(fault.to_string(), expected);
        }
    }

    #[test]
    fn json_that_others_cannot_read_is_refused() {
        let all = headers(&[&REQUIRED[..], &[("content-type", "application/json")]].concat());
        for body in [&br#"{"a":"\udc00"}"#[..], b"1e999999"] {
            let fault = from_headers(&all, Bytes::copy_from_slice(body)).unwrap_err();
            assert_eq!(fault.attribute.as_deref(), Some("data"), "{fault}");
        }
        assert!(from_headers(&all, Bytes::from_static(br#""\ud83d\ude00""#)).is_ok());
    }

    #[test]
    fn structured_events_are_not_taken_for_binary_ones() {
        assert!(is_binary(&headers(&REQUIRED)));
        assert!(!is_binary(&headers(&[("ce-id", "1"), ("content-type", "Application/CloudEvents+json")])));
        assert!(!is_binary(&headers(&[("content-type", "application/json")])));
    }

    proptest! {
        #[test]
        fn any_text_survives_a_header(text in any::<String>()) {
            prop_assert_eq!(decoded(encoded(&text).as_bytes()), Some(text));
        }

        #[test]
        fn no_header_makes_decoding_panic(value in any::<Vec<u8>>()) {
            let _ = decoded(&value);
        }
    }
}
