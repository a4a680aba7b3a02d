//! Erased data is gone from the files and stays gone, whatever is restored and wherever a crash comes.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use quorate_data::{
    event::{NewEvent, Position, Recorded, Version},
    store::{
        AppendBatch, AppendError, ExpectedVersion, OpenError, ReadStream, Retire, Store, StoreError, Value,
        conformance::Place as _,
        erasure::Ledger,
        sqlite::{give_up_keys, restore, restore_with},
    },
    subscription::{Config, Pull, Subscriptions},
};
use quorate_runtime::{BoxFuture, Env};

use crate::shared::{self, Folder, batch, event, open, photograph, quiet, with_suffix};

/// Data about `subject` that would be recognised anywhere, small or spread over pages.
fn secret(subject: &str, n: u64) -> NewEvent {
    let words = format!("the-secret-{subject}-{n}-").repeat([1, 200, 4_000][n as usize % 3]);
    NewEvent { data: Some(words.into()), ..event(format!("{subject}-{n}")) }.about(subject)
}

async fn append(store: &Store, subject: &str, n: u64) {
    store.append(batch(subject, vec![secret(subject, n)])).await.unwrap();
}

async fn read(store: &Store, stream: &str) -> Result<Vec<Recorded>, StoreError> {
    Ok(store.read_stream(ReadStream::forward(stream.parse().unwrap(), 100)).await?.events)
}

/// Which of a stream's events are erased.
async fn erased(store: &Store, stream: &str) -> Vec<bool> {
    let events = read(store, stream).await.unwrap();
    assert!(events.iter().all(|event| event.erased() == event.data().is_none()));
    events.iter().map(Recorded::erased).collect()
}

async fn is_sound(store: &Store) -> bool {
    let verified = store.verify(std::sync::Arc::new(|_, _| {})).await.unwrap();
    verified.findings.iter().for_each(|finding| println!("{finding}"));
    verified.is_sound()
}

fn files(path: &Path) -> impl Iterator<Item = PathBuf> {
    ["", "-wal", "-shm", ".keys", ".keys-wal", ".keys-shm", ".keys-journal"]
        .map(|suffix| with_suffix(path, suffix))
        .into_iter()
        .filter(|file| file.exists())
}

/// The files of the store at `path` in which `needle` stands.
fn found(path: &Path, needle: &[u8]) -> Vec<PathBuf> {
    let holds = |file: &PathBuf| std::fs::read(file).unwrap().windows(needle.len()).any(|window| window == needle);
    files(path).filter(holds).collect()
}

/// The bytes of every key of the store at `path`, read from a copy.
fn secrets(path: &Path, copy: &Path) -> Vec<Vec<u8>> {
    photograph(path, copy);
    let keys = shared::raw(&with_suffix(copy, ".keys"));
    let mut select = keys.prepare("SELECT secret FROM quorate_key WHERE secret IS NOT NULL").unwrap();
    select.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
}

fn move_store(from: &Path, to: &Path) {
    for file in files(from) {
        let suffix = file.to_str().unwrap().strip_prefix(from.to_str().unwrap()).unwrap().to_owned();
        std::fs::rename(file, with_suffix(to, &suffix)).unwrap();
    }
}

#[tokio::test]
async fn neither_data_nor_destroyed_keys_stand_in_any_file() {
    let folder = Folder::new();
    let store = folder.store().await;
    for n in 0..60 {
        append(&store, &format!("p{}", n % 7), n).await;
    }
    assert_eq!(found(&folder.file(), b"p1-1").len(), 1, "attributes are there, so that looking finds something");
    assert!(found(&folder.file(), b"the-secret-").is_empty());
    let keys = secrets(&folder.file(), &folder.path("copy.db"));
    assert_eq!(keys.len(), 7);
    assert!(keys.iter().all(|key| !found(&folder.file(), key).is_empty()));
    for n in 0..7 {
        store.erase(&format!("p{n}")).await.unwrap();
        let left = keys.iter().filter(|key| !found(&folder.file(), key).is_empty()).count();
        assert_eq!(left, 6 - n);
    }
    assert!(found(&folder.file(), b"the-secret-").is_empty());
    store.close().await.unwrap();
    assert!(found(&folder.file(), b"the-secret-").is_empty());
    assert!(keys.iter().all(|key| found(&folder.file(), key).is_empty()));
}

