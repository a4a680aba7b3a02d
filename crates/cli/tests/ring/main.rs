//! The second ring around the product: the real binary, real sockets, real signals, a real full disk.
//!
//! The simulator runs the product in a world of its own and finds nearly everything there; the kernel it never meets. Here the
//! clients and the judges of its scenarios meet `quorate serve` itself, while a plan of faults drawn from a seed is carried out
//! on the process (SIGKILL, SIGSTOP), on the way to it (a proxy for each client), and on its disk. Real processes
//! don't run the same way twice: a seed repeats the plan and what clients mean to do, not the schedule.
//!
//! `QUORATE_RING_SEED` has each test run that one seed; `QUORATE_RING_SEEDS` has it run so many, from 1 on.
#![expect(clippy::disallowed_methods, reason = "supervises processes in real time, outside of any world")]
#![expect(clippy::unwrap_used, reason = "what a test needs and cannot have fails the test")]

mod disk;
mod node;
mod plan;
mod proxy;
#[path = "../../../data/tests/postgres/server.rs"]
#[allow(dead_code, reason = "other tests start servers of their own")]
mod server;
mod supervisor;

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use quorate_runtime::{
    Env,
    fault::{DiskFault, DiskFaults, Fault, FaultPlan, Planned, ProcessFault},
    random::Random,
};
use quorate_scenarios::{Action, Note, Told, hands::Pace};
use quorate_sim::Violation;
use serde_json::json;

use self::{disk::SmallDisk, node::Node, plan::NODE, proxy::Route, supervisor::Supervisor};

/// What became of one run.
struct Run {
    scenario: &'static str,
    seed: u64,
    plan: FaultPlan,
    notes: Vec<Note>,
    found: Vec<Violation>,
    injected: BTreeMap<&'static str, u32>,
}

/// How a run differs from an ordinary one.
#[derive(Default)]
struct Special {
    disk: Option<SmallDisk>,
    /// What goes wrong, instead of what is drawn from the seed.
    plan: Option<FaultPlan>,
    forgets: bool,
    /// The database that several nodes share, and how many.
    shared: Option<(String, usize)>,
}

/// The randomness of a seed's run of a scenario.
fn random(scenario: &str, seed: u64) -> Random {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    Random::from_seed(bytes).branch(scenario)
}

fn draw(scenario: &str, seed: u64, nodes: usize, is_small: bool) -> FaultPlan {
    let clients = quorate_scenarios::find(scenario).unwrap().hands().unwrap().names();
    plan::draw(&mut random(scenario, seed).stream("plan"), &plan::nodes(nodes), &clients, is_small)
}

/// Runs the clients of `scenario` against a node in `folder`, or several, while things go wrong, and has their notes judged.
async fn run(scenario: &'static str, seed: u64, folder: &Path, special: Special) -> Run {
    let (hands, random) = (quorate_scenarios::find(scenario).unwrap().hands().unwrap(), random(scenario, seed));
    let count = special.shared.as_ref().map_or(1, |(_, count)| *count);
    let plan = special.plan.unwrap_or_else(|| draw(scenario, seed, count, special.disk.is_some()));
    let (names, mut nodes, mut routes) = (plan::nodes(count), BTreeMap::new(), BTreeMap::new());
    for name in &names {
        let settings = special.shared.iter().flat_map(|(address, _)| over(address, folder)).collect::<Vec<_>>();
        let own = if count == 1 { folder.to_owned() } else { folder.join(name) };
        fs::create_dir_all(&own).unwrap();
        nodes.insert(name.clone(), Node::start(&own, &settings).await);
    }
    for (nth, name) in hands.names().into_iter().enumerate() {
        let node = &names[nth % count];
        let route = Route::open(nodes[node].at(), random.branch(&name)).await;
        routes.insert(name, (node.clone(), route));
    }
    let at: BTreeMap<String, _> = routes.iter().map(|(name, (_, route))| (name.clone(), route.at)).collect();
    let mut supervisor = Supervisor::new(nodes, routes, special.disk);
    supervisor.forgets = special.forgets;
    let mut hands = hands.start(&Env::real(), &random, Pace::REAL, |name| at[name]);
    let mut found = supervisor.run(&plan, &mut hands).await;
    let (notes, judged) = hands.judge();
    found.extend(judged);
    Run { scenario, seed, plan, notes, found, injected: supervisor.injected }
}

