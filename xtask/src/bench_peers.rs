//! `cargo xtask bench-peers`: the log beside its peers, everything built for release first.

use std::{path::PathBuf, process::Command};

use anyhow::{Context, Result, ensure};

use crate::{command, tree};

/// The peers' own workspace.
pub(crate) const MANIFEST: &str = "benches/log/Cargo.toml";

/// The peers' runners, and what runs them. Each is built by itself, so that none gets features that another asked for.
const PACKAGES: &[&str] = &["peer-cqrs-es", "peer-eventcore", "peer-umadb", "compare"];

/// Where the two workspaces are built, from the root. Both are told, so that no variable decides where they are found.
const OURS: &str = "target";
const PEERS: &str = "target/benches";

/// Builds quorate and the peers, then compares; `arguments` are the comparison's own.
///
/// # Errors
/// When something could not be built or started.
pub(crate) fn run(arguments: &[&str]) -> Result<bool> {
    command::require_our_rustflags()?;
    build(&["--package", "quorate-cli", "--target-dir", OURS])?;
    for package in PACKAGES {
        build(&["--manifest-path", MANIFEST, "--package", package, "--target-dir", PEERS])?;
    }
    let mut compare = Command::new(built(PEERS, "compare"));
    let status = compare.arg("--quorate").arg(built(OURS, "quorate")).args(arguments).status();
    Ok(status.context("the comparison did not start")?.success())
}

fn build(arguments: &[&str]) -> Result<()> {
    let arguments = [&["build", "--release", "--locked"], arguments].concat();
    let command = format!("cargo {}", arguments.join(" "));
    let status = command::cargo(&arguments).status().with_context(|| format!("`{command}` did not start"))?;
    ensure!(status.success(), "`{command}`: {status}");
    Ok(())
}

fn built(target: &str, program: &str) -> PathBuf {
    let name = format!("{program}{}", std::env::consts::EXE_SUFFIX);
    tree::root().join(target).join("release").join(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Tree;

    #[test]
    fn every_package_that_is_built_is_in_the_peers_workspace() {
        let tree = Tree::of_repository(&tree::root()).unwrap();
        for package in PACKAGES {
            let name = format!("name = \"{package}\"");
            assert!(tree.under("benches/log/", "/Cargo.toml").any(|(_, text)| text.contains(&name)), "{package}");
        }
    }
}