#[tokio::test]
async fn copies_that_rooms_and_applications_kept_are_wiped_out_of_the_files_with_the_erasure() {
    let folder = Folder::new();
    let store = folder.store().await;
    let table = "CREATE TABLE customer (name TEXT PRIMARY KEY, address TEXT)";
    store.transact(move |tx| Box::pin(tx.execute(table, &[]))).await.unwrap();
    let subscriptions = Subscriptions::open(&store).await.unwrap();
    let workers = subscriptions.create(&"workers".parse().unwrap(), Config::default()).await.unwrap();
    let forget = |store: Store, subject: Arc<str>| -> BoxFuture<'static, Result<(), StoreError>> {
        Box::pin(async move {
            let delete = "DELETE FROM customer WHERE name = $1";
            let deleted = store.transact(move |tx| {
                let subject = subject.clone();
                Box::pin(async move { tx.execute(delete, &[subject.into()]).await })
            });
            deleted.await.map(drop).map_err(|_| StoreError::OutcomeUnknown)
        })
    };
    store.on_erase("customers", Arc::new(forget));
    for n in 0..30 {
        let subject = format!("p{n}");
        append(&store, &subject, n).await;
        let insert = "INSERT INTO customer (name, address) VALUES ($1, $2)";
        let address = format!("the-secret-{subject}-address-").repeat([1, 200][n as usize % 2]);
        let row: Arc<[Value]> = Arc::new([subject.into(), address.into()]);
        let inserted = store.transact(move |tx| {
            let row = row.clone();
            Box::pin(async move { tx.execute(insert, &row).await })
        });
        inserted.await.unwrap();
    }
    for delivery in workers.pull(Pull::of(100)).await.unwrap() {
        let data = String::from_utf8(delivery.event.data().unwrap().to_vec()).unwrap();
        workers.park(&[delivery.lease], &format!("cannot read {data}")).await.unwrap();
    }
    let path = folder.file();
    assert!(!found(&path, b"the-secret-p7-address").is_empty() && !found(&path, b"the-secret-p8-8").is_empty());
    for n in 0..30 {
        store.erase(&format!("p{n}")).await.unwrap();
        assert_eq!(
            found(&path, format!("the-secret-p{n}-").as_bytes()),
            [] as [PathBuf; 0],
            "no copy, old page or log"
        );
    }
    assert_eq!(workers.parked(Position::ZERO, 100).await.unwrap().len(), 30);
    assert!(is_sound(&store).await);
    store.close().await.unwrap();
    assert!(found(&path, b"the-secret-").is_empty());
}

#[tokio::test]
async fn a_destroyed_key_is_gone_although_pages_were_split_and_merged() {
    let folder = Folder::new();
    let store = folder.store().await;
    let events = |from: u64, to: u64| (from..to).map(|n| event(n).about(format!("p{n}"))).collect();
    for from in (0..2_000).step_by(250) {
        store.append(batch("s", events(from, from + 250))).await.unwrap();
    }
    let keys = secrets(&folder.file(), &folder.path("copy.db"));
    for n in 0..100 {
        store.erase(&format!("p{n}")).await.unwrap();
    }
    store.append(batch("s", events(2_000, 3_000))).await.unwrap();
    let bytes: Vec<u8> = files(&folder.file()).flat_map(|file| std::fs::read(file).unwrap()).collect();
    let present: std::collections::BTreeSet<&[u8]> = bytes.windows(32).collect();
    assert_eq!(keys.iter().filter(|key| present.contains(&key[..])).count(), 1_900);
}

/// How many keys the store at `folder` ever made and has; none where there is no file of keys.
fn keys_of(folder: &Folder) -> usize {
    let file = with_suffix(&folder.file(), ".keys");
    if file.exists() { secrets(&folder.file(), &folder.path("copy.db")).len() } else { 0 }
}

#[tokio::test]
async fn an_append_that_is_refused_leaves_no_keys() {
    let folder = Folder::new();
    let store = folder.store().await;
    let nowhere = ExpectedVersion::Exact(Version::new(7));
    let many: Vec<NewEvent> = (0..100).map(|n| event(format!("n-{n}")).about(format!("person-{n}"))).collect();
    let refused = store.append(AppendBatch::to("anna".parse().unwrap(), nowhere, many.clone())).await;
    assert!(matches!(refused, Err(AppendError::VersionConflict { .. })), "{refused:?}");
    let in_transaction = store
        .transact(move |tx| {
            let many = many.clone();
            Box::pin(async move {
                let refused = tx.append(&"anna".parse().unwrap(), nowhere, many).await;
                assert!(matches!(refused, Err(AppendError::VersionConflict { .. })), "{refused:?}");
                Ok::<_, ()>(())
            })
        })
        .await;
    in_transaction.unwrap();
    assert_eq!(keys_of(&folder), 0);
    append(&store, "anna", 1).await;
    assert_eq!(keys_of(&folder), 1);
    assert_eq!(erased(&store, "anna").await, [false]);
    assert_eq!(store.erase("anna").await.unwrap().events, 1);
    assert!(is_sound(&store).await);
}

