//! Each layer keeps its libraries: HTTP frameworks stay in `node`, argument parsing in `cli`, the runtime out of
//! `foundations`. hyper may be used wherever a protocol needs it.

use anyhow::Result;

use super::{
    Finding,
    exceptions::Exceptions,
    manifest::{self, Kind},
};
use crate::tree::Tree;

/// Libraries that only one crate may use, with every library whose name starts the same (`clap_complete`).
const HOMES: &[(&str, &str)] = &[("axum", "node"), ("maud", "node"), ("clap", "cli"), ("indicatif", "cli")];

/// What would bring an async runtime or I/O under `foundations`.
const WORLDLY: &[&str] =
    &["tokio", "tokio-util", "tokio-stream", "async-std", "smol", "hyper", "hyper-util", "mio", "rustix", "rusqlite"];

/// Compares the libraries of every crate with the rules.
///
/// # Errors
/// When a manifest or the exceptions can't be read.
pub(super) fn findings(tree: &Tree) -> Result<Vec<Finding>> {
    let mut exceptions = Exceptions::read(tree)?.dev_dependencies(|package| !manifest::is_ours(package));
    let mut findings = Vec::new();
    for manifest in manifest::read_all(tree)? {
        let Some(name) = manifest.crate_name() else { continue };
        for dependency in &manifest.dependencies {
            let Some(what) = fault(name, &dependency.package) else { continue };
            let excepted = dependency.kind == Kind::Dev
                && exceptions.permits(|entry| entry.of == name && entry.on == dependency.package);
            if !excepted {
                findings.push(Finding::new(&manifest.path, what));
            }
        }
    }
    findings.extend(exceptions.findings());
    Ok(findings)
}

fn fault(name: &str, library: &str) -> Option<String> {
    let home = HOMES.iter().find(|(family, _)| is_of_family(library, family)).map(|(_, home)| *home);
    if let Some(home) = home.filter(|home| *home != name) {
        return Some(format!("{name} may not use {library}; only {home} does"));
    }
    (name == "foundations" && WORLDLY.contains(&library))
        .then(|| format!("foundations may not use {library}; it has no runtime and no I/O"))
}

fn is_of_family(library: &str, family: &str) -> bool {
    library.strip_prefix(family).is_some_and(|rest| rest.is_empty() || rest.starts_with(['-', '_']))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(name: &str, dependencies: &str, exceptions: &str) -> Vec<String> {
        let path = format!("crates/{name}/Cargo.toml");
        let tree = Tree::from([(path.as_str(), dependencies), ("xtask/exceptions.toml", exceptions)]);
        findings(&tree).unwrap().into_iter().map(|finding| finding.what).collect()
    }

    const NONE: [&str; 0] = [];

    #[test]
    fn a_web_framework_outside_node_is_named() {
        let faults = judge("data", "[dependencies]\naxum.workspace = true", "");
        assert_eq!(faults, ["data may not use axum; only node does"]);
        assert_eq!(judge("cli", "[dependencies]\nmaud = \"1\"\naxum-extra = \"1\"", "").len(), 2);
        assert_eq!(judge("node", "[dependencies]\naxum.workspace = true\nmaud.workspace = true", ""), NONE);
    }

    #[test]
    fn argument_parsing_outside_cli_is_named() {
        assert_eq!(judge("node", "[dependencies]\nclap.workspace = true\nclap_complete = \"1\"", "").len(), 2);
        assert_eq!(judge("cli", "[dependencies]\nclap.workspace = true\nindicatif = \"1\"", ""), NONE);
    }

    #[test]
    fn foundations_stay_without_a_runtime_even_in_their_tests() {
        assert_eq!(judge("foundations", "[dependencies]\ntokio.workspace = true", "").len(), 1);
        assert_eq!(judge("foundations", "[dev-dependencies]\ntokio.workspace = true", "").len(), 1);
        assert_eq!(judge("runtime", "[dependencies]\ntokio.workspace = true", ""), NONE);
    }

    #[test]
    fn hyper_is_allowed_wherever_a_protocol_needs_it() {
        assert_eq!(judge("observability", "[dependencies]\nhyper.workspace = true", ""), NONE);
    }

    #[test]
    fn a_library_whose_name_merely_begins_alike_is_left_alone() {
        assert_eq!(judge("data", "[dependencies]\nclapper = \"1\"\naxumatic = \"1\"", ""), NONE);
    }

    #[test]
    fn tests_may_use_a_library_from_elsewhere_where_the_reason_is_written_down() {
        let uses = "[dev-dependencies]\naxum.workspace = true";
        let written = "[[dev-dependency]]\ncrate = \"security\"\non = \"axum\"\nreason = \"an upstream to route to\"";
        assert_eq!(judge("security", uses, "").len(), 1);
        assert_eq!(judge("security", uses, written), NONE);
    }
}
