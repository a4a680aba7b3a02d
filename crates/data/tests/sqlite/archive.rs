//! Archiving and forgetting, killed at any moment: what was acknowledged is in the store or in an archive, never in neither.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use quorate_data::{
    event::{ArchiveId, NewEvent, Position, Recorded, Stub, Version},
    store::{
        AppendError, ArchiveError, ArchiveOrder, ExpectedVersion, Query, ReadLog, Retire, Store, archive::ArchiveReader,
    },
};

use crate::{
    child::{ROUND, STORE, child_of, said, say},
    shared::{self, Folder, batch, event, open, pause},
};

/// An event large enough that forgetting a few takes several slices.
fn large(n: u64) -> NewEvent {
    NewEvent { data: Some(vec![b'd'; 30_000].into()), ..event(n) }
}

async fn version(store: &Store) -> u64 {
    store.stream_head(&"s".parse().unwrap()).await.unwrap().version.get()
}

async fn append(store: &Store, count: u64) -> u64 {
    let next = version(store).await + 1;
    let events = (next..next + count).map(large).collect();
    store.append(batch("s", events)).await.unwrap().version().get()
}

async fn log(store: &Store) -> Vec<Recorded> {
    let mut events: Vec<Recorded> = Vec::new();
    loop {
        let after = events.last().map_or(Position::ZERO, Recorded::position);
        let page = store.read_log(ReadLog { query: Query::EVERYTHING, after, limit: 1_000 }).await.unwrap();
        if page.events.is_empty() {
            return events;
        }
        events.extend(page.events);
    }
}

async fn assert_sound(store: &Store) {
    let verified = store.verify(Arc::new(|_, _| {})).await.unwrap();
    assert!(verified.is_sound(), "{:?}", verified.findings);
}

fn folder_of(store: &Path) -> PathBuf {
    store.parent().unwrap().join("archives")
}

fn order(store: &Path, before: u64) -> ArchiveOrder {
    let name = format!("before-{before}");
    let to = folder_of(store).join(&name);
    ArchiveOrder { stream: "s".parse().unwrap(), before: Some(Version::new(before)), to, name }
}

