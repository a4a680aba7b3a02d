//! Every scenario, for a fixed number of seeds, and the same seed twice.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::{collections::BTreeSet, sync::Mutex};

use quorate_scenarios::Scenario;
use quorate_sim::{Settings, Sim, testing};

/// Seeds of each scenario in every run of the tests; many more run at night.
const SEEDS: u64 = 100;
/// Seeds that are run a second time.
const TWICE: [u64; 3] = [1, 11, 23];

fn each_seed(test: &str, name: &str) {
    let scenario = quorate_scenarios::find(name).unwrap();
    if let Some(seed) = testing::own_seed() {
        return run(scenario, seed);
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
        let traces = [(); 2].map(|()| trace(&testing::in_a_process(test, seed, &[])));
        assert_eq!(traces[0], traces[1], "seed {seed} of {name} is not the same world twice");
    }
}

fn run(scenario: &Scenario, seed: u64) {
    let outcome = scenario.run(Sim::new(seed, Settings::default())).outcome;
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
    followers,
    import,
    keys,
    retention,
    stamps,
    workers,
}