/// Settings of a node whose store is in the database at `address`, in a schema of this folder's own.
fn over(address: &str, folder: &Path) -> Vec<String> {
    let name: String = folder.to_string_lossy().bytes().map(|byte| format!("{byte:02x}")).collect();
    let schema = format!("r{}", &name[name.len() - 20..]);
    [
        "--store",
        address,
        "--store.schema",
        &schema,
        "--store.application",
        &format!("{schema}_app"),
        "--store.connections",
        "8",
    ]
    .map(str::to_owned)
    .to_vec()
}

impl Run {
    /// Notes of writes that were told `wanted`.
    fn count(&self, wanted: fn(&Told) -> bool) -> usize {
        let told = self.notes.iter().filter_map(|note| match &note.what {
            Action::Append { told, .. } => Some(told),
            _ => None,
        });
        told.filter(|told| wanted(told)).count()
    }

    /// Notes of writes that were acknowledged, messages that were sent included.
    fn acknowledged(&self) -> usize {
        let sent = self.notes.iter().filter(|note| matches!(note.what, Action::Sent { refused: None, .. }));
        self.count(|told| matches!(told, Told::Done { .. })) + sent.count()
    }

    /// What it was like, in a line.
    fn summary(&self) -> String {
        let Self { scenario, seed, injected, .. } = self;
        let done = self.acknowledged();
        let unknown = self.count(|told| *told == Told::Unknown);
        format!("ring: {scenario}, seed {seed}: {done} writes acknowledged, {unknown} unknown; {injected:?}")
    }

    /// Asserts that nothing was found, and that something was tried.
    fn assert_passed(&self, folder: &Path) {
        println!("{}", self.summary());
        if !self.found.is_empty() {
            panic!("{}", self.report(folder));
        }
        assert!(self.acknowledged() > 0, "nothing was ever acknowledged");
        assert!(!self.injected.is_empty(), "nothing went wrong");
    }

