//! What all handles of a store's sagas share: definitions, the sagas that run here, and what is counted of them.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

use quorate_data::store::Store;
use quorate_foundations::name::Name;
use quorate_runtime::random::Rng;
use tokio::sync::{Notify, OnceCell, Semaphore, SemaphorePermit, mpsc, oneshot, watch};

use super::{Counts, Description};
use crate::saga::{
    Config, SagaError,
    awaited::awaited,
    definition::Definition,
    event::Happened,
    journal::{Journal, Status},
    machine::Input,
    owners::{self, Promise},
    rows::{self, Owner, SagaKey},
    runner::{Birth, Ends, Post, Runner},
};

/// Sagas of a process that is gone that are read and taken over at once.
const TAKEOVERS: usize = 64;

/// What is kept in memory of a store's sagas: it is the only one, however often they are opened.
#[derive(Default)]
pub(in crate::saga) struct Room(OnceCell<Arc<Shared>>);

impl Room {
    /// What is in it; opened by whoever comes first.
    pub(super) async fn shared(self: &Arc<Self>, store: &Store, config: Config) -> Result<Arc<Shared>, SagaError> {
        let open = async {
            let shared = Shared::open(store, config).await?;
            if shared.has_others {
                owners::watch(&shared, self);
            }
            Ok::<_, SagaError>(shared)
        };
        Ok(self.0.get_or_try_init(|| open).await?.clone())
    }
}

pub(in crate::saga) struct Shared {
    pub(in crate::saga) store: Store,
    pub(in crate::saga) config: Config,
    pub(in crate::saga) owner: Owner,
    pub(in crate::saga) counters: Counters,
    definitions: RwLock<BTreeMap<Name, BTreeMap<u32, Arc<Definition>>>>,
    /// Of each name the newest version that was declared and cannot be run here.
    withheld: Mutex<BTreeMap<Name, u32>>,
    live: Mutex<BTreeMap<SagaKey, Live>>,
    /// Why sagas cannot be written, and nothing but somebody's help changes that.
    troubles: Mutex<BTreeMap<SagaKey, Arc<str>>>,
    dice: Mutex<Rng>,
    /// Whether other processes may run sagas of the store.
    pub(in crate::saga) has_others: bool,
    /// Places for calls.
    places: Semaphore,
    /// Places for sagas that are taken over from a process that is gone.
    pub(in crate::saga) takeovers: Semaphore,
}

/// A saga that runs here.
#[derive(Clone)]
pub(super) struct Live {
    pub(super) post: mpsc::UnboundedSender<Post>,
    pub(super) seen: watch::Receiver<Option<Arc<Journal>>>,
    /// Has it look whose it is.
    whose: Arc<Notify>,
}

#[derive(Default)]
pub(in crate::saga) struct Counters {
    pub(in crate::saga) started: AtomicU64,
    pub(in crate::saga) calls: AtomicU64,
    pub(in crate::saga) late: AtomicU64,
    waiting: AtomicU64,
    completed: AtomicU64,
    compensated: AtomicU64,
    forced: AtomicU64,
    stuck: AtomicU64,
}

/// A version that is being defined: whoever stops in the middle gives it back. What runs by then goes on by what it has.
pub(super) struct Defining<'a> {
    shared: &'a Shared,
    name: Name,
    version: u32,
    is_kept: bool,
}

impl Defining<'_> {
    /// It is defined.
    pub(super) fn keep(mut self) {
        self.is_kept = true;
    }
}

