//! `cargo xtask nightly`: far more seeds than a test run has time for, of simulated worlds and of real processes, and a long storm
//! over PostgreSQL.

use std::process::Command;

use anyhow::{Result, ensure};

use crate::{checkouts, command, tree};

/// Where the build lies that worlds are simulated with.
const BINARY: &str = "target/release/quorate";

/// Seeds of each scenario, at least: on a machine that is slow or busy, they take longer than the night was told.
const LEAST: &str = "5000";
/// The same of machines alone, which are quick.
const LEAST_OF_MACHINES: &str = "100000";
/// Seeds of a night: far more than any machine runs in one, so that tomorrow's are others.
const APART: u64 = 1_000_000_000;

/// Worlds that go on for longer than they need to be wrong.
const LONG: [&str; 4] = ["--time", "60s", "--seeds", "100"];
/// Worlds that break what everything rests on.
const OUT_OF_CONTRACT: [&str; 4] = ["--out-of-contract", "lying-sync", "--seeds", "100"];
/// Seeds of the second ring: each is some seconds of real time for each scenario.
const RING: u64 = 40;
/// Seconds that writers, open transactions and orphans keep a real PostgreSQL busy.
const STORM: u64 = 600;
/// What the long storm is: what stands in the log behind it, and the lemmas that it rests on.
const STORMS: [[&str; 2]; 2] =
    [["--test=postgres", "every_committed_event_is_seen_once"], ["--lib", "the_lemmas_hold"]];

/// Simulates each scenario for `span`, and no fewer seeds than a night owes it, from one on that no night had before, some of it in
/// long worlds and in worlds out of contract, and compares some seeds with themselves in another checkout; has the loan views keep
/// all of the loans, and then has the same clients meet real processes.
/// Says whether all passed; the seeds of what failed are printed with the command that runs them again.
///
/// # Errors
/// When the binary cannot be built or run, or something here is not committed.
pub(crate) fn run(span: &str) -> Result<bool> {
    command::require_our_rustflags()?;
    // Now, not after hours.
    checkouts::require_committed()?;
    let built = command::cargo(&["build", "--release", "--package", "quorate-cli"]).status()?;
    ensure!(built.success(), "the binary could not be built");
    let night = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs() / 86_400;
    let first = (night * APART).to_string();
    let mut passed = true;
    let binary = tree::root().join(BINARY);
    for name in checkouts::scenarios(&binary)? {
        let least = if name.starts_with("machines-") { LEAST_OF_MACHINES } else { LEAST };
        for worlds in [&["--for", span, "--at-least", least][..], &LONG, &OUT_OF_CONTRACT] {
            let sim = ["sim", "run", name.as_str(), "--first", first.as_str()];
            passed &= Command::new(&binary).args(sim).args(worlds).status()?.success();
        }
    }
    // What became of the tree meanwhile is no reason to leave out the rest of the night.
    passed &= checkouts::run().unwrap_or_else(|why| {
        eprintln!("nightly: checkouts were not compared: {why:#}");
        false
    });
    for [target, test] in STORMS {
        let mut storm =
            command::cargo(&["test", "--release", "--package", "quorate-data", target, "--", "--nocapture", test]);
        let storm = storm.env("QUORATE_LONG", "1").env("QUORATE_STORM", STORM.to_string());
        passed &= storm.env("QUORATE_FORBID_SKIPPING", "1").status()?.success();
    }
    let mut loans = command::cargo(&["test", "--release", "--package", "quorate-examples", "--test", "views"]);
    passed &= loans.env("QUORATE_LOANS_ALL", "1").status()?.success();
    let mut killed = command::cargo(&["test", "--package", "quorate-communication", "--test", "transports", "killed"]);
    passed &= killed.env("QUORATE_LONG", "1").env("QUORATE_FORBID_SKIPPING", "1").status()?.success();
    let mut ring = command::cargo(&["test", "--package", "quorate-cli", "--test", "ring", "--no-fail-fast"]);
    let ran = ring.env("QUORATE_RING_SEEDS", RING.to_string()).env("QUORATE_FORBID_SKIPPING", "1").status()?;
    Ok(passed & ran.success())
}
