//! Checking every stored byte.

use std::collections::BTreeMap;

use bytes::Bytes;
use tokio_postgres::{Client, types::Type};

use super::{backend::Shared, fault::Fault};
use crate::{
    event::{ChainHash, Position, Recorded},
    store::{Progress, StoreError, Verified, shape::identity},
};

/// Events that are looked at together.
const PAGE: i64 = 2_000;

/// Checks positions, bytes, chains, and what is derived of them, as of one moment.
pub(super) async fn run(shared: &Shared, client: &Client, progress: &Progress) -> Result<Verified, StoreError> {
    // What is committed has a position in the snapshot that follows.
    let _late = shared.env.timeout(shared.patience, shared.sequencer.catch_up()).await;
    let checked = check(shared, client, progress).await;
    checked.map_err(|fault| fault.into_store("verifying"))
}

struct Stream {
    name: String,
    version: i64,
    hash: Vec<u8>,
}

async fn check(shared: &Shared, client: &Client, progress: &Progress) -> Result<Verified, Fault> {
    let s = &shared.sql.schema;
    client.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
    let mut found = Verified::default();
    let row = client.query_typed_opt(&shared.sql.end, &[]).await?;
    let end: i64 = row.map_or(Ok(0), |row| row.try_get(0))?;
    let mut streams = BTreeMap::new();
    for row in client.query_typed(&format!("SELECT id, name, version, hash FROM {s}.stream"), &[]).await? {
        let stream = Stream { name: row.try_get(1)?, version: row.try_get(2)?, hash: row.try_get(3)? };
        streams.insert(row.try_get::<_, i64>(0)?, stream);
    }
    let events = format!(
        "SELECT l.position, e.id, e.stream, e.version, e.key, e.kind, e.category, array_to_string(e.tags, ' '), e.body
         FROM {s}.log l LEFT JOIN {s}.event e ON e.id = l.event WHERE l.position > $1 ORDER BY l.position LIMIT $2"
    );
    let mut chains: BTreeMap<i64, (i64, ChainHash)> = BTreeMap::new();
    let mut position = 0;
    loop {
        let rows = client.query_typed(&events, &[(&position, Type::INT8), (&PAGE, Type::INT8)]).await?;
        for row in &rows {
            let at: i64 = row.try_get(0)?;
            if at != position + 1 {
                found.find(format!("{s}.log"), format!("position {at} follows {position}"));
            }
            position = at;
            found.events += 1;
            event(row, &streams, &mut chains, &mut found)?;
        }
        progress(position.cast_unsigned(), end.cast_unsigned());
        if rows.len() < usize::try_from(PAGE).unwrap_or(usize::MAX) {
            break;
        }
    }
    pending(client, s, &mut chains, &streams, &mut found).await?;
    for (id, stream) in &streams {
        found.streams += 1;
        let (version, hash) = chains.get(id).copied().unwrap_or((0, ChainHash::START));
        if (version, &hash.as_bytes()[..]) != (stream.version, &stream.hash[..]) {
            let what = format!("it says version {}, its events end at {version}, or with another hash", stream.version);
            found.find(format!("{s}.stream, row `{}`", stream.name), what);
        }
    }
    client.batch_execute("COMMIT").await?;
    Ok(found)
}

/// Events that are committed and have no position in this snapshot: they go on where the log ends.
async fn pending(
    client: &Client,
    s: &str,
    chains: &mut BTreeMap<i64, (i64, ChainHash)>,
    streams: &BTreeMap<i64, Stream>,
    found: &mut Verified,
) -> Result<(), Fault> {
    let waiting = format!(
        "SELECT NULL::bigint, e.id, e.stream, e.version, e.key, e.kind, e.category, array_to_string(e.tags, ' '), e.body
         FROM {s}.pending p LEFT JOIN {s}.event e ON e.id = p.event ORDER BY p.event"
    );
    for row in client.query_typed(&waiting, &[]).await? {
        event(&row, streams, chains, found)?;
    }
    let lost = format!(
        "SELECT e.id FROM {s}.event e WHERE NOT EXISTS (SELECT FROM {s}.log l WHERE l.event = e.id)
         AND NOT EXISTS (SELECT FROM {s}.pending p WHERE p.event = e.id) LIMIT 10"
    );
    for row in client.query_typed(&lost, &[]).await? {
        let id: i64 = row.try_get(0)?;
        found.find(format!("{s}.event, row {id}"), "it has no position, and waits for none");
    }
    Ok(())
}

fn event(
    row: &tokio_postgres::Row,
    streams: &BTreeMap<i64, Stream>,
    chains: &mut BTreeMap<i64, (i64, ChainHash)>,
    found: &mut Verified,
) -> Result<(), Fault> {
    found.rows += 1;
    let position: Option<i64> = row.try_get(0)?;
    let Some(id) = row.try_get::<_, Option<i64>>(1)? else {
        found.find(format!("log, position {}", position.unwrap_or(0)), "its event is not there");
        return Ok(());
    };
    let place = format!("event, row {id}");
    let (stream, version): (i64, i64) = (row.try_get(2)?, row.try_get(3)?);
    let body: &[u8] = row.try_get(8)?;
    let event =
        match Recorded::decode(Position::new(position.unwrap_or(0).cast_unsigned()), Bytes::copy_from_slice(body)) {
            Ok(event) => event,
            Err(wrong) => {
                found.find(place, wrong.to_string());
                return Ok(());
            }
        };
    let name = streams.get(&stream).map(|stream| stream.name.as_str());
    if name != Some(event.stream()) || event.version().get() != version.cast_unsigned() {
        found.find(&*place, "its bytes are those of another stream or version");
    }
    let (last, hash) = chains.get(&stream).copied().unwrap_or((0, ChainHash::START));
    if version != last + 1 {
        found.find(&*place, format!("version {version} of stream `{}` follows {last}", event.stream()));
    } else if !event.follows(&hash) {
        found.find(&*place, "the hash chain is broken: it, or the event before it, was changed");
    }
    chains.insert(stream, (version, event.hash()));
    let key = identity(event.stream(), event.source(), event.id()).to_be_bytes();
    let (kind, category, tags): (&str, &str, Option<&str>) = (row.try_get(5)?, row.try_get(6)?, row.try_get(7)?);
    if row.try_get::<_, &[u8]>(4)? != &key[..]
        || (kind, category, tags) != (event.kind(), event.category(), event.tags_text())
    {
        found.find(place, "what it is found by is not what its bytes say");
    }
    Ok(())
}
