//! Views as people and programs read them.

use serde_json::{Value, json};

use crate::{
    exit::Failure,
    output::{Column, Format, cell, print},
};

/// Prints how a view's builds stand.
pub(super) fn view(one: &Value, format: Format) -> Result<(), Failure> {
    let columns = [
        Column::Right("BUILD"),
        Column::Right("VERSION"),
        Column::Left("LIVE"),
        Column::Right("POSITION"),
        Column::Right("LAG EVENTS"),
        Column::Right("LAG SECONDS"),
        Column::Right("FEED SECONDS"),
        Column::Right("APPLIED"),
        Column::Right("PARKED"),
        Column::Right("SKIPPED"),
        Column::Right("UNACCOUNTED"),
        Column::Left("STANDING"),
        Column::Left("REASON"),
    ];
    let cells = |build: &Value| {
        let shards = build["shards"].as_array();
        // The one that stands worst speaks for all.
        let is_well = |shard: &&Value| matches!(shard["standing"].as_str(), Some("caught-up" | "inline"));
        let shown = shards.and_then(|all| all.iter().find(|shard| !is_well(shard)).or_else(|| all.first()));
        let shard = shown.cloned().unwrap_or_default();
        let live = if build["live"] == true { "live" } else { "" };
        let number = |member: &str| cell(&build[member]);
        [
            number("build"),
            number("version"),
            live.to_owned(),
            number("logposition"),
            number("lag-events"),
            number("lag-seconds"),
            behind_feeds(build),
            number("applied"),
            number("parked"),
            number("skipped"),
            number("unaccounted"),
            cell(&shard["standing"]),
            shard.get("reason").map(cell).unwrap_or_default(),
        ]
    };
    print(one["builds"].as_array().map_or(&[], Vec::as_slice), one, (columns, cells), format)
}

/// How far a build is behind the source that stands worst; nothing where it has none.
fn behind_feeds(build: &Value) -> String {
    let lags = build["feeds"].as_array().map_or(&[][..], Vec::as_slice).iter().map(|feed| feed["lag-seconds"].as_f64());
    let worst = lags.max_by(|one, other| one.unwrap_or(f64::MAX).total_cmp(&other.unwrap_or(f64::MAX)));
    worst.map_or_else(String::new, |lag| lag.map_or_else(|| "unknown".to_owned(), |lag| lag.to_string()))
}

/// Prints several views.
pub(super) fn views(all: &[Value], format: Format) -> Result<(), Failure> {
    let columns = [
        Column::Left("VIEW"),
        Column::Right("LIVE"),
        Column::Right("VERSION"),
        Column::Right("POSITION"),
        Column::Right("LAG EVENTS"),
        Column::Right("PARKED"),
        Column::Right("UNACCOUNTED"),
    ];
    let cells = |view: &Value| {
        let builds = view["builds"].as_array().map_or(&[][..], Vec::as_slice);
        let live = builds.iter().find(|build| build["live"] == true).cloned().unwrap_or_default();
        let of_live = ["version", "logposition", "lag-events", "parked"].map(|member| cell(&live[member]));
        let [version, position, lag, parked] = of_live;
        let unaccounted: u64 = builds.iter().filter_map(|build| build["unaccounted"].as_u64()).sum();
        [cell(&view["view"]), cell(&view["live"]), version, position, lag, parked, unaccounted.to_string()]
    };
    print(all, &json!({ "views": all }), (columns, cells), format)
}

/// Prints the tables of a view, a line for each column.
pub(super) fn tables(one: &Value, format: Format) -> Result<(), Failure> {
    let columns = [Column::Left("TABLE"), Column::Left("COLUMN"), Column::Left("TYPE"), Column::Left("KEY")];
    let of_table = |table: &Value| {
        let key = table["key"].as_array().cloned().unwrap_or_default();
        let place = |name: &Value| key.iter().position(|known| known == name).map(|n| n + 1);
        let line = |column: &Value| json!({ "table": table["table"], "column": column["name"], "type": column["type"], "key": place(&column["name"]) });
        table["columns"].as_array().map_or(&[][..], Vec::as_slice).iter().map(line).collect::<Vec<_>>()
    };
    let lines: Vec<Value> = one["tables"].as_array().map_or(&[][..], Vec::as_slice).iter().flat_map(of_table).collect();
    let cells = |line: &Value| ["table", "column", "type", "key"].map(|member| cell(&line[member]));
    print(&lines, one, (columns, cells), format)
}

/// Prints which build it was done to.
pub(super) fn build(done: &Value, format: Format) -> Result<(), Failure> {
    let cells = |done: &Value| [&done["view"], &done["build"]].map(cell);
    print(std::slice::from_ref(done), done, ([Column::Left("VIEW"), Column::Right("BUILD")], cells), format)
}