impl Drop for Defining<'_> {
    fn drop(&mut self) {
        let mut definitions = self.shared.definitions.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(versions) = definitions.get_mut(&self.name).filter(|_| !self.is_kept) {
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
pub(super) enum Begun {
    New(oneshot::Receiver<Result<Arc<Journal>, SagaError>>),
    Known(Live),
}

impl Shared {
    async fn open(store: &Store, config: Config) -> Result<Arc<Self>, SagaError> {
        store.declare(rows::TABLES).await?;
        let has_others = store.capabilities().several_writers;
        if has_others {
            store.declare(owners::TABLES).await?;
        }
        let owner = rows::new_owner(store, has_others.then(|| Promise::of(&config))).await?;
        let (definitions, live, troubles) = (RwLock::default(), Mutex::default(), Mutex::default());
        let withheld = Mutex::default();
        let dice = Mutex::new(store.env().random("sagas"));
        let (counters, places) = (Counters::default(), Semaphore::new(config.max_calls));
        let store = store.clone();
        let takeovers = Semaphore::new(TAKEOVERS);
        Ok(Arc::new(Self {
            store,
            config,
            owner,
            counters,
            definitions,
            withheld,
            live,
            troubles,
            dice,
            has_others,
            places,
            takeovers,
        }))
    }

    /// What happened to sagas since the store was opened here.
    pub(super) fn counts(&self) -> Counts {
        let counters = &self.counters;
        // Ordering: counts; nothing else is read by them.
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            started: read(&counters.started),
            completed: read(&counters.completed),
            compensated: read(&counters.compensated),
            forced: read(&counters.forced),
            stuck: read(&counters.stuck),
            calls: read(&counters.calls),
            calling: self.config.max_calls - self.places.available_permits(),
            waiting: read(&counters.waiting),
            late: read(&counters.late),
            open: self.live().len(),
            troubled: self.troubles().len(),
        }
    }

    /// Registers a definition, for as long as what is returned lives, and for good once that is kept.
    pub(super) fn register(&self, definition: Definition) -> Result<Defining<'_>, SagaError> {
        let (name, version) = (definition.name.clone(), definition.version);
        let mut definitions = self.definitions.write().unwrap_or_else(PoisonError::into_inner);
        match definitions.entry(name.clone()).or_default().entry(version) {
            Entry::Occupied(_) => return Err(SagaError::AlreadyDefined { name, version }),
            Entry::Vacant(free) => drop(free.insert(Arc::new(definition))),
        }
        drop(definitions);
        Ok(Defining { shared: self, name, version, is_kept: false })
    }

    /// The definitions that are registered, in order, with their versions.
    pub(in crate::saga) fn definitions(&self) -> Vec<(Name, Vec<u32>)> {
        let definitions = self.definitions.read().unwrap_or_else(PoisonError::into_inner);
        let known = definitions.iter().filter(|(_, versions)| !versions.is_empty());
        known.map(|(name, versions)| (name.clone(), versions.keys().copied().collect())).collect()
    }

    /// Waits for a place for a call, behind those who came before; held for as long as the call is under way.
    pub(in crate::saga) async fn place(&self) -> Option<SemaphorePermit<'_>> {
        // Ordering: a count; nothing else is read by it.
        self.counters.waiting.fetch_add(1, Ordering::Relaxed);
        let in_line = InLine(&self.counters.waiting);
        // Nobody closes the places.
        let place = self.places.acquire().await.ok();
        drop(in_line);
        place
    }

    fn live(&self) -> MutexGuard<'_, BTreeMap<SagaKey, Live>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn troubles(&self) -> MutexGuard<'_, BTreeMap<SagaKey, Arc<str>>> {
        self.troubles.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows why a saga cannot be written, or no more.
    pub(in crate::saga) fn trouble(&self, saga: &SagaKey, why: Option<String>) {
        match why {
            Some(why) => drop(self.troubles().insert(saga.clone(), why.into())),
            None => drop(self.troubles().remove(saga)),
        }
    }

    pub(super) fn description(&self, saga: SagaKey, journal: Arc<Journal>) -> Description {
        let stalled = self.is_stalled(&saga.name, journal.version, journal.status());
        let trouble = self.troubles().get(&saga).cloned();
        let waiting = awaited(&journal, self.definition(&saga.name, Some(journal.version)).as_deref());
        Description { name: saga.name, id: saga.id, journal, stalled, trouble, waiting, children: Vec::new() }
    }

    pub(super) fn find(&self, saga: &SagaKey) -> Option<Live> {
        self.live().get(saga).cloned()
    }

    /// Somebody took a saga over: whoever runs it here looks whose it is.
    pub(in crate::saga) fn look(&self, saga: &SagaKey) {
        if let Some(live) = self.live().get(saga) {
            live.whose.notify_one();
        }
    }

    /// All that run here look whose they are.
    pub(in crate::saga) fn look_all(&self) {
        self.live().values().for_each(|live| live.whose.notify_one());
    }

    pub(in crate::saga) fn forget(&self, saga: &SagaKey) {
        self.live().remove(saga);
    }

    pub(in crate::saga) fn seed(&self) -> u64 {
        self.dice.lock().unwrap_or_else(PoisonError::into_inner).u64()
    }

    /// The definition of that name, in that version or the highest.
    pub(in crate::saga) fn definition(&self, name: &Name, version: Option<u32>) -> Option<Arc<Definition>> {
        let definitions = self.definitions.read().unwrap_or_else(PoisonError::into_inner);
        let versions = definitions.get(name)?;
        match version {
            Some(version) => versions.get(&version).cloned(),
            None => versions.last_key_value().map(|(_, newest)| newest.clone()),
        }
    }

    /// The definition that a step's saga starts by: that version, or the newest; none where the newest is declared and cannot be run here.
    pub(in crate::saga) fn child_definition(&self, name: &Name, version: Option<u32>) -> Option<Arc<Definition>> {
        let found = self.definition(name, version)?;
        let withheld = self.withheld.lock().unwrap_or_else(PoisonError::into_inner);
        let is_withheld = withheld.get(name).is_some_and(|withheld| *withheld >= found.version);
        (version.is_some() || !is_withheld).then_some(found)
    }

    pub(super) fn withhold(&self, name: &Name, version: u32) {
        let mut withheld = self.withheld.lock().unwrap_or_else(PoisonError::into_inner);
        let newest = withheld.entry(name.clone()).or_default();
        *newest = version.max(*newest);
    }

    /// One of its children ended: whoever runs the saga here looks.
    pub(in crate::saga) fn look_at_children(&self, saga: &SagaKey) {
        if let Some(live) = self.live().get(saga) {
            // Whoever leaves looks no more, and the next one does at once.
            drop(live.post.send(Post { input: Input::Look, reply: None }));
        }
    }

    pub(super) fn is_stalled(&self, name: &Name, version: u32, status: Status) -> bool {
        !status.is_ended() && self.definition(name, Some(version)).is_none()
    }

    /// Begins a saga, unless it runs here already.
    pub(super) fn begin(
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

    /// Runs a saga that is in the store, unless it runs here already. `found`: it is taken from this owner alone; without, from whoever has it.
    pub(in crate::saga) fn take_over(
        self: Arc<Self>,
        room: &Arc<Room>,
        saga: SagaKey,
        found: Option<Owner>,
    ) -> Result<(), SagaError> {
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
            self.store.env().tasks().spawn("saga", async move { runner.run(Birth::Kept(found)).await });
        }
        Ok(())
    }

    /// Counts what became of a saga; returns whether it got stuck.
    pub(in crate::saga) fn count(&self, before: Option<&Journal>, now: &Journal) -> bool {
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
    let whose = Arc::<Notify>::default();
    (Live { post: post.clone(), seen, whose: whose.clone() }, Ends { post, inbox, seen: shown, whose })
}
