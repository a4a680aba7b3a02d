//! The service: loads, decides, appends, and decides again when somebody else was first.

use std::{
    fmt::{Debug, Display},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use quorate_data::{
    event::{Recorded, Version},
    store::{DynTx, ReadStream, Store},
};
use quorate_foundations::name::Name;
use quorate_runtime::BoxFuture;

use super::{
    Aggregate, HandleError, LoadError, Loaded, Metadata, Outcome, Statistics,
    cache::Lru,
    fold::{Folded, Folding, Take},
    handling::Handling,
    log::Log,
    metadata::token_at,
    setup::Builder,
    shell::Shell,
    snapshot::{self, Kept, Snapshots},
};

/// The aggregates of one kind in a store. Cheap to clone; clones share one cache.
///
/// # Guarantees
/// * The commands on one aggregate take effect one after another, as if there were only one caller, whoever else
///   writes to its stream: an append succeeds only at the version that the decision was made for.
/// * A rejection, or a decision that there is nothing to do, holds for a state that was current after the call began.
/// * An outcome is returned after its events are durable.
/// * With a [command id](Metadata::command_id), a command that is repeated, after a lost reply or a crash, is carried
///   out once and answered as the first time. A rejection leaves no trace: repeated, it is decided anew.
pub struct Aggregates<D: Aggregate> {
    inner: Arc<Inner<D>>,
}

pub(super) struct Inner<D: Aggregate> {
    pub(super) decider: D,
    pub(super) shell: Shell<D::Event>,
    cache: Mutex<Lru<Name, Slot<D>>>,
    snapshots: Option<Snapshots<D>>,
    /// One snapshot is written at a time; what becomes due meanwhile waits for the next command.
    writing: Arc<tokio::sync::Semaphore>,
}

/// The place of one aggregate's state. Whoever works with the state takes it out, and puts it back when it is known to
/// be right: a command that is dropped half-way, or panics, leaves the place empty. The lock is fair, so local commands
/// on one aggregate queue up instead of conflicting.
type Slot<D> = Arc<tokio::sync::Mutex<Option<Folded<D>>>>;

impl<D: Aggregate> Clone for Aggregates<D> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone() }
    }
}

impl<D: Aggregate> Aggregates<D> {
    /// Aggregates that follow `decider`, to be [opened](Builder::open) in a store.
    pub fn of(decider: D) -> Builder<D> {
        Builder::new(decider)
    }

