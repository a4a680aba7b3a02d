//! The handle: sagas of a store are defined, started, looked at, told things and decided about.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use quorate_data::store::{Store, StoreError};
use quorate_foundations::{name::Name, time::Wall};
use quorate_runtime::random::Rng;
use serde::Serialize;
use serde_json::Value;
use tokio::sync::{OnceCell, Semaphore, SemaphorePermit, mpsc, oneshot, watch};

use super::{
    Awaited, Config, SagaError,
    awaited::awaited,
    definition::Definition,
    event::{Happened, Verb},
    journal::{Journal, Status},
    machine::{self, Input, Operation, Refusal},
    rows::{self, Found, Owner, SagaKey, Wanted},
    runner::{Birth, Ends, Post, Runner},
    value::{as_read, small},
};

/// The sagas of a store. Cheap to clone; clones are the same.
#[derive(Clone)]
pub struct Sagas {
    shared: Arc<Shared>,
    /// Held, so that nobody runs the store's sagas a second time.
    room: Arc<Room>,
}

/// What is kept in memory of a store's sagas: it is the only one, however often they are opened.
#[derive(Default)]
pub(super) struct Room(OnceCell<Arc<Shared>>);

pub(super) struct Shared {
    pub(super) store: Store,
    pub(super) config: Config,
    pub(super) owner: Owner,
    pub(super) counters: Counters,
    definitions: RwLock<BTreeMap<Name, BTreeMap<u32, Arc<Definition>>>>,
    live: Mutex<BTreeMap<SagaKey, Live>>,
    /// Why sagas cannot be written, and nothing but somebody's help changes that.
    troubles: Mutex<BTreeMap<SagaKey, Arc<str>>>,
    dice: Mutex<Rng>,
    /// Places for calls.
    places: Semaphore,
}

/// A saga that runs here.
#[derive(Clone)]
struct Live {
    post: mpsc::UnboundedSender<Post>,
    seen: watch::Receiver<Option<Arc<Journal>>>,
}

#[derive(Default)]
pub(super) struct Counters {
    pub(super) started: AtomicU64,
    pub(super) calls: AtomicU64,
    pub(super) late: AtomicU64,
    waiting: AtomicU64,
    completed: AtomicU64,
    compensated: AtomicU64,
    forced: AtomicU64,
    stuck: AtomicU64,
}

/// What happened to sagas since the store was opened here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Sagas started.
    pub started: u64,
    /// Sagas completed.
    pub completed: u64,
    /// Sagas compensated.
    pub compensated: u64,
    /// Sagas that an operator ended.
    pub forced: u64,
    /// How often one got stuck.
    pub stuck: u64,
    /// Calls made to somewhere else.
    pub calls: u64,
    /// Calls that are under way now: at most [`Config::max_calls`].
    pub calling: usize,
    /// Calls that wait until others are over.
    pub waiting: u64,
    /// Answers that came when nobody waited for them any more.
    pub late: u64,
    /// Sagas that are open here now.
    pub open: usize,
    /// Sagas whose next step cannot be written, and nothing but somebody's help changes that.
    pub troubled: usize,
}

/// A saga as it was started, now or before.
#[derive(Clone, Debug)]
pub struct Started {
    /// What is known of it.
    pub journal: Arc<Journal>,
    /// Whether it was there already.
    pub repeated: bool,
}

/// A saga.
#[derive(Clone, Debug)]
pub struct Description {
    /// Its definition.
    pub name: Name,
    /// Its id.
    pub id: Arc<str>,
    /// What is known of it.
    pub journal: Arc<Journal>,
    /// Whether it waits for its version of the definition to be registered.
    pub stalled: bool,
    /// Why what is next cannot be written (its stream was closed, say), where that does not pass by itself. It is tried again and again.
    pub trouble: Option<Arc<str>>,
    /// What it waits for, and until when; of one that is stalled, what is known without its definition.
    pub waiting: Vec<Awaited>,
}

/// A saga in a listing.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// Its definition.
    pub name: Name,
    /// Its id.
    pub id: Arc<str>,
    /// Its version of the definition.
    pub version: u32,
    /// How it stands.
    pub status: Status,
    /// Whether it waits for its version of the definition to be registered.
    pub stalled: bool,
    /// Why what is next cannot be written, where that does not pass by itself.
    pub trouble: Option<Arc<str>>,
    /// Its business key.
    pub key: Option<Arc<str>>,
    /// When it began.
    pub started_at: Wall,
    /// When something last happened.
    pub updated_at: Wall,
}

