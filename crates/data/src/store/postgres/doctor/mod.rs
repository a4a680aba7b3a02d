//! What ails a database that holds a store, and what to do about it.
//!
//! A store can be slow, stand still or lose what it acknowledged for reasons that lie outside of it: a setting, somebody's
//! forgotten transaction, a trigger. Each is looked for here by name, and each finding says what to do. Looking changes
//! nothing, needs no store that opens (a server that [`open`](super::open()) refuses is just what has to be examined), and holds
//! no lock that anybody waits for.
//!
//! | file | looks at |
//! |---|---|
//! | `settings` | what the server does to durability, whether it takes writes, connections and room for notifications left |
//! | `transactions` | sessions, prepared transactions and replication slots that hold something up, and what they hold |
//! | `log` | committed events without a position, dead rows in `pending` |
//! | `objects` | what is in the store's schema and was not made by quorate |
//! | `sagas` | open sagas that no node goes on with |
//! | `clock` | how far the server's clock is from this process's |
//!
//! **Guarantees.** It judges one moment: what a finding says was so when it was looked at. What is old is judged by the server's own
//! clock. What the user has no right to see is said, and not taken for health.
//!
//! **Not looked at**: standbys with `hot_standby_feedback` that pin `xmin`, and whether standbys are far behind.
//!
//! Sources: PostgreSQL, chapters 20 ("Server Configuration"), 25.1 ("Routine Vacuuming"), 28.2 ("The Cumulative Statistics System").

mod clock;
mod log;
mod objects;
mod sagas;
mod settings;
mod transactions;

use std::time::Duration;

use quorate_runtime::Env;
use tokio_postgres::{Client, Row, error::SqlState, types::Type};

use super::{Address, Config, connect::Connector, fault::Fault, tables};
use crate::store::StoreError;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Nothing is wrong: something to know, or that could not be looked at.
    Note,
    /// It works, and will not for ever, or not for everybody.
    Warning,
    /// Something stands still, or what was acknowledged may be lost.
    Danger,
}

impl Severity {
    /// As it is printed.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Danger => "danger",
        }
    }
}

/// Something that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What it is about, for programs: `fsync`, `prepared-transaction`, … Words are never given another meaning.
    pub about: &'static str,
    /// What is so, and what comes of it.
    pub what: String,
    /// What to do.
    pub advice: String,
}

/// From when on something counts.
#[derive(Clone, Copy, Debug)]
pub struct Thresholds {
    /// How long a transaction may be open or prepared. Default one minute.
    pub old: Duration,
    /// How large `pending` may be with hardly a row in it, in bytes. Default 32 MiB.
    pub bloat: u64,
    /// How far the clocks may be apart. Default one second.
    pub clock: Duration,
    /// How full the server's queue of notifications may be, as a part of 1. Five times as full is a danger. Default 0.1.
    pub queue: f64,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self { old: Duration::from_secs(60), bloat: 32 << 20, clock: Duration::from_secs(1), queue: 0.1 }
    }
}

/// Looks at the database of `config`, and says what was found: the worst first.
///
/// Takes some milliseconds, two seconds more if events wait for their positions, and five if a table of the store is locked.
///
/// # Errors
/// [`StoreError::Unreachable`] if it cannot be talked to, [`StoreError::TimedOut`] if looking takes it longer than 30 s, and
/// whatever else the server says. Nothing is ever changed.
///
/// # Cancel safety
/// Dropping the future abandons the examination; nothing is left on the server.
pub async fn examine(env: &Env, config: &Config, thresholds: Thresholds) -> Result<Vec<Finding>, StoreError> {
    const DOING: &str = "examining the database";
    let Config { address: Address(server), schema, connections, .. } = config;
    let client = Connector::new(env, server.clone()).connect().await.map_err(|fault| fault.into_store(DOING))?;
    let mut patient = Patient { client, schema: schema.clone(), thresholds, found: Vec::new() };
    let examined = patient.look(env, *connections).await;
    examined.map_err(|fault| fault.into_store(DOING))?;
    let mut found = patient.found;
    found.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    Ok(found)
}

/// The database, and what was found about it.
struct Patient {
    client: Client,
    /// The store's schema, as it is spelled: its letters need no quoting within quotes.
    schema: String,
    thresholds: Thresholds,
    found: Vec<Finding>,
}

impl Patient {
    async fn look(&mut self, env: &Env, connections: usize) -> Result<(), Fault> {
        let is_read_only = self.writes().await?;
        self.clocks(env).await?;
        // Whoever goes away in the middle leaves nothing on a server that others wait for.
        self.begin().await?;
        self.settings(connections).await?;
        let store = self.store().await;
        let store = self.unless_locked(store).await?.flatten();
        self.objects().await?;
        self.transactions(store).await?;
        if store.is_some() {
            let looked = self.sagas().await;
            self.unless_locked(looked).await?;
        }
        let waiting = match store {
            Some(_) => {
                let looked = self.bloat().await;
                self.unless_locked(looked).await?.flatten()
            }
            None => None,
        };
        self.client.batch_execute("COMMIT").await?;
        if let (Some(store), Some(first)) = (store, waiting) {
            env.sleep(log::LATE).await;
            self.begin().await?;
            let looked = self.positions(store, first, is_read_only).await;
            self.unless_locked(looked).await?;
            self.client.batch_execute("COMMIT").await?;
        }
        Ok(())
    }

