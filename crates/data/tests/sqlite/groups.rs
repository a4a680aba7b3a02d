//! Where a group of writes ends: whoever comes behind much work finds it durable.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex, mpsc},
    time::Duration,
};

use quorate_data::{event::NewEvent, store::Store};

use crate::shared::{Folder, batch, event};

/// Has a transaction that takes `span` and appends `events`, and one behind it, taken by the writer together. Returns where the
/// durable log ends for the second.
async fn seen_behind(store: &Store, span: Duration, events: Vec<NewEvent>) -> u64 {
    let (begun, has_begun) = mpsc::channel();
    let (go_on, may_go_on) = mpsc::channel::<()>();
    let may_go_on = Arc::new(Mutex::new(may_go_on));
    // While it stands still, the others come to wait.
    let of = store.clone();
    let before = tokio::spawn(async move {
        let holding = of.transact(move |_| {
            let _ = begun.send(());
            let _ = may_go_on.lock().unwrap().recv();
            Box::pin(std::future::ready(Ok::<_, Infallible>(())))
        });
        holding.await
    });
    tokio::task::block_in_place(|| has_begun.recv().unwrap());
    let env = store.env().clone();
    let first = store.transact(move |tx| {
        let until = env.mono() + span;
        while env.mono() < until {
            std::hint::spin_loop();
        }
        let appended = batch("s", events.clone());
        Box::pin(async move { tx.append_batch(appended).await })
    });
    let of = store.clone();
    let second = store.transact(move |_| {
        let seen = of.head().get();
        Box::pin(std::future::ready(Ok::<_, Infallible>(seen)))
    });
    let (first, second, ()) = tokio::join!(biased; first, second, async { drop(go_on) });
    before.await.unwrap().unwrap();
    first.unwrap();
    second.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_behind_a_long_one_finds_it_durable() {
    let folder = Folder::new();
    assert_eq!(seen_behind(&folder.store().await, Duration::from_millis(100), vec![event(1)]).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_behind_a_large_one_finds_it_durable() {
    let folder = Folder::new();
    let large = |n: u32| NewEvent { data: Some(vec![b'x'; 1 << 20].into()), ..event(n) };
    assert_eq!(seen_behind(&folder.store().await, Duration::ZERO, (0..5).map(large).collect()).await, 5);
}