/// Which sagas to list.
#[derive(Clone, Debug, Default)]
pub struct Search {
    /// Of this definition.
    pub name: Option<Name>,
    /// With this business key.
    pub key: Option<Arc<str>>,
    /// That stand so.
    pub status: Option<Status>,
    /// Behind this one, by name and id.
    pub after: Option<(Arc<str>, Arc<str>)>,
    /// At most so many: 1 to [`Sagas::MAX_PAGE`].
    pub limit: usize,
}

impl Sagas {
    /// The most entries of a listing.
    pub const MAX_PAGE: usize = 1_000;

    /// The sagas of `store`, whose tables are made if they are not there. From now on this process owns them: those that are open
    /// go on as soon as their definitions are [registered](Self::define). Opened a second time they are the same, under the
    /// first configuration.
    ///
    /// # Errors
    /// [`StoreError::Unsupported`] on a store that several processes write to.
    pub async fn open(store: &Store, config: Config) -> Result<Self, SagaError> {
        config.check()?;
        let capabilities = store.capabilities();
        if capabilities.several_writers {
            return Err(StoreError::Unsupported { engine: capabilities.engine, what: "run sagas yet" }.into());
        }
        let room: Arc<Room> = store.room();
        let shared = room.0.get_or_try_init(|| Shared::open(store, config)).await?.clone();
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
        {
            let mut definitions = self.shared.definitions.write().unwrap_or_else(PoisonError::into_inner);
            match definitions.entry(name.clone()).or_default().entry(version) {
                Entry::Occupied(_) => {
                    return Err(SagaError::AlreadyDefined { name, version });
                }
                Entry::Vacant(free) => drop(free.insert(Arc::new(definition))),
            }
        }
        let defining = Defining { shared: &self.shared, name: &name, version };
        self.resume(&name, version).await?;
        std::mem::forget(defining);
        Ok(())
    }

    /// Takes over what is open of a version of a definition.
    async fn resume(&self, name: &Name, version: u32) -> Result<(), SagaError> {
        const PAGE: i64 = 1_000;
        let mut after = Arc::<str>::from("");
        loop {
            let ids = rows::open_ids(&self.shared.store, name, version, &after, PAGE).await?;
            for id in &ids {
                self.shared.clone().take_over(&self.room, SagaKey { name: name.clone(), id: id.clone() })?;
            }
            match ids.last() {
                Some(last) if ids.len() as i64 == PAGE => after = last.clone(),
                _ => return Ok(()),
            }
        }
    }

    /// The definitions that are registered, in order, with their versions.
    pub fn definitions(&self) -> Vec<(Name, Vec<u32>)> {
        let definitions = self.shared.definitions.read().unwrap_or_else(PoisonError::into_inner);
        let known = definitions.iter().filter(|(_, versions)| !versions.is_empty());
        known.map(|(name, versions)| (name.clone(), versions.keys().copied().collect())).collect()
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
        let started = Happened::Started { version, key, input: input.clone(), deadline_ms };
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
                seen.ok().and_then(|seen| seen.clone())
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
        let seen = self.shared.find(&saga).and_then(|live| live.seen.borrow().clone());
        let journal = match seen {
            Some(journal) => journal,
            None => rows::read(&self.shared.store, &saga).await?.journal,
        };
        Ok(self.shared.description(saga, journal))
    }

