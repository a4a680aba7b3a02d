//! Files, and what is known about the file system they live on.
//!
//! SQLite does its own file I/O (in simulation through a virtual file system of ours); everything else goes through here.

pub mod unfinished;

use std::{
    fs,
    io::{self, Read as _, Seek as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _},
    path::{Path, PathBuf},
};

/// The disk as one host sees it. Calls block; make them through [`Env::run_blocking`](crate::Env::run_blocking) where
/// they could take long.
pub trait Disk: Send + Sync {
    /// Creates a directory and its parents, and makes the names of those it made durable; fine if it exists. What it made is
    /// open to nobody but the user that the process runs as.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;
    /// Whether something is at `path`.
    fn exists(&self, path: &Path) -> io::Result<bool>;
    /// What lies in a directory, without what lies in its own directories; sorted.
    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>>;
    /// The size of a file in bytes.
    fn size(&self, path: &Path) -> io::Result<u64>;
    /// Reads a whole file.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;
    /// Opens a file for reading from its beginning.
    fn open(&self, path: &Path) -> io::Result<Box<dyn io::Read + Send>>;
    /// Creates or truncates a file for writing.
    fn create(&self, path: &Path) -> io::Result<Box<dyn Write>>;
    /// Creates a file for writing; `AlreadyExists` if something is at `path`.
    fn create_new(&self, path: &Path) -> io::Result<Box<dyn Write>>;
    /// Renames atomically within one file system, replacing `to`, and makes the new name durable.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Makes what was written to a file durable.
    fn sync(&self, path: &Path) -> io::Result<()>;
    /// Writes what is in a file once more, in its place, and makes it durable.
    ///
    /// After a sync that failed, a kernel shows what it could not write and does not try again: what is read may be on no disk.
    /// Written again it is, since it counts as changed.
    fn rewrite(&self, path: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Takes an exclusive lock on the file at `path`, creating it; `WouldBlock` if another process holds it. Whoever holds
    /// the lock may remove the file: nobody ever holds a lock on a file that has lost its name.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Lock>>;
    /// The one name of `path`: absolute, and free of symbolic links, also where nothing is there yet. A link that leads to
    /// nothing is followed to where a file made through it would be.
    fn canonical(&self, path: &Path) -> io::Result<PathBuf>;
    /// The network file system that `path` lives on, by name; `None` for a local one.
    fn network_filesystem(&self, path: &Path) -> io::Result<Option<&'static str>>;
}

/// A file being written.
pub trait Write: io::Write + Send {
    /// Makes everything written so far durable.
    fn sync(&mut self) -> io::Result<()>;
}

/// A lock that is held until it is dropped, or until the process ends, however it ends.
pub trait Lock: Send + Sync {}

/// The mode of directories that hold data: the keys of data subjects are among them.
const OWNERS: u32 = 0o700;

/// The disk of this machine.
pub(crate) struct RealDisk;

#[expect(clippy::disallowed_methods, reason = "the one place that touches files")]
impl Disk for RealDisk {
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let growing = growing(path)?;
        fs::DirBuilder::new().recursive(true).mode(OWNERS).create(path)?;
        growing.iter().try_for_each(|folder| fs::File::open(folder)?.sync_all())
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        fs::exists(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        let mut entries = fs::read_dir(path)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
        entries.sort();
        Ok(entries)
    }

