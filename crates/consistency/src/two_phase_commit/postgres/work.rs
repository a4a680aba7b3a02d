//! What a database is asked to do: statements that change rows or look at them.

use crate::two_phase_commit::{ParticipantError, Work, sql::SqlWork};

/// What a statement begins with.
fn verb(sql: &str) -> String {
    sql.trim_start().chars().take_while(char::is_ascii_alphabetic).collect::<String>().to_ascii_uppercase()
}

/// Whether it looks as if it changed nothing. What it calls, or has behind `WITH`, may change something all the same.
pub(super) fn may_only_read(sql: &str) -> bool {
    matches!(&*verb(sql), "SELECT" | "WITH" | "VALUES" | "TABLE")
}

/// Reads the work, and refuses what would end the transaction or is not for this kind of participant.
pub(super) fn read(work: &Work) -> Result<SqlWork, ParticipantError> {
    let work = SqlWork::read(work)?;
    let unsuitable = |what: String| Err(ParticipantError::Unsuitable { what });
    if !(work.commit.is_empty() && work.abort.is_empty() && work.claims.is_empty()) {
        return unsuitable("PostgreSQL holds what was prepared by itself: there is only `prepare`".to_owned());
    }
    for statement in &work.prepare {
        let verb = verb(&statement.sql);
        if !may_only_read(&statement.sql) && !matches!(&*verb, "INSERT" | "UPDATE" | "DELETE" | "MERGE") {
            return unsuitable(format!(
                "a statement begins with INSERT, UPDATE, DELETE, MERGE, SELECT, WITH, VALUES or TABLE, not with `{verb}`"
            ));
        }
    }
    Ok(work)
}
