//! Who runs a saga: a task that takes what comes in, has turns written, makes the calls, and waits for what is due.

mod alarms;
mod calls;
mod children;
mod inbox;
mod rests;
mod whose;

use std::{
    collections::{BTreeMap, BTreeSet},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use quorate_data::{event::Version, store::StoreError};
use quorate_foundations::{
    name::Name,
    time::{Boot, Wall},
};
use quorate_resilience::dice::Dice;
use tokio::sync::{Notify, mpsc, oneshot, watch};

use self::{children::Looking, rests::Leaving};
use super::{
    SagaError,
    definition::Definition,
    event::{Happened, Leg},
    journal::Journal,
    machine::{self, Alarm, Input, Refusal},
    rows::{self, Owner, SagaKey},
    service::{Room, Shared},
    turn::{Advanced, NotAdvanced, Turn},
};

/// Where whoever asked hears what came of it.
pub(super) type Reply = oneshot::Sender<Result<Arc<Journal>, SagaError>>;

/// What comes in.
pub(super) struct Post {
    pub(super) input: Input,
    pub(super) reply: Option<Reply>,
}

/// What came in, and when.
type News = Vec<(Happened, Wall)>;

/// At most so long a saga sleeps at once: a machine that was suspended does not count its sleep, and a store may have been closed.
const NAP: Duration = Duration::from_secs(600);

/// How a saga came to its runner.
pub(super) enum Birth {
    /// It is new: this is how it starts.
    New(Happened, Reply),
    /// It is in the store. It is taken from this owner alone, where one is named.
    Kept(Option<Owner>),
}

/// The task of one saga.
pub(super) struct Runner {
    shared: Arc<Shared>,
    /// Held, so that nobody runs the store's sagas a second time while this one runs.
    room: Arc<Room>,
    saga: Arc<SagaKey>,
    definition: Arc<Definition>,
    stream: Name,
    journal: Arc<Journal>,
    at: Version,
    /// Where its row says that it is.
    mark: Version,
    before: Owner,
    inbox: mpsc::UnboundedReceiver<Post>,
    post: mpsc::UnboundedSender<Post>,
    seen: watch::Sender<Option<Arc<Journal>>>,
    /// Somebody says that it may be another's.
    whose: Arc<Notify>,
    is_doubted: bool,
    /// Whom it is to be taken from, who may be in another process.
    from: Option<Owner>,
    /// When each alarm is due, and since when it runs.
    due: BTreeMap<Alarm, (Wall, Boot)>,
    rung: BTreeSet<Alarm>,
    /// Calls of this process that are under way.
    calling: BTreeSet<(Leg, u32)>,
    /// Answers that are not written yet.
    answers: Vec<Input>,
    dice: Dice,
    /// Whether it looks what became of the sagas that it started.
    looking: Looking,
    /// How often in a row it could not see what became of one.
    unseen: u32,
    /// Attempts that are sagas which were told that nothing of this one is wanted any more.
    told: BTreeSet<(Leg, u32)>,
    /// Failures of the store in a row.
    failures: u32,
    /// Whether the last turn left something to be done at once.
    more: bool,
    /// Whether others may have been told that it cannot be read or written.
    is_troubled: bool,
}

/// Whether the saga goes on here.
enum Onward {
    Yes,
    /// It has ended, or somebody else has it, or the store has closed.
    No,
}

/// Where a runner is reached.
pub(super) struct Ends {
    pub(super) post: mpsc::UnboundedSender<Post>,
    pub(super) inbox: mpsc::UnboundedReceiver<Post>,
    pub(super) seen: watch::Sender<Option<Arc<Journal>>>,
    pub(super) whose: Arc<Notify>,
}

impl Runner {
    pub(super) fn new(
        (shared, room): (Arc<Shared>, Arc<Room>),
        saga: Arc<SagaKey>,
        stream: Name,
        definition: Arc<Definition>,
        Ends { post, inbox, seen, whose }: Ends,
    ) -> Self {
        let (before, dice) = (shared.owner, Dice::seeded(shared.seed()));
        Self {
            shared,
            room,
            saga,
            definition,
            stream,
            journal: Arc::new(Journal::new()),
            at: Version::ZERO,
            mark: Version::ZERO,
            before,
            inbox,
            post,
            seen,
            whose,
            is_doubted: false,
            from: None,
            due: BTreeMap::new(),
            rung: BTreeSet::new(),
            calling: BTreeSet::new(),
            answers: Vec::new(),
            dice,
            looking: Looking::No,
            unseen: 0,
            told: BTreeSet::new(),
            failures: 0,
            more: false,
            is_troubled: true,
        }
    }

    /// Runs the saga until it has ended, somebody else has it, or this process stops.
    pub(super) async fn run(mut self, birth: Birth) {
        let leaving = Leaving::new(self.shared.clone(), self.saga.clone());
        let onward = match birth {
            Birth::New(started, reply) => self.begin(started, reply).await,
            Birth::Kept(found) => {
                // If it cannot be told whose it is, it is taken from nobody.
                let shared = self.shared.clone();
                // Those of a process that is gone are many at once: their transactions leave room for signs of life and for what is asked for.
                let _turn = match found {
                    Some(_) => shared.takeovers.acquire().await.ok(),
                    None => None,
                };
                self.from = match found {
                    Some(found) => Some(found),
                    None => rows::owner(&self.shared.store, &self.saga).await.ok().flatten(),
                };
                self.reload().await
            }
        };
        if matches!(onward, Onward::Yes) {
            while matches!(self.once_more().await, Onward::Yes) {}
        }
        leaving.in_order();
        // Ordering: behind its leaving, so that whoever is above finds nobody in its place.
        if let Some(parent) = self.journal.parent.as_ref().filter(|_| self.journal.status().is_ended()) {
            self.shared.look_at_children(&SagaKey { name: parent.saga.clone(), id: parent.id.clone() });
        }
        // Whoever wrote in between finds its letter unanswered, and asks the store.
    }

    async fn begin(&mut self, started: Happened, reply: Reply) -> Onward {
        let (mut journal, now) = (Journal::new(), self.shared.store.env().wall());
        journal.apply(started.clone(), now);
        let (journal, news) = (Arc::new(journal), vec![(started, now)]);
        let mut reply = Some(reply);
        loop {
            let mut tell = |told| drop(reply.take().map(|reply| reply.send(told)));
            match self.turn(journal.clone(), news.clone()).await {
                Ok(()) => {
                    tell(Ok(self.journal.clone()));
                    self.shared.counters.started.fetch_add(1, Ordering::Relaxed);
                    return self.onward();
                }
                Err(NotAdvanced::Exists) => {
                    tell(Err(self.saga.overtaken()));
                    // Whoever ran it here has left: if it panicked, nobody else would run it.
                    return match rows::status(&self.shared.store, &self.saga).await {
                        Ok(Some(status)) if status.is_ended() => Onward::No,
                        _ => self.reload().await,
                    };
                }
                // The commit may still be on its way, and whoever looks would not see it yet: writing it again waits for it, and finds it.
                Err(NotAdvanced::Unknown | NotAdvanced::Overtaken) => tell(Err(StoreError::OutcomeUnknown.into())),
                Err(NotAdvanced::Failed(cause)) if reply.is_some() => {
                    reply.take().map(|reply| reply.send(Err(cause)));
                    return Onward::No;
                }
                Err(NotAdvanced::Failed(_)) => {}
            }
            if matches!(self.rest_unwritten(&StoreError::OutcomeUnknown.into()).await, Onward::No) {
                return Onward::No;
            }
        }
    }

    /// Reads the saga and takes it over: attempts that nobody here waits for are given up.
    async fn reload(&mut self) -> Onward {
        loop {
            let kept = match rows::read(&self.shared.store, &self.saga).await {
                Ok(kept) => kept,
                Err(SagaError::NotFound { .. }) => return Onward::No,
                Err(cause) => {
                    if matches!(self.rest_unread(&cause).await, Onward::No) {
                        return Onward::No;
                    }
                    continue;
                }
            };
            let Some(definition) = self.shared.definition(&self.saga.name, Some(kept.journal.version)) else {
                return Onward::No;
            };
            if self.is_anothers(kept.owner) {
                self.shared.store.env().reached("saga: another owner has it");
                return Onward::No;
            }
            (self.journal, self.definition, self.before) = (kept.journal, definition, kept.owner);
            (self.at, self.mark) = (kept.at, kept.mark);
            if self.journal.status().is_ended() {
                self.show();
                return Onward::No;
            }
            self.due.clear();
            self.rearm(true);
            self.looking = Looking::Now;
            let mut news = Vec::new();
            let mut journal = self.journal.clone();
            let but = self.waited_for();
            drop(self.take_in(Input::Interrupted { but }, &mut journal, &mut news));
            match self.turn(journal, news).await {
                Ok(()) => return self.onward(),
                Err(NotAdvanced::Failed(cause)) => {
                    if matches!(self.rest_unwritten(&cause).await, Onward::No) {
                        return Onward::No;
                    }
                }
                Err(NotAdvanced::Unknown | NotAdvanced::Overtaken | NotAdvanced::Exists) => {}
            }
        }
    }

    fn onward(&self) -> Onward {
        if self.journal.status().is_ended() { Onward::No } else { Onward::Yes }
    }

    /// Waits for something, and takes it in.
    async fn once_more(&mut self) -> Onward {
        let Some(asked) = self.wait().await else { return Onward::No };
        if std::mem::take(&mut self.is_doubted) && self.is_lost().await {
            // Whoever asked hears nothing, and asks again.
            return Onward::No;
        }
        self.look_at_children().await;
        let (mut journal, mut news) = (self.journal.clone(), Vec::new());
        let (mut replies, mut refused) = (Vec::new(), Vec::new());
        for input in self.answers.clone() {
            drop(self.take_in(input, &mut journal, &mut news));
        }
        for alarm in self.rung.clone() {
            drop(self.take_in(Input::Rang(alarm), &mut journal, &mut news));
        }
        for Post { input, reply } in asked {
            let taken = self.take_in(input, &mut journal, &mut news);
            match (taken, reply) {
                (Ok(()), Some(reply)) => replies.push(reply),
                (Err(cause), Some(reply)) => refused.push((reply, self.refused(cause))),
                (_, None) => {}
            }
        }
        let is_idle = !self.more && news.is_empty() && !self.wants_something(&journal);
        // What is written proves whose it is; what is said without a write has to be asked for.
        let is_said_only = !refused.is_empty() || (is_idle && !replies.is_empty());
        if self.shared.has_others && is_said_only && self.is_lost().await {
            return Onward::No;
        }
        for (reply, cause) in refused {
            drop(reply.send(Err(cause)));
        }
        let written = if is_idle { Ok(()) } else { self.turn(journal, news).await };
        let told = match &written {
            Ok(()) => Ok(self.journal.clone()),
            Err(NotAdvanced::Failed(cause)) => Err(cause.clone()),
            Err(NotAdvanced::Exists | NotAdvanced::Overtaken) => Err(self.saga.overtaken()),
            Err(NotAdvanced::Unknown) => Err(StoreError::OutcomeUnknown.into()),
        };
        for reply in replies {
            drop(reply.send(told.clone()));
        }
        match written {
            Ok(()) => {
                self.untrouble();
                self.answers.clear();
                self.failures = 0;
                self.onward()
            }
            Err(NotAdvanced::Failed(cause)) => self.rest_unwritten(&cause).await,
            Err(NotAdvanced::Exists | NotAdvanced::Overtaken | NotAdvanced::Unknown) => self.reload().await,
        }
    }

    /// Whether the rules want something done. A plan that panics is asked again by the turn, which has an answer to that.
    fn wants_something(&self, journal: &Journal) -> bool {
        let next = AssertUnwindSafe(|| machine::next(journal, &self.definition, &self.rung));
        catch_unwind(next).map_or(true, |next| !next.is_empty())
    }

    /// Applies what comes of `input`.
    fn take_in(&mut self, input: Input, journal: &mut Arc<Journal>, news: &mut News) -> Result<(), Refusal> {
        let taken = machine::take(journal, &self.definition, input, &mut self.dice);
        if let Err(Refusal::Late { .. }) = &taken {
            self.shared.store.env().reached("saga: an answer came late");
            self.shared.counters.late.fetch_add(1, Ordering::Relaxed);
        }
        let now = self.shared.store.env().wall();
        for happened in taken? {
            Arc::make_mut(journal).apply(happened.clone(), now);
            news.push((happened, now));
        }
        Ok(())
    }

    fn refused(&self, cause: Refusal) -> SagaError {
        SagaError::Refused { name: self.saga.name.clone(), id: self.saga.id.clone(), cause }
    }

    /// Has a turn written that begins with `journal`, which `news` are in. It is all of it or nothing; what is then still to
    /// be done at once is for the next one.
    async fn turn(&mut self, journal: Arc<Journal>, news: News) -> Result<(), NotAdvanced> {
        let Advanced { journal, at, calls, born, reopened, more } = self.begin_turn(journal, news).advance().await?;
        (self.journal, self.at, self.mark, self.before) = (journal, at, at, self.shared.owner);
        (self.more, self.from) = (more, None);
        self.untrouble();
        self.rearm(false);
        self.show();
        calls.into_iter().for_each(|attempt| self.call(attempt));
        self.run_children(born, reopened);
        self.call_children_back();
        Ok(())
    }

    fn begin_turn(&mut self, journal: Arc<Journal>, news: News) -> Turn {
        Turn {
            store: self.shared.store.clone(),
            config: self.shared.config.clone(),
            shared: self.shared.clone(),
            saga: self.saga.clone(),
            stream: self.stream.clone(),
            definition: self.definition.clone(),
            journal,
            news,
            at: self.at,
            mark: self.mark,
            before: self.before,
            owner: self.shared.owner,
            rung: self.rung.clone(),
            dice: Dice::seeded(self.dice.u64()),
        }
    }

    /// Lets others see how it stands.
    fn show(&self) {
        let before = self.seen.borrow().clone();
        if self.shared.count(before.as_deref(), &self.journal) {
            let (name, id) = (self.saga.name.as_str(), &*self.saga.id);
            let why = self.journal.why_stuck().unwrap_or_default();
            tracing::warn!(saga = name, id, why, "a saga is stuck, and waits for somebody's decision");
        }
        self.seen.send_replace(Some(self.journal.clone()));
    }
}
