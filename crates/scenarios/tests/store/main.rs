//! The embedded store on a simulated disk: the claims that any store must meet, and the power failing at every operation.
#![expect(clippy::unwrap_used, reason = "what a test needs and cannot have fails the test")]
#![expect(clippy::disallowed_methods, reason = "a host without a world runs on tokio's paused time")]

mod host;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use quorate_data::{
    event::{NewEvent, Position, Stub, Version},
    store::{
        AppendBatch, ArchiveOrder, ExpectedVersion, Limits, OpenError, Query, ReadLog, Store, archive::ArchiveReader,
        conformance::CASES,
    },
};
use quorate_runtime::fault::{DiskFaults, disk::Survival};
use quorate_sim::disk::{Journal, Model};

use self::host::Host;

/// This claim is about two threads, and a simulated host has one.
const NEEDS_THREADS: &str = "others_see_nothing_before_the_commit";

/// SQLite's randomness and the names of disks belong to the process: one host at a time.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap()
}

#[test]
fn every_claim_about_stores_holds_on_a_disk_that_loses_what_is_not_synced() {
    let _alone = alone();
    let mut failed = Vec::new();
    for case in CASES.iter().filter(|case| case.name != NEEDS_THREADS) {
        let held = runtime().block_on(async {
            let host = Host::new(1, Model::default());
            let _running = host.disk.enter();
            (case.run)(&host).await
        });
        if let Err(why) = held {
            failed.push(format!("{}: {why}", case.name));
        }
    }
    assert!(failed.is_empty(), "{failed:#?}");
}

/// Appends a few batches until the disk dies; says how many were acknowledged.
async fn fill(store: &Store) -> u64 {
    for batch in 0..8 {
        let event = |n: u64| NewEvent::new(format!("{batch}-{n}"), "/test", "filled").json(format!("{{\"n\":{n}}}"));
        let stream = format!("stream-{}", batch % 3).parse().unwrap();
        let events = (0..3).map(event).collect();
        if store.append(AppendBatch::to(stream, ExpectedVersion::Any, events)).await.is_err() {
            return batch;
        }
    }
    8
}

/// A clean stop removes the log's index, and a start has to find its room again.
#[test]
fn a_store_that_was_closed_opens_with_room_for_the_index_of_its_log_or_says_what_it_needs() {
    let _alone = alone();
    let (mut opened, mut refused) = (0, 0);
    for room in (0..=48_u64).step_by(4).map(|pages| pages << 10) {
        runtime().block_on(async {
            let host = Host::new(room, Model::default());
            let _running = host.disk.enter();
            let store = host.try_open(Limits::default()).await.unwrap();
            let acknowledged = fill(&store).await * 3;
            store.close().await.unwrap();
            host.restart().await;
            let capacity_bytes = Some(host.disk.used_bytes() + room);
            host.disk.set_faults(DiskFaults { capacity_bytes, ..DiskFaults::default() }).unwrap();
            match host.try_open(Limits::default()).await {
                Ok(store) => {
                    assert_eq!(events(&store).await, acknowledged, "{room} bytes");
                    opened += 1;
                    store.close().await.unwrap();
                }
                Err(cause @ OpenError::NoRoom { .. }) => {
                    let told = cause.to_string();
                    assert!(room < 32 << 10 && told.contains("starting needs 32 KiB free"), "{room} bytes: {told}");
                    refused += 1;
                }
                Err(cause) => panic!("{room} bytes: {cause:?}"),
            }
            host.restart().await;
            host.disk.set_faults(DiskFaults::default()).unwrap();
            let store = host.try_open(Limits::default()).await.unwrap();
            assert_eq!(events(&store).await, acknowledged, "{room} bytes, then enough");
            store.close().await.unwrap();
        });
    }
    assert!(opened > 0 && refused > 0, "{opened} opened, {refused} were refused");
}

async fn events(store: &Store) -> u64 {
    let read = ReadLog { query: Query::EVERYTHING, after: Position::ZERO, limit: 100 };
    store.read_log(read).await.unwrap().events.len() as u64
}

/// One life that ends at disk operation `k`, and what the next one finds. `false` once `k` is beyond the end of the work.
async fn die_at(k: u64, model: Model, survival: Survival) -> bool {
    let host = Host::new(k, model);
    let _running = host.disk.enter();
    host.disk.crash_at(k, || {});
    let mut acknowledged = 0;
    if let Ok(store) = host.try_open(Limits::default()).await {
        acknowledged = fill(&store).await;
        let _ = store.close().await;
    }
    let died = host.disk.is_dead();
    host.lose_power(survival).await;
    let store = host.try_open(Limits::default()).await.unwrap_or_else(|cause| panic!("operation {k}: {cause:?}"));
    let read = ReadLog { query: Query::EVERYTHING, after: Position::ZERO, limit: 100 };
    let found = store.read_log(read).await.unwrap().events.len() as u64;
    assert_eq!(found % 3, 0, "operation {k}, {survival:?}: a batch is torn: {found} events");
    assert!(
        (acknowledged..=acknowledged + 1).contains(&(found / 3)),
        "operation {k}, {survival:?}: {found} events of {acknowledged} batches"
    );
    let verified = store.verify(Arc::new(|_, _| {})).await.unwrap();
    assert!(verified.is_sound(), "operation {k}, {survival:?}: {:?}", verified.findings);
    store.close().await.unwrap();
    died
}

