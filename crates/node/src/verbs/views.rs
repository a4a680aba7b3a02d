//! Views by name: how they stand, and what an operator does with them.

use quorate_data::{
    event::Position,
    materialized_view::{
        Audit, Build, Description, ParkedEvent, SkippedEvent, Switch, View, ViewError, ViewName, Views,
    },
    store::Store,
};

/// The verbs on views. Cheap to clone.
///
/// Where no build is named, a verb is about the newest one if it is about the making of views, and about the one that readers
/// have if it is about their rows. Every verb fails with [`ViewError::NotFound`] if there is no view of that name.
#[derive(Clone)]
pub struct ViewCare {
    all: Views,
}

impl ViewCare {
    /// The verbs on the views of `store`, whose tables are made if they are not there.
    pub async fn open(store: &Store) -> Result<Self, ViewError> {
        Ok(Self { all: Views::open(store).await? })
    }

    /// The views themselves: to start some, and to read them.
    pub fn views(&self) -> &Views {
        &self.all
    }

    /// How each view stands, at most `limit` of those behind `after`, in order of their names.
    pub async fn list(&self, after: Option<&ViewName>, limit: usize) -> Result<Vec<Description>, ViewError> {
        let behind = |view: &View| after.is_none_or(|after| view.name() > after);
        let mut found = Vec::new();
        for view in self.all.list().await?.into_iter().filter(behind).take(limit) {
            found.push(view.describe().await?);
        }
        Ok(found)
    }

    /// How a view stands.
    pub async fn describe(&self, name: &ViewName) -> Result<Description, ViewError> {
        self.all.get(name).await?.describe().await
    }

    /// Begins another build beside the one readers have.
    pub async fn rebuild(&self, name: &ViewName, switch: Switch) -> Result<Build, ViewError> {
        self.all.get(name).await?;
        self.all.rebuild(name, switch).await
    }

    /// Pauses a build.
    pub async fn pause(&self, name: &ViewName, build: Option<Build>) -> Result<Build, ViewError> {
        let build = self.newest(name, build).await?;
        self.all.pause(name, build).await.map(|()| build)
    }

    /// Has a build go on that was paused, or that stopped before an event.
    pub async fn resume(&self, name: &ViewName, build: Option<Build>) -> Result<Build, ViewError> {
        let build = self.newest(name, build).await?;
        self.all.resume(name, build).await.map(|()| build)
    }

    /// Gives readers a build. Returns it, and the position up to which they were given the one before.
    pub async fn switch(
        &self,
        name: &ViewName,
        build: Option<Build>,
        accept_parked: bool,
    ) -> Result<(Build, Position), ViewError> {
        let build = self.newest(name, build).await?;
        self.all.switch(name, build, accept_parked).await.map(|at| (build, at))
    }

    /// Drops a build that readers do not have.
    pub async fn drop_build(&self, name: &ViewName, build: Build) -> Result<(), ViewError> {
        self.all.drop_build(name, build).await
    }

    /// Parked events behind `after`, in order.
    pub async fn parked(
        &self,
        name: &ViewName,
        build: Option<Build>,
        after: Position,
        limit: u32,
    ) -> Result<Vec<ParkedEvent>, ViewError> {
        let build = self.live(name, build).await?;
        self.all.parked(name, build, after, limit).await
    }

    /// Events that were left out, behind `after`, in order.
    pub async fn skipped(
        &self,
        name: &ViewName,
        build: Option<Build>,
        after: Position,
        limit: u32,
    ) -> Result<Vec<SkippedEvent>, ViewError> {
        let build = self.live(name, build).await?;
        self.all.skipped(name, build, after, limit).await
    }

    /// Applies the parked events of a key, in order. Returns how many were applied.
    pub async fn replay(&self, name: &ViewName, build: Option<Build>, key: &str) -> Result<u64, ViewError> {
        let build = self.live(name, build).await?;
        self.all.replay(name, build, key).await
    }

    /// Leaves out an event for good, on record.
    pub async fn skip(
        &self,
        name: &ViewName,
        build: Option<Build>,
        position: Position,
        by: &str,
    ) -> Result<(), ViewError> {
        let build = self.live(name, build).await?;
        self.all.skip(name, build, position, by).await
    }

    /// Recounts the log for a build: whether it missed an event, or took one twice.
    pub async fn audit(&self, name: &ViewName, build: Option<Build>) -> Result<Audit, ViewError> {
        let build = self.live(name, build).await?;
        self.all.get(name).await?.audit(build).await
    }

    async fn newest(&self, name: &ViewName, build: Option<Build>) -> Result<Build, ViewError> {
        match build {
            Some(build) => Ok(build),
            None => last(&self.describe(name).await?),
        }
    }

    async fn live(&self, name: &ViewName, build: Option<Build>) -> Result<Build, ViewError> {
        if let Some(build) = build {
            return Ok(build);
        }
        let described = self.describe(name).await?;
        described.live.map_or_else(|| last(&described), Ok)
    }
}

fn last(described: &Description) -> Result<Build, ViewError> {
    let newest = described.builds.last().map(|build| build.build);
    newest.ok_or_else(|| ViewError::NotFound { view: described.name.clone() })
}
