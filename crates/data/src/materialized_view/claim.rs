//! Becoming the owner of a shard.
//!
//! An owner has an epoch, one higher than the owner before. That is what fences: every write names the epoch, so that an
//! owner who was away, and comes back with work done on what it remembers, writes nothing. When to take over is only a
//! matter of courtesy, and goes by the observer's own clock.

use std::{sync::Arc, time::Duration};

use super::{Build, Config, ViewError, rows, shared::Shared};
use crate::store::{DynTx, Store};

/// How long an owner must have been silent, where several processes may own shards and nothing else is configured.
const SILENCE: Duration = Duration::from_secs(10);

/// What became of a claim.
pub(super) enum Claimed {
    /// The shard is ours under this epoch.
    Epoch(u64),
    /// There is no such shard any more.
    Gone,
}

/// How often an owner who has nothing to do gives a sign of life; `None`: nobody is waiting for one.
pub(super) fn sign_every(store: &Store, config: &Config) -> Option<Duration> {
    silence(store, config).map(|silence| silence / 4)
}

/// Gives a sign of life; `false` if somebody else owns the shard by now.
pub(super) async fn give_sign(store: &Store, build: Build, shard: u32, epoch: u64) -> Result<bool, ViewError> {
    let given = store.transact(move |tx| {
        Box::pin(async move {
            let sql = "UPDATE quorate_view_shard SET beat = beat + 1 WHERE build = $1 AND shard = $2 AND epoch = $3";
            let params = [rows::of(build), shard.into(), rows::number(epoch)];
            tx.room_execute(sql, &params).await.map_err(ViewError::from)
        })
    });
    given.await.map(|rows| rows > 0).map_err(ViewError::of_transaction)
}

/// How long an owner must have been silent before its shard is taken over; `None`: not at all.
fn silence(store: &Store, config: &Config) -> Option<Duration> {
    config.takeover.or_else(|| store.capabilities().several_writers.then_some(SILENCE))
}

/// Whether a shard that somebody else owns is waited for.
pub(super) fn is_patient(store: &Store, config: &Config) -> bool {
    silence(store, config).is_some()
}

/// Claims a shard, once its owner has been silent for long enough.
pub(super) async fn run(shared: &Arc<Shared>, config: &Config, build: Build, shard: u32) -> Result<Claimed, ViewError> {
    let store = &shared.store;
    let mut observed = None;
    loop {
        let Some(row) = rows::shard(&mut &*store, build, shard).await? else { return Ok(Claimed::Gone) };
        let wait = silence(store, config).filter(|_| !row.owner.is_empty() && *row.owner != *shared.owner);
        let sign = (row.epoch, row.beat);
        let now = store.env().boot();
        let since = match observed {
            Some((seen, since)) if seen == sign => since,
            _ => now,
        };
        observed = Some((sign, since));
        match wait.filter(|wait| now.saturating_since(since) < *wait) {
            Some(wait) => store.env().sleep(wait / 4).await,
            None => {
                let owner = shared.owner.clone();
                let claimed = store.transact(move |tx| Box::pin(claim(tx, build, shard, row.epoch, owner.clone())));
                if let Some(epoch) = claimed.await.map_err(ViewError::of_transaction)? {
                    return Ok(Claimed::Epoch(epoch));
                }
            }
        }
    }
}

/// `None` if somebody else was first.
async fn claim(tx: &mut DynTx, build: Build, shard: u32, seen: u64, owner: Arc<str>) -> Result<Option<u64>, ViewError> {
    // A new owner does not know whether every append since was made with the view's code beside it: it looks for itself.
    let sql = "UPDATE quorate_view_shard SET epoch = epoch + 1, owner = $1, beat = beat + 1, inline = 0
        WHERE build = $2 AND shard = $3 AND epoch = $4";
    let params = [owner.into(), rows::of(build), shard.into(), rows::number(seen)];
    let changed = tx.room_execute(sql, &params).await?;
    Ok((changed > 0).then_some(seen + 1))
}
