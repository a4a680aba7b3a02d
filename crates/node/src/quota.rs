//! The count of rate limits that several processes share, kept in the store.
//!
//! One row for each key says when its next unit is due, which is all that the rule of a rate needs
//! ([`Gcra`]). A key whose bucket is full again is forgotten, a few with each asking, so
//! that the table holds no more than what was asked for lately. While as many keys as there may be have something to remember,
//! all others share one bucket of that rate: nobody gets more by coming under many names.
//!
//! Processes on several machines have no clock in common but the database's, so its clock counts wherever several may write: what the
//! clock of a machine says has no say there. Where one process writes, it is its own wall clock. One that jumps ahead gives up to a burst
//! too much, once; one that jumps back takes away no more than a burst, which comes back at the rate from the next asking on.

use std::{
    num::{NonZeroU32, NonZeroUsize},
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use quorate_data::store::{DynTx, RoomTables, SqlError, Store, TransactError, Value};
use quorate_foundations::{name::Name, time::Mono};
use quorate_resilience::rate_limit::{Gcra, Portion, Quota, Rate, Unavailable};
use quorate_runtime::BoxFuture;
use tokio::sync::OnceCell;

pub(crate) const TABLES: RoomTables = RoomTables {
    room: "quota",
    versions: &[
        "CREATE TABLE quorate_quota (name TEXT PRIMARY KEY, due BIGINT NOT NULL);
        CREATE INDEX quorate_quota_by_due ON quorate_quota (due)",
        // What was taken lately is forgotten with the table: each key may take a burst once more.
        "DROP TABLE quorate_quota;
        CREATE TABLE quorate_quota (
            quota TEXT NOT NULL, key TEXT NOT NULL, due BIGINT NOT NULL, PRIMARY KEY (quota, key));
        CREATE INDEX quorate_quota_by_due ON quorate_quota (due)",
    ],
};
/// When the next unit of a key is due.
const SELECT: &str = "SELECT (SELECT due FROM quorate_quota WHERE quota = $1 AND key = $2)";
/// The same, and what time it is: in nanoseconds since 1970.
const SELECT_AND_TIME: &str = "SELECT (SELECT due FROM quorate_quota WHERE quota = $1 AND key = $2),
    (extract(epoch FROM clock_timestamp()) * 1000000)::bigint * 1000";
const UPSERT: &str = "INSERT INTO quorate_quota (quota, key, due) VALUES ($1, $2, $3)
    ON CONFLICT (quota, key) DO UPDATE SET due = $3";
/// Two for one that comes: the table can only shrink to what is needed.
const FORGET: &str = "DELETE FROM quorate_quota WHERE (quota, key) IN
    (SELECT quota, key FROM quorate_quota WHERE due < $1 ORDER BY due LIMIT 2)";
/// How many there are, as far as it matters.
const COUNT: &str = "SELECT count(*) FROM (SELECT 1 FROM quorate_quota WHERE quota = $1 LIMIT $2) AS known";
const RESET: &str = "DELETE FROM quorate_quota WHERE quota = $1";
const RESET_ONE: &str = "DELETE FROM quorate_quota WHERE quota = $1 AND key = $2";
/// The key under which all that don't fit are counted; no name is empty.
const OTHERS: &str = "";

/// The count of one shared rate limit, in one store. Cheap to clone.
#[derive(Clone)]
pub struct StoreQuota {
    store: Store,
    /// Whether its table is there.
    table: Arc<OnceCell<()>>,
    name: Name,
    most_keys: NonZeroUsize,
    /// How many more keys may come before they are counted anew.
    room: Arc<AtomicI64>,
}

impl StoreQuota {
    /// The count called `name`, kept in `store` for about `most_keys` keys; all others share one bucket. Where several processes
    /// add keys, each may add an eighth more. Its table is made when somebody first takes something: a store that can't make it
    /// is one that can't be asked.
    pub fn of(store: &Store, name: Name, most_keys: NonZeroUsize) -> Self {
        Self { store: store.clone(), table: Arc::default(), name, most_keys, room: Arc::default() }
    }

    async fn table(&self) -> Result<(), SqlError> {
        self.table.get_or_try_init(|| self.store.declare(TABLES)).await.copied()
    }

    /// Forgets what was taken, by all keys.
    ///
    /// # Errors
    /// [`TransactError`]: nothing was forgotten, or where it says so that is unknown.
    pub async fn forget_all(&self) -> Result<(), TransactError<SqlError>> {
        self.table().await.map_err(TransactError::Aborted)?;
        let name = self.name.clone();
        let forgetting = self.store.transact(move |tx| {
            let name = name.clone();
            Box::pin(async move { tx.room_execute(RESET, &[name.as_str().into()]).await })
        });
        forgetting.await.map(|_| ())
    }

    async fn take_in(
        &self,
        tx: &mut DynTx,
        key: &Name,
        rule: Gcra,
        (least, most): (NonZeroU32, NonZeroU32),
    ) -> Result<Portion, SqlError> {
        let quota = || Value::from(self.name.as_str());
        let mut key = key.as_str();
        let (mut due, now) = self.due(tx, key).await?;
        if due.is_none() && !self.has_room(tx).await? {
            key = OTHERS;
            (due, _) = self.due(tx, key).await?;
        }
        // Further ahead than a burst only a clock that jumped can have set it, or another rate.
        let (written, latest) = (due.unwrap_or(0), rule.latest(now));
        let due = written.min(latest);
        Ok(match rule.lease(due, now, least, most) {
            Ok((units, after)) => {
                tx.room_execute(FORGET, &[nanos(now.as_nanos())]).await?;
                tx.room_execute(UPSERT, &[quota(), key.into(), nanos(after)]).await?;
                Portion::Given { units, left: rule.standing(after, now) }
            }
            Err(refused) => {
                // Kept, or it would be as far ahead of whoever asks next, and nobody be given anything until that time has come.
                if due < written {
                    tx.room_execute(UPSERT, &[quota(), key.into(), nanos(due)]).await?;
                }
                Portion::Refused(refused)
            }
        })
    }

    /// When the next unit of `key` is due, if anything is remembered of it, and what time it is; before 1970 there is none.
    async fn due(&self, tx: &mut DynTx, key: &str) -> Result<(Option<u64>, Mono), SqlError> {
        let several = self.store.capabilities().several_writers;
        let select = if several { SELECT_AND_TIME } else { SELECT };
        let rows = tx.room_query(select, &[self.name.as_str().into(), key.into()]).await?;
        let row = rows.first();
        let number = |at| row.and_then(|row| row.at(at).as_i64()).map(|nanos| nanos.max(0).unsigned_abs());
        let own = || self.store.env().wall().unix_nanos().max(0).unsigned_abs();
        let now = if several { number(1).unwrap_or_else(own) } else { own() };
        Ok((number(0), Mono::from_nanos(now)))
    }

    /// Whether one key more may be remembered. They are counted when an eighth of them can have come since, and each time while
    /// there is no room.
    async fn has_room(&self, tx: &mut DynTx) -> Result<bool, SqlError> {
        if self.room.fetch_sub(1, Ordering::Relaxed) > 0 {
            return Ok(true);
        }
        let most = i64::try_from(self.most_keys.get()).unwrap_or(i64::MAX);
        let rows = tx.room_query(COUNT, &[self.name.as_str().into(), most.into()]).await?;
        let known = rows.first().and_then(|row| row.at(0).as_i64()).unwrap_or(0);
        let room = (most - known).min(most / 8 + 1);
        self.room.store(room - 1, Ordering::Relaxed);
        Ok(room > 0)
    }
}

impl Quota for StoreQuota {
    fn take<'a>(
        &'a self,
        key: &'a Name,
        rate: Rate,
        least: NonZeroU32,
        most: NonZeroU32,
    ) -> BoxFuture<'a, Result<Portion, Unavailable>> {
        Box::pin(async move {
            let rule = Gcra::new(rate).map_err(unavailable)?;
            self.table().await.map_err(unavailable)?;
            let (this, key) = (self.clone(), key.clone());
            let taking = self.store.transact(move |tx| {
                let (this, key) = (this.clone(), key.clone());
                Box::pin(async move { this.take_in(tx, &key, rule, (least, most)).await })
            });
            taking.await.map_err(unavailable)
        })
    }

    fn forget<'a>(&'a self, key: &'a Name) -> BoxFuture<'a, Result<(), Unavailable>> {
        Box::pin(async move {
            self.table().await.map_err(|cause| unavailable(TransactError::Aborted(cause)))?;
            let (name, key) = (self.name.clone(), key.clone());
            let forgetting = self.store.transact(move |tx| {
                let (name, key) = (name.clone(), key.clone());
                Box::pin(async move { tx.room_execute(RESET_ONE, &[name.as_str().into(), key.as_str().into()]).await })
            });
            forgetting.await.map(|_| ()).map_err(unavailable)
        })
    }
}

