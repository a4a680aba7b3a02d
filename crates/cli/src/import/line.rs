//! One line of input: a CloudEvent in JSON, on its way to a stream.
//!
//! Everything that can be told without the node is told here, with the column, so that a bad line costs no round trip.
//! The event's own bytes are passed on; only a line with attributes that the store sets is written anew, without them.

use std::{borrow::Cow, collections::BTreeSet};

use quorate_consistency::two_phase_commit::Ledger;
use quorate_data::{event::Timestamp, store::reserved_for};
use quorate_foundations::name::Name;
use serde::{Deserializer as _, de};
use serde_json::value::RawValue;

/// Attributes that the store sets; on input they are passed over, as an export carries them.
const SET_BY_THE_STORE: [&str; 6] = ["stream", "streamversion", "logposition", "recordedtime", "stub", "archiveid"];

/// Why nothing of these is imported.
const COORDINATORS: &str = "transactions of two-phase commit, which comes with `store backup` and `store restore`; \
    `--on-error skip` imports what else there is";

/// Where the stream of an event stands: `subject` unless told otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StreamFrom(pub(crate) String);

/// An event that looks good from here.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// Where it stands in the input, counted from 1.
    pub(crate) number: u64,
    /// Where it goes.
    pub(crate) stream: String,
    /// The event in JSON.
    pub(crate) event: String,
    /// Whether it carries another stream than it goes to, as an export read with the wrong option does.
    pub(crate) astray: bool,
}

/// What is wrong with a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BadLine {
    /// Which, counted from 1.
    pub(crate) number: u64,
    /// In which byte of it, counted from 1, where that is known.
    pub(crate) column: Option<usize>,
    /// In which attribute, where that is known.
    pub(crate) attribute: Option<String>,
    /// Why.
    pub(crate) why: String,
}

impl std::fmt::Display for BadLine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "line {}", self.number)?;
        if let Some(column) = self.column {
            write!(f, ", column {column}")?;
        }
        if let Some(attribute) = &self.attribute {
            write!(f, ", `{attribute}`")?;
        }
        write!(f, ": {}", self.why)
    }
}

impl Line {
    /// Reads the line `bytes`, the `number`-th.
    pub(crate) fn parse(number: u64, bytes: &[u8], from: &StreamFrom) -> Result<Self, BadLine> {
        let bad = |column, attribute, why| BadLine { number, column, attribute, why };
        let text = std::str::from_utf8(bytes)
            .map_err(|wrong| bad(Some(wrong.valid_up_to() + 1), None, "this is not UTF-8".to_owned()))?;
        // Counted from 0 where there is nothing to read.
        let members = members(text).map_err(|wrong| bad(Some(wrong.column().max(1)), None, told(&wrong)))?;
        let members = Members { text, members };
        members.read(number, from).map_err(|wrong| bad(wrong.column, wrong.attribute.map(Into::into), wrong.why))
    }
}

/// serde_json's words without its own place in the text: we name the line and the column ourselves.
fn told(wrong: &serde_json::Error) -> String {
    let text = wrong.to_string();
    text.rsplit_once(" at line ").map_or_else(|| text.clone(), |(what, _)| what.to_owned())
}

/// The members of the JSON object that `text` is.
fn members(text: &str) -> serde_json::Result<Vec<(Cow<'_, str>, &RawValue)>> {
    struct Pairs;
    impl<'de> de::Visitor<'de> for Pairs {
        type Value = Vec<(Cow<'de, str>, &'de RawValue)>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an event: a JSON object")
        }

        fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut pairs = Vec::with_capacity(16);
            while let Some((Text(key), value)) = map.next_entry()? {
                pairs.push((key, value));
            }
            Ok(pairs)
        }
    }
    let mut reader = serde_json::Deserializer::from_str(text);
    let pairs = reader.deserialize_map(Pairs)?;
    reader.end()?;
    Ok(pairs)
}

struct Text<'t>(Cow<'t, str>);

impl<'de> de::Deserialize<'de> for Text<'de> {
    fn deserialize<D: de::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Borrowing;
        impl<'de> de::Visitor<'de> for Borrowing {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        from.deserialize_str(Borrowing)
    }
}

/// What is wrong, and where in the line.
struct Wrong<'t> {
    column: Option<usize>,
    attribute: Option<Cow<'t, str>>,
    why: String,
}

struct Members<'t> {
    text: &'t str,
    members: Vec<(Cow<'t, str>, &'t RawValue)>,
}

