//! What an erasure does here: consumers said why they failed, and may have quoted the event.
//!
//! Rows keep no data of events, but up to five reasons for each that failed, in the consumer's own words. Those of a
//! data subject's events are made empty when it is erased; attempts, moments and causes stay. They are not sealed: a backup
//! has them in the clear, and opening a restored one forgets them again.

use std::{collections::BTreeMap, sync::Arc};

use super::{SubscriptionError, machine::Failure, rows};
use crate::{
    event::{Position, Recorded},
    store::{Query, ReadLog, SqlError, Store, StoreError, TransactError, erasure::SubjectHash},
};

/// Rows that one transaction changes at most.
const ROWS: usize = 500;

/// Forgets what consumers said of the events about `subject`.
///
/// Repeating it is harmless, and finishes what a crash left.
pub(super) async fn about(store: Store, subject: Arc<str>) -> Result<(), StoreError> {
    reasons(&store, |event| event.data_subject() == Some(&*subject)).await
}

/// Forgets what consumers said of the events of all who are erased: for a store that learnt of erasures elsewhere, from
/// the ledger with which an older backup was restored, or whose process died in the middle of one.
pub(super) async fn of_the_erased(store: &Store) -> Result<(), StoreError> {
    if !store.capabilities().erasure {
        return Ok(());
    }
    let erased: BTreeMap<SubjectHash, u32> =
        store.erasures().await?.erasures.iter().map(|erasure| (erasure.subject, erasure.generation)).collect();
    if erased.is_empty() {
        return Ok(());
    }
    let is_erased = |event: &Recorded| {
        let generation = event.data_subject().and_then(|subject| erased.get(&store.erasure_name(subject)));
        // What was written about somebody since is sealed with a key of a later generation.
        generation.is_some_and(|erased| event.key_id().is_none_or(|key| key.generation <= *erased))
    };
    reasons(store, is_erased).await
}

/// Forgets what consumers said of the events that `shall_go`.
async fn reasons(store: &Store, shall_go: impl Fn(&Recorded) -> bool) -> Result<(), StoreError> {
    let mut after = (0, Position::ZERO);
    loop {
        let page = rows::with_failures(store, after, ROWS).await.map_err(engine)?;
        let Some((id, last)) = page.last().map(|row| (row.subscription, row.position)) else { return Ok(()) };
        let mut spoken = BTreeMap::<u64, Vec<Position>>::new();
        for row in &page {
            let said = row.failures.iter().any(|failure| !failure.reason.is_empty());
            if said && event(store, row.position).await?.is_some_and(|event| shall_go(&event)) {
                spoken.entry(row.subscription).or_default().push(row.position);
            }
        }
        for (subscription, positions) in spoken {
            silence(store, subscription, positions).await?;
        }
        after = (id, last);
    }
}

/// The event at `position`; `None` where its key is lost, so that nobody has destroyed it.
async fn event(store: &Store, position: Position) -> Result<Option<Recorded>, StoreError> {
    let after = Position::new(position.get().saturating_sub(1));
    match store.read_log(ReadLog { query: Query::EVERYTHING, after, limit: 1 }).await {
        Ok(page) => Ok(page.events.into_iter().next()),
        Err(StoreError::KeyMissing { .. }) => Ok(None),
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
