//! Owners on a store that several processes write to: they give signs of life, and take over from whoever gives none.
//!
//! What is here decides only *when* a saga is taken over. That nobody is harmed by a wrong guess is the fence's part: every
//! transition names the owner that it was decided under (ADR 33).

mod children;

use std::{
    collections::BTreeMap,
    sync::{Arc, Weak},
    time::Duration,
};

use quorate_data::store::{DynTx, RoomTables, Row, SqlError, Store, StoreError};
use quorate_foundations::{name::Name, time::Boot};

use super::{
    Config, SagaError,
    rows::{Owner, SagaKey, text},
    service::{Room, Shared},
};

/// An owner without a row in `quorate_saga_sign` is gone: what it had is anybody's. `quorate_saga_taken` tells those who live
/// what was taken from them.
pub(crate) const TABLES: RoomTables = RoomTables {
    room: "saga_owners",
    versions: &[
        "CREATE TABLE quorate_saga_sign (owner BIGINT PRIMARY KEY, beat BIGINT NOT NULL);
    CREATE TABLE quorate_saga_taken (
        owner BIGINT NOT NULL, name TEXT NOT NULL, id TEXT NOT NULL, PRIMARY KEY (owner, name, id)
    )",
        // What each owner promises; 0: one of before, of whom it is not known.
        "ALTER TABLE quorate_saga_sign ADD COLUMN silence_ms BIGINT NOT NULL DEFAULT 0",
    ],
};

/// Signs that an owner gives in the time after which it counts as gone.
const SIGNS: u32 = 5;

/// What a row says at first: whoever opened the sagas has given one sign before it begins to watch.
const FIRST: i64 = 1;

/// Sagas that are looked at together.
const PAGE: i64 = 1_000;
/// Words that are heard together: each is a statement of one transaction, which has to end in time also where the database is far away.
const WORDS: i64 = 50;
/// A round may take so long at least: one that hangs on a dead connection would give no more signs.
const ROUND: Duration = Duration::from_secs(1);

/// Behind which saga to go on, by its name and its id.
type Place = (Arc<str>, Arc<str>);

/// For how long an owner gives no sign of life at most, as it says itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Promise(Duration);

impl Promise {
    pub(super) fn of(config: &Config) -> Self {
        Self::of_millis(i64::try_from(config.takeover.as_millis()).unwrap_or(i64::MAX))
    }

    /// Nobody may promise less often than can be configured.
    fn of_millis(millis: i64) -> Self {
        Self(Duration::from_millis(u64::try_from(millis).unwrap_or(0)).min(*Config::TAKEOVER.end()))
    }

    fn millis(self) -> i64 {
        i64::try_from(self.0.as_millis()).unwrap_or(i64::MAX)
    }
}

/// What an owner's row says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sign {
    owner: Owner,
    /// How often it gave a sign of life.
    beat: i64,
    promise: Promise,
}

/// What was seen of owners, and since when it did not change, by the clock of whoever saw it.
#[derive(Debug)]
struct Observed {
    seen: BTreeMap<Owner, (Sign, Boot)>,
    looked: Boot,
    /// Up to which of its own this process looked for those that nobody runs.
    swept: Place,
    /// Whether it was said that others promise something else.
    has_warned: bool,
}

impl Default for Observed {
    fn default() -> Self {
        Self { seen: BTreeMap::new(), looked: Boot::default(), swept: children::start(), has_warned: false }
    }
}

impl Observed {
    /// Takes in what stands there now. Returns those that gave no sign for as long as `silence`, or as they promise, whichever is longer: where
    /// one is given less time than it needs, everything of it would be taken from it again and again.
    ///
    /// One that is seen for the first time, or changed since, is given all of that time, however long nobody looked. So is everybody where nobody
    /// looked for long: what kept this process from it, a database that was down, say, kept others from giving signs.
    fn take(&mut self, now: Boot, found: &[Sign], silence: Duration) -> Vec<Sign> {
        if now.saturating_since(self.looked) > silence / 2 {
            self.seen.clear();
        }
        self.looked = now;
        let since = |sign: &Sign| {
            let known = self.seen.get(&sign.owner).filter(|(known, _)| known.beat == sign.beat);
            (sign.owner, (*sign, known.map_or(now, |(_, since)| *since)))
        };
        self.seen = found.iter().map(since).collect();
        let is_silent = |(sign, since): &&(Sign, Boot)| now.saturating_since(*since) >= silence.max(sign.promise.0);
        self.seen.values().filter(is_silent).map(|(sign, _)| *sign).collect()
    }

