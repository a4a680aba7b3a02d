//! Effects: what should happen outside because of an event, kept in the store until it was carried out.
//!
//! Only one build of a view may have its effects carried out at any position, whatever is rebuilt meanwhile. So a build that
//! readers do not have yet leaves out what the live one has carried out, and *holds* what lies beyond. The switch happens in
//! one transaction, at the exact position the live build has reached: effects held up to there are dropped, those beyond are
//! released.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use quorate_runtime::BoxFuture;

use super::{
    ApplyError, Build, BuildRow, OnRebuild, ViewError, ViewName, advance::Halt, erasure, key_hash,
    registered::Registered, rows, tx::Requested,
};
use crate::{
    event::{Position, Recorded},
    store::{DynTx, Row, Store},
};

/// The longest text of an effect, in bytes.
pub(super) const MAX_PAYLOAD: usize = 64 << 10;
/// Effects of one event.
pub(super) const MAX_PER_EVENT: u32 = 100;

/// Something to carry out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effect {
    /// The view whose projection asked for it.
    pub view: ViewName,
    /// Its kind.
    pub kind: String,
    /// The event that caused it.
    pub position: Position,
    /// Which effect of that event it is, counted from 0.
    pub ordinal: u32,
    /// What the projection said of it.
    pub payload: Arc<str>,
    /// How often it was tried before.
    pub attempts: u32,
}

impl Effect {
    /// The same each time this effect is carried out, whichever build asked for it: an idempotency key for whoever receives it.
    pub fn key(&self) -> String {
        format!("{}/{}/{}", self.view, self.position, self.ordinal)
    }
}

/// Carries effects out.
pub trait EffectHandler: Send + Sync + 'static {
    /// Carries out `effect`. It may have been carried out before, wholly or in part: see [`Effect::key`].
    ///
    /// # Errors
    /// Why not, for people to read. It is tried again after a rest; later ones wait, so that they stay in order. A panic is a
    /// failure, too.
    fn carry_out<'e>(&'e self, effect: &'e Effect) -> BoxFuture<'e, Result<(), String>>;
}

/// Up to which position another build's effects were carried out, so that this build's are left out.
#[derive(Debug)]
pub(super) struct Threshold {
    live: bool,
    was_live: bool,
    /// One position for each shard of the other build.
    reached: Vec<Position>,
    /// What it parked, and so did not carry out.
    except: BTreeSet<Position>,
}

impl Threshold {
    /// Of a build, in this transaction.
    pub(super) async fn of(tx: &mut DynTx, build: &BuildRow) -> Result<Self, ViewError> {
        let beside = if build.live { None } else { rows::live(tx, &build.view).await? };
        let Some(other) = beside else {
            let (reached, except) = (build.effects_after.clone(), build.effects_except.clone());
            return Ok(Self { live: build.live, was_live: build.was_live, reached, except });
        };
        let reached = rows::shards(tx, other.build).await?.iter().map(|shard| shard.checkpoint).collect();
        Ok(Self { live: false, was_live: build.was_live, reached, except: owed(tx, &other).await?.0 })
    }

    /// What is done with an effect at `position` of an event with this hash of its key.
    fn decide(&self, on_rebuild: OnRebuild, position: Position, hash: u32) -> Decision {
        let reached = self.reached.get(hash as usize % self.reached.len().max(1));
        let is_history = reached.is_some_and(|reached| position <= *reached) && !self.except.contains(&position);
        match (is_history, on_rebuild) {
            (false, _) if self.live => Decision::Release,
            (false, _) => Decision::Hold,
            // One that readers have left is no rebuild: what it says would come behind what the newer one has said.
            (true, OnRebuild::Repeat) if self.live || !self.was_live => Decision::Release,
            (true, OnRebuild::Repeat | OnRebuild::Suppress) => Decision::Drop,
        }
    }
}

