//! Files that get their name when they are complete and durable.
//!
//! Until then the file that is to be `NAME` is called `.NAME.quorate-partial`, and nothing complete is: a name of that form
//! is refused. What has one is therefore what a crash left, and may go.

use std::{
    io,
    path::{Path, PathBuf},
};

use quorate_runtime::disk::Disk;

const END: &str = ".quorate-partial";

/// What the file that is to be `to` is called until it is complete.
///
/// # Errors
/// `InvalidInput` if `to` has no name, or one that only an unfinished file, or what SQLite puts beside it, has.
pub(super) fn of(to: &Path) -> io::Result<PathBuf> {
    let invalid = |what: &str| io::Error::new(io::ErrorKind::InvalidInput, format!("{}: {what}", to.display()));
    let name = to.file_name().ok_or_else(|| invalid("this names no file"))?;
    let shown = name.to_string_lossy();
    if shown.starts_with('.') && shown.contains(END) {
        return Err(invalid("names of this form are for files that are not complete; choose another"));
    }
    let mut partial = std::ffi::OsString::from(".");
    partial.push(name);
    partial.push(END);
    Ok(to.with_file_name(partial))
}

/// Removes an unfinished file, its journal too: SQLite would take that for the journal of the next one.
pub(super) fn clear(disk: &dyn Disk, partial: &Path) -> io::Result<()> {
    for left in ["", "-journal", "-wal", "-shm"].map(|suffix| super::open::beside(partial, suffix)) {
        if disk.exists(&left)? {
            disk.remove(&left)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::of;

    #[test]
    fn an_unfinished_file_has_a_name_that_no_complete_one_has() {
        assert_eq!(of(Path::new("a/b.partial")).unwrap(), Path::new("a/.b.partial.quorate-partial"));
        assert_eq!(of(Path::new("b")).unwrap(), Path::new(".b.quorate-partial"));
        assert_eq!(of(Path::new(".hidden")).unwrap(), Path::new("..hidden.quorate-partial"));
        for taken in ["a/.b.quorate-partial", ".b.quorate-partial-wal", "..hidden.quorate-partial", "..", "/"] {
            assert!(of(Path::new(taken)).is_err(), "{taken}");
        }
    }
}
