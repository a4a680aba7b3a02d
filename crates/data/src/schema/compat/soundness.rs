//! Whatever the comparison calls compatible, the validator must agree on every document we can think of.

use super::{Direction, Undeclared, incompatibilities};
use crate::schema::{
    Limits, Schema,
    vocabulary::{Place, subschemas},
};
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use serde_json::{Map, Value, json};

/// Choices, drawn from bytes so that a failing case shrinks; zeros once they run out.
struct Dice<'a>(std::slice::Iter<'a, u8>);

impl Dice<'_> {
    fn roll(&mut self, sides: usize) -> usize {
        usize::from(*self.0.next().unwrap_or(&0)) % sides
    }

    fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.roll(from.len())].clone()
    }

    fn chance(&mut self, of: usize) -> bool {
        self.roll(of) == 1
    }
}

const NAMES: [&str; 3] = ["a", "b", "ab"];
const PATTERNS: [&str; 4] = ["^a", "b$", "^ab?$", ""];
const TYPES: [&str; 7] = ["object", "string", "integer", "number", "array", "boolean", "null"];

fn number(dice: &mut Dice<'_>) -> Value {
    dice.pick(&[json!(0), json!(1), json!(2), json!(3), json!(-1), json!(0.5), json!(1.0), json!(2.5), json!(6)])
}

fn document(dice: &mut Dice<'_>, depth: usize) -> Value {
    match dice.roll(if depth == 0 { 4 } else { 8 }) {
        0 => dice.pick(&[json!(""), json!("a"), json!("ab"), json!("b"), json!("2024-01-01")]),
        1 => number(dice),
        2 => dice.pick(&[json!(true), json!(false)]),
        3 => Value::Null,
        4 => (0..dice.roll(4)).map(|_| document(dice, depth - 1)).collect(),
        _ => {
            let names: Vec<_> = NAMES.iter().filter(|_| dice.roll(2) == 1).collect();
            names.into_iter().map(|name| ((*name).to_owned(), document(dice, depth - 1))).collect::<Map<_, _>>().into()
        }
    }
}

/// A document that tries to please `schema`.
fn pleasing(schema: &Value, root: &Value, dice: &mut Dice<'_>, depth: usize) -> Value {
    let Some(members) = schema.as_object().filter(|_| depth > 0 && !dice.chance(8)) else {
        return document(dice, depth);
    };
    if let Some(values) = members.get("enum").and_then(Value::as_array) {
        return dice.pick(values);
    }
    if let Some(value) = members.get("const") {
        return value.clone();
    }
    if let Some(target) = members.get("$ref").and_then(|name| root.pointer(name.as_str()?.strip_prefix('#')?)) {
        return pleasing(target, root, dice, depth - 1);
    }
    for keyword in ["anyOf", "oneOf", "allOf"] {
        if let Some(branches) = members.get(keyword).and_then(Value::as_array).filter(|_| dice.chance(2)) {
            return pleasing(&dice.pick(branches), root, dice, depth - 1);
        }
    }
    let types: Vec<_> = match &members.get("type") {
        Some(Value::Array(types)) => types.clone(),
        Some(one) => vec![(*one).clone()],
        None => ["properties", "required"]
            .iter()
            .any(|keyword| members.contains_key(*keyword))
            .then(|| json!("object"))
            .into_iter()
            .collect(),
    };
    match types.get(dice.roll(types.len().max(1))).and_then(Value::as_str) {
        Some("object") => {
            let wanted = |name: &str| {
                members.get("required").and_then(Value::as_array).is_some_and(|list| list.contains(&json!(name)))
            };
            let mut object = Map::new();
            for name in NAMES {
                let part =
                    members.get("properties").and_then(|map| map.get(name)).or(members.get("additionalProperties"));
                if wanted(name) || dice.chance(3) {
                    object.insert(name.into(), pleasing(part.unwrap_or(&json!(true)), root, dice, depth - 1));
                }
            }
            object.into()
        }
        Some("array") => {
            let first = members.get("prefixItems").and_then(Value::as_array).into_iter().flatten();
            let rest = members.get("items").cloned().unwrap_or(json!(true));
            let length = dice.roll(4);
            let items: Vec<_> = first.cloned().chain(std::iter::repeat(rest)).take(length).collect();
            items.iter().map(|item| pleasing(item, root, dice, depth - 1)).collect()
        }
        Some("integer" | "number") => number(dice),
        Some("string") => dice.pick(&[json!("a"), json!("ab"), json!("")]),
        Some("boolean") => dice.pick(&[json!(true), json!(false)]),
        Some("null") => Value::Null,
        _ => document(dice, depth),
    }
}

