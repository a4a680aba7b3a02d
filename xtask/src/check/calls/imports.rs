//! What the names in a file stand for.

use std::collections::{BTreeMap, BTreeSet};

use quote::ToTokens;
use syn::{
    File, Item, ItemUse, Type, UseTree,
    spanned::Spanned,
    visit_mut::{self, VisitMut},
};

/// A path, segment by segment.
pub(super) type Path = Vec<String>;

/// How often a name may stand for another before we stop following.
const DEPTH: usize = 8;

/// One leaf of a `use` tree. A glob's path is that of its folder.
pub(super) struct Import {
    pub(super) path: Path,
    pub(super) line: usize,
}

/// The imports of a file, whatever block they stand in: a name stands for everything it means anywhere.
#[derive(Default)]
pub(super) struct Imports {
    pub(super) all: Vec<Import>,
    names: BTreeMap<String, Vec<Path>>,
    globs: Vec<Path>,
    own_modules: BTreeSet<String>,
}

impl Imports {
    /// Takes the `use` items out of `file` and reads them, type aliases and module declarations.
    pub(super) fn take_from(file: &mut File) -> Self {
        let mut imports = Self::default();
        imports.visit_file_mut(file);
        imports
    }

    /// Leaves out the imports that were already reported, so that each leak is told once, where it comes in.
    pub(super) fn forget(&mut self, is_reported: impl Fn(&Path) -> bool) {
        let reported = |path: &Path| self.expand(path).iter().any(&is_reported);
        let forgotten: BTreeSet<Path> =
            self.all.iter().map(|import| &import.path).filter(|path| reported(path)).cloned().collect();
        self.names.values_mut().for_each(|paths| paths.retain(|path| !forgotten.contains(path)));
        self.globs.retain(|glob| !forgotten.contains(glob));
    }

    /// Everything `path` may stand for, itself included where it can be meant literally.
    pub(super) fn expand(&self, path: &Path) -> Vec<Path> {
        let mut meanings = Vec::new();
        self.follow(path, DEPTH, &mut meanings);
        meanings
    }

    fn follow(&self, path: &Path, depth: usize, meanings: &mut Vec<Path>) {
        let Some((first, rest)) = path.split_first().filter(|_| depth > 0) else { return };
        let join = |start: &Path| start.iter().chain(rest).cloned().collect::<Path>();
        for start in self.names.get(first).into_iter().flatten() {
            // `use tokio::time as tokio` would otherwise be followed for ever.
            if start.first() == Some(first) {
                meanings.push(join(start));
            } else {
                self.follow(&join(start), depth - 1, meanings);
            }
        }
        for glob in &self.globs {
            meanings.push(glob.iter().chain(path).cloned().collect());
        }
        if !self.is_own(first) {
            meanings.push(path.clone());
        }
    }

    /// Whether `name` stands for a module of this crate, whatever library is called the same.
    fn is_own(&self, name: &str) -> bool {
        let starts_here = |path: &Path| matches!(path[0].as_str(), "crate" | "self" | "super");
        self.own_modules.contains(name) || self.names.get(name).is_some_and(|paths| paths.iter().any(starts_here))
    }

    fn add(&mut self, path: Path, name: Option<String>, line: usize) {
        match name {
            Some(name) => self.names.entry(name).or_default().push(path.clone()),
            None => self.globs.push(path.clone()),
        }
        self.all.push(Import { path, line });
    }

    fn read_tree(&mut self, tree: &UseTree, before: &Path) {
        let line = tree.span().start().line;
        let with = |ident: &syn::Ident| before.iter().cloned().chain([plain(ident)]).collect::<Path>();
        match tree {
            UseTree::Path(part) => self.read_tree(&part.tree, &with(&part.ident)),
            UseTree::Name(part) if part.ident == "self" => self.add(before.clone(), before.last().cloned(), line),
            UseTree::Name(part) => self.add(with(&part.ident), Some(plain(&part.ident)), line),
            UseTree::Rename(part) if part.ident == "self" => self.add(before.clone(), Some(plain(&part.rename)), line),
            UseTree::Rename(part) => self.add(with(&part.ident), Some(plain(&part.rename)), line),
            UseTree::Glob(_) => self.add(before.clone(), None, line),
            UseTree::Group(group) => group.items.iter().for_each(|item| self.read_tree(item, before)),
        }
    }

    fn read_use(&mut self, item: &ItemUse) {
        self.read_tree(&item.tree, &Vec::new());
    }

    /// `type Clock = std::time::Instant;` and `extern crate std as s;` give names, too.
    fn read_alias(&mut self, item: &Item) {
        match item {
            Item::Type(alias) => {
                if let Type::Path(target) = &*alias.ty {
                    let path = target.path.segments.iter().map(|segment| plain(&segment.ident)).collect();
                    self.names.entry(plain(&alias.ident)).or_default().push(path);
                }
            }
            Item::ExternCrate(alias) => {
                if let Some((_, name)) = &alias.rename {
                    self.names.entry(plain(name)).or_default().push(vec![plain(&alias.ident)]);
                }
            }
            Item::Mod(module) => drop(self.own_modules.insert(plain(&module.ident))),
            _ => {}
        }
    }
}

impl VisitMut for Imports {
    fn visit_item_mut(&mut self, item: &mut Item) {
        self.read_alias(item);
        if let Item::Use(found) = item {
            self.read_use(found);
            *item = Item::Verbatim(proc_macro2::TokenStream::new());
        } else {
            visit_mut::visit_item_mut(self, item);
        }
    }
}

/// An identifier without `r#`.
fn plain(ident: &impl ToTokens) -> String {
    ident.to_token_stream().to_string().trim_start_matches("r#").to_owned()
}
