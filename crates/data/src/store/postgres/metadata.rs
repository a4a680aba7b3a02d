//! Streams' metadata: how often they were set in the stream's row, the values in a row beside it. Rules are for a store that forgets events.
//!
//! The checksum of that row covers the stream's id and the count as well: a row that is another stream's, or older than the count, is no match.

use std::collections::BTreeMap;

use quorate_foundations::name::Name;
use tokio_postgres::{
    Client, Row,
    types::{ToSql, Type},
};

use super::{fault::Fault, statements::Statements};
use crate::{
    event::Version,
    store::{ExpectedVersion, MetadataError, SetMetadata, StreamMetadata},
};

/// The metadata of `stream` as the connection sees it.
pub(super) async fn read(client: &Client, sql: &Statements, stream: &Name) -> Result<SetMetadata, Fault> {
    let row = client.query_typed_opt(&sql.metadata, &[(&stream.as_str(), Type::TEXT)]).await?;
    let Some(row) = row else { return Ok(SetMetadata::default()) };
    let version: i64 = row.try_get(1)?;
    let strange = |what: String| Fault::Strange(format!("the metadata of stream `{stream}` cannot be read: {what}"));
    let values = values(&row)?.map_err(strange)?;
    let metadata = StreamMetadata { values, ..StreamMetadata::default() };
    Ok(SetMetadata { version: Version::new(version.cast_unsigned()), metadata })
}

/// The values in a row of: the stream's id, how often its metadata were set, the values and their checksum. Or what is wrong with them.
pub(super) fn values(row: &Row) -> Result<Result<BTreeMap<String, String>, String>, Fault> {
    let (id, version): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
    let (body, found): (Option<&str>, Option<i64>) = (row.try_get(2)?, row.try_get(3)?);
    Ok(match body {
        None if version == 0 => Ok(BTreeMap::new()),
        None => Err("its row is missing".to_owned()),
        Some(body) if found != Some(sum(id, version, body)) => Err("the checksum does not match".to_owned()),
        Some(body) => serde_json::from_str(body).map_err(|wrong| wrong.to_string()),
    })
}

fn sum(id: i64, version: i64, body: &str) -> i64 {
    let mut sum = crc32fast::Hasher::new();
    sum.update(&id.to_le_bytes());
    sum.update(&version.to_le_bytes());
    sum.update(body.as_bytes());
    sum.finalize().into()
}

/// Sets the metadata of `stream`, in the transaction that is open. What is refused stands inside, and the transaction can go on.
pub(super) async fn set(
    client: &Client,
    sql: &Statements,
    stream: &Name,
    expected: ExpectedVersion,
    values: &BTreeMap<String, String>,
) -> Result<Result<Version, MetadataError>, Fault> {
    let name = stream.as_str();
    let row = client.query_typed_one(&sql.metadata_held, &[(&name, Type::TEXT)]).await?;
    let (id, version): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
    let actual = Version::new(version.cast_unsigned());
    if !expected.accepts(actual) {
        return Ok(Err(MetadataError::Conflict { stream: stream.clone(), expected, actual }));
    }
    let body = serde_json::to_string(values).unwrap_or_else(|_| unreachable!("a map of texts has a JSON form"));
    let version = version + 1;
    let sum = sum(id, version, &body);
    let row: [(&(dyn ToSql + Sync), Type); 5] =
        [(&id, Type::INT8), (&name, Type::TEXT), (&version, Type::INT8), (&body, Type::TEXT), (&sum, Type::INT8)];
    client.query_typed(&sql.set_metadata, &row).await?;
    Ok(Ok(actual.next()))
}
