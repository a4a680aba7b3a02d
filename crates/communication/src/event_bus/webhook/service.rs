//! The handle: all webhooks of a store.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use prometheus_client::metrics::{counter::Counter, family::Family};
use quorate_data::{
    event::Position,
    store::Store,
    subscription::{self, ParkedEvent, Selection, Subscription, SubscriptionError, Subscriptions},
};
use quorate_foundations::{name::Name, time::Wall};
use quorate_resilience::circuit_breaker;
use quorate_runtime::{Env, random::Rng};
use tokio::sync::watch;

use super::{
    Calls, Config, Secret, WebhookError,
    courier::Courier,
    machine::Input,
    message::Message,
    rows::{self, Head},
    secret::Keyring,
};

/// How often a change is tried again because somebody else made one meanwhile.
const TRIES: usize = 16;
/// Attempts that are deleted with their endpoint in one transaction.
const DELETED_AT_ONCE: u32 = 500;
/// How often a process looks for what others changed.
const LOOK_AROUND: Duration = Duration::from_secs(2);
/// How long it rests when it cannot look.
const REST: Duration = Duration::from_secs(1);

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

/// An attempt to deliver an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Rises with every attempt of the endpoint: the fence of its lease.
    pub number: u64,
    /// The event's place in the log.
    pub position: Position,
    /// What the delivery is called: `webhook-id`.
    pub message: String,
    /// The event's type.
    pub kind: String,
    /// How often the event has now been sent, counted from 1.
    pub attempt: u32,
    /// When it began, by the wall clock.
    pub began: Wall,
    /// How long it took.
    pub took: Duration,
    /// The answer's status, if there was one.
    pub status: Option<u16>,
    /// What became of it, for people.
    pub outcome: String,
}

/// Since when and why nothing is sent to an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disabled {
    /// By the wall clock.
    pub since: Wall,
    /// For people.
    pub why: String,
}

/// A secret of an endpoint, as far as it may be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signer {
    /// See [`Secret::fingerprint`].
    pub fingerprint: String,
    /// Until when it signs, by the wall clock; `None`: until it is replaced.
    pub until: Option<Wall>,
}

/// An endpoint in a listing.
#[derive(Clone, Debug)]
pub struct Summary {
    /// Its name.
    pub name: Name,
    /// As it was declared last.
    pub config: Config,
    /// Why nothing is sent, if nothing is.
    pub disabled: Option<Disabled>,
    /// Since when it has taken nothing, by the wall clock, if its last attempt failed.
    pub failing: Option<Wall>,
    /// Whether it is being deleted.
    pub is_deleting: bool,
}

/// How an endpoint stands.
#[derive(Clone, Debug)]
pub struct Description {
    /// Name, configuration, whether it is disabled or failing.
    pub summary: Summary,
    /// Its secrets that sign, the newest first.
    pub signers: Vec<Signer>,
    /// How its subscription stands: checkpoint, lag, what rests and is parked. `None` if that is gone.
    pub subscription: Option<subscription::Description>,
    /// How its breaker stands in this process; `None` while nothing was sent.
    pub breaker: Option<circuit_breaker::Snapshot>,
}

/// What came of declaring an endpoint.
#[derive(Clone, Debug)]
pub struct Declared {
    /// How it stands.
    pub description: Description,
    /// Its secret, if it was drawn just now: it is shown this once.
    pub secret: Option<Secret>,
    /// Whether there was none of that name.
    pub is_new: bool,
}

