//! Declaring: how an endpoint comes to be, and becomes another one.

use quorate_data::subscription::SubscriptionError;
use quorate_foundations::name::Name;

use super::{Declared, TRIES, Webhooks};
use crate::event_bus::webhook::{
    Config, Secret, WebhookError,
    rows::{self, Head},
    secret::Keyring,
};

impl Webhooks {
    /// Declares an endpoint: makes it, or changes how it is. The same again changes nothing.
    ///
    /// `secret`: what deliveries are signed with; without one a new endpoint is given one, which is returned this once.
    ///
    /// With another address its failures, what it asked for and what disabled it by itself are forgotten in the transaction that changes
    /// it. What a person disabled stays disabled.
    ///
    /// # Errors
    /// [`WebhookError::Fixed`] names a field that cannot be changed. [`WebhookError::Taken`]: the name was free, and somebody else has
    /// just made another endpoint of it, which is left as it is.
    ///
    /// # Cancel safety
    /// Dropping the future may leave an endpoint whose subscription is made by whoever runs the webhooks; declaring it again is safe.
    pub async fn declare(&self, name: &Name, config: Config, secret: Option<Secret>) -> Result<Declared, WebhookError> {
        config.check(self.room.calls.allowed())?;
        let found = rows::find(&self.room.store, name).await?;
        self.declare_over(found, name, (&config, secret.as_ref())).await
    }

    /// Goes on with declaring from what was `found` under the name, which may be outdated by now.
    pub(in super::super) async fn declare_over(
        &self,
        mut found: Option<Head>,
        name: &Name,
        wanted: (&Config, Option<&Secret>),
    ) -> Result<Declared, WebhookError> {
        let mut was_free = false;
        for _ in 0..TRIES {
            let declared = match found {
                None => {
                    was_free = true;
                    self.make(name, wanted).await?
                }
                Some(gone) if gone.is_deleting => {
                    self.clear(&gone).await?;
                    None
                }
                Some(there) => self.declare_again(there, wanted, was_free).await?,
            };
            if let Some(declared) = declared {
                return Ok(declared);
            }
            found = rows::find(&self.room.store, name).await?;
        }
        Err(WebhookError::Contended { name: name.clone() })
    }

    /// Changes what is `there` to what is wanted; `None` if somebody else changed it meanwhile.
    ///
    /// Whoever found that the name `was_free` means to make an endpoint, and must not change somebody else's.
    async fn declare_again(
        &self,
        there: Head,
        (config, secret): (&Config, Option<&Secret>),
        was_free: bool,
    ) -> Result<Option<Declared>, WebhookError> {
        let found = self.complete(there).await?;
        let has_other_secret = secret.is_some_and(|secret| found.secrets.newest() != Some(secret));
        if was_free && (has_other_secret || found.config != *config) {
            return Err(WebhookError::Taken { name: found.name });
        }
        if has_other_secret {
            let what = "`secret` is that of a new webhook: this one has another, which is changed by rotating it";
            return Err(WebhookError::Invalid { what: what.to_owned() });
        }
        let name = found.name.clone();
        if found.config != *config {
            self.check_change(&found, config).await?;
            let is_elsewhere = found.config.url != config.url;
            let changed = Head { config: config.clone(), ..found };
            let changed = if is_elsewhere { changed.given_another_chance() } else { changed };
            if !self.change(&changed, is_elsewhere).await? {
                return Ok(None);
            }
        }
        Ok(Some(Declared { description: self.describe(&name).await?, secret: None, is_new: false }))
    }

    /// Makes an endpoint; `None` if somebody else made one of that name.
    async fn make(
        &self,
        name: &Name,
        (config, secret): (&Config, Option<&Secret>),
    ) -> Result<Option<Declared>, WebhookError> {
        let (id, drawn) = self.room.with_dice(|dice| (dice.u64() >> 1, Secret::draw(dice)));
        let secrets = Keyring::of(secret.cloned().unwrap_or_else(|| drawn.clone()));
        let head = Head::new(id, name.clone(), config.clone(), secrets);
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
    pub(in super::super) async fn complete(&self, mut head: Head) -> Result<Head, WebhookError> {
        if head.revision > 0 {
            return Ok(head);
        }
        let subscription = head.subscription()?;
        self.room.subscriptions.create(&subscription, head.config.subscription()).await?;
        if !self.write(&Head { revision: 1, ..head.clone() }, false).await? {
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

    async fn check_change(&self, found: &Head, config: &Config) -> Result<(), WebhookError> {
        let fixed = |field| Err(WebhookError::Fixed { name: found.name.clone(), field });
        if let Some(field) = found.config.fixed_difference(config) {
            return fixed(field);
        }
        let lease = self.room.subscriptions.get(&found.subscription()?).await?.config().lease_ttl;
        if config.subscription().lease_ttl > lease { fixed("timeout") } else { Ok(()) }
    }
}
