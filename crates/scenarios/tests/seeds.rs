//! Every scenario, for a fixed number of seeds, and the same seed twice.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Output,
    sync::Mutex,
    time::Duration,
};

use quorate_scenarios::Scenario;
use quorate_sim::{OutOfContract, Settings, Sim, Swarm, check::log, testing};

/// Seeds of each scenario in every run of the tests; many more run at night.
const SEEDS: u64 = 100;
/// The seed that is run a second time in any case, from another folder and in another environment.
const FIRST: [u64; 1] = [0];
/// What must have happened in some seed of every scenario with a server that has a disk. The lowest seed of each kind of fault,
/// of these and of all others, is run a second time.
const KINDS: [&str; 21] = [
    "clock: drifting",
    "clock: stepped",
    "disk: failing for a while",
    "disk: no space",
    "disk: pages at stake when power failed",
    "disk: sync slow",
    "network: a connect was not answered",
    "network: a connection was broken",
    "network: bytes were held back",
    "network: connects lost",
    "network: one way cut",
    "network: partition",
    "network: reset",
    "network: slow",
    "process: killed",
    "process: killed at work",
    "process: killed inside a disk operation",
    "process: paused",
    "process: power lost",
    "process: power lost inside a disk operation",
    "process: suspended",
];

/// What the network did to somebody who spoke.
const STRUCK: [&str; 3] =
    ["network: a connect was not answered", "network: a connection was broken", "network: bytes were held back"];

/// Seeds that once failed, most of them for a bug of the product, which CHANGELOG.md tells; and the commit that kept each.
///
/// A seed failed in the world that it was before its commit: `git checkout COMMIT^`, or a little earlier, and `quorate sim replay`.
/// Whatever has been drawn otherwise since, and whatever the product does in other steps, has made it another world, so what keeps
/// the bug away is the test that came with the commit. That the seed passes says that it has come to no other end since.
const KEPT: &[(&str, u64, &str)] = &[
    ("followers", 166, "be6745a"),
    ("import", 166, "be6745a"),
    ("keys", 166, "be6745a"),
    ("retention", 1_389, "be6745a"),
    ("views", 27, "be6745a"),
    ("workers", 587, "be6745a"),
    // The disk was full before the node had begun.
    ("full-disk", 20_786_000_048, "be6745a"),
    // What rooms wrote when they were opened found no space, and the node did not start.
    ("full-disk", 2, "742d431"),
    // A page went on to an event that was appended while it was sent.
    ("retention", 20_788_000_096, "1a68dcc"),
    // A page of which all was truncated while it was read was told without what had been appended by then.
    ("retention", 4_969, "b6ec8bd"),
    // What a power failure brought back did not fit on the full disk.
    ("full-disk", 20_786_000_761, "be6745a"),
    // Workers that were slow to the end came to none.
    ("workers", 20_786_000_112, "be6745a"),
    // A store that was refused lost the end of its log, and was opened without it.
    ("bit-rot", 20_787_002_109, "6cefc4e"),
    ("bit-rot", 20_787_002_722, "6cefc4e"),
    ("bit-rot", 20_788_000_262, "6cefc4e"),
];

/// What a process told of its seed.
#[derive(Default)]
struct Told {
    traces: BTreeMap<u64, String>,
    /// The lowest seed in which each kind of fault happened.
    injected: BTreeMap<String, u64>,
    reached: BTreeSet<String>,
    /// In how many seeds each claim was left undecided.
    undecided: BTreeMap<String, u64>,
    /// How much each claim was held against, in all seeds together.
    examined: BTreeMap<String, u64>,
}

impl Told {
    fn add(&mut self, seed: u64, output: &Output) {
        let told = String::from_utf8_lossy(&output.stdout);
        let lines = |word: &'static str| {
            told.lines().filter_map(move |line| line.split_once(word)).map(|(_, rest)| rest.to_owned())
        };
        self.traces.extend(lines("trace ").map(|trace| (seed, trace)));
        for claim in lines("reached undecided: ") {
            *self.undecided.entry(claim).or_default() += 1;
        }
        self.reached.extend(lines("reached "));
        for kind in lines("injected ") {
            let lowest = self.injected.entry(kind).or_insert(seed);
            *lowest = seed.min(*lowest);
        }
        for line in lines("examined ") {
            let (count, claim) = line.split_once(' ').unwrap();
            *self.examined.entry(claim.to_owned()).or_default() += count.parse::<u64>().unwrap();
        }
    }

    /// Seeds in which everything that can go wrong did, each kind in one of them.
    fn of_each_kind(&self) -> BTreeSet<u64> {
        self.injected.values().copied().chain(FIRST).collect()
    }
}

