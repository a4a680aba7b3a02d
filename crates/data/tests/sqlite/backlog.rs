//! A damaged page keeps the index from being written: what was appended is there, and memory does not run out.

use std::path::Path;

use quorate_data::{
    event::Position,
    store::{
        AppendError, ArchiveOrder, Direction, Limits, Query, ReadLog, ReadStream, SqlError, Store, StoreError,
        TransactError,
    },
};

use crate::shared::{self, Folder, batch, event};

const PAGE: usize = 4096;

/// The page in which the index of types, tags and categories ends.
fn last_page(path: &Path) -> usize {
    let leaf = "SELECT max(pageno) FROM dbstat WHERE name = 'quorate_term_run' AND pagetype = 'leaf'";
    shared::raw(path).query_row(leaf, [], |row| row.get::<_, u32>(0)).unwrap() as usize
}

/// Changes one byte of a page in place, or puts it right again.
fn flip(path: &Path, page: usize) {
    use std::os::unix::fs::FileExt;
    let (file, at) = (std::fs::File::options().read(true).write(true).open(path).unwrap(), (page - 1) * PAGE + 2_000);
    let mut byte = [0];
    file.read_exact_at(&mut byte, at as u64).unwrap();
    file.write_all_at(&[byte[0] ^ 4], at as u64).unwrap();
}

fn is_stuck(cause: &StoreError) -> bool {
    let damaged = |cause: &StoreError| matches!(cause, StoreError::Corrupt { place, .. } if place.starts_with("page "));
    matches!(cause, StoreError::Stuck { cause, .. } if damaged(cause))
}

#[tokio::test(flavor = "multi_thread")]
async fn appends_are_refused_before_memory_runs_out_while_damage_keeps_the_index_from_being_written() {
    const BATCH: usize = 8_000;
    let folder = Folder::new();
    let store = folder.store().await;
    store.append(batch("s", vec![event("first")])).await.unwrap();
    store.close().await.unwrap();
    let page = last_page(&folder.file());
    flip(&folder.file(), page);
    let store = folder.store().await;
    assert!(store.check_writes().is_ok());
    let append = |store: &Store, n: usize| {
        let events = (0..BATCH).map(|m| event(format!("{n}-{m}"))).collect();
        let store = store.clone();
        async move { store.append(batch("s", events)).await }
    };
    let mut accepted = 0;
    let refused = loop {
        match append(&store, accepted).await {
            Ok(_) => accepted += 1,
            Err(refused) => break refused,
        }
        assert!(accepted * BATCH <= Limits::UNINDEXED_EVENTS + BATCH, "{accepted} batches were taken in");
    };
    assert!(accepted * BATCH >= Limits::UNINDEXED_EVENTS, "{accepted} batches");
    assert!(matches!(&refused, AppendError::Store(cause) if is_stuck(cause)), "{refused:?}");
    assert!(store.check_writes().is_err_and(|cause| is_stuck(&cause)));
    let unit = store.transact(|tx| Box::pin(tx.execute("CREATE TABLE note (id INTEGER)", &[])));
    let refused: Result<(), TransactError<SqlError>> = unit.await.map(|_| ());
    assert!(matches!(&refused, Err(TransactError::Store(cause)) if is_stuck(cause)), "{refused:?}");
    // What was acknowledged is there.
    let events = 1 + (accepted * BATCH) as u64;
    assert_eq!(store.head().get(), events);
    let page_of = store
        .read_stream(ReadStream { direction: Direction::Backward, ..ReadStream::forward("s".parse().unwrap(), 3) })
        .await
        .unwrap();
    assert_eq!(page_of.events[0].position(), Position::new(events));
    let log = ReadLog { query: Query::EVERYTHING, after: Position::new(events - 2), limit: 10 };
    assert_eq!(store.read_log(log).await.unwrap().events.len(), 2);
    // Once the page is what it was, the store goes on.
    flip(&folder.file(), page);
    let order = ArchiveOrder {
        stream: "s".parse().unwrap(),
        before: Some(quorate_data::event::Version::new(2)),
        to: folder.path("s.archive"),
        name: "s.archive".to_owned(),
    };
    store.archive(order).await.unwrap();
    assert!(store.check_writes().is_ok());
    append(&store, accepted).await.unwrap();
    store.close().await.unwrap();
}
