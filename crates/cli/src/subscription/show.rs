//! Subscriptions, deliveries and parked events as people and programs read them.

use serde_json::{Value, json};

use crate::{
    client::{Reply, Server},
    exit::Failure,
    output::{Column, Format, Layout, Out, cell, note, print},
};

/// Prints how one subscription stands.
pub(super) fn subscription(one: &Value, format: Format) -> Result<(), Failure> {
    let columns = [
        Column::Left("SUBSCRIPTION"),
        Column::Right("CHECKPOINT"),
        Column::Right("HEAD"),
        Column::Right("LAG EVENTS"),
        Column::Right("LAG SECONDS"),
        Column::Right("IN FLIGHT"),
        Column::Right("PARKED"),
        Column::Right("OLDEST"),
        Column::Left("STALL"),
    ];
    let members = |one: &Value| {
        ["subscription", "checkpoint", "head", "lag-events", "lag-seconds", "in-flight", "parked", "oldest", "stall"]
            .map(|member| cell(&one[member]))
    };
    print(std::slice::from_ref(one), one, (columns, members), format)?;
    passed_over(one);
    Ok(())
}

/// Says how many events a subscription was never given, if there are any.
pub(crate) fn passed_over(subscription: &Value) {
    if let Some(events) = subscription["passed-over"].as_u64().filter(|events| *events > 0) {
        note(&format!("{events} events were truncated or archived before their turn, and passed over"));
    }
}

/// Prints several subscriptions.
pub(super) fn subscriptions(all: &[Value], format: Format) -> Result<(), Failure> {
    let columns = [Column::Left("SUBSCRIPTION"), Column::Right("CHECKPOINT"), Column::Left("LEASE")];
    let cells = |one: &Value| [&one["subscription"], &one["checkpoint"], &one["config"]["lease-ttl"]].map(cell);
    print(all, &json!({ "subscriptions": all }), (columns, cells), format)
}

/// Prints which subscription is gone.
pub(super) fn deleted(one: &Value, format: Format) -> Result<(), Failure> {
    let cells = |one: &Value| [cell(&one["subscription"])];
    print(std::slice::from_ref(one), one, ([Column::Left("DELETED")], cells), format)
}

/// Prints what was pulled; for programs exactly as it was sent, since data's numbers must not change.
pub(super) fn deliveries(reply: &Reply, server: &Server, format: Format) -> Result<(), Failure> {
    if format == Format::Json {
        let mut out = Out::new();
        out.write(&reply.body)?;
        out.write(b"\n")?;
        return out.flush();
    }
    let columns = [
        Column::Left("LEASE"),
        Column::Right("ATTEMPT"),
        Column::Left("TTL"),
        Column::Left("KEY"),
        Column::Right("POSITION"),
        Column::Left("TYPE"),
    ];
    let cells = |one: &Value| {
        let event = &one["event"];
        [&one["lease"], &one["attempt"], &one["ttl"], &one["key"], &event["logposition"], &event["type"]].map(cell)
    };
    let whole = reply.json(server)?;
    let deliveries = whole["deliveries"].as_array().cloned().unwrap_or_default();
    print(&deliveries, &whole, (columns, cells), format)
}

/// Prints parked events.
pub(crate) fn parked(all: &[Value], format: Format) -> Result<(), Failure> {
    let columns = [
        Column::Right("POSITION"),
        Column::Left("KEY"),
        Column::Right("ATTEMPTS"),
        Column::Left("CAUSE"),
        Column::Left("REASON"),
    ];
    let cells = |one: &Value| {
        let last = one["failures"].as_array().and_then(|failures| failures.last()).unwrap_or(&Value::Null);
        [&one["logposition"], &one["key"], &one["attempts"], &last["cause"], &last["reason"]].map(cell)
    };
    print(all, &json!({ "parked": all }), (columns, cells), format)
}

/// Prints how many `what` it was done for.
pub(crate) fn count(done: &Value, what: &'static str, format: Format) -> Result<(), Failure> {
    let layout: Layout<1> = match what {
        "leases" => ([Column::Right("LEASES")], |done| [cell(&done["leases"])]),
        _ => ([Column::Right("EVENTS")], |done| [cell(&done["events"])]),
    };
    print(std::slice::from_ref(done), done, layout, format)
}
