//! The log over HTTP.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{io::AsyncWriteExt as _, sync::Mutex};

use super::{
    events, failed,
    figure::Figures,
    log::{Effort, Folder},
    node::{Connection, Node, find, post},
};
use crate::exit::Failure;

fn event(caller: usize, n: u64) -> String {
    let note = "x".repeat(160);
    let id = uuid::Builder::from_unix_timestamp_millis(
        n,
        &(caller as u128).to_le_bytes()[..10].try_into().unwrap_or_default(),
    )
    .into_uuid();
    format!(
        r#"{{"specversion":"1.0","id":"{id}","source":"/bench","type":"bench.happened","tags":"caller:{caller} item:{}","data":{{"n":{n},"note":"{note}"}}}}"#,
        n % 1000
    )
}

/// Calls that share nothing but the node: one connection each.
async fn calls<F>(address: &str, callers: usize, effort: Effort, request: F) -> Result<Vec<f64>, Failure>
where
    F: Fn(usize, u64) -> Vec<u8> + Clone + Send + Sync + 'static,
{
    let mut connections = BTreeMap::new();
    for caller in 0..callers {
        let connection = Connection::open(address).await.map_err(|cause| failed("connecting", cause))?;
        connections.insert(caller, Arc::new(Mutex::new(connection)));
    }
    let connections = Arc::new(connections);
    let mut values = Vec::new();
    for round in 0..effort.rounds as u64 {
        let (connections, request) = (connections.clone(), request.clone());
        let call = move |caller: usize, n: u64| {
            let connection = connections[&caller].clone();
            let request = request(caller, round << 32 | n);
            async move {
                let (status, body) = connection.lock().await.call(&request).await?;
                if status < 300 { Ok(()) } else { Err(format!("{status}: {}", String::from_utf8_lossy(&body))) }
            }
        };
        values.push(events::rate(callers, effort.span, call).await?);
    }
    Ok(values)
}

/// Measures what needs a node.
pub(super) async fn measure(folder: &Folder, effort: Effort, figures: &mut Figures) -> Result<(), Failure> {
    let node = Node::start(folder)?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    figures.put("rss/idle", "MB", &[node.resident()?], None);
    let address = node.address.clone();
    for callers in [1, 16, 64] {
        let single = calls(&address, callers, effort, |caller, n| {
            post(
                &format!("/v1/streams/http-{}/events", (n as usize * 64 + caller) % 1000),
                "application/cloudevents+json",
                &event(caller, n),
            )
        });
        figures.put(&format!("http/append/{callers}"), "events/s", &single.await?, None);
    }
    let batches = calls(&address, 16, effort, |caller, n| {
        let events: Vec<String> = (0..100).map(|k| event(caller + 100, n * 100 + k)).collect();
        let path = format!("/v1/streams/batch-{}/events", (n as usize * 16 + caller) % 1000);
        post(&path, "application/cloudevents-batch+json", &format!("[{}]", events.join(",")))
    });
    let events: Vec<f64> = batches.await?.into_iter().map(|rate| rate * 100.0).collect();
    figures.put("http/append/batches-of-100", "events/s", &events, None);
    figures.put(
        "http/catch-up",
        "events/s",
        &[catch_up(&address).await.map_err(|cause| failed("catching up over HTTP", cause))?],
        None,
    );
    let micros = sse_latency(&address, effort).await.map_err(|cause| failed("following the log", cause))?;
    figures.put("http/sse-latency/p50", "µs", &[micros[micros.len() / 2]], None);
    figures.put("http/sse-latency/p99", "µs", &[micros[micros.len() * 99 / 100]], None);
    figures.put("rss/after-load", "MB", &[node.resident()?], None);
    Ok(())
}

/// Events per second of reading the whole log page by page.
async fn catch_up(address: &str) -> Result<f64, String> {
    let mut connection = Connection::open(address).await?;
    let (begun, mut after, mut read) = (Instant::now(), 0, 0);
    loop {
        let request = format!("GET /v1/events?after={after}&limit=1000 HTTP/1.1\r\nhost: localhost\r\n\r\n");
        let (status, body) = connection.call(request.as_bytes()).await?;
        if status != 200 {
            return Err(format!("{status}: {}", String::from_utf8_lossy(&body)));
        }
        let events = memchr::memmem::find_iter(&body, br#""logposition":""#).count();
        if events == 0 || read >= 500_000 {
            return Ok(read as f64 / begun.elapsed().as_secs_f64());
        }
        read += events;
        after += events;
    }
}

/// Microseconds from sending an append to seeing its event on a subscription, sorted.
async fn sse_latency(address: &str, effort: Effort) -> Result<Vec<f64>, String> {
    let count = if effort.rounds == 1 { 100 } else { 2_000 };
    let mut appending = Connection::open(address).await?;
    let mut following = Connection::open(address).await?;
    let stream = "sse-latency";
    let subscribe =
        format!("GET /v1/streams/{stream}/subscribe HTTP/1.1\r\nhost: localhost\r\naccept: text/event-stream\r\n\r\n");
    following.stream.write_all(subscribe.as_bytes()).await.map_err(|cause| cause.to_string())?;
    while find(&following.buffer, b"caught-up").is_none() {
        following.more().await?;
    }
    let mut micros = Vec::with_capacity(count);
    for n in 0..count as u64 {
        following.buffer.clear();
        let request = post(&format!("/v1/streams/{stream}/events"), "application/cloudevents+json", &event(999, n));
        let begun = Instant::now();
        let (status, _) = appending.call(&request).await?;
        if status != 201 {
            return Err(format!("an append was answered {status}"));
        }
        while find(&following.buffer, b"logposition").is_none() {
            following.more().await?;
        }
        micros.push(begun.elapsed().as_secs_f64() * 1e6);
    }
    micros.sort_unstable_by(f64::total_cmp);
    Ok(micros)
}
