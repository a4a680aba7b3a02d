//! The rules of a document: which events, which parameters, which statements.

use std::collections::BTreeMap;

use quorate_foundations::jq::Program;

use super::{
    super::{
        bind::{Binding, Bindings, ItemsOf},
        kind::Kind,
        path::Path,
        source::{Entry, Table},
        sql::{self, Shape, ShapeColumn, Shapes, Use},
    },
    ColumnShape, Document, Node, Place, Reader, Rule, Statement, TableShape, TypePattern, Written,
};

pub(super) fn read(reader: &Reader<'_>, document: &mut Table<'_, '_, '_>, tables: &[TableShape]) -> Vec<Rule> {
    let Some(list) = document.list("on") else {
        document.missing("on");
        return Vec::new();
    };
    if list.is_empty() || list.len() > Document::MAX_RULES {
        reader.fault(&document.span, "on", format!("a view has 1 to {} rules", Document::MAX_RULES));
    }
    let shapes = shapes(tables);
    list.iter().enumerate().filter_map(|(n, node)| rule(reader, n, node, tables, &shapes)).collect()
}

fn shapes(tables: &[TableShape]) -> Shapes {
    let shape = |table: &TableShape| Shape {
        columns: table
            .columns
            .iter()
            .map(|ColumnShape { name, kind, null }| ShapeColumn { name: name.clone(), kind: *kind, null: *null })
            .collect(),
        key: table.key.clone(),
    };
    tables.iter().map(|table| (table.name.clone(), shape(table))).collect()
}

/// A parameter as it is read: what it is bound to, and where.
struct Bound {
    binding: Binding,
    place: Place,
    is_typed: bool,
    is_used: bool,
    /// The column whose value it is.
    column: Option<String>,
}

fn rule(reader: &Reader<'_>, n: usize, node: &Node, tables: &[TableShape], shapes: &Shapes) -> Option<Rule> {
    let mut table = Table::of(reader, format!("on[{n}]"), node)?;
    let types = types(reader, &mut table);
    let takes_gone = table.choice("erased", &[("skip", false), ("null", true)]).unwrap_or_default();
    let items = items(reader, &mut table);
    let has_items = items.is_some();
    let mut bound = bindings(reader, &mut table, has_items);
    let (statements, is_whole) = statements(reader, &mut table, tables, shapes, &mut bound);
    // A statement that was not understood may use it.
    for bound in bound.iter().filter(|bound| is_whole && !bound.is_used) {
        let what = format!("no statement uses `:{}`", bound.binding.name);
        reader.fault(&bound.place.span, &bound.place.field, what);
    }
    table.end();
    let bindings = Bindings::new(bound.into_iter().map(|bound| bound.binding).collect(), items.flatten());
    Some(Rule { types, takes_gone, bindings, statements })
}

/// What the statements run for, one after the other; `Some(None)` where that is wrong.
fn items(reader: &Reader<'_>, table: &mut Table<'_, '_, '_>) -> Option<Option<ItemsOf>> {
    let (field, each) = (table.path("each"), table.text("each"));
    let each = each.map(|(text, span)| match text.parse::<Path>() {
        Ok(Path::Data(steps)) => Some(ItemsOf::Each(steps, text.to_owned())),
        Ok(_) => {
            reader.fault(&span, &field, "a list in the data stands here, as in `$.data.lines`");
            None
        }
        Err(fault) => {
            reader.fault_within(&span, text, fault.at, &field, fault.what);
            None
        }
    });
    let (field, program) = (table.path("jq"), table.text("jq"));
    let Some((text, span)) = program else { return each };
    if each.is_some() {
        reader.fault(&span, &field, "a rule takes its items from `each` or from `jq`, not from both");
    }
    match Program::compile(text) {
        Ok(program) => Some(Some(ItemsOf::Jq(Box::new(program)))),
        Err(fault) => {
            reader.fault_within(&span, text, fault.at, &field, fault.what);
            Some(None)
        }
    }
}

