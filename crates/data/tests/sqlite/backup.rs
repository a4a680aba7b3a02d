//! A backup taken under load restores, and readers go on from where they were.

use std::{
    ffi::OsStr,
    os::unix::ffi::OsStrExt as _,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    time::Duration,
};

use quorate_data::{
    event::{Position, Recorded},
    store::{OpenError, Progress, Query, ReadLog, Retire, Store, StoreError, sqlite::restore},
};
use quorate_runtime::Env;

use crate::shared::{Folder, batch, event, open, quiet};

async fn log(store: &Store, after: u64) -> Vec<Recorded> {
    let (mut found, mut after) = (Vec::new(), Position::new(after));
    loop {
        let page = store.read_log(ReadLog { query: Query::EVERYTHING, after, limit: 1_000 }).await.unwrap();
        found.extend(page.events);
        after = page.scanned;
        if page.scanned >= page.head {
            return found;
        }
    }
}

async fn assert_sound(store: &Store) {
    let verified = store.verify(Arc::new(|_, _| {})).await.unwrap();
    assert!(verified.is_sound(), "{:?}", verified.findings);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_under_load_restores_and_readers_go_on_without_a_gap() {
    let folder = Folder::new();
    let store = folder.store().await;
    let table = "CREATE TABLE note (id INTEGER PRIMARY KEY, text TEXT)";
    store.transact(move |tx| Box::pin(tx.execute(table, &[]))).await.unwrap();
    for n in 0..10 {
        store.append(batch("early", (0..1_000).map(|m| event(format!("{n}-{m}"))).collect())).await.unwrap();
    }
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let (store, stop) = (store.clone(), stop.clone());
            tokio::spawn(async move {
                for n in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let unit = store.transact(move |tx| {
                        Box::pin(async move {
                            let id = format!("{writer}-{n}");
                            tx.append_batch(batch(&format!("load-{writer}"), vec![event(&id)])).await.unwrap();
                            tx.execute("INSERT INTO note (text) VALUES ($1)", &[id.into()]).await
                        })
                    });
                    unit.await.unwrap();
                }
            })
        })
        .collect();
    let backups = [folder.path("one.db"), folder.path("two.db")];
    let done = Arc::new(AtomicU64::new(0));
    let mut before = Vec::new();
    for to in &backups {
        before.push(store.head());
        let told = done.clone();
        let progress = Arc::new(move |done: u64, total: u64| {
            assert!(done <= total);
            told.store(done, Ordering::Relaxed);
        });
        let bytes = store.backup(to.clone(), progress).await.unwrap();
        assert_eq!(bytes, std::fs::metadata(to).unwrap().len());
        assert!(done.load(Ordering::Relaxed) > 0, "progress is told");
    }
    stop.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.await.unwrap();
    }
    let original = log(&store, 0).await;
    // A reader had come so far when the disaster came; it goes on from its position.
    for (backup, before) in backups.iter().zip(before) {
        let target = backup.with_extension("restored");
        restore(&Env::real(), backup.clone(), target.clone(), quiet()).await.unwrap();
        let restored = open(&target).await.unwrap();
        assert!(restored.head() >= before, "the backup holds what was there when it began");
        assert_eq!(restored.timeline().store, store.timeline().store);
        assert!(restored.timeline().epoch > store.timeline().epoch, "another timeline");
        assert_sound(&restored).await;
        let events = log(&restored, 0).await;
        assert!(events == original[..events.len()], "a prefix of the log, byte for byte");
        let loaded = events.iter().filter(|event| event.category() == "load").count() as i64;
        let rows = restored.query("SELECT count(*) FROM note", vec![]).await.unwrap()[0].at(0).as_i64();
        assert_eq!(rows, Some(loaded), "events and rows of the same moment");
        let position = before.get() / 2;
        restored.append(batch("after", (0..10).map(event).collect())).await.unwrap();
        let positions: Vec<u64> = log(&restored, position).await.iter().map(|event| event.position().get()).collect();
        assert_eq!(positions, (position + 1..=events.len() as u64 + 10).collect::<Vec<_>>(), "no gap");
        let again = restored.append(batch("early", vec![event("0-0")])).await.unwrap();
        assert!(again.repeated, "what is known stays known");
        restored.close().await.unwrap();
    }
}

/// Keeps what it is told.
fn told() -> (Progress, impl Fn() -> Vec<(u64, u64)>) {
    let told = Arc::new(Mutex::new(Vec::new()));
    let tell = told.clone();
    (Arc::new(move |done, of| tell.lock().unwrap().push((done, of))), move || {
        std::mem::take(&mut *told.lock().unwrap())
    })
}

