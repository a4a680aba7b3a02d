//! How many tests ran, as their runners say.

use std::{fmt, ops::Add};

/// Counts of tests.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) skipped: u64,
    /// Of those that passed: how many had failed before, in the same run.
    pub(crate) flaky: u64,
}

impl Add for Totals {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            passed: self.passed + other.passed,
            failed: self.failed + other.failed,
            skipped: self.skipped + other.skipped,
            flaky: self.flaky + other.flaky,
        }
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tests: {} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)?;
        if self.flaky > 0 {
            write!(f, "; {} of those that passed had failed before", self.flaky)?;
        }
        Ok(())
    }
}

/// Reads nextest's closing line: `Summary [   0.5s] 9 tests run: 8 passed (1 slow), 1 failed, 2 skipped`.
pub(crate) fn of_nextest(line: &str) -> Option<Totals> {
    let plain = without_colours(line);
    let (head, counts) = plain.trim().strip_prefix("Summary")?.split_once(" run: ")?;
    let is_it = head.ends_with("test") || head.ends_with("tests");
    is_it.then(|| Totals { flaky: flaky(counts), ..count(&without_parentheses(counts), ',') })
}

/// Reads a closing line of cargo's runner: `test result: ok. 8 passed; 0 failed; 2 ignored; 0 measured; …`.
pub(crate) fn of_libtest(line: &str) -> Option<Totals> {
    let plain = without_colours(line);
    let (_, counts) = plain.trim().strip_prefix("test result: ")?.split_once(". ")?;
    Some(count(counts, ';'))
}

fn count(counts: &str, between: char) -> Totals {
    let mut totals = Totals::default();
    for part in counts.split(between) {
        let Some((number, word)) = part.trim().split_once(' ') else { continue };
        let Ok(number) = number.parse::<u64>() else { continue };
        match word.trim() {
            "passed" => totals.passed += number,
            "skipped" | "ignored" | "filtered out" => totals.skipped += number,
            "measured" => {}
            // "failed", "timed out", "exec failed", and whatever else a runner counts apart from passing.
            _ => totals.failed += number,
        }
    }
    totals
}

/// How many it says were `flaky`: it puts them in parentheses behind those that passed.
fn flaky(counts: &str) -> u64 {
    let parts = counts.split(['(', ',', ')']).filter_map(|part| part.trim().strip_suffix(" flaky"));
    parts.filter_map(|number| number.parse::<u64>().ok()).sum()
}

fn without_parentheses(text: &str) -> String {
    let mut depth = 0_usize;
    let outside = text.chars().filter(|c| {
        depth += usize::from(*c == '(');
        let keep = depth == 0;
        depth -= usize::from(*c == ')' && depth > 0);
        keep
    });
    outside.collect()
}

/// Takes out terminal colours: from each escape up to its `m`.
fn without_colours(line: &str) -> String {
    let mut inside = false;
    let shown = line.chars().filter(|c| {
        inside |= *c == '\u{1b}';
        let keep = !inside;
        inside &= *c != 'm';
        keep
    });
    shown.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn totals(passed: u64, failed: u64, skipped: u64) -> Option<Totals> {
        Some(Totals { passed, failed, skipped, flaky: 0 })
    }

    #[test]
    fn the_summary_of_nextest_is_read() {
        assert_eq!(of_nextest("     Summary [   0.512s] 9 tests run: 9 passed, 0 skipped"), totals(9, 0, 0));
        assert_eq!(of_nextest("Summary [ 1.0s] 1 test run: 1 passed, 3 skipped"), totals(1, 0, 3));
        let mixed = "Summary [ 60.1s] 9 tests run: 6 passed (1 slow, 2 flaky), 2 failed, 1 timed out, 4 skipped";
        assert_eq!(of_nextest(mixed), totals(6, 3, 4).map(|totals| Totals { flaky: 2, ..totals }));
        let alone = of_nextest("Summary [ 1.0s] 1 test run: 1 passed (1 flaky), 0 skipped").unwrap();
        assert_eq!(alone.to_string(), "tests: 1 passed, 0 failed, 0 skipped; 1 of those that passed had failed before");
        let coloured = "\u{1b}[32;1m     Summary\u{1b}[0m [   0.5s] \u{1b}[1m2\u{1b}[0m tests run: \u{1b}[1m2\u{1b}[0m \
                        \u{1b}[32;1mpassed\u{1b}[0m, \u{1b}[1m0\u{1b}[0m \u{1b}[33;1mskipped\u{1b}[0m";
        assert_eq!(of_nextest(coloured), totals(2, 0, 0));
    }

    #[test]
    fn the_results_of_cargos_runner_are_read() {
        let line = "test result: FAILED. 5 passed; 1 failed; 2 ignored; 0 measured; 3 filtered out; finished in 0.01s";
        assert_eq!(of_libtest(line), totals(5, 1, 5));
    }

    #[test]
    fn other_lines_count_nothing() {
        assert_eq!(of_nextest("PASS [ 0.1s] data store::tests::a_summary_is_kept"), None);
        assert_eq!(of_nextest("Summary of what was run: 3 passed"), None);
        assert_eq!(of_libtest("running 3 tests"), None);
    }
}
