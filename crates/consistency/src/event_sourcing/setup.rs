//! Setting up aggregates: whatever is wrong with the declarations is found here.

use std::{any::type_name, num::NonZeroU64};

use quorate_data::{schema::upcast::Upcasters, store::Store};

use super::{
    Aggregate, Aggregates, Config, Decider, DomainEvent, SetupError, Snapshotted,
    reader::Codec,
    shell::Shell,
    snapshot::{self, Snapshots},
};

/// Sets up [`Aggregates`].
pub struct Builder<D: Aggregate> {
    decider: D,
    config: Config,
    upcasters: Upcasters,
    snapshots: Option<MakeSnapshots<D>>,
}

type MakeSnapshots<D> = Box<dyn FnOnce(&Codec<<D as Decider>::Event>) -> Result<Snapshots<D>, SetupError> + Send>;

impl<D: Aggregate> Builder<D> {
    pub(super) fn new(decider: D) -> Self {
        Self { decider, config: Config::default(), upcasters: Upcasters::default(), snapshots: None }
    }

    /// With settings other than the default.
    #[must_use]
    pub fn config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }

    /// With chains that bring events of earlier versions up to date.
    #[must_use]
    pub fn upcasters(mut self, upcasters: Upcasters) -> Self {
        self.upcasters = upcasters;
        self
    }

    /// Opens the aggregates in `store`.
    ///
    /// # Errors
    /// [`SetupError`] for whatever is wrong with the declarations; nothing waits for the first command to fail.
    pub async fn open(self, store: &Store) -> Result<Aggregates<D>, SetupError> {
        let category = D::CATEGORY;
        if category.is_empty() || category.contains('-') {
            return Err(SetupError::Category { category });
        }
        let shell = shell::<D>(
            store,
            self.config,
            self.upcasters,
            &format!("/{}", category.replace(char::is_whitespace, "%20")),
        )?;
        let snapshots = self.snapshots.map(|make| make(&shell.codec)).transpose()?;
        if snapshots.is_some() {
            store.declare(snapshot::TABLES).await?;
        }
        Ok(Aggregates::new(self.decider, shell, snapshots))
    }
}

impl<D: Aggregate + Snapshotted> Builder<D> {
    /// Keeps a snapshot of each aggregate every `events` events.
    #[must_use]
    pub fn snapshots_every(mut self, events: NonZeroU64) -> Self {
        self.snapshots = Some(Box::new(move |codec| Snapshots::new(events, codec)));
        self
    }
}

/// The shell of a decider whose events are declared well.
pub(super) fn shell<D: Decider>(
    store: &Store,
    config: Config,
    upcasters: Upcasters,
    source: &str,
) -> Result<Shell<D::Event>, SetupError> {
    let decider = type_name::<D>();
    D::Event::check().map_err(|what| SetupError::Events { decider, what })?;
    let codec = Codec::new(config.unknown_events, upcasters);
    codec.check_chains().map_err(|what| SetupError::Upcasters { decider, what })?;
    Ok(Shell::new(store, config, codec, source))
}
