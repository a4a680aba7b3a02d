//! The registered schemas: which are in force, on every node.
//!
//! `meta.schemas` counts their changes. Whoever registers one takes a word of its own ([`words::schemas`]) alone and raises the
//! count; whoever appends shares that word and looks at the count behind it. As long as it is what this process knows,
//! what was held against this process's registry was held against the database's; else nothing is appended, the registry is
//! brought up to date, and the append is tried again.

use std::sync::atomic::Ordering;

use tokio_postgres::{Client, types::Type};

use super::{backend::Shared, fault::Fault};
use crate::{
    schema::{
        RegistryPolicy, SchemaRow, SchemaVersion, Schemas,
        rows::{self, SELECT_TYPES, SELECT_VERSIONS, TABLES, TypeRow},
    },
    store::{StoreError, rooms::room_sum},
};

const READING: &str = "reading the schemas";

/// The schemas that are stored, and the count of their changes, as of one moment.
///
/// # Errors
/// [`StoreError::Corrupt`] names a row that rotted: its type would otherwise pass unchecked.
pub(super) async fn load(client: &Client, s: &str, policy: RegistryPolicy) -> Result<(Schemas, u64), StoreError> {
    client.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await.map_err(failed)?;
    let loaded = stored(client, s, policy).await;
    client.batch_execute("ROLLBACK").await.map_err(failed)?;
    loaded
}

fn failed(failed: tokio_postgres::Error) -> StoreError {
    Fault::from(failed).into_store(READING)
}

async fn stored(client: &Client, s: &str, policy: RegistryPolicy) -> Result<(Schemas, u64), StoreError> {
    let row = client.query_typed_one(&format!("SELECT schemas FROM {s}.meta"), &[]).await.map_err(failed)?;
    let count = row.try_get::<_, i64>(0).map_err(failed)?.cast_unsigned();
    let room = format!("SELECT version, sum FROM {s}.quorate_room WHERE room = $1");
    let room = client.query_typed_opt(&room, &[(&TABLES.room, Type::TEXT)]).await.map_err(failed)?;
    let Some(room) = room else {
        // They are not forgotten because the row that tells of them is gone.
        return if count == 0 {
            Ok((Schemas::new(policy), 0))
        } else {
            Err(corrupt("no row tells of the schemas' tables"))
        };
    };
    let (version, sum): (i64, i64) = (room.try_get(0).map_err(failed)?, room.try_get(1).map_err(failed)?);
    if sum != room_sum(TABLES.room, version) {
        return Err(corrupt("the checksum does not match"));
    }
    if usize::try_from(version).map_or(true, |version| version > TABLES.versions.len()) {
        return Err(corrupt("a newer quorate made the schemas' tables"));
    }
    let of_store = |select: &str| select.replace("FROM quorate_", &format!("FROM {s}.quorate_"));
    let mut types = Vec::new();
    for row in client.query_typed(&of_store(SELECT_TYPES), &[]).await.map_err(failed)? {
        let (name, mode) = (row.try_get(0).map_err(failed)?, row.try_get(1).map_err(failed)?);
        types.push(TypeRow::read(name, mode, row.try_get(2).map_err(failed)?, row.try_get(3).map_err(failed)?)?);
    }
    let mut versions = Vec::new();
    for row in client.query_typed(&of_store(SELECT_VERSIONS), &[]).await.map_err(failed)? {
        let (name, version) = (row.try_get(0).map_err(failed)?, row.try_get(1).map_err(failed)?);
        let (mode, document) = (row.try_get(2).map_err(failed)?, row.try_get(3).map_err(failed)?);
        versions.push(SchemaRow::read(name, version, mode, document, row.try_get(4).map_err(failed)?)?);
    }
    Ok((rows::registry(policy, &types, versions)?, count))
}

fn corrupt(what: &str) -> StoreError {
    StoreError::Corrupt { place: format!("quorate_room, row `{}`", TABLES.room), what: what.to_owned() }
}

/// Brings this process's registry up to date. Not while anything is locked that a registration waits for.
pub(super) async fn refresh(shared: &Shared) -> Result<(), StoreError> {
    let registry = &shared.schemas;
    let turn = shared.env.timeout(shared.patience, registry.turn()).await;
    let _turn = turn.ok_or_else(|| StoreError::Unreachable { what: "a schema is being registered".to_owned() })?;
    let lease = shared.beside.lease().await.map_err(|fault| fault.into_store(READING))?;
    let (stored, count) = load(&lease, &shared.sql.schema, *registry.current().policy()).await?;
    lease.keep();
    for (name, latest) in stored.subjects() {
        let known = registry.current();
        let mut next = known.latest(name.as_str()).map_or(SchemaVersion::FIRST, SchemaVersion::next);
        while next <= latest {
            if let Some(row) = stored.row(name.as_str(), next) {
                registry.admit(row).map_err(|wrong| corrupt(&wrong.to_string()))?;
            }
            next = next.next();
        }
        if let Some(mode) = stored.mode(name.as_str()).filter(|mode| known.mode(name.as_str()) != Some(*mode)) {
            registry.set_mode(name, mode);
        }
    }
    // Ordering: behind the registry's own changes, so that whoever reads the count finds what it counts.
    shared.schemas_known.fetch_max(count, Ordering::AcqRel);
    Ok(())
}
