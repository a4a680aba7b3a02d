//! The task tree: every task has a parent; stop signals go from root to leaf, draining from leaf to root.

use std::{
    future::Future,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::BoxFuture;

/// Runs tasks: the async runtime of this machine, or the scheduler of a simulated world.
pub trait Spawn: Send + Sync {
    /// Polls `task` from now on until it ends. `name` is for people.
    fn spawn(&self, name: &'static str, task: BoxFuture<'static, ()>);
}

/// Tasks of the tokio runtime that the caller is in.
pub(crate) struct RealSpawn;

impl Spawn for RealSpawn {
    #[expect(clippy::disallowed_methods, reason = "the one place that spawns tasks")]
    fn spawn(&self, _: &'static str, task: BoxFuture<'static, ()>) {
        tokio::spawn(task);
    }
}

/// A branch of the task tree. Cheap to clone; clones are the same branch.
#[derive(Clone)]
pub struct Tasks {
    branch: Arc<Branch>,
}

struct Branch {
    name: &'static str,
    stop: CancellationToken,
    running: TaskTracker,
    spawner: Arc<dyn Spawn>,
    // A child keeps its parent alive, never the other way round: a finished branch frees itself.
    children: Mutex<Vec<Weak<Branch>>>,
    _parent: Option<Arc<Branch>>,
}

impl Tasks {
    /// The root of a tree whose tasks `spawner` runs.
    pub fn root(spawner: Arc<dyn Spawn>) -> Self {
        Self::branch("root", CancellationToken::new(), spawner, None)
    }

    fn branch(
        name: &'static str,
        stop: CancellationToken,
        spawner: Arc<dyn Spawn>,
        parent: Option<Arc<Branch>>,
    ) -> Self {
        let running = TaskTracker::new();
        running.close();
        Self { branch: Arc::new(Branch { name, stop, running, spawner, children: Mutex::default(), _parent: parent }) }
    }

    /// A new branch below this one.
    pub fn child(&self, name: &'static str) -> Self {
        let (stop, spawner) = (self.branch.stop.child_token(), self.branch.spawner.clone());
        let child = Self::branch(name, stop, spawner, Some(self.branch.clone()));
        let mut children = self.branch.children.lock().unwrap_or_else(PoisonError::into_inner);
        children.retain(|known| known.strong_count() > 0);
        children.push(Arc::downgrade(&child.branch));
        child
    }

    /// Runs `task` until it ends by itself; a task that loops watches [`stop`](Self::stop).
    pub fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let branch = self.branch.name;
        let tracked = self.branch.running.track_future(async move {
            task.await;
            tracing::trace!(branch, task = name, "ended");
        });
        self.branch.spawner.spawn(name, Box::pin(tracked));
    }

    /// Fires when this branch, or one above it, is told to stop.
    pub fn stop(&self) -> &CancellationToken {
        &self.branch.stop
    }

    /// Tells every task of this branch to stop, and waits until the last one, leaves first, has ended.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the wait; the tasks still stop.
    pub async fn shut_down(&self) {
        self.branch.stop.cancel();
        let mut waiting = vec![(self.branch.clone(), false)];
        while let Some((branch, children_ended)) = waiting.pop() {
            if children_ended {
                branch.running.wait().await;
                continue;
            }
            let children = branch.children.lock().unwrap_or_else(PoisonError::into_inner).clone();
            waiting.push((branch, true));
            waiting.extend(children.iter().filter_map(Weak::upgrade).map(|child| (child, false)));
        }
    }
}
