//! The checks that cargo and its companions do for us.

use anyhow::{Context, Result};

use super::{Finding, Verdict};
use crate::{bench_peers, command};

/// The profile of `cargo xtask test`: macros and build scripts, SQLite's among them, are compiled once for both.
const AS_TESTED: [&str; 2] = ["--profile", "sim"];

/// rustfmt, over every member of the workspace and of the peers'.
pub(super) fn format() -> Result<Verdict> {
    let ours = run(&["fmt", "--all", "--check"], &[])?;
    match ours {
        Verdict::Passed => run(&["fmt", "--all", "--check", "--manifest-path", bench_peers::MANIFEST], &[]),
        _ => Ok(ours),
    }
}

/// clippy, over everything that compiles; the tests of worlds are built where somebody asks for them.
pub(super) fn lint() -> Result<Verdict> {
    let everything = ["clippy", "--workspace", "--all-targets", "--features", "quorate-scenarios/worlds"];
    run(&[&everything[..], &AS_TESTED, &["--", "-D", "warnings"]].concat(), &[])
}

/// rustdoc, with its warnings (broken links among them) as errors.
pub(super) fn docs() -> Result<Verdict> {
    run(&[&["doc", "--no-deps", "--workspace"], &AS_TESTED[..]].concat(), &[("RUSTDOCFLAGS", "-D warnings")])
}

/// cargo-deny's judgement by `deny.toml`. The advisory database is left to whoever has a connection to it.
pub(super) fn licences() -> Result<Verdict> {
    if !command::has_subcommand("deny") {
        return Ok(Verdict::Skipped(
            "cargo-deny isn't installed; `cargo install --locked cargo-deny` makes this check run",
        ));
    }
    run(&["deny", "--log-level", "error", "check", "licenses", "bans", "sources"], &[])
}

fn run(arguments: &[&str], variables: &[(&str, &str)]) -> Result<Verdict> {
    let command = format!("cargo {}", arguments.join(" "));
    let mut child = command::cargo(arguments);
    let status =
        child.envs(variables.iter().copied()).status().with_context(|| format!("`{command}` did not start"))?;
    if status.success() {
        return Ok(Verdict::Passed);
    }
    Ok(Verdict::Failed(vec![Finding::new(format!("`{command}`"), format!("{status}; its report is above"))]))
}
