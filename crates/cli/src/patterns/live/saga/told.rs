//! What the node says of its sagas: how they stand, and how one went.

use std::collections::BTreeMap;

use quorate_data::event::Timestamp;
use quorate_foundations::time::Wall;
use serde_json::Value;

use super::{Seen, Span, id};
use crate::{
    client::{Call, Target},
    exit::Failure,
    patterns::live::{node::Node, show::Timeline},
};

/// How each saga stands.
pub(super) async fn statuses(node: &Node) -> Result<BTreeMap<String, String>, Failure> {
    let told = node.call(&Call::get(Target::path(&["v1", "sagas", "order"]).with("limit", 100))).await?;
    let of = |one: &Value| Some((one["id"].as_str()?.to_owned(), one["status"].as_str()?.to_owned()));
    Ok(told["sagas"].as_array().into_iter().flatten().filter_map(of).collect())
}

/// How a saga went, as its journal has it.
pub(super) async fn timeline(node: &Node, nth: u32, what: &str, seen: &Seen) -> Result<Timeline, Failure> {
    let stream = format!("saga-order:{}", id(nth));
    let target = Target::path(&["v1", "streams", &stream, "events"]).with("limit", 100);
    let told = node.call(&Call::get(target)).await?;
    let events: Vec<Event> = told["events"].as_array().into_iter().flatten().filter_map(Event::of).collect();
    let (first, last) = (events.first().map(|event| event.at), events.last().map(|event| event.at));
    let begun = first.unwrap_or(seen.begun.wall);
    let (mut spans, mut attempts) = (Vec::<Span>::new(), BTreeMap::<String, u32>::new());
    for event in &events {
        let Some(leg) = event.leg() else { continue };
        let at = event.at.saturating_since(begun);
        let attempts = attempts.entry(leg.clone()).or_default();
        *attempts += u32::from(event.data["what"] == "step-begun");
        let note = event.note(*attempts);
        match spans.iter_mut().find(|span| span.what == leg) {
            Some(span) => (span.until, span.note) = (span.until.max(at), note),
            None => spans.push(Span { what: leg, from: at, until: at, note }),
        }
    }
    let is_between = first <= Some(seen.killed.wall) && Some(seen.killed.wall) <= last;
    if is_between {
        let [from, until] = [seen.killed, seen.back].map(|moment| moment.wall.saturating_since(begun));
        let behind = spans.iter().position(|span| span.from > from).unwrap_or(spans.len());
        let note = "killed, and started again".to_owned();
        spans.insert(behind, Span { what: "the node is down".to_owned(), from, until, note });
    }
    let status = events.last().and_then(|event| event.data["outcome"].as_str()).unwrap_or("not at its end");
    let took = last.unwrap_or(begun).saturating_since(begun);
    let title = format!("{}, {what}: {status} in {}", id(nth), super::millis(took));
    Ok(Timeline { title, spans })
}

/// An event of a journal.
struct Event {
    at: Wall,
    data: Value,
}

impl Event {
    fn of(event: &Value) -> Option<Self> {
        let at: Timestamp = event["recordedtime"].as_str()?.parse().ok()?;
        Some(Self { at: at.instant(), data: event["data"].clone() })
    }

    /// Which way of which step it is about, where it is about one.
    fn leg(&self) -> Option<String> {
        let step = self.data["step"].as_str()?;
        Some(if self.data["direction"] == "compensation" { format!("undo {step}") } else { step.to_owned() })
    }

    /// What came of it in the end, if nothing more comes.
    fn note(&self, attempts: u32) -> String {
        let what = match self.data["what"].as_str().unwrap_or_default() {
            "step-done" => "done".to_owned(),
            "step-failed" => {
                let failure = &self.data["failure"];
                format!("{}: {}", text(&failure["kind"]), text(&failure["reason"]))
            }
            other => other.to_owned(),
        };
        if attempts > 1 { format!("{what}, at attempt {attempts}") } else { what }
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
