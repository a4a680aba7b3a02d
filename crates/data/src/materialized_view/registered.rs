//! A projection that was started in this process, with what was asked of it once.

use std::{collections::BTreeMap, sync::Arc};

use quorate_foundations::{name::Name, time::Wall};
use quorate_runtime::Env;

use super::{
    ApplyError, Build, Config, Fingerprint, Namespace, OnRebuild, Projection, ViewError, ViewName, ViewTx, key_hash,
};
use crate::{
    event::{ChainHash, NewEvent, Place, Position, Prepared, Recorded, Version},
    store::{DynTx, Query, SqlError, Store, TransactError},
};

/// The build whose tables are thrown away again.
const SCRATCH: Build = Build::new(0);
/// Events of a probe.
const MAX_PROBE: usize = 1_000;

/// A projection that was started in this process.
pub(super) struct Registered {
    pub(super) env: Env,
    pub(super) projection: Arc<dyn Projection>,
    pub(super) config: Config,
    pub(super) name: ViewName,
    pub(super) version: u32,
    pub(super) query: Query,
    pub(super) effects: BTreeMap<String, OnRebuild>,
    pub(super) fingerprint: Fingerprint,
}

impl Registered {
    /// Checks a projection, and finds its fingerprint.
    pub(super) async fn new(store: &Store, projection: Arc<dyn Projection>, config: Config) -> Result<Self, ViewError> {
        config.check()?;
        projection.schema().check()?;
        let query = projection.query();
        query.check().map_err(crate::store::StoreError::from)?;
        if projection.version() == 0 {
            return Err(ViewError::invalid("a view's version counts from 1"));
        }
        let fingerprint = fingerprint(store, &projection).await?;
        Ok(Self {
            env: store.env().clone(),
            name: projection.name().clone(),
            version: projection.version(),
            effects: projection.effects().iter().map(|kind| (kind.name.to_owned(), kind.on_rebuild)).collect(),
            query,
            fingerprint,
            config,
            projection,
        })
    }

    /// What an event belongs to.
    pub(super) fn key<'e>(&self, event: &'e Recorded) -> &'e str {
        self.projection.key(event)
    }

    /// Whether an event belongs to this one of `shards`.
    pub(super) fn is_in(&self, event: &Recorded, shard: u32, shards: u32) -> bool {
        shards == 1 || key_hash(self.key(event)) % shards == shard
    }
}

/// Why a scratch transaction ended, which always rolls back.
enum Scratch {
    Rows(Vec<u8>),
    Failed(ViewError),
}

impl From<SqlError> for Scratch {
    fn from(failed: SqlError) -> Self {
        Self::Failed(failed.into())
    }
}

/// The fingerprint of what a projection says of itself and of the rows that its probe leads to.
///
/// # Errors
/// The projection's own, where its tables cannot be made or its probe cannot be applied.
async fn fingerprint(store: &Store, projection: &Arc<dyn Projection>) -> Result<Fingerprint, ViewError> {
    let said = projection.fingerprint();
    let probe = recorded(&projection.probe())?;
    let scratch = projection.clone();
    let tried: Result<(), _> = store
        .transact(move |tx| {
            let (projection, events) = (scratch.clone(), probe.clone());
            Box::pin(async move { Err(try_out(tx, &*projection, &events).await.unwrap_or_else(|failed| failed)) })
        })
        .await;
    match tried {
        Err(TransactError::Aborted(Scratch::Rows(rows))) if rows.is_empty() => Ok(said),
        Err(TransactError::Aborted(Scratch::Rows(rows))) => {
            Ok(Fingerprint::of_parts([said.as_str().as_bytes(), &rows]))
        }
        Err(TransactError::Aborted(Scratch::Failed(failed))) => Err(failed),
        Err(TransactError::Store(cause)) => Err(cause.into()),
        Err(other) => Err(ViewError::Sql(SqlError::Failed { what: other.to_string() })),
        Ok(()) => unreachable!("a scratch transaction never commits"),
    }
}

/// Makes the tables, applies the probe, and returns the rows as bytes; nothing where there is no probe.
async fn try_out(tx: &mut DynTx, projection: &dyn Projection, events: &[Recorded]) -> Result<Scratch, Scratch> {
    let namespace = Namespace::new(projection.name().clone(), SCRATCH);
    let schema = projection.schema();
    for statement in schema.statements() {
        tx.view_schema(SCRATCH, &namespace.expand(statement)).await?;
    }
    if events.is_empty() {
        return Ok(Scratch::Rows(Vec::new()));
    }
    let mut view = ViewTx::new(tx, &namespace);
    projection.apply(&mut view, events).await.map_err(|failed| match failed {
        ApplyError::Sql(cause) => Scratch::from(cause),
        event @ ApplyError::Event { .. } => Scratch::Failed(ViewError::invalid(format!("the probe failed: {event}"))),
    })?;
    let mut bytes = format!("{:?}", view.into_effects()).into_bytes();
    for table in schema.tables() {
        bytes.extend(dump(tx, &namespace, table).await?);
    }
    Ok(Scratch::Rows(bytes))
}

/// The rows of a table as text, in an order that does not depend on how they came in.
async fn dump(tx: &mut DynTx, namespace: &Namespace, table: &str) -> Result<Vec<u8>, SqlError> {
    let sql = format!("SELECT * FROM {}", namespace.table(table));
    let rows = tx.view_query(namespace.build(), &sql, &[]).await?;
    let mut rows: Vec<String> = rows.iter().map(|row| format!("{:?}", row.values)).collect();
    rows.sort_unstable();
    Ok(rows.join("\n").into_bytes())
}

/// Events as if they had been recorded, always at the same places and times.
fn recorded(events: &[NewEvent]) -> Result<Arc<[Recorded]>, ViewError> {
    if events.len() > MAX_PROBE {
        return Err(ViewError::invalid(format!(
            "a probe has at most {MAX_PROBE} events, this one has {}",
            events.len()
        )));
    }
    let stream = Name::new("probe-1").map_err(|cause| ViewError::invalid(cause.to_string()))?;
    let placed = (1..).zip(events).map(|(n, event)| {
        event.check().map_err(|cause| ViewError::invalid(format!("event {n} of the probe: {cause}")))?;
        let recorded_at = Wall::from_unix_nanos(i64::from(n as u32) * 1_000_000_000);
        let place =
            Place { version: Version::new(n), position: Position::new(n), recorded_at, previous: ChainHash::default() };
        Ok(Prepared::new(event, stream.as_str()).record(&place, &mut bytes::BytesMut::new()))
    });
    placed.collect()
}
