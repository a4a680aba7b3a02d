//! The handles: all subscriptions of a store, and one of them.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use quorate_foundations::name::Name;
use quorate_runtime::random::Rng;

use super::{
    Config, Lease, Start, SubscriptionError,
    driver::{Answer, Core, Hand, Taken, Work},
    forget,
    machine::{Counts, Failure, Input, Key, Selection, Stall},
    rows,
};
use crate::{
    event::{Position, Recorded},
    store::{DynTx, Store, StoreError},
};

/// How often a waiting [`pull`](Subscription::pull) looks for what other processes did.
const LOOK_AROUND: Duration = Duration::from_millis(250);
/// How often it looks for the end of a transaction that settles an event.
const LOOK_AT_DOUBT: Duration = Duration::from_millis(5);
/// How often events are read again before they are handed out, while the store goes on forgetting.
const MAX_LOOKS: u32 = 32;

/// The durable subscriptions of a store. Cheap to clone; clones are the same.
#[derive(Clone)]
pub struct Subscriptions {
    store: Store,
    shared: Arc<Shared>,
}

struct Shared {
    cores: Mutex<BTreeMap<Name, Arc<Core>>>,
    ids: Mutex<Rng>,
}

/// One durable subscription. Cheap to clone; clones are the same.
#[derive(Clone)]
pub struct Subscription {
    core: Arc<Core>,
}

/// What a consumer asks for.
#[derive(Clone, Debug)]
pub struct Pull {
    /// At most so many events: 1 to [`Config::MAX_WINDOW`].
    pub max: usize,
    /// How long to wait for the first one. At most [`Pull::MAX_WAIT`].
    pub wait: Duration,
    /// Who asks, for people to read: at most 256 bytes. May be empty.
    pub owner: Arc<str>,
}

/// An event to work on.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The event. A stub if it was retired after it had been looked at; without data if its data subject was erased.
    pub event: Recorded,
    /// The right to settle it.
    pub lease: Lease,
    /// How often the event has now been handed out, counted from 1. Above 1, an earlier attempt may have done some or
    /// all of the work.
    pub attempt: u32,
    /// What the event belongs to: see [`OrderKey`](super::OrderKey).
    pub key: Key,
    /// How long the lease lasts, from the moment of the reply.
    pub ttl: Duration,
}

/// A subscription in a listing.
#[derive(Clone, Debug)]
pub struct Summary {
    /// Its name.
    pub name: Name,
    /// As it was created.
    pub config: Config,
    /// Every event up to here was settled or parked, as of the last write.
    pub checkpoint: Position,
}

/// How a subscription stands.
#[derive(Clone, Debug)]
pub struct Description {
    /// Its name.
    pub name: Name,
    /// As it was created.
    pub config: Config,
    /// Every event up to here was settled or parked.
    pub checkpoint: Position,
    /// The last position of the log.
    pub head: Position,
    /// How far the log was looked at.
    pub scanned: Position,
    /// Events yet to be settled: those known, and every event that was not looked at, whether it matches or not.
    pub lag_events: u64,
    /// How long ago the oldest of them was recorded, by the wall clock; zero if there is none.
    pub lag: Duration,
    /// The position of the oldest of them.
    pub oldest: Option<Position>,
    /// In flight, resting, waiting, parked.
    pub counts: Counts,
    /// What holds it up, if something does.
    pub stall: Option<Stall>,
    /// Events up to the checkpoint that were there for it, and were truncated or archived before their turn: nobody was given them.
    pub passed_over: u64,
}

/// A parked event.
#[derive(Clone, Debug, PartialEq)]
pub struct ParkedEvent {
    /// Where it stands in the log.
    pub position: Position,
    /// What it belongs to.
    pub key: Key,
    /// How often it was handed out.
    pub attempts: u32,
    /// Its last failures, oldest first; the last one says why it is parked.
    pub failures: Vec<Failure>,
}

