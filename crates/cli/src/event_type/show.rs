//! Event types as people and programs read them.

use serde_json::{Value, json};

use crate::{
    exit::Failure,
    output::{Column, Format, Out, cell, note, print},
};

/// Prints types.
pub(super) fn types(all: &[Value], format: Format) -> Result<(), Failure> {
    let columns = [
        Column::Left("TYPE"),
        Column::Right("EVENTS"),
        Column::Right("SCHEMAS"),
        Column::Right("PRODUCERS"),
        Column::Right("CONSUMERS"),
        Column::Left("LAST"),
    ];
    let cells = |one: &Value| {
        let many = |member: &str| many(one, member).to_string();
        [
            cell(&one["type"]),
            cell(&one["events"]),
            many("schemas"),
            many("producers"),
            many("consumers"),
            cell(&one["last-recorded"]),
        ]
    };
    print(all, &json!({ "event-types": all }), (columns, cells), format)
}

/// How many there are of `member`, at least: those that are named and those that are not. A schema whose events are unknown may be one of
/// either, and counts once.
fn many(one: &Value, member: &str) -> usize {
    let named = one[member].as_array().map_or(&[][..], Vec::as_slice);
    let sure = named.iter().filter(|one| !one["events"].is_null() || member != "schemas").count();
    let more = one[format!("more-{member}")].as_u64().unwrap_or(0);
    named.len().max(sure.saturating_add(usize::try_from(more).unwrap_or(usize::MAX)))
}

/// Prints one type: a line for each schema, producer and consumer.
pub(super) fn one(whole: &Value, format: Format) -> Result<(), Failure> {
    let columns = [Column::Left("WHAT"), Column::Left("NAME"), Column::Right("EVENTS"), Column::Left("NOTE")];
    let cells = |line: &Value| ["what", "name", "events", "note"].map(|member| cell(&line[member]));
    print(&lines(whole), whole, (columns, cells), format)?;
    for (member, what) in [("events-of-other-producers", "events"), ("more-consumers", "consumers")] {
        if let Some(more) = whole[member].as_u64().filter(|more| *more > 0) {
            note(&format!("{more} more {what}, which are not named"));
        }
    }
    Ok(())
}

fn lines(one: &Value) -> Vec<Value> {
    let of = |member: &str| one[member].as_array().cloned().unwrap_or_default();
    let schema = |one: Value| {
        let note = if one["registered"] == true { "registered" } else { "not registered" };
        let name = if one["dataschema"].is_null() { "(none named)".into() } else { one["dataschema"].clone() };
        json!({ "what": "schema", "name": name, "events": one["events"], "note": note })
    };
    let producer = |one: Value| {
        let note = format!("last at {}", cell(&one["last-recorded"]));
        json!({ "what": "producer", "name": one["source"], "events": one["events"], "note": note })
    };
    let consumer = |one: Value| {
        let note = if one["names-the-type"] == true { "names the type" } else { "takes any type" };
        json!({ "what": one["kind"], "name": one["name"], "note": note })
    };
    let schemas = of("schemas").into_iter().map(schema);
    schemas.chain(of("producers").into_iter().map(producer)).chain(of("consumers").into_iter().map(consumer)).collect()
}

/// Prints a document.
pub(super) fn document(one: &Value) -> Result<(), Failure> {
    let mut out = Out::new();
    out.json(one)?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::many;

    #[test]
    fn schemas_that_are_registered_and_cut_from_what_was_seen_count_once() {
        let (known, unknown) = (json!({ "events": 1 }), json!({ "events": null }));
        let consumer = json!({ "kind": "view", "name": "v" });
        let one = json!({
            "schemas": [known, known, unknown, unknown],
            "more-schemas": 2,
            "consumers": [consumer],
            "more-consumers": 3,
        });
        assert_eq!((many(&one, "schemas"), many(&one, "consumers"), many(&one, "producers")), (4, 4, 0));
    }
}
