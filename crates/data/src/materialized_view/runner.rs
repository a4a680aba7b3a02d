//! The loop that owns one shard: it claims it, reads the log, and does what the rules say.

use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures_util::future::OptionFuture;
use tokio::sync::watch;

use super::{
    ApplyError, Namespace, Prepared, Standing, ViewError,
    advance::{Advance, Advanced, Halt},
    ahead::{self, Batch},
    claim::{self, Claimed},
    machine::{Failure, Fate, Item, Plan, Shard},
    presence::Places,
    registered::Registered,
    rows,
    shared::{Local, Shared},
};
use crate::{
    event::{Position, Recorded},
    store::{ReadLog, StoreError, TransactError},
};

/// How long nothing must have been appended before a small step of the checkpoint is written.
const IDLE: Duration = Duration::from_secs(1);
/// How long to rest when the store fails.
pub(super) const AFTER_FAILURE: Duration = Duration::from_millis(200);

/// Events of a shard, from a part of the log.
struct Page {
    /// What the rules care about of each event.
    items: Vec<Item>,
    batch: Batch,
    /// Everything behind this position ...
    after: Position,
    /// ... up to here was looked at.
    scanned: Position,
}

/// One shard of one build, in the hands of this process.
pub(super) struct Runner {
    pub(super) shared: Arc<Shared>,
    pub(super) code: Arc<Registered>,
    pub(super) local: Arc<Local>,
    pub(super) namespace: Namespace,
    pub(super) shard: u32,
    pub(super) shards: u32,
}

/// Whose the shard is, as far as a runner knows.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Hold {
    /// Not claimed yet; whoever has it came earlier.
    None,
    /// Its own, under this epoch.
    Owns(u64),
    /// Somebody else's, who came after it.
    StandsBy,
}

impl Hold {
    fn epoch(self) -> Option<u64> {
        if let Self::Owns(epoch) = self { Some(epoch) } else { None }
    }
}

/// How a stretch of work ended.
enum End {
    /// Look at the rows again, and go on.
    Again,
    /// Wait until somebody asks for something.
    Wait(Standing),
    /// Somebody else owns the shard.
    Fenced,
    /// For good.
    Over,
    /// The store failed.
    Failed(ViewError),
}

impl From<ViewError> for End {
    fn from(failed: ViewError) -> Self {
        if matches!(failed, ViewError::Store(StoreError::Closed)) { Self::Over } else { Self::Failed(failed) }
    }
}

impl From<StoreError> for End {
    fn from(failed: StoreError) -> Self {
        ViewError::from(failed).into()
    }
}

