//! The inbox: a message that arrives twice takes effect once.
//!
//! Whoever delivers messages delivers some of them twice: an acknowledgement was lost, a lease ran out, a sender tried
//! again. A guest list at the door helps, as long as the tick beside the name and the guest's way in are one move: the
//! inbox writes down a message's id *in the transaction of what the message causes* (events, tables, replies, whatever
//! else the [transaction](DynTx) does). Both commit, or neither does.
//!
//! *When not to use it*: where repeating does no harm, or is known otherwise. An append is known by its events' ids, an
//! HTTP request by its idempotency key.
//!
//! # Example
//! ```
//! use quorate_data::store::{Inbox, InboxError, SqlError, sqlite};
//!
//! #[derive(Debug, thiserror::Error)]
//! enum Refused {
//!     #[error(transparent)]
//!     Inbox(#[from] InboxError),
//!     #[error(transparent)]
//!     Sql(#[from] SqlError),
//! }
//!
//! # tokio::runtime::Runtime::new()?.block_on(async {
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("shop.db");
//! # let store = sqlite::open(&quorate_runtime::Env::real(), sqlite::Config::at(path)).await?;
//! # store.transact(|tx| Box::pin(async move { tx.execute("CREATE TABLE paid (cents INTEGER)", &[]).await })).await?;
//! let inbox = Inbox::open(&store, "billing".parse()?).await?;
//! for _delivery in 0..3 {
//!     let inbox = inbox.clone();
//!     store.transact(move |tx| {
//!         let inbox = inbox.clone();
//!         Box::pin(async move {
//!             if tx.once(&inbox, "payment-17").await?.is_repeat() {
//!                 return Ok(());
//!             }
//!             tx.execute("INSERT INTO paid (cents) VALUES ($1)", &[1_999.into()]).await?;
//!             Ok::<_, Refused>(())
//!         })
//!     }).await?;
//! }
//! let rows = store.query("SELECT count(*) FROM paid", vec![]).await?;
//! assert_eq!(rows[0].at(0).as_i64(), Some(1));
//! # store.close().await?;
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! ```
//!
//! Sources: Hohpe and Woolf, "Enterprise Integration Patterns" (2003), Idempotent Receiver; Helland, "Life beyond
//! Distributed Transactions" (2007).

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use quorate_foundations::{name::Name, time::Wall};

use super::{DynTx, RoomTables, SqlError, Store, StoreError, TransactError, retention::TrustedClock};

/// The messages that one consumer has taken. Cheap to clone; clones are the same inbox.
///
/// Consumers are apart: a message that one has taken is new to another. An id is remembered until
/// [`forget`](Self::forget) forgets it, so keep ids for longer than a message can be on its way, dead letters that
/// somebody sends again included.
#[derive(Clone)]
pub struct Inbox {
    store: Store,
    consumer: Name,
    clock: Arc<Mutex<TrustedClock>>,
}

/// Whether a message came for the first time: what [`DynTx::once`] answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a repeated message must have no effect"]
pub enum First {
    /// It did. If the transaction commits it will have been the first and only one; if not, the next one is.
    Now,
    /// It did not.
    Earlier {
        /// When the first one was taken, by the wall clock of then.
        at: Wall,
    },
}

impl First {
    /// Whether the message was taken before.
    pub fn is_repeat(self) -> bool {
        matches!(self, Self::Earlier { .. })
    }
}

/// Why the inbox did not answer. Nothing was written; the transaction can go on.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InboxError {
    /// A message's id is empty, or too long.
    #[error("a message's id has 1 to {max} bytes, this one has {bytes}")]
    Id {
        /// Its length in bytes.
        bytes: usize,
        /// The most it may have.
        max: usize,
    },
    /// The table of what was taken failed.
    #[error("the inbox could not be read or written")]
    Sql(#[source] SqlError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

pub(crate) const TABLES: RoomTables = RoomTables {
    room: "inbox",
    versions: &[
        "CREATE TABLE quorate_inbox (
            consumer TEXT NOT NULL, message TEXT NOT NULL, taken_at INTEGER NOT NULL, PRIMARY KEY (consumer, message)
        ) WITHOUT ROWID;
        CREATE INDEX quorate_inbox_by_age ON quorate_inbox (consumer, taken_at)",
        // What time it was, as far as that was believed, when it was last written down.
        "CREATE TABLE quorate_inbox_clock (consumer TEXT PRIMARY KEY, believed INTEGER NOT NULL) WITHOUT ROWID;
        INSERT INTO quorate_inbox_clock SELECT consumer, max(taken_at) FROM quorate_inbox GROUP BY consumer",
    ],
};

/// Ids that are forgotten in one transaction.
const SLICE: u32 = 500;

impl Inbox {
    /// The longest id of a message, in bytes: as long as an event's.
    pub const MAX_ID_BYTES: usize = crate::event::NewEvent::MAX_ATTRIBUTE_BYTES;

    /// The inbox of `consumer`; makes the table of all inboxes if it is not there.
    ///
    /// # Errors
    /// [`StoreError::Unsupported`] on an engine without [tables](super::Capabilities::application_tables).
    pub async fn open(store: &Store, consumer: Name) -> Result<Self, InboxError> {
        store.declare(TABLES).await?;
        // Not from what was taken: its time is what the wall clock said, right or wrong.
        let believed = "SELECT believed FROM quorate_inbox_clock WHERE consumer = $1";
        let rows = store.room_query(believed, vec![(&consumer).into()]).await?;
        let mark = rows.first().and_then(|row| row.at(0).as_i64()).map(Wall::from_unix_nanos);
        let clock = TrustedClock::new(mark, store.env().wall(), store.env().boot());
        if mark.is_none() {
            let (whose, now) = (consumer.clone(), store.env().wall().unix_nanos());
            let noted = store.transact(move |tx| {
                let whose = whose.clone();
                Box::pin(async move { note_clock(tx, &whose, now).await })
            });
            noted.await.map_err(flatten)?;
        }
        Ok(Self { store: store.clone(), consumer, clock: Arc::new(Mutex::new(clock)) })
    }

    /// Whose inbox it is.
    pub fn consumer(&self) -> &Name {
        &self.consumer
    }

    /// Forgets ids that were taken more than `keep` ago, a few hundred in a transaction, and returns how many. Should such
    /// a message come once more, it takes effect once more.
    ///
    /// Ages are told by a [clock](TrustedClock) that believes a jump ahead only after an hour, and is written down here and
    /// when a consumer is first opened: one that is set forward by mistake and corrected forgets nothing, across restarts
    /// as well. After an hour or more in which nobody called this, it believes an hour after the inbox was opened.
    ///
    /// # Cancel safety
    /// Dropping the future leaves some forgotten and some not. Repeating is safe.
    pub async fn forget(&self, keep: Duration) -> Result<u64, InboxError> {
        let env = self.store.env();
        let now = self.clock.lock().unwrap_or_else(PoisonError::into_inner).read(env.wall(), env.boot());
        let (now, before) = (now.unix_nanos(), (now - keep).unix_nanos());
        let mut forgotten = 0;
        loop {
            let consumer = self.consumer.clone();
            let some = self.store.transact(move |tx| {
                let consumer = consumer.clone();
                Box::pin(async move {
                    note_clock(tx, &consumer, now).await?;
                    forget_some(tx, &consumer, before).await
                })
            });
            let some = some.await.map_err(flatten)?;
            forgotten += some;
            if some < u64::from(SLICE) {
                return Ok(forgotten);
            }
        }
    }

    /// When `message` was taken, if it was; nothing is written down.
    pub(super) async fn taken(&self, tx: &mut DynTx, message: &str) -> Result<Option<Wall>, InboxError> {
        let sql = "SELECT taken_at FROM quorate_inbox WHERE consumer = $1 AND message = $2";
        let rows = tx.room_query(sql, &[(&self.consumer).into(), message.into()]).await?;
        Ok(rows.first().and_then(|row| row.at(0).as_i64()).map(Wall::from_unix_nanos))
    }

    /// Remembers `message`, if it was taken, from now on for as long as one that was taken now.
    pub(super) async fn renew(&self, tx: &mut DynTx, message: &str, age: Duration) -> Result<bool, InboxError> {
        let sql = "UPDATE quorate_inbox SET taken_at = $3 WHERE consumer = $1 AND message = $2 AND taken_at < $4";
        let now = self.store.env().wall();
        let row = [(&self.consumer).into(), message.into(), now.unix_nanos().into(), (now - age).unix_nanos().into()];
        Ok(tx.room_execute(sql, &row).await? > 0)
    }

    /// Writes down that `message` was taken, unless it was before.
    pub(super) async fn take(&self, tx: &mut DynTx, message: &str) -> Result<First, InboxError> {
        let (bytes, max) = (message.len(), Self::MAX_ID_BYTES);
        if bytes == 0 || bytes > max {
            return Err(InboxError::Id { bytes, max });
        }
        let sql = "INSERT INTO quorate_inbox (consumer, message, taken_at) VALUES ($1, $2, $3)
            ON CONFLICT (consumer, message) DO NOTHING";
        let now = self.store.env().wall().unix_nanos();
        let row = [(&self.consumer).into(), message.into(), now.into()];
        if tx.room_execute(sql, &row).await? == 1 {
            return Ok(First::Now);
        }
        let sql = "SELECT taken_at FROM quorate_inbox WHERE consumer = $1 AND message = $2";
        let rows = tx.room_query(sql, &row[..2]).await?;
        match rows.first().and_then(|row| row.at(0).as_i64()) {
            Some(at) => Ok(First::Earlier { at: Wall::from_unix_nanos(at) }),
            None => {
                let (place, what) = ("quorate_inbox".to_owned(), "a row is there and cannot be read".to_owned());
                Err(StoreError::Corrupt { place, what }.into())
            }
        }
    }
}

/// Writes down what time is believed.
async fn note_clock(tx: &mut DynTx, consumer: &Name, now: i64) -> Result<(), InboxError> {
    let sql = "INSERT INTO quorate_inbox_clock (consumer, believed) VALUES ($1, $2)
        ON CONFLICT (consumer) DO UPDATE SET believed = $2";
    tx.room_execute(sql, &[consumer.into(), now.into()]).await?;
    Ok(())
}

async fn forget_some(tx: &mut DynTx, consumer: &Name, before: i64) -> Result<u64, InboxError> {
    let sql = "DELETE FROM quorate_inbox WHERE consumer = $1 AND message IN (SELECT message FROM quorate_inbox
        WHERE consumer = $1 AND taken_at < $2 ORDER BY taken_at LIMIT $3)";
    Ok(tx.room_execute(sql, &[consumer.into(), before.into(), SLICE.into()]).await?)
}

impl From<SqlError> for InboxError {
    fn from(error: SqlError) -> Self {
        match error {
            SqlError::Store(cause) => Self::Store(cause),
            other => Self::Sql(other),
        }
    }
}

fn flatten(error: TransactError<InboxError>) -> InboxError {
    match error {
        TransactError::Aborted(own) => own,
        TransactError::Store(cause) => cause.into(),
        other => InboxError::Sql(SqlError::Failed { what: other.to_string() }),
    }
}
