//! `cargo xtask check`: everything about the tree that can be judged without running it, the quick judgements first.
//!
//! Each check is a module that turns a [`Tree`] into [`Finding`]s; its tests plant a small offender and expect it named.

mod arrows;
mod calls;
mod cargo;
mod catalogue;
mod exceptions;
mod libraries;
mod links;
mod manifest;
mod places;
mod source;

use std::{fmt, time::Instant};

use anyhow::{Result, bail};

use crate::{command, tree, tree::Tree};

/// One fault: where, and what is wrong there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Finding {
    /// A path from the root, with `:line` where there is one.
    pub(crate) at: String,
    pub(crate) what: String,
}

impl Finding {
    pub(crate) fn new(at: impl Into<String>, what: impl Into<String>) -> Self {
        Self { at: at.into(), what: what.into() }
    }

    pub(crate) fn on_line(path: &str, line: usize, what: impl Into<String>) -> Self {
        Self::new(format!("{path}:{line}"), what)
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.at, self.what)
    }
}

/// What a check came to.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Passed,
    Failed(Vec<Finding>),
    Skipped(&'static str),
}

impl Verdict {
    fn of(findings: Vec<Finding>) -> Self {
        if findings.is_empty() { Self::Passed } else { Self::Failed(findings) }
    }

    fn word(&self) -> &'static str {
        match self {
            Self::Passed => "ok",
            Self::Failed(_) => "FAILED",
            Self::Skipped(_) => "SKIPPED",
        }
    }
}

struct Check {
    name: &'static str,
    about: &'static str,
    run: fn(&Tree) -> Result<Verdict>,
}

/// All checks, the quickest first.
const CHECKS: &[Check] = &[
    Check { name: "format", about: "rustfmt would change nothing", run: |_| cargo::format() },
    Check {
        name: "arrows",
        about: "crates depend only downwards",
        run: |tree| arrows::findings(tree).map(Verdict::of),
    },
    Check {
        name: "libraries",
        about: "layers use their libraries",
        run: |tree| libraries::findings(tree).map(Verdict::of),
    },
    Check {
        name: "calls",
        about: "the world is reached through Env",
        run: |tree| calls::findings(tree).map(Verdict::of),
    },
    Check { name: "catalogue", about: "claims match the tree", run: |tree| catalogue::findings(tree).map(Verdict::of) },
    Check {
        name: "links",
        about: "links in documents lead somewhere",
        run: |tree| Ok(Verdict::of(links::findings(tree))),
    },
    Check {
        name: "places",
        about: "no machine's paths, no registries",
        run: |tree| Ok(Verdict::of(places::findings(tree))),
    },
    Check { name: "licences", about: "dependencies may be used", run: |_| cargo::licences() },
    Check { name: "lint", about: "clippy has nothing to say", run: |_| cargo::lint() },
    Check { name: "docs", about: "rustdoc has nothing to say", run: |_| cargo::docs() },
];

/// Names the checks on standard output.
pub(crate) fn list() -> Result<bool> {
    for check in CHECKS {
        println!("{:<10} {}", check.name, check.about);
    }
    Ok(true)
}

/// Runs the named checks, or all, to the end, and says whether none failed.
///
/// # Errors
/// When a check could not be carried out at all.
pub(crate) fn run(names: &[&str]) -> Result<bool> {
    let chosen = choose(names)?;
    command::require_our_rustflags()?;
    let tree = Tree::of_repository(&tree::root())?;
    let mut verdicts = Vec::new();
    for (index, check) in chosen.iter().enumerate() {
        eprintln!("check {}/{} {}: {}", index + 1, chosen.len(), check.name, check.about);
        let started = Instant::now();
        let verdict = (check.run)(&tree)?;
        eprintln!("  {} in {:.1} s", verdict.word(), started.elapsed().as_secs_f64());
        print_details(&verdict);
        verdicts.push(verdict);
    }
    summarise(&chosen, &verdicts);
    Ok(!verdicts.iter().any(|verdict| matches!(verdict, Verdict::Failed(_))))
}

fn choose(names: &[&str]) -> Result<Vec<&'static Check>> {
    let known = |name: &str| CHECKS.iter().any(|check| check.name == name);
    if let Some(unknown) = names.iter().find(|name| !known(name)) {
        let all: Vec<_> = CHECKS.iter().map(|check| check.name).collect();
        bail!("no check is called `{unknown}`; there are {}", all.join(", "));
    }
    Ok(CHECKS.iter().filter(|check| names.is_empty() || names.contains(&check.name)).collect())
}

fn print_details(verdict: &Verdict) {
    match verdict {
        Verdict::Passed => {}
        Verdict::Failed(findings) => findings.iter().for_each(|finding| eprintln!("  {finding}")),
        Verdict::Skipped(why) => eprintln!("  NOT CHECKED: {why}"),
    }
}

fn summarise(chosen: &[&Check], verdicts: &[Verdict]) {
    let named = |word: &str| {
        let pairs = chosen.iter().zip(verdicts).filter(|(_, verdict)| verdict.word() == word);
        pairs.map(|(check, _)| check.name).collect::<Vec<_>>()
    };
    let (passed, failed, skipped) = (named("ok"), named("FAILED"), named("SKIPPED"));
    let mut line = format!("checks: {} passed, {} failed, {} skipped", passed.len(), failed.len(), skipped.len());
    if !failed.is_empty() {
        line += &format!("; failed: {}", failed.join(", "));
    }
    if !skipped.is_empty() {
        line += &format!("; skipped: {}", skipped.join(", "));
    }
    eprintln!("{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_names_every_check_is_chosen_and_with_names_only_those() {
        assert_eq!(choose(&[]).unwrap().len(), CHECKS.len());
        let chosen = choose(&["links", "arrows"]).unwrap();
        assert_eq!(chosen.iter().map(|check| check.name).collect::<Vec<_>>(), ["arrows", "links"]);
    }

    #[test]
    fn an_unknown_check_is_refused_with_the_names_there_are() {
        let refusal = choose(&["arows"]).err().unwrap().to_string();
        assert!(refusal.contains("`arows`") && refusal.contains("arrows"), "{refusal}");
    }
}
