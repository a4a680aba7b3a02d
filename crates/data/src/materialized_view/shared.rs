//! What the handles, the runners and the appends of one process share.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use quorate_runtime::tasks::Tasks;
use tokio::sync::watch;

use super::{
    Build, BuildRow, ViewName, ahead,
    declared::Document,
    following::Following,
    look::Look,
    query::{Gate, TablesOfBuilds},
    registered::Registered,
};
use crate::{event::Position, store::Store};

/// What the handles, the runners and the appends of one process share.
pub(super) struct Shared {
    pub(super) store: Store,
    pub(super) tasks: Tasks,
    /// Who this is, among owners of shards.
    pub(super) owner: Arc<str>,
    /// Moves when a shard got further, or readers were given another build.
    pub(super) progress: watch::Sender<u64>,
    /// Moves when somebody asked for something: pause, resume, replay, skip, rebuild.
    pub(super) nudge: Arc<watch::Sender<u64>>,
    pub(super) code: Mutex<BTreeMap<(ViewName, u32), Arc<Registered>>>,
    pub(super) running: Mutex<BTreeMap<Build, Arc<Local>>>,
    /// Held while a build is replaced because of an erasure.
    pub(super) replacing: tokio::sync::Mutex<()>,
    /// The documents of declared views that run in this process.
    pub(super) documents: Mutex<BTreeMap<(ViewName, u32), Arc<Document>>>,
    /// Versions of declared views that could not be started, and why.
    pub(super) not_started: Mutex<BTreeMap<(ViewName, u32), String>>,
    /// Held while a document is declared.
    pub(super) declaring: tokio::sync::Mutex<()>,
    /// Held while a row is explained.
    pub(super) explaining: tokio::sync::Mutex<()>,
    /// Moves when a data subject was erased from the rows.
    pub(super) forgotten: watch::Sender<u64>,
    /// Room for what is worked out ahead of transactions.
    pub(super) ahead: Arc<ahead::Room>,
    /// Lets queries through.
    pub(super) gate: Gate,
    /// Of views that somebody waits for, what was seen last.
    pub(super) looks: Mutex<BTreeMap<ViewName, Weak<Look>>>,
    /// What followers share.
    pub(super) following: Following,
    /// The tables of builds that were read.
    pub(super) tables: TablesOfBuilds,
}

/// A build that is kept up to date in this process.
pub(super) struct Local {
    shards: Vec<LocalShard>,
    is_over: AtomicBool,
}

struct LocalShard {
    reached: AtomicU64,
    standing: Mutex<Standing>,
}

/// How a shard stands with its owner in this process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Standing {
    /// Nobody in this process keeps it up to date.
    #[default]
    Idle,
    /// Waiting for its owner, who may have gone, to be silent for long enough.
    Waiting,
    /// Catching up.
    CatchingUp,
    /// Nothing is left to do right now.
    CaughtUp,
    /// Kept by the appends themselves.
    Inline,
    /// Paused by somebody.
    Paused,
    /// Stopped before an event that cannot be applied, as the policy says.
    Stopped {
        /// Where it stands.
        position: Position,
        /// Why.
        reason: String,
    },
    /// Stopped because too many events are parked.
    ParkedFull,
    /// Somebody else, who came later, owns it. It is claimed again once that one has left.
    Fenced,
    /// The store fails; it is tried again.
    Failing {
        /// Why.
        reason: String,
    },
}

impl Shared {
    pub(super) fn bump(channel: &watch::Sender<u64>) {
        channel.send_modify(|count| *count = count.wrapping_add(1));
    }

    pub(super) fn code(&self) -> MutexGuard<'_, BTreeMap<(ViewName, u32), Arc<Registered>>> {
        self.code.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn documents(&self) -> MutexGuard<'_, BTreeMap<(ViewName, u32), Arc<Document>>> {
        self.documents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn not_started(&self) -> MutexGuard<'_, BTreeMap<(ViewName, u32), String>> {
        self.not_started.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn running(&self) -> MutexGuard<'_, BTreeMap<Build, Arc<Local>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The code that a build was made by. What a document said before somebody else deleted its view, and declared another one
    /// under its name, made none of the builds there are.
    pub(super) fn code_of(&self, build: &BuildRow) -> Option<Arc<Registered>> {
        let code = self.code().get(&(build.view.clone(), build.version)).cloned();
        code.filter(|code| !code.declared || code.fingerprint == build.fingerprint)
    }

