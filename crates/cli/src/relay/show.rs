//! Relays as people and programs read them.

use serde_json::{Value, json};

use crate::{
    exit::Failure,
    output::{Column, Format, cell, note, print},
};

/// Prints how one relay stands.
pub(super) fn relay(one: &Value, format: Format) -> Result<(), Failure> {
    let columns = [
        Column::Left("RELAY"),
        Column::Left("STATE"),
        Column::Right("CHECKPOINT"),
        Column::Right("LAG EVENTS"),
        Column::Right("PUBLISHED"),
        Column::Right("HELD"),
        Column::Right("PARKED"),
        Column::Left("TOPIC"),
        Column::Left("TRANSPORT"),
    ];
    let cells = |one: &Value| {
        let (fed, counts) = (&one["subscription"], &one["counts"]);
        [
            cell(&one["relay"]),
            cell(&one["state"]),
            cell(&fed["checkpoint"]),
            cell(&fed["lag-events"]),
            cell(&counts["published"]),
            cell(&counts["held"]),
            cell(&fed["parked"]),
            cell(&one["topic"]),
            cell(&one["transport"]),
        ]
    };
    print(std::slice::from_ref(one), one, (columns, cells), format)?;
    if let Some(why) = one["paused"]["reason"].as_str() {
        note(&format!("paused since {}: {why}", cell(&one["paused"]["since"])));
    }
    if let Some(what) = one["last-error"]["what"].as_str() {
        note(&format!("what went wrong last, at {}: {what}", cell(&one["last-error"]["time"])));
    }
    Ok(())
}

/// Prints several relays.
pub(super) fn relays(all: &[Value], format: Format) -> Result<(), Failure> {
    let columns = [
        Column::Left("RELAY"),
        Column::Left("STATE"),
        Column::Right("LAG EVENTS"),
        Column::Left("TOPIC"),
        Column::Left("TRANSPORT"),
    ];
    let cells = |one: &Value| {
        [&one["relay"], &one["state"], &one["subscription"]["lag-events"], &one["topic"], &one["transport"]].map(cell)
    };
    print(all, &json!({ "relays": all }), (columns, cells), format)
}
