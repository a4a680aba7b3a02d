//! Does every document of the writer suit the reader?
//!
//! Soundness rests on three rules. A reader's keyword counts as guaranteed only if one of the writer's schemas implies
//! it, or it can't apply. Forgetting something about the writer's documents only makes the proof harder. And a pair
//! of places met again on the way into a document may be assumed to hold: documents are finite, every circle of
//! references leads through a part of the document (`Schema::parse` refuses others), so this is induction on size.

use super::{
    Certainty, Gap, MAX_FINDINGS, Undeclared,
    conjunction::{Conjunction, Id, Node, Pair, Side},
    kinds::Kinds,
};
use crate::schema::{
    document::{Schema, clipped, reference},
    vocabulary::join,
};
use jsonschema::Validator;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Effort before giving up on one comparison: one for each schema looked at and for each value judged, more where its
/// pointer is long, and for each validator built. About a second of work at the worst, milliseconds in practice.
pub(in crate::schema) const EFFORT: usize = 200_000;
/// Bytes of pointers that count as one schema more: what was compared is remembered by them.
const POINTER_BYTES: usize = 64;
/// Comparisons of places one inside another before giving up.
const DEPTH: usize = 120;

/// What is compared: everything known of the writer's value, and the reader's schema for it.
type Question = (Vec<Id>, Id);

pub(super) struct Prover<'a> {
    pub(super) pair: Pair<'a>,
    pub(super) undeclared: Undeclared,
    effort: usize,
    effort_left: usize,
    /// The effort of building a validator for a part of either schema.
    building: usize,
    /// Questions on the way to the present one, assumed to be answered by yes.
    open: Vec<Question>,
    /// The outermost open question whose assumed answer was used since it was last looked at.
    leaned_on: usize,
    proved: BTreeSet<Question>,
    validators: BTreeMap<Id, Option<Validator>>,
    patterns: BTreeMap<String, Option<Validator>>,
}

impl<'a> Prover<'a> {
    /// At most `effort` is spent, and no more than a comparison may take.
    pub(super) fn new(writer: &'a Schema, reader: &'a Schema, undeclared: Undeclared, effort: usize) -> Self {
        let effort = effort.min(EFFORT);
        Self {
            pair: Pair { writer, reader },
            undeclared,
            effort,
            effort_left: effort,
            building: 10 + (writer.bytes() + reader.bytes()) / 512,
            open: vec![],
            leaned_on: usize::MAX,
            proved: BTreeSet::new(),
            validators: BTreeMap::new(),
            patterns: BTreeMap::new(),
        }
    }

    /// What the writer does not guarantee, and the effort that it took to find out.
    pub(super) fn gaps(mut self) -> (Vec<Gap>, usize) {
        let writer = self.conjunction(String::new(), vec![Node::root(Side::Writer, self.pair.writer)]);
        let reader = Node::root(Side::Reader, self.pair.reader);
        let gaps = self.prove(&writer, &reader);
        (gaps, self.effort - self.effort_left)
    }