    /// Forgets what was started of some views: it can be started again, or something else of that name.
    pub(super) fn forget(&self, is_gone: impl Fn(&(ViewName, u32)) -> bool) {
        self.code().retain(|key, _| !is_gone(key));
        self.documents().retain(|key, _| !is_gone(key));
        self.not_started().retain(|key, _| !is_gone(key));
    }

    /// What those share who wait for a view.
    pub(super) fn look_at(&self, view: &ViewName) -> Arc<Look> {
        let mut looks = self.looks.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(look) = looks.get(view).and_then(Weak::upgrade) {
            return look;
        }
        looks.retain(|_, look| look.strong_count() > 0);
        let look = Arc::<Look>::default();
        looks.insert(view.clone(), Arc::downgrade(&look));
        look
    }

    /// A build that is kept up to date in this process.
    pub(super) fn local(&self, build: Build) -> Option<Arc<Local>> {
        self.running().get(&build).cloned()
    }

    /// A build was dropped: nothing in this process keeps it up to date any more.
    pub(super) fn end(&self, build: Build) {
        self.tables.forget(build);
        if let Some(local) = self.running().remove(&build) {
            local.is_over.store(true, Ordering::Relaxed);
        }
    }
}

impl Local {
    pub(super) fn new(shards: u32) -> Self {
        let shard = |_| LocalShard { reached: AtomicU64::new(0), standing: Mutex::default() };
        Self { shards: (0..shards).map(shard).collect(), is_over: AtomicBool::new(false) }
    }

    /// Whether the build was dropped.
    pub(super) fn is_over(&self) -> bool {
        // Ordering: nothing is read because of it; whoever sees it late asks the database.
        self.is_over.load(Ordering::Relaxed)
    }

    /// How far all shards are; zero while one has yet to begin.
    pub(super) fn reached(&self) -> Position {
        // Ordering: `Release` by the runner, after its transaction committed: whoever reads this sees the rows.
        let each = self.shards.iter().map(|shard| shard.reached.load(Ordering::Acquire));
        Position::new(each.min().unwrap_or_default())
    }

    /// Notes how far a shard is; whether that is further than was known. A runner that begins anew at the checkpoint takes nothing
    /// back: what readers were told of does not go away.
    pub(super) fn set_reached(&self, shard: u32, reached: Position) -> bool {
        let shard = &self.shards[shard as usize];
        shard.reached.fetch_max(reached.get(), Ordering::AcqRel) < reached.get()
    }

    pub(super) fn standing(&self, shard: u32) -> Standing {
        let shard = self.shards.get(shard as usize);
        shard.map(|shard| shard.standing.lock().unwrap_or_else(PoisonError::into_inner).clone()).unwrap_or_default()
    }

    /// Forgets why shards stand still: what is said there may quote somebody's data.
    pub(super) fn forget_reasons(&self) {
        for shard in &self.shards {
            let mut standing = shard.standing.lock().unwrap_or_else(PoisonError::into_inner);
            if let Standing::Stopped { reason, .. } | Standing::Failing { reason } = &mut *standing {
                *reason = String::new();
            }
        }
    }

    pub(super) fn set_standing(&self, shard: u32, standing: Standing) {
        *self.shards[shard as usize].standing.lock().unwrap_or_else(PoisonError::into_inner) = standing;
    }
}

#[cfg(test)]
mod tests {
    use super::{Local, Position};

    #[test]
    fn a_position_that_readers_were_told_of_is_not_taken_back() {
        let local = Local::new(2);
        assert!(local.set_reached(0, Position::new(40)) && local.set_reached(1, Position::new(50)));
        assert_eq!(local.reached(), Position::new(40), "of several shards it is the last one's");
        assert!(!local.set_reached(0, Position::new(30)), "somebody begins anew at the checkpoint");
        assert_eq!(local.reached(), Position::new(40));
        assert!(local.set_reached(0, Position::new(45)));
        assert_eq!(local.reached(), Position::new(45));
    }
}
