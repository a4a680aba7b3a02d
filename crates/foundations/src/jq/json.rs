//! From JSON to a value, without losing a digit.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    meter::{Meter, Step, Stop},
    number::Number,
    stack::roomy,
    value::{ITEM, MAX_DEPTH, MEMBER, Value},
};

/// Why a text is no JSON value that programs can work on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} at byte {at}")]
pub struct NotJson {
    /// At which byte, counted from 0.
    pub at: usize,
    /// What is wrong there.
    pub what: String,
}

impl Value {
    /// The value that a JSON text says. Of a member that is there twice, the later one.
    ///
    /// # Errors
    /// It is not JSON, is nested more than 256 deep, or has a number with more digits than are kept.
    pub fn read(json: &str) -> Result<Self, NotJson> {
        Reader { json, at: 0, bytes: 0, most: usize::MAX }.whole()
    }

    /// The same, inside a run.
    pub(super) fn read_within(json: &str, meter: &mut Meter) -> Step<Self> {
        // The values of a text take at most so many times its bytes.
        meter.look(json.len() * 8)?;
        // What is too much ends the reading, and then the run.
        let mut reader = Reader { json, at: 0, bytes: 0, most: meter.left() };
        let read = reader.whole();
        meter.build(reader.bytes)?;
        read.map_err(|why| Stop::raise(format!("this is not JSON: {why}")))
    }
}

struct Reader<'j> {
    json: &'j str,
    at: usize,
    /// What was built, in bytes.
    bytes: usize,
    /// How much may be.
    most: usize,
}

