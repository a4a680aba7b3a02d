//! Schemas by event type.

use quorate_data::{
    schema::{
        Compatibility, Incompatibility, Proposal, RegisterError, Registered, Registrar, RegistrarError, SchemaRow,
        SchemaSize, SchemaVersion,
    },
    store::Store,
};
use quorate_foundations::name::Name;
use serde_json::Value;

/// The verbs on schemas. Cheap to clone.
#[derive(Clone)]
pub struct EventSchemas {
    registrar: Registrar,
}

/// A type that has a schema, in a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchemaSummary {
    /// The event type.
    pub event_type: Name,
    /// What registrations have to keep unless they say otherwise.
    pub mode: Compatibility,
    /// Its newest version.
    pub latest: SchemaVersion,
}

/// What registering a schema would come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Foreseen {
    /// The type has this very schema already, as this version.
    Existing(SchemaVersion),
    /// It would become this version.
    New(SchemaVersion),
    /// It would be refused.
    Incompatible {
        /// With which versions it does not go together, and why; the latest first.
        with: Vec<Incompatibility>,
        /// How many earlier versions it was not compared with any more.
        not_compared: usize,
    },
}

impl EventSchemas {
    /// The verbs on the schemas of `store`.
    pub fn new(store: &Store) -> Self {
        Self { registrar: Registrar::of(store) }
    }

    /// At most `limit` types with a schema behind `after`, in order of their names.
    pub fn list(&self, after: Option<&str>, limit: usize) -> Vec<SchemaSummary> {
        let current = self.registrar.current();
        let summary = |(event_type, latest): (&Name, SchemaVersion)| {
            let mode = current.mode(event_type.as_str()).unwrap_or_default();
            SchemaSummary { event_type: event_type.clone(), mode, latest }
        };
        current.subjects_after(after).take(limit).map(summary).collect()
    }

    /// A type and all its versions, oldest first; `None` if it has no schema.
    pub fn describe(&self, event_type: &str) -> Option<(SchemaSummary, Vec<SchemaSize>)> {
        let current = self.registrar.current();
        let (latest, mode) = (current.latest(event_type)?, current.mode(event_type)?);
        let versions = current.versions_of(event_type).collect();
        Some((SchemaSummary { event_type: Name::new(event_type).ok()?, mode, latest }, versions))
    }

    /// One version.
    pub fn version(&self, event_type: &str, version: SchemaVersion) -> Option<SchemaRow> {
        self.registrar.current().row(event_type, version)
    }

    /// Registers a schema; see [`Registrar::register`].
    pub async fn register(
        &self,
        event_type: &Name,
        schema: Value,
        mode: Option<Compatibility>,
    ) -> Result<Registered, RegistrarError> {
        self.registrar.register(event_type, schema, mode).await
    }

    /// Says what registering a schema would come to, and changes nothing. The second value is the mode that it was held
    /// against.
    ///
    /// # Errors
    /// As [`register`](Self::register), save that it is incompatible.
    pub async fn check(
        &self,
        event_type: &Name,
        schema: Value,
        mode: Option<Compatibility>,
    ) -> Result<(Foreseen, Compatibility), RegisterError> {
        let mode = mode.or_else(|| self.registrar.current().mode(event_type.as_str())).unwrap_or_default();
        let foreseen = match self.registrar.check(event_type, schema, Some(mode)).await {
            Ok(Proposal::Existing(version)) => Foreseen::Existing(version),
            Ok(Proposal::New(row)) => Foreseen::New(row.version),
            Err(RegisterError::Incompatible { with, not_compared, .. }) => {
                Foreseen::Incompatible { with, not_compared }
            }
            Err(refused) => return Err(refused),
        };
        Ok((foreseen, mode))
    }

    /// Says what registrations of a type have to keep from now on; see [`Registrar::set_mode`].
    pub async fn set_mode(&self, event_type: &Name, mode: Compatibility) -> Result<(), RegistrarError> {
        self.registrar.set_mode(event_type, mode).await
    }
}
