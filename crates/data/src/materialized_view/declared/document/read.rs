//! From a tree to a document: what belongs to no part of it.

use std::fmt::Write as _;

use super::{
    super::source::{Fault, Table, parse},
    Document, Faults, Format, Node, Reader, Written, events,
    feeds::{Contract, From},
    rules, tables,
};
use crate::{
    materialized_view::{Config, Mode, OnPoison, Switch, ViewName},
    store::{Query, QueryItem},
};

/// The longest description, in bytes.
const MAX_DESCRIPTION: usize = 4_096;

pub(super) fn document(text: &str, format: Format) -> Result<Document, Faults> {
    if text.len() > Document::MAX_BYTES {
        let what = format!("a document has at most {} bytes, this one has {}", Document::MAX_BYTES, text.len());
        return Err(Fault::at(text, 0, "", what).into());
    }
    let root = parse(text, format)?;
    let reader = Reader::new(text);
    let read = Table::of(&reader, "", &root).and_then(|table| whole(&reader, table));
    match (reader.finish(), read) {
        (None, Some(read)) => Ok(Document { text: text.into(), format, meaning: meaning(&root), ..read }),
        (Some(faults), _) => Err(faults),
        (None, None) => Err(Fault::at(text, 0, "", "this is no view").into()),
    }
}

fn whole(reader: &Reader<'_>, mut table: Table<'_, '_, '_>) -> Option<Document> {
    let view = table.required_text("view").and_then(|(name, span)| {
        ViewName::new(name).map_err(|wrong| reader.fault(&span, "view", wrong.to_string())).ok()
    });
    let version = version(reader, &mut table);
    let description = table.text("description").map(|(text, span)| {
        if text.len() > MAX_DESCRIPTION {
            reader.fault(&span, "description", format!("a description has at most {MAX_DESCRIPTION} bytes"));
        }
        text.to_owned()
    });
    let from = table.take("from").map_or_else(From::default, |node| From::read(reader, node));
    let contract = table.take("staleness").and_then(|node| Contract::read(reader, node, &from));
    let feeds = from.feeds(contract.as_ref());
    let config = Config { staleness: contract.map(|contract| contract.staleness), feeds, ..config(&mut table) };
    let tables = tables::read(reader, &mut table);
    let rules = rules::read(reader, &mut table, &tables);
    from.are_no_rules(reader, &rules);
    let samples = events::samples(reader, &mut table, &tables, from.sources.first().map_or("/samples", String::as_str));
    table.end();
    let query = query(reader, &from, &rules);
    Some(Document {
        text: "".into(),
        format: Format::Toml,
        view: view?,
        version: version?,
        description: description.unwrap_or_default(),
        config,
        query,
        heartbeats: from.heartbeats.into_iter().map(|(kind, _)| kind).collect(),
        tables,
        rules,
        samples,
        meaning: String::new(),
    })
}

fn version(reader: &Reader<'_>, table: &mut Table<'_, '_, '_>) -> Option<u32> {
    let (number, span) = table.number("version")?;
    let version = number.parse::<u32>().ok().filter(|version| *version > 0);
    if version.is_none() {
        reader.fault(&span, "version", "a version is a whole number from 1");
    }
    version
}

fn config(table: &mut Table<'_, '_, '_>) -> Config {
    let mode = table.choice("mode", &[("async", Mode::Async), ("inline", Mode::Inline)]);
    let base = if mode == Some(Mode::Inline) { Config::inline() } else { Config::default() };
    let poison = [("stop", OnPoison::Stop), ("park", OnPoison::Park), ("skip", OnPoison::Skip)];
    Config {
        on_poison: table.choice("on-poison", &poison).unwrap_or_default(),
        switch: table
            .choice("switch", &[("when-caught-up", Switch::WhenCaughtUp), ("manual", Switch::Manual)])
            .unwrap_or_default(),
        ..base
    }
}

/// The events that any rule is about, and heartbeats.
fn query(reader: &Reader<'_>, from: &From, rules: &[super::Rule]) -> Query {
    let mut types = std::collections::BTreeSet::new();
    let mut all = rules.is_empty();
    for rule in rules {
        all |= rule.types.is_empty();
        for pattern in &rule.types {
            match pattern {
                super::TypePattern::Is(kind) => drop(types.insert(kind.clone())),
                // The index knows whole types only.
                super::TypePattern::BeginsWith(_) => all = true,
            }
        }
    }
    let beats: Vec<String> = from.heartbeats.iter().map(|(kind, _)| kind.clone()).collect();
    // A source's heartbeats are about no order, and in no stream of orders.
    let is_narrow = !from.item.categories.is_empty() || !from.item.tags.is_empty();
    if all {
        types.clear();
    } else if !is_narrow {
        types.extend(beats.iter().cloned());
    }
    if types.len() > Query::MAX_WORDS {
        let what =
            format!("a view has at most {} types of events; `order.*` stands for all that begin so", Query::MAX_WORDS);
        reader.fault(&(0..0), "on", what);
    }
    let rules = QueryItem { types: types.into_iter().collect(), ..from.item.clone() };
    let beats = (is_narrow && !beats.is_empty()).then(|| QueryItem { types: beats, ..QueryItem::default() });
    Query::of(std::iter::once(rules).chain(beats))
}

/// Everything but description and samples, with the members of each table sorted.
fn meaning(root: &Node) -> String {
    let mut text = String::new();
    if let Written::Table(entries) = &root.value {
        let mut kept: Vec<_> =
            entries.iter().filter(|entry| !["description", "samples"].contains(&entry.key.as_str())).collect();
        kept.sort_by(|one, other| one.key.cmp(&other.key));
        for entry in kept {
            let _ = write!(text, "{:?}:", entry.key);
            spell(&entry.node, &mut text);
        }
    }
    text
}

fn spell(node: &Node, text: &mut String) {
    match &node.value {
        Written::List(list) => {
            text.push('[');
            for item in list {
                spell(item, text);
                text.push(',');
            }
            text.push(']');
        }
        Written::Table(entries) => {
            let mut sorted: Vec<_> = entries.iter().collect();
            sorted.sort_by(|one, other| one.key.cmp(&other.key));
            text.push('{');
            for entry in sorted {
                let _ = write!(text, "{:?}:", entry.key);
                spell(&entry.node, text);
                text.push(',');
            }
            text.push('}');
        }
        Written::Text(said) => drop(write!(text, "{said:?}")),
        Written::Number(number) => text.push_str(number),
        Written::Boolean(yes) => drop(write!(text, "{yes}")),
        Written::Null => text.push_str("null"),
    }
}
