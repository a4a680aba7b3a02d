//! The disk fails, at any moment: what was acknowledged is there once, what was refused is not, and a failed sync is the end.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    time::Duration,
};

use quorate_data::{
    event::{NewEvent, Position, Version},
    materialized_view::{
        ViewName, Views,
        declared::{Document, Format},
    },
    store::{
        AppendError, ExpectedVersion, OpenError, ReadStream, Retire, Retry, SqlError, Store, StoreError, TransactError,
        sqlite::{self as embedded, Config},
    },
    subscription::{self, OrderKey, Pull, Subscription, Subscriptions},
};
use quorate_runtime::{Env, EnvParts};
use rusqlite::ffi;
use tempfile::TempDir;

use crate::{
    faulty::{self, What, Which},
    shared::{self, batch, event},
};

/// A store on a disk that fails when it is told to. If the store ends its process, the disk is gone with it.
struct Bench {
    folder: TempDir,
    ended: Arc<Mutex<Vec<String>>>,
}

impl Bench {
    fn new() -> Self {
        let bench = Self { folder: tempfile::tempdir().unwrap(), ended: Arc::default() };
        faulty::mend(bench.folder.path());
        bench
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("store.db")
    }

    async fn open(&self) -> Result<Store, OpenError> {
        let (ended, folder) = (self.ended.clone(), self.folder.path().to_owned());
        let fatal = move |why: &str| {
            ended.lock().unwrap().push(why.to_owned());
            faulty::on(&folder, |what, _| Some(code(what)));
        };
        let env = Env::from_parts(EnvParts { fatal: Arc::new(fatal), ..Env::real().into_parts() });
        embedded::open(&env, Config::at(self.path())).await
    }

    /// From now on operations for which `fails` gives a code fail with it.
    fn fail(&self, fails: impl FnMut(What, Which) -> Option<i32> + Send + 'static) {
        faulty::on(self.folder.path(), fails);
    }

    fn mend(&self) {
        faulty::mend(self.folder.path());
    }

    fn ended(&self) -> Vec<String> {
        self.ended.lock().unwrap().clone()
    }

