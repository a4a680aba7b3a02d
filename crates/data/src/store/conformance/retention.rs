//! Forgetting: truncate and tombstone.

use super::{
    super::{
        AppendError, Direction, ExpectedVersion, Limits, Query, QueryItem, ReadLog, ReadStream, Retire, Store,
        StoreError, TransactError,
    },
    Outcome, Place,
    vocabulary::{
        all_of, append, append_at, assert_sound, event, events, page, stream, tagged, version, versions, whole_log,
    },
};
use crate::event::{Position, Stub};

/// Thirty events of stream `s`, each followed by one of stream `t`.
async fn fill(store: &Store) -> Result<(), AppendError> {
    for n in 0..30 {
        append(store, "s", vec![tagged(format!("s-{n}"), "kept", &["tag"])]).await?;
        append(store, "t", vec![event(format!("t-{n}"))]).await?;
    }
    Ok(())
}

async fn truncate(store: &Store, before: u64) -> Result<u64, AppendError> {
    Ok(store.retire(stream("s"), Retire::Truncate { before: version(before) }).await?.events)
}

/// The log after `s` was truncated before version 11: 60 places, ten of them stubs.
async fn look_truncated(store: &Store) -> Result<(), StoreError> {
    let log = whole_log(store).await?;
    assert_eq!(log.len(), 60);
    for event in &log {
        let gone = event.stream() == "s" && event.version() < version(11);
        assert_eq!(event.stub(), gone.then_some(Stub::Truncated), "{event:?}");
        assert_eq!(event.data().is_none(), gone, "{event:?}");
        assert_eq!(event.tags_text(), (event.stream() == "s").then_some("tag"), "a stub keeps its attributes");
    }
    let found = page(store, Query::of([QueryItem::tags(["tag"])]), 0, 100).await?;
    assert_eq!(found.events.len(), 30, "stubs keep their place in queries");
    let head = store.stream_head(&stream("s")).await?;
    assert_eq!((head.first, head.version, head.tombstoned), (version(11), version(30), false));
    for (read, expected) in [
        (ReadStream::forward(stream("s"), 3), vec![11, 12, 13]),
        (ReadStream::forward(stream("s"), 2).from(version(5)), vec![11, 12]),
        (ReadStream::forward(stream("s"), 2).from(version(29)), vec![29, 30]),
        (ReadStream::backward(stream("s"), 100), (11..=30).rev().collect()),
        (ReadStream::backward(stream("s"), 100).from(version(12)), vec![12, 11]),
        (ReadStream::backward(stream("s"), 100).from(version(10)), vec![]),
    ] {
        let page = store.read_stream(read.clone()).await?;
        assert_eq!(versions(&page.events), expected, "{read:?}");
        if read.direction == Direction::Backward {
            assert_eq!(page.next, None, "{read:?}");
        }
    }
    assert_eq!(versions(&all_of(store, "t").await?), (1..=30).collect::<Vec<_>>(), "others are untouched");
    Ok(())
}

pub(super) async fn truncated_events_leave_stubs_at_their_positions(place: &dyn Place) -> Outcome {
    let store = place.open(Limits::default()).await;
    fill(&store).await?;
    // Read first, so that whatever a store keeps at hand holds the data.
    assert_eq!(all_of(&store, "s").await?.len(), 30);
    assert_eq!(truncate(&store, 11).await?, 10);
    look_truncated(&store).await?;
    Ok(assert_sound(&store).await?)
}

