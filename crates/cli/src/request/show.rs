//! Types of requests as people and programs read them.

use serde_json::{Value, json};

use crate::{
    exit::Failure,
    output::{Column, Format, Layout, cell, print},
};

const LAYOUT: Layout<7> = (
    [
        Column::Left("TYPE"),
        Column::Left("EXCHANGE"),
        Column::Left("TIME LIMIT"),
        Column::Left("IDEMPOTENT"),
        Column::Right("RESPONDERS"),
        Column::Right("WAITING"),
        Column::Right("RUNNING"),
    ],
    |one| {
        ["type", "exchange", "time-limit", "idempotent", "responders", "waiting", "running"]
            .map(|member| cell(&one[member]))
    },
);

/// Prints one type.
pub(super) fn kind(one: &Value, format: Format) -> Result<(), Failure> {
    print(std::slice::from_ref(one), one, LAYOUT, format)
}

/// Prints several.
pub(super) fn kinds(all: &[Value], format: Format) -> Result<(), Failure> {
    print(all, &json!({ "request-types": all }), LAYOUT, format)
}

/// Prints what became of a durable request.
pub(super) fn status(one: &Value, format: Format) -> Result<(), Failure> {
    let columns = ["TYPE", "ID", "STATUS", "ATTEMPTS", "SAYS"].map(Column::Left);
    let layout: Layout<5> = (columns, |one| {
        let says = match (&one["answer"], &one["fault"]) {
            (Value::Null, Value::Null) => String::new(),
            (Value::Null, fault) => [&fault["code"], &fault["detail"]].map(cell).join(": "),
            (answer, _) if answer["body-base64"] != Value::Null => "(binary)".to_owned(),
            (answer, _) => cell(&answer["body"]),
        };
        let [kind, id, status, attempts] = ["type", "id", "status", "attempts"].map(|member| cell(&one[member]));
        [kind, id, status, attempts, says]
    });
    print(std::slice::from_ref(one), one, layout, format)
}

/// Prints which type is gone.
pub(super) fn deleted(one: &Value, format: Format) -> Result<(), Failure> {
    let layout: Layout<1> = ([Column::Left("DELETED")], |one| [cell(&one["type"])]);
    print(std::slice::from_ref(one), one, layout, format)
}
