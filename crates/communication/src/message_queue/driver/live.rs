//! What is known of a queue's messages, in memory.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use quorate_foundations::time::Boot;

use super::{
    Core, News, Reply,
    turns::Followed,
    window::{Place, Window},
};
use crate::message_queue::{
    Config, Delivery, Message, QueueError,
    machine::{Claim, Dispatcher, Entry, Phase, Seq},
    rows::{self, Known, Stored},
};

/// Consumers that may wait for one queue.
pub(super) const MAX_WAITING: usize = 10_000;

/// A queue's messages, and who waits for some.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) machine: Dispatcher,
    pub(super) waiting: VecDeque<Waiting>,
    /// Messages whose consumers had gone when they were to be handed over.
    pub(super) returned: Vec<Claim>,
    messages: BTreeMap<Seq, Kept>,
    /// Messages in consumers' windows, and the delivery each was.
    pub(super) placed: BTreeMap<Seq, (u32, Place)>,
    pub(super) sweep: Sweep,
    /// Up to where it follows what other processes do.
    pub(super) known: Followed,
}

/// A message that is kept in memory until it is handed out; all of them share a budget of bytes.
#[derive(Debug)]
pub(super) struct Kept {
    message: Arc<Message>,
    used: Arc<AtomicUsize>,
}

impl Kept {
    /// The message, if the budget of `max` bytes has room for it.
    pub(super) fn of(message: Arc<Message>, used: &Arc<AtomicUsize>, max: usize) -> Option<Self> {
        let bytes = message.size();
        // Ordering: a budget; a little more or less does no harm.
        if used.fetch_add(bytes, Ordering::Relaxed) + bytes <= max {
            return Some(Self { message, used: used.clone() });
        }
        used.fetch_sub(bytes, Ordering::Relaxed);
        None
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.used.fetch_sub(self.message.size(), Ordering::Relaxed);
    }
}

/// A consumer that waits.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) max: usize,
    pub(super) ttl: Option<Duration>,
    pub(super) until: Boot,
    pub(super) window: Option<Arc<Window>>,
    pub(super) reply: Reply<Vec<Delivery>>,
}

impl Waiting {
    /// How many messages it can be handed.
    pub(super) fn room(&self) -> usize {
        self.window.as_ref().map_or(self.max, |window| window.room().min(self.max))
    }
}

/// How far the remembered ids were looked through for those that are too old.
#[derive(Debug, Default)]
pub(super) struct Sweep {
    /// The last one that was looked at.
    pub(super) at: Option<Known>,
    /// The oldest of those that stay, in this pass.
    pub(super) oldest_ns: Option<i64>,
    /// No pass finds anything before this time of the wall clock.
    pub(super) next_ns: i64,
    /// How many are still to be looked at: it grows with what is sent.
    pub(super) due: usize,
}

impl Live {
    pub(super) fn of(config: Config, stored: Vec<Stored>) -> Self {
        let mut machine = Dispatcher::new(config);
        stored.into_iter().for_each(|Stored { seq, entry, .. }| machine.insert(seq, entry));
        Self {
            machine,
            waiting: VecDeque::new(),
            returned: Vec::new(),
            messages: BTreeMap::new(),
            placed: BTreeMap::new(),
            sweep: Sweep::default(),
            known: Followed::default(),
        }
    }

    /// As the rows say.
    pub(super) async fn read(core: &Core) -> Result<Self, QueueError> {
        core.store.env().reached("queue: its messages were read");
        let mut stored = Vec::new();
        // Ordering: before the rows. What others change while they are read is of a later revision.
        let glance = if core.is_shared() { rows::turn::glance(&core.store, core.id).await? } else { None };
        // Ordering: the one task that drives the queue reads and sets it. Other processes may have handed out since it was opened.
        let is_first = !core.was_read.load(Ordering::Relaxed) && !core.is_shared();
        rows::load(&core.store, core.id, is_first.then_some(core.opened), |one| stored.push(one)).await?;
        core.was_read.store(true, Ordering::Relaxed);
        let mut live = Self::of(Config::clone(&core.config()), stored);
        if let Some(rows::turn::Glance { revision, ahead, .. }) = glance {
            live.known = Followed::of(revision);
            live.machine.spent_elsewhere(core.now(), ahead);
        }
        Ok(live)
    }

