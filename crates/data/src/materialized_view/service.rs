//! The handle to all views of a store: starting them, and what an operator does with them.

use std::{
    collections::btree_map::Entry,
    sync::{Arc, Mutex},
};

use tokio::sync::watch;

use super::{
    Build, BuildRow, Changed, Config, EffectHandler, Mode, Namespace, ParkedEvent, Projection, SkippedEvent, Switch,
    View, ViewError, ViewName, adopt, builds, carrier,
    declared::{self, Origin},
    erasure,
    following::{self, Following},
    inline::Inline,
    parked,
    query::{Gate, QueryLimits, TablesOfBuilds},
    registered::Registered,
    rows,
    runner::{Hold, Runner},
    shared::{Local, Shared},
    switch,
};
use crate::{
    event::Position,
    store::{DynTx, Store, StoreError},
};

/// The views of a store. Cheap to clone; clones are the same.
///
/// Dropping handles stops nothing: what was started is kept up to date until [`shut_down`](Self::shut_down), or the end of the
/// store. Whoever gives up half-way through starting several views shuts down what has begun.
#[derive(Clone)]
pub struct Views {
    pub(super) shared: Arc<Shared>,
}

impl Views {
    /// The most entries of a listing.
    pub const MAX_PAGE: u32 = 1_000;

    /// The views of `store`, whose tables are made if they are not there. What a crash left of a dropped build is swept away.
    pub async fn open(store: &Store) -> Result<Self, ViewError> {
        Self::open_with(store, QueryLimits::default()).await
    }

    /// As [`open`](Self::open), with other limits of what queries may take.
    ///
    /// # Errors
    /// [`StoreError::Unsupported`] where the engine has no [`view_tables`](crate::store::Capabilities::view_tables).
    pub async fn open_with(store: &Store, limits: QueryLimits) -> Result<Self, ViewError> {
        store.require(|engine| engine.view_tables, "keep tables of views")?;
        store.declare(rows::TABLES).await?;
        store.declare(declared::TABLES).await?;
        store.declare(following::TABLES).await?;
        let owner = format!("{:016x}", store.env().random("view/owner").u64());
        let shared = Shared {
            store: store.clone(),
            tasks: store.env().tasks().child("views"),
            owner: owner.into(),
            progress: watch::Sender::new(0),
            nudge: store.presence().nudge(),
            code: Mutex::default(),
            running: Mutex::default(),
            replacing: tokio::sync::Mutex::default(),
            documents: Mutex::default(),
            not_started: Mutex::default(),
            declaring: tokio::sync::Mutex::default(),
            explaining: tokio::sync::Mutex::default(),
            forgotten: watch::Sender::new(0),
            ahead: Arc::default(),
            gate: Gate::new(limits),
            looks: Mutex::default(),
            following: Following::default(),
            tables: TablesOfBuilds::default(),
        };
        let shared = Arc::new(shared);
        store.on_erase("materialized views", erasure::hook(Arc::downgrade(&shared)));
        for (namespace, tables) in builds::half_dropped(store).await? {
            builds::sweep(store, &namespace, tables).await?;
        }
        following::resume_tending(&shared).await?;
        Ok(Self { shared })
    }

    /// Keeps a view up to date from now on, with this code.
    ///
    /// Where there is no build of its version yet, one is begun, beside what readers have. Several versions of a view may be
    /// started, in any order; each keeps its own builds up to date.
    ///
    /// # Errors
    /// [`ViewError::FoldChanged`] where the rows of this version were made by other code; see [`Config::changed`].
    pub async fn start(&self, projection: impl Projection, config: Config) -> Result<View, ViewError> {
        self.start_shared(Arc::new(projection), config, None).await
    }

    /// As [`start`](Self::start), and has `effects` carry out what the projection asks for. Without anybody to carry them out
    /// effects are kept.
    ///
    /// Effects are those of the view, whichever version asked for them. Where several versions are started with a handler, one of
    /// them carries each effect out, and which one is not said: give all of them one that knows the kinds of all. They take turns: a
    /// handler that does not end holds up the effects of all versions, so give what it waits for a bound.
    pub async fn start_shared(
        &self,
        projection: Arc<dyn Projection>,
        config: Config,
        effects: Option<Arc<dyn EffectHandler>>,
    ) -> Result<View, ViewError> {
        self.start_keeping(projection, config, effects, None).await
    }

