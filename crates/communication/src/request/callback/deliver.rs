//! Delivering: workers of the queue of outcomes, who call as webhooks call.

use std::sync::Arc;

use http::{
    HeaderMap, HeaderValue,
    header::{CONTENT_TYPE, USER_AGENT},
};
use quorate_data::store::TransactError;
use quorate_foundations::name::Name;

use super::{Callbacks, QUEUE};
use crate::{
    cloud_events::STRUCTURED,
    event_bus::webhook::{
        AGENT, Config, Secret,
        machine::{Effect, Endpoint, Why},
        sign,
    },
    message_queue::{self, Failed, Job, Message, QueueError, callbacks as rows},
};

/// Addresses that are called at one time, by each process.
pub const PLACES: usize = 64;

impl Callbacks {
    /// Makes one attempt to deliver the outcome that `job` carries.
    ///
    /// # Errors
    /// [`Failed::Again`] with the rest that the address asks for, if any; [`Failed::Park`] where it is gone, or nobody knows of it.
    pub(super) async fn deliver(&self, job: Job<Arc<Message>>) -> Result<(), Failed> {
        let (store, event) = (self.queues.store(), &job.message().event);
        let env = store.env();
        let Some(rows::Place { url, secret }) = rows::place(store, &event.id).await? else {
            return Err(Failed::park("no request waits for this to be told"));
        };
        let secret: Secret = secret.parse()?;
        let (config, body) = (Config::to(url), event.data.clone().unwrap_or_default());
        let mut headers = HeaderMap::new();
        headers.insert(USER_AGENT, AGENT);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(STRUCTURED));
        sign(&mut headers, &event.id, env.wall(), &body, std::iter::once(&secret));
        let ended = self.calls.line(&caller(), &config, false).await?.post(headers, body).await;
        env.reached("callback: answered and not settled");
        let mut effects = Vec::new();
        // What an address failed before is in the message's own attempts.
        Endpoint::default().step((env.boot(), env.wall()), ended.input, &config.rules(), &mut effects);
        let mut rest = None;
        for effect in effects {
            match effect {
                Effect::Ack => return self.settle(&job).await,
                Effect::Disable(Why::Gone) => return Err(Failed::park(ended.reason())),
                Effect::Nack(asked) => rest = rest.max(asked),
                Effect::Pause(span) => rest = rest.max(Some(span)),
                Effect::Failing { .. } | Effect::Recovered | Effect::Disable(Why::Failing(_)) | Effect::GiveBack => {}
            }
        }
        let delay = rest.map(|rest| rest.min(message_queue::Config::MAX_TTL));
        Err(Failed::Again { reason: ended.reason(), delay })
    }

    /// Forgets whom to call, in the transaction that acknowledges the message.
    async fn settle(&self, job: &Job<Arc<Message>>) -> Result<(), Failed> {
        let job = job.clone();
        let settling = self.queues.store().transact(move |tx| {
            let job = job.clone();
            Box::pin(async move {
                job.ack_in(tx).await?;
                rows::delivered(tx, &job.message().event.id).await?;
                Ok(())
            })
        });
        settling.await.map_err(|failed: TransactError<QueueError>| QueueError::of_transaction(failed).into())
    }
}

/// What policies for these calls are declared for: `webhook/request-callbacks`.
fn caller() -> Name {
    Name::new(QUEUE).unwrap_or_else(|_| unreachable!("invariant: letters are a name"))
}
