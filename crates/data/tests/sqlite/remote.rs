//! A store is refused on a disk of another machine, where locks and syncs mean little.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use quorate_data::store::{
    OpenError,
    sqlite::{self, Config, restore},
};
use quorate_runtime::{
    Env, EnvParts,
    disk::{Disk, Lock, Write},
};

use crate::shared::{Folder, quiet};

/// This machine's disk as it would be if it were another's: mounting one takes rights that a test does not have.
struct Remote(Arc<dyn Disk>);

impl Disk for Remote {
    fn network_filesystem(&self, _path: &Path) -> io::Result<Option<&'static str>> {
        Ok(Some("nfs"))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.0.create_dir_all(path)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.0.exists(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        self.0.list(path)
    }

    fn size(&self, path: &Path) -> io::Result<u64> {
        self.0.size(path)
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.0.read(path)
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn io::Read + Send>> {
        self.0.open(path)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn Write>> {
        self.0.create(path)
    }

    fn create_new(&self, path: &Path) -> io::Result<Box<dyn Write>> {
        self.0.create_new(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.rename(from, to)
    }

    fn sync(&self, path: &Path) -> io::Result<()> {
        self.0.sync(path)
    }

    fn rewrite(&self, path: &Path) -> io::Result<()> {
        self.0.rewrite(path)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.0.remove(path)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Lock>> {
        self.0.lock(path)
    }

    fn canonical(&self, path: &Path) -> io::Result<PathBuf> {
        self.0.canonical(path)
    }
}

#[tokio::test]
async fn a_store_on_a_network_file_system_is_refused_and_nothing_is_made_there() {
    let (here, there) = (Folder::new(), Folder::new());
    let store = here.store().await;
    let backup = here.path("backup.db");
    store.backup(backup.clone(), quiet()).await.unwrap();
    let real = Env::real().into_parts();
    let env = Env::from_parts(EnvParts { disk: Arc::new(Remote(real.disk.clone())), ..real });
    let path = there.file();
    let opened = sqlite::open(&env, Config::at(&path)).await.map(drop);
    let restored = restore(&env, backup, path.clone(), quiet()).await;
    for refused in [opened, restored] {
        let Err(OpenError::NetworkFilesystem { path: of, kind: "nfs" }) = &refused else { panic!("{refused:?}") };
        assert_eq!(*of, env.disk().canonical(&path).unwrap());
    }
    assert_eq!(std::fs::read_dir(there.path(".")).unwrap().count(), 0);
}
