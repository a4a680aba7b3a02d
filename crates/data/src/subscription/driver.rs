//! The loop that owns a subscription's machine in this process.
//!
//! Callers lay their wishes on a desk. While there are any, one task takes them all together, reads what the machine
//! needs from the log, steps it, writes its changes, as a rule in one transaction, and only then answers: many acknowledgements
//! share one commit, and a caller who goes away interrupts nobody.
//!
//! The machine in memory is a cache of the rows. Whatever casts doubt on it (another process was first, a commit that
//! failed or may have failed) makes it stale, and the next round begins with the rows.

mod work;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use quorate_foundations::name::Name;
use quorate_runtime::random::Rng;
use tokio::sync::{oneshot, watch};

use self::work::done;
pub(super) use self::work::{Answer, Hand, Standing, Taken, Work};
use super::{
    Claim, Config, SubscriptionError,
    machine::{Changes, Dispatcher, Effect, Input, Key, Moment, Stall},
    rows,
};
use crate::{
    event::{Position, Recorded},
    store::{Query, ReadLog, SqlError, Store, StoreError, TransactError},
};

/// Wishes that may wait for the task.
const MAX_ASKS: usize = 8_192;
/// Rounds that may find another process first before the callers hear of it.
const MAX_TRIES: u32 = 64;
/// Rounds that try again at once; later ones rest first, or processes that reload would lose against each other for long.
const EAGER_TRIES: u32 = 3;
/// The longest rest between two rounds.
const MAX_REST: Duration = Duration::from_millis(20);
/// Pages of the log that one round reads at most: other wishes wait meanwhile.
const MAX_PAGES: usize = 16;
/// Events that a page holds at least: a few more than asked for cost little and save a read.
const MIN_PAGE: usize = 128;
/// Bytes of events that wait in memory; others are read again when their turn comes.
const MAX_BUFFER_BYTES: usize = 8 << 20;
/// Bytes of rows that one transaction writes at most, and a quarter of what it may.
const MAX_COMMIT_BYTES: usize = 4 << 20;
/// A checkpoint that nothing else makes durable is written when it has moved this far.
const CHECKPOINT_STRIDE: u64 = 4_096;

/// One subscription, as this process works on it.
pub(super) struct Core {
    pub(super) store: Store,
    pub(super) name: Name,
    pub(super) id: u64,
    pub(super) config: Config,
    desk: Mutex<Desk>,
    /// Moves when something may have become ready.
    pub(super) changed: watch::Sender<u64>,
    /// Settled in transactions whose end nobody told us.
    in_doubt: Mutex<BTreeSet<Claim>>,
    /// How long to rest when others are first.
    rests: Mutex<Rng>,
}

#[derive(Default)]
struct Desk {
    asks: Vec<Ask>,
    live: Live,
    working: bool,
}

/// A wish and where its answer goes.
struct Ask {
    work: Work,
    reply: oneshot::Sender<Result<Answer, SubscriptionError>>,
}

/// The machine and the events it may hand out next.
#[derive(Default)]
struct Live {
    machine: Option<Dispatcher>,
    /// Whether the rows may say something else.
    stale: bool,
    buffer: BTreeMap<Position, Recorded>,
    buffered_bytes: usize,
    /// How often the store had forgotten something before the first of these events was read.
    forgotten: u64,
}

enum Round {
    Done(Vec<Answer>),
    OthersWereFirst,
}

enum Refusal {
    Conflict,
    Sql(SqlError),
}

impl Core {
    pub(super) fn new(store: &Store, head: &rows::Head) -> Self {
        Self {
            store: store.clone(),
            name: head.name.clone(),
            id: head.id,
            config: head.config.clone(),
            desk: Mutex::default(),
            changed: watch::Sender::new(0),
            in_doubt: Mutex::default(),
            rests: Mutex::new(store.env().random("subscription/rests")),
        }
    }

    /// Has `work` done.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the wait, not the work; events it was handed go back unharmed.
    pub(super) async fn ask(self: &Arc<Self>, work: Work) -> Result<Answer, SubscriptionError> {
        let (reply, answer) = oneshot::channel();
        self.submit(Ask { work, reply })?;
        answer.await.unwrap_or(Err(SubscriptionError::Store(StoreError::OutcomeUnknown)))
    }

