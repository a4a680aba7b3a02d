//! The tables of the schemas, and their rows in and out.
//!
//! Every row has a checksum in which its key takes part, and the row of a type says how many versions it has: a row that
//! rotted or is gone is named when the store is opened, and nothing is checked against a schema that nobody registered.

use quorate_foundations::name::Name;

use super::{Compatibility, RegistryPolicy, RowError, SchemaRow, SchemaVersion, Schemas};
use crate::store::{DynTx, RoomTables, Row, SqlError, StoreError, Value};

/// The tables, by version.
pub(crate) const TABLES: RoomTables = RoomTables {
    room: "schema",
    versions: &["
        CREATE TABLE quorate_schema_type (
            event_type TEXT PRIMARY KEY,
            mode TEXT NOT NULL,
            versions BIGINT NOT NULL,
            sum BIGINT NOT NULL);
        CREATE TABLE quorate_schema (
            event_type TEXT NOT NULL,
            version BIGINT NOT NULL,
            compatibility TEXT NOT NULL,
            document TEXT NOT NULL,
            sum BIGINT NOT NULL,
            PRIMARY KEY (event_type, version))
    "],
};

/// Every type, in order.
pub(crate) const SELECT_TYPES: &str =
    "SELECT event_type, mode, versions, sum FROM quorate_schema_type ORDER BY event_type";
/// Every version of every type, in order.
pub(crate) const SELECT_VERSIONS: &str =
    "SELECT event_type, version, compatibility, document, sum FROM quorate_schema ORDER BY event_type, version";

/// A type's row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TypeRow {
    event_type: Name,
    mode: Compatibility,
    versions: u32,
}

impl TypeRow {
    /// From the columns of [`SELECT_TYPES`].
    pub(crate) fn read(event_type: &str, mode: &str, versions: i64, sum: i64) -> Result<Self, StoreError> {
        let damaged = |what: &str| corrupt(format!("quorate_schema_type, row `{event_type}`"), what);
        if sum != type_sum(event_type, mode, versions) {
            return Err(damaged("the checksum does not match"));
        }
        Ok(Self {
            event_type: Name::new(event_type).map_err(|cause| damaged(&cause.to_string()))?,
            mode: mode.parse().map_err(|_| damaged("there is no such mode"))?,
            versions: u32::try_from(versions).map_err(|_| damaged("it counts no versions"))?,
        })
    }
}

impl SchemaRow {
    /// From the columns of [`SELECT_VERSIONS`].
    pub(crate) fn read(
        event_type: &str,
        version: i64,
        compatibility: &str,
        document: &str,
        sum: i64,
    ) -> Result<Self, StoreError> {
        let damaged = |what: &str| corrupt(format!("quorate_schema, row (`{event_type}`, {version})"), what);
        if sum != version_sum(event_type, version, compatibility, document) {
            return Err(damaged("the checksum does not match"));
        }
        let number = u32::try_from(version).ok().and_then(SchemaVersion::new);
        Ok(Self {
            event_type: Name::new(event_type).map_err(|cause| damaged(&cause.to_string()))?,
            version: number.ok_or_else(|| damaged("versions count from 1"))?,
            compatibility: compatibility.parse().map_err(|_| damaged("there is no such mode"))?,
            schema: document.to_owned(),
        })
    }
}

/// The registry that these rows are, both in order of their keys.
pub(crate) fn registry(
    policy: RegistryPolicy,
    types: &[TypeRow],
    versions: Vec<SchemaRow>,
) -> Result<Schemas, StoreError> {
    let not_following = |wrong: RowError| corrupt("quorate_schema", wrong.to_string());
    let mut schemas = Schemas::from_rows(policy, versions).map_err(not_following)?;
    if let Some((orphan, _)) = schemas.subjects().find(|(name, _)| find(types, name).is_none()) {
        return Err(corrupt("quorate_schema_type", format!("no row tells of `{orphan}`")));
    }
    for TypeRow { event_type, mode, versions } in types {
        let found = schemas.latest(event_type.as_str()).map_or(0, SchemaVersion::get);
        if found != *versions {
            let what = format!("`{event_type}` has {found} versions instead of {versions}");
            return Err(corrupt("quorate_schema", what));
        }
        if schemas.mode(event_type.as_str()) != Some(*mode) {
            schemas = schemas.with_mode(event_type, *mode);
        }
    }
    Ok(schemas)
}

