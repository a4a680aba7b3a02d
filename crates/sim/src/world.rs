//! A world: hosts, what goes wrong with them, and what must come of it.

mod agenda;
mod hosts;
mod lasting;
mod run;
mod turn;

use std::{
    future::Future,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex},
    time::Duration,
};

use quorate_runtime::{BoxFuture, Env, fault::FaultPlan, random::Random};
use tokio::sync::watch;

pub use self::lasting::OutOfContract;
use self::{agenda::Agenda, hosts::Host, lasting::Lasting, turn::Turn};
use crate::{
    clock, disk,
    executor::Executor,
    host::HostId,
    net::{Network, Weather, address_of},
    probe::{Counts, SimProbe},
    swarm::Swarm,
    trace::Trace,
};

/// What a world is made of besides its hosts.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// What goes wrong, instead of what the seed says.
    pub plan: Option<FaultPlan>,
    /// Places of the plan, counted from 0, that are left out.
    pub without: Vec<usize>,
    /// Clients, by name, that do nothing. What happens to everybody else is drawn as if they were there.
    pub absent: Vec<String>,
    /// The most rounds of work that a client does, for scenarios whose clients ask for it.
    pub rounds: Option<u64>,
    /// What the world is like, instead of what the seed says.
    pub swarm: Option<Swarm>,
    /// For how long things go wrong; ten seconds unless said otherwise.
    pub faults_for: Option<Duration>,
    /// How long everything may take once nothing goes wrong any more; two minutes unless said otherwise.
    pub liveness_bound: Option<Duration>,
    /// A promise that is broken in this world, though everything rests on it.
    pub out_of_contract: Option<OutOfContract>,
    /// The bug of the museum that is planted in this world, by name.
    pub planted: Option<String>,
    /// Prints every step to standard error, to find where two runs part.
    pub print_trace: bool,
}

/// Where a run stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Things go wrong.
    Faults,
    /// Everything works again: what has not ended must end.
    Healed,
}

/// What a host runs, every time it starts.
type Program = Arc<dyn Fn(Env) -> BoxFuture<'static, Result<(), String>> + Send + Sync>;

/// What a world hears from its hosts while they run.
pub(crate) enum Signal {
    /// The program ended by itself.
    Ended { host: HostId, result: Result<(), String> },
    /// The program ended itself, since going on could break a promise.
    Fatal { host: HostId, why: String },
    /// A fault that lay in wait for its work ended it, and it is down for so long.
    Struck { host: HostId, how: hosts::End, down: Duration, injected: &'static str },
}

pub(crate) type Signals = Arc<Mutex<Vec<Signal>>>;

/// A world from one seed.
///
/// Servers are hosts that things happen to: they crash and start again. Clients are hosts too, with a network and clocks of
/// their own, but they never crash, and their ends are waited for.
///
/// # Example
/// ```
/// use quorate_sim::{Settings, Sim};
/// use tokio::io::{AsyncReadExt, AsyncWriteExt};
///
/// let mut sim = Sim::new(7, Settings { swarm: Some(quorate_sim::Swarm::calm()), ..Settings::default() });
/// let server = sim.server("echo", |env| async move {
///     let listener = env.net().listen("0.0.0.0:7".parse().unwrap()).await.map_err(|e| e.to_string())?;
///     let (mut io, _) = listener.accept().await.map_err(|e| e.to_string())?;
///     let mut word = [0; 5];
///     io.read_exact(&mut word).await.map_err(|e| e.to_string())?;
///     io.write_all(&word).await.map_err(|e| e.to_string())?;
///     env.tasks().stop().cancelled().await;
///     Ok(())
/// });
/// let to = sim.address(server, 7);
/// sim.client("caller", move |env| async move {
///     env.sleep(std::time::Duration::from_millis(10)).await;
///     let mut io = env.net().connect(to).await.map_err(|e| e.to_string())?;
///     io.write_all(b"hello").await.map_err(|e| e.to_string())?;
///     let mut word = [0; 5];
///     io.read_exact(&mut word).await.map_err(|e| e.to_string())?;
///     assert_eq!(&word, b"hello");
///     Ok(())
/// });
/// assert!(sim.run().passed());
/// ```
pub struct Sim {
    seed: u64,
    settings: Settings,
    swarm: Swarm,
    random: Random,
    executor: Executor,
    network: Network,
    trace: Trace,
    injected: Counts,
    reached: Counts,
    probe: Arc<SimProbe>,
    hosts: Vec<Host>,
    agenda: Agenda,
    /// What stays broken once it has begun, and whether it has.
    lasting: Vec<(Lasting, bool)>,
    /// Files of servers whose bits flip.
    rotting: Vec<String>,
    /// Whose clocks go wrong as often as those of all others together.
    clocked: Vec<String>,
    /// Servers whose syncs fail, whatever else does.
    unsynced: Vec<String>,
    /// Servers that are told to stop and started again, whatever else happens to them.
    restarted: Vec<String>,
    signals: Signals,
    phase: watch::Sender<Phase>,
    /// Whether servers were told to stop, so that they may end.
    stopping: bool,
    /// Last, so that everything else is gone when the next world begins.
    turn: Option<Turn>,
}

impl Sim {
    /// The world of `seed`.
    ///
    /// One process, one world: what runs in it may keep state in statics and thread-locals, which a second world in the same
    /// process would inherit. While another thread has a world, this waits for its end.
    ///
    /// # Panics
    /// When this thread has a world already.
    pub fn new(seed: u64, settings: Settings) -> Self {
        let turn = Turn::wait();
        let random = Random::from_seed(*blake3::hash(&seed.to_le_bytes()).as_bytes());
        let drawn = Swarm::draw(&mut random.stream("swarm"));
        let swarm = settings.swarm.clone().unwrap_or(drawn);
        disk::register();
        disk::seed(random.stream("sqlite"));
        let trace = Trace::new(settings.print_trace);
        let executor = Executor::new(random.stream("schedule"), trace.clone());
        let of_sqlite = executor.clone();
        disk::set_clock(move || clock::true_wall(&of_sqlite));
        let weather = Weather { latency: swarm.latency(), chunked: swarm.chunked };
        let network = Network::new(&executor, &trace, random.stream("network"), weather);
        let reached = Counts::default();
        let probe =
            Arc::new(SimProbe::new(swarm.buggify, random.branch("buggify"), reached.clone(), settings.planted.clone()));
        Self {
            seed,
            settings,
            swarm,
            random,
            executor,
            network,
            trace,
            injected: Counts::default(),
            reached,
            probe,
            hosts: Vec::new(),
            agenda: Agenda::default(),
            lasting: Vec::new(),
            rotting: Vec::new(),
            clocked: Vec::new(),
            unsynced: Vec::new(),
            restarted: Vec::new(),
            signals: Signals::default(),
            phase: watch::Sender::new(Phase::Faults),
            stopping: false,
            turn: Some(turn),
        }
    }