#[tokio::test]
async fn a_late_repetition_or_a_refusal_does_not_bring_an_erased_subject_back() {
    let folder = Folder::new();
    let store = folder.store().await;
    let first = store.append(batch("anna", vec![secret("anna", 1)])).await.unwrap();
    store.erase("anna").await.unwrap();
    let late = store.append(batch("anna", vec![secret("anna", 1)])).await.unwrap();
    assert!(late.repeated && late.versions == first.versions);
    let nowhere = ExpectedVersion::Exact(Version::new(7));
    let refused = store.append(AppendBatch::to("anna".parse().unwrap(), nowhere, vec![secret("anna", 2)])).await;
    assert!(matches!(refused, Err(AppendError::VersionConflict { .. })), "{refused:?}");
    let known = store.data_subject("anna").await.unwrap();
    assert!(known.is_erased() && !known.live, "{known:?}");
    assert_eq!(keys_of(&folder), 0);
    append(&store, "anna", 2).await;
    assert!(store.data_subject("anna").await.unwrap().live, "there is data about her again");
    assert_eq!(erased(&store, "anna").await, [true, false]);
    assert!(is_sound(&store).await);
}

#[tokio::test]
async fn a_key_made_for_an_event_that_never_came_does_no_harm() {
    let folder = Folder::new();
    let store = folder.store().await;
    append(&store, "anna", 1).await;
    store.erase("anna").await.unwrap();
    let given_up: Result<(), _> = store
        .transact(|tx| {
            Box::pin(async {
                tx.append(&"anna".parse().unwrap(), ExpectedVersion::Any, vec![secret("anna", 2)])
                    .await
                    .map_err(drop)?;
                Err(())
            })
        })
        .await;
    assert!(given_up.is_err());
    assert_eq!(keys_of(&folder), 1, "the key came first");
    let known = store.data_subject("anna").await.unwrap();
    assert!(known.is_erased() && !known.live, "{known:?}");
    folder.crash(store).await;
    let store = folder.store().await;
    append(&store, "anna", 2).await;
    folder.crash(store).await;
    let store = folder.store().await;
    assert_eq!(erased(&store, "anna").await, [true, false]);
    assert_eq!(store.erase("anna").await.unwrap().events, 1);
    assert!(is_sound(&store).await);
}

#[tokio::test]
async fn an_erasure_whose_caller_went_away_comes_to_its_end_and_is_incomplete_until_then() {
    let folder = Folder::new();
    let store = folder.store().await;
    append(&store, "anna", 1).await;
    let (begun, go_on) = (Arc::new(tokio::sync::Notify::new()), Arc::new(tokio::sync::Notify::new()));
    let (of_begun, of_go_on) = (begun.clone(), go_on.clone());
    let forget = move |_: Store, _: Arc<str>| -> BoxFuture<'static, Result<(), StoreError>> {
        let (begun, go_on) = (of_begun.clone(), of_go_on.clone());
        Box::pin(async move {
            begun.notify_one();
            go_on.notified().await;
            Ok(())
        })
    };
    store.on_erase("slow", Arc::new(forget));
    tokio::select! {
        told = store.erase("anna") => panic!("the room has not forgotten yet: {told:?}"),
        () = begun.notified() => {}
    }
    let known = store.data_subject("anna").await.unwrap();
    assert!(known.incomplete && !known.is_erased() && known.erasure.is_some(), "{known:?}");
    go_on.notify_one();
    while !store.data_subject("anna").await.unwrap().is_erased() {
        tokio::task::yield_now().await;
    }
    assert_eq!(erased(&store, "anna").await, [true]);
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_crash_between_ledger_and_key_is_finished_by_opening() {
    let folder = Folder::new();
    let (before, after) = (folder.path("before.db"), folder.path("after.db"));
    let store = folder.store().await;
    append(&store, "anna", 1).await;
    append(&store, "bert", 1).await;
    photograph(&folder.file(), &before);
    let keys = secrets(&before, &folder.path("copy.db"));
    store.erase("anna").await.unwrap();
    photograph(&folder.file(), &after);
    // The ledger knows, the key lives: the crash came in the middle.
    for suffix in [".keys", ".keys-wal"] {
        std::fs::copy(with_suffix(&before, suffix), with_suffix(&after, suffix)).unwrap();
    }
    assert_eq!(keys.iter().filter(|key| !found(&after, key).is_empty()).count(), 2);
    let reopened = open(&after).await.unwrap();
    assert_eq!(keys.iter().filter(|key| !found(&after, key).is_empty()).count(), 1, "destroyed by opening");
    assert_eq!((erased(&reopened, "anna").await, erased(&reopened, "bert").await), (vec![true], vec![false]));
    append(&reopened, "anna", 2).await;
    assert_eq!(erased(&reopened, "anna").await, [true, false]);
    assert!(is_sound(&reopened).await);
}

