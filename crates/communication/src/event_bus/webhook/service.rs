//! The handle: all webhooks of a store.

mod change;
mod declare;
mod remove;
mod run;
mod vocabulary;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use prometheus_client::metrics::{counter::Counter, family::Family};
use quorate_data::{
    event::Position,
    store::Store,
    subscription::{ParkedEvent, Selection, Subscription, SubscriptionError, Subscriptions},
};
use quorate_foundations::{name::Name, time::Wall};
use quorate_runtime::random::Rng;
use tokio::sync::watch;
pub use vocabulary::{Attempt, Declared, Description, Disabled, Signer, Summary, Tested};

use super::{
    Calls, Secret, WebhookError,
    machine::Input,
    message::Message,
    rows::{self, Head},
    secret::Keyring,
};

/// How often a change is tried again because somebody else made one meanwhile.
const TRIES: usize = 16;

/// The webhooks of a store. Cheap to clone; clones are the same.
#[derive(Clone)]
pub struct Webhooks {
    room: Arc<Room>,
}

pub(super) struct Room {
    pub(super) store: Store,
    pub(super) calls: Calls,
    subscriptions: Subscriptions,
    /// Moves when an endpoint may be another one.
    changed: watch::Sender<u64>,
    /// Moves when parked events were let go.
    pub(super) replayed: watch::Sender<u64>,
    /// Who holds leases, for people.
    pub(super) owner: Arc<str>,
    dice: Mutex<Rng>,
    attempts: Family<[(&'static str, String); 2], Counter>,
}

impl Room {
    /// Says that an endpoint may be another one.
    pub(super) fn touch(&self) {
        self.changed.send_modify(|changes| *changes += 1);
    }

    /// Counts an attempt.
    pub(super) fn count(&self, name: &Name, input: Input) {
        let outcome = match input {
            Input::Answered { status: 200..=299, .. } => "delivered",
            Input::Refused { .. } => "refused",
            Input::Answered { .. } | Input::Unanswered => "failed",
        };
        self.attempts.get_or_create(&[("webhook", name.as_str().to_owned()), ("outcome", outcome.to_owned())]).inc();
    }

    fn with_dice<T>(&self, draw: impl FnOnce(&mut Rng) -> T) -> T {
        draw(&mut self.dice.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Webhooks {
    /// The most webhooks of a store.
    pub const MAX_COUNT: usize = 256;
    /// The most entries of a listing.
    pub const MAX_PAGE: u32 = 1_000;
    /// The most secrets of an endpoint that sign at one time.
    pub const MAX_SECRETS: usize = Keyring::MOST;
    /// How many attempts of an endpoint are kept.
    pub const KEPT_ATTEMPTS: u64 = rows::KEPT;
    /// The longest that two secrets overlap.
    pub const MAX_OVERLAP: Duration = Duration::from_secs(90 * 24 * 3_600);
    /// How long two secrets overlap unless told otherwise.
    pub const OVERLAP: Duration = Duration::from_secs(24 * 3_600);

    /// The webhooks of `store`, fed by its `subscriptions`. Their tables are made if they are not there. Nothing is sent until somebody [`run`](Self::run)s them.
    pub async fn open(store: &Store, subscriptions: &Subscriptions, calls: Calls) -> Result<Self, WebhookError> {
        store.declare(rows::TABLES).await?;
        let env = store.env();
        let attempts = Family::default();
        let about = "Attempts to deliver events to webhooks; `refused` ones were never sent, by a breaker or a policy";
        env.metrics().register("quorate_webhook_attempts", about, Family::clone(&attempts));
        let mut dice = env.random("webhook");
        let owner = format!("webhooks-{:016x}", dice.u64()).into();
        let room = Room {
            store: store.clone(),
            calls,
            subscriptions: subscriptions.clone(),
            changed: watch::Sender::new(0),
            replayed: watch::Sender::new(0),
            owner,
            dice: Mutex::new(dice),
            attempts,
        };
        Ok(Self { room: Arc::new(room) })
    }

    /// Whether a subscription of this name is a webhook's: whoever took events from it would take them from the endpoint.
    pub fn owns(subscription: &Name) -> bool {
        rows::row_of(subscription).is_some()
    }

    async fn find(&self, name: &Name) -> Result<Head, WebhookError> {
        let found = rows::find(&self.room.store, name).await?.filter(|head| !head.is_deleting);
        found.ok_or_else(|| WebhookError::NotFound { name: name.clone() })
    }

    async fn fed(&self, name: &Name) -> Result<Subscription, WebhookError> {
        let head = self.find(name).await?;
        Ok(self.room.subscriptions.get(&head.subscription()?).await?)
    }

    /// Endpoints in order of their names: `limit` (1 to [`MAX_PAGE`](Self::MAX_PAGE)) of those behind `after`.
    pub async fn list(&self, after: Option<&Name>, limit: u32) -> Result<Vec<Summary>, WebhookError> {
        check_page(limit)?;
        let now = self.room.store.env().wall();
        Ok(rows::list(&self.room.store, after, limit).await?.into_iter().map(|head| summary(head, now)).collect())
    }

    /// How an endpoint stands right now.
    pub async fn describe(&self, name: &Name) -> Result<Description, WebhookError> {
        let head = self.find(name).await?;
        let now = self.room.store.env().wall();
        let signer = |secret: &Secret| Signer {
            fingerprint: secret.fingerprint(),
            until: head
                .secrets
                .0
                .iter()
                .find(|key| key.secret == *secret)
                .and_then(|key| key.until.map(Wall::from_unix_nanos)),
        };
        let signers = head.secrets.at(now).map(signer).collect();
        let subscription = match self.room.subscriptions.get(&head.subscription()?).await {
            Ok(subscription) => Some(subscription.describe().await?),
            Err(SubscriptionError::NotFound { .. }) => None,
            Err(refused) => return Err(refused.into()),
        };
        let breaker = self.room.calls.breaker(name);
        Ok(Description { summary: summary(head, now), signers, subscription, breaker })
    }

    /// Sends an event of the type [`TEST`](super::TEST) that is in no log, once, also to an endpoint that is disabled or whose breaker is
    /// open. Nothing of it is kept.
    pub async fn test(&self, name: &Name) -> Result<Tested, WebhookError> {
        let head = self.find(name).await?;
        let env = self.room.store.env();
        let line = self.room.calls.line(name, &head.config, false).await?;
        let (now, since) = (env.wall(), env.mono());
        let id = format!("msg_{:032x}", self.room.with_dice(Rng::u128));
        let message = Message::test(name.as_str(), (&id, now));
        let ended = line.post(message.signed(now, head.secrets.at(now)), message.body).await;
        let is_delivered = ended.status.is_some_and(|status| (200..300).contains(&status));
        let took = env.mono().saturating_since(since);
        Ok(Tested { message: id, is_delivered, status: ended.status, outcome: ended.reason(), took })
    }

    /// The last attempts, the newest first: `limit` (1 to [`MAX_PAGE`](Self::MAX_PAGE)) of those with a number below `before`. Of an
    /// endpoint the last 1,000 are kept.
    pub async fn attempts(&self, name: &Name, before: u64, limit: u32) -> Result<Vec<Attempt>, WebhookError> {
        check_page(limit)?;
        rows::attempts(&self.room.store, self.find(name).await?.id, before, limit).await
    }

    /// Parked events in order of position: `limit` of those behind `after`.
    pub async fn parked(&self, name: &Name, after: Position, limit: u32) -> Result<Vec<ParkedEvent>, WebhookError> {
        Ok(self.fed(name).await?.parked(after, limit).await?)
    }

    /// Lets parked events be sent again, in order and each with all its attempts. Returns how many.
    pub async fn replay(&self, name: &Name, which: Selection) -> Result<usize, WebhookError> {
        let replayed = self.fed(name).await?.replay(which).await?;
        self.room.replayed.send_modify(|times| *times += 1);
        Ok(replayed)
    }

    /// Gives parked events up. Returns how many.
    pub async fn discard(&self, name: &Name, which: Selection) -> Result<usize, WebhookError> {
        Ok(self.fed(name).await?.discard(which).await?)
    }
}

fn summary(head: Head, now: Wall) -> Summary {
    Summary {
        name: head.name,
        config: head.config,
        disabled: head.disabled,
        failing: head.failing.map(|(since, _)| since),
        paused: head.paused.filter(|until| *until > now),
        is_deleting: head.is_deleting,
    }
}

fn check_page(limit: u32) -> Result<(), WebhookError> {
    let max = Webhooks::MAX_PAGE;
    if (1..=max).contains(&limit) {
        return Ok(());
    }
    Err(WebhookError::Invalid { what: format!("`limit` is 1 to {max}, {limit} was asked for") })
}