/// What an endpoint said to a test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tested {
    /// What the delivery was called.
    pub message: String,
    /// Whether it was taken.
    pub is_delivered: bool,
    /// The answer's status, if there was one.
    pub status: Option<u16>,
    /// What became of it, with the beginning of what the endpoint said.
    pub outcome: String,
    /// How long it took.
    pub took: Duration,
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

    /// Declares an endpoint: makes it, or changes how it is. The same again changes nothing.
    ///
    /// `secret`: what deliveries are signed with; without one a new endpoint is given one, which is returned this once.
    ///
    /// # Errors
    /// [`WebhookError::Fixed`] names a field that cannot be changed.
    ///
    /// # Cancel safety
    /// Dropping the future may leave an endpoint whose subscription is made by whoever runs the webhooks; declaring it again is safe.
    pub async fn declare(&self, name: &Name, config: Config, secret: Option<Secret>) -> Result<Declared, WebhookError> {
        config.check(self.room.calls.allowed())?;
        for _ in 0..TRIES {
            let Some(found) = rows::find(&self.room.store, name).await? else {
                if let Some(declared) = self.make(name, &config, secret.as_ref()).await? {
                    return Ok(declared);
                }
                continue;
            };
            if found.is_deleting {
                self.clear(&found).await?;
                continue;
            }
            let found = self.complete(found).await?;
            let newest = found.secrets.0.first().map(|key| &key.secret);
            if secret.as_ref().is_some_and(|secret| newest != Some(secret)) {
                let what = "`secret` is that of a new webhook: this one has another, which is changed by rotating it";
                return Err(WebhookError::Invalid { what: what.to_owned() });
            }
            if found.config == config {
                return Ok(Declared { description: self.describe(name).await?, secret: None, is_new: false });
            }
            self.check_change(&found, &config).await?;
            let is_elsewhere = found.config.url != config.url;
            if is_elsewhere {
                self.forgive(found.id).await?;
            }
            if self.change(&Head { config: config.clone(), ..found }).await? {
                if is_elsewhere {
                    self.room.calls.reset(name);
                }
                return Ok(Declared { description: self.describe(name).await?, secret: None, is_new: false });
            }
        }
        Err(WebhookError::Contended { name: name.clone() })
    }

    /// Makes an endpoint; `None` if somebody else made one of that name.
    async fn make(
        &self,
        name: &Name,
        config: &Config,
        secret: Option<&Secret>,
    ) -> Result<Option<Declared>, WebhookError> {
        let (id, drawn) = self.room.with_dice(|dice| (dice.u64() >> 1, Secret::draw(dice)));
        let secrets = Keyring::of(secret.cloned().unwrap_or_else(|| drawn.clone()));
        let (name, config) = (name.clone(), config.clone());
        let head = Head { id, name, config, secrets, revision: 0, is_deleting: false, disabled: None, failing: None };
        head.subscription()?;
        let row = head.clone();
        let inserted = self.room.store.transact(move |tx| {
            let row = row.clone();
            Box::pin(async move {
                let inserted = rows::insert(tx, &row).await?;
                let max = Self::MAX_COUNT;
                if rows::count(tx).await? > max { Err(WebhookError::TooMany { max }) } else { Ok(inserted) }
            })
        });
        if !inserted.await.map_err(WebhookError::of_transaction)? {
            return Ok(None);
        }
        // Whatever becomes of the rest: whoever runs them finishes it.
        self.room.touch();
        if let Err(refused) = self.complete(head.clone()).await {
            // Nothing was sent and nothing is there but the row.
            if matches!(refused, WebhookError::Subscription(SubscriptionError::TooMany { .. })) {
                self.forget(&head).await?;
            }
            return Err(refused);
        }
        self.room.touch();
        let drawn = secret.is_none().then_some(drawn);
        Ok(Some(Declared { description: self.describe(&head.name).await?, secret: drawn, is_new: true }))
    }

    /// Makes the subscription of an endpoint that has none yet, and writes down that it has one.
    pub(super) async fn complete(&self, mut head: Head) -> Result<Head, WebhookError> {
        if head.revision > 0 {
            return Ok(head);
        }
        let subscription = head.subscription()?;
        self.room.subscriptions.create(&subscription, head.config.subscription()).await?;
        if !self.write(&Head { revision: 1, ..head.clone() }).await? {
            // Somebody else was first: with the same, or with deleting it.
            let found = rows::find(&self.room.store, &head.name).await?;
            let Some(found) = found.filter(|found| found.id == head.id && !found.is_deleting) else {
                self.unsubscribe(&head).await?;
                return Err(WebhookError::NotFound { name: head.name });
            };
            return Ok(found);
        }
        head.revision = 1;
        Ok(head)
    }

    /// Forgets that an endpoint has failed.
    async fn forgive(&self, id: u64) -> Result<(), WebhookError> {
        let forgiven = self.room.store.transact(move |tx| Box::pin(async move { Ok(rows::recovered(tx, id).await?) }));
        forgiven.await.map_err(WebhookError::of_transaction)
    }

    async fn check_change(&self, found: &Head, config: &Config) -> Result<(), WebhookError> {
        let fixed = |field| Err(WebhookError::Fixed { name: found.name.clone(), field });
        if let Some(field) = found.config.fixed_difference(config) {
            return fixed(field);
        }
        let lease = self.room.subscriptions.get(&found.subscription()?).await?.config().lease_ttl;
        if config.subscription().lease_ttl > lease { fixed("timeout") } else { Ok(()) }
    }

    /// Writes `head`, as changed from what was found; false if somebody else was first.
    async fn change(&self, head: &Head) -> Result<bool, WebhookError> {
        let changed = self.write(&Head { revision: head.revision + 1, ..head.clone() }).await?;
        self.room.touch();
        Ok(changed)
    }

    async fn write(&self, head: &Head) -> Result<bool, WebhookError> {
        let head = head.clone();
        let written = self.room.store.transact(move |tx| {
            let head = head.clone();
            Box::pin(async move { Ok(rows::update(tx, &head).await?) })
        });
        written.await.map_err(WebhookError::of_transaction)
    }

    /// Changes the endpoint `name` as `how` says; `None` of it changes nothing.
    async fn changed(&self, name: &Name, how: impl Fn(&Head) -> Option<Head>) -> Result<(), WebhookError> {
        for _ in 0..TRIES {
            let found = self.complete(self.find(name).await?).await?;
            match how(&found) {
                Some(head) if !self.change(&head).await? => {}
                _ => return Ok(()),
            }
        }
        Err(WebhookError::Contended { name: name.clone() })
    }

    async fn find(&self, name: &Name) -> Result<Head, WebhookError> {
        let found = rows::find(&self.room.store, name).await?.filter(|head| !head.is_deleting);
        found.ok_or_else(|| WebhookError::NotFound { name: name.clone() })
    }

    async fn fed(&self, name: &Name) -> Result<Subscription, WebhookError> {
        let head = self.find(name).await?;
        Ok(self.room.subscriptions.get(&head.subscription()?).await?)
    }

    /// Deletes an endpoint with all that is known of it. Nothing is sent any more; what is under way may still arrive.
    ///
    /// # Errors
    /// [`WebhookError::NotFound`] if there is none.
    ///
    /// # Cancel safety
    /// Dropping the future may leave a part, which goes when the webhooks are run next, or it is deleted or declared again.
    pub async fn delete(&self, name: &Name) -> Result<(), WebhookError> {
        for _ in 0..TRIES {
            let found = rows::find(&self.room.store, name).await?;
            let found = found.ok_or_else(|| WebhookError::NotFound { name: name.clone() })?;
            if found.is_deleting || self.change(&Head { is_deleting: true, ..found.clone() }).await? {
                return self.clear(&found).await;
            }
        }
        Err(WebhookError::Contended { name: name.clone() })
    }

    /// Deletes what is left of an endpoint that is being deleted: the row last, so that it can be done again.
    pub(super) async fn clear(&self, head: &Head) -> Result<(), WebhookError> {
        self.unsubscribe(head).await?;
        self.forget(head).await
    }

    async fn unsubscribe(&self, head: &Head) -> Result<(), WebhookError> {
        match self.room.subscriptions.delete(&head.subscription()?).await {
            Ok(()) | Err(SubscriptionError::NotFound { .. }) => Ok(()),
            Err(refused) => Err(refused.into()),
        }
    }

    /// Deletes subscriptions of webhooks that are gone: what a crash, or two who deleted at one time, may leave.
    async fn sweep(&self) -> Result<(), WebhookError> {
        let mut after = Name::new(rows::PREFIX).ok();
        loop {
            let page = self.room.subscriptions.list(after.as_ref(), Subscriptions::MAX_PAGE).await?;
            // Ordering: the rows behind the subscriptions, since a row is there before its subscription.
            let all = rows::ids(&self.room.store).await?;
            for one in &page {
                let is_orphan = rows::row_of(&one.name).is_some_and(|id| !all.contains(&id));
                if is_orphan {
                    tracing::info!(subscription = one.name.as_str(), "what was left of a webhook is deleted");
                    match self.room.subscriptions.delete(&one.name).await {
                        Ok(()) | Err(SubscriptionError::NotFound { .. }) => {}
                        Err(refused) => return Err(refused.into()),
                    }
                }
            }
            match page.last().filter(|last| last.name.as_str().starts_with(rows::PREFIX)) {
                Some(last) if page.len() == Subscriptions::MAX_PAGE as usize => after = Some(last.name.clone()),
                _ => return Ok(()),
            }
        }
    }

    async fn forget(&self, head: &Head) -> Result<(), WebhookError> {
        let id = head.id;
        loop {
            let deleted = self.room.store.transact(move |tx| {
                Box::pin(async move {
                    let deleted = rows::delete_attempts(tx, id, DELETED_AT_ONCE).await?;
                    if deleted == 0 {
                        rows::delete(tx, id).await?;
                    }
                    Ok::<_, WebhookError>(deleted)
                })
            });
            if deleted.await.map_err(WebhookError::of_transaction)? == 0 {
                break;
            }
        }
        for outcome in ["delivered", "refused", "failed"] {
            self.room.attempts.remove(&[("webhook", head.name.as_str().to_owned()), ("outcome", outcome.to_owned())]);
        }
        self.room.touch();
        Ok(())
    }

    /// Endpoints in order of their names: `limit` (1 to [`MAX_PAGE`](Self::MAX_PAGE)) of those behind `after`.
    pub async fn list(&self, after: Option<&Name>, limit: u32) -> Result<Vec<Summary>, WebhookError> {
        check_page(limit)?;
        Ok(rows::list(&self.room.store, after, limit).await?.into_iter().map(summary).collect())
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
        Ok(Description { summary: summary(head), signers, subscription, breaker })
    }

    /// Sends nothing to an endpoint until it is enabled; `why` is for people. Nothing is skipped: its events wait. One that is
    /// disabled stays so, for the reason it was.
    pub async fn disable(&self, name: &Name, why: &str) -> Result<(), WebhookError> {
        let why = if why.is_empty() { "somebody disabled it".to_owned() } else { why.chars().take(1_000).collect() };
        let disabled = Disabled { since: self.room.store.env().wall(), why };
        let disable = |head: &Head| Some(Head { disabled: Some(disabled.clone()), ..head.clone() });
        self.changed(name, |head| if head.disabled.is_some() { None } else { disable(head) }).await
    }

    /// Sends to an endpoint again, from where it was. Its breaker is closed, and its failures are forgotten.
    pub async fn enable(&self, name: &Name) -> Result<(), WebhookError> {
        let enable = |head: &Head| Some(Head { disabled: None, ..head.clone() });
        self.forgive(self.find(name).await?.id).await?;
        self.room.calls.reset(name);
        self.changed(name, |head| if head.disabled.is_none() { None } else { enable(head) }).await
    }

    /// Signs with `secret`, or with a new one, from now on; those that sign so far go on for `overlap` (at most
    /// [`MAX_OVERLAP`](Self::MAX_OVERLAP)), by the wall clock. Of more than ten the oldest stop. Returns the new one.
    pub async fn rotate(&self, name: &Name, secret: Option<Secret>, overlap: Duration) -> Result<Secret, WebhookError> {
        if overlap > Self::MAX_OVERLAP {
            let what = format!("`overlap` is at most {:?}, {overlap:?} was asked for", Self::MAX_OVERLAP);
            return Err(WebhookError::Invalid { what });
        }
        let secret = secret.unwrap_or_else(|| self.room.with_dice(Secret::draw));
        let now = self.room.store.env().wall();
        let rotated = |head: &Head| {
            let secrets = head.secrets.rotated(secret.clone(), now, now + overlap);
            (head.secrets.0.first().map(|key| &key.secret) != Some(&secret)).then(|| Head { secrets, ..head.clone() })
        };
        self.changed(name, rotated).await?;
        Ok(secret)
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

    /// Sends events to all endpoints until the tasks of `env` are told to stop. Attempts under way then get a few seconds to end; what has not
    /// is sent again, in order, when its lease has run.
    ///
    /// Several processes on one store may run them: they share the work.
    pub async fn run(self, env: Env) {
        let stop = env.tasks().stop().clone();
        let mut couriers = BTreeMap::new();
        let mut changed = self.room.changed.subscribe();
        let others = self.room.store.capabilities().several_writers;
        if let Err(cause) = self.sweep().await {
            tracing::warn!(%cause, "what may be left of webhooks was not looked for");
        }
        loop {
            changed.mark_unchanged();
            let again = match self.look(&env, &mut couriers).await {
                Ok(()) => others.then_some(LOOK_AROUND),
                Err(cause) => {
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
            let is_other = |known: &Head| known.revision != head.revision;
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
        let disabled = Some(Disabled { since: self.room.store.env().wall(), why });
        self.change(&Head { disabled, ..head.clone() }).await.map(drop)
    }
}

fn summary(head: Head) -> Summary {
    Summary {
        name: head.name,
        config: head.config,
        disabled: head.disabled,
        failing: head.failing.map(|(since, _)| since),
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
