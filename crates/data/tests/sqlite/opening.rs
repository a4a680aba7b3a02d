//! What is refused at the door, with the error that says so, and without touching it.

use std::{io, path::Path};

use quorate_data::store::{OpenError, StoreError};

use crate::shared::{self, Folder, batch, event, open, quiet, with_suffix};

fn bytes(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap()
}

/// Opens what should be refused, and checks that it is left as it was.
async fn refused(path: &Path) -> OpenError {
    let before = bytes(path);
    let Err(cause) = open(path).await else { panic!("{} should be refused", path.display()) };
    assert_eq!(bytes(path), before, "nothing was changed");
    cause
}

#[tokio::test]
async fn a_database_that_is_not_ours_is_refused_and_left_alone() {
    let folder = Folder::new();
    for (name, sql) in [
        ("plain.db", "CREATE TABLE theirs (x)"),
        ("versioned.db", "PRAGMA user_version = 1; CREATE TABLE theirs (x)"),
        ("identified.db", "PRAGMA application_id = 7; CREATE TABLE theirs (x)"),
        ("empty-but-theirs.db", "PRAGMA application_id = 7"),
        ("same-name.db", "CREATE TABLE quorate_block (first INTEGER PRIMARY KEY, body BLOB)"),
    ] {
        let path = folder.path(name);
        rusqlite::Connection::open(&path).unwrap().execute_batch(sql).unwrap();
        let cause = refused(&path).await;
        assert!(matches!(&cause, OpenError::Foreign { path: p } if *p == path), "{name}: {cause:?}");
        let wal = with_suffix(&path, "-wal");
        assert!(!wal.exists(), "{name}: no write-ahead log appears beside it");
    }
}

