//! Between the log and the types: recorded events to events of the domain, and back to events for the log.

use std::{marker::PhantomData, sync::Arc};

use quorate_data::{
    event::{Extensions, NewEvent, Recorded, Scalar, Tags},
    schema::{
        SchemaVersion, address,
        upcast::{Upcasters, Versioned},
        version_of,
    },
};
use quorate_foundations::name::Name;

use super::{
    DomainEvent, LoadError, Metadata, Undecodable, UnknownEvents,
    config::Counters,
    metadata::{DIGEST, event_id},
};

/// Reads and writes the events of one domain. What every event repeats is made once and shared.
pub(super) struct Codec<E> {
    /// Names of types and their indices, sorted by name.
    by_name: Vec<(&'static str, usize)>,
    names: Vec<Arc<str>>,
    schemas: Vec<Arc<str>>,
    content_type: Arc<str>,
    upcasters: Upcasters,
    /// Types that exist no longer, or in older versions only through the upcasters; sorted.
    upcast: Vec<Name>,
    unknown: UnknownEvents,
    events: PhantomData<fn() -> E>,
}

/// Why a decision's event could not be written.
pub(super) enum Unwritable {
    Json(serde_json::Error),
    Tag(quorate_data::event::TagError),
}

/// `dataschema` of version `version` of the type `name`: where a node serves its JSON Schema.
pub(super) fn schema_of(name: &str, version: u32) -> String {
    // Declarations with version 0 are refused at start-up.
    address(name, SchemaVersion::new(version).unwrap_or(SchemaVersion::FIRST))
}

impl<E: DomainEvent> Codec<E> {
    pub(super) fn new(unknown: UnknownEvents, upcasters: Upcasters) -> Self {
        let mut by_name: Vec<_> = E::TYPES.iter().enumerate().map(|(index, kind)| (kind.name, index)).collect();
        by_name.sort_unstable();
        let mut upcast: Vec<Name> = upcasters.known().map(|known| known.event_type).collect();
        upcast.dedup();
        Self {
            by_name,
            names: E::TYPES.iter().map(|kind| kind.name.into()).collect(),
            schemas: E::TYPES.iter().map(|kind| schema_of(kind.name, kind.version).into()).collect(),
            content_type: "application/json".into(),
            upcasters,
            upcast,
            unknown,
            events: PhantomData,
        }
    }

