//! The one transaction that moves a shard: rows, checkpoint, parked events and effects, together or not at all.

use std::{
    borrow::Cow,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use quorate_runtime::Env;

use super::{
    ApplyError, BuildRow, Namespace, ViewError, ViewTx, ahead,
    effects::{self, Threshold},
    erasure, feed,
    machine::{Fate, Handed, Trouble},
    registered::Registered,
    rows::{self, ShardRow},
    switch,
};
use crate::{
    event::{Position, Recorded},
    store::{DynTx, ReadLog, SqlError, TransactError, Value},
};

/// Events a view that moves into the append's transaction may have left to catch up there.
const LAST_STRETCH: usize = 500;

/// A step of one shard, as its owner wants it.
pub(super) struct Advance {
    pub(super) env: Env,
    pub(super) code: Arc<Registered>,
    pub(super) namespace: Namespace,
    pub(super) shard: u32,
    pub(super) epoch: u64,
    pub(super) revision: u64,
    pub(super) from: Position,
    pub(super) to: Position,
    /// All events of the step, in order, and what was worked out of each.
    pub(super) batch: Arc<ahead::Batch>,
    /// What is to be done with each.
    pub(super) fates: Vec<Fate>,
    /// What was handed since `from`, as it was read.
    pub(super) handed: Handed,
    /// Why the first one is parked or skipped, where it is.
    pub(super) trouble: Option<Trouble>,
    /// Whether nothing is left to read behind `to`, as far as the owner knows.
    pub(super) at_the_end: bool,
    /// A bug of the museum: the checkpoint and the rows in transactions of their own.
    #[cfg(feature = "museum")]
    pub(super) torn: Option<Half>,
    /// How long it took the last time it ran, in nanoseconds.
    pub(super) took: AtomicU64,
}

/// Half of a step, as it should never be taken.
#[cfg(feature = "museum")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Half {
    Checkpoint,
    Rows,
}

/// What a step did besides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Advanced {
    /// Readers have this build from now on.
    pub(super) switched: bool,
    /// The shard is kept in the append's transaction from now on.
    pub(super) inline: bool,
    /// How far it came.
    pub(super) to: Position,
}

/// Why a step did not happen. Nothing was changed.
#[derive(Debug)]
pub(super) enum Halt {
    /// Somebody else owns the shard.
    Fenced,
    /// Its rows are not as the owner remembers them: read them again.
    Moved,
    /// It is paused.
    Paused,
    /// The build was dropped.
    Gone,
    /// Appends keep it up to date by themselves.
    Inline,
    /// As many events are parked as may be.
    ParkedFull,
    /// The events could not be applied.
    Apply(ApplyError),
    /// The tables of views failed.
    View(ViewError),
}

impl From<SqlError> for Halt {
    fn from(failed: SqlError) -> Self {
        Self::View(failed.into())
    }
}

impl From<ViewError> for Halt {
    fn from(failed: ViewError) -> Self {
        Self::View(failed)
    }
}

impl Halt {
    /// What became of a step's transaction. `None`: it was rolled back because it took too long or too much space.
    pub(super) fn of(failed: TransactError<Self>) -> Option<Self> {
        match failed {
            TransactError::Aborted(halt) => Some(halt),
            TransactError::Store(cause) => Some(Self::View(cause.into())),
            TransactError::TooLong { .. } | TransactError::TooLarge { .. } => None,
            // A foreign await, a panic or a deferred constraint: the projection's doing.
            other => Some(Self::Apply(SqlError::Failed { what: other.to_string() }.into())),
        }
    }
}

