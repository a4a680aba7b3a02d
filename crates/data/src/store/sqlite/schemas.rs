//! The registered schemas, read when the store is opened and held against their checksums by `verify`.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension, Row};

use super::{
    connection::{corrupt, failed},
    open::damaged,
    verify::note,
};
use crate::{
    schema::{
        RegistryPolicy, SchemaRow, Schemas,
        rows::{self, SELECT_TYPES, SELECT_VERSIONS, TABLES, TypeRow},
    },
    store::{OpenError, StoreError, Verified, rooms::room_sum},
};

const READING: &str = "reading the schemas";

/// The schemas that are stored.
///
/// # Errors
/// [`OpenError::Corrupt`] names a row that rotted: its type would otherwise pass unchecked.
pub(super) fn load(path: &Path, connection: &Connection, policy: RegistryPolicy) -> Result<Schemas, OpenError> {
    let known = u32::try_from(TABLES.versions.len()).unwrap_or(u32::MAX);
    match version(connection).map_err(|cause| damaged(path, cause))? {
        0 => Ok(Schemas::new(policy)),
        found if found > known => Err(OpenError::Newer { path: path.into(), found, known }),
        _ => stored(connection, policy).map_err(|cause| damaged(path, cause)),
    }
}

/// The version of the tables; 0 if there are none.
fn version(connection: &Connection) -> Result<u32, StoreError> {
    let sql = "SELECT version, sum FROM quorate_room WHERE room = ?1";
    let found = connection.query_row(sql, [TABLES.room], |row| Ok((row.get(0)?, row.get(1)?))).optional();
    let Some((version, sum)): Option<(i64, i64)> = found.map_err(failed(READING))? else { return absent(connection) };
    if sum != room_sum(TABLES.room, version) {
        return Err(corrupt(format!("quorate_room, row `{}`", TABLES.room), "the checksum does not match"));
    }
    u32::try_from(version).map_err(|wrong| corrupt(format!("quorate_room, row `{}`", TABLES.room), wrong))
}

/// 0, where the tables are not there either: schemas are not forgotten because the row that tells of them is gone.
fn absent(connection: &Connection) -> Result<u32, StoreError> {
    let sql = "SELECT count(*) FROM sqlite_schema WHERE name IN ('quorate_schema', 'quorate_schema_type')";
    match connection.query_row(sql, [], |row| row.get(0)).map_err(failed(READING))? {
        0 => Ok(0),
        _ => Err(corrupt("quorate_room", "no row tells whose table quorate_schema is")),
    }
}

fn stored(connection: &Connection, policy: RegistryPolicy) -> Result<Schemas, StoreError> {
    let types = all(connection, SELECT_TYPES, type_row)?;
    let versions = all(connection, SELECT_VERSIONS, version_row)?;
    rows::registry(policy, &types, versions)
}

fn all<T>(
    connection: &Connection,
    select: &str,
    read: fn(&Row<'_>) -> rusqlite::Result<Result<T, StoreError>>,
) -> Result<Vec<T>, StoreError> {
    let mut select = connection.prepare(select).map_err(failed(READING))?;
    let mut rows = select.query([]).map_err(failed(READING))?;
    let mut found = Vec::new();
    while let Some(row) = rows.next().map_err(failed(READING))? {
        found.push(read(row).map_err(failed(READING))??);
    }
    Ok(found)
}

fn type_row(row: &Row<'_>) -> rusqlite::Result<Result<TypeRow, StoreError>> {
    let (event_type, mode): (String, String) = (row.get(0)?, row.get(1)?);
    Ok(TypeRow::read(&event_type, &mode, row.get(2)?, row.get(3)?))
}

fn version_row(row: &Row<'_>) -> rusqlite::Result<Result<SchemaRow, StoreError>> {
    let (event_type, compatibility, document): (String, String, String) = (row.get(0)?, row.get(2)?, row.get(3)?);
    Ok(SchemaRow::read(&event_type, row.get(1)?, &compatibility, &document, row.get(4)?))
}

/// Checks every stored schema.
pub(super) fn verify(connection: &Connection, found: &mut Verified) -> Result<(), StoreError> {
    match version(connection) {
        Ok(0) => return Ok(()),
        Ok(_) => {}
        Err(cause) => {
            note(found, &cause);
            return Ok(());
        }
    }
    let sound = found.findings.len();
    check(connection, SELECT_TYPES, found, |row| type_row(row).map(|read| read.map(drop)))?;
    check(connection, SELECT_VERSIONS, found, |row| version_row(row).map(|read| read.map(drop)))?;
    // Rows that are sound one by one may still not fit together.
    if found.findings.len() == sound
        && let Err(cause) = stored(connection, RegistryPolicy::default())
    {
        note(found, &cause);
    }
    Ok(())
}

fn check(
    connection: &Connection,
    select: &str,
    found: &mut Verified,
    read: impl Fn(&Row<'_>) -> rusqlite::Result<Result<(), StoreError>>,
) -> Result<(), StoreError> {
    let mut statement = connection.prepare(select).map_err(failed(READING))?;
    let mut rows = statement.query([]).map_err(failed(READING))?;
    while let Some(row) = rows.next().map_err(failed(READING))? {
        found.rows += 1;
        match read(row) {
            Ok(Ok(())) => {}
            Ok(Err(cause)) => note(found, &cause),
            Err(cause) => found.find(format!("a row of {select}"), cause.to_string()),
        }
    }
    Ok(())
}