fn nanos(nanos: u64) -> Value {
    i64::try_from(nanos).unwrap_or(i64::MAX).into()
}

fn unavailable(cause: impl std::error::Error + Send + Sync + 'static) -> Unavailable {
    Unavailable(Arc::new(cause))
}

impl std::fmt::Debug for StoreQuota {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoreQuota").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use quorate_data::store::sqlite;
    use quorate_foundations::time::{Boot, Wall};
    use quorate_resilience::rate_limit::{Count, OnUnavailable, Shared, SharedConfig, SharedRejected};
    use quorate_runtime::{Env, clock::Clocks};

    use super::*;

    fn n(number: u32) -> NonZeroU32 {
        NonZeroU32::new(number).unwrap()
    }

    /// A hundred in most of a year: while a test runs, none comes.
    fn rate() -> Rate {
        Rate::new(n(100), Duration::from_secs(300 * 24 * 3_600))
    }

    fn quota(store: &Store, most_keys: usize) -> Arc<StoreQuota> {
        Arc::new(StoreQuota::of(store, "tenants".parse().unwrap(), most_keys.try_into().unwrap()))
    }

    fn config(on_unavailable: OnUnavailable) -> SharedConfig {
        SharedConfig {
            rate: rate(),
            portion: n(10),
            lease: Duration::from_secs(60),
            patience: Duration::from_secs(10),
            on_unavailable,
            most_keys: 16.try_into().unwrap(),
        }
    }

