use bytes::Bytes;
use proptest::prelude::*;
use quorate_data::event::{NewEvent, Scalar};

use super::{Fault, batch, event};

fn one(json: &str) -> Result<NewEvent, Fault> {
    let body = Bytes::copy_from_slice(json.as_bytes());
    event(&body, &body)
}

fn many(json: &str) -> Result<Vec<NewEvent>, Fault> {
    let body = Bytes::copy_from_slice(json.as_bytes());
    batch(&body, &body, 3)
}

fn with(members: &str) -> String {
    format!(r#"{{"specversion":"1.0","id":"1","source":"/s","type":"t"{members}}}"#)
}

#[test]
fn data_is_kept_byte_for_byte_and_shares_the_body() {
    let json = with(r#","data": { "b" : 1.50, "a":"é" } "#);
    let body = Bytes::from(json);
    let event = event(&body, &body).unwrap();
    let data = event.data.unwrap();
    assert_eq!(
        data,
        &br#"{ "b" : 1.50, "a":"#[..]
            .iter()
            .copied()
            .chain(br#""#.iter().copied())
            .chain("\"é\" }".bytes())
            .collect::<Vec<_>>()[..]
    );
    assert!(body.as_ptr_range().contains(&data.as_ptr()));
    assert_eq!(event.content_type.as_deref(), Some("application/json"));
}

#[test]
fn every_attribute_finds_its_field() {
    let json = with(
        r#","subject":"su","time":"2026-01-01T00:00:00Z","datacontenttype":"text/plain","dataschema":"urn:ds",
        "correlationid":"co","causationid":"ca","datasubject":"da","tags":"b:2 a:1","flag":true,"count":-7,"word":"w","unset":null,"data":"x\ny""#,
    );
    let event = one(&json).unwrap();
    assert_eq!((&*event.id, &*event.source, &*event.kind), ("1", "/s", "t"));
    assert_eq!(event.subject.as_deref(), Some("su"));
    assert_eq!(event.time.unwrap().as_str(), "2026-01-01T00:00:00Z");
    assert_eq!(event.schema.as_deref(), Some("urn:ds"));
    assert_eq!(event.correlation_id.as_deref(), Some("co"));
    assert_eq!(event.causation_id.as_deref(), Some("ca"));
    assert_eq!(event.data_subject.as_deref(), Some("da"));
    assert_eq!(event.tags.as_str(), "a:1 b:2");
    assert_eq!(event.extensions["flag"], Scalar::Boolean(true));
    assert_eq!(event.extensions["count"], Scalar::Integer(-7));
    assert_eq!(event.extensions["word"], Scalar::Text("w".into()));
    assert!(!event.extensions.contains_key("unset"));
    assert_eq!(event.data.as_deref(), Some(&b"x\ny"[..]));
}

#[test]
fn what_is_wrong_is_said_with_its_place() {
    let deep = format!(r#","data":{}{}"#, "[".repeat(65), "]".repeat(65));
    let long = format!(r#","subject":"{}""#, "x".repeat(5000));
    let cases = [
        (with(r#","id":"2""#), Some("id"), "twice"),
        (with(r#","x":1,"x":2"#), Some("x"), "twice"),
        (with(r#","subject":5"#), Some("subject"), "expected a string"),
        (with(r#","subject":"\ud800""#), Some("subject"), "hex escape"),
        (with(r#","time":"yesterday""#), Some("time"), "RFC 3339"),
        (with(r#","tags":"a b\u0007""#), Some("tags"), "control character"),
        (with(r#","ext":[1]"#), Some("ext"), "expected a string, a boolean or a 32-bit integer"),
        (with(r#","ext":4294967296"#), Some("ext"), "32-bit"),
        (with(r#","ext":1.5"#), Some("ext"), "32-bit"),
        (with(r#","Ext":"x""#), Some("Ext"), "lower-case"),
        (with(r#","logposition":"1""#), Some("logposition"), "the store sets this"),
        (with(r#","stub":"truncated""#), Some("stub"), "the store sets this"),
        (with(r#","datasubject":"""#), Some("datasubject"), "cannot be empty"),
        (with(r#","data":{"a":["\ud800"]}"#), Some("data"), "surrogate"),
        (with(r#","data":[1e999999]"#), Some("data"), "double"),
        (with(r#","datacontenttype":"application/json","data_base64":"MWU5OTk=""#), Some("data_base64"), "double"),
        (with(r#","subject":"""#), Some("subject"), "cannot be empty"),
        (with(r#","datacontenttype":"""#), Some("datacontenttype"), "cannot be empty"),
        (with(r#","dataschema":"""#), Some("dataschema"), "cannot be empty"),
        (with(r#","dataschema":"relative/x""#), Some("dataschema"), "neither a URI nor"),
        (with(r#","dataschema":"/v1/a b""#), Some("dataschema"), "blank"),
        (with("").replace("\"/s\"", "\"not a uri\""), Some("source"), "blank"),
        (with(r#","data":NaN"#), Some("data"), "expected"),
        (with(r#","data":Infinity"#), Some("data"), "expected"),
        (with(&deep), Some("data"), "more than 64 deep"),
        (with(&long), Some("subject"), "at most 4096 bytes"),
        (with(r#","data":1,"data_base64":"AA==""#), Some("data_base64"), "not both"),
        (with(r#","data_base64":"A""#), Some("data_base64"), "no base64"),
        (with(r#","datacontenttype":"text/plain","data":{}"#), Some("data"), "is a string"),
        (r#"{"specversion":"1.0","source":"/s","type":"t"}"#.into(), Some("id"), "missing"),
        (r#"{"specversion":"0.3","id":"1","source":"/s","type":"t"}"#.into(), Some("specversion"), "1.0"),
        (r#"{"specversion":1.0,"id":"1","source":"/s","type":"t"}"#.into(), Some("specversion"), "expected a string"),
        (with("").replace("\"1\"", "\"\""), Some("id"), "cannot be empty"),
        (with("") + " x", None, "something follows"),
        (format!("\u{feff}{}", with("")), None, "byte order mark"),
        ("5".into(), None, "a JSON object"),
        ("null".into(), None, "a JSON object"),
        (String::new(), None, "EOF"),
        (with("")[..20].into(), None, "EOF"),
        (with(",'x':1"), None, "key must be a string"),
    ];
    for (json, attribute, what) in cases {
        let fault = one(&json).expect_err(&json);
        assert_eq!(fault.attribute.as_deref(), attribute, "{json}: {fault}");
        assert!(fault.what.contains(what), "{json}: {fault}");
    }
}

#[test]
fn bytes_that_are_no_text_are_refused_where_they_stop_being_one() {
    let body = Bytes::from_static(b"{\"id\":\"\xff\"}");
    assert_eq!(event(&body, &body).unwrap_err().what, "the body is not UTF-8 at byte 7");
}

#[test]
fn a_batch_names_the_event_that_is_wrong() {
    let fault = many(&format!("[{},{}]", with(""), with(r#","time":1"#))).unwrap_err();
    assert_eq!((fault.index, fault.attribute.as_deref()), (Some(1), Some("time")));
    let fault = many(&format!("[{},5]", with(""))).unwrap_err();
    assert_eq!((fault.index, fault.attribute.as_deref()), (Some(1), None));
    assert_eq!(many("{}").unwrap_err().index, None);
    assert_eq!(many("[]").unwrap(), []);
}

#[test]
fn a_batch_has_an_end() {
    let four = format!("[{0},{0},{0},{0}]", with(""));
    let fault = many(&four).unwrap_err();
    assert!(fault.too_large && fault.what.contains("at most 3 events"), "{fault}");
}

#[test]
fn a_hundred_thousand_brackets_do_not_overflow_a_stack() {
    for json in [with(&format!(r#","data":{}"#, "[".repeat(100_000))), "[".repeat(100_000), "{\"a\":".repeat(100_000)] {
        assert!(one(&json).is_err());
        assert!(many(&json).is_err());
    }
}

proptest! {
    #[test]
    fn no_bytes_make_reading_panic(bytes in any::<Vec<u8>>()) {
        let body = Bytes::from(bytes);
        let _ = event(&body, &body);
        let _ = batch(&body, &body, 3);
    }

    #[test]
    fn no_edit_of_a_good_event_makes_reading_panic(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let good = with(r#","subject":"s","time":"2026-01-01T00:00:00Z","tags":"a:1","x":1,"data":{"a":[1,"\u00e9"]}"#);
        let mut bytes = good.into_bytes();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let body = Bytes::from(bytes);
        let _ = event(&body, &body);
    }
}
