//! Statements that would end the whole transaction, as SQL lets them.

use futures_util::future::join_all;

use super::{
    super::{Limits, TransactError},
    Outcome, Place,
    transactions::{Inside, count, run, with_tables},
    vocabulary::{append, assert_sound, event, ids_of, stream},
};

/// Not every engine has such a clause; one that has it must not let it reach beyond the transaction.
const CONFLICT: &str = "INSERT OR ROLLBACK INTO note (id, text) VALUES (1, 'again')";

pub(super) async fn a_conflict_clause_cannot_end_the_transaction_for_others(place: &dyn Place) -> Outcome {
    let store = with_tables(place, Limits::default()).await?;
    run(&store, "INSERT INTO note (text) VALUES ('first')").await?;
    let spoil = async |n: u64| -> Result<(), TransactError<Inside>> {
        store
            .transact(move |tx| {
                Box::pin(async move {
                    tx.append(&stream("spoiled"), Default::default(), vec![event(n)]).await?;
                    tx.execute(CONFLICT, &[]).await?;
                    Ok(())
                })
            })
            .await
    };
    let write = async |n: i64| -> Result<(), TransactError<Inside>> {
        store
            .transact(move |tx| {
                Box::pin(async move {
                    tx.append(&stream("kept"), Default::default(), vec![event(n)]).await?;
                    tx.execute("INSERT INTO note (text) VALUES ($1)", &[format!("kept {n}").into()]).await?;
                    Ok(())
                })
            })
            .await
    };
    let plain = async |n: u64| append(&store, "plain", vec![event(n)]).await;
    let (spoiled, written, appended) =
        tokio::join!(join_all((0..10).map(spoil)), join_all((0..10).map(write)), join_all((0..10).map(plain)));
    for answer in spoiled {
        let own = matches!(
            answer,
            Err(TransactError::Aborted(Inside::Sql(super::super::SqlError::Failed { .. }))
                | TransactError::Constraint { .. })
        );
        assert!(own, "it is told what it did: {answer:?}");
    }
    written.into_iter().collect::<Result<Vec<_>, _>>()?;
    appended.into_iter().collect::<Result<Vec<_>, _>>()?;
    assert_eq!(ids_of(&store, "spoiled").await?.len(), 0);
    assert_eq!(ids_of(&store, "kept").await?.len(), 10);
    assert_eq!(ids_of(&store, "plain").await?.len(), 10);
    assert_eq!(count(&store, "SELECT count(*) FROM note").await?, 11);
    Ok(assert_sound(&store).await?)
}

pub(super) async fn what_follows_a_lost_transaction_is_not_written(place: &dyn Place) -> Outcome {
    let store = with_tables(place, Limits::default()).await?;
    run(&store, "INSERT INTO note (text) VALUES ('first')").await?;
    let lost: Result<(), TransactError<Inside>> = store
        .transact(|tx| {
            Box::pin(async move {
                tx.append(&stream("s"), Default::default(), vec![event("before")]).await?;
                tx.execute("INSERT INTO note (text) VALUES ('before')", &[]).await?;
                let _ = tx.execute(CONFLICT, &[]).await;
                // Whoever overlooks the error must not write outside the transaction now.
                let _ = tx.execute("INSERT INTO note (text) VALUES ('after')", &[]).await;
                let _ = tx.append(&stream("s"), Default::default(), vec![event("after")]).await;
                Ok(())
            })
        })
        .await;
    let notes = count(&store, "SELECT count(*) FROM note").await?;
    let events = ids_of(&store, "s").await?;
    match lost {
        Err(_) => assert_eq!((notes, events.len()), (1, 0), "it failed, so nothing is there"),
        // An engine that knows no such clause refused that statement alone.
        Ok(()) => assert_eq!((notes, events.len()), (3, 2)),
    }
    Ok(assert_sound(&store).await?)
}
