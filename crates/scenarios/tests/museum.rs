//! Does the simulator find bugs? These were planted, and it must.
#![cfg(feature = "museum")]
#![expect(clippy::unwrap_used, reason = "tests")]

use quorate_scenarios::museum::PIECES;
use quorate_sim::{Settings, Sim, testing};

/// Each piece is found within so many seeds.
const SEEDS: u64 = 200;

/// Runs one seed with the piece, or looks for a seed that finds it.
fn find(piece: &str) {
    let piece = PIECES.iter().find(|known| known.name == piece).unwrap();
    let scenario = quorate_scenarios::find(piece.scenario).unwrap();
    if let Some(seed) = testing::own_seed() {
        let planted = std::env::var_os("QUORATE_MUSEUM_EMPTY").is_none().then(|| piece.name.to_owned());
        let report = scenario.run(Sim::new(seed, Settings { planted, ..Settings::default() }));
        if let Some(first) = report.outcome.violations.first() {
            println!("VIOLATED {first}");
            std::process::exit(1);
        }
        return;
    }
    let test = piece.name.replace('-', "_");
    let (seed, output) = testing::first_failure(&test, SEEDS).unwrap_or_else(|| {
        panic!("`{}` ({}) was not found in {SEEDS} seeds of {}", piece.name, piece.about, scenario.name)
    });
    let told = String::from_utf8_lossy(&output.stdout);
    let what = told.lines().find_map(|line| line.split_once("VIOLATED ")).map(|(_, what)| what);
    let what = what.unwrap_or_else(|| panic!("seed {seed} of {} broke without a word: {output:?}", scenario.name));
    println!("found `{}` at seed {seed} of {}: {what}", piece.name, scenario.name);
    let report = testing::in_a_process(&test, seed, &[("QUORATE_MUSEUM_EMPTY", "1")]);
    assert!(report.status.success(), "seed {seed} of {} fails without the bug as well", scenario.name);
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
    queue_ack_before_write,
    queue_lease_in_memory,
    queue_groups_forgotten,
    queue_dedupe_until_done,
    queue_unfenced,
    queue_lease_by_wall_clock,
    every_hop_retries,
    retry_charged_late,
}
