//! The handles: all queues of a store, and one of them.

mod dead;
mod queue;

use std::{
    collections::BTreeMap,
    ops::Bound,
    sync::{Arc, Mutex, PoisonError},
};

use quorate_data::store::{Store, StoreError};
use quorate_foundations::name::Name;
use quorate_runtime::random::Rng;
use tokio::sync::{Mutex as AsyncMutex, OnceCell};

use super::{
    Config, QueueError,
    driver::{Core, Work},
    rows::{self, Numbers},
};
pub use dead::Selection;
pub use queue::{Description, Queue, Receive};

/// Messages that are deleted with their queue in one transaction.
const DELETED_AT_ONCE: usize = 500;
/// Ids that are forgotten with their queue in one transaction.
const FORGOTTEN_AT_ONCE: u32 = 2_000;

/// The queues of a store. Cheap to clone; clones are the same.
#[derive(Clone)]
pub struct Queues {
    store: Store,
    room: Arc<Room>,
}

/// What is kept in memory of a store's queues: it is the only one, however often they are opened.
#[derive(Default)]
pub(super) struct Room(OnceCell<Shared>);

struct Shared {
    cores: Mutex<BTreeMap<Name, Arc<Core>>>,
    /// Held while a queue is declared or deleted.
    declaring: AsyncMutex<()>,
    ids: Mutex<Rng>,
    numbers: Arc<Numbers>,
    kept: Arc<std::sync::atomic::AtomicUsize>,
}

/// A queue in a listing.
#[derive(Clone, Debug)]
pub struct Summary {
    /// Its name.
    pub name: Name,
    /// As it was declared last.
    pub config: Arc<Config>,
}

impl Queues {
    /// The most queues of a store.
    pub const MAX_COUNT: usize = 10_000;
    /// The most entries of a listing.
    pub const MAX_PAGE: usize = 1_000;

    /// The queues of `store`, whose tables are made if they are not there. What is known of every message (not what it
    /// says) is read into memory, once for all who open them while somebody holds them.
    ///
    /// # Errors
    /// [`StoreError::Unsupported`] on a store that several processes write to: none has queues yet.
    pub async fn open(store: &Store) -> Result<Self, QueueError> {
        let capabilities = store.capabilities();
        if capabilities.several_writers {
            return Err(StoreError::Unsupported { engine: capabilities.engine, what: "keep message queues yet" }.into());
        }
        let room: Arc<Room> = store.room();
        room.0.get_or_try_init(|| Self::read(store)).await?;
        Ok(Self { store: store.clone(), room })
    }

    async fn read(store: &Store) -> Result<Shared, QueueError> {
        store.declare(rows::TABLES).await?;
        let numbers = Arc::new(Numbers::begin(store).await?);
        let kept = Arc::default();
        let mut stored: BTreeMap<u64, Vec<rows::Stored>> = BTreeMap::new();
        rows::load(store, None, |one| stored.entry(one.queue).or_default().push(one)).await?;
        let core = |rows::Head { id, name, config }: rows::Head| {
            let stored = stored.remove(&id).unwrap_or_default();
            let core = Core::new(store, (id, name.clone(), config), (numbers.clone(), Arc::clone(&kept)), stored);
            (name, Arc::new(core))
        };
        let cores = rows::heads(store).await?.into_iter().map(core).collect();
        let ids = Mutex::new(store.env().random("queue/ids"));
        let declaring = AsyncMutex::default();
        Ok(Shared { cores: Mutex::new(cores), declaring, ids, numbers, kept })
    }

    fn shared(&self) -> &Shared {
        self.room.0.get().unwrap_or_else(|| unreachable!("invariant: it was read when the queues were opened"))
    }

    fn handle(&self, core: Arc<Core>) -> Queue {
        Queue { core, _room: self.room.clone() }
    }