    /// As [`start_shared`](Self::start_shared), of a document.
    pub(super) async fn start_keeping(
        &self,
        projection: Arc<dyn Projection>,
        config: Config,
        effects: Option<Arc<dyn EffectHandler>>,
        origin: Option<Origin>,
    ) -> Result<View, ViewError> {
        let engine = self.shared.store.capabilities();
        if config.mode == Mode::Inline && !engine.inline_views {
            let what = "keep a view in the transactions that append";
            return Err(StoreError::Unsupported { engine: engine.engine, what }.into());
        }
        let code = Arc::new(Registered::new(&self.shared.store, projection, config, origin.is_some()).await?);
        let key = (code.name.clone(), code.version);
        if self.shared.code().contains_key(&key) {
            return Err(ViewError::Started { view: code.name.clone(), version: code.version });
        }
        let (in_tx, head) = (code.clone(), self.shared.store.head());
        let found = self.shared.store.transact(move |tx| {
            let (code, origin) = (in_tx.clone(), origin.clone());
            Box::pin(async move {
                if let Some(origin) = origin {
                    origin.settle(tx, code.env.wall()).await?;
                }
                find_or_begin(tx, &code, head).await
            })
        });
        let found = found.await.map_err(ViewError::of_transaction)?;
        match self.shared.code().entry(key.clone()) {
            Entry::Occupied(_) => {
                return Err(ViewError::Started { view: code.name.clone(), version: code.version });
            }
            Entry::Vacant(place) => {
                place.insert(code.clone());
            }
        }
        for build in &found {
            // So that it can be started again.
            self.launch(build, &code, Hold::None).inspect_err(|_| drop(self.shared.code().remove(&key)))?;
        }
        self.replace_stale_soon(found);
        self.shared.tasks.spawn("adopt", adopt::run(self.clone(), code.clone()));
        if let Some(handler) = effects {
            self.shared.tasks.spawn("effects", carrier::run(self.shared.clone(), code.clone(), handler));
        }
        Ok(self.view(code.name.clone()))
    }

    /// A restore replays erasures, but not into views: what it brought back is made anew.
    fn replace_stale_soon(&self, builds: Vec<BuildRow>) {
        let views = self.clone();
        let stop = self.shared.tasks.stop().clone();
        self.shared.tasks.spawn("forget", async move {
            let replaced = tokio::select! {
                biased;
                () = stop.cancelled() => Ok(()),
                replaced = views.replace_stale(&builds) => replaced,
            };
            if let Err(failed) = replaced {
                tracing::warn!(%failed, "a view still holds what was erased: erase it again");
            }
        });
    }

    fn view(&self, name: ViewName) -> View {
        View::new(self.shared.clone(), name)
    }

    /// Has this process keep a build up to date, unless it does already.
    pub(super) fn launch(&self, build: &BuildRow, code: &Arc<Registered>, hold: Hold) -> Result<(), StoreError> {
        let local = match self.shared.running().entry(build.build) {
            Entry::Occupied(_) => return Ok(()),
            Entry::Vacant(place) => place.insert(Arc::new(Local::new(build.shards))).clone(),
        };
        let namespace = Namespace::new(build.view.clone(), build.build);
        if build.mode == Mode::Inline {
            let (code, namespace) = (code.clone(), namespace.clone());
            let followed = self.shared.store.follow(Arc::new(Inline { code, namespace, local: local.clone() }));
            followed.inspect_err(|_| drop(self.shared.running().remove(&build.build)))?;
        }
        for shard in 0..build.shards {
            let runner = Runner {
                shared: self.shared.clone(),
                code: code.clone(),
                local: local.clone(),
                namespace: namespace.clone(),
                shard,
                shards: build.shards,
            };
            self.shared.tasks.spawn("view", runner.run(hold));
        }
        Ok(())
    }