/// The events of an archive, all of them sound.
fn read(path: &Path) -> Vec<Recorded> {
    let mut archive = ArchiveReader::open(Box::new(std::fs::File::open(path).unwrap())).unwrap();
    std::iter::from_fn(|| archive.next_event().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn archiving_killed_at_any_moment_leaves_each_event_somewhere() {
    const ROUNDS: u64 = 16;
    if let Some(path) = std::env::var_os(STORE) {
        let path = PathBuf::from(path);
        let store = open(&path).await.unwrap();
        loop {
            let last = append(&store, 20).await;
            say(&format!("appended {last}"));
            store.archive(order(&path, last - 5)).await.unwrap();
            say(&format!("archived {}", last - 6));
        }
    }
    let folder = Folder::new();
    std::fs::create_dir(folder_of(&folder.file())).unwrap();
    let mut rng = quorate_runtime::random::Random::from_os().stream("moments");
    let (mut appended, mut archived, mut adopted) = (0, 0, 0);
    for round in 0..ROUNDS {
        let mut child =
            child_of("archive::archiving_killed_at_any_moment_leaves_each_event_somewhere", &folder.file(), round);
        let mut lines = said(&mut child);
        assert!(lines.next().is_some(), "it begins");
        pause(rng.below(400));
        child.kill().unwrap();
        child.wait().unwrap();
        for line in lines {
            let Some((what, version)) = line.split_once(' ') else { continue };
            let Ok(version) = version.parse::<u64>() else { continue };
            let known = if what == "archived" { &mut archived } else { &mut appended };
            *known = version.max(*known);
        }
        let store = open(&folder.file()).await.unwrap();
        adopted += finish_what_was_begun(&store, &folder.file()).await;
        check(&store, &folder.file(), appended, archived).await;
        store.close().await.unwrap();
    }
    println!("{appended} events appended, {archived} archived, {adopted} archives finished after a kill");
    assert!(archived > 100, "only {archived} events were archived: this proves little");
}

/// Repeats every order whose file is there and that the store does not know of; returns how many there were.
async fn finish_what_was_begun(store: &Store, path: &Path) -> u64 {
    let known = store.archives("s".parse().unwrap()).await.unwrap();
    let mut adopted = 0;
    for file in std::fs::read_dir(folder_of(path)).unwrap() {
        let name = file.unwrap().file_name().into_string().unwrap();
        let Some(before) = name.strip_prefix("before-").and_then(|before| before.parse().ok()) else { continue };
        if known.iter().all(|archive| archive.name != name) {
            let archive = store.archive(order(path, before)).await.unwrap();
            assert_eq!(archive.last.get(), before - 1);
            adopted += 1;
        }
    }
    adopted
}

async fn check(store: &Store, path: &Path, appended: u64, archived: u64) {
    let archives = store.archives("s".parse().unwrap()).await.unwrap();
    let files: BTreeMap<ArchiveId, Vec<Recorded>> =
        archives.iter().map(|archive| (archive.id, read(&folder_of(path).join(&archive.name)))).collect();
    assert!(archives.last().map_or(0, |archive| archive.last.get()) >= archived, "an acknowledged archive is unknown");
    let log = log(store).await;
    assert!(log.len() as u64 >= appended, "an acknowledged event is gone");
    for (event, version) in log.iter().zip(1..) {
        assert_eq!((event.version(), event.id()), (Version::new(version), version.to_string().as_str()));
        match event.stub() {
            None => assert_eq!(event.data().map(<[u8]>::len), Some(30_000)),
            Some(Stub::Archived(id)) => {
                let found = files[&id].iter().find(|archived| archived.version() == event.version());
                let found = found.unwrap_or_else(|| panic!("version {version} is in neither"));
                assert_eq!(found.hash(), event.hash());
                assert_eq!(found.data().map(<[u8]>::len), Some(30_000));
            }
            Some(other) => panic!("version {version} is {other:?}"),
        }
    }
    if let Some(last) = archives.last() {
        let again = store.archive(order(path, last.last.get() + 1)).await.unwrap();
        assert_eq!(again, *last, "repeated, it answers as the first time");
    }
    store.settle(None).await.unwrap();
    assert_sound(store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forgetting_killed_at_any_moment_is_whole_and_goes_on() {
    const ROUNDS: u64 = 16;
    if let Some(path) = std::env::var_os(STORE) {
        let round: u64 = std::env::var(ROUND).unwrap().parse().unwrap();
        let store = open(&PathBuf::from(path)).await.unwrap();
        say("open");
        loop {
            let last = append(&store, 100).await;
            let before = last - round;
            let done = store.transact(move |tx| {
                Box::pin(async move {
                    tx.retire(&"s".parse().unwrap(), Retire::Truncate { before: Version::new(before) }).await?;
                    let row = [i64::try_from(before).unwrap().into()];
                    tx.execute("UPDATE mark SET before = $1", &row).await.unwrap();
                    Ok::<_, AppendError>(())
                })
            });
            done.await.unwrap();
            say(&format!("truncated {before}"));
        }
    }
    let folder = Folder::new();
    let store = folder.store().await;
    let table = store.transact(|tx| {
        Box::pin(async move {
            tx.execute("CREATE TABLE mark (before INTEGER)", &[]).await?;
            tx.execute("INSERT INTO mark (before) VALUES (1)", &[]).await
        })
    });
    table.await.unwrap();
    store.close().await.unwrap();
    let mut rng = quorate_runtime::random::Random::from_os().stream("moments");
    let (mut truncated, mut interrupted) = (0, 0);
    for round in 0..ROUNDS {
        let mut child =
            child_of("archive::forgetting_killed_at_any_moment_is_whole_and_goes_on", &folder.file(), round);
        let mut lines = said(&mut child);
        assert_eq!(lines.next().as_deref(), Some("open"));
        pause(rng.below(300));
        child.kill().unwrap();
        child.wait().unwrap();
        let said: Vec<u64> =
            lines.filter_map(|line| line.strip_prefix("truncated ").and_then(|n| n.parse().ok())).collect();
        truncated = said.into_iter().fold(truncated, u64::max);
        let pending = shared::raw(&folder.file());
        let pending: i64 = pending.query_row("SELECT count(*) FROM quorate_retiring", [], |row| row.get(0)).unwrap();
        interrupted += pending;
        let store = open(&folder.file()).await.unwrap();
        // At once: nobody sees half, although the data of some still lies in the file.
        look(&store, truncated).await;
        store.settle(None).await.unwrap();
        look(&store, truncated).await;
        assert_sound(&store).await;
        store.close().await.unwrap();
    }
    println!("truncated up to {truncated}; {interrupted} times a kill interrupted the wiping");
    assert!(truncated > 100, "only up to {truncated}: this proves little");
}

async fn look(store: &Store, truncated: u64) {
    let first = store.stream_head(&"s".parse().unwrap()).await.unwrap().first.get();
    assert!(first >= truncated, "an acknowledged truncate is gone");
    let mark = store.query("SELECT before FROM mark", vec![]).await.unwrap();
    assert_eq!(mark[0].at(0).as_i64(), Some(first as i64), "the row and the truncate commit together");
    for event in log(store).await {
        let gone = event.version().get() < first;
        assert_eq!(event.stub(), gone.then_some(Stub::Truncated), "version {}", event.version());
        assert_eq!(event.data().is_none(), gone);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_between_the_file_and_the_stubs_is_finished_by_the_same_order() {
    let folder = Folder::new();
    std::fs::create_dir(folder_of(&folder.file())).unwrap();
    let store = folder.store().await;
    append(&store, 30).await;
    store.close().await.unwrap();
    let before = std::fs::read(folder.file()).unwrap();
    let store = folder.store().await;
    let archive = store.archive(order(&folder.file(), 11)).await.unwrap();
    store.close().await.unwrap();
    // As a crash would leave it: the file is there, and the store knows nothing of it.
    std::fs::write(folder.file(), before).unwrap();
    let store = folder.store().await;
    assert!(store.archives("s".parse().unwrap()).await.unwrap().is_empty());
    let again = store.archive(order(&folder.file(), 11)).await.unwrap();
    assert_eq!((again.first, again.last, again.hash), (archive.first, archive.last, archive.hash));
    check(&store, &folder.file(), 30, 10).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writing_an_archive_touches_no_other_file() {
    let folder = Folder::new();
    let archives = folder_of(&folder.file());
    std::fs::create_dir(&archives).unwrap();
    let store = folder.store().await;
    append(&store, 30).await;
    let named = |name: &str, before| ArchiveOrder {
        to: archives.join(name),
        name: name.to_owned(),
        ..order(&folder.file(), before)
    };
    // What a crash left of an attempt.
    std::fs::write(archives.join(".foo.quorate-partial"), b"half").unwrap();
    store.archive(named("foo.partial", 11)).await.unwrap();
    store.archive(named("foo", 21)).await.unwrap();
    let numbers = |name: &str| read(&archives.join(name)).iter().map(|event| event.version().get()).collect::<Vec<_>>();
    assert_eq!(numbers("foo.partial"), (1..=10).collect::<Vec<_>>());
    assert_eq!(numbers("foo"), (11..=20).collect::<Vec<_>>());
    let refused = store.archive(named(".foo.quorate-partial", 26)).await;
    assert!(matches!(refused, Err(ArchiveError::Io(_))), "the name of an unfinished file: {refused:?}");
    // A write that fails: something that cannot be replaced has the unfinished file's name.
    std::fs::create_dir(archives.join(".bar.quorate-partial")).unwrap();
    std::fs::write(archives.join("bar.partial"), b"somebody's").unwrap();
    assert!(store.archive(named("bar", 26)).await.is_err());
    assert_eq!(std::fs::read(archives.join("bar.partial")).unwrap(), b"somebody's");
    let mut left: Vec<_> = std::fs::read_dir(&archives).unwrap().map(|file| file.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, [".bar.quorate-partial", "bar.partial", "foo", "foo.partial"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_that_died_is_finished_where_it_was_begun_although_the_stream_has_grown() {
    let everything = |store: &Path| ArchiveOrder { before: None, ..order(store, 31) };
    let too_far = |store: &Path| ArchiveOrder { before: Some(Version::new(99)), ..order(store, 31) };
    for ordered in [everything as fn(&Path) -> ArchiveOrder, too_far] {
        let folder = Folder::new();
        std::fs::create_dir(folder_of(&folder.file())).unwrap();
        let store = folder.store().await;
        append(&store, 30).await;
        store.close().await.unwrap();
        let before = std::fs::read(folder.file()).unwrap();
        let store = folder.store().await;
        let archive = store.archive(ordered(&folder.file())).await.unwrap();
        store.close().await.unwrap();
        // As a crash would leave it: the file is there, and the store knows nothing of it.
        std::fs::write(folder.file(), before).unwrap();
        let store = folder.store().await;
        append(&store, 10).await;
        let other = ArchiveOrder { before: Some(Version::new(35)), ..ordered(&folder.file()) };
        let refused = store.archive(other).await;
        assert!(matches!(refused, Err(ArchiveError::Exists { .. })), "another order of its name: {refused:?}");
        for _ in 0..2 {
            let finished = store.archive(ordered(&folder.file())).await.unwrap();
            assert_eq!((finished.first, finished.last, finished.hash), (archive.first, archive.last, archive.hash));
        }
        assert_eq!(archive.last, Version::new(30), "it ends where it was begun");
        check(&store, &folder.file(), 40, 30).await;
        store.close().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_truncate_of_many_events_leaves_other_writers_their_turn() {
    let folder = Folder::new();
    let store = folder.store().await;
    for _ in 0..10 {
        append(&store, 100).await;
    }
    let truncate = Retire::Truncate { before: Version::new(1_001) };
    let retiring = tokio::spawn({
        let store = store.clone();
        async move { store.retire("s".parse().unwrap(), truncate).await.unwrap() }
    });
    // 30 MB are rewritten, a megabyte at a time; whoever writes meanwhile waits for one of them at most.
    let mut between = 0;
    while !retiring.is_finished() {
        store.append(batch("t", vec![event(format!("t-{between}"))])).await.unwrap();
        between += 1;
    }
    assert_eq!(retiring.await.unwrap().events, 1_000);
    assert!(between >= 10, "only {between} appends came between the slices");
    assert_eq!(store.stream_head(&"s".parse().unwrap()).await.unwrap().first, Version::new(1_001));
    assert_sound(&store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verifying_names_what_was_forgotten_and_lies_there_whole() {
    let folder = Folder::new();
    let store = folder.store().await;
    for _ in 0..4 {
        append(&store, 100).await;
    }
    let tombstone = Retire::Tombstone { expected: ExpectedVersion::Any };
    let done = store
        .transact(move |tx| Box::pin(async move { tx.retire(&"s".parse().unwrap(), tombstone).await.map(|_| ()) }));
    done.await.unwrap();
    let copy = folder.path("copy.db");
    shared::photograph(&folder.file(), &copy);
    let taken = std::fs::read(&copy).unwrap();
    let log = std::fs::read(shared::with_suffix(&copy, "-wal")).unwrap();
    let changed = |change: &str| {
        std::fs::write(&copy, &taken).unwrap();
        std::fs::write(shared::with_suffix(&copy, "-wal"), &log).unwrap();
        assert_eq!(shared::raw(&copy).execute(change, []).unwrap(), 1, "it was taken in the middle");
    };
    // A range that says something else than was written keeps the store shut.
    for column in ["id", "next", "last", "stub", "archive", "sum"] {
        changed(&format!("UPDATE quorate_retiring SET {column} = {column} + 1"));
        let refused = open(&copy).await.map(|_| ()).unwrap_err().to_string();
        assert!(refused.contains("quorate_retiring"), "{column}: {refused}");
    }
    changed("DELETE FROM quorate_retiring");
    let damaged = open(&copy).await.unwrap();
    let verified = damaged.verify(Arc::new(|_, _| {})).await.unwrap();
    let named = |finding: &quorate_data::store::Finding| finding.place.starts_with("quorate_stream, row");
    assert!(verified.findings.iter().any(named), "{:?}", verified.findings);
}
