//! A projection tried out on tables that are thrown away again: for fingerprints, and for tests.

use std::sync::Arc;

use quorate_foundations::{name::Name, time::Wall};

use super::{ApplyError, Build, Namespace, Projection, ViewError, ViewRow, ViewTx, tx::Requested};
use crate::{
    event::{ChainHash, NewEvent, Place, Position, Prepared, Recorded, Version},
    store::{DynTx, Row, SqlError, Store, TransactError},
};

/// The build whose tables never last.
const SCRATCH: Build = Build::new(0);
/// Events that are tried out at once.
pub(super) const MAX_EVENTS: usize = 1_000;

/// Events to try a projection on.
///
/// # Example
/// See [`Fold`](super::Fold).
pub fn given<S, E>(store: &Store, events: E) -> Given
where
    S: AsRef<str>,
    E: IntoIterator<Item = (S, NewEvent)>,
{
    let events = events.into_iter().map(|(stream, event)| (stream.as_ref().to_owned(), event));
    Given { store: store.clone(), events: events.collect() }
}

/// Events to try a projection on. They are numbered from 1, a second apart, and nothing of them is kept.
pub struct Given {
    store: Store,
    events: Vec<(String, NewEvent)>,
}

impl Given {
    /// What `projection` makes of them.
    ///
    /// # Errors
    /// The projection's own: its tables cannot be made, or an event cannot be applied.
    pub async fn applied_to(self, projection: impl Projection) -> Result<Made, ViewError> {
        projection.schema().check()?;
        let query = projection.query();
        let named = self.events.into_iter().map(|(stream, event)| {
            let stream = Name::new(stream).map_err(|cause| ViewError::invalid(cause.to_string()))?;
            Ok((stream, event))
        });
        let events = recorded(named.collect::<Result<Vec<_>, ViewError>>()?)?;
        let wanted = events.iter().filter(|event| query.matches(event)).cloned().collect();
        try_out(&self.store, Arc::new(projection), wanted).await
    }
}

/// What a projection made of events.
#[derive(Clone, Debug, PartialEq)]
pub struct Made {
    tables: Vec<(String, Vec<Row>)>,
    effects: Vec<Requested>,
}

impl Made {
    /// The rows of a table, in order of their first columns. None where there is no such table.
    pub fn rows(&self, table: &str) -> &[Row] {
        self.tables.iter().find(|(name, _)| name == table).map_or(&[], |(_, rows)| rows)
    }

    /// The rows of a table with types, in order of their keys.
    ///
    /// # Panics
    /// If a row does not fit its struct.
    pub fn all<R: ViewRow>(&self) -> Vec<R> {
        let read = |row| R::from_row(row).unwrap_or_else(|| panic!("a row of `{}` does not fit its struct", R::TABLE));
        let mut rows: Vec<R> = self.rows(R::TABLE).iter().map(read).collect();
        rows.sort_by(|one, other| one.key().cmp(other.key()));
        rows
    }

    /// The effects that were asked for, in order: kind and payload.
    pub fn effects(&self) -> impl Iterator<Item = (&str, &str)> {
        self.effects.iter().map(|effect| (&*effect.kind, &*effect.payload))
    }

    /// All of it as text, the same for the same rows and effects.
    pub(super) fn as_text(&self) -> String {
        let rows = |rows: &[Row]| rows.iter().map(|row| format!("{:?}\n", row.values)).collect::<String>();
        let tables = self.tables.iter().map(|(name, found)| format!("{name}\n{}", rows(found)));
        tables.collect::<String>() + &format!("{:?}", self.effects)
    }
}

/// Events as if they had been recorded, always at the same places and times.
pub(super) fn recorded(events: impl IntoIterator<Item = (Name, NewEvent)>) -> Result<Vec<Recorded>, ViewError> {
    let mut versions = std::collections::BTreeMap::<Name, u64>::new();
    let mut placed = Vec::new();
    for (position, (stream, mut event)) in (1..).zip(events) {
        if placed.len() == MAX_EVENTS {
            return Err(ViewError::invalid(format!("at most {MAX_EVENTS} events are tried out")));
        }
        event.check().map_err(|cause| ViewError::invalid(format!("event {position}: {cause}")))?;
        // Its data is not kept, so there is nothing to seal.
        event.data_subject = None;
        let version = versions.entry(stream.clone()).or_default();
        *version += 1;
        let place = Place {
            version: Version::new(*version),
            position: Position::new(position),
            recorded_at: Wall::from_unix_nanos(position.cast_signed().saturating_mul(1_000_000_000)),
            previous: ChainHash::default(),
        };
        placed.push(Prepared::new(&event, stream.as_str()).record(&place, &mut bytes::BytesMut::new()));
    }
    Ok(placed)
}

/// Why a scratch transaction ended, which always rolls back.
enum End {
    Made(Made),
    Failed(ViewError),
}

impl From<SqlError> for End {
    fn from(failed: SqlError) -> Self {
        Self::Failed(failed.into())
    }
}

/// Makes the tables, applies `events`, returns what is there, and forgets all of it.
pub(super) async fn try_out(
    store: &Store,
    projection: Arc<dyn Projection>,
    events: Vec<Recorded>,
) -> Result<Made, ViewError> {
    let events: Arc<[Recorded]> = events.into();
    let tried: Result<(), _> = store
        .transact(move |tx| {
            let (projection, events) = (projection.clone(), events.clone());
            Box::pin(async move { Err(run(tx, &*projection, &events).await.map_or_else(|failed| failed, End::Made)) })
        })
        .await;
    match tried {
        Err(TransactError::Aborted(End::Made(made))) => Ok(made),
        Err(TransactError::Aborted(End::Failed(failed))) => Err(failed),
        Err(TransactError::Store(cause)) => Err(cause.into()),
        Err(other) => Err(ViewError::Sql(SqlError::Failed { what: other.to_string() })),
        Ok(()) => unreachable!("a scratch transaction never commits"),
    }
}

async fn run(tx: &mut DynTx, projection: &dyn Projection, events: &[Recorded]) -> Result<Made, End> {
    let namespace = Namespace::new(projection.name().clone(), SCRATCH);
    let schema = projection.schema();
    for statement in schema.statements() {
        tx.view_schema(SCRATCH, &namespace.expand(statement)).await?;
    }
    let mut view = ViewTx::new(tx, &namespace);
    if !events.is_empty() {
        projection.apply(&mut view, events).await.map_err(|failed| match failed {
            ApplyError::Sql(cause) => End::from(cause),
            event @ ApplyError::Event { .. } => End::Failed(ViewError::invalid(event.to_string())),
        })?;
    }
    let effects = view.into_effects();
    let mut tables = Vec::new();
    for table in schema.tables() {
        let sql = format!("SELECT * FROM {}", namespace.table(table));
        let mut rows = tx.view_query(SCRATCH, &sql, &[]).await?;
        rows.sort_by_cached_key(|row| format!("{:?}", row.values));
        tables.push((table.to_owned(), rows));
    }
    Ok(Made { tables, effects })
}
