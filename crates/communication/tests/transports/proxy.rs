//! A line between clients and their broker that can be cut, after it has let pass what was sent and nothing of the answers.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
};

/// How long the broker has for what was sent before the line is cut.
const BEFORE_CUT: Duration = Duration::from_millis(500);

pub(crate) struct Proxy {
    pub(crate) port: u16,
    state: Arc<State>,
}

struct State {
    to: SocketAddr,
    is_mute: AtomicBool,
    round: AtomicU64,
    /// Moves when all lines are cut.
    cut: watch::Sender<u64>,
}

impl Proxy {
    pub(crate) async fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let own = listener.local_addr().unwrap().port();
        let to = SocketAddr::from(([127, 0, 0, 1], port));
        let (is_mute, round, cut) = (AtomicBool::default(), AtomicU64::default(), watch::Sender::new(0));
        let state = Arc::new(State { to, is_mute, round, cut });
        tokio::spawn(accept(listener, state.clone()));
        Self { port: own, state }
    }

    /// Answers are lost from now on, and a little later the lines are cut; new ones do not come about.
    pub(crate) fn lose_answers(&self) {
        self.state.is_mute.store(true, Ordering::SeqCst);
        let (state, round) = (self.state.clone(), self.state.round.fetch_add(1, Ordering::SeqCst) + 1);
        tokio::spawn(async move {
            tokio::time::sleep(BEFORE_CUT).await;
            state.cut.send_replace(round);
        });
    }

    pub(crate) fn mend(&self) {
        // Lines that have lost answers are of no use any more.
        let round = self.state.round.fetch_add(1, Ordering::SeqCst) + 1;
        self.state.cut.send_replace(round);
        self.state.is_mute.store(false, Ordering::SeqCst);
    }
}

async fn accept(listener: TcpListener, state: Arc<State>) {
    while let Ok((client, _)) = listener.accept().await {
        if state.is_mute.load(Ordering::SeqCst) {
            continue;
        }
        // A broker that is away refuses, and so does the line.
        let Ok(broker) = TcpStream::connect(state.to).await else { continue };
        tokio::spawn(carry(client, broker, state.clone()));
    }
}

async fn carry(client: TcpStream, broker: TcpStream, state: Arc<State>) {
    let mut cut = state.cut.subscribe();
    cut.mark_unchanged();
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_broker, mut to_broker) = broker.into_split();
    let forth = async { drop(tokio::io::copy(&mut from_client, &mut to_broker).await) };
    let back = async {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(count @ 1..) = from_broker.read(&mut buffer).await {
            let is_lost = state.is_mute.load(Ordering::SeqCst);
            if !is_lost && to_client.write_all(&buffer[..count]).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = forth => {}
        () = back => {}
        _ = cut.changed() => {}
    }
}
