//! Forgetting data subjects: a view that was made of somebody's data must not outlive its erasure.
//!
//! Each build knows the data subjects whose data it was made of, by a hash. When one is erased, the projection is asked to
//! forget; where it cannot, the build is made anew beside, from a log in which that data cannot be read any more, and the old
//! one is dropped once readers have the new one. The erasure is answered after that.

use std::{
    borrow::Cow,
    collections::BTreeSet,
    sync::{Arc, Weak},
    time::Duration,
};

use super::{
    Build, BuildRow, Namespace, Switch, ViewError, ViewTx, Views, following, parked, registered::Registered, rows,
    shared::Shared,
};
use crate::{
    event::Recorded,
    store::{DynTx, EraseHook, SqlError, Store, StoreError, erasure::SubjectHash},
};

/// How long an erasure waits for a view to be made anew.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often it looks for what others did meanwhile.
const LOOK_AROUND: Duration = Duration::from_millis(50);

/// What a projection did to forget a data subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forgotten {
    /// Nothing of it is left in the rows.
    Rows,
    /// The rows have to be made anew.
    Rebuild,
}

/// The hash under which a data subject is known here; empty where there is none whose data can be read.
pub(super) fn subject_of(store_id: u64, event: &Recorded) -> String {
    let subject = event.data_subject().filter(|_| !event.erased());
    subject.map(|subject| SubjectHash::of(store_id, subject).to_string()).unwrap_or_default()
}

/// Notes whose data a build is made of.
pub(super) async fn note(tx: &mut DynTx, code: &Registered, build: Build, events: &[Recorded]) -> Result<(), SqlError> {
    let subjects: BTreeSet<String> =
        events.iter().map(|event| subject_of(code.store_id, event)).filter(|subject| !subject.is_empty()).collect();
    for subject in subjects {
        let sql = "INSERT INTO quorate_view_subject (build, subject, first_ns) VALUES ($1, $2, $3)
            ON CONFLICT (build, subject) DO NOTHING";
        tx.room_execute(sql, &[rows::of(build), subject.into(), code.env.wall().unix_nanos().into()]).await?;
    }
    Ok(())
}

/// The events as they can be read in this transaction: a key may have been destroyed since they were.
pub(super) async fn as_of_now<'e>(
    tx: &mut DynTx,
    events: Cow<'e, [Recorded]>,
) -> Result<Cow<'e, [Recorded]>, ViewError> {
    if !events.iter().any(Recorded::is_encrypted) {
        return Ok(events);
    }
    let mut fresh = Vec::with_capacity(events.len());
    for event in events.iter() {
        fresh.push(if event.is_encrypted() { parked::event_at(tx, event.position()).await? } else { event.clone() });
    }
    Ok(fresh.into())
}

/// What the views do when a data subject is erased.
pub(super) fn hook(shared: Weak<Shared>) -> EraseHook {
    Arc::new(move |_store, subject| {
        let shared = shared.upgrade();
        Box::pin(async move {
            let Some(shared) = shared else { return Ok(()) };
            Views { shared }.forget(&subject).await.map_err(of_view)
        })
    })
}

fn of_view(failed: ViewError) -> StoreError {
    match failed {
        ViewError::Store(cause) => cause,
        other => StoreError::Engine { doing: "forgetting a data subject in views", cause: Arc::new(other) },
    }
}

impl Views {
    async fn forget(&self, subject: &str) -> Result<(), ViewError> {
        let hash = self.shared.store.erasure_name(subject).to_string();
        scrub(&self.shared.store, hash.clone()).await?;
        // Nobody shows a reason of before, and whoever owns a shard reads its row again.
        for local in self.shared.running().values() {
            local.forget_reasons();
        }
        Shared::bump(&self.shared.nudge);
        let builds = made_of(&self.shared.store, &hash).await?;
        let on_their_way = self.in_the_making(&builds).await?;
        for build in builds {
            if !self.forget_rows(&build, subject, &hash).await? {
                self.replace(&build, on_their_way.contains(&build.build)).await?;
            }
        }
        // Ordering: nobody can read the rows any more; whoever still has some is told.
        Shared::bump(&self.shared.forgotten);
        Ok(())
    }

    /// Those of `builds` that readers may be given some day, rather than once had.
    async fn in_the_making(&self, builds: &[BuildRow]) -> Result<BTreeSet<Build>, ViewError> {
        let mut found = BTreeSet::new();
        for build in builds {
            let live = rows::live(&mut &self.shared.store, &build.view).await?;
            if live.is_none_or(|live| live.build < build.build) {
                found.insert(build.build);
            }
        }
        Ok(found)
    }

    /// Has the projection forget, if it can.
    async fn forget_rows(&self, build: &BuildRow, subject: &str, hash: &str) -> Result<bool, ViewError> {
        let Some(code) = self.shared.code_of(build).filter(|code| code.fingerprint == build.fingerprint) else {
            return Ok(false);
        };
        let namespace = Namespace::new(build.view.clone(), build.build);
        let (subject, hash): (Arc<str>, Arc<str>) = (subject.into(), hash.into());
        let done = self.shared.store.transact(move |tx| {
            let (code, namespace) = (code.clone(), namespace.clone());
            let (subject, hash) = (subject.clone(), hash.clone());
            Box::pin(async move {
                let mut view = ViewTx::new(tx, &namespace);
                let forgotten = code.projection.forget(&mut view, &subject).await;
                let forgotten = forgotten.map_err(|failed| ViewError::invalid(failed.to_string()))?;
                if forgotten == Forgotten::Rows {
                    // Which keys are gone is on record for followers.
                    following::end_all(tx, &namespace).await?;
                    let sql = "DELETE FROM quorate_view_subject WHERE build = $1 AND subject = $2";
                    tx.room_execute(sql, &[rows::of(namespace.build()), hash.into()]).await?;
                }
                Ok(forgotten == Forgotten::Rows)
            })
        });
        done.await.map_err(ViewError::of_transaction)
    }

