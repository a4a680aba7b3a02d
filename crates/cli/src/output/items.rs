//! Items as people and programs read them.

use serde_json::Value;

use super::{Column, Format, Out, Table};
use crate::exit::Failure;

/// A table's columns, and what stands in them for one item.
pub(crate) type Layout<const N: usize> = ([Column; N], fn(&Value) -> [String; N]);

/// Prints `whole` for programs, or a row of `cells` per item for people.
pub(crate) fn print<const N: usize>(
    items: &[Value],
    whole: &Value,
    (columns, cells): ([Column; N], impl Fn(&Value) -> [String; N]),
    format: Format,
) -> Result<(), Failure> {
    let mut out = Out::new();
    if format == Format::Json {
        out.json(whole)?;
        return out.flush();
    }
    let mut table = Table::new(columns);
    items.iter().for_each(|item| table.row(cells(item)));
    table.print(&mut out)
}

/// A member as a cell: text without quotes, nothing as nothing.
pub(crate) fn cell(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}
