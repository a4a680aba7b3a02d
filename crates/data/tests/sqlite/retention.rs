//! Forgotten data is gone from the files, not only from answers.

use std::{path::Path, time::Duration};

use quorate_data::{
    event::{NewEvent, Position, Version},
    store::{
        AppendError, ExpectedVersion, Limits, Query, ReadLog, ReadStream, Retire, SqlError, Store, StoreError,
        conformance::Place as _,
    },
};

use crate::shared::{self, Folder, batch, event, with_suffix};

/// Data that would be recognised anywhere, small or spread over pages.
fn secret(n: u64, length: usize) -> NewEvent {
    let words = format!("the-secret-{n}-").repeat(length / 12 + 1);
    NewEvent { data: Some(words.into()), ..event(format!("secret-{n}")) }
}

/// Whether the secret stands in any of the store's files.
fn found(path: &Path, n: u64) -> bool {
    let word = format!("the-secret-{n}-");
    [path.to_owned(), with_suffix(path, "-wal")]
        .iter()
        .filter_map(|file| std::fs::read(file).ok())
        .any(|bytes| bytes.windows(word.len()).any(|window| window == word.as_bytes()))
}

async fn fill(store: &Store) {
    for n in 0..40 {
        store.append(batch("s", vec![secret(n, [20, 3_000, 60_000][n as usize % 3])])).await.unwrap();
        store.append(batch("t", vec![event(n)])).await.unwrap();
    }
}

#[tokio::test]
async fn truncated_data_is_gone_from_the_files_each_time() {
    let folder = Folder::new();
    let store = folder.store().await;
    fill(&store).await;
    assert!(found(&folder.file(), 5) && found(&folder.file(), 39), "the secrets are there at first");
    for before in [11, 21, 31] {
        let truncate = Retire::Truncate { before: Version::new(before) };
        store.retire("s".parse().unwrap(), truncate).await.unwrap();
        for n in 0..40 {
            assert_eq!(found(&folder.file(), n), n + 1 >= before, "secret {n} after truncating before {before}");
        }
    }
    let tombstone = Retire::Tombstone { expected: ExpectedVersion::Any };
    store.retire("s".parse().unwrap(), tombstone).await.unwrap();
    assert!((0..40).all(|n| !found(&folder.file(), n)));
    store.close().await.unwrap();
    assert!((0..40).all(|n| !found(&folder.file(), n)));
}

#[tokio::test]
async fn a_reader_in_the_way_delays_forgetting_and_does_not_prevent_it() {
    let folder = Folder::new();
    let store = folder.store().await;
    fill(&store).await;
    let reader = shared::raw(&folder.file());
    reader.execute_batch("BEGIN; SELECT count(*) FROM sqlite_schema;").unwrap();
    let begun = std::time::Instant::now();
    let tombstone = Retire::Tombstone { expected: ExpectedVersion::Any };
    store.retire("s".parse().unwrap(), tombstone).await.unwrap();
    store.append(batch("t", vec![event("beside")])).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(1), "nobody waits for the reader");
    reader.execute_batch("COMMIT").unwrap();
    assert!(all_are_gone(&folder.file()).await, "the secrets are still there ten seconds after the reader left");
}

/// Forgets stream `s` while somebody reads, so that its pages stay in the write-ahead log for now.
async fn forget_behind_a_reader(folder: &Folder, store: &Store) -> rusqlite::Connection {
    let reader = shared::raw(&folder.file());
    reader.execute_batch("BEGIN; SELECT count(*) FROM sqlite_schema;").unwrap();
    let tombstone = Retire::Tombstone { expected: ExpectedVersion::Any };
    store.retire("s".parse().unwrap(), tombstone).await.unwrap();
    assert!((0..40).any(|n| found(&folder.file(), n)), "the reader stands in the way");
    reader
}