#[tokio::test]
async fn keys_that_know_more_than_the_ledger_teach_it() {
    let folder = Folder::new();
    let (before, after) = (folder.path("before.db"), folder.path("after.db"));
    let store = folder.store().await;
    append(&store, "anna", 1).await;
    photograph(&folder.file(), &before);
    let told = store.erase("anna").await.unwrap();
    photograph(&folder.file(), &after);
    for suffix in [".keys", ".keys-wal"] {
        std::fs::copy(with_suffix(&after, suffix), with_suffix(&before, suffix)).unwrap();
    }
    let reopened = open(&before).await.unwrap();
    assert_eq!(erased(&reopened, "anna").await, [true]);
    assert_eq!(reopened.erasures().await.unwrap(), store.erasures().await.unwrap());
    assert_eq!(reopened.erase("anna").await.unwrap().erased_at, told.erased_at);
}

/// The warnings of this process.
struct Warnings(Arc<Mutex<String>>);

impl tracing::Subscriber for Warnings {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() == tracing::Level::WARN
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        struct Said<'s>(&'s mut String);
        impl tracing::field::Visit for Said<'_> {
            fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
                self.0.push_str(&format!("{field}: {value:?}; "));
            }
        }
        event.record(&mut Said(&mut self.0.lock().unwrap()));
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

#[tokio::test]
async fn keys_that_are_older_than_the_store_are_told_of_when_it_is_opened() {
    let warnings = Arc::new(Mutex::new(String::new()));
    tracing::subscriber::set_global_default(Warnings(warnings.clone())).unwrap();
    let folder = Folder::new();
    let (copy, older, path) = (folder.path("older.keys"), folder.path("older.db"), folder.file());
    let store = folder.store().await;
    append(&store, "anna", 1).await;
    photograph(&path, &older);
    store.backup_keys(copy.clone()).await.unwrap();
    append(&store, "bert", 1).await;
    append(&store, "carl", 1).await;
    store.erase("carl").await.unwrap();
    store.close().await.unwrap();
    let lacking = |path: &Path, lacking: u64| {
        let said = format!("keys: {}.keys; lacking: {lacking}; ", path.canonicalize().unwrap().display());
        warnings.lock().unwrap().contains(&said)
    };
    // An older store beside newer keys is what a restored backup is; and so are keys and store of one moment.
    for suffix in [".keys", ".keys-wal"] {
        let _ = std::fs::remove_file(with_suffix(&older, suffix));
    }
    std::fs::copy(with_suffix(&path, ".keys"), with_suffix(&older, ".keys")).unwrap();
    for sound in [&older, &path] {
        open(sound).await.unwrap().close().await.unwrap();
        assert!(!(1..5).any(|number| lacking(sound, number)), "{:?}", warnings.lock().unwrap());
    }
    std::fs::copy(&copy, with_suffix(&path, ".keys")).unwrap();
    let store = open(&path).await.unwrap();
    assert!(lacking(&path, 2), "{:?}", warnings.lock().unwrap());
    assert_eq!(erased(&store, "anna").await, [false]);
    assert!(matches!(read(&store, "bert").await, Err(StoreError::KeyMissing { .. })));
    assert_eq!(erased(&store, "carl").await, [true]);
    store.close().await.unwrap();
}