fn types(reader: &Reader<'_>, table: &mut Table<'_, '_, '_>) -> Vec<TypePattern> {
    let field = table.path("type");
    let all = table.texts("type").unwrap_or_default();
    let pattern = |(text, span): (&str, std::ops::Range<usize>)| match text.strip_suffix('*') {
        Some(start) if !start.contains('*') => TypePattern::BeginsWith(start.to_owned()),
        None if !text.contains('*') && !text.is_empty() => TypePattern::Is(text.to_owned()),
        _ => {
            reader.fault(&span, &field, "a type stands here, or the beginning of some with one `*` behind it");
            TypePattern::Is(text.to_owned())
        }
    };
    all.into_iter().map(pattern).collect()
}

fn bindings(reader: &Reader<'_>, table: &mut Table<'_, '_, '_>, has_items: bool) -> Vec<Bound> {
    let field = table.path("bind");
    let Some(mut all) = table.take("bind").and_then(|node| Table::of(reader, field.clone(), node)) else {
        return Vec::new();
    };
    let entries = all.rest();
    if entries.len() > Document::MAX_STATEMENTS {
        reader.fault(&all.span, &field, format!("a rule has at most {} parameters", Document::MAX_STATEMENTS));
    }
    entries.into_iter().filter_map(|entry| binding(reader, &all.path(&entry.key), entry, has_items)).collect()
}

/// `name = "$.path"`, or `name = { path = "$.path", type = "date", optional = true }`
fn binding(reader: &Reader<'_>, field: &str, entry: &Entry, has_items: bool) -> Option<Bound> {
    let is_name = |name: &str| {
        name.starts_with(|c: char| c.is_ascii_lowercase())
            && name.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'_')
    };
    if !is_name(&entry.key) {
        reader.fault(&entry.key_span, field, "a parameter's name has small letters, digits and `_`");
    }
    let (written, span, kind, optional) = match &entry.node.value {
        Written::Text(path) => (path.as_str(), entry.node.span.clone(), None, false),
        Written::Table(_) => {
            let mut table = Table::of(reader, field, &entry.node)?;
            let path = table.required_text("path");
            let kind = table.text("type").and_then(|(text, span)| {
                let kind = text.parse().ok();
                if kind.is_none() {
                    reader.fault(&span, &table.path("type"), format!("`{text}` is no type; there is {}", Kind::ALL));
                }
                kind
            });
            let optional = table.boolean("optional").unwrap_or_default();
            table.end();
            let (path, span) = path?;
            (path, span, kind, optional)
        }
        other => {
            let what = format!("a path stands here, as in `$.data.amount`, not {}", other.kind());
            reader.fault(&entry.node.span, field, what);
            return None;
        }
    };
    let path = written.parse::<Path>();
    let path = path.map_err(|fault| reader.fault_within(&span, written, fault.at, field, fault.what)).ok()?;
    if matches!(path, Path::Item(_)) && !has_items {
        reader.fault(
            &span,
            field,
            "`$.item` is what `each` takes from a list or `jq` makes, and this rule has neither",
        );
    }
    let binding = Binding { name: entry.key.clone(), written: written.to_owned(), path, kind, by_use: false, optional };
    Some(Bound { binding, place: Place::new(field, &span), is_typed: kind.is_some(), is_used: false, column: None })
}

