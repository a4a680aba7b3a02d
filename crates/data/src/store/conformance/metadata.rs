//! Streams' metadata, and the rules in it.

use std::time::Duration;

use super::{
    super::{
        AppendError, Direction, ExpectedVersion, InvalidMetadata, Limits, MetadataError, ReadStream, Retire, Rules,
        SetMetadata, Store, StreamMetadata, TransactError,
    },
    Outcome, Place,
    vocabulary::{all_of, append, append_at, assert_sound, event, events, stream, version, versions, whole_log},
};
use crate::event::{Stub, Version};

fn keeping(max_count: Option<u64>, max_age: Option<Duration>) -> StreamMetadata {
    StreamMetadata { rules: Rules { max_count, max_age }, ..StreamMetadata::default() }
}

fn owned_by(owner: &str) -> StreamMetadata {
    StreamMetadata { values: [("owner".to_owned(), owner.to_owned())].into(), ..StreamMetadata::default() }
}

async fn set(store: &Store, metadata: StreamMetadata) -> Result<Version, MetadataError> {
    store.set_metadata(stream("s"), ExpectedVersion::Any, metadata).await
}

pub(super) async fn metadata_is_set_on_the_condition_of_its_version(place: &dyn Place) -> Outcome {
    let store = place.open(Limits::default()).await;
    let put = async |expected, owner| store.set_metadata(stream("s"), expected, owned_by(owner)).await;
    assert_eq!(store.metadata(stream("s")).await?, SetMetadata::default());
    assert_eq!(put(ExpectedVersion::NoStream, "a").await?, version(1));
    for (expected, fits) in [
        (ExpectedVersion::NoStream, false),
        (ExpectedVersion::Exact(version(2)), false),
        (ExpectedVersion::Exact(version(1)), true),
        (ExpectedVersion::StreamExists, true),
        (ExpectedVersion::Any, true),
    ] {
        match put(expected, "b").await {
            Ok(_) => assert!(fits, "{expected}"),
            Err(MetadataError::Conflict { actual, .. }) => assert!(!fits && actual == version(1), "{expected}"),
            Err(other) => return Err(other.into()),
        }
    }
    let look = async |store: &Store| {
        let found = store.metadata(stream("s")).await?;
        assert_eq!(found, SetMetadata { version: version(4), metadata: owned_by("b") });
        assert_eq!(store.stream_head(&stream("s")).await?.metadata, version(4));
        assert!(store.streams("", None, 10).await?.is_empty(), "metadata make no stream");
        append_at(store, "s", ExpectedVersion::Any, vec![event("first")]).await?;
        Ok::<_, AppendError>(assert_sound(store).await?)
    };
    look(&store).await?;
    place.crash(store).await;
    let store = place.open(Limits::default()).await;
    assert_eq!(store.metadata(stream("s")).await?.metadata, owned_by("b"));
    assert_eq!(store.stream_head(&stream("s")).await?.metadata, version(4));
    Ok(assert_sound(&store).await?)
}

pub(super) async fn values_commit_with_their_transaction(place: &dyn Place) -> Outcome {
    let store = place.open(Limits::default()).await;
    let aborted: Result<(), _> = store
        .transact(|tx| {
            Box::pin(async move {
                let set = tx.set_metadata(&stream("s"), ExpectedVersion::NoStream, owned_by("a")).await;
                assert_eq!(set.map_err(|e| e.to_string())?, version(1));
                let seen = tx.metadata(&stream("s")).await.map_err(|e| e.to_string())?;
                assert_eq!(seen, SetMetadata { version: version(1), metadata: owned_by("a") });
                Err("no".to_owned())
            })
        })
        .await;
    assert!(matches!(aborted, Err(TransactError::Aborted(_))), "{aborted:?}");
    assert_eq!(store.metadata(stream("s")).await?, SetMetadata::default());
    let done = store.transact(|tx| {
        Box::pin(async move {
            tx.append(&stream("s"), ExpectedVersion::Any, events("f", 0..2)).await.map_err(|e| e.to_string())?;
            let set = tx.set_metadata(&stream("s"), ExpectedVersion::NoStream, owned_by("b")).await;
            assert_eq!(set.map_err(|e| e.to_string())?, version(1));
            // What is refused changes nothing, and the transaction goes on.
            let refused = tx.set_metadata(&stream("s"), ExpectedVersion::NoStream, owned_by("c")).await;
            assert!(matches!(refused, Err(MetadataError::Conflict { .. })), "{refused:?}");
            let page = tx.read_stream(ReadStream::forward(stream("s"), 9)).await.map_err(|e| e.to_string())?;
            Ok::<_, String>(page.head)
        })
    });
    let head = done.await.map_err(|e| e.to_string())?;
    assert_eq!((head.version, head.metadata), (version(2), version(1)));
    assert_eq!(store.metadata(stream("s")).await?.metadata, owned_by("b"));
    assert_eq!(store.streams("", None, 10).await?[0].head.metadata, version(1));
    Ok(assert_sound(&store).await?)
}