    pub(super) fn conjunction(&self, at: String, nodes: Vec<Node<'a>>) -> Conjunction<'a> {
        Conjunction::new(at, nodes, self.pair)
    }

    /// Spends effort; `false` once there is none left.
    pub(super) fn spend(&mut self, effort: usize) -> bool {
        self.effort_left = self.effort_left.saturating_sub(effort);
        self.effort_left > 0
    }

    /// What the reader's schema asks and the writer's do not guarantee; nothing if every document suits.
    pub(super) fn prove(&mut self, writer: &Conjunction<'a>, reader: &Node<'a>) -> Vec<Gap> {
        if !self.spend(effort(writer, reader)) || self.open.len() >= DEPTH {
            return vec![too_entangled(writer, reader)];
        }
        if *reader.schema == Value::Bool(true) || self.is_given(writer, reader) || self.is_vacuous(writer, 0) {
            return vec![];
        }
        let question = (writer.ids(), reader.id());
        if let Some(depth) = self.open.iter().position(|open| *open == question) {
            self.leaned_on = self.leaned_on.min(depth);
            return vec![];
        }
        if self.proved.contains(&question) { vec![] } else { self.answer(question, writer, reader) }
    }

    /// Invariant: a question enters `proved` only if its answer leans on no question that is still open, for that
    /// one might yet be answered by no.
    fn answer(&mut self, question: Question, writer: &Conjunction<'a>, reader: &Node<'a>) -> Vec<Gap> {
        let depth = self.open.len();
        let outer = std::mem::replace(&mut self.leaned_on, usize::MAX);
        self.open.push(question);
        let gaps = self.examine(writer, reader);
        let leans_outward = self.leaned_on < depth;
        self.leaned_on = outer.min(if leans_outward { self.leaned_on } else { usize::MAX });
        if let (Some(question), true, false) = (self.open.pop(), gaps.is_empty(), leans_outward) {
            self.proved.insert(question);
        }
        gaps
    }

    fn examine(&mut self, writer: &Conjunction<'a>, reader: &Node<'a>) -> Vec<Gap> {
        if *reader.schema == Value::Bool(false) {
            return vec![Gap {
                reader: "forbidden".into(),
                ..gap(writer.at.clone(), reader.at.clone(), "allowed", "with it")
            }];
        }
        if let Some(gaps) = self.value_by_value(writer, reader) {
            return gaps;
        }
        let gaps = self.keywords(writer, reader);
        if gaps.is_empty() { gaps } else { self.case_by_case(writer, reader).unwrap_or(gaps) }
    }

    fn keywords(&mut self, writer: &Conjunction<'a>, reader: &Node<'a>) -> Vec<Gap> {
        let Some(members) = reader.schema.as_object() else { return vec![] };
        few(members.iter().flat_map(|(keyword, value)| self.keyword(keyword, value, writer, reader)))
    }

    fn keyword(&mut self, keyword: &'a str, value: &'a Value, writer: &Conjunction<'a>, reader: &Node<'a>) -> Vec<Gap> {
        if !writer.kinds.meets(subject(keyword)) {
            return vec![];
        }
        match keyword {
            "$ref" => self.referred(writer, reader),
            "allOf" => few(reader.branches(keyword).iter().flat_map(|branch| self.prove(writer, branch))),
            "anyOf" => self.any_of(writer, reader),
            "oneOf" => self.one_of(writer, reader),
            "not" => self.not(writer, reader),
            "if" => self.conditional(writer, reader),
            "then" | "else" => vec![],
            "properties" => self.properties(writer, reader),
            "patternProperties" => self.pattern_properties(writer, reader),
            "additionalProperties" => self.additional_properties(writer, reader),
            "propertyNames" => self.property_names(writer, reader),
            "required" => self.required(writer, reader),
            "dependentRequired" => self.dependent_required(writer, reader),
            "dependentSchemas" => self.dependent_schemas(writer, reader),
            "prefixItems" | "items" => self.items(keyword, writer, reader),
            "contains" | "minContains" | "maxContains" => self.contains(keyword, writer, reader),
            _ if is_annotation(keyword) => vec![],
            _ => self.scalar(keyword, value, writer, reader),
        }
    }

    fn referred(&mut self, writer: &Conjunction<'a>, reader: &Node<'a>) -> Vec<Gap> {
        match self.pair.target(reader) {
            Some(target) => self.prove(writer, &target),
            None => vec![unproved("$ref", writer, reader)],
        }
    }

    fn any_of(&mut self, writer: &Conjunction<'a>, reader: &Node<'a>) -> Vec<Gap> {
        let fits = reader.branches("anyOf").iter().any(|branch| self.prove(writer, branch).is_empty());
        if fits { vec![] } else { vec![no_alternative("anyOf", "one of its alternatives", writer, reader)] }
    }

    fn one_of(&mut self, writer: &Conjunction<'a>, reader: &Node<'a>) -> Vec<Gap> {
        let branches = reader.branches("oneOf");
        let fits = (0..branches.len()).any(|chosen| {
            self.prove(writer, &branches[chosen]).is_empty()
                && branches.iter().enumerate().all(|(at, other)| at == chosen || self.are_disjoint(writer, other))
        });
        if fits { vec![] } else { vec![no_alternative("oneOf", "exactly one of its alternatives", writer, reader)] }
    }

    fn not(&mut self, writer: &Conjunction<'a>, reader: &Node<'a>) -> Vec<Gap> {
        let excluded = reader.child("not").is_some_and(|inner| self.are_disjoint(writer, &inner));
        if excluded || self.repeats(&["not"], writer, reader) { vec![] } else { vec![unproved("not", writer, reader)] }
    }

    fn conditional(&mut self, writer: &Conjunction<'a>, reader: &Node<'a>) -> Vec<Gap> {
        if self.repeats(&["if", "then", "else"], writer, reader) {
            return vec![];
        }
        let outcomes: Vec<_> = ["then", "else"].iter().filter_map(|keyword| reader.child(keyword)).collect();
        let both = outcomes.iter().all(|outcome| self.prove(writer, outcome).is_empty());
        if both { vec![] } else { vec![unproved("if", writer, reader)] }
    }

    /// Whether one of the writer's schemas says exactly the same at all of `keywords`.
    pub(super) fn repeats(&self, keywords: &[&str], writer: &Conjunction<'a>, reader: &Node<'a>) -> bool {
        let same = |node: &Node<'a>| {
            let (Some(a), Some(b)) = (node.schema.as_object(), reader.schema.as_object()) else { return false };
            super::conjunction::agree(a, b, keywords)
                && keywords.iter().all(|keyword| match (node.child(keyword), reader.child(keyword)) {
                    (Some(a), Some(b)) => self.is_same(&a, &b),
                    _ => true,
                })
        };
        writer.nodes.iter().any(same)
    }

