//! Schedules: messages that a queue is sent by the clock on the wall.
//!
//! A schedule is a row beside its queue: a cron pattern, a time zone, and the message. What is due is sent in one transaction
//! with the note of how far the schedule has come, so that a crash between two moments repeats none and forgets none.
//!
//! * **Moments** are those of the wall clock in the schedule's time zone. The rules of time zones are compiled in. A pattern
//!   with one single second, minute and hour runs once on the day on which its hour comes twice (the first time), and behind the
//!   gap on the day on which it does not come; one with a list, a range, a `*` or a step in them follows the hours that really
//!   pass: what lies in the gap is left out, what comes twice runs twice.
//! * **Late** moments, whose messages could not be sent within [`Schedule::LATE`] (no process ran, the queue or the disk was
//!   full, the clock was set forward), are made up for as [`Missed`] says.
//! * **A clock that is set back** repeats none: the message of a moment has that moment in its id, and the queue remembers ids
//!   for [`Config::dedupe`](super::Config::dedupe). A clock that is set back by more than that repeats what lies behind;
//!   where several processes have the queue, one whose clock is so far behind what was sent sends nothing.

mod calendar;
mod clockwork;

use std::{sync::Arc, time::Duration};

use quorate_data::event::Timestamp;
use quorate_foundations::{name::Name, time::Wall};
use serde::{Deserialize, Serialize};

use super::{NewMessage, QueueError};
use calendar::Calendar;
pub(super) use clockwork::{Plan, start};

/// When a message is sent by itself, and what it says.
///
/// # Example
/// ```
/// use quorate_communication::message_queue::{Missed, NewMessage, Schedule};
/// use quorate_data::event::NewEvent;
/// let report = NewMessage::of(NewEvent::new("report", "/shop", "report.due"));
/// let nightly = Schedule::new("30 2 * * *", report.unique("report")).in_time_zone("Europe/Berlin").missed(Missed::Once);
/// assert_eq!(nightly.time_zone.as_ref(), "Europe/Berlin");
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    /// Minute, hour, day of the month, month, day of the week; a sixth field in front counts seconds, a seventh behind is the
    /// year. Or `@hourly`, `@daily`, `@weekly`, `@monthly`, `@yearly`. At most [`Schedule::MAX_CRON_BYTES`].
    pub cron: Arc<str>,
    /// The IANA name of the time zone whose wall clock counts. Default `UTC`.
    pub time_zone: Arc<str>,
    /// What becomes of moments whose messages could not be sent in time. Default [`Missed::Once`].
    pub missed: Missed,
    /// What is sent. The event's id is what ids begin with: behind it stand an `@` and the moment, as
    /// `report@2026-11-29T02:30:00Z`. Its time is the moment. No other schedule of the queue may
    /// have its source and id. At most [`Schedule::MAX_BYTES`].
    pub message: NewMessage,
}

/// What becomes of moments whose messages could not be sent within [`Schedule::LATE`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Missed {
    /// Nothing is sent for them.
    Skip,
    /// The last of them is sent, unless one that is in time is sent at the same moment.
    #[default]
    Once,
    /// All of them are sent, in their order: the last [`Schedule::MAX_MISSED`], if there are more.
    All,
}

/// A schedule of a queue.
#[derive(Clone, Debug)]
pub struct Planned {
    /// Its name.
    pub name: Name,
    /// As it was declared last, or what is wrong with its row: then it sends nothing until it is declared again.
    pub schedule: Result<Arc<Schedule>, QueueError>,
    /// When it is due next; `None`: never again, or nobody knows.
    pub next: Option<Wall>,
}

impl Schedule {
    /// The most schedules of a store.
    pub const MAX_COUNT: usize = 1_000;
    /// The longest pattern.
    pub const MAX_CRON_BYTES: usize = 256;
    /// The largest message.
    pub const MAX_BYTES: usize = 64 << 10;
    /// The most moments that are made up for.
    pub const MAX_MISSED: usize = 1_000;
    /// A moment whose message was not sent by then was missed.
    pub const LATE: Duration = Duration::from_secs(60);

    /// `message` at the moments of `cron`, by UTC.
    pub fn new(cron: impl Into<Arc<str>>, message: NewMessage) -> Self {
        Self { cron: cron.into(), time_zone: "UTC".into(), missed: Missed::default(), message }
    }

    /// The same by the clocks of `time_zone`.
    #[must_use]
    pub fn in_time_zone(mut self, time_zone: impl Into<Arc<str>>) -> Self {
        self.time_zone = time_zone.into();
        self
    }

    /// The same with moments made up for as `missed` says.
    #[must_use]
    pub fn missed(mut self, missed: Missed) -> Self {
        self.missed = missed;
        self
    }

    /// The same, with its moments to be found.
    ///
    /// # Errors
    /// [`QueueError::Invalid`], [`QueueError::Message`].
    fn timed(self, max_bytes: usize) -> Result<Timed, QueueError> {
        let calendar = Calendar::new(&self.cron, &self.time_zone)?;
        self.message_at(Wall::from_unix_nanos(0)).check(0, max_bytes.min(Self::MAX_BYTES))?;
        Ok(Timed { schedule: Arc::new(self), calendar })
    }

    /// The message of a moment.
    fn message_at(&self, moment: Wall) -> NewMessage {
        let time = Timestamp::from(moment);
        let mut message = self.message.clone();
        message.event.id = format!("{}@{}", message.event.id, time.as_str()).into();
        message.event.time = Some(time);
        message
    }
}

/// A schedule whose moments can be found.
#[derive(Debug)]
pub(super) struct Timed {
    pub(super) schedule: Arc<Schedule>,
    calendar: Calendar,
}
