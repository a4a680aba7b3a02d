//! The handles: all queues of a store, and one of them.

mod answers;
mod dead;
mod others;
mod planned;
mod queue;

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicU64},
};

use quorate_data::store::{Store, StoreError};
use quorate_foundations::name::Name;
use tokio::sync::{Mutex as AsyncMutex, OnceCell, mpsc};

use super::{
    Config, QueueError,
    driver::{Common, Core, Lookout, read_unread},
    rows::{self, Head, Heads, Numbers, Opened, turn},
    schedule::{self, Plan},
};
pub use dead::{DeadLetters, Selection};
pub use queue::{Description, Queue, Receive};

/// Rows of each kind that are deleted with their queue in one transaction.
const DELETED_AT_ONCE: u32 = 500;

/// How often a declaration finds that another process declared something before its caller hears of it.
const MAX_TRIES: u32 = 64;

/// Queues that wait to be read because a transaction sent to them.
const MAX_UNREAD: usize = 256;

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
    /// Held while memory is brought to what other processes declared, and while this one declares.
    /// Lock order: behind `declaring`, before that of schedules. Nobody holds it while rows of messages are deleted.
    following: AsyncMutex<()>,
    /// Numbers of queues that have no name any more.
    nameless: Mutex<BTreeSet<u64>>,
    common: Common,
    plan: Plan,
    /// Up to where it is known what became of queues and schedules, where several processes change them.
    revision: AtomicU64,
}

/// A queue in a listing.
#[derive(Clone, Debug)]
pub struct Summary {
    /// Its name.
    pub name: Name,
    /// As it was declared last, or what is wrong with its row: then it can be declared again or deleted, and nothing else.
    pub config: Result<Arc<Config>, QueueError>,
}

impl Room {
    fn shared(&self) -> &Shared {
        self.0.get().unwrap_or_else(|| unreachable!("invariant: it was read when the queues were opened"))
    }

    /// The schedules of its queues.
    pub(super) fn plan(&self) -> &Plan {
        &self.shared().plan
    }

    /// The queue of that name.
    pub(super) fn find(self: &Arc<Self>, name: &Name) -> Result<Queue, QueueError> {
        let found = self.shared().cores.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned();
        let core =
            found.filter(|core| !core.is_deleted()).ok_or_else(|| QueueError::NotFound { name: name.clone() })?;
        core.damaged.clone().map_or_else(|| Ok(Queue { core, room: self.clone() }), Err)
    }
}

impl Queues {
    /// The most queues of a store.
    pub const MAX_COUNT: usize = 10_000;
    /// The most entries of a listing.
    pub const MAX_PAGE: usize = 1_000;
    /// The bytes at which a page of dead letters ends.
    pub const MAX_PAGE_BYTES: usize = 4 << 20;

    /// The queues of `store`, whose tables are made if they are not there. Where they are, this writes nothing, and reads a
    /// row per queue: what is known of a queue's messages is read, once for all, when somebody first asks for it.
    pub async fn open(store: &Store) -> Result<Self, QueueError> {
        let room: Arc<Room> = store.room();
        let shared = room.0.get_or_try_init(|| Self::read(store)).await?;
        schedule::start(store, &room, &shared.plan);
        Ok(Self { store: store.clone(), room })
    }

    async fn read(store: &Store) -> Result<Shared, QueueError> {
        let is_shared = store.capabilities().several_writers;
        store.declare(rows::TABLES).await?;
        if is_shared {
            store.declare(turn::TABLES).await?;
        }
        let opened = Opened::now(store).await?;
        let (unread, to_read) = mpsc::channel(MAX_UNREAD);
        let tasks = store.env().tasks();
        tasks.spawn("queues", read_unread(tasks.clone(), to_read));
        let lookout = is_shared.then(|| Lookout::start(store));
        let numbers = Numbers::of(is_shared);
        let common = Common { numbers, kept: Arc::default(), opened, unread, lookout };
        let core = |head: Head| {
            let core = Core::new(store, head, common.clone());
            (core.name.clone(), Arc::new(core))
        };
        // Ordering: before the rows. What others change while they are read is of a later revision.
        let revision = AtomicU64::new(if is_shared { turn::of_all(store).await? } else { 0 });
        let Heads { heads, nameless } = rows::heads(store).await?;
        let names = heads.iter().filter(|head| !head.is_deleted).map(|head| (head.id, head.name.clone())).collect();
        let plan = Plan::read(store, &names).await?;
        let cores = Mutex::new(heads.into_iter().map(core).collect());
        Ok(Shared {
            cores,
            declaring: AsyncMutex::default(),
            following: AsyncMutex::default(),
            nameless: Mutex::new(nameless),
            common,
            plan,
            revision,
        })
    }