    /// Declares a queue: makes it, or changes how it is. The same again changes nothing.
    ///
    /// A longer [`dedupe`](Config::dedupe) does not bring back ids that were forgotten; a lower
    /// [`max_messages`](Config::max_messages) drops none of those that are there.
    pub async fn declare(&self, name: &Name, config: Config) -> Result<Queue, QueueError> {
        config.check()?;
        let _alone = self.shared().declaring.lock().await;
        let known = self.find(name);
        if let Some(core) = known.as_ref().filter(|core| *core.config() == config) {
            return Ok(self.handle(core.clone()));
        }
        let count = self.shared().cores.lock().unwrap_or_else(PoisonError::into_inner).len();
        if known.is_none() && count >= Self::MAX_COUNT {
            return Err(QueueError::TooMany { max: Self::MAX_COUNT });
        }
        let id = known.as_ref().map_or_else(|| self.new_id(), |core| core.id);
        let head = rows::Head { id, name: name.clone(), config: config.clone() };
        let declared = self.store.transact(move |tx| {
            let head = head.clone();
            Box::pin(async move { rows::declare(tx, &head).await })
        });
        declared.await.map_err(QueueError::of_transaction)?;
        if let Some(core) = known {
            core.configure(config).await?;
            return Ok(self.handle(core));
        }
        let (numbers, kept) = (self.shared().numbers.clone(), self.shared().kept.clone());
        let core = Arc::new(Core::new(&self.store, (id, name.clone(), config), (numbers, kept), Vec::new()));
        self.shared().cores.lock().unwrap_or_else(PoisonError::into_inner).insert(name.clone(), core.clone());
        Ok(self.handle(core))
    }

    /// Deletes a queue with all its messages, dead letters and remembered ids included. Leases on its messages are lost.
    ///
    /// Done in many transactions: after a crash half of the messages may be gone; deleting it again goes on.
    ///
    /// # Errors
    /// [`QueueError::NotFound`] if there is none.
    pub async fn delete(&self, name: &Name) -> Result<(), QueueError> {
        let _alone = self.shared().declaring.lock().await;
        let core = self.find(name).ok_or_else(|| QueueError::NotFound { name: name.clone() })?;
        core.mark_deleted();
        while core.ask(|reply| Work::Empty { max: DELETED_AT_ONCE, reply }).await? > 0 {}
        let id = core.id;
        while self
            .store
            .transact(move |tx| Box::pin(rows::forget_known(tx, id, FORGOTTEN_AT_ONCE)))
            .await
            .map_err(QueueError::of_transaction)?
        {}
        let deleted = self.store.transact(move |tx| Box::pin(rows::delete(tx, id))).await;
        deleted.map_err(QueueError::of_transaction)?;
        self.shared().cores.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
        Ok(())
    }

    /// The queue of that name.
    ///
    /// # Errors
    /// [`QueueError::NotFound`] if there is none.
    pub fn get(&self, name: &Name) -> Result<Queue, QueueError> {
        let found = self.find(name).filter(|core| !core.is_deleted());
        found.map(|core| self.handle(core)).ok_or_else(|| QueueError::NotFound { name: name.clone() })
    }

    /// Queues in order of their names: at most `limit` (1 to [`MAX_PAGE`](Self::MAX_PAGE)) of those behind `after`.
    pub fn list(&self, after: Option<&Name>, limit: usize) -> Result<Vec<Summary>, QueueError> {
        let max = Self::MAX_PAGE;
        if !(1..=max).contains(&limit) {
            return Err(QueueError::invalid(format!("`limit` is 1 to {max}, {limit} was asked for")));
        }
        let cores = self.shared().cores.lock().unwrap_or_else(PoisonError::into_inner);
        let from = after.map_or(Bound::Unbounded, |name| Bound::Excluded(name.clone()));
        let behind = cores.range((from, Bound::Unbounded)).take(limit);
        Ok(behind.map(|(name, core)| Summary { name: name.clone(), config: core.config() }).collect())
    }

    fn find(&self, name: &Name) -> Option<Arc<Core>> {
        self.shared().cores.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    fn new_id(&self) -> u64 {
        self.shared().ids.lock().unwrap_or_else(PoisonError::into_inner).u64() >> 1
    }
}
