//! A JSON Schema that has been looked over and found harmless.

use super::{
    limits::Limits,
    vocabulary::{Place, local_pointer, subschemas},
};
use jsonschema::{Draft, PatternOptions, Validator};
use serde_json::{Map, Value};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

mod screen;

pub(super) use screen::is_deeper;

pub(super) const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";

/// A JSON Schema (2020-12) that is valid, self-contained and bounded in what checking a document against it can cost.
///
/// Its references stay inside it, its regular expressions run in linear time, and no chain of references applies
/// without end to one value. `format` is asserted where the name is a known one. Cheap to clone.
///
/// # Example
/// ```
/// use quorate_data::schema::{Limits, Schema, SchemaFault};
/// use serde_json::json;
///
/// let schema = Schema::parse(&json!({"type": "object", "required": ["amount"]}), &Limits::default())?;
/// assert_eq!(schema.to_string(), r#"{"required":["amount"],"type":"object"}"#);
/// let remote = Schema::parse(&json!({"$ref": "https://example.com/a.json"}), &Limits::default());
/// assert!(matches!(remote, Err(SchemaFault::RemoteRef { .. })));
/// # Ok::<(), SchemaFault>(())
/// ```
#[derive(Clone)]
pub struct Schema {
    root: Arc<Value>,
    limits: Limits,
    /// How many subschemas it has once its references are written out.
    written_out: u64,
}

/// Why a schema was refused. Nothing was kept; the schema has to change.
///
/// `at` is the JSON pointer of the offending place in the schema; the empty pointer is the whole.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SchemaFault {
    /// A limit is exceeded.
    #[error("the schema has {what} of {found}, more than the limit of {limit}")]
    TooLarge {
        /// Which of the [`Limits`], in words.
        what: &'static str,
        /// How much the schema has; counting may stop soon after the limit.
        found: u64,
        /// How much it may have.
        limit: u64,
    },
    /// The schema declares another dialect than JSON Schema 2020-12.
    #[error("`{at}/$schema`: dialect {dialect} is not supported, only {DIALECT}")]
    Dialect {
        /// Where.
        at: String,
        /// What was declared.
        dialect: String,
    },
    /// The schema does not conform to the meta-schema.
    #[error("`{at}`: {message}")]
    Invalid {
        /// Where.
        at: String,
        /// What is wrong there.
        message: String,
    },
    /// A reference leads out of the schema, or is not a JSON pointer.
    #[error("`{at}/$ref`: `{reference}` is not a JSON pointer into this schema; copy what it names into `$defs`")]
    RemoteRef {
        /// Where.
        at: String,
        /// The reference.
        reference: String,
    },
    /// A reference leads to nothing, or to something that is not a subschema.
    #[error("`{at}/$ref`: there is no schema at `{reference}`")]
    DanglingRef {
        /// Where.
        at: String,
        /// The reference.
        reference: String,
    },
    /// A keyword that would make references depend on where they are evaluated from.
    #[error("`{at}/{keyword}`: this keyword is not supported")]
    Unsupported {
        /// Where.
        at: String,
        /// The keyword.
        keyword: &'static str,
    },
    /// Checking a value would lead back to checking the same value.
    #[error("`{at}`: this schema applies itself to the same value without end")]
    Endless {
        /// Where the circle was entered.
        at: String,
    },
}

impl SchemaFault {
    /// The JSON pointer of the offending place in the schema; empty where it is the whole.
    pub fn at(&self) -> &str {
        match self {
            Self::TooLarge { .. } => "",
            Self::Dialect { at, .. }
            | Self::Invalid { at, .. }
            | Self::RemoteRef { at, .. }
            | Self::DanglingRef { at, .. }
            | Self::Unsupported { at, .. }
            | Self::Endless { at } => at,
        }
    }
}

impl Schema {
    /// Looks `value` over: conforming, self-contained, within `limits`.
    ///
    /// # Errors
    /// [`SchemaFault`]: the first thing found wrong, and where.
    pub fn parse(value: &Value, limits: &Limits) -> Result<Self, SchemaFault> {
        Self::parse_and_compile(value, limits).map(|(schema, _)| schema)
    }

    /// The same, with a validator for whole documents.
    pub(super) fn parse_and_compile(value: &Value, limits: &Limits) -> Result<(Self, Validator), SchemaFault> {
        let schema = Self::screened(value, limits)?;
        let validator = schema.compile()?;
        Ok((schema, validator))
    }

