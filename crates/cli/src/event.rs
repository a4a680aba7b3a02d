//! Events as the node serves them, looked at without taking them apart.

use std::borrow::Cow;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{
    exit::{Exit, Failure},
    output::{Column, plain},
};

/// What is shown of an event, and what it is chosen by.
#[derive(Debug, Deserialize)]
pub(crate) struct Event<'e> {
    #[serde(borrow)]
    stream: Cow<'e, str>,
    streamversion: Cow<'e, str>,
    logposition: Cow<'e, str>,
    recordedtime: Cow<'e, str>,
    time: Option<Cow<'e, str>>,
    #[serde(rename = "type")]
    kind: Cow<'e, str>,
    data: Option<&'e RawValue>,
    data_base64: Option<Cow<'e, str>>,
    stub: Option<Cow<'e, str>>,
}

/// The longest data that a table shows, in characters; JSON output has all of it.
const SHOWN: usize = 100;

/// The headings that go with [`Event::cells`].
pub(crate) const COLUMNS: [Column; 6] = [
    Column::Right("POSITION"),
    Column::Left("STREAM"),
    Column::Right("VERSION"),
    Column::Left("TIME"),
    Column::Left("TYPE"),
    Column::Left("DATA"),
];

impl<'e> Event<'e> {
    /// Looks at the event that `json` is.
    pub(crate) fn of(json: &'e str) -> Result<Self, Failure> {
        let strange =
            |wrong| Failure::new(Exit::Failed, format!("the node sent an event that cannot be read: {wrong}"));
        serde_json::from_str(json).map_err(strange)
    }

    /// The row of a table.
    pub(crate) fn cells(&self) -> [String; 6] {
        let time = self.time.as_ref().unwrap_or(&self.recordedtime);
        [&self.logposition, &self.stream, &self.streamversion, time, &self.kind]
            .map(|cell| plain(cell))
            .into_iter()
            .chain([self.shown()])
            .collect::<Vec<_>>()
            .try_into()
            .unwrap_or_default()
    }

    /// Its place in the log.
    pub(crate) fn position(&self) -> &str {
        &self.logposition
    }

    /// Its place in its stream.
    pub(crate) fn version(&self) -> &str {
        &self.streamversion
    }

    /// Whether its data is gone.
    pub(crate) fn is_stub(&self) -> bool {
        self.stub.is_some()
    }

    fn shown(&self) -> String {
        let text = match (&self.stub, self.data, &self.data_base64) {
            (Some(stub), _, _) => format!("({stub})"),
            (None, Some(data), _) => plain(data.get()),
            (None, None, Some(data)) => format!("base64:{data}"),
            (None, None, None) => String::new(),
        };
        match text.char_indices().nth(SHOWN) {
            Some((end, _)) => format!("{}…", &text[..end]),
            None => text,
        }
    }
}

/// `event` on one line, its data byte for byte the same when it is read again.
///
/// JSON data that was sent over several lines travels as base64, which CloudEvents allows for data of any type.
pub(crate) fn one_line(event: &str) -> Result<Cow<'_, str>, Failure> {
    if !event.contains(['\n', '\r']) {
        return Ok(Cow::Borrowed(event));
    }
    let Event { data, .. } = Event::of(event)?;
    let broken = data.map(RawValue::get).filter(|data| data.contains(['\n', '\r']));
    let Some(data) = broken else { return Ok(Cow::Owned(event.replace(['\n', '\r'], " "))) };
    let at = data.as_ptr() as usize - event.as_ptr() as usize;
    let (before, after) = (&event[..at], &event[at + data.len()..]);
    // `before` ends with the member's name and a colon, whatever blanks stand between.
    let name = before.rfind("\"data\"").unwrap_or(at);
    let line = format!("{}\"data_base64\":\"{}\"{after}", &before[..name], STANDARD.encode(data));
    Ok(Cow::Owned(line.replace(['\n', '\r'], " ")))
}

#[cfg(test)]
mod tests {
    use super::{Event, one_line};

    fn event(data: &str) -> String {
        format!(
            r#"{{"specversion":"1.0","id":"1","source":"/s","type":"t","stream":"a","streamversion":"1","logposition":"7","recordedtime":"2026-01-01T00:00:00Z","x":"\"data\"",{data}}}"#
        )
    }

    #[test]
    fn data_over_several_lines_survives_on_one() {
        let broken = event("\"data\":{\n\"a\": 1}");
        let line = one_line(&broken).unwrap();
        assert_eq!(line, event("\"data_base64\":\"ewoiYSI6IDF9\""));
        let flat = event("\"data\":{\"a\":1}");
        assert_eq!(one_line(&flat).unwrap(), flat);
    }

    #[test]
    fn long_data_is_cut_and_missing_data_is_explained() {
        let long = event(&format!("\"data\":\"{}\"", "☂".repeat(200)));
        assert!(Event::of(&long).unwrap().cells()[5].ends_with("☂…"));
        let stub = event("\"stub\":\"truncated\"");
        assert_eq!(Event::of(&stub).unwrap().cells()[5], "(truncated)");
    }
}
