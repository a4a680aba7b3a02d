//! A disk that fills up in the middle of what takes several steps: what is done is told, and what is not.

use std::collections::{BTreeMap, BTreeSet};

use quorate_data::{
    event::Position,
    store::{ExpectedVersion, Query, ReadLog, Rules, Scavenged, Store, StoreError, StreamMetadata},
};

use crate::{
    faulty::{self, What, Which},
    shared::{Folder, batch, event},
};

const STREAMS: [&str; 3] = ["a", "b", "c"];

/// How many events of each stream are forgotten.
async fn stubs(store: &Store) -> BTreeMap<String, u64> {
    let log = ReadLog { query: Query::EVERYTHING, after: Position::ZERO, limit: 10_000 };
    let mut stubs = BTreeMap::new();
    for event in store.read_log(log).await.unwrap().events.iter().filter(|event| event.stub().is_some()) {
        *stubs.entry(event.stream().to_owned()).or_default() += 1;
    }
    stubs
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scavenge_that_meets_a_full_disk_says_what_it_has_forgotten() {
    let folder = Folder::new();
    let place = folder.file().parent().unwrap().to_owned();
    faulty::mend(&place);
    let store = folder.store().await;
    for stream in STREAMS {
        let rules = Rules { max_count: Some(1), max_age: None };
        let metadata = StreamMetadata { rules, values: BTreeMap::new() };
        store.set_metadata(stream.parse().unwrap(), ExpectedVersion::NoStream, metadata).await.unwrap();
        store.append(batch(stream, vec![event("first")])).await.unwrap();
    }
    let mut ways = BTreeSet::new();
    for allowed in (0..40).chain([usize::MAX]) {
        for stream in STREAMS {
            store
                .append(batch(stream, vec![event(format!("{allowed}-a")), event(format!("{allowed}-b"))]))
                .await
                .unwrap();
        }
        let before = stubs(&store).await;
        let mut written = 0;
        faulty::on(&place, move |what, which| {
            written += usize::from(what == What::Write && which == Which::Log);
            (what == What::Write && written > allowed).then_some(rusqlite::ffi::SQLITE_FULL)
        });
        let told = store.scavenge().await;
        faulty::mend(&place);
        let after = stubs(&store).await;
        let forgotten = STREAMS.map(|stream| after.get(stream).unwrap_or(&0) - before.get(stream).unwrap_or(&0));
        let happened = Scavenged {
            streams: forgotten.iter().filter(|events| **events > 0).count() as u64,
            events: forgotten.iter().sum(),
        };
        match told {
            Ok(done) => {
                assert_eq!(done, happened);
                ways.insert("done");
            }
            Err(StoreError::PartlyForgotten { streams, events, cause }) => {
                assert_eq!(Scavenged { streams, events }, happened, "after {allowed} writes");
                assert!(happened.streams > 0 && matches!(*cause, StoreError::DiskFull), "{cause:?}");
                ways.insert("in part");
            }
            Err(StoreError::NotWiped { cause, .. }) => {
                assert!(happened.streams == 3 && matches!(*cause, StoreError::DiskFull), "{cause:?}");
                ways.insert("not wiped");
            }
            Err(StoreError::DiskFull) => {
                assert_eq!(happened, Scavenged::default(), "after {allowed} writes");
                ways.insert("not at all");
            }
            Err(other) => panic!("a full disk is not {other:?}"),
        }
        store.scavenge().await.unwrap();
        store.settle(None).await.unwrap();
    }
    assert_eq!(ways, BTreeSet::from(["done", "in part", "not at all", "not wiped"]));
}
