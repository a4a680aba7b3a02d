//! What is due is sent, with the note of how far the schedule has come.

use std::{sync::Arc, time::Duration};

use quorate_data::store::{SqlError, StoreError, TransactError};
use quorate_foundations::{name::Name, time::Wall};

use super::{Entry, LOOK};
use crate::message_queue::{Queue, QueueError, Schedule, rows::schedules, schedule::Timed, service::Room};

/// How often a process finds another one first at the same schedule before it rests.
const MAX_TRIES: u32 = 16;
/// A clock that is behind by less was not set: it was slowed down.
const SLACK: Duration = Duration::from_secs(1);
/// Bytes and messages that one transaction sends; fewer where each statement is a journey to a server.
const AT_ONCE: (usize, usize) = (1 << 20, 100);
const AT_ONCE_SHARED: usize = 16;

/// What came of sending what is due.
enum Came {
    /// Nothing is due any more.
    UpToNow,
    /// Another process sent some of it, or changed the schedule.
    Overtaken,
    /// The schedule has come so much further than this process's clock that ids of its messages are forgotten by now.
    FarBehind(Duration),
}

/// Sends the messages of a schedule that are due. Whether its row is there.
pub(super) async fn send_due(
    room: &Arc<Room>,
    (queue, name): &(Name, Name),
    timed: &Arc<Timed>,
    entry: &mut Entry,
) -> Result<bool, QueueError> {
    let queue = match room.find(queue) {
        Ok(queue) => queue,
        Err(QueueError::NotFound { .. }) => return Ok(false),
        Err(cause) => return Err(cause),
    };
    let mut timed = timed.clone();
    for _ in 0..MAX_TRIES {
        let mut done = match entry.done {
            Some(done) => done,
            None => match read(&queue, name, entry).await? {
                Some((read, done)) => {
                    timed = read;
                    done
                }
                None => return Ok(entry.timed.is_err()),
            },
        };
        match send_until_now(&queue, name, &timed, &mut done).await? {
            Came::UpToNow => {
                entry.done = Some(done);
                return Ok(true);
            }
            Came::Overtaken => {}
            Came::FarBehind(behind) => {
                let (of, schedule) = (queue.name(), name);
                tracing::warn!(queue = %of, %schedule, ?behind, "this process's clock is far behind a schedule that several processes have, and sends none of its messages");
                entry.done = None;
                entry.rests_until = queue.core.store.env().boot() + LOOK;
                return Ok(true);
            }
        }
        queue.core.store.env().reached("queue: another process sent a schedule's message");
        entry.done = None;
    }
    Err(StoreError::Busy.into())
}

/// What the row says of a schedule. `None`: it is gone, or cannot be read, and then sends nothing.
async fn read(queue: &Queue, name: &Name, entry: &mut Entry) -> Result<Option<(Arc<Timed>, Wall)>, QueueError> {
    let store = &queue.core.store;
    let Some((schedule, done)) = schedules::one(store, queue.core.id, name).await? else { return Ok(None) };
    entry.timed = schedule.and_then(|schedule| schedule.timed(store.limits().event_bytes)).map(Arc::new);
    Ok(entry.timed.clone().ok().map(|timed| (timed, done)))
}

/// Sends the messages of the moments from `done` until now.
async fn send_until_now(queue: &Queue, name: &Name, timed: &Arc<Timed>, done: &mut Wall) -> Result<Came, QueueError> {
    let store = &queue.core.store;
    loop {
        let now = store.env().wall();
        if now < *done && done.saturating_since(now) <= SLACK {
            return Ok(Came::UpToNow);
        }
        let behind = done.saturating_since(now);
        if queue.core.is_shared() && behind > queue.core.config().dedupe {
            // Others would go by where this one leaves it, and send again what nobody remembers.
            return Ok(Came::FarBehind(behind));
        }
        let moments = timed.calendar.due(*done, now, timed.schedule.missed);
        if moments.is_empty() && now >= *done && timed.calendar.next(*done).is_none_or(|next| next > now) {
            return Ok(Came::UpToNow);
        }
        if now < *done {
            store.env().reached("queue: a schedule found the clock set back");
        }
        if moments.first().is_some_and(|first| now.saturating_since(*first) > Schedule::LATE) {
            store.env().reached("queue: a missed moment was made up for");
        }
        let (bytes, messages) = AT_ONCE;
        let messages = if queue.core.is_shared() { AT_ONCE_SHARED } else { messages };
        let some = moments.len().min((bytes / timed.schedule.message.size()).clamp(1, messages));
        let until = if some == moments.len() { now } else { moments[some - 1] };
        let Some(sent) = send(queue, name, timed, &moments[..some], (*done, until)).await? else {
            return Ok(Came::Overtaken);
        };
        *done = sent;
        if some == moments.len() && *done == until {
            return Ok(Came::UpToNow);
        }
    }
}

/// Sends the messages of `moments`, and notes that they were, in one transaction: those for which the queue has room. Returns up
/// to when those are that were sent; `None`: another process was first, and nothing was written.
///
/// # Errors
/// [`QueueError::Full`] if there is room for none.
async fn send(
    queue: &Queue,
    name: &Name,
    timed: &Arc<Timed>,
    moments: &[Wall],
    (done, until): (Wall, Wall),
) -> Result<Option<Wall>, QueueError> {
    let of_unit = (queue.clone(), name.clone(), timed.clone(), moments.to_vec());
    let is_shared = queue.core.is_shared();
    let sent = queue.core.store.transact(move |tx| {
        let (queue, name, timed, moments) = of_unit.clone();
        Box::pin(async move {
            let (mut until, mut last) = (until, None);
            for moment in moments {
                match queue.send_in(tx, vec![timed.schedule.message_at(moment)]).await {
                    // Its id says that it was sent, when the schedule said something else.
                    Ok(_) | Err(QueueError::IdReused { .. }) => last = Some(moment),
                    Err(full @ QueueError::Full { .. }) => {
                        // The others are sent once there is room: all of them together may never find it.
                        until = last.ok_or(full)?;
                        break;
                    }
                    Err(refused) => return Err(refused.into()),
                }
            }
            if schedules::advance(tx, queue.core.id, &name, (done, until)).await? {
                return Ok(until);
            }
            let what = format!("`{name}` is not as it was left");
            Err(if is_shared { Unsent::Overtaken } else { QueueError::corrupt("quorate_queue_schedule", what).into() })
        })
    });
    let until = match sent.await {
        Err(TransactError::Aborted(Unsent::Overtaken)) => return Ok(None),
        Err(TransactError::Aborted(Unsent::Failed(cause))) => return Err(cause),
        Err(TransactError::Store(cause)) => return Err(cause.into()),
        Err(TransactError::TooLong { .. }) => return Err(StoreError::Busy.into()),
        Err(other) => return Err(QueueError::Tables(SqlError::Failed { what: other.to_string() })),
        Ok(until) => until,
    };
    if !moments.is_empty() {
        queue.core.store.env().reached("queue: a schedule's message was sent");
    }
    Ok(Some(until))
}

/// Why nothing was sent.
enum Unsent {
    /// Another process was first.
    Overtaken,
    Failed(QueueError),
}

impl<E: Into<QueueError>> From<E> for Unsent {
    fn from(cause: E) -> Self {
        Self::Failed(cause.into())
    }
}
