//! `cargo xtask test`: every test there is, with one line of totals at the end.

mod runner;
mod totals;

use anyhow::Result;

use self::{runner::Suite, totals::Totals};
use crate::command;

const NEXTEST: Suite =
    Suite { name: "tests", arguments: &["nextest", "run", "--workspace", "--no-fail-fast"], read: totals::of_nextest };
const LIBTEST: Suite = Suite {
    name: "tests",
    arguments: &["test", "--workspace", "--lib", "--bins", "--tests", "--examples", "--no-fail-fast"],
    read: totals::of_libtest,
};
const DOCTEST: Suite = Suite {
    name: "documentation's examples",
    arguments: &["test", "--doc", "--workspace", "--no-fail-fast"],
    read: totals::of_libtest,
};

/// Runs every suite to its end, prints the totals on standard output, and says whether all passed.
///
/// Servers that tests need are started here, before the suites, and end with this process.
///
/// # Errors
/// When a suite could not be started, or ended without saying how many tests it ran.
pub(crate) fn run() -> Result<bool> {
    command::require_our_rustflags()?;
    // nextest gives each test its own process, which is what replaying one seed needs; cargo's runner does, too, where
    // nextest isn't installed.
    let tests = if command::has_subcommand("nextest") { NEXTEST } else { LIBTEST };
    let mut all_passed = true;
    let mut totals = Totals::default();
    for suite in [tests, DOCTEST] {
        let (passed, counted) = suite.run()?;
        all_passed &= passed;
        totals = totals + counted;
    }
    println!("{totals}");
    Ok(all_passed && totals.failed == 0)
}