    /// The same where it knows some of them, and who waits.
    pub(super) async fn read_again(&mut self, core: &Core) -> Result<(), QueueError> {
        let Self { mut machine, known, messages, .. } = Self::read(core).await?;
        let now = core.now();
        machine.spent_elsewhere(now, self.machine.spent_ahead(now));
        (self.machine, self.known, self.messages) = (machine, known, messages);
        let Self { placed, machine, .. } = self;
        placed.retain(|seq, (delivery, _)| machine.is_out(Claim { seq: *seq, delivery: *delivery }));
        Ok(())
    }

    /// As the rows say, with those who waited before; whether that is so. Where the rows cannot be read, they are told.
    pub(super) async fn renew(&mut self, core: &Core) -> bool {
        let read = self.read_again(core).await;
        if let Err(cause) = &read {
            self.refuse_waiting(cause);
        }
        read.is_ok()
    }

    pub(super) fn len(&self) -> usize {
        self.machine.len()
    }

    /// Takes in what transactions did.
    pub(super) fn hear(&mut self, news: Vec<News>) {
        for one in news {
            match one {
                News::Sent(seq, entry, message) => {
                    self.sweep.due += 2;
                    self.add(seq, entry, message);
                }
                News::Settled(claim) => {
                    self.take_message(claim.seq);
                    self.machine.settled_elsewhere(claim);
                }
                News::Replayed(seq) => drop(self.machine.replay(seq)),
            }
        }
    }

    /// Takes in a message that is durable, unless its row was read already.
    pub(super) fn add(&mut self, seq: Seq, entry: Entry, message: Option<Kept>) {
        if self.machine.get(seq).is_some() {
            return;
        }
        self.machine.insert(seq, entry);
        self.messages.extend(message.map(|message| (seq, message)));
    }

    /// The message, if it is kept in memory; it is then kept no more.
    pub(super) fn take_message(&mut self, seq: Seq) -> Option<Arc<Message>> {
        Some(self.messages.remove(&seq)?.message.clone())
    }

    /// Whether someone waits, or is to be waited for.
    pub(super) fn anybody_waits(&self, core: &Core) -> bool {
        !self.waiting.is_empty() || !self.returned.is_empty() || core.is_followed()
    }

    /// Whether another round has something to do by itself.
    pub(super) fn has_more(&mut self, now: Boot) -> bool {
        self.waiting.retain(|one| !one.reply.is_closed());
        let is_over = self.waiting.iter().any(|one| one.until <= now);
        !self.returned.is_empty()
            || is_over
            || (self.waiting.iter().any(|one| one.room() > 0) && self.machine.has_ready(now))
    }

    /// Makes room in the windows of consumers whose leases have ended.
    pub(super) fn make_room(&mut self) {
        for Claim { seq, delivery } in self.machine.take_ended() {
            if self.placed.get(&seq).is_some_and(|(placed, _)| *placed == delivery) {
                self.placed.remove(&seq);
            }
        }
    }

    /// When time changes something: for a message, or for one who waits.
    pub(super) fn wake_at(&self, now: Boot) -> Option<Boot> {
        let patience = self.waiting.iter().map(|one| one.until).min();
        self.machine.wake_at(now).into_iter().chain(patience).min()
    }

    /// Tells those who have waited long enough that there was nothing.
    pub(super) fn let_go(&mut self, now: Boot) {
        for one in std::mem::take(&mut self.waiting) {
            if one.until > now {
                self.waiting.push_back(one);
            } else {
                drop(one.reply.send(Ok(Vec::new())));
            }
        }
    }

    /// Tells those who wait that there will be nothing. What was to be handed back comes again when its lease has expired.
    pub(super) fn refuse_waiting(&mut self, why: &QueueError) {
        self.returned.clear();
        self.waiting.drain(..).for_each(|one| drop(one.reply.send(Err(why.clone()))));
    }
}

impl Core {
    /// A new message, as the rules see it.
    pub(super) fn entry(&self, message: &Message, now: Boot) -> Entry {
        let phase = if message.delay.is_zero() {
            Phase::Waiting { lapsed: false }
        } else {
            Phase::Resting { until: now + message.delay }
        };
        let group = message.group.clone();
        #[cfg(feature = "museum")]
        let group = group.filter(|_| !self.store.env().planted("queue-groups-forgotten"));
        Entry {
            group,
            priority: message.priority,
            deliveries: 0,
            attempts: 0,
            phase,
            expires: message.ttl.map(|ttl| now + ttl),
            bytes: u32::try_from(message.size()).unwrap_or(u32::MAX),
            sent_ns: message.sent_at.unix_nanos(),
        }
    }
}
