//! The network between one client and the node: it carries bytes both ways, and delays, holds and breaks them as it is told.

use std::{
    io,
    net::SocketAddr,
    time::{Duration, Instant},
};

use quorate_runtime::random::{Random, Rng};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, tcp},
    sync::watch,
    task::JoinSet,
    time::{sleep, sleep_until},
};

/// The most bytes that travel together; less is drawn each time, so that messages arrive in arbitrary pieces.
const PIECE: usize = 4_096;

/// A client's way to the node. Everything that is carried ends when it is dropped.
pub(crate) struct Route {
    /// Where the client finds the node.
    pub(crate) at: SocketAddr,
    weather: watch::Sender<Weather>,
    _carrying: JoinSet<()>,
}

/// What it is like on a route. Nothing is wrong by default.
#[derive(Clone, Copy, Default)]
struct Weather {
    /// Nobody listens.
    is_closed: bool,
    /// Connections are not answered until then.
    deaf_until: Option<Instant>,
    to_node: Way,
    to_client: Way,
    /// How often all connections were broken.
    resets: u64,
}

#[derive(Clone, Copy, Default)]
struct Way {
    cut_until: Option<Instant>,
    slow_until: Option<Instant>,
    extra: Duration,
}

/// One of the two ways.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Towards {
    Node,
    Client,
}

impl Route {
    /// A route to the node at `node`, on a free port.
    pub(crate) async fn open(node: SocketAddr, random: Random) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (at, weather) = (listener.local_addr().unwrap(), watch::Sender::new(Weather::default()));
        let mut carrying = JoinSet::new();
        carrying.spawn(listen(at, listener, node, weather.subscribe(), random));
        Self { at, weather, _carrying: carrying }
    }

    /// Holds back what travels `towards` for `span`; it arrives when that is over.
    pub(crate) fn cut(&self, towards: Towards, span: Duration) {
        self.weather.send_modify(|weather| {
            let way = weather.way_mut(towards);
            way.cut_until = way.cut_until.max(Some(Instant::now() + span));
        });
    }

    /// Has every piece take up to `extra` longer, both ways, for `span`.
    pub(crate) fn slow(&self, extra: Duration, span: Duration) {
        self.weather.send_modify(|weather| {
            for towards in [Towards::Node, Towards::Client] {
                let way = weather.way_mut(towards);
                *way = Way { slow_until: Some(Instant::now() + span), extra, ..*way };
            }
        });
    }

    /// Breaks every connection: both ends are told, and what was on its way is gone.
    pub(crate) fn reset(&self) {
        self.weather.send_modify(|weather| weather.resets += 1);
    }

    /// Answers no new connection for `span`; the others go on.
    pub(crate) fn deafen(&self, span: Duration) {
        self.weather.send_modify(|weather| {
            weather.deaf_until = weather.deaf_until.max(Some(Instant::now() + span));
        });
    }

    /// Refuses new connections, as a machine does where the process is gone, or takes them again.
    pub(crate) fn close(&self, is_closed: bool) {
        self.weather.send_modify(|weather| weather.is_closed = is_closed);
    }

    /// Ends everything that is wrong, except that a node that is down is not there.
    pub(crate) fn heal(&self) {
        self.weather.send_modify(|weather| {
            *weather = Weather { is_closed: weather.is_closed, resets: weather.resets, ..Weather::default() };
        });
    }
}

impl Weather {
    fn way(&self, towards: Towards) -> Way {
        match towards {
            Towards::Node => self.to_node,
            Towards::Client => self.to_client,
        }
    }

    fn way_mut(&mut self, towards: Towards) -> &mut Way {
        match towards {
            Towards::Node => &mut self.to_node,
            Towards::Client => &mut self.to_client,
        }
    }
}

/// The time that is left until `end`, if any is.
fn ahead(end: Option<Instant>) -> Option<Instant> {
    end.filter(|end| *end > Instant::now())
}

/// Takes connections while there is somebody to take them.
async fn listen(
    at: SocketAddr,
    first: TcpListener,
    node: SocketAddr,
    mut weather: watch::Receiver<Weather>,
    random: Random,
) {
    let (mut listener, mut carrying) = (Some(first), JoinSet::new());
    loop {
        while carrying.try_join_next().is_some() {}
        let now = *weather.borrow_and_update();
        if now.is_closed {
            listener = None;
            if weather.changed().await.is_err() {
                return;
            }
            continue;
        }
        let Some(listening) = &listener else {
            // Somebody else's connection may come from this port for a moment.
            listener = TcpListener::bind(at).await.ok();
            if listener.is_none() {
                sleep(Duration::from_millis(20)).await;
            }
            continue;
        };
        let deaf = ahead(now.deaf_until);
        tokio::select! {
            changed = weather.changed() => if changed.is_err() { return },
            () = sleep_until(deaf.unwrap_or_else(Instant::now).into()), if deaf.is_some() => {}
            accepted = listening.accept(), if deaf.is_none() => if let Ok((client, _)) = accepted {
                carrying.spawn(carry(client, node, weather.clone(), random.branch("way").stream("pieces")));
            },
        }
    }
}

/// Carries bytes between `client` and the node until both are done or something breaks.
async fn carry(mut client: TcpStream, node: SocketAddr, weather: watch::Receiver<Weather>, rng: Rng) {
    let resets = weather.borrow().resets;
    let Ok(mut server) = TcpStream::connect(node).await else {
        return break_off(&client);
    };
    for stream in [&client, &server] {
        let _ = stream.set_nodelay(true);
    }
    let (mut broken, delays) = (weather.clone(), std::sync::Mutex::new(rng));
    let whole = {
        let ((from_client, to_client), (from_server, to_server)) = (client.split(), server.split());
        tokio::select! {
            _ = broken.wait_for(|weather| weather.resets > resets) => false,
            ended = async { tokio::try_join!(
                pump(from_client, to_server, Towards::Node, weather.clone(), &delays),
                pump(from_server, to_client, Towards::Client, weather.clone(), &delays),
            ) } => ended.is_ok(),
        }
    };
    if !whole {
        break_off(&client);
        break_off(&server);
    }
}

/// Has `stream` be reset when it is dropped.
fn break_off(stream: &TcpStream) {
    // It may be gone already.
    let _ = stream.set_zero_linger();
}

/// Carries what travels one way, in pieces, in order.
async fn pump(
    mut from: tcp::ReadHalf<'_>,
    mut to: tcp::WriteHalf<'_>,
    towards: Towards,
    mut weather: watch::Receiver<Weather>,
    draws: &std::sync::Mutex<Rng>,
) -> io::Result<()> {
    let below = |bound: u64| draws.lock().unwrap().below(bound.max(1));
    let mut piece = [0; PIECE];
    loop {
        let most = 1 + usize::try_from(below(PIECE as u64)).unwrap();
        let count = from.read(&mut piece[..most]).await?;
        let now = open(&mut weather, towards).await;
        if ahead(now.slow_until).is_some() {
            let most = u64::try_from(now.extra.as_micros()).unwrap();
            sleep(Duration::from_micros(below(most))).await;
        }
        if count == 0 {
            return to.shutdown().await;
        }
        to.write_all(&piece[..count]).await?;
    }
}

/// Waits until the way is not cut.
async fn open(weather: &mut watch::Receiver<Weather>, towards: Towards) -> Way {
    loop {
        let now = weather.borrow_and_update().way(towards);
        let Some(end) = ahead(now.cut_until) else { return now };
        tokio::select! {
            () = sleep_until(end.into()) => {}
            changed = weather.changed() => if changed.is_err() { return now },
        }
    }
}
