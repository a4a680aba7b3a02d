//! Durable subscriptions by name.

use std::time::Duration;

use quorate_data::{
    event::Position,
    store::Store,
    subscription::{
        Config, Delivery, Description, Lease, ParkedEvent, Pull, Selection, SubscriptionError, Subscriptions, Summary,
    },
};
use quorate_foundations::name::Name;

/// The verbs on durable subscriptions. Cheap to clone.
///
/// Every verb on one subscription fails with [`SubscriptionError::NotFound`] if there is none of that name.
#[derive(Clone)]
pub struct DurableSubscriptions {
    all: Subscriptions,
}

/// What a holder says about the events it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settlement {
    /// Done: they will not be handed out again.
    Ack,
    /// Failed this time.
    Nack {
        /// How long they rest; `None`: as the configuration's backoff says.
        delay: Option<Duration>,
        /// Why, for people.
        reason: String,
    },
    /// Not done yet.
    Extend {
        /// How long to hold them from now on; `None`: as the configuration says.
        ttl: Option<Duration>,
    },
    /// Set aside until someone replays or discards them.
    Park {
        /// Why, for people.
        reason: String,
    },
}

impl DurableSubscriptions {
    /// The verbs on the subscriptions of `store`, whose tables are made if they are not there.
    pub async fn open(store: &Store) -> Result<Self, SubscriptionError> {
        Ok(Self { all: Subscriptions::open(store).await? })
    }

    /// The subscriptions themselves.
    pub fn all(&self) -> &Subscriptions {
        &self.all
    }

    /// Creates a subscription. Repeating it with the same configuration changes nothing.
    ///
    /// # Errors
    /// [`SubscriptionError::Exists`] if it is there with another configuration.
    pub async fn create(&self, name: &Name, config: Config) -> Result<Description, SubscriptionError> {
        self.all.create(name, config).await?.describe().await
    }

    /// Deletes a subscription with all it knows.
    pub async fn delete(&self, name: &Name) -> Result<(), SubscriptionError> {
        self.all.delete(name).await
    }

    /// At most `limit` subscriptions behind `after`, in order of their names.
    pub async fn list(&self, after: Option<&Name>, limit: u32) -> Result<Vec<Summary>, SubscriptionError> {
        self.all.list(after, limit).await
    }

    /// How a subscription stands right now.
    pub async fn describe(&self, name: &Name) -> Result<Description, SubscriptionError> {
        self.all.get(name).await?.describe().await
    }

    /// Hands out events; each is leased before this returns.
    ///
    /// # Cancel safety
    /// Dropping the future returns what it would have been given.
    pub async fn pull(&self, name: &Name, pull: Pull) -> Result<Vec<Delivery>, SubscriptionError> {
        self.all.get(name).await?.pull(pull).await
    }

    /// Takes back what was handed out, as if it had not been: what the caller cannot make use of, and nobody has seen.
    pub async fn give_back(&self, name: &Name, leases: &[Lease]) -> Result<(), SubscriptionError> {
        self.all.get(name).await?.give_back(leases).await
    }

    /// Does with the events held under `leases` what their holder says. Durable when this returns.
    ///
    /// # Errors
    /// [`SubscriptionError::LeaseLost`] names those that are not the caller's any more; for the others it was done.
    pub async fn settle(&self, name: &Name, leases: &[Lease], how: &Settlement) -> Result<(), SubscriptionError> {
        let subscription = self.all.get(name).await?;
        match how {
            Settlement::Ack => subscription.ack(leases).await,
            Settlement::Nack { delay, reason } => subscription.nack(leases, *delay, reason).await,
            Settlement::Extend { ttl } => subscription.extend(leases, *ttl).await,
            Settlement::Park { reason } => subscription.park(leases, reason).await,
        }
    }

    /// At most `limit` parked events behind `after`, in order of position.
    pub async fn parked(
        &self,
        name: &Name,
        after: Position,
        limit: u32,
    ) -> Result<Vec<ParkedEvent>, SubscriptionError> {
        self.all.get(name).await?.parked(after, limit).await
    }

    /// Lets parked events be handed out again, in order. Returns how many.
    pub async fn replay(&self, name: &Name, which: Selection) -> Result<usize, SubscriptionError> {
        self.all.get(name).await?.replay(which).await
    }

    /// Gives parked events up. Returns how many.
    pub async fn discard(&self, name: &Name, which: Selection) -> Result<usize, SubscriptionError> {
        self.all.get(name).await?.discard(which).await
    }
}
