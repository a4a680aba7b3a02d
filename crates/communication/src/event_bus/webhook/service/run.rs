//! Running: each endpoint that shall be served has a courier, and no other one has.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use quorate_data::subscription::SubscriptionError;
use quorate_runtime::Env;
use tokio::sync::watch;

use super::{Disabled, Webhooks};
use crate::event_bus::webhook::{
    WebhookError,
    courier::Courier,
    rows::{self, Head},
};

/// How often a process looks for what others changed.
const LOOK_AROUND: Duration = Duration::from_secs(2);
/// How long it rests when it cannot look.
const REST: Duration = Duration::from_secs(1);

impl Webhooks {
    /// Sends events to all endpoints until the tasks of `env` are told to stop. Attempts under way then get a few seconds to end; what has not
    /// is sent again, in order, when its lease has run.
    ///
    /// Several processes on one store may run them: they share the work.
    pub async fn run(self, env: Env) {
        let stop = env.tasks().stop().clone();
        let mut couriers = BTreeMap::new();
        let mut changed = self.room.changed.subscribe();
        let others = self.room.store.capabilities().several_writers;
        // What is dropped in the middle of looking is done by whoever looks next.
        if let Some(Err(cause)) = stop.run_until_cancelled(self.sweep()).await {
            tracing::warn!(%cause, "what may be left of webhooks was not looked for");
        }
        loop {
            changed.mark_unchanged();
            let again = match stop.run_until_cancelled(self.look(&env, &mut couriers)).await {
                None => return,
                Some(Ok(())) => others.then_some(LOOK_AROUND),
                Some(Err(cause)) => {
                    tracing::warn!(%cause, "the webhooks could not be looked through");
                    Some(REST)
                }
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                _ = changed.changed() => {}
                () = env.sleep(again.unwrap_or_default()), if again.is_some() => {}
            }
        }
    }

    /// Sees to it that each endpoint that shall be served has a courier, and no other one has.
    async fn look(
        &self,
        env: &Env,
        couriers: &mut BTreeMap<u64, watch::Sender<Arc<Head>>>,
    ) -> Result<(), WebhookError> {
        let heads = rows::all(&self.room.store).await?;
        couriers.retain(|id, orders| {
            let shall = heads.iter().any(|head| head.id == *id && !head.is_deleting && head.disabled.is_none());
            shall && !orders.is_closed()
        });
        let mut failed = Ok(());
        for head in heads {
            // One that cannot be served is no reason not to serve the others.
            let name = head.name.clone();
            let done = match &head {
                Head { is_deleting: true, .. } => self.clear(&head).await,
                Head { disabled: Some(_), .. } => Ok(()),
                _ => self.serve(env, head, couriers).await,
            };
            if let Err(cause) = done {
                tracing::warn!(webhook = name.as_str(), %cause, "the webhook cannot be served for the moment");
                failed = Err(cause);
            }
        }
        failed
    }

    async fn serve(
        &self,
        env: &Env,
        head: Head,
        couriers: &mut BTreeMap<u64, watch::Sender<Arc<Head>>>,
    ) -> Result<(), WebhookError> {
        if let Some(orders) = couriers.get(&head.id) {
            // What it asked another process for is heeded here as well.
            let is_other = |known: &Head| known.revision != head.revision || known.paused < head.paused;
            orders.send_if_modified(|known| is_other(known).then(|| *known = Arc::new(head.clone())).is_some());
            return Ok(());
        }
        let head = match self.complete(head).await {
            Ok(complete) => complete,
            // It was deleted meanwhile.
            Err(WebhookError::NotFound { .. }) => return Ok(()),
            Err(refused) => return Err(refused),
        };
        let subscription = match self.room.subscriptions.get(&head.subscription()?).await {
            Ok(subscription) => subscription,
            Err(SubscriptionError::NotFound { .. }) => {
                let why = "its subscription was deleted, and with it where it was: delete it and declare it anew";
                return self.give_up(&head, why.to_owned()).await;
            }
            Err(refused) => return Err(refused.into()),
        };
        let (orders, receiver) = watch::channel(Arc::new(head.clone()));
        let courier = Courier { room: self.room.clone(), subscription, orders: receiver };
        env.tasks().spawn("webhook", courier.run(env.tasks().stop().clone()));
        couriers.insert(head.id, orders);
        Ok(())
    }

    async fn give_up(&self, head: &Head, why: String) -> Result<(), WebhookError> {
        tracing::warn!(webhook = head.name.as_str(), why, "the endpoint is disabled");
        let disabled = Some(Disabled { since: self.room.store.env().wall(), why, is_automatic: true });
        self.change(&Head { disabled, ..head.clone() }, false).await.map(drop)
    }
}
