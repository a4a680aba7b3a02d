//! The tables of a document.

use std::{collections::BTreeSet, ops::Range};

use super::{
    super::{
        kind::Kind,
        source::{Entry, Table, texts},
        sql::{POSITION, is_reserved},
    },
    ColumnShape, Document, Reader, TableShape, Written,
};
use crate::materialized_view::{Schema, name::check_table};

/// Names that the engine gives to something else.
const TAKEN: [&str; 4] = [POSITION, "rowid", "oid", "excluded"];

pub(super) fn read(reader: &Reader<'_>, document: &mut Table<'_, '_, '_>) -> Vec<TableShape> {
    let Some(node) = document.take("tables") else {
        document.missing("tables");
        return Vec::new();
    };
    let Some(mut all) = Table::of(reader, "tables", node) else { return Vec::new() };
    let tables: Vec<TableShape> = all.rest().into_iter().filter_map(|entry| table(reader, entry)).collect();
    let entries = tables.iter().map(|table| 1 + table.indexes.len()).sum::<usize>();
    if node_is_empty(&node.value) {
        reader.fault(&node.span, "tables", "a view has at least one table");
    }
    if tables.len() > Document::MAX_TABLES || entries > Schema::MAX_ENTRIES {
        let (tables, entries) = (Document::MAX_TABLES, Schema::MAX_ENTRIES);
        reader.fault(&node.span, "tables", format!("a view has at most {tables} tables, with their indexes {entries}"));
    }
    let mut names = BTreeSet::new();
    let all_names = tables.iter().flat_map(|table| {
        std::iter::once(table.name.clone()).chain(table.indexes.iter().map(|(name, _)| table.index(name)))
    });
    for name in all_names {
        if !names.insert(name.clone()) {
            reader.fault(&node.span, "tables", format!("`{name}` names two tables or indexes"));
        }
    }
    tables
}

fn node_is_empty(value: &Written) -> bool {
    matches!(value, Written::Table(entries) if entries.is_empty())
}

fn table(reader: &Reader<'_>, entry: &Entry) -> Option<TableShape> {
    let mut table = Table::of(reader, format!("tables.{}", entry.key), &entry.node)?;
    name(reader, &table.field, &entry.key_span, &entry.key);
    let columns = columns(reader, &mut table);
    let known = |column: &str, span: &Range<usize>, field: &str| {
        let found = columns.iter().find(|known| known.name == column);
        if found.is_none() {
            let all: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
            reader.fault(span, field, format!("there is no column `{column}`; there is {}", all.join(", ")));
        }
        found
    };
    let field = table.path("key");
    let key = table.texts("key").unwrap_or_else(|| {
        table.missing("key");
        Vec::new()
    });
    for (column, span) in &key {
        let Some(column) = known(column, span, &field) else { continue };
        if column.null {
            reader.fault(span, &field, format!("`{}` is part of the key, so it always has a value", column.name));
        }
        if matches!(column.kind, Kind::Real | Kind::Json) {
            reader.fault(span, &field, format!("a key is no {}: two that look the same may differ", column.kind));
        }
    }
    let key: Vec<String> = key.into_iter().map(|(column, _)| column.to_owned()).collect();
    if key.iter().collect::<BTreeSet<_>>().len() < key.len() {
        reader.fault(&table.span, &field, "a column stands here twice");
    }
    let mut indexes = Vec::new();
    let field = table.path("indexes");
    if let Some(mut all) = table.take("indexes").and_then(|node| Table::of(reader, field, node)) {
        for entry in all.rest() {
            let field = all.path(&entry.key);
            name(reader, &field, &entry.key_span, &entry.key);
            let list = texts(reader, &field, &entry.node).unwrap_or_default();
            let wanted: Vec<String> = list
                .into_iter()
                .filter(|(column, span)| known(column, span, &field).is_some())
                .map(|(column, _)| column.to_owned())
                .collect();
            if wanted.is_empty() {
                reader.fault(&entry.node.span, &field, "an index has at least one column");
            }
            indexes.push((entry.key.clone(), wanted));
        }
    }
    table.end();
    (!columns.is_empty() && !key.is_empty()).then(|| TableShape { name: entry.key.clone(), columns, key, indexes })
}

fn columns(reader: &Reader<'_>, table: &mut Table<'_, '_, '_>) -> Vec<ColumnShape> {
    let field = table.path("columns");
    let Some(node) = table.take("columns") else {
        table.missing("columns");
        return Vec::new();
    };
    let Some(mut all) = Table::of(reader, field.clone(), node) else { return Vec::new() };
    let columns: Vec<ColumnShape> = all.rest().into_iter().filter_map(|entry| column(reader, &field, entry)).collect();
    if columns.is_empty() || columns.len() > Document::MAX_COLUMNS {
        let max = Document::MAX_COLUMNS;
        reader.fault(&node.span, &field, format!("a table has 1 to {max} columns"));
    }
    columns
}

/// `amount = "decimal(2)?"`
fn column(reader: &Reader<'_>, columns: &str, entry: &Entry) -> Option<ColumnShape> {
    let field = format!("{columns}.{}", entry.key);
    name(reader, &field, &entry.key_span, &entry.key);
    let Written::Text(written) = &entry.node.value else {
        let what = format!("the type of the column stands here, as a text, not {}", entry.node.value.kind());
        reader.fault(&entry.node.span, &field, what);
        return None;
    };
    let (kind, null) = written.strip_suffix('?').map_or((written.as_str(), false), |kind| (kind, true));
    let Ok(kind) = kind.parse() else {
        let what = format!("`{kind}` is no type; there is {}, each with `?` behind it where it may be null", Kind::ALL);
        reader.fault(&entry.node.span, &field, what);
        return None;
    };
    Some(ColumnShape { name: entry.key.clone(), kind, null })
}

/// Checks the name of a table, a column or an index.
fn name(reader: &Reader<'_>, field: &str, span: &Range<usize>, name: &str) {
    if check_table(name).is_err() {
        let what = format!("`{name}` is no name: use 1 to 63 small letters and digits, with single `_` between words");
        reader.fault(span, field, what);
    } else if is_reserved(name) || TAKEN.contains(&name) {
        reader.fault(span, field, format!("`{name}` means something in SQL, or is the view's own: use another name"));
    }
}
