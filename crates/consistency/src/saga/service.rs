//! The handle: sagas of a store are defined, started, looked at, told things and decided about.

mod shared;
mod shown;

use std::{sync::Arc, time::Duration};

use quorate_data::store::{Store, StoreError};
use quorate_foundations::name::Name;
use serde::Serialize;
use serde_json::Value;
use tokio::sync::oneshot;

use self::shared::Begun;
pub(super) use self::shared::{Room, Shared};
pub use self::shown::{Counts, Description, Search, Started, Summary};
use super::{
    Config, SagaError,
    definition::{Child, Definition},
    event::{Happened, Verb},
    journal::{Journal, Status},
    machine::{self, Input, Operation, Refusal},
    rows::{self, Found, SagaKey, Wanted},
    runner::Post,
    value::{as_read, small},
};

/// The sagas of a store. Cheap to clone; clones are the same.
#[derive(Clone)]
pub struct Sagas {
    shared: Arc<Shared>,
    /// Held, so that nobody runs the store's sagas a second time.
    room: Arc<Room>,
}

impl Sagas {
    /// The most entries of a listing.
    pub const MAX_PAGE: usize = 1_000;

    /// The sagas of `store`, whose tables are made if they are not there. From now on this process owns them: those that are open
    /// go on as soon as their definitions are [registered](Self::define). Opened a second time they are the same, under the
    /// first configuration.
    ///
    /// On a store that several processes write to each owns what was started there, or taken over. What nobody owns who gives signs of
    /// life, it takes over within a fifth of [`takeover`](field@Config::takeover) of knowing that.
    ///
    /// # Errors
    /// [`SagaError::Invalid`] for a configuration out of range, [`SagaError::Store`] where the tables cannot be made.
    pub async fn open(store: &Store, config: Config) -> Result<Self, SagaError> {
        config.check()?;
        let room: Arc<Room> = store.room();
        let shared = room.shared(store, config).await?;
        Ok(Self { shared, room })
    }

    /// Registers a definition: sagas can be started by it, and those of its name and version that are open go on.
    /// Of several versions the highest is started; the others are kept for the sagas that began with them.
    ///
    /// # Errors
    /// [`SagaError::Invalid`] says what is wrong with it, [`SagaError::AlreadyDefined`] that the version is taken. Where the store
    /// fails the version is free again.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the version free: define it again, and it goes on where this stopped.
    pub async fn define(&self, definition: Definition) -> Result<(), SagaError> {
        definition.check()?;
        let (name, version) = (definition.name.clone(), definition.version);
        let defining = self.shared.register(definition)?;
        self.resume(&name, version).await?;
        defining.keep();
        Ok(())
    }

    /// Takes over what is open of a version of a definition.
    async fn resume(&self, name: &Name, version: u32) -> Result<(), SagaError> {
        const PAGE: i64 = 1_000;
        if self.shared.has_others {
            // Whoever has them may live: that is for those who watch to tell.
            return Ok(());
        }
        let mut after = Arc::<str>::from("");
        loop {
            let ids = rows::open_ids(&self.shared.store, name, version, &after, PAGE).await?;
            for id in &ids {
                self.shared.clone().take_over(&self.room, SagaKey { name: name.clone(), id: id.clone() }, None)?;
            }
            match ids.last() {
                Some(last) if ids.len() as i64 == PAGE => after = last.clone(),
                _ => return Ok(()),
            }
        }
    }

    /// The definitions that are registered, in order, with their versions.
    pub fn definitions(&self) -> Vec<(Name, Vec<u32>)> {
        self.shared.definitions()
    }

    /// The version by which sagas of that name are started here: the highest that is registered.
    pub fn newest(&self, name: &Name) -> Option<u32> {
        self.shared.definition(name, None).map(|definition| definition.version)
    }

    /// The text of the [document](crate::saga::declared::Document) that a version is defined by here; `None` where it is not, or by a program.
    pub fn document(&self, name: &Name, version: u32) -> Option<Arc<str>> {
        self.shared.definition(name, Some(version)).and_then(|definition| definition.document.clone())
    }

