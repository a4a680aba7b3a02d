//! Snapshots: a state kept beside the log, so that loading need not begin with the first event.
//!
//! A snapshot is a cache and is treated as one. It is used only if all of this holds, and discarded otherwise:
//!
//! * its **fingerprint** is the one of this code: the same decider, `FOLD_VERSION`, event types and versions, the same
//!   shape of the state, the same states from the [probe](Snapshotted::probe);
//! * it can be read;
//! * the event it ends with is in the stream, at the same version, with the same link of the **hash chain**: so it was
//!   folded from this very history and not from one that a restore undid;
//! * the stream was not truncated since: then the state is the fold of what is left.
//!
//! It is written after the append that made it due, in a transaction of its own and in the background. Inside the
//! command's transaction it would make a command wait, and fail, for something that can always be made again. A crash
//! between the two leaves an older snapshot and a longer tail.

use std::{any::type_name, num::NonZeroU64, sync::Arc};

use quorate_data::{
    event::{ChainHash, Position, Version},
    schema::upcast::Versioned,
    store::{ReadStream, RoomTables, Row, SqlError, Store, TransactError, Value},
};
use quorate_foundations::name::Name;
use serde::{Serialize, de::DeserializeOwned};

use super::{
    Config, Decider, DomainEvent, LoadError, SetupError, config::Counters, fold::Folded, log::Log, reader::Codec,
};

pub(crate) const TABLES: RoomTables = RoomTables {
    room: "snapshot",
    versions: &["CREATE TABLE quorate_snapshot (
        decider TEXT NOT NULL,
        stream TEXT NOT NULL,
        version BIGINT NOT NULL,
        first BIGINT NOT NULL,
        position BIGINT NOT NULL,
        chain TEXT NOT NULL,
        fingerprint TEXT NOT NULL,
        state TEXT NOT NULL,
        PRIMARY KEY (decider, stream)
    )"],
};
const SELECT: &str = "SELECT version, first, position, chain, fingerprint, state FROM quorate_snapshot WHERE decider = $1 AND stream = $2";
const UPSERT: &str =
    "INSERT INTO quorate_snapshot (decider, stream, version, first, position, chain, fingerprint, state)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
    ON CONFLICT (decider, stream) DO UPDATE
    SET version = $3, first = $4, position = $5, chain = $6, fingerprint = $7, state = $8";
const DELETE: &str = "DELETE FROM quorate_snapshot WHERE decider = $1 AND stream = $2";

/// A decider whose states can be kept.
///
/// # What makes a kept state stale
/// Raise [`FOLD_VERSION`](Self::FOLD_VERSION) when `evolve` or an upcaster changes its meaning. Much is noticed without it:
/// another event type or version, a member added to or taken from the default state, and everything that shows in the states
/// that [`probe`](Self::probe) and [`stored_probe`](Self::stored_probe) lead to.
pub trait Snapshotted: Decider<State: Serialize + DeserializeOwned> {
    /// The version of `evolve` and of the upcasters before it, counted from 1.
    const FOLD_VERSION: u32;

    /// Events that exercise `evolve`. They are folded at start-up, and the states they lead to are part of the
    /// fingerprint: a change of `evolve` that shows in one of them makes older snapshots stale by itself.
    fn probe() -> Vec<Self::Event>;

    /// Events as they were once stored, of versions that upcasters lead away from: the corpus that
    /// [`golden`](quorate_data::schema::upcast::golden) checks will do. They are brought up to date and folded after the
    /// [probe](Self::probe), so that a change of an upcaster that shows makes older snapshots stale as well.
    fn stored_probe() -> Vec<Versioned> {
        Vec::new()
    }
}

/// How states of one decider are kept.
pub(super) struct Snapshots<D: Decider> {
    pub(super) every: NonZeroU64,
    fingerprint: Arc<str>,
    encode: fn(&D::State) -> Result<String, serde_json::Error>,
    decode: fn(&str) -> Result<D::State, serde_json::Error>,
}

impl<D: Snapshotted> Snapshots<D> {
    pub(super) fn new(every: NonZeroU64, codec: &Codec<D::Event>) -> Result<Self, SetupError> {
        Ok(Self {
            every,
            fingerprint: fingerprint::<D>(type_name::<D>(), codec)?.into(),
            encode: |state| serde_json::to_string(state),
            decode: |text| serde_json::from_str(text),
        })
    }
}

/// What the fold of the decider called `name` is, in 64 hexadecimal digits.
///
/// # Errors
/// [`SetupError`]: a state can't be written, or an event of the probe can't be brought up to date.
pub(super) fn fingerprint<D: Snapshotted>(name: &str, codec: &Codec<D::Event>) -> Result<String, SetupError> {
    let decider = type_name::<D>();
    let written = |state: &D::State| serde_json::to_vec(state).map_err(|cause| SetupError::State { decider, cause });
    let mut hash = blake3::Hasher::new();
    let mut add = |part: &[u8]| {
        hash.update(&(part.len() as u64).to_le_bytes()).update(part);
    };
    add(name.as_bytes());
    add(&D::FOLD_VERSION.to_le_bytes());
    let mut types = D::Event::TYPES.to_vec();
    types.sort_unstable();
    for kind in types {
        add(kind.name.as_bytes());
        add(&kind.version.to_le_bytes());
    }
    codec.known_versions().for_each(|known| add(known.as_bytes()));
    let mut state = D::State::default();
    add(&written(&state)?);
    for event in D::probe() {
        state = D::evolve(state, &event);
        add(&written(&state)?);
    }
    for stored in D::stored_probe() {
        let of = stored.type_version();
        let events =
            codec.read_stored(stored).map_err(|cause| SetupError::Probe { decider, of, cause: Box::new(cause) })?;
        state = events.iter().fold(state, D::evolve);
        add(&written(&state)?);
    }
    Ok(hash.finalize().to_hex().to_string())
}

