//! Streams' metadata: rules in the stream's row, values in a row beside it.

use std::collections::BTreeMap;

use quorate_foundations::name::Name;
use rusqlite::{Connection, OptionalExtension, params};

use super::{
    connection::{corrupt, failed},
    core::Core,
    index, retire, run,
};
use crate::store::{ExpectedVersion, MetadataError, SetMetadata, StoreError, StreamHead, StreamMetadata};

const METADATA: &str = "keeping a stream's metadata";

/// Sets the metadata of `stream`, in the group being written.
pub(super) fn set(
    core: &mut Core,
    stream: &Name,
    expected: ExpectedVersion,
    metadata: &StreamMetadata,
) -> Result<StreamHead, MetadataError> {
    metadata.check()?;
    let known = retire::known(core, stream)?;
    if known.tombstoned {
        return Err(MetadataError::Tombstoned { stream: stream.clone() });
    }
    if !expected.accepts(known.metadata) {
        let (stream, actual) = (stream.clone(), known.metadata);
        return Err(MetadataError::Conflict { stream, expected, actual });
    }
    let head = StreamHead { rules: metadata.rules, metadata: known.metadata.next(), ..known };
    core.charge(metadata.bytes() + 160)?;
    let id = retire::put(core, stream, &head)?;
    put_values(&core.connection, id, &metadata.values).map_err(failed(METADATA))?;
    core.shared.tail_mut().change(stream.as_str(), head, None);
    Ok(head)
}

/// The metadata of `stream` as the connection sees it.
pub(super) fn read(connection: &Connection, stream: &Name) -> Result<SetMetadata, StoreError> {
    let Some(row) = index::stream(connection, stream.as_str())? else { return Ok(SetMetadata::default()) };
    let values = values(connection, row.id)?;
    Ok(SetMetadata { version: row.head.metadata, metadata: StreamMetadata { rules: row.head.rules, values } })
}

fn put_values(connection: &Connection, id: i64, values: &BTreeMap<String, String>) -> rusqlite::Result<()> {
    // Also where there are none: a row that is missing is noticed.
    let body = serde_json::to_string(values).unwrap_or_else(|_| unreachable!("a map of texts has a JSON form"));
    connection
        .prepare_cached("INSERT OR REPLACE INTO quorate_stream_values (stream, body, sum) VALUES (?1, ?2, ?3)")?
        .execute(params![id, body, sum(id, &body)])
        .map(|_| ())
}

fn values(connection: &Connection, id: i64) -> Result<BTreeMap<String, String>, StoreError> {
    let row: Option<(String, u32)> = connection
        .prepare_cached("SELECT body, sum FROM quorate_stream_values WHERE stream = ?1")
        .and_then(|mut select| select.query_row([id], |row| Ok((row.get(0)?, row.get(1)?))).optional())
        .map_err(failed(METADATA))?;
    row.map_or_else(|| Ok(BTreeMap::new()), |(body, sum)| check(id, &body, sum))
}

/// Judges a row of `quorate_stream_values`.
pub(super) fn check(id: i64, body: &str, found: u32) -> Result<BTreeMap<String, String>, StoreError> {
    let place = || format!("quorate_stream_values, row {id}");
    if found != sum(id, body) {
        return Err(corrupt(place(), "the checksum does not match"));
    }
    serde_json::from_str(body).map_err(|wrong| corrupt(place(), wrong))
}

fn sum(id: i64, body: &str) -> u32 {
    run::checksum(&id.to_le_bytes(), body.as_bytes())
}