    fn submit(self: &Arc<Self>, ask: Ask) -> Result<(), SubscriptionError> {
        let mut desk = self.desk();
        if desk.asks.len() >= MAX_ASKS {
            return Err(SubscriptionError::Store(StoreError::Overloaded { waiting: desk.asks.len() }));
        }
        desk.asks.push(ask);
        if !std::mem::replace(&mut desk.working, true) {
            let shift = Shift { core: self.clone(), live: std::mem::take(&mut desk.live), over: false };
            // A runtime that ends drops the task at once, which puts the machine back: that takes the lock as well.
            drop(desk);
            self.store.env().tasks().spawn("subscription", shift.work());
        }
        Ok(())
    }

    /// The event at `position` as the log has it now.
    pub(super) async fn event(&self, position: Position) -> Result<Recorded, SubscriptionError> {
        let after = Position::new(position.get().saturating_sub(1));
        let page = self.store.read_log(ReadLog { query: Query::EVERYTHING, after, limit: 1 }).await?;
        let found = page.events.into_iter().find(|event| event.position() == position);
        found.ok_or_else(|| SubscriptionError::corrupt("the log", format!("no event at position {position}")))
    }

    /// The events at `positions`, which ascend, as the log has them now. Those that stand close together are read together.
    pub(super) async fn events(&self, positions: &[Position]) -> Result<Vec<Recorded>, SubscriptionError> {
        let most = self.store.limits().page_events;
        let (mut found, mut rest, mut limit) = (Vec::with_capacity(positions.len()), positions, positions.len());
        while let Some(first) = rest.first() {
            let after = Position::new(first.get().saturating_sub(1));
            let read = ReadLog { query: self.config.filter.clone(), after, limit: limit.min(most) };
            let page = self.store.read_log(read).await?;
            let (here, later) = rest.split_at(rest.partition_point(|position| *position <= page.scanned).max(1));
            for position in here {
                match page.events.binary_search_by_key(position, Recorded::position) {
                    Ok(n) => found.push(page.events[n].clone()),
                    Err(_) => found.push(self.event(*position).await?),
                }
            }
            limit = if page.events.len() <= 2 * here.len() { (2 * limit).min(later.len()) } else { 1 };
            rest = later;
        }
        Ok(found)
    }

    /// Remembers that a transaction, which may or may not commit, settles `claim`.
    pub(super) fn doubt(&self, claim: Claim) {
        self.in_doubt.lock().unwrap_or_else(PoisonError::into_inner).insert(claim);
    }

    /// Whether a transaction's end is still to be learnt.
    pub(super) fn is_in_doubt(&self) -> bool {
        !self.in_doubt.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Moment {
        let env = self.store.env();
        #[cfg(feature = "museum")]
        if env.planted("lease-by-wall-clock") {
            let wall = u64::try_from(env.wall().unix_nanos()).unwrap_or(0);
            return Moment { boot: quorate_foundations::time::Boot::from_nanos(wall), wall: env.wall() };
        }
        Moment { boot: env.boot(), wall: env.wall() }
    }
}

/// The task at work: it holds the machine, and puts it back however it ends.
struct Shift {
    core: Arc<Core>,
    live: Live,
    over: bool,
}

impl Drop for Shift {
    fn drop(&mut self) {
        if !self.over {
            // Torn down in the middle: the machine is marked stale, and nobody may wait for ever.
            let mut desk = self.core.desk();
            desk.live = std::mem::take(&mut self.live);
            desk.asks.clear();
            desk.working = false;
        }
    }
}

impl Shift {
    async fn work(mut self) {
        loop {
            let asks = std::mem::take(&mut self.core.desk().asks);
            if !asks.is_empty() {
                self.serve(asks).await;
                continue;
            }
            let core = self.core.clone();
            let mut desk = core.desk();
            // Under the lock, so that nobody lays down a wish between the last look and the end of the shift.
            if desk.asks.is_empty() {
                desk.live = std::mem::take(&mut self.live);
                desk.working = false;
                self.over = true;
                return;
            }
        }
    }