pub(super) async fn of_those_who_set_metadata_at_once_each_sees_the_one_before(place: &dyn Place) -> Outcome {
    let store = place.open(Limits::default()).await;
    let setters = (0..8).map(|n| {
        let store = store.clone();
        async move {
            let appended = append(&store, "s", vec![event(n.to_string())]).await.map(drop);
            let set = store.set_metadata(stream("s"), ExpectedVersion::Any, owned_by(&n.to_string())).await;
            appended.map_err(|e| e.to_string())?;
            set.map_err(|e| e.to_string())
        }
    });
    let mut seen = futures_util::future::try_join_all(setters).await?;
    seen.sort_unstable();
    assert_eq!(seen, (1..=8).map(version).collect::<Vec<_>>());
    let head = store.stream_head(&stream("s")).await?;
    assert_eq!((head.version, head.metadata), (version(8), version(8)));
    let late = store.set_metadata(stream("s"), ExpectedVersion::Exact(version(7)), owned_by("late")).await;
    assert!(matches!(late, Err(MetadataError::Conflict { .. })), "{late:?}");
    Ok(assert_sound(&store).await?)
}

pub(super) async fn metadata_beyond_a_limit_or_of_a_closed_stream_is_refused(place: &dyn Place) -> Outcome {
    let store = place.open(Limits::default()).await;
    let refused = set(&store, keeping(Some(0), None)).await;
    assert!(matches!(refused, Err(MetadataError::Invalid(InvalidMetadata::MaxCount))), "{refused:?}");
    let refused = set(&store, keeping(None, Some(Duration::ZERO))).await;
    assert!(matches!(refused, Err(MetadataError::Invalid(InvalidMetadata::MaxAge))), "{refused:?}");
    assert_eq!(store.metadata(stream("s")).await?, SetMetadata::default());
    set(&store, owned_by("a")).await?;
    store.retire(stream("s"), Retire::Tombstone { expected: ExpectedVersion::Any }).await?;
    let refused = set(&store, owned_by("b")).await;
    assert!(matches!(refused, Err(MetadataError::Tombstoned { .. })), "{refused:?}");
    assert_eq!(store.metadata(stream("s")).await?.metadata, owned_by("a"));
    Ok(assert_sound(&store).await?)
}

pub(super) async fn metadata_commits_with_its_transaction(place: &dyn Place) -> Outcome {
    let store = place.open(Limits::default()).await;
    append(&store, "s", events("e", 0..5)).await?;
    let aborted: Result<(), _> = store
        .transact(|tx| {
            Box::pin(async move {
                let set = tx.set_metadata(&stream("s"), ExpectedVersion::Any, keeping(Some(2), None)).await;
                assert_eq!(set.map_err(|e| e.to_string())?, version(1));
                let page = tx.read_stream(ReadStream::forward(stream("s"), 9)).await.map_err(|e| e.to_string())?;
                assert_eq!(versions(&page.events), [4, 5]);
                assert_eq!(tx.metadata(&stream("s")).await.map_err(|e| e.to_string())?.version, version(1));
                Err("no".to_owned())
            })
        })
        .await;
    assert!(matches!(aborted, Err(TransactError::Aborted(_))), "{aborted:?}");
    assert_eq!(versions(&all_of(&store, "s").await?), [1, 2, 3, 4, 5]);
    assert_eq!(store.metadata(stream("s")).await?, SetMetadata::default());
    let done = store.transact(|tx| {
        Box::pin(async move {
            tx.append(&stream("s"), ExpectedVersion::Any, events("f", 0..1)).await.map_err(|e| e.to_string())?;
            let set = tx.set_metadata(&stream("s"), ExpectedVersion::NoStream, keeping(Some(2), None)).await;
            set.map_err(|e| e.to_string())
        })
    });
    assert_eq!(done.await.map_err(|e| e.to_string())?, version(1));
    assert_eq!(versions(&all_of(&store, "s").await?), [5, 6]);
    Ok(assert_sound(&store).await?)
}