    async fn taken(shared: &Shared, key: &Name, times: u32) -> u32 {
        let mut taken = 0;
        for _ in 0..times {
            match shared.take(key, 1).await {
                Ok(allowed) => {
                    assert_eq!(allowed.by, Count::Shared);
                    taken += 1;
                }
                Err(refused) => assert!(matches!(refused, SharedRejected::Limit(_)), "{refused}"),
            }
        }
        taken
    }

    #[tokio::test]
    async fn processes_that_share_a_store_share_its_count_which_a_restart_keeps() {
        let (env, folder) = (Env::real(), tempfile::tempdir().unwrap());
        let key: Name = "tenant".parse().unwrap();
        let mut given = 0;
        for _ in 0..2 {
            let path = folder.path().join("store.db");
            let store = sqlite::open(&env, sqlite::Config::at(path)).await.unwrap();
            let quota = quota(&store, 16);
            for _ in 0..2 {
                let process = Shared::new(&env, quota.clone(), config(OnUnavailable::Deny)).unwrap();
                given += taken(&process, &key, 30).await;
            }
            store.close().await.unwrap();
        }
        // Thirty each, and what is left to the last.
        assert_eq!(given, 100);
    }

    #[tokio::test]
    async fn what_one_key_took_is_forgotten_and_what_others_took_is_not() {
        let (env, folder) = (Env::real(), tempfile::tempdir().unwrap());
        let store = sqlite::open(&env, sqlite::Config::at(folder.path().join("store.db"))).await.unwrap();
        let quota = quota(&store, 16);
        let all = async |key: &str| {
            let given = quota.take(&key.parse().unwrap(), rate(), n(100), n(100)).await.unwrap();
            matches!(given, Portion::Given { .. })
        };
        assert!(all("a").await && all("b").await);
        Quota::forget(&*quota, &"a".parse().unwrap()).await.unwrap();
        assert_eq!((all("a").await, all("b").await), (true, false));
        store.close().await.unwrap();
        assert!(Quota::forget(&*quota, &"a".parse().unwrap()).await.is_err());
    }

    /// Clocks whose wall is set by hand, in seconds since 1970.
    struct Hands(Arc<AtomicI64>, Arc<dyn Clocks>);

    impl Clocks for Hands {
        fn wall(&self) -> Wall {
            Wall::from_unix_nanos(self.0.load(Ordering::Relaxed) * 1_000_000_000)
        }

        fn mono(&self) -> Mono {
            self.1.mono()
        }

        fn boot(&self) -> Boot {
            self.1.boot()
        }