#[test]
fn whatever_operation_the_power_fails_at_what_was_acknowledged_is_there_and_nothing_is_torn() {
    let _alone = alone();
    for model in [Model::default(), Model { journal: Journal::Strict, ..Model::default() }] {
        for (n, survival) in (1..).zip(Survival::ALL) {
            // Each way of surviving at every third operation, so that together they meet each operation twice.
            let mut k = n % 3 + 1;
            while runtime().block_on(die_at(k, model, survival)) {
                k += 3;
            }
            assert!(k > 60, "the work ended after {k} operations already");
        }
    }
}

fn archiving() -> ArchiveOrder {
    let stream = "stream-0".parse().unwrap();
    ArchiveOrder { stream, before: Some(Version::new(5)), to: "old.qa".into(), name: "old.qa".to_owned() }
}

/// As [`die_at`], counted from when four events are being moved to an archive: each is whole in the store, or in a file that
/// proves itself, and the same order finishes.
async fn die_archiving_at(k: u64, survival: Survival) -> bool {
    let host = Host::new(k, Model::default());
    let _running = host.disk.enter();
    let store = host.try_open(Limits::default()).await.unwrap();
    assert_eq!(fill(&store).await, 8);
    host.disk.crash_at(k, || {});
    let told = store.archive(archiving()).await.is_ok();
    let died = host.disk.is_dead();
    drop(store);
    host.lose_power(survival).await;
    let store = host.try_open(Limits::default()).await.unwrap_or_else(|cause| panic!("operation {k}: {cause:?}"));
    let read = ReadLog { query: Query::EVERYTHING, after: Position::ZERO, limit: 100 };
    let log = store.read_log(read.clone()).await.unwrap().events;
    assert_eq!(log.len(), 24, "operation {k}, {survival:?}");
    let stubs = log.iter().filter(|event| matches!(event.stub(), Some(Stub::Archived(_)))).count();
    assert!(stubs == 4 || (stubs == 0 && !told), "operation {k}, {survival:?}: {stubs} stubs, told: {told}");
    if stubs == 4 {
        assert_eq!(events_in_archive(&store), 4, "operation {k}, {survival:?}");
    }
    store.archive(archiving()).await.unwrap_or_else(|cause| panic!("operation {k}, {survival:?}: {cause:?}"));
    assert_eq!(events_in_archive(&store), 4, "operation {k}, {survival:?}");
    let log = store.read_log(read).await.unwrap().events;
    assert_eq!(log.iter().filter(|event| event.stub().is_some()).count(), 4);
    let verified = store.verify(Arc::new(|_, _| {})).await.unwrap();
    assert!(verified.is_sound(), "operation {k}, {survival:?}: {:?}", verified.findings);
    store.close().await.unwrap();
    died
}

/// How many events the archive holds, all of them sound.
fn events_in_archive(store: &Store) -> u64 {
    let file = store.env().disk().open("old.qa".as_ref()).unwrap();
    ArchiveReader::open(file).unwrap().verify().unwrap().1
}

#[test]
fn whatever_operation_the_power_fails_at_an_event_is_in_the_store_or_in_its_archive() {
    let _alone = alone();
    for survival in Survival::ALL {
        let mut k = 1;
        while runtime().block_on(die_archiving_at(k, survival)) {
            k += 1;
        }
        assert!(k > 10, "the work ended after {k} operations already");
    }
}

/// Appends one event, and says whether it was acknowledged.
async fn append(store: &Store, id: &str) -> bool {
    let event = NewEvent::new(id, "/test", "filled").json("{}");
    store.append(AppendBatch::to("stream".parse().unwrap(), ExpectedVersion::Any, vec![event])).await.is_ok()
}

/// A kernel tries a sync that failed no second time, and goes on showing what it could not write. So a program that
/// comes back after one reads what is on no disk, and must not build on it.
#[test]
fn what_is_acknowledged_after_a_sync_failed_survives_the_power_failing() {
    let _alone = alone();
    for seed in 0..20 {
        for survival in Survival::ALL {
            runtime().block_on(async {
                let host = Host::new(seed, Model::default());
                let _running = host.disk.enter();
                let store = host.try_open(Limits::default()).await.unwrap();
                assert!(append(&store, "before").await);
                host.disk.set_faults(DiskFaults { sync_errors: 1.0, ..DiskFaults::default() }).unwrap();
                assert!(!append(&store, "meanwhile").await);
                drop(store);
                host.disk.set_faults(DiskFaults::default()).unwrap();
                host.restart().await;

                let store = host.try_open(Limits::default()).await.unwrap();
                assert!(append(&store, "after").await);
                host.lose_power(survival).await;
                drop(store);

                let store = host.try_open(Limits::default()).await;
                let store = store.unwrap_or_else(|cause| panic!("seed {seed}, {survival:?}: {cause:?}"));
                let read = ReadLog { query: Query::EVERYTHING, after: Position::ZERO, limit: 100 };
                let found = store.read_log(read).await.unwrap().events;
                let ids: Vec<&str> = found.iter().map(|event| event.id()).collect();
                assert!(ids.contains(&"before") && ids.contains(&"after"), "seed {seed}, {survival:?}: {ids:?}");
                store.close().await.unwrap();
            });
        }
    }
}
