//! What sends the messages of schedules: one task for all queues of a store.
//!
//! It sleeps until the next moment, and looks at the wall clock at least once a minute, since that may be set meanwhile. A store
//! without schedules has no timer.
//!
//! Where several processes share a store, each sends what is due: the transaction names the moment up to which everything was
//! sent, so that one is first, and the others read what it left. Each looks every [`FOLLOW`] whether others declared schedules.

mod sending;

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use quorate_data::store::{Store, StoreError};
use quorate_foundations::{
    name::Name,
    time::{Boot, Wall},
};
use tokio::sync::{Mutex as AsyncMutex, mpsc};

use self::sending::send_due;
use super::{Planned, Schedule, Timed};
use crate::message_queue::{
    Queue, QueueError,
    rows::schedules::{self, Kept},
    service::Room,
};

/// How often the wall clock is looked at, at least, while there is a schedule.
const LOOK: Duration = Duration::from_secs(60);
/// How often it is looked whether other processes changed schedules.
const FOLLOW: Duration = Duration::from_secs(5);
/// How long a schedule rests whose messages could not be sent.
const REST: Duration = Duration::from_secs(5);

/// All schedules of a store, by queue and name.
pub(in crate::message_queue) struct Plan {
    entries: Mutex<Entries>,
    /// Held while a schedule is changed, or its messages are sent.
    pub(in crate::message_queue) alone: AsyncMutex<()>,
    /// Wakes the task, which ends once this is dropped.
    kick: mpsc::Sender<()>,
    kicked: Mutex<Option<mpsc::Receiver<()>>>,
    /// Whether a schedule was ever there, so that deleting a queue that has none costs nothing.
    is_used: AtomicBool,
}

type Entries = BTreeMap<(Name, Name), Entry>;

#[derive(Clone, Debug)]
struct Entry {
    timed: Result<Arc<Timed>, QueueError>,
    /// The messages of all moments up to this one were sent; `None`: that has to be read.
    done: Option<Wall>,
    /// Nothing is tried before then.
    rests_until: Boot,
}

impl Entry {
    fn planned(&self, name: &Name, now: Wall) -> Planned {
        let next = self.timed.as_ref().ok().and_then(|timed| timed.calendar.next(self.done.unwrap_or(now).min(now)));
        let schedule = self.timed.as_ref().map(|timed| timed.schedule.clone()).map_err(Clone::clone);
        Planned { name: name.clone(), schedule, next }
    }
}

impl Plan {
    /// As the rows say. `queues` are the names of queues by their numbers.
    pub(in crate::message_queue) async fn read(
        store: &Store,
        queues: &BTreeMap<u64, Name>,
    ) -> Result<Self, QueueError> {
        let (kick, kicked) = mpsc::channel(1);
        let entries = Self::read_entries(store, queues).await?;
        let is_used = AtomicBool::new(!entries.is_empty());
        let kicked = Mutex::new(Some(kicked));
        Ok(Self { entries: Mutex::new(entries), alone: AsyncMutex::default(), kick, kicked, is_used })
    }

    /// The same where others changed them. Whoever calls this holds [`alone`](Self::alone).
    pub(in crate::message_queue) async fn read_again(
        &self,
        store: &Store,
        queues: &BTreeMap<u64, Name>,
    ) -> Result<(), QueueError> {
        let entries = Self::read_entries(store, queues).await?;
        // Ordering: as where one is declared.
        self.is_used.fetch_or(!entries.is_empty(), Ordering::Relaxed);
        *self.entries() = entries;
        let _looks_anyway = self.kick.try_send(());
        Ok(())
    }