impl Pull {
    /// The longest wait.
    pub const MAX_WAIT: Duration = Duration::from_secs(300);
    const MAX_OWNER_BYTES: usize = 256;

    /// At most `max` events, at once.
    pub fn of(max: usize) -> Self {
        Self { max, wait: Duration::ZERO, owner: "".into() }
    }

    /// The same, waiting for the first one up to `wait`.
    #[must_use]
    pub fn waiting(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }

    /// The same, asked for by `owner`.
    #[must_use]
    pub fn by(mut self, owner: impl Into<Arc<str>>) -> Self {
        self.owner = owner.into();
        self
    }

    fn check(&self) -> Result<(), SubscriptionError> {
        let (max, wait) = (Config::MAX_WINDOW, Self::MAX_WAIT);
        if !(1..=max).contains(&self.max) {
            return Err(SubscriptionError::invalid(format!("`max` is 1 to {max}, {} was asked for", self.max)));
        }
        if self.wait > wait {
            return Err(SubscriptionError::invalid(format!(
                "`wait` is at most {wait:?}, {:?} was asked for",
                self.wait
            )));
        }
        if self.owner.len() > Self::MAX_OWNER_BYTES {
            return Err(SubscriptionError::invalid(format!("`owner` has at most {} bytes", Self::MAX_OWNER_BYTES)));
        }
        Ok(())
    }
}

impl Subscriptions {
    /// The most subscriptions of a store.
    pub const MAX_COUNT: usize = 1_000;
    /// The most entries of a listing.
    pub const MAX_PAGE: u32 = 1_000;

    /// The subscriptions of `store`, whose tables are made if they are not there.
    pub async fn open(store: &Store) -> Result<Self, SubscriptionError> {
        store.declare(rows::TABLES).await?;
        store.on_erase("subscription", Arc::new(|store, subject| Box::pin(forget::about(store, subject))));
        forget::of_the_erased(store).await?;
        let ids = Mutex::new(store.env().random("subscription/ids"));
        Ok(Self { store: store.clone(), shared: Arc::new(Shared { cores: Mutex::default(), ids }) })
    }

    /// Creates a subscription. Creating it again with the same configuration changes nothing.
    ///
    /// # Errors
    /// [`SubscriptionError::Exists`] if it is there with another configuration.
    pub async fn create(&self, name: &Name, config: Config) -> Result<Subscription, SubscriptionError> {
        config.check()?;
        let checkpoint = match config.start {
            Start::Beginning => Position::ZERO,
            Start::End => self.store.head(),
            Start::After(position) => position,
        };
        let id = self.shared.ids.lock().unwrap_or_else(PoisonError::into_inner).u64() >> 1;
        let head = rows::Head { id, name: name.clone(), config, revision: 1, checkpoint, fence: 0, passed_over: 0 };
        let created = self.store.transact(move |tx| Box::pin(create(tx, head.clone()))).await;
        Ok(self.handle(&created.map_err(SubscriptionError::of_transaction)?))
    }

    /// Deletes a subscription with all it knows. Leases on its events are lost.
    ///
    /// # Errors
    /// [`SubscriptionError::NotFound`] if there is none.
    pub async fn delete(&self, name: &Name) -> Result<(), SubscriptionError> {
        let deleted = name.clone();
        let ended = self.store.transact(move |tx| Box::pin(delete(tx, deleted.clone()))).await;
        if let Some(core) = self.shared.cores.lock().unwrap_or_else(PoisonError::into_inner).remove(name) {
            core.changed.send_modify(|changes| *changes += 1);
        }
        ended.map_err(SubscriptionError::of_transaction)
    }

    /// The subscription of that name.
    ///
    /// # Errors
    /// [`SubscriptionError::NotFound`] if there is none.
    pub async fn get(&self, name: &Name) -> Result<Subscription, SubscriptionError> {
        let found = rows::find(&self.store, name).await?;
        found.map(|head| self.handle(&head)).ok_or_else(|| SubscriptionError::NotFound { name: name.clone() })
    }