impl Reader<'_> {
    fn fault(&self, what: &str) -> NotJson {
        NotJson { at: self.at, what: what.to_owned() }
    }

    fn whole(&mut self) -> Result<Value, NotJson> {
        let value = self.value(0)?;
        self.blanks();
        if self.at < self.json.len() { Err(self.fault("there is more than one value")) } else { Ok(value) }
    }

    /// Counts what is about to be built.
    fn build(&mut self, bytes: usize) -> Result<(), NotJson> {
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes > self.most { Err(self.fault("there is too much of it")) } else { Ok(()) }
    }

    fn peek(&self) -> Option<u8> {
        self.json.as_bytes().get(self.at).copied()
    }

    fn blanks(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn value(&mut self, depth: u16) -> Result<Value, NotJson> {
        self.blanks();
        match self.peek() {
            Some(b'{') => roomy(|| self.object(depth)),
            Some(b'[') => roomy(|| self.list(depth)),
            Some(b'"') => {
                let text = self.text()?;
                self.build(text.len() + ITEM)?;
                Ok(Value::Text(text))
            }
            Some(b't') => self.word("true", Value::Boolean(true)),
            Some(b'f') => self.word("false", Value::Boolean(false)),
            Some(b'n') => self.word("null", Value::Null),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(_) => Err(self.fault("no value begins")),
            None => Err(self.fault("the text ends where a value stands")),
        }
    }

    fn word(&mut self, word: &str, value: Value) -> Result<Value, NotJson> {
        if !self.json[self.at..].starts_with(word) {
            return Err(self.fault("no value begins"));
        }
        self.at += word.len();
        Ok(value)
    }

    fn number(&mut self) -> Result<Value, NotJson> {
        let start = self.at;
        while matches!(self.peek(), Some(b'-' | b'+' | b'.' | b'e' | b'E' | b'0'..=b'9')) {
            self.at += 1;
        }
        Number::read(&self.json[start..self.at])
            .map(Value::Number)
            .map_err(|why| NotJson { at: start, what: format!("a number cannot be read: {why}") })
    }

    fn text(&mut self) -> Result<Arc<str>, NotJson> {
        let start = self.at;
        self.at += 1;
        let mut is_plain = true;
        loop {
            match self.peek() {
                Some(b'"') => break,
                Some(b'\\') => {
                    is_plain = false;
                    self.at += 2;
                }
                Some(byte) if byte >= 0x20 => self.at += 1,
                Some(_) => return Err(self.fault("a string has a control character")),
                None => return Err(self.fault("a string does not end")),
            }
        }
        self.at += 1;
        let raw = &self.json[start..self.at];
        if is_plain {
            return Ok(raw[1..raw.len() - 1].into());
        }
        let read: Result<String, _> = serde_json::from_str(raw);
        read.map(Into::into).map_err(|_| NotJson { at: start, what: "a string is escaped wrongly".to_owned() })
    }

    /// Goes on behind an item: whether there is another one.
    fn more(&mut self, end: u8) -> Result<bool, NotJson> {
        self.blanks();
        match self.peek() {
            Some(b',') => {
                self.at += 1;
                Ok(true)
            }
            Some(byte) if byte == end => {
                self.at += 1;
                Ok(false)
            }
            _ => Err(self.fault("a comma or the end of a list or object is missing")),
        }
    }

    /// Enters a list or object: whether it is empty.
    fn enter(&mut self, depth: u16, end: u8) -> Result<bool, NotJson> {
        if depth == MAX_DEPTH {
            return Err(self.fault("it is nested more than 256 deep"));
        }
        self.at += 1;
        self.blanks();
        let is_empty = self.peek() == Some(end);
        self.at += usize::from(is_empty);
        Ok(is_empty)
    }

    fn list(&mut self, depth: u16) -> Result<Value, NotJson> {
        let mut items = Vec::new();
        let mut more = !self.enter(depth, b']')?;
        while more {
            self.build(ITEM)?;
            items.push(self.value(depth + 1)?);
            more = self.more(b']')?;
        }
        self.build(ITEM)?;
        Value::of_items(items).map_err(|_| self.fault("it is nested too deep"))
    }

    fn object(&mut self, depth: u16) -> Result<Value, NotJson> {
        let mut members = BTreeMap::new();
        let mut more = !self.enter(depth, b'}')?;
        while more {
            self.blanks();
            if self.peek() != Some(b'"') {
                return Err(self.fault("the name of a member is missing"));
            }
            let name = self.text()?;
            self.blanks();
            if self.peek() != Some(b':') {
                return Err(self.fault("a colon is missing"));
            }
            self.at += 1;
            self.build(name.len() + MEMBER)?;
            let value = self.value(depth + 1)?;
            members.insert(name, value);
            more = self.more(b'}')?;
        }
        Value::of_members(members).map_err(|_| self.fault("it is nested too deep"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Reader, Value};
    use crate::jq::{
        Failed, Limits,
        meter::{Meter, Stop},
    };

    fn shown(value: &Value) -> String {
        value.to_json(&mut Meter::new(Limits::default())).unwrap()
    }

    #[test]
    fn what_is_too_much_is_not_read_to_its_end() {
        let long = format!("[{}nope", "{\"a\":1},".repeat(10_000));
        let limits = Limits { bytes: 100_000, ..Limits::default() };
        let ended = Value::read_within(&long, &mut Meter::new(limits));
        assert!(matches!(ended, Err(Stop::Limit(Failed::TooLarge { limit: 100_000 }))), "{ended:?}");
        let mut reader = Reader { json: &long, at: 0, bytes: 0, most: 100_000 };
        assert!(reader.whole().unwrap_err().at < 10_000);
        let ended = Value::read_within("[1", &mut Meter::new(limits));
        assert!(matches!(ended, Err(Stop::Raised(_))), "{ended:?}");
    }

    #[test]
    fn a_text_becomes_the_value_it_says() {
        for (json, said) in [
            (r#" {"b": [1.50, true, null], "a": "x\u00e9\n"} "#, r#"{"a":"xé\n","b":[1.5,true,null]}"#),
            (r#"{"a":1,"a":{}}"#, r#"{"a":{}}"#),
            ("[]", "[]"),
            (r#""\ud83d\ude00""#, "\"😀\""),
            ("12345678901234567890.10", "12345678901234567890.1"),
        ] {
            assert_eq!(shown(&Value::read(json).unwrap_or_else(|why| panic!("{json}: {why}"))), said, "{json}");
        }
        let at = |json: &str| Value::read(json).unwrap_err().at;
        assert_eq!([at("[1,]"), at("{\"a\" 1}"), at("[1 2]"), at("1 2"), at("\"a")], [3, 5, 3, 2, 2]);
        assert!(Value::read(&"[".repeat(100_000)).is_err());
        assert!(Value::read(&format!("{}{}", "[".repeat(256), "]".repeat(256))).is_ok());
    }

    /// Texts that are nearly JSON.
    fn nearly() -> impl Strategy<Value = String> {
        let pieces = prop::sample::select(vec![
            "{",
            "}",
            "[",
            "]",
            ",",
            ":",
            "\"a\"",
            "\"b\\n\"",
            "\"\\u12\"",
            "\"",
            "\\",
            "1",
            "-2.5",
            "1e3",
            "01",
            "true",
            "nul",
            "null",
            " ",
            "\n",
            "é",
            "\"\u{1}\"",
        ]);
        prop::collection::vec(pieces, 0..12).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn what_is_json_is_as_others_say(text in nearly()) {
            let theirs = serde_json::from_str::<serde_json::Value>(&text);
            match Value::read(&text) {
                Ok(value) => {
                    let theirs = theirs.map_err(|cause| TestCaseError::fail(format!("{text}: {cause}")))?;
                    let ours: serde_json::Value = serde_json::from_str(&shown(&value)).unwrap();
                    let plain = |value: &serde_json::Value| value.to_string().replace(".0", "");
                    prop_assert_eq!(plain(&ours), plain(&theirs));
                }
                Err(why) => prop_assert!(theirs.is_err(), "{}: {}", text, why),
            }
        }
    }
}
