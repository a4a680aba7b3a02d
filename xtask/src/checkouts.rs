//! `cargo xtask checkouts`: is a seed the same world in another checkout of the same commit?
//!
//! Nothing of a checkout may get into a world: not its path, nor its build, nor whoever runs it where. So the commit is cloned
//! to a folder of another depth, built there, and run in another environment. Only what comes from registries is the same file in
//! both, where a file system can do that: it is built of the same sources wherever it is.

use std::{
    collections::BTreeSet,
    env, fs, io,
    path::Path,
    process::{self, Command},
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::{command, tree};

const BUILD: [&str; 5] = ["build", "--profile", "sim", "--package", "quorate-cli"];
/// Where that build lies in its checkout, and what is in it.
const BUILT: &str = "target/sim";
const BINARY: &str = "target/sim/quorate";
/// What cargo keeps of a build.
const PARTS: [&str; 3] = ["deps", "build", ".fingerprint"];
/// What the names of files begin with there that are of our own: they are the same in every checkout, and cargo writes them in place.
const OURS: [&str; 2] = ["quorate", "libquorate"];
/// Seeds of each scenario that are compared.
const SEEDS: u64 = 20;

/// Refuses to go on where another checkout of the same commit would not be this one.
///
/// # Errors
/// When something here is not committed.
pub(crate) fn require_committed() -> Result<()> {
    let changed = git(&tree::root(), &["status", "--porcelain"])?;
    ensure!(changed.is_empty(), "another checkout would lack what is not committed here:\n{changed}");
    Ok(())
}

/// The commit that is checked out here.
///
/// # Errors
/// When git does not know.
pub(crate) fn commit() -> Result<String> {
    Ok(git(&tree::root(), &["rev-parse", "HEAD"])?.trim().to_owned())
}

/// Builds this checkout and another one of the same commit, and compares what seeds of every scenario are in them.
///
/// # Errors
/// When something here is not committed, or a checkout cannot be made or built.
pub(crate) fn run() -> Result<bool> {
    command::require_our_rustflags()?;
    require_committed()?;
    ensure!(command::cargo(&BUILD).status()?.success(), "this checkout could not be built");
    with_another(|there| compare(&tree::root(), there))
}

/// Has `work` look at another checkout, built; it is gone afterwards.
fn with_another(work: impl FnOnce(&Path) -> Result<bool>) -> Result<bool> {
    let folder = env::temp_dir().join(format!("quorate-checkout-{}", process::id()));
    let there = folder.join("of/another/depth");
    fs::create_dir_all(&folder)?;
    let done = another(&there).and_then(|()| work(&there));
    fs::remove_dir_all(&folder)?;
    done
}

fn another(there: &Path) -> Result<()> {
    let (here, commit) = (tree::root(), commit()?);
    git(&here, &["clone", "--quiet", "--no-checkout", &here.to_string_lossy(), &there.to_string_lossy()])?;
    git(there, &["checkout", "--quiet", "--detach", &commit])?;
    for part in PARTS {
        let (from, to) = (here.join(BUILT).join(part), there.join(BUILT).join(part));
        if let Err(cause) = link_all(&from, &to) {
            eprintln!("checkouts: {part} is built anew: {cause}");
        }
    }
    let built = command::cargo(&BUILD).current_dir(there).env_remove("CARGO_TARGET_DIR").status()?;
    ensure!(built.success(), "the other checkout could not be built");
    Ok(())
}

/// Has `to` have the same files as `from`, except for ours.
fn link_all(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (name, there) = (entry.file_name(), to.join(entry.file_name()));
        if OURS.iter().any(|begin| name.to_string_lossy().starts_with(begin)) {
            continue;
        }
        if entry.file_type()?.is_dir() {
            link_all(&entry.path(), &there)?;
        } else {
            fs::hard_link(entry.path(), there)?;
        }
    }
    Ok(())
}