    /// Whether the reader's schema is one of those known to hold.
    fn is_given(&self, writer: &Conjunction<'a>, reader: &Node<'a>) -> bool {
        writer.nodes.iter().any(|node| self.is_same(node, reader))
    }

    /// Whether two subschemas read alike, and what they refer to does, too.
    pub(super) fn is_same(&self, a: &Node<'a>, b: &Node<'a>) -> bool {
        a.schema == b.schema && (a.side == b.side || self.refer_to_the_same(a, b))
    }

    fn refer_to_the_same(&self, a: &Node<'a>, b: &Node<'a>) -> bool {
        let (Some(in_a), Some(in_b)) = (self.pair.schema(a.side), self.pair.schema(b.side)) else { return true };
        let mut open = vec![a.schema];
        let mut seen = BTreeSet::new();
        while let Some(value) = open.pop() {
            if let Some(name) = reference(value).filter(|name| seen.insert(*name)) {
                match (in_a.resolve(name), in_b.resolve(name)) {
                    (Some((_, a)), Some((_, b))) if a == b => open.push(a),
                    (None, None) => {}
                    _ => return false,
                }
            }
            open.extend(members(value));
        }
        true
    }

    /// Tells the cases of an alternative of the writer apart, or, where the reader has alternatives, the types.
    ///
    /// A case is examined at once instead of asked as a question: it stands for the same document, and may not lean
    /// on the question it is part of.
    fn case_by_case(&mut self, writer: &Conjunction<'a>, reader: &Node<'a>) -> Option<Vec<Gap>> {
        let cases = self.alternatives(writer).or_else(|| self.types(writer, reader))?;
        let mut gaps = vec![];
        for case in cases {
            if gaps.len() >= MAX_FINDINGS {
                break;
            }
            if !self.spend(effort(&case, reader)) {
                return Some(vec![too_entangled(writer, reader)]);
            }
            if !self.is_vacuous(&case, 0) && !self.is_given(&case, reader) {
                gaps.extend(self.examine(&case, reader));
            }
        }
        Some(gaps)
    }

    pub(super) fn alternatives(&self, writer: &Conjunction<'a>) -> Option<Vec<Conjunction<'a>>> {
        let mut keywords = writer.nodes.iter().flat_map(|node| [(node, "anyOf"), (node, "oneOf")]);
        let (id, branches) = keywords.find_map(|(node, keyword)| {
            let id = (node.side, join(&node.at, keyword));
            let fresh = node.get(keyword).is_some() && !writer.told_apart.contains(&id);
            fresh.then(|| (id, node.branches(keyword)))
        })?;
        let case = |branch: Node<'a>| {
            let mut case = writer.with([branch.clone()], self.pair);
            case.told_apart.push(id.clone());
            Conjunction { at: branch.at, ..case }
        };
        Some(branches.into_iter().map(case).collect())
    }