    /// Opens the store again on a disk that works, once the store before is gone.
    async fn again(&self, store: Option<Store>) -> Store {
        drop(store);
        for _ in 0..2_000 {
            // Whatever the last one still does at its end must not reach a disk that is mended.
            let lock = shared::with_suffix(&self.path(), ".lock");
            let file = std::fs::File::options().create(true).truncate(false).write(true).open(lock).unwrap();
            if file.try_lock().is_ok() {
                drop(file);
                self.mend();
                return self.open().await.unwrap();
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("the store stays open");
    }
}

/// A code with which an operation can fail.
fn code(what: What) -> i32 {
    match what {
        What::Open => ffi::SQLITE_CANTOPEN,
        What::Read => ffi::SQLITE_IOERR_READ,
        What::Write => ffi::SQLITE_IOERR_WRITE,
        What::Sync => ffi::SQLITE_IOERR_FSYNC,
        What::Truncate => ffi::SQLITE_IOERR_TRUNCATE,
        What::Map(_) => ffi::SQLITE_IOERR_SHMMAP,
        What::Delete => ffi::SQLITE_IOERR_DELETE,
    }
}

fn large(id: impl ToString, bytes: usize) -> NewEvent {
    NewEvent { data: Some(vec![b'x'; bytes].into()), ..event(id) }
}

/// The events of stream `s`, by their ids, and how often each is there.
async fn ids(store: &Store) -> BTreeMap<String, usize> {
    let mut found = BTreeMap::new();
    let mut read = ReadStream::forward("s".parse().unwrap(), 1_000);
    loop {
        let page = store.read_stream(read.clone()).await.unwrap();
        page.events.iter().for_each(|event| *found.entry(event.id().to_owned()).or_default() += 1);
        let Some(next) = page.next else { return found };
        read = read.from(next);
    }
}

async fn assert_sound(store: &Store) {
    let verified = store.verify(Arc::new(|_, _| {})).await.unwrap();
    assert!(verified.is_sound(), "{:?}", verified.findings);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_sync_of_a_commit_ends_the_process_and_the_outcome_is_unknown() {
    let bench = Bench::new();
    let store = bench.open().await.unwrap();
    store.append(batch("s", vec![event("before")])).await.unwrap();
    bench.fail(|what, which| (what == What::Sync && which == Which::Log).then_some(ffi::SQLITE_IOERR_FSYNC));
    let torn = store.append(batch("s", vec![event("torn")])).await;
    assert!(matches!(torn, Err(AppendError::Store(StoreError::OutcomeUnknown))), "{torn:?}");
    let ended = bench.ended();
    assert!(ended.len() == 1 && ended[0].contains("a sync of"), "{ended:?}");
    // Even if somebody mended the disk: nothing follows a failed sync.
    bench.mend();
    let later = store.append(batch("s", vec![event("later")])).await;
    assert!(matches!(later, Err(AppendError::Store(StoreError::Closed))), "{later:?}");
    let store = bench.again(Some(store)).await;
    let found = ids(&store).await;
    assert!(found.get("before") == Some(&1) && !found.contains_key("later"), "{found:?}");
    store.append(batch("s", vec![event("torn")])).await.unwrap();
    assert_eq!(ids(&store).await.get("torn"), Some(&1));
    assert_sound(&store).await;
}

/// Appends until the log is so long that it is written back; returns how many were acknowledged.
async fn fill_log(store: &Store, done: impl Fn() -> bool) -> usize {
    for n in 0..300 {
        if done() {
            return n;
        }
        store.append(batch("s", vec![large(n, 100_000)])).await.unwrap();
    }
    panic!("300 appends and the log was not written back");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_sync_while_the_log_is_written_back_ends_the_process() {
    let bench = Bench::new();
    let store = bench.open().await.unwrap();
    let (tried, seen) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let try_it = tried.clone();
    bench.fail(move |what, which| {
        let fails = what == What::Sync && which == Which::File;
        try_it.fetch_or(fails, Ordering::Relaxed);
        fails.then_some(ffi::SQLITE_IOERR_FSYNC)
    });
    let mut acknowledged = 0;
    for n in 0..300 {
        match store.append(batch("s", vec![large(n, 100_000)])).await {
            Ok(_) => acknowledged += 1,
            Err(AppendError::Store(StoreError::Closed | StoreError::OutcomeUnknown)) => {
                seen.store(true, Ordering::Relaxed);
                break;
            }
            Err(other) => panic!("{other:?}"),
        }
    }
    assert!(tried.load(Ordering::Relaxed) && seen.load(Ordering::Relaxed));
    assert_eq!(bench.ended().len(), 1, "{:?}", bench.ended());
    let store = bench.again(Some(store)).await;
    assert!(ids(&store).await.len() >= acknowledged);
    assert_sound(&store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_while_the_log_is_written_back_harms_nobody() {
    let bench = Bench::new();
    let store = bench.open().await.unwrap();
    let full = Arc::new(AtomicU64::new(0));
    let count = full.clone();
    bench.fail(move |what, which| {
        (what == What::Write && which == Which::File).then(|| {
            count.fetch_add(1, Ordering::Relaxed);
            ffi::SQLITE_FULL
        })
    });
    let acknowledged = fill_log(&store, || full.load(Ordering::Relaxed) >= 3).await;
    assert_eq!(bench.ended(), Vec::<String>::new());
    bench.mend();
    for n in 0..60 {
        store.append(batch("s", vec![large(format!("after-{n}"), 100_000)])).await.unwrap();
    }
    assert_eq!(ids(&store).await.len(), acknowledged + 60);
    assert_sound(&store).await;
    store.close().await.unwrap();
    assert!(std::fs::metadata(bench.path()).unwrap().len() > (acknowledged as u64 + 60) * 100_000);
    let store = bench.again(None).await;
    assert_eq!(ids(&store).await.len(), acknowledged + 60);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_fails_behind_its_sync_is_unknown_and_not_run_again() {
    for code in [ffi::SQLITE_IOERR_SHMSIZE, ffi::SQLITE_IOERR_SHMMAP] {
        let bench = Bench::new();
        let store = bench.open().await.unwrap();
        // The index of the log grows by a part when its 4,063rd page is noted, which is behind the sync.
        let failed = Arc::new(AtomicU64::new(0));
        let count = failed.clone();
        bench.fail(move |what, _| {
            matches!(what, What::Map(part) if part > 0).then(|| {
                count.fetch_add(1, Ordering::Relaxed);
                code
            })
        });
        let mut unknown = None;
        for n in 0..60 {
            match store.append(batch("s", vec![large(n, 1_000_000)])).await {
                Ok(_) => {}
                Err(AppendError::Store(cause @ StoreError::OutcomeUnknown)) => {
                    assert_eq!(cause.retry(), Retry::Now);
                    unknown = Some(n);
                    break;
                }
                Err(other) => panic!("{other:?}"),
            }
        }
        let unknown = unknown.unwrap();
        assert_eq!(failed.load(Ordering::Relaxed), 1, "it was not run again");
        assert_eq!(bench.ended(), Vec::<String>::new());
        bench.mend();
        // Repeating finds out.
        store.append(batch("s", vec![large(unknown, 1_000_000)])).await.unwrap();
        store.append(batch("s", vec![event("after")])).await.unwrap();
        let found = ids(&store).await;
        assert!(found.len() == unknown + 2 && found.values().all(|times| *times == 1), "{found:?}");
        assert_sound(&store).await;
        let store = bench.again(Some(store)).await;
        assert_eq!(ids(&store).await, found);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_full_inside_a_group_runs_its_members_again_one_by_one() {
    let bench = Bench::new();
    let store = bench.open().await.unwrap();
    store.append(batch("s", vec![event("first")])).await.unwrap();
    // While this unit holds the writer, appends gather to a group.
    let (entered, inside) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    let (entered, released) = (Mutex::new(entered), Mutex::new(released));
    let holding = tokio::spawn({
        let store = store.clone();
        async move {
            store
                .transact(move |_| {
                    entered.lock().unwrap().send(()).unwrap();
                    let _ = released.lock().unwrap().recv_timeout(Duration::from_millis(800));
                    Box::pin(async { Ok::<_, SqlError>(()) })
                })
                .await
        }
    });
    tokio::task::spawn_blocking(move || inside.recv().unwrap()).await.unwrap();
    let appends: Vec<_> = (0..20)
        .map(|n| {
            let store = store.clone();
            tokio::spawn(async move { store.append(batch("s", vec![event(n)])).await })
        })
        .collect();
    while store.statistics().waiting < 20 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let mut writes = 0;
    bench.fail(move |what, which| {
        writes += u32::from(what == What::Write && which == Which::Log);
        (what == What::Write && which == Which::Log && writes == 2).then_some(ffi::SQLITE_FULL)
    });
    let before = store.statistics().commits;
    release.send(()).unwrap();
    holding.await.unwrap().unwrap();
    for append in appends {
        append.await.unwrap().unwrap();
    }
    assert!(store.statistics().commits - before >= 20, "each was run alone");
    let found = ids(&store).await;
    assert!(found.len() == 21 && found.values().all(|times| *times == 1), "{found:?}");
    assert_sound(&store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_transaction_that_a_failed_read_ended_is_kept() {
    let bench = Bench::new();
    let store = bench.open().await.unwrap();
    for sql in [
        "CREATE TABLE note (id INTEGER PRIMARY KEY, text TEXT)",
        "INSERT INTO note (text) WITH RECURSIVE n(v) AS (SELECT 1 UNION ALL SELECT v + 1 FROM n LIMIT 500) \
         SELECT hex(zeroblob(500)) FROM n",
    ] {
        store.transact(move |tx| Box::pin(tx.execute(sql, &[]))).await.unwrap();
    }
    store.close().await.unwrap();
    // A store that was just opened has no page in memory.
    let store = bench.again(None).await;
    let folder = bench.folder.path().to_owned();
    let ended = store
        .transact(move |tx| {
            let folder = folder.clone();
            Box::pin(async move {
                tx.execute("UPDATE note SET text = 'first' WHERE id = 1", &[]).await?;
                faulty::on(&folder, |what, _| (what == What::Read).then_some(ffi::SQLITE_IOERR_READ));
                let failed = tx.execute("UPDATE note SET text = 'all'", &[]).await;
                faulty::mend(&folder);
                assert!(failed.is_err());
                // It goes on as if nothing had been; SQLite has taken the first change back, and ended the transaction.
                assert!(tx.execute("INSERT INTO note (text) VALUES ('outside')", &[]).await.is_err());
                assert!(tx.append(&"s".parse().unwrap(), ExpectedVersion::Any, vec![event("outside")]).await.is_err());
                assert!(tx.read_stream(ReadStream::forward("s".parse().unwrap(), 1)).await.is_err());
                Ok::<_, SqlError>(())
            })
        })
        .await;
    assert!(matches!(ended, Err(TransactError::Store(StoreError::Engine { .. }))), "{ended:?}");
    let sql = "SELECT count(*), sum(length(text)) FROM note";
    let rows = store.query(sql, vec![]).await.unwrap();
    assert_eq!((rows[0].at(0).as_i64(), rows[0].at(1).as_i64()), (Some(500), Some(500_000)));
    assert!(ids(&store).await.is_empty());
    store.append(batch("s", vec![event("after")])).await.unwrap();
    assert_sound(&store).await;
}

/// What a caller was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Done,
    Refused,
    Unknown,
}

fn told(store: Option<&StoreError>) -> Told {
    match store {
        Some(StoreError::OutcomeUnknown) => Told::Unknown,
        _ => Told::Refused,
    }
}

/// A little of everything; says of each event what its caller was told.
async fn work(store: &Store) -> BTreeMap<String, Told> {
    let mut outcomes = BTreeMap::new();
    let append = async |id: String, event: NewEvent| {
        let told = match store.append(batch("s", vec![event])).await {
            Ok(_) => Told::Done,
            Err(AppendError::Store(cause)) => told(Some(&cause)),
            Err(other) => panic!("{id}: {other:?}"),
        };
        (id, told)
    };
    for n in 0..3 {
        outcomes.extend([append(n.to_string(), event(n)).await]);
    }
    outcomes.extend([append("large".into(), large("large", 30_000)).await]);
    outcomes.extend([append("secret".into(), event("secret").about("anna")).await]);
    let at_once: Vec<_> = (0..4).map(|n| append(format!("many-{n}"), event(format!("many-{n}")))).collect();
    outcomes.extend(futures_util::future::join_all(at_once).await);
    let create = "CREATE TABLE IF NOT EXISTS note (id INTEGER PRIMARY KEY, text TEXT)";
    let unit = store
        .transact(move |tx| {
            Box::pin(async move {
                tx.execute(create, &[]).await?;
                tx.append(&"s".parse().unwrap(), ExpectedVersion::Any, vec![event("unit")])
                    .await
                    .map_err(|_| SqlError::Failed { what: "it".into() })?;
                tx.execute("INSERT INTO note (text) VALUES ('unit')", &[]).await?;
                Ok::<_, SqlError>(())
            })
        })
        .await;
    let unit = match unit {
        Ok(_) => Told::Done,
        Err(TransactError::Store(cause)) => told(Some(&cause)),
        Err(_) => Told::Refused,
    };
    outcomes.insert("unit".into(), unit);
    // Forgetting moves everything into the index first, and empties the log.
    store.append(batch("old", vec![event("old-1"), event("old-2")])).await.ok();
    store.retire("old".parse().unwrap(), Retire::Truncate { before: Version::new(2) }).await.ok();
    outcomes.extend([append("last".into(), event("last")).await]);
    outcomes
}

async fn check(bench: &Bench, store: Store, outcomes: &BTreeMap<String, Told>, place: &str) {
    let found = ids(&store).await;
    for (id, told) in outcomes {
        let times = found.get(id).copied().unwrap_or(0);
        let right = match told {
            Told::Done => times == 1,
            Told::Refused => times == 0,
            Told::Unknown => times <= 1,
        };
        assert!(right, "{place}: `{id}` was {told:?} and is there {times} times; {:?}", bench.ended());
    }
    let notes = store.query("SELECT count(*) FROM note", vec![]).await;
    let notes = notes.map_or(0, |rows| rows[0].at(0).as_i64().unwrap());
    assert_eq!(notes, i64::from(found.contains_key("unit")), "{place}: the unit is there as a whole or not at all");
    let verified = store.verify(Arc::new(|_, _| {})).await.unwrap();
    assert!(verified.is_sound(), "{place}: {:?}", verified.findings);
    store.append(batch("s", vec![event("at last")])).await.unwrap();
    store.close().await.unwrap();
}

/// Fails operation `nth` of a small life of a store, with `code`, and those behind it if it `stays` so. Says whether
/// there was such an operation.
async fn sweep(nth: u64, stays: bool, code: fn(What) -> i32) -> bool {
    let bench = Bench::new();
    let (mut count, failed) = (0, Arc::new(Mutex::new(None)));
    let first = failed.clone();
    bench.fail(move |what, which| {
        count += 1;
        let fails = if stays { count > nth } else { count == nth + 1 };
        fails.then(|| {
            first.lock().unwrap().get_or_insert((what, which));
            code(what)
        })
    });
    let (store, outcomes) = match bench.open().await {
        Ok(store) => {
            let outcomes = work(&store).await;
            if nth.is_multiple_of(2) {
                store.close().await.ok();
            }
            (Some(store), outcomes)
        }
        Err(_) => (None, BTreeMap::new()),
    };
    let store = bench.again(store).await;
    let failed = failed.lock().unwrap().take();
    check(&bench, store, &outcomes, &format!("operation {nth} ({failed:?}), stays: {stays}")).await;
    failed.is_some()
}

/// Runs the sweep over every operation, several lives at once.
async fn sweep_all(stays: bool, code: fn(What) -> i32) {
    const AT_ONCE: u64 = 8;
    for nth in (0..2_000).step_by(AT_ONCE as usize) {
        let lives = (nth..nth + AT_ONCE).map(|nth| sweep(nth, stays, code));
        if !futures_util::future::join_all(lives).await.contains(&true) {
            assert!(nth > 100, "only {nth} operations");
            return;
        }
    }
    panic!("the life is not small");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_failed_operation_loses_nothing_acknowledged_and_keeps_nothing_refused() {
    sweep_all(false, code).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_full_disk_loses_nothing_acknowledged_and_keeps_nothing_refused() {
    let full = |what| match what {
        What::Write => ffi::SQLITE_FULL,
        What::Map(_) => ffi::SQLITE_IOERR_SHMSIZE,
        other => code(other),
    };
    sweep_all(false, full).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_dies_at_any_operation_loses_nothing_acknowledged_and_keeps_nothing_refused() {
    sweep_all(true, code).await;
}

async fn workers(store: &Store) -> Subscription {
    let subscriptions = Subscriptions::open(store).await.unwrap();
    let config = subscription::Config { key: OrderKey::Unordered, ..subscription::Config::default() };
    subscriptions.create(&"workers".parse().unwrap(), config).await.unwrap()
}

/// Whether anna is forgotten: in the log, and in what a consumer had said of her. Half of it is neither.
async fn is_forgotten(store: &Store) -> bool {
    let page = store.read_stream(ReadStream::forward("s".parse().unwrap(), 100)).await.unwrap();
    let gone =
        |subject| page.events.iter().filter(|event| event.data_subject() == Some(subject) && event.erased()).count();
    let parked = workers(store).await.parked(Position::ZERO, 10).await.unwrap();
    let said: Vec<&str> = parked.iter().map(|parked| &*parked.failures[0].reason).collect();
    match (gone("anna"), gone("bert"), &said[..]) {
        (3, 0, ["", "cannot help bert"]) => true,
        (0, 0, ["cannot help anna", "cannot help bert"]) => false,
        half => panic!("{half:?}"),
    }
}

/// Erases a data subject while operation `nth` fails, and those behind it if the disk `stays` so. Says whether there was
/// such an operation.
async fn erase_on_a_failing_disk(nth: u64, stays: bool) -> bool {
    let bench = Bench::new();
    let store = bench.open().await.unwrap();
    for n in 0..6 {
        let subject = ["anna", "bert"][n % 2];
        store.append(batch("s", vec![event(n).about(subject)])).await.unwrap();
    }
    let consumer = workers(&store).await;
    for delivery in consumer.pull(Pull::of(2)).await.unwrap() {
        let reason = format!("cannot help {}", delivery.event.data_subject().unwrap());
        consumer.park(&[delivery.lease], &reason).await.unwrap();
    }
    drop(consumer);
    let (mut count, failed) = (0, Arc::new(Mutex::new(None)));
    let first = failed.clone();
    bench.fail(move |what, which| {
        count += 1;
        let fails = if stays { count > nth } else { count == nth + 1 };
        fails.then(|| {
            first.lock().unwrap().get_or_insert((what, which));
            code(what)
        })
    });
    let told = store.erase("anna").await;
    let known = store.data_subject("anna").await;
    let failed_at = *failed.lock().unwrap();
    let place = format!("operation {nth} ({failed_at:?}), stays: {stays}, told {told:?}, known {known:?}");
    if let Ok(known) = &known {
        assert_eq!(known.is_erased(), told.is_ok(), "{place}");
    }
    if nth.is_multiple_of(2) {
        store.close().await.ok();
    }
    let store = bench.again(Some(store)).await;
    let forgotten = is_forgotten(&store).await;
    assert!(forgotten || told.is_err(), "{place}: it was answered");
    assert_eq!(store.data_subject("anna").await.unwrap().is_erased(), forgotten, "{place}");
    store.erase("anna").await.unwrap();
    assert!(is_forgotten(&store).await, "{place}: a repeat finishes");
    assert_eq!(store.erasures().await.unwrap().erasures.len(), 1, "{place}: however often it was asked for");
    assert_sound(&store).await;
    store.close().await.unwrap();
    let keys = shared::raw(&shared::with_suffix(&bench.path(), ".keys"));
    let living: u32 =
        keys.query_row("SELECT count(*) FROM quorate_key WHERE secret IS NOT NULL", [], |row| row.get(0)).unwrap();
    assert_eq!(living, 1, "{place}: bert's");
    failed_at.is_some()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erasure_is_told_as_done_only_when_it_is_and_a_repeat_finishes_whatever_fails() {
    const AT_ONCE: u64 = 8;
    for stays in [false, true] {
        for nth in (0..1_000).step_by(AT_ONCE as usize) {
            let lives = (nth..nth + AT_ONCE).map(|nth| erase_on_a_failing_disk(nth, stays));
            if !futures_util::future::join_all(lives).await.contains(&true) {
                assert!(nth > 20, "only {nth} operations");
                break;
            }
            assert!(nth < 900, "an erasure is not so much work");
        }
    }
}

/// A view that counts events.
const COUNTING: &str = r#"
    view = "counts"
    version = 1

    [tables.count]
    key = "stream"
    columns = { stream = "text", n = "integer" }

    [[on]]
    bind = { stream = "$.stream" }
    sql = "INSERT INTO count (stream, n) VALUES (:stream, 1) ON CONFLICT (stream) DO UPDATE SET n = count.n + 1"
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_declared_view_that_a_full_disk_kept_from_starting_is_started_when_there_is_space() {
    let bench = Bench::new();
    let name = ViewName::new("counts").unwrap();
    let store = bench.open().await.unwrap();
    let views = Views::open(&store).await.unwrap();
    views.declare(Document::read(COUNTING, Format::Toml).unwrap()).await.unwrap();
    views.shut_down().await;
    drop(views);
    store.close().await.unwrap();

    let store = bench.again(Some(store)).await;
    let views = Views::open(&store).await.unwrap();
    bench.fail(|what, _| (what == What::Write).then_some(ffi::SQLITE_FULL));
    let failed = views.start_declared().await.expect("whoever opens the store goes on");
    let [one] = failed.as_slice() else { panic!("{failed:?}") };
    assert_eq!((&one.view, one.version), (&name, 1));
    let view = views.get(&name).await.unwrap();
    assert_eq!(view.describe().await.unwrap().not_started, [(1, one.reason.clone())]);

    bench.mend();
    store.append(batch("s", vec![event(1), event(2)])).await.unwrap();
    view.wait(store.token(), Duration::from_secs(20)).await.unwrap();
    assert!(view.describe().await.unwrap().not_started.is_empty());
    let counted = view.query("SELECT n FROM {count}", Vec::new()).await.unwrap();
    assert_eq!(counted.rows[0].at(0).as_i64(), Some(2));
    views.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rooms_whose_tables_are_there_are_opened_on_a_full_disk() {
    let bench = Bench::new();
    let store = bench.open().await.unwrap();
    drop(Subscriptions::open(&store).await.unwrap());
    drop(Views::open(&store).await.unwrap());
    store.close().await.unwrap();
    let store = bench.again(Some(store)).await;
    bench.fail(|what, _| (what == What::Write).then_some(ffi::SQLITE_FULL));
    Subscriptions::open(&store).await.map(drop).expect("opening subscriptions writes nothing");
    Views::open(&store).await.map(drop).expect("opening views writes nothing");
    let refused = store.append(batch("s", vec![event(1)])).await;
    assert!(matches!(refused, Err(AppendError::Store(StoreError::DiskFull))), "{refused:?}");
}