/// What the generator may use.
#[derive(Clone, Copy, PartialEq)]
enum Grammar {
    Full,
    /// No patterns and no `additionalProperties`: what is declared is then a matter of names.
    Named,
}

fn schema(dice: &mut Dice<'_>, depth: usize, grammar: Grammar) -> Value {
    if depth == 0 || dice.chance(16) {
        return dice.pick(&[
            json!(true),
            json!(true),
            json!({}),
            json!({"type": "string"}),
            json!({"type": "integer"}),
            json!(false),
        ]);
    }
    let mut members = Map::new();
    if dice.roll(4) > 0 {
        let one = json!(dice.pick(&TYPES));
        members.insert(
            "type".into(),
            if dice.chance(4) { json!(dedup(vec![one, json!(dice.pick(&TYPES))])) } else { one },
        );
    }
    for _ in 0..dice.roll(4) {
        let (keyword, value) = keyword(dice, depth - 1, grammar);
        members.insert(keyword.into(), value);
    }
    members.into()
}

fn dedup(mut values: Vec<Value>) -> Vec<Value> {
    let mut kept: Vec<Value> = vec![];
    values.retain(|value| {
        !kept.contains(value) && {
            kept.push(value.clone());
            true
        }
    });
    values
}

fn keyword(dice: &mut Dice<'_>, depth: usize, grammar: Grammar) -> (&'static str, Value) {
    let sub = |dice: &mut Dice<'_>| schema(dice, depth, grammar);
    let names = |dice: &mut Dice<'_>| json!(NAMES.iter().filter(|_| dice.chance(2)).collect::<Vec<_>>());
    let few = |dice: &mut Dice<'_>| (0..1 + dice.roll(3)).map(|_| sub(dice)).collect::<Vec<_>>();
    let map = |dice: &mut Dice<'_>, keys: &[&str]| -> Value {
        let keys: Vec<_> = keys.iter().filter(|_| dice.chance(2)).collect();
        keys.into_iter().map(|key| ((*key).to_owned(), sub(dice))).collect::<Map<_, _>>().into()
    };
    let alternatives = grammar == Grammar::Named && dice.chance(6);
    match dice.roll(if grammar == Grammar::Full { 36 } else { 20 }) {
        _ if alternatives => {
            let place = ["anyOf", "oneOf", "allOf", "not", "if", "then", "dependentSchemas", "dependentRequired"];
            match dice.pick(&place) {
                lists @ ("anyOf" | "oneOf" | "allOf") => (lists, json!(few(dice))),
                "dependentSchemas" => ("dependentSchemas", map(dice, &NAMES)),
                "dependentRequired" => ("dependentRequired", json!({ dice.pick(&NAMES): names(dice) })),
                one => (one, sub(dice)),
            }
        }
        0..=4 => ("properties", map(dice, &NAMES)),
        5 | 6 => ("required", names(dice)),
        7 => ("minimum", number(dice)),
        8 => ("maximum", number(dice)),
        9 => ("exclusiveMinimum", number(dice)),
        10 => ("exclusiveMaximum", number(dice)),
        11 => ("multipleOf", dice.pick(&[json!(1), json!(2), json!(3), json!(6), json!(0.5), json!(2.0)])),
        12 => ("enum", json!(dedup((0..1 + dice.roll(3)).map(|_| document(dice, 1)).collect()))),
        13 => ("const", document(dice, 1)),
        14 => (
            dice.pick(&["minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"]),
            json!(dice.roll(4)),
        ),
        15 => ("items", sub(dice)),
        16 => ("pattern", json!(dice.pick(&PATTERNS))),
        17 => ("format", json!("date")),
        18 => ("uniqueItems", json!(dice.roll(2) == 0)),
        19 => ("prefixItems", json!(few(dice))),
        20..=22 => ("additionalProperties", sub(dice)),
        23 | 24 => ("patternProperties", map(dice, &PATTERNS)),
        25 => ("propertyNames", sub(dice)),
        26 => ("allOf", json!(few(dice))),
        27 | 28 => ("anyOf", json!(few(dice))),
        29 | 30 => ("oneOf", json!(few(dice))),
        31 => ("not", sub(dice)),
        32 => (dice.pick(&["if", "then", "else"]), sub(dice)),
        33 => (dice.pick(&["contains", "unevaluatedProperties", "unevaluatedItems"]), sub(dice)),
        34 => match dice.roll(2) {
            0 => ("dependentRequired", json!({dice.pick(&NAMES): names(dice)})),
            _ => ("dependentSchemas", map(dice, &NAMES)),
        },
        _ => ("$ref", json!(dice.pick(&["#/$defs/x", "#/$defs/y", "#"]))),
    }
}