    fn types(&self, writer: &Conjunction<'a>, reader: &Node<'a>) -> Option<Vec<Conjunction<'a>>> {
        reader.get("anyOf").or(reader.get("oneOf"))?;
        let types: Vec<_> = writer.kinds.schemas().collect();
        let case = |(name, schema)| writer.with([Node::assumed(name, schema)], self.pair);
        (types.len() > 1).then(|| types.into_iter().map(case).collect())
    }

    /// Judges each value where the writer allows but a few; `None` where it allows more, or where the reader's
    /// keywords tell better what is wrong.
    fn value_by_value(&mut self, writer: &Conjunction<'a>, reader: &Node<'a>) -> Option<Vec<Gap>> {
        let is_listed = writer.values("enum").chain(writer.values("const")).next().is_some();
        let values = writer.listed()?;
        let mut refused = vec![];
        for value in values {
            if !self.spend(1) {
                return Some(vec![too_entangled(writer, reader)]);
            }
            if self.may_hold(writer, &value) && self.accepts(reader, &value) != Some(true) {
                refused.push(value);
            }
        }
        match refused.is_empty() {
            true => Some(vec![]),
            false => is_listed.then(|| vec![values_refused(&refused, writer, reader)]),
        }
    }

    /// Whether no value at all satisfies the writer's schemas and this one.
    pub(super) fn are_disjoint(&mut self, writer: &Conjunction<'a>, other: &Node<'a>) -> bool {
        let both = writer.with([other.clone()], self.pair);
        self.is_vacuous(&both, 0)
    }

    /// Whether nothing known of the writer speaks against `value`.
    pub(super) fn may_hold(&mut self, writer: &Conjunction<'a>, value: &Value) -> bool {
        Kinds::of_value(value).within(writer.kinds)
            && writer.nodes.iter().all(|node| self.accepts(node, value) != Some(false))
    }

    /// The verdict of a subschema on one value; `None` if there is none to be had, or it would take too much effort.
    fn accepts(&mut self, node: &Node<'a>, value: &Value) -> Option<bool> {
        let Some(schema) = self.pair.schema(node.side) else { return node.schema.as_bool() };
        if let Some(verdict) = plain_verdict(node, value) {
            return Some(verdict);
        }
        let id = node.id();
        let effort = if self.validators.contains_key(&id) { 1 } else { self.building };
        if !self.spend(effort) {
            return None;
        }
        let validator = self.validators.entry(id).or_insert_with(|| schema.compile_at(&node.at));
        Some(validator.as_ref()?.is_valid(value))
    }

    /// Whether a property's name matches a regular expression of one of the schemas.
    pub(super) fn matches(&mut self, pattern: &str, name: &str) -> Option<bool> {
        let effort = if self.patterns.contains_key(pattern) { 1 } else { self.building };
        if !self.spend(effort) {
            return None;
        }
        let compile = || self.pair.writer.compile_pattern(pattern);
        let validator = self.patterns.entry(pattern.to_owned()).or_insert_with(compile);
        Some(validator.as_ref()?.is_valid(&Value::String(name.to_owned())))
    }
}

/// The verdict on a text of a schema that has a `type` and a list of texts at most, as most enumerations do.
fn plain_verdict(node: &Node<'_>, value: &Value) -> Option<bool> {
    let is_plain = |keyword: &String| matches!(keyword.as_str(), "type" | "enum" | "const") || is_annotation(keyword);
    let members = node.schema.as_object().filter(|members| value.is_string() && members.keys().all(is_plain))?;
    let fits = |(keyword, rule): (&String, &Value)| match keyword.as_str() {
        "type" => Kinds::STRING.within(Kinds::of_type(rule)),
        "enum" => rule.as_array().is_some_and(|values| values.contains(value)),
        "const" => rule == value,
        _ => true,
    };
    Some(members.iter().all(fits))
}

fn members(value: &Value) -> Box<dyn Iterator<Item = &Value> + '_> {
    match value {
        Value::Array(items) => Box::new(items.iter()),
        Value::Object(members) => Box::new(members.values()),
        _ => Box::new(std::iter::empty()),
    }
}