/// The parked events of a build whose effects nobody has carried out yet, and those whose effects a build before it has.
async fn owed(tx: &mut DynTx, build: &BuildRow) -> Result<(BTreeSet<Position>, BTreeSet<Position>), ViewError> {
    let reached = &build.effects_after;
    let is_owed = |position: &Position, key: &str| {
        let before = reached.get(key_hash(key) as usize % reached.len().max(1));
        before.is_none_or(|before| position > before) || build.effects_except.contains(position)
    };
    let (mut owed, mut carried_out) = (BTreeSet::new(), BTreeSet::new());
    for (position, key) in rows::parked(tx, build.build).await? {
        if is_owed(&position, &key) {
            owed.insert(position)
        } else {
            carried_out.insert(position)
        };
    }
    Ok((owed, carried_out))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Decision {
    Release,
    Hold,
    Drop,
}

/// Keeps, holds or leaves out what a projection asked for.
pub(super) async fn keep(
    tx: &mut DynTx,
    code: &Registered,
    build: &BuildRow,
    threshold: &Threshold,
    events: &[Recorded],
    requested: Vec<Requested>,
) -> Result<(), Halt> {
    let mut ordinals: BTreeMap<Position, u32> = BTreeMap::new();
    for effect in requested {
        let poison =
            |reason: String| Halt::Apply(ApplyError::Event { position: effect.position, reason, certain: false });
        let at = events.binary_search_by_key(&effect.position, Recorded::position);
        let event = at.ok().and_then(|at| events.get(at));
        let event = event.ok_or_else(|| poison("it asked for an effect of another event".to_owned()))?;
        let kind = code.effects.get(&effect.kind).copied();
        let on_rebuild = kind.ok_or_else(|| poison(format!("`{}` is no kind of effect it declares", effect.kind)))?;
        if effect.payload.len() > MAX_PAYLOAD {
            return Err(poison(format!("an effect's payload has at most {MAX_PAYLOAD} bytes")));
        }
        let ordinal = ordinals.entry(effect.position).or_default();
        let (number, hash) = (*ordinal, key_hash(code.key(event)));
        *ordinal += 1;
        if number >= MAX_PER_EVENT {
            return Err(poison(format!("an event has at most {MAX_PER_EVENT} effects")));
        }
        #[cfg(feature = "museum")]
        let planted = code.env.planted("effect-repeated-on-rebuild");
        #[cfg(not(feature = "museum"))]
        let planted = false;
        let held = match threshold.decide(on_rebuild, effect.position, hash) {
            _ if planted => 0,
            Decision::Drop => continue,
            Decision::Release => 0,
            Decision::Hold => build.build.get(),
        };
        if threshold.live && number == 0 {
            // What builds beside hold of this event they hold in vain from now on: a switch to one of them would drop it.
            let sql = "DELETE FROM quorate_view_effect WHERE view = $1 AND position = $2 AND held > 0";
            tx.room_execute(sql, &[rows::text(&build.view), rows::position(effect.position)]).await?;
        }
        let sql =
            "INSERT INTO quorate_view_effect (view, position, ordinal, held, key_hash, kind, payload, subject, attempts, reason)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 0, '') ON CONFLICT (view, position, ordinal, held) DO NOTHING";
        let params = [
            rows::text(&build.view),
            rows::position(effect.position),
            number.into(),
            held.into(),
            hash.into(),
            effect.kind.into(),
            effect.payload.into(),
            erasure::subject_of(code.store_id, event).into(),
        ];
        tx.room_execute(sql, &params).await?;
    }
    Ok(())
}

/// At the switch to `build`: drops what it held that the build `before`, at `reached`, has carried out, releases the rest.
///
/// Returns the events up to there that both have parked, and whose effects nobody has carried out: whoever replays one later
/// asks for them.
pub(super) async fn release(
    tx: &mut DynTx,
    build: &BuildRow,
    before: Option<&BuildRow>,
    reached: &[Position],
) -> Result<BTreeSet<Position>, ViewError> {
    let shards = i64::try_from(reached.len()).unwrap_or(i64::MAX);
    for (shard, reached) in (0_i64..).zip(reached) {
        let sql =
            "DELETE FROM quorate_view_effect WHERE view = $1 AND held = $2 AND key_hash % $3 = $4 AND position <= $5
            AND position NOT IN (SELECT position FROM quorate_view_parked WHERE build = $6)";
        let params = [
            rows::text(&build.view),
            rows::of(build.build),
            shards.into(),
            shard.into(),
            rows::position(*reached),
            before.map_or(0, |before| before.build.get()).into(),
        ];
        tx.room_execute(sql, &params).await?;
    }
    let (owed, carried_out) = match before {
        Some(before) => owed(tx, before).await?,
        None => Default::default(),
    };
    for position in carried_out {
        let sql = "DELETE FROM quorate_view_effect WHERE view = $1 AND held = $2 AND position = $3";
        let params = [rows::text(&build.view), rows::of(build.build), rows::position(position)];
        tx.room_execute(sql, &params).await?;
    }
    let sql = "UPDATE quorate_view_effect SET held = 0 WHERE view = $1 AND held = $2";
    tx.room_execute(sql, &[rows::text(&build.view), rows::of(build.build)]).await?;
    if owed.is_empty() {
        return Ok(owed);
    }
    let parked = rows::parked(tx, build.build).await?;
    Ok(owed.into_iter().filter(|position| parked.contains_key(position)).collect())
}

/// Forgets what a build held.
pub(super) async fn forget(tx: &mut DynTx, build: Build) -> Result<(), ViewError> {
    tx.room_execute("DELETE FROM quorate_view_effect WHERE held = $1", &[rows::of(build)]).await?;
    Ok(())
}

/// The next of the released effects of a view that were tried less than `attempts` times.
///
/// One alone: of those that wait in memory, an erasure would not know.
pub(super) async fn released(store: &Store, view: &ViewName, attempts: u32) -> Result<Option<Effect>, ViewError> {
    let sql = "SELECT position, ordinal, kind, payload, attempts FROM quorate_view_effect
        WHERE view = $1 AND held = 0 AND attempts < $2 ORDER BY position, ordinal LIMIT 1";
    let rows = store.room_query(sql, vec![rows::text(view), attempts.into()]).await?;
    rows.first().map(|row| effect(view, row)).transpose()
}

/// How many released effects of a view wait, and how many were tried `attempts` times in vain.
pub(super) async fn waiting(store: &Store, view: &ViewName, attempts: u32) -> Result<(u64, u64), ViewError> {
    let sql = "SELECT count(*), coalesce(sum(CASE WHEN attempts >= $2 THEN 1 ELSE 0 END), 0) FROM quorate_view_effect
        WHERE view = $1 AND held = 0";
    let found = store.room_query(sql, vec![rows::text(view), attempts.into()]).await?;
    let count = |n: usize| found.first().map_or(Ok(0), |row| rows::unsigned(row.at(n), "attempts"));
    let (all, given_up) = (count(0)?, count(1)?);
    Ok((all - given_up, given_up))
}

pub(super) fn effect(view: &ViewName, row: &Row) -> Result<Effect, ViewError> {
    let small = |n: usize, column| rows::unsigned(row.at(n), column).map(|n| u32::try_from(n).unwrap_or(u32::MAX));
    Ok(Effect {
        view: view.clone(),
        position: Position::new(rows::unsigned(row.at(0), "position")?),
        ordinal: small(1, "ordinal")?,
        kind: rows::string(row.at(2), "kind")?.to_owned(),
        payload: rows::string(row.at(3), "payload")?.into(),
        attempts: small(4, "attempts")?,
    })
}

/// Notes that an effect was carried out, or why not.
pub(super) async fn settle(store: &Store, effect: &Effect, outcome: Result<(), String>) -> Result<(), ViewError> {
    let at = vec![rows::text(&effect.view), rows::position(effect.position), effect.ordinal.into()];
    let (sql, params) = match outcome {
        Ok(()) => {
            ("DELETE FROM quorate_view_effect WHERE view = $1 AND position = $2 AND ordinal = $3 AND held = 0", at)
        }
        Err(reason) => (
            "UPDATE quorate_view_effect SET attempts = attempts + 1, reason = $4
             WHERE view = $1 AND position = $2 AND ordinal = $3 AND held = 0",
            at.into_iter().chain([reason.into()]).collect(),
        ),
    };
    let params = Arc::new(params);
    let done = store.transact(move |tx| {
        let params = params.clone();
        Box::pin(async move { tx.room_execute(sql, &params).await.map_err(ViewError::from) })
    });
    done.await.map(|_| ()).map_err(ViewError::of_transaction)
}

/// How long to rest after an effect failed for the `attempts`-th time.
pub(super) fn rest(attempts: u32) -> Duration {
    Duration::from_millis(100).saturating_mul(1 << attempts.min(8)).min(Duration::from_secs(30))
}