/// Whether seeds are the same worlds in both. Each that is not is told.
fn compare(here: &Path, there: &Path) -> Result<bool> {
    let mut same = true;
    for scenario in scenarios(&here.join(BINARY))? {
        for seed in 0..SEEDS {
            let one = world(&mut Command::new(here.join(BINARY)), &scenario, seed)?;
            let mut elsewhere = Command::new(there.join(BINARY));
            elsewhere.current_dir("/").env_clear().env("TZ", "Asia/Kathmandu").env("HOME", "/nonexistent");
            let parts = apart(&one, &world(&mut elsewhere, &scenario, seed)?);
            if !parts.is_empty() {
                let parts = parts.join(", ");
                eprintln!("checkouts: seed {seed} of {scenario} is another world in another checkout, by its {parts}");
                same = false;
            }
        }
        eprintln!("checkouts: {SEEDS} seeds of {scenario} were compared");
    }
    Ok(same)
}

/// The names of all scenarios that the program `quorate` has.
pub(crate) fn scenarios(quorate: &Path) -> Result<Vec<String>> {
    let told = json(Command::new(quorate).args(["sim", "list", "--output", "json"]))?;
    let names = told.as_array().context("a list of scenarios")?.iter().map(|scenario| scenario["name"].as_str());
    names.map(|name| name.map(str::to_owned).context("a scenario without a name")).collect()
}

/// What `quorate` tells of a seed, of which the hash of all that happens is one part.
fn world(quorate: &mut Command, scenario: &str, seed: u64) -> Result<Value> {
    let told = json(quorate.args(["sim", "run", scenario, "--seed", &seed.to_string(), "--output", "json"]))?;
    ensure!(told["trace"].is_string(), "seed {seed} of {scenario} ran without a trace");
    Ok(told)
}

/// In which parts two tellings of one world differ. What judges and counters say is no part of the trace, and must be the same, too.
fn apart(one: &Value, other: &Value) -> Vec<String> {
    let keys =
        |told: &Value| told.as_object().into_iter().flatten().map(|(key, _)| key.clone()).collect::<BTreeSet<_>>();
    keys(one).union(&keys(other)).filter(|key| one[key.as_str()] != other[key.as_str()]).cloned().collect()
}

fn json(command: &mut Command) -> Result<Value> {
    let output = command.output()?;
    serde_json::from_slice(&output.stdout).with_context(|| format!("{command:?} printed no JSON"))
}

fn git(checkout: &Path, arguments: &[&str]) -> Result<String> {
    let output = Command::new("git").args(arguments).current_dir(checkout).output().context("git")?;
    ensure!(output.status.success(), "git {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn worlds_of_the_same_trace_that_were_judged_or_counted_otherwise_are_not_the_same() {
        let world = json!({ "trace": "ab", "reached": { "a state": 1 }, "claims": [] });
        assert_eq!(apart(&world, &world), [""; 0]);
        let counted = json!({ "trace": "ab", "reached": { "a state": 2 }, "claims": [], "violations": [] });
        assert_eq!(apart(&world, &counted), ["reached", "violations"]);
    }

    #[test]
    fn what_is_built_of_our_own_sources_is_not_shared_with_another_checkout() {
        let folder = env::temp_dir().join(format!("quorate-links-{}", process::id()));
        let (here, there) = (folder.join("here"), folder.join("there"));
        fs::create_dir_all(here.join("tokio-1")).unwrap();
        for name in ["tokio-1/lib-tokio", "libtokio-1.rlib", "libquorate_sim-2.rlib", "quorate-3"] {
            fs::write(here.join(name), name).unwrap();
        }
        link_all(&here, &there).unwrap();
        let is_there = |name: &str| there.join(name).exists();
        assert!(is_there("tokio-1/lib-tokio") && is_there("libtokio-1.rlib"));
        assert!(!is_there("libquorate_sim-2.rlib") && !is_there("quorate-3"));
        fs::remove_dir_all(&folder).unwrap();
    }
}
