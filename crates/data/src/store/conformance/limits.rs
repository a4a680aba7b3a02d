//! Limits: each has a name, and going beyond is an error that says it.

use std::time::Duration;

use futures_util::future::join_all;

use super::{
    super::{
        AppendBatch, AppendError, ExpectedVersion, Query, QueryItem, ReadStream, SqlError, Store, StoreError,
        TransactError,
    },
    Outcome, Place,
    vocabulary::{append, event, events, ids_of, limits, page, stream, whole_log},
};
use crate::event::{NewEvent, Position};

pub(super) async fn each_limit_of_an_append_is_named(place: &dyn Place) -> Outcome {
    let small = limits(|limits| {
        (limits.event_bytes, limits.batch_events, limits.batch_bytes) = (1_000, 5, 3_000);
    });
    let store = place.open(small).await;
    let sized = |id: &str, bytes: usize| NewEvent { data: Some(vec![b'x'; bytes].into()), ..event(id) };
    let too_many_items = Query::of((0..101).map(|n| QueryItem::types([n.to_string()])));
    let to = |events| AppendBatch::to(stream("s"), ExpectedVersion::Any, events);
    let refused = [
        (to(vec![sized("a", 1_001)]), "1001 bytes"),
        (to(events("e", 0..6)), "5 events"),
        (to((0..4).map(|n| sized(&n.to_string(), 900)).collect()), "3000 bytes"),
        (to(events("e", 0..3)).and_to(stream("t"), ExpectedVersion::Any, events("e", 0..3)), "5 events"),
        (to(events("e", 0..1)).if_none_match(too_many_items, Position::ZERO), "100 items"),
    ];
    for (batch, word) in refused {
        match store.append(batch).await {
            Err(AppendError::Malformed { what }) => assert!(what.contains(word), "`{what}` should name `{word}`"),
            other => panic!("{word}: {other:?}"),
        }
    }
    append(&store, "s", vec![sized("a", 1_000)]).await?;
    append(&store, "s", events("e", 0..5)).await?;
    Ok(())
}

pub(super) async fn a_transaction_that_writes_too_much_is_rolled_back_alone(place: &dyn Place) -> Outcome {
    let small = || limits(|limits| (limits.batch_bytes, limits.unit_bytes) = (20_000, 50_000));
    let store = place.open(small()).await;
    store.transact(|tx| Box::pin(tx.execute("CREATE TABLE note (text TEXT)", &[]))).await?;
    // Maximal appends, one after another; what it makes of their refusal is its own affair.
    let appends = |unit: u64, count: u64| {
        store.transact(move |tx| {
            Box::pin(async move {
                let mut refused = 0;
                for n in 0..count {
                    let large = NewEvent { data: Some(vec![b'x'; 15_000].into()), ..event(format!("{unit}-{n}")) };
                    match tx.append(&stream(&format!("s-{unit}")), ExpectedVersion::Any, vec![large]).await {
                        Ok(_) => {}
                        Err(AppendError::Store(StoreError::TooMuch { max: 50_000, .. })) => refused += 1,
                        Err(other) => return Err(other),
                    }
                }
                Ok(refused)
            })
        })
    };
    let (few, many, others) = tokio::join!(appends(1, 3), appends(2, 200), appends(3, 3));
    assert_eq!((few?, others?), (0, 0), "each transaction counts its own");
    assert!(matches!(many, Err(TransactError::TooLarge { limit: 50_000 })), "{many:?}");
    let insert = "INSERT INTO note (text) VALUES ($1)";
    for (rows, fits) in [(5, true), (6, false)] {
        let inserted = store
            .transact(move |tx| {
                Box::pin(async move {
                    for _ in 0..rows {
                        tx.execute(insert, &["x".repeat(9_000).into()]).await?;
                    }
                    Ok::<_, SqlError>(())
                })
            })
            .await;
        assert_eq!(matches!(inserted, Err(TransactError::TooLarge { .. })), !fits, "{inserted:?}");
        assert_eq!(inserted.is_ok(), fits);
    }
    assert_eq!(store.query("SELECT count(*) FROM note", vec![]).await?[0].at(0).as_i64(), Some(5));
    assert_eq!(ids_of(&store, "s-2").await?.len(), 0, "nothing of it is left");
    store.close().await?;
    let store = place.open(small()).await;
    assert_eq!((ids_of(&store, "s-1").await?.len(), ids_of(&store, "s-3").await?.len()), (3, 3));
    assert_eq!(store.head().get(), 6);
    Ok(())
}

