//! An upstream on this machine that does as it is told: a real socket, real HTTP, and a note of all that reached it.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use quorate_foundations::time::Mono;
use quorate_runtime::{Env, net::Io};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::exit::{Exit, Failure};

/// What an upstream does with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Does {
    /// 200, at once.
    Answer,
    /// 503, at once.
    Fail,
    /// Closes the connection.
    Close,
    /// 200, after so long.
    Slow(Duration),
    /// 200, every so manieth of them after so long.
    SlowEvery(u64, Duration),
    /// 200 at once, and then a body of which a byte comes now and then.
    Trickle,
}

/// The upstream. It ends with the environment's tasks.
#[derive(Clone)]
pub(super) struct Upstream {
    address: SocketAddr,
    state: Arc<State>,
}

struct State {
    env: Env,
    does: Mutex<Does>,
    seen: Mutex<Seen>,
}

/// What reached the upstream.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    /// When each request came.
    pub(super) arrivals: Vec<Mono>,
    /// Requests under way.
    under_way: usize,
    /// The most that were under way at once.
    pub(super) most: usize,
    /// Requests whose caller left before they were answered.
    pub(super) left: usize,
    /// Requests that said how long their caller waits.
    pub(super) told: usize,
    /// The methods of all requests.
    pub(super) writes: usize,
}

impl Upstream {
    /// Listens on a free port of this machine.
    pub(super) async fn start(env: &Env) -> Result<Self, Failure> {
        let cannot = |cause: io::Error| Failure::new(Exit::Io, format!("no port to listen on: {cause}"));
        let listener = env.net().listen(SocketAddr::from(([127, 0, 0, 1], 0))).await.map_err(cannot)?;
        let address = listener.local_addr().map_err(cannot)?;
        let state = State { env: env.clone(), does: Mutex::new(Does::Answer), seen: Mutex::default() };
        let state = Arc::new(state);
        let (of_task, tasks) = (state.clone(), env.tasks().clone());
        env.tasks().spawn("upstream", async move {
            while let Ok((io, _)) = listener.accept().await {
                let state = of_task.clone();
                tasks.spawn("upstream's connection", async move { _ = state.serve(io).await });
            }
        });
        Ok(Self { address, state })
    }

    /// Where it is.
    pub(super) fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// From now on it does this.
    pub(super) fn does(&self, does: Does) {
        *lock(&self.state.does) = does;
    }

    /// What reached it.
    pub(super) fn seen(&self) -> Seen {
        lock(&self.state.seen).clone()
    }
}

impl State {
    async fn serve(&self, mut io: Box<dyn Io>) -> io::Result<()> {
        let mut read = Vec::new();
        loop {
            let Some(end) = head(&mut io, &mut read).await? else { return Ok(()) };
            let text = String::from_utf8_lossy(&read[..end]).to_ascii_lowercase();
            read.drain(..end);
            let nth = self.came(&text);
            let does = *lock(&self.does);
            let span = match does {
                Does::Slow(span) => Some(span),
                Does::SlowEvery(n, span) => nth.is_multiple_of(n).then_some(span),
                Does::Answer | Does::Fail | Does::Close | Does::Trickle => None,
            };
            let left = match span {
                // Whoever hangs up meanwhile is noticed: that is what a real server could stop its work on.
                Some(span) => {
                    let mut byte = [0];
                    let left = self.env.timeout(span, io.read(&mut byte)).await.is_some();
                    lock(&self.seen).left += usize::from(left);
                    left
                }
                None => false,
            };
            let answered = if left { Ok(()) } else { self.answer(&mut io, does).await };
            lock(&self.seen).under_way -= 1;
            answered?;
            if left || matches!(does, Does::Close | Does::Trickle) {
                return Ok(());
            }
        }
    }

    /// Notes a request.
    fn came(&self, head: &str) -> u64 {
        let mut seen = lock(&self.seen);
        seen.arrivals.push(self.env.mono());
        seen.under_way += 1;
        seen.most = seen.most.max(seen.under_way);
        seen.told += usize::from(head.contains("\r\nquorate-timeout:"));
        seen.writes += usize::from(head.starts_with("post "));
        seen.arrivals.len() as u64
    }

    async fn answer(&self, io: &mut Box<dyn Io>, does: Does) -> io::Result<()> {
        match does {
            Does::Close => io.shutdown().await,
            Does::Fail => io.write_all(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n").await,
            Does::Answer | Does::Slow(_) | Does::SlowEvery(..) => {
                io.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await
            }
            Does::Trickle => {
                io.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n").await?;
                for _ in 0..1_000 {
                    if let Err(gone) = io.write_all(b".").await {
                        lock(&self.seen).left += 1;
                        return Err(gone);
                    }
                    self.env.sleep(Duration::from_millis(20)).await;
                }
                Ok(())
            }
        }
    }
}

/// Reads up to the end of a request's head; `None` if there is no further request.
async fn head(io: &mut Box<dyn Io>, read: &mut Vec<u8>) -> io::Result<Option<usize>> {
    loop {
        if let Some(at) = read.windows(4).position(|window| window == b"\r\n\r\n") {
            return Ok(Some(at + 4));
        }
        if read.len() > 64 << 10 || io.read_buf(read).await? == 0 {
            return Ok(None);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
