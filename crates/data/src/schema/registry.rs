//! The schemas of all event types, version by version.
//!
//! Registering has two halves, so that what is in force is never more than what is stored: [`Schemas::propose`] decides
//! and yields a row; once the row is durable, [`SchemaRegistry::admit`] puts it in force. Opening a store is the second
//! half for every stored row. Schemas are parsed and compiled when first used, so that a large registry opens at once.

mod entry;
mod error;
mod snapshot;

pub use error::{Incompatibility, RegisterError, Rejection, RowError, Violation};
pub use snapshot::{Checked, Schemas, Which};

use super::{
    compat::{Compatibility, Undeclared},
    limits::Limits,
    version::SchemaVersion,
};
use quorate_foundations::name::Name;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::sync::{Arc, PoisonError, RwLock};

/// What becomes of events whose type has no schema.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UnknownType {
    /// They pass unchecked. The default: types gain schemas one by one.
    #[default]
    Accept,
    /// They are refused.
    Refuse,
}

/// The rules of a registry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RegistryPolicy {
    /// What becomes of events whose type has no schema.
    pub unknown_type: UnknownType,
    /// How comparisons read schemas that neither declare nor forbid a property.
    pub undeclared: Undeclared,
    /// What schemas and documents may cost.
    pub limits: Limits,
}

/// One version of one schema as it is persisted; key: type and version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchemaRow {
    /// The event type.
    pub event_type: Name,
    /// Its version.
    pub version: SchemaVersion,
    /// The mode under which it was accepted, kept as evidence.
    pub compatibility: Compatibility,
    /// The schema as compact JSON.
    pub schema: String,
}

/// What registering a schema comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proposal {
    /// The type already has this very schema; nothing is to be done.
    Existing(SchemaVersion),
    /// This row is to be persisted, then admitted.
    New(SchemaRow),
}

impl Proposal {
    /// The version that the schema has or is about to have.
    pub fn version(&self) -> SchemaVersion {
        match self {
            Self::Existing(version) => *version,
            Self::New(row) => row.version,
        }
    }
}

/// A shared handle on the [`Schemas`] in force. Clones are cheap and see each other's admissions.
///
/// Whoever checks many events takes [`current`](Self::current) once per batch and holds no lock while checking.
///
/// # Example
/// ```
/// use quorate_data::schema::{Checked, Compatibility, RegistryPolicy, SchemaRegistry, SchemaVersion, Which};
/// use serde_json::json;
///
/// let registry = SchemaRegistry::new(RegistryPolicy::default());
/// let closed = json!({"type": "object", "properties": {"pence": {"type": "integer"}}, "additionalProperties": false});
/// let paid = "payment.captured".parse()?;
/// assert_eq!(registry.register(&paid, &closed, Compatibility::Backward)?, SchemaVersion::FIRST);
///
/// let schemas = registry.current();
/// let first = Ok(Checked::Valid(SchemaVersion::FIRST));
/// assert_eq!(schemas.validate("payment.captured", Which::Latest, &json!({"pence": 5})), first);
/// let refused = schemas.validate("payment.captured", Which::Latest, &json!({"pence": "5"})).unwrap_err();
/// assert!(refused.to_string().contains("`/pence`"), "{refused}");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct SchemaRegistry {
    /// Held only to copy or replace the pointer; invariant: nothing that can panic runs under it.
    current: Arc<RwLock<Schemas>>,
}

impl SchemaRegistry {
    /// An empty registry.
    pub fn new(policy: RegistryPolicy) -> Self {
        Self::with(Schemas::new(policy))
    }

    /// A registry in which `schemas` are in force.
    pub fn with(schemas: Schemas) -> Self {
        Self { current: Arc::new(RwLock::new(schemas)) }
    }

    /// What is in force now. The answer never changes; later admissions are seen by asking again.
    pub fn current(&self) -> Schemas {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Puts a persisted row in force. Repeating a row changes nothing.
    ///
    /// # Errors
    /// [`RowError`]: the row does not follow what is in force; nothing changed.
    pub fn admit(&self, row: SchemaRow) -> Result<(), RowError> {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        *current = current.admitting(row)?;
        Ok(())
    }

    /// Proposes and admits at once, for registries that live in memory only.
    ///
    /// # Errors
    /// [`RegisterError`], as [`Schemas::propose`] has it; nothing changed.
    pub fn register(
        &self,
        event_type: &Name,
        schema: &Value,
        mode: Compatibility,
    ) -> Result<SchemaVersion, RegisterError> {
        loop {
            let proposal = self.current().propose(event_type, schema, mode)?;
            let version = proposal.version();
            let admitted = match proposal {
                Proposal::Existing(_) => true,
                // Refused if another registration of the type was faster: decide anew, against what it put in force.
                Proposal::New(row) => self.admit(row).is_ok(),
            };
            if admitted {
                return Ok(version);
            }
        }
    }
}

#[cfg(test)]
mod tests;