#[tokio::test]
async fn nothing_stays_in_the_log_of_the_keys_that_was_written_back() {
    let folder = Folder::new();
    let store = folder.store().await;
    let log = with_suffix(&folder.file(), ".keys-wal");
    let pages = || std::fs::metadata(&log).unwrap().len() / 4_120;
    for n in 0.. {
        let of = |m| event(format!("{n}-{m}")).about(format!("subject-{n}-{m}"));
        store.append(batch("s", (0..5_000).map(of).collect())).await.unwrap();
        assert!(pages() < 1_000, "a log of {} pages was written back, and is there still", pages());
        if n > 0 && pages() == 0 {
            break;
        }
    }
    store.close().await.unwrap();
}

/// A backup and a copy of the keys from before an erasure, and what there is after it.
struct Disaster {
    folder: Folder,
    backup: PathBuf,
    keys: PathBuf,
    ledger: Ledger,
}

impl Disaster {
    async fn new() -> Self {
        let folder = Folder::new();
        let (backup, keys) = (folder.path("backup.db"), folder.path("backup.keys"));
        let store = folder.store().await;
        append(&store, "anna", 1).await;
        append(&store, "bert", 1).await;
        store.backup(backup.clone(), std::sync::Arc::new(|_, _| {})).await.unwrap();
        store.backup_keys(keys.clone()).await.unwrap();
        store.erase("anna").await.unwrap();
        let ledger = Ledger::from_json(&store.erasures().await.unwrap().to_json()).unwrap();
        store.close().await.unwrap();
        move_store(&folder.file(), &folder.path("broken.db"));
        Self { folder, backup, keys, ledger }
    }

    fn put_keys(&self, from: &Path) {
        std::fs::copy(from, with_suffix(&self.folder.file(), ".keys")).unwrap();
    }

    /// Which events are erased, anna's and bert's.
    async fn erased(&self) -> (Vec<bool>, Vec<bool>) {
        let store = open(&self.folder.file()).await.unwrap();
        assert!(is_sound(&store).await);
        let erased = (erased(&store, "anna").await, erased(&store, "bert").await);
        store.close().await.unwrap();
        erased
    }
}

#[tokio::test]
async fn a_backup_holds_no_keys_and_is_not_opened_without_them() {
    let disaster = Disaster::new().await;
    assert!(found(&disaster.backup, b"the-secret-").is_empty());
    let path = disaster.folder.file();
    restore(&Env::real(), disaster.backup.clone(), path.clone(), quiet()).await.unwrap();
    let refused = open(&path).await.err().unwrap();
    assert!(matches!(&refused, OpenError::KeysMissing { path: at } if *at == with_suffix(&path, ".keys")), "{refused}");
    // What a copy leaves that found no room.
    std::fs::write(with_suffix(&path, ".keys"), b"").unwrap();
    let refused = open(&path).await.err().unwrap();
    assert!(matches!(refused, OpenError::KeysMissing { .. }), "an empty file is no keys: {refused}");
    std::fs::remove_file(with_suffix(&path, ".keys")).unwrap();
    disaster.put_keys(&disaster.keys);
    assert_eq!(disaster.erased().await, (vec![false], vec![false]), "both copies are older than the erasure");
}

#[tokio::test]
async fn an_older_backup_beside_the_surviving_keys_does_not_bring_data_back() {
    let disaster = Disaster::new().await;
    disaster.put_keys(&disaster.folder.path("broken.db.keys"));
    restore(&Env::real(), disaster.backup.clone(), disaster.folder.file(), quiet()).await.unwrap();
    assert_eq!(disaster.erased().await, (vec![true], vec![false]));
}

#[tokio::test]
async fn with_the_ledger_older_copies_of_both_do_not_bring_data_back() {
    let disaster = Disaster::new().await;
    disaster.put_keys(&disaster.keys);
    let (path, ledger) = (disaster.folder.file(), disaster.ledger.clone());
    let foreign = Ledger { store: ledger.store + 1, ..ledger.clone() };
    let refused = restore_with(&Env::real(), disaster.backup.clone(), path.clone(), foreign, quiet()).await;
    assert!(matches!(refused, Err(OpenError::LedgerOfAnotherStore { .. })), "{refused:?}");
    assert!(!path.exists());
    restore_with(&Env::real(), disaster.backup.clone(), path.clone(), ledger, quiet()).await.unwrap();
    for _ in 0..2 {
        assert_eq!(disaster.erased().await, (vec![true], vec![false]));
    }
    let keys = secrets(&disaster.folder.path("broken.db"), &disaster.folder.path("copy.db"));
    assert_eq!(keys.len(), 1);
    assert_eq!(secrets(&path, &disaster.folder.path("other.db")), keys, "anna's key went out of the older file");
}