    /// Subscriptions in order of their names: `limit` (1 to [`MAX_PAGE`](Self::MAX_PAGE)) of those behind `after`.
    pub async fn list(&self, after: Option<&Name>, limit: u32) -> Result<Vec<Summary>, SubscriptionError> {
        check_page(limit)?;
        let heads = rows::list(&self.store, after, limit).await?;
        let summary = |head: rows::Head| Summary { name: head.name, config: head.config, checkpoint: head.checkpoint };
        Ok(heads.into_iter().map(summary).collect())
    }

    /// The one handle of this process on the subscription that `head` describes: its machine is shared.
    fn handle(&self, head: &rows::Head) -> Subscription {
        let mut cores = self.shared.cores.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(core) = cores.get(&head.name).filter(|core| core.id == head.id) {
            return Subscription { core: core.clone() };
        }
        let core = Arc::new(Core::new(&self.store, head));
        cores.insert(head.name.clone(), core.clone());
        Subscription { core }
    }
}

async fn create(tx: &mut DynTx, head: rows::Head) -> Result<rows::Head, SubscriptionError> {
    if rows::insert(tx, &head).await? {
        let max = Subscriptions::MAX_COUNT;
        return if rows::count(tx).await? > max { Err(SubscriptionError::TooMany { max }) } else { Ok(head) };
    }
    let found = rows::find_in(tx, &head.name).await?;
    found.filter(|found| found.config == head.config).ok_or(SubscriptionError::Exists { name: head.name })
}

async fn delete(tx: &mut DynTx, name: Name) -> Result<(), SubscriptionError> {
    if rows::delete(tx, &name).await? { Ok(()) } else { Err(SubscriptionError::NotFound { name }) }
}

fn check_page(limit: u32) -> Result<(), SubscriptionError> {
    let max = Subscriptions::MAX_PAGE;
    if (1..=max).contains(&limit) {
        return Ok(());
    }
    Err(SubscriptionError::invalid(format!("`limit` is 1 to {max}, {limit} was asked for")))
}

impl Subscription {
    /// Its name.
    pub fn name(&self) -> &Name {
        &self.core.name
    }

    /// As it was created.
    pub fn config(&self) -> &Config {
        &self.core.config
    }

    /// Hands out events: at least one, unless there is none for as long as the consumer waits.
    ///
    /// Each was counted as attempted, and leased under a fence of its own, durably before this returns. Of one key there
    /// is never more than one. They are fewer than there are, and none in the worst case, while the store forgets other
    /// events faster than these can be read again.
    ///
    /// # Errors
    /// [`SubscriptionError::WindowFull`] or [`ParkedFull`](SubscriptionError::ParkedFull) when there are events, but
    /// earlier ones hold them up, for the whole wait.
    ///
    /// # Cancel safety
    /// Dropping the future returns what it would have been given, as if it had not been handed out; in the worst case,
    /// where it is dropped with the answer already inside, after the lease has expired.
    pub async fn pull(&self, pull: Pull) -> Result<Vec<Delivery>, SubscriptionError> {
        pull.check()?;
        let env = self.core.store.env();
        let deadline = env.mono() + pull.wait;
        let (mut head, mut changed) = (self.core.store.watch_head(), self.core.changed.subscribe());
        loop {
            // Ordering: marked as seen before the question, so that what moves during it ends the wait below.
            head.mark_unchanged();
            changed.mark_unchanged();
            let mut taken = self.take(&pull).await?;
            let hands = std::mem::take(&mut taken.hands);
            let found = !hands.is_empty();
            let deliveries = self.hand_out(hands, taken.forgotten).await?;
            if !deliveries.is_empty() {
                return Ok(deliveries);
            }
            if env.mono() >= deadline {
                return self.nothing(taken.stall);
            }
            if found || taken.unread {
                continue;
            }
            tokio::select! {
                moved = head.changed() => moved.map_err(|_| StoreError::Closed)?,
                _ = changed.changed() => {}
                () = env.sleep_until(deadline.min(env.mono() + self.nap(&taken))) => {}
            }
        }
    }

