//! A small disk that can be filled up.
//!
//! The test starts this program again inside a mount namespace of its own, where it mounts a small file system.

use std::{
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
};

/// Names the folder to mount at, in the process that was started for it.
const INSIDE: &str = "QUORATE_TEST_MOUNT";

/// Where a node has little room.
pub(crate) struct SmallDisk {
    mount: PathBuf,
}

impl SmallDisk {
    /// In the parent, runs the test `name` again where it has a disk of `megabytes`, and returns `None`: nothing is left to do. In
    /// the child, that disk.
    pub(crate) fn of(name: &str, megabytes: u64) -> Option<Self> {
        let Some(mount) = std::env::var_os(INSIDE) else {
            let folder = tempfile::tempdir().unwrap();
            match again_inside(name, folder.path()) {
                Some(held) => assert!(held, "see the child's output above"),
                None => skip(name),
            }
            return None;
        };
        let mount = PathBuf::from(mount);
        let size = format!("size={megabytes}m");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&mount).status().unwrap();
        assert!(mounted.success());
        Some(Self { mount })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.mount
    }

    fn ballast(&self) -> PathBuf {
        self.mount.join("ballast")
    }

    /// Leaves `room` bytes.
    pub(crate) fn fill(&self, room: u64) {
        let mut ballast = File::options().create(true).append(true).open(self.ballast()).unwrap();
        while ballast.write_all(&[0; 64 << 10]).is_ok() {}
        let size = ballast.metadata().unwrap().len();
        ballast.set_len(size.saturating_sub(room)).unwrap();
    }

    /// Has all the room there is again.
    pub(crate) fn clear(&self) {
        // It may never have been filled.
        let _ = fs::remove_file(self.ballast());
    }
}

/// Runs the test `name` again where it can mount a file system: `None` if this machine does not let us.
fn again_inside(name: &str, mount: &Path) -> Option<bool> {
    for flags in [&["--mount"][..], &["--map-root-user", "--mount"]] {
        let allowed = Command::new("unshare").args(flags).args(["mount", "-t", "tmpfs", "tmpfs"]).arg(mount).output();
        if !allowed.is_ok_and(|tried| tried.status.success()) {
            continue;
        }
        let status = Command::new("unshare")
            .args(flags)
            .arg(std::env::current_exe().unwrap())
            .args([name, "--exact", "--nocapture"])
            .env(INSIDE, mount)
            .status();
        return Some(status.unwrap().success());
    }
    None
}

fn skip(name: &str) {
    eprintln!("SKIPPED {name}: this machine lets us mount nothing (unshare(1) needs root or user namespaces)");
    assert!(std::env::var_os("QUORATE_FORBID_SKIPPING").is_none(), "skipping is forbidden here");
}
