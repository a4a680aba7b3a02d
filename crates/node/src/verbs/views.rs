//! Views by name: how they stand, and what an operator does with them.

use std::time::Duration;

use quorate_data::{
    event::Position,
    materialized_view::{
        Answer, Audit, Build, Description, FollowQuery, Follower, Freshness, OpenEffect, ParkedEvent, QueryLimits,
        RowsQuery, SkippedEvent, Switch, TableDescription, View, ViewError, ViewName, Views,
        declared::{Asked, Declaration, Document, Explanation, StoredDocument},
    },
    store::{Store, StoreError, Token, Value},
};

/// Why there is no row.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RowError {
    /// The table has none with that key.
    #[error("table `{table}` of view `{view}` has no row with this key, as of position {position}")]
    Missing {
        /// The view.
        view: ViewName,
        /// The table.
        table: String,
        /// How far the view was.
        position: Position,
    },
    /// The view could not be asked.
    #[error(transparent)]
    View(#[from] ViewError),
}

/// The verbs on views. Cheap to clone.
///
/// Where no build is named, a verb is about the newest one if it is about the making of views, and about the one that readers
/// have if it is about their rows. Every verb fails with [`ViewError::NotFound`] if there is no view of that name, and with
/// [`StoreError::Unsupported`] where the store keeps no views.
#[derive(Clone)]
pub struct ViewCare {
    all: Result<Views, StoreError>,
}

impl ViewCare {
    /// The verbs on the views of `store`, whose tables are made if they are not there. Views that were declared go on; of one
    /// that cannot, its description says why, and the rest of the node does not wait for it.
    pub async fn open(store: &Store, queries: QueryLimits) -> Result<Self, ViewError> {
        let all = match Views::open_with(store, queries).await {
            Err(ViewError::Store(cause @ StoreError::Unsupported { .. })) => Err(cause),
            opened => Ok(opened?),
        };
        if let Ok(views) = &all {
            views.start_declared().await?;
        }
        Ok(Self { all })
    }

    /// The views themselves: to start some, and to read them.
    pub fn views(&self) -> Result<&Views, ViewError> {
        self.all.as_ref().map_err(|cause| cause.clone().into())
    }

    /// How each view stands, at most `limit` of those behind `after`, in order of their names.
    pub async fn list(&self, after: Option<&ViewName>, limit: usize) -> Result<Vec<Description>, ViewError> {
        let behind = |view: &View| after.is_none_or(|after| view.name() > after);
        let mut found = Vec::new();
        for view in self.views()?.list().await?.into_iter().filter(behind) {
            if found.len() == limit {
                break;
            }
            match view.describe().await {
                Ok(described) => found.push(described),
                // Somebody deleted it meanwhile.
                Err(ViewError::NotFound { .. }) => {}
                Err(failed) => return Err(failed),
            }
        }
        Ok(found)
    }

    /// Declares a view.
    pub async fn declare(&self, document: Document) -> Result<Declaration, ViewError> {
        self.views()?.declare(document).await
    }

    /// Checks a document as declaring it does, and changes nothing.
    pub async fn check(&self, document: Document) -> Result<(), ViewError> {
        self.views()?.check(std::sync::Arc::new(document)).await
    }

    /// A document as it was declared; of the newest version where none is named.
    pub async fn document(&self, name: &ViewName, version: Option<u32>) -> Result<StoredDocument, ViewError> {
        self.views()?.document(name, version).await
    }

    /// The versions of a view that were declared, oldest first; none for a view that is kept by code.
    pub async fn declared_versions(&self, name: &ViewName) -> Result<Vec<u32>, ViewError> {
        self.views()?.declared_versions(name).await
    }

    /// Deletes a view with its documents and all its builds.
    pub async fn delete(&self, name: &ViewName) -> Result<(), ViewError> {
        self.views()?.delete(name).await
    }

    /// The events that made a row of a declared view.
    pub async fn explain(&self, name: &ViewName, asked: &Asked) -> Result<Explanation, ViewError> {
        self.views()?.explain(name, asked).await
    }

    /// How a view stands.
    pub async fn describe(&self, name: &ViewName) -> Result<Description, ViewError> {
        self.views()?.get(name).await?.describe().await
    }

    /// Begins another build beside the one readers have.
    pub async fn rebuild(&self, name: &ViewName, switch: Switch) -> Result<Build, ViewError> {
        self.views()?.get(name).await?;
        self.views()?.rebuild(name, switch).await
    }

    /// Pauses a build.
    pub async fn pause(&self, name: &ViewName, build: Option<Build>) -> Result<Build, ViewError> {
        let build = self.newest(name, build).await?;
        self.views()?.pause(name, build).await.map(|()| build)
    }

    /// Has a build go on that was paused, or that stopped before an event.
    pub async fn resume(&self, name: &ViewName, build: Option<Build>) -> Result<Build, ViewError> {
        let build = self.newest(name, build).await?;
        self.views()?.resume(name, build).await.map(|()| build)
    }

    /// Gives readers a build. Returns it, and the position up to which they were given the one before.
    pub async fn switch(
        &self,
        name: &ViewName,
        build: Option<Build>,
        accept_parked: bool,
    ) -> Result<(Build, Position), ViewError> {
        let build = self.newest(name, build).await?;
        self.views()?.switch(name, build, accept_parked).await.map(|at| (build, at))
    }