    async fn serve(&mut self, asks: Vec<Ask>) {
        let works: Vec<Work> = asks.iter().map(|ask| ask.work.clone()).collect();
        for tried in 0..MAX_TRIES {
            self.rest(tried).await;
            match self.round(&works).await {
                Ok(Round::Done(answers)) => return self.answer(asks, answers),
                Ok(Round::OthersWereFirst) => self.live.stale = true,
                Err(failed) => return self.refuse(asks, &failed),
            }
        }
        self.refuse(asks, &SubscriptionError::Contended);
    }

    /// Gives the other processes a moment, a random and growing one, after the first few tries.
    async fn rest(&self, tried: u32) {
        let Some(late) = tried.checked_sub(EAGER_TRIES) else { return };
        let longest = Duration::from_micros(500).saturating_mul(1 << late.min(10)).min(MAX_REST);
        let share = self.core.rests.lock().unwrap_or_else(PoisonError::into_inner).unit();
        self.core.store.env().sleep(longest.mul_f64(share)).await;
    }

    fn refuse(&mut self, asks: Vec<Ask>, failed: &SubscriptionError) {
        self.live.stale = true;
        for ask in asks {
            let _gone = ask.reply.send(Err(failed.clone()));
        }
    }

    fn answer(&mut self, asks: Vec<Ask>, answers: Vec<Answer>) {
        let mut unclaimed = Vec::new();
        let mut wake = false;
        for (ask, answer) in asks.into_iter().zip(answers) {
            wake |= matches!(ask.work, Work::Steps(_));
            if let Err(Ok(Answer::Taken(taken))) = ask.reply.send(Ok(answer)) {
                unclaimed.extend(taken.hands.into_iter().map(|hand| Input::Return(hand.claim)));
            }
        }
        if wake {
            self.core.changed.send_modify(|changes| *changes += 1);
        }
        if !unclaimed.is_empty() {
            let (reply, _nobody) = oneshot::channel();
            self.core.desk().asks.push(Ask { work: Work::Steps(unclaimed), reply });
        }
    }

    async fn round(&mut self, works: &[Work]) -> Result<Round, SubscriptionError> {
        self.live.let_go(self.core.store.forgotten());
        // Until the round is over the machine may be ahead of the rows; wherever the round ends, it must not seem fresh.
        let stale = std::mem::replace(&mut self.live.stale, true) || self.live.machine.is_none();
        if stale || self.core.store.env().buggify("subscription: the machine is read again") {
            self.reload().await?;
        }
        let wanted: usize = works.iter().map(Work::wants).sum();
        self.hear_of_settled().await?;
        self.feed(wanted).await?;
        let nothing_ready = self.machine().ready() == 0;
        if works.iter().any(|work| work.needs_news(nothing_ready)) {
            self.look_around().await?;
            self.feed(wanted).await?;
        }
        let mut answers = Vec::with_capacity(works.len());
        for work in works {
            answers.push(self.step(work).await?);
        }
        #[cfg(feature = "museum")]
        let later = self.is_settling(works) && self.core.store.env().planted("checkpoint-outside");
        #[cfg(not(feature = "museum"))]
        let later = false;
        if !later && !self.prove(works).await? {
            return Ok(Round::OthersWereFirst);
        }
        self.live.stale = false;
        for answer in &answers {
            self.live.forget(answer);
        }
        Ok(Round::Done(answers))
    }

    fn machine(&mut self) -> &mut Dispatcher {
        self.live.machine.as_mut().unwrap_or_else(|| unreachable!("invariant: a round begins by loading the machine"))
    }

    async fn reload(&mut self) -> Result<(), SubscriptionError> {
        let loaded = rows::load(&self.core.store, self.core.id).await?;
        let (head, events) = loaded.ok_or_else(|| SubscriptionError::NotFound { name: self.core.name.clone() })?;
        if !events.is_empty() && self.live.machine.is_none() {
            self.core.store.env().reached("subscription: leases were read back");
        }
        let stored = (head.revision, head.checkpoint, head.fence);
        let before = self.live.machine.as_ref();
        let machine = Dispatcher::restore((&head.config).into(), stored, &events, before, self.core.now());
        self.live.machine = Some(machine.having_passed_over(head.passed_over));
        Ok(())
    }