    /// Waits until a saga has ended, or is stuck, for at most `patience`; then says how it stands.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn settled(&self, name: &Name, id: &str, patience: Duration) -> Result<Description, SagaError> {
        let saga = self.key(name, id)?;
        if let Some(mut live) = self.shared.find(&saga) {
            let is_settled = |seen: &Option<Arc<Journal>>| {
                let status = seen.as_ref().map(|journal| journal.status());
                status.is_some_and(|status| status.is_ended() || status == Status::Stuck)
            };
            let settled = self.shared.store.env().timeout(patience, live.seen.wait_for(is_settled)).await;
            if let Some(Ok(seen)) = settled
                && let Some(journal) = seen.clone()
            {
                return Ok(self.shared.description(saga, journal));
            }
        }
        self.get(name, id).await
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
        let Search { name, key, status, after, limit } = search;
        let found = rows::list(&self.shared.store, Wanted { name, key, status, after, limit }).await?;
        let summary = |(name, found): (Name, Found)| {
            let stalled = self.shared.is_stalled(&name, found.version, found.status);
            let Found { id, version, status, key, started_at, updated_at } = found;
            let trouble = self.shared.troubles().get(&SagaKey { name: name.clone(), id: id.clone() }).cloned();
            Summary { name, id, version, status, stalled, trouble, key, started_at, updated_at }
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
    /// is forgotten while the saga is open.
    pub async fn owner(&self, stream: &Name) -> Result<Option<Status>, SagaError> {
        let Some((name, id)) = stream.as_str().strip_prefix("saga-").and_then(|rest| rest.split_once(':')) else {
            return Ok(None);
        };
        let Ok(name) = Name::new(name) else { return Ok(None) };
        rows::status(&self.shared.store, &SagaKey { name, id: id.into() }).await
    }

    /// What happened to sagas since the store was opened here.
    pub fn counts(&self) -> Counts {
        let counters = &self.shared.counters;
        // Ordering: counts; nothing else is read by them.
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            started: read(&counters.started),
            completed: read(&counters.completed),
            compensated: read(&counters.compensated),
            forced: read(&counters.forced),
            stuck: read(&counters.stuck),
            calls: read(&counters.calls),
            calling: self.shared.config.max_calls - self.shared.places.available_permits(),
            waiting: read(&counters.waiting),
            late: read(&counters.late),
            open: self.shared.live().len(),
            troubled: self.shared.troubles().len(),
        }
    }

    async fn ask(&self, saga: SagaKey, input: Input) -> Result<Arc<Journal>, SagaError> {
        // A saga may end, or be taken over, between being found and being asked; that does not happen for ever.
        const TRIES: u32 = 16;
        for _ in 0..TRIES {
            if let Some(live) = self.shared.find(&saga) {
                let (reply, answer) = oneshot::channel();
                let posted = live.post.send(Post { input: input.clone(), reply: Some(reply) });
                if posted.is_ok()
                    && let Ok(answer) = answer.await
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
            self.shared.clone().take_over(&self.room, saga.clone())?;
        }
        Err(saga.overtaken())
    }
}

/// A version that is being defined: whoever stops in the middle gives it back. What runs by then goes on by what it has.
struct Defining<'a> {
    shared: &'a Shared,
    name: &'a Name,
    version: u32,
}

impl Drop for Defining<'_> {
    fn drop(&mut self) {
        let mut definitions = self.shared.definitions.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(versions) = definitions.get_mut(self.name) {
            versions.remove(&self.version);
        }
    }
}

/// A call that waits for its place.
struct InLine<'a>(&'a AtomicU64);

