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

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::BytesMut;
use futures_util::future::{join_all, join3, join4};
use quorate_data::store::postgres::Address;
use quorate_runtime::{BoxFuture, Env};
use tokio_postgres::{
    Error, Statement as Ready,
    error::SqlState,
    types::{Format, IsNull, ToSql, Type},
};

use self::connections::{Connections, Lease};
use super::{
    CoordinatorId, Ending, Gid, Participant, ParticipantError, Prepared, Vote, Work,
    sql::{Param, SqlWork, Statement},
};

type Wrong = Box<dyn std::error::Error + Sync + Send>;

/// How often it is looked whether a commit whose answer was lost has ended.
const LOOKS: u32 = 40;
const LOOK_PAUSE: Duration = Duration::from_millis(50);
const NUMBER: &str = "SELECT pg_current_xact_id()::text";

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

/// A participant that is a PostgreSQL database. Its work is [`SqlWork`], of which it takes what is to be prepared. Cheap to clone.
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

/// What a statement is given, as text: the server reads it as what stands there.
#[derive(Debug)]
struct Given<'p>(&'p Param);

impl ToSql for Given<'_> {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Wrong> {
        let text: &str = match self.0 {
            Param::Null => return Ok(IsNull::Yes),
            Param::Boolean(true) => "true",
            Param::Boolean(false) => "false",
            Param::Integer(n) => &n.to_string(),
            Param::Real(x) => &x.to_string(),
            Param::Text(text) => text,
        };
        out.extend_from_slice(text.as_bytes());
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn encode_format(&self, _: &Type) -> Format {
        Format::Text
    }

    fn to_sql_checked(&self, kind: &Type, out: &mut BytesMut) -> Result<IsNull, Wrong> {
        self.to_sql(kind, out)
    }
}

/// What came of the statements of a transaction that the server did not lose.
enum Ran {
    /// All of them did what they should.
    All,
    /// One of them changed another number of rows than it should: the transaction must not be.
    Not(String),
    /// One of them failed: the server takes nothing more of the transaction, and prepares nothing.
    Failed(String),
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

    async fn prepared(&self, gid: &Gid, work: &SqlWork) -> Result<Vote, ParticipantError> {
        let mut lease = self.connections.lease().await?;
        let statements = match lease.ready(&work.prepare).await {
            Ok(statements) => statements,
            Err(failed) => return refused(lease, failed),
        };
        if work.prepare.iter().all(|statement| only_reads(&statement.sql)) {
            return self.read(lease, gid, work, &statements).await;
        }
        // In one go: the server prepares nothing where a statement before it failed.
        let end = format!("PREPARE TRANSACTION '{}'", self.own(gid));
        let runs = join_all(work.prepare.iter().zip(&statements).map(|(given, ready)| run(&lease, given, ready)));
        let (begun, number) = (lease.batch_execute("BEGIN"), lease.query_typed_one(NUMBER, &[]));
        let (begun, ran, number, ended) = join4(begun, runs, number, lease.batch_execute(&end)).await;
        match judge(&work.prepare, begun, ran) {
            Ok(Ran::All) => {
                // In time for whoever is told of the vote.
                if let Ok(number) = number {
                    self.promised().insert(*gid, number.get(0));
                }
                match ended {
                    Ok(()) => {
                        lease.keep();
                        Ok(Vote::Yes)
                    }
                    Err(failed) if !is_lost(&failed) => {
                        self.promised().remove(gid);
                        Ok(Vote::No { why: said(&failed) })
                    }
                    Err(failed) => {
                        drop(lease);
                        self.look(gid, &failed).await
                    }
                }
            }
            Ok(Ran::Not(why)) => {
                if ended.is_ok() {
                    self.undo(&lease, gid).await?;
                    lease.keep();
                }
                Ok(Vote::No { why })
            }
            Ok(Ran::Failed(why)) => {
                if ended.is_ok() {
                    lease.keep();
                }
                Ok(Vote::No { why })
            }
            Err(failed) => Err(unanswered(&failed)),
        }
    }

    /// Prepares what may hold nothing: then there is nothing to prepare.
    async fn read(
        &self,
        lease: Lease,
        gid: &Gid,
        work: &SqlWork,
        statements: &[Ready],
    ) -> Result<Vote, ParticipantError> {
        const WRITES: &str = "SELECT pg_current_xact_id_if_assigned() IS NOT NULL";
        let runs = join_all(work.prepare.iter().zip(statements).map(|(given, ready)| run(&lease, given, ready)));
        let (begun, ran, writes) = join3(lease.batch_execute("BEGIN"), runs, lease.query_typed_one(WRITES, &[])).await;
        let ran = judge(&work.prepare, begun, ran).map_err(|failed| unanswered(&failed))?;
        let end = match (&ran, writes.as_ref().map(|row| row.get::<_, bool>(0))) {
            (Ran::All, Ok(true)) => format!("PREPARE TRANSACTION '{}'", self.own(gid)),
            _ => "ROLLBACK".to_owned(),
        };
        match (ran, lease.batch_execute(&end).await) {
            (_, Err(failed)) if !is_lost(&failed) => Ok(Vote::No { why: said(&failed) }),
            (_, Err(failed)) => Err(unanswered(&failed)),
            (Ran::Not(why) | Ran::Failed(why), Ok(())) => {
                lease.keep();
                Ok(Vote::No { why })
            }
            (Ran::All, Ok(())) => {
                lease.keep();
                writes.map_err(|failed| unanswered(&failed))?;
                Ok(if end == "ROLLBACK" { Vote::ReadOnly } else { Vote::Yes })
            }
        }
    }