    /// One that was parsed before, and is not to be compiled again: for comparing it with others.
    pub(super) fn screened(value: &Value, limits: &Limits) -> Result<Self, SchemaFault> {
        let written_out = screen::screen(value, limits)?;
        Ok(Self { root: Arc::new(value.clone()), limits: *limits, written_out })
    }

    /// The schema as it was given.
    pub fn as_json(&self) -> &Value {
        &self.root
    }

    /// Its size as compact JSON.
    pub(super) fn bytes(&self) -> usize {
        self.root.to_string().len()
    }

    /// What it takes in memory once it is compiled, together with what was read of its `text_bytes`: an estimate, on the
    /// safe side. Measured with a counting allocator over schemas of seventeen kinds.
    pub(super) fn compiled_bytes(&self, text_bytes: usize) -> usize {
        const PER_BYTE: usize = 40;
        const PER_SUBSCHEMA: usize = 1_024;
        const PER_WRITTEN_OUT: usize = 256;
        let all = everywhere(&self.root);
        let is_unevaluated = |schema: &&Value| {
            ["unevaluatedProperties", "unevaluatedItems"].iter().any(|keyword| schema.get(keyword).is_some())
        };
        // What was evaluated elsewhere is found out through references, each of which is written out for it.
        let written_out = if all.iter().any(is_unevaluated) { self.written_out } else { 0 };
        let patterns: usize = patterns(&all).map(|pattern| self.pattern_bytes(pattern)).sum();
        PER_BYTE * text_bytes
            + PER_SUBSCHEMA * all.len()
            + PER_WRITTEN_OUT * usize::try_from(written_out).unwrap_or(usize::MAX >> 16)
            + patterns
    }

    /// What a regular expression takes: found out by giving it less and less.
    fn pattern_bytes(&self, pattern: &str) -> usize {
        let fits = |limit: &usize| {
            let limits = Limits { pattern_memory_bytes: *limit, ..self.limits };
            build(&serde_json::json!({ "pattern": pattern }), &limits).is_ok()
        };
        // As much again for what it remembers while it runs.
        2 * [8 << 10, 64 << 10, 256 << 10].into_iter().find(fits).unwrap_or(self.limits.pattern_memory_bytes)
    }

    /// A validator for whole documents.
    pub(super) fn compile(&self) -> Result<Validator, SchemaFault> {
        build(&anonymous(&self.root), &self.limits)
    }

    /// A validator for the subschema at `pointer`, with its references resolved in this schema.
    pub(super) fn compile_at(&self, pointer: &str) -> Option<Validator> {
        const BASE: &str = "quorate:schema";
        let Value::Object(mut root) = anonymous(&self.root) else { return self.compile().ok() };
        root.insert("$id".into(), BASE.into());
        let mut outer = Map::new();
        outer.insert("$ref".into(), format!("{BASE}#{}", percent_encoded(pointer)).into());
        outer.insert("$defs".into(), Map::from_iter([("root".to_owned(), Value::Object(root))]).into());
        build(&Value::Object(outer), &self.limits).ok()
    }

    /// A validator for strings that match `pattern`.
    pub(super) fn compile_pattern(&self, pattern: &str) -> Option<Validator> {
        build(&serde_json::json!({"pattern": pattern}), &self.limits).ok()
    }

    /// The names of members that it mentions itself, and which therefore say nothing of a document.
    pub(super) fn member_names(&self) -> BTreeSet<&str> {
        let all = everywhere(&self.root);
        let of = |keyword| all.iter().filter_map(move |schema| schema.get(keyword));
        let keys = of("properties").filter_map(Value::as_object).flat_map(Map::keys).map(String::as_str);
        let required = of("required").filter_map(Value::as_array).flatten().filter_map(Value::as_str);
        keys.chain(required).collect()
    }

    /// What a `$ref` names: its pointer and the subschema.
    pub(super) fn resolve(&self, reference: &str) -> Option<(String, &Value)> {
        let pointer = local_pointer(reference)?;
        let target = self.root.pointer(&pointer)?;
        Some((pointer, target))
    }

    /// Whether listing every violation of `document` stays within `budget` subschema visits.
    ///
    /// Deciding whether a document is valid remembers what it has seen; listing does not, and alternatives that recur
    /// in each other multiply. The count follows every path that a listing could.
    pub(super) fn lists_within(&self, document: &Value, budget: usize) -> bool {
        let mut left = budget;
        self.visit(&self.root, document, &mut left);
        left > 0
    }

