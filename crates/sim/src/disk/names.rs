//! Which names lead to which files, and which of that is durable.

use std::{collections::BTreeMap, io, path::Path};

pub(super) type InodeId = u64;

pub(super) const ENOENT: i32 = 2;
pub(super) const EIO: i32 = 5;
pub(super) const ENOTDIR: i32 = 20;
pub(super) const EISDIR: i32 = 21;
pub(super) const EINVAL: i32 = 22;
pub(super) const ENOSPC: i32 = 28;

/// The error that Linux gives this number.
pub(super) fn error(errno: i32) -> io::Error {
    io::Error::from_raw_os_error(errno)
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Entry {
    Folder,
    File(InodeId),
}

enum Change {
    Put(String, Entry),
    Remove(String),
    Rename(String, String),
}

/// The tree of names, keyed by canonical path, and the journal of its changes that are not durable.
#[derive(Default)]
pub(super) struct Names {
    current: BTreeMap<String, Entry>,
    durable: BTreeMap<String, Entry>,
    journal: Vec<(u64, Change)>,
}

impl Names {
    /// A tree in which only `root` is.
    pub(super) fn new(root: &str) -> Self {
        let tree = BTreeMap::from([(root.to_owned(), Entry::Folder)]);
        Self { current: tree.clone(), durable: tree, journal: Vec::new() }
    }

    pub(super) fn get(&self, path: &str) -> Option<Entry> {
        self.current.get(path).copied()
    }

    /// The file at `path`.
    pub(super) fn file(&self, path: &str) -> io::Result<InodeId> {
        match self.get(path) {
            Some(Entry::File(inode)) => Ok(inode),
            Some(Entry::Folder) => Err(error(EISDIR)),
            None => Err(error(ENOENT)),
        }
    }

    /// What lies in the folder `path`, in order.
    pub(super) fn list(&self, path: &str) -> io::Result<Vec<String>> {
        match self.get(path) {
            Some(Entry::Folder) => {}
            Some(Entry::File(_)) => return Err(error(ENOTDIR)),
            None => return Err(error(ENOENT)),
        }
        let directly = |known: &&String| {
            is_below(path, known) && known[path.len()..].trim_start_matches('/').split('/').count() == 1
        };
        Ok(self.current.keys().filter(directly).cloned().collect())
    }

    /// Puts a new entry into its folder, which must be there.
    pub(super) fn put(&mut self, at: u64, path: &str, entry: Entry) -> io::Result<()> {
        self.check_folder_of(path)?;
        self.change(at, Change::Put(path.to_owned(), entry));
        Ok(())
    }

    /// Removes a file's name.
    pub(super) fn remove(&mut self, at: u64, path: &str) -> io::Result<()> {
        self.file(path)?;
        self.change(at, Change::Remove(path.to_owned()));
        Ok(())
    }

    /// Gives a file or a folder another name; a file of that name is replaced.
    pub(super) fn rename(&mut self, at: u64, from: &str, to: &str) -> io::Result<()> {
        let entry = self.get(from).ok_or_else(|| error(ENOENT))?;
        self.check_folder_of(to)?;
        match (entry, self.get(to)) {
            _ if from == to => return Ok(()),
            (Entry::Folder, _) if is_below(from, to) => return Err(error(EINVAL)),
            (Entry::Folder, Some(Entry::File(_))) => return Err(error(ENOTDIR)),
            (_, Some(Entry::Folder)) => return Err(error(EISDIR)),
            _ => self.change(at, Change::Rename(from.to_owned(), to.to_owned())),
        }
        Ok(())
    }

    fn check_folder_of(&self, path: &str) -> io::Result<()> {
        match Path::new(path).parent().and_then(Path::to_str).and_then(|parent| self.get(parent)) {
            Some(Entry::Folder) => Ok(()),
            Some(Entry::File(_)) => Err(error(ENOTDIR)),
            None => Err(error(ENOENT)),
        }
    }

    fn change(&mut self, at: u64, change: Change) {
        change.apply(&mut self.current);
        self.journal.push((at, change));
    }

    /// Makes every change so far durable.
    pub(super) fn commit(&mut self) {
        self.commit_until(u64::MAX);
    }

    /// The power fails: the changes up to `metadata` are durable, the others never happened.
    pub(super) fn lose_power(&mut self, metadata: u64) {
        self.commit_until(metadata);
        self.current = self.durable.clone();
    }

    fn commit_until(&mut self, last: u64) {
        for (_, change) in std::mem::take(&mut self.journal).into_iter().take_while(|&(at, _)| at <= last) {
            change.apply(&mut self.durable);
        }
    }

    /// When the changes happened that are not durable yet, oldest first.
    pub(super) fn pending(&self) -> impl Iterator<Item = u64> {
        self.journal.iter().map(|&(at, _)| at)
    }

    /// Every file that has a name.
    pub(super) fn files(&self) -> impl Iterator<Item = InodeId> {
        files(&self.current)
    }

    /// Every file that had a name or might have one again after a power failure.
    pub(super) fn possible_files(&self) -> impl Iterator<Item = InodeId> {
        let pending = self.journal.iter().filter_map(|(_, change)| match change {
            Change::Put(_, Entry::File(inode)) => Some(*inode),
            _ => None,
        });
        self.files().chain(files(&self.durable)).chain(pending)
    }
}

fn files(tree: &BTreeMap<String, Entry>) -> impl Iterator<Item = InodeId> {
    tree.values().filter_map(|entry| match entry {
        Entry::File(inode) => Some(*inode),
        Entry::Folder => None,
    })
}

fn is_below(folder: &str, path: &str) -> bool {
    path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'))
}

impl Change {
    fn apply(&self, tree: &mut BTreeMap<String, Entry>) {
        match self {
            Self::Put(path, entry) => {
                tree.insert(path.clone(), *entry);
            }
            Self::Remove(path) => {
                tree.remove(path);
            }
            Self::Rename(from, to) => {
                let moved: Vec<String> =
                    tree.keys().filter(|path| *path == from || is_below(from, path)).cloned().collect();
                for path in moved {
                    let Some(entry) = tree.remove(&path) else { continue };
                    tree.insert(format!("{to}{}", &path[from.len()..]), entry);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Entry, Names};

    fn tree() -> Names {
        let mut names = Names::new("/r");
        names.put(1, "/r/a", Entry::File(1)).unwrap();
        names.commit();
        names
    }

    #[test]
    fn a_rename_that_is_not_durable_is_undone_by_a_power_failure() {
        let mut names = tree();
        names.rename(2, "/r/a", "/r/b").unwrap();
        assert!(names.get("/r/a").is_none() && names.get("/r/b") == Some(Entry::File(1)));
        names.lose_power(1);
        assert!(names.get("/r/b").is_none() && names.get("/r/a") == Some(Entry::File(1)));
    }

    #[test]
    fn of_changes_to_names_a_prefix_survives() {
        let mut names = tree();
        names.put(2, "/r/b", Entry::File(2)).unwrap();
        names.remove(3, "/r/a").unwrap();
        names.put(4, "/r/c", Entry::File(3)).unwrap();
        names.lose_power(3);
        assert!(names.get("/r/a").is_none() && names.get("/r/b").is_some() && names.get("/r/c").is_none());
    }

    #[test]
    fn a_folder_is_renamed_with_what_is_in_it() {
        let mut names = tree();
        names.put(2, "/r/d", Entry::Folder).unwrap();
        names.put(3, "/r/d/x", Entry::File(2)).unwrap();
        names.rename(4, "/r/d", "/r/e").unwrap();
        assert!(names.get("/r/e/x") == Some(Entry::File(2)) && names.get("/r/d/x").is_none());
        assert!(names.rename(5, "/r/e", "/r/e/f").is_err());
    }
}
