//! Beginning and dropping builds.

use std::collections::BTreeSet;

use super::{
    Build, BuildRow, Config, Namespace, ViewError, ViewName, effects, following, registered::Registered, rows,
};
use crate::{
    event::Position,
    store::{DynTx, Store, Value},
};

/// The most views of a store.
pub(super) const MAX_VIEWS: usize = 1_000;
/// The most builds of a view that lie beside each other.
pub(super) const MAX_BUILDS: usize = 8;
/// Rows of a dropped build that one transaction forgets.
const DROP_ROWS: u32 = 2_000;

/// The builds that `code` keeps up to date, oldest first.
pub(super) async fn of(from: &mut impl rows::Rows, code: &Registered) -> Result<Vec<BuildRow>, ViewError> {
    let mut builds = rows::builds(from, &code.name).await?;
    builds.retain(|build| build.version == code.version && build.fingerprint == code.fingerprint);
    Ok(builds)
}

/// Begins another build of a view, with empty tables.
pub(super) async fn begin(
    tx: &mut DynTx,
    code: &Registered,
    head: Position,
    switch: super::Switch,
) -> Result<BuildRow, ViewError> {
    let beside = rows::builds(tx, &code.name).await?;
    if beside.len() >= MAX_BUILDS {
        return Err(ViewError::TooMany { what: "builds of one view", max: MAX_BUILDS });
    }
    add_view(tx, &code.name).await?;
    let build = next(tx).await?;
    let namespace = Namespace::new(code.name.clone(), build);
    let schema = code.projection.schema();
    for statement in schema.statements() {
        tx.view_schema(build, &namespace.expand(statement)).await?;
    }
    let Config { mode, shards, on_poison, .. } = code.config;
    let row = BuildRow {
        build,
        view: code.name.clone(),
        version: code.version,
        fingerprint: code.fingerprint.clone(),
        tables: schema.tables().map(str::to_owned).collect(),
        shards,
        mode,
        on_poison,
        switch,
        paused: false,
        begun: head,
        effects_after: vec![head],
        effects_except: BTreeSet::new(),
        created_ns: code.env.wall().unix_nanos(),
        live: false,
        was_live: false,
    };
    insert(tx, &row).await?;
    Ok(row)
}

async fn add_view(tx: &mut DynTx, view: &ViewName) -> Result<(), ViewError> {
    let sql = "INSERT INTO quorate_view (name, live, switched) VALUES ($1, NULL, 0) ON CONFLICT (name) DO NOTHING";
    if tx.room_execute(sql, &[rows::text(view)]).await? == 0 {
        return Ok(());
    }
    let count = tx.room_query("SELECT count(*) FROM quorate_view", &[]).await?;
    let count = count.first().and_then(|row| row.at(0).as_i64()).and_then(|n| usize::try_from(n).ok());
    if count.unwrap_or_default() > MAX_VIEWS {
        return Err(ViewError::TooMany { what: "views", max: MAX_VIEWS });
    }
    Ok(())
}

/// A number that no build ever had: rows of dropped builds stay for its sake.
async fn next(tx: &mut DynTx) -> Result<Build, ViewError> {
    let last = tx.room_query("SELECT max(build) FROM quorate_view_build", &[]).await?;
    let last = last.first().and_then(|row| row.at(0).as_i64()).unwrap_or_default();
    let next =
        u32::try_from(last + 1).map_err(|_| ViewError::invalid("this store has used up all numbers of builds"))?;
    Ok(Build::new(next))
}

async fn insert(tx: &mut DynTx, row: &BuildRow) -> Result<(), ViewError> {
    let sql = "INSERT INTO quorate_view_build (build, view, version, fingerprint, tables, shards, mode, on_poison, switch,
        paused, begun, effects_after, created_ns, dropped) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, 0, $10, $11, $12, 0)";
    let params: Vec<Value> = vec![
        rows::of(row.build),
        rows::text(&row.view),
        row.version.into(),
        row.fingerprint.as_str().into(),
        row.tables.join(" ").into(),
        row.shards.into(),
        row.mode.as_str().into(),
        row.on_poison.as_str().into(),
        row.switch.as_str().into(),
        rows::position(row.begun),
        rows::positions_text(&row.effects_after).into(),
        row.created_ns.into(),
    ];
    tx.room_execute(sql, &params).await?;
    for shard in 0..row.shards {
        let sql =
            "INSERT INTO quorate_view_shard (build, shard, epoch, owner, beat, revision, checkpoint, inline, applied,
            parked, skipped, checksum, trouble, attempts, reason, ordered)
            VALUES ($1, $2, 0, '', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, '', '')";
        tx.room_execute(sql, &[rows::of(row.build), shard.into()]).await?;
    }
    Ok(())
}

/// Drops a build that readers do not have. Its rows are forgotten a few at a time, so that nobody has to wait long.
pub(super) async fn drop_build(store: &Store, row: BuildRow) -> Result<(), ViewError> {
    let (view, build, tables) = (row.view.clone(), row.build, row.tables.clone());
    store.transact(move |tx| Box::pin(mark_dropped(tx, row.clone()))).await.map_err(ViewError::of_transaction)?;
    sweep(store, &Namespace::new(view, build), tables).await
}

