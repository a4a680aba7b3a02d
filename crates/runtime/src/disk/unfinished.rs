//! Files that get their name when they are complete and durable.
//!
//! Until then the file that is to be `NAME` is called `.NAME.quorate-partial`, and nothing complete is: a name of that form
//! is refused. What has one is therefore being written, or what a crash left, which may go.

use std::{
    io,
    path::{Path, PathBuf},
};

use super::Disk;

const END: &str = ".quorate-partial";

/// What the file that is to be `to` is called until it is complete.
///
/// # Errors
/// `InvalidInput` if `to` has no name, or one that only an unfinished file, or what SQLite puts beside it, has.
pub fn of(to: &Path) -> io::Result<PathBuf> {
    let invalid = |what: &str| io::Error::new(io::ErrorKind::InvalidInput, format!("{}: {what}", to.display()));
    let name = to.file_name().ok_or_else(|| invalid("this names no file"))?;
    if is_unfinished(to) {
        return Err(invalid("names of this form are for files that are not complete; choose another"));
    }
    let mut partial = std::ffi::OsString::from(".");
    partial.push(name);
    partial.push(END);
    Ok(to.with_file_name(partial))
}

/// Whether only an unfinished file, or what SQLite puts beside it, has the name of `path`.
pub fn is_unfinished(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.starts_with('.') && name.contains(END)
}

/// Removes an unfinished file, its journal too: SQLite would take that for the journal of the next one.
pub fn clear(disk: &dyn Disk, partial: &Path) -> io::Result<()> {
    for suffix in ["", "-journal", "-wal", "-shm"] {
        let mut left = partial.as_os_str().to_owned();
        left.push(suffix);
        if disk.exists(left.as_ref())? {
            disk.remove(left.as_ref())?;
        }
    }
    Ok(())
}

/// Removes every unfinished file of `folder`, as far as that can be, and returns what they were. Nobody may be writing one.
pub fn sweep(disk: &dyn Disk, folder: &Path) -> io::Result<Vec<PathBuf>> {
    if !disk.exists(folder)? {
        return Ok(Vec::new());
    }
    let left = disk.list(folder)?.into_iter().filter(|path| is_unfinished(path));
    Ok(left.filter(|path| disk.remove(path).is_ok()).collect())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{of, sweep};
    use crate::disk::{Disk as _, RealDisk};

    #[test]
    fn an_unfinished_file_has_a_name_that_no_complete_one_has() {
        assert_eq!(of(Path::new("a/b.partial")).unwrap(), Path::new("a/.b.partial.quorate-partial"));
        assert_eq!(of(Path::new("b")).unwrap(), Path::new(".b.quorate-partial"));
        assert_eq!(of(Path::new(".hidden")).unwrap(), Path::new("..hidden.quorate-partial"));
        for taken in ["a/.b.quorate-partial", ".b.quorate-partial-wal", "..hidden.quorate-partial", "..", "/"] {
            assert!(of(Path::new(taken)).is_err(), "{taken}");
        }
    }

    #[test]
    fn what_a_crash_left_in_a_folder_goes_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let (left, kept) = ([".a.quorate-partial", ".a.quorate-partial-journal"], [".a", "a", "a.quorate-partial"]);
        left.iter().chain(&kept).for_each(|name| drop(RealDisk.create(&at(name)).unwrap()));
        RealDisk.create_dir_all(&at(".folder.quorate-partial")).unwrap();
        assert_eq!(sweep(&RealDisk, folder.path()).unwrap(), left.map(at));
        let there: Vec<_> = RealDisk.list(folder.path()).unwrap();
        assert_eq!(there, [".a", ".folder.quorate-partial", "a", "a.quorate-partial"].map(at));
        assert_eq!(sweep(&RealDisk, &at("nowhere")).unwrap(), [] as [std::path::PathBuf; 0]);
    }
}