    /// A host that runs `program`, and runs it again after every crash. It ends well only once it was told to: a server that is
    /// gone without a word is found.
    pub fn server<F, R>(&mut self, name: &str, program: F) -> HostId
    where
        F: Fn(Env) -> R + Send + Sync + 'static,
        R: Future<Output = Result<(), String>> + Send + 'static,
    {
        self.add(name, false, Arc::new(move |env| Box::pin(program(env))))
    }

    /// A host that runs `program` once and never crashes. The run ends when all clients have.
    pub fn client<F, R>(&mut self, name: &str, program: F) -> HostId
    where
        F: Fn(Env) -> R + Send + Sync + 'static,
        R: Future<Output = Result<(), String>> + Send + 'static,
    {
        if self.is_absent(name) {
            return self.add(name, true, Arc::new(|_| Box::pin(async { Ok(()) })));
        }
        self.add(name, true, Arc::new(move |env| Box::pin(program(env))))
    }

    /// A client without whom nothing could be judged: what it saw in the end is what others are held to. It is never absent.
    pub fn witness<F, R>(&mut self, name: &str, program: F) -> HostId
    where
        F: Fn(Env) -> R + Send + Sync + 'static,
        R: Future<Output = Result<(), String>> + Send + 'static,
    {
        let id = self.add(name, true, Arc::new(move |env| Box::pin(program(env))));
        self.host(id).is_witness = true;
        id
    }

    /// Whether the settings have the client `name` do nothing, so that nobody should wait for what it does.
    pub fn is_absent(&self, name: &str) -> bool {
        self.settings.absent.iter().any(|absent| absent == name)
    }

    /// The most rounds of work that a client should do, of the `usual` ones.
    pub fn rounds_or(&self, usual: usize) -> usize {
        let most = self.settings.rounds.and_then(|rounds| usize::try_from(rounds).ok());
        usual.min(most.unwrap_or(usize::MAX))
    }

    /// The same world in which nothing goes wrong: only the order of things is up to the seed.
    #[must_use]
    pub fn without_faults(mut self) -> Self {
        self.settings.plan = Some(FaultPlan::default());
        self
    }

    /// Where clocks go wrong, they are set three times as often, and half of it happens to those of `server`: for programs that live
    /// by what time it is.
    pub fn trouble_clocks_of(&mut self, server: HostId) {
        let name = self.host(server).name.clone();
        self.clocked.push(name);
    }

    /// Syncs of the disk of `server` fail for a while now and then, in every world: for programs that acknowledge what is durable.
    pub fn fail_syncs_of(&mut self, server: HostId) {
        let name = self.host(server).name.clone();
        self.unsynced.push(name);
    }

    /// `server` is told to stop now and then while things go wrong, in every world, and started again once it has ended: for programs
    /// that promise to end in order.
    pub fn restart(&mut self, server: HostId) {
        let name = self.host(server).name.clone();
        self.restarted.push(name);
    }

    /// Where `port` of a host is reached by the others.
    pub fn address(&self, host: HostId, port: u16) -> SocketAddr {
        SocketAddr::new(self.ip(host), port)
    }

    /// The address of a host.
    pub fn ip(&self, host: HostId) -> IpAddr {
        address_of(host)
    }

    /// Where the run stands, as it changes. Clients that read what finally is wait for [`Phase::Healed`].
    pub fn phase(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    /// The world's true time since it began, for whoever records what happened when: all hosts' clocks lie.
    pub fn true_time(&self) -> TrueTime {
        TrueTime(self.executor.clone())
    }

    /// Randomness for what the scenario itself decides.
    pub fn random(&self, purpose: &str) -> quorate_runtime::random::Rng {
        self.random.branch("scenario").stream(purpose)
    }

    /// For how long things go wrong, where the settings say so: clients then have work for as long.
    pub fn faults_for(&self) -> Option<Duration> {
        self.settings.faults_for
    }

    /// The seed.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// What the seed's world is like.
    pub fn swarm(&self) -> &Swarm {
        &self.swarm
    }
}

/// Reads the world's true time.
#[derive(Clone)]
pub struct TrueTime(Executor);

impl TrueTime {
    /// Nanoseconds since the world began.
    pub fn nanos(&self) -> u64 {
        self.0.now()
    }
}
