//! The network between simulated hosts: streams of bytes that are delayed, chunked, stalled, reset, cut one way, refused, or
//! never answered, but never lose, double or reorder a byte, as TCP does not.
//!
//! Delivery is pulled: a segment lies in its pipe with the time at which it arrives, and whoever reads looks whether that time
//! has come and the way is open. A cut therefore only needs to be noted; when it is over, all readers look again.

mod dial;
mod listener;
mod pipe;
mod stream;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, Weak},
    time::Duration,
};

use quorate_runtime::{
    BoxFuture,
    net::{Io, Listener, Net},
    random::Rng,
};

use self::{listener::Backlog, pipe::Connection};
use crate::{
    executor::{Executor, lock},
    host::HostId,
    trace::Trace,
};

/// How the network behaves while nothing is wrong with it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weather {
    /// The least and the most that a segment is on its way.
    pub(crate) latency: (Duration, Duration),
    /// Whether reads and writes take arbitrary pieces of what they could.
    pub(crate) chunked: bool,
}

/// The network of a world. Cheap to clone; clones are the same network.
#[derive(Clone)]
pub(crate) struct Network {
    executor: Executor,
    trace: Trace,
    state: Arc<Mutex<State>>,
}

struct State {
    rng: Rng,
    weather: Weather,
    hosts: BTreeMap<HostId, HostState>,
    listeners: BTreeMap<(HostId, u16), Arc<Mutex<Backlog>>>,
    connections: BTreeMap<u64, Weak<Mutex<Connection>>>,
    next: u64,
    cuts: Vec<Cut>,
    slow: Vec<Slow>,
    /// Who cannot be dialled, and until when.
    deaf: Vec<(HostId, u64)>,
    /// Programs that have answered somebody who dialled them.
    answering: BTreeSet<HostId>,
    struck: Struck,
}

/// How often what is wrong with the network struck somebody: a cut that nobody has anything to send across harms nobody.
#[derive(Clone, Copy, Default)]
struct Struck {
    connections_broken: u64,
    connects_unanswered: u64,
    reads_held_back: u64,
}

/// What a host's machine answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Presence {
    /// The program runs.
    Up,
    /// The program does not run; the machine refuses for it.
    Down,
    /// The machine is off and says nothing.
    Off,
}

struct HostState {
    presence: Presence,
    /// The next port for whoever asks for none.
    port: u16,
}

/// Nothing from a host of `from` reaches one of `to`, until then.
struct Cut {
    from: Vec<HostId>,
    to: Vec<HostId>,
    until: u64,
}

struct Slow {
    pair: (HostId, HostId),
    extra: Duration,
    until: u64,
}

/// The first port given out by itself.
const EPHEMERAL: u16 = 40_000;

impl State {
    fn is_cut(&self, from: HostId, to: HostId, now: u64) -> bool {
        self.cuts.iter().any(|cut| cut.until > now && cut.from.contains(&from) && cut.to.contains(&to))
    }

    fn is_deaf(&self, host: HostId, now: u64) -> bool {
        self.deaf.iter().any(|(deaf, until)| *deaf == host && *until > now)
    }

    fn presence(&self, host: HostId) -> Presence {
        self.hosts.get(&host).map_or(Presence::Off, |host| host.presence)
    }

    /// How long a segment is on its way, in nanoseconds.
    fn latency(&mut self, from: HostId, to: HostId, now: u64) -> u64 {
        let (least, most) = self.weather.latency;
        let spread = u64::try_from((most.saturating_sub(least)).as_nanos()).unwrap_or(0) + 1;
        let base = u64::try_from(least.as_nanos()).unwrap_or(0);
        let usual = if from == to { base / 10 } else { base + self.rng.below(spread) };
        let extra = self.slow.iter().filter(|slow| slow.until > now);
        let extra =
            extra.filter(|slow| slow.pair == (from, to) || slow.pair == (to, from)).map(|slow| slow.extra).max();
        match extra.map(|extra| u64::try_from(extra.as_nanos()).unwrap_or(0)) {
            Some(extra) if extra > 0 => usual + self.rng.below(extra),
            _ => usual,
        }
    }

    /// How much of `most` bytes is taken at once.
    fn piece(&mut self, most: usize) -> usize {
        if !self.weather.chunked || most < 2 || self.rng.below(4) != 0 {
            return most;
        }
        1 + usize::try_from(self.rng.below(most as u64)).unwrap_or(0)
    }

    fn free_port(&mut self, host: HostId) -> u16 {
        let Some(state) = self.hosts.get_mut(&host) else { return EPHEMERAL };
        state.port = if state.port == u16::MAX { EPHEMERAL } else { state.port + 1 };
        state.port
    }
}