    fn size(&self, path: &Path) -> io::Result<u64> {
        Ok(fs::metadata(path)?.len())
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        fs::read(path)
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn io::Read + Send>> {
        Ok(Box::new(fs::File::open(path)?))
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn Write>> {
        Ok(Box::new(RealFile(fs::File::create(path)?)))
    }

    fn create_new(&self, path: &Path) -> io::Result<Box<dyn Write>> {
        Ok(Box::new(RealFile(fs::File::create_new(path)?)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)?;
        let folder = to.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        fs::File::open(folder)?.sync_all()
    }

    fn sync(&self, path: &Path) -> io::Result<()> {
        fs::OpenOptions::new().write(true).open(path)?.sync_all()
    }

    fn rewrite(&self, path: &Path) -> io::Result<()> {
        let mut file = fs::OpenOptions::new().read(true).write(true).open(path)?;
        let (mut piece, mut offset) = (vec![0; PIECE], 0);
        loop {
            file.seek(io::SeekFrom::Start(offset))?;
            let read = file.read(&mut piece)?;
            if read == 0 {
                return file.sync_all();
            }
            file.seek(io::SeekFrom::Start(offset))?;
            io::Write::write_all(&mut file, &piece[..read])?;
            offset += read as u64;
        }
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Lock>> {
        loop {
            let file = match fs::OpenOptions::new().create(true).truncate(false).write(true).open(path) {
                // Whoever may only read it can still find out whether somebody holds it.
                Err(cause)
                    if matches!(cause.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem) =>
                {
                    fs::File::open(path).map_err(|_| cause)?
                }
                opened => opened?,
            };
            match file.try_lock() {
                Ok(()) if has_its_name(&file, path)? => return Ok(Box::new(RealLock { _file: file })),
                // It was removed between the two, by whoever held it.
                Ok(()) => {}
                Err(fs::TryLockError::WouldBlock) => return Err(io::ErrorKind::WouldBlock.into()),
                Err(fs::TryLockError::Error(cause)) => return Err(cause),
            }
        }
    }

    fn canonical(&self, path: &Path) -> io::Result<PathBuf> {
        canonical(&std::path::absolute(path)?, MAX_LINKS)
    }

    fn network_filesystem(&self, path: &Path) -> io::Result<Option<&'static str>> {
        let nearest = nearest_existing(path)?;
        Ok(network_kind(rustix::fs::statfs(&nearest)?.f_type as u32))
    }
}

/// The network file system that has the magic number `magic` in Linux' statfs(2), by name.
fn network_kind(magic: u32) -> Option<&'static str> {
    match magic {
        0x6969 => Some("nfs"),
        0xff53_4d42 => Some("cifs"),
        0xfe53_4d42 => Some("smb2"),
        0x517b => Some("smb"),
        0x0102_1997 => Some("9p"),
        0x00c3_6400 => Some("ceph"),
        0x5346_414f => Some("afs"),
        0x0bd0_0bd0 => Some("lustre"),
        0x4750_4653 => Some("gpfs"),
        0x0116_1970 => Some("gfs2"),
        0x7461_636f => Some("ocfs2"),
        _ => None,
    }
}

/// Whether `file` is still what `path` leads to.
#[expect(clippy::disallowed_methods, reason = "the one place that touches files")]
fn has_its_name(file: &fs::File, path: &Path) -> io::Result<bool> {
    let open = file.metadata()?;
    match fs::metadata(path) {
        Ok(named) => Ok((named.dev(), named.ino()) == (open.dev(), open.ino())),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(cause) => Err(cause),
    }
}

/// The folders that get a new entry when `path` and its parents are made: those names are durable once these are synced.
fn growing(path: &Path) -> io::Result<Vec<PathBuf>> {
    let path = std::path::absolute(path)?;
    let there = nearest_existing(&path)?;
    Ok(path.ancestors().skip(1).take_while(|folder| folder.starts_with(&there)).map(Path::to_owned).collect())
}

#[expect(clippy::disallowed_methods, reason = "the one place that touches files")]
fn nearest_existing(path: &Path) -> io::Result<PathBuf> {
    let mut path = std::path::absolute(path)?;
    while !fs::exists(&path)? && path.pop() {}
    Ok(path)
}

/// What is rewritten at a time.
const PIECE: usize = 1 << 20;

/// So many links to nothing are followed, one after another: as many as Linux follows.
const MAX_LINKS: u32 = 40;

fn canonical(path: &Path, links: u32) -> io::Result<PathBuf> {
    let missing = match fs::canonicalize(path) {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => cause,
        found => return found,
    };
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Err(missing) };
    let parent = canonical(parent, links)?;
    let here = parent.join(name);
    match fs::read_link(&here) {
        Ok(target) if links > 0 => canonical(&parent.join(target), links - 1),
        Ok(_) => Err(io::ErrorKind::InvalidInput.into()),
        Err(_) => Ok(here),
    }
}

struct RealFile(fs::File);

impl io::Write for RealFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl Write for RealFile {
    fn sync(&mut self) -> io::Result<()> {
        self.0.sync_all()
    }
}

struct RealLock {
    _file: fs::File,
}

impl Lock for RealLock {}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn file_systems_of_other_machines_are_told_by_their_magic_numbers() {
        for (magic, kind) in [(0x6969, "nfs"), (0xff53_4d42, "cifs"), (0xfe53_4d42, "smb2"), (0x0102_1997, "9p")] {
            assert_eq!(network_kind(magic), Some(kind));
        }
        // ext4, tmpfs, XFS, Btrfs, overlayfs, ZFS.
        for magic in [0xef53, 0x0102_1994, 0x5846_5342, 0x9123_683e, 0x794c_7630, 0x2fc1_2fc1] {
            assert_eq!(network_kind(magic), None, "{magic:x}");
        }
    }