#[tokio::test]
async fn a_backup_a_check_and_a_restore_tell_how_far_they_are() {
    let folder = Folder::new();
    let store = folder.store().await;
    for n in 0..40 {
        let events = (0..50).map(|m| event(format!("{n}-{m}")).json(format!("{:?}", "x".repeat(4_000)))).collect();
        store.append(batch("s", events)).await.unwrap();
    }
    store.wipe("s".parse().unwrap()).await.unwrap();
    let (progress, seen) = told();
    let (backup, restored) = (folder.path("backup.db"), folder.path("restored.db"));
    let ascends = |what: &str, seen: Vec<(u64, u64)>| {
        assert!(seen.iter().all(|(done, of)| done <= of && *of == seen[0].1), "{what}: {seen:?}");
        assert!(seen.is_sorted(), "{what}: {seen:?}");
        assert!(seen.iter().any(|(done, of)| (of / 4..of / 4 * 3).contains(done)), "{what}, half-way: {seen:?}");
        assert!(seen.last().is_some_and(|(done, of)| done == of), "{what}: {seen:?}");
    };
    store.verify(progress.clone()).await.unwrap();
    ascends("a check", seen());
    let bytes = store.backup(backup.clone(), progress.clone()).await.unwrap();
    ascends("a backup", seen());
    restore(&Env::real(), backup, restored, progress).await.unwrap();
    let restored = seen();
    assert_eq!(restored[0], (0, bytes));
    ascends("a restore", restored);
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_backup_and_a_restore_overwrite_nothing() {
    let folder = Folder::new();
    let store = folder.store().await;
    store.append(batch("s", vec![event(1)])).await.unwrap();
    let to = folder.path("backup.db");
    store.backup(to.clone(), Arc::new(|_, _| {})).await.unwrap();
    let again = store.backup(to.clone(), Arc::new(|_, _| {})).await;
    assert!(matches!(again, Err(StoreError::Engine { .. })), "{again:?}");
    assert!(restore(&Env::real(), to.clone(), folder.file(), quiet()).await.is_err(), "the store is open");
    store.close().await.unwrap();
    assert!(restore(&Env::real(), to, folder.file(), quiet()).await.is_err(), "the store is there");
    assert_eq!(folder.store().await.head().get(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_whose_caller_went_away_is_not_torn_by_another_of_its_name() {
    let folder = Folder::new();
    let store = folder.store().await;
    for n in 0..40 {
        let events = (0..50).map(|m| event(format!("{n}-{m}")).json(format!("{:?}", "x".repeat(4_000)))).collect();
        store.append(batch("s", events)).await.unwrap();
    }
    // So that the file holds them, and not its log: it is from the file's size that is told how far a backup is.
    store.wipe("s".parse().unwrap()).await.unwrap();
    // The first stands still when a part of it is written.
    let (begun, has_begun) = mpsc::channel();
    let (go_on, may_go_on) = mpsc::channel::<()>();
    let may_go_on = Mutex::new(may_go_on);
    let progress = Arc::new(move |done: u64, of: u64| {
        if done > 0 && done < of && begun.send(()).is_ok() {
            let _ = may_go_on.lock().unwrap().recv();
        }
    });
    let (of, to) = (store.clone(), folder.path("backup.db"));
    let first = tokio::spawn({
        let to = to.clone();
        async move { of.backup(to, progress).await }
    });
    tokio::task::block_in_place(|| has_begun.recv().unwrap());
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    let mut second = tokio::spawn({
        let (of, to) = (store.clone(), to.clone());
        async move { of.backup(to, quiet()).await }
    });
    // Far longer than it would take.
    let early = tokio::time::timeout(Duration::from_millis(300), &mut second).await;
    assert!(early.is_err(), "it waits for the first: {early:?}");
    assert!(folder.path(".backup.db.quorate-partial").exists() && !to.exists());
    drop((go_on, has_begun));
    let second = second.await.unwrap();
    assert!(matches!(second, Err(StoreError::Engine { .. })), "there is one: {second:?}");
    let restored = folder.path("restored.db");
    restore(&Env::real(), to, restored.clone(), quiet()).await.unwrap();
    let restored = open(&restored).await.unwrap();
    assert_eq!(restored.head().get(), 2_000);
    assert_sound(&restored).await;
}

#[tokio::test]
async fn a_copy_whose_path_is_no_text_is_refused_and_leaves_nothing() {
    let folder = Folder::new();
    let store = folder.store().await;
    let files = || {
        let mut files: Vec<_> = std::fs::read_dir(folder.path(".")).unwrap().map(|file| file.unwrap().path()).collect();
        files.sort_unstable();
        files
    };
    let (before, to) = (files(), folder.path(".").join(OsStr::from_bytes(b"b\xff.db")));
    for refused in [store.backup(to.clone(), quiet()).await, store.backup_keys(to).await] {
        let Err(StoreError::Engine { cause, .. }) = refused else { panic!("{refused:?}") };
        assert!(cause.to_string().contains("UTF-8"), "{cause}");
    }
    assert_eq!(files(), before);
}

#[tokio::test]
async fn a_restore_that_fails_says_why_also_where_it_cannot_tidy_up() {
    let folder = Folder::new();
    let (letter, target) = (folder.path("letter.txt"), folder.path("restored.db"));
    std::fs::write(&letter, "this is a letter, not a database\n".repeat(500)).unwrap();
    let in_the_way = folder.path(".restored.db.quorate-partial-shm");
    let progress = Arc::new(move |_, _| std::fs::create_dir_all(&in_the_way).unwrap());
    let cause = restore(&Env::real(), letter.clone(), target.clone(), progress).await.unwrap_err();
    assert!(matches!(&cause, OpenError::Corrupt { path, .. } if *path == letter), "{cause:?}");
    assert!(!target.exists());
}

#[tokio::test]
async fn writing_a_backup_touches_no_other_file() {
    let folder = Folder::new();
    let store = folder.store().await;
    store.append(batch("s", vec![event(1)])).await.unwrap();
    let (first, second) = (folder.path("bk.partial"), folder.path("bk"));
    let left = folder.path(".bk.quorate-partial");
    std::fs::write(&left, b"what a crash left").unwrap();
    store.backup(first.clone(), Arc::new(|_, _| {})).await.unwrap();
    let bytes = std::fs::read(&first).unwrap();
    store.append(batch("s", vec![event(2)])).await.unwrap();
    store.backup(second.clone(), Arc::new(|_, _| {})).await.unwrap();
    assert!(std::fs::read(&first).unwrap() == bytes, "the first backup is as it was");
    assert!(second.exists() && !left.exists());
    assert!(store.backup(left, Arc::new(|_, _| {})).await.is_err(), "the name of an unfinished file");
    for keys in ["keys.partial", "keys"] {
        store.backup_keys(folder.path(keys)).await.unwrap();
    }
    assert!(folder.path("keys.partial").exists() && folder.path("keys").exists());
}

#[tokio::test]
async fn a_restored_backup_of_a_backup_is_a_later_timeline_still() {
    let folder = Folder::new();
    let store = folder.store().await;
    let mut backup = folder.path("0.backup");
    store.backup(backup.clone(), Arc::new(|_, _| {})).await.unwrap();
    let mut epoch = store.timeline().epoch;
    for n in 1..4_u32 {
        let path = folder.path(&format!("{n}.db"));
        restore(&Env::real(), backup.clone(), path.clone(), quiet()).await.unwrap();
        let restored = open(&path).await.unwrap();
        assert!(restored.timeline().epoch > epoch);
        epoch = restored.timeline().epoch;
        assert_ne!(restored.token().timeline(), store.token().timeline());
        backup = folder.path(&format!("{n}.backup"));
        restored.backup(backup.clone(), Arc::new(|_, _| {})).await.unwrap();
        restored.close().await.unwrap();
    }
}

#[tokio::test]
async fn the_same_backup_restored_twice_gives_two_timelines() {
    let folder = Folder::new();
    let store = folder.store().await;
    store.append(batch("s", vec![event(1)])).await.unwrap();
    let backup = folder.path("backup");
    store.backup(backup.clone(), Arc::new(|_, _| {})).await.unwrap();
    let mut timelines = vec![store.timeline()];
    for n in 0..3 {
        let path = folder.path(&format!("{n}.db"));
        restore(&Env::real(), backup.clone(), path.clone(), quiet()).await.unwrap();
        let restored = open(&path).await.unwrap();
        assert!(!timelines.contains(&restored.timeline()), "{:?} again: {timelines:?}", restored.timeline());
        assert_eq!(restored.timeline().store, store.timeline().store);
        timelines.push(restored.timeline());
        restored.close().await.unwrap();
    }
}

#[tokio::test]
async fn forgotten_data_is_not_in_a_later_backup() {
    let folder = Folder::new();
    let store = folder.store().await;
    let secret = quorate_data::event::NewEvent { data: Some("the-secret-word".repeat(500).into()), ..event(1) };
    store.append(batch("s", vec![secret])).await.unwrap();
    let expected = quorate_data::store::ExpectedVersion::Any;
    store.retire("s".parse().unwrap(), Retire::Tombstone { expected }).await.unwrap();
    let to = folder.path("backup.db");
    store.backup(to.clone(), Arc::new(|_, _| {})).await.unwrap();
    let bytes = std::fs::read(to).unwrap();
    assert!(!bytes.windows(15).any(|window| window == b"the-secret-word"));
}

#[tokio::test]
async fn a_backup_of_which_a_bit_changed_is_refused_with_its_page() {
    let folder = Folder::new();
    let store = folder.store().await;
    for n in 0..40 {
        let large = quorate_data::event::NewEvent { data: Some(vec![b'x'; 20_000].into()), ..event(n) };
        store.append(batch("s", vec![large])).await.unwrap();
    }
    let (backup, target) = (folder.path("backup.db"), folder.path("restored.db"));
    store.backup(backup.clone(), quiet()).await.unwrap();
    let whole = std::fs::read(&backup).unwrap();
    for at in [4_096 * 20 + 17, whole.len() - 100] {
        let mut rotten = whole.clone();
        rotten[at] ^= 4;
        std::fs::write(&backup, &rotten).unwrap();
        let env = quorate_runtime::Env::real();
        let cause =
            quorate_data::store::sqlite::restore(&env, backup.clone(), target.clone(), quiet()).await.unwrap_err();
        let page = format!("page {} of the file", at / 4_096 + 1);
        assert!(
            matches!(&cause, OpenError::Corrupt { path, what } if *path == backup && what.contains(&page)),
            "{cause:?}"
        );
        assert!(!target.exists());
    }
}