/// A whole schema, with something for its references to name.
fn whole(dice: &mut Dice<'_>, grammar: Grammar) -> Value {
    let mut root = schema(dice, 3, grammar);
    if let (Value::Object(members), Grammar::Full) = (&mut root, grammar) {
        members.insert("$defs".into(), json!({"x": schema(dice, 2, grammar), "y": schema(dice, 1, grammar)}));
    }
    root
}

/// Changes something, somewhere.
fn mutate(value: &mut Value, other: &Value, dice: &mut Dice<'_>, grammar: Grammar) {
    let keys: Vec<String> = value.as_object().map(|members| members.keys().cloned().collect()).unwrap_or_default();
    let Value::Object(members) = value else { return *value = other.clone() };
    match dice.roll(6) {
        0 if !keys.is_empty() => drop(members.remove(&dice.pick(&keys))),
        1 => {
            let (keyword, inner) = keyword(dice, 1, grammar);
            members.insert(keyword.into(), inner);
        }
        2 if grammar == Grammar::Full => {
            *value = json!({"anyOf": [value.clone(), other], "$defs": value.get("$defs").unwrap_or(&json!({})).clone()})
        }
        3 if grammar == Grammar::Full => {
            *value = json!({"oneOf": [other, value.clone()], "$defs": value.get("$defs").unwrap_or(&json!({})).clone()})
        }
        _ if !keys.is_empty() => {
            let inner = members.get_mut(&dice.pick(&keys));
            match inner {
                Some(inner @ Value::Object(_)) => mutate(inner, other, dice, grammar),
                Some(Value::Array(items)) if !items.is_empty() => {
                    let at = dice.roll(items.len());
                    mutate(&mut items[at], other, dice, grammar);
                }
                Some(inner @ Value::Number(_)) => *inner = number(dice),
                _ => {}
            }
        }
        _ => {}
    }
}

fn parse(value: &Value) -> Option<Schema> {
    Schema::parse(value, &Limits::default()).ok()
}

/// Whether no object in `document` has a property that nothing speaks of which might apply to it: `schemas`, and what
/// stands in them for the same value.
fn keeps_to_declarations(schemas: Vec<&Value>, document: &Value) -> bool {
    let mut open = schemas;
    let mut all: Vec<&Value> = vec![];
    while let Some(schema) = open.pop() {
        all.push(schema);
        open.extend(subschemas(schema).into_iter().filter(|sub| sub.place == Place::Here).map(|sub| sub.schema));
    }
    match document {
        Value::Object(members) => {
            let declares = all.iter().any(|schema| schema.get("properties").is_some());
            members.iter().all(|(name, part)| {
                let of_part = all.iter().filter_map(|schema| schema.get("properties")?.get(name)).collect();
                (!declares || all.iter().any(|schema| speaks_of(schema, name))) && keeps_to_declarations(of_part, part)
            })
        }
        Value::Array(items) => items.iter().enumerate().all(|(at, item)| {
            let of_item = all.iter().filter_map(|schema| {
                let in_prefix = schema.get("prefixItems").and_then(|prefix| prefix.get(at));
                in_prefix.or_else(|| schema.get("items"))
            });
            keeps_to_declarations(of_item.collect(), item)
        }),
        _ => true,
    }
}