impl Runner {
    /// Keeps the shard up to date until the process, the store or the build ends.
    pub(super) async fn run(self, hold: Hold) {
        let place = (self.shared.owner.clone(), self.namespace.build(), self.shard);
        let present = self.shared.store.presence().enter(place);
        let stop = self.shared.tasks.stop().clone();
        // A transaction that is under way is abandoned, not torn: it commits or it does not, and the rows say which.
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = self.work(hold) => {}
        }
        let released = claim::release(&self.shared, &self.code.config, self.namespace.build(), self.shard).await;
        if let Err(failed) = released {
            tracing::debug!(view = %self.code.name, %failed, "whoever is next waits for silence");
        }
        drop(present);
        self.stands(Standing::Idle);
    }

    async fn work(&self, mut hold: Hold) {
        loop {
            // Before the rows are read: what is asked for from here on, and who leaves, is not missed.
            let (mut nudged, mut present) = (self.shared.nudge.subscribe(), self.shared.store.presence().watch());
            let mut end = self.stretch(&mut hold, &mut nudged).await;
            while let End::Wait(standing) = end {
                self.stands(standing);
                end = self.wait(hold, &mut nudged, &mut present).await.err().unwrap_or(End::Again);
            }
            match end {
                End::Again | End::Wait(_) => {}
                // Whoever dropped the build may not be in this process, or have views of its own.
                End::Over => return self.shared.end(self.namespace.build()),
                End::Fenced => {
                    self.stands(Standing::Fenced);
                    self.shared.store.env().reached("view: an owner was fenced");
                    hold = Hold::StandsBy;
                }
                End::Failed(failed) => {
                    tracing::warn!(view = %self.code.name, build = %self.namespace.build(), %failed, "a view waits");
                    self.stands(Standing::Failing { reason: failed.to_string() });
                    self.shared.store.env().sleep(AFTER_FAILURE).await;
                }
            }
        }
    }

    /// Waits until somebody asks for something, or may have to be followed; gives signs of life meanwhile.
    async fn wait(
        &self,
        hold: Hold,
        nudged: &mut watch::Receiver<u64>,
        present: &mut watch::Receiver<Places>,
    ) -> Result<(), End> {
        let store = &self.shared.store;
        let sign = claim::sign_every(store, &self.code.config).zip(hold.epoch());
        loop {
            tokio::select! {
                biased;
                changed = nudged.changed() => return changed.map_err(|_| End::Over),
                // The owner after this one may have been among those who left.
                _ = present.changed() => return Ok(()),
                () = store.env().sleep(sign.map(|(every, _)| every).unwrap_or_default()), if sign.is_some() => {}
            }
            if let Some((_, epoch)) = sign {
                self.give_sign(epoch).await?;
            }
        }
    }

    /// Gives a sign of life.
    async fn give_sign(&self, epoch: u64) -> Result<(), End> {
        let (store, build) = (&self.shared.store, self.namespace.build());
        if claim::give_sign(store, build, self.shard, epoch).await? { Ok(()) } else { Err(End::Fenced) }
    }

    fn stands(&self, standing: Standing) {
        self.local.set_standing(self.shard, standing);
        Shared::bump(&self.shared.progress);
    }

    /// Works from what the rows say until something happens that only the rows can tell more about.
    async fn stretch(&self, hold: &mut Hold, nudged: &mut watch::Receiver<u64>) -> End {
        match self.begin(hold).await {
            Ok(stretch) => stretch.run(nudged).await.unwrap_or_else(|end| end),
            Err(end) => end,
        }
    }

    async fn begin(&self, hold: &mut Hold) -> Result<Stretch<'_>, End> {
        let (store, build) = (&self.shared.store, self.namespace.build());
        let owned = match *hold {
            Hold::Owns(epoch) => epoch,
            Hold::None | Hold::StandsBy => {
                let stands_by = *hold == Hold::StandsBy;
                self.stands(if stands_by { Standing::Fenced } else { Standing::Waiting });
                match claim::run(&self.shared, &self.code.config, build, self.shard, stands_by).await? {
                    Claimed::Epoch(epoch) => {
                        *hold = Hold::Owns(epoch);
                        epoch
                    }
                    Claimed::Gone => return Err(End::Over),
                }
            }
        };
        let row = rows::shard(&mut &*store, build, self.shard).await?.ok_or(End::Over)?;
        let build = rows::build(&mut &*store, build).await?.ok_or(End::Over)?;
        let parked = rows::parked_keys(&mut &*store, build.build, self.shard).await?;
        if row.epoch != owned {
            return Err(End::Fenced);
        }
        if build.paused {
            return Err(End::Wait(Standing::Paused));
        }
        if row.is_inline(self.code.opening) {
            self.local.set_reached(self.shard, row.checkpoint);
            return Err(End::Wait(Standing::Inline));
        }
        if row.unaccounted() > 0 {
            let (view, build, unaccounted) = (&self.code.name, build.build, row.unaccounted());
            tracing::error!(%view, %build, shard = self.shard, unaccounted, "a view lost events, or took some twice: rebuild it");
        }
        self.stands(Standing::CatchingUp);
        let shard = Shard::new(&self.code.config, row.checkpoint, parked, row.trouble);
        Ok(Stretch {
            runner: self,
            epoch: owned,
            revision: row.revision,
            shard,
            events: VecDeque::new(),
            prepared: VecDeque::new(),
            spent: Arc::default(),
            unsettled: !build.live || build.mode == super::Mode::Inline,
            in_the_making: !build.live,
        })
    }
}

