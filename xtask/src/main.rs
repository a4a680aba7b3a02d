//! The workspace's own chores. `cargo xtask check` judges the tree, `cargo xtask test` runs every test,
//! `cargo xtask bench-peers` measures the log beside its peers.

#![expect(clippy::disallowed_methods, reason = "a tool for this machine reads files and clocks directly")]

mod bench_peers;
mod check;
mod checkouts;
mod command;
mod nightly;
mod test;
mod tree;

use std::process::ExitCode;

const USAGE: &str = "\
usage:
  cargo xtask check [NAME…]   judge the tree; with names, only those checks
  cargo xtask check --list    name the checks
  cargo xtask test            run every test
  cargo xtask nightly [SPAN]  simulate each scenario for SPAN (10m unless said otherwise), in release mode
  cargo xtask checkouts       compare simulated worlds with those of another checkout of this commit
  cargo xtask bench-peers [ARGUMENT…]
                              measure the log beside its peers; --help names the arguments";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let succeeded = match words.as_slice() {
        ["check", "--list"] => check::list(),
        ["check", names @ ..] => check::run(names),
        ["test"] => test::run(),
        ["nightly"] => nightly::run("10m"),
        ["nightly", span] => nightly::run(span),
        ["checkouts"] => checkouts::run(),
        ["bench-peers", arguments @ ..] => bench_peers::run(arguments),
        _ => Err(anyhow::anyhow!("{USAGE}")),
    };
    match succeeded {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::from(2)
        }
    }
}