    #[test]
    fn a_directory_is_listed_in_order_without_what_lies_deeper() {
        let folder = tempfile::tempdir().unwrap();
        RealDisk.create_dir_all(&folder.path().join("b/c")).unwrap();
        RealDisk.create(&folder.path().join("a")).unwrap();
        assert_eq!(RealDisk.list(folder.path()).unwrap(), [folder.path().join("a"), folder.path().join("b")]);
        assert_eq!(RealDisk.list(&folder.path().join("x")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn what_holds_a_new_folder_is_made_durable() {
        let folder = tempfile::tempdir().unwrap();
        let at = |path: &str| folder.path().join(path);
        assert_eq!(growing(&at("a/b/c")).unwrap(), [at("a/b"), at("a"), folder.path().to_owned()]);
        RealDisk.create_dir_all(&at("a/b/c")).unwrap();
        assert_eq!(growing(&at("a/b/c")).unwrap(), [] as [PathBuf; 0]);
        assert_eq!(growing(&at("a/b/d")).unwrap(), [at("a/b")]);
        RealDisk.create_dir_all(&at("a/b/c")).unwrap();
        assert!(RealDisk.exists(&at("a/b/c")).unwrap());
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a test looks at the folder as another user would")]
    fn what_it_makes_is_open_to_nobody_else_and_what_was_there_stays_as_it_was() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let at = |path: &str| folder.path().join(path);
        let mode = |path: &str| fs::metadata(at(path)).unwrap().permissions().mode() & 0o777;
        fs::create_dir(at("theirs")).unwrap();
        fs::set_permissions(at("theirs"), fs::Permissions::from_mode(0o755)).unwrap();
        RealDisk.create_dir_all(&at("theirs/data/backups")).unwrap();
        assert_eq!([mode("theirs"), mode("theirs/data"), mode("theirs/data/backups")], [0o755, 0o700, 0o700]);
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a test opens the file as another process would")]
    fn a_lock_is_never_held_on_a_file_that_lost_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let held = RealDisk.lock(&path).unwrap();
        let opened_before = fs::File::options().write(true).open(&path).unwrap();
        assert!(has_its_name(&opened_before, &path).unwrap());
        RealDisk.remove(&path).unwrap();
        drop(held);
        opened_before.try_lock().unwrap();
        assert!(!has_its_name(&opened_before, &path).unwrap());
        let held = RealDisk.lock(&path).unwrap();
        assert!(!has_its_name(&opened_before, &path).unwrap(), "another file has the name now");
        assert_eq!(RealDisk.lock(&path).map(|_| ()).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(held);
    }

    #[test]
    fn a_file_that_is_written_again_is_what_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let bytes: Vec<u8> = (0..2 * PIECE + 17).map(|n| (n % 251) as u8).collect();
        RealDisk.create(&path).unwrap().write_all(&bytes).unwrap();
        RealDisk.rewrite(&path).unwrap();
        assert!(RealDisk.read(&path).unwrap() == bytes, "the file changed");
        let missing = RealDisk.rewrite(&folder.path().join("missing")).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    }
}
