//! A queue, as all its handles share it: its inbox, and what is known of it while no task drives it.

mod inbox;

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use quorate_data::store::{Store, StoreError};
use quorate_foundations::{name::Name, time::Boot};
use quorate_runtime::tasks::Tasks;
use tokio::sync::{Notify, mpsc, oneshot};

use super::{
    Driver, How, MAX_WORKS, Reply, Window, Work,
    live::{Kept, Live},
    turns::Lookout,
};
use crate::message_queue::{
    Config, Delivery, Message, QueueError,
    answer::Waiters,
    machine::{Claim, Entry, Seq},
    rows::{Head, Numbers, Opened},
};

/// Bytes of messages that all queues together keep in memory until they are handed out.
const KEPT_BYTES: usize = 64 << 20;

/// What a transaction of somebody's did to the queue.
#[derive(Debug)]
pub(super) enum News {
    /// A message was sent; what it says, if there was memory to keep it in.
    Sent(Seq, Entry, Option<Kept>),
    Settled(Claim),
    /// A dead letter was replayed.
    Replayed(Seq),
}

/// What the queues of a store share.
#[derive(Clone, Debug)]
pub(in crate::message_queue) struct Common {
    pub(in crate::message_queue) numbers: Numbers,
    /// The bytes of messages that all queues keep in memory.
    pub(in crate::message_queue) kept: Arc<AtomicUsize>,
    pub(in crate::message_queue) opened: Opened,
    /// Queues that are to be read though nobody waits for that. The writer's thread starts no task.
    pub(in crate::message_queue) unread: mpsc::Sender<Arc<Core>>,
    /// Where several processes work on the queues: what looks whether others changed them.
    pub(in crate::message_queue) lookout: Option<Arc<Lookout>>,
}

/// A queue.
pub(in crate::message_queue) struct Core {
    pub(in crate::message_queue) store: Store,
    pub(in crate::message_queue) id: u64,
    pub(in crate::message_queue) name: Name,
    pub(in crate::message_queue) damaged: Option<QueueError>,
    pub(in crate::message_queue) numbers: Numbers,
    kept: Arc<AtomicUsize>,
    config: RwLock<Arc<Config>>,
    inbox: Mutex<Inbox>,
    pub(in crate::message_queue) kick: Notify,
    pub(super) opened: Opened,
    unread: mpsc::Sender<Arc<Self>>,
    pub(super) lookout: Option<Arc<Lookout>>,
    /// When a transaction that sends last had it looked how many messages there are.
    looked_at: AtomicU64,
    /// Whether the rows were read since then.
    pub(super) was_read: AtomicBool,
    /// What is known of the messages, while no task has it; `None`: it has to be read.
    pub(super) live: Mutex<Option<Live>>,
    /// How many messages there are, but for the news; before they were read, how many transactions sent.
    pub(super) depth: AtomicUsize,
    /// Messages of transactions that have not committed yet.
    reserved: AtomicUsize,
    /// Who waits for the ends of messages.
    pub(in crate::message_queue) waiters: Waiters,
    /// What both clocks read when one of them was first asked.
    #[cfg(feature = "museum")]
    clocks_at_first: std::sync::OnceLock<(quorate_foundations::time::Wall, Boot)>,
}

/// Room for messages that a transaction sends, until it is over.
#[derive(Debug)]
pub(in crate::message_queue) struct Reserved {
    core: Arc<Core>,
    messages: usize,
}