impl Network {
    pub(crate) fn new(executor: &Executor, trace: &Trace, rng: Rng, weather: Weather) -> Self {
        let state = State {
            rng,
            weather,
            hosts: BTreeMap::new(),
            listeners: BTreeMap::new(),
            connections: BTreeMap::new(),
            next: 0,
            cuts: Vec::new(),
            slow: Vec::new(),
            deaf: Vec::new(),
            answering: BTreeSet::new(),
            struck: Struck::default(),
        };
        Self { executor: executor.clone(), trace: trace.clone(), state: Arc::new(Mutex::new(state)) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// The network as `host` sees it.
    pub(crate) fn of(&self, host: HostId) -> HostNet {
        HostNet { net: self.clone(), host }
    }

    /// A program begins on `host`, on a machine that remembers no connection of an earlier life.
    pub(crate) fn up(&self, host: HostId) {
        {
            let mut state = self.state();
            let known = state.hosts.entry(host).or_insert(HostState { presence: Presence::Up, port: EPHEMERAL });
            known.presence = Presence::Up;
        }
        self.each(host, |connection| connection.forgotten(host));
    }

    /// Whether the program on `host` has answered anybody since it began.
    pub(crate) fn answers(&self, host: HostId) -> bool {
        self.state().answering.contains(&host)
    }

    /// The program on `host` is gone. Its peers receive what it had sent and are told of the end as soon as they can be reached,
    /// unless the machine is off.
    pub(crate) fn down(&self, host: HostId, presence: Presence) {
        let ended = {
            let mut state = self.state();
            if let Some(known) = state.hosts.get_mut(&host) {
                known.presence = presence;
            }
            state.answering.remove(&host);
            let gone: Vec<_> = state.listeners.keys().filter(|(of, _)| *of == host).copied().collect();
            gone.iter().filter_map(|key| state.listeners.remove(key)).collect::<Vec<_>>()
        };
        drop(ended);
        match presence {
            Presence::Off => self.each(host, |connection| connection.abandon(host)),
            Presence::Up | Presence::Down => {
                let now = self.executor.now();
                self.each(host, |connection| {
                    let peer = connection.peer_of(host);
                    let latency = self.state().latency(host, peer, now);
                    connection.close(host, now, latency);
                });
            }
        }
    }

    /// Breaks every connection of `host`.
    pub(crate) fn reset(&self, host: HostId) {
        let mut broken = 0;
        self.each(host, |connection| {
            broken += u64::from(!connection.broken);
            connection.reset();
        });
        self.state().struck.connections_broken += broken;
    }

    /// How often each kind of trouble struck somebody.
    pub(crate) fn struck(&self) -> [(&'static str, u64); 3] {
        let Struck { connections_broken, connects_unanswered, reads_held_back } = self.state().struck;
        [
            ("network: a connection was broken", connections_broken),
            ("network: a connect was not answered", connects_unanswered),
            ("network: bytes were held back", reads_held_back),
        ]
    }

    fn each(&self, host: HostId, mut change: impl FnMut(&mut Connection)) {
        let connections: Vec<_> = {
            let mut state = self.state();
            state.connections.retain(|_, connection| connection.strong_count() > 0);
            state.connections.values().filter_map(Weak::upgrade).collect()
        };
        for connection in connections {
            let mut connection = lock(&connection);
            if connection.joins(host) {
                change(&mut connection);
            }
        }
    }

    /// Closes the way from any of `from` to any of `to` for `span`. [`look_again`](Self::look_again) is due when it is over.
    pub(crate) fn cut(&self, from: Vec<HostId>, to: Vec<HostId>, span: Duration) {
        let until = self.in_future(span);
        self.state().cuts.push(Cut { from, to, until });
    }

    pub(crate) fn slow(&self, a: HostId, b: HostId, extra: Duration, span: Duration) {
        let until = self.in_future(span);
        self.state().slow.push(Slow { pair: (a, b), extra, until });
    }

    /// Lets nobody get through to `host` who has no connection yet.
    pub(crate) fn deafen(&self, host: HostId, span: Duration) {
        let until = self.in_future(span);
        self.state().deaf.push((host, until));
    }

    /// Ends everything that is wrong.
    pub(crate) fn heal(&self) {
        {
            let mut state = self.state();
            state.cuts.clear();
            state.slow.clear();
            state.deaf.clear();
        }
        self.look_again();
    }

    /// Wakes all readers: what stood in their way may be over.
    pub(crate) fn look_again(&self) {
        let connections: Vec<_> = self.state().connections.values().filter_map(Weak::upgrade).collect();
        connections.iter().for_each(|connection| lock(connection).wake_all());
    }

    fn in_future(&self, span: Duration) -> u64 {
        self.executor.now().saturating_add(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX))
    }
}

/// The address of a host in the world.
pub(crate) fn address_of(host: HostId) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 0, 0, host.0 + 1))
}

/// The host at an address, as `from` sees it.
fn host_at(address: IpAddr, from: HostId) -> Option<HostId> {
    match address {
        address if address.is_loopback() => Some(from),
        IpAddr::V4(address) => match address.octets() {
            [10, 0, 0, last] if last > 0 => Some(HostId(last - 1)),
            _ => None,
        },
        IpAddr::V6(_) => None,
    }
}

/// The network as one host sees it.
#[derive(Clone)]
pub(crate) struct HostNet {
    net: Network,
    host: HostId,
}

impl Net for HostNet {
    fn listen(&self, at: SocketAddr) -> BoxFuture<'static, io::Result<Box<dyn Listener>>> {
        let this = self.clone();
        Box::pin(async move { listener::listen(&this, at) })
    }

    fn connect(&self, to: SocketAddr) -> BoxFuture<'static, io::Result<Box<dyn Io>>> {
        let this = self.clone();
        Box::pin(async move { dial::dial(&this, to).await.map(|stream| Box::new(stream) as Box<dyn Io>) })
    }
}