    /// Says once where somebody promises something else than `own`.
    fn compare(&mut self, found: &[Sign], own: Promise) {
        let is_other = |sign: &&Sign| sign.promise != own && sign.promise != Promise::default();
        let Some(other) = found.iter().find(is_other).filter(|_| !self.has_warned) else { return };
        self.has_warned = true;
        let (own, theirs) = (own.0, other.promise.0);
        tracing::warn!(?own, ?theirs, "processes differ in `takeover`: of two, the longer one holds");
    }
}

/// Gives a sign of life. One that others took for gone is there again with it.
pub(super) async fn give_sign(tx: &mut DynTx, owner: Owner, promise: Promise) -> Result<(), SqlError> {
    let sql = "INSERT INTO quorate_saga_sign (owner, beat, silence_ms) VALUES ($1, $2, $3)
        ON CONFLICT (owner) DO UPDATE SET beat = quorate_saga_sign.beat + 1, silence_ms = excluded.silence_ms";
    tx.room_execute(sql, &[owner.0.into(), FIRST.into(), promise.millis().into()]).await.map(drop)
}

/// Leaves word for `owner`, if it is there, that a saga was taken from it.
pub(super) async fn tell_taken(tx: &mut DynTx, owner: Owner, saga: &SagaKey) -> Result<(), SqlError> {
    // Who is gone hears nothing, and what is told to it would lie there for ever.
    let sql = "INSERT INTO quorate_saga_taken (owner, name, id)
        SELECT CAST($1 AS BIGINT), CAST($2 AS TEXT), CAST($3 AS TEXT)
        WHERE EXISTS (SELECT 1 FROM quorate_saga_sign WHERE owner = $1)
        ON CONFLICT (owner, name, id) DO UPDATE SET id = excluded.id";
    // Word that lies there is written again: its owner may be about to take it away, and has to see this one too.
    tx.room_execute(sql, &[owner.0.into(), (&saga.name).into(), saga.id.clone().into()]).await.map(drop)
}

/// Has this process give signs and watch those of others, until it stops, the store is closed or nobody holds the sagas any more.
pub(super) fn watch(shared: &Arc<Shared>, room: &Arc<Room>) {
    let env = shared.store.env().clone();
    let every = shared.config.takeover / SIGNS;
    let (shared, room) = (Arc::downgrade(shared), Arc::downgrade(room));
    let tasks = env.tasks().clone();
    tasks.spawn("saga owners", async move {
        let (mut observed, mut has_failed) = (Observed::default(), false);
        while let Some(now) = held(&shared, &room) {
            let most = (now.0.config.takeover / 2).max(ROUND);
            // What a round that is given up had begun ends by itself.
            let round = env.timeout(most, round(&now, &mut observed, has_failed));
            let Some(ended) = env.tasks().stop().run_until_cancelled(round).await else { return };
            has_failed = !matches!(ended, Some(Ok(())));
            match ended {
                Some(Ok(())) => {}
                Some(Err(SagaError::Store(StoreError::Closed))) => return,
                Some(Err(cause)) => {
                    tracing::warn!(%cause, "whose sagas are to be taken over cannot be told; it is tried again")
                }
                None => {
                    tracing::warn!(?most, "whose sagas are to be taken over was not told in time; it is tried again")
                }
            }
            // Nobody is kept by the one who watches.
            drop(now);
            if env.tasks().stop().run_until_cancelled(env.sleep(every)).await.is_none() {
                return;
            }
        }
    });
}

fn held(shared: &Weak<Shared>, room: &Weak<Room>) -> Option<(Arc<Shared>, Arc<Room>)> {
    Some((shared.upgrade()?, room.upgrade()?))
}