impl Advance {
    /// Runs the step.
    pub(super) async fn run(&self, tx: &mut DynTx) -> Result<Advanced, Halt> {
        let began = self.env.mono();
        let done = self.step(tx).await;
        let took = self.env.mono().saturating_since(began);
        // Ordering: one number for the owner, which reads it after the transaction has ended.
        self.took.store(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
        done
    }

    async fn step(&self, tx: &mut DynTx) -> Result<Advanced, Halt> {
        let build = rows::build(tx, self.namespace.build()).await?.ok_or(Halt::Gone)?;
        let row = rows::shard(tx, self.namespace.build(), self.shard).await?.ok_or(Halt::Gone)?;
        #[cfg(feature = "museum")]
        if let Some(half) = self.torn {
            match half {
                Half::Checkpoint => {
                    self.check(&build, &row)?;
                    self.move_checkpoint(tx, &row, &build).await?;
                }
                Half::Rows => {
                    self.apply(tx, &build, &self.applied(), ahead::Store::default()).await?;
                    self.count_done(tx, &row).await?;
                }
            }
            return Ok(Advanced { switched: false, inline: false, to: self.to });
        }
        self.check(&build, &row)?;
        let prepared = ahead::Store::of(self.batch.clone());
        let applied = erasure::as_of_now(tx, self.applied()).await?;
        self.apply(tx, &build, &applied, prepared).await?;
        self.put_aside(tx, &row).await?;
        self.count_done(tx, &row).await?;
        // What is put aside was said as well.
        feed::note(tx, &self.code, self.namespace.build(), &self.batch.events).await?;
        self.move_checkpoint(tx, &row, &build).await?;
        let mut done = Advanced { switched: false, inline: false, to: self.to };
        if self.at_the_end && build.mode == super::Mode::Inline {
            match self.last_stretch(tx, &build).await? {
                Some(to) => done = Advanced { inline: true, to, ..done },
                // Whoever has a build is given no other one that appends do not keep; whoever has none is given what there is.
                None if rows::live(tx, &build.view).await?.is_some() => return Ok(done),
                None => {}
            }
        }
        if self.at_the_end && build.switch == super::Switch::WhenCaughtUp && !build.live {
            done.switched = switch::try_in(tx, &build).await?;
        }
        Ok(done)
    }

    /// Whether the owner still is the owner, and remembers rightly.
    fn check(&self, build: &BuildRow, row: &ShardRow) -> Result<(), Halt> {
        #[cfg(feature = "museum")]
        if self.env.planted("unfenced-view-owner") {
            return if build.paused { Err(Halt::Paused) } else { Ok(()) };
        }
        if row.epoch != self.epoch {
            return Err(Halt::Fenced);
        }
        if row.is_inline(self.code.opening) {
            return Err(Halt::Inline);
        }
        if row.checkpoint != self.from || row.revision != self.revision {
            return Err(Halt::Moved);
        }
        if build.paused { Err(Halt::Paused) } else { Ok(()) }
    }

    fn applied(&self) -> Cow<'_, [Recorded]> {
        if self.fates.iter().all(|fate| *fate == Fate::Apply) {
            return Cow::Borrowed(&self.batch.events);
        }
        let fated = self.batch.events.iter().zip(&self.fates);
        fated.filter(|(_, fate)| **fate == Fate::Apply).map(|(event, _)| event.clone()).collect()
    }

    async fn apply(
        &self,
        tx: &mut DynTx,
        build: &BuildRow,
        events: &[Recorded],
        prepared: ahead::Store,
    ) -> Result<(), Halt> {
        if events.is_empty() {
            return Ok(());
        }
        let mut view = ViewTx::new(tx, &self.namespace).with(prepared);
        self.code.apply(&mut view, events).await.map_err(Halt::Apply)?;
        let requested = view.into_effects();
        erasure::note(tx, &self.code, self.namespace.build(), events).await?;
        if requested.is_empty() {
            return Ok(());
        }
        let threshold = Threshold::of(tx, build).await?;
        effects::keep(tx, &self.code, build, &threshold, events, requested).await
    }

    /// Parks and skips what is to be.
    async fn put_aside(&self, tx: &mut DynTx, row: &ShardRow) -> Result<(), Halt> {
        let aside = self.batch.events.iter().zip(&self.fates).filter(|(_, fate)| **fate != Fate::Apply);
        let mut parked = row.parked;
        for (event, fate) in aside {
            let trouble = self.trouble.as_ref().filter(|trouble| trouble.position == event.position());
            let (reason, attempts) =
                trouble.map_or(("an earlier event of its key is parked", 0), |known| (&*known.reason, known.attempts));
            let at = [rows::of(self.namespace.build()), rows::position(event.position())];
            let subject = erasure::subject_of(self.code.store_id, event);
            let what: [Value; 4] = [self.code.key(event).into(), event.kind().into(), reason.into(), subject.into()];
            let now: Value = self.env.wall().unix_nanos().into();
            if *fate == Fate::Skip {
                let ordered = trouble.and_then(|trouble| trouble.ordered.as_ref());
                let by: Value = ordered.map_or("policy", |ordered| &*ordered.by).into();
                let sql = "INSERT INTO quorate_view_skipped
                    (build, position, order_key, kind, reason, subject, skipped_by, skipped_ns)
                    VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
                let params: Vec<Value> = at.into_iter().chain(what).chain([by, now]).collect();
                tx.room_execute(sql, &params).await?;
                continue;
            }
            parked += 1;
            if parked > self.code.config.max_parked {
                return Err(Halt::ParkedFull);
            }
            let sql = "INSERT INTO quorate_view_parked
                (build, position, order_key, kind, reason, subject, shard, attempts, parked_ns)
                VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";
            let more = [self.shard.into(), attempts.into(), now];
            let params: Vec<Value> = at.into_iter().chain(what).chain(more).collect();
            tx.room_execute(sql, &params).await?;
        }
        Ok(())
    }

