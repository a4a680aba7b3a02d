//! Processes and courses as JSON.

use std::time::Duration;

use humantime_serde::re::humantime::format_duration;
use quorate_consistency::saga::choreography::{
    By, Description, Expectation, Graph, Looked, Overview, Pending, Process, Processes, Reaction, Seen, Standing,
    Summary,
};
use quorate_data::event::{Position, Timestamp};
use quorate_foundations::{name::Name, time::Wall};
use serde_json::{Value, json};

fn time(wall: Wall) -> Value {
    Timestamp::from(wall).as_str().into()
}

fn span(span: Duration) -> String {
    format_duration(span).to_string()
}

fn counted(courses: &[(Standing, u64)]) -> Value {
    let count = |count: u64| Value::from(count.min(Processes::MAX_COUNTED));
    courses.iter().map(|(standing, of)| (standing.word().to_owned(), count(*of))).collect()
}

/// The states of which there are more than are counted.
fn more(courses: &[(Standing, u64)]) -> Value {
    let more = courses.iter().filter(|(_, of)| *of > Processes::MAX_COUNTED);
    more.map(|(standing, _)| standing.word()).collect()
}

fn lag(head: Position, position: Position) -> u64 {
    head.get().saturating_sub(position.get())
}

/// A line of the list of processes.
pub(super) fn overview(one: &Overview, head: Position) -> Value {
    let Overview { name, trouble, position, counts, open } = one;
    let open = open.as_deref().ok();
    json!({
        "process": name.as_str(), "courses": open.map(counted), "more": open.map_or(json!([]), more),
        "overdue-since-start": counts.tally.overdue, "logposition": position.map(|at| at.to_string()),
        "lag-events": position.map(|at| lag(head, at)), "trouble": trouble.as_deref(),
    })
}

/// How a process stands, and what it says.
pub(super) fn described(found: &Description, head: Position) -> Value {
    let Description { name, process, is_of_program, trouble, position, counts, courses, .. } = found;
    let tally = counts.tally;
    json!({
        "process": name.as_str(), "declared-by": if *is_of_program { "program" } else { "document" },
        "rules": process.as_deref().map(rules), "courses": counted(courses), "more": more(courses),
        "logposition": position.to_string(), "lag-events": lag(head, *position), "trouble": trouble.as_deref(),
        "stream": format!("process-{}", name.as_str()),
        "since-start": {
            "events": tally.events, "repeated": tally.repeated, "late": tally.late, "keyless": counts.keyless,
            "overdue": tally.overdue, "stopped": tally.stopped, "resumed": tally.resumed, "ended": tally.ended, "emitted": tally.emitted,
        },
    })
}

fn rules(process: &Process) -> Value {
    let texts = |types: &[std::sync::Arc<str>]| types.iter().map(|kind| Value::from(&**kind)).collect::<Value>();
    let expect =
        |one: &Expectation| json!({ "after": &*one.after, "events": texts(&one.any_of), "within": span(one.within) });
    let react =
        |one: &Reaction| json!({ "on": &*one.on, "emits": texts(&one.emits), "by": &*one.by, "again": one.again });
    let by = match process.joined_by() {
        By::Correlation => "correlation",
        By::Subject => "subject",
        By::Stream => "stream",
        By::Data(_) => "data",
    };
    json!({
        "description": process.description(), "by": by, "begins": texts(process.begun_by()), "ends": texts(process.ended_by()),
        "undone": texts(process.undone_by()), "expect": process.expectations().iter().map(expect).collect::<Value>(),
        "reactions": process.reactions().iter().map(react).collect::<Value>(),
    })
}

/// A line of the list of courses.
pub(super) fn summary(one: &Summary) -> Value {
    json!({
        "course": &*one.key, "state": one.standing.word(), "started": time(one.first_at), "updated": time(one.updated_at),
        "due": one.due.map(time),
    })
}

/// A course: what has happened in it, and what is expected until when.
pub(super) fn course(name: &Name, key: &str, found: &Looked) -> Value {
    let Looked { course, trail, first_at } = found;
    json!({
        "process": name.as_str(), "course": key, "state": course.standing.word(), "reason": course.reason.as_deref(),
        "begun": course.begun, "started": time(*first_at), "late": course.late, "repeated": course.repeated,
        "expected": course.pending.iter().map(pending).collect::<Value>(), "events": trail.iter().map(seen).collect::<Value>(),
    })
}

fn pending(one: &Pending) -> Value {
    json!({
        "after": { "type": &*one.after, "id": &*one.event, "logposition": one.position.to_string() },
        "events": one.any_of.iter().map(|kind| Value::from(&**kind)).collect::<Value>(),
        "within": span(Duration::from_nanos(one.within_nanos)),
        "until": one.due_nanos.map(|due| time(Wall::from_unix_nanos(due))), "overdue": one.overdue,
    })
}

fn seen(one: &Seen) -> Value {
    json!({
        "logposition": one.position.to_string(), "source": &*one.source, "id": &*one.id, "type": &*one.kind, "stream": &*one.stream,
        "causationid": one.causation.as_deref(), "depth": one.depth, "recordedtime": time(one.at),
    })
}

/// What led to what. Positions are texts, as everywhere.
pub(super) fn graph(graph: &Graph) -> Value {
    let events = graph.events.iter().map(|one| {
        json!({
            "logposition": one.position.to_string(), "id": &*one.id, "type": &*one.kind, "stream": &*one.stream, "depth": one.depth,
            "cause": one.cause.map(|cause| cause.to_string()), "causationid": one.causation.as_deref(),
        })
    });
    let missing = graph.missing.iter().map(|one| {
        let types: Value = one.any_of.iter().map(|kind| Value::from(&**kind)).collect();
        json!({ "after": one.after.to_string(), "events": types, "overdue": one.overdue })
    });
    json!({
        "process": &*graph.process, "course": &*graph.course, "state": graph.standing,
        "events": events.collect::<Value>(), "missing": missing.collect::<Value>(),
    })
}