#[tokio::test]
async fn a_restored_backup_forgets_what_consumers_had_said_of_who_was_erased_since() {
    let folder = Folder::new();
    let (backup, keys) = (folder.path("backup.db"), folder.path("backup.keys"));
    let store = folder.store().await;
    let workers = |store: Store| async move {
        let subscriptions = Subscriptions::open(&store).await.unwrap();
        subscriptions.create(&"workers".parse().unwrap(), Config::default()).await.unwrap()
    };
    let consumer = workers(store.clone()).await;
    for subject in ["anna", "bert", "carl"] {
        append(&store, subject, 1).await;
    }
    for delivery in consumer.pull(Pull::of(10)).await.unwrap() {
        let reason = format!("cannot help {}", delivery.event.stream());
        consumer.park(&[delivery.lease], &reason).await.unwrap();
    }
    let retired = Retire::Truncate { before: Version::new(2) };
    store.retire("carl".parse().unwrap(), retired).await.unwrap();
    store.backup(backup.clone(), Arc::new(|_, _| {})).await.unwrap();
    store.backup_keys(keys.clone()).await.unwrap();
    for subject in ["anna", "carl"] {
        append(&store, subject, 2).await;
        store.erase(subject).await.unwrap();
    }
    let ledger = store.erasures().await.unwrap();
    store.close().await.unwrap();
    move_store(&folder.file(), &folder.path("broken.db"));

    std::fs::copy(&keys, with_suffix(&folder.file(), ".keys")).unwrap();
    restore_with(&Env::real(), backup, folder.file(), ledger, quiet()).await.unwrap();
    let store = folder.store().await;
    let parked = workers(store.clone()).await.parked(Position::ZERO, 10).await.unwrap();
    let said: Vec<&str> = parked.iter().map(|parked| &*parked.failures[0].reason).collect();
    assert_eq!(said, ["", "cannot help bert", ""]);
    store.close().await.unwrap();
    for name in ["anna", "carl"] {
        assert!(found(&folder.file(), format!("cannot help {name}").as_bytes()).is_empty());
    }
}

#[tokio::test]
async fn keys_older_than_an_event_are_an_error_until_its_subject_is_erased() {
    let folder = Folder::new();
    let store = folder.store().await;
    append(&store, "anna", 1).await;
    let old = folder.path("old.keys");
    store.backup_keys(old.clone()).await.unwrap();
    append(&store, "bert", 1).await;
    append(&store, "carl", 1).await;
    store.close().await.unwrap();
    std::fs::copy(&old, with_suffix(&folder.file(), ".keys")).unwrap();
    let store = folder.store().await;
    let missing = |read: Result<Vec<Recorded>, StoreError>| match read {
        Err(StoreError::KeyMissing { stream, version, .. }) => (stream.to_string(), version.get()),
        other => panic!("{other:?}"),
    };
    assert_eq!(erased(&store, "anna").await, [false]);
    assert_eq!(missing(read(&store, "bert").await), ("bert".to_owned(), 1));
    let repeat = store.append(batch("bert", vec![secret("bert", 1)])).await;
    assert!(matches!(repeat, Err(AppendError::Store(StoreError::KeyMissing { .. }))), "{repeat:?}");
    append(&store, "bert", 2).await;
    assert_eq!(missing(read(&store, "bert").await), ("bert".to_owned(), 1), "a new key is not the lost one");
    assert!(!is_sound(&store).await, "verify tells");
    for (name, live, key_missing) in [("anna", true, false), ("bert", true, true), ("carl", false, true)] {
        let known = store.data_subject(name).await.unwrap();
        assert_eq!((known.live, known.key_missing, known.is_erased()), (live, key_missing, false), "{name}");
    }
    assert_eq!(store.erase("bert").await.unwrap().events, 2);
    assert!(!store.data_subject("bert").await.unwrap().key_missing);
    assert_eq!(erased(&store, "bert").await, [true, true]);
    assert_eq!(store.erase("carl").await.unwrap().events, 1, "also without any key");
    assert_eq!(erased(&store, "carl").await, [true]);
    assert!(is_sound(&store).await);
}