    /// Counts what was done with the events, beside the rows that it was done to. What was handed is counted with the checkpoint,
    /// so that one of the two without the other shows.
    async fn count_done(&self, tx: &mut DynTx, row: &ShardRow) -> Result<(), Halt> {
        if self.batch.events.is_empty() {
            return Ok(());
        }
        let fates = || self.batch.events.iter().zip(&self.fates).map(|(_, fate)| fate);
        let count = |wanted: &[Fate]| rows::number(fates().filter(|fate| wanted.contains(fate)).count() as u64);
        let sum = self.batch.events.iter().fold(row.checksum, |sum, event| sum.wrapping_add(digest(event.position())));
        let sql = "UPDATE quorate_view_shard SET applied = applied + $1, parked = parked + $2, skipped = skipped + $3,
            checksum = $4 WHERE build = $5 AND shard = $6";
        let params = [
            count(&[Fate::Apply]),
            count(&[Fate::Park, Fate::ParkBehind]),
            count(&[Fate::Skip]),
            sum.into(),
            rows::of(self.namespace.build()),
            self.shard.into(),
        ];
        tx.room_execute(sql, &params).await?;
        Ok(())
    }

    async fn move_checkpoint(&self, tx: &mut DynTx, row: &ShardRow, build: &BuildRow) -> Result<(), Halt> {
        #[cfg(feature = "museum")]
        let scanned_is_forgotten = self.fates.is_empty() && build.live && self.env.planted("filtered-view-rescans");
        #[cfg(feature = "museum")]
        let to = if scanned_is_forgotten { self.from } else { self.to };
        #[cfg(not(feature = "museum"))]
        let (to, _) = (self.to, build);
        let handed = row.handed.then(self.handed);
        // The compare-and-set once more in the write itself: on a store with several writers the check above is only a read.
        let sql =
            "UPDATE quorate_view_shard SET checkpoint = $1, looked = $2, handed = $3, handed_sum = $4, beat = beat + 1,
            trouble = CASE WHEN trouble <= $1 THEN 0 ELSE trouble END
            WHERE build = $5 AND shard = $6 AND epoch = $7 AND checkpoint = $8 AND revision = $9";
        let params = [
            rows::position(to),
            rows::number(handed.positions),
            rows::number(handed.events),
            handed.sum.into(),
            rows::of(self.namespace.build()),
            self.shard.into(),
            rows::number(row.epoch),
            rows::position(row.checkpoint),
            rows::number(row.revision),
        ];
        if tx.room_execute(sql, &params).await? == 0 { Err(Halt::Fenced) } else { Ok(()) }
    }

    /// Applies what was appended since the owner looked, and leaves the rest to the appends. `None`: too much was.
    async fn last_stretch(&self, tx: &mut DynTx, build: &BuildRow) -> Result<Option<Position>, Halt> {
        let read = ReadLog { query: self.code.query.clone(), after: self.to, limit: LAST_STRETCH };
        let page = tx.read_log(read).await.map_err(ViewError::Store)?;
        if page.scanned < page.head {
            return Ok(None);
        }
        let row = rows::shard(tx, self.namespace.build(), self.shard).await?.ok_or(Halt::Gone)?;
        // What is parked is no append's business: the view has to be whole before they keep it.
        if row.parked > 0 || row.trouble.is_some() {
            return Ok(None);
        }
        let (events, to) = (page.events, page.scanned.max(self.to));
        self.apply(tx, build, &events, ahead::Store::default()).await?;
        feed::note(tx, &self.code, self.namespace.build(), &events).await?;
        row.taken(tx, self.namespace.build(), &events, to).await?;
        let sql = "UPDATE quorate_view_shard SET inline = $1 WHERE build = $2 AND shard = $3 AND epoch = $4";
        let params = [
            self.code.opening.stored().into(),
            rows::of(self.namespace.build()),
            self.shard.into(),
            rows::number(row.epoch),
        ];
        tx.room_execute(sql, &params).await?;
        Ok(Some(to))
    }
}

/// What a position adds to a shard's checksum: the sum is the same for the same set of positions, in whatever batches.
///
/// Source: the finaliser of SplitMix64; Steele, Lea and Flood (2014).
pub(super) fn digest(position: Position) -> i64 {
    let mut mixed = position.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (mixed ^ (mixed >> 31)).cast_signed()
}
