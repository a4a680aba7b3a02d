//! `quorate bench log`: every figure of the log.

use std::{
    fs,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use quorate_consistency::{
    event_sourcing::{Aggregate, Aggregates, Decider, Metadata},
    event_types,
};
use quorate_data::{
    event::Position,
    store::{AppendBatch, ExpectedVersion, Query, ReadLog, ReadStream, Store, sqlite},
};
use quorate_runtime::Env;
use serde::{Deserialize, Serialize};

use super::{
    Options,
    events::{self, STREAMS, event, stream},
    failed,
    figure::Figures,
    over_http, segment, slow_disk,
};
use crate::exit::Failure;

/// How long and how often.
#[derive(Clone, Copy)]
pub(super) struct Effort {
    pub(super) rounds: usize,
    pub(super) span: Duration,
    /// Events of the large store.
    pub(super) many: u64,
}

impl Effort {
    pub(super) fn of(options: &Options) -> Self {
        let usual = match options.quick {
            true => Self { rounds: 1, span: Duration::from_millis(300), many: 50_000 },
            false => Self { rounds: 5, span: Duration::from_millis(1_500), many: 1_000_000 },
        };
        Self {
            rounds: options.rounds.map_or(usual.rounds, NonZeroUsize::get),
            span: options.span.unwrap_or(usual.span),
            // Each stream gets as many as every other.
            many: options.events.unwrap_or(usual.many) / STREAMS as u64 * STREAMS as u64,
        }
    }
}

/// A folder that is removed with everything in it.
pub(super) struct Folder(PathBuf);

impl Folder {
    pub(super) fn make(below: &Path) -> Result<Self, Failure> {
        let folder = below.join(format!("quorate-bench-{}", std::process::id()));
        fs::create_dir_all(&folder).map_err(|cause| failed("making a folder", cause))?;
        Ok(Self(folder))
    }

    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Measures everything that `options` want.
pub(super) async fn measure(env: &Env, options: &Options) -> Result<Figures, Failure> {
    let folder = Folder::make(&options.folder)?;
    let effort = Effort::of(options);
    let mut figures = Figures::default();
    if options.wants("limit/") {
        limits(&folder, effort, &mut figures)?;
    }
    slow_disk::install();
    for (disk, delay) in [("in-process", Duration::ZERO), ("slow-disk", Duration::from_millis(1))] {
        slow_disk::slow_down(delay);
        for producers in [1, 16, 256] {
            let name = format!("append/{disk}/{producers}");
            if options.wants(&name) {
                appends(env, &folder, effort, producers, &name, &mut figures).await?;
            }
        }
    }
    slow_disk::slow_down(Duration::ZERO);
    if options.wants("load-100-append/") {
        loads(env, &folder, effort, &mut figures).await?;
    }
    if options.wants("read/") || options.wants("open/") || options.wants("size/") {
        large(env, &folder, effort, &mut figures).await?;
    }
    if options.wants("http/") || options.wants("rss/") {
        over_http::measure(&folder, effort, &mut figures).await?;
    }
    Ok(figures)
}

pub(super) async fn open(env: &Env, path: PathBuf) -> Result<Store, Failure> {
    sqlite::open(env, sqlite::Config::at(path)).await.map_err(|cause| failed("opening a store", cause))
}

async fn close(store: &Store) -> Result<(), Failure> {
    store.close().await.map_err(|cause| failed("closing a store", cause))
}

fn limits(folder: &Folder, effort: Effort, figures: &mut Figures) -> Result<(), Failure> {
    let (count, megabytes) = if effort.rounds == 1 { (200, 64) } else { (2_000, 512) };
    let path = folder.file("limit");
    let latency = segment::sync_latency(&path, count).map_err(|cause| failed("syncing a file", cause))?;
    figures.put("limit/sync", "µs", &[latency], None);
    let write = segment::sequential_write(&path, megabytes).map_err(|cause| failed("writing a file", cause))?;
    figures.put("limit/sequential-write", "MB/s", &[write], None);
    Ok(())
}

async fn appends(
    env: &Env,
    folder: &Folder,
    effort: Effort,
    producers: usize,
    name: &str,
    figures: &mut Figures,
) -> Result<(), Failure> {
    let store = open(env, folder.file(&format!("{}.db", name.replace('/', "-")))).await?;
    let (mut limit, mut ours) = (Vec::new(), Vec::new());
    let (mut syncs, mut events) = (0, 0);
    for _ in 0..effort.rounds {
        let path = folder.file("segment");
        let bare = segment::appends(&path, producers, effort.span).await;
        limit.push(bare.map_err(|cause| failed("writing a segment", cause))?);
        let before = (slow_disk::syncs(), store.head().get());
        ours.push(events::appends(&store, producers, effort.span).await?);
        syncs += slow_disk::syncs() - before.0;
        events += store.head().get() - before.1;
    }
    figures.put(name, "events/s", &ours, Some(&limit));
    figures.put(&format!("{name}/syncs-per-event"), "syncs", &[syncs as f64 / events.max(1) as f64], None);
    close(&store).await
}

/// Load a hundred events, then append one at exactly the version that was read.
async fn loads(env: &Env, folder: &Folder, effort: Effort, figures: &mut Figures) -> Result<(), Failure> {
    let store = open(env, folder.file("load.db")).await?;
    events::fill(&store, "load", STREAMS, 100).await?;
    for callers in [1, 16] {
        let mut values = Vec::new();
        for _ in 0..effort.rounds {
            let of_call = store.clone();
            let call = move |caller: usize, n: u64| {
                let store = of_call.clone();
                // Each caller has streams of its own: nobody meets anybody.
                let s = caller + callers * (n as usize % (STREAMS / callers));
                async move { load_and_append(&store, s, caller, n).await }
            };
            values.push(events::rate(callers, effort.span, call).await?);
        }
        figures.put(&format!("load-100-append/{callers}"), "1/s", &values, None);
    }
    let accounts = Aggregates::of(Counter).open(&store).await.map_err(|cause| failed("opening aggregates", cause))?;
    let mut values = Vec::new();
    for _ in 0..effort.rounds {
        let accounts = accounts.clone();
        let call = move |caller: usize, n: u64| {
            let accounts = accounts.clone();
            let s = (n as usize * 16 + caller) % STREAMS;
            async move {
                accounts.handle(s, (), Metadata::default()).await.map(|_| ()).map_err(|cause| format!("{cause:?}"))
            }
        };
        values.push(events::rate(16, effort.span, call).await?);
    }
    figures.put("load-100-append/cached/16", "1/s", &values, None);
    close(&store).await
}

async fn load_and_append(store: &Store, s: usize, caller: usize, n: u64) -> Result<(), String> {
    let name = stream("load", s);
    let page = store.read_stream(ReadStream::backward(name.clone(), 100)).await.map_err(|cause| cause.to_string())?;
    let bytes: usize = page.events.iter().filter_map(|event| event.data()).map(<[u8]>::len).sum();
    if page.events.len() < 100 || bytes == 0 {
        return Err(format!("{} events were loaded from {name}", page.events.len()));
    }
    let batch = AppendBatch::to(name, ExpectedVersion::Exact(page.head.version), vec![event(store, caller, n)]);
    store.append(batch).await.map(|_| ()).map_err(|cause| cause.to_string())
}

/// Counts how often it was asked to: the smallest decider there is.
struct Counter;

#[derive(Serialize, Deserialize)]
enum Counted {
    Once { note: String },
}

event_types! {
    Counted {
        Once = "bench.counted" version 1,
    }
}

impl Decider for Counter {
    type Command = ();
    type Event = Counted;
    type State = u64;
    type Rejection = std::convert::Infallible;

    fn decide(&self, _: &u64, (): &()) -> Result<Vec<Counted>, Self::Rejection> {
        Ok(vec![Counted::Once { note: "x".repeat(160) }])
    }

    fn evolve(count: u64, _: &Counted) -> u64 {
        count + 1
    }
}

impl Aggregate for Counter {
    const CATEGORY: &'static str = "counter";
}

/// What needs a store with many events: reading, opening, size.
async fn large(env: &Env, folder: &Folder, effort: Effort, figures: &mut Figures) -> Result<(), Failure> {
    let path = folder.file("large.db");
    let store = open(env, path.clone()).await?;
    let begun = Instant::now();
    events::fill(&store, "large", STREAMS, effort.many / STREAMS as u64).await?;
    figures.put(
        "append/in-process/batches-of-100",
        "events/s",
        &[effort.many as f64 / begun.elapsed().as_secs_f64()],
        None,
    );
    close(&store).await?;
    let bytes = fs::metadata(&path).map_err(|cause| failed("looking at the store", cause))?.len();
    figures.put("size/bytes-per-event", "bytes", &[bytes as f64 / effort.many as f64], None);
    let (mut opened, mut catch_up, mut streams) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..effort.rounds {
        let begun = Instant::now();
        let store = open(env, path.clone()).await?;
        opened.push(begun.elapsed().as_secs_f64() * 1e3);
        catch_up.push(read_everything(&store).await?);
        streams.push(read_streams(&store).await?);
        close(&store).await?;
    }
    figures.put("open/cold", "ms", &opened, None);
    figures.put("read/catch-up", "events/s", &catch_up, None);
    figures.put("read/stream", "events/s", &streams, None);
    Ok(())
}

pub(super) async fn read_everything(store: &Store) -> Result<f64, Failure> {
    let (begun, head) = (Instant::now(), store.head());
    let (mut after, mut bytes) = (Position::ZERO, 0);
    while after < head {
        let read = ReadLog { query: Query::EVERYTHING, after, limit: 4_096 };
        let page = store.read_log(read).await.map_err(|cause| failed("reading the log", cause))?;
        bytes += page.events.iter().filter_map(|event| event.data()).map(<[u8]>::len).sum::<usize>();
        after = page.scanned;
    }
    if bytes == 0 {
        return Err(failed("reading the log", "it was empty"));
    }
    Ok(head.get() as f64 / begun.elapsed().as_secs_f64())
}

async fn read_streams(store: &Store) -> Result<f64, Failure> {
    let (begun, mut read) = (Instant::now(), 0);
    for s in 0..100 {
        let page = store.read_stream(ReadStream::forward(stream("large", s * 7 % STREAMS), 1_000)).await;
        read += page.map_err(|cause| failed("reading a stream", cause))?.events.len();
    }
    Ok(read as f64 / begun.elapsed().as_secs_f64())
}
