//! The task tree: every task has a parent; stop signals go from root to leaf, draining from leaf to root.

use std::{
    future::Future,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// A branch of the task tree. Cheap to clone; clones are the same branch.
#[derive(Clone)]
pub struct Tasks {
    branch: Arc<Branch>,
}

struct Branch {
    name: &'static str,
    stop: CancellationToken,
    running: TaskTracker,
    // A child keeps its parent alive, never the other way round: a finished branch frees itself.
    children: Mutex<Vec<Weak<Branch>>>,
    _parent: Option<Arc<Branch>>,
}

impl Tasks {
    pub(crate) fn root() -> Self {
        Self::branch("root", CancellationToken::new(), None)
    }

    fn branch(name: &'static str, stop: CancellationToken, parent: Option<Arc<Branch>>) -> Self {
        let running = TaskTracker::new();
        running.close();
        Self { branch: Arc::new(Branch { name, stop, running, children: Mutex::default(), _parent: parent }) }
    }

    /// A new branch below this one.
    pub fn child(&self, name: &'static str) -> Self {
        let child = Self::branch(name, self.branch.stop.child_token(), Some(self.branch.clone()));
        let mut children = self.branch.children.lock().unwrap_or_else(PoisonError::into_inner);
        children.retain(|known| known.strong_count() > 0);
        children.push(Arc::downgrade(&child.branch));
        child
    }

    /// Runs `task` until it ends by itself; a task that loops watches [`stop`](Self::stop).
    #[expect(clippy::disallowed_methods, reason = "the one place that spawns tasks")]
    pub fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let branch = self.branch.name;
        self.branch.running.spawn(async move {
            task.await;
            tracing::trace!(branch, task = name, "ended");
        });
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
