//! Did an import, however often it was interrupted and begun again, bring in every line once?

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    api::{LoggedEvent, SentEvent},
    verdict::{Gathering, Kind, Verdict, Violation},
};

/// One line of what was imported.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// Counted from 1.
    pub line: u64,
    /// The stream that it belongs to.
    pub stream: String,
    /// Its event.
    #[serde(flatten)]
    pub event: SentEvent,
}

/// Every line is in the log once, as it was, and the lines of a stream are in their order. An event that occurs on several
/// lines is one.
///
/// `finished`: whether the import came to its end; otherwise lines may be missing, but none is there twice.
pub fn every_line_once(lines: &[Line], finished: bool, log: &[LoggedEvent]) -> Verdict {
    let mut gathering = Gathering::on("every imported line is in the log once and in order");
    let mut logged: BTreeMap<(&str, &str), Vec<&LoggedEvent>> = BTreeMap::new();
    for event in log {
        logged.entry((&event.stream, &event.event.id)).or_default().push(event);
    }
    let mut newest: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for line in lines {
        gathering.examined(1);
        let Line { line: number, stream, event } = line;
        let there = logged.remove(&(stream.as_str(), event.id.as_str()));
        let found = |kind, sentence: String| Violation::new(kind, sentence).at(stream, *number);
        let Some(there) = there else {
            let earlier = lines.iter().any(|other| other.line < *number && repeats(other, line));
            if finished && !earlier {
                let sentence = format!("line {number}, event {} of {stream}, is not in the log", event.id);
                gathering.found(found(Kind::Lost, sentence));
            }
            continue;
        };
        if let [first, second, ..] = there[..] {
            let sentence = format!("line {number} is there twice: {first}, and at position {}", second.position);
            gathering.found(found(Kind::Doubled, sentence));
        }
        if there[0].event != *event {
            gathering.found(found(
                Kind::Disagreement,
                format!("line {number} says something else in the log: {}", there[0]),
            ));
        }
        let (before, version) = newest.insert(stream, (*number, there[0].version)).unwrap_or((0, 0));
        if version > there[0].version {
            let sentence = format!("line {number} of {stream} is before line {before} in the log: {}", there[0]);
            gathering.found(found(Kind::Gap, sentence));
        }
    }
    gathering.verdict()
}

fn repeats(a: &Line, b: &Line) -> bool {
    a.stream == b.stream && a.event.id == b.event.id
}