async fn mark_dropped(tx: &mut DynTx, row: BuildRow) -> Result<(), ViewError> {
    let found = rows::build(tx, row.build).await?;
    let found = found.ok_or_else(|| ViewError::NoBuild { view: row.view.clone(), build: row.build })?;
    if found.live {
        return Err(ViewError::Live { view: row.view, build: row.build });
    }
    tx.room_execute("UPDATE quorate_view_build SET dropped = 1 WHERE build = $1", &[rows::of(row.build)]).await?;
    tidy(tx, &Namespace::new(row.view, row.build)).await
}

/// Forgets what is known of a dropped build, its tables aside.
async fn tidy(tx: &mut DynTx, namespace: &Namespace) -> Result<(), ViewError> {
    let build = namespace.build();
    effects::forget(tx, build).await?;
    following::end_all(tx, namespace).await?;
    for of in ["shard", "parked", "skipped", "subject", "feed"] {
        tx.room_execute(&format!("DELETE FROM quorate_view_{of} WHERE build = $1"), &[rows::of(build)]).await?;
    }
    Ok(())
}

/// Forgets a view and drops all its builds, at once: nothing of it can be found from then on, and its name is free. What is
/// left to [sweep](sweep) away is returned. Rows of dropped builds stay, for the sake of their numbers.
pub(super) async fn forget(tx: &mut DynTx, view: &ViewName) -> Result<Vec<(Namespace, Vec<String>)>, ViewError> {
    let builds = rows::builds(tx, view).await?;
    tx.room_execute("UPDATE quorate_view_build SET dropped = 1 WHERE view = $1 AND dropped = 0", &[rows::text(view)])
        .await?;
    tx.room_execute("DELETE FROM quorate_view WHERE name = $1", &[rows::text(view)]).await?;
    tx.room_execute("DELETE FROM quorate_view_effect WHERE view = $1", &[rows::text(view)]).await?;
    // An append asks here whether it has to keep a view, and nobody could find one that refuses it.
    let sql = "DELETE FROM quorate_view_shard WHERE build IN (SELECT build FROM quorate_view_build WHERE view = $1)";
    tx.room_execute(sql, &[rows::text(view)]).await?;
    Ok(builds.into_iter().map(|row| (Namespace::new(row.view, row.build), row.tables)).collect())
}

/// Sweeps away what is left of a dropped build. Also for what a crash left of one.
pub(super) async fn sweep(store: &Store, namespace: &Namespace, tables: Vec<String>) -> Result<(), ViewError> {
    let of = namespace.clone();
    let tidied = store.transact(move |tx| {
        let of = of.clone();
        Box::pin(async move { tidy(tx, &of).await })
    });
    tidied.await.map_err(ViewError::of_transaction)?;
    for table in tables {
        let table = namespace.table(&table);
        while shrink(store, namespace.build(), table.clone()).await? {}
        let (build, sql) = (namespace.build(), format!("DROP TABLE IF EXISTS {table}"));
        let dropped = store.transact(move |tx| {
            let sql = sql.clone();
            Box::pin(async move { tx.view_schema(build, &sql).await.map_err(ViewError::from) })
        });
        dropped.await.map_err(ViewError::of_transaction)?;
    }
    let build = namespace.build();
    let swept = store.transact(move |tx| {
        let sql = "UPDATE quorate_view_build SET dropped = 2 WHERE build = $1";
        Box::pin(async move { tx.room_execute(sql, &[rows::of(build)]).await.map_err(ViewError::from) })
    });
    swept.await.map(|_| ()).map_err(ViewError::of_transaction)
}

/// Forgets some rows of a table; whether there may be more. Freed pages are overwritten, which takes the writer's time.
async fn shrink(store: &Store, build: Build, table: String) -> Result<bool, ViewError> {
    let sql = format!("DELETE FROM {table} WHERE rowid IN (SELECT rowid FROM {table} LIMIT {DROP_ROWS})");
    let deleted = store.transact(move |tx| {
        let sql = sql.clone();
        // A table without row ids, or one that is gone already, is dropped as a whole.
        Box::pin(async move { Ok::<_, ViewError>(tx.view_execute(build, &sql, &[]).await.unwrap_or(0)) })
    });
    deleted.await.map(|rows| rows > 0).map_err(ViewError::of_transaction)
}

/// Builds that were dropped and whose tables may still be there.
pub(super) async fn half_dropped(store: &Store) -> Result<Vec<(Namespace, Vec<String>)>, ViewError> {
    let sql = "SELECT view, build, tables FROM quorate_view_build WHERE dropped = 1";
    let found = store.room_query(sql, Vec::new()).await?;
    let one = |row: &crate::store::Row| {
        let view = ViewName::new(rows::string(row.at(0), "view")?);
        let view = view.map_err(|cause| ViewError::corrupt("quorate_view_build", cause))?;
        let build = u32::try_from(rows::unsigned(row.at(1), "build")?).unwrap_or(u32::MAX);
        let tables = rows::string(row.at(2), "tables")?.split(' ').map(str::to_owned).collect();
        Ok((Namespace::new(view, Build::new(build)), tables))
    };
    found.iter().map(one).collect()
}