    /// Learns what other processes did since.
    async fn look_around(&mut self) -> Result<(), SubscriptionError> {
        let known = self.machine().revision();
        if rows::revision(&self.core.store, self.core.id).await? != Some(known) {
            return self.reload().await;
        }
        self.take_in_settled().await
    }

    /// Learns what became of the transactions that were to settle events, if there are any.
    async fn hear_of_settled(&mut self) -> Result<(), SubscriptionError> {
        if !self.core.is_in_doubt() {
            return Ok(());
        }
        self.take_in_settled().await?;
        let core = self.core.clone();
        core.in_doubt.lock().unwrap_or_else(PoisonError::into_inner).retain(|claim| self.machine().holds(*claim));
        Ok(())
    }

    async fn take_in_settled(&mut self) -> Result<(), SubscriptionError> {
        let now = self.core.now();
        for claim in rows::settled(&self.core.store, self.core.id).await? {
            self.machine().step(now, Input::SettledElsewhere(claim), &mut Vec::new());
        }
        Ok(())
    }

    /// Reads the log on until `wanted` events are ready, the window is full, or the log ends.
    async fn feed(&mut self, wanted: usize) -> Result<(), SubscriptionError> {
        let now = self.core.now();
        self.machine().tick(now);
        for _ in 0..MAX_PAGES {
            let (room, scanned) = (self.machine().room(), self.machine().scanned());
            let head = self.core.store.head();
            if self.machine().ready() >= wanted || room == 0 || scanned >= head {
                return Ok(());
            }
            let most = self.core.store.limits().page_events;
            let limit = wanted.max(MIN_PAGE).min(room).min(most);
            let read = ReadLog { query: self.core.config.filter.clone(), after: scanned, limit };
            let page = self.core.store.read_log(read).await?;
            // Nothing is left of a stub that a consumer could work on.
            let (whole, gone): (Vec<_>, Vec<_>) = page.events.into_iter().partition(|event| event.stub().is_none());
            let gone = gone.iter().map(Recorded::position).collect();
            let events = whole.into_iter().map(|event| self.live.keep(event, &self.core.config)).collect();
            self.machine().step(now, Input::Scanned { events, to: page.scanned }, &mut Vec::new());
            self.machine().step(now, Input::PassedOver(gone), &mut Vec::new());
        }
        Ok(())
    }

    async fn step(&mut self, work: &Work) -> Result<Answer, SubscriptionError> {
        let (now, mut effects) = (self.core.now(), Vec::new());
        match work.clone() {
            Work::Take { max, owner } => {
                self.machine().step(now, Input::Take { max, owner }, &mut effects);
                self.taken(effects).await.map(Answer::Taken)
            }
            Work::Steps(inputs) => {
                inputs.into_iter().for_each(|input| self.machine().step(now, input, &mut effects));
                if effects.iter().any(|effect| matches!(effect, Effect::Lost(_))) {
                    self.core.store.env().reached("subscription: a lease was taken over");
                }
                Ok(done(&effects))
            }
            Work::Describe => self.describe().await.map(|standing| Answer::Described(Box::new(standing))),
        }
    }

    async fn taken(&mut self, effects: Vec<Effect>) -> Result<Taken, SubscriptionError> {
        let mut hands = Vec::with_capacity(effects.len());
        for effect in effects {
            let Effect::Hand { claim, key, attempt, ttl } = effect else { continue };
            if attempt > 1 {
                self.core.store.env().reached("subscription: an event was handed out again");
            }
            let event = self.event(claim.position).await?;
            hands.push(Hand { event, claim, key, attempt, ttl });
        }
        let (head, forgotten) = (self.core.store.head(), self.live.forgotten);
        let machine = self.machine();
        let unread = machine.scanned() < head;
        Ok(Taken {
            hands,
            forgotten,
            stall: machine.stall().filter(|stall| unread || matches!(stall, Stall::Parked(_))),
            wake_at: machine.wake_at(),
            unread: unread && machine.room() > 0,
        })
    }

    async fn event(&mut self, position: Position) -> Result<Recorded, SubscriptionError> {
        match self.live.buffer.get(&position) {
            Some(event) => Ok(event.clone()),
            None => self.core.event(position).await,
        }
    }

