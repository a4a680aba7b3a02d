//! Every scenario, for a fixed number of seeds, and the same seed twice.
#![expect(clippy::unwrap_used, reason = "tests")]

use quorate_scenarios::Scenario;
use quorate_sim::{Settings, Sim, testing};

/// Seeds of each scenario in every run of the tests; many more run at night.
const SEEDS: u64 = 30;
/// Seeds that are run a second time.
const TWICE: [u64; 3] = [1, 11, 23];

fn each_seed(test: &str, name: &str) {
    let scenario = quorate_scenarios::find(name).unwrap();
    if let Some(seed) = testing::own_seed() {
        return run(scenario, seed);
    }
    if let Some((seed, output)) = testing::first_failure(test, SEEDS) {
        let told = String::from_utf8_lossy(&output.stderr);
        panic!("seed {seed} of {name} fails: {told}\nto run it again: quorate sim replay {name} --seed {seed}");
    }
    for seed in TWICE {
        let traces = [(); 2].map(|()| trace(&testing::in_a_process(test, seed, &[])));
        assert_eq!(traces[0], traces[1], "seed {seed} of {name} is not the same world twice");
    }
}

fn run(scenario: &Scenario, seed: u64) {
    let outcome = scenario.run(Sim::new(seed, Settings::default())).outcome;
    assert!(outcome.passed(), "{:?}", outcome.violations);
    println!("trace {}", outcome.trace);
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