fn statements(
    reader: &Reader<'_>,
    table: &mut Table<'_, '_, '_>,
    tables: &[TableShape],
    shapes: &Shapes,
    bound: &mut [Bound],
) -> (Vec<Statement>, bool) {
    let Some(node) = table.take("sql") else {
        table.missing("sql");
        return (Vec::new(), false);
    };
    let (field, is_list) = (table.path("sql"), matches!(node.value, Written::List(_)));
    let Some(texts) = super::super::source::texts(reader, &field, node) else {
        return (Vec::new(), false);
    };
    if texts.is_empty() || texts.len() > Document::MAX_STATEMENTS {
        reader.fault(&node.span, &field, format!("a rule has 1 to {} statements", Document::MAX_STATEMENTS));
    }
    let (mut statements, mut is_whole) = (Vec::with_capacity(texts.len()), true);
    let mut named = Vec::new();
    for (n, (text, span)) in texts.into_iter().enumerate() {
        let place = Place::new(if is_list { format!("{field}[{n}]") } else { field.clone() }, &span);
        let parsed = match sql::parse(text, shapes) {
            Ok(parsed) => parsed,
            // Without tables every statement would be refused for the same reason.
            Err(_) if tables.is_empty() => {
                is_whole = false;
                continue;
            }
            Err(fault) => {
                is_whole = false;
                reader.fault_within(&span, text, fault.at, &place.field, fault.what);
                continue;
            }
        };
        for used in &parsed.uses {
            let Some(bound) = bound.iter_mut().find(|bound| bound.binding.name == used.parameter) else { continue };
            if let Err(what) = bound.stands_for(used) {
                reader.fault_within(&span, text, used.at, &place.field, what);
            }
        }
        let target = tables.iter().find(|table| table.name == parsed.target);
        let mut parameters = Vec::new();
        for (name, at) in &parsed.parameters {
            let Some(index) = bound.iter().position(|bound| bound.binding.name == *name) else {
                let all: BTreeMap<&str, ()> = bound.iter().map(|bound| (bound.binding.name.as_str(), ())).collect();
                let known = all.into_keys().collect::<Vec<_>>().join(", ");
                let what =
                    format!("`:{name}` is not bound; `bind` has {}", if known.is_empty() { "nothing" } else { &known });
                reader.fault_within(&span, text, *at, &place.field, what);
                is_whole = false;
                continue;
            };
            let of_column = target.and_then(|table| table.column(name)).map(|column| column.kind);
            named.push((index, of_column));
            parameters.push(index);
        }
        let rendered = parsed.render(text);
        statements.push(Statement { sql: rendered.sql, parameters, positioned: rendered.positioned, place });
    }
    // Where no column takes it as it is, its name may still tell.
    let mut by_name = vec![None; bound.len()];
    for (index, of_column) in named {
        by_name[index] = by_name[index].or(of_column);
        bound[index].use_as(reader, of_column);
    }
    for (bound, by_name) in bound.iter_mut().zip(by_name) {
        bound.binding.by_use = !bound.is_typed && bound.column.is_some() && bound.binding.kind != by_name;
    }
    (statements, is_whole)
}

impl Bound {
    /// A parameter that is put into a column, or compared with one, as it is has the type of that column.
    fn stands_for(&mut self, used: &Use) -> Result<(), String> {
        let Use { parameter, column, kind, .. } = used;
        match (self.binding.kind, &self.column) {
            (Some(known), _) if known == *kind => {}
            (None, _) => self.binding.kind = Some(*kind),
            (Some(known), None) => {
                return Err(format!(
                    "`{column}` is {kind}, and `:{parameter}` is bound as {known}; an expression may make one of the other"
                ));
            }
            (Some(known), Some(before)) => {
                return Err(format!(
                    "`{before}` is {known}, and `{column}` is {kind}: bind a parameter of its own to each"
                ));
            }
        }
        self.column.get_or_insert_with(|| column.clone());
        Ok(())
    }

    /// A parameter that says no type has that of the column of its name.
    fn use_as(&mut self, reader: &Reader<'_>, of_column: Option<Kind>) {
        self.is_used = true;
        let Some(kind) = of_column.filter(|_| !self.is_typed && self.column.is_none()) else { return };
        match self.binding.kind {
            None => self.binding.kind = Some(kind),
            Some(known) if known == kind => {}
            Some(known) => {
                let what = format!(
                    "one table has `{name}` as {known}, another as {kind}: say which `type` it has",
                    name = self.binding.name
                );
                reader.fault(&self.place.span, &self.place.field, what);
            }
        }
    }
}
