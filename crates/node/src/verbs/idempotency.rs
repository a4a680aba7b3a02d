//! Idempotency keys: a request that is repeated with its key is answered with the first reply, and done once.
//!
//! Think of a coat check: the number on the slip is the client's own, and whoever comes back with it gets the same
//! coat. The reply is stored in the transaction of the effect it tells of, so there is never one without the other.
//!
//! A key belongs to who sends it, the method and the path; its *fingerprint* covers everything else that matters in the
//! request. The same key with another fingerprint is somebody's mistake and is refused, also while the first request
//! is still being done.
//!
//! When a data subject is erased all replies are forgotten: a fingerprint is a hash of what was sent, and whoever guesses
//! the data could prove the guess. Every effect can be repeated by itself (an append is known by its events' ids), so that
//! a request that comes once more is answered by its effect; what was refused is decided anew.
//!
//! Source: IETF draft "The Idempotency-Key HTTP Header Field". Ours differs in that a refusal that the store's state
//! decided (a version conflict, say) is stored as well: the first answer stands.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use quorate_data::store::{DynTx, RoomTables, SqlError, Store, StoreError, TransactError, Value};
use quorate_runtime::BoxFuture;

/// The replies kept for keys, in one store. Cheap to clone.
#[derive(Clone)]
pub struct Idempotency {
    store: Store,
    in_flight: Arc<Mutex<BTreeMap<[u8; 32], [u8; 32]>>>,
}

/// A key as the store knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// Hash of the client's key, who sent it, the method and the path.
    pub scope: [u8; 32],
    /// Hash of the rest of the request.
    pub fingerprint: [u8; 32],
}

/// A reply as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// Headers, in order.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Bytes,
}