fn speaks_of(schema: &Value, name: &str) -> bool {
    let lists = |list: &Value| list.as_array().is_some_and(|names| names.contains(&json!(name)));
    let beside = schema.get("dependentRequired").and_then(Value::as_object);
    ["properties", "dependentRequired", "dependentSchemas"]
        .iter()
        .any(|keyword| schema.get(keyword).is_some_and(|map| map.get(name).is_some()))
        || schema.get("required").is_some_and(lists)
        || beside.into_iter().flatten().any(|(_, list)| lists(list))
}

#[derive(Default)]
struct Tally {
    changed: u32,
    proved: u32,
    accepted_documents: u32,
}

/// One case: two related schemas; where compatible, documents that the old accepts have to suit the new.
fn try_case(bytes: &[u8], grammar: Grammar, tally: &mut Tally) -> Result<(), TestCaseError> {
    let mut dice = Dice(bytes.iter());
    let old = whole(&mut dice, grammar);
    let mut new = if dice.chance(8) { whole(&mut dice, grammar) } else { old.clone() };
    let other = schema(&mut dice, 2, grammar);
    (0..=dice.roll(3)).for_each(|_| mutate(&mut new, &other, &mut dice, grammar));
    let (Some(before), Some(after)) = (parse(&old), parse(&new)) else { return Ok(()) };
    let undeclared = if grammar == Grammar::Named { Undeclared::Absent } else { Undeclared::Possible };
    tally.changed += u32::from(old != new);
    if old == new || !incompatibilities(&before, &after, Direction::Backward, undeclared).is_empty() {
        return Ok(());
    }
    tally.proved += 1;
    let (writer, reader) = (before.compile().unwrap(), after.compile().unwrap());
    for _ in 0..24 {
        let document =
            if dice.chance(4) { pleasing(&new, &new, &mut dice, 4) } else { pleasing(&old, &old, &mut dice, 4) };
        let counts = undeclared == Undeclared::Possible || keeps_to_declarations(vec![&old], &document);
        if counts && writer.is_valid(&document) {
            tally.accepted_documents += 1;
            prop_assert!(reader.is_valid(&document), "old {old}\nnew {new}\nrefuses {document}");
        }
    }
    Ok(())
}

fn run(grammar: Grammar) -> Tally {
    let tally = std::cell::RefCell::new(Tally::default());
    let config = Config { failure_persistence: None, ..Config::default() };
    let config = Config { cases: config.cases.max(1_000), ..config };
    let bytes = prop::collection::vec(any::<u8>(), 0..400);
    let outcome = TestRunner::new(config).run(&bytes, |bytes| try_case(&bytes, grammar, &mut tally.borrow_mut()));
    outcome.unwrap_or_else(|failure| panic!("{failure}"));
    tally.into_inner()
}

#[test]
fn what_is_called_compatible_refuses_no_document_that_was_fine() {
    let Tally { changed, proved, accepted_documents } = run(Grammar::Full);
    // The property would hold of a comparison that refuses everything; this one has to find proofs, too.
    assert!(proved * 10 > changed, "{proved} proofs in {changed} changed pairs");
    assert!(accepted_documents > proved * 3, "{accepted_documents} telling documents for {proved} proofs");
}

#[test]
fn what_is_called_compatible_refuses_no_document_of_a_writer_that_keeps_to_its_declarations() {
    let Tally { changed, proved, accepted_documents } = run(Grammar::Named);
    assert!(proved * 5 > changed, "{proved} proofs in {changed} changed pairs");
    assert!(accepted_documents > proved * 3, "{accepted_documents} telling documents for {proved} proofs");
}