impl<'t> Members<'t> {
    fn read(&self, number: u64, from: &StreamFrom) -> Result<Line, Wrong<'t>> {
        self.check_doubles()?;
        if self.required("specversion")? != "1.0" {
            return Err(self.wrong("specversion", "only CloudEvents 1.0 is understood: \"1.0\""));
        }
        for attribute in ["id", "source", "type"] {
            if self.required(attribute)?.is_empty() {
                return Err(self.wrong(attribute, "it cannot be empty"));
            }
        }
        if Ledger::is_own_type(&self.required("type")?) {
            return Err(self.wrong("type", format!("only coordinators write it, in the log of {COORDINATORS}")));
        }
        if let Some(time) = self.string("time")? {
            time.parse::<Timestamp>().map_err(|wrong| self.wrong("time", wrong.to_string()))?;
        }
        let stream = self.stream(from)?.into_owned();
        let astray = self.string("stream").ok().flatten().is_some_and(|carried| carried != stream);
        Ok(Line { number, stream, event: self.event(), astray })
    }

    fn check_doubles(&self) -> Result<(), Wrong<'t>> {
        let mut seen = BTreeSet::new();
        let Some(n) = self.members.iter().position(|(key, _)| !seen.insert(&**key)) else { return Ok(()) };
        let (key, value) = &self.members[n];
        let why = "the member stands there twice".to_owned();
        Err(Wrong { column: self.column(value), attribute: Some(key.clone()), why })
    }

    fn stream(&self, from: &StreamFrom) -> Result<Cow<'t, str>, Wrong<'t>> {
        let StreamFrom(attribute) = from;
        let Some(stream) = self.string(attribute)? else {
            let hint = if self.find("stream").is_some() && attribute != "stream" {
                "; what `stream export` wrote is imported with `--stream-from stream`"
            } else {
                "; `--stream-from` names another attribute"
            };
            let why = format!("the attribute is missing, and it names the stream{hint}");
            return Err(Wrong { column: None, attribute: Some(attribute.clone().into()), why });
        };
        Name::check(&stream).map_err(|wrong| self.wrong(attribute, format!("it names the stream, and {wrong}")))?;
        if let Some(room) = reserved_for(&stream) {
            let what = if room == "saga" {
                "the journal of a saga, and sagas"
            } else {
                "the stream of a process, and processes"
            };
            let why = format!(
                "it names {what} come with `store backup` and `store restore`; `--on-error skip` imports what else there is"
            );
            return Err(self.wrong(attribute, why));
        }
        if Ledger::is_own_stream(&stream) {
            return Err(self.wrong(attribute, format!("it names the log of {COORDINATORS}")));
        }
        Ok(stream)
    }

    fn required(&self, attribute: &'static str) -> Result<Cow<'t, str>, Wrong<'t>> {
        let missing =
            || Wrong { column: None, attribute: Some(attribute.into()), why: "the attribute is missing".to_owned() };
        self.string(attribute)?.ok_or_else(missing)
    }

    /// The attribute as text; `null` stands for one that is not there.
    fn string(&self, attribute: &str) -> Result<Option<Cow<'t, str>>, Wrong<'t>> {
        let Some(value) = self.find(attribute).filter(|value| value.get() != "null") else { return Ok(None) };
        let text: Result<Text<'t>, _> = serde_json::from_str(value.get());
        text.map(|text| Some(text.0)).map_err(|wrong| self.wrong(attribute, told(&wrong)))
    }

    fn find(&self, attribute: &str) -> Option<&'t RawValue> {
        self.members.iter().find(|(key, _)| key == attribute).map(|(_, value)| *value)
    }

    fn wrong(&self, attribute: &str, why: impl Into<String>) -> Wrong<'t> {
        let column = self.find(attribute).and_then(|value| self.column(value));
        Wrong { column, attribute: Some(attribute.to_owned().into()), why: why.into() }
    }

    /// Where `value`, a part of the line, begins in it.
    fn column(&self, value: &RawValue) -> Option<usize> {
        let at = (value.get().as_ptr() as usize).checked_sub(self.text.as_ptr() as usize)?;
        (at < self.text.len()).then_some(at + 1)
    }

    /// The event without what the store sets.
    fn event(&self) -> String {
        let ours = |key: &str| SET_BY_THE_STORE.contains(&key);
        if !self.members.iter().any(|(key, _)| ours(key)) {
            return self.text.to_owned();
        }
        let kept = self.members.iter().filter(|(key, _)| !ours(key));
        let members = kept.map(|(key, value)| format!("{}:{}", serde_json::Value::from(&**key), value.get()));
        format!("{{{}}}", members.collect::<Vec<_>>().join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::{Line, StreamFrom};

    fn subject() -> StreamFrom {
        StreamFrom("subject".to_owned())
    }

    fn wrong(text: &str) -> String {
        Line::parse(3, text.as_bytes(), &subject()).unwrap_err().to_string()
    }

    #[test]
    fn a_good_line_is_passed_on_as_it_is() {
        let text = r#" {"specversion":"1.0","id":"1","source":"/s","type":"t","subject":"order-1","data":{"a" : 1}} "#;
        let line = Line::parse(1, text.as_bytes(), &subject()).unwrap();
        assert_eq!((line.stream.as_str(), line.event.as_str(), line.astray), ("order-1", text, false));
    }

    #[test]
    fn what_the_store_sets_is_left_out() {
        let text = r#"{"specversion":"1.0","id":"1","source":"/s","type":"t","stream":"a-1","streamversion":"4",
            "logposition":"9","recordedtime":"x","data":{"stream":"inner"},"subject":"b"}"#;
        let line = Line::parse(1, text.as_bytes(), &StreamFrom("stream".to_owned())).unwrap();
        assert_eq!(line.stream, "a-1");
        let kept = r#"{"specversion":"1.0","id":"1","source":"/s","type":"t","data":{"stream":"inner"},"subject":"b"}"#;
        assert_eq!(line.event, kept);
        let line = Line::parse(1, text.as_bytes(), &subject()).unwrap();
        assert_eq!((line.stream.as_str(), line.astray), ("b", true));
    }

    #[test]
    fn a_bad_line_is_named_with_column_attribute_and_reason() {
        assert_eq!(wrong("{\"specversion\":}"), "line 3, column 16: expected value");
        assert_eq!(wrong("[1]"), "line 3, column 1: invalid type: sequence, expected an event: a JSON object");
        assert_eq!(
            wrong(r#"{"specversion":"1.0","id":7}"#),
            "line 3, column 27, `id`: invalid type: integer `7`, expected a string"
        );
        assert_eq!(
            wrong(r#"{"specversion":"0.3"}"#),
            "line 3, column 16, `specversion`: only CloudEvents 1.0 is understood: \"1.0\""
        );
        assert_eq!(
            wrong(r#"{"specversion":"1.0","id":"1","source":"/s"}"#),
            "line 3, `type`: the attribute is missing"
        );
        assert_eq!(wrong(r#"{"id":"1","id":"2"}"#), "line 3, column 16, `id`: the member stands there twice");
    }

    #[test]
    fn a_stream_that_cannot_be_one_is_named() {
        let missing = wrong(r#"{"specversion":"1.0","id":"1","source":"/s","type":"t","stream":"x"}"#);
        assert!(missing.starts_with("line 3, `subject`: the attribute is missing"), "{missing}");
        assert!(missing.ends_with("is imported with `--stream-from stream`"), "{missing}");
        let dots = wrong(r#"{"specversion":"1.0","id":"1","source":"/s","type":"t","subject":".."}"#);
        assert!(dots.contains("column 66, `subject`: it names the stream, and a name cannot be `.` or `..`"), "{dots}");
    }

    #[test]
    fn the_journal_of_a_saga_is_not_imported() {
        let line =
            |stream: &str| format!(r#"{{"specversion":"1.0","id":"1","source":"/s","type":"t","subject":"{stream}"}}"#);
        let saga = wrong(&line("saga-order:17"));
        assert!(saga.starts_with("line 3, column 66, `subject`: it names the journal of a saga"), "{saga}");
        assert!(saga.contains("`store backup`"), "{saga}");
        Line::parse(3, line("saga-order").as_bytes(), &subject()).unwrap();
    }

    #[test]
    fn the_log_of_transactions_is_not_imported() {
        let line = |stream: &str, kind: &str| {
            format!(r#"{{"specversion":"1.0","id":"1","source":"/s","type":"{kind}","subject":"{stream}"}}"#)
        };
        for stream in ["txn-quorate:0197f2a0-0000-7000-8000-000000000001:1-1", "txncoordinator-main"] {
            let wrong = wrong(&line(stream, "t"));
            assert!(wrong.starts_with("line 3, column 66, `subject`: it names the log of transactions"), "{wrong}");
            assert!(wrong.contains("`store backup`") && wrong.contains("`--on-error skip`"), "{wrong}");
        }
        let kind = wrong(&line("order-1", "quorate.txn.decided"));
        assert!(kind.starts_with("line 3, column 52, `type`: only coordinators write it"), "{kind}");
        assert!(kind.contains("`store backup`") && kind.contains("`--on-error skip`"), "{kind}");
        Line::parse(3, line("txn-17", "quorate.txnal").as_bytes(), &subject()).unwrap();
    }

    #[test]
    fn bytes_that_are_no_text_are_named_with_their_column() {
        let bad = Line::parse(9, b"{\"id\":\"\xff\"}", &subject()).unwrap_err();
        assert_eq!(bad.to_string(), "line 9, column 8: this is not UTF-8");
    }
}
