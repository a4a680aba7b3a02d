//! How a transaction ended, by what the server says.

use std::time::Duration;

use tokio_postgres::{error::SqlState, types::Type};

use super::{
    Postgres,
    wire::{Raw, is_refusal, said, unanswered},
};
use crate::two_phase_commit::{Ending, Gid, ParticipantError, Vote};

/// How often it is looked whether a commit whose answer was lost has ended.
const LOOKS: u32 = 40;
const LOOK_PAUSE: Duration = Duration::from_millis(50);
/// What became of a transaction, by its number.
pub(super) const STATUS: &str = "SELECT pg_xact_status($1::xid8)";

impl Postgres {
    /// What became of a commit whose answer was lost.
    pub(super) async fn look_at_commit(&self, number: &str, lost: &str) -> Result<Vote, ParticipantError> {
        for _ in 0..LOOKS {
            self.env.sleep(LOOK_PAUSE).await;
            match self.status(number).await {
                Ok(Some(status)) if status == "committed" => return Ok(Vote::Yes),
                Ok(Some(status)) if status == "aborted" => return Ok(Vote::No { why: lost.to_owned() }),
                _ => {}
            }
        }
        Err(ParticipantError::Unanswered { what: lost.to_owned() })
    }

    /// What the server says became of a transaction, by its number; none where it knows no more.
    async fn status(&self, number: &str) -> Result<Option<String>, ParticipantError> {
        let lease = self.endings.lease().await?;
        let row = lease.query_typed_one(STATUS, &[(&Raw(number), Type::UNKNOWN)]).await;
        let status = row.map_err(|failed| unanswered(&failed))?.get(0);
        lease.keep();
        Ok(status)
    }

    pub(super) async fn end(&self, ending: Ending, gid: &Gid) -> Result<(), ParticipantError> {
        let verb = if ending == Ending::Commit { "COMMIT" } else { "ROLLBACK" };
        let lease = self.endings.lease().await?;
        let ended = lease.batch_execute(&format!("{verb} PREPARED '{}'", self.own(gid))).await;
        match ended {
            Ok(()) => {
                lease.keep();
                self.promised().remove(gid);
                Ok(())
            }
            Err(failed) if !is_refusal(&failed) => Err(unanswered(&failed)),
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
}
