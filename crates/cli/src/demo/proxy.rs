//! What lies between two services: a TCP proxy that can be slow, or lead nowhere.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use quorate_runtime::{Env, net::Io};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    sync::watch,
};

use crate::exit::Failure;

/// How the line is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Line {
    /// What comes in goes out.
    #[default]
    Open,
    /// Every piece takes its time.
    Slow,
    /// Nothing passes, in either direction, and nobody is told so: what was on its way is lost.
    Cut,
    /// Requests pass, and what is answered is lost.
    Mute,
}

impl Line {
    fn is_cut(self) -> bool {
        matches!(self, Self::Cut | Self::Mute)
    }
}

/// How long a piece takes on a slow line; one of [`STALLS`] takes longer than its sender waits.
const SLOWNESS: Duration = Duration::from_millis(40);
const STALL: Duration = Duration::from_millis(1_200);
const STALLS: u64 = 8;

/// A proxy in front of a service. Its own address stays when the service comes back at another one.
pub(crate) struct Proxy {
    address: SocketAddr,
    target: Arc<Mutex<Option<SocketAddr>>>,
    line: watch::Sender<Line>,
    /// Pieces that were delayed or lost so far.
    spoilt: Arc<AtomicU64>,
}

impl Proxy {
    /// Begins to listen; nothing is behind it yet.
    pub(crate) async fn start(env: &Env) -> Result<Self, Failure> {
        let failed = |cause| Failure::io("a port of this machine cannot be listened on", &cause);
        let listener = env.net().listen(SocketAddr::from(([127, 0, 0, 1], 0))).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let target = Arc::<Mutex<Option<SocketAddr>>>::default();
        let (line, _) = watch::channel(Line::Open);
        let spoilt = Arc::<AtomicU64>::default();
        let (behind, lines, spoiling, of_tasks) = (target.clone(), line.clone(), spoilt.clone(), env.clone());
        env.tasks().spawn("demo-proxy", async move {
            let stop = of_tasks.tasks().stop().clone();
            loop {
                let accepted = tokio::select! {
                    () = stop.cancelled() => return,
                    accepted = listener.accept() => accepted,
                };
                let Ok((client, _)) = accepted else { continue };
                let target = *behind.lock().unwrap_or_else(PoisonError::into_inner);
                // Dropping the connection tells the client that nobody is there.
                let Some(target) = target else { continue };
                let way = Way { env: of_tasks.clone(), line: lines.subscribe(), spoilt: spoiling.clone() };
                of_tasks.tasks().spawn("demo-line", way.connect(client, target));
            }
        });
        Ok(Self { address, target, line, spoilt })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Leads to `target` from now on.
    pub(crate) fn lead_to(&self, target: Option<SocketAddr>) {
        *self.target.lock().unwrap_or_else(PoisonError::into_inner) = target;
    }

    /// Makes the line so.
    pub(crate) fn set(&self, line: Line) {
        self.line.send_replace(line);
    }

    /// How many pieces were delayed or lost so far.
    pub(crate) fn spoilt(&self) -> u64 {
        self.spoilt.load(Ordering::Relaxed)
    }

    /// How the line is.
    pub(crate) fn line(&self) -> Line {
        *self.line.borrow()
    }
}

/// One connection's way.
struct Way {
    env: Env,
    line: watch::Receiver<Line>,
    spoilt: Arc<AtomicU64>,
}

/// What goes along it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Passing {
    Requests,
    Answers,
}

impl Way {
    async fn connect(self, client: Box<dyn Io>, target: SocketAddr) {
        let stop = self.env.tasks().stop().clone();
        let Ok(server) = self.env.net().connect(target).await else { return };
        let (from_client, to_client) = tokio::io::split(client);
        let (from_server, to_server) = tokio::io::split(server);
        tokio::select! {
            () = stop.cancelled() => {}
            // Either end closes both: HTTP leaves no half open.
            () = self.pass(Passing::Requests, from_client, to_server) => {}
            () = self.pass(Passing::Answers, from_server, to_client) => {}
            () = self.over() => {}
        }
    }

    /// Waits until a line that was cut is mended: what was lost on it is lost, so the connection ends.
    async fn over(&self) {
        let mut line = self.line.clone();
        let cut = line.wait_for(|line| line.is_cut()).await.is_ok();
        if !cut || line.wait_for(|line| !line.is_cut()).await.is_err() {
            std::future::pending().await
        }
    }

    async fn pass(&self, what: Passing, mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) {
        let mut piece = vec![0; 16 << 10];
        while let Ok(read) = from.read(&mut piece).await {
            if read == 0 {
                return;
            }
            let line = *self.line.borrow();
            match line {
                Line::Slow => {
                    let nth = self.spoilt.fetch_add(1, Ordering::Relaxed);
                    self.env.sleep(if nth.is_multiple_of(STALLS) { STALL } else { SLOWNESS }).await;
                }
                Line::Mute if what == Passing::Requests => {}
                Line::Cut | Line::Mute => {
                    self.spoilt.fetch_add(1, Ordering::Relaxed);
                    continue;
                }
                Line::Open => {}
            }
            if to.write_all(&piece[..read]).await.is_err() {
                return;
            }
        }
    }
}
