//! Carries out a plan of faults on a real node while a scenario's clients use it, and then has everything come to rest.

use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use quorate_runtime::fault::{DiskFault, Fault, FaultPlan, NetworkFault, ProcessFault};
use quorate_scenarios::hands::AtWork;
use quorate_sim::Violation;
use tokio::time::{sleep_until, timeout};

use crate::{
    disk::SmallDisk,
    node::Node,
    plan::NODE,
    proxy::{Route, Towards},
};

/// How long to wait before a start is tried again.
const AGAIN: Duration = Duration::from_millis(100);
/// Data that does not fit on a full disk, unless the write-ahead log has room left.
const TOO_LARGE: usize = 600 << 10;
/// How long clients may take to end once nothing goes wrong any more.
const LIVENESS_BOUND: Duration = Duration::from_secs(30);

/// Nodes, the ways of their clients to them, and what goes wrong with them.
pub(crate) struct Supervisor {
    /// By their names in plans.
    pub(crate) nodes: BTreeMap<String, Node>,
    /// By name of the client, with the node that they lead to.
    pub(crate) routes: BTreeMap<String, (String, Route)>,
    pub(crate) disk: Option<SmallDisk>,
    /// Whether the node comes back with an old copy of its data after it was killed a second time.
    pub(crate) forgets: bool,
    agenda: Vec<(Instant, Act)>,
    is_full: bool,
    copy: Option<PathBuf>,
    found: Vec<Violation>,
    pub(crate) injected: BTreeMap<&'static str, u32>,
}

enum Act {
    Begin(Fault),
    Start(String),
    Resume(String),
    Clear,
}

impl Supervisor {
    pub(crate) fn new(
        nodes: BTreeMap<String, Node>,
        routes: BTreeMap<String, (String, Route)>,
        disk: Option<SmallDisk>,
    ) -> Self {
        Self {
            nodes,
            routes,
            disk,
            forgets: false,
            agenda: Vec::new(),
            is_full: false,
            copy: None,
            found: Vec::new(),
            injected: BTreeMap::new(),
        }
    }

    /// Carries out `plan`, heals everything, and waits until all hands have ended and the node has stopped. Returns what is wrong
    /// with that.
    pub(crate) async fn run(&mut self, plan: &FaultPlan, hands: &mut AtWork) -> Vec<Violation> {
        let begun = Instant::now();
        for planned in &plan.faults {
            self.agenda.push((begun + planned.at(), Act::Begin(planned.fault.clone())));
        }
        while self.step().await {}
        self.heal().await;
        hands.heal();
        tokio::select! {
            (name, status) = first_end(&mut self.nodes) => self.died(&name, status),
            // Who has not ended is told by the hands themselves.
            _ = timeout(LIVENESS_BOUND, hands.ended()) => {}
        }
        for name in self.names() {
            if self.nodes[&name].is_running() {
                let verified = self.nodes[&name].verify().await;
                self.judge("verify", verified);
                let drained = self.node(&name).drain().await;
                self.judge("drain", drained);
            }
        }
        std::mem::take(&mut self.found)
    }

    fn names(&self) -> Vec<String> {
        self.nodes.keys().cloned().collect()
    }

    fn node(&mut self, name: &str) -> &mut Node {
        self.nodes.get_mut(name).unwrap_or_else(|| panic!("{name} is no node"))
    }

