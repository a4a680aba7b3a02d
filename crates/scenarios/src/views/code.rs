//! The views: how many events each stream has, and the sum of their positions.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use quorate_data::{
    event::Recorded,
    materialized_view::{
        ApplyError, Effect, EffectHandler, EffectType, OnRebuild, Projection, Schema, ViewError, ViewName, ViewTx,
        declared::{Document, Format},
    },
    store::{Query, QueryItem},
};
use quorate_runtime::BoxFuture;

use crate::notes::{Action, Notes};

/// Counts events per stream.
pub(super) struct Tally {
    name: ViewName,
    query: Query,
    cured: Arc<AtomicBool>,
}

impl Tally {
    /// The view `name` of the events of these types, or of all.
    pub(super) fn named(name: &str, types: &[&str], cured: &Arc<AtomicBool>) -> Self {
        let name = ViewName::new(name).unwrap_or_else(|cause| unreachable!("names of the scenario are names: {cause}"));
        let items = (!types.is_empty()).then(|| QueryItem::types(types.iter().copied()));
        Self { name, query: Query::of(items), cured: cured.clone() }
    }

    async fn take(&self, tx: &mut ViewTx<'_>, event: &Recorded) -> Result<(), ApplyError> {
        if event.kind() == "poison" && !self.cured.load(Ordering::Relaxed) {
            return Err(ApplyError::event(event, "it is poison"));
        }
        if event.kind() == "mailed" && ["tally", "inline"].contains(&self.name.as_str()) {
            tx.effect(event, "letter", event.stream());
        }
        let position = event.position().get().cast_signed();
        let sql = "INSERT INTO {tally} (stream, n, places) VALUES ($1, 1, $2)
            ON CONFLICT (stream) DO UPDATE SET n = n + 1, places = places + $2";
        tx.execute(sql, &[event.stream().into(), position.into()]).await?;
        Ok(())
    }
}

impl Projection for Tally {
    fn name(&self) -> &ViewName {
        &self.name
    }

    fn version(&self) -> u32 {
        1
    }

    fn query(&self) -> Query {
        self.query.clone()
    }

    fn schema(&self) -> Schema {
        let sql = "CREATE TABLE {tally} (stream TEXT PRIMARY KEY, n BIGINT NOT NULL, places BIGINT NOT NULL)";
        Schema::new().table("tally", sql)
    }

    fn apply<'t, 'x: 't>(
        &'t self,
        tx: &'t mut ViewTx<'x>,
        events: &'t [Recorded],
    ) -> BoxFuture<'t, Result<(), ApplyError>> {
        Box::pin(async move {
            for event in events {
                self.take(tx, event).await?;
            }
            Ok(())
        })
    }

    fn effects(&self) -> Vec<EffectType> {
        vec![EffectType { name: "letter", on_rebuild: OnRebuild::Suppress }]
    }
}

/// The same without code: the first version of it, or a later one, which keeps the same rows.
pub(super) fn document(version: u32) -> Result<Document, ViewError> {
    let text = format!(
        r#"
        view = "declared"
        version = {version}
        on-poison = "skip"

        [tables.tally]
        key = "stream"
        columns = {{ stream = "text", n = "integer", places = "integer" }}

        [[on]]
        bind = {{ stream = "$.stream", place = {{ path = "$.logposition", type = "integer" }} }}
        sql = """
            INSERT INTO tally (stream, n, places) VALUES (:stream, 1, :place)
            ON CONFLICT (stream) DO UPDATE SET n = tally.n + 1, places = tally.places + excluded.places"""

        [[on]]
        type = "poison"
        bind = {{ stream = "$.data.cure" }}
        sql = "DELETE FROM tally WHERE stream = :stream"
        "#
    );
    Document::read(&text, Format::Toml).map_err(ViewError::Document)
}

/// The post: what arrives has arrived, whatever becomes of the sender.
pub(super) struct Letters(pub(super) Notes);

impl EffectHandler for Letters {
    fn carry_out<'e>(&'e self, effect: &'e Effect) -> BoxFuture<'e, Result<(), String>> {
        Box::pin(async move {
            self.0.add("post", self.0.now(), Action::Letter { key: effect.key() });
            Ok(())
        })
    }
}