    /// `hands` as deliveries. They waited for the commit, and for the caller: if something was forgotten since they were
    /// read, they are read again, so that nothing leaves after its erasure was answered.
    ///
    /// While more and more is forgotten it is tried with half as many each time. Those that are left over, all of them in the
    /// end, are given back, and this was no attempt.
    async fn hand_out(&self, mut hands: Vec<Hand>, read_at: u64) -> Result<Vec<Delivery>, SubscriptionError> {
        let (mut read_at, mut count) = (read_at, hands.len());
        for _ in 0..MAX_LOOKS {
            let forgotten = self.core.store.forgotten();
            if forgotten == read_at {
                let rest = hands.split_off(count);
                self.put_back(&rest).await;
                // Ordering: asked again, for giving back took its time.
                if self.core.store.forgotten() == read_at {
                    return Ok(hands.into_iter().map(|hand| self.delivery(hand)).collect());
                }
                continue;
            }
            if let Err(failed) = self.read_again(&mut hands[..count]).await {
                self.put_back(&hands).await;
                return Err(failed);
            }
            if self.core.store.forgotten() != forgotten {
                count = count.div_ceil(2);
            }
            read_at = forgotten;
        }
        self.put_back(&hands).await;
        Ok(Vec::new())
    }

    /// Gives `hands` back. Best effort: what is not given back comes again when its lease has expired.
    async fn put_back(&self, hands: &[Hand]) {
        if !hands.is_empty() {
            let claims = hands.iter().map(|hand| Input::Return(hand.claim)).collect();
            let _given_back = self.core.ask(Work::Steps(claims)).await;
        }
    }

    async fn read_again(&self, hands: &mut [Hand]) -> Result<(), SubscriptionError> {
        let positions: Vec<Position> = hands.iter().map(|hand| hand.claim.position).collect();
        let events = self.core.events(&positions).await?;
        hands.iter_mut().zip(events).for_each(|(hand, event)| hand.event = event);
        Ok(())
    }

    async fn take(&self, pull: &Pull) -> Result<Taken, SubscriptionError> {
        match self.core.ask(Work::Take { max: pull.max, owner: pull.owner.clone() }).await? {
            Answer::Taken(taken) => Ok(taken),
            Answer::Done { .. } | Answer::Described(_) => unreachable!("a taking is answered with what was taken"),
        }
    }

    /// How long nothing can become ready by itself.
    fn nap(&self, taken: &Taken) -> Duration {
        let poll = if self.core.is_in_doubt() { LOOK_AT_DOUBT } else { LOOK_AROUND };
        let now = self.core.store.env().boot();
        // A little more, so that the timer is due when it is looked at.
        let due = taken.wake_at.map(|due| due.saturating_since(now) + Duration::from_micros(100));
        due.map_or(poll, |due| due.min(poll))
    }

    fn nothing(&self, stall: Option<Stall>) -> Result<Vec<Delivery>, SubscriptionError> {
        let Config { window, max_parked, .. } = self.core.config;
        match stall {
            None => Ok(Vec::new()),
            Some(Stall::Window(unsettled)) => Err(SubscriptionError::WindowFull { unsettled, window }),
            Some(Stall::Parked(parked)) => Err(SubscriptionError::ParkedFull { parked, max: max_parked }),
        }
    }

    fn delivery(&self, Hand { event, claim, key, attempt, ttl }: Hand) -> Delivery {
        let epoch = self.core.store.timeline().epoch;
        Delivery { event, lease: Lease { epoch, subscription: self.core.id, claim }, attempt, key, ttl }
    }

