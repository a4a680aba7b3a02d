//! Running cargo from within `cargo xtask`.

use std::{env, ffi::OsString, process::Command};

use anyhow::{Result, bail};

use crate::tree;

/// The setting of `.cargo/config.toml` that a `RUSTFLAGS` from outside would silently replace.
const NEEDED_CFG: &str = "tokio_unstable";

/// `cargo` with `arguments`, at the root, without the variables that `cargo run` set for xtask itself: a build script
/// that watches one of them would otherwise run again for nothing.
pub(crate) fn cargo(arguments: &[&str]) -> Command {
    ours(Command::new(program()), arguments)
}

/// The same in the time of the processors that everything else leaves over, where the system has a command for that.
pub(crate) fn cargo_in_spare_time(arguments: &[&str]) -> Command {
    let last = ["-n", "19"];
    if !Command::new("nice").args(last).arg("true").status().is_ok_and(|status| status.success()) {
        return cargo(arguments);
    }
    let mut command = Command::new("nice");
    command.args(last).arg(program());
    ours(command, arguments)
}

fn program() -> OsString {
    env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

fn ours(mut command: Command, arguments: &[&str]) -> Command {
    command.args(arguments).current_dir(tree::root());
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")) {
            command.env_remove(name);
        }
    }
    command
}

/// Whether `cargo <subcommand>` is there.
pub(crate) fn has_subcommand(subcommand: &str) -> bool {
    cargo(&[subcommand, "--version"]).output().is_ok_and(|output| output.status.success())
}

/// Stops when flags from the environment would take the place of ours.
///
/// # Errors
/// When such flags are set and lack the cfg; the message says what to do.
pub(crate) fn require_our_rustflags() -> Result<()> {
    for name in ["CARGO_ENCODED_RUSTFLAGS", "RUSTFLAGS"] {
        if let Ok(flags) = env::var(name) {
            judge_rustflags(name, &flags)?;
        }
    }
    Ok(())
}

fn judge_rustflags(name: &str, flags: &str) -> Result<()> {
    let words: Vec<&str> = flags.split([' ', '\u{1f}']).filter(|word| !word.is_empty()).collect();
    let stands_apart = words.windows(2).any(|pair| pair == ["--cfg", NEEDED_CFG]);
    if stands_apart || words.contains(&"--cfg=tokio_unstable") {
        return Ok(());
    }
    bail!(
        "{name} is set and replaces the flags of .cargo/config.toml, so tokio would be built without {NEEDED_CFG} \
         and simulations would not replay.\n\
         Either unset it:     unset {name}\n\
         or add the cfg:      export RUSTFLAGS=\"$RUSTFLAGS --cfg {NEEDED_CFG}\""
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rustflags_without_the_cfg_are_refused_with_the_remedy() {
        let refusal = judge_rustflags("RUSTFLAGS", "-C target-cpu=native").unwrap_err().to_string();
        assert!(refusal.contains("unset RUSTFLAGS"), "{refusal}");
        assert!(refusal.contains("--cfg tokio_unstable"), "{refusal}");
        assert!(judge_rustflags("RUSTFLAGS", "").is_err());
        assert!(judge_rustflags("RUSTFLAGS", "--cfg tokio_unstable_not").is_err());
    }

    #[test]
    fn rustflags_that_carry_the_cfg_are_accepted_in_both_spellings_and_encodings() {
        judge_rustflags("RUSTFLAGS", "-C debuginfo=0 --cfg tokio_unstable").unwrap();
        judge_rustflags("RUSTFLAGS", "--cfg=tokio_unstable").unwrap();
        judge_rustflags("CARGO_ENCODED_RUSTFLAGS", "--cfg\u{1f}tokio_unstable").unwrap();
    }
}
