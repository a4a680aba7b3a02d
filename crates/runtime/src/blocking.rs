//! Work that blocks a thread: SQLite above all.

use std::{sync::Arc, time::Duration};

use crate::BoxFuture;

/// Runs blocking work away from the async threads. In simulation both methods run it inline.
pub trait Blocking: Send + Sync {
    /// Runs `job` to its end on some thread; the future completes after it.
    fn run(&self, job: Box<dyn FnOnce() + Send>) -> BoxFuture<'static, ()>;

    /// Gives `worker` a thread of its own.
    fn dedicate(&self, name: &str, worker: Box<dyn Dedicated>) -> Kick;
}

/// A worker with a thread of its own: whoever gives it something to do kicks it afterwards.
pub trait Dedicated: Send + 'static {
    /// Does everything there is to do and returns. [`Work::Over`] ends the worker.
    fn work(&mut self) -> Work;
}

/// What a [`Dedicated`] worker says when it returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Nothing left to do until the next kick.
    Idle,
    /// Nothing left to do until the next kick, or until so much time has passed.
    Pause(Duration),
    /// Nothing will ever be left to do: drop the worker.
    Over,
}

/// Wakes a [`Dedicated`] worker. A kick during work makes it look once more before it rests: none is lost.
#[derive(Clone)]
pub struct Kick(Arc<dyn Fn() + Send + Sync>);

impl Kick {
    /// A kick that calls `wake`.
    pub fn new(wake: impl Fn() + Send + Sync + 'static) -> Self {
        Self(Arc::new(wake))
    }

    /// Wakes the worker.
    pub fn kick(&self) {
        (self.0)();
    }
}

/// Threads of this machine.
pub(crate) struct RealBlocking;

impl Blocking for RealBlocking {
    #[expect(clippy::disallowed_methods, reason = "the one place that hands work to blocking threads")]
    fn run(&self, job: Box<dyn FnOnce() + Send>) -> BoxFuture<'static, ()> {
        let running = tokio::task::spawn_blocking(job);
        Box::pin(async move {
            if let Err(failed) = running.await
                && let Ok(panic) = failed.try_into_panic()
            {
                std::panic::resume_unwind(panic);
            }
        })
    }

    #[expect(clippy::disallowed_methods, reason = "the one place that starts threads")]
    fn dedicate(&self, name: &str, mut worker: Box<dyn Dedicated>) -> Kick {
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                // `park` returns at once if an `unpark` came since the last one, so no kick is lost.
                loop {
                    match worker.work() {
                        Work::Idle => std::thread::park(),
                        Work::Pause(span) => std::thread::park_timeout(span),
                        Work::Over => return,
                    }
                }
            })
            .unwrap_or_else(|cause| panic!("the operating system gave no thread for {name}: {cause}"))
            .thread()
            .clone();
        Kick::new(move || thread.unpark())
    }
}