impl<D: Decider> Snapshots<D> {
    /// The state that was kept of `stream`, to be checked against the stream's next page; `None` where there is none
    /// that this code can use.
    pub(super) async fn find(
        &self,
        log: &mut impl Log,
        stream: &Name,
        counters: &Counters,
    ) -> Result<Option<Folded<D>>, LoadError> {
        let key = vec![type_name::<D>().into(), stream.into()];
        let rows = log.rows(SELECT, key).await.map_err(LoadError::Snapshots)?;
        let Some(row) = rows.first() else { return Ok(None) };
        if row.at(4).as_str() != Some(&self.fingerprint) {
            counters.snapshots_stale.up();
            return Ok(None);
        }
        let folded = self.read(row);
        if folded.is_none() {
            counters.snapshots_undecodable.up();
        }
        Ok(folded)
    }

    fn read(&self, row: &Row) -> Option<Folded<D>> {
        let number = |n| row.at(n).as_i64().and_then(|n| u64::try_from(n).ok());
        let version = number(0).filter(|version| *version > 0).map(Version::new)?;
        let hash = blake3::Hash::from_hex(row.at(3).as_str()?).ok()?;
        Some(Folded {
            state: Arc::new((self.decode)(row.at(5).as_str()?).ok()?),
            version,
            first: Version::new(number(1)?),
            position: Position::new(number(2)?),
            token: None,
            snapshot: version,
            encrypted: false,
            anchor: Some(ChainHash::from_bytes(*hash.as_bytes())),
        })
    }

    /// Whether `folded` has gone far enough beyond its last snapshot.
    pub(super) fn is_due(&self, folded: &Folded<D>) -> bool {
        folded.version.get() - folded.snapshot.get() >= self.every.get()
    }

    /// Keeps a state, unless the stream has changed under it.
    pub(super) async fn write(&self, store: &Store, kept: Kept<D>, config: &Config, counters: &Counters) {
        match self.try_write(store, kept, config).await {
            Ok(true) => counters.snapshots_written.up(),
            Ok(false) => counters.snapshots_skipped.up(),
            Err(cause) => {
                counters.snapshots_skipped.up();
                tracing::warn!(%cause, "a snapshot could not be written; loading goes on without it");
            }
        }
    }

    async fn try_write(&self, store: &Store, kept: Kept<D>, config: &Config) -> Result<bool, KeepError> {
        let state = (self.encode)(&kept.state)?;
        let read = ReadStream::forward(kept.stream.clone(), 1).from(kept.version);
        let page = store.read_stream(read).await.map_err(SqlError::Store)?;
        let Some(last) = page.events.first().filter(|event| event.version() == kept.version) else { return Ok(false) };
        if state.len() > config.snapshot_bytes || page.head.first != kept.first || last.is_encrypted() {
            return Ok(false);
        }
        let number = |n: u64| Value::Integer(i64::try_from(n).unwrap_or(i64::MAX));
        let row: Arc<[Value]> = Arc::new([
            type_name::<D>().into(),
            (&kept.stream).into(),
            number(kept.version.get()),
            number(kept.first.get()),
            number(last.position().get()),
            last.hash().to_string().into(),
            self.fingerprint.clone().into(),
            state.into(),
        ]);
        execute(store, UPSERT, row).await?;
        Ok(true)
    }
}

/// A state to keep.
pub(super) struct Kept<D: Decider> {
    pub(super) stream: Name,
    pub(super) state: Arc<D::State>,
    pub(super) version: Version,
    pub(super) first: Version,
}

/// Why a state could not be kept.
#[derive(Debug, thiserror::Error)]
enum KeepError {
    #[error("the state cannot be written as JSON")]
    Json(#[from] serde_json::Error),
    #[error(transparent)]
    Sql(#[from] SqlError),
}

/// Forgets what was kept of `stream`.
pub(super) async fn forget<D: Decider>(store: &Store, stream: &Name) -> Result<(), SqlError> {
    execute(store, DELETE, Arc::new([type_name::<D>().into(), stream.into()])).await
}

async fn execute(store: &Store, sql: &'static str, params: Arc<[Value]>) -> Result<(), SqlError> {
    let done = store.transact(move |tx| {
        let params = params.clone();
        Box::pin(async move { tx.room_execute(sql, &params).await.map(|_| ()) })
    });
    done.await.map_err(|failed| match failed {
        TransactError::Aborted(cause) => cause,
        TransactError::Store(cause) => SqlError::Store(cause),
        other => SqlError::Failed { what: other.to_string() },
    })
}
