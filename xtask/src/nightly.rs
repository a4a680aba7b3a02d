//! `cargo xtask nightly`: far more seeds than a test run has time for, of simulated worlds and of real processes, and a long storm
//! over PostgreSQL.

mod figures;

use std::{
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Result, ensure};

use self::figures::Figures;
use crate::{checkouts, command, tree};

/// Where the build lies that worlds are simulated with.
const BINARY: &str = "target/release/quorate";
/// Where the figures of nights are kept, one file for each, named by how many days after the beginning of 1970 it was.
const FIGURES: &str = "target/nightly";

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
const STORMS: [(&str, [&str; 2]); 2] = [
    ("a storm over PostgreSQL", ["--test=postgres", "every_committed_event_is_seen_once"]),
    ("the lemmas of the log over PostgreSQL", ["--lib", "the_lemmas_hold"]),
];

/// Simulates each scenario for `span`, and no fewer seeds than a night owes it, from one on that no night had before, some of it in
/// long worlds and in worlds out of contract, and compares some seeds with themselves in another checkout; has the loan views keep
/// all of the loans, and then has the same clients meet real processes.
/// Says whether all passed; the seeds of what failed are printed with the command that runs them again. Ends with a table of the faults
/// that were carried out and the states that were reached, which are kept for programs in a file of the night, from campaign to campaign.
///
/// # Errors
/// When the binary cannot be built or run, its figures cannot be kept, or something here is not committed.
pub(crate) fn run(span: &str) -> Result<bool> {
    command::require_our_rustflags()?;
    // Now, not after hours.
    checkouts::require_committed()?;
    let built = command::cargo(&["build", "--release", "--package", "quorate-cli"]).status()?;
    ensure!(built.success(), "the binary could not be built");
    let night = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs() / 86_400;
    let mut figures = Figures::of(night, &checkouts::commit()?);
    let file = tree::root().join(FIGURES).join(format!("{night}.json"));
    worlds(span, night, &mut figures, &file)?;
    // What became of the tree meanwhile is no reason to leave out the rest of the night.
    let same = checkouts::run().unwrap_or_else(|why| {
        eprintln!("nightly: checkouts were not compared: {why:#}");
        false
    });
    figures.step("the same worlds in another checkout", same);
    for (name, mut command) in others() {
        figures.step(name, command.status()?.success());
        figures.keep(&file)?;
    }
    figures.end();
    figures.keep(&file)?;
    println!("{figures}\nkept in {}", file.display());
    Ok(figures.passed())
}

/// Simulates every scenario in worlds of each kind.
fn worlds(span: &str, night: u64, figures: &mut Figures, file: &Path) -> Result<()> {
    let (binary, first) = (tree::root().join(BINARY), (night * APART).to_string());
    for name in checkouts::scenarios(&binary)? {
        let least = if name.starts_with("machines-") { LEAST_OF_MACHINES } else { LEAST };
        for worlds in [&["--for", span, "--at-least", least][..], &LONG, &OUT_OF_CONTRACT] {
            let sim = ["sim", "run", name.as_str(), "--first", first.as_str(), "--output", "json"];
            // Progress, and the command that runs a failure again, are for who looks on.
            let ran = Command::new(&binary).args(sim).args(worlds).stderr(Stdio::inherit()).output()?;
            figures.add(&name, worlds, ran.status.success(), &ran.stdout);
            figures.keep(file)?;
        }
    }
    Ok(())
}

/// What a night does besides, by name.
fn others() -> Vec<(&'static str, Command)> {
    let storms = STORMS.map(|(name, [target, test])| {
        let mut storm =
            command::cargo(&["test", "--release", "--package", "quorate-data", target, "--", "--nocapture", test]);
        storm.env("QUORATE_LONG", "1").env("QUORATE_STORM", STORM.to_string()).env("QUORATE_FORBID_SKIPPING", "1");
        (name, storm)
    });
    let mut loans = command::cargo(&["test", "--release", "--package", "quorate-examples", "--test", "views"]);
    loans.env("QUORATE_LOANS_ALL", "1");
    let mut killed = command::cargo(&["test", "--package", "quorate-communication", "--test", "transports", "killed"]);
    killed.env("QUORATE_LONG", "1").env("QUORATE_FORBID_SKIPPING", "1");
    let mut ring = command::cargo(&["test", "--package", "quorate-cli", "--test", "ring", "--no-fail-fast"]);
    ring.env("QUORATE_RING_SEEDS", RING.to_string()).env("QUORATE_FORBID_SKIPPING", "1");
    let rest =
        [("the views of all loans", loans), ("transports whose broker is killed", killed), ("the second ring", ring)];
    storms.into_iter().chain(rest).collect()
}
