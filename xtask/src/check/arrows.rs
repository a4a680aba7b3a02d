//! Arrows between crates point down a level, never sideways.

use anyhow::Result;

use super::{
    Finding,
    exceptions::Exceptions,
    manifest::{self, Dependency, Kind, Manifest},
};
use crate::tree::Tree;

/// Which crates each crate may use, lower ones first: a crate may name only those above it in this list.
///
/// A crate that isn't here may not exist; adding one, or an arrow, is a decision for `docs/adr`.
const TABLE: &[(&str, &[&str])] = &[
    ("foundations", &[]),
    ("runtime", &["foundations"]),
    ("sim-macros", &[]),
    ("sim", &["foundations", "runtime", "sim-macros"]),
    ("observability", &["foundations", "runtime"]),
    ("resilience", &["foundations", "runtime"]),
    ("data", &["foundations", "runtime"]),
    ("coordination", &["foundations", "runtime", "data", "resilience"]),
    ("communication", &["foundations", "runtime", "data", "resilience"]),
    ("consistency", &["foundations", "runtime", "data", "communication", "resilience"]),
    ("scalability", &["foundations", "runtime", "data", "resilience", "coordination"]),
    ("deployment", &["foundations", "runtime", "observability", "data", "scalability"]),
    ("security", &["foundations", "runtime", "observability", "resilience", "communication", "scalability"]),
    ("testing", &["foundations", "runtime", "observability", "communication", "resilience"]),
    ("legacy", &["foundations", "runtime", "communication", "scalability", "resilience"]),
    ("quorate", BELOW),
    ("node", BELOW),
    ("scenarios", BELOW),
    ("cli", BELOW),
];

/// Stands for every crate on a lower level.
const BELOW: &[&str] = &["*"];

/// The crates that see everything below them, by level.
const TOP: [&[&str]; 4] = [&["quorate"], &["node"], &["scenarios"], &["cli"]];

/// Compares every manifest with the table.
///
/// # Errors
/// When a manifest or the exceptions can't be read.
pub(super) fn findings(tree: &Tree) -> Result<Vec<Finding>> {
    let mut exceptions = Exceptions::read(tree)?.dev_dependencies(manifest::is_ours);
    let mut findings = Vec::new();
    for manifest in manifest::read_all(tree)? {
        findings.extend(fault_of_name(&manifest));
        for dependency in manifest.dependencies.iter().filter(|dependency| manifest::is_ours(&dependency.package)) {
            let Some(what) = fault(&manifest, dependency) else { continue };
            let excepted = dependency.kind == Kind::Dev
                && exceptions.permits(|entry| {
                    Some(entry.of.as_str()) == manifest.crate_name() && entry.on == dependency.package
                });
            if !excepted {
                findings.push(Finding::new(&manifest.path, what));
            }
        }
    }
    findings.extend(exceptions.findings());
    Ok(findings)
}

/// What is wrong with where a crate stands or how it is called.
fn fault_of_name(manifest: &Manifest) -> Option<Finding> {
    let name = manifest.crate_name()?;
    let package = package_of(name);
    let what = if allowed(name).is_none() {
        format!("the crate `{name}` is not in the table of arrows")
    } else if manifest.package != package {
        format!("the package is called `{}`; in crates/{name} it must be `{package}`", manifest.package)
    } else {
        return None;
    };
    Some(Finding::new(&manifest.path, what))
}

/// What is wrong with one arrow.
fn fault(manifest: &Manifest, dependency: &Dependency) -> Option<String> {
    if manifest.path == "xtask/Cargo.toml" {
        return Some(format!("xtask may not use {}: it is built before everything else", dependency.package));
    }
    let name = manifest.crate_name()?;
    let allowed = allowed(name)?;
    let on = TABLE.iter().map(|(name, _)| *name).find(|name| package_of(name) == dependency.package);
    // A crate that names itself among its dev-dependencies turns on its own features for its tests.
    if on.is_some_and(|on| allowed.contains(&on) || (on == name && dependency.kind == Kind::Dev)) {
        return None;
    }
    let may = if allowed.is_empty() { "nothing of ours".to_owned() } else { allowed.join(", ") };
    Some(match dependency.kind {
        Kind::Dev => format!("tests of {name} use {} without an exception; {name} may use {may}", dependency.package),
        Kind::Normal | Kind::Build => format!("{name} may not use {}; it may use {may}", dependency.package),
    })
}

/// The crates that `name` may use; `None` for a crate that isn't in the table.
fn allowed(name: &str) -> Option<Vec<&'static str>> {
    let (_, uses) = TABLE.iter().find(|(known, _)| *known == name)?;
    if *uses != BELOW {
        return Some(uses.to_vec());
    }
    let level = TOP.iter().position(|level| level.contains(&name))?;
    let not_below = |other: &str| TOP[level..].iter().any(|level| level.contains(&other));
    Some(TABLE.iter().map(|(other, _)| *other).filter(|other| !not_below(other)).collect())
}

fn package_of(name: &str) -> String {
    if name == "quorate" { name.to_owned() } else { format!("quorate-{name}") }
}

#[cfg(test)]
mod tests;