pub(super) async fn pages_and_rows_beyond_the_limit_are_refused(place: &dyn Place) -> Outcome {
    let store = place.open(limits(|limits| (limits.page_events, limits.query_rows) = (10, 4))).await;
    append(&store, "s", events("e", 0..20)).await?;
    let too_much = |refused: &StoreError| matches!(refused, StoreError::TooMuch { max: 10, asked: 11, .. });
    let read = store.read_stream(ReadStream::forward(stream("s"), 11)).await;
    assert!(read.as_ref().is_err_and(too_much), "{read:?}");
    let read = page(&store, Query::EVERYTHING, 0, 11).await;
    assert!(read.as_ref().is_err_and(too_much), "{read:?}");
    let read = store.streams("", None, 11).await;
    assert!(read.as_ref().is_err_and(too_much), "{read:?}");
    assert_eq!(page(&store, Query::EVERYTHING, 0, 10).await?.events.len(), 10);

    let five = "SELECT 1 UNION ALL SELECT 2 UNION ALL SELECT 3 UNION ALL SELECT 4 UNION ALL SELECT 5";
    let rows = store.query(five, vec![]).await;
    assert!(matches!(rows, Err(SqlError::Store(StoreError::TooMuch { max: 4, .. }))), "{rows:?}");
    let rows = store.transact(move |tx| Box::pin(tx.query(five, &[]))).await;
    let named = matches!(rows, Err(TransactError::Aborted(SqlError::Store(StoreError::TooMuch { max: 4, .. }))));
    assert!(named, "{rows:?}");
    assert_eq!(store.query("SELECT 1 UNION ALL SELECT 2", vec![]).await?.len(), 2);
    Ok(())
}

pub(super) async fn a_page_ends_early_when_it_is_full_of_bytes(place: &dyn Place) -> Outcome {
    let store = place.open(limits(|limits| limits.page_bytes = 10_000)).await;
    let large = |n: u64| NewEvent { data: Some(vec![b'x'; 3_000].into()), ..event(n) };
    append(&store, "s", (0..20).map(large).collect()).await?;
    let huge = NewEvent { data: Some(vec![b'x'; 50_000].into()), ..event("huge") };
    append(&store, "s", vec![huge, event("after")]).await?;
    let look = async |store: &Store| {
        let stream_page = store.read_stream(ReadStream::forward(stream("s"), 100)).await?;
        assert!((1..=4).contains(&stream_page.events.len()) && stream_page.next.is_some());
        let log_page = page(store, Query::EVERYTHING, 0, 100).await?;
        assert!((1..=4).contains(&log_page.events.len()) && log_page.scanned < log_page.head);
        assert_eq!(ids_of(store, "s").await?.len(), 22, "one event larger than a page still comes");
        assert_eq!(whole_log(store).await?.len(), 22);
        Ok::<_, StoreError>(())
    };
    look(&store).await?;
    store.close().await?;
    Ok(look(&place.open(limits(|limits| limits.page_bytes = 10_000)).await).await?)
}

pub(super) async fn waiting_writes_beyond_the_limit_are_refused_and_nothing_else(place: &dyn Place) -> Outcome {
    let store = place.open(limits(|limits| limits.waiting_writes = 4)).await;
    let env = store.env().clone();
    let slow = store.transact(move |_| {
        let env = env.clone();
        Box::pin(async move {
            // Whoever runs transactions one after another has to make the others wait.
            let until = env.mono() + Duration::from_millis(200);
            while env.mono() < until {
                std::hint::spin_loop();
            }
            Ok::<_, std::convert::Infallible>(())
        })
    });
    let write = async |n: u64| (n, append(&store, "s", vec![event(n)]).await);
    let (slow, answers) = tokio::join!(slow, join_all((0..64).map(write)));
    slow?;
    let mut accepted = Vec::new();
    for (n, answer) in answers {
        match answer {
            Ok(_) => accepted.push(n.to_string()),
            Err(AppendError::Store(refused @ StoreError::Overloaded { .. })) => {
                assert!(matches!(refused.retry(), super::super::Retry::After(_)));
            }
            Err(other) => return Err(other.into()),
        }
    }
    assert!(!accepted.is_empty(), "some are accepted");
    assert_eq!(ids_of(&store, "s").await?, accepted, "what was accepted is there, what was refused is not");
    Ok(())
}

pub(super) async fn a_query_that_takes_too_long_is_ended(place: &dyn Place) -> Outcome {
    let store = place.open(limits(|limits| limits.unit_time = Duration::from_millis(150))).await;
    let endless =
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000000000) SELECT count(*) FROM n";
    let ended = store.query(endless, vec![]).await;
    assert!(ended.is_err(), "{ended:?}");
    assert_eq!(store.query("SELECT 1", vec![]).await?.len(), 1, "the next one is not in a hurry");
    Ok(())
}

pub(super) async fn a_busy_store_can_be_closed(place: &dyn Place) -> Outcome {
    let store = place.open(limits(|limits| limits.waiting_writes = 2)).await;
    let env = store.env().clone();
    let slow = store.transact(move |_| {
        let env = env.clone();
        Box::pin(async move {
            let until = env.mono() + Duration::from_millis(200);
            while env.mono() < until {
                std::hint::spin_loop();
            }
            Ok::<_, std::convert::Infallible>(())
        })
    });
    let write = join_all((0..16).map(async |n: u64| append(&store, "s", vec![event(n)]).await.is_ok()));
    let (slow, written, closed) = tokio::join!(slow, write, store.close());
    slow?;
    closed?;
    let accepted = written.into_iter().filter(|accepted| *accepted).count();
    let store = place.open(super::super::Limits::default()).await;
    assert_eq!(ids_of(&store, "s").await?.len(), accepted);
    Ok(())
}
