//! The words that the claims are told in.

use quorate_foundations::name::Name;

use super::super::{
    AppendBatch, AppendError, Appended, ExpectedVersion, Limits, LogPage, Query, ReadLog, ReadStream, Store, StoreError,
};
use crate::event::{NewEvent, Position, Recorded, Tags, Version};

/// A stream's name.
pub(super) fn stream(name: &str) -> Name {
    name.parse().unwrap_or_else(|cause| panic!("`{name}` should be a name: {cause}"))
}

/// An event with data of its own.
pub(super) fn event(id: impl ToString) -> NewEvent {
    let id = id.to_string();
    let data = format!("{{\"of\": {id:?}}}");
    NewEvent::new(id, "/conformance", "thing.happened").json(data)
}

/// Events with the ids `prefix-from` up to, not including, `prefix-to`.
pub(super) fn events(prefix: &str, range: std::ops::Range<u64>) -> Vec<NewEvent> {
    range.map(|n| event(format!("{prefix}-{n}"))).collect()
}

/// An event of `kind` with `tags`.
pub(super) fn tagged(id: impl ToString, kind: &str, tags: &[&str]) -> NewEvent {
    let tags = Tags::new(tags).unwrap_or_else(|cause| panic!("these should be tags: {cause}"));
    NewEvent { kind: kind.into(), ..event(id) }.tagged(tags)
}

/// Appends whatever the version is.
pub(super) async fn append(store: &Store, to: &str, events: Vec<NewEvent>) -> Result<Appended, AppendError> {
    store.append(AppendBatch::to(stream(to), ExpectedVersion::Any, events)).await
}

/// Appends on an expectation.
pub(super) async fn append_at(
    store: &Store,
    to: &str,
    expected: ExpectedVersion,
    events: Vec<NewEvent>,
) -> Result<Appended, AppendError> {
    store.append(AppendBatch::to(stream(to), expected, events)).await
}

/// All events of a stream, oldest first, page by page.
pub(super) async fn all_of(store: &Store, name: &str) -> Result<Vec<Recorded>, StoreError> {
    let mut read = ReadStream::forward(stream(name), store.limits().page_events.min(1_000));
    let mut found = Vec::new();
    loop {
        let page = store.read_stream(read.clone()).await?;
        found.extend(page.events);
        match page.next {
            Some(next) => read = read.from(next),
            None => return Ok(found),
        }
    }
}

/// The ids of a stream's events, oldest first.
pub(super) async fn ids_of(store: &Store, name: &str) -> Result<Vec<String>, StoreError> {
    Ok(all_of(store, name).await?.iter().map(|event| event.id().to_owned()).collect())
}

/// One page of the log.
pub(super) async fn page(store: &Store, query: Query, after: u64, limit: usize) -> Result<LogPage, StoreError> {
    store.read_log(ReadLog { query, after: Position::new(after), limit }).await
}

/// The whole log, page by page, with the positions checked: dense from 1 to the head.
pub(super) async fn whole_log(store: &Store) -> Result<Vec<Recorded>, StoreError> {
    let mut log: Vec<Recorded> = Vec::new();
    loop {
        let page = page(store, Query::EVERYTHING, log.len() as u64, store.limits().page_events.min(1_000)).await?;
        for event in page.events {
            assert_eq!(event.position().get(), log.len() as u64 + 1, "positions are dense");
            log.push(event);
        }
        assert_eq!(page.scanned.get(), log.len() as u64, "a page of everything scans what it returns");
        if page.scanned == page.head {
            return Ok(log);
        }
    }
}

/// Small limits that let a claim fill a page.
pub(super) fn limits(change: impl FnOnce(&mut Limits)) -> Limits {
    let mut limits = Limits::default();
    change(&mut limits);
    limits
}

/// Fails unless verifying finds nothing.
pub(super) async fn assert_sound(store: &Store) -> Result<(), StoreError> {
    let verified = store.verify(std::sync::Arc::new(|_, _| {})).await?;
    assert!(verified.is_sound(), "nothing should be wrong, but: {:?}", verified.findings);
    assert_eq!(verified.events, store.head().get(), "every event is looked at");
    Ok(())
}

pub(super) const fn version(n: u64) -> Version {
    Version::new(n)
}

/// The versions of events.
pub(super) fn versions(events: &[Recorded]) -> Vec<u64> {
    events.iter().map(|event| event.version().get()).collect()
}

/// The positions of events.
pub(super) fn positions(events: &[Recorded]) -> Vec<u64> {
    events.iter().map(|event| event.position().get()).collect()
}