pub(super) async fn a_tombstoned_stream_is_closed_for_good(place: &dyn Place) -> Outcome {
    let store = place.open(Limits::default()).await;
    fill(&store).await?;
    let tombstone =
        async |store: &Store, name, expected| store.retire(stream(name), Retire::Tombstone { expected }).await;
    let refused = tombstone(&store, "s", ExpectedVersion::Exact(version(29))).await;
    assert!(
        matches!(refused, Err(AppendError::VersionConflict { actual, .. }) if actual == version(30)),
        "{refused:?}"
    );
    assert_eq!(tombstone(&store, "s", ExpectedVersion::Exact(version(30))).await?.events, 30);
    assert_eq!(tombstone(&store, "never", ExpectedVersion::NoStream).await?.events, 0);
    let look = async |store: &Store| {
        for expected in [ExpectedVersion::Any, ExpectedVersion::NoStream, ExpectedVersion::Exact(version(30))] {
            for name in ["s", "never"] {
                let refused = append_at(store, name, expected, vec![event("new")]).await;
                assert!(matches!(refused, Err(AppendError::Tombstoned { .. })), "{name}, {expected}: {refused:?}");
            }
        }
        let page = store.read_stream(ReadStream::forward(stream("s"), 10)).await?;
        assert_eq!((page.events.len(), page.next), (0, None));
        assert!(page.head.tombstoned && page.head.version == version(30) && page.head.first == version(31));
        assert!(store.stream_head(&stream("never")).await?.tombstoned);
        let log = whole_log(store).await?;
        assert_eq!(log.iter().filter(|event| event.stub() == Some(Stub::Tombstoned)).count(), 30);
        assert_eq!(tombstone(store, "s", ExpectedVersion::Any).await?.events, 0, "closing again is harmless");
        Ok::<_, AppendError>(assert_sound(store).await?)
    };
    look(&store).await?;
    place.crash(store).await;
    let store = place.open(Limits::default()).await;
    look(&store).await?;
    store.close().await?;
    Ok(look(&place.open(Limits::default()).await).await?)
}

pub(super) async fn retention_survives_reopening_and_still_verifies(place: &dyn Place) -> Outcome {
    let store = place.open(Limits::default()).await;
    fill(&store).await?;
    store.close().await?;
    let store = place.open(Limits::default()).await;
    truncate(&store, 11).await?;
    place.crash(store).await;
    let store = place.open(Limits::default()).await;
    look_truncated(&store).await?;
    assert_sound(&store).await?;
    store.close().await?;
    let store = place.open(Limits::default()).await;
    look_truncated(&store).await?;
    Ok(assert_sound(&store).await?)
}

pub(super) async fn truncating_twice_and_beyond_the_end_is_harmless(place: &dyn Place) -> Outcome {
    let store = place.open(Limits::default()).await;
    fill(&store).await?;
    assert_eq!(truncate(&store, 0).await?, 0);
    assert_eq!(truncate(&store, 1).await?, 0);
    assert_eq!(truncate(&store, 6).await?, 5);
    assert_eq!(truncate(&store, 6).await?, 0);
    assert_eq!(truncate(&store, 3).await?, 0, "what is forgotten does not come back");
    assert_eq!(truncate(&store, 11).await?, 5);
    look_truncated(&store).await?;
    assert_eq!(truncate(&store, u64::MAX).await?, 20);
    let head = store.stream_head(&stream("s")).await?;
    assert_eq!((head.first, head.version, head.tombstoned), (version(31), version(30), false));
    assert_eq!(all_of(&store, "s").await?.len(), 0);
    let unknown = store.retire(stream("unknown"), Retire::Truncate { before: version(5) }).await?;
    assert_eq!(unknown.events, 0);
    append_at(&store, "unknown", ExpectedVersion::NoStream, vec![event("first")]).await?;
    Ok(assert_sound(&store).await?)
}

pub(super) async fn appending_goes_on_after_a_truncate(place: &dyn Place) -> Outcome {
    let store = place.open(Limits::default()).await;
    fill(&store).await?;
    truncate(&store, 31).await?;
    append_at(&store, "s", ExpectedVersion::Exact(version(30)), events("more", 0..2)).await?;
    assert_eq!(versions(&all_of(&store, "s").await?), [31, 32]);
    store.close().await?;
    let store = place.open(Limits::default()).await;
    append_at(&store, "s", ExpectedVersion::Exact(version(32)), events("again", 0..2)).await?;
    assert_eq!(truncate(&store, 33).await?, 2);
    assert_eq!(versions(&all_of(&store, "s").await?), [33, 34]);
    Ok(assert_sound(&store).await?)
}

