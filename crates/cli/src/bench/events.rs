//! The events that benches append, and the producers that do it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use quorate_data::{
    event::{NewEvent, Tags},
    store::{AppendBatch, ExpectedVersion, Store},
};
use quorate_foundations::name::Name;

use super::failed;
use crate::exit::Failure;

/// Streams that producers spread their events over.
pub(super) const STREAMS: usize = 1_000;

/// About 350 bytes: a time-ordered id, two tags, 200 bytes of JSON.
pub(super) fn event(store: &Store, producer: usize, n: u64) -> NewEvent {
    let data = format!(r#"{{"producer":{producer},"n":{n},"note":"{}"}}"#, "x".repeat(160));
    let tags = Tags::new([format!("producer:{producer}"), format!("item:{}", n % 1_000)]).unwrap_or_default();
    NewEvent::new(store.event_id(), "/bench", "bench.happened").json(data.into_bytes()).tagged(tags)
}

/// The name of the `n`-th stream of a kind.
pub(super) fn stream(kind: &str, n: usize) -> Name {
    Name::new(format!("{kind}-{n}")).unwrap_or_else(|_| unreachable!("the name is short and plain"))
}

/// How often `work` is done per second by `callers` at once, each one after the other.
pub(super) async fn rate<F, W>(callers: usize, span: Duration, work: F) -> Result<f64, Failure>
where
    F: Fn(usize, u64) -> W + Clone + Send + 'static,
    W: Future<Output = Result<(), String>> + Send,
{
    let (count, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let begun = Instant::now();
    let call = |caller| {
        let (work, count, stop) = (work.clone(), count.clone(), stop.clone());
        tokio::spawn(async move {
            let mut n = 0;
            while !stop.load(Ordering::Relaxed) {
                work(caller, n).await?;
                n += 1;
                count.fetch_add(1, Ordering::Relaxed);
            }
            Ok::<_, String>(())
        })
    };
    let tasks: Vec<_> = (0..callers).map(call).collect();
    tokio::time::sleep(span).await;
    let rate = count.load(Ordering::Relaxed) as f64 / begun.elapsed().as_secs_f64();
    stop.store(true, Ordering::Relaxed);
    for task in tasks {
        let ended = task.await.map_err(|cause| failed("waiting for a caller", cause))?;
        ended.map_err(|cause| failed("calling", cause))?;
    }
    Ok(rate)
}

/// Single events, each acknowledged durable, over all streams.
pub(super) async fn appends(store: &Store, producers: usize, span: Duration) -> Result<f64, Failure> {
    let store = store.clone();
    rate(producers, span, move |producer, n| {
        let store = store.clone();
        async move {
            let stream = stream("account", (n as usize * producers + producer) % STREAMS);
            let batch = AppendBatch::to(stream, ExpectedVersion::Any, vec![event(&store, producer, n)]);
            store.append(batch).await.map(|_| ()).map_err(|cause| cause.to_string())
        }
    })
    .await
}

/// Fills `streams` streams of `kind` with `events` events each, a hundred streams at a time.
pub(super) async fn fill(store: &Store, kind: &str, streams: usize, events: u64) -> Result<(), Failure> {
    for n in 0..events {
        for chunk in 0..streams.div_ceil(100) {
            let mut batch = AppendBatch::default();
            for s in chunk * 100..streams.min(chunk * 100 + 100) {
                batch = batch.and_to(stream(kind, s), ExpectedVersion::Any, vec![event(store, s, n)]);
            }
            store.append(batch).await.map_err(|cause| failed("filling the store", cause))?;
        }
    }
    Ok(())
}