fn each_seed(test: &str, name: &str) {
    let scenario = quorate_scenarios::find(name).unwrap();
    if let Some(seed) = testing::own_seed() {
        return run(scenario, seed, Settings::default());
    }
    let (seeds, told) = (testing::seeds_or(SEEDS), Mutex::new(Told::default()));
    let failed = testing::sweep(test, seeds, |seed, output| told.lock().unwrap().add(seed, output));
    if let Some((seed, output)) = failed {
        let told = String::from_utf8_lossy(&output.stdout);
        panic!("seed {seed} of {name} fails: {told}\nto run it again: quorate sim replay {name} --seed {seed}");
    }
    let told = told.into_inner().unwrap();
    let unreached = scenario.unreached(|state| told.reached.contains(state));
    assert!(unreached.is_empty(), "{seeds} seeds of {name} never reached {unreached:?}");
    let unexamined = scenario.unexamined(|claim| told.examined.get(claim).copied().unwrap_or(0));
    assert!(unexamined.is_empty(), "{seeds} seeds of {name} held nothing against {unexamined:?}");
    // What no scenario is about could come to be held against nothing, and nobody would notice.
    let is_named = |claim: &str| quorate_scenarios::all().iter().any(|scenario| scenario.claims.contains(&claim));
    let unnamed: Vec<_> = told.examined.keys().filter(|claim| !is_named(claim)).collect();
    assert!(unnamed.is_empty(), "{name} judges {unnamed:?}, and no scenario says that it is about that");
    let seldom = scenario.seldom_decided(seeds, |claim| told.undecided.get(claim).copied().unwrap_or(0));
    assert!(seldom.is_empty(), "{seeds} seeds of {name} left too much undecided: {:?}", told.undecided);
    if scenario.meets_faults() {
        let cannot_happen = |kind: &str| match name {
            // A clock's mark takes no room.
            "stamps" => kind == "disk: no space",
            // Whoever keeps views of its own log speaks to nobody: the network is cut, and nobody is there to notice.
            "views" => STRUCK.contains(&kind),
            _ => false,
        };
        let missing = KINDS.iter().filter(|kind| !told.injected.contains_key(**kind) && !cannot_happen(kind));
        let missing: Vec<_> = missing.collect();
        assert!(missing.is_empty(), "{seeds} seeds of {name} never met {missing:?}");
    }
    for seed in told.of_each_kind() {
        let there = trace(&testing::elsewhere(test, seed));
        assert_eq!(told.traces[&seed], there, "seed {seed} of {name} is not the same world twice");
    }
}

fn run(scenario: &Scenario, seed: u64, settings: Settings) {
    let report = scenario.run(Sim::new(seed, settings));
    let outcome = &report.outcome;
    for violation in &outcome.violations {
        println!("VIOLATED {violation}");
    }
    if !outcome.passed() {
        std::process::exit(1);
    }
    // The first line has the test's own name before it.
    outcome.reached.keys().for_each(|state| println!("reached {state}"));
    outcome.injected.keys().for_each(|kind| println!("injected {kind}"));
    report.examined().for_each(|(claim, count)| println!("examined {count} {claim}"));
    println!("trace {}", outcome.trace);
}

#[test]
fn seeds_that_once_failed_pass() {
    const SCENARIO: &str = "QUORATE_SCENARIO";
    if let (Some(seed), Ok(name)) = (testing::own_seed(), std::env::var(SCENARIO)) {
        return run(quorate_scenarios::find(&name).unwrap(), seed, Settings::default());
    }
    for &(name, seed, commit) in KEPT {
        let output = testing::in_a_process("seeds_that_once_failed_pass", seed, &[(SCENARIO, name)]);
        let told = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "seed {seed} of {name}, kept by {commit}, fails again: {told}");
    }
}

/// In worlds that break what everything rests on, nothing is served but what was sent.
#[test]
fn whatever_disks_say_of_their_syncs_nothing_is_served_that_nobody_sent() {
    let test = "whatever_disks_say_of_their_syncs_nothing_is_served_that_nobody_sent";
    if let Some(seed) = testing::own_seed() {
        // Nothing that `stamps` promises is left where syncs lie.
        let is_judged = |scenario: &&Scenario| scenario.meets_faults() && scenario.name != "stamps";
        let worlds: Vec<_> = quorate_scenarios::all().iter().filter(is_judged).collect();
        let scenario = worlds[usize::try_from(seed).unwrap() % worlds.len()];
        let out_of_contract = Some(OutOfContract::LyingSync);
        return run(scenario, seed, Settings { out_of_contract, ..Settings::default() });
    }
    if let Some((seed, output)) = testing::first_failure(test, testing::seeds_or(96)) {
        panic!("seed {seed} fails: {}", String::from_utf8_lossy(&output.stdout));
    }
}

