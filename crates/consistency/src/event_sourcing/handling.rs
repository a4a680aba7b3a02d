//! One command on one aggregate, from the state to the outcome.

use std::{fmt::Debug, sync::Arc};

use quorate_data::{
    event::{NewEvent, Recorded, Version},
    store::{AppendBatch, AppendError, Appended, ExpectedVersion, ReadStream, StoreError},
};
use quorate_foundations::name::Name;

use super::{
    Aggregate, Decider, DomainEvent, HandleError, LoadError, Metadata, Outcome,
    error::Refused,
    fold::Folded,
    log::Log,
    metadata::{asks_the_same, event_id},
    service::Inner,
};

/// A command being carried out.
pub(super) struct Handling<'a, D: Aggregate> {
    pub(super) inner: &'a Arc<Inner<D>>,
    pub(super) stream: &'a Name,
    pub(super) metadata: &'a Metadata,
}

/// The state that a command is decided against.
pub(super) struct Held<D: Decider> {
    pub(super) folded: Folded<D>,
    /// Whether it was read after the command came.
    current: bool,
}

/// What a command came to.
enum Verdict<D: Decider> {
    Nothing(Result<(), D::Rejection>),
    Appended(Vec<D::Event>, Appended),
    /// It was carried out before; its first event is at this version.
    Earlier(Version),
}