/// The kinds of values that a keyword says anything about.
fn subject(keyword: &str) -> Kinds {
    match keyword {
        "properties"
        | "patternProperties"
        | "additionalProperties"
        | "propertyNames"
        | "required"
        | "dependentRequired"
        | "dependentSchemas"
        | "minProperties"
        | "maxProperties"
        | "unevaluatedProperties" => Kinds::OBJECT,
        "prefixItems" | "items" | "contains" | "minContains" | "maxContains" | "minItems" | "maxItems"
        | "uniqueItems" | "unevaluatedItems" => Kinds::ARRAY,
        "minimum" | "maximum" | "exclusiveMinimum" | "exclusiveMaximum" | "multipleOf" => Kinds::NUMBER,
        "minLength" | "maxLength" | "pattern" | "format" => Kinds::STRING,
        _ => Kinds::ALL,
    }
}

/// Keywords that describe and never refuse.
fn is_annotation(keyword: &str) -> bool {
    const ANNOTATIONS: [&str; 16] = [
        "$schema",
        "$id",
        "$comment",
        "$defs",
        "definitions",
        "title",
        "description",
        "default",
        "deprecated",
        "readOnly",
        "writeOnly",
        "examples",
        "example",
        "contentEncoding",
        "contentMediaType",
        "contentSchema",
    ];
    ANNOTATIONS.contains(&keyword) || keyword.starts_with("x-")
}

/// A certain gap; the reader's side is to be filled in.
pub(super) fn gap(writer_at: String, reader_at: String, writer: impl Into<String>, affected: &str) -> Gap {
    Gap {
        writer_at,
        reader_at,
        writer: writer.into(),
        reader: String::new(),
        affected: affected.into(),
        certainty: Certainty::Refused,
    }
}

/// A keyword of the reader that nothing of the writer was found to imply.
pub(super) fn unproved(keyword: &str, writer: &Conjunction<'_>, reader: &Node<'_>) -> Gap {
    let shown = |value: Option<&Value>| value.map_or("absent".into(), |value| format!("`{}`", short(value)));
    let here = writer.nodes.iter().find_map(|node| node.get(keyword));
    Gap {
        reader: shown(reader.get(keyword)),
        certainty: Certainty::Unproved,
        ..gap(writer.at(keyword), join(&reader.at, keyword), shown(here), "that were fine without it")
    }
}

fn no_alternative(keyword: &str, choice: &str, writer: &Conjunction<'_>, reader: &Node<'_>) -> Gap {
    Gap {
        reader: choice.into(),
        certainty: Certainty::Unproved,
        ..gap(writer.at(keyword), join(&reader.at, keyword), format!("{}", writer.kinds), "that fit none, or several,")
    }
}

/// As many gaps as are told. No more is looked at than it takes to find them.
pub(super) fn few(gaps: impl Iterator<Item = Gap>) -> Vec<Gap> {
    gaps.take(MAX_FINDINGS).collect()
}

/// What looking at a question takes.
fn effort(writer: &Conjunction<'_>, reader: &Node<'_>) -> usize {
    let nodes = || writer.nodes.iter().chain(&writer.perhaps);
    let bytes = reader.at.len() + nodes().map(|node| node.at.len()).sum::<usize>();
    1 + nodes().count() + bytes / POINTER_BYTES
}

fn too_entangled(writer: &Conjunction<'_>, reader: &Node<'_>) -> Gap {
    Gap {
        reader: "too entangled to compare with the effort that one proposal may take".into(),
        certainty: Certainty::Unproved,
        ..gap(writer.at.clone(), reader.at.clone(), "too entangled to compare", "of any shape")
    }
}

fn values_refused(values: &[Value], writer: &Conjunction<'_>, reader: &Node<'_>) -> Gap {
    let shown: Vec<_> = values.iter().take(5).map(|value| format!("`{}`", short(value))).collect();
    let more = if values.len() > 5 { ", …" } else { "" };
    let of_writer = if writer.values("const").next().is_some() { "const" } else { "enum" };
    let of_reader = ["enum", "const", "type"].into_iter().find(|keyword| reader.get(keyword).is_some());
    Gap {
        reader: "without".into(),
        ..gap(
            writer.at(of_writer),
            of_reader.map_or_else(|| reader.at.clone(), |keyword| join(&reader.at, keyword)),
            format!("open to {}{more}", shown.join(", ")),
            "with one of these values",
        )
    }
}

/// `value` as compact JSON, cut where it gets long.
pub(super) fn short(value: &Value) -> String {
    clipped(value.to_string(), 80)
}
