//! What is known of a value: a list of schemas that all hold.

use super::{
    super::{
        document::{Schema, reference},
        vocabulary::{Place, join, subschemas},
    },
    kinds::Kinds,
    numbers::{Bound, End, count},
};
use serde_json::{Map, Value};
use std::{cmp::Ordering, collections::BTreeSet};

/// Where a schema comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Side {
    Writer,
    Reader,
    /// Assumed for the sake of a case distinction.
    Assumed,
}

/// Names a subschema.
pub(super) type Id = (Side, String);

/// A subschema and where it stands.
#[derive(Clone)]
pub(super) struct Node<'a> {
    pub(super) side: Side,
    pub(super) at: String,
    pub(super) schema: &'a Value,
}

impl<'a> Node<'a> {
    pub(super) fn root(side: Side, schema: &'a Schema) -> Self {
        Self { side, at: String::new(), schema: schema.as_json() }
    }

    /// A schema known beforehand, called `name`.
    pub(super) fn assumed(name: &str, schema: &'static Value) -> Self {
        Self { side: Side::Assumed, at: name.into(), schema }
    }

    pub(super) fn id(&self) -> Id {
        (self.side, self.at.clone())
    }

    pub(super) fn get(&self, keyword: &str) -> Option<&'a Value> {
        self.schema.as_object()?.get(keyword)
    }

    pub(super) fn map(&self, keyword: &str) -> impl Iterator<Item = (&'a String, &'a Value)> + use<'a> {
        self.get(keyword).and_then(Value::as_object).into_iter().flatten()
    }

    pub(super) fn list(&self, keyword: &str) -> &'a [Value] {
        self.get(keyword).and_then(Value::as_array).map_or(&[], Vec::as_slice)
    }

    /// The subschema at `keyword`.
    pub(super) fn child(&self, keyword: &str) -> Option<Self> {
        let schema = self.get(keyword)?;
        Some(Self { side: self.side, at: join(&self.at, keyword), schema })
    }

    /// The subschema at `keyword` and `key`, in a map.
    pub(super) fn member(&self, keyword: &str, key: &str) -> Option<Self> {
        let schema = self.get(keyword)?.as_object()?.get(key)?;
        Some(Self { side: self.side, at: join(&join(&self.at, keyword), key), schema })
    }

    /// The subschemas at `keyword`, a list.
    pub(super) fn branches(&self, keyword: &str) -> Vec<Self> {
        let at = join(&self.at, keyword);
        let branch = |(index, schema)| Self { side: self.side, at: join(&at, &format!("{index}")), schema };
        self.list(keyword).iter().enumerate().map(branch).collect()
    }
}

/// The two schemas under comparison.
#[derive(Clone, Copy)]
pub(super) struct Pair<'a> {
    pub(super) writer: &'a Schema,
    pub(super) reader: &'a Schema,
}

impl<'a> Pair<'a> {
    pub(super) fn schema(&self, side: Side) -> Option<&'a Schema> {
        match side {
            Side::Writer => Some(self.writer),
            Side::Reader => Some(self.reader),
            Side::Assumed => None,
        }
    }

    pub(super) fn target(&self, node: &Node<'a>) -> Option<Node<'a>> {
        let (at, schema) = self.schema(node.side)?.resolve(reference(node.schema)?)?;
        Some(Node { side: node.side, at, schema })
    }
}

/// Schemas that all hold for one value, `$ref` and `allOf` written out. A schema that is a `$ref` and no more is left
/// out in favour of what it names, so that the same knowledge has the same name however it was reached.
#[derive(Clone)]
pub(super) struct Conjunction<'a> {
    /// The place to report where no schema says more.
    pub(super) at: String,
    pub(super) nodes: Vec<Node<'a>>,
    /// Schemas that may apply as well: what they mention is declared, and nothing else is known of it. Looked after only
    /// where [undeclared](super::Undeclared) properties are absent.
    pub(super) perhaps: Vec<Node<'a>>,
    pub(super) kinds: Kinds,
    /// The `anyOf` and `oneOf` whose cases have been told apart already.
    pub(super) told_apart: Vec<Id>,
}

impl<'a> Conjunction<'a> {
    pub(super) fn new(at: String, nodes: Vec<Node<'a>>, pair: Pair<'a>) -> Self {
        let mut open = nodes;
        open.reverse();
        let mut flat: Vec<Node<'a>> = vec![];
        let mut known = BTreeSet::new();
        while let Some(node) = open.pop() {
            if !known.insert(node.id()) {
                continue;
            }
            open.extend(node.branches("allOf").into_iter().rev());
            let target = pair.target(&node);
            let is_alias = target.is_some() && node.schema.as_object().is_some_and(|members| members.len() == 1);
            open.extend(target);
            if !is_alias {
                flat.push(node);
            }
        }
        let types = flat.iter().filter_map(|node| node.get("type")).map(Kinds::of_type);
        let kinds = types.fold(Kinds::ALL, Kinds::and);
        Self { at, nodes: flat, perhaps: vec![], kinds, told_apart: vec![] }
    }

