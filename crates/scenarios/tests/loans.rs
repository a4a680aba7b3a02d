//! The import of real loan applications, where they are at hand, while things go wrong.
#![expect(clippy::unwrap_used, reason = "tests")]
#![expect(clippy::disallowed_methods, reason = "the events are in a file of this machine, outside of any world")]

use std::{
    fs::File,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
};

use quorate_sim::{Settings, Sim, testing};

/// So many events are brought in, of some fifty applications.
const EVENTS: usize = 400;
const SEEDS: u64 = 10;

/// The first loans, or nothing where there are none.
fn loans() -> Option<String> {
    let named = std::env::var_os("QUORATE_LOANS").map(PathBuf::from);
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/loans.ndjson.gz");
    let file = File::open(named.or_else(|| beside.exists().then_some(beside))?).unwrap();
    let lines = BufReader::new(flate2::read::GzDecoder::new(file)).lines();
    Some(lines.take(EVENTS).map(|line| line.unwrap() + "\n").collect())
}

#[test]
fn real_applications_are_brought_in_once_and_fold_as_their_lines_count() {
    let test = "real_applications_are_brought_in_once_and_fold_as_their_lines_count";
    if let Some(seed) = testing::own_seed() {
        loans().into_iter().for_each(quorate_scenarios::bring_in_instead);
        let outcome = quorate_scenarios::find("import").unwrap().run(Sim::new(seed, Settings::default())).outcome;
        outcome.violations.iter().for_each(|violation| println!("VIOLATED {violation}"));
        std::process::exit(i32::from(!outcome.passed()));
    }
    if loans().is_none() {
        eprintln!("NOTE: no loans at QUORATE_LOANS or ../shared/data: a sample of our own stands in for them");
    }
    if let Some((seed, output)) = testing::first_failure(test, testing::seeds_or(SEEDS)) {
        panic!("seed {seed} fails: {}", String::from_utf8_lossy(&output.stdout));
    }
}