    async fn read_entries(store: &Store, queues: &BTreeMap<u64, Name>) -> Result<Entries, QueueError> {
        let mut entries = BTreeMap::new();
        for Kept { queue, name, schedule } in schedules::all(store).await? {
            let Some(queue) = queues.get(&queue) else { continue };
            let timed = schedule.and_then(|schedule| schedule.timed(store.limits().event_bytes)).map(Arc::new);
            if let Err(cause) = &timed {
                tracing::warn!(%queue, schedule = %name, %cause, "a schedule sends nothing until it is declared again or deleted");
            }
            entries.insert((queue.clone(), name), Entry { timed, done: None, rests_until: Boot::ZERO });
        }
        Ok(entries)
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Declares a schedule of `queue`. Whoever calls this holds [`alone`](Self::alone). `None`: another process changed
    /// something meanwhile.
    pub(in crate::message_queue) async fn declare(
        &self,
        queue: &Queue,
        name: &Name,
        schedule: Schedule,
    ) -> Result<Option<Planned>, QueueError> {
        let store = &queue.core.store;
        let now = store.env().wall();
        let timed = Arc::new(schedule.timed(store.limits().event_bytes)?);
        if timed.calendar.next(now).is_none() {
            return Err(QueueError::invalid(format!("`cron`: `{}` is never due", timed.schedule.cron)));
        }
        let key = (queue.name().clone(), name.clone());
        if let Some(same) = self.may_declare(&key, &timed.schedule, now)? {
            return Ok(Some(same));
        }
        let (core, row) = (queue.core.clone(), timed.schedule.clone());
        let of_name = name.clone();
        let written = queue.room.change(store, None, move |tx| {
            let (core, row, name) = (core.clone(), row.clone(), of_name.clone());
            Box::pin(async move {
                if core.is_deleted() {
                    return Err(core.not_found());
                }
                schedules::put(tx, core.id, &name, &row, now).await
            })
        });
        if !written.await? {
            return Ok(None);
        }
        let entry = Entry { timed: Ok(timed), done: Some(now), rests_until: Boot::ZERO };
        let planned = entry.planned(name, now);
        self.entries().insert(key, entry);
        // Ordering: whoever deletes the queue has waited for this.
        self.is_used.store(true, Ordering::Relaxed);
        let _looks_anyway = self.kick.try_send(());
        Ok(Some(planned))
    }

    /// The schedule of that name, if it is the same already.
    ///
    /// # Errors
    /// There are as many as a store keeps, or another one of the queue sends messages of the same ids.
    fn may_declare(&self, key: &(Name, Name), schedule: &Schedule, now: Wall) -> Result<Option<Planned>, QueueError> {
        let entries = self.entries();
        let known = entries.get(key);
        if let Some(same) = known.filter(|known| known.timed.as_ref().is_ok_and(|timed| *timed.schedule == *schedule)) {
            return Ok(Some(same.planned(&key.1, now)));
        }
        let max = Schedule::MAX_COUNT;
        if known.is_none() && entries.len() >= max {
            return Err(QueueError::TooManySchedules { max });
        }
        let ids = |schedule: &Schedule| (schedule.message.event.source.clone(), schedule.message.event.id.clone());
        let others = entries.iter().filter(|(other, _)| other.0 == key.0 && other.1 != key.1);
        let twin = others.filter_map(|(other, entry)| Some((&other.1, entry.timed.as_ref().ok()?)));
        match twin.into_iter().find(|(_, timed)| ids(&timed.schedule) == ids(schedule)) {
            Some((name, _)) => {
                let what =
                    format!("schedule `{name}` of this queue has the same source and id: give this one another id");
                Err(QueueError::invalid(what))
            }
            None => Ok(None),
        }
    }

    /// Deletes a schedule. Whoever calls this holds [`alone`](Self::alone). `false`: another process changed something meanwhile.
    pub(in crate::message_queue) async fn delete(&self, queue: &Queue, name: &Name) -> Result<bool, QueueError> {
        let key = (queue.name().clone(), name.clone());
        if !self.entries().contains_key(&key) {
            return Err(QueueError::NoSchedule { queue: key.0, name: key.1 });
        }
        let (id, of_name) = (queue.core.id, name.clone());
        let deleted = queue.room.change(&queue.core.store, None, move |tx| {
            let name = of_name.clone();
            Box::pin(async move { schedules::delete(tx, id, &name).await })
        });
        let is_deleted = deleted.await?;
        if is_deleted {
            self.entries().remove(&key);
        }
        Ok(is_deleted)
    }

    /// Forgets the schedules of a queue that is gone.
    pub(in crate::message_queue) fn forget(&self, queue: &Name) {
        // Ordering: it was set before the queue was found to be gone.
        if self.is_used.load(Ordering::Relaxed) {
            self.entries().retain(|(of, _), _| of != queue);
        }
    }

    /// The schedule of that name.
    pub(in crate::message_queue) fn get(&self, queue: &Name, name: &Name, now: Wall) -> Result<Planned, QueueError> {
        let key = (queue.clone(), name.clone());
        let entries = self.entries();
        let entry =
            entries.get(&key).ok_or_else(|| QueueError::NoSchedule { queue: key.0.clone(), name: key.1.clone() })?;
        Ok(entry.planned(name, now))
    }

    /// At most `limit` schedules of a queue behind `after`, in order of their names.
    pub(in crate::message_queue) fn list(
        &self,
        queue: &Name,
        after: Option<&Name>,
        limit: usize,
        now: Wall,
    ) -> Vec<Planned> {
        let entries = self.entries();
        let of_it = entries.iter().filter(|((of, name), _)| of == queue && after.is_none_or(|after| name > after));
        of_it.take(limit).map(|((_, name), entry)| entry.planned(name, now)).collect()
    }
}

/// Starts the task, unless it was started. It ends with the store's tasks, or once `room` is dropped.
pub(in crate::message_queue) fn start(store: &Store, room: &Arc<Room>, plan: &Plan) {
    let kicked = plan.kicked.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(kicked) = kicked {
        store.env().tasks().spawn("schedules", run(store.clone(), Arc::downgrade(room), kicked));
    }
}

async fn run(store: Store, room: Weak<Room>, mut kicked: mpsc::Receiver<()>) {
    let (env, stop) = (store.env().clone(), store.env().tasks().stop().clone());
    loop {
        let rests = {
            let Some(room) = room.upgrade() else { return };
            let Ok(rests) = turn(&store, &room).await else { return };
            rests
        };
        let sleeping = async {
            match rests {
                Some(rests) => env.sleep(rests).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            kicked = kicked.recv() => if kicked.is_none() { return },
            () = sleeping => {}
        }
    }
}

/// The store is closed.
struct Over;

/// Sends what is due. Returns how long there is nothing more to do; `None`: until there is a schedule.
async fn turn(store: &Store, room: &Arc<Room>) -> Result<Option<Duration>, Over> {
    let (plan, env) = (room.plan(), store.env());
    if let Err(cause) = room.refresh(store).await {
        if matches!(cause, QueueError::Store(StoreError::Closed)) {
            return Err(Over);
        }
        tracing::warn!(%cause, "it cannot be read which schedules other processes declared; it is tried again");
    }
    let keys: Vec<(Name, Name)> = plan.entries().keys().cloned().collect();
    for key in keys {
        // One at a time: others may change schedules in between.
        let _alone = plan.alone.lock().await;
        let Some(mut entry) = plan.entries().get(&key).cloned() else { continue };
        let Ok(timed) = entry.timed.clone() else { continue };
        if entry.rests_until > env.boot() {
            continue;
        }
        match send_due(room, &key, &timed, &mut entry).await {
            Ok(true) => drop(plan.entries().insert(key, entry)),
            // Its row is gone, with its queue.
            Ok(false) => drop(plan.entries().remove(&key)),
            Err(QueueError::Store(StoreError::Closed)) => return Err(Over),
            Err(cause) => {
                let (queue, schedule) = (&key.0, &key.1);
                tracing::warn!(%queue, %schedule, %cause, "the message of a schedule could not be sent; it is tried again");
                entry.rests_until = env.boot() + REST;
                // It may have been sent all the same.
                entry.done = None;
                plan.entries().insert(key, entry);
            }
        }
    }
    let (now, boot) = (env.wall(), env.boot());
    let entries = plan.entries();
    let rests = entries.values().filter_map(|entry| {
        let timed = entry.timed.as_ref().ok()?;
        let due = entry.done.map(|done| timed.calendar.next(done.min(now)).map(|next| next.saturating_since(now)));
        let rest = entry.rests_until.saturating_since(boot);
        Some(due.unwrap_or(Some(Duration::ZERO)).unwrap_or(LOOK).max(rest).clamp(Duration::from_millis(1), LOOK))
    });
    Ok(rests.chain(room.is_shared().then_some(FOLLOW)).min())
}
