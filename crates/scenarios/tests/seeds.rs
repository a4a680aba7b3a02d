//! Every scenario, for a fixed number of seeds, and the same seed twice.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::{collections::BTreeSet, sync::Mutex};

use quorate_scenarios::Scenario;
use quorate_sim::{OutOfContract, Settings, Sim, Swarm, check::log, testing};

/// Seeds of each scenario in every run of the tests; many more run at night.
const SEEDS: u64 = 100;
/// Seeds that are run a second time, from another folder and in another environment.
const TWICE: [u64; 3] = [1, 11, 23];

/// Seeds that once failed: most of them for a bug of the product, which CHANGELOG.md tells.
const KEPT: &[(&str, u64)] = &[
    ("followers", 166),
    ("import", 166),
    ("keys", 166),
    ("retention", 1_389),
    ("views", 27),
    ("workers", 587),
    // The disk was full before the node had begun.
    ("full-disk", 20_786_000_048),
    // What rooms wrote when they were opened found no space, and the node did not start.
    ("full-disk", 2),
    // A page went on to an event that was appended while it was sent.
    ("retention", 20_788_000_096),
    // What a power failure brought back did not fit on the full disk.
    ("full-disk", 20_786_000_761),
    // Workers that were slow to the end came to none.
    ("workers", 20_786_000_112),
];

fn each_seed(test: &str, name: &str) {
    let scenario = quorate_scenarios::find(name).unwrap();
    if let Some(seed) = testing::own_seed() {
        return run(scenario, seed, Settings::default());
    }
    let (seeds, reached) = (testing::seeds_or(SEEDS), Mutex::new(BTreeSet::new()));
    let failed = testing::sweep(test, seeds, |output| {
        let told = String::from_utf8_lossy(&output.stdout);
        // The first line has the test's own name before it.
        let states = told.lines().filter_map(|line| line.split_once("reached ")).map(|(_, state)| state.to_owned());
        reached.lock().unwrap().extend(states);
    });
    if let Some((seed, output)) = failed {
        let told = String::from_utf8_lossy(&output.stdout);
        panic!("seed {seed} of {name} fails: {told}\nto run it again: quorate sim replay {name} --seed {seed}");
    }
    let unreached = scenario.unreached(|state| reached.lock().unwrap().contains(state));
    assert!(unreached.is_empty(), "{seeds} seeds of {name} never reached {unreached:?}");
    for seed in TWICE {
        let (here, there) = (testing::in_a_process(test, seed, &[]), testing::elsewhere(test, seed));
        assert_eq!(trace(&here), trace(&there), "seed {seed} of {name} is not the same world twice");
    }
}

fn run(scenario: &Scenario, seed: u64, settings: Settings) {
    let outcome = scenario.run(Sim::new(seed, settings)).outcome;
    for violation in &outcome.violations {
        println!("VIOLATED {violation}");
    }
    if !outcome.passed() {
        std::process::exit(1);
    }
    outcome.reached.keys().for_each(|state| println!("reached {state}"));
    println!("trace {}", outcome.trace);
}

#[test]
fn seeds_that_once_failed_pass() {
    const SCENARIO: &str = "QUORATE_SCENARIO";
    if let (Some(seed), Ok(name)) = (testing::own_seed(), std::env::var(SCENARIO)) {
        return run(quorate_scenarios::find(&name).unwrap(), seed, Settings::default());
    }
    for &(name, seed) in KEPT {
        let output = testing::in_a_process("seeds_that_once_failed_pass", seed, &[(SCENARIO, name)]);
        let told = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "seed {seed} of {name} fails again: {told}");
    }
}

/// In worlds that break what everything rests on, nothing is served but what was sent.
#[test]
fn whatever_disks_say_of_their_syncs_nothing_is_served_that_nobody_sent() {
    let test = "whatever_disks_say_of_their_syncs_nothing_is_served_that_nobody_sent";
    if let Some(seed) = testing::own_seed() {
        let names = ["appends", "followers", "keys", "retention"];
        let scenario = quorate_scenarios::find(names[usize::try_from(seed).unwrap() % names.len()]).unwrap();
        let out_of_contract = Some(OutOfContract::LyingSync);
        return run(scenario, seed, Settings { out_of_contract, ..Settings::default() });
    }
    if let Some((seed, output)) = testing::first_failure(test, testing::seeds_or(60)) {
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

#[test]
fn a_state_that_no_seed_reached_is_told() {
    for scenario in quorate_scenarios::all() {
        assert_eq!(scenario.unreached(|_| true), [""; 0]);
        assert_eq!(scenario.unreached(|_| false), scenario.sometimes);
        assert!(!scenario.sometimes.is_empty(), "{} names no state that it must reach", scenario.name);
    }
}

fn trace(output: &std::process::Output) -> String {
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
    cut_off,
    followers,
    full_disk,
    import,
    keys,
    machines_hlc,
    machines_subscription,
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
