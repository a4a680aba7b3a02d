//! The task tree: every task has a parent; stop signals go from root to leaf, draining from leaf to root.

use std::{
    future::Future,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use tokio::sync::oneshot;
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
    /// Whether it is told to stop by itself, and not with those above.
    is_apart: bool,
    running: TaskTracker,
    spawner: Arc<dyn Spawn>,
    // A child keeps its parent alive, never the other way round: a finished branch frees itself.
    children: Mutex<Vec<Weak<Branch>>>,
    _parent: Option<Arc<Branch>>,
}

impl Tasks {
    /// The root of a tree whose tasks `spawner` runs.
    pub fn root(spawner: Arc<dyn Spawn>) -> Self {
        let running = TaskTracker::new();
        running.close();
        let stop = CancellationToken::new();
        let children = Mutex::default();
        Self {
            branch: Arc::new(Branch { name: "root", stop, is_apart: false, running, spawner, children, _parent: None }),
        }
    }

    /// A new branch below this one, told to stop with it.
    pub fn child(&self, name: &'static str) -> Self {
        self.below(name, self.branch.stop.child_token(), false)
    }

    /// A new branch below this one that goes on when this one is told to stop: for what others need until they have ended.
    /// Whoever made it tells it to stop; [`shut_down`](Self::shut_down) of a branch above does so when all others have ended.
    pub fn apart(&self, name: &'static str) -> Self {
        self.below(name, CancellationToken::new(), true)
    }

    fn below(&self, name: &'static str, stop: CancellationToken, is_apart: bool) -> Self {
        let running = TaskTracker::new();
        running.close();
        let (spawner, _parent) = (self.branch.spawner.clone(), Some(self.branch.clone()));
        let child = Branch { name, stop, is_apart, running, spawner, children: Mutex::default(), _parent };
        let branch = Arc::new(child);
        let mut children = self.branch.children.lock().unwrap_or_else(PoisonError::into_inner);
        children.retain(|known| known.strong_count() > 0);
        children.push(Arc::downgrade(&branch));
        Self { branch }
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

    /// Does `work` in a task of its own, and returns what came of it: whoever asked may leave between what is durable and what memory says
    /// of it. `None`: it panicked, or nobody runs tasks any more.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the wait, not the work.
    pub async fn to_its_end<T: Send + 'static>(
        &self,
        name: &'static str,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.spawn(name, async move { drop(reply.send(work.await)) });
        answer.await.ok()
    }

    /// Fires when this branch, or one above it, is told to stop; what is above one [apart](Self::apart) does not count.
    pub fn stop(&self) -> &CancellationToken {
        &self.branch.stop
    }

    /// Tells every task of this branch to stop, and waits until the last one, leaves first, has ended. Branches
    /// [apart](Self::apart) are told when all others have ended.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the wait; the tasks still stop.
    pub async fn shut_down(&self) {
        let (mut waiting, mut apart) = (vec![(self.branch.clone(), false)], Vec::new());
        while let Some((branch, children_ended)) = waiting.pop().or_else(|| apart.pop()) {
            if children_ended {
                branch.running.wait().await;
                continue;
            }
            branch.stop.cancel();
            let children = branch.children.lock().unwrap_or_else(PoisonError::into_inner).clone();
            waiting.push((branch, true));
            for child in children.iter().filter_map(Weak::upgrade) {
                if child.is_apart { &mut apart } else { &mut waiting }.push((child, false));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn a_branch_apart_goes_on_when_those_above_are_told_and_is_told_when_all_others_have_ended() {
        let root = Tasks::root(Arc::new(RealSpawn));
        let (ended, order) = mpsc::channel();
        let begin = |tasks: &Tasks, name: &'static str| {
            let (stop, ended) = (tasks.stop().clone(), ended.clone());
            tasks.spawn(name, async move {
                stop.cancelled().await;
                tokio::task::yield_now().await;
                ended.send(name).unwrap();
            });
        };
        let node = root.child("node");
        let apart = node.apart("store");
        begin(&apart.child("views"), "below the one apart");
        begin(&apart, "apart");
        begin(&root, "root");
        begin(&node, "child");
        root.stop().cancel();
        assert!(node.stop().is_cancelled() && !apart.stop().is_cancelled());
        root.shut_down().await;
        assert!(apart.stop().is_cancelled());
        let order: Vec<&str> = order.try_iter().collect();
        let last: Vec<&str> = order.iter().rev().take(2).rev().copied().collect();
        assert_eq!(
            (order.len(), last.contains(&"apart"), last.contains(&"below the one apart")),
            (4, true, true),
            "{order:?}"
        );
    }

    #[tokio::test]
    async fn what_is_done_to_its_end_is_done_although_whoever_asked_has_left() {
        let root = Tasks::root(Arc::new(RealSpawn));
        assert_eq!(root.to_its_end("answered", async { 7 }).await, Some(7));
        let (done, order) = mpsc::channel();
        let work = async move {
            tokio::task::yield_now().await;
            done.send("done").unwrap();
        };
        let mut asking = Box::pin(root.to_its_end("left", work));
        std::future::poll_fn(|context| {
            assert!(asking.as_mut().poll(context).is_pending());
            std::task::Poll::Ready(())
        })
        .await;
        drop(asking);
        root.shut_down().await;
        assert_eq!(order.try_recv(), Ok("done"));
    }

    #[tokio::test]
    async fn a_branch_apart_is_shut_down_by_itself() {
        let root = Tasks::root(Arc::new(RealSpawn));
        let apart = root.apart("store");
        let stop = apart.stop().clone();
        apart.spawn("waits", async move { stop.cancelled().await });
        apart.shut_down().await;
        assert!(!root.stop().is_cancelled());
    }
}
