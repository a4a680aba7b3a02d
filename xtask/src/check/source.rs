//! Rust files as the product sees them: with everything that exists only for tests taken out.

use std::collections::BTreeSet;

use proc_macro2::TokenStream;
use syn::{
    Attribute, Expr, File, ImplItem, Item, Lit, Meta, Stmt, Token, TraitItem,
    punctuated::Punctuated,
    visit_mut::{self, VisitMut},
};

use super::Finding;
use crate::tree::Tree;

/// A file without its tests.
pub(super) struct Source<'a> {
    pub(super) path: &'a str,
    pub(super) file: File,
}

/// Reads every Rust file below `crates/` that belongs to the product: not `tests/`, `benches/` and `examples/` of a
/// crate, and not the modules declared under `#[cfg(test)]`, wherever their files stand.
///
/// A file that isn't Rust is a finding.
pub(super) fn product(tree: &Tree) -> (Vec<Source<'_>>, Vec<Finding>) {
    let mut sources = Vec::new();
    let mut faults = Vec::new();
    let mut only_tests = BTreeSet::new();
    for (path, text) in tree.under("crates/", ".rs").filter(|(path, _)| is_in_src(path)) {
        match syn::parse_file(text) {
            Ok(mut file) => {
                only_tests.extend(take_tests_out(path, &mut file));
                sources.push(Source { path, file });
            }
            Err(error) => faults.push(Finding::on_line(path, error.span().start().line, format!("not Rust: {error}"))),
        }
    }
    sources.retain(|source| !only_tests.iter().any(|module| belongs_to(source.path, module)));
    (sources, faults)
}

/// The crate a path belongs to.
pub(super) fn crate_of(path: &str) -> &str {
    path.strip_prefix("crates/").and_then(|rest| rest.split('/').next()).unwrap_or_default()
}

fn is_in_src(path: &str) -> bool {
    path.split('/').nth(2) == Some("src")
}

/// Whether `path` is the file of `module` (a path without `.rs`) or of something inside it.
fn belongs_to(path: &str, module: &str) -> bool {
    path.strip_prefix(module).is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
}

/// Takes out what exists only for tests, and returns the modules (paths without `.rs`) whose files do, too.
fn take_tests_out(path: &str, file: &mut File) -> Vec<String> {
    if is_for_tests(&file.attrs) {
        file.items.clear();
    }
    let mut pass = Pass { path, folder: folder_of_children(path), modules: Vec::new() };
    pass.visit_file_mut(file);
    pass.modules
}

/// Where the child modules of the file at `path` have their files.
fn folder_of_children(path: &str) -> String {
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
    let stem = name.trim_end_matches(".rs");
    if matches!(stem, "mod" | "lib" | "main") { folder.to_owned() } else { format!("{folder}/{stem}") }
}

struct Pass<'a> {
    path: &'a str,
    folder: String,
    modules: Vec<String>,
}

impl Pass<'_> {
    fn remember_module(&mut self, item: &Item) {
        if let Item::Mod(module) = item
            && module.content.is_none()
        {
            let explicit = module.attrs.iter().find_map(path_attribute);
            let folder = self.path.rsplit_once('/').map_or("", |(folder, _)| folder);
            self.modules.push(match explicit {
                Some(name) => format!("{folder}/{}", name.trim_end_matches(".rs")),
                None => format!("{}/{}", self.folder, module.ident),
            });
        }
    }
}

impl VisitMut for Pass<'_> {
    fn visit_item_mut(&mut self, item: &mut Item) {
        if is_for_tests(attributes_of(item)) {
            self.remember_module(item);
            *item = Item::Verbatim(TokenStream::new());
            return;
        }
        let outer = self.folder.clone();
        if let Item::Mod(module) = item {
            self.folder = format!("{outer}/{}", module.ident);
        }
        visit_mut::visit_item_mut(self, item);
        self.folder = outer;
    }

    fn visit_impl_item_mut(&mut self, item: &mut ImplItem) {
        let attributes = match item {
            ImplItem::Fn(inner) => &inner.attrs,
            ImplItem::Const(inner) => &inner.attrs,
            _ => return visit_mut::visit_impl_item_mut(self, item),
        };
        if is_for_tests(attributes) {
            *item = ImplItem::Verbatim(TokenStream::new());
        } else {
            visit_mut::visit_impl_item_mut(self, item);
        }
    }

    fn visit_trait_item_mut(&mut self, item: &mut TraitItem) {
        match item {
            TraitItem::Fn(inner) if is_for_tests(&inner.attrs) => *item = TraitItem::Verbatim(TokenStream::new()),
            _ => visit_mut::visit_trait_item_mut(self, item),
        }
    }

    fn visit_stmt_mut(&mut self, statement: &mut Stmt) {
        match statement {
            Stmt::Local(local) if is_for_tests(&local.attrs) => {
                *statement = Stmt::Item(Item::Verbatim(TokenStream::new()));
            }
            _ => visit_mut::visit_stmt_mut(self, statement),
        }
    }
}

