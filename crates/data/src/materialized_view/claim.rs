//! Becoming the owner of a shard.
//!
//! An owner has an epoch, one higher than the owner before. That is what fences: every write names the epoch, so that an
//! owner who was away, and comes back with work done on what it remembers, writes nothing. When to take over is only a
//! matter of courtesy: the newest to come is first, and whoever it fences stands by until it has left; of several who stand
//! by, the newest is next. Where owners may be in other processes, whether one has left is told by its silence, on the
//! observer's own clock.

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
pub(super) fn silence(store: &Store, config: &Config) -> Option<Duration> {
    config.takeover.or_else(|| store.capabilities().several_writers.then_some(SILENCE))
}

/// Claims a shard, once whoever owns it is to be followed.
///
/// Where owners give signs of life, that is when it has let go of the shard or was silent for long enough. Where only this
/// process can have the store open, it is at once; or, for whoever `stands_by` because another one came after it, when
/// that one has left, and everybody else who came later.
pub(super) async fn run(
    shared: &Arc<Shared>,
    config: &Config,
    build: Build,
    shard: u32,
    stands_by: bool,
) -> Result<Claimed, ViewError> {
    let store = &shared.store;
    let mut observed = None;
    let mut present = store.presence().watch();
    loop {
        // Before the row is read: whoever leaves from here on is not missed.
        present.mark_unchanged();
        let Some(row) = rows::shard(&mut &*store, build, shard).await? else { return Ok(Claimed::Gone) };
        let owner: Arc<str> = row.owner.as_str().into();
        if !owner.is_empty() && owner != shared.owner {
            if let Some(silence) = silence(store, config) {
                let (sign, now) = ((row.epoch, row.beat), store.env().boot());
                let (_, since) = *observed.insert(observed.filter(|(seen, _)| *seen == sign).unwrap_or((sign, now)));
                if now.saturating_since(since) < silence {
                    store.env().sleep(silence / 4).await;
                    continue;
                }
            } else if stands_by && is_to_wait(shared, owner, build, shard) {
                // Looking around also tells whether the build, or the store, is still there.
                store.env().timeout(SILENCE, present.changed()).await;
                continue;
            }
        }
        let owner = shared.owner.clone();
        let claimed = store.transact(move |tx| Box::pin(claim(tx, build, shard, row.epoch, owner.clone())));
        if let Some(epoch) = claimed.await.map_err(ViewError::of_transaction)? {
            if stands_by {
                store.env().reached("view: whoever stood by took over");
            }
            return Ok(Claimed::Epoch(epoch));
        }
    }
}

/// Whether whoever stands by leaves a shard to others: to its `owner`, or to somebody who came later and stands by as well.
///
/// The newest waits for nobody but the owner, so that somebody goes on. One who came later and has not noticed yet that it
/// was fenced does with the next event.
fn is_to_wait(shared: &Shared, owner: Arc<str>, build: Build, shard: u32) -> bool {
    let presence = shared.store.presence();
    presence.has(&(owner, build, shard)) || presence.has_later(&(shared.owner.clone(), build, shard))
}

/// Lets go of a shard, so that nobody has to wait for silence. Does nothing where nobody would.
pub(super) async fn release(shared: &Shared, config: &Config, build: Build, shard: u32) -> Result<(), ViewError> {
    if silence(&shared.store, config).is_none() {
        return Ok(());
    }
    // Not by epoch: a claim that was abandoned on its way may be this owner's as well.
    let owner = shared.owner.clone();
    let released = shared.store.transact(move |tx| {
        let params = [rows::of(build), shard.into(), owner.clone().into()];
        Box::pin(async move {
            let sql = "UPDATE quorate_view_shard SET owner = '' WHERE build = $1 AND shard = $2 AND owner = $3";
            tx.room_execute(sql, &params).await.map_err(ViewError::from)
        })
    });
    released.await.map(drop).map_err(ViewError::of_transaction)
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
