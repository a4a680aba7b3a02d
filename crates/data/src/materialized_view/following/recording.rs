//! The record of which rows changed: begun by the first follower, ended when nobody has followed for a while.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::sync::Semaphore;

use super::{
    super::{
        Build, BuildRow, Namespace, ViewError,
        query::{TableDescription, digest},
        rows,
        shared::Shared,
    },
    KEPT,
};
use crate::store::{DynTx, RoomTables, SqlError, Statement};

/// The table of recordings.
pub(crate) const TABLES: RoomTables = RoomTables {
    room: "view_follow",
    versions: &["
        CREATE TABLE quorate_view_follow (
            build BIGINT NOT NULL,
            name TEXT NOT NULL,
            recording BIGINT NOT NULL,
            kept BIGINT NOT NULL,
            used_ns BIGINT NOT NULL,
            PRIMARY KEY (build, name))
    "],
};

/// How often it is looked whether somebody still follows.
const TEND: Duration = Duration::from_secs(60);
/// Followers that read at once.
const READING: usize = 2;

/// What the followers of a process share.
pub(in super::super) struct Following {
    /// How many follow each table of each build.
    counts: Mutex<BTreeMap<(Build, String), usize>>,
    is_tended: AtomicBool,
    pub(super) turns: Semaphore,
}

impl Default for Following {
    fn default() -> Self {
        Self { counts: Mutex::default(), is_tended: AtomicBool::new(false), turns: Semaphore::new(READING) }
    }
}

/// Lives as long as somebody follows a table.
pub(super) struct Followed {
    shared: Arc<Shared>,
    what: (Build, String),
}

impl Followed {
    pub(super) fn new(shared: &Arc<Shared>, build: Build, table: &str) -> Self {
        let what = (build, table.to_owned());
        let mut counts = shared.following.counts.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry(what.clone()).or_default() += 1;
        drop(counts);
        Self { shared: shared.clone(), what }
    }
}

impl Drop for Followed {
    fn drop(&mut self) {
        let mut counts = self.shared.following.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.what) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.what);
            }
        }
    }
}

/// The table that says which rows of `table` changed.
pub(super) fn record_of(namespace: &Namespace, table: &str) -> String {
    quoted(namespace, table, "")
}

fn quoted(namespace: &Namespace, table: &str, what: &str) -> String {
    // Names of a view's tables do not end in `_`, and have no point.
    format!("\"{}\"", namespace.table(&format!("{table}_{what}")))
}

/// What asks for the number of the recording of a table, if it is recorded, and how many changes it keeps.
pub(super) fn recording_statement(build: Build, table: &str) -> Statement {
    let sql = "SELECT recording, kept FROM quorate_view_follow WHERE build = $1 AND name = $2";
    Statement::new(sql, [rows::of(build), table.into()])
}

/// Has changes of a table recorded, if they are not yet.
pub(super) async fn ensure(shared: &Arc<Shared>, build: &BuildRow, table: &TableDescription) -> Result<(), ViewError> {
    let store = &shared.store;
    tend(shared);
    let Statement { sql, params } = recording_statement(build.build, &table.name);
    if !store.room_query(&sql, params).await?.is_empty() {
        return Ok(());
    }
    // Never used again: a cursor of an earlier recording must not fit this one.
    let (chance, now) = (store.env().random("view/follow").u64(), store.env().wall().unix_nanos());
    let number = digest(&format!("{chance} {now} {}", store.head())) >> 1;
    let (namespace, table) = (Namespace::new(build.view.clone(), build.build), table.clone());
    let kept = i64::try_from(shared.gate.limits.changes.max(1)).unwrap_or(i64::MAX);
    let begun = store.transact(move |tx| {
        let (namespace, table) = (namespace.clone(), table.clone());
        Box::pin(async move { begin(tx, &namespace, &table, number, kept, now).await })
    });
    begun.await.map_err(ViewError::of_transaction)
}

async fn begin(
    tx: &mut DynTx,
    namespace: &Namespace,
    table: &TableDescription,
    number: u64,
    kept: i64,
    now: i64,
) -> Result<(), ViewError> {
    let build = namespace.build();
    if rows::build(tx, build).await?.is_none() {
        return Err(ViewError::NoBuild { view: namespace.view().clone(), build });
    }
    let sql = "INSERT INTO quorate_view_follow (build, name, recording, kept, used_ns) VALUES ($1, $2, $3, $4, $5)
        ON CONFLICT (build, name) DO NOTHING";
    let params = [rows::of(build), (*table.name).into(), rows::number(number), kept.into(), now.into()];
    if tx.room_execute(sql, &params).await? == 0 {
        return Ok(());
    }
    for statement in statements(namespace, table, kept) {
        tx.view_schema(build, &statement).await?;
    }
    Ok(())
}

