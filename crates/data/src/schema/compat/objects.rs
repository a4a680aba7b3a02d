//! Keywords that look into objects.

use super::{
    Certainty, Gap, Undeclared,
    conjunction::{Conjunction, Node},
    prover::{Prover, gap, unproved},
};
use crate::schema::vocabulary::{Place, join, subschemas};
use serde_json::Value;
use std::collections::BTreeSet;

static STRING: std::sync::LazyLock<Value> = std::sync::LazyLock::new(|| serde_json::json!({"type": "string"}));
static NEVER: Value = Value::Bool(false);

impl<'a> Prover<'a> {
    pub(super) fn properties(&mut self, writer: &Conjunction<'a>, reader: &Node<'a>) -> Vec<Gap> {
        let names: Vec<_> = reader.map("properties").map(|(name, _)| name).collect();
        names.into_iter().flat_map(|name| self.one_property(name, writer, reader)).collect()
    }

    fn one_property(&mut self, name: &str, writer: &Conjunction<'a>, reader: &Node<'a>) -> Vec<Gap> {
        let Some(wanted) = reader.member("properties", name) else { return vec![] };
        let known = self.property(writer, name);
        let gaps = self.prove(&known, &wanted);
        if gaps.is_empty() || !known.nodes.is_empty() {
            return gaps;
        }
        vec![Gap {
            reader: "declared".into(),
            ..gap(writer.at.clone(), wanted.at, "undeclared, yet allowed", "that carry something else under this name")
        }]
    }

