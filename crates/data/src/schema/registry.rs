//! The schemas of all event types, version by version.
//!
//! Registering has two halves, so that what is in force is never more than what is stored: [`Schemas::propose`] decides
//! and yields a row; once the row is durable, [`SchemaRegistry::admit`] puts it in force. Opening a store is the second
//! half for every stored row. Schemas are parsed and compiled when first used, so that a large registry opens at once, and as
//! many are kept compiled as the [limit](Limits::compiled_bytes) allows.

mod entry;
mod error;
mod shelf;
mod snapshot;

pub use error::{Incompatibility, MAX_INCOMPATIBLE, RegisterError, Rejection, RowError, Violation};
pub use snapshot::{Checked, SchemaSize, Schemas, Which};

use super::{
    compat::{Compatibility, Undeclared},
    limits::Limits,
    version::SchemaVersion,
};
use quorate_foundations::name::Name;
use quorate_runtime::Env;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::sync::{
    Arc, PoisonError, RwLock,
    atomic::{AtomicU64, Ordering},
};

/// What becomes of events whose type has no schema.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UnknownType {
    /// They pass unchecked. The default: types gain schemas one by one.
    #[default]
    Open,
    /// They are refused.
    Closed,
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

/// Schemas that are compared with others at one time. Comparing with a thousand versions takes seconds, and the threads are
/// everybody's.
pub(super) const COMPARING: usize = 2;

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
#[derive(Clone, Debug)]
pub struct SchemaRegistry {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Whether types without a schema pass: never changes.
    is_open: bool,
    /// That of `current`, to be looked at without the lock. Ordering: written under the lock, behind `current`, so that
    /// whoever reads it and then asks for `current` gets these schemas or later ones.
    generation: AtomicU64,
    /// Held only to copy or replace the pointer; invariant: nothing that can panic runs under it.
    current: RwLock<Schemas>,
    /// Held while a change is written and put in force.
    turn: tokio::sync::Mutex<()>,
    /// Places for those who compare a schema with others.
    comparing: Arc<tokio::sync::Semaphore>,
}

impl SchemaRegistry {
    /// An empty registry.
    pub fn new(policy: RegistryPolicy) -> Self {
        Self::with(Schemas::new(policy))
    }

    /// A registry in which `schemas` are in force.
    pub fn with(schemas: Schemas) -> Self {
        let is_open = schemas.policy().unknown_type == UnknownType::Open;
        let generation = AtomicU64::new(schemas.generation());
        Self {
            shared: Arc::new(Shared {
                is_open,
                generation,
                current: RwLock::new(schemas),
                turn: Default::default(),
                comparing: Arc::new(tokio::sync::Semaphore::new(COMPARING)),
            }),
        }
    }

    /// How often what is in force has changed: see [`Schemas::generation`].
    pub fn generation(&self) -> u64 {
        self.shared.generation.load(Ordering::Acquire)
    }

    /// Whether no event whatsoever is refused. Costs nothing to ask.
    pub fn accepts_everything(&self) -> bool {
        self.shared.is_open && self.generation() == 0
    }

    /// What is in force now. The answer never changes; later admissions are seen by asking again.
    pub fn current(&self) -> Schemas {
        self.shared.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Puts a persisted row in force. Repeating a row changes nothing.
    ///
    /// # Errors
    /// [`RowError`]: the row does not follow what is in force; nothing changed.
    pub fn admit(&self, row: SchemaRow) -> Result<(), RowError> {
        self.change(|current| current.admitting(row))
    }

    /// Gives a type another mode for registrations to come. A type without a schema has none, and nothing changes.
    pub fn set_mode(&self, event_type: &Name, mode: Compatibility) {
        let set = self.change(|current| Ok::<_, std::convert::Infallible>(current.with_mode(event_type, mode)));
        set.unwrap_or_else(|never| match never {});
    }

    /// Waits until no other change is being written.
    pub(crate) async fn turn(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.shared.turn.lock().await
    }

    /// Runs `compare` on a thread for blocking work, once there is a place among those who compare a schema with others.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the wait. What has begun goes on, and keeps its place to its end.
    pub(super) async fn comparing<T: Send + 'static>(
        &self,
        env: &Env,
        compare: impl FnOnce(Schemas) -> T + Send + 'static,
    ) -> T {
        // `Err`: the places are gone, which does not happen while there is a registry.
        let place = self.shared.comparing.clone().acquire_owned().await;
        let current = self.current();
        env.run_blocking(move || {
            let _place = place;
            compare(current)
        })
        .await
    }

    fn change<E>(&self, change: impl FnOnce(&Schemas) -> Result<Schemas, E>) -> Result<(), E> {
        let mut current = self.shared.current.write().unwrap_or_else(PoisonError::into_inner);
        *current = change(&current)?;
        self.shared.generation.store(current.generation(), Ordering::Release);
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

impl Default for SchemaRegistry {
    fn default() -> Self {
        Self::new(RegistryPolicy::default())
    }
}

#[cfg(test)]
mod tests;
