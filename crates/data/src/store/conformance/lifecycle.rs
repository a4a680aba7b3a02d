//! A store's life: tokens, the moving head, closing, crashing.

use futures_util::future::join_all;

use super::{
    super::{AppendError, ExpectedVersion, Limits, Query, ReadStream, Retire, Store, StoreError, TransactError},
    Outcome, Place,
    vocabulary::{all_of, append, assert_sound, event, events, ids_of, page, stream, whole_log},
};
use crate::event::Version;

pub(super) async fn tokens_follow_appends(place: &dyn Place) -> Outcome {
    let store = place.open(Limits::default()).await;
    let before = store.token();
    let first = append(&store, "s", events("e", 0..3)).await?;
    let second = append(&store, "t", events("e", 0..2)).await?;
    assert_eq!(first.token.timeline(), store.timeline());
    assert!(before.append() < first.token.append() && first.token.append() < second.token.append());
    assert_eq!(store.token(), second.token, "the newest readable append");
    assert_eq!(first.token.to_string().parse(), Ok(first.token));
    let looked: Result<((), _), TransactError<()>> =
        store.transact_with_token(|_| Box::pin(std::future::ready(Ok(())))).await;
    assert_eq!(looked?.1, second.token, "a transaction without events returns what it saw");
    let wrote = store
        .transact_with_token(|tx| {
            Box::pin(async { tx.append(&stream("s"), Default::default(), events("f", 0..2)).await })
        })
        .await?;
    assert_eq!(wrote.0.token, wrote.1);
    assert_eq!(store.token(), wrote.1);
    Ok(())
}

pub(super) async fn the_head_announces_every_append(place: &dyn Place) -> Outcome {
    let store = place.open(Limits::default()).await;
    let mut head = store.watch_head();
    assert_eq!(head.borrow_and_update().get(), 0);
    for n in 1..=50 {
        append(&store, "s", vec![event(n)]).await?;
        assert!(head.borrow_and_update().get() >= n, "announced before it is acknowledged");
        assert_eq!(all_of(&store, "s").await?.len() as u64, n, "readable as soon as it is acknowledged");
    }
    let follow = async {
        let mut announced = head.borrow_and_update().get();
        // A page may hold more than was announced when it was asked for.
        let mut seen = announced;
        while announced < 250 {
            head.changed().await?;
            let now = head.borrow_and_update().get();
            assert!(now > announced, "the head only moves forward");
            announced = now;
            let page = page(&store, Query::EVERYTHING, seen, 1_000).await?;
            assert!(page.scanned.get() >= now, "what is announced is readable");
            seen = page.scanned.get();
        }
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
    };
    let write = join_all((0..200).map(async |n| append(&store, "t", vec![event(n)]).await));
    let (followed, written) = tokio::join!(follow, write);
    followed?;
    written.into_iter().collect::<Result<Vec<_>, _>>()?;
    Ok(())
}

pub(super) async fn whoever_follows_a_stream_is_woken_by_it_and_by_its_end(place: &dyn Place) -> Outcome {
    let store = place.open(Limits::default()).await;
    let (mut moves, mut other) = (store.watch_stream(&stream("s")), store.watch_stream(&stream("t")));
    for n in 1..=20 {
        append(&store, "s", vec![event(n)]).await?;
        assert!(moves.has_changed()?, "woken before the append is acknowledged");
        moves.mark_unchanged();
    }
    store.retire(stream("s"), Retire::Truncate { before: Version::new(5) }).await?;
    moves.changed().await?;
    store.retire(stream("s"), Retire::Tombstone { expected: ExpectedVersion::Any }).await?;
    moves.changed().await?;
    let mut head = store.watch_head();
    other.mark_unchanged();
    head.mark_unchanged();
    let (closed, stream_woken, woken) = tokio::join!(store.close(), other.changed(), head.changed());
    closed?;
    stream_woken?;
    Ok(woken?)
}

