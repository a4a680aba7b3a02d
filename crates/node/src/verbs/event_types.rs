//! Event types: who sends them, by which schemas, and who listens.

use std::collections::BTreeMap;

use quorate_communication::event_bus::{
    catalogue::{Catalogue, CatalogueError, Reach, Seen},
    webhook::{WebhookError, Webhooks},
};
use quorate_data::{
    materialized_view::ViewError,
    schema::SchemaSize,
    store::{Query, Store, StoreError},
    subscription::{SubscriptionError, Subscriptions},
};

use super::{DurableSubscriptions, EventSchemas, RelayCare, SchemaSummary, ViewCare, WebhookCare};

/// The verbs on event types. Cheap to clone.
#[derive(Clone)]
pub struct EventTypes {
    catalogue: Catalogue,
    schemas: EventSchemas,
    subscriptions: DurableSubscriptions,
    relays: RelayCare,
    webhooks: WebhookCare,
    views: ViewCare,
}

/// A type of which the log holds events, or that has a schema.
#[derive(Clone, Debug)]
pub struct EventType {
    /// Its name.
    pub name: String,
    /// What the log says of it; `None`: no event of it was seen so far.
    pub seen: Option<Seen>,
    /// Its schema and all versions of that, oldest first; `None`: it has none.
    pub schema: Option<(SchemaSummary, Vec<SchemaSize>)>,
    /// Who takes its events, at most [`MAX_CONSUMERS`](EventTypes::MAX_CONSUMERS).
    pub consumers: Vec<Consumer>,
    /// How many more there are.
    pub more_consumers: usize,
}

/// Who takes events of a type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Consumer {
    /// What it is.
    pub kind: ConsumerKind,
    /// Its name.
    pub name: String,
    /// Whether its filter names the type; otherwise it takes events of any type, which may be those of some tags or categories alone.
    pub names_the_type: bool,
}

/// What takes events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConsumerKind {
    /// A durable subscription: of a consumer over HTTP, or of a group on the bus.
    Subscription,
    /// A relay of this node's configuration; of another node's, its subscription is told.
    Relay,
    /// A webhook.
    Webhook,
    /// A materialized view.
    View,
}

/// Why event types cannot be told.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EventTypesError {
    /// The catalogue cannot be read.
    #[error(transparent)]
    Catalogue(#[from] CatalogueError),
    /// The subscriptions cannot be listed.
    #[error(transparent)]
    Subscriptions(#[from] SubscriptionError),
    /// The webhooks cannot be listed.
    #[error(transparent)]
    Webhooks(#[from] WebhookError),
    /// The views cannot be listed.
    #[error(transparent)]
    Views(#[from] ViewError),
}

/// A consumer and what it asks for.
struct Interest {
    kind: ConsumerKind,
    name: String,
    filter: Query,
}

impl EventTypes {
    /// The most types of a page.
    pub const MAX_PAGE: u32 = Catalogue::MAX_PAGE;
    /// The most consumers that are named of a type.
    pub const MAX_CONSUMERS: usize = 100;

    /// The verbs on the event types of `store`, and of what else takes its events.
    pub fn new(
        store: &Store,
        schemas: EventSchemas,
        (subscriptions, relays, webhooks, views): (DurableSubscriptions, RelayCare, WebhookCare, ViewCare),
    ) -> Self {
        Self { catalogue: Catalogue::new(store), schemas, subscriptions, relays, webhooks, views }
    }

    /// Reads the log on, for a moment, and says how far it has come.
    pub async fn look(&self) -> Result<Reach, EventTypesError> {
        Ok(self.catalogue.look().await?)
    }

    /// Types in order of their names: `limit` (1 to [`MAX_PAGE`](Self::MAX_PAGE)) of those behind `after`.
    pub async fn list(&self, after: Option<&str>, limit: u32) -> Result<Vec<EventType>, EventTypesError> {
        let seen = self.catalogue.list(after, limit).await?;
        let mut all: BTreeMap<String, Option<Seen>> =
            seen.into_iter().map(|one| (one.event_type.clone(), Some(one))).collect();
        for one in self.schemas.list(after, limit as usize) {
            all.entry(one.event_type.as_str().to_owned()).or_default();
        }
        let interests = self.interests().await?;
        Ok(all.into_iter().take(limit as usize).map(|(name, seen)| self.told(name, seen, &interests)).collect())
    }

    /// One type; `None` if no event of it was seen and it has no schema.
    pub async fn describe(&self, name: &str) -> Result<Option<EventType>, EventTypesError> {
        let seen = self.catalogue.get(name).await?;
        if seen.is_none() && self.schemas.describe(name).is_none() {
            return Ok(None);
        }
        Ok(Some(self.told(name.to_owned(), seen, &self.interests().await?)))
    }

    fn told(&self, name: String, seen: Option<Seen>, interests: &[Interest]) -> EventType {
        let mut consumers: Vec<Consumer> = interests.iter().filter_map(|one| one.in_type(&name)).collect();
        let more_consumers = consumers.len().saturating_sub(Self::MAX_CONSUMERS);
        // Who names the type is told before who takes any.
        consumers.sort_by_key(|one| !one.names_the_type);
        consumers.truncate(Self::MAX_CONSUMERS);
        EventType { schema: self.schemas.describe(&name), name, seen, consumers, more_consumers }
    }

    /// Everybody who takes events: subscriptions and relays, webhooks, and views, each by name.
    async fn interests(&self) -> Result<Vec<Interest>, EventTypesError> {
        let mut all = Vec::new();
        for one in self.subscriptions.list(None, Subscriptions::MAX_PAGE).await? {
            if !Webhooks::owns(&one.name) {
                let is_relay = self.relays.owns(&one.name);
                let kind = if is_relay { ConsumerKind::Relay } else { ConsumerKind::Subscription };
                let name = one.name.to_string();
                all.push(Interest { kind, name, filter: one.config.filter });
            }
        }
        for one in self.webhooks.list(None, Webhooks::MAX_PAGE).await? {
            let (kind, name) = (ConsumerKind::Webhook, one.name.to_string());
            all.push(Interest { kind, name, filter: one.config.filter });
        }
        let views = match self.views.views() {
            Err(ViewError::Store(StoreError::Unsupported { .. })) => Vec::new(),
            views => views?.list().await?,
        };
        for view in views {
            let (kind, name) = (ConsumerKind::View, view.name().to_string());
            match view.filter().await {
                // It was deleted meanwhile.
                Err(ViewError::NotFound { .. }) => {}
                filter => all.extend(filter?.map(|filter| Interest { kind, name, filter })),
            }
        }
        Ok(all)
    }
}

impl Interest {
    /// The consumer, if events of the type may be for it.
    fn in_type(&self, event_type: &str) -> Option<Consumer> {
        let items = &self.filter.items;
        let names_the_type = items.iter().any(|item| item.types.iter().any(|one| one == event_type));
        let takes_any = items.is_empty() || items.iter().any(|item| item.types.is_empty());
        let (kind, name) = (self.kind, self.name.clone());
        (names_the_type || takes_any).then_some(Consumer { kind, name, names_the_type })
    }
}

impl ConsumerKind {
    /// One word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Subscription => "subscription",
            Self::Relay => "relay",
            Self::Webhook => "webhook",
            Self::View => "view",
        }
    }
}
