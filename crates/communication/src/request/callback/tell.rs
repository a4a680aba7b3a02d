//! Telling: from an outcome in the store to a message that is on its way.

use std::time::Duration;

use quorate_data::store::TransactError;
use quorate_foundations::name::Name;

use super::{Callbacks, QUEUE, outcome};
use crate::{
    message_queue::{Backoff, Config, Queue, QueueError, callbacks as rows},
    request::{DurableError, DurableRequests},
};

impl Callbacks {
    /// The queue of outcomes, which is declared where there is none. One that somebody changed stays as it is.
    pub(super) async fn queue(&self) -> Result<Queue, QueueError> {
        let name = Name::new(QUEUE).unwrap_or_else(|_| unreachable!("invariant: letters are a name"));
        // As those of webhooks: a day.
        let backoff = Backoff { first: Duration::from_secs(5), max: Duration::from_secs(4 * 3_600) };
        self.queues.declare_if_absent(&name, Config { max_attempts: 18, backoff, ..Config::default() }).await
    }

    /// Has it be told what became of the request `due` of `queue`, if anything did and nobody has yet. Whether there is a message now.
    pub(super) async fn tell(&self, queue: &Queue, due: rows::Due) -> Result<bool, DurableError> {
        let unreadable = |wrong| QueueError::corrupt("quorate_queue_callback", format!("{wrong}"));
        let kind = Name::new(due.kind.as_str()).map_err(unreadable)?;
        let id = Name::new(due.id.as_str()).map_err(unreadable)?;
        let status = DurableRequests::of(&kind, queue).status(&id, Duration::ZERO).await;
        let Some(event) = outcome::event(&due, status)? else { return Ok(false) };
        let store = self.queues.store();
        store.env().reached("callback: over and not told");
        let (message, on_its_way) = (outcome::message(&event, store.limits().event_bytes), self.queue().await?);
        let telling = store.transact(move |tx| {
            let (message, on_its_way) = (message.clone(), on_its_way.clone());
            Box::pin(async move {
                if rows::tell(tx, due.seq, &message.event.id).await? {
                    on_its_way.send_in(tx, vec![message]).await?;
                }
                Ok(())
            })
        });
        telling.await.map_err(|failed: TransactError<QueueError>| QueueError::of_transaction(failed))?;
        store.env().reached("callback: told and not delivered");
        Ok(true)
    }
}