/// Without this, a disk that lies would prove nothing.
#[test]
fn a_disk_that_lies_loses_what_was_acknowledged() {
    let test = "a_disk_that_lies_loses_what_was_acknowledged";
    if let Some(seed) = testing::own_seed() {
        let swarm = Swarm { power: true, ..Swarm::calm() };
        let swarm = Swarm { fault_every_millis: 500, ..swarm };
        let out_of_contract = Some(OutOfContract::LyingSync);
        let settings = Settings { swarm: Some(swarm), out_of_contract, ..Settings::default() };
        let report = quorate_scenarios::find("appends").unwrap().run(Sim::new(seed, settings));
        let history = &report.judgement.as_ref().unwrap().history;
        let stale = log::no_read_is_stale(history, &[]);
        assert!(stale.holds(), "something was seen and is gone");
        return;
    }
    assert!(testing::first_failure(test, 20).is_some(), "20 worlds lost nothing, whatever their disks said");
}

/// Workers that dawdle do less than producers could send, who go on for as long as such a world does.
#[test]
fn a_queue_in_a_world_that_goes_on_for_a_minute_is_empty_in_the_end() {
    let test = "a_queue_in_a_world_that_goes_on_for_a_minute_is_empty_in_the_end";
    if let Some(seed) = testing::own_seed() {
        let settings = Settings { faults_for: Some(Duration::from_secs(60)), ..Settings::default() };
        return run(quorate_scenarios::find("queue").unwrap(), seed, settings);
    }
    if let Some((seed, output)) = testing::first_failure(test, testing::seeds_or(12)) {
        panic!("seed {seed} fails: {}", String::from_utf8_lossy(&output.stdout));
    }
}

#[test]
fn a_state_that_no_seed_reached_and_a_claim_that_none_examined_or_decided_are_told() {
    for scenario in quorate_scenarios::all() {
        assert_eq!(scenario.unreached(|_| true), [""; 0]);
        assert_eq!(scenario.unreached(|_| false), scenario.sometimes);
        assert_eq!(scenario.unexamined(|_| 1), [""; 0]);
        assert_eq!(scenario.unexamined(|_| 0), scenario.claims);
        // One of 64 seeds knows every family of faults: two of a hundred may be all of those.
        assert_eq!(scenario.seldom_decided(100, |_| 1), [""; 0]);
        assert_eq!(scenario.seldom_decided(100, |_| 2), scenario.claims);
        assert!(scenario.is_of_machines() || !scenario.claims.is_empty(), "{} is about no claim", scenario.name);
        assert!(!scenario.sometimes.is_empty(), "{} names no state that it must reach", scenario.name);
    }
}

fn trace(output: &Output) -> String {
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let trace = printed.lines().find_map(|line| line.split_once("trace ").map(|(_, trace)| trace.to_owned()));
    trace.unwrap_or_else(|| panic!("no trace in {printed}"))
}

macro_rules! scenarios {
    ($($test:ident),* $(,)?) => {
        $(#[test]
        fn $test() {
            each_seed(stringify!($test), &stringify!($test).replace('_', "-"));
        })*

        #[test]
        fn every_scenario_is_run() {
            let tests = [$(stringify!($test)),*].map(|test| test.replace('_', "-"));
            assert!(quorate_scenarios::all().iter().map(|scenario| scenario.name).eq(tests.iter().map(String::as_str)));
        }
    };
}

scenarios! {
    appends,
    bit_rot,
    commands,
    cut_off,
    failed_sync,
    followers,
    full_disk,
    import,
    keys,
    machines_hlc,
    machines_subscription,
    outage,
    queue,
    restarts,
    retention,
    retry_storm,
    stamps,
    views,
    workers,
}

/// Machines alone are quick: so many more seeds of them.
#[test]
fn machines_alone_pass_thousands_of_seeds() {
    for scenario in quorate_scenarios::all().iter().filter(|scenario| scenario.is_of_machines()) {
        for seed in 0..2_000 {
            let outcome = scenario.run_machines(seed, None).unwrap().outcome;
            assert!(outcome.passed(), "seed {seed} of {}: {:?}", scenario.name, outcome.violations);
        }
    }
}