    pub(super) fn new(decider: D, shell: Shell<D::Event>, snapshots: Option<Snapshots<D>>) -> Self {
        let seed = shell.env.random("event_sourcing/cache").u64();
        let cache = Mutex::new(Lru::new(shell.config.cached_states, seed));
        let writing = Arc::new(tokio::sync::Semaphore::new(1));
        let inner = Arc::new(Inner { decider, shell, cache, snapshots, writing });
        let of_hook = Arc::downgrade(&inner);
        let forget = move |_, _| -> BoxFuture<'static, _> {
            // Which states the subject's data flowed into is not known, and all of them can be folded again. Whoever works
            // with one now puts it back into a place that nobody finds any more.
            of_hook.upgrade().inspect(|inner: &Arc<Inner<D>>| inner.cache().clear());
            Box::pin(std::future::ready(Ok(())))
        };
        inner.shell.store.on_erase("event sourcing", Arc::new(forget));
        Self { inner }
    }

    /// Carries out `command` on the aggregate `id`.
    ///
    /// # Errors
    /// [`HandleError::Rejected`] where a rule forbids it; the others are failures of the machinery. Repeating the
    /// command with the same command id is always safe.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the wait, not an append that has begun: the outcome is then unknown.
    pub async fn handle(
        &self,
        id: impl Display + Send,
        command: D::Command,
        metadata: Metadata,
    ) -> Result<Outcome<D>, HandleError<D::Rejection>>
    where
        D::Rejection: Debug,
    {
        let stream = D::stream(id).map_err(LoadError::Name)?;
        let slot = self.inner.slot(&stream);
        let mut place = slot.lock().await;
        let cached = place.take();
        let handling = Handling { inner: &self.inner, stream: &stream, metadata: &metadata };
        let log = &mut self.store();
        let mut held = handling.take_or_load(log, cached).await?;
        let outcome = handling.run(log, &command, &mut held).await;
        self.inner.keep_if_due(&stream, &mut held.folded);
        *place = Some(held.folded);
        outcome
    }

    /// Carries out `command` inside the transaction `tx`: its events commit together with everything else in it.
    ///
    /// The state kept in memory is used where nobody is working with it, and checked against the stream as the
    /// transaction sees it; nothing is kept of what might still be rolled back, and no snapshot is written.
    ///
    /// # Errors
    /// As [`handle`](Self::handle). The transaction can go on after them, but for those of the store.
    ///
    /// # Example
    /// ```
    /// # use quorate_consistency::event_sourcing::{Aggregate, Aggregates, Metadata};
    /// # async fn example<D: Aggregate<Command: Clone, Rejection: std::fmt::Debug>>(
    /// #     accounts: Aggregates<D>, deposit: D::Command,
    /// # ) -> Result<(), Box<dyn std::error::Error>> {
    /// let store = accounts.store().clone();
    /// store.transact(move |tx| {
    ///     let (accounts, deposit) = (accounts.clone(), deposit.clone());
    ///     Box::pin(async move {
    ///         tx.execute("INSERT INTO receipt (account) VALUES ($1)", &[17.into()]).await.map_err(|e| e.to_string())?;
    ///         accounts.handle_in(tx, 17, deposit, Metadata::default()).await.map_err(|e| e.to_string())?;
    ///         Ok::<_, String>(())
    ///     })
    /// }).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn handle_in(
        &self,
        tx: &mut DynTx,
        id: impl Display + Send,
        command: D::Command,
        metadata: Metadata,
    ) -> Result<Outcome<D>, HandleError<D::Rejection>>
    where
        D::Rejection: Debug,
    {
        self.handle_ref_in(tx, id, &command, &metadata).await
    }

    /// As [`handle_in`](Self::handle_in), for a command that may be carried out again in another run of the transaction.
    pub(crate) async fn handle_ref_in(
        &self,
        tx: &mut DynTx,
        id: impl Display + Send,
        command: &D::Command,
        metadata: &Metadata,
    ) -> Result<Outcome<D>, HandleError<D::Rejection>>
    where
        D::Rejection: Debug,
    {
        let stream = D::stream(id).map_err(LoadError::Name)?;
        // Waiting for the lock would be waiting for something other than the transaction.
        let cached = self.inner.slot(&stream).try_lock().ok().and_then(|place| place.clone());
        let handling = Handling { inner: &self.inner, stream: &stream, metadata };
        let mut log = tx;
        let mut held = handling.take_or_load(&mut log, cached).await?;
        handling.refresh(&mut log, &mut held).await?;
        handling.run(&mut log, command, &mut held).await
    }

    /// The last version of the aggregate `id` that the transaction sees, and the token of the append it came with.
    pub(crate) async fn seen_in(
        &self,
        tx: &mut DynTx,
        id: impl Display + Send,
    ) -> Result<(Version, quorate_data::store::Token), LoadError> {
        let page = tx.read_stream(ReadStream::backward(D::stream(id)?, 1)).await?;
        let position = page.events.last().map(Recorded::position).unwrap_or_default();
        Ok((page.head.version, token_at(&self.inner.shell.store, position)))
    }

    /// The state of the aggregate `id`, every append acknowledged before the call included.
    pub async fn load(&self, id: impl Display + Send) -> Result<Loaded<D>, LoadError> {
        let stream = D::stream(id)?;
        let slot = self.inner.slot(&stream);
        let mut place = slot.lock().await;
        let log = &mut self.store();
        let folded = match place.take() {
            Some(folded) => self.inner.catch_up(log, &stream, folded).await?,
            None => self.inner.load(log, &stream).await?,
        };
        let loaded = Loaded {
            state: folded.state.clone(),
            version: folded.version,
            token: folded.token(&self.inner.shell.store),
        };
        *place = Some(folded);
        Ok(loaded)
    }

    /// Forgets what is kept of the aggregate `id` beside the log: its state in memory and its snapshot.
    ///
    /// For data that must go, after its events were truncated or erased. A state is otherwise forgotten when its place
    /// is needed, and a snapshot that no longer agrees with its stream is not used.
    pub async fn forget(&self, id: impl Display + Send) -> Result<(), LoadError> {
        let stream = D::stream(id)?;
        // A snapshot that is being written would come after the deletion.
        let _quiet = self.inner.writing.acquire().await;
        self.inner.cache().remove(&stream);
        match self.inner.snapshots {
            Some(_) => snapshot::forget::<D>(self.store(), &stream).await.map_err(LoadError::Snapshots),
            None => Ok(()),
        }
    }

    /// Forgets all states in memory.
    pub fn forget_states(&self) {
        self.inner.cache().clear();
    }

    /// Waits until no snapshot is being written.
    pub async fn flush(&self) {
        let _quiet = self.inner.writing.acquire().await;
    }

    /// What has happened since the aggregates were opened.
    pub fn statistics(&self) -> Statistics {
        self.inner.shell.counters.read()
    }

    /// The store they live in.
    pub fn store(&self) -> &Store {
        &self.inner.shell.store
    }

    /// Folds a stream from its beginning, without cache or snapshot, as far as `take` wants it.
    pub(super) async fn refold(
        &self,
        stream: &Name,
        take: impl Fn(&Recorded) -> Take + Send,
    ) -> Result<Folded<D>, LoadError> {
        self.inner.folding().go_on(&mut self.store(), stream, Folded::start(), take).await
    }
}

