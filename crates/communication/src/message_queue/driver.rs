//! Who drives a queue: one task at a time, and only while there is something to do.
//!
//! Callers put their work into the inbox and wait. The task takes all that has gathered as a *round*, decides it on the
//! [`Dispatcher`](super::machine::Dispatcher) in memory, writes it in one transaction, and answers when that is durable. So
//! consumers and producers of one queue share a transaction, and those of several queues share the store's commits. A
//! queue that nobody waits for has no task and no timer; what is known of its messages is read when somebody first asks.
//!
//! Memory follows the rows: what could not be written is taken back, what may have been written is read again. What other
//! transactions do to the queue (a message sent in one, or settled) arrives as *news* from the store's commit hook, in the
//! order of commits, before the next round decides anything.

mod live;
mod round;
mod shared;
mod window;
mod work;

use std::{
    sync::{Arc, PoisonError, atomic::Ordering},
    time::Duration,
};

use quorate_data::store::StoreError;

use self::{live::Live, shared::News};
pub(super) use self::{
    shared::{Common, Core, read_unread},
    window::Window,
    work::{Fate, How, Reply, Standing, Work},
};

/// Works that wait for a queue; beyond it they are refused.
const MAX_WORKS: usize = 8_192;
/// Messages that one round takes or settles; their transaction keeps others from the store's writer for as long as it takes.
const ROUND_MESSAGES: usize = 4_096;
/// Bytes that one round takes, and that it hands out, but for the one message that exceeds them.
const ROUND_BYTES: usize = 4 << 20;
/// How long a round waits before it is tried again after the store failed.
const PAUSE: Duration = Duration::from_millis(100);

/// The task that drives a queue. Whatever ends it, another one can begin.
struct Driver {
    core: Arc<Core>,
    live: Option<Live>,
    /// It handed everything over, and another task may drive the queue by now.
    is_over: bool,
}

impl Drop for Driver {
    fn drop(&mut self) {
        if !self.is_over {
            let works = self.core.leave();
            works.into_iter().for_each(|work| work.refuse(&StoreError::Closed.into()));
        }
    }
}

impl Driver {
    fn of(core: Arc<Core>) -> Self {
        let live = core.live.lock().unwrap_or_else(PoisonError::into_inner).take();
        Self { core, live, is_over: false }
    }

    async fn run(mut self) {
        let core = self.core.clone();
        let stop = core.store.env().tasks().stop().clone();
        loop {
            let live = match &mut self.live {
                Some(live) => live,
                None => match Live::read(&core).await {
                    Ok(live) => {
                        // Ordering: a count; nobody relies on it being exact.
                        core.depth.store(live.len(), Ordering::Relaxed);
                        self.live.insert(live)
                    }
                    Err(cause) => {
                        self.is_over = true;
                        return core.leave().into_iter().for_each(|work| work.refuse(&cause));
                    }
                },
            };
            let (works, news) = core.take_inbox();
            live.hear(news);
            core.depth.store(live.len(), Ordering::Relaxed);
            let done = live.round(&core, works).await;
            core.depth.store(live.len(), Ordering::Relaxed);
            if let Err(failed) = done {
                if failed.is_over || stop.is_cancelled() || core.is_deleted() {
                    live.refuse_waiting(&core.why_no_more());
                }
                let tries_again = live.anybody_waits();
                if failed.is_stale {
                    self.live = live.renewed(&core).await;
                }
                if tries_again {
                    core.store.env().sleep(PAUSE).await;
                } else if core.hand_over(&mut self.live) {
                    self.is_over = true;
                    return;
                }
                continue;
            }
            if stop.is_cancelled() || core.is_deleted() {
                live.refuse_waiting(&core.why_no_more());
            }
            if live.has_more(core.now()) {
                continue;
            }
            if !live.anybody_waits() {
                if core.hand_over(&mut self.live) {
                    self.is_over = true;
                    return;
                }
                continue;
            }
            let wakes = live.wake_at(core.now());
            tokio::select! {
                () = core.kick.notified() => {}
                () = stop.cancelled() => {}
                () = core.sleep_until(wakes) => {}
            }
        }
    }
}
