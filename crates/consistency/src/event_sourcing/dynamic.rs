//! Decisions whose boundary is a query: across streams, as wide as the rule and no wider.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
    sync::Arc,
};

use quorate_data::{
    event::{NewEvent, Position, Recorded, Version},
    schema::upcast::Upcasters,
    store::{AppendBatch, Appended, ExpectedVersion, Query, ReadLog, Store, StreamAppend, Token},
};
use quorate_foundations::name::Name;

use super::{
    Config, Decider, DynamicBoundary, ForgottenEvents, HandleError, LoadError, Metadata, SetupError, Statistics,
    UnknownEvents,
    error::Refused,
    metadata::{asks_the_same, event_index, token_at},
    setup,
    shell::Shell,
};

/// Decisions over a dynamic consistency boundary. Cheap to clone.
///
/// A decision reads the events that its [boundary](DynamicBoundary::boundary) matches, and its own events are appended
/// only if no further event matches meanwhile. Two decisions whose boundaries do not overlap never wait for each other;
/// of two that do, one is decided anew.
///
/// *When not to use it*: where one stream holds all that a rule needs. An [`Aggregate`](super::Aggregate) reads less, and
/// its state can be kept.
///
/// # Guarantees
/// As [`Aggregates`](super::Aggregates), with the boundary in place of the stream. A repeated command is recognised by
/// its events, which should therefore lie within its own boundary, as they do where a rule looks at its own effects.
///
/// An event of the boundary that was truncated or archived is not left out unless [`Config::forgotten_events`] says so: a
/// rule over what a boundary holds would silently hold over less.
pub struct Decisions<D: DynamicBoundary> {
    inner: Arc<Inner<D>>,
}

struct Inner<D: DynamicBoundary> {
    decider: D,
    shell: Shell<D::Event>,
}

/// What a decision led to.
pub struct Decided<D: Decider> {
    /// What happened; empty if there was nothing to do.
    pub events: Vec<D::Event>,
    /// The versions after it of the streams that were appended to.
    pub versions: Vec<(Name, Version)>,
    /// Presents this decision to a later read. Without events: the newest append that the decision saw.
    pub token: Token,
    /// The state that the boundary's events, and then its own, led to. Repeated, its own are folded stream by stream,
    /// in the order of the log.
    pub state: D::State,
    /// Whether the command had been carried out before: this is the answer of the first time.
    pub repeated: bool,
}

/// What has been read of a boundary.
struct Seen<D: Decider> {
    state: D::State,
    /// Every event up to here was looked at.
    scanned: Position,
    /// Whether the command was carried out before.
    earlier: Option<Earlier<D>>,
}

/// A command's own events, met again.
struct Earlier<D: Decider> {
    /// With their places in the decision: in the log they stand stream by stream.
    events: Vec<(usize, D::Event)>,
    versions: BTreeMap<Name, Version>,
    token: Token,
    state: D::State,
    /// Whether they are those of another command with the same id.
    of_another: bool,
}

impl<D: Decider> Earlier<D> {
    fn answer(mut self, metadata: &Metadata) -> Result<Decided<D>, HandleError<D::Rejection>>
    where
        D::Rejection: Debug,
    {
        if self.of_another
            && let Some((stream, version)) = self.versions.pop_first()
        {
            let command_id = metadata.command_id.clone().unwrap_or_default();
            return Err(HandleError::CommandIdReused { command_id, stream, version });
        }
        self.events.sort_by_key(|(index, _)| *index);
        Ok(Decided {
            events: self.events.into_iter().map(|(_, event)| event).collect(),
            versions: self.versions.into_iter().collect(),
            token: self.token,
            state: self.state,
            repeated: true,
        })
    }
}

impl<D: DynamicBoundary> Clone for Decisions<D> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone() }
    }
}

impl<D: DynamicBoundary> Decisions<D> {
    /// Decisions that follow `decider`, in `store`. Events of old versions are brought up to date by `upcasters`.
    ///
    /// [`Config::unknown_events`] has no effect here: what a boundary does not ask for is left out.
    ///
    /// # Errors
    /// [`SetupError`] for whatever is wrong with the declarations.
    pub fn open(store: &Store, decider: D, config: Config, upcasters: Upcasters) -> Result<Self, SetupError> {
        let config = Config { unknown_events: UnknownEvents::Skip, ..config };
        let shell = setup::shell::<D>(store, config, upcasters, "/decisions")?;
        Ok(Self { inner: Arc::new(Inner { decider, shell }) })
    }

    /// Carries out `command`.
    ///
    /// # Errors
    /// [`HandleError::Rejected`] where a rule forbids it; the others are failures of the machinery. Repeating the
    /// command with the same command id is always safe.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the wait, not an append that has begun: the outcome is then unknown.
    pub async fn handle(&self, command: D::Command, metadata: Metadata) -> Result<Decided<D>, HandleError<D::Rejection>>
    where
        D::Rejection: Debug,
    {
        self.inner.carry_out(&command, &metadata).await
    }

    /// What has happened since the decisions were opened.
    pub fn statistics(&self) -> Statistics {
        self.inner.shell.counters.read()
    }
}