fn attributes_of(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(inner) => &inner.attrs,
        Item::Enum(inner) => &inner.attrs,
        Item::ExternCrate(inner) => &inner.attrs,
        Item::Fn(inner) => &inner.attrs,
        Item::Impl(inner) => &inner.attrs,
        Item::Macro(inner) => &inner.attrs,
        Item::Mod(inner) => &inner.attrs,
        Item::Static(inner) => &inner.attrs,
        Item::Struct(inner) => &inner.attrs,
        Item::Trait(inner) => &inner.attrs,
        Item::Type(inner) => &inner.attrs,
        Item::Use(inner) => &inner.attrs,
        _ => &[],
    }
}

fn is_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let is_test = attribute.path().segments.last().is_some_and(|last| last.ident == "test");
        let cfg = attribute.path().is_ident("cfg").then(|| attribute.parse_args::<Meta>());
        is_test || cfg.is_some_and(|predicate| predicate.is_ok_and(|predicate| needs_test(&predicate)))
    })
}

/// Whether a cfg predicate can hold only in a test build: `test`, or `all(…)` with such a part.
fn needs_test(predicate: &Meta) -> bool {
    match predicate {
        Meta::Path(path) => path.is_ident("test"),
        Meta::List(list) if list.path.is_ident("all") => list
            .parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated)
            .is_ok_and(|parts| parts.iter().any(needs_test)),
        _ => false,
    }
}

fn path_attribute(attribute: &Attribute) -> Option<String> {
    let Meta::NameValue(pair) = &attribute.meta else { return None };
    match &pair.value {
        Expr::Lit(literal) if pair.path.is_ident("path") => match &literal.lit {
            Lit::Str(text) => Some(text.value()),
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use quote::ToTokens;

    use super::*;

    fn paths(tree: &Tree) -> Vec<&str> {
        product(tree).0.into_iter().map(|source| source.path).collect()
    }

    fn left_of(text: &str) -> String {
        let tree = Tree::from([("crates/data/src/lib.rs", text)]);
        product(&tree).0[0].file.to_token_stream().to_string()
    }

    #[test]
    fn what_is_compiled_only_for_tests_is_left_out() {
        assert_eq!(left_of("#[cfg(test)] mod tests { fn a() {} }"), "");
        assert_eq!(left_of("#[cfg(all(test, unix))] fn a() {}"), "");
        assert_eq!(left_of("#[tokio::test] async fn a() {}"), "");
        assert_eq!(left_of("struct S; impl S { #[cfg(test)] fn a() {} }"), "struct S ; impl S { }");
        assert_eq!(left_of("fn f() { #[cfg(test)] let a = 1; }"), "fn f () { }");
        assert_eq!(left_of("#![cfg(test)] fn a() {}"), "# ! [cfg (test)]");
    }

    #[test]
    fn what_may_also_be_compiled_otherwise_stays() {
        assert!(left_of("#[cfg(not(test))] fn a() {}").contains("fn a"));
        assert!(left_of("#[cfg(any(test, feature = \"conformance\"))] fn a() {}").contains("fn a"));
    }

    #[test]
    fn files_of_test_modules_are_left_out_wherever_they_stand() {
        let tree = Tree::from([
            ("crates/data/src/lib.rs", "mod store; #[cfg(test)] #[path = \"far/off.rs\"] mod o;"),
            ("crates/data/src/far/off.rs", ""),
            ("crates/data/src/store.rs", "#[cfg(test)] mod tests; mod inner { #[cfg(test)] mod tests; }"),
            ("crates/data/src/store/tests.rs", "mod deep;"),
            ("crates/data/src/store/tests/deep.rs", ""),
            ("crates/data/src/store/tests_of_others.rs", ""),
            ("crates/data/src/store/inner/tests.rs", ""),
        ]);
        let left = ["crates/data/src/lib.rs", "crates/data/src/store.rs", "crates/data/src/store/tests_of_others.rs"];
        assert_eq!(paths(&tree), left);
    }

    #[test]
    fn integration_tests_benches_and_examples_are_left_out() {
        let tree = Tree::from([
            ("crates/data/tests/a.rs", ""),
            ("crates/data/benches/b.rs", ""),
            ("crates/data/examples/c.rs", ""),
            ("crates/data/src/tests.rs", ""),
        ]);
        assert_eq!(paths(&tree), ["crates/data/src/tests.rs"], "a name alone doesn't make a test");
    }

    #[test]
    fn a_file_that_is_not_rust_is_a_finding() {
        let tree = Tree::from([("crates/data/src/lib.rs", "fn fn")]);
        assert_eq!(product(&tree).1[0].at, "crates/data/src/lib.rs:1");
    }
}
