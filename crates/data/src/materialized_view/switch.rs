//! Giving readers another build: one row, in one transaction, at an exact position.

use super::{
    BuildRow, ViewError, effects,
    rows::{self, ShardRow},
};
use crate::{event::Position, store::DynTx};

/// Switches to `build` if it has caught up and misses nothing; whether it did.
pub(super) async fn try_in(tx: &mut DynTx, build: &BuildRow) -> Result<bool, ViewError> {
    match run(tx, build, false).await {
        Ok(_) => Ok(true),
        Err(ViewError::NotCaughtUp { .. } | ViewError::Incomplete { .. }) => Ok(false),
        Err(failed) => Err(failed),
    }
}

/// Switches to `build`; returns the position up to which the build before was read.
///
/// # Errors
/// [`ViewError::NotCaughtUp`] where readers would see less than they have seen; [`ViewError::Incomplete`] where events of
/// the build are parked and that was not accepted.
pub(super) async fn run(tx: &mut DynTx, build: &BuildRow, accept_parked: bool) -> Result<Position, ViewError> {
    let shards = rows::shards(tx, build.build).await?;
    let applied = least(&shards);
    let before = rows::live(tx, &build.view).await?;
    let reached: Vec<Position> = match &before {
        Some(before) if before.build == build.build => return Ok(applied),
        Some(before) => rows::shards(tx, before.build).await?.iter().map(|shard| shard.checkpoint).collect(),
        // The first build begins with what the log held when it was begun.
        None => vec![build.begun],
    };
    let live = reached.iter().max().copied().unwrap_or_default();
    if applied < live {
        return Err(ViewError::NotCaughtUp { view: build.view.clone(), build: build.build, applied, live });
    }
    let parked = shards.iter().map(|shard| shard.parked).sum();
    // Where readers have nothing yet, something with its gaps named is better.
    if parked > 0 && !accept_parked && before.is_some() {
        return Err(ViewError::Incomplete { view: build.view.clone(), build: build.build, parked });
    }
    let except = effects::release(tx, build, before.as_ref(), &reached).await?;
    let sql = "UPDATE quorate_view SET live = $1, switched = $2 WHERE name = $3";
    tx.room_execute(sql, &[rows::of(build.build), rows::position(live), rows::text(&build.view)]).await?;
    let sql = "UPDATE quorate_view_build SET effects_after = $1, effects_except = $2 WHERE build = $3";
    let params = [rows::positions_text(&reached).into(), rows::positions_text(&except).into(), rows::of(build.build)];
    tx.room_execute(sql, &params).await?;
    // Effects that a rebuild may repeat are none of the one that readers leave.
    if let Some(before) = &before {
        tx.room_execute("UPDATE quorate_view_build SET was_live = 1 WHERE build = $1", &[rows::of(before.build)])
            .await?;
    }
    // Older builds stay as they are, beside: none of them switches back by itself.
    let sql = "UPDATE quorate_view_build SET switch = 'manual' WHERE view = $1 AND build <= $2";
    tx.room_execute(sql, &[rows::text(&build.view), rows::of(build.build)]).await?;
    Ok(live)
}

/// How far all shards are.
pub(super) fn least(shards: &[ShardRow]) -> Position {
    shards.iter().map(|shard| shard.checkpoint).min().unwrap_or_default()
}
