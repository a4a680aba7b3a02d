//! The samples of a document: events, and the rows they should lead to.

use std::sync::Arc;

use serde_json::value::RawValue;

use super::{
    super::source::{Entry, Table},
    ColumnShape, Document, ExpectedRow, ExpectedTable, Node, Place, Reader, Sample, TableShape, Written,
};
use crate::{
    event::{NewEvent, Scalar, Tags, Timestamp},
    materialized_view::declared::kind::Kind,
    store::Value,
};
use quorate_foundations::name::Name;

/// `source`: of events that name none.
pub(super) fn samples(
    reader: &Reader<'_>,
    document: &mut Table<'_, '_, '_>,
    tables: &[TableShape],
    source: &str,
) -> Vec<Sample> {
    let list = document.list("samples").unwrap_or_default();
    if list.len() > Document::MAX_SAMPLES {
        reader.fault(&document.span, "samples", format!("there are at most {} samples", Document::MAX_SAMPLES));
    }
    list.iter().enumerate().filter_map(|(n, node)| sample(reader, n, node, tables, source)).collect()
}

fn sample(reader: &Reader<'_>, n: usize, node: &Node, tables: &[TableShape], source: &str) -> Option<Sample> {
    let mut table = Table::of(reader, format!("samples[{n}]"), node)?;
    let events = table.list("events").unwrap_or_else(|| {
        table.missing("events");
        &[]
    });
    if events.len() > Document::MAX_SAMPLES {
        let what = format!("a sample has at most {} events", Document::MAX_SAMPLES);
        reader.fault(&node.span, &table.path("events"), what);
    }
    let field = table.path("events");
    let event = |(n, node): (usize, &Node)| event(reader, n, &format!("{field}[{n}]"), node, source);
    let events = events.iter().enumerate().filter_map(event);
    let events = events.collect();
    let mut rows = Vec::new();
    let field = table.path("rows");
    if let Some(mut all) = table.take("rows").and_then(|node| Table::of(reader, field, node)) {
        rows.extend(all.rest().into_iter().filter_map(|entry| expected(reader, &all.path(&entry.key), entry, tables)));
    }
    table.end();
    Some(Sample { events, rows })
}

/// An event as the node serves it: attributes beside `data`, and `stream`.
fn event(reader: &Reader<'_>, n: usize, field: &str, node: &Node, source: &str) -> Option<(Name, NewEvent, Place)> {
    let mut table = Table::of(reader, field, node)?;
    let (stream, stream_span) = table.required_text("stream")?;
    let stream =
        Name::new(stream).map_err(|wrong| reader.fault(&stream_span, &table.path("stream"), wrong.to_string())).ok();
    let kind = table.required_text("type")?.0;
    let mut text = |key: &'static str| table.text(key).map(|(text, span)| (Arc::<str>::from(text), span));
    let id = text("id").map_or_else(|| format!("sample-{}", n + 1).into(), |(id, _)| id);
    let source = text("source").map_or_else(|| source.into(), |(source, _)| source);
    let mut event = NewEvent::new(id, source, kind);
    event.subject = text("subject").map(|(text, _)| text);
    event.schema = text("dataschema").map(|(text, _)| text);
    event.correlation_id = text("correlationid").map(|(text, _)| text);
    event.causation_id = text("causationid").map(|(text, _)| text);
    let content_type = text("datacontenttype").map(|(text, _)| text);
    let (time, tags) = (text("time"), text("tags"));
    if let Some((time, span)) = time {
        let parsed: Result<Timestamp, _> = time.parse();
        event.time = parsed.map_err(|wrong| reader.fault(&span, &table.path("time"), wrong.to_string())).ok();
    }
    if let Some((tags, span)) = tags {
        let parsed = Tags::new(tags.split(' ').filter(|tag| !tag.is_empty()));
        event.tags =
            parsed.map_err(|wrong| reader.fault(&span, &table.path("tags"), wrong.to_string())).unwrap_or_default();
    }
    if let Some(data) = table.take("data") {
        event = event.json(data.value.to_json());
    }
    if let Some(given) = content_type {
        event.content_type = Some(given);
    }
    for entry in table.rest() {
        let value = match &entry.node.value {
            Written::Text(text) => Some(Scalar::Text(text.clone())),
            Written::Boolean(yes) => Some(Scalar::Boolean(*yes)),
            Written::Number(number) => number.parse().ok().map(Scalar::Integer),
            _ => None,
        };
        match value {
            Some(value) => drop(event.extensions.insert(entry.key.clone(), value)),
            None => {
                let what = "a text, true or false, or a 32-bit whole number stands here";
                reader.fault(&entry.node.span, &table.path(&entry.key), what);
            }
        }
    }
    if let Err(wrong) = event.check() {
        reader.fault(&node.span, field, wrong.to_string());
    }
    Some((stream?, event, Place::new(field, &node.span)))
}

/// `table = [{ column = value, … }, …]`
fn expected(reader: &Reader<'_>, field: &str, entry: &Entry, tables: &[TableShape]) -> Option<ExpectedTable> {
    let Some(table) = tables.iter().position(|table| table.name == entry.key) else {
        let all: Vec<&str> = tables.iter().map(|table| table.name.as_str()).collect();
        let what = format!("this view has no table `{}`; it has {}", entry.key, all.join(", "));
        reader.fault(&entry.key_span, field, what);
        return None;
    };
    let Written::List(list) = &entry.node.value else {
        let what = format!("a list of rows stands here, not {}", entry.node.value.kind());
        reader.fault(&entry.node.span, field, what);
        return None;
    };
    let row = |(n, node): (usize, &Node)| row(reader, &format!("{field}[{n}]"), node, &tables[table]);
    let rows = list.iter().enumerate().filter_map(row).collect();
    Some(ExpectedTable { table, place: Place::new(field, &entry.node.span), rows })
}

fn row(reader: &Reader<'_>, field: &str, node: &Node, shape: &TableShape) -> Option<ExpectedRow> {
    let mut table = Table::of(reader, field, node)?;
    let mut values = Vec::new();
    for entry in table.rest() {
        let field = table.path(&entry.key);
        let Some(n) = shape.columns.iter().position(|column| column.name == entry.key) else {
            reader.fault(&entry.key_span, &field, format!("`{}` has no column `{}`", shape.name, entry.key));
            continue;
        };
        match value(&entry.node, &shape.columns[n]) {
            Ok(value) => values.push((n, value)),
            Err(why) => reader.fault(&entry.node.span, &field, why),
        }
    }
    Some(ExpectedRow { values, place: Place::new(field, &node.span) })
}

fn value(node: &Node, column: &ColumnShape) -> Result<Value, String> {
    let json = node.value.to_json();
    if column.kind == Kind::Json {
        return Ok(json.into());
    }
    let raw = RawValue::from_string(json).map_err(|_| "this is no JSON number".to_owned())?;
    column.kind.read(&raw)
}
