//! Does the simulator find bugs? These were planted, and it must.
#![cfg(feature = "museum")]
#![expect(clippy::unwrap_used, reason = "tests")]

use std::{collections::BTreeMap, process::Output, sync::Mutex};

use quorate_scenarios::{
    Scenario,
    museum::{PIECES, Piece, SEEDS},
};
use quorate_sim::{Settings, Sim, testing};

/// Has a process leave the bug out.
const EMPTY: &str = "QUORATE_MUSEUM_EMPTY";

/// Looks for a seed that finds the piece.
fn find(piece: &str) {
    let piece = PIECES.iter().find(|known| known.name == piece).unwrap();
    let scenario = quorate_scenarios::find(piece.scenario).unwrap();
    if let Some(seed) = testing::own_seed() {
        return run(piece, scenario, seed);
    }
    let test = piece.name.replace('-', "_");
    let (seed, what) = recorded(piece, &test).or_else(|| searched(piece, &test)).unwrap_or_else(|| {
        let (name, about, rules) = (piece.name, piece.about, piece.found_by);
        panic!("`{name}` ({about}) broke none of {rules:?} first in {SEEDS} seeds of {}", scenario.name)
    });
    println!("found `{}` at seed {seed} of {}: {what}", piece.name, scenario.name);
    let report = testing::in_a_process(&test, seed, &[(EMPTY, "1")]);
    assert!(report.status.success(), "seed {seed} of {} fails without the bug as well", scenario.name);
}

/// Runs one seed, and fails where the piece is found in it: where what it breaks is the first to be broken.
fn run(piece: &Piece, scenario: &Scenario, seed: u64) {
    let is_empty = std::env::var_os(EMPTY).is_some();
    let planted = (!is_empty).then(|| piece.name.to_owned());
    let report = scenario.run(Sim::new(seed, Settings { planted, ..Settings::default() }));
    let Some(first) = report.outcome.violations.first() else { return };
    println!("VIOLATED {first}");
    std::process::exit(i32::from(is_empty || piece.is_found_by(&first.rule)));
}

/// What the seed finds that once found it. It may find nothing any more, in a world that has become another one; that it breaks
/// something else first says that the piece, or whoever judges it, is not what it was.
fn recorded(piece: &Piece, test: &str) -> Option<(u64, String)> {
    assert!(piece.seed < SEEDS, "seed {} of `{}` is not one of the first {SEEDS}", piece.seed, piece.name);
    let output = testing::in_a_process(test, piece.seed, &[]);
    if output.status.success() {
        let other = violated(&output);
        assert!(other.is_none(), "{}", elsewhere(piece, &other.into_iter().map(|what| (piece.seed, what)).collect()));
        return None;
    }
    Some((piece.seed, told(piece.seed, &output)))
}

/// The first of all seeds that finds it.
fn searched(piece: &Piece, test: &str) -> Option<(u64, String)> {
    let others = Mutex::new(BTreeMap::new());
    let found = testing::sweep(test, SEEDS, |seed, output| {
        others.lock().unwrap().extend(violated(output).map(|what| (seed, what)));
    });
    let Some((seed, output)) = found else {
        let others = others.into_inner().unwrap();
        assert!(others.is_empty(), "{}", elsewhere(piece, &others));
        return None;
    };
    println!("seed {} does not find `{}` any more: record {seed} in its place", piece.seed, piece.name);
    Some((seed, told(seed, &output)))
}

/// That seeds broke what the piece does not break.
fn elsewhere(piece: &Piece, broken: &BTreeMap<u64, String>) -> String {
    let (name, rules) = (piece.name, piece.found_by);
    let (seed, what) = broken.first_key_value().unwrap();
    format!("`{name}` must break one of {rules:?} first, and seed {seed}, of {} like it, broke {what}", broken.len())
}

/// What a process says was broken first.
fn violated(output: &Output) -> Option<String> {
    let told = String::from_utf8_lossy(&output.stdout);
    told.lines().find_map(|line| line.split_once("VIOLATED ")).map(|(_, what)| what.to_owned())
}

fn told(seed: u64, output: &Output) -> String {
    violated(output).unwrap_or_else(|| panic!("seed {seed} broke without a word: {output:?}"))
}

#[test]
fn each_piece_breaks_what_its_scenario_is_about() {
    for piece in PIECES {
        let claims = quorate_scenarios::find(piece.scenario).unwrap().claims;
        let is_known = |rule: &&str| claims.contains(rule);
        assert!(!piece.found_by.is_empty(), "{} breaks nothing", piece.name);
        assert!(
            piece.found_by.iter().all(is_known),
            "{:?}, and {} is about {claims:?}",
            piece.found_by,
            piece.scenario
        );
    }
}

#[test]
fn the_guide_counts_the_pieces() {
    let guide = include_str!("../../../docs/guide/simulation.md");
    assert!(guide.contains(&format!("There are {} of them,", PIECES.len())), "there are {}", PIECES.len());
}

macro_rules! pieces {
    ($($test:ident),* $(,)?) => {
        $(#[test]
        fn $test() {
            find(&stringify!($test).replace('_', "-"));
        })*

        #[test]
        fn every_piece_is_looked_for() {
            let tests = [$(stringify!($test)),*].map(|test| test.replace('_', "-"));
            assert!(PIECES.iter().map(|piece| piece.name).eq(tests.iter().map(String::as_str)));
        }
    };
}

pieces! {
    ack_before_sync,
    sync_wrong_file,
    expected_version_outside,
    position_reused,
    dedupe_forgotten,
    idempotency_after_effect,
    lost_wake_up,
    checkpoint_outside,
    lease_by_wall_clock,
    hlc_not_persisted,
    view_checkpoint_first,
    effect_repeated_on_rebuild,
    unfenced_view_owner,
    filtered_view_rescans,
    rejection_forgotten,
    stale_rejection,
    queue_ack_before_write,
    queue_lease_in_memory,
    queue_groups_forgotten,
    queue_dedupe_until_done,
    queue_unfenced,
    queue_lease_by_wall_clock,
    every_hop_retries,
    retry_charged_late,
}
