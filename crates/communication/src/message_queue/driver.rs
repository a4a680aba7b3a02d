//! Who drives a queue: one task at a time, and only while there is something to do.
//!
//! Callers put their work into the inbox and wait. The task takes all that has gathered as a *round*, decides it on the
//! [`Dispatcher`](super::machine::Dispatcher) in memory, writes it in one transaction, and answers when that is durable. So
//! consumers and producers of one queue share a transaction, and those of several queues share the store's commits. A
//! queue that nobody waits for has no task and no timer; what is known of its messages is read when somebody first asks.
//!
//! Memory follows the rows: what could not be written is taken back, what may have been written is read again. What other
//! transactions do to the queue (a message sent in one, or settled) arrives as *news* from the store's commit hook, in the
//! order of commits, before the next round decides anything.

mod live;
mod round;

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use quorate_data::{
    event::NewEvent,
    store::{Store, StoreError},
};
use quorate_foundations::{name::Name, time::Boot};
use quorate_runtime::tasks::Tasks;
use tokio::sync::{Notify, mpsc, oneshot};

use self::live::{Kept, Live};
use super::{
    Config, Delivery, Message, QueueError, Sent,
    machine::{Claim, Counts, Entry, Seq},
    message::Summed,
    rows::{Head, Numbers, Opened},
};

/// Works that wait for a queue; beyond it they are refused.
const MAX_WORKS: usize = 8_192;
/// Messages that one round takes or settles; their transaction keeps others from the store's writer for as long as it takes.
const ROUND_MESSAGES: usize = 4_096;
/// Bytes that one round takes, and that it hands out, but for the one message that exceeds them.
const ROUND_BYTES: usize = 4 << 20;
/// Bytes of messages that all queues together keep in memory until they are handed out.
const KEPT_BYTES: usize = 64 << 20;
/// How long a round waits before it is tried again after the store failed.
const PAUSE: Duration = Duration::from_millis(100);

/// An answer's way back.
pub(super) type Reply<T> = oneshot::Sender<Result<T, QueueError>>;

/// Something a queue is to do.
#[derive(Debug)]
pub(super) enum Work {
    /// Take in messages, each with the sum of what it says.
    Send { messages: Vec<Summed>, bytes: usize, reply: Reply<Vec<Sent>> },
    /// Hand out messages, once there is one or time has come to `until`. It is the queue that looks at the time: whoever gave up
    /// by itself while its messages are being written would give them back, and get and give them back again.
    Take { max: usize, ttl: Option<Duration>, until: Option<Boot>, reply: Reply<Vec<Delivery>> },
    /// What holders say of their messages. Answers with the claims that did not hold.
    Settle { claims: Vec<Claim>, how: How, reply: Reply<Vec<Claim>> },
    /// What is to become of dead letters. Answers with how many there were.
    Bury { seqs: Vec<Seq>, fate: Fate, reply: Reply<usize> },
    /// Go by another configuration.
    Configure { config: Config, reply: Reply<()> },
    /// Say how the queue stands.
    Look { reply: Reply<Standing> },
    /// Name dead letters in order, behind `after`.
    Parked { after: Seq, limit: usize, reply: Reply<Vec<Seq>> },
}

/// What a holder says of its messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum How {
    Ack,
    /// They never reached their holder.
    Back,
    Nack {
        delay: Option<Duration>,
        reason: String,
    },
    Extend {
        ttl: Option<Duration>,
    },
    Park {
        reason: String,
    },
}

/// What becomes of dead letters.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Fate {
    /// They are handed out again, saying something else if so wanted.
    Replay(Option<Arc<NewEvent>>),
    Discard,
}

/// How a queue stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Standing {
    pub(super) counts: Counts,
    pub(super) oldest_ns: Option<i64>,
    pub(super) consumers: usize,
}