/// Why a request with a key was not done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OnceError {
    /// The key came with another request before.
    #[error("this idempotency key came with another body, precondition or content type before")]
    KeyReused,
    /// The first request is still being done.
    #[error("the first request with this idempotency key is still being done")]
    InFlight,
    /// The transaction took too long; nothing was written.
    #[error("the transaction took longer than {limit:?} and was rolled back")]
    TooLong {
        /// The limit.
        limit: Duration,
    },
    /// The transaction asked to write more than it may; nothing was written.
    #[error("the transaction asked to write more than {limit} bytes and was rolled back")]
    TooLarge {
        /// The limit in bytes.
        limit: usize,
    },
    /// A view that is kept in the transaction refuses it; nothing was written.
    #[error("view `{view}` is kept in the append's transaction and refuses it: {what}")]
    View {
        /// The view.
        view: Arc<str>,
        /// Why.
        what: String,
    },
    /// The table of replies failed.
    #[error("replies could not be kept or found")]
    Sql(#[source] SqlError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

pub(crate) const TABLES: RoomTables = RoomTables {
    room: "idempotency",
    versions: &["CREATE TABLE quorate_idempotency (
            scope BLOB PRIMARY KEY, fingerprint BLOB NOT NULL, status INTEGER NOT NULL, headers TEXT NOT NULL,
            body BLOB NOT NULL, stored_at INTEGER NOT NULL
        ) WITHOUT ROWID;
        CREATE INDEX quorate_idempotency_by_age ON quorate_idempotency (stored_at)"],
};

/// Replies that one sweep forgets in one transaction.
const SWEEP: u32 = 500;

impl Idempotency {
    /// The replies kept in `store`; makes their table if it is not there.
    pub async fn open(store: Store) -> Result<Self, OnceError> {
        store.declare(TABLES).await?;
        store.on_erase("idempotency", Arc::new(|store, _| Box::pin(forget_all(store))));
        if !store.capabilities().erasure {
            return Ok(Self { store, in_flight: Arc::default() });
        }
        // A store that learnt of erasures elsewhere, from the ledger with which an older backup was restored, still has
        // the replies of before.
        let erasures = store.erasures().await?.erasures;
        if let Some(newest) = erasures.iter().map(|erasure| erasure.erased_at.unix_nanos()).max() {
            forget_before(&store, newest).await?;
        }
        Ok(Self { store, in_flight: Arc::default() })
    }

    /// Runs `effect` and keeps its reply in the same transaction, or returns the reply of the first time.
    ///
    /// `effect` awaits nothing but the transaction and may be run again. The second value says whether the reply is an
    /// old one.
    ///
    /// # Errors
    /// [`OnceError::KeyReused`] before [`OnceError::InFlight`]. A store's failure inside `effect` rolls back and keeps
    /// no reply, so that a repetition tries again.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the wait, not the transaction; repeat with the same key to learn how it ended.
    pub async fn once<F>(&self, key: Key, effect: F) -> Result<(Reply, bool), OnceError>
    where
        F: for<'t> Fn(&'t mut DynTx) -> BoxFuture<'t, Result<Reply, StoreError>> + Send + Sync + 'static,
    {
        let _claim = self.claim(key)?;
        let stored_at = self.now();
        let effect = Arc::new(effect);
        #[cfg(feature = "museum")]
        if self.store.env().planted("idempotency-after-effect") {
            return self.kept_afterwards(key, effect, stored_at).await;
        }
        let done = self.store.transact(move |tx| {
            let effect = effect.clone();
            Box::pin(async move {
                if let Some(reply) = find(tx, &key).await? {
                    return Ok((reply, true));
                }
                let reply = effect(tx).await?;
                keep(tx, &key, &reply, stored_at).await?;
                Ok((reply, false))
            })
        });
        let (reply, is_old) = done.await.map_err(flatten)?;
        if is_old {
            self.store.env().reached("idempotency: a kept reply was given");
        }
        Ok((reply, is_old))
    }

    /// A bug of the museum: the reply is kept in a transaction of its own, some time after it was given.
    #[cfg(feature = "museum")]
    async fn kept_afterwards<F>(&self, key: Key, effect: Arc<F>, stored_at: i64) -> Result<(Reply, bool), OnceError>
    where
        F: for<'t> Fn(&'t mut DynTx) -> BoxFuture<'t, Result<Reply, StoreError>> + Send + Sync + 'static,
    {
        let found = self.store.transact(move |tx| Box::pin(async move { find(tx, &key).await }));
        if let Some(reply) = found.await.map_err(flatten)? {
            return Ok((reply, true));
        }
        let done = self.store.transact(move |tx| {
            let effect = effect.clone();
            Box::pin(async move { effect(tx).await.map_err(OnceError::from) })
        });
        let reply = done.await.map_err(flatten)?;
        let (store, kept) = (self.store.clone(), reply.clone());
        self.store.env().tasks().spawn("museum", async move {
            store.env().sleep(Duration::from_millis(20)).await;
            let keeping = store.transact(move |tx| {
                let kept = kept.clone();
                Box::pin(async move { keep(tx, &key, &kept, stored_at).await })
            });
            let _ = keeping.await;
        });
        Ok((reply, false))
    }

    /// The same around an effect with a transaction of its own, which must be harmless to repeat: after a crash between
    /// the two transactions a repetition runs it again. A failed effect keeps no reply.
    pub async fn once_around<E: From<OnceError>>(
        &self,
        key: Key,
        effect: impl Future<Output = Result<Reply, E>>,
    ) -> Result<(Reply, bool), E> {
        let _claim = self.claim(key)?;
        let found = self.store.transact(move |tx| Box::pin(async move { find(tx, &key).await }));
        if let Some(reply) = found.await.map_err(flatten)? {
            return Ok((reply, true));
        }
        let reply = effect.await?;
        let (kept, stored_at) = (reply.clone(), self.now());
        let keeping = self.store.transact(move |tx| {
            let kept = kept.clone();
            Box::pin(async move { keep(tx, &key, &kept, stored_at).await })
        });
        keeping.await.map_err(flatten)?;
        Ok((reply, false))
    }

    /// Forgets replies older than `keep`, a few hundred at a time, and returns how many.
    ///
    /// Ages outlive the process, so they are told by the wall clock: a clock that is set forward forgets early, and a
    /// repeated append is then still known by its events' ids.
    pub async fn sweep(&self, keep: Duration) -> Result<u64, OnceError> {
        let before = self.now().saturating_sub(i64::try_from(keep.as_nanos()).unwrap_or(i64::MAX));
        forget_before(&self.store, before).await
    }

    fn now(&self) -> i64 {
        self.store.env().wall().unix_nanos()
    }

    fn claim(&self, key: Key) -> Result<Claim, OnceError> {
        let mut in_flight = self.in_flight.lock().unwrap_or_else(PoisonError::into_inner);
        match in_flight.get(&key.scope) {
            Some(first) if *first != key.fingerprint => Err(OnceError::KeyReused),
            Some(_) => {
                self.store.env().reached("idempotency: the first request was still being done");
                Err(OnceError::InFlight)
            }
            None => {
                in_flight.insert(key.scope, key.fingerprint);
                Ok(Claim { in_flight: self.in_flight.clone(), scope: key.scope })
            }
        }
    }
}

/// Marks a key as being in use until it is dropped.
struct Claim {
    in_flight: Arc<Mutex<BTreeMap<[u8; 32], [u8; 32]>>>,
    scope: [u8; 32],
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.in_flight.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.scope);
    }
}

