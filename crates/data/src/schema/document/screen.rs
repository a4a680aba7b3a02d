//! Refusing schemas that are wrong, lean on others, or would cost too much.

use super::{DIALECT, SchemaFault, everywhere, invalid, inventory, reference};
use crate::schema::{
    limits::Limits,
    vocabulary::{Place, local_pointer, subschemas},
};
use serde_json::Value;
use std::collections::BTreeMap;

/// Keywords that make the meaning of a reference depend on more than the document it stands in.
const DYNAMIC: [&str; 6] =
    ["$dynamicRef", "$dynamicAnchor", "$recursiveRef", "$recursiveAnchor", "$anchor", "$vocabulary"];

/// Looks a schema over; returns how many subschemas it has once its references are written out.
pub(super) fn screen(root: &Value, limits: &Limits) -> Result<u64, SchemaFault> {
    size(root, limits)?;
    names(root, limits)?;
    dialect("", root)?;
    jsonschema::draft202012::meta::validate(root).map_err(|error| invalid(&error))?;
    patterns(root, limits)?;
    let all = inventory(root);
    all.iter().try_for_each(|(at, schema)| keywords(at, schema, &all))?;
    Graph { all: &all, limits, here: BTreeMap::new(), whole: BTreeMap::new() }.survey()
}

fn within(what: &'static str, found: usize, limit: usize) -> Result<(), SchemaFault> {
    let (found, limit) = (found as u64, limit as u64);
    if found > limit { Err(SchemaFault::TooLarge { what, found, limit }) } else { Ok(()) }
}

/// Depth first, so that nothing after it recurses without bound.
fn size(root: &Value, limits: &Limits) -> Result<(), SchemaFault> {
    let depth = limits.schema_depth;
    within("a nesting", depth + usize::from(is_deeper(root, depth)), depth)?;
    within("a size in bytes", root.to_string().len(), limits.schema_bytes)
}

/// Before any pointer is written down: there is one for each subschema, and each holds all names on the way to it.
fn names(root: &Value, limits: &Limits) -> Result<(), SchemaFault> {
    let (mut count, mut bytes) = (1, 0);
    let mut open = vec![(0, root)];
    while let Some((length, schema)) = open.pop() {
        for sub in subschemas(schema) {
            if sub.keyword != "patternProperties" {
                within("a name in bytes", sub.key.as_ref().map_or(0, |key| key.len()), limits.name_bytes)?;
            }
            let length = length + sub.pointer_bytes();
            (count, bytes) = (count + 1, bytes + length);
            within("a number of subschemas", count, limits.subschemas)?;
            within("pointers to its subschemas in bytes", bytes, limits.pointers_bytes)?;
            open.push((length, sub.schema));
        }
    }
    Ok(())
}

/// Whether more than `levels` arrays and objects stand inside one another in `value`. Looks no further than that.
pub(in crate::schema) fn is_deeper(value: &Value, levels: usize) -> bool {
    match (value, levels.checked_sub(1)) {
        (Value::Array(_) | Value::Object(_), None) => true,
        (Value::Array(items), Some(left)) => items.iter().any(|item| is_deeper(item, left)),
        (Value::Object(members), Some(left)) => members.values().any(|member| is_deeper(member, left)),
        _ => false,
    }
}

fn dialect(at: &str, schema: &Value) -> Result<(), SchemaFault> {
    match schema.get("$schema").and_then(Value::as_str) {
        Some(found) if found.trim_end_matches('#') != DIALECT => {
            Err(SchemaFault::Dialect { at: at.into(), dialect: super::clipped(found.into(), 200) })
        }
        _ => Ok(()),
    }
}

fn keywords(at: &str, schema: &Value, all: &BTreeMap<String, &Value>) -> Result<(), SchemaFault> {
    dialect(at, schema)?;
    let nested_id = (!at.is_empty()).then_some("$id");
    if let Some(&keyword) = DYNAMIC.iter().chain(&nested_id).find(|keyword| schema.get(**keyword).is_some()) {
        return Err(SchemaFault::Unsupported { at: at.into(), keyword });
    }
    let Some(reference) = reference(schema) else { return Ok(()) };
    let named = || (at.to_owned(), super::clipped(reference.to_owned(), 200));
    match local_pointer(reference) {
        None => Err(named()).map_err(|(at, reference)| SchemaFault::RemoteRef { at, reference }),
        Some(pointer) if !all.contains_key(&pointer) => {
            Err(named()).map_err(|(at, reference)| SchemaFault::DanglingRef { at, reference })
        }
        Some(_) => Ok(()),
    }
}