/// Waits until none of the secrets stands in the store's files.
async fn all_are_gone(path: &Path) -> bool {
    for _ in 0..100 {
        if (0..40).all(|n| !found(path, n)) {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    false
}

#[tokio::test]
async fn what_a_process_had_forgotten_when_it_died_is_wiped_by_the_next() {
    let folder = Folder::new();
    let store = folder.store().await;
    fill(&store).await;
    let reader = forget_behind_a_reader(&folder, &store).await;
    folder.crash(store).await;
    drop(reader);
    assert!((0..40).any(|n| found(&folder.file(), n)), "it died before it could wipe them");
    let next = folder.store().await;
    assert!(all_are_gone(&folder.file()).await, "although nothing is written or forgotten any more");
    next.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_was_too_busy_to_wipe_does_it_later() {
    let folder = Folder::new();
    let limits = Limits { waiting_writes: 1, unit_time: Duration::from_secs(60), ..Limits::default() };
    let store = folder.open(limits).await;
    fill(&store).await;
    let reader = forget_behind_a_reader(&folder, &store).await;
    // While this unit holds the writer, one append fills the queue: the flush of an idle store is refused.
    let (release, released) = std::sync::mpsc::channel::<()>();
    let released = std::sync::Mutex::new(released);
    let (begun, has_begun) = tokio::sync::oneshot::channel::<()>();
    let begun = std::sync::Mutex::new(Some(begun));
    let (holding, waiting) = (store.clone(), store.clone());
    let holding = tokio::spawn(async move {
        let hold = holding.transact(move |_| {
            let _ = begun.lock().unwrap().take().map(|begun| begun.send(()));
            let _ = released.lock().unwrap().recv();
            Box::pin(async { Ok::<_, SqlError>(()) })
        });
        hold.await
    });
    has_begun.await.unwrap();
    let waiting = tokio::spawn(async move {
        loop {
            match waiting.append(batch("t", vec![event("waiting")])).await {
                // The place may be a flush's that was asked for before the unit began.
                Err(AppendError::Store(StoreError::Overloaded { .. })) => tokio::task::yield_now().await,
                other => return other,
            }
        }
    });
    tokio::time::sleep(Duration::from_millis(3_500)).await;
    assert_eq!(store.statistics().waiting, 1);
    release.send(()).unwrap();
    holding.await.unwrap().unwrap();
    waiting.await.unwrap().unwrap();
    reader.execute_batch("COMMIT").unwrap();
    assert!(all_are_gone(&folder.file()).await);
    store.close().await.unwrap();
}

#[tokio::test]
async fn readers_that_cached_the_data_do_not_serve_it_again() {
    let folder = Folder::new();
    let store = folder.store().await;
    fill(&store).await;
    store.close().await.unwrap();
    let store = folder.store().await;
    let read = || ReadStream::forward("s".parse().unwrap(), 100);
    let everything = || ReadLog { query: Query::EVERYTHING, after: Position::ZERO, limit: 1_000 };
    let reading = async {
        while store.read_stream(read()).await.unwrap().events.len() > 10 {
            store.read_log(everything()).await.unwrap();
        }
    };
    let retiring = async {
        let truncate = Retire::Truncate { before: Version::new(31) };
        store.retire("s".parse().unwrap(), truncate).await.unwrap();
    };
    tokio::join!(reading, retiring);
    let log = store.read_log(everything()).await.unwrap();
    assert_eq!(log.events.iter().filter(|event| event.stub().is_some()).count(), 30);
    assert!(log.events.iter().all(|event| event.stub().is_some() == event.data().is_none()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_read_that_overlaps_forgetting_leaves_nothing_to_later_ones() {
    use quorate_data::{event::Tags, store::QueryItem};
    const STREAMS: u64 = 150;
    let folder = Folder::new();
    let store = folder.store().await;
    for n in 0..STREAMS {
        let tag = Tags::new([format!("of:{n}")]).unwrap();
        let events = (0..30).map(|m| secret(m, 2_000).tagged(tag.clone())).collect();
        store.append(batch(&format!("s-{n}"), events)).await.unwrap();
    }
    store.close().await.unwrap();
    let store = folder.store().await;
    for n in 0..STREAMS {
        let tagged =
            || ReadLog { query: Query::of([QueryItem::tags([format!("of:{n}")])]), after: Position::ZERO, limit: 100 };
        let readers: Vec<_> = (0..4)
            .map(|_| {
                let (store, read) = (store.clone(), tagged());
                tokio::spawn(async move { store.read_log(read).await.unwrap() })
            })
            .collect();
        if n % 3 > 0 {
            tokio::task::yield_now().await;
        }
        let tombstone = Retire::Tombstone { expected: ExpectedVersion::Any };
        store.retire(format!("s-{n}").parse().unwrap(), tombstone).await.unwrap();
        for reader in readers {
            reader.await.unwrap();
        }
        let after = store.read_log(tagged()).await.unwrap().events;
        assert!(after.iter().all(|event| event.data().is_none()), "stream {n} was forgotten and is served");
        assert_eq!(after.len(), 30);
    }
}

/// Reads the whole stream forward, page by page, and says what is wrong with what it got.
async fn hole(store: &Store, limit: usize) -> Option<String> {
    let mut next = Version::new(1);
    loop {
        let page = store.read_stream(ReadStream::forward("s".parse().unwrap(), limit).from(next)).await.unwrap();
        let expected = next.max(page.head.first);
        let versions: Vec<u64> = page.events.iter().map(|event| event.version().get()).collect();
        let whole: Vec<u64> = (expected.get()..).take(versions.len()).collect();
        let ends_at = page.next.map_or(page.head.version.get() + 1, Version::get);
        if versions != whole || expected.get() + versions.len() as u64 != ends_at.max(expected.get()) {
            return Some(format!("from {next}: {versions:?}, next {:?}, head {:?}", page.next, page.head));
        }
        next = page.next?;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_read_while_it_is_truncated_has_no_hole() {
    let folder = Folder::new();
    for round in 0..6_u64 {
        let path = folder.path(&format!("{round}.db"));
        let store = shared::open(&path).await.unwrap();
        for n in 0..10 {
            store.append(batch("s", (0..30).map(|k| event(n * 30 + k)).collect())).await.unwrap();
        }
        store.close().await.unwrap();
        // Everything is in the index now; what follows stays in the tail.
        let store = shared::open(&path).await.unwrap();
        store.append(batch("s", (300..310).map(event).collect())).await.unwrap();
        let readers: Vec<_> = (1..4)
            .map(|limit| {
                let store = store.clone();
                tokio::spawn(async move {
                    for _ in 0..15 {
                        if let Some(hole) = hole(&store, limit * 7).await {
                            return Some(hole);
                        }
                    }
                    None
                })
            })
            .collect();
        for before in (12..290).step_by(9) {
            let truncate = Retire::Truncate { before: Version::new(before) };
            store.retire("s".parse().unwrap(), truncate).await.unwrap();
            store.append(batch("s", vec![event(1_000 + before)])).await.unwrap();
        }
        for reader in readers {
            assert_eq!(reader.await.unwrap(), None);
        }
        store.close().await.unwrap();
    }
}

/// Streams `a` and `z`, of which the first event of `a` lies in a block that has rotted.
async fn with_a_rotten_block(folder: &Folder) -> Store {
    let store = folder.store().await;
    for n in 0..3 {
        store.append(batch("a", vec![secret(n, 20)])).await.unwrap();
        store.append(batch("z", vec![secret(n + 10, 20)])).await.unwrap();
    }
    store.close().await.unwrap();
    let rot = "UPDATE quorate_block SET body = zeroblob(length(body)) WHERE first = 1";
    assert_eq!(shared::raw(&folder.file()).execute(rot, []).unwrap(), 1);
    folder.store().await
}

fn not_wiped(refused: &StoreError) -> bool {
    let StoreError::NotWiped { stream, cause } = refused else { return false };
    &**stream == "a" && cause.to_string().contains("quorate_block")
}

#[tokio::test]
async fn one_damaged_block_does_not_keep_other_streams_from_being_wiped() {
    let folder = Folder::new();
    let store = with_a_rotten_block(&folder).await;
    let tombstone = || Retire::Tombstone { expected: ExpectedVersion::Any };
    let refused = store.retire("a".parse().unwrap(), tombstone()).await;
    assert!(matches!(&refused, Err(AppendError::Store(cause)) if not_wiped(cause)), "{refused:?}");
    assert_eq!(store.stream_head(&"a".parse().unwrap()).await.unwrap().first, Version::new(4), "they are forgotten");
    store.retire("z".parse().unwrap(), tombstone()).await.unwrap();
    assert!((10..13).all(|n| !found(&folder.file(), n)), "the other stream's data is gone");
    let statistics = store.statistics();
    assert_eq!((statistics.forgetting, statistics.not_wiped), (1, 1));
    store.append(batch("t", vec![event(1)])).await.unwrap();
    assert!(not_wiped(&store.settle(None).await.unwrap_err()), "whoever asks for all of them is told");
    store.settle(Some("z".parse().unwrap())).await.unwrap();
    store.close().await.unwrap();

    let store = folder.store().await;
    store.append(batch("y", vec![secret(20, 20)])).await.unwrap();
    store.retire("y".parse().unwrap(), tombstone()).await.unwrap();
    assert!(not_wiped(&store.settle(Some("a".parse().unwrap())).await.unwrap_err()), "it is tried again, and told");
    store.close().await.unwrap();
}

#[tokio::test]
async fn who_forgets_while_the_store_closes_is_told_that_it_is_done_and_not_wiped() {
    let folder = Folder::new();
    let store = folder.store().await;
    store.append(batch("a", vec![event(1)])).await.unwrap();
    let tombstone = Retire::Tombstone { expected: ExpectedVersion::Any };
    let (refused, closed) = tokio::join!(store.retire("a".parse().unwrap(), tombstone), store.close());
    closed.unwrap();
    let Err(AppendError::Store(StoreError::NotWiped { cause, .. })) = &refused else { panic!("{refused:?}") };
    assert!(matches!(**cause, StoreError::Closed), "{cause:?}");
    let store = folder.store().await;
    assert!(store.stream_head(&"a".parse().unwrap()).await.unwrap().tombstoned);
}

#[tokio::test]
async fn a_scavenge_goes_on_with_other_streams_and_then_tells_of_the_damage() {
    let folder = Folder::new();
    let store = with_a_rotten_block(&folder).await;
    let rules = quorate_data::store::Rules { max_count: Some(1), max_age: None };
    for stream in ["a", "z"] {
        let metadata = quorate_data::store::StreamMetadata { rules, ..Default::default() };
        store.set_metadata(stream.parse().unwrap(), ExpectedVersion::Any, metadata).await.unwrap();
    }
    let refused = store.scavenge().await.unwrap_err();
    assert!(not_wiped(&refused), "{refused:?}");
    assert_eq!([10, 11, 12].map(|n| found(&folder.file(), n)), [false, false, true]);
    assert_eq!(store.scavenge().await.unwrap(), Default::default(), "what is forgotten is forgotten");
}

#[tokio::test]
async fn nothing_more_is_forgotten_than_the_limit_allows_until_some_is_wiped() {
    let folder = Folder::new();
    let store = folder.open(Limits { forgetting: 2, ..Limits::default() }).await;
    for stream in ["a", "b", "c"] {
        store.append(batch(stream, vec![event(1), event(2)])).await.unwrap();
    }
    let forget = async |streams: &'static [&'static str]| {
        let done = store.transact(move |tx| {
            Box::pin(async move {
                for stream in streams {
                    let truncate = Retire::Truncate { before: Version::new(2) };
                    tx.retire(&stream.parse().unwrap(), truncate).await?;
                }
                Ok::<_, AppendError>(())
            })
        });
        done.await
    };
    let refused = forget(&["c", "b", "a"]).await.unwrap_err();
    let expected =
        quorate_data::store::TransactError::Aborted(AppendError::Store(StoreError::Forgetting { waiting: 2 }));
    assert_eq!(refused.to_string(), expected.to_string());
    assert_eq!(store.stream_head(&"c".parse().unwrap()).await.unwrap().first, Version::new(1), "nothing was forgotten");
    forget(&["c", "b"]).await.unwrap();
    store.settle(None).await.unwrap();
    forget(&["a"]).await.unwrap();
    store.settle(None).await.unwrap();
    assert_eq!(store.statistics().forgetting, 0);
}

#[tokio::test]
async fn what_damage_keeps_in_the_file_leaves_others_their_place_and_has_a_limit_of_its_own() {
    let folder = Folder::new();
    let store = folder.store().await;
    for stream in ["a", "b", "c", "d"] {
        for n in 0..3 {
            store.append(batch(stream, vec![event(format!("{stream}-{n}"))])).await.unwrap();
        }
    }
    store.close().await.unwrap();
    // The first blocks of `a` and of `b`.
    let bodies = |connection: &rusqlite::Connection| {
        let mut select = connection.prepare("SELECT first, body FROM quorate_block WHERE first IN (1, 4)").unwrap();
        let rows = select.query_map([], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, Vec<u8>>(1)?))).unwrap();
        rows.map(Result::unwrap).collect::<Vec<_>>()
    };
    let good = bodies(&shared::raw(&folder.file()));
    let rot = "UPDATE quorate_block SET body = zeroblob(length(body)) WHERE first IN (1, 4)";
    assert_eq!(shared::raw(&folder.file()).execute(rot, []).unwrap(), 2);
    let store = folder.open(Limits { forgetting: 2, ..Limits::default() }).await;
    let forget = async |stream: &str, before: u64| {
        store.retire(stream.parse().unwrap(), Retire::Truncate { before: Version::new(before) }).await
    };
    let kept = |refused| matches!(refused, Err(AppendError::Store(StoreError::NotWiped { .. })));
    assert!(kept(forget("a", 2).await));
    let both = store.transact(|tx| {
        Box::pin(async move {
            for stream in ["c", "d"] {
                tx.retire(&stream.parse().unwrap(), Retire::Truncate { before: Version::new(2) }).await?;
            }
            Ok::<_, AppendError>(())
        })
    });
    both.await.unwrap();
    store.settle(Some("c".parse().unwrap())).await.unwrap();
    store.settle(Some("d".parse().unwrap())).await.unwrap();
    assert!(kept(forget("b", 2).await));
    assert_eq!((store.statistics().forgetting, store.statistics().not_wiped), (2, 2));
    let refused = forget("c", 3).await;
    let Err(AppendError::Store(cause @ StoreError::Stuck { .. })) = &refused else { panic!("{refused:?}") };
    assert_eq!(cause.retry(), quorate_data::store::Retry::Never, "waiting does not help");
    assert_eq!(store.stream_head(&"c".parse().unwrap()).await.unwrap().first, Version::new(2), "nothing was forgotten");
    assert!(store.check_writes().is_ok());
    store.append(batch("c", vec![event("appends go on")])).await.unwrap();
    store.close().await.unwrap();

    let connection = shared::raw(&folder.file());
    for (first, body) in good {
        connection.execute("UPDATE quorate_block SET body = ?2 WHERE first = ?1", (first, body)).unwrap();
    }
    drop(connection);
    let store = folder.open(Limits { forgetting: 2, ..Limits::default() }).await;
    store.settle(None).await.unwrap();
    store.retire("c".parse().unwrap(), Retire::Truncate { before: Version::new(3) }).await.unwrap();
}
