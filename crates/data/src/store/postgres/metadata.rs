//! Streams' metadata: how often they were set in the stream's row, the values in a row beside it. Rules are for a store that forgets events.

use std::collections::BTreeMap;

use quorate_foundations::name::Name;
use tokio_postgres::{
    Client,
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
    let (version, body): (i64, Option<&str>) = (row.try_get(0)?, row.try_get(1)?);
    let strange = |what: String| Fault::Strange(format!("the metadata of stream `{stream}` cannot be read: {what}"));
    let values = match body {
        Some(body) => serde_json::from_str(body).map_err(|wrong| strange(wrong.to_string()))?,
        None if version == 0 => BTreeMap::new(),
        None => return Err(strange("its row is missing".to_owned())),
    };
    let metadata = StreamMetadata { values, ..StreamMetadata::default() };
    Ok(SetMetadata { version: Version::new(version.cast_unsigned()), metadata })
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
    let (words, alone, names) = (Vec::<i64>::new(), Vec::<bool>::new(), vec![name]);
    let hold: [(&(dyn ToSql + Sync), Type); 3] =
        [(&words, Type::INT8_ARRAY), (&alone, Type::BOOL_ARRAY), (&names, Type::TEXT_ARRAY)];
    client.query_typed(&sql.hold_streams, &hold).await?;
    let row = client.query_typed_one(&sql.metadata_held, &[(&name, Type::TEXT)]).await?;
    let (id, version): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
    let actual = Version::new(version.cast_unsigned());
    if !expected.accepts(actual) {
        return Ok(Err(MetadataError::Conflict { stream: stream.clone(), expected, actual }));
    }
    let body = serde_json::to_string(values).unwrap_or_else(|_| unreachable!("a map of texts has a JSON form"));
    client.query_typed(&sql.set_metadata, &[(&id, Type::INT8), (&body, Type::TEXT)]).await?;
    Ok(Ok(actual.next()))
}