pub(super) async fn a_closed_store_says_so(place: &dyn Place) -> Outcome {
    let store = place.open(Limits::default()).await;
    append(&store, "s", events("e", 0..3)).await?;
    store.close().await?;
    let closed = |cause: &StoreError| matches!(cause, StoreError::Closed);
    let appended = append(&store, "s", vec![event("late")]).await;
    assert!(matches!(&appended, Err(AppendError::Store(cause)) if closed(cause)), "{appended:?}");
    let transacted: Result<(), TransactError<()>> = store.transact(|_| Box::pin(std::future::ready(Ok(())))).await;
    assert!(matches!(&transacted, Err(TransactError::Store(cause)) if closed(cause)), "{transacted:?}");
    let read = store.read_stream(ReadStream::forward(stream("s"), 1)).await;
    assert!(read.as_ref().is_err_and(closed), "{read:?}");
    let read = page(&store, Query::EVERYTHING, 0, 10).await;
    assert!(read.as_ref().is_err_and(closed), "{read:?}");
    let listed = store.streams("", None, 10).await;
    assert!(listed.as_ref().is_err_and(closed), "{listed:?}");
    let queried = store.query("SELECT 1", vec![]).await;
    assert!(queried.is_err(), "{queried:?}");
    let verified = store.verify(std::sync::Arc::new(|_, _| {})).await;
    assert!(verified.as_ref().is_err_and(closed), "{verified:?}");
    let again = store.close().await;
    assert!(again.as_ref().is_err_and(closed), "{again:?}");
    // The one that follows finds everything, at once.
    assert_eq!(ids_of(&place.open(Limits::default()).await, "s").await?.len(), 3);
    Ok(())
}

pub(super) async fn closing_finishes_what_was_accepted(place: &dyn Place) -> Outcome {
    let mut acknowledged = Vec::new();
    for round in 0..20_u64 {
        let store = place.open(Limits::default()).await;
        let write = |from: u64| {
            let write = async |n: u64| (n, append(&store, "s", vec![event(format!("{round}-{n}"))]).await);
            join_all((from..from + 50).map(write))
        };
        let (before, closed, after) = tokio::join!(write(0), store.close(), write(50));
        closed?;
        for (n, answer) in before.into_iter().chain(after) {
            match answer {
                Ok(_) => acknowledged.push(format!("{round}-{n}")),
                Err(AppendError::Store(StoreError::Closed)) => {}
                Err(other) => return Err(other.into()),
            }
        }
    }
    assert_eq!(ids_of(&place.open(Limits::default()).await, "s").await?, acknowledged);
    Ok(())
}

pub(super) async fn an_acknowledged_append_survives_a_crash(place: &dyn Place) -> Outcome {
    let mut store = place.open(Limits::default()).await;
    let mut expected = Vec::new();
    for round in 0..12_u64 {
        let count = if round % 4 == 3 { 3_000 } else { 1 + round * 5 };
        append(&store, "s", events(&round.to_string(), 0..count)).await?;
        append(&store, &format!("own-{round}"), vec![event("own")]).await?;
        expected.extend((0..count).map(|n| format!("{round}-{n}")));
        place.crash(store).await;
        store = place.open(Limits::default()).await;
        assert_eq!(store.head().get(), expected.len() as u64 + round + 1);
        assert_eq!(ids_of(&store, "s").await?, expected, "after crash {round}");
    }
    assert_eq!(whole_log(&store).await?.len(), expected.len() + 12);
    Ok(assert_sound(&store).await?)
}

pub(super) async fn the_timeline_outlives_reopening(place: &dyn Place) -> Outcome {
    let store = place.open(Limits::default()).await;
    let timeline = store.timeline();
    store.close().await?;
    let store = place.open(Limits::default()).await;
    assert_eq!(store.timeline(), timeline);
    place.crash(store).await;
    assert_eq!(place.open(Limits::default()).await.timeline(), timeline);
    Ok(())
}

pub(super) async fn a_sound_store_verifies(place: &dyn Place) -> Outcome {
    let store = place.open(Limits::default()).await;
    assert_sound(&store).await?;
    for n in 0..10 {
        append(&store, &format!("s-{}", n % 3), events(&n.to_string(), 0..900)).await?;
    }
    assert_sound(&store).await?;
    let during = async |store: &Store| {
        for n in 10..20 {
            append(store, &format!("s-{}", n % 3), events(&n.to_string(), 0..300)).await?;
        }
        Ok::<_, AppendError>(())
    };
    let verify = async {
        let verified = store.verify(std::sync::Arc::new(|_, _| {})).await?;
        assert!(verified.is_sound(), "while it is written to: {:?}", verified.findings);
        Ok::<_, StoreError>(())
    };
    let (written, verified) = tokio::join!(during(&store), verify);
    written?;
    verified?;
    store.close().await?;
    Ok(assert_sound(&place.open(Limits::default()).await).await?)
}
