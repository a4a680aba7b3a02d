//! The tables of quorate's own rooms, and how they come to their newest version.

use super::{DynTx, SqlError, StoreError};

/// The tables of one of quorate's rooms, as a series of versions: each entry takes the tables from the version before.
///
/// Tables are named `quorate_<room>` or `quorate_<room>_…`. Entries are only ever added at the end.
#[derive(Clone, Copy, Debug)]
pub struct RoomTables {
    /// The room.
    pub room: &'static str,
    /// Statements that lead from each version to the next.
    pub versions: &'static [&'static str],
}

/// Creates or upgrades `tables`.
pub(super) async fn upgrade(tx: &mut DynTx, tables: RoomTables) -> Result<(), SqlError> {
    let known = tx.room_query("SELECT version, sum FROM quorate_room WHERE room = $1", &[tables.room.into()]).await?;
    let found = match known.first().map(|row| (row.at(0).as_i64(), row.at(1).as_i64())) {
        None => 0,
        Some((Some(version), Some(sum))) if sum == room_sum(tables.room, version) => {
            usize::try_from(version).unwrap_or(usize::MAX)
        }
        Some(_) => {
            let place = format!("quorate_room, row `{}`", tables.room);
            return Err(StoreError::Corrupt { place, what: "the checksum does not match".to_owned() }.into());
        }
    };
    let Some(missing) = tables.versions.get(found..) else {
        let what = format!(
            "use tables of {} at version {found}: this quorate knows up to {}",
            tables.room,
            tables.versions.len()
        );
        return Err(SqlError::Refused { what });
    };
    // Who opens a room whose tables are there writes nothing: that goes on a full disk as well.
    if missing.is_empty() {
        return Ok(());
    }
    for statement in missing.iter().flat_map(|version| version.split(';')).filter(|s| !s.trim().is_empty()) {
        tx.room_execute(statement, &[]).await?;
    }
    let newest = i64::try_from(tables.versions.len()).unwrap_or(i64::MAX);
    let upsert = "INSERT INTO quorate_room (room, version, sum) VALUES ($1, $2, $3) ON CONFLICT (room) DO UPDATE SET version = $2, sum = $3";
    let row = [tables.room.into(), newest.into(), room_sum(tables.room, newest).into()];
    tx.room_execute(upsert, &row).await.map(|_| ())
}

/// The checksum of a row of `quorate_room`.
pub(super) fn room_sum(room: &str, version: i64) -> i64 {
    let mut sum = crc32fast::Hasher::new();
    sum.update(room.as_bytes());
    sum.update(&version.to_le_bytes());
    sum.finalize().into()
}