    /// Gives events back that nobody has seen, as if they had not been handed out: this was no attempt, and others may be
    /// given them at once. A lease that is no longer the caller's is passed over.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the wait; what is not given back comes again when its lease has expired.
    pub async fn give_back(&self, leases: &[Lease]) -> Result<(), SubscriptionError> {
        let ours = leases.iter().filter(|lease| self.is_ours(lease));
        let returns = ours.map(|lease| Input::Return(lease.claim)).collect();
        self.core.ask(Work::Steps(returns)).await.map(|_| ())
    }

    /// Settles events: they will not be handed out again. Durable when this returns.
    ///
    /// # Errors
    /// [`SubscriptionError::LeaseLost`] names those that were not the caller's any more; the others are settled.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the wait, not the acknowledgement. That holds for all settling calls.
    pub async fn ack(&self, leases: &[Lease]) -> Result<(), SubscriptionError> {
        self.settle(leases, |lease| Input::Ack(lease.claim)).await
    }

    /// Settles an event in the caller's transaction: the work and its acknowledgement become durable together.
    ///
    /// # Errors
    /// [`SubscriptionError::LeaseLost`]: somebody else has, or had, the event. Return it from the transaction's closure,
    /// and nothing of the work remains.
    ///
    /// # Example
    /// ```
    /// # use quorate_data::{store::*, subscription::*};
    /// # async fn example(store: Store, billing: Subscription) -> Result<(), Box<dyn std::error::Error>> {
    /// for delivery in billing.pull(Pull::of(10)).await? {
    ///     let billing = billing.clone();
    ///     store.transact(move |tx| {
    ///         let (billing, lease) = (billing.clone(), delivery.lease);
    ///         Box::pin(async move {
    ///             tx.execute("UPDATE account SET billed = billed + 1", &[]).await?;
    ///             billing.ack_in(tx, &lease).await
    ///         })
    ///     }).await?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn ack_in(&self, tx: &mut DynTx, lease: &Lease) -> Result<(), SubscriptionError> {
        if !self.is_ours(lease) || !rows::settle(tx, self.core.id, lease.claim).await? {
            return Err(SubscriptionError::LeaseLost { leases: vec![*lease] });
        }
        self.core.doubt(lease.claim);
        Ok(())
    }

    /// Gives events back after a failure. Each is handed out again after `rest` (at most [`Config::MAX_TTL`]; `None`: as
    /// the backoff says), or parked if this was its last attempt.
    ///
    /// `reason`: kept with the event, up to [`Failure::MAX_REASON_BYTES`]; of earlier ones what [`Failure::MAX_BYTES`] leaves room for.
    ///
    /// # Errors
    /// As [`ack`](Self::ack).
    pub async fn nack(&self, leases: &[Lease], rest: Option<Duration>, reason: &str) -> Result<(), SubscriptionError> {
        if rest.is_some_and(|rest| rest > Config::MAX_TTL) {
            return Err(SubscriptionError::invalid(format!("`rest` is at most {:?}", Config::MAX_TTL)));
        }
        self.settle(leases, |lease| Input::Nack { claim: lease.claim, rest, reason: reason.to_owned() }).await
    }

    /// Holds events for longer: `ttl` (`None`: the configured one) from now on, whatever was left.
    ///
    /// # Errors
    /// As [`ack`](Self::ack).
    pub async fn extend(&self, leases: &[Lease], ttl: Option<Duration>) -> Result<(), SubscriptionError> {
        let ttl = ttl.unwrap_or(self.core.config.lease_ttl);
        Config::check_ttl("ttl", ttl)?;
        self.settle(leases, |lease| Input::Extend { claim: lease.claim, ttl }).await
    }

    /// Sets events aside, with everything of their keys behind them, until they are replayed or discarded.
    ///
    /// # Errors
    /// As [`ack`](Self::ack).
    pub async fn park(&self, leases: &[Lease], reason: &str) -> Result<(), SubscriptionError> {
        self.settle(leases, |lease| Input::Park { claim: lease.claim, reason: reason.to_owned() }).await
    }

    /// Parked events in order of position: `limit` (1 to [`Subscriptions::MAX_PAGE`]) of those behind `after`.
    pub async fn parked(&self, after: Position, limit: u32) -> Result<Vec<ParkedEvent>, SubscriptionError> {
        check_page(limit)?;
        let rows = rows::parked(&self.core.store, self.core.id, after, limit).await?;
        let parked = |row: super::machine::Stored| ParkedEvent {
            position: row.position,
            key: row.key,
            attempts: row.attempts,
            failures: row.failures,
        };
        Ok(rows.into_iter().map(parked).collect())
    }

    /// Lets parked events be handed out again, in order and each with all its attempts. Returns how many.
    pub async fn replay(&self, which: Selection) -> Result<usize, SubscriptionError> {
        self.steps(vec![Input::Replay(which)]).await.map(|(_, selected)| selected)
    }

    /// Gives parked events up. Returns how many. What was parked behind them stays parked.
    pub async fn discard(&self, which: Selection) -> Result<usize, SubscriptionError> {
        self.steps(vec![Input::Discard(which)]).await.map(|(_, selected)| selected)
    }

    /// How it stands right now.
    pub async fn describe(&self) -> Result<Description, SubscriptionError> {
        let Answer::Described(standing) = self.core.ask(Work::Describe).await? else {
            unreachable!("a question is answered with a description")
        };
        let head = self.core.store.head();
        let known = standing.counts.in_flight + standing.counts.resting + standing.counts.waiting;
        let now = self.core.store.env().wall();
        let oldest = standing.oldest.as_ref();
        Ok(Description {
            name: self.core.name.clone(),
            config: self.core.config.clone(),
            checkpoint: standing.checkpoint,
            head,
            scanned: standing.scanned,
            lag_events: known as u64 + head.get().saturating_sub(standing.scanned.get()),
            lag: oldest.map_or(Duration::ZERO, |event| now.saturating_since(event.recorded_at())),
            oldest: oldest.map(Recorded::position),
            counts: standing.counts,
            stall: standing.stall,
            passed_over: standing.passed_over,
        })
    }

    /// Whether the lease can be one of this subscription's, on this timeline.
    fn is_ours(&self, lease: &Lease) -> bool {
        lease.subscription == self.core.id && lease.epoch == self.core.store.timeline().epoch
    }

    async fn settle(&self, leases: &[Lease], input: impl Fn(&Lease) -> Input) -> Result<(), SubscriptionError> {
        let max = Config::MAX_WINDOW;
        if leases.len() > max {
            return Err(SubscriptionError::invalid(format!(
                "at most {max} leases at once, these are {}",
                leases.len()
            )));
        }
        let (ours, foreign): (Vec<Lease>, Vec<Lease>) = leases.iter().partition(|lease| self.is_ours(lease));
        let (lost, _) = self.steps(ours.iter().map(input).collect()).await?;
        let mut leases: Vec<Lease> = ours.into_iter().filter(|lease| lost.contains(&lease.claim)).collect();
        leases.extend(foreign);
        if leases.is_empty() { Ok(()) } else { Err(SubscriptionError::LeaseLost { leases }) }
    }

    async fn steps(&self, inputs: Vec<Input>) -> Result<(Vec<super::Claim>, usize), SubscriptionError> {
        if inputs.is_empty() {
            return Ok((Vec::new(), 0));
        }
        match self.core.ask(Work::Steps(inputs)).await? {
            Answer::Done { lost, selected } => Ok((lost, selected)),
            Answer::Taken(_) | Answer::Described(_) => unreachable!("steps are answered with what became of them"),
        }
    }
}
