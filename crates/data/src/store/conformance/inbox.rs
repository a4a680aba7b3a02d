//! The inbox: a message takes effect once, with everything else its transaction does.

use std::time::Duration;

use futures_util::future::join_all;

use super::{
    super::{ExpectedVersion, First, Inbox, InboxError, Limits, Store, TransactError},
    Outcome, Place,
    transactions::{Inside, count, with_tables},
    vocabulary::{assert_sound, event, ids_of, stream},
};

type Error = Box<dyn std::error::Error + Send + Sync>;

async fn inbox(store: &Store, consumer: &str) -> Result<Inbox, InboxError> {
    Inbox::open(store, stream(consumer)).await
}

/// Handles a delivery of `message`: an event and a row, once. `goes_well` says whether its transaction commits.
async fn deliver(store: &Store, inbox: &Inbox, message: &str, goes_well: bool) -> Result<First, TransactError<Inside>> {
    let (inbox, message) = (inbox.clone(), message.to_owned());
    store
        .transact(move |tx| {
            let (inbox, message) = (inbox.clone(), message.clone());
            Box::pin(async move {
                let first = tx.once(&inbox, &message).await?;
                if first == First::Now {
                    // The event's id differs each time, so that only the inbox keeps it from being appended again.
                    let version = tx.read_stream(super::super::ReadStream::backward(stream("effects"), 1)).await?.head;
                    let id = format!("{} bytes for {} at {:?}", message.len(), inbox.consumer(), version.version);
                    tx.append(&stream("effects"), ExpectedVersion::Any, vec![event(id)]).await?;
                    tx.execute("INSERT INTO note (text) VALUES ($1)", &[message.into()]).await?;
                }
                if goes_well { Ok(first) } else { Err(Inside::No) }
            })
        })
        .await
}

/// How many effects there are, in the log and in the table.
async fn effects(store: &Store) -> Result<usize, Error> {
    let events = ids_of(store, "effects").await?.len();
    assert_eq!(count(store, "SELECT count(*) FROM note").await?, i64::try_from(events)?, "rows and events");
    Ok(events)
}

pub(super) async fn a_message_takes_effect_once_with_all_its_transaction_does(place: &dyn Place) -> Outcome {
    let store = with_tables(place, Limits::default()).await?;
    let inbox = inbox(&store, "billing").await?;
    let refused = deliver(&store, &inbox, "m", false).await;
    assert!(matches!(refused, Err(TransactError::Aborted(Inside::No))), "{refused:?}");
    assert_eq!(effects(&store).await?, 0);
    assert_eq!(deliver(&store, &inbox, "m", true).await?, First::Now, "what was rolled back was not taken");
    let First::Earlier { at } = deliver(&store, &inbox, "m", true).await? else { panic!("it was taken") };
    let age = store.env().wall().saturating_since(at);
    assert!(age < Duration::from_secs(3_600), "{age:?}");
    assert!(deliver(&store, &inbox, "m", false).await.is_err());
    assert!(deliver(&store, &inbox, "m", true).await?.is_repeat(), "a rolled back repeat gives nothing back");
    assert_eq!(deliver(&store, &inbox, "M", true).await?, First::Now, "ids are told apart byte by byte");
    assert_eq!(effects(&store).await?, 2);
    Ok(assert_sound(&store).await?)
}

pub(super) async fn of_concurrent_deliveries_one_takes_effect(place: &dyn Place) -> Outcome {
    let store = with_tables(place, Limits::default()).await?;
    let inbox = inbox(&store, "billing").await?;
    let ids: Vec<String> = (0..40).map(|n| format!("m-{}", n % 10)).collect();
    let told = join_all(ids.iter().map(|id| deliver(&store, &inbox, id, true))).await;
    let told = told.into_iter().collect::<Result<Vec<_>, _>>()?;
    assert_eq!(told.iter().filter(|first| !first.is_repeat()).count(), 10, "{told:?}");
    assert_eq!(effects(&store).await?, 10);
    Ok(())
}

pub(super) async fn what_was_taken_is_known_after_reopening_and_after_a_crash(place: &dyn Place) -> Outcome {
    let mut store = with_tables(place, Limits::default()).await?;
    for round in 0..3 {
        let inbox = inbox(&store, "billing").await?;
        for earlier in 0..round {
            assert!(deliver(&store, &inbox, &format!("m-{earlier}"), true).await?.is_repeat(), "{earlier} in {round}");
        }
        assert_eq!(deliver(&store, &inbox, &format!("m-{round}"), true).await?, First::Now);
        if round == 0 {
            store.close().await?;
        } else {
            place.crash(store).await;
        }
        store = place.open(Limits::default()).await;
    }
    assert_eq!(effects(&store).await?, 3);
    Ok(())
}

pub(super) async fn each_consumer_takes_a_message_for_itself(place: &dyn Place) -> Outcome {
    let store = with_tables(place, Limits::default()).await?;
    for consumer in ["billing", "shipping"] {
        let inbox = inbox(&store, consumer).await?;
        assert_eq!(deliver(&store, &inbox, "m", true).await?, First::Now, "{consumer}");
        assert!(deliver(&store, &inbox, "m", true).await?.is_repeat(), "{consumer}");
    }
    assert_eq!(effects(&store).await?, 2);
    Ok(())
}

pub(super) async fn an_inbox_forgets_what_is_old_enough_and_only_its_own(place: &dyn Place) -> Outcome {
    let store = with_tables(place, Limits::default()).await?;
    let (billing, shipping) = (inbox(&store, "billing").await?, inbox(&store, "shipping").await?);
    let ids: Vec<String> = (0..501).map(|n| format!("m-{n}")).collect();
    for inbox in [&billing, &shipping] {
        // Not all at once: an engine may let a transaction wait only so long for its turn among others.
        for some in ids.chunks(20) {
            let delivered = join_all(some.iter().map(|id| deliver(&store, inbox, id, true))).await;
            delivered.into_iter().collect::<Result<Vec<_>, _>>()?;
        }
    }
    assert_eq!(billing.forget(Duration::from_secs(3_600)).await?, 0);
    assert!(deliver(&store, &billing, "m-0", true).await?.is_repeat());
    assert_eq!(billing.forget(Duration::ZERO).await?, 501);
    assert_eq!(deliver(&store, &billing, "m-0", true).await?, First::Now, "it is forgotten");
    assert!(deliver(&store, &shipping, "m-0", true).await?.is_repeat(), "another's is not");
    Ok(())
}

pub(super) async fn an_id_that_cannot_be_kept_is_refused(place: &dyn Place) -> Outcome {
    let store = with_tables(place, Limits::default()).await?;
    let inbox = inbox(&store, "billing").await?;
    let longest = "i".repeat(Inbox::MAX_ID_BYTES);
    assert_eq!(deliver(&store, &inbox, &longest, true).await?, First::Now);
    assert!(deliver(&store, &inbox, &longest, true).await?.is_repeat());
    for wrong in [String::new(), longest + "i"] {
        let refused = deliver(&store, &inbox, &wrong, true).await;
        let told = matches!(refused, Err(TransactError::Aborted(Inside::Inbox(InboxError::Id { bytes, .. }))) if bytes == wrong.len());
        assert!(told, "{refused:?}");
    }
    assert_eq!(effects(&store).await?, 1);
    Ok(())
}
