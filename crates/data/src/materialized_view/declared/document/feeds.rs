//! Where a view's events come from, and how far behind it may be.

use std::{ops::Range, time::Duration};

use super::{
    super::source::{Entry, Table, texts},
    Document, Node, Reader, Rule, TypePattern, Written,
};
use crate::{
    event::Tags,
    materialized_view::{Feeds, Silence, Staleness, WhenStale},
    store::{Query, QueryItem},
};

/// `from`: which streams the events are from, which tags they carry, who says them.
#[derive(Default)]
pub(super) struct From {
    pub(super) item: QueryItem,
    pub(super) sources: Vec<String>,
    pub(super) heartbeats: Vec<(String, Range<usize>)>,
}

/// `staleness`: how far behind the view may be when it is read.
pub(super) struct Contract {
    pub(super) staleness: Staleness,
    max_lag: Option<Duration>,
    silence: Silence,
}

impl From {
    pub(super) fn read(reader: &Reader<'_>, node: &Node) -> Self {
        let Some(mut table) = Table::of(reader, "from", node) else { return Self::default() };
        let mut owned = |key| -> Vec<(String, Range<usize>)> {
            let all = table.texts(key).unwrap_or_default();
            all.into_iter().map(|(text, span)| (text.to_owned(), span)).collect()
        };
        let (categories, sources, heartbeats) = (owned("categories"), owned("source"), owned("heartbeat"));
        let tags =
            table.take("tags").map(|node| texts(reader, "from.tags", node).unwrap_or_default()).unwrap_or_default();
        for (tag, span) in &tags {
            if let Err(wrong) = Tags::check(tag) {
                reader.fault(span, "from.tags", wrong.to_string());
            }
        }
        check_sources(reader, &table.span, &sources);
        check_heartbeats(reader, &heartbeats, !sources.is_empty());
        let plain = |all: Vec<(String, Range<usize>)>| all.into_iter().map(|(text, _)| text).collect();
        let item = QueryItem {
            types: Vec::new(),
            categories: plain(categories),
            tags: tags.into_iter().map(|(tag, _)| tag.to_owned()).collect(),
        };
        if item.categories.len().max(item.tags.len()) > Query::MAX_WORDS {
            reader.fault(&table.span, "from", format!("there are at most {} categories and tags", Query::MAX_WORDS));
        }
        table.end();
        Self { item, sources: plain(sources), heartbeats }
    }

    /// The feeds it names, under what the contract says of them.
    pub(super) fn feeds(&self, contract: Option<&Contract>) -> Option<Feeds> {
        let (max_lag, silence) = contract.map(|said| (said.max_lag, said.silence)).unwrap_or_default();
        (!self.sources.is_empty()).then(|| Feeds { sources: self.sources.clone(), max_lag, silence })
    }

    /// A heartbeat changes no row: whoever has a rule for one meant something else.
    pub(super) fn are_no_rules(&self, reader: &Reader<'_>, rules: &[Rule]) {
        for (kind, span) in &self.heartbeats {
            if rules.iter().any(|rule| rule.types.contains(&TypePattern::Is(kind.clone()))) {
                let what = format!("`{kind}` is a heartbeat, which changes no row, and a rule is about it");
                reader.fault(span, "from.heartbeat", what);
            }
        }
    }
}

fn check_sources(reader: &Reader<'_>, all: &Range<usize>, sources: &[(String, Range<usize>)]) {
    if sources.len() > Feeds::MAX {
        reader.fault(all, "from.source", format!("a view has at most {} sources", Feeds::MAX));
    }
    for (n, (source, span)) in sources.iter().enumerate() {
        if source.is_empty() || sources[..n].iter().any(|(before, _)| before == source) {
            reader.fault(span, "from.source", "a CloudEvents `source` stands here, as events have it, each once");
        }
    }
}

fn check_heartbeats(reader: &Reader<'_>, heartbeats: &[(String, Range<usize>)], has_source: bool) {
    for (kind, span) in heartbeats {
        if !has_source {
            reader.fault(span, "from.heartbeat", "a heartbeat is one of a `source`, and `from` names none");
        } else if kind.is_empty() || kind.contains('*') {
            reader.fault(span, "from.heartbeat", "a whole type of events stands here");
        }
    }
    if let Some((_, span)) = heartbeats.get(Document::MAX_STATEMENTS) {
        reader.fault(span, "from.heartbeat", format!("there are at most {} of them", Document::MAX_STATEMENTS));
    }
}

impl Contract {
    /// `from`: whose events the view is made of.
    pub(super) fn read(reader: &Reader<'_>, node: &Node, from: &From) -> Option<Self> {
        const BOUNDS: [&str; 3] = ["max-events", "max-seconds", "max-feed-seconds"];
        let mut table = Table::of(reader, "staleness", node)?;
        let [max_events, max_seconds, max_feed] = BOUNDS.map(|key| {
            let (number, span) = table.number_if_there(key)?;
            let field = format!("staleness.{key}");
            let count = number.parse::<u64>().ok();
            if count.is_none() {
                reader.fault(&span, &field, "a whole number from 0 stands here");
            } else if key == BOUNDS[2] && from.sources.is_empty() {
                reader.fault(&span, &field, "it is about feeds, and `from` names no `source`");
            }
            count
        });
        let is_bound = |entry: &Entry| BOUNDS.contains(&entry.key.as_str());
        if !matches!(&node.value, Written::Table(entries) if entries.iter().any(is_bound)) {
            reader.fault(&table.span, "staleness", format!("one of {} stands here, or several", BOUNDS.join(", ")));
        }
        let silence = table.choice("silence", &[("stale", Silence::Stale), ("idle", Silence::Idle)]);
        if silence.is_some() && max_feed.is_none() {
            reader.fault(&table.span, "staleness.silence", "it is about `max-feed-seconds`, which is not there");
        }
        let then = table.choice("then", &[("refuse", WhenStale::Refuse), ("flag", WhenStale::Flag)]);
        table.end();
        Some(Self {
            staleness: Staleness { max_events, max_seconds, then: then.unwrap_or_default() },
            max_lag: max_feed.map(Duration::from_secs),
            silence: silence.unwrap_or_default(),
        })
    }
}
