//! A full disk: writes are refused as such, nothing acknowledged is lost, and the store goes on when there is space.
//!
//! The test starts this program again inside a mount namespace of its own, where it mounts a small file system.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use quorate_data::{
    event::NewEvent,
    store::{
        AppendError, ExpectedVersion, HybridClock, HybridClockError, ReadStream, Retire, Retry, SqlError, Store,
        StoreError, TransactError,
    },
};
use quorate_foundations::ordering::hlc::{Config, Stamp};

use crate::shared::{self, batch, event, open};

const INSIDE: &str = "QUORATE_TEST_MOUNT";

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

/// In the parent, runs the child and says whether there is nothing left to do; in the child, where the small disk is.
fn small_disk(name: &str, megabytes: u64) -> Option<PathBuf> {
    let Some(mount) = std::env::var_os(INSIDE) else {
        let folder = tempfile::tempdir().unwrap();
        match again_inside(name, folder.path()) {
            Some(held) => assert!(held, "see the child's output above"),
            None => {
                eprintln!(
                    "SKIPPED {name}: this machine lets us mount nothing (unshare(1) needs root or user namespaces)"
                );
                assert!(std::env::var_os("QUORATE_FORBID_SKIPPING").is_none(), "skipping is forbidden here");
            }
        }
        return None;
    };
    let mount = PathBuf::from(mount);
    let size = format!("size={megabytes}m");
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&mount).status().unwrap();
    assert!(mounted.success());
    Some(mount)
}

fn large(id: &str) -> NewEvent {
    NewEvent { data: Some(vec![b'x'; 20_000].into()), ..event(id) }
}

async fn ids(store: &Store) -> Vec<String> {
    let page = store.read_stream(ReadStream::forward("s".parse().unwrap(), 10_000)).await.unwrap();
    page.events.iter().map(|event| event.id().to_owned()).collect()
}