    fn shared(&self) -> &Shared {
        self.room.shared()
    }

    fn handle(&self, core: Arc<Core>) -> Queue {
        Queue { core, room: self.room.clone() }
    }

    /// Declares a queue: makes it, or changes how it is. The same again changes nothing.
    ///
    /// A longer [`dedupe`](Config::dedupe) does not bring back ids that were forgotten; a lower
    /// [`max_messages`](Config::max_messages) drops none of those that are there.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the wait, not the declaration.
    pub async fn declare(&self, name: &Name, config: Config) -> Result<Queue, QueueError> {
        config.check()?;
        let (queues, name) = (self.clone(), name.clone());
        to_its_end(&self.store, "queue declared", async move { queues.declared(&name, (config, false)).await }).await
    }

    /// Declares a queue where there is none of this name. One that is there stays as it is, whoever declares it meanwhile.
    ///
    /// # Errors
    /// As [`declare`](Self::declare).
    ///
    /// # Cancel safety
    /// As there.
    pub async fn declare_if_absent(&self, name: &Name, config: Config) -> Result<Queue, QueueError> {
        config.check()?;
        let (queues, name) = (self.clone(), name.clone());
        to_its_end(&self.store, "queue declared", async move { queues.declared(&name, (config, true)).await }).await
    }

    /// `stays`: one that is there stays as it is.
    async fn declared(&self, name: &Name, (config, stays): (Config, bool)) -> Result<Queue, QueueError> {
        let _alone = self.shared().declaring.lock().await;
        for _ in 0..MAX_TRIES {
            let following = self.shared().following.lock().await;
            self.room.follow(&self.store).await?;
            if let Some(deleted) = self.find(name).filter(|core| core.is_deleted()) {
                drop(following);
                self.sweep(&deleted).await?;
            } else if let Some(queue) = self.declare_once(name, (&config, stays)).await? {
                return Ok(queue);
            }
        }
        Err(StoreError::Busy.into())
    }

    /// Declares a queue by what is known of queues. `None`: another process changed something meanwhile.
    async fn declare_once(&self, name: &Name, (config, stays): (&Config, bool)) -> Result<Option<Queue>, QueueError> {
        let mut known = self.find(name);
        let is_new = known.is_none();
        let id = known.as_ref().map_or_else(|| self.free_id(), |core| Ok(core.id))?;
        // Nobody has a handle of one whose row was damaged: it begins anew, with its messages.
        known.take_if(|core| core.damaged.is_some());
        if let Some(core) = known.as_ref().filter(|core| stays || *core.config() == *config) {
            return Ok(Some(self.handle(core.clone())));
        }
        let head = Head { id, name: name.clone(), config: config.clone(), is_deleted: false, damaged: None };
        let row = head.clone();
        let declared = self.change(id, move |tx| {
            let row = row.clone();
            Box::pin(
                async move { if is_new { rows::declare(tx, &row).await } else { rows::configure(tx, &row).await } },
            )
        });
        if !declared.await? {
            return Ok(None);
        }
        if let Some(core) = known {
            core.configure(config.clone()).await?;
            return Ok(Some(self.handle(core)));
        }
        let core = Arc::new(Core::new(&self.store, head, self.shared().common.clone()));
        self.cores().insert(name.clone(), core.clone());
        Ok(Some(self.handle(core)))
    }

    /// Deletes a queue with all its messages, dead letters and remembered ids included. Leases on its messages are lost.
    ///
    /// That it is gone is durable at once, for messages that a transaction sends as well; its rows are then deleted slice by
    /// slice, between other writes. What a crash leaves of them goes when the queue is deleted or declared again.
    ///
    /// # Errors
    /// [`QueueError::NotFound`] if there is none.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the wait, not the deletion.
    pub async fn delete(&self, name: &Name) -> Result<(), QueueError> {
        let (queues, name) = (self.clone(), name.clone());
        to_its_end(&self.store, "queue deleted", async move { queues.deleted(&name).await }).await
    }

