//! However few streams a pass remembers, the same is found.

use std::{path::PathBuf, sync::Arc};

use quorate_runtime::Env;
use rusqlite::Connection;

use super::{Verified, run_with};
use crate::{
    event::{ChainHash, NewEvent, Version},
    store::{
        AppendBatch, ExpectedVersion, Retire, Rules, StreamHead, StreamMetadata,
        chains::MOST,
        sqlite::{
            Config, connection, index,
            open::{beside, open},
        },
    },
};

const STREAMS: usize = 300;

/// A store of many streams with a few events each, all mixed: some forgot events, some have metadata, and the last events are not
/// indexed.
async fn store(folder: &tempfile::TempDir) -> PathBuf {
    let (path, copy) = (folder.path().join("log.db"), folder.path().join("copy.db"));
    let name = |n: usize| format!("stream-{n}").parse().unwrap();
    for life in 0..2 {
        let store = open(&Env::real(), Config::at(&path)).await.unwrap();
        for round in 0..3 {
            // In the second life, streams that are new to the index as well.
            for n in life * 20..STREAMS + life * 20 {
                let event = NewEvent::new(format!("{life}-{round}"), "/test", "t").json(&b"{}"[..]);
                store.append(AppendBatch::to(name(n), ExpectedVersion::Any, vec![event])).await.unwrap();
            }
        }
        for n in (0..STREAMS).step_by(7) {
            store.retire(name(n), Retire::Truncate { before: Version::new(3) }).await.unwrap();
            let rules = Rules { max_count: Some(50), max_age: None };
            let metadata = StreamMetadata { rules, ..StreamMetadata::default() };
            store.set_metadata(name(n + 1), ExpectedVersion::Any, metadata).await.unwrap();
        }
        if life == 1 {
            // As a crash would leave it, so that not everything is indexed.
            let pin = connection::reader(&path).unwrap();
            pin.execute_batch("BEGIN; SELECT count(*) FROM sqlite_schema;").unwrap();
            for suffix in ["", "-wal"] {
                std::fs::copy(beside(&path, suffix), beside(&copy, suffix)).unwrap();
            }
        }
        store.close().await.unwrap();
    }
    copy
}

fn found(connection: &Connection, most_streams: usize) -> Verified {
    let last = std::sync::atomic::AtomicU64::new(0);
    let progress: crate::store::Progress = Arc::new(move |done, of| {
        let before = last.swap(done, std::sync::atomic::Ordering::Relaxed);
        assert!(done <= of && done >= before, "{done} of {of} after {before}");
    });
    run_with(connection, None, &progress, most_streams).unwrap().0
}

#[tokio::test]
async fn a_store_of_more_streams_than_a_pass_remembers_is_checked_like_any_other() {
    let folder = tempfile::tempdir().unwrap();
    let copy = store(&folder).await;
    let connection = connection::reader(&copy).unwrap();
    let at_once = found(&connection, MOST);
    assert_eq!((at_once.findings.as_slice(), at_once.streams), (&[][..], STREAMS as u64 + 20));
    for most in [2, 16, 100, STREAMS] {
        assert_eq!(found(&connection, most), at_once, "{most} at a time");
    }
    // Rows that say something else of their streams are found in whichever pass remembers those, and so are rows that are gone.
    let writer = connection::writer(&copy).unwrap();
    for stream in ["stream-5", "stream-150", "stream-299"] {
        let head = StreamHead { version: Version::new(99), ..StreamHead::default() };
        index::put_stream(&writer, stream, &head, &ChainHash::START).unwrap();
    }
    writer.execute_batch("DELETE FROM quorate_stream WHERE name = 'stream-80'").unwrap();
    let sorted = |most| {
        let mut found = found(&connection, most);
        found.findings.sort_by_key(ToString::to_string);
        found
    };
    let damaged = sorted(MOST);
    let says = |what: &str| damaged.findings.iter().filter(|finding| finding.what.contains(what)).count();
    assert_eq!((says("it says version 99"), says("it belongs to nothing")), (3, 1), "{:?}", damaged.findings);
    for most in [2, 16, 100] {
        assert_eq!(sorted(most), damaged, "{most} at a time");
    }
}
