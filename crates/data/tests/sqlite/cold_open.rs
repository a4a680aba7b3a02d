//! How long a large store takes to open: measured and printed, judged elsewhere.
//!
//! 100,000 events, or a million with `QUORATE_LONG=1`. Only the store's own file is asked out of the page cache: others
//! work on this machine, too.

use std::{path::Path, process::Command, time::Instant};

use quorate_data::event::Tags;

use crate::shared::{Folder, batch, event};

/// Asks one file out of the page cache; whether that could be asked. The store is closed, so that its pages are clean.
fn forget(file: &Path) -> bool {
    let mut from = std::ffi::OsString::from("if=");
    from.push(file);
    let asked = Command::new("dd").arg(from).args(["iflag=nocache", "count=0", "status=none"]).status();
    asked.is_ok_and(|status| status.success())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_store_opens_with_everything_in_reach() {
    const BATCH: u64 = 5_000;
    let total: u64 = if std::env::var_os("QUORATE_LONG").is_some() { 1_000_000 } else { 100_000 };
    let folder = Folder::new();
    let store = folder.store().await;
    let begun = Instant::now();
    for n in 0..total / BATCH {
        let tags = Tags::new([format!("batch:{n}")]).unwrap();
        let events = (0..BATCH).map(|m| event(format!("{n}-{m}")).tagged(tags.clone())).collect();
        store.append(batch(&format!("s-{}", n % 97), events)).await.unwrap();
    }
    println!("appended {total} events in {:?}", begun.elapsed());
    store.close().await.unwrap();
    let bytes = std::fs::metadata(folder.file()).unwrap().len();
    let forgotten = forget(&folder.file());
    let begun = Instant::now();
    let store = folder.store().await;
    let opened = begun.elapsed();
    let page = store.read_stream(quorate_data::store::ReadStream::backward("s-3".parse().unwrap(), 1)).await.unwrap();
    let kind = if forgotten { "after the system was asked to forget them" } else { "with a warm page cache" };
    println!("opened {total} events ({bytes} bytes) {kind} in {opened:?}, first read after {:?}", begun.elapsed());
    assert_eq!(store.head().get(), total);
    assert_eq!(page.events.len(), 1);
    assert!(
        store.append(batch("s-3", vec![event("3-0").tagged(Tags::new(["batch:3"]).unwrap())])).await.unwrap().repeated
    );
}