/// What a transaction of somebody's did to the queue.
#[derive(Debug)]
enum News {
    /// A message was sent; what it says, if there was memory to keep it in.
    Sent(Seq, Entry, Option<Kept>),
    Settled(Claim),
}

/// What the queues of a store share.
#[derive(Clone, Debug)]
pub(super) struct Common {
    pub(super) numbers: Numbers,
    /// The bytes of messages that all queues keep in memory.
    pub(super) kept: Arc<AtomicUsize>,
    pub(super) opened: Opened,
    /// Queues that are to be read though nobody waits for that. The writer's thread starts no task.
    pub(super) unread: mpsc::Sender<Arc<Core>>,
}

/// A queue.
pub(super) struct Core {
    pub(super) store: Store,
    pub(super) id: u64,
    pub(super) name: Name,
    pub(super) damaged: Option<QueueError>,
    pub(super) numbers: Numbers,
    kept: Arc<AtomicUsize>,
    config: RwLock<Arc<Config>>,
    inbox: Mutex<Inbox>,
    kick: Notify,
    opened: Opened,
    unread: mpsc::Sender<Arc<Self>>,
    /// Whether the rows were read since then.
    was_read: AtomicBool,
    /// What is known of the messages, while no task has it; `None`: it has to be read.
    live: Mutex<Option<Live>>,
    /// How many messages there are, but for the news; before they were read, how many transactions sent.
    depth: AtomicUsize,
    /// Messages of transactions that have not committed yet.
    reserved: AtomicUsize,
}

/// Room for messages that a transaction sends, until it is over.
#[derive(Debug)]
pub(super) struct Reserved {
    core: Arc<Core>,
    messages: usize,
}

impl Reserved {
    /// Gives back what more than `messages` of it were for.
    pub(super) fn shrink(&mut self, messages: usize) {
        // Ordering: a count; nothing else is read by it.
        self.core.reserved.fetch_sub(self.messages.saturating_sub(messages), Ordering::Relaxed);
        self.messages = self.messages.min(messages);
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.shrink(0);
    }
}

#[derive(Debug, Default)]
struct Inbox {
    works: VecDeque<Work>,
    news: Vec<News>,
    /// How many messages the news say were sent, and how many were settled.
    sent: usize,
    settled: usize,
    is_driven: bool,
    is_deleted: bool,
}

impl Inbox {
    fn hear(&mut self, news: Vec<News>) {
        let sent = news.iter().filter(|one| matches!(one, News::Sent(..))).count();
        self.sent += sent;
        self.settled += news.len() - sent;
        self.news.extend(news);
    }

    fn take_news(&mut self) -> Vec<News> {
        (self.sent, self.settled) = (0, 0);
        std::mem::take(&mut self.news)
    }
}

impl std::fmt::Debug for Core {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Core").field("name", &self.name).field("id", &self.id).finish_non_exhaustive()
    }
}

/// Reads queues, one after the other, until the store or all its queues are dropped.
pub(super) async fn read_unread(tasks: Tasks, mut unread: mpsc::Receiver<Arc<Core>>) {
    while let Some(Some(core)) = tasks.stop().run_until_cancelled(unread.recv()).await {
        if let Ok(read) = core.put(|reply| Work::Look { reply }) {
            let _it_is_over = tasks.stop().run_until_cancelled(read).await;
        }
    }
}

impl Core {
    /// A queue whose messages are read once somebody asks for them.
    pub(super) fn new(
        store: &Store,
        Head { id, name, config, is_deleted, damaged }: Head,
        Common { numbers, kept, opened, unread }: Common,
    ) -> Self {
        Self {
            store: store.clone(),
            id,
            name,
            damaged,
            numbers,
            kept,
            config: RwLock::new(Arc::new(config)),
            inbox: Mutex::new(Inbox { is_deleted, ..Inbox::default() }),
            kick: Notify::new(),
            opened,
            unread,
            was_read: AtomicBool::new(false),
            live: Mutex::default(),
            depth: AtomicUsize::new(0),
            reserved: AtomicUsize::new(0),
        }
    }