impl Drop for InLine<'_> {
    fn drop(&mut self) {
        // Ordering: a count; nothing else is read by it.
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What beginning a saga came to.
enum Begun {
    New(oneshot::Receiver<Result<Arc<Journal>, SagaError>>),
    Known(Live),
}

impl Shared {
    async fn open(store: &Store, config: Config) -> Result<Arc<Self>, SagaError> {
        store.declare(rows::TABLES).await?;
        let owner = rows::new_owner(store).await?;
        let (definitions, live, troubles) = (RwLock::default(), Mutex::default(), Mutex::default());
        let dice = Mutex::new(store.env().random("sagas"));
        let (counters, places) = (Counters::default(), Semaphore::new(config.max_calls));
        Ok(Arc::new(Self { store: store.clone(), config, owner, counters, definitions, live, troubles, dice, places }))
    }

    /// Waits for a place for a call, behind those who came before; held for as long as the call is under way.
    pub(super) async fn place(&self) -> Option<SemaphorePermit<'_>> {
        // Ordering: counts; nothing else is read by them.
        self.counters.waiting.fetch_add(1, Ordering::Relaxed);
        let in_line = InLine(&self.counters.waiting);
        // Nobody closes the places.
        let place = self.places.acquire().await.ok();
        drop(in_line);
        self.counters.calls.fetch_add(1, Ordering::Relaxed);
        place
    }

    fn live(&self) -> MutexGuard<'_, BTreeMap<SagaKey, Live>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn troubles(&self) -> MutexGuard<'_, BTreeMap<SagaKey, Arc<str>>> {
        self.troubles.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows why a saga cannot be written, or no more.
    pub(super) fn trouble(&self, saga: &SagaKey, why: Option<String>) {
        match why {
            Some(why) => drop(self.troubles().insert(saga.clone(), why.into())),
            None => drop(self.troubles().remove(saga)),
        }
    }

    fn description(&self, saga: SagaKey, journal: Arc<Journal>) -> Description {
        let stalled = self.is_stalled(&saga.name, journal.version, journal.status());
        let trouble = self.troubles().get(&saga).cloned();
        let waiting = awaited(&journal, self.definition(&saga.name, Some(journal.version)).as_deref());
        Description { name: saga.name, id: saga.id, journal, stalled, trouble, waiting }
    }

    fn find(&self, saga: &SagaKey) -> Option<Live> {
        self.live().get(saga).cloned()
    }

    pub(super) fn forget(&self, saga: &SagaKey) {
        self.live().remove(saga);
    }

    pub(super) fn seed(&self) -> u64 {
        self.dice.lock().unwrap_or_else(PoisonError::into_inner).u64()
    }

    /// The definition of that name, in that version or the highest.
    pub(super) fn definition(&self, name: &Name, version: Option<u32>) -> Option<Arc<Definition>> {
        let definitions = self.definitions.read().unwrap_or_else(PoisonError::into_inner);
        let versions = definitions.get(name)?;
        match version {
            Some(version) => versions.get(&version).cloned(),
            None => versions.last_key_value().map(|(_, newest)| newest.clone()),
        }
    }

    fn is_stalled(&self, name: &Name, version: u32, status: Status) -> bool {
        !status.is_ended() && self.definition(name, Some(version)).is_none()
    }

    /// Begins a saga, unless it runs here already.
    fn begin(
        self: Arc<Self>,
        room: &Arc<Room>,
        saga: &SagaKey,
        definition: Arc<Definition>,
        started: Happened,
    ) -> Result<Begun, SagaError> {
        let stream = saga.stream()?;
        let (reply, answer) = oneshot::channel();
        let mut live = self.live();
        let (running, max) = (live.len(), self.config.max_running);
        match live.entry(saga.clone()) {
            Entry::Occupied(known) => return Ok(Begun::Known(known.get().clone())),
            Entry::Vacant(_) if running >= max => return Err(SagaError::Full { running }),
            Entry::Vacant(free) => {
                let (entry, ends) = connected();
                free.insert(entry);
                let runner =
                    Runner::new((self.clone(), room.clone()), Arc::new(saga.clone()), stream, definition, ends);
                drop(live);
                let tasks = self.store.env().tasks();
                tasks.spawn("saga", async move { runner.run(Birth::New(started, reply)).await });
            }
        }
        Ok(Begun::New(answer))
    }

    /// Runs a saga that is in the store, unless it runs here already.
    fn take_over(self: Arc<Self>, room: &Arc<Room>, saga: SagaKey) -> Result<(), SagaError> {
        let stream = saga.stream()?;
        let Some(definition) = self.definition(&saga.name, None) else {
            return Err(SagaError::Undefined { name: saga.name });
        };
        let mut live = self.live();
        if let Entry::Vacant(free) = live.entry(saga.clone()) {
            let (entry, ends) = connected();
            free.insert(entry);
            let runner = Runner::new((self.clone(), room.clone()), Arc::new(saga), stream, definition, ends);
            drop(live);
            self.store.env().tasks().spawn("saga", async move { runner.run(Birth::Kept).await });
        }
        Ok(())
    }

    /// Counts what became of a saga; returns whether it got stuck.
    pub(super) fn count(&self, before: Option<&Journal>, now: &Journal) -> bool {
        let status = now.status();
        if before.is_some_and(|before| before.status() == status) {
            return false;
        }
        let counter = match status {
            Status::Completed => &self.counters.completed,
            Status::Compensated => &self.counters.compensated,
            Status::Forced => &self.counters.forced,
            Status::Stuck => &self.counters.stuck,
            Status::Running | Status::Compensating => return false,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        status == Status::Stuck
    }
}

fn connected() -> (Live, Ends) {
    let (post, inbox) = mpsc::unbounded_channel();
    let (shown, seen) = watch::channel(None);
    (Live { post: post.clone(), seen }, Ends { post, inbox, seen: shown })
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
