//! TOML.

use std::ops::Range;

use toml::{
    Spanned,
    de::{DeString, DeTable, DeValue},
};

use super::{Entry, Fault, Node, Value};

pub(super) fn parse(text: &str) -> Result<Node, Fault> {
    let parsed = DeTable::parse(text).map_err(|wrong| {
        let at = wrong.span().map_or(0, |span| span.start);
        Fault::at(text, at, "", format!("this is not TOML: {}", wrong.message()))
    })?;
    table(parsed.get_ref(), 0..0)
}

fn table(table: &DeTable<'_>, span: Range<usize>) -> Result<Node, Fault> {
    let mut entries = table.iter().map(|(key, value)| entry(key, value)).collect::<Result<Vec<_>, _>>()?;
    // The table itself is sorted by key; columns have the order in which they were written.
    entries.sort_by_key(|entry| entry.key_span.start);
    let start = entries.first().map_or(span.start, |entry| entry.key_span.start);
    let span = if span.is_empty() { start..start } else { span };
    Ok(Node { span, value: Value::Table(entries) })
}

fn entry(key: &Spanned<DeString<'_>>, value: &Spanned<DeValue<'_>>) -> Result<Entry, Fault> {
    Ok(Entry { key: key.get_ref().to_string(), key_span: key.span(), node: node(value)? })
}

fn node(value: &Spanned<DeValue<'_>>) -> Result<Node, Fault> {
    let span = value.span();
    let value = match value.get_ref() {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(whole) => Value::Number(whole.to_string()),
            Err(_) => Value::Number(number.as_str().to_owned()),
        },
        DeValue::Float(number) => Value::Number(number.as_str().to_owned()),
        DeValue::Boolean(yes) => Value::Boolean(*yes),
        DeValue::Datetime(time) => Value::Text(time.to_string()),
        DeValue::Array(list) => Value::List(list.iter().map(node).collect::<Result<_, _>>()?),
        DeValue::Table(inner) => return table(inner, span),
    };
    Ok(Node { span, value })
}
