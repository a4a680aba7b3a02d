//! The bus: publishing, and opening groups.

use std::sync::Arc;

use quorate_data::{
    event::{NewEvent, Position, Recorded},
    schema::upcast::Upcasters,
    store::{AppendBatch, Appended, DynTx, ExpectedVersion, Query, ReadLog, Store},
    subscription::{Config, SubscriptionError, Subscriptions},
};
use quorate_foundations::{name::Name, time::Wall};

use super::{super::WEBHOOK_PREFIX, BusError, Context, Event, Group, PublishError, event::to_append};

/// A bus over the log of a store. Cheap to clone.
#[derive(Clone)]
pub struct Bus {
    store: Store,
    subscriptions: Subscriptions,
    source: Arc<str>,
    upcasters: Upcasters,
}

impl Bus {
    /// The bus of `store`. `source`: who publishes, as events say it.
    pub fn new(store: &Store, subscriptions: &Subscriptions, source: impl Into<Arc<str>>) -> Self {
        let (store, subscriptions) = (store.clone(), subscriptions.clone());
        Self { store, subscriptions, source: source.into(), upcasters: Upcasters::default() }
    }

    /// The same, whose handlers read events in the versions that `upcasters` lead to.
    #[must_use]
    pub fn with_upcasters(self, upcasters: Upcasters) -> Self {
        Self { upcasters, ..self }
    }

    pub(super) fn upcasters(&self) -> &Upcasters {
        &self.upcasters
    }

    /// Publishes `events` to `stream`, in this order, all or none. Durable when this returns, and each event has an id of its own: publishing
    /// again publishes again. Where that must not be, append under ids of your own.
    pub async fn publish<E: Event>(
        &self,
        stream: &Name,
        events: &[E],
        context: &Context,
    ) -> Result<Appended, PublishError> {
        let batch = AppendBatch::to(stream.clone(), ExpectedVersion::Any, self.written(events, context)?);
        Ok(self.store.append(batch).await?)
    }

    /// Publishes `events` to `stream` in the caller's transaction: they are there if it commits, and not otherwise.
    ///
    /// # Example
    /// ```
    /// # use quorate_communication::event_bus::{Bus, Context, Event, PublishError};
    /// # use quorate_data::store::{Store, TransactError};
    /// # #[derive(serde::Serialize, serde::Deserialize)]
    /// # struct OrderPlaced { cents: u64 }
    /// # impl Event for OrderPlaced { const TYPE: &'static str = "order.placed"; }
    /// # async fn example(store: Store, bus: Bus) -> Result<(), Box<dyn std::error::Error>> {
    /// store.transact(move |tx| {
    ///     let bus = bus.clone();
    ///     Box::pin(async move {
    ///         tx.execute("UPDATE stock SET left = left - 1 WHERE item = 7", &[]).await?;
    ///         bus.publish_in(tx, &"order-17".parse()?, &[OrderPlaced { cents: 1250 }], &Context::default()).await?;
    ///         Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
    ///     })
    /// }).await.map_err(|failed| failed.to_string())?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn publish_in<E: Event>(
        &self,
        tx: &mut DynTx,
        stream: &Name,
        events: &[E],
        context: &Context,
    ) -> Result<Appended, PublishError> {
        Ok(tx.append(stream, ExpectedVersion::Any, self.written(events, context)?).await?)
    }

    fn written<E: Event>(&self, events: &[E], context: &Context) -> Result<Vec<NewEvent>, PublishError> {
        let write = |event| to_append(event, (self.store.event_id(), self.source.clone()), context);
        events.iter().map(write).collect()
    }

    /// The group called `name`: made if it is not there, and otherwise as it was, wherever `config` begins. It is a durable subscription of
    /// that name, which several processes may serve.
    ///
    /// To hear again what is in the log, open a group of another name that [starts](quorate_data::subscription::Start) there: see
    /// [`position_at`](Self::position_at).
    ///
    /// # Errors
    /// [`SubscriptionError::Exists`] if it is there with another configuration, apart from where it began. [`BusError::Reserved`]: its name is
    /// one of those that feed webhooks.
    pub async fn group(&self, name: &Name, config: Config) -> Result<Group, BusError> {
        if name.as_str().starts_with(WEBHOOK_PREFIX) {
            return Err(BusError::Reserved { name: name.clone() });
        }
        let subscription = match self.subscriptions.create(name, config.clone()).await {
            Err(SubscriptionError::Exists { name }) => {
                let there = self.subscriptions.get(&name).await?;
                if (Config { start: there.config().start, ..config }) != *there.config() {
                    return Err(SubscriptionError::Exists { name }.into());
                }
                there
            }
            created => created?,
        };
        Ok(Group::new(self.clone(), subscription))
    }

    /// The last position of what had been recorded before `time`, by the store's wall clock: start behind it to hear what came since.
    ///
    /// A clock that was set back leaves events that seem out of order; then this is a position at which it read `time` once.
    pub async fn position_at(&self, time: Wall) -> Result<Position, BusError> {
        let (mut before, mut after) = (0, self.store.head().get());
        while before < after {
            let middle = before + (after - before) / 2;
            let read = ReadLog { query: Query::EVERYTHING, after: Position::new(middle), limit: 1 };
            let page = self.store.read_log(read).await?;
            match page.events.first().map(Recorded::recorded_at) {
                Some(recorded) if recorded < time => before = middle + 1,
                _ => after = middle,
            }
        }
        Ok(Position::new(before))
    }
}