    /// The view of that name.
    ///
    /// # Errors
    /// [`ViewError::NotFound`].
    pub async fn get(&self, name: &ViewName) -> Result<View, ViewError> {
        match rows::builds(&mut &self.shared.store, name).await?.is_empty() {
            true => Err(ViewError::NotFound { view: name.clone() }),
            false => Ok(self.view(name.clone())),
        }
    }

    /// Moves whenever a data subject was erased from views, before the erasure is answered: rows that were read before may
    /// hold what nobody may see any more.
    pub fn watch_forgotten(&self) -> watch::Receiver<u64> {
        self.shared.forgotten.subscribe()
    }

    /// How many queries run right now.
    pub fn queries_running(&self) -> usize {
        self.shared.gate.running()
    }

    /// All views, in order of their names.
    pub async fn list(&self) -> Result<Vec<View>, ViewError> {
        let names = rows::names(&mut &self.shared.store).await?;
        Ok(names.into_iter().map(|name| self.view(name)).collect())
    }

    /// Begins another build of the newest version that runs here, beside what readers have. They are given it once it has
    /// caught up; `switch` says whether somebody has to say so.
    ///
    /// # Errors
    /// [`ViewError::NoCode`] where no code of the view was started in this process.
    pub async fn rebuild(&self, name: &ViewName, switch: Switch) -> Result<Build, ViewError> {
        let mut code = self.newest(name)?;
        if code.declared {
            // Somebody else may have deleted the view, and declared another one under its name.
            self.start_known().await?;
            code = self.newest(name)?;
        }
        self.begin(code, switch).await
    }

    /// Begins a build of `code`.
    pub(super) async fn begin(&self, code: Arc<Registered>, switch: Switch) -> Result<Build, ViewError> {
        loop {
            let read = if code.declared {
                Some(Arc::new(declared::kept(&mut &self.shared.store, &code).await?))
            } else {
                None
            };
            let (in_tx, head) = (code.clone(), self.shared.store.head());
            let begun = self.shared.store.transact(move |tx| {
                let (code, read) = (in_tx.clone(), read.clone());
                Box::pin(async move {
                    if let Some(read) = &read
                        && !declared::is_kept(tx, read).await?
                    {
                        return Ok(None);
                    }
                    builds::begin(tx, &code, head, switch).await.map(Some)
                })
            });
            // Where somebody declared it once more meanwhile, it is read once more.
            let Some(begun) = begun.await.map_err(ViewError::of_transaction)? else { continue };
            self.launch(&begun, &code, Hold::None)?;
            return Ok(begun.build);
        }
    }

    fn newest(&self, name: &ViewName) -> Result<Arc<Registered>, ViewError> {
        let code = self.shared.code();
        let newest = code.iter().rev().find(|((view, _), _)| view == name).map(|(_, code)| code.clone());
        newest.ok_or_else(|| ViewError::NoCode { view: name.clone() })
    }

    /// Pauses a build: its rows stay as they are, and can be read. Paused builds stay paused over restarts.
    pub async fn pause(&self, name: &ViewName, build: Build) -> Result<(), ViewError> {
        self.change(name, build, |tx, build| {
            Box::pin(async move {
                let sql = "UPDATE quorate_view_build SET paused = 1 WHERE build = $1";
                tx.room_execute(sql, &[rows::of(build.build)]).await?;
                // Appends leave it alone as well, until its runner has caught up again.
                let sql = "UPDATE quorate_view_shard SET inline = 0 WHERE build = $1";
                tx.room_execute(sql, &[rows::of(build.build)]).await?;
                Ok(())
            })
        })
        .await
    }

    /// Has a build go on that was paused, or that stopped before an event: that one is tried again.
    pub async fn resume(&self, name: &ViewName, build: Build) -> Result<(), ViewError> {
        self.change(name, build, |tx, build| {
            Box::pin(async move {
                let sql = "UPDATE quorate_view_build SET paused = 0 WHERE build = $1";
                tx.room_execute(sql, &[rows::of(build.build)]).await?;
                let sql = "UPDATE quorate_view_shard SET attempts = 0, revision = revision + 1 WHERE build = $1";
                tx.room_execute(sql, &[rows::of(build.build)]).await?;
                Ok(())
            })
        })
        .await
    }