impl<D: Aggregate> Handling<'_, D> {
    pub(super) async fn take_or_load(
        &self,
        log: &mut impl Log,
        cached: Option<Folded<D>>,
    ) -> Result<Held<D>, LoadError> {
        let counters = &self.inner.shell.counters;
        if let Some(folded) = cached {
            counters.cache_hits.up();
            return Ok(Held { folded, current: false });
        }
        counters.cache_misses.up();
        Ok(Held { folded: self.inner.load(log, self.stream).await?, current: true })
    }

    /// Brings the state up to the stream's end. Returns whether that changed anything.
    pub(super) async fn refresh(&self, log: &mut impl Log, held: &mut Held<D>) -> Result<bool, LoadError> {
        let before = (held.folded.version, held.folded.first);
        // The fold of no events is a right, if old, state: that is what is left behind where reading fails.
        let folded = std::mem::replace(&mut held.folded, Folded::start());
        held.folded = self.inner.catch_up(log, self.stream, folded).await?;
        held.current = true;
        Ok(before != (held.folded.version, held.folded.first))
    }

    /// Carries out `command` and leaves the state after it in `held`.
    pub(super) async fn run(
        &self,
        log: &mut impl Log,
        command: &D::Command,
        held: &mut Held<D>,
    ) -> Result<Outcome<D>, HandleError<D::Rejection>>
    where
        D::Rejection: Debug,
    {
        match self.verdict(log, command, held).await? {
            Verdict::Appended(events, appended) => Ok(self.advance(&mut held.folded, events, &appended)),
            Verdict::Nothing(Ok(())) => Ok(self.outcome(&held.folded, Vec::new())),
            Verdict::Nothing(Err(rejection)) => Err(HandleError::Rejected(rejection)),
            Verdict::Earlier(first) => self.answer_again(log, first).await,
        }
    }

    /// Decides, appends, and does both again while somebody else is first.
    async fn verdict(
        &self,
        log: &mut impl Log,
        command: &D::Command,
        held: &mut Held<D>,
    ) -> Result<Verdict<D>, HandleError<D::Rejection>>
    where
        D::Rejection: Debug,
    {
        let mut attempt = 1;
        loop {
            let nothing = match self.inner.decider.decide(&held.folded.state, command) {
                Ok(events) if !events.is_empty() => match self.append(log, held.folded.version, &events).await {
                    Ok(appended) if !appended.repeated => return Ok(Verdict::Appended(events, appended)),
                    Ok(repeated) => return self.on_known(log, Ok(repeated)).await,
                    Err(Refused::Known(cause)) => return self.on_known(log, Err(cause)).await,
                    Err(Refused::Failed(failed)) => return Err(failed),
                    Err(Refused::Conflict) => {
                        attempt = self.inner.shell.next_attempt(attempt, self.stream.as_str()).await?;
                        self.refresh(log, held).await?;
                        continue;
                    }
                },
                nothing => nothing.map(drop),
            };
            // No append has shown that the state was current: make sure of it before saying no.
            if held.current || !self.refresh(log, held).await? {
                let earlier = self.earlier(log).await?;
                return Ok(earlier.map_or(Verdict::Nothing(nothing), Verdict::Earlier));
            }
        }
    }

    async fn append<R: Debug>(
        &self,
        log: &mut impl Log,
        version: Version,
        events: &[D::Event],
    ) -> Result<Appended, Refused<R>> {
        let events = self.inner.shell.write(events, self.metadata).map_err(Refused::Failed)?;
        let batch = AppendBatch::to(self.stream.clone(), ExpectedVersion::Exact(version), events);
        self.inner.shell.append(log, batch).await
    }

    /// An id of the command's events is in the log: it was carried out before, or somebody else took the id.
    async fn on_known(
        &self,
        log: &mut impl Log,
        known: Result<Appended, AppendError>,
    ) -> Result<Verdict<D>, HandleError<D::Rejection>>
    where
        D::Rejection: Debug,
    {
        match (self.earlier(log).await?, known) {
            (Some(first), _) => Ok(Verdict::Earlier(first)),
            (None, Ok(appended)) => Ok(Verdict::Earlier(appended.version())),
            (None, Err(cause)) => Err(HandleError::Append(cause)),
        }
    }

    /// Whether the command was carried out before, and if so, the version of its first event.
    ///
    /// Asks with an append that cannot succeed: the store looks for the event's id before it looks at the expected
    /// version, which no stream has. That finds the event by index, however long the stream, and also if truncated. The
    /// id comes before schemas as well: where events without one are refused, so is the probe, once the id is not known.
    async fn earlier<R: Debug>(&self, log: &mut impl Log) -> Result<Option<Version>, HandleError<R>> {
        let Some(command_id) = &self.metadata.command_id else { return Ok(None) };
        let source = self.inner.shell.source(self.metadata).clone();
        let probe = NewEvent::new(event_id(command_id, 0), source, "quorate.probe");
        let never = ExpectedVersion::Exact(Version::new(i64::MAX.unsigned_abs()));
        match log.append(AppendBatch::to(self.stream.clone(), never, vec![probe])).await {
            Err(AppendError::IdReused { version, .. }) => Ok(Some(version)),
            Ok(known) => Ok(Some(known.version())),
            Err(AppendError::VersionConflict { .. } | AppendError::Schema { .. }) => Ok(None),
            Err(AppendError::Store(cause)) => Err(HandleError::Store(cause)),
            Err(other) => Err(HandleError::Append(other)),
        }
    }

    /// The answer of the first time.
    async fn answer_again<R: Debug>(&self, log: &mut impl Log, first: Version) -> Result<Outcome<D>, HandleError<R>> {
        let shell = &self.inner.shell;
        shell.counters.repeated.up();
        let own = self.own_events(log, first).await.map_err(HandleError::Store)?;
        let Some(last) = own.last() else {
            return Err(HandleError::AlreadyHandled { stream: self.stream.clone(), version: first });
        };
        if !asks_the_same(last, self.metadata) {
            let command_id = self.metadata.command_id.clone().unwrap_or_default();
            return Err(HandleError::CommandIdReused { command_id, stream: self.stream.clone(), version: first });
        }
        let folded = self.inner.load_until(log, self.stream, last.version()).await?;
        let mut events = Vec::with_capacity(own.len());
        own.iter().try_for_each(|event| shell.codec.read(event, &shell.counters, |event| events.push(event)))?;
        Ok(Outcome { repeated: true, ..self.outcome(&folded, events) })
    }

    /// The command's own events, the first of which is at version `first`.
    async fn own_events(&self, log: &mut impl Log, first: Version) -> Result<Vec<Recorded>, StoreError> {
        let source = self.inner.shell.source(self.metadata);
        let command_id = self.metadata.command_id.as_deref().unwrap_or_default();
        let mut own = Vec::new();
        let mut next = Some(first);
        while let Some(from) = next {
            let read = ReadStream::forward(self.stream.clone(), self.inner.shell.page_events()).from(from);
            let page = log.page(read).await?;
            for event in page.events {
                if *event.id() != *event_id(command_id, own.len()) || event.source() != &**source {
                    return Ok(own);
                }
                own.push(event);
            }
            next = page.next;
        }
        Ok(own)
    }

    fn advance(&self, folded: &mut Folded<D>, events: Vec<D::Event>, appended: &Appended) -> Outcome<D> {
        events.iter().for_each(|event| folded.evolve(event));
        folded.encrypted |= events.iter().any(|event| event.data_subject().is_some());
        folded.version = appended.version();
        folded.token = Some(appended.token);
        self.outcome(folded, events)
    }

    fn outcome(&self, folded: &Folded<D>, events: Vec<D::Event>) -> Outcome<D> {
        let token = folded.token(&self.inner.shell.store);
        Outcome { events, version: folded.version, token, state: folded.state.clone(), repeated: false }
    }
}