        fn sleep_until(&self, due: Mono) -> BoxFuture<'static, ()> {
            self.1.sleep_until(due)
        }
    }

    #[tokio::test]
    async fn a_clock_that_was_ahead_keeps_nobody_waiting_once_it_is_set_right() {
        let (wall, mut parts) = (Arc::new(AtomicI64::new(1_700_000_000)), Env::real().into_parts());
        parts.clocks = Arc::new(Hands(wall.clone(), parts.clocks));
        let (env, folder) = (Env::from_parts(parts), tempfile::tempdir().unwrap());
        let store = sqlite::open(&env, sqlite::Config::at(folder.path().join("store.db"))).await.unwrap();
        let (quota, key) = (quota(&store, 16), "a".parse().unwrap());
        // One comes each minute.
        let rate = Rate::new(n(10), Duration::from_secs(600));
        let given = async || match quota.take(&key, rate, n(1), n(10)).await.unwrap() {
            Portion::Given { units, .. } => units.get(),
            Portion::Refused(_) => 0,
        };
        assert_eq!(given().await, 10);
        wall.fetch_sub(3_600, Ordering::Relaxed);
        assert_eq!(given().await, 0);
        wall.fetch_add(180, Ordering::Relaxed);
        assert_eq!((given().await, given().await), (3, 0));
        store.close().await.unwrap();
    }

    #[tokio::test]
    async fn a_store_that_is_closed_is_answered_as_declared() {
        let (env, folder) = (Env::real(), tempfile::tempdir().unwrap());
        let store = sqlite::open(&env, sqlite::Config::at(folder.path().join("store.db"))).await.unwrap();
        let quota = quota(&store, 16);
        let other: Name = "other".parse().unwrap();
        assert!(matches!(quota.take(&other, rate(), n(1), n(1)).await, Ok(Portion::Given { .. })));
        store.close().await.unwrap();
        let key: Name = "tenant".parse().unwrap();
        let deny = Shared::new(&env, quota.clone(), config(OnUnavailable::Deny)).unwrap();
        assert!(matches!(deny.take(&key, 1).await, Err(SharedRejected::Unavailable(_))));
        let allow = Shared::new(&env, quota, config(OnUnavailable::Allow)).unwrap();
        assert_eq!(allow.take(&key, 1).await.unwrap().by, Count::Nobodys);
    }

    #[tokio::test]
    async fn keys_whose_bucket_is_full_again_are_forgotten() {
        let (env, folder) = (Env::real(), tempfile::tempdir().unwrap());
        let store = sqlite::open(&env, sqlite::Config::at(folder.path().join("store.db"))).await.unwrap();
        let quota = quota(&store, 16);
        // A bucket that is full again after a microsecond.
        let quick = Rate::new(n(1), Duration::from_micros(1));
        for number in 0..50 {
            let key: Name = format!("client-{number}").parse().unwrap();
            let given = quota.take(&key, quick, n(1), n(1)).await.unwrap();
            assert!(matches!(given, Portion::Given { .. }));
        }
        let rows = store.room_query("SELECT count(*) FROM quorate_quota", vec![]).await.unwrap();
        assert!(rows[0].at(0).as_i64() <= Some(3), "{rows:?}");
        store.close().await.unwrap();
    }

    #[tokio::test]
    async fn a_flood_of_keys_shares_one_bucket_and_those_who_were_there_keep_theirs() {
        let (env, folder) = (Env::real(), tempfile::tempdir().unwrap());
        let store = sqlite::open(&env, sqlite::Config::at(folder.path().join("store.db"))).await.unwrap();
        let quota = quota(&store, 16);
        let ask = async |key: &str| {
            matches!(quota.take(&key.parse().unwrap(), rate(), n(1), n(1)).await.unwrap(), Portion::Given { .. })
        };
        assert!(ask("early").await);
        let mut given = 0;
        for number in 0..300 {
            given += u32::from(ask(&format!("flood-{number}")).await);
        }
        let rows = store.room_query("SELECT count(*) FROM quorate_quota", vec![]).await.unwrap();
        assert_eq!(rows[0].at(0).as_i64(), Some(17), "sixteen, and the others");
        assert_eq!(given, 15 + 100, "one each, and a burst for all others");
        assert!(ask("early").await);
        // What was taken is forgotten of this limit alone.
        let elsewhere = StoreQuota::of(&store, "tenants2".parse().unwrap(), 16.try_into().unwrap());
        assert!(matches!(
            elsewhere.take(&"a".parse().unwrap(), rate(), n(100), n(100)).await,
            Ok(Portion::Given { .. })
        ));
        quota.forget_all().await.unwrap();
        assert!(ask("flood-299").await);
        assert!(matches!(elsewhere.take(&"a".parse().unwrap(), rate(), n(1), n(1)).await, Ok(Portion::Refused(_))));
        store.close().await.unwrap();
    }
}