/// A stretch of work, from what the rows said at its beginning.
struct Stretch<'r> {
    runner: &'r Runner,
    epoch: u64,
    revision: u64,
    shard: Shard,
    /// The events that the shard's items stand for.
    events: VecDeque<Recorded>,
    /// What was worked out of each.
    prepared: VecDeque<Option<Prepared>>,
    /// Those of the last step. To let go of so many takes a while, and is done beside the next one.
    spent: Arc<Batch>,
    /// Whether the build still has to be given to readers, or to the appends, once it has caught up.
    unsettled: bool,
    in_the_making: bool,
}

impl Stretch<'_> {
    /// Never `Ok`: a stretch ends with a reason.
    async fn run(mut self, nudged: &mut watch::Receiver<u64>) -> Result<End, End> {
        let store = &self.runner.shared.store;
        let mut head = store.watch_head();
        let mut idle = false;
        loop {
            if self.runner.local.set_reached(self.runner.shard, self.shard.reached()) {
                Shared::bump(&self.runner.shared.progress);
            }
            let plan = self.shard.plan(store.env().mono(), idle || self.in_the_making);
            if !matches!(plan, Plan::Commit { .. }) {
                // Whoever waits holds no events, nor the room that was given for them.
                self.spent = Arc::default();
            }
            match plan {
                Plan::Commit { fates, to } => self.commit(fates, to).await?,
                Plan::Stop => return Err(End::Wait(self.stopped())),
                Plan::Rest { until } => tokio::select! {
                    biased;
                    changed = nudged.changed() => return Err(changed.map_or(End::Over, |()| End::Again)),
                    () = store.env().sleep_until(until) => {}
                },
                Plan::Read => {
                    // Ordering: marked before the read, so that an append in between moves it again.
                    let end = *head.borrow_and_update();
                    if self.shard.scanned() < end {
                        idle = false;
                        let page = self.read_page(self.shard.scanned()).await?;
                        self.take(page);
                        continue;
                    }
                    if std::mem::take(&mut self.unsettled) {
                        self.commit(Vec::new(), self.shard.scanned()).await?;
                        continue;
                    }
                    self.runner.stands(Standing::CaughtUp);
                    idle = self.wait(&mut head, nudged, idle).await?;
                    // Closing wakes whoever waits, with the same value.
                    if self.shard.scanned() >= *head.borrow() && !idle {
                        store.read_log(self.read(self.shard.scanned())).await?;
                    }
                }
            }
        }
    }

    /// Waits until something is appended or asked for; whether nothing was for a while.
    async fn wait(
        &self,
        head: &mut watch::Receiver<Position>,
        nudged: &mut watch::Receiver<u64>,
        idle: bool,
    ) -> Result<bool, End> {
        let store = &self.runner.shared.store;
        let sign = claim::sign_every(store, &self.runner.code.config);
        loop {
            let span = if idle { sign } else { Some(IDLE.min(sign.unwrap_or(IDLE))) };
            tokio::select! {
                biased;
                changed = nudged.changed() => return Err(changed.map_or(End::Over, |()| End::Again)),
                moved = head.changed() => {
                    moved.map_err(|_| End::Over)?;
                    return Ok(false);
                }
                () = store.env().sleep(span.unwrap_or_default()), if span.is_some() => {}
            }
            if sign.is_some() {
                self.runner.give_sign(self.epoch).await?;
            }
            if !idle {
                return Ok(true);
            }
        }
    }

    fn stopped(&self) -> Standing {
        let trouble = self.shard.trouble().cloned().unwrap_or_default();
        Standing::Stopped { position: trouble.position, reason: trouble.reason }
    }

    fn read(&self, after: Position) -> ReadLog {
        let store = &self.runner.shared.store;
        let limit = self.shard.appetite().clamp(1, store.limits().page_events);
        ReadLog { query: self.runner.code.query.clone(), after, limit }
    }

    /// The shard's events of the page behind `after`, with what can be worked out of them here: away from the writer.
    async fn read_page(&self, after: Position) -> Result<Page, End> {
        let store = &self.runner.shared.store;
        let page = store.read_log(self.read(after)).await?;
        let looked_at = page.scanned.get().saturating_sub(after.get());
        if self.runner.code.query.is_everything() && page.events.len() as u64 != looked_at {
            // Positions are dense: whoever asks for everything is given as many events as there are positions.
            let what = format!("{} events between positions {after} and {}", page.events.len(), page.scanned);
            return Err(ViewError::corrupt("the log", what).into());
        }
        let (shard, shards) = (self.runner.shard, self.runner.shards);
        let code = &self.runner.code;
        let mine: Vec<Recorded> = page.events.into_iter().filter(|event| code.is_in(event, shard, shards)).collect();
        let item = |event: &Recorded| Item { position: event.position(), key: code.key(event).into() };
        let items = mine.iter().map(item).collect();
        let batch =
            ahead::work(store.env(), &self.runner.shared.ahead, code.projection.ahead(), mine, ahead::TIME).await;
        Ok(Page { items, batch, after, scanned: page.scanned.max(after) })
    }

    /// Puts a page into the queue.
    fn take(&mut self, page: Page) {
        self.shard.take_in(page.after, page.items, page.scanned);
        self.events.extend(page.batch.events);
        self.prepared.extend(page.batch.prepared);
    }

    /// Takes the first events out of the queue.
    fn cut(&mut self, count: usize) -> Arc<Batch> {
        let (events, prepared) = (self.events.drain(..count), self.prepared.drain(..count));
        Arc::new(Batch { events: events.collect(), prepared: prepared.collect() })
    }

    /// Puts them back, as nothing came of their step.
    fn put_back(&mut self, batch: Arc<Batch>) {
        let Batch { events, prepared } = Arc::unwrap_or_clone(batch);
        events.into_iter().rev().for_each(|event| self.events.push_front(event));
        prepared.into_iter().rev().for_each(|prepared| self.prepared.push_front(prepared));
    }

    /// Carries out a step, and reads on meanwhile.
    async fn commit(&mut self, fates: Vec<Fate>, to: Position) -> Result<(), End> {
        let store = self.runner.shared.store.clone();
        let after = self.shard.scanned();
        let ahead = after < store.head() && self.shard.appetite() > 0 && !fates.is_empty();
        #[cfg(feature = "museum")]
        if store.env().planted("view-checkpoint-first") && fates.contains(&Fate::Apply) {
            return self.commit_in_halves(&fates, to).await;
        }
        let batch = self.cut(fates.len());
        let advance = Arc::new(self.advance(batch.clone(), &fates, to));
        let step = advance.clone();
        let stepping = store.transact(move |tx| {
            let step = step.clone();
            Box::pin(async move { step.run(tx).await })
        });
        let spent = std::mem::take(&mut self.spent);
        let reading = async {
            // The writer has the step by now, and works on it meanwhile.
            drop(spent);
            OptionFuture::from(ahead.then(|| self.read_page(after))).await
        };
        let (stepped, page) = tokio::join!(stepping, reading);
        let took = Duration::from_nanos(advance.took.load(Ordering::Relaxed));
        self.stepped(stepped, batch, &fates, took).await?;
        if let Some(page) = page.transpose()? {
            self.take(page);
        }
        Ok(())
    }

    /// A bug of the museum: a crash between the two loses the events of the step.
    #[cfg(feature = "museum")]
    async fn commit_in_halves(&mut self, fates: &[Fate], to: Position) -> Result<(), End> {
        use super::advance::Half;
        let batch = self.cut(fates.len());
        for half in [Half::Checkpoint, Half::Rows] {
            let advance = Arc::new(Advance { torn: Some(half), ..self.advance(batch.clone(), fates, to) });
            let stepping = self.runner.shared.store.transact(move |tx| {
                let step = advance.clone();
                Box::pin(async move { step.run(tx).await })
            });
            match (half, stepping.await) {
                (Half::Checkpoint, Ok(_)) => {}
                (_, stepped) => self.stepped(stepped, batch.clone(), fates, Duration::ZERO).await?,
            }
        }
        Ok(())
    }

    fn advance(&self, batch: Arc<Batch>, fates: &[Fate], to: Position) -> Advance {
        let runner = self.runner;
        Advance {
            env: runner.shared.store.env().clone(),
            code: runner.code.clone(),
            namespace: runner.namespace.clone(),
            shard: runner.shard,
            epoch: self.epoch,
            revision: self.revision,
            from: self.shard.checkpoint(),
            to,
            batch,
            fates: fates.to_vec(),
            handed: self.shard.handed(to),
            trouble: self.shard.trouble().cloned(),
            at_the_end: to >= runner.shared.store.head(),
            #[cfg(feature = "museum")]
            torn: None,
            took: 0.into(),
        }
    }

    /// Takes in what became of a step.
    async fn stepped(
        &mut self,
        stepped: Result<Advanced, TransactError<Halt>>,
        batch: Arc<Batch>,
        fates: &[Fate],
        took: Duration,
    ) -> Result<(), End> {
        let halt = match stepped {
            Ok(done) => {
                self.spent = batch;
                return self.advanced(done, fates, took);
            }
            Err(failed) => Halt::of(failed),
        };
        self.put_back(batch);
        match halt {
            Some(Halt::Fenced) => Err(End::Fenced),
            Some(Halt::Moved | Halt::Inline) => Err(End::Again),
            Some(Halt::Paused) => Err(End::Wait(Standing::Paused)),
            Some(Halt::Gone) => Err(End::Over),
            Some(Halt::ParkedFull) => Err(End::Wait(Standing::ParkedFull)),
            Some(Halt::View(failed)) => Err(failed.into()),
            Some(Halt::Apply(failed)) => match failed.store() {
                Some(cause) => Err(cause.clone().into()),
                None => self.failed(fates.len(), failed).await,
            },
            None if fates.len() > 1 => {
                self.shard.too_long(fates.len());
                Ok(())
            }
            None => {
                let what = "applying it alone takes longer, or writes more, than a transaction may".to_owned();
                self.failed(fates.len(), crate::store::SqlError::Failed { what }.into()).await
            }
        }
    }

    fn advanced(&mut self, done: Advanced, fates: &[Fate], took: Duration) -> Result<(), End> {
        self.shard.committed(fates, done.to.min(self.shard.scanned()), took);
        self.in_the_making &= !done.switched;
        if done.switched {
            self.runner.shared.store.env().reached("view: readers were given another build");
        }
        if done.switched || done.inline {
            Shared::bump(&self.runner.shared.progress);
            return Err(End::Again);
        }
        Ok(())
    }

    /// A batch could not be applied. That an event alone failed is written down, so that attempts count across restarts.
    async fn failed(&mut self, count: usize, failed: ApplyError) -> Result<(), End> {
        let (culprit, reason, certain) = match failed {
            ApplyError::Event { position, reason, certain } => (Some(position), reason, certain),
            other @ ApplyError::Sql(_) => (None, other.to_string(), false),
        };
        let failure = Failure { culprit, reason: shortened(reason), certain };
        let store = &self.runner.shared.store;
        store.env().reached("view: an event could not be applied");
        let Some(trouble) = self.shard.failed(store.env().mono(), count, failure) else {
            return Ok(());
        };
        let (build, shard, known) = (self.runner.namespace.build(), self.runner.shard, (self.epoch, self.revision));
        let written = store.transact(move |tx| {
            let trouble = trouble.clone();
            Box::pin(
                async move { rows::write_trouble(tx, build, shard, known, &trouble).await.map_err(ViewError::from) },
            )
        });
        let is_as_known = written.await.map_err(ViewError::of_transaction)?;
        // Whose it is now, and what somebody said of it meanwhile, the rows tell.
        if is_as_known { Ok(()) } else { Err(End::Again) }
    }
}

/// A reason as it is kept: its beginning.
fn shortened(reason: String) -> String {
    const MAX: usize = 1_000;
    if reason.len() <= MAX { reason } else { reason.chars().take(MAX).collect() }
}