    pub(super) fn config(&self) -> Arc<Config> {
        self.config.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn inbox(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Boot {
        #[cfg(feature = "museum")]
        if self.store.env().planted("queue-lease-by-wall-clock") {
            return Boot::from_nanos(self.store.env().wall().unix_nanos().cast_unsigned());
        }
        self.store.env().boot()
    }

    /// How many messages there are, as far as is known, with those of transactions that have not committed yet.
    pub(super) fn depth(&self) -> usize {
        let inbox = self.inbox();
        // Ordering: counts; the writer alone adds to them.
        let there = (self.depth.load(Ordering::Relaxed) + inbox.sent).saturating_sub(inbox.settled);
        there + self.reserved.load(Ordering::Relaxed)
    }

    /// Room for so many more messages of a transaction.
    ///
    /// # Errors
    /// [`QueueError::Full`] where there is none.
    pub(super) fn reserve(self: &Arc<Self>, messages: usize) -> Result<Reserved, QueueError> {
        let (there, max) = (self.depth(), self.config().max_messages);
        if there + messages > max {
            return Err(QueueError::Full { name: self.name.clone(), messages: there, max });
        }
        self.reserved.fetch_add(messages, Ordering::Relaxed);
        Ok(Reserved { core: self.clone(), messages })
    }

    /// Has `work` done and waits for the answer.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the wait, not the work; but messages that nobody waits for any more are handed back.
    pub(super) async fn ask<T>(self: &Arc<Self>, work: impl FnOnce(Reply<T>) -> Work) -> Result<T, QueueError> {
        let answer = self.put(work)?;
        answer.await.unwrap_or(Err(StoreError::Closed.into()))
    }

    /// Puts `work` into the inbox, for a task to take it.
    pub(super) fn put<T>(
        self: &Arc<Self>,
        work: impl FnOnce(Reply<T>) -> Work,
    ) -> Result<oneshot::Receiver<Result<T, QueueError>>, QueueError> {
        let (reply, answer) = oneshot::channel();
        let work = work(reply);
        let mut inbox = self.inbox();
        if inbox.is_deleted {
            return Err(self.not_found());
        }
        let waiting = inbox.works.len();
        // Whoever gives messages back makes room: only what asks for more is refused.
        if waiting >= MAX_WORKS && matches!(work, Work::Send { .. } | Work::Take { .. }) {
            return Err(StoreError::Overloaded { waiting }.into());
        }
        inbox.works.push_back(work);
        if std::mem::replace(&mut inbox.is_driven, true) {
            self.kick.notify_one();
        } else {
            drop(inbox);
            let core = self.clone();
            self.store.env().tasks().spawn("queue", async move { Driver::of(core).run().await });
        }
        Ok(answer)
    }

    /// Takes in messages that a transaction sent. Called on the writer's thread, in the order of commits.
    pub(super) fn hear_of_sent(self: &Arc<Self>, messages: Vec<(Seq, Arc<Message>)>) {
        let now = self.now();
        if !self.is_read() {
            // So that its depth is known, and its limit holds, soon.
            self.depth.fetch_add(messages.len(), Ordering::Relaxed);
            self.read_soon();
        }
        let news = messages.into_iter().map(|(seq, message)| {
            let entry = self.entry(&message, now);
            News::Sent(seq, entry, self.keep(message))
        });
        self.hear(news.collect());
    }

    /// Takes in that a transaction settled a message. Called on the writer's thread, in the order of commits.
    pub(super) fn hear_of_settled(&self, claim: Claim) {
        self.hear(vec![News::Settled(claim)]);
    }

    /// The message, if there is memory to keep it in until it is handed out. Others are read when it is their turn.
    fn keep(&self, message: Arc<Message>) -> Option<Kept> {
        Kept::of(message, &self.kept, KEPT_BYTES)
    }

    /// Has what is to be known of the messages read. Where too many wait for that, nothing happens: ask again.
    pub(super) fn read_soon(self: &Arc<Self>) {
        let _full = self.unread.try_send(self.clone());
    }

    /// Whether what is to be known of the messages is in memory, so that nobody waits for it to be read.
    pub(super) fn is_known(&self) -> bool {
        let inbox = self.inbox();
        // Ordering: whoever asks for something finds out by itself.
        let was_read = inbox.is_driven && self.was_read.load(Ordering::Relaxed);
        was_read || self.live.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Whether what is known of the messages was read, or is being read.
    fn is_read(&self) -> bool {
        let inbox = self.inbox();
        inbox.is_driven || self.live.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    fn hear(&self, news: Vec<News>) {
        let mut inbox = self.inbox();
        // Lock order: the inbox first, as where a task hands over.
        if inbox.is_driven {
            inbox.hear(news);
            self.kick.notify_one();
        } else if self.live.lock().unwrap_or_else(PoisonError::into_inner).is_some() {
            // Nobody waits while no task drives the queue; the next one hears of it first.
            inbox.hear(news);
        }
        // Otherwise the rows are read when somebody asks, and they say it.
    }

    /// Takes in nothing any more.
    pub(super) fn mark_deleted(&self) {
        let mut inbox = self.inbox();
        inbox.is_deleted = true;
        inbox.take_news();
        *self.live.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.kick.notify_one();
    }

    pub(super) fn not_found(&self) -> QueueError {
        QueueError::NotFound { name: self.name.clone() }
    }

    pub(super) fn is_deleted(&self) -> bool {
        self.inbox().is_deleted
    }
}

/// The task that drives a queue. Whatever ends it, another one can begin.
struct Driver {
    core: Arc<Core>,
    live: Option<Live>,
    /// It handed everything over, and another task may drive the queue by now.
    is_over: bool,
}

impl Drop for Driver {
    fn drop(&mut self) {
        if !self.is_over {
            let works = self.core.leave();
            works.into_iter().for_each(|work| work.refuse(&StoreError::Closed.into()));
        }
    }
}

impl Driver {
    fn of(core: Arc<Core>) -> Self {
        let live = core.live.lock().unwrap_or_else(PoisonError::into_inner).take();
        Self { core, live, is_over: false }
    }

    async fn run(mut self) {
        let core = self.core.clone();
        let stop = core.store.env().tasks().stop().clone();
        loop {
            let live = match &mut self.live {
                Some(live) => live,
                None => match Live::read(&core).await {
                    Ok(live) => {
                        // Ordering: a count; nobody relies on it being exact.
                        core.depth.store(live.len(), Ordering::Relaxed);
                        self.live.insert(live)
                    }
                    Err(cause) => {
                        self.is_over = true;
                        return core.leave().into_iter().for_each(|work| work.refuse(&cause));
                    }
                },
            };
            let (works, news) = core.take_inbox();
            live.hear(news);
            core.depth.store(live.len(), Ordering::Relaxed);
            let done = live.round(&core, works).await;
            core.depth.store(live.len(), Ordering::Relaxed);
            if let Err(failed) = done {
                if failed.is_over || stop.is_cancelled() || core.is_deleted() {
                    live.refuse_waiting(&core.why_no_more());
                }
                let tries_again = live.anybody_waits();
                if failed.is_stale {
                    self.live = live.renewed(&core).await;
                }
                if tries_again {
                    core.store.env().sleep(PAUSE).await;
                } else if core.hand_over(&mut self.live) {
                    self.is_over = true;
                    return;
                }
                continue;
            }
            if stop.is_cancelled() || core.is_deleted() {
                live.refuse_waiting(&core.why_no_more());
            }
            if live.has_more(core.now()) {
                continue;
            }
            if !live.anybody_waits() {
                if core.hand_over(&mut self.live) {
                    self.is_over = true;
                    return;
                }
                continue;
            }
            let wakes = live.wake_at(core.now());
            tokio::select! {
                () = core.kick.notified() => {}
                () = stop.cancelled() => {}
                () = core.sleep_until(wakes) => {}
            }
        }
    }
}

impl Core {
    /// Takes what one round has room for, and all news.
    fn take_inbox(&self) -> (Vec<Work>, Vec<News>) {
        let mut inbox = self.inbox();
        let (mut messages, mut bytes, most) = (0, 0, self.round_bytes());
        let fits = |work: &&Work| {
            messages += work.messages();
            bytes += if let Work::Send { bytes, .. } = work { *bytes } else { 0 };
            messages <= ROUND_MESSAGES && bytes <= most
        };
        let count = inbox.works.iter().take_while(fits).count();
        let count = count.max(1).min(inbox.works.len());
        // What it says is in the depth before it is in the news no more.
        let there = (self.depth.load(Ordering::Relaxed) + inbox.sent).saturating_sub(inbox.settled);
        self.depth.store(there, Ordering::Relaxed);
        let news = inbox.take_news();
        (inbox.works.drain(..count).collect(), news)
    }

    /// The bytes of one round: with room to spare in the store's limit of a transaction.
    fn round_bytes(&self) -> usize {
        ROUND_BYTES.min(self.store.limits().unit_bytes / 2)
    }

    /// The task ends without having anything to hand over: what is to be known has to be read. Returns what nobody does now.
    fn leave(&self) -> VecDeque<Work> {
        let mut inbox = self.inbox();
        inbox.is_driven = false;
        inbox.take_news();
        std::mem::take(&mut inbox.works)
    }

    /// Leaves what is known of the messages for the next task, unless there is work for this one.
    fn hand_over(&self, live: &mut Option<Live>) -> bool {
        let mut inbox = self.inbox();
        let idle = inbox.works.is_empty();
        if idle {
            *self.live.lock().unwrap_or_else(PoisonError::into_inner) = live.take().filter(|_| !inbox.is_deleted);
            inbox.is_driven = false;
        }
        idle
    }

    fn why_no_more(&self) -> QueueError {
        if self.is_deleted() { self.not_found() } else { StoreError::Closed.into() }
    }

    async fn sleep_until(&self, due: Option<Boot>) {
        match due {
            // A little more, so that the timer is due when it is looked at.
            Some(due) => self.store.env().sleep(due.saturating_since(self.now()) + Duration::from_micros(100)).await,
            None => std::future::pending().await,
        }
    }
}

impl Work {
    /// How many messages it is about, roughly.
    fn messages(&self) -> usize {
        match self {
            Self::Send { messages, .. } => messages.len(),
            Self::Settle { claims, .. } => claims.len(),
            Self::Bury { seqs, .. } => seqs.len(),
            Self::Take { max, .. } => *max,
            Self::Configure { .. } | Self::Look { .. } | Self::Parked { .. } => 1,
        }
    }

    /// Answers that it was not done.
    fn refuse(self, cause: &QueueError) {
        let cause = cause.clone();
        match self {
            Self::Send { reply, .. } => drop(reply.send(Err(cause))),
            Self::Take { reply, .. } => drop(reply.send(Err(cause))),
            Self::Settle { reply, .. } => drop(reply.send(Err(cause))),
            Self::Bury { reply, .. } => drop(reply.send(Err(cause))),
            Self::Configure { reply, .. } => drop(reply.send(Err(cause))),
            Self::Look { reply } => drop(reply.send(Err(cause))),
            Self::Parked { reply, .. } => drop(reply.send(Err(cause))),
        }
    }
}

impl Core {
    /// Goes by another configuration from now on.
    pub(super) async fn configure(self: &Arc<Self>, config: Config) -> Result<(), QueueError> {
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(config.clone());
        self.ask(|reply| Work::Configure { config, reply }).await
    }
}