impl<D: DynamicBoundary> Inner<D> {
    async fn carry_out(
        &self,
        command: &D::Command,
        metadata: &Metadata,
    ) -> Result<Decided<D>, HandleError<D::Rejection>>
    where
        D::Rejection: Debug,
    {
        let query = self.boundary(command)?;
        let mut seen = Seen { state: D::State::default(), scanned: Position::ZERO, earlier: None };
        let mut attempt = 1;
        let mut known = None;
        loop {
            self.scan(&query, metadata, &mut seen).await?;
            if let Some(earlier) = seen.earlier.take() {
                self.shell.counters.repeated.up();
                return earlier.answer(metadata);
            }
            if let Some(cause) = known.take() {
                return Err(HandleError::Append(cause));
            }
            let events = self.decider.decide(&seen.state, command).map_err(HandleError::Rejected)?;
            if events.is_empty() {
                let token = token_at(&self.shell.store, seen.scanned);
                return Ok(Decided { events, versions: Vec::new(), token, state: seen.state, repeated: false });
            }
            let batch = self.batch(&events, metadata)?.if_none_match(query.clone(), seen.scanned);
            match self.shell.append(&mut &self.shell.store, batch).await {
                Ok(appended) => return Ok(decided(seen.state, events, appended)),
                Err(Refused::Failed(failed)) => return Err(failed),
                // Most likely a twin of this command was first: then its events are in the boundary now.
                Err(Refused::Known(cause)) => known = Some(cause),
                Err(Refused::Conflict) => attempt = self.shell.next_attempt(attempt, "the boundary").await?,
            }
        }
    }

    /// The events that matter, narrowed to the types that are known here, and widened by those that they were once stored as.
    fn boundary<R: Debug>(&self, command: &D::Command) -> Result<Query, HandleError<R>> {
        let mut query = self.decider.boundary(command);
        if query.items.is_empty() {
            query.items.push(Default::default());
        }
        for item in &mut query.items {
            if item.types.is_empty() {
                item.types = self.shell.codec.type_names().map(Into::into).collect();
                continue;
            }
            let origins: BTreeSet<Name> =
                item.types.iter().flat_map(|wanted| self.shell.codec.origins(wanted)).collect();
            let further = origins.iter().map(|name| name.as_str().into()).filter(|name| !item.types.contains(name));
            let further: Vec<_> = further.collect();
            item.types.extend(further);
        }
        query.check()?;
        Ok(query)
    }

    /// Folds what the boundary holds behind what was seen.
    async fn scan(&self, query: &Query, metadata: &Metadata, seen: &mut Seen<D>) -> Result<(), LoadError> {
        let limit = self.shell.page_events();
        loop {
            let read = ReadLog { query: query.clone(), after: seen.scanned, limit };
            let page = self.shell.store.read_log(read).await?;
            for event in &page.events {
                match (event.stub(), self.shell.config.forgotten_events) {
                    (None, _) => self.take(event, metadata, seen)?,
                    (Some(_), ForgottenEvents::Skip) => self.shell.counters.forgotten_events.up(),
                    (Some(_), ForgottenEvents::Refuse) => return Err(forgotten(event)),
                }
            }
            seen.scanned = page.scanned;
            if page.scanned >= page.head {
                return Ok(());
            }
        }
    }

    fn take(&self, event: &Recorded, metadata: &Metadata, seen: &mut Seen<D>) -> Result<(), LoadError> {
        let mut read = Vec::with_capacity(1);
        self.shell.codec.read(event, &self.shell.counters, |event| read.push(event))?;
        let state = std::mem::take(&mut seen.state);
        seen.state = read.iter().fold(state, D::evolve);
        let index = metadata.command_id.as_deref().and_then(|command| event_index(event.id(), command));
        match index {
            Some(index) if event.source() == &**self.shell.source(metadata) => {
                let of_another = !asks_the_same(event, metadata);
                self.remember(event, (index, of_another), read, seen)
            }
            _ => Ok(()),
        }
    }

    fn remember(
        &self,
        event: &Recorded,
        (index, of_another): (usize, bool),
        read: Vec<D::Event>,
        seen: &mut Seen<D>,
    ) -> Result<(), LoadError> {
        let earlier = seen.earlier.take();
        let (mut events, mut versions) = earlier.map_or_else(Default::default, |known| (known.events, known.versions));
        events.extend(read.into_iter().map(|event| (index, event)));
        versions.insert(Name::new(event.stream())?, event.version());
        let token = token_at(&self.shell.store, event.position());
        seen.earlier = Some(Earlier { events, versions, token, state: seen.state.clone(), of_another });
        Ok(())
    }

    /// `events`, each for its stream, in order.
    fn batch<R: Debug>(&self, events: &[D::Event], metadata: &Metadata) -> Result<AppendBatch, HandleError<R>> {
        let written = self.shell.write(events, metadata)?;
        let mut by_stream: BTreeMap<Name, Vec<NewEvent>> = BTreeMap::new();
        for (event, written) in events.iter().zip(written) {
            let stream = self.decider.stream(event).map_err(LoadError::Name)?;
            by_stream.entry(stream).or_default().push(written);
        }
        let expected = ExpectedVersion::Any;
        let streams = by_stream.into_iter().map(|(stream, events)| StreamAppend { stream, expected, events });
        Ok(AppendBatch { streams: streams.collect(), conditions: Vec::new() })
    }
}

fn forgotten(event: &Recorded) -> LoadError {
    LoadError::Forgotten { stream: event.stream().into(), version: event.version(), position: event.position() }
}

fn decided<D: Decider>(state: D::State, events: Vec<D::Event>, appended: Appended) -> Decided<D> {
    let state = events.iter().fold(state, D::evolve);
    let Appended { versions, token, repeated } = appended;
    Decided { events, versions, token, state, repeated }
}

impl<D: Decider<State: Debug, Event: Debug>> Debug for Decided<D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decided")
            .field("events", &self.events)
            .field("versions", &self.versions)
            .field("token", &self.token)
            .field("state", &self.state)
            .field("repeated", &self.repeated)
            .finish()
    }
}
