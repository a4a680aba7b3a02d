//! The schemas in force at one moment.

use super::{
    super::{
        compat::{Compatibility, compare},
        document::Schema,
        limits::Limits,
        strict,
        version::SchemaVersion,
    },
    Proposal, RegistryPolicy, SchemaRow, UnknownType,
    entry::Entry,
    error::{Incompatibility, MAX_INCOMPATIBLE, RegisterError, Rejection, RowError},
    shelf::Shelf,
};
use quorate_foundations::name::Name;
use serde_json::Value;
use std::{collections::BTreeMap, ops::Bound, sync::Arc};

/// The schemas in force at one moment: immutable, cheap to clone, safe to share.
#[derive(Clone, Debug, Default)]
pub struct Schemas {
    policy: RegistryPolicy,
    generation: u64,
    types: Arc<BTreeMap<Name, Subject>>,
    pub(super) shelf: Arc<Shelf>,
}

/// One event type.
#[derive(Clone, Debug)]
struct Subject {
    /// What registrations have to keep unless they say otherwise.
    mode: Compatibility,
    /// Version n stands at n − 1. Never empty.
    versions: Vec<Arc<Entry>>,
}

/// One version without its schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SchemaSize {
    /// The version.
    pub version: SchemaVersion,
    /// The mode under which it was accepted.
    pub compatibility: Compatibility,
    /// The size of its schema as compact JSON, in bytes.
    pub bytes: usize,
}

/// Bytes of a stored schema whose reading counts as much as comparing one subschema.
const READ_BYTES: usize = 64;

/// Which version to check against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// The newest.
    Latest,
    /// This one.
    Exactly(SchemaVersion),
}

/// What an event that was not refused has been checked against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checked {
    /// It fits this version.
    Valid(SchemaVersion),
    /// The type has no schema, and the registry accepts such types.
    NoSchema,
}

impl Schemas {
    /// None yet.
    pub fn new(policy: RegistryPolicy) -> Self {
        Self { policy, ..Self::default() }
    }

    /// Puts persisted rows in force; per type they come in the order of their versions.
    ///
    /// # Errors
    /// [`RowError`]: the first row that does not follow.
    pub fn from_rows(policy: RegistryPolicy, rows: impl IntoIterator<Item = SchemaRow>) -> Result<Self, RowError> {
        let mut types = BTreeMap::new();
        rows.into_iter().try_for_each(|row| admit(&mut types, row))?;
        let generation = u64::from(!types.is_empty());
        Ok(Self { policy, generation, types: Arc::new(types), shelf: Arc::default() })
    }

    /// These, and a persisted row as well. Repeating a row changes nothing.
    ///
    /// # Errors
    /// [`RowError`]: the row does not follow.
    pub fn admitting(&self, row: SchemaRow) -> Result<Self, RowError> {
        let mut types = BTreeMap::clone(&self.types);
        admit(&mut types, row)?;
        Ok(Self { generation: self.generation + 1, types: Arc::new(types), ..self.clone() })
    }

    /// These, and another mode for a type that has a schema.
    #[must_use]
    pub fn with_mode(&self, event_type: &Name, mode: Compatibility) -> Self {
        let mut types = BTreeMap::clone(&self.types);
        if let Some(subject) = types.get_mut(event_type.as_str()) {
            subject.mode = mode;
        }
        Self { types: Arc::new(types), ..self.clone() }
    }

    /// Counts the changes of what events are checked against: 0 while there is no schema.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The rules of this registry.
    pub fn policy(&self) -> &RegistryPolicy {
        &self.policy
    }

    /// Every type that has a schema, in order, with its latest version.
    pub fn subjects(&self) -> impl Iterator<Item = (&Name, SchemaVersion)> {
        self.types.iter().filter_map(|(name, subject)| Some((name, subject.latest()?)))
    }

    /// The types behind `after`, in order, with their latest versions.
    pub fn subjects_after(&self, after: Option<&str>) -> impl Iterator<Item = (&Name, SchemaVersion)> {
        let begin = after.map_or(Bound::Unbounded, Bound::Excluded);
        let range = self.types.range::<str, _>((begin, Bound::Unbounded));
        range.filter_map(|(name, subject)| Some((name, subject.latest()?)))
    }

    /// The mode that registrations of a type have to keep unless they say otherwise: that of its first registration,
    /// until it is [set](super::SchemaRegistry::set_mode).
    pub fn mode(&self, event_type: &str) -> Option<Compatibility> {
        self.types.get(event_type).map(|subject| subject.mode)
    }

    /// The newest version of a type.
    pub fn latest(&self, event_type: &str) -> Option<SchemaVersion> {
        self.types.get(event_type)?.latest()
    }