/// The statements that have changes of `table` recorded.
///
/// A key has one entry, with the number of its last change, which is one higher than all before: the newest entry is never
/// removed, so numbers are not used again.
fn statements(namespace: &Namespace, table: &TableDescription, kept: i64) -> Vec<String> {
    let (rows, record) = (namespace.table(&table.name), record_of(namespace, &table.name));
    let each = |form: &dyn Fn(&str) -> String, between: &str| {
        table.key.iter().map(|column| form(column)).collect::<Vec<_>>().join(between)
    };
    let columns = each(&|column| format!("\"k_{column}\""), ", ");
    let values = |of: &str| each(&|column| format!("{of}.\"{column}\""), ", ");
    let is = |of: &str| each(&|column| format!("\"k_{column}\" IS {of}.\"{column}\""), " AND ");
    let same = each(&|column| format!("old.\"{column}\" IS new.\"{column}\""), " AND ");
    let next = format!("(SELECT coalesce(max(seq), 0) + 1 AS n FROM {record}) s");
    let add = |of: &str, gone: u8, born: &str| {
        format!(
            "INSERT INTO {record} (seq, gone, born, {columns}) SELECT s.n, {gone}, {born}, {} FROM {next};
             DELETE FROM {record} WHERE {} AND seq < (SELECT max(seq) FROM {record});",
            values(of),
            is(of)
        )
    };
    let known = format!("coalesce((SELECT max(born) FROM {record} WHERE {} AND gone = 0), 0)", is("new"));
    let prune = format!("DELETE FROM {record} WHERE seq <= (SELECT max(seq) FROM {record}) - {kept};");
    let trigger = |name: &str, on: &str, when: &str, body: &[String]| {
        let name = quoted(namespace, &table.name, name);
        format!("CREATE TRIGGER {name} AFTER {on} ON {rows} {when} BEGIN {} {prune} END", body.join(" "))
    };
    vec![
        format!(
            "CREATE TABLE {record} (seq INTEGER PRIMARY KEY, gone INTEGER NOT NULL, born INTEGER NOT NULL, {columns})"
        ),
        format!("CREATE INDEX {} ON {record} ({columns})", quoted(namespace, &table.name, ".key")),
        trigger(".insert", "INSERT", "", &[add("new", 0, "s.n")]),
        trigger(".update", "UPDATE", &format!("WHEN {same}"), &[add("new", 0, &known)]),
        trigger(".move", "UPDATE", &format!("WHEN NOT ({same})"), &[add("old", 1, "0"), add("new", 0, "s.n")]),
        trigger(".delete", "DELETE", "", &[add("old", 1, "0")]),
    ]
}

/// Ends the recordings of a build, and forgets what they say.
pub(in super::super) async fn end_all(tx: &mut DynTx, namespace: &Namespace) -> Result<(), SqlError> {
    let sql = "SELECT name FROM quorate_view_follow WHERE build = $1";
    for row in tx.room_query(sql, &[rows::of(namespace.build())]).await? {
        if let Some(table) = row.at(0).as_str() {
            end(tx, namespace, table).await?;
        }
    }
    Ok(())
}

async fn end(tx: &mut DynTx, namespace: &Namespace, table: &str) -> Result<(), SqlError> {
    let build = namespace.build();
    let sql = "DELETE FROM quorate_view_follow WHERE build = $1 AND name = $2";
    tx.room_execute(sql, &[rows::of(build), table.into()]).await?;
    for name in [".insert", ".update", ".move", ".delete"] {
        tx.view_schema(build, &format!("DROP TRIGGER IF EXISTS {}", quoted(namespace, table, name))).await?;
    }
    tx.view_schema(build, &format!("DROP TABLE IF EXISTS {}", record_of(namespace, table))).await?;
    Ok(())
}

/// Goes on tending recordings that an earlier process began.
pub(in super::super) async fn resume_tending(shared: &Arc<Shared>) -> Result<(), ViewError> {
    if !shared.store.room_query("SELECT 1 FROM quorate_view_follow LIMIT 1", Vec::new()).await?.is_empty() {
        tend(shared);
    }
    Ok(())
}

/// Has somebody look now and then which recordings are still wanted.
fn tend(shared: &Arc<Shared>) {
    if shared.following.is_tended.swap(true, Ordering::Relaxed) {
        return;
    }
    let (weak, env, stop) = (Arc::downgrade(shared), shared.store.env().clone(), shared.tasks.stop().clone());
    shared.tasks.spawn("recordings", async move {
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = env.sleep(TEND) => {}
            }
            let Some(shared) = weak.upgrade() else { return };
            if let Err(failed) = look_after(&shared).await {
                tracing::warn!(%failed, "recordings of changes are looked after again later");
            }
        }
    });
}

/// Ends what nobody wants any more.
async fn look_after(shared: &Shared) -> Result<(), ViewError> {
    let store = &shared.store;
    let now = store.env().wall();
    let sql = "SELECT f.build, f.name, f.used_ns, b.view FROM quorate_view_follow f
        JOIN quorate_view_build b ON b.build = f.build";
    for row in store.room_query(sql, Vec::new()).await? {
        let (number, table) = (rows::unsigned(row.at(0), "build")?, rows::string(row.at(1), "name")?.to_owned());
        let build = Build::new(u32::try_from(number).unwrap_or(u32::MAX));
        let view = super::super::ViewName::new(rows::string(row.at(3), "view")?);
        let view = view.map_err(|cause| ViewError::corrupt("quorate_view_build", cause))?;
        let is_followed = {
            let counts = shared.following.counts.lock().unwrap_or_else(PoisonError::into_inner);
            counts.contains_key(&(build, table.clone()))
        };
        let used = quorate_foundations::time::Wall::from_unix_nanos(row.at(2).as_i64().unwrap_or_default());
        if !is_followed && now.saturating_since(used) < KEPT {
            continue;
        }
        let namespace = Namespace::new(view, build);
        let done = store.transact(move |tx| {
            let (namespace, table) = (namespace.clone(), table.clone());
            Box::pin(async move {
                if !is_followed {
                    return end(tx, &namespace, &table).await.map_err(ViewError::from);
                }
                let sql = "UPDATE quorate_view_follow SET used_ns = $1 WHERE build = $2 AND name = $3";
                let params = [now.unix_nanos().into(), rows::of(build), table.into()];
                tx.room_execute(sql, &params).await.map(|_| ()).map_err(ViewError::from)
            })
        });
        done.await.map_err(ViewError::of_transaction)?;
    }
    Ok(())
}
