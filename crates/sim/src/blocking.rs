//! Work that would block a thread, run inline: time does not pass in it, but what its disk operations would have taken is
//! waited for afterwards.

use std::{sync::Arc, time::Duration};

use quorate_runtime::{
    BoxFuture,
    blocking::{Blocking, Dedicated, Kick, Work},
};
use tokio::sync::Notify;

use crate::{
    disk::SimDisk,
    executor::Executor,
    host::{HostId, Life},
};

/// Blocking work of one life of a host.
#[derive(Clone)]
pub(crate) struct SimBlocking {
    pub(crate) executor: Executor,
    pub(crate) host: HostId,
    pub(crate) life: Life,
    pub(crate) disk: SimDisk,
}

/// What handing work to another thread takes.
const HAND_OVER: Duration = Duration::from_micros(10);

impl SimBlocking {
    /// Waits as long as the disk operations since the last wait would have taken, and at least for a hand-over.
    async fn wait(&self) {
        let span = self.disk.take_charge() + HAND_OVER;
        let due = self.executor.now() + u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
        self.executor.sleep_until(due).await;
    }

    /// Waits for a kick, or until `span` has passed.
    async fn nap(&self, kicked: &Notify, span: Duration) {
        let due = self.executor.now() + u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
        tokio::select! {
            biased;
            () = kicked.notified() => {}
            () = self.executor.sleep_until(due) => {}
        }
    }
}

impl Blocking for SimBlocking {
    fn run(&self, job: Box<dyn FnOnce() + Send>) -> BoxFuture<'static, ()> {
        let (this, done) = (self.clone(), Arc::new(Notify::new()));
        let told = done.clone();
        // A task of its own: dropping the wait must not drop the work.
        let work = Box::pin(async move {
            this.wait().await;
            job();
            this.wait().await;
            told.notify_one();
        });
        self.executor.spawn(self.host, self.life, "blocking", work);
        Box::pin(async move { done.notified().await })
    }

    fn dedicate(&self, name: &str, mut worker: Box<dyn Dedicated>) -> Kick {
        tracing::trace!(name, "a worker begins");
        let (this, kicked) = (self.clone(), Arc::new(Notify::new()));
        let kick = kicked.clone();
        let work = Box::pin(async move {
            kicked.notified().await;
            loop {
                this.wait().await;
                match worker.work() {
                    Work::Idle => kicked.notified().await,
                    Work::Pause(span) => this.nap(&kicked, span).await,
                    Work::Over => return,
                }
            }
        });
        self.executor.spawn(self.host, self.life, "worker", work);
        Kick::new(move || kick.notify_one())
    }
}
