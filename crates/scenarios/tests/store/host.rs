//! A host with a simulated disk and nothing else: enough for a store, without a world around it.

use std::{
    io,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use quorate_data::store::{Limits, OpenError, Store, conformance::Place, sqlite};
use quorate_foundations::time::{Boot, Mono, Wall};
use quorate_runtime::{
    BoxFuture, Env, EnvParts,
    blocking::{Blocking, Dedicated, Kick, Work},
    clock::Clocks,
    fault::disk::Survival,
    net::{Io, Listener, Net},
    probe::NoProbe,
    random::Random,
};
use quorate_sim::disk::{self, Model, SimDisk};
use tokio::sync::Notify;

/// A host whose store is at `store.db`.
pub(crate) struct Host {
    pub(crate) disk: SimDisk,
    random: Random,
    start: tokio::time::Instant,
    /// How often its disk died: each time another part of what was not synced survives.
    deaths: AtomicU64,
}

/// Time that passes while somebody sleeps, and a little whenever somebody looks.
struct Ticking(tokio::time::Instant, AtomicU64);

impl Ticking {
    fn elapsed(&self) -> Duration {
        self.0.elapsed() + Duration::from_micros(self.1.fetch_add(10, Ordering::Relaxed))
    }
}

impl Clocks for Ticking {
    fn wall(&self) -> Wall {
        Wall::from_unix_nanos(1_767_225_600_000_000_000) + self.elapsed()
    }

    fn mono(&self) -> Mono {
        Mono::ZERO + self.elapsed()
    }

    fn boot(&self) -> Boot {
        Boot::ZERO + self.elapsed()
    }

    fn sleep_until(&self, due: Mono) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep_until(self.0 + Duration::from_nanos(due.as_nanos())))
    }
}

struct Inline;

impl Blocking for Inline {
    fn run(&self, job: Box<dyn FnOnce() + Send>) -> BoxFuture<'static, ()> {
        job();
        Box::pin(std::future::ready(()))
    }

    fn dedicate(&self, _: &str, mut worker: Box<dyn Dedicated>) -> Kick {
        let kicked = Arc::new(Notify::new());
        let kick = kicked.clone();
        tokio::spawn(async move {
            while worker.work() == Work::Idle {
                kicked.notified().await;
            }
        });
        Kick::new(move || kick.notify_one())
    }
}

struct Alone;

impl Net for Alone {
    fn listen(&self, _: SocketAddr) -> BoxFuture<'static, io::Result<Box<dyn Listener>>> {
        Box::pin(std::future::ready(Err(io::ErrorKind::Unsupported.into())))
    }

    fn connect(&self, _: SocketAddr) -> BoxFuture<'static, io::Result<Box<dyn Io>>> {
        Box::pin(std::future::ready(Err(io::ErrorKind::NetworkUnreachable.into())))
    }
}

impl Host {
    /// A host from `seed`, the only one of its process at a time. Call it inside a runtime whose time is paused.
    pub(crate) fn new(seed: u64, model: Model) -> Self {
        let random = Random::from_seed([3; 32]).branch(&seed.to_string());
        disk::register();
        disk::seed(random.stream("sqlite"));
        let disk = SimDisk::new("host", model, random.stream("disk"));
        Self { disk, random, start: tokio::time::Instant::now(), deaths: AtomicU64::new(0) }
    }

    fn env(&self) -> Env {
        let disk = self.disk.clone();
        Env::from_parts(EnvParts {
            clocks: Arc::new(Ticking(self.start, AtomicU64::new(0))),
            random: self.random.clone(),
            disk: self.disk.mount(),
            net: Arc::new(Alone),
            blocking: Arc::new(Inline),
            tasks: Env::real().tasks().clone(),
            metrics: Arc::default(),
            probe: Arc::new(NoProbe),
            fatal: Arc::new(move |_| disk.crash()),
        })
    }

    /// Opens the store.
    pub(crate) async fn try_open(&self, limits: Limits) -> Result<Store, OpenError> {
        sqlite::open(&self.env(), sqlite::Config { limits, ..sqlite::Config::at("store.db") }).await
    }

    /// Ends the process and nothing else, once whatever still runs has met a dead disk.
    pub(crate) async fn restart(&self) {
        self.disk.crash();
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        self.disk.kill();
    }

    /// Cuts the power, once whatever still runs has met a dead disk.
    pub(crate) async fn lose_power(&self, survival: Survival) {
        if !self.disk.is_dead() {
            self.disk.crash();
        }
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        self.disk.power_loss(survival, &mut self.random.stream("power"));
    }
}

impl Place for Host {
    fn open(&self, limits: Limits) -> BoxFuture<'_, Store> {
        Box::pin(async move { self.try_open(limits).await.unwrap() })
    }

    fn file(&self, name: &str) -> PathBuf {
        name.into()
    }

    fn crash(&self, store: Store) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            self.disk.crash();
            drop(store);
            let nth = usize::try_from(self.deaths.fetch_add(1, Ordering::Relaxed)).unwrap();
            self.lose_power(Survival::ALL[nth % Survival::ALL.len()]).await;
        })
    }
}