/// Gives a sign, and does what the signs of others ask for. `has_failed`: the round before did, and may have lost word.
async fn round(
    (shared, room): &(Arc<Shared>, Arc<Room>),
    observed: &mut Observed,
    has_failed: bool,
) -> Result<(), SagaError> {
    let (store, own, promise) = (&shared.store, shared.owner, Promise::of(&shared.config));
    let given =
        store.transact(move |tx| Box::pin(async move { give_sign(tx, own, promise).await.map_err(SagaError::from) }));
    given.await.map_err(SagaError::of_transaction)?;
    let found = signs(store).await?;
    let is_back = found.iter().any(|sign| (sign.owner, sign.beat) == (own, FIRST));
    if is_back {
        // Others took this process for gone, and nobody leaves word for one who is: what runs here may be theirs.
        store.env().reached("saga: an owner came back");
    }
    if has_failed || is_back {
        shared.look_all();
    }
    observed.compare(&found, promise);
    // The clock is read behind the rows: what they say is no newer than that.
    let silent = observed.take(store.env().boot(), &found, shared.config.takeover);
    for gone in silent.into_iter().filter(|sign| sign.owner != own) {
        strike_off(store, gone).await?;
    }
    // Whoever cannot hear takes over all the same.
    let heard = hear_of_taken(shared).await;
    let told = children::hear(shared).await;
    let swept = children::run_own(shared, room, &mut observed.swept).await;
    for (name, versions) in shared.definitions() {
        for version in versions {
            take_over(shared, room, &name, version).await?;
        }
    }
    heard.and(told).and(swept)
}

async fn signs(store: &Store) -> Result<Vec<Sign>, SagaError> {
    let rows = store.room_query("SELECT owner, beat, silence_ms FROM quorate_saga_sign", vec![]).await?;
    let sign = |row: &Row| {
        let (owner, beat) = (Owner(row.at(0).as_i64()?), row.at(1).as_i64()?);
        Some(Sign { owner, beat, promise: Promise::of_millis(row.at(2).as_i64()?) })
    };
    Ok(rows.iter().filter_map(sign).collect())
}

/// Notes that an owner is gone, unless it gave a sign since.
async fn strike_off(store: &Store, Sign { owner, beat, .. }: Sign) -> Result<(), SagaError> {
    let struck = store.transact(move |tx| {
        Box::pin(async move {
            let sql = "DELETE FROM quorate_saga_sign WHERE owner = $1 AND beat = $2";
            let is_struck = tx.room_execute(sql, &[owner.0.into(), beat.into()]).await? > 0;
            if is_struck {
                tx.room_execute("DELETE FROM quorate_saga_taken WHERE owner = $1", &[owner.0.into()]).await?;
            }
            Ok::<_, SagaError>(is_struck)
        })
    });
    if !struck.await.map_err(SagaError::of_transaction)? {
        return Ok(());
    }
    tracing::warn!(owner = owner.0, "a process that ran sagas gives no signs of life; they are taken over");
    store.env().reached("saga: an owner is gone");
    Ok(())
}

/// Has those sagas look whose they are that others took over.
async fn hear_of_taken(shared: &Shared) -> Result<(), SagaError> {
    let (store, own) = (&shared.store, shared.owner.0);
    loop {
        let sql = "SELECT name, id FROM quorate_saga_taken WHERE owner = $1 ORDER BY name, id LIMIT $2";
        let rows = store.room_query(sql, vec![own.into(), WORDS.into()]).await?;
        let taken = rows.iter().map(|row| Ok((text(row, 0)?, text(row, 1)?)));
        let taken = Arc::new(taken.collect::<Result<Vec<_>, SagaError>>()?);
        let heard = taken.clone();
        let forgotten = store.transact(move |tx| {
            let heard = heard.clone();
            Box::pin(async move {
                for (name, id) in heard.iter() {
                    let sql = "DELETE FROM quorate_saga_taken WHERE owner = $1 AND name = $2 AND id = $3";
                    tx.room_execute(sql, &[own.into(), name.clone().into(), id.clone().into()]).await?;
                }
                Ok::<_, SagaError>(())
            })
        });
        if taken.is_empty() {
            return Ok(());
        }
        let forgotten = forgotten.await.map_err(SagaError::of_transaction);
        // Ordering: behind the deletion, so that what is taken from now on is told anew; also where it is not known whether it was deleted.
        for (name, id) in taken.iter() {
            if let Ok(name) = Name::new(name.clone()) {
                shared.look(&SagaKey { name, id: id.clone() });
            }
        }
        forgotten?;
        if (taken.len() as i64) < WORDS {
            return Ok(());
        }
    }
}