fn patterns(root: &Value, limits: &Limits) -> Result<(), SchemaFault> {
    let lengths: Vec<_> = super::patterns(&everywhere(root)).map(str::len).collect();
    within("a number of regular expressions", lengths.len(), limits.patterns)?;
    within("a regular expression in bytes", lengths.into_iter().max().unwrap_or(0), limits.pattern_bytes)
}

/// What writing out a subschema's references comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Extent {
    /// Subschemas in all.
    size: u64,
    /// The longest chain of subschemas one inside another.
    depth: usize,
}

/// The subschemas and what refers to what.
struct Graph<'a> {
    all: &'a BTreeMap<String, &'a Value>,
    limits: &'a Limits,
    /// Following only what speaks about the same value; `None` while on the way.
    here: BTreeMap<String, Option<Extent>>,
    /// Following everything; `None` while on the way.
    whole: BTreeMap<String, Option<Extent>>,
}

impl Graph<'_> {
    fn survey(mut self) -> Result<u64, SchemaFault> {
        for at in self.all.keys() {
            self.here(at, 0)?;
        }
        self.whole("", 0).map(|extent| extent.size)
    }

    fn followers(&self, at: &str, inside: bool) -> Vec<String> {
        let schema = self.all.get(at).copied().unwrap_or(&Value::Bool(true));
        let target = reference(schema).and_then(local_pointer);
        let wanted = |place| place == Place::Here || (inside && place == Place::Inside);
        let subs = subschemas(schema).into_iter().filter(|sub| wanted(sub.place)).map(|sub| sub.pointer(at));
        target.into_iter().chain(subs).collect()
    }

    /// Refuses circles and long chains among subschemas of one value.
    fn here(&mut self, at: &str, depth: usize) -> Result<Extent, SchemaFault> {
        match self.here.get(at) {
            Some(Some(extent)) => return Ok(*extent),
            Some(None) => return Err(SchemaFault::Endless { at: at.into() }),
            None => {}
        }
        within("a nesting of subschemas of one value", depth, self.limits.in_place_depth)?;
        self.here.insert(at.into(), None);
        let mut extent = Extent { size: 1, depth: 1 };
        for next in self.followers(at, false) {
            extent = extent.around(self.here(&next, depth + 1)?);
        }
        within("a nesting of subschemas of one value", extent.depth, self.limits.in_place_depth)?;
        self.here.insert(at.into(), Some(extent));
        Ok(extent)
    }

    /// Refuses schemas that are small as text and enormous when written out. A recursive reference counts once:
    /// the document's own nesting bounds how often it is followed.
    fn whole(&mut self, at: &str, depth: usize) -> Result<Extent, SchemaFault> {
        match self.whole.get(at) {
            Some(Some(extent)) => return Ok(*extent),
            Some(None) => return Ok(Extent { size: 1, depth: 0 }),
            None => {}
        }
        let longest = 2 * self.limits.schema_depth;
        within("a chain of subschemas", depth, longest)?;
        self.whole.insert(at.into(), None);
        let mut extent = Extent { size: 1, depth: 1 };
        for next in self.followers(at, true) {
            extent = extent.around(self.whole(&next, depth + 1)?);
        }
        within("a chain of subschemas", extent.depth, longest)?;
        let (what, found, limit) = ("a size with references written out", extent.size, self.limits.expansion);
        if found > limit {
            return Err(SchemaFault::TooLarge { what, found, limit });
        }
        self.whole.insert(at.into(), Some(extent));
        Ok(extent)
    }
}

impl Extent {
    fn around(self, inner: Self) -> Self {
        Self { size: self.size.saturating_add(inner.size), depth: self.depth.max(inner.depth + 1) }
    }
}