    async fn undo(&self, lease: &Lease, gid: &Gid) -> Result<(), ParticipantError> {
        lease
            .batch_execute(&format!("ROLLBACK PREPARED '{}'", self.own(gid)))
            .await
            .map_err(|failed| unanswered(&failed))
    }

    /// Whether a transaction is prepared whose answer was lost.
    async fn look(&self, gid: &Gid, lost: &Error) -> Result<Vote, ParticipantError> {
        const LOOK: &str = "SELECT count(*) FROM pg_prepared_xacts WHERE gid = $1 AND database = current_database()";
        self.env.reached("txn: the answer to a PREPARE TRANSACTION was lost");
        let lease = self.endings.lease().await?;
        let found = lease.query_typed_one(LOOK, &[(&self.own(gid), Type::TEXT)]).await;
        let count: i64 = found.map_err(|failed| unanswered(&failed))?.get(0);
        lease.keep();
        // Where it is not, it may still come: whoever sweeps finds it then.
        if count == 1 { Ok(Vote::Yes) } else { Err(unanswered(lost)) }
    }

    async fn done_at_once(&self, work: &SqlWork) -> Result<Vote, ParticipantError> {
        let mut lease = self.connections.lease().await?;
        let statements = match lease.ready(&work.prepare).await {
            Ok(statements) => statements,
            Err(failed) => return refused(lease, failed),
        };
        let runs = join_all(work.prepare.iter().zip(&statements).map(|(given, ready)| run(&lease, given, ready)));
        let (begun, ran, number) = join3(lease.batch_execute("BEGIN"), runs, lease.query_typed_one(NUMBER, &[])).await;
        // Whatever was lost so far was not told to commit.
        let ran =
            judge(&work.prepare, begun, ran).map_err(|failed| ParticipantError::Failed { what: said(&failed) })?;
        if let Ran::Not(why) | Ran::Failed(why) = ran {
            if lease.batch_execute("ROLLBACK").await.is_ok() {
                lease.keep();
            }
            return Ok(Vote::No { why });
        }
        let number: String = number.map_err(|failed| ParticipantError::Failed { what: said(&failed) })?.get(0);
        match lease.batch_execute("COMMIT").await {
            Ok(()) => {
                lease.keep();
                Ok(Vote::Yes)
            }
            Err(failed) if !is_lost(&failed) => Ok(Vote::No { why: said(&failed) }),
            Err(failed) => {
                drop(lease);
                self.look_at_commit(&number, &failed).await
            }
        }
    }

    /// What became of a commit whose answer was lost.
    async fn look_at_commit(&self, number: &str, lost: &Error) -> Result<Vote, ParticipantError> {
        for _ in 0..LOOKS {
            self.env.sleep(LOOK_PAUSE).await;
            match self.status(number).await {
                Ok(Some(status)) if status == "committed" => return Ok(Vote::Yes),
                Ok(Some(status)) if status == "aborted" => return Ok(Vote::No { why: said(lost) }),
                _ => {}
            }
        }
        Err(unanswered(lost))
    }

    /// What the server says became of a transaction, by its number; none where it knows no more.
    async fn status(&self, number: &str) -> Result<Option<String>, ParticipantError> {
        const LOOK: &str = "SELECT pg_xact_status($1::xid8)";
        let lease = self.endings.lease().await?;
        let row = lease.query_typed_one(LOOK, &[(&Raw(number), Type::UNKNOWN)]).await;
        let status = row.map_err(|failed| unanswered(&failed))?.get(0);
        lease.keep();
        Ok(status)
    }

    async fn end(&self, ending: Ending, gid: &Gid) -> Result<(), ParticipantError> {
        let verb = if ending == Ending::Commit { "COMMIT" } else { "ROLLBACK" };
        let lease = self.endings.lease().await?;
        let ended = lease.batch_execute(&format!("{verb} PREPARED '{}'", self.own(gid))).await;
        match ended {
            Ok(()) => {
                lease.keep();
                self.promised().remove(gid);
                Ok(())
            }
            Err(failed) if is_lost(&failed) => Err(unanswered(&failed)),
            Err(failed) => {
                let is_gone = failed.as_db_error().is_some_and(|said| *said.code() == SqlState::UNDEFINED_OBJECT);
                lease.keep();
                match is_gone {
                    true => self.ended(ending, gid).await,
                    false => Err(ParticipantError::Failed { what: said(&failed) }),
                }
            }
        }
    }

