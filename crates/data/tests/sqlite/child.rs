//! This program again, as its own child: in it the same test plays the other part, until it is killed.

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, Command, Stdio},
};

/// Says to this program that it is a child, and which store is meant.
pub(crate) const STORE: &str = "QUORATE_TEST_STORE";
pub(crate) const ROUND: &str = "QUORATE_TEST_ROUND";

pub(crate) fn child_of(test: &str, store: &Path, round: u64) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(STORE, store)
        .env(ROUND, round.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap()
}

/// Says something to the parent, past whatever captures output.
pub(crate) fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "\nsaid {line}");
    let _ = out.flush();
}

/// What a child says, line by line.
pub(crate) fn said(child: &mut Child) -> impl Iterator<Item = String> + use<> {
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    lines.map_while(Result::ok).filter_map(|line| line.strip_prefix("said ").map(str::to_owned))
}