    /// What was found, and where everything lies that tells how: a run is never the same twice.
    fn report(&self, folder: &Path) -> String {
        let kept = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("ring-{}-{}", self.scenario, self.seed));
        let _ = fs::remove_dir_all(&kept);
        copy(folder, &kept);
        let told = json!({ "plan": self.plan, "notes": self.notes });
        fs::write(kept.join("run.json"), serde_json::to_vec_pretty(&told).unwrap()).unwrap();
        let mut text = self.summary();
        for violation in &self.found {
            let _ = write!(text, "\n{violation}");
        }
        let _ = write!(
            text,
            "\nplan, notes, log and data of the node are in {}\nto try the seed again: QUORATE_RING_SEED={} cargo test -p quorate-cli --test ring",
            kept.display(),
            self.seed
        );
        text
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// The seeds to run: one, unless the environment says otherwise.
fn seeds() -> std::ops::RangeInclusive<u64> {
    let number = |name| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    match (number("QUORATE_RING_SEED"), number("QUORATE_RING_SEEDS")) {
        (Some(seed), _) => seed..=seed,
        (None, count) => 1..=count.unwrap_or(1),
    }
}

async fn each_seed(scenario: &'static str) {
    for seed in seeds() {
        let folder = tempfile::tempdir().unwrap();
        run(scenario, seed, folder.path(), Special::default()).await.assert_passed(folder.path());
    }
}

macro_rules! scenarios {
    ($($test:ident),* $(,)?) => {
        $(#[tokio::test]
        async fn $test() {
            each_seed(stringify!($test)).await;
        })*

        const NAMES: &[&str] = &[$(stringify!($test)),*];
    };
}

scenarios! {
    appends,
    followers,
    import,
    keys,
    queue,
    retention,
    workers,
}

/// Three nodes over one database, each of them killed and paused at random: to clients they are one.
async fn three_nodes(scenario: &'static str) {
    let Some(address) = server::address() else { return };
    for seed in seeds() {
        let folder = tempfile::tempdir().unwrap();
        let special = Special { shared: Some((address.clone(), 3)), ..Special::default() };
        run(scenario, seed, folder.path(), special).await.assert_passed(folder.path());
    }
}

#[tokio::test]
async fn clients_of_three_nodes_over_one_database_lose_no_append() {
    three_nodes("appends").await;
}

#[tokio::test]
async fn followers_of_three_nodes_over_one_database_see_every_event_once() {
    three_nodes("followers").await;
}

#[tokio::test]
async fn a_key_is_honoured_by_each_of_three_nodes_over_one_database() {
    three_nodes("keys").await;
}

#[tokio::test]
async fn workers_of_three_nodes_over_one_database_hold_each_event_alone() {
    three_nodes("workers").await;
}

#[test]
fn every_scenario_with_clients_is_run() {
    let all = quorate_scenarios::all().iter().filter(|scenario| scenario.hands().is_some());
    assert!(all.map(|scenario| scenario.name).eq(NAMES.iter().copied()));
}

/// Runs differ in what they leave out; together they leave out nothing.
#[test]
fn ordinary_runs_together_know_every_fault() {
    let plans: Vec<FaultPlan> = NAMES.iter().map(|name| draw(name, 1, 1, false)).collect();
    let text = serde_json::to_string(&plans).unwrap();
    for fault in ["kill", "pause", "cut", "partition", "slow", "reset", "lose-connects"] {
        assert!(text.contains(&format!("\"fault\":\"{fault}\"")), "no plan has {fault}: {text}");
    }
}

#[tokio::test]
async fn a_full_disk_refuses_some_appends_and_loses_none() {
    let Some(disk) = SmallDisk::of("a_full_disk_refuses_some_appends_and_loses_none", 48) else { return };
    let (folder, seed) = (disk.path().to_owned(), *seeds().start());
    let mut plan = draw("appends", seed, 1, true);
    // Before anything else, so that the node is certainly there to refuse something.
    let span = Duration::from_millis(500);
    let full = DiskFault { host: NODE.to_owned(), span, room_bytes: Some(0), faults: DiskFaults::default() };
    plan.faults.insert(0, Planned { at_nanos: 0, fault: Fault::Disk(full) });
    let special = Special { disk: Some(disk), plan: Some(plan), ..Special::default() };
    let ran = run("appends", seed, &folder, special).await;
    ran.assert_passed(&folder);
    let refused = ran.injected.contains_key("disk: refused as full");
    assert!(refused, "nothing was refused since the disk was full: {:?}", ran.injected);
}

/// Does the ring see anything? A disk that forgets what was acknowledged must be found out.
#[tokio::test]
async fn a_node_that_comes_back_with_an_older_disk_is_found_out() {
    let kill = |millis: u64| {
        let down = Duration::from_millis(10);
        let fault = Fault::Process(ProcessFault::Kill { host: NODE.to_owned(), down });
        Planned { at_nanos: millis * 1_000_000, fault }
    };
    let plan = Some(FaultPlan::new(vec![kill(500), kill(1_700)]));
    let folder = tempfile::tempdir().unwrap();
    let ran = run("appends", 1, folder.path(), Special { plan, forgets: true, ..Special::default() }).await;
    let lost = ran.found.iter().any(|violation| violation.rule == "nothing acknowledged is lost");
    assert!(lost, "{}: {:?}", ran.summary(), ran.found);
}