impl<D: Aggregate> Inner<D> {
    fn cache(&self) -> MutexGuard<'_, Lru<Name, Slot<D>>> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn slot(&self, stream: &Name) -> Slot<D> {
        self.cache().get_or_insert(stream, Slot::default)
    }

    pub(super) fn folding(&self) -> Folding<'_, D> {
        let Shell { codec, counters, .. } = &self.shell;
        Folding { codec, counters, page_events: self.shell.page_events() }
    }

    /// The state now, from the snapshot if there is one that can be trusted.
    pub(super) async fn load(&self, log: &mut impl Log, stream: &Name) -> Result<Folded<D>, LoadError> {
        let kept = self.kept(log, stream).await?;
        let kept_version = kept.as_ref().map(|folded| folded.version);
        let folded = self.catch_up(log, stream, kept.unwrap_or_else(Folded::start)).await?;
        if let Some(version) = kept_version {
            let counters = &self.shell.counters;
            if folded.snapshot == version { &counters.snapshots_used } else { &counters.snapshots_foreign }.up();
        }
        Ok(folded)
    }

    /// The state as of `last`, which the stream must have reached.
    pub(super) async fn load_until(
        &self,
        log: &mut impl Log,
        stream: &Name,
        last: Version,
    ) -> Result<Folded<D>, LoadError> {
        let kept = self.kept(log, stream).await?.filter(|folded| folded.version <= last);
        let until = |event: &Recorded| if event.version() <= last { Take::Fold } else { Take::Stop };
        self.folding().go_on(log, stream, kept.unwrap_or_else(Folded::start), until).await
    }

    async fn kept(&self, log: &mut impl Log, stream: &Name) -> Result<Option<Folded<D>>, LoadError> {
        match &self.snapshots {
            Some(snapshots) => snapshots.find(log, stream, &self.shell.counters).await,
            None => Ok(None),
        }
    }

    pub(super) async fn catch_up(
        &self,
        log: &mut impl Log,
        stream: &Name,
        folded: Folded<D>,
    ) -> Result<Folded<D>, LoadError> {
        self.folding().go_on(log, stream, folded, |_| Take::Fold).await
    }

    /// Has a snapshot written in the background if one is due and none is being written.
    fn keep_if_due(self: &Arc<Self>, stream: &Name, folded: &mut Folded<D>) {
        let due = self.snapshots.as_ref().is_some_and(|snapshots| snapshots.is_due(folded)) && !folded.encrypted;
        let Some(permit) = due.then(|| self.writing.clone().try_acquire_owned().ok()).flatten() else { return };
        folded.snapshot = folded.version;
        let (stream, state) = (stream.clone(), folded.state.clone());
        let kept = Kept { stream, state, version: folded.version, first: folded.first };
        let inner = self.clone();
        self.shell.env.tasks().spawn("snapshot", async move {
            if let Some(snapshots) = &inner.snapshots {
                snapshots.write(&inner.shell.store, kept, &inner.shell.config, &inner.shell.counters).await;
            }
            drop(permit);
        });
    }
}