    /// Gives readers this build from now on, in one transaction. Returns the position up to which they were given the one
    /// before.
    ///
    /// # Errors
    /// [`ViewError::NotCaughtUp`], where they would see less than they saw; [`ViewError::Incomplete`], where events of it are
    /// parked and `accept_parked` is not set.
    pub async fn switch(&self, name: &ViewName, build: Build, accept_parked: bool) -> Result<Position, ViewError> {
        let view = name.clone();
        let switched = self.shared.store.transact(move |tx| {
            let view = view.clone();
            Box::pin(async move {
                let row = find(tx, &view, build).await?;
                switch::run(tx, &row, accept_parked).await
            })
        });
        let at = switched.await.map_err(ViewError::of_transaction)?;
        Shared::bump(&self.shared.nudge);
        Shared::bump(&self.shared.progress);
        Ok(at)
    }

    /// Drops a build that readers do not have, with its rows.
    ///
    /// # Errors
    /// [`ViewError::Live`] where they have it.
    ///
    /// # Cancel safety
    /// Dropping the future may leave tables of the build; they are swept away when the store is opened again.
    pub async fn drop_build(&self, name: &ViewName, build: Build) -> Result<(), ViewError> {
        let row = rows::build(&mut &self.shared.store, build).await?.filter(|row| row.view == *name);
        let row = row.ok_or_else(|| ViewError::NoBuild { view: name.clone(), build })?;
        builds::drop_build(&self.shared.store, row).await?;
        self.shared.end(build);
        Shared::bump(&self.shared.nudge);
        Ok(())
    }

    /// Deletes a view with all its builds, whether readers have one or not. What keeps it up to date in this process ends.
    ///
    /// From one transaction on nothing of it is found, and its name is free; its tables are swept away after that.
    ///
    /// # Cancel safety
    /// As [`drop_build`](Self::drop_build).
    pub async fn delete(&self, name: &ViewName) -> Result<(), ViewError> {
        let _none_is_declared_meanwhile = self.shared.declaring.lock().await;
        let builds = rows::builds(&mut &self.shared.store, name).await?;
        if builds.is_empty() && self.declared_versions(name).await?.is_empty() {
            return Err(ViewError::NotFound { view: name.clone() });
        }
        self.shared.forget(|(view, _)| view == name);
        let dropped = self.forget_all(name).await?;
        for (namespace, _) in &dropped {
            self.shared.end(namespace.build());
        }
        Shared::bump(&self.shared.nudge);
        for (namespace, tables) in dropped {
            builds::sweep(&self.shared.store, &namespace, tables).await?;
        }
        Ok(())
    }

    /// Forgets a view, its documents and its builds, together or not at all: no crash leaves half of it.
    pub(super) async fn forget_all(&self, name: &ViewName) -> Result<Vec<(Namespace, Vec<String>)>, ViewError> {
        let view = name.clone();
        let forgotten = self.shared.store.transact(move |tx| {
            let view = view.clone();
            Box::pin(async move {
                declared::forget(tx, &view).await?;
                builds::forget(tx, &view).await
            })
        });
        forgotten.await.map_err(ViewError::of_transaction)
    }

    /// Parked events of a build behind `after`, in order: at most `limit`.
    pub async fn parked(
        &self,
        name: &ViewName,
        build: Build,
        after: Position,
        limit: u32,
    ) -> Result<Vec<ParkedEvent>, ViewError> {
        self.exists(name, build).await?;
        parked::list(&self.shared.store, build, after, limit.min(Self::MAX_PAGE)).await
    }

    /// Events of a build that were left out, behind `after`, in order: at most `limit`.
    pub async fn skipped(
        &self,
        name: &ViewName,
        build: Build,
        after: Position,
        limit: u32,
    ) -> Result<Vec<SkippedEvent>, ViewError> {
        self.exists(name, build).await?;
        parked::skipped(&self.shared.store, build, after, limit.min(Self::MAX_PAGE)).await
    }

