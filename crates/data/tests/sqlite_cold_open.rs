//! How long a large store takes to open: measured and printed, judged elsewhere.
#![expect(clippy::disallowed_methods, reason = "a test looks at the store from outside: its files, its processes")]

mod sqlite;

use std::time::Instant;

use quorate_data::event::Tags;
use sqlite::{Folder, batch, event};

#[tokio::test(flavor = "multi_thread")]
async fn a_million_events_open_with_everything_in_reach() {
    const EVENTS: u64 = 1_000_000;
    const BATCH: u64 = 5_000;
    let folder = Folder::new();
    let store = folder.store().await;
    let begun = Instant::now();
    for n in 0..EVENTS / BATCH {
        let tags = Tags::new([format!("batch:{n}")]).unwrap();
        let events = (0..BATCH).map(|m| event(format!("{n}-{m}")).tagged(tags.clone())).collect();
        store.append(batch(&format!("s-{}", n % 97), events)).await.unwrap();
    }
    println!("appended {EVENTS} events in {:?}", begun.elapsed());
    store.close().await.unwrap();
    let bytes = std::fs::metadata(folder.file()).unwrap().len();
    // Out of the page cache, where the system lets us.
    let synced = std::process::Command::new("sync").status().is_ok_and(|status| status.success());
    let dropped = synced && std::fs::write("/proc/sys/vm/drop_caches", "1").is_ok();
    let begun = Instant::now();
    let store = folder.store().await;
    let opened = begun.elapsed();
    let page = store.read_stream(quorate_data::store::ReadStream::backward("s-3".parse().unwrap(), 1)).await.unwrap();
    let kind = if dropped { "cold" } else { "with a warm page cache" };
    println!("opened {EVENTS} events ({bytes} bytes) {kind} in {opened:?}, first read after {:?}", begun.elapsed());
    assert_eq!(store.head().get(), EVENTS);
    assert_eq!(page.events.len(), 1);
    assert!(
        store.append(batch("s-3", vec![event("3-0").tagged(Tags::new(["batch:3"]).unwrap())])).await.unwrap().repeated
    );
}