    /// Starts a saga, and answers once its start is durable, with the local steps that it begins with. Started again with the same
    /// id and input it is the same saga, under the key that it has.
    ///
    /// `id`: 1 to [`Config::MAX_ID_BYTES`] bytes, unique among the sagas of the name for ever. `key`: what people look for it by.
    ///
    /// # Errors
    /// [`SagaError::Undefined`], [`SagaError::IdReused`], [`SagaError::Full`]: nothing was started. Where the
    /// [outcome is unknown](SagaError::is_outcome_unknown), repeat it with the same id.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the wait, not the saga.
    pub async fn start(
        &self,
        name: &Name,
        id: &str,
        input: impl Serialize,
        key: Option<&str>,
    ) -> Result<Started, SagaError> {
        let definition = self.shared.definition(name, None);
        let definition = definition.ok_or_else(|| SagaError::Undefined { name: name.clone() })?;
        let input = value(input)?;
        let saga = self.key(name, id)?;
        check_key(key)?;
        let deadline_ms = definition.deadline.map(|span| u64::try_from(span.as_millis()).unwrap_or(u64::MAX));
        let (version, key) = (definition.version, key.map(Arc::from));
        let started = Happened::Started { version, key, input: input.clone(), deadline_ms, parent: None };
        let known = match self.shared.clone().begin(&self.room, &saga, definition, started)? {
            Begun::New(answer) => match answer.await {
                Ok(Ok(journal)) => return Ok(Started { journal, repeated: false }),
                Ok(Err(SagaError::Overtaken { .. })) => None,
                Ok(Err(other)) => return Err(other),
                Err(_stopped) => return Err(StoreError::OutcomeUnknown.into()),
            },
            Begun::Known(mut live) => {
                // It may be about to begin; if it does not, or cannot be read, the store says so.
                let shows = |seen: &Option<_>| seen.is_some() || self.shared.troubles().contains_key(&saga);
                let seen = live.seen.wait_for(shows).await;
                // Elsewhere it may have gone on.
                seen.ok().and_then(|seen| seen.clone()).filter(|_| !self.shared.has_others)
            }
        };
        let journal = match known {
            Some(journal) => journal,
            None => match rows::read(&self.shared.store, &saga).await {
                // Whoever was about to begin it could not: that is the next one's to do.
                Err(SagaError::NotFound { .. }) => return Err(saga.overtaken()),
                read => read?.journal,
            },
        };
        // Of one whose events were forgotten nobody knows what it was started with.
        if journal.events > 0 && journal.input != input {
            return Err(SagaError::IdReused { name: saga.name, id: saga.id });
        }
        Ok(Started { journal, repeated: true })
    }

    fn key(&self, name: &Name, id: &str) -> Result<SagaKey, SagaError> {
        let max = Config::MAX_ID_BYTES;
        if id.is_empty() || id.len() > max || id.contains(|letter: char| letter.is_control() || letter == '/') {
            return Err(SagaError::invalid(format!(
                "a saga's id has 1 to {max} bytes without `/` and control characters"
            )));
        }
        Ok(SagaKey { name: name.clone(), id: id.into() })
    }

    /// What is known of a saga right now.
    ///
    /// # Errors
    /// [`SagaError::NotFound`] if there is none.
    pub async fn get(&self, name: &Name, id: &str) -> Result<Description, SagaError> {
        let saga = self.key(name, id)?;
        let live = self.shared.find(&saga).filter(|_| !self.shared.has_others);
        let journal = match live.and_then(|live| live.seen.borrow().clone()) {
            Some(journal) => journal,
            None => rows::read(&self.shared.store, &saga).await?.journal,
        };
        self.described(saga, journal).await
    }

    async fn described(&self, saga: SagaKey, journal: Arc<Journal>) -> Result<Description, SagaError> {
        let mut described = self.shared.description(saga, journal);
        if described.journal.has_children() {
            let parent = Some((described.name.clone(), described.id.clone()));
            described.children = self.list(Search { parent, limit: Self::MAX_PAGE, ..Search::default() }).await?;
        }
        Ok(described)
    }

