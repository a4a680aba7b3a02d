//! The world (clocks, randomness, threads, sockets, files) is reached through `Env` alone.
//!
//! clippy bans the same calls by their resolved names; this check also sees types, whole modules, macros and what
//! stands inside macros, and follows imports: renames, groups, globs and type aliases. It judges file by file, so a
//! module of the standard library re-exported under another name from another file is left to clippy.

mod imports;
mod mentions;
mod rules;

use anyhow::Result;
use proc_macro2::{TokenStream, TokenTree};
use quote::ToTokens;

use self::rules::Rule;
use super::{
    Finding,
    exceptions::{Call, Exceptions, Ledger},
    source::{self, Source},
};
use crate::tree::Tree;

/// The crates that touch the world by profession.
const WORLDLY: &[&str] = &["runtime", "cli"];

/// What a machine never mentions: it is told the time and waits for nothing.
const BANNED_IN_MACHINES: &[&str] = &["Env", "async", "await"];

/// Searches the product's sources for forbidden calls.
///
/// # Errors
/// When the exceptions can't be read.
pub(super) fn findings(tree: &Tree) -> Result<Vec<Finding>> {
    let mut exceptions = Exceptions::read(tree)?.calls();
    let (sources, mut findings) = source::product(tree);
    for source in sources {
        if is_machine(source.path) {
            findings.extend(impurities(&source));
        }
        if !WORLDLY.contains(&source::crate_of(source.path)) {
            findings.extend(leaks(source, &mut exceptions));
        }
    }
    findings.extend(exceptions.findings());
    Ok(findings)
}

/// Whether the file holds a pattern's pure transitions: `machine.rs` and what is below `machine/`.
fn is_machine(path: &str) -> bool {
    path.ends_with("/machine.rs") || path.contains("/machine/")
}

fn leaks(source: Source<'_>, exceptions: &mut Ledger<Call>) -> Vec<Finding> {
    let mentions = mentions::of(source.file);
    let broken = mentions.iter().filter_map(|mention| Some((mention, Rule::broken_by(mention)?)));
    let mut findings: Vec<Finding> = broken
        .filter(|(_, rule)| !exceptions.permits(|call| call.file == source.path && call.path == rule.path))
        .map(|(mention, rule)| {
            let named = mention.name();
            let rule_name = if named == rule.path { String::new() } else { format!(" ({})", rule.path) };
            Finding::on_line(
                source.path,
                mention.line,
                format!("{named} is forbidden here{rule_name}; {}", rule.instead),
            )
        })
        .collect();
    findings.dedup();
    findings
}

fn impurities(source: &Source<'_>) -> Vec<Finding> {
    let mut found = Vec::new();
    find_banned(source.file.to_token_stream(), &mut |word, line| {
        found.push(Finding::on_line(source.path, line, format!("a machine may not mention `{word}`")));
    });
    found
}

fn find_banned(tokens: TokenStream, report: &mut dyn FnMut(&str, usize)) {
    for token in tokens {
        match token {
            TokenTree::Group(group) => find_banned(group.stream(), report),
            TokenTree::Ident(ident) => {
                let word = ident.to_string();
                if BANNED_IN_MACHINES.contains(&word.as_str()) {
                    report(&word, ident.span().start().line);
                }
            }
            TokenTree::Punct(_) | TokenTree::Literal(_) => {}
        }
    }
}

#[cfg(test)]
mod tests;