    /// This and `more` as well.
    pub(super) fn with(&self, more: impl IntoIterator<Item = Node<'a>>, pair: Pair<'a>) -> Self {
        let nodes = self.nodes.iter().cloned().chain(more).collect();
        let (perhaps, told_apart) = (self.perhaps.clone(), self.told_apart.clone());
        Self { perhaps, told_apart, ..Self::new(self.at.clone(), nodes, pair) }
    }

    /// This, where more schemas may apply.
    pub(super) fn beside(mut self, mut perhaps: Vec<Node<'a>>) -> Self {
        perhaps.retain(|one| !self.nodes.iter().any(|node| node.id() == one.id()));
        self.perhaps = perhaps;
        self
    }

    /// Every schema that applies or may, `$ref` and what speaks about the same value written out.
    pub(super) fn reached(&self, pair: Pair<'a>) -> Vec<Node<'a>> {
        let mut open: Vec<_> = self.nodes.iter().chain(&self.perhaps).cloned().collect();
        let mut seen = BTreeSet::new();
        let mut reached = vec![];
        while let Some(node) = open.pop() {
            if seen.insert(node.id()) {
                let here = subschemas(node.schema).into_iter().filter(|sub| sub.place == Place::Here);
                open.extend(here.map(|sub| Node { side: node.side, at: sub.pointer(&node.at), schema: sub.schema }));
                open.extend(pair.target(&node));
                reached.push(node);
            }
        }
        reached
    }

    /// The names of the schemas, in order; behind a separator those of the schemas that may apply.
    pub(super) fn ids(&self) -> Vec<Id> {
        let sorted = |nodes: &[Node<'_>]| {
            let mut ids: Vec<_> = nodes.iter().map(Node::id).collect();
            ids.sort();
            ids
        };
        let mut ids = sorted(&self.nodes);
        if !self.perhaps.is_empty() {
            ids.push((Side::Assumed, "perhaps".into()));
            ids.extend(sorted(&self.perhaps));
        }
        ids
    }

    pub(super) fn has_false(&self) -> bool {
        self.nodes.iter().any(|node| *node.schema == Value::Bool(false))
    }

    /// Where the writer speaks of `keyword`; where it does not, the place as a whole.
    pub(super) fn at(&self, keyword: &str) -> String {
        let speaking = self.nodes.iter().find(|node| node.side != Side::Assumed && node.get(keyword).is_some());
        speaking.map_or_else(|| self.at.clone(), |node| join(&node.at, keyword))
    }

    pub(super) fn values<'b>(&'b self, keyword: &'b str) -> impl Iterator<Item = &'a Value> + use<'a, 'b> {
        self.nodes.iter().filter_map(move |node| node.get(keyword))
    }

    /// Whether one of the schemas has exactly this at `keyword`.
    pub(super) fn says(&self, keyword: &str, value: &Value) -> bool {
        self.nodes.iter().any(|node| node.get(keyword) == Some(value))
    }

    /// The narrowest bound of numbers at one end.
    pub(super) fn bound(&self, end: End) -> Option<Bound> {
        let bounds = self.nodes.iter().flat_map(|node| bounds(node, end));
        let tightest = bounds.reduce(|a, b| if a.implies(&b, end) { a } else { b })?;
        let whole_only = self.kinds.and(Kinds::NUMBER).within(Kinds::INTEGER);
        Some(if whole_only { tightest.for_integers(end) } else { tightest })
    }

    /// The largest of the counts at a keyword such as `minItems`.
    pub(super) fn at_least(&self, keyword: &str) -> u64 {
        self.values(keyword).filter_map(count).max().unwrap_or(0)
    }

    /// The smallest of the counts at a keyword such as `maxItems`.
    pub(super) fn at_most(&self, keyword: &str) -> Option<u64> {
        self.values(keyword).filter_map(count).min()
    }

    pub(super) fn required(&self) -> Vec<&'a str> {
        let mut names: Vec<_> =
            self.values("required").filter_map(Value::as_array).flatten().filter_map(Value::as_str).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    pub(super) fn requires(&self, name: &str) -> bool {
        self.required().contains(&name)
    }

    /// The values among which a document must be, where a schema lists them: the shortest such list.
    pub(super) fn listed(&self) -> Option<Vec<Value>> {
        let constant = self.values("const").next().map(|value| vec![value.clone()]);
        let shortest = || self.values("enum").filter_map(Value::as_array).min_by(|a, b| length_of(a, b)).cloned();
        constant.or_else(shortest).or_else(|| self.kinds.all_values())
    }
}

fn length_of(a: &[Value], b: &[Value]) -> Ordering {
    a.len().cmp(&b.len())
}

/// The bounds that one schema sets at one end.
pub(super) fn bounds(node: &Node<'_>, end: End) -> Vec<Bound> {
    let bound = |(keyword, exclusive)| Some(Bound { at: node.get(keyword)?.as_number()?.clone(), exclusive });
    end.keywords().into_iter().filter_map(bound).collect()
}

/// Whether two objects say the same at each of `keywords`, nothing included.
pub(super) fn agree(a: &Map<String, Value>, b: &Map<String, Value>, keywords: &[&str]) -> bool {
    keywords.iter().all(|keyword| a.get(*keyword) == b.get(*keyword))
}