    /// What is known of the property `name`, wherever it occurs.
    pub(super) fn property(&mut self, writer: &Conjunction<'a>, name: &str) -> Conjunction<'a> {
        let nodes: Vec<_> = writer.nodes.iter().flat_map(|node| self.property_of(node, name)).collect();
        let at = nodes.first().map_or_else(|| writer.at.clone(), |node| node.at.clone());
        let absent = nodes.is_empty() && self.is_absent(writer, Some(name));
        self.conjunction(at, if absent { vec![Node::assumed("absent", &NEVER)] } else { nodes })
    }

    fn property_of(&mut self, node: &Node<'a>, name: &str) -> Vec<Node<'a>> {
        let declared = node.member("properties", name);
        let mut matching = vec![];
        for (pattern, _) in node.map("patternProperties") {
            match self.matches(pattern, name) {
                Some(true) => matching.extend(node.member("patternProperties", pattern)),
                Some(false) => {}
                // Unknown whether it matches, hence whether `additionalProperties` applies: claim neither.
                None => return declared.into_iter().collect(),
            }
        }
        let named: Vec<_> = declared.into_iter().chain(matching).collect();
        if named.is_empty() { node.child("additionalProperties").into_iter().collect() } else { named }
    }

    /// Whether [`Undeclared::Absent`] rules a property out: nothing that might apply to the object mentions it.
    /// Without a name, any property that no `properties` mentions.
    fn is_absent(&mut self, writer: &Conjunction<'a>, name: Option<&str>) -> bool {
        if self.undeclared == Undeclared::Possible {
            return false;
        }
        let mut open: Vec<_> = writer.nodes.clone();
        let mut seen = BTreeSet::new();
        let mut declares = false;
        while let Some(node) = open.pop() {
            if !seen.insert(node.id()) {
                continue;
            }
            let matched = node
                .map("patternProperties")
                .any(|(pattern, _)| name.is_none_or(|name| self.matches(pattern, name) != Some(false)));
            let mentioned = name.is_some_and(|name| node.member("properties", name).is_some());
            if matched || mentioned || node.get("additionalProperties").is_some() {
                return false;
            }
            declares |= node.get("properties").is_some();
            let here = subschemas(node.schema).into_iter().filter(|sub| sub.place == Place::Here);
            open.extend(here.map(|sub| Node { side: node.side, at: sub.pointer(&node.at), schema: sub.schema }));
            open.extend(self.pair.target(&node));
        }
        declares
    }

    /// Everything that may occur beside the reader's `properties` and `patternProperties`.
    pub(super) fn additional_properties(&mut self, writer: &Conjunction<'a>, reader: &Node<'a>) -> Vec<Gap> {
        let Some(wanted) = reader.child("additionalProperties") else { return vec![] };
        let mut gaps = vec![];
        for name in declared_names(writer) {
            if reader.member("properties", name).is_none() && !self.is_matched(reader, name) {
                let known = self.property(writer, name);
                gaps.extend(self.prove(&known, &wanted));
            }
        }
        gaps.extend(self.remaining(writer, &wanted));
        let patterns = unmatched_patterns(writer, reader);
        gaps.extend(patterns.into_iter().flat_map(|known| {
            let known = self.conjunction(known.at.clone(), vec![known]);
            self.prove(&known, &wanted)
        }));
        gaps
    }

    fn is_matched(&mut self, reader: &Node<'a>, name: &str) -> bool {
        reader.map("patternProperties").any(|(pattern, _)| self.matches(pattern, name) == Some(true))
    }

    /// Properties that the writer neither declares nor covers by a pattern.
    fn remaining(&mut self, writer: &Conjunction<'a>, wanted: &Node<'a>) -> Vec<Gap> {
        let nodes: Vec<_> = writer.nodes.iter().filter_map(|node| node.child("additionalProperties")).collect();
        if nodes.is_empty() && self.is_absent(writer, None) {
            return vec![];
        }
        let open = nodes.is_empty();
        let at = nodes.first().map_or_else(|| writer.at.clone(), |node| node.at.clone());
        let known = self.conjunction(at, nodes);
        let gaps = self.prove(&known, wanted);
        if gaps.is_empty() || !open {
            return gaps;
        }
        let closed = if *wanted.schema == NEVER { "closed to them" } else { "particular about them" };
        vec![Gap {
            reader: closed.into(),
            ..gap(writer.at.clone(), wanted.at.clone(), "open to undeclared properties", "that carry such properties")
        }]
    }

    pub(super) fn pattern_properties(&mut self, writer: &Conjunction<'a>, reader: &Node<'a>) -> Vec<Gap> {
        let patterns: Vec<_> = reader.map("patternProperties").map(|(pattern, _)| pattern).collect();
        let mut gaps = vec![];
        for pattern in patterns {
            let Some(wanted) = reader.member("patternProperties", pattern) else { continue };
            for name in declared_names(writer) {
                if self.matches(pattern, name) != Some(false) {
                    let known = self.property(writer, name);
                    gaps.extend(self.prove(&known, &wanted));
                }
            }
            gaps.extend(self.undeclared_matches(pattern, writer, &wanted));
        }
        gaps
    }

    /// Properties that the writer does not declare and whose names match the reader's `pattern`.
    fn undeclared_matches(&mut self, pattern: &str, writer: &Conjunction<'a>, wanted: &Node<'a>) -> Vec<Gap> {
        let of_node = |node: &Node<'a>| match node.get("patternProperties") {
            Some(_) => node.member("patternProperties", pattern),
            None => node.child("additionalProperties"),
        };
        let nodes: Vec<_> = writer.nodes.iter().filter_map(of_node).collect();
        if nodes.is_empty() && self.is_absent(writer, None) {
            return vec![];
        }
        let at = nodes.first().map_or_else(|| writer.at.clone(), |node| node.at.clone());
        let known = self.conjunction(at, nodes);
        self.prove(&known, wanted)
    }

    pub(super) fn property_names(&mut self, writer: &Conjunction<'a>, reader: &Node<'a>) -> Vec<Gap> {
        let Some(wanted) = reader.child("propertyNames") else { return vec![] };
        let known = writer.nodes.iter().filter_map(|node| node.child("propertyNames"));
        let nodes = known.chain([Node::assumed("string", &STRING)]).collect();
        let names = self.conjunction(writer.at("propertyNames"), nodes);
        self.prove(&names, &wanted)
    }

    pub(super) fn required(&mut self, writer: &Conjunction<'a>, reader: &Node<'a>) -> Vec<Gap> {
        let asked = reader.list("required").iter().filter_map(Value::as_str);
        let missing = asked.filter(|name| !writer.requires(name));
        missing.map(|name| became_required(name, writer, reader)).collect()
    }

    pub(super) fn dependent_required(&mut self, writer: &Conjunction<'a>, reader: &Node<'a>) -> Vec<Gap> {
        let mut gaps = vec![];
        for (trigger, asked) in reader.map("dependentRequired") {
            let asked = names(asked);
            let given = writer.nodes.iter().flat_map(|node| node.map("dependentRequired"));
            let given: Vec<_> =
                given.filter(|(name, _)| *name == trigger).flat_map(|(_, given)| names(given)).collect();
            let known = asked.iter().all(|name| writer.requires(name) || given.contains(name));
            if !known && !self.never_has(writer, trigger) {
                gaps.push(Gap { certainty: Certainty::Refused, ..unproved("dependentRequired", writer, reader) });
            }
        }
        gaps
    }

    pub(super) fn dependent_schemas(&mut self, writer: &Conjunction<'a>, reader: &Node<'a>) -> Vec<Gap> {
        let mut gaps = vec![];
        for (trigger, _) in reader.map("dependentSchemas") {
            let Some(wanted) = reader.member("dependentSchemas", trigger) else { continue };
            let known = writer.nodes.iter().filter_map(|node| node.member("dependentSchemas", trigger));
            let known = known.collect::<Vec<_>>().iter().any(|node| self.is_same(node, &wanted));
            if !known && !self.never_has(writer, trigger) {
                gaps.extend(self.prove(writer, &wanted));
            }
        }
        gaps
    }

    fn never_has(&mut self, writer: &Conjunction<'a>, name: &str) -> bool {
        let property = self.property(writer, name);
        self.is_vacuous(&property, 1)
    }
}

fn names(list: &Value) -> Vec<&str> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

fn declared_names<'a>(writer: &Conjunction<'a>) -> BTreeSet<&'a str> {
    writer.nodes.iter().flat_map(|node| node.map("properties")).map(|(name, _)| name.as_str()).collect()
}

/// What the writer allows under names that match its patterns, where the reader does not have the same pattern.
fn unmatched_patterns<'a>(writer: &Conjunction<'a>, reader: &Node<'a>) -> Vec<Node<'a>> {
    let of_node = |node: &Node<'a>| -> Vec<Node<'a>> {
        let patterns = node.map("patternProperties").map(|(pattern, _)| pattern);
        let unmatched = patterns.filter(|pattern| reader.member("patternProperties", pattern).is_none());
        unmatched.filter_map(|pattern| node.member("patternProperties", pattern)).collect()
    };
    writer.nodes.iter().flat_map(of_node).collect()
}

fn became_required(name: &str, writer: &Conjunction<'_>, reader: &Node<'_>) -> Gap {
    let declared = writer.nodes.iter().find_map(|node| node.member("properties", name)).map(|node| node.at);
    let reader_at = reader.member("properties", name).map_or_else(|| join(&reader.at, "required"), |node| node.at);
    let was = if declared.is_some() { "optional" } else { "undeclared" };
    Gap {
        reader: "required".into(),
        ..gap(declared.unwrap_or_else(|| writer.at.clone()), reader_at, was, "without it")
    }
}