impl Reserved {
    /// Gives back what more than `messages` of it were for.
    pub(in crate::message_queue) fn shrink(&mut self, messages: usize) {
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
        self.settled += news.iter().filter(|one| matches!(one, News::Settled(_))).count();
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
pub(in crate::message_queue) async fn read_unread(tasks: Tasks, mut unread: mpsc::Receiver<Arc<Core>>) {
    while let Some(Some(core)) = tasks.stop().run_until_cancelled(unread.recv()).await {
        if let Ok(read) = core.put(|reply| Work::Look { reply }) {
            let _it_is_over = tasks.stop().run_until_cancelled(read).await;
        }
    }
}

impl Core {
    /// A queue whose messages are read once somebody asks for them.
    pub(in crate::message_queue) fn new(
        store: &Store,
        Head { id, name, config, is_deleted, damaged }: Head,
        Common { numbers, kept, opened, unread, lookout }: Common,
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
            lookout,
            looked_at: AtomicU64::new(0),
            was_read: AtomicBool::new(false),
            live: Mutex::default(),
            depth: AtomicUsize::new(0),
            reserved: AtomicUsize::new(0),
            waiters: Waiters::default(),
            #[cfg(feature = "museum")]
            clocks_at_first: std::sync::OnceLock::new(),
        }
    }

    pub(in crate::message_queue) fn set_config(&self, config: Config) {
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
    }

    pub(in crate::message_queue) fn config(&self) -> Arc<Config> {
        self.config.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn inbox(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The time that leases, rests and waits are measured by.
    pub(in crate::message_queue) fn now(&self) -> Boot {
        let env = self.store.env();
        #[cfg(feature = "museum")]
        if env.planted("queue-lease-by-wall-clock") {
            let (wall, boot) = *self.clocks_at_first.get_or_init(|| (env.wall(), env.boot()));
            let passed = env.wall().unix_nanos().saturating_sub(wall.unix_nanos());
            return Boot::from_nanos(boot.as_nanos().saturating_add_signed(passed));
        }
        env.boot()
    }

    /// How many messages there are, as far as is known, with those of transactions that have not committed yet.
    pub(in crate::message_queue) fn depth(&self) -> usize {
        let inbox = self.inbox();
        // Ordering: counts; the writer alone adds to them.
        let there = (self.depth.load(Ordering::Relaxed) + inbox.sent).saturating_sub(inbox.settled);
        there + self.reserved.load(Ordering::Relaxed)
    }

    /// Room for so many more messages of a transaction.
    ///
    /// # Errors
    /// [`QueueError::Full`] where there is none.
    pub(in crate::message_queue) fn reserve(self: &Arc<Self>, messages: usize) -> Result<Reserved, QueueError> {
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
    pub(in crate::message_queue) async fn ask<T>(
        self: &Arc<Self>,
        work: impl FnOnce(Reply<T>) -> Work,
    ) -> Result<T, QueueError> {
        let answer = self.put(work)?;
        answer.await.unwrap_or(Err(StoreError::Closed.into()))
    }

    /// Has messages handed out: see [`Work::Take`].
    ///
    /// # Cancel safety
    /// Dropping the future gives back what it would have been handed, also where the answer is inside already; where that
    /// cannot be written, it comes again once its lease has expired.
    pub(in crate::message_queue) async fn take(
        self: &Arc<Self>,
        max: usize,
        ttl: Option<Duration>,
        until: Option<Boot>,
        window: Option<Arc<Window>>,
    ) -> Result<Vec<Delivery>, QueueError> {
        let answer = self.put(|reply| Work::Take { max, ttl, until, window, reply })?;
        let mut awaited = Awaited { core: self.clone(), answer };
        (&mut awaited.answer).await.unwrap_or(Err(StoreError::Closed.into()))
    }

    /// Gives back what nobody has seen, whenever the inbox is next looked at. Starts no task: where none drives the queue, nobody
    /// waits for a message, and whoever asks next has this done first.
    fn return_unseen(&self, deliveries: &[Delivery]) {
        let (reply, _nobody) = oneshot::channel();
        let claims = deliveries.iter().map(|delivery| delivery.lease.claim).collect();
        let mut inbox = self.inbox();
        if !inbox.is_deleted {
            inbox.works.push_back(Work::Settle { claims, how: How::Back, reply });
            self.kick.notify_one();
        }
    }

    /// Puts `work` into the inbox, for a task to take it.
    pub(in crate::message_queue) fn put<T>(
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
    pub(in crate::message_queue) fn hear_of_sent(self: &Arc<Self>, messages: Vec<(Seq, Arc<Message>)>) {
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
    pub(in crate::message_queue) fn hear_of_settled(&self, claim: Claim) {
        self.hear(vec![News::Settled(claim)]);
        self.waiters.wake([claim.seq]);
    }

    /// Takes in that a transaction replayed a dead letter. Called on the writer's thread, in the order of commits.
    pub(in crate::message_queue) fn hear_of_replayed(&self, seq: Seq) {
        self.hear(vec![News::Replayed(seq)]);
    }

    /// The message, if there is memory to keep it in until it is handed out. Others are read when it is their turn.
    pub(super) fn keep(&self, message: Arc<Message>) -> Option<Kept> {
        Kept::of(message, &self.kept, KEPT_BYTES)
    }

    /// Has what is to be known of the messages read. Where too many wait for that, nothing happens: ask again.
    pub(in crate::message_queue) fn read_soon(self: &Arc<Self>) {
        let _full = self.unread.try_send(self.clone());
    }

    /// The same where several processes send, for whoever sends in a transaction: at most once a second.
    pub(in crate::message_queue) fn look_soon(self: &Arc<Self>) {
        let (now, every) = (self.now().as_nanos(), 1_000_000_000);
        // Ordering: a matter of how often; one look more does no harm.
        let before = self.looked_at.load(Ordering::Relaxed);
        if before == 0 || now.saturating_sub(before) >= every {
            self.looked_at.store(now.max(1), Ordering::Relaxed);
            self.read_soon();
        }
    }

    /// Whether what is to be known of the messages is in memory, so that nobody waits for it to be read.
    pub(in crate::message_queue) fn is_known(&self) -> bool {
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
    pub(in crate::message_queue) fn mark_deleted(&self) {
        let mut inbox = self.inbox();
        inbox.is_deleted = true;
        inbox.take_news();
        *self.live.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.kick.notify_one();
        self.waiters.wake_all();
    }

    pub(in crate::message_queue) fn not_found(&self) -> QueueError {
        QueueError::NotFound { name: self.name.clone() }
    }

    pub(in crate::message_queue) fn is_deleted(&self) -> bool {
        self.inbox().is_deleted
    }
}

/// Messages that somebody waits for.
struct Awaited {
    core: Arc<Core>,
    answer: oneshot::Receiver<Result<Vec<Delivery>, QueueError>>,
}

impl Drop for Awaited {
    fn drop(&mut self) {
        // From here on it is the sender that notices.
        self.answer.close();
        if let Ok(Ok(deliveries)) = self.answer.try_recv()
            && !deliveries.is_empty()
        {
            self.core.return_unseen(&deliveries);
        }
    }
}

impl Core {
    /// Goes by another configuration from now on.
    pub(in crate::message_queue) async fn configure(self: &Arc<Self>, config: Config) -> Result<(), QueueError> {
        self.set_config(config.clone());
        if self.is_shared() {
            // The row says so, also where this look for what others have declared since fails.
            let _looked = self.ask(|reply| Work::Look { reply }).await;
            return Ok(());
        }
        self.ask(|reply| Work::Configure { config, reply }).await
    }
}
