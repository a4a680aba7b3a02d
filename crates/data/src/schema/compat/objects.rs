//! Keywords that look into objects.

use super::{
    Certainty, Gap, MAX_FINDINGS, Undeclared,
    conjunction::{Conjunction, Node},
    prover::{Prover, few, gap, unproved},
};
use crate::schema::vocabulary::join;
use serde_json::Value;
use std::collections::BTreeSet;

static STRING: std::sync::LazyLock<Value> = std::sync::LazyLock::new(|| serde_json::json!({"type": "string"}));
static NEVER: Value = Value::Bool(false);

impl<'a> Prover<'a> {
    pub(super) fn properties(&mut self, writer: &Conjunction<'a>, reader: &Node<'a>) -> Vec<Gap> {
        let names: Vec<_> = reader.map("properties").map(|(name, _)| name).collect();
        few(names.into_iter().flat_map(|name| self.one_property(name, writer, reader)))
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
        let perhaps = self.perhaps_of(writer, Some(name));
        self.conjunction(at, if absent { vec![Node::assumed("absent", &NEVER)] } else { nodes }).beside(perhaps)
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
    /// Without a name, any property that the writer's schemas themselves do not declare; a schema nested in them, such as
    /// an alternative, may not mention one more.
    fn is_absent(&mut self, writer: &Conjunction<'a>, name: Option<&str>) -> bool {
        if self.undeclared == Undeclared::Possible {
            return false;
        }
        let declared = declared_names(writer);
        let is_meant = |mentioned: &str| name.map_or_else(|| !declared.contains(mentioned), |name| name == mentioned);
        let reached = writer.reached(self.pair);
        if !self.spend(reached.len() / 4) {
            return false;
        }
        for node in &reached {
            let matched = node
                .map("patternProperties")
                .any(|(pattern, _)| name.is_none_or(|name| self.matches(pattern, name) != Some(false)));
            if matched || mentioned_names(node).any(is_meant) || node.get("additionalProperties").is_some() {
                return false;
            }
        }
        reached.iter().any(|node| node.get("properties").is_some())
    }

    /// Schemas that may apply to the property `name`, known to apply or not. Without a name, to one that the writer's
    /// schemas themselves do not declare.
    pub(super) fn perhaps_of(&mut self, writer: &Conjunction<'a>, name: Option<&str>) -> Vec<Node<'a>> {
        if self.undeclared == Undeclared::Possible {
            return vec![];
        }
        let reached = writer.reached(self.pair);
        self.spend(reached.len() / 4);
        let mut perhaps = vec![];
        for node in reached {
            let is_known = writer.nodes.iter().any(|known| known.id() == node.id());
            let declared = match name {
                Some(name) => node.member("properties", name).into_iter().collect(),
                None if is_known => vec![],
                None => node.map("properties").filter_map(|(name, _)| node.member("properties", name)).collect(),
            };
            if name.is_none() || declared.is_empty() {
                perhaps
                    .extend(["additionalProperties", "unevaluatedProperties"].iter().filter_map(|of| node.child(of)));
            }
            perhaps.extend(declared);
            for (pattern, _) in node.map("patternProperties") {
                if name.is_none_or(|name| self.matches(pattern, name) != Some(false)) {
                    perhaps.extend(node.member("patternProperties", pattern));
                }
            }
        }
        perhaps
    }

    /// Everything that may occur beside the reader's `properties` and `patternProperties`.
    pub(super) fn additional_properties(&mut self, writer: &Conjunction<'a>, reader: &Node<'a>) -> Vec<Gap> {
        let Some(wanted) = reader.child("additionalProperties") else { return vec![] };
        let mut gaps = vec![];
        for name in declared_names(writer) {
            if gaps.len() >= MAX_FINDINGS {
                return gaps;
            }
            if reader.member("properties", name).is_none() && !self.is_matched(reader, name) {
                let known = self.property(writer, name);
                gaps.extend(self.prove(&known, &wanted));
            }
        }
        gaps.extend(self.remaining(writer, &wanted));
        let patterns = unmatched_patterns(writer, reader);
        gaps.extend(patterns.into_iter().flat_map(|known| {
            let known = self.conjunction(known.at.clone(), vec![known]).beside(self.perhaps_of(writer, None));
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
        let known = self.conjunction(at, nodes).beside(self.perhaps_of(writer, None));
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
                if gaps.len() >= MAX_FINDINGS {
                    return gaps;
                }
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
        let known = self.conjunction(at, nodes).beside(self.perhaps_of(writer, None));
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
        few(missing.map(|name| became_required(name, writer, reader)))
    }

    pub(super) fn dependent_required(&mut self, writer: &Conjunction<'a>, reader: &Node<'a>) -> Vec<Gap> {
        let mut gaps = vec![];
        for (trigger, asked) in reader.map("dependentRequired") {
            let asked = names(asked);
            let given = writer.nodes.iter().flat_map(|node| node.map("dependentRequired"));
            let given: Vec<_> =
                given.filter(|(name, _)| *name == trigger).flat_map(|(_, given)| names(given)).collect();
            let known = asked.iter().all(|name| writer.requires(name) || given.contains(name));
            if !known && gaps.len() < MAX_FINDINGS && !self.never_has(writer, trigger) {
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
            if !known && gaps.len() < MAX_FINDINGS && !self.never_has(writer, trigger) {
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

/// The names of properties that a schema itself speaks of. One that it asks for may occur, declared or not.
fn mentioned_names<'a>(node: &Node<'a>) -> impl Iterator<Item = &'a str> + use<'a> {
    let asked = node.list("required").iter().filter_map(Value::as_str);
    let asked_beside = node.map("dependentRequired").flat_map(|(_, asked)| names(asked));
    let keys = ["properties", "dependentRequired", "dependentSchemas"].map(|keyword| node.map(keyword));
    keys.into_iter().flatten().map(|(name, _)| name.as_str()).chain(asked).chain(asked_beside)
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
