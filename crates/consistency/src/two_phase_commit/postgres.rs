//! PostgreSQL as a participant: its own prepared transactions.
//!
//! What was prepared survives the session, the server's crash and its restart, and holds its locks until it is told how it ends. So
//! whoever uses this watches [`oldest_doubt`](super::Coordinator::oldest_doubt), and the server's `max_prepared_transactions` has to allow as many
//! at a time as there are transactions under way.
//!
//! A server knows a gid once, over all its databases: each participant puts its own name behind the transaction's,
//! `quorate:<uuid>:<txn>:<name>`. Only such gids of the coordinator are ever ended, and each over a connection to the database it was prepared in. A transaction that has notified
//! (`NOTIFY`, or a trigger that does) cannot be prepared: the server refuses it, and the vote is *no*. Work that begins with SELECT and
//! changes nothing is rolled back, and so is what it notified.
//!
//! What somebody ends by hand on the server (`ROLLBACK PREPARED`) is told as long as the process that prepared it runs: the server knows it by its
//! number. After a restart there is no trace of it, neither here nor there, and it is taken for what was decided.

mod connections;
mod endings;
mod promises;
mod wire;
mod work;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use quorate_data::store::postgres::Address;
use quorate_runtime::{BoxFuture, Env};
use tokio_postgres::types::Type;

use self::{
    connections::{Connections, Lease},
    wire::unanswered,
    work::read,
};
use super::{CoordinatorId, Ending, Gid, Participant, ParticipantError, Prepared, Vote, Work};

/// How a database takes part.
#[derive(Clone, Debug)]
pub struct PostgresConfig {
    /// Where it is: the database in which the work is done.
    pub address: Address,
    /// What stands behind the transaction's name in its gids: 1 to 64 letters, digits, `.`, `_` and `-`. Different for the participants of one
    /// server, and never changed while something is prepared.
    pub branch: String,
    /// Connections for work at most, and as many again for ending it. Default 16.
    pub connections: usize,
    /// How long a statement may run, or wait for a lock. Default 5 s.
    pub statement_timeout: Duration,
}

impl PostgresConfig {
    /// The database at `address`, whose gids end with `branch`, with the defaults.
    pub fn at(address: Address, branch: impl Into<String>) -> Self {
        Self { address, branch: branch.into(), connections: 16, statement_timeout: Duration::from_secs(5) }
    }
}

/// A participant that is a PostgreSQL database. Its work is [`SqlWork`](super::SqlWork), of which it takes what is to be prepared. Cheap to clone.
#[derive(Clone)]
pub struct Postgres {
    env: Env,
    branch: Arc<str>,
    connections: Arc<Connections>,
    /// For ending what is prepared: never behind work that waits for it.
    endings: Arc<Connections>,
    /// The server's numbers of what was promised here and has not ended: it knows by these what became of it.
    promised: Arc<Mutex<BTreeMap<Gid, String>>>,
}

impl Postgres {
    /// The database of `config`. Nothing is connected yet: a server that is away is a vote of *no*.
    ///
    /// # Errors
    /// [`ParticipantError::Unsuitable`] for a branch that is no part of a gid.
    pub fn new(env: &Env, config: PostgresConfig) -> Result<Self, ParticipantError> {
        let branch = &*config.branch;
        let is_plain = branch.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
        if !is_plain || branch.is_empty() || branch.len() > 64 {
            let what = format!("a branch is 1 to 64 letters, digits, `.`, `_` and `-`, `{branch}` is not");
            return Err(ParticipantError::Unsuitable { what });
        }
        let (branch, endings) = (branch.into(), Connections::new(env, config.clone()));
        let connections = Connections::new(env, config);
        Ok(Self { env: env.clone(), branch, connections, endings, promised: Arc::default() })
    }

    /// What the server calls this participant's part of a transaction. There is nothing in it that would have to be quoted.
    fn own(&self, gid: &Gid) -> String {
        format!("{gid}:{}", self.branch)
    }

    /// Whether the server can take part at all, now.
    ///
    /// # Errors
    /// [`ParticipantError::Unsuitable`] where its `max_prepared_transactions` is 0, with what to do.
    pub async fn check(&self) -> Result<(), ParticipantError> {
        self.connections.lease().await.map(Lease::keep)
    }

    fn promised(&self) -> MutexGuard<'_, BTreeMap<Gid, String>> {
        self.promised.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Participant for Postgres {
    fn prepare<'a>(&'a self, gid: &'a Gid, work: &'a Work) -> BoxFuture<'a, Result<Vote, ParticipantError>> {
        Box::pin(async move { self.prepared(gid, &read(work)?).await })
    }

    fn commit<'a>(&'a self, gid: &'a Gid) -> BoxFuture<'a, Result<(), ParticipantError>> {
        Box::pin(self.end(Ending::Commit, gid))
    }

    fn abort<'a>(&'a self, gid: &'a Gid) -> BoxFuture<'a, Result<(), ParticipantError>> {
        Box::pin(self.end(Ending::Abort, gid))
    }

    fn in_doubt(&self, coordinator: CoordinatorId) -> BoxFuture<'_, Result<Vec<Prepared>, ParticipantError>> {
        const LOOK: &str = "SELECT x.gid, extract(epoch FROM clock_timestamp() - x.prepared)::float8, ARRAY(
                SELECT DISTINCT l.mode || ' on ' || n.nspname || '.' || c.relname
                FROM pg_locks l JOIN pg_class c ON c.oid = l.relation JOIN pg_namespace n ON n.oid = c.relnamespace
                WHERE l.locktype = 'relation' AND c.relkind IN ('r', 'p', 'm', 'f') AND l.virtualtransaction = (
                    SELECT o.virtualtransaction FROM pg_locks o WHERE o.locktype = 'transactionid'
                    AND o.transactionid = x.transaction AND o.granted AND o.pid IS NULL LIMIT 1) ORDER BY 1)
            FROM pg_prepared_xacts x WHERE x.database = current_database() AND starts_with(x.gid, $1) ORDER BY x.prepared";
        Box::pin(async move {
            let lease = self.endings.lease().await?;
            let prefix = coordinator.prefix();
            let rows = lease.query_typed(LOOK, &[(&prefix, Type::TEXT)]).await.map_err(|failed| unanswered(&failed))?;
            lease.keep();
            let prepared = rows.iter().filter_map(|row| {
                // What begins like ours and is none is left alone, and so is another participant's.
                let gid = row.get::<_, &str>(0).strip_suffix(&*self.branch)?.strip_suffix(':')?.parse().ok()?;
                let age = Duration::try_from_secs_f64(row.get(1)).unwrap_or_default();
                Some(Prepared { gid, age: Some(age), held: row.get(2) })
            });
            Ok(prepared.collect())
        })
    }

    fn has_one_phase(&self) -> bool {
        true
    }

    fn one_phase<'a>(&'a self, gid: &'a Gid, work: &'a Work) -> BoxFuture<'a, Result<Vote, ParticipantError>> {
        Box::pin(async move { self.done_at_once(gid, &read(work)?).await })
    }
}