    /// Applies the parked events of `key`, in order, until none is left or one fails again. Returns how many were applied.
    ///
    /// # Errors
    /// [`ViewError::StillPoison`]; what was applied before that event stays applied, it and what follows stay parked.
    pub async fn replay(&self, name: &ViewName, build: Build, key: &str) -> Result<u64, ViewError> {
        let row = self.exists(name, build).await?;
        let code = self.shared.code_of(&row).filter(|code| code.fingerprint == row.fingerprint);
        let code = code.ok_or_else(|| ViewError::NoCode { view: name.clone() })?;
        let namespace = Namespace::new(name.clone(), build);
        let replayed = parked::replay(&self.shared.store, &code, &namespace, key).await;
        Shared::bump(&self.shared.nudge);
        replayed
    }

    /// Leaves out, for good, an event that is parked or that a shard stopped before. `by`: who says so, for the record.
    /// What is parked behind it stays parked, to be [replayed](Self::replay).
    pub async fn skip(&self, name: &ViewName, build: Build, position: Position, by: &str) -> Result<(), ViewError> {
        let (by, now): (Arc<str>, _) = (by.into(), self.shared.store.env().wall());
        self.change(name, build, move |tx, row| {
            let by = by.clone();
            Box::pin(async move { parked::skip(tx, &row.view, row.build, position, &by, now).await })
        })
        .await
    }

    /// Stops keeping views up to date, and waits until nothing of them runs any more.
    pub async fn shut_down(&self) {
        self.shared.tasks.shut_down().await;
    }

    async fn exists(&self, name: &ViewName, build: Build) -> Result<BuildRow, ViewError> {
        let row = rows::build(&mut &self.shared.store, build).await?.filter(|row| row.view == *name);
        row.ok_or_else(|| ViewError::NoBuild { view: name.clone(), build })
    }

    /// Changes something of a build, and lets its owner know.
    async fn change<F>(&self, name: &ViewName, build: Build, change: F) -> Result<(), ViewError>
    where
        F: for<'t> Fn(&'t mut DynTx, BuildRow) -> quorate_runtime::BoxFuture<'t, Result<(), ViewError>>
            + Send
            + Sync
            + 'static,
    {
        let (view, change) = (name.clone(), Arc::new(change));
        let changed = self.shared.store.transact(move |tx| {
            let (view, change) = (view.clone(), change.clone());
            Box::pin(async move {
                let row = find(tx, &view, build).await?;
                change(tx, row).await
            })
        });
        changed.await.map_err(ViewError::of_transaction)?;
        Shared::bump(&self.shared.nudge);
        Ok(())
    }
}

async fn find(tx: &mut DynTx, view: &ViewName, build: Build) -> Result<BuildRow, ViewError> {
    let row = rows::build(tx, build).await?.filter(|row| row.view == *view);
    row.ok_or_else(|| ViewError::NoBuild { view: view.clone(), build })
}

/// The builds that this code keeps up to date; one is begun where there is none.
async fn find_or_begin(tx: &mut DynTx, code: &Registered, head: Position) -> Result<Vec<BuildRow>, ViewError> {
    let all = rows::builds(tx, &code.name).await?;
    let newest = all.iter().rev().find(|build| build.version == code.version);
    let is_older = all.iter().any(|build| build.live && build.version > code.version);
    // What readers have left for a newer version is not made anew by itself: it would take the room of what they have.
    let refuses = code.config.changed == Changed::Refuse || code.declared && is_older;
    match newest {
        Some(found) if found.fingerprint != code.fingerprint && refuses => {
            return Err(ViewError::FoldChanged {
                view: code.name.clone(),
                version: code.version,
                stored: found.fingerprint.to_string(),
                found: code.fingerprint.to_string(),
            });
        }
        Some(found) if found.fingerprint == code.fingerprint => {}
        _ => {
            // An older version beside a newer one that readers have does not take them back by itself.
            let switch = if is_older { Switch::Manual } else { code.config.switch };
            builds::begin(tx, code, head, switch).await?;
        }
    }
    builds::of(tx, code).await
}
