//! Webhooks by name.

use std::{sync::Arc, time::Duration};

use quorate_communication::event_bus::webhook::{
    Attempt, Calls, Config, Declared, Description, Secret, Summary, Tested, WebhookError, Webhooks,
};
use quorate_data::{
    event::Position,
    store::{Store, StoreError},
    subscription::{ParkedEvent, Selection},
};
use quorate_foundations::name::Name;
use quorate_runtime::Env;
use tokio::sync::OnceCell;

use super::DurableSubscriptions;

/// How long to wait before the webhooks are opened once more.
const AGAIN: Duration = Duration::from_secs(1);

/// The verbs on webhooks. Cheap to clone.
///
/// Every verb on one webhook fails with [`WebhookError::NotFound`] if there is none of that name.
#[derive(Clone)]
pub struct WebhookCare {
    store: Store,
    subscriptions: DurableSubscriptions,
    calls: Calls,
    all: Arc<OnceCell<Webhooks>>,
}

impl WebhookCare {
    /// The verbs on the webhooks of `store`, whose tables are made if they are not there.
    ///
    /// Where the disk is too full for that, or the store too busy, this succeeds all the same: each verb then tries again, and says
    /// what is in the way.
    pub async fn open(store: &Store, subscriptions: &DurableSubscriptions, calls: Calls) -> Result<Self, WebhookError> {
        let (store, subscriptions) = (store.clone(), subscriptions.clone());
        let webhooks = Self { store, subscriptions, calls, all: Arc::default() };
        match webhooks.all().await {
            Err(WebhookError::Store(
                cause @ (StoreError::DiskFull | StoreError::Busy | StoreError::Overloaded { .. }),
            )) => tracing::warn!(%cause, "the webhooks are opened once the store lets us"),
            opened => drop(opened?),
        }
        Ok(webhooks)
    }

    async fn all(&self) -> Result<&Webhooks, WebhookError> {
        let open = || Webhooks::open(&self.store, self.subscriptions.all(), self.calls.clone());
        self.all.get_or_try_init(open).await
    }

    /// Sends events to all endpoints until the tasks of `env` are told to stop.
    pub async fn run(self, env: Env) {
        let stop = env.tasks().stop().clone();
        loop {
            match self.all().await {
                Ok(webhooks) => return webhooks.clone().run(env).await,
                Err(cause) => tracing::warn!(%cause, "the webhooks cannot be opened"),
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = env.sleep(AGAIN) => {}
            }
        }
    }

    /// Declares an endpoint, or changes how it is. The same again changes nothing.
    pub async fn declare(&self, name: &Name, config: Config, secret: Option<Secret>) -> Result<Declared, WebhookError> {
        self.all().await?.declare(name, config, secret).await
    }

    /// Deletes an endpoint with all that is known of it.
    pub async fn delete(&self, name: &Name) -> Result<(), WebhookError> {
        self.all().await?.delete(name).await
    }

    /// At most `limit` endpoints behind `after`, in order of their names.
    pub async fn list(&self, after: Option<&Name>, limit: u32) -> Result<Vec<Summary>, WebhookError> {
        self.all().await?.list(after, limit).await
    }

    /// How an endpoint stands right now.
    pub async fn describe(&self, name: &Name) -> Result<Description, WebhookError> {
        self.all().await?.describe(name).await
    }

    /// How all endpoints stand, in order of their names.
    pub async fn standing(&self) -> Result<Vec<Description>, WebhookError> {
        let mut standing = Vec::new();
        for Summary { name, .. } in self.list(None, Webhooks::MAX_PAGE).await? {
            match self.describe(&name).await {
                // It was deleted meanwhile.
                Err(WebhookError::NotFound { .. }) => {}
                described => standing.push(described?),
            }
        }
        Ok(standing)
    }

    /// Sends nothing to an endpoint until it is enabled.
    pub async fn disable(&self, name: &Name, why: &str) -> Result<Description, WebhookError> {
        self.all().await?.disable(name, why).await?;
        self.describe(name).await
    }

    /// Sends to an endpoint again, from where it was.
    pub async fn enable(&self, name: &Name) -> Result<Description, WebhookError> {
        self.all().await?.enable(name).await?;
        self.describe(name).await
    }

    /// Signs with another secret from now on, and with those before for `overlap`. Returns the new one.
    pub async fn rotate(&self, name: &Name, secret: Option<Secret>, overlap: Duration) -> Result<Secret, WebhookError> {
        self.all().await?.rotate(name, secret, overlap).await
    }

    /// Sends an event that is in no log, once.
    pub async fn test(&self, name: &Name) -> Result<Tested, WebhookError> {
        self.all().await?.test(name).await
    }

    /// The last attempts with a number below `before`, the newest first.
    pub async fn attempts(&self, name: &Name, before: u64, limit: u32) -> Result<Vec<Attempt>, WebhookError> {
        self.all().await?.attempts(name, before, limit).await
    }

    /// At most `limit` parked events behind `after`, in order of position.
    pub async fn parked(&self, name: &Name, after: Position, limit: u32) -> Result<Vec<ParkedEvent>, WebhookError> {
        self.all().await?.parked(name, after, limit).await
    }

    /// Lets parked events be sent again, in order. Returns how many.
    pub async fn replay(&self, name: &Name, which: Selection) -> Result<usize, WebhookError> {
        self.all().await?.replay(name, which).await
    }

    /// Gives parked events up. Returns how many.
    pub async fn discard(&self, name: &Name, which: Selection) -> Result<usize, WebhookError> {
        self.all().await?.discard(name, which).await
    }
}