    /// It has ended, or never was. Which way can be told where its number is known: as long as this process has run since it was
    /// promised. Where it is not, it is taken for what was asked.
    async fn ended(&self, ending: Ending, gid: &Gid) -> Result<(), ParticipantError> {
        let Some(number) = self.promised().get(gid).cloned() else { return Ok(()) };
        let was = match self.status(&number).await?.as_deref() {
            Some("committed") => Ending::Commit,
            Some("aborted") => Ending::Abort,
            Some(other) => {
                return Err(ParticipantError::Failed { what: format!("it is still {other}") });
            }
            None => ending,
        };
        self.promised().remove(gid);
        if was == ending {
            return Ok(());
        }
        let how = if was == Ending::Commit { "committed" } else { "rolled back" };
        Err(ParticipantError::Contradicted { what: format!("the server says that it was {how}") })
    }

    fn promised(&self) -> MutexGuard<'_, BTreeMap<Gid, String>> {
        self.promised.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A text where it stands for something else.
#[derive(Debug)]
struct Raw<'t>(&'t str);

impl ToSql for Raw<'_> {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Wrong> {
        out.extend_from_slice(self.0.as_bytes());
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn encode_format(&self, _: &Type) -> Format {
        Format::Text
    }

    fn to_sql_checked(&self, kind: &Type, out: &mut BytesMut) -> Result<IsNull, Wrong> {
        self.to_sql(kind, out)
    }
}

async fn run(lease: &Lease, given: &Statement, ready: &Ready) -> Result<u64, Error> {
    lease.execute_raw(ready, given.params.iter().map(Given)).await
}

/// What became of the statements, or why the connection ended.
fn judge(statements: &[Statement], begun: Result<(), Error>, ran: Vec<Result<u64, Error>>) -> Result<Ran, Error> {
    let mut verdict = Ran::All;
    if let Err(failed) = begun {
        match failed.as_db_error() {
            Some(_) => verdict = Ran::Failed(said(&failed)),
            None => return Err(failed),
        }
    }
    for (statement, ran) in statements.iter().zip(ran) {
        match (ran, &verdict) {
            (Err(failed), _) if is_lost(&failed) => return Err(failed),
            // The first failure says why; those behind it say that there was one.
            (_, Ran::Failed(_)) => {}
            (Err(failed), _) => verdict = Ran::Failed(said(&failed)),
            (Ok(changed), Ran::All) => verdict = statement.objection(changed).map_or(Ran::All, Ran::Not),
            (Ok(_), Ran::Not(_)) => {}
        }
    }
    Ok(verdict)
}

/// Whether nothing more is heard on the connection.
fn is_lost(failed: &Error) -> bool {
    match failed.as_db_error() {
        // The session was ended, or the server stops.
        Some(said) => said.code().code().starts_with("57P") || said.code().code().starts_with("08"),
        None => {
            failed.is_closed() || std::error::Error::source(failed).is_some_and(|cause| cause.is::<std::io::Error>())
        }
    }
}

/// A statement that the server does not even take.
fn refused(lease: Lease, failed: Error) -> Result<Vote, ParticipantError> {
    if is_lost(&failed) {
        return Err(ParticipantError::Failed { what: said(&failed) });
    }
    lease.keep();
    Ok(Vote::No { why: said(&failed) })
}

fn said(failed: &Error) -> String {
    match failed.as_db_error() {
        Some(said) => match said.hint() {
            Some(hint) => format!("{} ({}): {hint}", said.message(), said.code().code()),
            None => format!("{} ({})", said.message(), said.code().code()),
        },
        None => {
            std::error::Error::source(failed).map_or_else(|| failed.to_string(), |cause| format!("{failed}: {cause}"))
        }
    }
}

fn unanswered(failed: &Error) -> ParticipantError {
    ParticipantError::Unanswered { what: said(failed) }
}

/// What a statement begins with.
fn verb(sql: &str) -> String {
    sql.trim_start().chars().take_while(char::is_ascii_alphabetic).collect::<String>().to_ascii_uppercase()
}

fn only_reads(sql: &str) -> bool {
    matches!(&*verb(sql), "SELECT" | "WITH" | "VALUES" | "TABLE")
}

/// Reads the work, and refuses what would end the transaction or is not for this kind of participant.
fn read(work: &Work) -> Result<SqlWork, ParticipantError> {
    let work = SqlWork::read(work)?;
    let unsuitable = |what: String| Err(ParticipantError::Unsuitable { what });
    if !(work.commit.is_empty() && work.abort.is_empty() && work.claims.is_empty()) {
        return unsuitable("PostgreSQL holds what was prepared by itself: there is only `prepare`".to_owned());
    }
    for statement in &work.prepare {
        let verb = verb(&statement.sql);
        if !only_reads(&statement.sql) && !matches!(&*verb, "INSERT" | "UPDATE" | "DELETE" | "MERGE") {
            return unsuitable(format!(
                "a statement begins with INSERT, UPDATE, DELETE, MERGE, SELECT, WITH, VALUES or TABLE, not with `{verb}`"
            ));
        }
    }
    Ok(work)
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

    fn one_phase<'a>(&'a self, _: &'a Gid, work: &'a Work) -> BoxFuture<'a, Result<Vote, ParticipantError>> {
        Box::pin(async move { self.done_at_once(&read(work)?).await })
    }
}
