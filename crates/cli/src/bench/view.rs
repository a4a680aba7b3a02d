//! `quorate bench view`: what a view costs, and how far behind it is.
//!
//! The limit of catching up is a bare SQLite loop that writes the same rows in transactions of the same size, with nothing
//! around it: no log to read, no checkpoint, no checks. That of an inline view is the same appends without one.

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use quorate_data::{
    event::Recorded,
    materialized_view::{
        Config, Fold, Folded, RowsQuery, Switch, View, Views,
        declared::{Document, Format},
    },
    store::{AppendBatch, ExpectedVersion, Query, Store},
    view_row,
};
use quorate_runtime::Env;

use super::{
    Options,
    events::{self, STREAMS, event, stream},
    failed,
    figure::Figures,
    log::{Effort, Folder, open},
};
use crate::exit::Failure;

view_row! {
    /// How many events a stream has, and how many bytes.
    struct Count in "count" {
        stream: String,
        events: i64,
        bytes: i64,
    }
}

struct Counts;

impl Fold for Counts {
    const NAME: &'static str = "counts";
    const VERSION: u32 = 1;
    type Row = Count;

    fn query(&self) -> Query {
        Query::EVERYTHING
    }

    fn key(&self, event: &Recorded) -> Option<String> {
        Some(event.stream().to_owned())
    }

    fn fold(&self, count: Option<Count>, event: &Recorded) -> Result<Option<Count>, String> {
        let count = count.unwrap_or_else(|| Count { stream: event.stream().to_owned(), events: 0, bytes: 0 });
        let bytes = i64::try_from(event.data().map_or(0, <[u8]>::len)).unwrap_or(i64::MAX);
        Ok(Some(Count { events: count.events + 1, bytes: count.bytes + bytes, ..count }))
    }
}

/// Appends per second while the lag is measured.
const LOAD: u32 = 5_000;

/// Measures everything that `options` want.
pub(super) async fn measure(env: &Env, options: &Options) -> Result<Figures, Failure> {
    let folder = Folder::make(&options.folder)?;
    let effort = Effort::of(options);
    let mut figures = Figures::default();
    if options.wants("catch-up/") {
        catch_up(env, &folder, effort, options, &mut figures).await?;
    }
    for producers in [1, 16, 64] {
        let name = format!("inline/{producers}");
        if options.wants(&name) {
            inline(env, &folder, effort, producers, &name, &mut figures).await?;
        }
    }
    if options.wants("lag/") {
        lag(env, &folder, effort, &mut figures).await?;
    }
    if options.wants("query/") {
        query(env, &folder, effort, &mut figures).await?;
    }
    Ok(figures)
}

fn wrong(cause: impl std::fmt::Display) -> Failure {
    failed("keeping a view", cause)
}

async fn start(store: &Store, config: Config) -> Result<(Views, View), Failure> {
    let views = Views::open(store).await.map_err(wrong)?;
    let view = views.start(Folded::new(Counts), config).await.map_err(wrong)?;
    Ok((views, view))
}

/// The same rows as [`Counts`] keeps, as anybody would declare them.
const DECLARED: &str = r#"
view = "declared-counts"
version = 1

[tables.count]
key = "stream"
columns = { stream = "text", events = "integer", bytes = "integer" }

[[on]]
type = "bench.happened"
bind = { stream = "$.stream", producer = "$.data.producer" }
sql = """
    INSERT INTO count (stream, events, bytes) VALUES (:stream, 1, :producer)
    ON CONFLICT (stream) DO UPDATE SET events = count.events + 1, bytes = count.bytes + excluded.bytes"""
"#;