    /// What a look at a table of the store came to. That somebody keeps it locked is a finding, and looking goes on without it.
    async fn unless_locked<T>(&mut self, looked: Result<T, Fault>) -> Result<Option<T>, Fault> {
        match looked {
            Ok(seen) => Ok(Some(seen)),
            Err(fault) if fault.has_code(SqlState::LOCK_NOT_AVAILABLE.code()) => {
                self.client.batch_execute("ROLLBACK").await?;
                self.begin().await?;
                self.danger(
                    "locked",
                    "a table of the store is locked: it could not be looked at, and nodes wait for it as well",
                    "end the transaction that another finding names with AccessExclusive; if none does, look again with \
                     --older-than 0s",
                );
                Ok(None)
            }
            Err(fault) => Err(fault),
        }
    }

    async fn begin(&self) -> Result<(), Fault> {
        let begin = "BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY; SET LOCAL statement_timeout = '30s'; \
                     SET LOCAL lock_timeout = '5s'";
        Ok(self.client.batch_execute(begin).await?)
    }

    /// The number of the store in the schema, if there is one that this code can look into.
    async fn store(&mut self) -> Result<Option<u64>, Fault> {
        const LOOK: &str =
            "SELECT count(*) FILTER (WHERE c.relname = 'meta') > 0, count(*) FILTER (WHERE c.relname = 'pending') > 0
            FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1";
        let row = self.one(LOOK, &[(&self.schema, Type::TEXT)]).await?;
        let (has_meta, has_pending): (bool, bool) = (row.try_get(0)?, row.try_get(1)?);
        if !(has_meta && has_pending) {
            let what = format!("there is no store in schema `{}`", self.schema);
            self.note(
                "tables",
                what,
                "`quorate serve` makes one; if there should be one, name its schema with --store.schema",
            );
            return Ok(None);
        }
        let rights = "SELECT has_schema_privilege(n.oid, 'USAGE') AND bool_and(has_table_privilege(c.oid, 'SELECT'))
            FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
            WHERE n.nspname = $1 AND c.relname IN ('meta', 'pending') GROUP BY n.oid";
        if !self.one(rights, &[(&self.schema, Type::TEXT)]).await?.try_get::<_, bool>(0)? {
            let what =
                format!("this user may not read the tables in schema `{}`: they were not looked at", self.schema);
            self.note("rights", what, "be the nodes' user, or a member of pg_read_all_data");
            return Ok(None);
        }
        let meta = format!("SELECT version, store FROM \"{}\".meta", self.schema);
        let Some(row) = self.client.query_typed_opt(&meta, &[]).await? else {
            let what = format!("\"{}\".meta is empty: nobody can tell which store this is", self.schema);
            self.danger("tables", what, "restore the database from a backup");
            return Ok(None);
        };
        let (version, store): (i32, i64) = (row.try_get(0)?, row.try_get(1)?);
        let (found, known) = (usize::try_from(version).unwrap_or(0), tables::newest());
        if found > known {
            let what = format!("the store's tables have version {found}, and this quorate knows up to {known}");
            self.danger("tables", what, "use the newer quorate that made them");
            return Ok(None);
        }
        if found < known {
            let what =
                format!("the store's tables have version {found}, and this quorate makes version {known} of them");
            self.note(
                "tables",
                what,
                "the next node of this version that starts does it; nodes of older ones no longer start then",
            );
        }
        if found == known {
            self.moved().await?;
            self.functions().await?;
        }
        Ok(Some(store.cast_unsigned()))
    }

    /// Whether the store is here to stay.
    async fn moved(&mut self) -> Result<(), Fault> {
        let told = tables::told(&self.client, &format!("\"{}\"", self.schema)).await?;
        let schema = self.schema.clone();
        if let Some(gone) = told.gone {
            let what = format!("the store in schema `{schema}` has moved to {}: nothing is written here", gone.to);
            self.note("moved", what, "start nodes there, and drop the schema once it has a backup");
        }
        if told.arriving.is_some() {
            let what = format!("a move into schema `{schema}` did not end: no node opens it");
            self.warn("moved", what, "repeat the same `quorate move`; drop the schema to give it up");
        }
        Ok(())
    }

    async fn one(
        &self,
        sql: &str,
        params: &[(&(dyn tokio_postgres::types::ToSql + Sync), Type)],
    ) -> Result<Row, Fault> {
        Ok(self.client.query_typed_one(sql, params).await?)
    }

    fn find(&mut self, severity: Severity, about: &'static str, what: impl Into<String>, advice: impl Into<String>) {
        self.found.push(Finding { severity, about, what: what.into(), advice: advice.into() });
    }

    fn danger(&mut self, about: &'static str, what: impl Into<String>, advice: impl Into<String>) {
        self.find(Severity::Danger, about, what, advice);
    }

    fn warn(&mut self, about: &'static str, what: impl Into<String>, advice: impl Into<String>) {
        self.find(Severity::Warning, about, what, advice);
    }

    fn note(&mut self, about: &'static str, what: impl Into<String>, advice: impl Into<String>) {
        self.find(Severity::Note, about, what, advice);
    }
}
