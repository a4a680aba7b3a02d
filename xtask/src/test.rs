//! `cargo xtask test`: every test there is, with one line of totals at the end.

mod runner;
mod totals;

use std::{sync::mpsc, thread};

use anyhow::{Result, anyhow};

use self::{
    runner::{Printed, Suite},
    totals::Totals,
};
use crate::command;

const NEXTEST: Suite = Suite {
    name: "tests",
    arguments: &["nextest", "run", "--cargo-profile", "sim", "--workspace", "--exclude", XTASK, "--no-fail-fast"],
    variables: PLAIN,
    built: "Starting",
    read: totals::of_nextest,
};
const LIBTEST: Suite = Suite {
    name: "tests",
    arguments: &[
        "test",
        "--profile",
        "sim",
        "--workspace",
        "--exclude",
        XTASK,
        "--lib",
        "--bins",
        "--tests",
        "--examples",
        "--no-fail-fast",
    ],
    variables: PLAIN,
    built: RUNNING,
    read: totals::of_libtest,
};
/// Worlds, and the planted bugs that they have to find. Those are compiled in by a feature and act only where a world is told to
/// plant them, so that one build serves both.
///
/// Worlds know no time but their own, so that they are made and run beside everything else, in the time that tests leave over which
/// wait for servers and leases. The whole workspace is named, as by the other suites, so that what is not ours has the same features and
/// is built once.
const WORLDS: Suite = Suite {
    name: "simulated worlds and the museum of bugs",
    arguments: &[
        "test",
        "--profile",
        "sim",
        "--workspace",
        "--exclude",
        XTASK,
        "--features",
        "quorate-scenarios/museum",
        "--test",
        "loans",
        "--test",
        "museum",
        "--test",
        "seeds",
        "--test",
        "store",
        "--no-fail-fast",
        // Each piece tells its name and the seed that found it.
        "--",
        "--show-output",
    ],
    variables: &[],
    built: RUNNING,
    read: totals::of_libtest,
};
const DOCTEST: Suite = Suite {
    name: "documentation's examples",
    arguments: &["test", "--profile", "sim", "--doc", "--workspace", "--exclude", XTASK, "--no-fail-fast"],
    variables: PLAIN,
    built: RUNNING,
    read: totals::of_libtest,
};
/// These checks and suites themselves, in the profile that they are built with anyway.
const OURS: Suite = Suite {
    name: "tests of xtask",
    arguments: &["test", "--package", XTASK],
    variables: &[],
    built: RUNNING,
    read: totals::of_libtest,
};
/// Left out of the others, which are to be about the same packages: it needs libraries at run time that are elsewhere needed by
/// macros alone, and cargo builds those in another way then, and whatever stands on them once more.
const XTASK: &str = "xtask";
/// What cargo says before it runs the first program of tests.
const RUNNING: &str = "Running";
/// What is ours is optimised for worlds alone: it takes longer than any other test does.
const PLAIN: &[(&str, &str)] = &[("CARGO_PROFILE_SIM_OPT_LEVEL", "0")];

/// Runs every suite to its end, prints the totals on standard output, and says whether all passed.
///
/// Servers that tests need are started here, before the suites, and end with this process.
///
/// # Errors
/// When a suite could not be started, or ended without saying how many tests it ran.
pub(crate) fn run() -> Result<bool> {
    command::require_our_rustflags()?;
    // nextest gives each test a process of its own, so that one cannot disturb another; cargo's runner will do.
    let tests = if command::has_subcommand("nextest") { NEXTEST } else { LIBTEST };
    let mut totals = Totals::default();
    let mut unfinished = Vec::new();
    let printed = Printed::default();
    let (builds, is_built) = mpsc::channel();
    let worlds = thread::spawn({
        let printed = printed.clone();
        move || {
            // Two builds into one folder wait for each other: this one has the time in which tests wait.
            let _dropped = is_built.recv();
            WORLDS.run_beside(&printed)
        }
    });
    let ended =
        [(tests, Some(builds)), (OURS, None), (DOCTEST, None)].map(|(suite, builds)| (suite.name, suite.run(builds)));
    let worlds = worlds.join().map_err(|_| anyhow!("who follows worlds panicked"))?;
    printed.show()?;
    for (name, outcome) in ended.into_iter().chain([(WORLDS.name, worlds)]) {
        let (succeeded, counted) = outcome?;
        if !succeeded && counted.failed == 0 {
            unfinished.push(name);
        }
        totals = totals + counted;
    }
    println!("{}", closing_line(totals, &unfinished));
    Ok(unfinished.is_empty() && totals.failed == 0)
}

/// The totals, and the suites that ended badly without a failed test: those that did not compile, for instance.
fn closing_line(totals: Totals, unfinished: &[&str]) -> String {
    if unfinished.is_empty() { totals.to_string() } else { format!("{totals}; not all ran: {}", unfinished.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suite_that_did_not_compile_shows_in_the_closing_line() {
        let totals = Totals { passed: 3, failed: 0, skipped: 1, flaky: 0 };
        assert_eq!(closing_line(totals, &[]), "tests: 3 passed, 0 failed, 1 skipped");
        let line = closing_line(totals, &[DOCTEST.name]);
        assert_eq!(line, "tests: 3 passed, 0 failed, 1 skipped; not all ran: documentation's examples");
    }
}
