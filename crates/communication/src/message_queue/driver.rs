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
//!
//! Where several processes work on the queue, each does all this, and what they decided is proved when it is written: see
//! [`turns`] and ADR 31. Who was not the first takes back what it decided, reads what changed, and decides anew.

mod live;
mod round;
mod shared;
mod turns;
mod window;
mod work;

use std::{
    sync::{Arc, PoisonError, atomic::Ordering},
    time::Duration,
};

use quorate_data::store::StoreError;

use self::{
    live::Live,
    round::{Failed, Rounded},
    shared::News,
};
pub(super) use self::{
    shared::{Common, Core, read_unread},
    turns::Lookout,
    window::Window,
    work::{Fate, How, Reply, Standing, Work},
};

/// Works that wait for a queue; beyond it they are refused.
const MAX_WORKS: usize = 8_192;
/// Messages that one round takes or settles; their transaction keeps others from the store's writer for as long as it takes.
const ROUND_MESSAGES: usize = 4_096;
/// Bytes that one round takes, and that it hands out, but for the one message that exceeds them.
const ROUND_BYTES: usize = 4 << 20;
/// The same where each statement is a journey to a server: statements that one round takes about.
const ROUND_STATEMENTS: usize = 256;
/// How often a round finds that another process was first before its callers hear of it.
const MAX_TRIES: u32 = 64;
/// How often it tries again at once; later it rests first, or processes would be in each other's way for long.
const EAGER_TRIES: u32 = 2;
/// The longest rest between two tries.
const MAX_REST: Duration = Duration::from_millis(20);
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
            self.core.waiters.wake_all();
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
                        core.leave().into_iter().for_each(|work| work.refuse(&cause));
                        // They ask themselves, and hear why.
                        return core.waiters.wake_all();
                    }
                },
            };
            let (works, news) = core.take_inbox();
            live.hear(news);
            core.depth.store(live.len(), Ordering::Relaxed);
            let done = Self::round(live, &core, works).await;
            core.depth.store(live.len(), Ordering::Relaxed);
            if let Err(failed) = done {
                if failed.is_over || stop.is_cancelled() || core.is_deleted() {
                    live.refuse_waiting(&core.why_no_more());
                }
                let tries_again = live.anybody_waits(&core);
                if failed.is_stale {
                    let is_known = live.renew(&core).await;
                    self.live.take_if(|_| !is_known);
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
            if !live.anybody_waits(&core) {
                if core.hand_over(&mut self.live) {
                    self.is_over = true;
                    return;
                }
                continue;
            }
            let wakes = live.wake_at(core.now());
            live.look_out(&core);
            tokio::select! {
                () = core.kick.notified() => {}
                () = stop.cancelled() => {}
                () = core.sleep_until(wakes) => {}
            }
        }
    }

    /// Does `works` by what the rows say, however often other processes are first.
    async fn round(live: &mut Live, core: &Arc<Core>, mut works: Vec<Work>) -> Result<(), Failed> {
        for tried in 0..MAX_TRIES {
            if let Err(cause) = live.catch_up(core).await {
                works.into_iter().for_each(|work| work.refuse(&cause));
                live.refuse_waiting(&cause);
                return Err(Failed { is_stale: false, is_over: round::is_closed(&cause) });
            }
            match live.round(core, works).await? {
                Rounded::Done => return Ok(()),
                Rounded::Overtaken(again) => works = again,
            }
            core.rest(tried).await;
        }
        works.into_iter().for_each(|work| work.refuse(&StoreError::Busy.into()));
        Ok(())
    }
}
