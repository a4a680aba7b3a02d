//! The figures, by the names that `quorate bench log` gives them.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::{
    Log,
    event::{Event, STREAMS, place, stream},
    options::Options,
    rate::rate,
};

/// What was measured, in order.
#[derive(Default)]
pub(crate) struct Figures(Vec<Value>);

impl Figures {
    fn put(&mut self, name: &str, unit: &str, value: f64) {
        self.0.push(json!({ "name": name, "unit": unit, "value": value }));
    }

    pub(crate) fn to_json(&self) -> Value {
        json!({ "results": self.0 })
    }
}

/// A folder that is removed with everything in it.
struct Folder(PathBuf);

impl Folder {
    fn make(below: &Path) -> Result<Self> {
        let folder = below.join(format!("peer-{}", std::process::id()));
        fs::create_dir_all(&folder).with_context(|| format!("{} could not be made", folder.display()))?;
        Ok(Self(folder))
    }

    /// A new store in a folder of its own.
    async fn store<L: Log>(&self, name: &str) -> Result<L> {
        let folder = self.0.join(name.replace('/', "-"));
        fs::create_dir(&folder)?;
        L::open(&folder).await.context("the store could not be opened")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Measures everything that `options` want.
pub(crate) async fn measure<L: Log>(options: &Options) -> Result<Figures> {
    let folder = Folder::make(&options.folder)?;
    let mut figures = Figures::default();
    for producers in [1, 16, 256] {
        let name = format!("append/in-process/{producers}");
        if options.wants(&name) {
            figures.put(&name, "events/s", appends(&folder.store::<L>(&name).await?, producers, options).await?);
        }
    }
    if options.wants("load-100-append") {
        let store = folder.store::<L>("load").await?;
        fill(&store, "load", 100).await?;
        for callers in [1, 16] {
            let name = format!("load-100-append/{callers}");
            if options.wants(&name) {
                figures.put(&name, "1/s", loads(&store, callers, options).await?);
            }
        }
    }
    if options.wants("read/catch-up") {
        figures.put("read/catch-up", "events/s", catch_up(&folder.store::<L>("read").await?, options).await?);
    }
    Ok(figures)
}

/// Single events, each acknowledged durable.
async fn appends<L: Log>(store: &L, producers: usize, options: &Options) -> Result<f64> {
    let store = store.clone();
    let append = move |producer: usize, n: u64| {
        let store = store.clone();
        let (s, version) = place(producers, producer, n);
        async move { store.append(vec![Event::new(stream("account", s), version, producer, n)]).await }
    };
    rate(producers, options.span, append).await
}

/// Load a hundred events, then append one if the stream still is as it was read.
async fn loads<L: Log>(store: &L, callers: usize, options: &Options) -> Result<f64> {
    let store = store.clone();
    let load = move |caller: usize, n: u64| {
        let store = store.clone();
        let (s, _) = place(callers, caller, n);
        async move {
            let loaded = store.load_and_append(Event::new(stream("load", s), 0, caller, n)).await?;
            ensure!(loaded >= 100, "{loaded} events were loaded");
            Ok(())
        }
    };
    rate(callers, options.span, load).await
}

/// Reading everything there is, once.
async fn catch_up<L: Log>(store: &L, options: &Options) -> Result<f64> {
    let each = usize::try_from(options.events)? / STREAMS;
    fill(store, "large", each).await?;
    let begun = Instant::now();
    let read = store.read_everything().await?;
    let elapsed = begun.elapsed();
    let written = (each * STREAMS) as u64;
    ensure!(read == written && read > 0, "{read} of {written} events were read");
    Ok(read as f64 / elapsed.as_secs_f64())
}

/// Gives every stream of `kind` its first event, then every one its second, until each has `events`: a stream's events lie
/// as far apart as they do in life.
async fn fill<L: Log>(store: &L, kind: &str, events: usize) -> Result<()> {
    for n in 0..events {
        let event = |s| Event::new(stream(kind, s), n + 1, s, n as u64);
        store.append((0..STREAMS).map(event).collect()).await.context("filling the store")?;
    }
    Ok(())
}