#[tokio::test]
async fn lost_keys_are_given_up_only_on_demand() {
    let folder = Folder::new();
    let store = folder.store().await;
    append(&store, "anna", 1).await;
    store.append(batch("plain", vec![event(1)])).await.unwrap();
    store.erase("anna").await.unwrap();
    append(&store, "anna", 2).await;
    append(&store, "bert", 1).await;
    store.close().await.unwrap();
    let path = folder.file();
    let refused = give_up_keys(&Env::real(), path.clone()).await;
    assert!(matches!(refused, Err(OpenError::Io { .. })), "they are there: {refused:?}");
    std::fs::remove_file(with_suffix(&path, ".keys")).unwrap();
    assert!(matches!(open(&path).await, Err(OpenError::KeysMissing { .. })));
    for _ in 0..2 {
        give_up_keys(&Env::real(), path.clone()).await.unwrap();
    }
    let store = open(&path).await.unwrap();
    assert_eq!((erased(&store, "anna").await, erased(&store, "bert").await), (vec![true, true], vec![true]));
    assert_eq!(erased(&store, "plain").await, [false]);
    append(&store, "bert", 2).await;
    assert_eq!(erased(&store, "bert").await, [true, false]);
    assert!(is_sound(&store).await);
}

#[tokio::test]
async fn keys_beside_what_a_link_leads_to_are_not_given_up() {
    let folder = Folder::new();
    let store = folder.store().await;
    append(&store, "anna", 1).await;
    let links = folder.path("links");
    std::fs::create_dir(&links).unwrap();
    let link = links.join("quorate.db");
    std::os::unix::fs::symlink(folder.file(), &link).unwrap();
    let refused = give_up_keys(&Env::real(), link.clone()).await;
    assert!(matches!(refused, Err(OpenError::Locked { .. })), "the store is open: {refused:?}");
    store.close().await.unwrap();
    let refused = give_up_keys(&Env::real(), link.clone()).await;
    let keys = with_suffix(&folder.file(), ".keys");
    assert!(matches!(&refused, Err(OpenError::Io { path, .. }) if *path == keys), "they are there: {refused:?}");
    let store = open(&link).await.unwrap();
    assert_eq!(erased(&store, "anna").await, [false]);
    assert!(is_sound(&store).await);
}

#[tokio::test]
async fn a_file_of_keys_that_holds_nothing_can_be_given_up() {
    for is_tried_before in [false, true] {
        let folder = Folder::new();
        let store = folder.store().await;
        append(&store, "anna", 1).await;
        store.close().await.unwrap();
        std::fs::write(with_suffix(&folder.file(), ".keys"), b"").unwrap();
        if is_tried_before {
            assert!(matches!(open(&folder.file()).await, Err(OpenError::KeysMissing { .. })));
        }
        give_up_keys(&Env::real(), folder.file()).await.unwrap();
        let store = open(&folder.file()).await.unwrap();
        assert_eq!(erased(&store, "anna").await, [true]);
        append(&store, "anna", 2).await;
        assert_eq!(erased(&store, "anna").await, [true, false]);
        assert!(is_sound(&store).await);
        store.close().await.unwrap();
    }
}

