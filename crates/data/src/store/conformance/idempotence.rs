//! Repeating: an append whose reply was lost can be sent again, at any later time.

use futures_util::future::join_all;

use super::{
    super::{AppendBatch, AppendError, Appended, ExpectedVersion, Limits, Retire, Store},
    Outcome, Place,
    vocabulary::{append, append_at, event, events, stream, version, whole_log},
};

/// Appends to two streams, expecting both to be new.
fn batch() -> AppendBatch {
    AppendBatch::to(stream("a"), ExpectedVersion::NoStream, events("a", 0..3)).and_to(
        stream("b"),
        ExpectedVersion::NoStream,
        events("b", 0..2),
    )
}

async fn assert_repeated(store: &Store, first: &Appended) -> Result<(), AppendError> {
    let head = store.head();
    let again = store.append(batch()).await?;
    assert!(again.repeated, "it is known");
    assert_eq!((&again.versions, &again.token), (&first.versions, &first.token), "the answer of the first time");
    assert_eq!(store.head(), head, "a repeat writes nothing");
    Ok(())
}

pub(super) async fn a_repeated_append_answers_as_the_first_time(place: &dyn Place) -> Outcome {
    let store = place.open(Limits::default()).await;
    let first = store.append(batch()).await?;
    assert!(!first.repeated);
    assert_repeated(&store, &first).await?;
    append(&store, "a", events("later", 0..5)).await?;
    assert_repeated(&store, &first).await?;
    let wrong = AppendBatch::to(stream("a"), ExpectedVersion::Exact(version(99)), events("a", 0..3));
    assert!(store.append(wrong).await?.repeated, "what is known is looked at before what is expected");
    let within: Result<Appended, _> = store.transact(|tx| Box::pin(tx.append_batch(batch()))).await;
    assert!(within?.repeated, "also in a transaction");
    Ok(())
}

pub(super) async fn a_repeat_is_known_after_reopening_and_after_a_crash(place: &dyn Place) -> Outcome {
    let store = place.open(Limits::default()).await;
    let first = store.append(batch()).await?;
    place.crash(store).await;
    let store = place.open(Limits::default()).await;
    assert_repeated(&store, &first).await?;
    append(&store, "other", events("uuid", 0..10)).await?;
    store.close().await?;
    let store = place.open(Limits::default()).await;
    assert_repeated(&store, &first).await?;
    append(&store, "a", events("later", 0..5)).await?;
    Ok(assert_repeated(&store, &first).await?)
}

pub(super) async fn a_repeat_is_known_after_truncate_and_tombstone(place: &dyn Place) -> Outcome {
    let store = place.open(Limits::default()).await;
    let first = store.append(batch()).await?;
    store.retire(stream("a"), Retire::Truncate { before: version(3) }).await?;
    assert_repeated(&store, &first).await?;
    store.retire(stream("a"), Retire::Tombstone { expected: ExpectedVersion::Any }).await?;
    store.retire(stream("b"), Retire::Tombstone { expected: ExpectedVersion::Any }).await?;
    assert_repeated(&store, &first).await?;
    place.crash(store).await;
    let store = place.open(Limits::default()).await;
    assert_repeated(&store, &first).await?;
    let other = append(&store, "a", vec![event("new")]).await;
    assert!(matches!(other, Err(AppendError::Tombstoned { .. })), "{other:?}");
    let mut changed = event("a-0");
    changed.data = Some("other".into());
    let reused = append(&store, "a", vec![changed]).await;
    assert!(matches!(reused, Err(AppendError::IdReused { .. })), "a stub still knows its content: {reused:?}");
    Ok(())
}

pub(super) async fn an_id_used_for_other_content_is_refused(place: &dyn Place) -> Outcome {
    let store = place.open(Limits::default()).await;
    append(&store, "s", events("e", 0..3)).await?;
    let mut changes = Vec::new();
    let mut change = |alter: fn(&mut crate::event::NewEvent)| {
        let mut changed = event("e-1");
        alter(&mut changed);
        changes.push(changed);
    };
    change(|event| event.data = Some("{}".into()));
    change(|event| event.data = None);
    change(|event| event.kind = "other".into());
    change(|event| event.subject = Some("s".into()));
    change(|event| event.content_type = None);
    let look = async |store: &Store| {
        for changed in &changes {
            let refused = append(store, "s", vec![changed.clone()]).await;
            match refused {
                Err(AppendError::IdReused { stream, source_uri, id, version: at }) => {
                    let found = (stream.as_str(), source_uri.as_str(), id.as_str(), at);
                    assert_eq!(found, ("s", "/conformance", "e-1", version(2)));
                }
                other => panic!("{changed:?} should be refused: {other:?}"),
            }
        }
    };
    look(&store).await;
    store.close().await?;
    let store = place.open(Limits::default()).await;
    look(&store).await;
    let mut elsewhere = event("e-1");
    elsewhere.source = "/elsewhere".into();
    assert_eq!(append(&store, "s", vec![elsewhere]).await?.version(), version(4), "another source, another event");
    Ok(())
}

pub(super) async fn a_partly_known_batch_is_refused(place: &dyn Place) -> Outcome {
    let store = place.open(Limits::default()).await;
    append(&store, "s", events("e", 0..3)).await?;
    let look = async |store: &Store| {
        let refused = append(store, "s", events("e", 1..5)).await;
        assert!(matches!(refused, Err(AppendError::PartlyKnown { known: 2, total: 4 })), "{refused:?}");
        let two = AppendBatch::to(stream("s"), ExpectedVersion::Any, events("e", 0..1)).and_to(
            stream("t"),
            ExpectedVersion::Any,
            vec![event("new")],
        );
        let refused = store.append(two).await;
        assert!(matches!(refused, Err(AppendError::PartlyKnown { known: 1, total: 2 })), "{refused:?}");
        assert_eq!(store.head().get(), 3);
    };
    look(&store).await;
    store.close().await?;
    look(&place.open(Limits::default()).await).await;
    Ok(())
}

pub(super) async fn the_same_id_in_another_stream_is_another_event(place: &dyn Place) -> Outcome {
    let store = place.open(Limits::default()).await;
    for name in ["s", "t", "s-1", "S"] {
        let appended = append_at(&store, name, ExpectedVersion::NoStream, vec![event("same")]).await?;
        assert!(!appended.repeated);
    }
    store.close().await?;
    let store = place.open(Limits::default()).await;
    assert!(!append(&store, "u", vec![event("same")]).await?.repeated);
    assert!(append(&store, "t", vec![event("same")]).await?.repeated);
    Ok(())
}

pub(super) async fn concurrent_repeats_write_once(place: &dyn Place) -> Outcome {
    let store = place.open(Limits::default()).await;
    for round in 0..20 {
        let name = format!("s-{round}");
        let same = || append_at(&store, &name, ExpectedVersion::NoStream, events("e", 0..2));
        let answers = join_all((0..8).map(|_| same())).await.into_iter().collect::<Result<Vec<_>, _>>()?;
        assert_eq!(answers.iter().filter(|answer| !answer.repeated).count(), 1);
        assert!(answers.iter().all(|answer| answer.token == answers[0].token && answer.version() == version(2)));
    }
    assert_eq!(whole_log(&store).await?.len(), 40);
    Ok(())
}
