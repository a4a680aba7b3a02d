//! Inboxes and parked messages as people and programs read them.

use serde_json::{Value, json};

use crate::{
    exit::Failure,
    output::{Column, Format, cell, note, print},
};

/// Prints how one inbox stands.
pub(super) fn inbox(one: &Value, format: Format) -> Result<(), Failure> {
    let columns = [
        Column::Left("INBOX"),
        Column::Left("STATE"),
        Column::Right("DONE"),
        Column::Right("REPEATED"),
        Column::Right("FAILED"),
        Column::Right("PARKED"),
        Column::Left("INTO"),
        Column::Left("TOPIC"),
        Column::Left("GROUP"),
        Column::Left("TRANSPORT"),
    ];
    let cells = |one: &Value| {
        let counts = &one["counts"];
        [
            cell(&one["inbox"]),
            cell(&one["state"]),
            cell(&counts["done"]),
            cell(&counts["repeated"]),
            cell(&counts["failed"]),
            cell(&one["parked"]),
            into(one),
            cell(&one["topic"]),
            cell(&one["group"]),
            cell(&one["transport"]),
        ]
    };
    print(std::slice::from_ref(one), one, (columns, cells), format)?;
    if let Some(what) = one["last-error"]["what"].as_str() {
        note(&format!("what went wrong last, at {}: {what}", cell(&one["last-error"]["time"])));
    }
    Ok(())
}

/// Prints several inboxes.
pub(super) fn inboxes(all: &[Value], format: Format) -> Result<(), Failure> {
    let columns = [
        Column::Left("INBOX"),
        Column::Left("STATE"),
        Column::Right("PARKED"),
        Column::Left("INTO"),
        Column::Left("TOPIC"),
        Column::Left("TRANSPORT"),
    ];
    let cells = |one: &Value| {
        [
            cell(&one["inbox"]),
            cell(&one["state"]),
            cell(&one["parked"]),
            into(one),
            cell(&one["topic"]),
            cell(&one["transport"]),
        ]
    };
    print(all, &json!({ "inboxes": all }), (columns, cells), format)
}

/// Where messages go.
fn into(one: &Value) -> String {
    match one["queue"].as_str() {
        Some(queue) => format!("queue {queue}"),
        None => format!("stream {}", cell(&one["stream"])),
    }
}

/// Prints parked messages.
pub(super) fn parked(all: &[Value], format: Format) -> Result<(), Failure> {
    let columns = [
        Column::Right("PLACE"),
        Column::Left("KEY"),
        Column::Left("IDENTITY"),
        Column::Left("TYPE"),
        Column::Right("ATTEMPTS"),
        Column::Left("REASON"),
    ];
    let cells = |one: &Value| {
        let last = one["failures"].as_array().and_then(|failures| failures.last());
        [
            cell(&one["place"]),
            cell(&one["key"]),
            cell(&one["identity"]),
            cell(&one["event"]["type"]),
            cell(&one["attempts"]),
            last.map_or_else(String::new, |last| cell(&last["reason"])),
        ]
    };
    print(all, &json!({ "parked": all }), (columns, cells), format)
}

/// Prints what came of a replay.
pub(super) fn replayed(one: &Value, format: Format) -> Result<(), Failure> {
    let columns = [Column::Right("MESSAGES"), Column::Right("FAILED KEYS")];
    let cells = |one: &Value| [cell(&one["messages"]), cell(&one["failed-keys"])];
    print(std::slice::from_ref(one), one, (columns, cells), format)
}

/// Prints how many messages were given up.
pub(super) fn discarded(one: &Value, format: Format) -> Result<(), Failure> {
    let cells = |one: &Value| [cell(&one["messages"])];
    print(std::slice::from_ref(one), one, ([Column::Right("MESSAGES")], cells), format)
}
