//! A projection that was started in this process, with what was asked of it once.

use std::{collections::BTreeMap, sync::Arc};

use quorate_foundations::name::Name;
use quorate_runtime::Env;

use super::{
    Config, Fingerprint, OnRebuild, Projection, ViewError, ViewName, key_hash,
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
    /// The store's id, with which data subjects are hashed.
    pub(super) store_id: u64,
    pub(super) name: ViewName,
    pub(super) version: u32,
    pub(super) query: Query,
    pub(super) effects: BTreeMap<String, OnRebuild>,
    pub(super) fingerprint: Fingerprint,
}

impl Registered {
    /// Checks a projection, and finds its fingerprint.
    pub(super) async fn new(store: &Store, projection: Arc<dyn Projection>, config: Config) -> Result<Self, ViewError> {
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
            store_id: store.timeline().store,
            name: projection.name().clone(),
            version: projection.version(),
            effects: projection.effects().iter().map(|kind| (kind.name.to_owned(), kind.on_rebuild)).collect(),
            query,
            fingerprint,
            config,
            projection,
        })
    }

    /// What an event belongs to.
    pub(super) fn key<'e>(&self, event: &'e Recorded) -> &'e str {
        self.projection.key(event)
    }

    /// Whether an event belongs to this one of `shards`.
    pub(super) fn is_in(&self, event: &Recorded, shard: u32, shards: u32) -> bool {
        shards == 1 || key_hash(self.key(event)) % shards == shard
    }
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
