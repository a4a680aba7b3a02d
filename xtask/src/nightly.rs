//! `cargo xtask nightly`: far more seeds than a test run has time for, of simulated worlds and of real processes, and a long storm
//! over PostgreSQL.

use std::process::Command;

use anyhow::{Result, ensure};

use crate::{checkouts, command, tree};

/// Where the build lies that worlds are simulated with.
const BINARY: &str = "target/release/quorate";

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

/// Simulates each scenario for `span`, from a seed on that no night had before, some of it in long worlds and in worlds out of
/// contract, and compares some seeds with themselves in another checkout; has the loan views keep all of the loans, and
/// then has the same clients meet real processes.
/// Says whether all passed; the seeds of what failed are printed with the command that runs them again.
///
/// # Errors
/// When the binary cannot be built or run, or something here is not committed.
pub(crate) fn run(span: &str) -> Result<bool> {
    command::require_our_rustflags()?;
    let built = command::cargo(&["build", "--release", "--package", "quorate-cli"]).status()?;
    ensure!(built.success(), "the binary could not be built");
    let night = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs() / 86_400;
    let first = (night * 1_000_000).to_string();
    let mut passed = true;
    let binary = tree::root().join(BINARY);
    for name in checkouts::scenarios(&binary)? {
        for worlds in [&["--for", span][..], &LONG, &OUT_OF_CONTRACT] {
            let sim = ["sim", "run", name.as_str(), "--first", first.as_str()];
            passed &= Command::new(&binary).args(sim).args(worlds).status()?.success();
        }
    }
    passed &= checkouts::run()?;
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
    let ran = ring.env("QUORATE_RING_SEEDS", RING.to_string()).status()?;
    Ok(passed & ran.success())
}
