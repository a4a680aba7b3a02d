//! A queue's schedules.

use quorate_foundations::name::Name;

use super::{Queue, Queues, to_its_end};
use crate::message_queue::{Planned, QueueError, Schedule};

impl Queue {
    /// Declares a schedule of this queue: makes it, or changes it. It counts from now on; the same again changes nothing.
    ///
    /// Its messages are sent while the store is open and somebody holds this queue or the [`Queues`]: one for each moment,
    /// whatever happens in between. What could not be sent in time is made up for as [`Missed`](crate::message_queue::Missed)
    /// says. A moment whose message has a [unique key](method@crate::message_queue::NewMessage::unique) that an earlier one still has is
    /// passed over.
    ///
    /// # Errors
    /// [`QueueError::Invalid`], [`QueueError::Message`], [`QueueError::TooManySchedules`]: nothing was changed.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the wait, not the declaration.
    ///
    /// # Example
    /// ```
    /// # use quorate_communication::message_queue::*;
    /// # use quorate_data::event::NewEvent;
    /// # async fn example(reports: Queue) -> Result<(), Box<dyn std::error::Error>> {
    /// let report = NewMessage::of(NewEvent::new("report", "/shop", "report.due")).unique("report");
    /// let nightly = Schedule::new("30 2 * * *", report).in_time_zone("Europe/Berlin");
    /// let planned = reports.schedule(&"nightly".parse()?, nightly).await?;
    /// assert!(planned.next.is_some());
    /// # Ok(())
    /// # }
    /// ```
    pub async fn schedule(&self, name: &Name, schedule: Schedule) -> Result<Planned, QueueError> {
        let (queue, name) = (self.clone(), name.clone());
        let declared = async move {
            queue.room.refresh(&queue.core.store).await?;
            loop {
                let alone = queue.room.plan().alone.lock().await;
                let declared = queue.room.plan().declare(&queue, &name, schedule.clone()).await?;
                drop(alone);
                match declared {
                    Some(planned) => return Ok(planned),
                    None => queue.room.refresh(&queue.core.store).await?,
                }
            }
        };
        to_its_end(&self.core.store, "schedule declared", declared).await
    }

    /// Deletes a schedule. Messages that it sent stay.
    ///
    /// # Errors
    /// [`QueueError::NoSchedule`] if there is none of that name.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the wait, not the deletion.
    pub async fn unschedule(&self, name: &Name) -> Result<(), QueueError> {
        let (queue, name) = (self.clone(), name.clone());
        let deleted = async move {
            queue.room.refresh(&queue.core.store).await?;
            loop {
                let alone = queue.room.plan().alone.lock().await;
                let is_deleted = queue.room.plan().delete(&queue, &name).await?;
                drop(alone);
                if is_deleted {
                    return Ok(());
                }
                queue.room.refresh(&queue.core.store).await?;
            }
        };
        to_its_end(&self.core.store, "schedule deleted", deleted).await
    }

    /// The schedule of that name. As for [`Queues::get`], refresh first.
    ///
    /// # Errors
    /// [`QueueError::NoSchedule`] if there is none.
    pub fn scheduled(&self, name: &Name) -> Result<Planned, QueueError> {
        self.room.plan().get(self.name(), name, self.core.store.env().wall())
    }

    /// Its schedules in order of their names: at most `limit` (1 to [`Queues::MAX_PAGE`]) of those behind `after`. As for
    /// [`Queues::get`], refresh first.
    pub fn schedules(&self, after: Option<&Name>, limit: usize) -> Result<Vec<Planned>, QueueError> {
        let max = Queues::MAX_PAGE;
        if !(1..=max).contains(&limit) {
            return Err(QueueError::invalid(format!("`limit` is 1 to {max}, {limit} was asked for")));
        }
        Ok(self.room.plan().list(self.name(), after, limit, self.core.store.env().wall()))
    }
}
