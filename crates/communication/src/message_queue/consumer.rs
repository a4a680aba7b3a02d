//! A consumer that is handed messages as they come, and never holds more than its window.

use std::{sync::Arc, time::Duration};

use super::{Config, Delivery, Lease, Queue, QueueError, Receive, driver::Window};

/// How a consumer is handed messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Consume {
    /// How many messages it holds at most: those it was handed that are not settled, and whose leases run. 1 to
    /// [`Receive::MAX`]. Default 16.
    pub window: usize,
    /// How long it holds each; `None`: as the queue's configuration says.
    pub ttl: Option<Duration>,
}

impl Default for Consume {
    fn default() -> Self {
        Self { window: 16, ttl: None }
    }
}

/// A consumer with a window. Dropping it ends nothing: what it was handed can be settled as long as its leases hold, and is
/// handed out again when they have run out.
#[derive(Debug)]
pub struct Consumer {
    queue: Queue,
    config: Consume,
    window: Arc<Window>,
}

impl Queue {
    /// A consumer that is handed messages as they come: as many as its window has room for.
    ///
    /// Room is made by settling messages, by whatever call, and when leases run out.
    ///
    /// # Errors
    /// [`QueueError::Invalid`] for a configuration that is out of range.
    ///
    /// # Example
    /// ```
    /// # use quorate_communication::message_queue::*;
    /// # async fn example(mails: Queue) -> Result<(), QueueError> {
    /// let mut consumer = mails.consume(Consume { window: 4, ttl: None })?;
    /// loop {
    ///     for delivery in consumer.next().await? {
    ///         // … work …
    ///         mails.ack(&[delivery.lease]).await?;
    ///     }
    /// }
    /// # }
    /// ```
    pub fn consume(&self, config: Consume) -> Result<Consumer, QueueError> {
        let max = Receive::MAX;
        if !(1..=max).contains(&config.window) {
            let asked = config.window;
            return Err(QueueError::invalid(format!("`window` is 1 to {max}, {asked} was asked for")));
        }
        config.ttl.map_or(Ok(()), |ttl| Config::check_ttl("ttl", ttl))?;
        Ok(Consumer { queue: self.clone(), config, window: Window::new(config.window) })
    }
}

impl Consumer {
    /// The next messages, at least one: waits until there are some and the window has room, however long that takes.
    ///
    /// # Errors
    /// As [`Queue::receive`].
    ///
    /// # Cancel safety
    /// Dropping the future gives back what it would have been handed, as for [`Queue::receive`].
    pub async fn next(&mut self) -> Result<Vec<Delivery>, QueueError> {
        let Consume { window: max, ttl } = self.config;
        loop {
            let until = Some(self.queue.core.now() + Receive::MAX_WAIT);
            let window = Some(self.window.clone());
            let handed = self.queue.core.take(max, ttl, until, window).await?;
            // There may have been none for so long, or others settled them meanwhile.
            if !handed.is_empty() {
                return Ok(handed);
            }
        }
    }

    /// How many messages it holds.
    pub fn held(&self) -> usize {
        self.window.held()
    }

    /// Whether it holds the message that it was handed under `lease`, as far as this process knows: what was settled elsewhere is seen while it waits for messages.
    pub fn holds(&self, lease: &Lease) -> bool {
        self.window.holds(&lease.claim)
    }

    /// The queue.
    pub fn queue(&self) -> &Queue {
        &self.queue
    }
}
