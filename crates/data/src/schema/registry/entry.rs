//! One version of one schema, parsed and compiled when first needed.

use super::{
    super::{
        compat::Compatibility,
        document::{Schema, SchemaFault, clipped, is_deeper},
        limits::Limits,
        version::SchemaVersion,
    },
    error::{Rejection, Violation},
};
use jsonschema::Validator;
use serde_json::Value;
use std::{fmt, sync::OnceLock};

pub(super) struct Entry {
    pub(super) text: String,
    pub(super) compatibility: Compatibility,
    ready: OnceLock<Result<Ready, SchemaFault>>,
}

pub(super) struct Ready {
    pub(super) schema: Schema,
    validator: Validator,
}

impl Entry {
    pub(super) fn new(text: String, compatibility: Compatibility) -> Self {
        Self { text, compatibility, ready: OnceLock::new() }
    }

    pub(super) fn ready(&self, limits: &Limits) -> Result<&Ready, SchemaFault> {
        self.ready.get_or_init(|| Ready::parse(&self.text, limits)).as_ref().map_err(Clone::clone)
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Ready {
    fn parse(text: &str, limits: &Limits) -> Result<Self, SchemaFault> {
        let not_json =
            |error: serde_json::Error| SchemaFault::Invalid { at: String::new(), message: error.to_string() };
        let schema = Schema::parse(&serde_json::from_str(text).map_err(not_json)?, limits)?;
        let validator = schema.compile()?;
        Ok(Self { schema, validator })
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
            return Rejection::Violations { version, violations: vec![whole], more: true };
        }
        let mut errors = self.validator.iter_errors(data);
        let violations = errors.by_ref().take(limits.violations.max(1)).map(|error| violation(&error)).collect();
        Rejection::Violations { version, violations, more: errors.next().is_some() }
    }
}

fn violation(error: &jsonschema::ValidationError<'_>) -> Violation {
    Violation {
        instance: clipped(error.instance_path().to_string(), 1_000),
        schema: clipped(error.schema_path().to_string(), 1_000),
        message: clipped(error.masked().to_string(), 297),
    }
}
