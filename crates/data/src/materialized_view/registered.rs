//! A projection that was started in this process, with what was asked of it once.

use std::{
    any::Any,
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use quorate_foundations::name::Name;
use quorate_runtime::Env;

use super::{
    ApplyError, Config, Fingerprint, OnRebuild, Projection, ViewError, ViewName, ViewTx, key_hash,
    presence::Opening,
    scratch::{recorded, try_out},
};
use crate::{
    event::Recorded,
    store::{Query, Store},
};

/// A projection that was started in this process.
pub(super) struct Registered {
    pub(super) env: Env,
    pub(super) projection: Arc<dyn Projection>,
    pub(super) config: Config,
    /// Which opening of the store this is.
    pub(super) opening: Opening,
    /// The store's id, with which data subjects are hashed.
    pub(super) store_id: u64,
    pub(super) name: ViewName,
    pub(super) version: u32,
    pub(super) query: Query,
    pub(super) effects: BTreeMap<String, OnRebuild>,
    pub(super) fingerprint: Fingerprint,
    /// Whether a document says it, which others may delete and declare anew.
    pub(super) declared: bool,
}

impl Registered {
    /// Checks a projection, and finds its fingerprint.
    pub(super) async fn new(
        store: &Store,
        projection: Arc<dyn Projection>,
        config: Config,
        declared: bool,
    ) -> Result<Self, ViewError> {
        config.check()?;
        projection.schema().check()?;
        let query = projection.query();
        query.check().map_err(crate::store::StoreError::from)?;
        if projection.version() == 0 {
            return Err(ViewError::invalid("a view's version counts from 1"));
        }
        let fingerprint = fingerprint(store, &projection).await?;
        Ok(Self {
            env: store.env().clone(),
            opening: store.presence().opening(),
            store_id: store.timeline().store,
            name: projection.name().clone(),
            version: projection.version(),
            effects: projection.effects().iter().map(|kind| (kind.name.to_owned(), kind.on_rebuild)).collect(),
            query,
            fingerprint,
            declared,
            config,
            projection,
        })
    }

    /// What an event belongs to: its stream, where the projection panics over it and so will not have it.
    pub(super) fn key<'e>(&self, event: &'e Recorded) -> &'e str {
        self.key_said(event).unwrap_or(event.stream())
    }

    /// What the projection says an event belongs to, or what it panicked with.
    fn key_said<'e>(&self, event: &'e Recorded) -> Result<&'e str, String> {
        catch_unwind(AssertUnwindSafe(|| self.projection.key(event))).map_err(|panic| message(&*panic))
    }

    /// Has the projection apply events. One whose key it panics over is poison.
    pub(super) async fn apply(&self, view: &mut ViewTx<'_>, events: &[Recorded]) -> Result<(), ApplyError> {
        for event in events {
            if let Err(panic) = self.key_said(event) {
                return Err(ApplyError::event(event, format!("its key cannot be told: {panic}")));
            }
        }
        self.projection.apply(view, events).await
    }

    /// Whether an event belongs to this one of `shards`.
    pub(super) fn is_in(&self, event: &Recorded, shard: u32, shards: u32) -> bool {
        shards == 1 || key_hash(self.key(event)) % shards == shard
    }
}

/// What somebody's code panicked with.
pub(super) fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "a panic without a message".to_owned())
}

/// The fingerprint of what a projection says of itself and of the rows that its probe leads to.
///
/// # Errors
/// The projection's own, where its tables cannot be made or its probe cannot be applied.
async fn fingerprint(store: &Store, projection: &Arc<dyn Projection>) -> Result<Fingerprint, ViewError> {
    let said = projection.fingerprint();
    let stream = Name::new("probe-1").map_err(|cause| ViewError::invalid(cause.to_string()))?;
    let probe = projection.probe();
    let is_probed = !probe.is_empty();
    let events = recorded(probe.into_iter().map(|event| (stream.clone(), event)))?;
    let made = try_out(store, projection.clone(), events).await?;
    if is_probed { Ok(Fingerprint::of_parts([said.as_str().as_bytes(), made.as_text().as_bytes()])) } else { Ok(said) }
}
