//! `Env`: one cheap handle that carries every port.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use prometheus_client::registry::Registry;
use quorate_foundations::time::{Boot, Mono, Wall};

use crate::{
    blocking::{Blocking, Dedicated, Kick, RealBlocking},
    clock::{Clocks, RealClocks},
    disk::{Disk, RealDisk},
    net::{Net, RealNet},
    probe::{NoProbe, Probe},
    random::{Random, Rng},
    tasks::{RealSpawn, Tasks},
};

/// The world as a service sees it: clocks, randomness, disk, network, tasks, blocking work and a metrics registry.
///
/// Cloning is cheap and shares the ports. A clone made by [`scope`](Self::scope) runs its tasks under a branch of the
/// task tree, so that stopping the branch stops them and nothing else.
#[derive(Clone)]
pub struct Env {
    parts: EnvParts,
}

/// The ports an [`Env`] is made of. The simulator builds its own; everybody else calls [`Env::real`].
#[derive(Clone)]
pub struct EnvParts {
    /// Wall, monotonic and boot-time clocks, and waiting.
    pub clocks: Arc<dyn Clocks>,
    /// The root of the randomness tree.
    pub random: Random,
    /// Files and what is known about the file system.
    pub disk: Arc<dyn Disk>,
    /// Listening and dialling.
    pub net: Arc<dyn Net>,
    /// Work that blocks a thread.
    pub blocking: Arc<dyn Blocking>,
    /// The task tree.
    pub tasks: Tasks,
    /// Where everybody registers metrics; the node serves it at `/metrics`.
    pub metrics: Arc<Mutex<Registry>>,
    /// Rare paths taken on purpose, and rare states reported: nothing outside simulation.
    pub probe: Arc<dyn Probe>,
    /// Ends the process (or the simulated host) at once, because going on could lose what was promised.
    pub fatal: Arc<dyn Fn(&str) + Send + Sync>,
}

impl Env {
    /// This machine. Must be called, and used, inside a tokio runtime.
    pub fn real() -> Self {
        Self::from_parts(EnvParts {
            clocks: Arc::new(RealClocks::new()),
            random: Random::from_os(),
            disk: Arc::new(RealDisk),
            net: Arc::new(RealNet),
            blocking: Arc::new(RealBlocking),
            tasks: Tasks::root(Arc::new(RealSpawn)),
            probe: Arc::new(NoProbe),
            metrics: Arc::default(),
            fatal: Arc::new(|why| {
                tracing::error!(why, "stopping the process: going on could lose acknowledged writes");
                eprintln!("quorate: fatal: {why}");
                std::process::abort();
            }),
        })
    }

    /// An environment of the given ports.
    pub fn from_parts(parts: EnvParts) -> Self {
        Self { parts }
    }

    /// The ports it is made of, for whoever exchanges one.
    pub fn into_parts(self) -> EnvParts {
        self.parts
    }

    /// The same world, with tasks spawned under a new branch of the task tree.
    pub fn scope(&self, name: &'static str) -> Self {
        let mut parts = self.parts.clone();
        parts.tasks = parts.tasks.child(name);
        Self { parts }
    }

    /// As [`scope`](Self::scope), under a branch that goes on when this one is told to stop: see [`Tasks::apart`].
    pub fn apart(&self, name: &'static str) -> Self {
        let mut parts = self.parts.clone();
        parts.tasks = parts.tasks.apart(name);
        Self { parts }
    }

    /// The wall clock. It may jump; never order or expire by it.
    pub fn wall(&self) -> Wall {
        self.parts.clocks.wall()
    }

    /// The monotonic clock.
    #[inline]
    pub fn mono(&self) -> Mono {
        self.parts.clocks.mono()
    }

    /// The boot-time clock, which goes on counting through a suspend.
    pub fn boot(&self) -> Boot {
        self.parts.clocks.boot()
    }

    /// Waits until the monotonic clock reads at least `due`. Cancel safe.
    pub async fn sleep_until(&self, due: Mono) {
        self.parts.clocks.sleep_until(due).await;
    }

    /// Waits for `span`. Cancel safe.
    pub async fn sleep(&self, span: Duration) {
        self.sleep_until(self.mono() + span).await;
    }

    /// Awaits `work` for at most `span`; `None` when time ran out first, and `work` is then dropped.
    pub async fn timeout<T>(&self, span: Duration, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            done = work => Some(done),
            () = self.sleep(span) => None,
        }
    }

    /// A generator of its own for `purpose`, so that a draw added in one place reshuffles no other.
    pub fn random(&self, purpose: &str) -> Rng {
        self.parts.random.stream(purpose)
    }

    /// Files and file systems.
    pub fn disk(&self) -> &Arc<dyn Disk> {
        &self.parts.disk
    }

    /// Listening and dialling.
    pub fn net(&self) -> &Arc<dyn Net> {
        &self.parts.net
    }

    /// The branch of the task tree that this environment spawns under.
    pub fn tasks(&self) -> &Tasks {
        &self.parts.tasks
    }

    /// Runs `work`, which may block, away from the async threads and returns its result.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the wait, not the work.
    pub async fn run_blocking<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let (reply, answer) = tokio::sync::oneshot::channel();
        let job = Box::new(move || {
            let _ = reply.send(work());
        });
        self.parts.blocking.run(job).await;
        answer.await.unwrap_or_else(|_| unreachable!("blocking work returns only after it has replied"))
    }

    /// Gives `worker` a thread of its own (in simulation: a task) that works whenever it is kicked.
    pub fn dedicate(&self, name: &str, worker: Box<dyn Dedicated>) -> Kick {
        self.parts.blocking.dedicate(name, worker)
    }

    /// The metrics registry, for registering metrics at start-up and for rendering them.
    pub fn metrics(&self) -> MutexGuard<'_, Registry> {
        self.parts.metrics.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether to take the rare path at `point` on purpose; never outside simulation. See [`Probe::buggify`].
    pub fn buggify(&self, point: &'static str) -> bool {
        self.parts.probe.buggify(point)
    }

    /// Whether the bug `piece` of the museum is planted in this world. See [`Probe::planted`].
    #[cfg(feature = "museum")]
    pub fn planted(&self, piece: &'static str) -> bool {
        self.parts.probe.planted(piece)
    }

    /// Reports that the rare state `state` was reached. See [`Probe::reached`].
    pub fn reached(&self, state: &'static str) {
        self.parts.probe.reached(state);
    }

    /// Ends the process (or the simulated host) at once. For the few faults after which going on would break a
    /// promise, a failed fsync first of all.
    pub fn fatal(&self, why: &str) {
        (self.parts.fatal)(why);
    }
}
