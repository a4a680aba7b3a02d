//! Webhooks and attempts as people and programs read them.

use serde_json::{Value, json};

use crate::{
    exit::Failure,
    output::{Column, Format, cell, note, print},
    subscription::show::passed_over,
};

/// Prints how one webhook stands.
pub(super) fn webhook(one: &Value, format: Format) -> Result<(), Failure> {
    let columns = [
        Column::Left("WEBHOOK"),
        Column::Left("STATE"),
        Column::Left("BREAKER"),
        Column::Right("CHECKPOINT"),
        Column::Right("LAG EVENTS"),
        Column::Right("IN FLIGHT"),
        Column::Right("RESTING"),
        Column::Right("PARKED"),
        Column::Left("STALL"),
        Column::Left("URL"),
    ];
    let cells = |one: &Value| {
        let fed = &one["subscription"];
        [
            cell(&one["webhook"]),
            cell(&one["state"]),
            cell(&one["breaker"]),
            cell(&fed["checkpoint"]),
            cell(&fed["lag-events"]),
            cell(&fed["in-flight"]),
            cell(&fed["resting"]),
            cell(&fed["parked"]),
            cell(&fed["stall"]),
            cell(&one["config"]["url"]),
        ]
    };
    print(std::slice::from_ref(one), one, (columns, cells), format)?;
    passed_over(&one["subscription"]);
    if let Some(until) = one["paused-until"].as_str() {
        note(&format!("it asked to be left alone until {until}"));
    }
    if let Some(why) = one["disabled"]["reason"].as_str() {
        note(&format!("disabled since {}: {why}", cell(&one["disabled"]["since"])));
    }
    if one["secret"].is_null() || format == Format::Json {
        return Ok(());
    }
    note("its secret is shown this once");
    let cells = |one: &Value| [cell(&one["secret"])];
    print(std::slice::from_ref(one), one, ([Column::Left("SECRET")], cells), format)
}

/// Prints several webhooks.
pub(super) fn webhooks(all: &[Value], format: Format) -> Result<(), Failure> {
    let columns = [Column::Left("WEBHOOK"), Column::Left("STATE"), Column::Left("REASON"), Column::Left("URL")];
    let cells =
        |one: &Value| [&one["webhook"], &one["state"], &one["disabled"]["reason"], &one["config"]["url"]].map(cell);
    print(all, &json!({ "webhooks": all }), (columns, cells), format)
}

/// Prints which webhook is gone.
pub(super) fn deleted(one: &Value, format: Format) -> Result<(), Failure> {
    let cells = |one: &Value| [cell(&one["webhook"])];
    print(std::slice::from_ref(one), one, ([Column::Left("DELETED")], cells), format)
}

/// Prints a secret.
pub(super) fn secret(one: &Value, format: Format) -> Result<(), Failure> {
    let columns = [Column::Left("SECRET"), Column::Left("FINGERPRINT")];
    let cells = |one: &Value| [&one["secret"], &one["fingerprint"]].map(cell);
    print(std::slice::from_ref(one), one, (columns, cells), format)
}

/// Prints what an endpoint said to a test.
pub(super) fn tested(one: &Value, format: Format) -> Result<(), Failure> {
    let columns =
        [Column::Left("WEBHOOK-ID"), Column::Right("STATUS"), Column::Right("SECONDS"), Column::Left("OUTCOME")];
    let cells = |one: &Value| [&one["webhook-id"], &one["status"], &one["took-seconds"], &one["outcome"]].map(cell);
    print(std::slice::from_ref(one), one, (columns, cells), format)
}

/// Prints attempts.
pub(super) fn attempts(all: &[Value], format: Format) -> Result<(), Failure> {
    let columns = [
        Column::Left("TIME"),
        Column::Right("POSITION"),
        Column::Left("TYPE"),
        Column::Right("ATTEMPT"),
        Column::Right("STATUS"),
        Column::Right("SECONDS"),
        Column::Left("OUTCOME"),
    ];
    let cells = |one: &Value| {
        ["time", "logposition", "type", "attempt", "status", "took-seconds", "outcome"].map(|member| cell(&one[member]))
    };
    print(all, &json!({ "attempts": all }), (columns, cells), format)
}
