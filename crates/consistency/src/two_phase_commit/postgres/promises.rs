//! Promises: what is begun, done and prepared in one transaction, and the proof that it was one.
//!
//! A connection may be one to a pooler, that puts another session of the server behind it unseen. Then the end of a transaction is
//! asked of a session that never began it: the server answers `COMMIT`, and `PREPARE TRANSACTION`, with nothing but a warning, and what was
//! asked in between was done by itself, or lost. So each transaction is marked when it begins, the mark and its number are asked for at its end,
//! and a promise counts only where the server holds that number under the gid.

use futures_util::future::{join, join_all, join3};
use tokio_postgres::{Error, Row, Statement as Ready, types::Type};

use super::{
    Postgres,
    connections::Lease,
    endings::STATUS,
    wire::{Ran, Raw, is_refusal, judge, refused, run, said, unanswered},
    work::may_only_read,
};
use crate::two_phase_commit::{Gid, ParticipantError, Vote, sql::SqlWork};

/// The mark of the transaction that one is in, and its number, which it is given now if it has none.
const NUMBERED: &str = "SELECT current_setting('quorate.txn', true), pg_current_xact_id()::text";
/// The same, without a number where nothing was changed.
const LOOKED: &str = "SELECT current_setting('quorate.txn', true), pg_current_xact_id_if_assigned()::text";
/// The number of what is prepared under a gid, without the server's count of how often these have begun anew.
const PREPARED: &str =
    "SELECT transaction::text FROM pg_prepared_xacts WHERE gid = $1 AND database = current_database()";

/// What came of work that was not ended yet.
enum Done {
    /// All of it, in a transaction of that number; of none where it changed nothing.
    All(Option<String>),
    /// It must not be: one statement changed another number of rows than it should.
    Not(String),
    /// It cannot be: the server takes nothing more of it.
    Failed(String),
    /// The connection ended, and the transaction with it.
    Lost(String),
    /// It was not one transaction: what was done of it nobody knows.
    Torn,
}

/// What a connection did that lost a transaction on the way.
const TORN: &str =
    "the connection did not keep the transaction together (is a pooler between?): what was done is unknown";

fn torn() -> ParticipantError {
    ParticipantError::Unanswered { what: TORN.to_owned() }
}

/// Whether what was found to be prepared is the transaction of that number, of which the server keeps the lower half.
fn is_held(number: &str, found: Option<&Row>) -> bool {
    let found = found.and_then(|row| row.get::<_, &str>(0).parse::<u64>().ok());
    found.is_some() && found == number.parse().ok().map(|number: u64| number % (1 << 32))
}

impl Postgres {
    pub(super) async fn prepared(&self, gid: &Gid, work: &SqlWork) -> Result<Vote, ParticipantError> {
        let mut lease = self.connections.lease().await?;
        let statements = match lease.ready(&work.prepare).await {
            Ok(statements) => statements,
            Err(failed) => return refused(lease, failed),
        };
        if work.prepare.iter().all(|statement| may_only_read(&statement.sql)) {
            return self.read(lease, gid, work, &statements).await;
        }
        // In one go: the server prepares nothing where a statement before it failed.
        let work = self.work(&lease, gid, work, &statements, NUMBERED);
        let (done, (ended, found)) = join(work, self.prepare(&lease, gid)).await;
        match done {
            Done::All(number) => self.promise(lease, gid, number.unwrap_or_default(), (ended, found)).await,
            Done::Not(why) => {
                if ended.is_ok() {
                    self.undo(&lease, gid).await?;
                    lease.keep();
                }
                Ok(Vote::No { why })
            }
            Done::Failed(why) => {
                if ended.is_ok() {
                    lease.keep();
                }
                Ok(Vote::No { why })
            }
            Done::Lost(what) => Err(ParticipantError::Unanswered { what }),
            Done::Torn => Err(torn()),
        }
    }

    /// Prepares what may hold nothing: then there is nothing to prepare. Whether it does the server says.
    async fn read(
        &self,
        lease: Lease,
        gid: &Gid,
        work: &SqlWork,
        statements: &[Ready],
    ) -> Result<Vote, ParticipantError> {
        let vote = match self.work(&lease, gid, work, statements, LOOKED).await {
            Done::All(Some(number)) => {
                let prepared = self.prepare(&lease, gid).await;
                return self.promise(lease, gid, number, prepared).await;
            }
            Done::All(None) => Vote::ReadOnly,
            Done::Not(why) | Done::Failed(why) => Vote::No { why },
            Done::Lost(what) => return Err(ParticipantError::Unanswered { what }),
            Done::Torn => return Err(torn()),
        };
        // A session that is lost instead takes back as much.
        if lease.batch_execute("ROLLBACK").await.is_ok() {
            lease.keep();
        }
        Ok(vote)
    }

