//! `cargo xtask nightly`: far more seeds than a test run has time for, of simulated worlds and of real processes.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::command;

const BINARY: &str = "target/release/quorate";
/// Seeds of each scenario that are run twice, to see that they are the same world both times.
const TWICE: u64 = 20;
/// Worlds that go on for longer than they need to be wrong.
const LONG: [&str; 4] = ["--time", "60s", "--seeds", "100"];
/// Worlds that break what everything rests on.
const OUT_OF_CONTRACT: [&str; 4] = ["--out-of-contract", "lying-sync", "--seeds", "100"];
/// Seeds of the second ring: each is some seconds of real time for each scenario.
const RING: u64 = 40;

/// Simulates each scenario for `span`, from a seed on that no night had before, some of it in long worlds and in worlds out of
/// contract, and compares some seeds with themselves; then has the same clients meet real processes.
/// Says whether all passed; the seeds of what failed are printed with the command that runs them again.
///
/// # Errors
/// When the binary cannot be built or run.
pub(crate) fn run(span: &str) -> Result<bool> {
    command::require_our_rustflags()?;
    let built = command::cargo(&["build", "--release", "--package", "quorate-cli"]).status()?;
    ensure!(built.success(), "the binary could not be built");
    let night = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs() / 86_400;
    let first = (night * 1_000_000).to_string();
    let mut passed = true;
    for name in scenarios()? {
        for worlds in [&["--for", span][..], &LONG, &OUT_OF_CONTRACT] {
            let sim = ["sim", "run", name.as_str(), "--first", first.as_str()];
            passed &= Command::new(BINARY).args(sim).args(worlds).status()?.success();
        }
        for seed in 0..TWICE {
            let (one, other) = (trace(&name, seed)?, trace(&name, seed)?);
            if one != other {
                eprintln!("nightly: seed {seed} of {name} gave {one} once and {other} the other time");
                passed = false;
            }
        }
    }
    let mut ring = command::cargo(&["test", "--package", "quorate-cli", "--test", "ring", "--no-fail-fast"]);
    let ran = ring.env("QUORATE_RING_SEEDS", RING.to_string()).status()?;
    Ok(passed & ran.success())
}

fn scenarios() -> Result<Vec<String>> {
    let told = json(&["sim", "list", "--output", "json"])?;
    let names = told.as_array().context("a list of scenarios")?.iter().map(|scenario| scenario["name"].as_str());
    names.map(|name| name.map(str::to_owned).context("a scenario without a name")).collect()
}

fn trace(scenario: &str, seed: u64) -> Result<String> {
    let told = json(&["sim", "run", scenario, "--seed", &seed.to_string(), "--output", "json"])?;
    Ok(told["trace"].as_str().context("a run without a trace")?.to_owned())
}

fn json(arguments: &[&str]) -> Result<Value> {
    let output = Command::new(BINARY).args(arguments).output()?;
    serde_json::from_slice(&output.stdout).with_context(|| format!("`quorate {}` printed no JSON", arguments.join(" ")))
}