    async fn deleted(&self, name: &Name) -> Result<(), QueueError> {
        let _alone = self.shared().declaring.lock().await;
        for _ in 0..MAX_TRIES {
            let following = self.shared().following.lock().await;
            self.room.follow(&self.store).await?;
            let core = self.find(name).ok_or_else(|| QueueError::NotFound { name: name.clone() })?;
            if self.mark_deleted(&core).await? {
                drop(following);
                return self.sweep(&core).await;
            }
        }
        Err(StoreError::Busy.into())
    }

    /// Has a queue be gone for everybody. `false`: another process changed something meanwhile.
    async fn mark_deleted(&self, core: &Arc<Core>) -> Result<bool, QueueError> {
        let plan = self.room.plan();
        let _no_schedule_is_changed = plan.alone.lock().await;
        let marking = core.clone();
        let marked = self.change(core.id, move |tx| {
            let core = marking.clone();
            Box::pin(async move {
                rows::mark_deleted(tx, core.id).await?;
                if !core.is_shared() {
                    // Ordering: whoever has the writer behind this transaction finds the mark, and writes nothing more.
                    tx.after_commit(move || core.mark_deleted())?;
                }
                Ok(())
            })
        });
        if !marked.await? {
            return Ok(false);
        }
        core.mark_deleted();
        plan.forget(&core.name);
        Ok(true)
    }

    /// Deletes what is left of a queue that is gone.
    async fn sweep(&self, core: &Core) -> Result<(), QueueError> {
        let id = core.id;
        let is_shared = core.is_shared();
        let slice = || self.store.transact(move |tx| Box::pin(rows::delete_some(tx, id, DELETED_AT_ONCE, is_shared)));
        while !slice().await.map_err(QueueError::of_transaction)? {}
        let mut cores = self.cores();
        // Another process may have declared one of its name, which is known by now.
        if cores.get(&core.name).is_some_and(|known| known.id == core.id && known.is_deleted()) {
            cores.remove(&core.name);
        }
        Ok(())
    }

    /// The queue of that name. Of what other processes declared and deleted it knows up to the last [`refresh`](Self::refresh).
    ///
    /// # Errors
    /// [`QueueError::NotFound`] if there is none. [`StoreError::Corrupt`] if its row is damaged: declaring it again mends that.
    pub fn get(&self, name: &Name) -> Result<Queue, QueueError> {
        self.room.find(name)
    }

    /// Queues in order of their names: at most `limit` (1 to [`MAX_PAGE`](Self::MAX_PAGE)) of those behind `after`. Those whose
    /// rows are damaged are among them, but for the ones whose names cannot be read. As for [`get`](Self::get), refresh first.
    pub fn list(&self, after: Option<&Name>, limit: usize) -> Result<Vec<Summary>, QueueError> {
        let max = Self::MAX_PAGE;
        if !(1..=max).contains(&limit) {
            return Err(QueueError::invalid(format!("`limit` is 1 to {max}, {limit} was asked for")));
        }
        let cores = self.cores();
        let from = after.map_or(Bound::Unbounded, |name| Bound::Excluded(name.clone()));
        let behind = cores.range((from, Bound::Unbounded)).filter(|(_, core)| !core.is_deleted()).take(limit);
        let summary = |(name, core): (&Name, &Arc<Core>)| {
            let config = core.damaged.clone().map_or_else(|| Ok(core.config()), Err);
            Summary { name: name.clone(), config }
        };
        Ok(behind.map(summary).collect())
    }

    fn cores(&self) -> MutexGuard<'_, BTreeMap<Name, Arc<Core>>> {
        self.shared().cores.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, name: &Name) -> Option<Arc<Core>> {
        self.cores().get(name).cloned()
    }

    /// The lowest number that no queue has. Queues that are being deleted still have theirs.
    fn free_id(&self) -> Result<u64, QueueError> {
        let cores = self.cores();
        let mut taken = self.shared().nameless.lock().unwrap_or_else(PoisonError::into_inner).clone();
        taken.extend(cores.values().map(|core| core.id));
        let max = Self::MAX_COUNT;
        (1..=max as u64).find(|id| !taken.contains(id)).ok_or(QueueError::TooMany { max })
    }
}

/// Does `change` whoever leaves.
async fn to_its_end<T: Send + 'static>(
    store: &Store,
    what: &'static str,
    change: impl Future<Output = Result<T, QueueError>> + Send + 'static,
) -> Result<T, QueueError> {
    store.env().tasks().to_its_end(what, change).await.unwrap_or_else(|| Err(StoreError::Closed.into()))
}
