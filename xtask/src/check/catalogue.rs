//! `catalogue.toml` claims, for each surface of each pattern, that it is `done`, `begun` or `planned`; the claim must be true.

mod entries;
mod evidence;

use std::collections::BTreeSet;

use anyhow::Result;

use self::{
    entries::{Catalogue, Pattern, State, Surface},
    evidence::{Evidence, Found},
};
use super::Finding;
use crate::tree::Tree;

const PATH: &str = "catalogue.toml";

/// How many patterns the catalogue has, without what stands beside them.
const PATTERNS: usize = 38;

/// The families, each a crate of the same name.
const FAMILIES: [&str; 12] = [
    "foundations",
    "consistency",
    "resilience",
    "communication",
    "coordination",
    "data",
    "observability",
    "scalability",
    "deployment",
    "security",
    "testing",
    "legacy",
];

/// Judges the catalogue by itself and against the tree.
///
/// # Errors
/// When `catalogue.toml` is missing or isn't valid.
pub(super) fn findings(tree: &Tree) -> Result<Vec<Finding>> {
    let catalogue = Catalogue::read(tree, PATH)?;
    let patterns = &catalogue.patterns;
    let (evidence, faults) = Evidence::gather(tree);
    let whats = fault_of_number(patterns)
        .into_iter()
        .chain(doubles(patterns, "name", |pattern| &pattern.name))
        .chain(doubles(patterns, "room", |pattern| &pattern.room))
        .chain(patterns.iter().flat_map(faults_of_entry))
        .chain(patterns.iter().filter_map(|pattern| fault_of_place(pattern, patterns)))
        .chain(patterns.iter().flat_map(|pattern| false_claims(pattern, &evidence)))
        .chain(pages_without_pattern(tree, patterns));
    Ok(whats.map(|what| Finding::new(PATH, what)).chain(faults).collect())
}

fn fault_of_number(patterns: &[Pattern]) -> Option<String> {
    let number = patterns.iter().filter(|pattern| pattern.beside.is_none()).count();
    (number != PATTERNS).then(|| format!("there are {PATTERNS} patterns; the catalogue lists {number}"))
}

fn doubles<'a>(patterns: &'a [Pattern], what: &str, of: impl Fn(&'a Pattern) -> &'a String) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let repeated = patterns.iter().map(of).filter(|value| !seen.insert(*value));
    repeated.map(|value| format!("the {what} `{value}` stands twice")).collect()
}

/// What is wrong with an entry by itself.
fn faults_of_entry(pattern: &Pattern) -> Vec<String> {
    let Pattern { name, title, family, room, promise, .. } = pattern;
    let one_line = |text: &str| !text.trim().is_empty() && !text.contains('\n');
    let checks = [
        (is_kebab_case(name), "its name isn't kebab-case"),
        (one_line(title), "it has no title of one line"),
        (one_line(promise), "it has no promise of one line"),
        (FAMILIES.contains(&family.as_str()), "its family isn't one of the catalogue's"),
        (is_room_of(room, family), "its room isn't a folder below `crates/<family>/src/`"),
    ];
    checks.iter().filter(|(holds, _)| !holds).map(|(_, fault)| format!("{name}: {fault}")).collect()
}

/// What stands beside a pattern stands beside one of the catalogue, in its family.
fn fault_of_place(pattern: &Pattern, patterns: &[Pattern]) -> Option<String> {
    let beside = pattern.beside.as_ref()?;
    let found = patterns.iter().find(|other| other.name == *beside);
    let stands = found.is_some_and(|other| other.beside.is_none() && other.family == pattern.family);
    (!stands).then(|| format!("{}: stands beside `{beside}`, which is no pattern of its family", pattern.name))
}

fn is_kebab_case(name: &str) -> bool {
    let word = |word: &str| !word.is_empty() && word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    name.split('-').all(word)
}

fn is_room_of(room: &str, family: &str) -> bool {
    let below = room.strip_prefix(&format!("crates/{family}/src/"));
    below.is_some_and(|folder| !folder.is_empty() && !folder.ends_with('/') && !folder.ends_with(".rs"))
}

fn false_claims(pattern: &Pattern, evidence: &Evidence<'_>) -> Vec<String> {
    let claims = Surface::ALL.iter().map(|surface| (surface, pattern.state(*surface), evidence.of(pattern, *surface)));
    claims.filter_map(|(surface, state, found)| false_claim(&pattern.name, *surface, state, &found)).collect()
}

fn false_claim(name: &str, surface: Surface, state: State, found: &Found) -> Option<String> {
    let surface = surface.key();
    match (state, found) {
        (State::Done | State::Begun, Found::Yes(_)) | (State::Planned, Found::No(_) | Found::Unnamed(_)) => None,
        (State::Done | State::Begun, Found::No(missing)) => {
            Some(format!("{name}: claims `{surface}` {}, but {missing}", state.word()))
        }
        (State::Done | State::Begun, Found::Unnamed(key)) => {
            Some(format!("{name}: claims `{surface}` {} without naming `{key}`", state.word()))
        }
        (State::Planned, Found::Yes(what)) => {
            Some(format!("{name}: says `{surface}` is planned, but {what} exists; claim it"))
        }
    }
}

fn pages_without_pattern(tree: &Tree, patterns: &[Pattern]) -> Vec<String> {
    let pages = tree.under("docs/patterns/", ".md").map(|(path, _)| path).filter(|path| !path.ends_with("/README.md"));
    let unknown = pages.filter(|page| !patterns.iter().any(|pattern| pattern.page() == **page));
    unknown.map(|page| format!("{page} belongs to no pattern")).collect()
}

#[cfg(test)]
mod tests;
