//! What an erasure does here: consumers said why they failed, and may have quoted the event.
//!
//! Rows keep no data of events, but up to five reasons for each that failed, in the consumer's own words. Those of a
//! data subject's events are made empty when it is erased; attempts, moments and causes stay.

use std::{collections::BTreeMap, sync::Arc};

use super::{SubscriptionError, machine::Failure, rows};
use crate::{
    event::Position,
    store::{Query, ReadLog, SqlError, Store, StoreError, TransactError},
};

/// Rows that one transaction changes at most.
const ROWS: usize = 500;

/// Forgets what consumers said of the events about `subject`.
///
/// Repeating it is harmless, and finishes what a crash left.
pub(super) async fn reasons(store: Store, subject: Arc<str>) -> Result<(), StoreError> {
    let mut after = (0, Position::ZERO);
    loop {
        let page = rows::with_failures(&store, after, ROWS).await.map_err(engine)?;
        let Some((id, last)) = page.last().map(|row| (row.subscription, row.position)) else { return Ok(()) };
        let mut spoken = BTreeMap::<u64, Vec<Position>>::new();
        for row in &page {
            let said = row.failures.iter().any(|failure| !failure.reason.is_empty());
            if said && is_about(&store, row.position, &subject).await? {
                spoken.entry(row.subscription).or_default().push(row.position);
            }
        }
        for (subscription, positions) in spoken {
            silence(&store, subscription, positions).await?;
        }
        after = (id, last);
    }
}

/// Whether the event at `position` is about `subject`. Attributes are read without any key.
async fn is_about(store: &Store, position: Position, subject: &str) -> Result<bool, StoreError> {
    let after = Position::new(position.get().saturating_sub(1));
    match store.read_log(ReadLog { query: Query::EVERYTHING, after, limit: 1 }).await {
        Ok(page) => Ok(page.events.first().is_some_and(|event| event.data_subject() == Some(subject))),
        // Its key is lost, so its subject is not the one whose keys were just destroyed.
        Err(StoreError::KeyMissing { .. }) => Ok(false),
        Err(cause) => Err(cause),
    }
}

async fn silence(store: &Store, subscription: u64, positions: Vec<Position>) -> Result<(), StoreError> {
    let positions: Arc<[Position]> = positions.into();
    let silenced = store.transact(move |tx| {
        let positions = positions.clone();
        Box::pin(async move { rows::forget_reasons(tx, subscription, &positions).await })
    });
    silenced.await.map_err(|failed| match failed {
        TransactError::Aborted(cause) => engine(cause),
        TransactError::Store(cause) => cause,
        other => engine(SubscriptionError::Tables(SqlError::Failed { what: other.to_string() })),
    })
}

fn engine(cause: SubscriptionError) -> StoreError {
    match cause {
        SubscriptionError::Store(cause) => cause,
        other => StoreError::Engine { doing: "forgetting what consumers said", cause: Arc::new(other) },
    }
}

/// `failures` without what was said.
pub(super) fn without_reasons(failures: &[Failure]) -> Vec<Failure> {
    failures.iter().map(|failure| Failure { reason: String::new(), ..failure.clone() }).collect()
}
