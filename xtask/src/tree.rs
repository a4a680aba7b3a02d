//! The files of the repository, read once; tests plant their own.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

/// Every tracked or trackable file by its path from the root, with `/` between folders.
///
/// A file that isn't UTF-8 is known by its path and has no text.
pub(crate) struct Tree {
    files: BTreeMap<String, Option<String>>,
}

/// The root of this workspace.
pub(crate) fn root() -> PathBuf {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().unwrap_or(xtask).to_owned()
}

impl Tree {
    /// Reads the repository at `root`: what git tracks, and what it would track if added now.
    ///
    /// # Errors
    /// When git can't list the files, or a listed file can't be read.
    pub(crate) fn of_repository(root: &Path) -> Result<Self> {
        let listing = Command::new("git")
            .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
            .current_dir(root)
            .output()
            .context("git could not be run")?;
        ensure!(listing.status.success(), "git ls-files failed: {}", String::from_utf8_lossy(&listing.stderr));
        let names = String::from_utf8(listing.stdout).context("git listed a path that isn't UTF-8")?;
        let present = names.split_terminator('\0').filter(|name| root.join(name).is_file());
        let files = present.map(|name| Ok((name.to_owned(), text_of(&root.join(name))?))).collect::<Result<_>>()?;
        Ok(Self { files })
    }

    /// All files that are text, sorted by path.
    pub(crate) fn texts(&self) -> impl Iterator<Item = (&str, &str)> {
        self.files.iter().filter_map(|(path, text)| Some((path.as_str(), text.as_deref()?)))
    }

    /// All text files whose path starts with `folder` and ends with `extension` (with its dot).
    pub(crate) fn under<'a>(&'a self, folder: &str, extension: &str) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.texts().filter(move |(path, _)| path.starts_with(folder) && path.ends_with(extension))
    }

    /// The text of `path`; `None` when there is no such text file.
    pub(crate) fn text(&self, path: &str) -> Option<&str> {
        self.files.get(path)?.as_deref()
    }

    /// Whether `path` is a file.
    pub(crate) fn has_file(&self, path: &str) -> bool {
        self.files.contains_key(path)
    }

    /// Whether `path` is a folder with at least one file somewhere below.
    pub(crate) fn has_folder(&self, path: &str) -> bool {
        let below = format!("{}/", path.trim_end_matches('/'));
        path.is_empty() || self.files.range(below.clone()..).next().is_some_and(|(next, _)| next.starts_with(&below))
    }
}

fn text_of(path: &Path) -> Result<Option<String>> {
    let bytes = fs::read(path).with_context(|| format!("{} could not be read", path.display()))?;
    Ok(String::from_utf8(bytes).ok())
}

#[cfg(test)]
impl<'a> FromIterator<(&'a str, &'a str)> for Tree {
    fn from_iter<I: IntoIterator<Item = (&'a str, &'a str)>>(planted: I) -> Self {
        Self { files: planted.into_iter().map(|(path, text)| (path.to_owned(), Some(text.to_owned()))).collect() }
    }
}

#[cfg(test)]
impl<const N: usize> From<[(&str, &str); N]> for Tree {
    fn from(planted: [(&str, &str); N]) -> Self {
        planted.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_exists_only_while_it_holds_a_file() {
        let tree = Tree::from([("crates/data/src/lib.rs", ""), ("crates/database.md", "")]);
        assert!(tree.has_folder("crates/data"));
        assert!(tree.has_folder("crates/data/src/"));
        assert!(!tree.has_folder("crates/data/src/lib.rs"));
        assert!(!tree.has_folder("crates/dat"));
    }

    #[test]
    fn the_repository_contains_this_very_file() {
        let tree = Tree::of_repository(&root()).unwrap();
        assert!(tree.text("xtask/src/tree.rs").is_some_and(|text| text.contains("the_repository_contains")));
    }
}