    async fn describe(&mut self) -> Result<Standing, SubscriptionError> {
        let (head, machine) = (self.core.store.head(), self.machine());
        let (checkpoint, scanned) = (machine.checkpoint(), machine.scanned());
        let (counts, stall, passed_over) = (machine.counts(), machine.stall(), machine.passed_over());
        let oldest = machine.oldest().or((scanned < head).then(|| scanned.next()));
        let oldest = match oldest {
            Some(position) => Some(self.event(position).await?),
            None => None,
        };
        Ok(Standing { checkpoint, scanned, oldest, counts, stall, passed_over })
    }

    /// Makes what was decided durable, which also proves that it was decided on the newest rows. `false` if it was not.
    ///
    /// What one transaction cannot take is written by several. Once the first of them is durable nothing is decided again:
    /// whatever keeps a later one from it, the callers are told that they cannot know what was written.
    async fn prove(&mut self, works: &[Work]) -> Result<bool, SubscriptionError> {
        let most = MAX_COMMIT_BYTES.min(self.core.store.limits().unit_bytes() / 4);
        let mut parts = 0;
        while let Some(changes) = self.machine().changes_or_checkpoint(CHECKPOINT_STRIDE, most) {
            let changes = Arc::new(changes);
            match self.commit(changes.clone()).await {
                Ok(true) => self.machine().saved(&changes),
                refused if parts == 0 => return refused,
                Ok(false) | Err(_) => return Err(StoreError::OutcomeUnknown.into()),
            }
            parts += 1;
        }
        if parts > 0 {
            return Ok(true);
        }
        // A refusal changes nothing, but may not rest on old rows either: the lease may have been given elsewhere.
        let known = self.machine().revision();
        let refusals = works.iter().any(|work| matches!(work, Work::Steps(_)));
        Ok(!refusals || rows::revision(&self.core.store, self.core.id).await? == Some(known))
    }

    /// A bug of the museum: what was settled is answered now and written with whatever is written next.
    #[cfg(feature = "museum")]
    fn is_settling(&self, works: &[Work]) -> bool {
        works.iter().all(|work| matches!(work, Work::Steps(_)))
    }

    /// Makes `changes` durable; `false` if another process was first.
    async fn commit(&self, changes: Arc<Changes>) -> Result<bool, SubscriptionError> {
        let id = self.core.id;
        let written = self.core.store.transact(move |tx| {
            let changes = changes.clone();
            Box::pin(async move {
                let written = rows::write(tx, id, &changes).await.map_err(Refusal::Sql)?;
                if written { Ok(()) } else { Err(Refusal::Conflict) }
            })
        });
        match written.await {
            Ok(()) => Ok(true),
            Err(TransactError::Aborted(Refusal::Conflict)) => Ok(false),
            Err(TransactError::Aborted(Refusal::Sql(cause))) => Err(cause.into()),
            Err(TransactError::Store(cause)) => Err(cause.into()),
            Err(other) => Err(SubscriptionError::Tables(SqlError::Failed { what: other.to_string() })),
        }
    }
}

impl Live {
    /// Keeps an event until its turn, if there is space, and says what the machine must know of it.
    fn keep(&mut self, event: Recorded, config: &Config) -> (Position, Key) {
        let known = (event.position(), config.key.of(&event));
        if self.buffered_bytes < MAX_BUFFER_BYTES {
            self.buffered_bytes += event.bytes().len();
            self.buffer.insert(event.position(), event);
        } else if let Some(machine) = &self.machine {
            self.buffer.retain(|position, _| machine.waits(*position));
            self.buffered_bytes = self.buffer.values().map(|event| event.bytes().len()).sum();
        }
        known
    }

    /// Lets go of every event, and of the machine, if the store has forgotten something since they were read.
    fn let_go(&mut self, forgotten: u64) {
        if std::mem::replace(&mut self.forgotten, forgotten) != forgotten {
            self.buffer.clear();
            self.buffered_bytes = 0;
            self.stale = true;
        }
    }

    /// Lets go of what was handed out.
    fn forget(&mut self, answer: &Answer) {
        let Answer::Taken(taken) = answer else { return };
        for event in taken.hands.iter().filter_map(|hand| self.buffer.remove(&hand.claim.position)) {
            self.buffered_bytes -= event.bytes().len();
        }
    }
}