    /// One row, as it was persisted.
    pub fn row(&self, event_type: &str, version: SchemaVersion) -> Option<SchemaRow> {
        let (name, subject) = self.types.get_key_value(event_type)?;
        let entry = subject.versions.get(index(version))?;
        let (compatibility, schema) = (entry.compatibility, entry.text.clone());
        Some(SchemaRow { event_type: name.clone(), version, compatibility, schema })
    }

    /// The versions of a type, oldest first, without their schemas.
    pub fn versions_of(&self, event_type: &str) -> impl Iterator<Item = SchemaSize> {
        let entries = self.types.get(event_type).into_iter().flat_map(|subject| &subject.versions).enumerate();
        entries.filter_map(|(at, entry)| {
            let (compatibility, bytes) = (entry.compatibility, entry.text.len());
            Some(SchemaSize { version: version_at(at)?, compatibility, bytes })
        })
    }

    /// Decides whether `schema` may become the next version of `event_type`.
    ///
    /// A schema equal to one that the type has had is not registered again: the newest version that has it is returned.
    /// Takes milliseconds, in a transitive mode seconds where there are many versions, bounded by the
    /// [`Limits`](super::super::Limits) whatever the schema.
    ///
    /// # Errors
    /// [`RegisterError`]: a faulty schema, an incompatible one with the reasons, one that no proof was found for with the
    /// effort that comparing may take, or too many versions.
    pub fn propose(&self, event_type: &Name, schema: &Value, mode: Compatibility) -> Result<Proposal, RegisterError> {
        let schema = Schema::parse(schema, &self.policy.limits)?;
        let versions = self.versions(event_type);
        let text = schema.to_string();
        if let Some((version, _)) = newest_first(versions).find(|(_, entry)| entry.is(&schema, &text)) {
            return Ok(Proposal::Existing(version));
        }
        let limit = self.policy.limits.versions;
        let next = version_at(versions.len()).filter(|_| versions.len() < limit);
        let Some(version) = next else {
            return Err(RegisterError::TooManyVersions { event_type: event_type.clone(), limit });
        };
        self.compare(event_type, &schema, mode, versions)?;
        self.check_room(event_type, &schema)?;
        let event_type = event_type.clone();
        Ok(Proposal::New(SchemaRow { event_type, version, compatibility: mode, schema: text }))
    }

    fn versions(&self, event_type: &Name) -> &[Arc<Entry>] {
        self.types.get(event_type.as_str()).map_or(&[][..], |subject| &subject.versions)
    }

    /// Whether there is room for one more schema.
    fn check_room(&self, event_type: &Name, schema: &Schema) -> Result<(), RegisterError> {
        let Limits { types, registry_bytes, .. } = self.policy.limits;
        if !self.types.contains_key(event_type.as_str()) && self.types.len() >= types {
            return Err(RegisterError::Full { what: "a number of event types", limit: types });
        }
        let entries = self.types.values().flat_map(|subject| &subject.versions);
        if entries.map(|entry| entry.text.len()).sum::<usize>() + schema.bytes() > registry_bytes {
            return Err(RegisterError::Full { what: "a size in bytes", limit: registry_bytes });
        }
        Ok(())
    }

    /// The schema of a version. It is not compiled for being compared: all versions of a type together may be more than is
    /// kept compiled, and what events are held against would have to make room for them.
    fn known(&self, event_type: &Name, version: SchemaVersion, entry: &Arc<Entry>) -> Result<Schema, RegisterError> {
        let broken = |fault| RegisterError::Broken { event_type: event_type.clone(), version, fault };
        entry.schema(&self.policy.limits).map_err(broken)
    }

    fn compare(
        &self,
        event_type: &Name,
        schema: &Schema,
        mode: Compatibility,
        versions: &[Arc<Entry>],
    ) -> Result<(), RegisterError> {
        let compared = if mode.is_transitive() { versions.len() } else { versions.len().min(1) };
        let (mut with, mut looked_at) = (Vec::new(), 0);
        let mut left = self.policy.limits.comparing_effort;
        for (version, entry) in newest_first(versions).take(compared) {
            // Without effort left one more is looked at only to say so.
            if with.len() >= MAX_INCOMPATIBLE || (left == 0 && !with.is_empty()) {
                break;
            }
            looked_at += 1;
            left = left.saturating_sub(entry.text.len() / READ_BYTES);
            let known = self.known(event_type, version, entry)?;
            let undeclared = self.policy.undeclared;
            let in_direction = |direction: &_| compare(&known, schema, *direction, undeclared, &mut left);
            let findings: Vec<_> = mode.directions().iter().flat_map(in_direction).collect();
            if !findings.is_empty() {
                with.push(Incompatibility { version, findings });
            }
        }
        if with.is_empty() {
            return Ok(());
        }
        let (event_type, not_compared) = (event_type.clone(), compared - looked_at);
        Err(RegisterError::Incompatible { event_type, mode, with, not_compared })
    }

