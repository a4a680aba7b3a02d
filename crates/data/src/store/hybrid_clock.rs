//! A hybrid logical clock whose mark lies in the store: stamps that grow over restarts, whatever the wall clock does.
//!
//! Think of a box office that tears tickets off a roll and first writes down how far it may tear today. Should the clerk
//! fall ill, whoever takes over begins behind that number: some tickets are never sold, and none is sold twice. The rules are
//! those of [`ordering::hlc`](quorate_foundations::ordering::hlc); this is their shell, and what it writes down is the
//! [`Mark`].
//!
//! *When not to use it*: where one log orders everything already. A position says more and costs eight bytes.
//!
//! # Example
//! ```
//! use quorate_data::store::{HybridClock, sqlite};
//! use quorate_foundations::ordering::hlc::Config;
//!
//! # tokio::runtime::Runtime::new()?.block_on(async {
//! # let folder = tempfile::tempdir()?;
//! # let (here, there) = (folder.path().join("here.db"), folder.path().join("there.db"));
//! # let env = quorate_runtime::Env::real();
//! # let (here, there) = (sqlite::open(&env, sqlite::Config::at(here)).await?, sqlite::open(&env, sqlite::Config::at(there)).await?);
//! let sender = HybridClock::open(&here, "orders".parse()?, Config::default()).await?;
//! let receiver = HybridClock::open(&there, "orders".parse()?, Config::default()).await?;
//!
//! let sent = sender.tick().await?; // travels with the message
//! let received = receiver.observe(sent).await?;
//! assert!(sent < received);
//!
//! // Whoever opens it again, after a crash for instance, goes on above everything.
//! let restarted = HybridClock::open(&here, "orders".parse()?, Config::default()).await?;
//! assert!(restarted.tick().await? > sent);
//! # here.close().await?;
//! # there.close().await?;
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! ```
//!
//! Source: S. Kulkarni et al., "Logical Physical Clocks and Consistent Snapshots in Globally Distributed Databases" (2014).

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use quorate_foundations::{
    name::Name,
    ordering::hlc::{Answer, Config, Hlc, HlcError, Mark, Stamp},
    time::Wall,
};

use super::{DynTx, Retry, RoomTables, SqlError, Store, StoreError, TransactError};

/// A hybrid clock by its name. Cheap to clone; clones are the same clock.
///
/// # What holds
/// * No stamp is handed out before a mark above it is durable. Marks are reserved a [window](Config::window) ahead, and renewed
///   in the background once half of it is used up: under steady load few stamps wait for a disk, and none are written while
///   nobody asks.
/// * Stamps of one opener grow, and all of them are larger than every stamp that an earlier opener of the name was given or
///   is still given, also if the wall clock was set back in between, by however much.
/// * Of several openers of one name the last one goes on. The others are **fenced**: they use up what they had reserved, a
///   window at most, and are refused from then on. While a clock is ahead of the wall, a window is up to 2³² stamps, or the
///   time until the wall has caught up.
///
/// # What does not
/// A backup has the mark of its time. A store that was restored from one can repeat stamps that were handed out since, if
/// the wall clock was set back to before them as well. And a wall clock that leaps into the future takes this clock with
/// it: see [`ahead`](Self::ahead).
#[derive(Clone)]
pub struct HybridClock {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    name: Name,
    fence: i64,
    // Lock order: `turn`, then `state`. Nobody waits for anything while holding `state`.
    turn: Arc<tokio::sync::Mutex<()>>,
    state: Mutex<State>,
}

struct State {
    hlc: Hlc,
    is_fenced: bool,
}

/// Why a hybrid clock could not be opened, or gave no stamp.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HybridClockError {
    /// The rules refuse: a stamp from too far in the future, or the end of time.
    #[error(transparent)]
    Refused(#[from] HlcError),
    /// Somebody opened the clock of this name after this one was opened. Repeating does not help; give each process, or
    /// each part of one, a clock of its own name, or let them share a clone.
    #[error("hybrid clock `{name}` was opened again since, here or elsewhere: this one gives no more stamps")]
    Fenced {
        /// The clock.
        name: Name,
    },
    /// The clock's mark could not be read or written. No stamp was given.
    #[error("the mark of a hybrid clock could not be read or written: no stamp was given")]
    Sql(#[source] SqlError),
    /// The store failed. No stamp was given, whatever has become of the mark: one that was written and not known of costs
    /// nothing but stamps that are never handed out.
    #[error(transparent)]
    Store(#[from] StoreError),
}

pub(crate) const TABLES: RoomTables = RoomTables {
    room: "hybrid_clock",
    versions: &["CREATE TABLE quorate_hybrid_clock (
        name TEXT NOT NULL PRIMARY KEY,
        mark BIGINT NOT NULL,
        fence BIGINT NOT NULL,
        sum BIGINT NOT NULL
    )"],
};

impl HybridClock {
    /// Opens the clock `name`, making it the first time, and fences whoever opened it before.
    ///
    /// `config` says how far ahead of the wall clock stamps of others may be, and how far ahead stamps are reserved; it may
    /// differ each time.
    ///
    /// # Errors
    /// [`StoreError::Unsupported`] on an engine without [tables](super::Capabilities::application_tables);
    /// [`StoreError::Corrupt`] where the mark is not what was written.
    ///
    /// # Cancel safety
    /// Dropping the future may fence the clock that was opened before.
    pub async fn open(store: &Store, name: Name, config: Config) -> Result<Self, HybridClockError> {
        store.declare(TABLES).await?;
        let whose = name.clone();
        let opened = store.transact(move |tx| {
            let name = whose.clone();
            Box::pin(async move { take_over(tx, &name).await })
        });
        let Row { mark, fence } = opened.await.map_err(flatten)?;
        if mark > Mark::START {
            store.env().reached("hybrid clock: the mark was read back");
        }
        let state = Mutex::new(State { hlc: Hlc::resume(config, mark), is_fenced: false });
        let inner = Inner { store: store.clone(), name, fence, turn: Arc::default(), state };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The clock's name.
    pub fn name(&self) -> &Name {
        &self.inner.name
    }

    /// Stamps something that happens here, the sending of a message included.
    ///
    /// Waits for the store only where nothing is reserved any more: on the first stamp, and on the first after a pause.
    ///
    /// # Errors
    /// [`HybridClockError::Fenced`]; [`StoreError`], a full disk for instance. Without a stamp nothing has happened; ask again.
    ///
    /// # Cancel safety
    /// Cancel safe: what is dropped costs at most stamps that nobody gets.
    pub async fn tick(&self) -> Result<Stamp, HybridClockError> {
        self.stamp(None).await
    }

    /// Stamps the receipt of something that carries the stamp `remote`: the answer is larger than that.
    ///
    /// # Errors
    /// [`HlcError::TooFarAhead`] for a stamp further ahead of the wall clock than the bound, which leaves no trace; else as
    /// [`tick`](Self::tick).
    ///
    /// # Cancel safety
    /// Cancel safe, as [`tick`](Self::tick).
    pub async fn observe(&self, remote: Stamp) -> Result<Stamp, HybridClockError> {
        self.stamp(Some(remote)).await
    }

    /// How far the last stamp is ahead of the wall clock: a number to watch, and to alarm on beyond
    /// [`Config::max_offset`], since others then refuse this clock's stamps.
    pub fn ahead(&self) -> Duration {
        let now = self.inner.store.env().wall();
        self.inner.state().hlc.ahead_of(now)
    }

    async fn stamp(&self, heard: Option<Stamp>) -> Result<Stamp, HybridClockError> {
        let inner = &self.inner;
        // One reading for the whole call: were it read again after each wait, a disk slower than the window could make the
        // call wait for ever.
        let now = inner.store.env().wall();
        if let Answer::Stamp(stamp) = inner.ask(now, heard)? {
            self.renew(now);
            return Ok(stamp);
        }
        let _turn = inner.turn.lock().await;
        loop {
            match inner.ask(now, heard)? {
                Answer::Stamp(stamp) => return Ok(stamp),
                Answer::PersistFirst(mark) => inner.persist(mark).await?,
            }
        }
    }

    /// Has the next mark written behind the caller's back, where that will soon be due and nobody does so.
    fn renew(&self, now: Wall) {
        let due = {
            let state = self.inner.state();
            if state.is_fenced { None } else { state.hlc.renewal(now) }
        };
        let Some(mark) = due else { return };
        let Ok(turn) = self.inner.turn.clone().try_lock_owned() else { return };
        let inner = self.inner.clone();
        self.inner.store.env().tasks().spawn("hybrid-clock/mark", async move {
            let _turn = turn;
            if let Err(cause) = inner.persist(mark).await {
                // Nobody waits for it yet. Whoever will, is told.
                tracing::debug!(%cause, clock = %inner.name, "a mark could not be written ahead of its need");
            }
        });
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ask(&self, now: Wall, heard: Option<Stamp>) -> Result<Answer, HybridClockError> {
        let mut state = self.state();
        let answer = match heard {
            Some(remote) => state.hlc.observe(now, remote)?,
            None => state.hlc.tick(now)?,
        };
        match answer {
            Answer::PersistFirst(_) if state.is_fenced => Err(self.fenced()),
            answer => Ok(answer),
        }
    }

    fn fenced(&self) -> HybridClockError {
        HybridClockError::Fenced { name: self.name.clone() }
    }

    /// Makes `mark` durable, and then has the rules know.
    async fn persist(&self, mark: Mark) -> Result<(), HybridClockError> {
        #[cfg(feature = "museum")]
        if self.store.env().planted("hlc-not-persisted") {
            self.state().hlc.persisted(mark);
            return Ok(());
        }
        let (name, fence) = (self.name.clone(), self.fence);
        let written = self.store.transact(move |tx| {
            let name = name.clone();
            Box::pin(async move { raise(tx, &name, Row { mark, fence }).await })
        });
        let is_ours = written.await.map_err(flatten)?;
        let mut state = self.state();
        if is_ours {
            state.hlc.persisted(mark);
            return Ok(());
        }
        state.is_fenced = true;
        drop(state);
        Err(self.fenced())
    }
}

/// What is written of a clock beside its name.
#[derive(Clone, Copy)]
struct Row {
    mark: Mark,
    /// Rises each time the clock is opened.
    fence: i64,
}

impl Row {
    /// Its columns behind the name: mark, fence, sum.
    fn columns(self, name: &Name) -> (i64, i64, i64) {
        let mark = self.mark.wall().unix_nanos();
        let mut sum = crc32fast::Hasher::new();
        sum.update(name.as_str().as_bytes());
        sum.update(&mark.to_le_bytes());
        sum.update(&self.fence.to_le_bytes());
        (mark, self.fence, sum.finalize().into())
    }
}

/// Raises the fence of the clock `name`, and returns what is then written of it.
async fn take_over(tx: &mut DynTx, name: &Name) -> Result<Row, HybridClockError> {
    let Some(found) = find(tx, name).await? else {
        let row = Row { mark: Mark::START, fence: 1 };
        let (mark, fence, sum) = row.columns(name);
        let sql = "INSERT INTO quorate_hybrid_clock (name, mark, fence, sum) VALUES ($1, $2, $3, $4)";
        tx.room_execute(sql, &[name.into(), mark.into(), fence.into(), sum.into()]).await?;
        return Ok(row);
    };
    let row = Row { fence: found.fence + 1, ..found };
    let (_, fence, sum) = row.columns(name);
    let sql = "UPDATE quorate_hybrid_clock SET fence = $2, sum = $3 WHERE name = $1";
    tx.room_execute(sql, &[name.into(), fence.into(), sum.into()]).await?;
    Ok(row)
}

/// Raises the mark to that of `row` if nobody has opened the clock since; tells whether that is so.
async fn raise(tx: &mut DynTx, name: &Name, row: Row) -> Result<bool, HybridClockError> {
    let (mark, fence, sum) = row.columns(name);
    // Never down: a transaction whose caller went away may come behind later ones.
    let sql = "UPDATE quorate_hybrid_clock SET mark = $3, sum = $4 WHERE name = $1 AND fence = $2 AND mark < $3";
    if tx.room_execute(sql, &[name.into(), fence.into(), mark.into(), sum.into()]).await? == 1 {
        return Ok(true);
    }
    Ok(find(tx, name).await?.is_some_and(|found| found.fence == fence))
}

async fn find(tx: &mut DynTx, name: &Name) -> Result<Option<Row>, HybridClockError> {
    let sql = "SELECT mark, fence, sum FROM quorate_hybrid_clock WHERE name = $1";
    let rows = tx.room_query(sql, &[name.into()]).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let columns = (row.at(0).as_i64(), row.at(1).as_i64(), row.at(2).as_i64());
    if let (Some(mark), Some(fence), Some(sum)) = columns {
        let found = Row { mark: Mark::new(Wall::from_unix_nanos(mark)), fence };
        if found.columns(name) == (mark, fence, sum) && fence < i64::MAX {
            return Ok(Some(found));
        }
    }
    let place = format!("quorate_hybrid_clock, row `{name}`");
    Err(StoreError::Corrupt { place, what: "the checksum does not match".to_owned() }.into())
}

impl HybridClockError {
    /// Whether asking again can help.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Refused(HlcError::TooFarAhead { offset, bound }) => Retry::After(offset.saturating_sub(*bound)),
            Self::Store(cause) | Self::Sql(SqlError::Store(cause)) => cause.retry(),
            Self::Refused(_) | Self::Fenced { .. } | Self::Sql(_) => Retry::Never,
        }
    }
}

impl From<SqlError> for HybridClockError {
    fn from(error: SqlError) -> Self {
        match error {
            SqlError::Store(cause) => Self::Store(cause),
            other => Self::Sql(other),
        }
    }
}

fn flatten(error: TransactError<HybridClockError>) -> HybridClockError {
    match error {
        TransactError::Aborted(own) => own,
        TransactError::Store(cause) => cause.into(),
        other => HybridClockError::Sql(SqlError::Failed { what: other.to_string() }),
    }
}
