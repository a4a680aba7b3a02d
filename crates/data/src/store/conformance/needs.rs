//! Claims about what not every store can do: one that cannot has to say so.

use super::{
    super::{ExpectedVersion, Limits, Retire, Rules, Store, StoreError, StreamMetadata, TransactError},
    Outcome, Place,
    vocabulary::{append, event, stream},
};
use crate::store::{AppendError, SqlError};

/// What a store must be able to do for a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// [`application_tables`](super::super::Capabilities::application_tables): tables, and the statements of rooms on them.
    Tables,
    /// [`metadata`](super::super::Capabilities::metadata).
    Metadata,
    /// [`retention`](super::super::Capabilities::retention).
    Retention,
    /// [`erasure`](super::super::Capabilities::erasure).
    Erasure,
}

/// What of `needs` the store that lives at `place` lacks.
pub(super) async fn missing(
    needs: Option<Need>,
    place: &dyn Place,
) -> Result<Option<Need>, Box<dyn std::error::Error + Send + Sync>> {
    let Some(need) = needs else { return Ok(None) };
    let store = place.open(Limits::default()).await;
    let found = store.capabilities();
    store.close().await?;
    let has = match need {
        Need::Tables => found.application_tables,
        Need::Metadata => found.metadata,
        Need::Retention => found.retention,
        Need::Erasure => found.erasure,
    };
    Ok((!has).then_some(need))
}

impl Need {
    /// Whoever asks for it all the same is refused, and nothing has changed.
    pub(super) async fn is_refused(self, place: &dyn Place) -> Outcome {
        let store = place.open(Limits::default()).await;
        append(&store, "s", vec![event(1)]).await?;
        match self {
            Self::Tables => no_tables(&store).await,
            Self::Metadata => no_metadata(&store, StreamMetadata::default()).await,
            Self::Retention => no_retention(&store).await,
            Self::Erasure => no_erasure(&store).await,
        }
        assert_eq!(store.head().get(), 1, "nothing was written");
        Ok(())
    }
}

fn assert_unsupported(refused: Option<&StoreError>) {
    assert!(matches!(refused, Some(StoreError::Unsupported { .. })), "it should be refused: {refused:?}");
}

fn of_append(refused: &AppendError) -> Option<&StoreError> {
    if let AppendError::Store(cause) = refused { Some(cause) } else { None }
}

fn of_sql<T>(refused: &Result<T, SqlError>) -> Option<&StoreError> {
    if let Err(SqlError::Store(cause)) = refused { Some(cause) } else { None }
}

async fn no_tables(store: &Store) {
    assert_unsupported(of_sql(&store.query("SELECT 1", vec![]).await));
    assert_unsupported(of_sql(&store.declare(super::transactions::ROOM).await));
    let inside: Result<(), TransactError<SqlError>> = store
        .transact(|tx| {
            Box::pin(async move {
                tx.append(&stream("s"), ExpectedVersion::Any, vec![event(2)]).await.ok();
                tx.execute("CREATE TABLE note (id INTEGER)", &[]).await.map(|_| ())
            })
        })
        .await;
    let Err(TransactError::Aborted(cause)) = inside else { panic!("it should be refused: {inside:?}") };
    assert_unsupported(of_sql::<()>(&Err(cause)));
}

async fn no_metadata(store: &Store, metadata: StreamMetadata) {
    let set = store.set_metadata(stream("s"), ExpectedVersion::Any, metadata).await;
    let refused = set.as_ref().err().and_then(|refused| match refused {
        crate::store::MetadataError::Store(cause) => Some(cause),
        _ => None,
    });
    assert_unsupported(refused);
}

async fn no_retention(store: &Store) {
    let retired = store.retire(stream("s"), Retire::Tombstone { expected: ExpectedVersion::Any }).await;
    assert_unsupported(retired.as_ref().err().and_then(of_append));
    let rules = Rules { max_count: Some(3), max_age: None };
    no_metadata(store, StreamMetadata { rules, ..StreamMetadata::default() }).await;
    assert_unsupported(store.archives(stream("s")).await.as_ref().err());
    assert_unsupported(store.scavenge().await.as_ref().err());
}

async fn no_erasure(store: &Store) {
    let sealed = append(store, "s", vec![event(2).about("anna")]).await;
    assert_unsupported(sealed.as_ref().err().and_then(of_append));
    let known = store.data_subject("anna").await;
    let refused = known.as_ref().err().and_then(|refused| match refused {
        crate::store::EraseError::Store(cause) => Some(cause),
        _ => None,
    });
    assert_unsupported(refused);
}