/// Events per second that a view takes in which is built on a log that is there: in Rust, and declared.
async fn catch_up(
    env: &Env,
    folder: &Folder,
    effort: Effort,
    options: &Options,
    figures: &mut Figures,
) -> Result<(), Failure> {
    let store = open(env, folder.file("catch-up.db")).await?;
    let many = effort.many / 4;
    events::fill(&store, "account", STREAMS, many / STREAMS as u64).await?;
    let views = Views::open(&store).await.map_err(wrong)?;
    if options.wants("catch-up/rust") {
        let view = views.start(Folded::new(Counts), Config::default()).await.map_err(wrong)?;
        builds(env, folder, effort, (&store, &views, &view), "catch-up/rust", figures).await?;
    }
    if options.wants("catch-up/declared") {
        let document = Document::read(DECLARED, Format::Toml).map_err(wrong)?;
        let declared = views.declare(document).await.map_err(wrong)?;
        let view = views.get(&declared.view).await.map_err(wrong)?;
        builds(env, folder, effort, (&store, &views, &view), "catch-up/declared", figures).await?;
    }
    store.close().await.map_err(wrong)
}

/// Builds of a view, each from the beginning of the log until it is the live one, each behind a bare loop.
async fn builds(
    env: &Env,
    folder: &Folder,
    effort: Effort,
    (store, views, view): (&Store, &Views, &View),
    name: &str,
    figures: &mut Figures,
) -> Result<(), Failure> {
    let count = store.head().get();
    let (mut limit, mut ours) = (Vec::new(), Vec::new());
    view.wait(store.token(), Duration::from_secs(3_600)).await.map_err(wrong)?;
    for _ in 0..effort.rounds {
        let path = folder.file("bare.db");
        let bare = env.run_blocking(move || bare_loop(&path, count)).await;
        limit.push(bare.map_err(|cause| failed("writing rows with bare SQLite", cause))?);
        let begun = Instant::now();
        let build = views.rebuild(view.name(), Switch::WhenCaughtUp).await.map_err(wrong)?;
        while view.describe().await.map_err(wrong)?.live != Some(build) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        ours.push(count as f64 / begun.elapsed().as_secs_f64());
        let old = view.describe().await.map_err(wrong)?.builds;
        for one in old.iter().filter(|one| !one.live) {
            views.drop_build(view.name(), one.build).await.map_err(wrong)?;
        }
    }
    figures.put(name, "events/s", &ours, Some(&limit));
    Ok(())
}

/// Events per second that a loop around SQLite folds into the same rows, a transaction for every 5,000 events.
fn bare_loop(path: &Path, count: u64) -> rusqlite::Result<f64> {
    const BATCH: u64 = 5_000;
    let _ = std::fs::remove_file(path);
    let mut connection = rusqlite::Connection::open(path)?;
    connection.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
         CREATE TABLE count (stream TEXT NOT NULL PRIMARY KEY, events BIGINT NOT NULL, bytes BIGINT NOT NULL)",
    )?;
    let names: Vec<String> = (0..STREAMS).map(|n| stream("account", n).to_string()).collect();
    let begun = Instant::now();
    let mut done = 0;
    while done < count {
        let transaction = connection.transaction()?;
        {
            let mut upsert = transaction.prepare_cached(
                "INSERT INTO count VALUES (?1, 1, ?2)
                 ON CONFLICT (stream) DO UPDATE SET events = events + 1, bytes = bytes + ?2",
            )?;
            for n in done..count.min(done + BATCH) {
                upsert.execute((&names[(n % STREAMS as u64) as usize], 200))?;
            }
        }
        transaction.commit()?;
        done += BATCH;
    }
    let rate = count as f64 / begun.elapsed().as_secs_f64();
    drop(connection);
    for suffix in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(format!("{}{suffix}", path.display()));
    }
    Ok(rate)
}

/// Appends per second with an inline view, beside those without.
async fn inline(
    env: &Env,
    folder: &Folder,
    effort: Effort,
    producers: usize,
    name: &str,
    figures: &mut Figures,
) -> Result<(), Failure> {
    let file = |kind: &str| folder.file(&format!("{kind}-{producers}.db"));
    let (plain, kept) = (open(env, file("plain")).await?, open(env, file("inline")).await?);
    let (_views, view) = start(&kept, Config::inline()).await?;
    view.wait(kept.token(), Duration::from_secs(60)).await.map_err(wrong)?;
    let (mut limit, mut ours) = (Vec::new(), Vec::new());
    for _ in 0..effort.rounds {
        limit.push(events::appends(&plain, producers, effort.span).await?);
        ours.push(events::appends(&kept, producers, effort.span).await?);
    }
    figures.put(name, "events/s", &ours, Some(&limit));
    plain.close().await.map_err(wrong)?;
    kept.close().await.map_err(wrong)
}