    /// The routes that lead to a node, or that of a client.
    fn routes_of<'s>(&'s self, host: &str) -> Vec<&'s Route> {
        let leads = |(name, (node, _)): &(&String, &(String, Route))| host == **name || host == *node;
        self.routes.iter().filter(leads).map(|(_, (_, route))| route).collect()
    }

    fn judge(&mut self, rule: &str, result: Result<(), String>) {
        self.found.extend(result.err().map(|why| Violation::new(rule, why)));
    }

    fn died(&mut self, name: &str, status: std::process::ExitStatus) {
        let what = format!("{name} ended by itself: {status}, and it said: {}", self.nodes[name].said());
        self.found.push(Violation::new("server", what));
    }

    fn later(&mut self, span: Duration, act: Act) {
        self.agenda.push((Instant::now() + span, act));
    }

    /// Does what is due next; `false` once nothing is planned any more or something was found.
    async fn step(&mut self) -> bool {
        self.agenda.sort_by_key(|(at, _)| *at);
        let Some((at, _)) = self.agenda.first() else { return false };
        let due = *at;
        tokio::select! {
            (name, status) = first_end(&mut self.nodes) => {
                self.died(&name, status);
                return false;
            }
            () = sleep_until(due.into()) => {}
        }
        let (_, act) = self.agenda.remove(0);
        self.act(act).await;
        self.found.is_empty()
    }

    async fn act(&mut self, act: Act) {
        match act {
            Act::Begin(Fault::Network(fault)) => self.begin_network(&fault),
            Act::Begin(Fault::Process(fault)) => self.begin_process(&fault).await,
            Act::Begin(Fault::Disk(fault)) => self.begin_disk(&fault).await,
            Act::Begin(other) => panic!("nobody here can carry out {other:?}"),
            Act::Start(name) => self.start(&name).await,
            Act::Resume(name) => self.nodes[&name].signal("-CONT").await,
            Act::Clear => self.clear(),
        }
    }

    async fn begin_disk(&mut self, fault: &DiskFault) {
        let (Some(disk), Some(room)) = (&self.disk, fault.room_bytes) else { return };
        disk.fill(room);
        self.is_full = true;
        self.count("disk: full");
        if self.nodes[NODE].is_running() {
            // A node that stands still refuses nothing.
            self.nodes[NODE].signal("-CONT").await;
            if self.nodes[NODE].is_too_full_for(TOO_LARGE).await {
                self.count("disk: refused as full");
            }
        }
        self.later(fault.span, Act::Clear);
    }

    fn count(&mut self, what: &'static str) {
        *self.injected.entry(what).or_default() += 1;
    }

    fn clear(&mut self) {
        self.disk.iter().for_each(SmallDisk::clear);
        self.is_full = false;
    }

    fn begin_network(&mut self, fault: &NetworkFault) {
        let what = match fault {
            NetworkFault::Cut { from, to, span } => {
                let (client, towards) =
                    if self.nodes.contains_key(from) { (to, Towards::Client) } else { (from, Towards::Node) };
                self.routes_of(client).into_iter().for_each(|route| route.cut(towards, *span));
                "network: one way cut"
            }
            NetworkFault::Partition { group, span } => {
                for route in group.iter().flat_map(|name| self.routes_of(name)) {
                    route.cut(Towards::Node, *span);
                    route.cut(Towards::Client, *span);
                }
                "network: partition"
            }
            NetworkFault::Slow { a, extra, span, .. } => {
                self.routes_of(a).into_iter().for_each(|route| route.slow(*extra, *span));
                "network: slow"
            }
            NetworkFault::Reset { host } => {
                self.routes_of(host).into_iter().for_each(Route::reset);
                "network: reset"
            }
            NetworkFault::LoseConnects { host, span } => {
                self.routes_of(host).into_iter().for_each(|route| route.deafen(*span));
                "network: connects lost"
            }
            other => panic!("nobody here can carry out {other:?}"),
        };
        self.count(what);
    }

    async fn begin_process(&mut self, fault: &ProcessFault) {
        let (ProcessFault::Kill { host, .. } | ProcessFault::Pause { host, .. }) = fault else {
            panic!("nobody here can carry out {fault:?}");
        };
        if !self.nodes[host].is_running() {
            return;
        }
        match fault {
            ProcessFault::Pause { span, .. } => {
                self.nodes[host].signal("-STOP").await;
                self.count("process: paused");
                self.later(*span, Act::Resume(host.clone()));
            }
            ProcessFault::Kill { down, .. } => {
                self.node(host).kill().await;
                self.routes_of(host).into_iter().for_each(|route| route.close(true));
                self.count("process: killed");
                self.remember();
                self.later(*down, Act::Start(host.clone()));
            }
            _ => unreachable!("it was looked at above"),
        }
    }

    /// Starts a node if it is down. With a full disk it may fail to, and is started again later.
    async fn start(&mut self, name: &str) {
        if self.nodes[name].is_running() {
            return;
        }
        match self.node(name).start_again().await {
            Ok(()) => self.routes_of(name).into_iter().for_each(|route| route.close(false)),
            Err(_) if self.is_full => {
                self.count("disk: too full to start");
                self.later(AGAIN, Act::Start(name.to_owned()));
            }
            Err(why) => self.found.push(Violation::new("server", format!("{name} did not start: {why}"))),
        }
    }

    /// Ends everything that is wrong.
    async fn heal(&mut self) {
        self.agenda.clear();
        self.clear();
        for name in self.names() {
            self.nodes[&name].signal("-CONT").await;
            if self.found.is_empty() {
                self.start(&name).await;
            }
        }
        self.routes.values().for_each(|(_, route)| route.heal());
    }

    /// Where the node forgets, keeps a copy of its data, or puts it back.
    fn remember(&mut self) {
        if !self.forgets {
            return;
        }
        let data = self.nodes[NODE].data();
        match self.copy.take() {
            Some(copy) => {
                fs::remove_dir_all(&data).unwrap();
                fs::rename(copy, &data).unwrap();
                self.count("disk: older than it was");
            }
            None => {
                let copy = data.with_file_name("copy");
                fs::create_dir(&copy).unwrap();
                for entry in fs::read_dir(&data).unwrap().map(Result::unwrap) {
                    fs::copy(entry.path(), copy.join(entry.file_name())).unwrap();
                }
                self.copy = Some(copy);
            }
        }
    }
}

/// Waits until a node ends by itself.
///
/// # Cancel safety
/// Cancel safe.
async fn first_end(nodes: &mut BTreeMap<String, Node>) -> (String, std::process::ExitStatus) {
    let ends = nodes.iter_mut().map(|(name, node)| Box::pin(async { (name.clone(), node.ended().await) }));
    futures_util::future::select_all(ends).await.0
}
