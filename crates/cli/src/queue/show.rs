//! Queues, deliveries and dead letters as people and programs read them.

use serde_json::{Value, json};

use crate::{
    client::{Reply, Server},
    exit::Failure,
    output::{Column, Format, Layout, Out, cell, print},
};

/// Prints how one queue stands.
pub(super) fn queue(one: &Value, format: Format) -> Result<(), Failure> {
    let columns = [
        Column::Left("QUEUE"),
        Column::Right("MESSAGES"),
        Column::Right("READY"),
        Column::Right("WAITING"),
        Column::Right("IN FLIGHT"),
        Column::Right("PARKED"),
        Column::Right("AGE SECONDS"),
        Column::Right("CONSUMERS"),
    ];
    let cells = |one: &Value| {
        ["queue", "messages", "ready", "waiting", "in-flight", "parked", "age-seconds", "consumers"]
            .map(|member| cell(&one[member]))
    };
    print(std::slice::from_ref(one), one, (columns, cells), format)
}

/// Prints several queues.
pub(super) fn queues(all: &[Value], format: Format) -> Result<(), Failure> {
    let columns = [Column::Left("QUEUE"), Column::Left("LEASE"), Column::Right("ATTEMPTS"), Column::Left("DEDUPE")];
    let cells = |one: &Value| {
        let (config, damaged) = (&one["config"], &one["damaged"]);
        let lease = if damaged.is_null() { cell(&config["lease-ttl"]) } else { "damaged".to_owned() };
        [cell(&one["queue"]), lease, cell(&config["max-attempts"]), cell(&config["dedupe"])]
    };
    print(all, &json!({ "queues": all }), (columns, cells), format)
}

/// Prints which queue is gone.
pub(super) fn deleted(one: &Value, format: Format) -> Result<(), Failure> {
    let cells = |one: &Value| [cell(&one["queue"])];
    print(std::slice::from_ref(one), one, ([Column::Left("DELETED")], cells), format)
}

/// Prints what was sent.
pub(super) fn sent(reply: &Value, format: Format) -> Result<(), Failure> {
    let cells = |one: &Value| [&one["id"], &one["repeated"], &one["held-by"]].map(cell);
    let messages = reply["messages"].as_array().cloned().unwrap_or_default();
    let columns = [Column::Left("ID"), Column::Left("REPEATED"), Column::Left("HELD BY")];
    print(&messages, reply, (columns, cells), format)
}

/// Prints schedules; for programs `whole`.
pub(super) fn schedules(all: &[Value], whole: &Value, format: Format) -> Result<(), Failure> {
    let columns = [
        Column::Left("SCHEDULE"),
        Column::Left("NEXT"),
        Column::Left("CRON"),
        Column::Left("TIME ZONE"),
        Column::Left("MISSED"),
    ];
    let cells = |one: &Value| {
        let cron = if one["damaged"].is_null() { cell(&one["cron"]) } else { "damaged".to_owned() };
        [cell(&one["schedule"]), cell(&one["next"]), cron, cell(&one["time-zone"]), cell(&one["missed"])]
    };
    print(all, whole, (columns, cells), format)
}

/// Prints which schedule is gone.
pub(super) fn unscheduled(one: &Value, format: Format) -> Result<(), Failure> {
    let cells = |one: &Value| [cell(&one["schedule"])];
    print(std::slice::from_ref(one), one, ([Column::Left("DELETED")], cells), format)
}

/// Prints what was received; for programs exactly as it was sent, since data's numbers must not change.
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
        Column::Left("GROUP"),
        Column::Left("ID"),
        Column::Left("TYPE"),
    ];
    let cells = |one: &Value| {
        let event = &one["event"];
        [&one["lease"], &one["attempt"], &one["ttl"], &one["group"], &event["id"], &event["type"]].map(cell)
    };
    let whole = reply.json(server)?;
    let deliveries = whole["deliveries"].as_array().cloned().unwrap_or_default();
    print(&deliveries, &whole, (columns, cells), format)
}

/// Prints dead letters.
pub(super) fn parked(all: &[Value], format: Format) -> Result<(), Failure> {
    let columns = [
        Column::Left("ID"),
        Column::Left("GROUP"),
        Column::Left("TYPE"),
        Column::Right("ATTEMPTS"),
        Column::Left("CAUSE"),
        Column::Left("REASON"),
    ];
    let cells = |one: &Value| {
        let last = one["failures"].as_array().and_then(|failures| failures.last()).unwrap_or(&Value::Null);
        let event = &one["event"];
        [&event["id"], &one["group"], &event["type"], &one["attempts"], &last["cause"], &last["reason"]].map(cell)
    };
    print(all, &json!({ "parked": all }), (columns, cells), format)
}

/// Prints how many `what` it was done for.
pub(super) fn count(done: &Value, what: &'static str, format: Format) -> Result<(), Failure> {
    let layout: Layout<1> = match what {
        "leases" => ([Column::Right("LEASES")], |done| [cell(&done["leases"])]),
        _ => ([Column::Right("MESSAGES")], |done| [cell(&done["messages"])]),
    };
    print(std::slice::from_ref(done), done, layout, format)
}
