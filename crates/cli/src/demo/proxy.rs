//! What lies between two services: a TCP proxy that can be slow, or lead nowhere.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
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
pub(super) enum Line {
    /// What comes in goes out.
    #[default]
    Open,
    /// Every piece takes its time.
    Slow,
    /// Nothing passes, in either direction, and nobody is told so: what was on its way is lost.
    Cut,
}

/// How long a piece takes on a slow line.
const SLOWNESS: Duration = Duration::from_millis(60);

/// A proxy in front of a service. Its own address stays when the service comes back at another one.
pub(super) struct Proxy {
    address: SocketAddr,
    target: Arc<Mutex<Option<SocketAddr>>>,
    line: watch::Sender<Line>,
}

impl Proxy {
    /// Begins to listen; nothing is behind it yet.
    pub(super) async fn start(env: &Env) -> Result<Self, Failure> {
        let failed = |cause| Failure::io("a port of this machine cannot be listened on", &cause);
        let listener = env.net().listen(SocketAddr::from(([127, 0, 0, 1], 0))).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let target = Arc::<Mutex<Option<SocketAddr>>>::default();
        let (line, _) = watch::channel(Line::Open);
        let (behind, lines, of_tasks) = (target.clone(), line.clone(), env.clone());
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
                let (env, line) = (of_tasks.clone(), lines.subscribe());
                of_tasks.tasks().spawn("demo-line", connect(env, client, target, line));
            }
        });
        Ok(Self { address, target, line })
    }

    /// Where it listens.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Leads to `target` from now on.
    pub(super) fn lead_to(&self, target: Option<SocketAddr>) {
        *self.target.lock().unwrap_or_else(PoisonError::into_inner) = target;
    }

    /// Makes the line so.
    pub(super) fn set(&self, line: Line) {
        self.line.send_replace(line);
    }

    /// How the line is.
    pub(super) fn line(&self) -> Line {
        *self.line.borrow()
    }
}

async fn connect(env: Env, client: Box<dyn Io>, target: SocketAddr, line: watch::Receiver<Line>) {
    let stop = env.tasks().stop().clone();
    let Ok(server) = env.net().connect(target).await else { return };
    let (from_client, to_client) = tokio::io::split(client);
    let (from_server, to_server) = tokio::io::split(server);
    tokio::select! {
        () = stop.cancelled() => {}
        // Either end closes both: HTTP leaves no half open.
        () = pass(&env, from_client, to_server, line.clone()) => {}
        () = pass(&env, from_server, to_client, line.clone()) => {}
        () = over(line.clone()) => {}
    }
}

/// Waits until a line that was cut is mended: what was lost on it is lost, so the connection ends.
async fn over(mut line: watch::Receiver<Line>) {
    let cut = line.wait_for(|line| *line == Line::Cut).await.is_ok();
    if !cut || line.wait_for(|line| *line != Line::Cut).await.is_err() {
        std::future::pending().await
    }
}

async fn pass(
    env: &Env,
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    line: watch::Receiver<Line>,
) {
    let mut piece = vec![0; 16 << 10];
    while let Ok(read) = from.read(&mut piece).await {
        let now = *line.borrow();
        match now {
            _ if read == 0 => return,
            Line::Open => {}
            Line::Slow => env.sleep(SLOWNESS).await,
            Line::Cut => continue,
        }
        if to.write_all(&piece[..read]).await.is_err() {
            return;
        }
    }
}