async fn find(tx: &mut DynTx, key: &Key) -> Result<Option<Reply>, OnceError> {
    let sql = "SELECT fingerprint, status, headers, body FROM quorate_idempotency WHERE scope = $1";
    let rows = tx.room_query(sql, &[blob(&key.scope)]).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    if row.at(0).as_bytes().is_none_or(|first| first[..] != key.fingerprint) {
        return Err(OnceError::KeyReused);
    }
    let status = row.at(1).as_i64().and_then(|status| u16::try_from(status).ok());
    let headers = row.at(2).as_str().and_then(|text| serde_json::from_str(text).ok());
    match (status, headers, row.at(3).as_bytes()) {
        (Some(status), Some(headers), Some(body)) => Ok(Some(Reply { status, headers, body: body.clone() })),
        _ => {
            let what = "a stored reply cannot be read".to_owned();
            Err(StoreError::Corrupt { place: "quorate_idempotency".to_owned(), what }.into())
        }
    }
}

async fn keep(tx: &mut DynTx, key: &Key, reply: &Reply, stored_at: i64) -> Result<(), OnceError> {
    let headers =
        serde_json::to_string(&reply.headers).unwrap_or_else(|_| unreachable!("pairs of texts have a JSON form"));
    let sql = "INSERT INTO quorate_idempotency (scope, fingerprint, status, headers, body, stored_at)
        VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (scope) DO NOTHING";
    let status = i64::from(reply.status);
    let row: [Value; 6] = [
        blob(&key.scope),
        blob(&key.fingerprint),
        status.into(),
        headers.into(),
        reply.body.clone().into(),
        stored_at.into(),
    ];
    tx.room_execute(sql, &row).await?;
    Ok(())
}

async fn forget_before(store: &Store, before: i64) -> Result<u64, OnceError> {
    let mut forgotten = 0;
    loop {
        let some = store.transact(move |tx| Box::pin(async move { forget(tx, before).await }));
        let some = some.await.map_err(flatten)?;
        forgotten += some;
        if some < u64::from(SWEEP) {
            return Ok(forgotten);
        }
    }
}

async fn forget_all(store: Store) -> Result<(), StoreError> {
    match forget_before(&store, i64::MAX).await {
        Ok(_) => Ok(()),
        Err(OnceError::Store(cause)) => Err(cause),
        Err(other) => Err(StoreError::Engine { doing: "forgetting replies", cause: Arc::new(other) }),
    }
}

async fn forget(tx: &mut DynTx, before: i64) -> Result<u64, OnceError> {
    let sql = "DELETE FROM quorate_idempotency WHERE scope IN
        (SELECT scope FROM quorate_idempotency WHERE stored_at < $1 ORDER BY stored_at LIMIT $2)";
    Ok(tx.room_execute(sql, &[before.into(), SWEEP.into()]).await?)
}

impl From<SqlError> for OnceError {
    fn from(error: SqlError) -> Self {
        match error {
            SqlError::Store(cause) => Self::Store(cause),
            other => Self::Sql(other),
        }
    }
}

fn blob(hash: &[u8; 32]) -> Value {
    Bytes::copy_from_slice(hash).into()
}

fn flatten(error: TransactError<OnceError>) -> OnceError {
    match error {
        TransactError::Aborted(own) => own,
        TransactError::Store(cause) => cause.into(),
        TransactError::TooLong { limit } => OnceError::TooLong { limit },
        TransactError::TooLarge { limit } => OnceError::TooLarge { limit },
        TransactError::View { view, what } => OnceError::View { view, what },
        other => OnceError::Sql(SqlError::Failed { what: other.to_string() }),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use quorate_data::store::sqlite;
    use quorate_runtime::Env;

    use super::{Idempotency, Key, Reply};

    #[tokio::test]
    async fn an_erasure_forgets_replies_and_fingerprints() {
        let folder = tempfile::tempdir().unwrap();
        let store = sqlite::open(&Env::real(), sqlite::Config::at(folder.path().join("s.db"))).await.unwrap();
        let replies = Idempotency::open(store.clone()).await.unwrap();
        let once = async |n: u64| {
            let mut scope = [0; 32];
            scope[..8].copy_from_slice(&n.to_le_bytes());
            let reply = Reply { status: 201, headers: Vec::new(), body: Bytes::from_static(b"done") };
            let key = Key { scope, fingerprint: [7; 32] };
            let done = replies.once(key, move |_| Box::pin(std::future::ready(Ok(reply.clone()))));
            done.await.map(|(_, repeated)| repeated)
        };
        for n in 0..600 {
            assert!(!once(n).await.unwrap());
        }
        assert!(once(599).await.unwrap(), "it is kept");
        store.erase("nobody-yet").await.unwrap();
        let rows = store.room_query("SELECT count(*) FROM quorate_idempotency", vec![]).await.unwrap();
        assert_eq!(rows[0].at(0).as_i64(), Some(0));
        assert!(!once(599).await.unwrap(), "it is forgotten");
    }
}