/// Appends until the disk is full; returns what was acknowledged.
async fn fill(store: &Store, round: &str) -> Vec<String> {
    let mut acknowledged = Vec::new();
    for n in 0..10_000 {
        let id = format!("{round}-{n}");
        match store.append(batch("s", vec![large(&id)])).await {
            Ok(_) => acknowledged.push(id),
            Err(AppendError::Store(cause @ StoreError::DiskFull)) => {
                assert!(matches!(cause.retry(), Retry::After(_)));
                return acknowledged;
            }
            Err(other) => panic!("a full disk is not {other:?}"),
        }
    }
    panic!("the disk never was full");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_writes_and_loses_nothing() {
    let Some(mount) = small_disk("full_disk::a_full_disk_refuses_writes_and_loses_nothing", 12) else { return };
    let (path, ballast) = (mount.join("store.db"), mount.join("ballast"));
    std::fs::write(&ballast, vec![0; 4 << 20]).unwrap();
    let store = open(&path).await.unwrap();
    let create = "CREATE TABLE note (id INTEGER PRIMARY KEY, text TEXT)";
    store.transact(move |tx| Box::pin(tx.execute(create, &[]))).await.unwrap();
    let mut expected = Vec::new();
    for round in ["first", "second"] {
        expected.extend(fill(&store, round).await);
        assert_eq!(ids(&store).await, expected, "reading goes on");
        for n in 0..20 {
            let refused = store.append(batch("s", vec![large(&format!("refused-{round}-{n}"))])).await;
            assert!(matches!(refused, Err(AppendError::Store(StoreError::DiskFull))), "{refused:?}");
            let refused = store
                .transact(|tx| {
                    Box::pin(async move {
                        for _ in 0..50 {
                            tx.execute("INSERT INTO note (text) VALUES (hex(zeroblob(50000)))", &[]).await?;
                        }
                        Ok::<_, SqlError>(())
                    })
                })
                .await;
            assert!(matches!(refused, Err(TransactError::Store(StoreError::DiskFull))), "{refused:?}");
        }
        assert_eq!(store.query("SELECT count(*) FROM note", vec![]).await.unwrap()[0].at(0).as_i64(), Some(0));
        if round == "first" {
            std::fs::remove_file(&ballast).unwrap();
            store.append(batch("s", vec![event("goes-on")])).await.unwrap();
            expected.push("goes-on".into());
        }
    }
    assert_eq!(ids(&store).await, expected);
    drop(store);
    // A full disk at opening, too: what is there can be read, or it is said that the disk is full.
    let store = reopen(&path).await;
    assert_eq!(ids(&store).await, expected);
    // More space, without an end in sight: remounting grows the file system.
    let grown = Command::new("mount").args(["-o", "remount,size=64m"]).arg(&mount).status().unwrap();
    assert!(grown.success());
    store.append(batch("s", vec![event("at-last")])).await.unwrap();
    expected.push("at-last".into());
    assert_eq!(ids(&store).await, expected);
    let verified = store.verify(std::sync::Arc::new(|_, _| {})).await.unwrap();
    assert!(verified.is_sound() && verified.events == expected.len() as u64, "{:?}", verified.findings);
    store.close().await.unwrap();
    let store = open(&path).await.unwrap();
    assert_eq!(ids(&store).await, expected);
}

async fn reopen(path: &Path) -> Store {
    for _ in 0..500 {
        match open(path).await {
            Ok(store) => return store,
            Err(quorate_data::store::OpenError::Locked { .. }) => {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
            Err(other) => panic!("{other:?}"),
        }
    }
    panic!("the store stays locked");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_while_indexing_loses_nothing() {
    let Some(mount) = small_disk("full_disk::a_full_disk_while_indexing_loses_nothing", 24) else { return };
    let path = mount.join("store.db");
    let store = open(&path).await.unwrap();
    // Many small events: the index of them is what does not fit.
    let (mut expected, mut full) = (Vec::new(), 0);
    for n in 0..400 {
        let events: Vec<NewEvent> = (0..500).map(|m| event(format!("{n}-{m}"))).collect();
        let ids = events.iter().map(|event| event.id.to_string()).collect::<Vec<_>>();
        match store.append(batch("s", events)).await {
            Ok(_) => expected.extend(ids),
            Err(AppendError::Store(StoreError::DiskFull)) => full += 1,
            Err(other) => panic!("{other:?}"),
        }
        if full == 10 {
            break;
        }
    }
    assert!(full == 10 && expected.len() > 8_192, "{} events before the disk was full {full} times", expected.len());
    let grown = Command::new("mount").args(["-o", "remount,size=200m"]).arg(&mount).status().unwrap();
    assert!(grown.success());
    store.append(batch("t", vec![event("goes-on")])).await.unwrap();
    let check = async |store: &Store| {
        let mut found = Vec::new();
        let mut read = ReadStream::forward("s".parse().unwrap(), 10_000);
        loop {
            let page = store.read_stream(read.clone()).await.unwrap();
            found.extend(page.events.iter().map(|event| event.id().to_owned()));
            let Some(next) = page.next else { break };
            read = read.from(next);
        }
        assert!(found == expected, "{} events instead of {}", found.len(), expected.len());
        let verified = store.verify(std::sync::Arc::new(|_, _| {})).await.unwrap();
        assert!(verified.is_sound(), "{:?}", verified.findings);
    };
    check(&store).await;
    store.close().await.unwrap();
    check(&open(&path).await.unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_onto_a_full_disk_fails_and_leaves_nothing() {
    let Some(mount) = small_disk("full_disk::a_backup_onto_a_full_disk_fails_and_leaves_nothing", 1) else { return };
    let folder = shared::Folder::new();
    let store = folder.store().await;
    for n in 0..200 {
        store.append(batch("s", vec![large(&n.to_string())])).await.unwrap();
    }
    let to = mount.join("backup.db");
    let failed = store.backup(to, std::sync::Arc::new(|_, _| {})).await;
    assert!(matches!(failed, Err(StoreError::DiskFull)), "{failed:?}");
    assert_eq!(std::fs::read_dir(&mount).unwrap().count(), 0, "nothing is left");
    assert_eq!(ids(&store).await.len(), 200);
}

/// Sets the size that files of this process may grow to: `unlimited`, or a number of bytes.
fn limit_files(to: &str) {
    let pid = std::process::id().to_string();
    let set = Command::new("prlimit").args([&format!("--fsize={to}:"), "--pid", &pid]).status().unwrap();
    assert!(set.success());
}

/// In the parent, runs the child; in the child, a folder for files whose size [`limit_files`] may limit.
///
/// Needs no mount, so no machine skips it: beyond the limit a write fails as beyond a quota, though with another error.
fn limited_files(name: &str) -> Option<PathBuf> {
    let Some(folder) = std::env::var_os(INSIDE) else {
        let folder = tempfile::tempdir().unwrap();
        // Whoever does not ignore the signal is ended by the first write beyond the limit.
        let held = Command::new("sh")
            .args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""])
            .arg(std::env::current_exe().unwrap())
            .args([name, "--exact", "--nocapture"])
            .env(INSIDE, folder.path())
            .status();
        assert!(held.unwrap().success(), "see the child's output above");
        return None;
    };
    Some(PathBuf::from(folder))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_may_not_grow_refuses_writes_and_loses_nothing() {
    let Some(folder) = limited_files("full_disk::a_file_that_may_not_grow_refuses_writes_and_loses_nothing") else {
        return;
    };
    let path = folder.join("store.db");
    let store = open(&path).await.unwrap();
    let create = "CREATE TABLE note (id INTEGER PRIMARY KEY, text TEXT)";
    store.transact(move |tx| Box::pin(tx.execute(create, &[]))).await.unwrap();
    let mut expected = Vec::new();
    for (round, limit) in [("first", 3 << 20), ("second", 6 << 20)] {
        limit_files(&limit.to_string());
        expected.extend(fill(&store, round).await);
        assert_eq!(ids(&store).await, expected, "reading goes on");
        let refused = store
            .transact(|tx| {
                Box::pin(async move {
                    for _ in 0..50 {
                        tx.execute("INSERT INTO note (text) VALUES (hex(zeroblob(500000)))", &[]).await?;
                    }
                    Ok::<_, SqlError>(())
                })
            })
            .await;
        assert!(matches!(refused, Err(TransactError::Store(StoreError::DiskFull))), "{refused:?}");
        let backup = path.with_file_name("backup.db");
        limit_files("1000000");
        let failed = store.backup(backup.clone(), std::sync::Arc::new(|_, _| {})).await;
        assert!(matches!(failed, Err(StoreError::DiskFull)), "{failed:?}");
        assert!(!backup.exists());
    }
    limit_files("unlimited");
    store.append(batch("s", vec![event("at-last")])).await.unwrap();
    expected.push("at-last".into());
    let verified = store.verify(std::sync::Arc::new(|_, _| {})).await.unwrap();
    assert!(verified.is_sound() && verified.events == expected.len() as u64, "{:?}", verified.findings);
    store.close().await.unwrap();
    assert_eq!(ids(&open(&path).await.unwrap()).await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_forgotten_is_told_where_the_disk_is_too_full_to_wipe_it() {
    let Some(folder) = limited_files("full_disk::what_was_forgotten_is_told_where_the_disk_is_too_full_to_wipe_it")
    else {
        return;
    };
    let path = folder.join("store.db");
    let store = open(&path).await.unwrap();
    for n in 0..100 {
        store.append(batch("s", vec![large(&n.to_string())])).await.unwrap();
    }
    store.close().await.unwrap();
    let store = open(&path).await.unwrap();
    // Room for the row that says they are forgotten, and none for the blocks that are rewritten.
    limit_files("250000");
    let tombstone = || Retire::Tombstone { expected: ExpectedVersion::Any };
    let refused = store.retire("s".parse().unwrap(), tombstone()).await;
    let Err(AppendError::Store(cause @ StoreError::NotWiped { .. })) = refused else { panic!("{refused:?}") };
    assert!(matches!(cause.retry(), Retry::After(_)), "{cause:?}");
    assert!(ids(&store).await.is_empty(), "they are gone for everybody");
    limit_files("unlimited");
    assert_eq!(store.retire("s".parse().unwrap(), tombstone()).await.unwrap().events, 0);
    store.close().await.unwrap();
    assert!(!std::fs::read(&path).unwrap().windows(1_000).any(|some| some == [b'x'; 1_000]), "their data is wiped");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hybrid_clock_gives_no_stamp_that_a_full_disk_could_not_keep() {
    let Some(folder) = limited_files("full_disk::a_hybrid_clock_gives_no_stamp_that_a_full_disk_could_not_keep") else {
        return;
    };
    let store = open(&folder.join("store.db")).await.unwrap();
    let hour = std::time::Duration::from_secs(3_600);
    let config = Config::new(hour * 2, hour).unwrap();
    let clock = HybridClock::open(&store, "orders".parse().unwrap(), config).await.unwrap();
    let before = clock.tick().await.unwrap();
    limit_files("1000");
    let reserved = clock.tick().await.unwrap();
    assert!(before < reserved, "what was reserved is given");
    let ahead = Stamp::new(store.env().wall() + hour + hour / 2, 0);
    for _ in 0..3 {
        let refused = clock.observe(ahead).await.unwrap_err();
        assert!(matches!(refused, HybridClockError::Store(StoreError::DiskFull)), "{refused:?}");
        assert!(matches!(refused.retry(), Retry::After(_)), "{refused:?}");
    }
    let rest = clock.tick().await.unwrap();
    assert!(reserved < rest && rest < ahead, "{rest}: what was refused leaves no trace");
    let other = HybridClock::open(&store, "stock".parse().unwrap(), config).await.map(|_| ()).unwrap_err();
    assert!(matches!(other, HybridClockError::Store(StoreError::DiskFull)), "{other:?}");
    limit_files("unlimited");
    assert!(clock.observe(ahead).await.unwrap() > ahead, "there is space again");
    store.close().await.unwrap();
}