pub(super) async fn a_transaction_forgets_events_with_what_else_it_does(place: &dyn Place) -> Outcome {
    let store = place.open(Limits::default()).await;
    fill(&store).await?;
    let refused: Result<(), _> = store
        .transact(|tx| {
            Box::pin(async move {
                tx.append(&stream("s"), ExpectedVersion::Any, vec![event("own")]).await.map_err(|e| e.to_string())?;
                // Of what the transaction appended itself, and of what was there.
                let truncate = Retire::Truncate { before: version(32) };
                let retired = tx.retire(&stream("s"), truncate).await.map_err(|e| e.to_string())?;
                assert_eq!(retired.events, 31);
                let tombstone = Retire::Tombstone { expected: ExpectedVersion::Any };
                tx.retire(&stream("t"), tombstone).await.map_err(|e| e.to_string())?;
                let page = tx.read_stream(ReadStream::forward(stream("s"), 100)).await.map_err(|e| e.to_string())?;
                assert_eq!((page.events.len(), page.head.first, page.head.version), (0, version(32), version(31)));
                let read = ReadLog { query: Query::EVERYTHING, after: Position::ZERO, limit: 100 };
                let log = tx.read_log(read).await.map_err(|e| e.to_string())?.events;
                assert_eq!(log.iter().filter(|event| event.stub().is_some()).count(), 61);
                let late = tx.append(&stream("t"), ExpectedVersion::Any, vec![event("late")]).await;
                assert!(matches!(late, Err(AppendError::Tombstoned { .. })), "{late:?}");
                Err("no".to_owned())
            })
        })
        .await;
    assert!(matches!(&refused, Err(TransactError::Aborted(why)) if why == "no"), "{refused:?}");
    assert_eq!(versions(&all_of(&store, "s").await?), (1..=30).collect::<Vec<_>>(), "nothing of it is left");
    assert!(!store.stream_head(&stream("t")).await?.tombstoned);
    assert!(whole_log(&store).await?.iter().all(|event| event.stub().is_none()));
    let done = store.transact(|tx| {
        Box::pin(async move {
            let retired = tx.retire(&stream("s"), Retire::Truncate { before: version(11) }).await?;
            tx.append(&stream("u"), ExpectedVersion::NoStream, vec![event("noted")]).await?;
            Ok::<_, AppendError>(retired.events)
        })
    });
    assert_eq!(done.await?, 10);
    // Nobody sees half: not at once, not when the data has left the files, not after a crash.
    let look = async |store: &Store| {
        let log = whole_log(store).await?;
        assert_eq!(log.iter().filter(|event| event.stub() == Some(Stub::Truncated)).count(), 10);
        assert!(log.iter().all(|event| event.stub().is_some() == event.data().is_none()));
        assert_eq!(versions(&all_of(store, "s").await?), (11..=30).collect::<Vec<_>>());
        assert_eq!(versions(&all_of(store, "u").await?), [1]);
        Ok::<_, StoreError>(())
    };
    look(&store).await?;
    store.settle(None).await?;
    look(&store).await?;
    assert_sound(&store).await?;
    place.crash(store).await;
    let store = place.open(Limits::default()).await;
    look(&store).await?;
    Ok(assert_sound(&store).await?)
}

pub(super) async fn events_that_are_being_forgotten_are_never_seen_whole(place: &dyn Place) -> Outcome {
    let store = place.open(Limits::default()).await;
    // Data enough for several slices.
    let large = |n: u64| crate::event::NewEvent { data: Some(vec![b'x'; 20_000].into()), ..event(format!("l-{n}")) };
    for n in 0..40 {
        append(&store, "s", (0..5).map(|m| large(n * 5 + m)).collect()).await?;
    }
    let asked = store.transact(|tx| {
        Box::pin(async move { tx.retire(&stream("s"), Retire::Truncate { before: version(200) }).await })
    });
    asked.await?;
    for n in 0..20 {
        let log = whole_log(&store).await?;
        assert_eq!(log.len(), 200 + n);
        assert!(log[..199].iter().all(|event| event.stub() == Some(Stub::Truncated) && event.data().is_none()));
        assert_eq!(versions(&all_of(&store, "s").await?), [200]);
        append(&store, "other", vec![event(n)]).await?;
    }
    place.crash(store).await;
    let store = place.open(Limits::default()).await;
    assert_eq!(versions(&all_of(&store, "s").await?), [200]);
    store.settle(Some(stream("s"))).await?;
    assert!(whole_log(&store).await?[..199].iter().all(|event| event.data().is_none()));
    Ok(assert_sound(&store).await?)
}
