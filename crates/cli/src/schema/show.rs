//! Schemas as people and programs read them.

use serde_json::{Value, json};

use crate::{
    exit::Failure,
    output::{Column, Format, Out, cell, print},
};

/// Prints what became of a registration.
pub(super) fn registered(one: &Value, format: Format) -> Result<(), Failure> {
    let columns = [
        Column::Left("TYPE"),
        Column::Right("VERSION"),
        Column::Left("MODE"),
        Column::Left("NEW"),
        Column::Left("SCHEMA"),
    ];
    let cells = |one: &Value| ["type", "version", "mode", "new", "schema"].map(|member| cell(&one[member]));
    print(std::slice::from_ref(one), one, (columns, cells), format)
}

/// Prints types that have a schema.
pub(super) fn types(all: &[Value], format: Format) -> Result<(), Failure> {
    let columns = [Column::Left("TYPE"), Column::Right("LATEST"), Column::Left("MODE")];
    let cells = |one: &Value| ["type", "latest", "mode"].map(|member| cell(&one[member]));
    print(all, &json!({ "schemas": all }), (columns, cells), format)
}

/// Prints a type's versions.
pub(super) fn versions(one: &Value, format: Format) -> Result<(), Failure> {
    let columns =
        [Column::Right("VERSION"), Column::Left("ACCEPTED AS"), Column::Right("BYTES"), Column::Left("SCHEMA")];
    let cells = |one: &Value| ["version", "mode", "bytes", "schema"].map(|member| cell(&one[member]));
    let all = one["versions"].as_array().map_or(&[][..], Vec::as_slice);
    print(all, one, (columns, cells), format)
}

/// Prints a schema.
pub(super) fn schema(one: &Value) -> Result<(), Failure> {
    let mut out = Out::new();
    out.json(one)?;
    out.flush()
}

/// Prints a type's mode.
pub(super) fn mode(one: &Value, format: Format) -> Result<(), Failure> {
    let cells = |one: &Value| ["type", "mode"].map(|member| cell(&one[member]));
    print(std::slice::from_ref(one), one, ([Column::Left("TYPE"), Column::Left("MODE")], cells), format)
}

/// Prints what a registration would come to: the version, or what stands in its way.
pub(super) fn checked(one: &Value, format: Format) -> Result<(), Failure> {
    if one["compatible"] == true {
        let columns = [Column::Left("TYPE"), Column::Right("VERSION"), Column::Left("MODE"), Column::Left("NEW")];
        let cells = |one: &Value| ["type", "version", "mode", "new"].map(|member| cell(&one[member]));
        return print(std::slice::from_ref(one), one, (columns, cells), format);
    }
    let columns = [Column::Right("VERSION"), Column::Left("PATH"), Column::Left("WHY")];
    let cells = |one: &Value| ["version", "path", "message"].map(|member| cell(&one[member]));
    print(&findings(one), one, (columns, cells), format)
}

/// Every finding, with the version it is about.
fn findings(one: &Value) -> Vec<Value> {
    let members = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let with_version = |with: Value| {
        let findings = members(&with["findings"]);
        findings.into_iter().map(move |mut finding| {
            finding["version"] = with["version"].clone();
            finding
        })
    };
    members(&one["incompatible"]).into_iter().flat_map(with_version).collect()
}