#[tokio::test]
async fn the_log_of_keys_whose_file_is_gone_or_empty_is_left_alone() {
    for is_empty in [false, true] {
        let folder = Folder::new();
        let store = folder.store().await;
        append(&store, "anna", 1).await;
        let path = folder.path("photo.db");
        photograph(&folder.file(), &path);
        store.close().await.unwrap();
        let (keys, log) = (with_suffix(&path, ".keys"), with_suffix(&path, ".keys-wal"));
        let (file, logged) = (std::fs::read(&keys).unwrap(), std::fs::read(&log).unwrap());
        assert!(!logged.is_empty(), "the key is in the log");
        if is_empty {
            std::fs::write(&keys, b"").unwrap()
        } else {
            std::fs::remove_file(&keys).unwrap()
        }
        let refused = open(&path).await.map(drop);
        assert!(matches!(&refused, Err(OpenError::KeysMissing { path }) if *path == keys), "{refused:?}");
        let refused = give_up_keys(&Env::real(), path.clone()).await;
        assert!(matches!(&refused, Err(OpenError::Io { path, .. }) if *path == log), "it may hold them: {refused:?}");
        assert!(std::fs::read(&log).is_ok_and(|left| left == logged), "nothing was changed");
        std::fs::write(&keys, &file).unwrap();
        let store = open(&path).await.unwrap();
        assert_eq!(erased(&store, "anna").await, [false]);
        assert!(is_sound(&store).await);
        store.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_file_of_keys_that_is_not_this_stores_is_refused() {
    let folder = Folder::new();
    let store = folder.store().await;
    append(&store, "anna", 1).await;
    store.close().await.unwrap();
    let keys = with_suffix(&folder.file(), ".keys");
    let good = std::fs::read(&keys).unwrap();
    let other = folder.path("other.db");
    let stranger = open(&other).await.unwrap();
    append(&stranger, "anna", 1).await;
    stranger.close().await.unwrap();

    std::fs::copy(with_suffix(&other, ".keys"), &keys).unwrap();
    assert!(matches!(open(&folder.file()).await, Err(OpenError::KeysOfAnotherStore { .. })));
    std::fs::copy(&other, &keys).unwrap();
    assert!(matches!(open(&folder.file()).await, Err(OpenError::Foreign { path }) if path == keys));
    std::fs::write(&keys, b"this is no database, although it is long enough to be looked at".repeat(100)).unwrap();
    assert!(matches!(open(&folder.file()).await, Err(OpenError::Corrupt { path, .. }) if path == keys));
    std::fs::write(&keys, &good).unwrap();
    shared::raw(&keys).execute_batch("PRAGMA user_version = 99").unwrap();
    assert!(matches!(open(&folder.file()).await, Err(OpenError::Newer { found: 99, .. })));
    std::fs::write(&keys, &good).unwrap();
    let holder = shared::raw(&keys);
    holder.execute_batch("PRAGMA locking_mode = EXCLUSIVE; BEGIN IMMEDIATE").unwrap();
    assert!(matches!(open(&folder.file()).await, Err(OpenError::Locked { path }) if path == keys));
    drop(holder);
    assert_eq!(erased(&open(&folder.file()).await.unwrap(), "anna").await, [false]);
}

#[tokio::test]
async fn rot_in_keys_and_ledger_is_named_and_nothing_wrong_is_served() {
    let folder = Folder::new();
    let store = folder.store().await;
    append(&store, "anna", 1).await;
    append(&store, "bert", 1).await;
    store.erase("bert").await.unwrap();
    store.close().await.unwrap();
    let keys = shared::raw(&with_suffix(&folder.file(), ".keys"));
    keys.execute("UPDATE quorate_key SET secret = zeroblob(32) WHERE secret IS NOT NULL", []).unwrap();
    drop(keys);
    let ledger = shared::raw(&folder.file());
    ledger.execute("UPDATE quorate_erasure SET erased_at = erased_at + 1", []).unwrap();
    drop(ledger);
    let store = folder.store().await;
    let read = read(&store, "anna").await;
    assert!(matches!(&read, Err(StoreError::Corrupt { place, .. }) if place.starts_with("quorate_key")), "{read:?}");
    let verified = store.verify(std::sync::Arc::new(|_, _| {})).await.unwrap();
    let named = |table: &str| verified.findings.iter().any(|finding| finding.place.starts_with(table));
    assert!(named("quorate_key,") && named("quorate_erasure,"), "{:?}", verified.findings);
}

#[tokio::test]
async fn a_store_without_data_subjects_has_no_second_file() {
    let folder = Folder::new();
    let store = folder.store().await;
    store.append(batch("s", vec![event(1), NewEvent { data: None, ..event(2) }.about("anna")])).await.unwrap();
    assert_eq!(store.erase("anna").await.unwrap().events, 0);
    store.close().await.unwrap();
    assert!(!with_suffix(&folder.file(), ".keys").exists());
    assert_eq!(read(&folder.store().await, "s").await.unwrap().len(), 2);
}

#[tokio::test]
async fn two_restores_with_as_many_erasures_each_are_told_apart() {
    let disaster = Disaster::new().await;
    let (path, env) = (disaster.folder.file(), Env::real());
    disaster.put_keys(&disaster.keys);
    restore(&env, disaster.backup.clone(), path.clone(), quiet()).await.unwrap();
    let store = open(&path).await.unwrap();
    store.erase("bert").await.unwrap();
    store.close().await.unwrap();
    std::fs::remove_file(&path).unwrap();
    restore_with(&env, disaster.backup.clone(), path.clone(), disaster.ledger.clone(), quiet()).await.unwrap();
    assert_eq!(disaster.erased().await, (vec![true], vec![true]));
    let keys = disaster.folder.path("copy.db");
    assert_eq!(secrets(&path, &keys).len(), 0, "the file of keys and the ledger know both erasures");
    assert_eq!(open(&path).await.unwrap().erasures().await.unwrap().erasures.len(), 2);
}