    pub(super) async fn done_at_once(&self, gid: &Gid, work: &SqlWork) -> Result<Vote, ParticipantError> {
        let mut lease = self.connections.lease().await?;
        let statements = match lease.ready(&work.prepare).await {
            Ok(statements) => statements,
            Err(failed) => return refused(lease, failed),
        };
        let number = match self.work(&lease, gid, work, &statements, NUMBERED).await {
            Done::All(number) => number.unwrap_or_default(),
            // It was not told to commit.
            Done::Lost(what) => return Err(ParticipantError::Failed { what }),
            Done::Torn => return Err(torn()),
            Done::Not(why) | Done::Failed(why) => {
                if lease.batch_execute("ROLLBACK").await.is_ok() {
                    lease.keep();
                }
                return Ok(Vote::No { why });
            }
        };
        let is_committed = |row: &Row| row.get::<_, Option<&str>>(0) == Some("committed");
        let status = [(&Raw(&number) as &_, Type::UNKNOWN)];
        match join(lease.batch_execute("COMMIT"), lease.query_typed_one(STATUS, &status)).await {
            (Err(failed), _) if is_refusal(&failed) => Ok(Vote::No { why: said(&failed) }),
            (Ok(()), Ok(row)) if is_committed(&row) => {
                lease.keep();
                Ok(Vote::Yes)
            }
            (committed, _) => {
                drop(lease);
                let lost = committed.err().map_or_else(|| TORN.to_owned(), |failed| said(&failed));
                self.look_at_commit(&number, &lost).await
            }
        }
    }

    /// Begins a transaction and does the work in it.
    async fn work(&self, lease: &Lease, gid: &Gid, work: &SqlWork, statements: &[Ready], ask: &str) -> Done {
        let own = self.own(gid);
        let begin = format!("BEGIN; SET LOCAL quorate.txn = '{own}'");
        let runs = join_all(work.prepare.iter().zip(statements).map(|(given, ready)| run(lease, given, ready)));
        let (begun, ran, asked) = join3(lease.batch_execute(&begin), runs, lease.query_typed_one(ask, &[])).await;
        let ran = match judge(&work.prepare, begun, ran) {
            Ok(ran) => ran,
            Err(failed) => return Done::Lost(said(&failed)),
        };
        match (ran, asked) {
            (Ran::Failed(why), _) => Done::Failed(why),
            (_, Err(failed)) if is_refusal(&failed) => Done::Failed(said(&failed)),
            (_, Err(failed)) => Done::Lost(said(&failed)),
            (_, Ok(row)) if row.get::<_, Option<&str>>(0) != Some(&*own) => {
                self.env.reached("txn: a connection did not keep a transaction together");
                Done::Torn
            }
            (Ran::Not(why), Ok(_)) => Done::Not(why),
            (Ran::All, Ok(row)) => Done::All(row.get(1)),
        }
    }

    /// Prepares what was begun on the connection, and asks what is prepared.
    async fn prepare(&self, lease: &Lease, gid: &Gid) -> (Result<(), Error>, Result<Option<Row>, Error>) {
        let own = self.own(gid);
        let prepare = format!("PREPARE TRANSACTION '{own}'");
        join(lease.batch_execute(&prepare), lease.query_typed_opt(PREPARED, &[(&own, Type::TEXT)])).await
    }

    /// Whether the transaction of that number is promised, by what came of preparing it.
    async fn promise(
        &self,
        lease: Lease,
        gid: &Gid,
        number: String,
        prepared: (Result<(), Error>, Result<Option<Row>, Error>),
    ) -> Result<Vote, ParticipantError> {
        // In time for whoever is told of the vote.
        self.promised().insert(*gid, number.clone());
        match prepared {
            (Err(failed), _) if is_refusal(&failed) => {
                self.promised().remove(gid);
                Ok(Vote::No { why: said(&failed) })
            }
            (Ok(()), Ok(found)) => {
                lease.keep();
                is_held(&number, found.as_ref()).then_some(Vote::Yes).ok_or_else(torn)
            }
            (Err(failed), _) | (Ok(()), Err(failed)) => {
                drop(lease);
                self.look(gid, &number, &failed).await
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
    async fn look(&self, gid: &Gid, number: &str, lost: &Error) -> Result<Vote, ParticipantError> {
        self.env.reached("txn: the answer to a PREPARE TRANSACTION was lost");
        let lease = self.endings.lease().await?;
        let found = lease.query_typed_opt(PREPARED, &[(&self.own(gid), Type::TEXT)]).await;
        let found = found.map_err(|failed| unanswered(&failed))?;
        lease.keep();
        // Where it is not, it may still come: whoever sweeps finds it then.
        is_held(number, found.as_ref()).then_some(Vote::Yes).ok_or_else(|| unanswered(lost))
    }
}