    /// Drops a build that readers do not have.
    pub async fn drop_build(&self, name: &ViewName, build: Build) -> Result<(), ViewError> {
        self.views()?.drop_build(name, build).await
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
        self.views()?.parked(name, build, after, limit).await
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
        self.views()?.skipped(name, build, after, limit).await
    }

    /// Applies the parked events of a key, in order. Returns how many were applied.
    pub async fn replay(&self, name: &ViewName, build: Option<Build>, key: &str) -> Result<u64, ViewError> {
        let build = self.live(name, build).await?;
        self.views()?.replay(name, build, key).await
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
        self.views()?.skip(name, build, position, by).await
    }

    /// Effects that were not carried out yet, behind `after`, in order.
    pub async fn effects(
        &self,
        name: &ViewName,
        after: Option<(Position, u32)>,
        limit: u32,
    ) -> Result<Vec<OpenEffect>, ViewError> {
        self.views()?.get(name).await?.effects(after, limit).await
    }

    /// Has all effects that were given up tried anew. Returns how many there are.
    pub async fn retry_effects(&self, name: &ViewName) -> Result<u64, ViewError> {
        self.views()?.get(name).await?.retry_effects().await
    }

    /// Leaves out an effect for good; whether there was one.
    pub async fn skip_effect(&self, name: &ViewName, position: Position, ordinal: u32) -> Result<bool, ViewError> {
        self.views()?.get(name).await?.skip_effect(position, ordinal).await
    }

    /// The tables that readers have, and what may be asked of them.
    pub async fn tables(&self, name: &ViewName) -> Result<Vec<TableDescription>, ViewError> {
        self.views()?.get(name).await?.tables().await
    }

    /// A page of a table.
    pub async fn rows(&self, name: &ViewName, query: &RowsQuery, fresh: Freshness) -> Result<Answer, ViewError> {
        self.views()?.get(name).await?.rows(query, fresh).await
    }

    /// The row with this key.
    ///
    /// # Errors
    /// [`RowError::Missing`] where there is none.
    pub async fn row(&self, name: &ViewName, table: &str, key: &[&str], fresh: Freshness) -> Result<Answer, RowError> {
        let answer = self.views()?.get(name).await?.row(table, key, fresh).await?;
        if answer.rows.is_empty() {
            let position = answer.as_of.position;
            return Err(RowError::Missing { view: name.clone(), table: table.to_owned(), position });
        }
        Ok(answer)
    }

    /// The rows of a query in SQL.
    pub async fn query(
        &self,
        name: &ViewName,
        sql: &str,
        params: Vec<Value>,
        fresh: Freshness,
    ) -> Result<Answer, ViewError> {
        self.views()?.get(name).await?.sql(sql, params, fresh).await
    }

    /// Waits until a view has seen what `token` stands for.
    pub async fn wait(&self, name: &ViewName, token: Token, within: Duration) -> Result<Position, ViewError> {
        self.views()?.get(name).await?.wait(token, within).await
    }

    /// Follows a table: all rows, or what changed behind `cursor`, and then what changes.
    pub async fn follow(
        &self,
        name: &ViewName,
        query: FollowQuery,
        cursor: Option<&str>,
    ) -> Result<Follower, ViewError> {
        self.views()?.get(name).await?.follow(query, cursor).await
    }

    /// Recounts the log for a build: whether it missed an event, or took one twice.
    pub async fn audit(&self, name: &ViewName, build: Option<Build>) -> Result<Audit, ViewError> {
        let build = self.live(name, build).await?;
        self.views()?.get(name).await?.audit(build).await
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

#[cfg(test)]
mod tests {
    use quorate_data::{
        materialized_view::{QueryLimits, declared::Format},
        store::sqlite,
    };
    use quorate_runtime::Env;

    use super::*;

    fn visits(name: &str) -> Document {
        let text = format!(
            r#"view = "{name}"
version = 1
[tables.visit]
key = "stream"
columns = {{ stream = "text" }}
[[on]]
bind = {{ stream = "$.stream" }}
sql = "INSERT INTO visit (stream) VALUES (:stream) ON CONFLICT (stream) DO NOTHING"
"#
        );
        Document::read(&text, Format::Toml).unwrap()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_list_of_views_lacks_those_that_are_deleted_while_it_is_made() {
        let at = tempfile::tempdir().unwrap();
        let store = sqlite::open(&Env::real(), sqlite::Config::at(at.path().join("log.db"))).await.unwrap();
        let views = ViewCare::open(&store, QueryLimits::default()).await.unwrap();
        views.declare(visits("stays")).await.unwrap();
        for _ in 0..5 {
            let names: Vec<String> = (0..8).map(|n| format!("goes-{n}")).collect();
            for name in &names {
                views.declare(visits(name)).await.unwrap();
            }
            let deleting = async {
                for name in &names {
                    views.delete(&name.parse().unwrap()).await.unwrap();
                }
            };
            let listing = async {
                loop {
                    let all = views.list(None, 100).await.unwrap();
                    assert!(all.iter().any(|view| view.name.as_str() == "stays"));
                    if all.len() == 1 {
                        return;
                    }
                }
            };
            tokio::join!(deleting, listing);
        }
    }
}
