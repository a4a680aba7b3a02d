//! One version of one schema, parsed and compiled when first needed.

use super::{
    super::{
        compat::Compatibility,
        document::{Schema, SchemaFault, clipped, is_deeper},
        limits::Limits,
        version::SchemaVersion,
    },
    error::{Rejection, Violation},
    shelf::Shelf,
};
use jsonschema::{ValidationError, Validator, error::ValidationErrorKind};
use serde_json::Value;
use std::{
    collections::BTreeSet,
    fmt,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
};

/// Stands in a pointer for the name of a member that only the data knows.
const HIDDEN: &str = "*";

pub(super) struct Entry {
    pub(super) text: String,
    pub(super) compatibility: Compatibility,
    /// `None` before its first use, and while it is put away.
    ready: RwLock<Option<Result<Arc<Ready>, SchemaFault>>>,
    /// Held by who compiles it: whoever else needs it meanwhile waits for that.
    making: Mutex<()>,
    /// Whether it was used since the shelf last looked.
    used: AtomicBool,
    /// How often it was compiled.
    #[cfg(test)]
    pub(super) compiled: std::sync::atomic::AtomicUsize,
}

pub(super) struct Ready {
    pub(super) schema: Schema,
    validator: Validator,
    /// What it takes in memory, as estimated.
    bytes: usize,
}

impl Entry {
    pub(super) fn new(text: String, compatibility: Compatibility) -> Self {
        Self {
            text,
            compatibility,
            ready: RwLock::new(None),
            making: Mutex::new(()),
            used: AtomicBool::new(false),
            #[cfg(test)]
            compiled: Default::default(),
        }
    }

    /// The schema, compiled. It is kept on `shelf`, which may put others away for it.
    pub(super) fn ready(self: &Arc<Self>, limits: &Limits, shelf: &Shelf) -> Result<Arc<Ready>, SchemaFault> {
        // Ordering: a hint for the shelf; nothing is decided by it but what is compiled again.
        self.used.store(true, Ordering::Relaxed);
        if let Some(ready) = self.made() {
            return ready;
        }
        let _making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(ready) = self.made() {
            return ready;
        }
        #[cfg(test)]
        self.compiled.fetch_add(1, Ordering::Relaxed);
        let ready = Ready::parse(&self.text, limits).map(Arc::new);
        *self.ready.write().unwrap_or_else(PoisonError::into_inner) = Some(ready.clone());
        if let Ok(ready) = &ready {
            // Ordering: while it is being made nobody else makes it, so that it stands on the shelf once.
            shelf.keep(self, ready.bytes, limits.compiled_bytes);
        }
        ready
    }

    fn made(&self) -> Option<Result<Arc<Ready>, SchemaFault>> {
        self.ready.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether it is compiled, or cannot be.
    pub(super) fn is_made(&self) -> bool {
        self.ready.read().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Its schema, to be compared with others: read again each time, and not compiled.
    pub(super) fn schema(&self, limits: &Limits) -> Result<Schema, SchemaFault> {
        if let Some(Ok(ready)) = self.made() {
            return Ok(ready.schema.clone());
        }
        Schema::screened(&json(&self.text)?, limits)
    }

    /// Whether it is `schema`, whose compact JSON is `text`.
    pub(super) fn is(&self, schema: &Schema, text: &str) -> bool {
        // What is stored is nearly always compact.
        self.text == text || json(&self.text).is_ok_and(|stored| stored == *schema.as_json())
    }

    /// Whether it was used since this was last asked.
    pub(super) fn was_used(&self) -> bool {
        self.used.swap(false, Ordering::Relaxed)
    }

    /// Forgets what was compiled, until it is needed again.
    pub(super) fn put_away(&self) {
        *self.ready.write().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

fn json(text: &str) -> Result<Value, SchemaFault> {
    let not_json = |error: serde_json::Error| SchemaFault::Invalid { at: String::new(), message: error.to_string() };
    serde_json::from_str(text).map_err(not_json)
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Ready {
    fn parse(text: &str, limits: &Limits) -> Result<Self, SchemaFault> {
        let (schema, validator) = Schema::parse_and_compile(&json(text)?, limits)?;
        let bytes = schema.compiled_bytes(text.len());
        Ok(Self { schema, validator, bytes })
    }

    pub(super) fn check(&self, version: SchemaVersion, data: &Value, limits: &Limits) -> Result<(), Rejection> {
        let limit = limits.document_depth;
        if is_deeper(data, limit) {
            return Err(Rejection::TooDeep { limit });
        }
        // `is_valid` remembers what it has seen and stays linear where listing the errors would not.
        if self.validator.is_valid(data) { Ok(()) } else { Err(self.violations(version, data, limits)) }
    }

    fn violations(&self, version: SchemaVersion, data: &Value, limits: &Limits) -> Rejection {
        if !self.schema.lists_within(data, limits.listing_visits) {
            let message = "does not fit; listing why would take too long".to_owned();
            let whole = Violation { instance: String::new(), schema: String::new(), message };
            return Rejection::Violations { version, violations: vec![whole], more: true, newest: None };
        }
        let names = self.schema.member_names();
        let mut errors = self.validator.iter_errors(data);
        let listed = errors.by_ref().take(limits.violations.max(1));
        let violations = listed.map(|error| violation(&error, data, &names)).collect();
        Rejection::Violations { version, violations, more: errors.next().is_some(), newest: None }
    }
}

fn violation(error: &ValidationError<'_>, data: &Value, names: &BTreeSet<&str>) -> Violation {
    Violation {
        instance: clipped(place(error.instance_path().as_str(), data, names), 1_000),
        schema: clipped(error.schema_path().to_string(), 1_000),
        message: clipped(message(error), 297),
    }
}

/// What is wrong, without the names of members and the items that the validator would quote.
fn message(error: &ValidationError<'_>) -> String {
    match error.kind() {
        ValidationErrorKind::AdditionalProperties { unexpected }
        | ValidationErrorKind::UnevaluatedProperties { unexpected } => refused(unexpected.len(), "member"),
        ValidationErrorKind::UnevaluatedItems { unexpected } => refused(unexpected.len(), "item"),
        ValidationErrorKind::PropertyNames { .. } => "the name of a member does not fit".to_owned(),
        _ => error.masked().to_string(),
    }
}

fn refused(count: usize, what: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {what}{plural} that the schema does not allow")
}

/// `pointer` into `data`, with [`HIDDEN`] for every name that the schema does not mention.
///
/// The data tells an index from a name: a name may consist of digits, and be a telephone number.
fn place(pointer: &str, data: &Value, names: &BTreeSet<&str>) -> String {
    let mut shown = String::new();
    let mut here = Some(data);
    for token in pointer.split('/').skip(1) {
        let name = token.replace("~1", "/").replace("~0", "~");
        let index = here.and_then(Value::as_array).and_then(|items| items.get(name.parse::<usize>().ok()?));
        let told = index.is_some() || names.contains(name.as_str());
        shown.push('/');
        shown.push_str(if told { token } else { HIDDEN });
        here = index.or_else(|| here?.as_object()?.get(&name));
    }
    shown
}