    /// Waits until a saga has ended, or is stuck, for at most `patience`; then says how it stands.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn settled(&self, name: &Name, id: &str, patience: Duration) -> Result<Description, SagaError> {
        let saga = self.key(name, id)?;
        if self.shared.has_others {
            self.until_settled(&saga, patience).await?;
        } else if let Some(mut live) = self.shared.find(&saga) {
            let is_settled = |seen: &Option<Arc<Journal>>| {
                let status = seen.as_ref().map(|journal| journal.status());
                status.is_some_and(|status| status.is_ended() || status == Status::Stuck)
            };
            let settled = self.shared.store.env().timeout(patience, live.seen.wait_for(is_settled)).await;
            let settled = settled.and_then(Result::ok).and_then(|seen| seen.clone());
            if let Some(journal) = settled {
                return self.described(saga, journal).await;
            }
        }
        self.get(name, id).await
    }

    /// Looks now and then how a saga stands that may run in another process.
    async fn until_settled(&self, saga: &SagaKey, patience: Duration) -> Result<(), SagaError> {
        const LOOK: Duration = Duration::from_millis(100);
        let env = self.shared.store.env();
        let settled = env.timeout(patience, async {
            loop {
                let status = rows::status(&self.shared.store, saga).await?;
                if status.is_none_or(|status| status.is_ended() || status == Status::Stuck) {
                    return Ok(());
                }
                env.sleep(LOOK).await;
            }
        });
        settled.await.unwrap_or(Ok(()))
    }

    /// Sagas in order of their names and ids.
    ///
    /// # Errors
    /// [`SagaError::Invalid`] where the limit is out of range.
    pub async fn list(&self, search: Search) -> Result<Vec<Summary>, SagaError> {
        let max = Self::MAX_PAGE;
        if !(1..=max).contains(&search.limit) {
            return Err(SagaError::invalid(format!("`limit` is 1 to {max}, {} was asked for", search.limit)));
        }
        let Search { name, key, status, parent, after, limit } = search;
        let found = rows::list(&self.shared.store, Wanted { name, key, status, parent, after, limit }).await?;
        let summary = |(name, found): (Name, Found)| {
            let stalled = self.shared.is_stalled(&name, found.version, found.status);
            let Found { id, version, status, key, parent, started_at, updated_at } = found;
            let trouble = self.shared.troubles().get(&SagaKey { name: name.clone(), id: id.clone() }).cloned();
            Summary { name, id, version, status, stalled, trouble, key, parent, started_at, updated_at }
        };
        Ok(found.into_iter().map(summary).collect())
    }

    /// Tells a saga something, durably. Told again under the same `signal_id`, nothing happens.
    ///
    /// # Errors
    /// [`SagaError::Refused`] with [`Refusal::Ended`] where it is over, [`SagaError::Stalled`] where nobody here can run it.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the wait, not the signal.
    pub async fn signal(
        &self,
        name: &Name,
        id: &str,
        signal_id: &str,
        signal: &str,
        data: impl Serialize,
    ) -> Result<Arc<Journal>, SagaError> {
        let data = value(data)?;
        let saga = self.key(name, id)?;
        self.ask(saga, Input::Signal { id: signal_id.into(), name: signal.into(), data }).await
    }

    /// Decides about a saga that is stuck, or aborts one that is not. What was decided, by whom and why is an event of the saga.
    ///
    /// # Errors
    /// [`SagaError::Refused`] says why the verb does not fit how the saga stands.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the wait, not the decision.
    pub async fn operate(&self, name: &Name, id: &str, operation: Operation) -> Result<Arc<Journal>, SagaError> {
        if !small(&operation.output) || operation.note.len() > Config::MAX_KEY_BYTES {
            let (note, output) = (Config::MAX_KEY_BYTES, Config::MAX_VALUE_BYTES);
            return Err(SagaError::invalid(format!("a note has at most {note} bytes, an output {output}")));
        }
        let saga = self.key(name, id)?;
        let operation = Operation { output: as_read(operation.output), ..operation };
        self.ask(saga, Input::Operate(operation)).await
    }

    /// Turns a saga back, if it still can be.
    ///
    /// # Errors
    /// As [`operate`](Self::operate).
    pub async fn abort(&self, name: &Name, id: &str, by: &str, note: &str) -> Result<Arc<Journal>, SagaError> {
        let (by, note) = (by.into(), note.to_owned());
        let operation = Operation { verb: Verb::Abort, step: None, by, note, output: Value::Null };
        self.operate(name, id, operation).await
    }

    /// How the saga stands that `stream` belongs to; `None` where it belongs to none. Nobody but a saga writes to its stream, and nothing of it
    /// is forgotten while the saga is open. While the saga is whose step it is, it may have to be undone: then this says how that one stands.
    pub async fn owner(&self, stream: &Name) -> Result<Option<Status>, SagaError> {
        let Some((name, id)) = stream.as_str().strip_prefix("saga-").and_then(|rest| rest.split_once(':')) else {
            return Ok(None);
        };
        let Ok(name) = Name::new(name) else { return Ok(None) };
        let mut saga = SagaKey { name, id: id.into() };
        let mut own = None;
        for _ in 0..=Child::MAX_DEPTH {
            let Some((status, above)) = rows::children::standing(&self.shared.store, &saga).await? else { break };
            own.get_or_insert(status);
            match above {
                _ if !status.is_ended() => return Ok(Some(status)),
                Some(above) => saga = above,
                None => break,
            }
        }
        Ok(own)
    }

    /// Says that this version was declared and cannot be run here: no step starts an older one instead.
    pub fn withhold(&self, name: &Name, version: u32) {
        self.shared.withhold(name, version);
    }

    /// What happened to sagas since the store was opened here.
    pub fn counts(&self) -> Counts {
        self.shared.counts()
    }

    /// A handle for who runs a saga.
    pub(super) fn of(shared: Arc<Shared>, room: Arc<Room>) -> Self {
        Self { shared, room }
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.shared
    }

    pub(super) async fn ask(&self, saga: SagaKey, input: Input) -> Result<Arc<Journal>, SagaError> {
        // A saga may end, or be taken over, between being found and being asked; that does not happen for ever.
        const TRIES: u32 = 16;
        for _ in 0..TRIES {
            if let Some(live) = self.shared.find(&saga) {
                let (reply, answer) = oneshot::channel();
                let posted = live.post.send(Post { input: input.clone(), reply: Some(reply) });
                if posted.is_ok()
                    && let Ok(answer) = answer.await
                    && !(self.shared.has_others && matches!(answer, Err(SagaError::Overtaken { .. })))
                {
                    return answer;
                }
                self.shared.store.env().sleep(Duration::from_millis(1)).await;
                continue;
            }
            let kept = rows::read(&self.shared.store, &saga).await?;
            if kept.journal.status().is_ended() {
                let cause = match &input {
                    Input::Signal { id, name, data } => match machine::told_before(&kept.journal, id, name, data) {
                        Some(Ok(())) => return Ok(kept.journal),
                        Some(Err(cause)) => cause,
                        None => Refusal::Ended,
                    },
                    _ => Refusal::Ended,
                };
                return Err(SagaError::Refused { name: saga.name, id: saga.id, cause });
            }
            let version = kept.journal.version;
            if self.shared.definition(&saga.name, Some(version)).is_none() {
                return Err(SagaError::Stalled { name: saga.name, id: saga.id, version });
            }
            self.shared.clone().take_over(&self.room, saga.clone(), None)?;
        }
        Err(saga.overtaken())
    }
}

fn value(value: impl Serialize) -> Result<Value, SagaError> {
    let value = serde_json::to_value(value);
    let value = value.map_err(|cause| SagaError::invalid(format!("a value cannot be written as JSON: {cause}")))?;
    let max = Config::MAX_VALUE_BYTES;
    if small(&value) {
        Ok(as_read(value))
    } else {
        Err(SagaError::invalid(format!("a value has at most {max} bytes of JSON")))
    }
}

fn check_key(key: Option<&str>) -> Result<(), SagaError> {
    let max = Config::MAX_KEY_BYTES;
    match key {
        Some(key) if key.is_empty() || key.len() > max => {
            Err(SagaError::invalid(format!("a business key has 1 to {max} bytes")))
        }
        _ => Ok(()),
    }
}