/// Takes over what is open of a version of a definition, and belongs to nobody who is there.
async fn take_over(shared: &Arc<Shared>, room: &Arc<Room>, name: &Name, version: u32) -> Result<(), SagaError> {
    let sql = "SELECT id, owner FROM quorate_saga WHERE name = $1 AND version = $2 AND id > $3 AND status < 10 AND owner <> $4
        AND NOT EXISTS (SELECT 1 FROM quorate_saga_sign WHERE quorate_saga_sign.owner = quorate_saga.owner)
        ORDER BY id LIMIT $5";
    let mut after = Arc::<str>::from("");
    loop {
        let params = vec![name.into(), version.into(), after.into(), shared.owner.0.into(), PAGE.into()];
        let rows = shared.store.room_query(sql, params).await?;
        let found = rows.iter().map(|row| Ok((text(row, 0)?, row.at(1).as_i64().map(Owner))));
        let found = found.collect::<Result<Vec<_>, SagaError>>()?;
        for (id, owner) in &found {
            let saga = SagaKey { name: name.clone(), id: id.clone() };
            // A runner that lost it, and has not heard, would keep it from being run.
            shared.look(&saga);
            // From that owner alone: whoever took it meanwhile keeps it.
            shared.clone().take_over(room, saga, *owner)?;
        }
        match found.last() {
            Some((last, _)) if found.len() as i64 == PAGE => after = last.clone(),
            _ => return Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use quorate_foundations::time::Boot;

    use super::{Observed, Owner, Promise, Sign};

    const SILENCE: Duration = Duration::from_secs(10);

    fn sign(owner: i64, beat: i64) -> Sign {
        Sign { owner: Owner(owner), beat, promise: Promise(SILENCE) }
    }

    fn at(seconds: u64) -> Boot {
        Boot::from_nanos(seconds * 1_000_000_000)
    }

    #[test]
    fn an_owner_is_gone_once_it_was_seen_unchanged_for_all_of_the_silence() {
        let (mut observed, found) = (Observed::default(), [sign(1, 7)]);
        assert_eq!(observed.take(at(100), &found, SILENCE), [], "it is seen for the first time");
        assert_eq!(observed.take(at(105), &found, SILENCE), []);
        assert_eq!(observed.take(at(109), &found, SILENCE), []);
        assert_eq!(observed.take(at(110), &found, SILENCE), found);
    }

    #[test]
    fn the_time_in_which_nobody_looked_counts_against_nobody() {
        let (mut observed, found) = (Observed::default(), [sign(1, 7), sign(2, 3)]);
        observed.take(at(100), &found, SILENCE);
        assert_eq!(observed.take(at(112), &found, SILENCE), [], "the database was down, say");
        assert_eq!(observed.take(at(117), &[sign(1, 7), sign(2, 4)], SILENCE), []);
        assert_eq!(observed.take(at(122), &[sign(1, 7), sign(2, 5)], SILENCE), [sign(1, 7)]);
    }

    #[test]
    fn an_owner_that_gave_a_sign_has_all_of_the_silence_again_however_late_it_is_seen() {
        let mut observed = Observed::default();
        observed.take(at(100), &[sign(1, 7)], SILENCE);
        assert_eq!(observed.take(at(500), &[sign(1, 8)], SILENCE), []);
        assert_eq!(observed.take(at(505), &[sign(1, 8)], SILENCE), []);
        assert_eq!(observed.take(at(510), &[sign(1, 8)], SILENCE), [sign(1, 8)]);
    }

    #[test]
    fn an_owner_that_was_struck_off_and_comes_back_is_seen_for_the_first_time() {
        let mut observed = Observed::default();
        observed.take(at(100), &[sign(1, 7)], SILENCE);
        observed.take(at(110), &[], SILENCE);
        assert_eq!(observed.take(at(111), &[sign(1, 7)], SILENCE), []);
    }

    #[test]
    fn an_owner_that_promises_less_often_is_given_the_time_that_it_needs() {
        let slow = Sign { promise: Promise(3 * SILENCE), ..sign(1, 7) };
        let quick = Sign { promise: Promise(SILENCE / 10), ..sign(2, 3) };
        let of_before = Sign { promise: Promise::default(), ..sign(3, 1) };
        let mut observed = Observed::default();
        for seconds in [100, 105] {
            assert_eq!(observed.take(at(seconds), &[slow, quick, of_before], SILENCE), []);
        }
        assert_eq!(observed.take(at(110), &[slow, quick, of_before], SILENCE), [quick, of_before]);
        for seconds in [115, 120, 125] {
            assert_eq!(observed.take(at(seconds), &[slow], SILENCE), []);
        }
        assert_eq!(observed.take(at(130), &[slow], SILENCE), [slow]);
    }
}