    /// Replaces a build by one of the same code that is made of what can still be read, and drops it.
    ///
    /// `in_the_making` says whether it was on its way to readers: then another takes its place there.
    pub(super) async fn replace(&self, build: &BuildRow, in_the_making: bool) -> Result<(), ViewError> {
        // One at a time: erasures that meet would each begin builds, until there is room for none.
        let _turn = self.shared.replacing.lock().await;
        let builds = rows::builds(&mut &self.shared.store, &build.view).await?;
        let Some(now) = builds.iter().find(|row| row.build == build.build) else { return Ok(()) };
        if now.live {
            let is_successor = |row: &BuildRow| {
                row.build > build.build && row.version == build.version && row.switch == Switch::WhenCaughtUp
            };
            // An erasure that is repeated waits for the build that it began.
            if !builds.iter().any(is_successor) {
                self.begin_again(build, Switch::WhenCaughtUp).await?;
            }
            self.wait_for_another(build).await?;
        } else if in_the_making {
            self.begin_again(build, build.switch).await?;
        }
        match self.drop_build(&build.view, build.build).await {
            Err(ViewError::NoBuild { .. }) => Ok(()),
            dropped => dropped,
        }
    }

    /// Begins a build of the code that `build` has. A view without code here cannot be made anew: that is said, and the
    /// erasure is not complete.
    async fn begin_again(&self, build: &BuildRow, switch: Switch) -> Result<Build, ViewError> {
        match self.shared.code_of(build) {
            Some(code) => self.begin(code, switch).await,
            None => self.rebuild(&build.view, switch).await,
        }
    }

    async fn wait_for_another(&self, build: &BuildRow) -> Result<(), ViewError> {
        let env = self.shared.store.env().clone();
        let mut progress = self.shared.progress.subscribe();
        let switched = async {
            loop {
                progress.mark_unchanged();
                let live = rows::live(&mut &self.shared.store, &build.view).await?;
                if live.is_some_and(|live| live.build != build.build) {
                    return Ok(());
                }
                tokio::select! {
                    biased;
                    moved = progress.changed() => moved.map_err(|_| ViewError::from(StoreError::Closed))?,
                    // Whoever else keeps the view, and gave readers another build, tells nobody here.
                    () = env.sleep(LOOK_AROUND) => {}
                }
            }
        };
        let late = || ViewError::invalid(format!("view `{}` is still being made anew: repeat the erasure", build.view));
        env.timeout(PATIENCE, switched).await.unwrap_or_else(|| Err(late()))
    }

    /// Builds of a view that hold what an erasure since then, of a restored store for instance, should have taken from them.
    pub(super) async fn replace_stale(&self, builds: &[BuildRow]) -> Result<(), ViewError> {
        let store = &self.shared.store;
        let erased = store.erasures().await?.erasures;
        let on_their_way = self.in_the_making(builds).await?;
        for build in builds {
            let sql = "SELECT subject, first_ns FROM quorate_view_subject WHERE build = $1";
            let noted = store.room_query(sql, vec![rows::of(build.build)]).await?;
            let is_stale = noted.iter().any(|row| {
                let (subject, first) = (row.at(0).as_str(), row.at(1).as_i64().unwrap_or_default());
                erased
                    .iter()
                    .any(|one| subject == Some(&one.subject.to_string()) && one.erased_at.unix_nanos() >= first)
            });
            if is_stale {
                self.replace(build, on_their_way.contains(&build.build)).await?;
            }
        }
        Ok(())
    }
}

/// The builds that are made of a data subject's data.
async fn made_of(store: &Store, hash: &str) -> Result<Vec<BuildRow>, ViewError> {
    let sql = "SELECT build FROM quorate_view_subject WHERE subject = $1 ORDER BY build";
    let mut builds = Vec::new();
    for row in store.room_query(sql, vec![hash.into()]).await? {
        let number = u32::try_from(rows::unsigned(row.at(0), "build")?).unwrap_or(u32::MAX);
        builds.extend(rows::build(&mut &*store, Build::new(number)).await?);
    }
    Ok(builds)
}

/// Forgets what stands of a data subject beside the views' rows: effects, and reasons that may quote data.
async fn scrub(store: &Store, hash: String) -> Result<(), ViewError> {
    let scrubbed = store.transact(move |tx| {
        let hash = hash.clone();
        Box::pin(async move {
            for sql in [
                "DELETE FROM quorate_view_effect WHERE subject = $1",
                "UPDATE quorate_view_parked SET reason = 'erased' WHERE subject = $1",
                "UPDATE quorate_view_skipped SET reason = 'erased' WHERE subject = $1",
            ] {
                tx.room_execute(sql, &[hash.as_str().into()]).await?;
            }
            // Owners have reasons in memory, too, and some that are in no row yet: what they know is out of date from now on.
            let sql = "UPDATE quorate_view_shard SET reason = '', revision = revision + 1";
            tx.room_execute(sql, &[]).await?;
            Ok::<_, ViewError>(())
        })
    });
    scrubbed.await.map_err(ViewError::of_transaction)
}