    /// Whether events of every earlier version can be read.
    ///
    /// # Errors
    /// Which cannot, in words.
    pub(super) fn check_chains(&self) -> Result<(), String> {
        for kind in E::TYPES {
            match self.upcasters.latest(kind.name).map(SchemaVersion::get) {
                Some(latest) if latest != kind.version => {
                    let (name, written) = (kind.name, kind.version);
                    return Err(format!("`{name}` is written in version {written}, its upcasters lead to {latest}"));
                }
                None if kind.version > 1 => {
                    return Err(format!("no upcasters lead to version {} of `{}`", kind.version, kind.name));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Names of the types that a query has to ask for: those of today, and those that upcasters turn into others.
    pub(super) fn type_names(&self) -> impl Iterator<Item = &str> {
        let today = self.by_name.iter().map(|(name, _)| *name);
        let retired = self.upcast.iter().map(Name::as_str).filter(|name| self.upcasters.latest(name).is_none());
        today.chain(retired)
    }

    /// Other types whose stored events may become events of `event_type`.
    pub(super) fn origins(&self, event_type: &str) -> impl Iterator<Item = Name> {
        self.upcasters.origins(event_type).into_iter()
    }

    /// The types and versions that can be read, as text: part of what a fold is.
    pub(super) fn known_versions(&self) -> impl Iterator<Item = String> {
        self.upcasters.known().map(|known| known.to_string())
    }

    /// Gives `take` what `recorded` means today: one event as a rule, several or none where upcasters say so, none if it
    /// is unknown and may be skipped, or its data subject was erased.
    pub(super) fn read(
        &self,
        recorded: &Recorded,
        counters: &Counters,
        mut take: impl FnMut(E),
    ) -> Result<(), LoadError> {
        if recorded.erased() {
            counters.erased_events.up();
            return Ok(());
        }
        let index = self.index(recorded.kind());
        let failed = |cause| undecodable(recorded, cause);
        if let Some(index) = index
            && self.is_of_today(index, recorded)
        {
            let event = E::decode(index, recorded.data().unwrap_or_default()).map_err(|cause| failed(cause.into()))?;
            take(event);
            return Ok(());
        }
        if index.is_none() && self.upcast.binary_search_by(|name| name.as_str().cmp(recorded.kind())).is_err() {
            return self.unknown(recorded, recorded.kind(), counters);
        }
        for event in self.bring_up_to_date(recorded).map_err(failed)? {
            match self.index(event.event_type.as_str()) {
                Some(index) => take(decode_upcast(index, event).map_err(failed)?),
                None => self.unknown(recorded, event.event_type.as_str(), counters)?,
            }
        }
        Ok(())
    }

    /// What a stored event means today, as [`read`](Self::read) does for one of the log; unknown ones are left out.
    pub(super) fn read_stored(&self, stored: Versioned) -> Result<Vec<E>, Undecodable> {
        let today = self.upcasters.upcast(stored)?.into_iter();
        today.filter_map(|event| Some(decode_upcast(self.index(event.event_type.as_str())?, event))).collect()
    }

    fn index(&self, kind: &str) -> Option<usize> {
        self.by_name.binary_search_by_key(&kind, |(name, _)| name).ok().map(|at| self.by_name[at].1)
    }

    fn is_of_today(&self, index: usize, recorded: &Recorded) -> bool {
        match recorded.schema() {
            Some(schema) => schema == &*self.schemas[index],
            None => E::TYPES[index].version == 1,
        }
    }

    fn unknown(&self, recorded: &Recorded, kind: &str, counters: &Counters) -> Result<(), LoadError> {
        if self.unknown == UnknownEvents::Skip {
            counters.unknown_events.up();
            return Ok(());
        }
        Err(LoadError::UnknownType { stream: recorded.stream().into(), version: recorded.version(), kind: kind.into() })
    }

    fn bring_up_to_date(&self, recorded: &Recorded) -> Result<Vec<Versioned>, Undecodable> {
        let named = recorded.schema();
        let version = version_of(named, recorded.kind())
            .ok_or_else(|| Undecodable::Schema { schema: named.unwrap_or_default().chars().take(256).collect() })?;
        let unnamed = |_| Undecodable::Schema { schema: recorded.kind().to_owned() };
        let stored = Versioned {
            event_type: Name::new(recorded.kind()).map_err(unnamed)?,
            version,
            data: serde_json::from_slice(recorded.data().unwrap_or(b"null"))?,
        };
        Ok(self.upcasters.upcast(stored)?)
    }

    /// `event` as it goes to the log, as the `index`-th of its command.
    pub(super) fn write(
        &self,
        event: &E,
        index: usize,
        metadata: &Metadata,
        source: &Arc<str>,
        fresh_id: impl FnOnce() -> Arc<str>,
    ) -> Result<NewEvent, Unwritable> {
        let kind = event.type_index();
        let mut data = Vec::with_capacity(64);
        event.encode(&mut data).map_err(Unwritable::Json)?;
        let tags = event.tags();
        let tags = if tags.is_empty() { Tags::default() } else { Tags::new(tags).map_err(Unwritable::Tag)? };
        Ok(NewEvent {
            id: metadata.command_id.as_deref().map_or_else(fresh_id, |command| event_id(command, index)),
            source: metadata.source.as_ref().unwrap_or(source).clone(),
            kind: self.names[kind].clone(),
            subject: None,
            time: metadata.time.clone(),
            content_type: Some(self.content_type.clone()),
            schema: Some(self.schemas[kind].clone()),
            correlation_id: metadata.correlation_id.clone(),
            causation_id: metadata.causation_id.as_ref().or(metadata.command_id.as_ref()).cloned(),
            data_subject: event.data_subject().map(Into::into),
            tags,
            extensions: match event.data_subject() {
                // It says something of what the subject's erasure is to make unreadable.
                Some(_) => Extensions::new(),
                None => {
                    metadata.digest.iter().map(|digest| (DIGEST.to_owned(), Scalar::Text(digest.to_string()))).collect()
                }
            },
            data: Some(data.into()),
        })
    }
}

fn decode_upcast<E: DomainEvent>(index: usize, event: Versioned) -> Result<E, Undecodable> {
    let (found, known) = (event.version.get(), E::TYPES[index].version);
    if found != known {
        return Err(Undecodable::Version { found, known });
    }
    Ok(E::decode(index, &serde_json::to_vec(&event.data)?)?)
}

fn undecodable(recorded: &Recorded, cause: Undecodable) -> LoadError {
    LoadError::Undecodable {
        stream: recorded.stream().into(),
        version: recorded.version(),
        kind: recorded.kind().into(),
        cause: Box::new(cause),
    }
}