/// Prints parked events.
pub(super) fn parked(all: &[Value], format: Format) -> Result<(), Failure> {
    let columns = [
        Column::Right("POSITION"),
        Column::Left("KEY"),
        Column::Left("TYPE"),
        Column::Right("ATTEMPTS"),
        Column::Left("REASON"),
    ];
    let cells = |one: &Value| ["logposition", "key", "type", "attempts", "reason"].map(|member| cell(&one[member]));
    print(all, &json!({ "parked": all }), (columns, cells), format)
}

/// Prints events that were left out.
pub(super) fn skipped(all: &[Value], format: Format) -> Result<(), Failure> {
    let columns = [
        Column::Right("POSITION"),
        Column::Left("KEY"),
        Column::Left("TYPE"),
        Column::Left("BY"),
        Column::Left("REASON"),
    ];
    let cells = |one: &Value| ["logposition", "key", "type", "by", "reason"].map(|member| cell(&one[member]));
    print(all, &json!({ "skipped": all }), (columns, cells), format)
}

/// Prints effects that were not carried out yet.
pub(super) fn effects(all: &[Value], format: Format) -> Result<(), Failure> {
    let columns = [
        Column::Right("POSITION"),
        Column::Right("ORDINAL"),
        Column::Left("KIND"),
        Column::Right("ATTEMPTS"),
        Column::Left("GIVEN UP"),
        Column::Left("REASON"),
        Column::Left("PAYLOAD"),
    ];
    let members = ["logposition", "ordinal", "kind", "attempts", "given-up", "reason", "payload"];
    let cells = |one: &Value| members.map(|member| cell(&one[member]));
    print(all, &json!({ "effects": all }), (columns, cells), format)
}

/// Prints how many effects it was done for.
pub(super) fn effects_changed(done: &Value, format: Format) -> Result<(), Failure> {
    let cells = |done: &Value| [cell(&done["effects"])];
    print(std::slice::from_ref(done), done, ([Column::Right("EFFECTS")], cells), format)
}

/// Prints how many events it was done for.
pub(super) fn count(done: &Value, format: Format) -> Result<(), Failure> {
    let cells = |done: &Value| [cell(&done["events"])];
    print(std::slice::from_ref(done), done, ([Column::Right("EVENTS")], cells), format)
}

/// Prints what a recount came to.
pub(super) fn audit(one: &Value, format: Format) -> Result<(), Failure> {
    let columns = [Column::Right("BUILD"), Column::Right("EXPECTED"), Column::Right("HANDLED"), Column::Left("WHOLE")];
    let cells = |one: &Value| ["build", "expected", "handled", "whole"].map(|member| cell(&one[member]));
    print(std::slice::from_ref(one), one, (columns, cells), format)
}

/// Prints what became of a declaration.
pub(super) fn declared(one: &Value, format: Format) -> Result<(), Failure> {
    let columns = [Column::Left("VIEW"), Column::Right("VERSION"), Column::Left("NEW")];
    let cells = |one: &Value| ["view", "version", "new"].map(|member| cell(&one[member]));
    print(std::slice::from_ref(one), one, (columns, cells), format)
}

/// Prints that nothing is wrong with a document.
pub(super) fn checked(one: &Value, format: Format) -> Result<(), Failure> {
    let columns = [Column::Left("VIEW"), Column::Right("VERSION"), Column::Left("VALID")];
    let cells = |one: &Value| ["view", "version", "valid"].map(|member| cell(&one[member]));
    print(std::slice::from_ref(one), one, (columns, cells), format)
}

/// Prints which view was deleted.
pub(super) fn deleted(one: &Value, format: Format) -> Result<(), Failure> {
    let cells = |one: &Value| ["view", "deleted"].map(|member| cell(&one[member]));
    print(std::slice::from_ref(one), one, ([Column::Left("VIEW"), Column::Left("DELETED")], cells), format)
}

/// Prints the events that made a row, each with the row behind it.
pub(super) fn explained(one: &Value, format: Format) -> Result<(), Failure> {
    let columns = [
        Column::Right("POSITION"),
        Column::Left("STREAM"),
        Column::Right("VERSION"),
        Column::Left("TYPE"),
        Column::Left("ROW BEHIND IT"),
    ];
    let cells = |event: &Value| {
        let of = |member: &str| cell(&event[member]);
        let after = if event["after"].is_null() { "none".to_owned() } else { event["after"].to_string() };
        [of("logposition"), of("stream"), of("streamversion"), of("type"), after]
    };
    print(one["events"].as_array().map_or(&[], Vec::as_slice), one, (columns, cells), format)
}