    /// Whether the schema of an event is compiled, or there is none: holding the event against it takes microseconds then,
    /// and milliseconds otherwise.
    pub(in crate::schema) fn is_made(&self, event_type: &str, which: Which) -> bool {
        self.find(event_type, which).ok().flatten().is_none_or(|(_, entry)| entry.is_made())
    }

    /// Checks an event's data.
    ///
    /// # Errors
    /// [`Rejection`]: what is wrong with the data, or that there is no schema to tell.
    pub fn validate(&self, event_type: &str, which: Which, data: &Value) -> Result<Checked, Rejection> {
        let Some((version, entry)) = self.find(event_type, which)? else { return Ok(Checked::NoSchema) };
        let limits = &self.policy.limits;
        let ready = entry.ready(limits, &self.shelf).map_err(|fault| Rejection::Broken { version, fault })?;
        ready.check(version, data, limits).map(|()| Checked::Valid(version))
    }

    /// Checks an event's data as JSON text. Data of a type without schema are not looked at, and need not be JSON.
    ///
    /// # Errors
    /// [`Rejection`], as [`validate`](Self::validate) has it.
    pub fn validate_bytes(&self, event_type: &str, which: Which, data: &[u8]) -> Result<Checked, Rejection> {
        if self.find(event_type, which)?.is_none() {
            return Ok(Checked::NoSchema);
        }
        self.validate(event_type, which, &strict::parse(data).map_err(|error| self.unread(&error))?)
    }

    /// What cannot be read as JSON, or is nested so deeply that nobody tries.
    fn unread(&self, error: &serde_json::Error) -> Rejection {
        let (text, line, column) = (error.to_string(), error.line(), error.column());
        if text.starts_with("recursion limit") {
            return Rejection::TooDeep { limit: self.policy.limits.document_depth };
        }
        if text.starts_with(strict::TWICE) {
            Rejection::Twice { line, column }
        } else {
            Rejection::NotJson { line, column }
        }
    }

    fn find(&self, event_type: &str, which: Which) -> Result<Option<(SchemaVersion, &Arc<Entry>)>, Rejection> {
        let subject = self.types.get(event_type);
        let Some((subject, latest)) = subject.and_then(|subject| Some((subject, subject.latest()?))) else {
            return match self.policy.unknown_type {
                UnknownType::Open => Ok(None),
                UnknownType::Closed => Err(Rejection::UnknownType),
            };
        };
        let asked = match which {
            Which::Latest => latest,
            Which::Exactly(version) => version,
        };
        match subject.versions.get(index(asked)) {
            Some(entry) => Ok(Some((asked, entry))),
            None => Err(Rejection::UnknownVersion { asked, latest }),
        }
    }
}

impl Subject {
    fn latest(&self) -> Option<SchemaVersion> {
        version_at(self.versions.len().checked_sub(1)?)
    }
}

fn admit(types: &mut BTreeMap<Name, Subject>, row: SchemaRow) -> Result<(), RowError> {
    let SchemaRow { event_type, version, compatibility, schema } = row;
    let versions = types.get(event_type.as_str()).map_or(&[][..], |subject| &subject.versions);
    match versions.get(index(version)) {
        Some(known) if known.text == schema => return Ok(()),
        Some(_) => return Err(RowError::Taken { event_type, version }),
        None if index(version) == versions.len() => {}
        None => {
            let expected = version_at(versions.len()).unwrap_or(version);
            return Err(RowError::OutOfOrder { event_type, expected, found: version });
        }
    }
    let first = || Subject { mode: compatibility, versions: Vec::new() };
    types.entry(event_type).or_insert_with(first).versions.push(Arc::new(Entry::new(schema, compatibility)));
    Ok(())
}

/// Every version of a type.
fn newest_first(versions: &[Arc<Entry>]) -> impl Iterator<Item = (SchemaVersion, &Arc<Entry>)> {
    versions.iter().enumerate().rev().filter_map(|(at, entry)| Some((version_at(at)?, entry)))
}

fn index(version: SchemaVersion) -> usize {
    version.get() as usize - 1
}

fn version_at(index: usize) -> Option<SchemaVersion> {
    SchemaVersion::new(u32::try_from(index + 1).ok()?)
}
