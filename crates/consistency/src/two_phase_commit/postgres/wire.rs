//! What is sent to the server, and what is made of its answers.

use bytes::BytesMut;
use tokio_postgres::{
    Error, Statement as Ready,
    types::{Format, IsNull, ToSql, Type},
};

use super::connections::Lease;
use crate::two_phase_commit::{
    ParticipantError, Vote,
    sql::{Param, Statement},
};

type Wrong = Box<dyn std::error::Error + Sync + Send>;

/// What a statement is given, as text: the server reads it as what stands there.
#[derive(Debug)]
pub(super) struct Given<'p>(&'p Param);

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

/// A text where it stands for something else.
#[derive(Debug)]
pub(super) struct Raw<'t>(pub(super) &'t str);

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

/// What came of the statements of a transaction that the server did not lose.
pub(super) enum Ran {
    /// All of them did what they should.
    All,
    /// One of them changed another number of rows than it should: the transaction must not be.
    Not(String),
    /// One of them failed: the server takes nothing more of the transaction, and prepares nothing.
    Failed(String),
}

pub(super) async fn run(lease: &Lease, given: &Statement, ready: &Ready) -> Result<u64, Error> {
    lease.execute_raw(ready, given.params.iter().map(Given)).await
}

/// What became of the statements, or why the connection ended.
pub(super) fn judge(
    statements: &[Statement],
    begun: Result<(), Error>,
    ran: Vec<Result<u64, Error>>,
) -> Result<Ran, Error> {
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
pub(super) fn is_lost(failed: &Error) -> bool {
    match failed.as_db_error() {
        // The session was ended, or the server stops.
        Some(said) => said.code().code().starts_with("57P") || said.code().code().starts_with("08"),
        None => {
            failed.is_closed() || std::error::Error::source(failed).is_some_and(|cause| cause.is::<std::io::Error>())
        }
    }
}

/// Whether the server itself says no, so that it did nothing; anything else leaves open what it did.
pub(super) fn is_refusal(failed: &Error) -> bool {
    failed.as_db_error().is_some() && !is_lost(failed)
}

/// A statement that the server does not even take.
pub(super) fn refused(lease: Lease, failed: Error) -> Result<Vote, ParticipantError> {
    if is_lost(&failed) {
        return Err(ParticipantError::Failed { what: said(&failed) });
    }
    lease.keep();
    Ok(Vote::No { why: said(&failed) })
}

pub(super) fn said(failed: &Error) -> String {
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

pub(super) fn unanswered(failed: &Error) -> ParticipantError {
    ParticipantError::Unanswered { what: said(failed) }
}