/// How long after an append was acknowledged its row could be read, under load.
async fn lag(env: &Env, folder: &Folder, effort: Effort, figures: &mut Figures) -> Result<(), Failure> {
    let store = open(env, folder.file("lag.db")).await?;
    let (_views, view) = start(&store, Config::default()).await?;
    let samples = Arc::new(Mutex::new(Vec::new()));
    let span = effort.span.max(Duration::from_secs(2)) * u32::try_from(effort.rounds).unwrap_or(1);
    let begun = Instant::now();
    let mut tasks = Vec::new();
    let mut n = 0_u32;
    while begun.elapsed() < span {
        let due = begun + Duration::from_secs_f64(f64::from(n) / f64::from(LOAD));
        if let Some(early) = due.checked_duration_since(Instant::now()) {
            tokio::time::sleep(early).await;
        }
        let (store, view, samples) = (store.clone(), view.clone(), samples.clone());
        tasks.push(tokio::spawn(async move {
            let batch = AppendBatch::to(
                stream("account", n as usize % STREAMS),
                ExpectedVersion::Any,
                vec![event(&store, 0, n.into())],
            );
            let appended = store.append(batch).await.map_err(|cause| cause.to_string())?;
            if n.is_multiple_of(16) {
                let acknowledged = Instant::now();
                view.wait(appended.token, Duration::from_secs(60)).await.map_err(|cause| cause.to_string())?;
                let lag = acknowledged.elapsed().as_secs_f64() * 1e3;
                samples.lock().unwrap_or_else(PoisonError::into_inner).push(lag);
            }
            Ok::<_, String>(())
        }));
        n += 1;
    }
    let reached = f64::from(n) / begun.elapsed().as_secs_f64();
    for task in tasks {
        task.await.map_err(wrong)?.map_err(wrong)?;
    }
    let mut lags = std::mem::take(&mut *samples.lock().unwrap_or_else(PoisonError::into_inner));
    lags.sort_unstable_by(f64::total_cmp);
    let at = |share: f64| lags.get((lags.len() as f64 * share) as usize).copied().unwrap_or(f64::NAN);
    figures.put("lag/load", "appends/s", &[reached], Some(&[f64::from(LOAD)]));
    figures.put("lag/p50", "ms", &[at(0.5)], None);
    figures.put("lag/p99", "ms", &[at(0.99)], None);
    store.close().await.map_err(wrong)
}

/// Rows by key and pages, per second, from several readers.
async fn query(env: &Env, folder: &Folder, effort: Effort, figures: &mut Figures) -> Result<(), Failure> {
    let store = open(env, folder.file("query.db")).await?;
    let (_views, view) = start(&store, Config::default()).await?;
    events::fill(&store, "account", STREAMS, 10).await?;
    view.wait(store.token(), Duration::from_secs(600)).await.map_err(wrong)?;
    let (mut keys, mut pages) = (Vec::new(), Vec::new());
    for _ in 0..effort.rounds {
        let by_key = view.clone();
        keys.push(
            events::rate(4, effort.span, move |_, n| {
                let view = by_key.clone();
                async move {
                    let name = stream("account", n as usize % STREAMS);
                    view.row("count", &[name.as_str()], Default::default())
                        .await
                        .map(|_| ())
                        .map_err(|no| no.to_string())
                }
            })
            .await?,
        );
        let by_page = view.clone();
        pages.push(
            events::rate(4, effort.span, move |_, _| {
                let view = by_page.clone();
                async move {
                    let page = RowsQuery::all("count", 100);
                    view.rows(&page, Default::default()).await.map(|_| ()).map_err(|no| no.to_string())
                }
            })
            .await?,
        );
    }
    figures.put("query/by-key", "rows/s", &keys, None);
    figures.put("query/page-of-100", "pages/s", &pages, None);
    store.close().await.map_err(wrong)
}