pub(super) async fn only_the_newest_events_that_max_count_allows_are_read(place: &dyn Place) -> Outcome {
    let store = place.open(Limits::default()).await;
    append(&store, "s", events("e", 0..10)).await?;
    set(&store, keeping(Some(3), None)).await?;
    let look = async |store: &Store, last: u64| {
        let expected = [last - 2, last - 1, last];
        assert_eq!(versions(&all_of(store, "s").await?), expected);
        let head = store.stream_head(&stream("s")).await?;
        assert_eq!((head.first.get(), head.version.get()), (last - 2, last));
        let back = ReadStream { direction: Direction::Backward, ..ReadStream::forward(stream("s"), 9) };
        let page = store.read_stream(back).await?;
        assert_eq!(versions(&page.events), [last, last - 1, last - 2]);
        assert_eq!(page.next, None);
        assert_eq!(store.streams("", None, 9).await?[0].head.first.get(), last - 2);
        Ok::<_, AppendError>(())
    };
    look(&store, 10).await?;
    append_at(&store, "s", ExpectedVersion::Exact(version(10)), events("f", 0..2)).await?;
    look(&store, 12).await?;
    assert!(whole_log(&store).await?.iter().all(|event| event.stub().is_none()), "nothing is forgotten yet");
    place.crash(store).await;
    let store = place.open(Limits::default()).await;
    look(&store, 12).await?;
    set(&store, StreamMetadata::default()).await?;
    assert_eq!(all_of(&store, "s").await?.len(), 12, "a rule that is lifted hides nothing");
    Ok(assert_sound(&store).await?)
}

pub(super) async fn events_older_than_max_age_are_not_read(place: &dyn Place) -> Outcome {
    // Much longer than an append and a read take, also on a machine that has more to do.
    const AGE: Duration = Duration::from_secs(2);
    let store = place.open(Limits::default()).await;
    append(&store, "s", events("e", 0..3)).await?;
    set(&store, keeping(None, Some(Duration::from_secs(3_600)))).await?;
    assert_eq!(versions(&all_of(&store, "s").await?), [1, 2, 3]);
    store.env().sleep(AGE + Duration::from_millis(100)).await;
    append(&store, "s", events("f", 0..2)).await?;
    set(&store, keeping(None, Some(AGE))).await?;
    assert_eq!(versions(&all_of(&store, "s").await?), [4, 5]);
    assert_eq!(store.stream_head(&stream("s")).await?.first, version(4));
    store.env().sleep(AGE + Duration::from_millis(100)).await;
    let head = store.stream_head(&stream("s")).await?;
    assert_eq!((head.first, head.version), (version(6), version(5)), "all of them are too old");
    append_at(&store, "s", ExpectedVersion::Exact(version(5)), events("g", 0..1)).await?;
    assert_eq!(versions(&all_of(&store, "s").await?), [6]);
    assert_eq!(store.scavenge().await?.events, 5);
    Ok(assert_sound(&store).await?)
}

pub(super) async fn a_scavenge_forgets_what_rules_no_longer_keep(place: &dyn Place) -> Outcome {
    let store = place.open(Limits::default()).await;
    for n in 0..10 {
        append(&store, "s", events(&format!("s-{n}"), 0..2)).await?;
        append(&store, "t", events(&format!("t-{n}"), 0..1)).await?;
    }
    assert_eq!(store.scavenge().await?.events, 0);
    set(&store, keeping(Some(5), None)).await?;
    let done = store.scavenge().await?;
    assert_eq!((done.streams, done.events), (1, 15));
    assert_eq!(store.scavenge().await?.events, 0, "once is enough");
    let look = async |store: &Store| {
        let log = whole_log(store).await?;
        assert_eq!(log.len(), 30);
        for event in &log {
            let gone = event.stream() == "s" && event.version() <= version(15);
            assert_eq!(event.stub(), gone.then_some(Stub::Truncated), "{event:?}");
        }
        assert_eq!(versions(&all_of(store, "s").await?), [16, 17, 18, 19, 20]);
        Ok::<_, AppendError>(assert_sound(store).await?)
    };
    look(&store).await?;
    set(&store, StreamMetadata::default()).await?;
    look(&store).await?;
    place.crash(store).await;
    Ok(look(&place.open(Limits::default()).await).await?)
}