#[tokio::test]
async fn a_newer_schema_is_refused_by_its_number() {
    let folder = Folder::new();
    folder.store().await.close().await.unwrap();
    let connection = shared::raw(&folder.file());
    connection.execute_batch("PRAGMA user_version = 7; PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    drop(connection);
    let cause = refused(&folder.file()).await;
    assert!(matches!(cause, OpenError::Newer { found: 7, known: 2, .. }), "{cause:?}");
}

#[tokio::test]
async fn a_schema_from_before_the_first_release_is_refused_with_what_to_do() {
    let folder = Folder::new();
    folder.store().await.close().await.unwrap();
    let connection = shared::raw(&folder.file());
    connection.execute_batch("PRAGMA user_version = 1; PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    drop(connection);
    let cause = refused(&folder.file()).await;
    assert!(matches!(cause, OpenError::Older { found: 1, known: 2, .. }), "{cause:?}");
    assert!(cause.to_string().contains("export its streams"), "{cause}");
}

#[tokio::test]
async fn a_file_that_is_no_database_is_refused() {
    let folder = Folder::new();
    let lines = "this is a letter, not a database\n".repeat(500);
    for (name, text) in [("letter.txt", lines.as_bytes()), ("short.txt", b"hello"), ("zeros", &[0; 8_192])] {
        let path = folder.path(name);
        std::fs::write(&path, text).unwrap();
        let cause = refused(&path).await;
        assert!(matches!(cause, OpenError::Corrupt { .. }), "{name}: {cause:?}");
    }
}

#[tokio::test]
async fn a_file_without_a_byte_is_a_store_that_was_never_begun() {
    // A crash between creating the file and writing its first page leaves exactly this.
    let folder = Folder::new();
    std::fs::write(folder.file(), b"").unwrap();
    let store = folder.store().await;
    store.append(batch("s", vec![event(1)])).await.unwrap();
    store.close().await.unwrap();
    assert_eq!(folder.store().await.head().get(), 1);
}

#[tokio::test]
async fn a_store_whose_file_is_gone_or_empty_is_not_begun_anew_over_what_is_left_of_it() {
    let folder = Folder::new();
    let store = folder.store().await;
    store.append(batch("s", (0..50).map(event).collect())).await.unwrap();
    let gone = folder.path("gone.db");
    for left in ["-wal", ".mark", ".keys"] {
        for empty in [true, false] {
            shared::photograph(&folder.file(), &gone);
            match empty {
                true => std::fs::write(&gone, b"").unwrap(),
                false => std::fs::remove_file(&gone).unwrap(),
            }
            let (log, file) = (with_suffix(&gone, "-wal"), with_suffix(&gone, left));
            assert!(log.metadata().unwrap().len() > 0, "the events are in the log");
            if left != "-wal" {
                std::fs::remove_file(&log).unwrap();
                std::fs::write(&file, b"something").unwrap();
            }
            let before = bytes(&file);
            let cause = open(&gone).await.map(|_| ()).unwrap_err();
            assert!(matches!(&cause, OpenError::Lost { left, .. } if *left == file), "{cause:?}");
            assert_eq!((bytes(&file), gone.exists()), (before, empty), "nothing was touched");
            for file in [gone.clone(), log, file] {
                let _ = std::fs::remove_file(file);
            }
        }
    }
}

#[tokio::test]
async fn a_store_in_use_or_one_that_did_not_end_well_is_no_backup() {
    let folder = Folder::new();
    let store = folder.store().await;
    store.append(batch("s", (0..50).map(event).collect())).await.unwrap();
    let env = quorate_runtime::Env::real();
    let (target, copy) = (folder.path("restored.db"), folder.path("copy.db"));
    let restore = |from: &Path| quorate_data::store::sqlite::restore(&env, from.to_owned(), target.clone(), quiet());
    shared::photograph(&folder.file(), &copy);
    let link = folder.path("link.db");
    std::os::unix::fs::symlink(&copy, &link).unwrap();
    for unfinished in [&folder.file(), &copy, &link] {
        let cause = restore(unfinished).await.unwrap_err();
        assert!(matches!(&cause, OpenError::NotABackup { .. }), "{}: {cause:?}", unfinished.display());
        assert!(!target.exists() && with_suffix(&copy, "-wal").exists());
    }
    // Whatever lies in its log: a store that is open is written to.
    let open = open(&folder.path("open.db")).await.unwrap();
    std::fs::copy(folder.path("open.db"), folder.path("still.db")).unwrap();
    let locked = folder.path("still.db");
    let held = env.disk().lock(&with_suffix(&locked, ".lock")).unwrap();
    let cause = restore(&locked).await.unwrap_err();
    assert!(matches!(cause, OpenError::Locked { .. }), "{cause:?}");
    drop((held, open));
    // Started once and stopped, it is whole.
    store.close().await.unwrap();
    restore(&folder.file()).await.unwrap();
    assert_eq!(shared::open(&target).await.unwrap().head().get(), 50);
}

#[tokio::test]
async fn a_file_that_lost_its_end_is_refused() {
    let folder = Folder::new();
    let store = folder.store().await;
    for n in 0..20 {
        let large = quorate_data::event::NewEvent { data: Some(vec![b'x'; 20_000].into()), ..event(n) };
        store.append(batch("s", vec![large])).await.unwrap();
    }
    store.close().await.unwrap();
    let whole = bytes(&folder.file());
    for keep in [50, 100, 4_095, 4_096, 6_000, 40_960, whole.len() / 2, whole.len() - 4_096] {
        let path = folder.path(&format!("cut-{keep}.db"));
        std::fs::write(&path, &whole[..keep]).unwrap();
        let cause = refused(&path).await;
        assert!(matches!(cause, OpenError::Corrupt { .. }), "{keep} of {} bytes: {cause:?}", whole.len());
    }
}

#[tokio::test]
async fn a_folder_and_a_missing_folder_are_refused() {
    let folder = Folder::new();
    let path = folder.path("a-folder");
    std::fs::create_dir(&path).unwrap();
    let cause = open(&path).await.map(|_| ()).unwrap_err();
    assert!(matches!(&cause, OpenError::Io { path: p, .. } if *p == path), "{cause:?}");
    let missing = folder.path("missing/store.db");
    let cause = open(&missing).await.map(|_| ()).unwrap_err();
    assert!(matches!(&cause, OpenError::Io { cause, .. } if cause.kind() == io::ErrorKind::NotFound), "{cause:?}");
}

#[tokio::test]
async fn a_second_store_in_the_same_process_is_refused() {
    let folder = Folder::new();
    let store = folder.store().await;
    let cause = open(&folder.file()).await.map(|_| ()).unwrap_err();
    assert!(matches!(&cause, OpenError::Locked { path } if *path == folder.file()), "{cause:?}");
    store.append(batch("s", vec![event(1)])).await.unwrap();
    store.close().await.unwrap();
    open(&folder.file()).await.unwrap();
}

#[tokio::test]
async fn a_store_has_one_writer_whatever_name_it_is_opened_by() {
    let folder = Folder::new();
    let (link, dangling) = (folder.path("link.db"), folder.path("dangling.db"));
    std::os::unix::fs::symlink(folder.file(), &link).unwrap();
    std::os::unix::fs::symlink("link.db", &dangling).unwrap();
    std::os::unix::fs::symlink(".", folder.path("again")).unwrap();
    let through_a_folder = folder.path("again/./link.db");
    for first in [&dangling, &folder.file()] {
        let store = open(first).await.unwrap();
        for second in [&link, &dangling, &through_a_folder, &folder.file()] {
            let refused = open(second).await.map(|_| ());
            assert!(matches!(refused, Err(OpenError::Locked { .. })), "{}: {refused:?}", second.display());
        }
        store.append(batch("s", vec![event(first.display())])).await.unwrap();
        store.close().await.unwrap();
    }
    assert_eq!(open(&link).await.unwrap().head().get(), 2);
    assert!(folder.file().exists() && !with_suffix(&link, ".lock").exists());
}

#[tokio::test]
async fn a_circle_of_links_is_refused() {
    let folder = Folder::new();
    let circle = folder.path("circle.db");
    std::os::unix::fs::symlink("circle.db", &circle).unwrap();
    let refused = open(&circle).await.map(|_| ());
    assert!(matches!(&refused, Err(OpenError::Io { path, .. }) if *path == circle), "{refused:?}");
}

#[tokio::test]
async fn a_restore_through_a_link_keeps_the_link() {
    let folder = Folder::new();
    let store = folder.store().await;
    store.append(batch("s", (0..5).map(event).collect())).await.unwrap();
    let (link, target, backup) = (folder.path("link.db"), folder.path("restored.db"), folder.path("backup.db"));
    std::os::unix::fs::symlink("restored.db", &link).unwrap();
    store.backup(backup.clone(), std::sync::Arc::new(|_, _| {})).await.unwrap();
    let env = quorate_runtime::Env::real();
    quorate_data::store::sqlite::restore(&env, backup, link.clone(), quiet()).await.unwrap();
    assert!(link.is_symlink() && target.is_file());
    assert_eq!(open(&target).await.unwrap().head(), store.head());
}

#[tokio::test]
async fn dropping_a_store_without_closing_it_gives_the_file_free() {
    let folder = Folder::new();
    let store = folder.store().await;
    store.append(batch("s", vec![event(1)])).await.unwrap();
    drop(store);
    for _ in 0..200 {
        match open(&folder.file()).await {
            Ok(store) => return assert_eq!(store.head().get(), 1),
            Err(OpenError::Locked { .. }) => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
            Err(other) => panic!("{other:?}"),
        }
    }
    panic!("the file is still locked");
}

#[tokio::test]
async fn a_write_ahead_log_without_its_store_is_not_played_into_another() {
    let folder = Folder::new();
    let store = folder.store().await;
    store.append(batch("s", (0..50).map(event).collect())).await.unwrap();
    let (lone, backup) = (folder.path("lone.db"), folder.path("backup.db"));
    shared::photograph(&folder.file(), &lone);
    store.backup(backup.clone(), std::sync::Arc::new(|_, _| {})).await.unwrap();
    std::fs::remove_file(&lone).unwrap();
    assert!(with_suffix(&lone, "-wal").exists());
    let env = quorate_runtime::Env::real();
    let restored = quorate_data::store::sqlite::restore(&env, backup, lone.clone(), quiet()).await;
    let kept = matches!(&restored, Err(OpenError::Io { cause, .. }) if cause.kind() == io::ErrorKind::AlreadyExists);
    assert!(kept, "a restore never overwrites: {restored:?}");
    assert!(with_suffix(&lone, "-wal").exists());
}

#[tokio::test]
async fn what_a_failed_restore_left_does_not_spoil_the_next() {
    let folder = Folder::new();
    let store = folder.store().await;
    store.append(batch("s", (0..50).map(event).collect())).await.unwrap();
    let (target, backup) = (folder.path("restored.db"), folder.path("backup.db"));
    store.backup(backup.clone(), std::sync::Arc::new(|_, _| {})).await.unwrap();
    // A restore that died half-way: its partial file with a write-ahead log of its own.
    let partial = folder.path(".restored.db.quorate-partial");
    shared::photograph(&folder.file(), &partial);
    assert!(with_suffix(&partial, "-wal").exists());
    let env = quorate_runtime::Env::real();
    let refused = open(&target).await.map(|_| ());
    assert!(matches!(refused, Err(OpenError::Unrestored { .. })), "no empty store is taken for it: {refused:?}");
    assert!(!target.exists() && partial.exists());
    quorate_data::store::sqlite::restore(&env, backup, target.clone(), quiet()).await.unwrap();
    let restored = open(&target).await.unwrap();
    assert_eq!(restored.head(), store.head());
    let verified = restored.verify(std::sync::Arc::new(|_, _| {})).await.unwrap();
    assert!(verified.is_sound(), "{:?}", verified.findings);
    let nothing_left = || {
        for left in [partial.clone(), with_suffix(&partial, "-wal"), with_suffix(&partial, "-shm")] {
            assert!(!left.exists(), "{} is left", left.display());
        }
    };
    nothing_left();
    restored.close().await.unwrap();
    // Beside a store it is of no use to anybody.
    shared::photograph(&folder.file(), &partial);
    open(&target).await.unwrap().close().await.unwrap();
    nothing_left();
}

#[tokio::test]
async fn restoring_something_else_is_refused_and_leaves_nothing() {
    let folder = Folder::new();
    let (letter, target) = (folder.path("letter.txt"), folder.path("restored.db"));
    std::fs::write(&letter, "no backup".repeat(1_000)).unwrap();
    let env = quorate_runtime::Env::real();
    let cause = quorate_data::store::sqlite::restore(&env, letter.clone(), target.clone(), quiet()).await.unwrap_err();
    assert!(matches!(&cause, OpenError::Corrupt { path, .. } if *path == letter), "{cause:?}");
    assert!(!target.exists());
    let cause =
        quorate_data::store::sqlite::restore(&env, folder.path("nowhere"), target.clone(), quiet()).await.unwrap_err();
    assert!(matches!(&cause, OpenError::Io { cause, .. } if cause.kind() == io::ErrorKind::NotFound), "{cause:?}");
    assert!(!target.exists() && !with_suffix(&target, ".lock").exists(), "nor a lock on nothing");
    assert!(!matches!(cause, OpenError::Store(StoreError::Closed)));
}

#[tokio::test]
async fn a_store_is_opened_under_a_name_as_long_as_its_own_files_allow() {
    let folder = Folder::new();
    let path = folder.path(&"n".repeat(240));
    for round in 1..=2 {
        let store = open(&path).await.unwrap();
        store.append(batch("s", vec![event(round)])).await.unwrap();
        assert_eq!(store.head().get(), round);
        store.close().await.unwrap();
    }
    assert!(!with_suffix(&path, "-wal").exists(), "the log was written back");
}
