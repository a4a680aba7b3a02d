//! What leaves a world: tasks and threads of tokio's own runtime, and threads of the operating system.
//!
//! Nothing of it would be the same the next time, and much of it would never happen at all, so a world that sees it ends and says
//! who it was and what to do instead. What it cannot see is a clock, a random number or a file that is asked for directly; for that
//! simulated tests run some of their seeds twice.

use std::{
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, ThreadId},
};

use tokio::runtime::RuntimeMetrics;

use crate::executor::lock;

/// The border of a world. Clones are the same.
#[derive(Clone, Default)]
pub(crate) struct Border(Arc<Inner>);

#[derive(Default)]
struct Inner {
    /// The one thread of the world, once it runs.
    home: OnceLock<ThreadId>,
    /// tokio's runtime around the world, once it runs.
    around: Mutex<Option<RuntimeMetrics>>,
    woken_from_outside: AtomicBool,
    spawned: Mutex<Option<String>>,
}

impl Border {
    /// From here on this thread is the world's, inside this runtime.
    pub(crate) fn close(&self, around: RuntimeMetrics) {
        // A world runs once, so nobody was here before.
        let _ = self.0.home.set(thread::current().id());
        *lock(&self.0.around) = Some(around);
    }

    /// The world is over. The runtime knows the border, so the border forgets the runtime.
    pub(crate) fn open(&self) {
        *lock(&self.0.around) = None;
    }

    /// A task was given to the runtime, at a place in the code.
    pub(crate) fn spawned(&self, place: String) {
        lock(&self.0.spawned).get_or_insert(place);
    }

    /// A task of the world was woken.
    pub(crate) fn woken(&self) {
        if self.0.home.get().is_some_and(|home| *home != thread::current().id()) {
            self.0.woken_from_outside.store(true, Ordering::Relaxed);
        }
    }

    /// What crossed the border since the world began.
    pub(crate) fn crossed(&self) -> Option<String> {
        if let Some(place) = lock(&self.0.spawned).take() {
            return Some(format!(
                "gave a task to tokio's own runtime ({place}), where it would never run: spawn it with `env.tasks()`"
            ));
        }
        if lock(&self.0.around).as_ref().is_some_and(has_threads) {
            let what = "used tokio's pool of threads (`spawn_blocking`, `tokio::fs`, names of hosts), which no seed decides: \
                        block in `env.run_blocking`, and reach files through `env.disk()`";
            return Some(what.to_owned());
        }
        self.0.woken_from_outside.load(Ordering::Relaxed).then(|| {
            "or another task before it was woken by a thread that is not the world's, at a moment that no seed decides: work that \
             blocks belongs in `env.run_blocking`"
                .to_owned()
        })
    }
}

#[cfg(tokio_unstable)]
fn has_threads(around: &RuntimeMetrics) -> bool {
    around.num_blocking_threads() > 0
}

/// Without this no world runs.
#[cfg(not(tokio_unstable))]
fn has_threads(_: &RuntimeMetrics) -> bool {
    false
}

/// What a task panicked with, and where the message is tokio's and would lead astray, what is meant.
pub(crate) fn explained(panic: String) -> String {
    if panic.contains("A Tokio 1.x context was found, but") || panic.contains("there is no reactor running") {
        return format!(
            "{panic} In a simulated world time and network come from `Env`, not from tokio: `env.sleep`, `env.timeout`, `env.net()`."
        );
    }
    panic
}