fn find<'t>(types: &'t [TypeRow], name: &Name) -> Option<&'t TypeRow> {
    types.iter().find(|known| known.event_type == *name)
}

/// Writes the row of a new version if it follows what is stored; whether it did.
pub(super) async fn insert(tx: &mut DynTx, row: &SchemaRow) -> Result<bool, SqlError> {
    let SchemaRow { event_type, version, compatibility, schema } = row;
    let known = type_row(tx, event_type).await?;
    if known.as_ref().map_or(0, |known| known.versions) + 1 != version.get() {
        return Ok(false);
    }
    let (name, number) = (event_type.as_str(), i64::from(version.get()));
    let sum = version_sum(name, number, compatibility.as_str(), schema);
    let sql = "INSERT INTO quorate_schema (event_type, version, compatibility, document, sum)
        VALUES ($1, $2, $3, $4, $5)";
    let params = [name.into(), number.into(), compatibility.as_str().into(), schema.as_str().into(), sum.into()];
    tx.room_execute(sql, &params).await?;
    // The first registration says what later ones have to keep.
    let mode = known.map_or(*compatibility, |known| known.mode);
    put_type(tx, event_type, mode, number).await.map(|()| true)
}

/// Gives a type another mode; whether there is such a type.
pub(super) async fn set_mode(tx: &mut DynTx, event_type: &Name, mode: Compatibility) -> Result<bool, SqlError> {
    let Some(known) = type_row(tx, event_type).await? else { return Ok(false) };
    put_type(tx, event_type, mode, known.versions.into()).await.map(|()| true)
}

async fn put_type(tx: &mut DynTx, event_type: &Name, mode: Compatibility, versions: i64) -> Result<(), SqlError> {
    let sql = "INSERT INTO quorate_schema_type (event_type, mode, versions, sum) VALUES ($1, $2, $3, $4)
        ON CONFLICT (event_type) DO UPDATE SET mode = $2, versions = $3, sum = $4";
    let sum = type_sum(event_type.as_str(), mode.as_str(), versions);
    let params = [event_type.into(), mode.as_str().into(), versions.into(), sum.into()];
    tx.room_execute(sql, &params).await.map(|_| ())
}

async fn type_row(tx: &mut DynTx, event_type: &Name) -> Result<Option<TypeRow>, SqlError> {
    let sql = "SELECT mode, versions, sum FROM quorate_schema_type WHERE event_type = $1";
    let rows = tx.room_query(sql, &[event_type.into()]).await?;
    let read = |row: &Row| TypeRow::read(event_type.as_str(), text(row, 0), number(row, 1), number(row, 2));
    Ok(rows.first().map(read).transpose()?)
}

/// One version as it is stored, and the mode of its type. Read alone: one schema may fill a page.
pub(super) async fn version(
    tx: &mut DynTx,
    event_type: &Name,
    version: SchemaVersion,
) -> Result<Option<(SchemaRow, Compatibility)>, SqlError> {
    let sql = "SELECT compatibility, document, sum FROM quorate_schema WHERE event_type = $1 AND version = $2";
    let params: [Value; 2] = [event_type.into(), version.get().into()];
    let rows = tx.room_query(sql, &params).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let read = SchemaRow::read(event_type.as_str(), version.get().into(), text(row, 0), text(row, 1), number(row, 2))?;
    Ok(type_row(tx, event_type).await?.map(|known| (read, known.mode)))
}

/// What is not a text has no checksum that matches.
fn text(row: &Row, at: usize) -> &str {
    row.at(at).as_str().unwrap_or_default()
}

fn number(row: &Row, at: usize) -> i64 {
    row.at(at).as_i64().unwrap_or(-1)
}

fn type_sum(event_type: &str, mode: &str, versions: i64) -> i64 {
    sum(&[event_type, mode], versions)
}

fn version_sum(event_type: &str, version: i64, compatibility: &str, document: &str) -> i64 {
    sum(&[event_type, compatibility, document], version)
}

/// Texts with their lengths, so that no two lists of texts look alike.
fn sum(texts: &[&str], number: i64) -> i64 {
    let mut sum = crc32fast::Hasher::new();
    sum.update(&number.to_le_bytes());
    for text in texts {
        sum.update(&(text.len() as u64).to_le_bytes());
        sum.update(text.as_bytes());
    }
    sum.finalize().into()
}

fn corrupt(place: impl Into<String>, what: impl Into<String>) -> StoreError {
    StoreError::Corrupt { place: place.into(), what: what.into() }
}
