//! What of a pattern really exists.

use std::collections::BTreeSet;

use proc_macro2::{TokenStream, TokenTree};
use quote::ToTokens;
use syn::{
    Attribute, File, ItemEnum, Lit, LitStr, Meta,
    punctuated::Punctuated,
    visit::{self, Visit},
};

use super::entries::{Pattern, Surface};
use crate::{
    check::{
        Finding,
        source::{self, Source},
    },
    tree::Tree,
};

/// What the tree offers, gathered once.
pub(super) struct Evidence<'a> {
    tree: &'a Tree,
    /// String literals of the node, outside its console and inside.
    routes: BTreeSet<String>,
    views: BTreeSet<String>,
    /// Words that the command line knows as subcommands.
    commands: BTreeSet<String>,
}

/// Whether a surface exists.
pub(super) enum Found {
    /// It does; this is it.
    Yes(String),
    /// It doesn't; this says what was missed, and where.
    No(String),
    /// The catalogue doesn't say what to look for; this key would.
    Unnamed(&'static str),
}

const CONSOLE: &str = "crates/node/src/console";

impl<'a> Evidence<'a> {
    /// Reads the node's and the command line's sources. Files that aren't Rust are reported by the `calls` check, too.
    pub(super) fn gather(tree: &'a Tree) -> (Self, Vec<Finding>) {
        let (sources, faults) = source::product(tree);
        let mut evidence = Self { tree, routes: BTreeSet::new(), views: BTreeSet::new(), commands: BTreeSet::new() };
        sources.iter().for_each(|source| evidence.read(source));
        (evidence, faults)
    }

    fn read(&mut self, source: &Source<'_>) {
        match source::crate_of(source.path) {
            "node" if source.path.starts_with(CONSOLE) => literals(&source.file, &mut self.views),
            "node" => literals(&source.file, &mut self.routes),
            "cli" => Subcommands { words: &mut self.commands }.visit_file(&source.file),
            _ => {}
        }
    }

    /// Looks for one surface of one pattern.
    pub(super) fn of(&self, pattern: &Pattern, surface: Surface) -> Found {
        match surface {
            Surface::Library => self.file(format!("{}/mod.rs", pattern.room)),
            Surface::Page => self.file(pattern.page()),
            Surface::Example => self.file(pattern.example()),
            Surface::Http => named("route", pattern.route.as_ref(), |route| self.route(route)),
            Surface::Cli => named("command", pattern.command.as_ref(), |command| self.command(command)),
            Surface::Console => named("view", pattern.view.as_ref(), |view| self.view(view)),
            Surface::Guarantees => named("proofs", pattern.proofs.first(), |_| self.proofs(&pattern.proofs)),
        }
    }

    fn file(&self, path: String) -> Found {
        found(self.tree.has_file(&path) || self.tree.has_folder(&path), &path, "the repository")
    }

    /// A route may be written whole, or below a router that already stands at `/v1`.
    fn route(&self, route: &str) -> Found {
        let nested = route.strip_prefix("/v1").unwrap_or(route);
        let exists = self.routes.contains(route) || self.routes.contains(nested);
        found(exists, &format!("route `{route}`"), "crates/node/src")
    }

    fn view(&self, view: &str) -> Found {
        found(self.views.contains(view), &format!("view `{view}`"), CONSOLE)
    }

    fn command(&self, command: &str) -> Found {
        let known = command.split_whitespace().all(|word| self.commands.contains(word));
        found(known, &format!("command `{command}`"), "crates/cli/src")
    }

    fn proofs(&self, proofs: &[String]) -> Found {
        let exists =
            |test: &str| self.tree.under("crates/", ".rs").any(|(_, text)| text.contains(&format!("fn {test}(")));
        match proofs.iter().find(|test| !exists(test)) {
            Some(missing) => Found::No(format!("there is no test `{missing}` in crates")),
            None => Found::Yes(format!("test `{}`", proofs.join("`, `"))),
        }
    }
}

fn found(exists: bool, what: &str, place: &str) -> Found {
    if exists { Found::Yes(what.to_owned()) } else { Found::No(format!("there is no {what} in {place}")) }
}

fn named(key: &'static str, name: Option<&String>, look: impl FnOnce(&str) -> Found) -> Found {
    name.map_or(Found::Unnamed(key), |name| look(name))
}

/// Collects the string literals of a file, those in macros and attributes included, documentation excepted.
fn literals(file: &File, into: &mut BTreeSet<String>) {
    collect_literals(file.to_token_stream(), into);
}

fn collect_literals(tokens: TokenStream, into: &mut BTreeSet<String>) {
    for token in tokens {
        match token {
            TokenTree::Group(group) if is_documentation(group.stream()) => {}
            TokenTree::Group(group) => collect_literals(group.stream(), into),
            TokenTree::Literal(literal) => {
                if let Lit::Str(text) = Lit::new(literal) {
                    into.insert(text.value());
                }
            }
            TokenTree::Ident(_) | TokenTree::Punct(_) => {}
        }
    }
}

/// Whether these are the tokens between the brackets of `#[doc = "…"]`.
fn is_documentation(tokens: TokenStream) -> bool {
    let mut tokens = tokens.into_iter();
    let is_doc = matches!(tokens.next(), Some(TokenTree::Ident(first)) if first == "doc");
    is_doc && matches!(tokens.next(), Some(TokenTree::Punct(second)) if second.as_char() == '=')
}

/// Collects the words of every enum that derives `Subcommand`.
struct Subcommands<'a> {
    words: &'a mut BTreeSet<String>,
}

impl<'ast> Visit<'ast> for Subcommands<'_> {
    fn visit_item_enum(&mut self, item: &'ast ItemEnum) {
        if item.attrs.iter().any(derives_subcommand) {
            let words = item.variants.iter().map(|variant| {
                variant.attrs.iter().find_map(given_name).unwrap_or_else(|| kebab_case(&variant.ident.to_string()))
            });
            self.words.extend(words);
        }
        visit::visit_item_enum(self, item);
    }
}

fn derives_subcommand(attribute: &Attribute) -> bool {
    let is_derive = attribute.path().is_ident("derive");
    let derived =
        is_derive.then(|| attribute.parse_args_with(Punctuated::<syn::Path, syn::Token![,]>::parse_terminated));
    let names = |path: &syn::Path| path.segments.last().is_some_and(|last| last.ident == "Subcommand");
    derived.is_some_and(|derived| derived.is_ok_and(|paths| paths.iter().any(names)))
}

/// The name in `#[command(name = "…")]`.
fn given_name(attribute: &Attribute) -> Option<String> {
    let Meta::List(list) = &attribute.meta else { return None };
    let mut name = None;
    if list.path.is_ident("command") {
        // What stands beside the name is clap's business; only a syntax we don't know ends the search early.
        let _ = list.parse_nested_meta(|part| {
            if part.path.is_ident("name") {
                name = Some(part.value()?.parse::<LitStr>()?.value());
            } else if part.input.peek(syn::Token![=]) {
                part.value()?.parse::<syn::Expr>()?;
            }
            Ok(())
        });
    }
    name
}

fn kebab_case(variant: &str) -> String {
    let mut word = String::new();
    for letter in variant.chars() {
        if letter.is_uppercase() && !word.is_empty() {
            word.push('-');
        }
        word.extend(letter.to_lowercase());
    }
    word
}