    fn visit(&self, schema: &Value, document: &Value, left: &mut usize) {
        *left = left.saturating_sub(1);
        if *left == 0 {
            return;
        }
        if let Some((_, target)) = reference(schema).and_then(|reference| self.resolve(reference)) {
            self.visit(target, document, left);
        }
        for sub in subschemas(schema) {
            match (sub.place, sub.keyword, &sub.key) {
                (Place::Shelf, ..) => {}
                (Place::Here, ..) => self.visit(sub.schema, document, left),
                (Place::Inside, "properties", Some(name)) => {
                    document.get(&**name).into_iter().for_each(|part| self.visit(sub.schema, part, left));
                }
                (Place::Inside, ..) => parts(document).for_each(|part| self.visit(sub.schema, part, left)),
            }
        }
    }
}

impl fmt::Display for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.root.fmt(f)
    }
}

impl fmt::Debug for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Schema({})", self.root)
    }
}

impl PartialEq for Schema {
    fn eq(&self, other: &Self) -> bool {
        self.root == other.root
    }
}

/// The values of the members or the items of `document`.
fn parts(document: &Value) -> Box<dyn Iterator<Item = &Value> + '_> {
    match document {
        Value::Array(items) => Box::new(items.iter()),
        Value::Object(members) => Box::new(members.values()),
        _ => Box::new(std::iter::empty()),
    }
}

/// The `$ref` of `schema`.
pub(super) fn reference(schema: &Value) -> Option<&str> {
    schema.as_object()?.get("$ref")?.as_str()
}

/// Copies the schema without the name it gives itself, so that its references mean itself whatever it is called.
fn anonymous(root: &Value) -> Value {
    let mut copy = root.clone();
    if let Value::Object(members) = &mut copy {
        members.remove("$id");
        members.remove("$schema");
    }
    copy
}

fn build(schema: &Value, limits: &Limits) -> Result<Validator, SchemaFault> {
    let patterns =
        PatternOptions::regex().size_limit(limits.pattern_memory_bytes).dfa_size_limit(limits.pattern_memory_bytes);
    let options = jsonschema::options()
        .with_draft(Draft::Draft202012)
        .offline()
        .should_validate_formats(true)
        .with_pattern_options(patterns);
    options.build(schema).map_err(|error| invalid(&error))
}

fn invalid(error: &jsonschema::ValidationError<'_>) -> SchemaFault {
    let message = match error.kind() {
        jsonschema::error::ValidationErrorKind::Format { format } if format == "regex" => {
            "not a regular expression that runs in linear time and bounded memory (no look-around, no back-references)"
                .to_owned()
        }
        _ => clipped(error.to_string(), 300),
    };
    SchemaFault::Invalid { at: error.instance_path().to_string(), message }
}

/// `text`, cut to at most `max` bytes at a character boundary, with an ellipsis where cut.
pub(super) fn clipped(mut text: String, max: usize) -> String {
    if text.len() > max {
        text.truncate(text.floor_char_boundary(max));
        text.push('…');
    }
    text
}

fn percent_encoded(pointer: &str) -> String {
    let keep = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~$".contains(&byte);
    let encode = |byte: u8| if keep(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    pointer.bytes().map(encode).collect()
}

/// Every subschema of `root`, itself included; `$ref` is not followed.
fn everywhere(root: &Value) -> Vec<&Value> {
    let mut found = vec![root];
    let mut next = 0;
    while let Some(&schema) = found.get(next) {
        found.extend(subschemas(schema).into_iter().map(|sub| sub.schema));
        next += 1;
    }
    found
}

/// The regular expressions in `schemas`.
fn patterns<'s>(schemas: &[&'s Value]) -> impl Iterator<Item = &'s str> {
    let single = schemas.iter().filter_map(|schema| schema.get("pattern")?.as_str());
    let keys = schemas.iter().filter_map(|schema| schema.get("patternProperties")?.as_object());
    single.chain(keys.flat_map(Map::keys).map(String::as_str))
}

/// Every subschema of `root` by its pointer, the root itself under the empty one; `$ref` is not followed.
fn inventory(root: &Value) -> BTreeMap<String, &Value> {
    let mut found = BTreeMap::new();
    let mut open = vec![(String::new(), root)];
    while let Some((pointer, schema)) = open.pop() {
        open.extend(subschemas(schema).iter().map(|sub| (sub.pointer(&pointer), sub.schema)));
        found.insert(pointer, schema);
    }
    found
}

#[cfg(test)]
mod tests;
