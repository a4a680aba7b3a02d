//! The barrier: a participant's own memory of what it was asked for, in the transaction of what it does.
//!
//! Calls of a saga may come twice, late, or in the wrong order. Think of a cloakroom: whoever brings a coat a second time is shown the number he
//! has; whoever asks for a coat that was never brought leaves empty-handed, and when the coat comes after all it is turned away,
//! because its owner has left. The barrier writes a call down in the same transaction as its effect, and says what it is:
//!
//! | came before | forward now | compensation now |
//! |---|---|---|
//! | nothing | [`Go`](Entered::Go) | [`Nothing`](Entered::Nothing): there is nothing to make up for (*null compensation*) |
//! | forward | [`Repeated`](Entered::Repeated) | [`Go`](Entered::Go) |
//! | compensation | [`TooLate`](Entered::TooLate): it must not happen any more (*hanging*) | [`Repeated`](Entered::Repeated) |
//!
//! The table is `quorate_saga_barrier`; [the page](https://github.com/quorate/quorate/blob/main/docs/patterns/saga.md) has the SQL for participants in other languages.
//!
//! Source: the sub-transaction barrier of DTM, <https://en.dtm.pub/practice/barrier.html>. Ours keeps the first answer for those that repeat.

use quorate_data::store::{DynTx, RoomTables, SqlError, Store};
use serde_json::Value;

use super::{SagaError, event::Direction};

pub(crate) const TABLES: RoomTables = RoomTables {
    room: "saga_barrier",
    versions: &["CREATE TABLE quorate_saga_barrier (
        operation TEXT NOT NULL, direction TEXT NOT NULL, came TEXT NOT NULL, answer TEXT, taken_at BIGINT NOT NULL,
        PRIMARY KEY (operation, direction)
    )"],
};

/// A participant's memory of the calls it took. Cheap to clone.
#[derive(Clone)]
pub struct Barrier {
    store: Store,
}

/// What a call is.
#[derive(Clone, Debug, PartialEq)]
#[must_use = "what is no `Go` must have no effect"]
pub enum Entered {
    /// It is the first of its kind: do it, and [keep the answer](Barrier::keep).
    Go,
    /// It was done before: answer as then.
    Repeated(Value),
    /// A compensation of what never came: answer that all is well, and do nothing.
    Nothing,
    /// What was compensated already: refuse it, and do nothing.
    TooLate,
}

impl Barrier {
    /// The longest name of an operation, in bytes.
    pub const MAX_OPERATION_BYTES: usize = 1_024;

    /// The barrier of a participant whose effects lie in `store`; makes its table if it is not there.
    pub async fn open(store: &Store) -> Result<Self, SagaError> {
        store.declare(TABLES).await?;
        Ok(Self { store: store.clone() })
    }

    /// Writes a call down, and says what it is. `operation` is what both directions of a step have in common:
    /// [`Call::operation`](super::Call::operation).
    ///
    /// Of calls that come at the same time one commits first, and the others learn of it. Where the transaction rolls back,
    /// nothing came.
    ///
    /// # Errors
    /// [`SagaError::Invalid`] for a name that is empty or too long.
    pub async fn enter(&self, tx: &mut DynTx, operation: &str, direction: Direction) -> Result<Entered, SagaError> {
        let (bytes, max) = (operation.len(), Self::MAX_OPERATION_BYTES);
        if bytes == 0 || bytes > max {
            return Err(SagaError::invalid(format!("an operation has 1 to {max} bytes, this one has {bytes}")));
        }
        let (forward, compensation) = (Direction::Forward.word(), Direction::Compensation.word());
        if direction == Direction::Forward {
            if self.note(tx, operation, forward, forward).await? {
                return Ok(Entered::Go);
            }
            return self.known(tx, operation, forward).await;
        }
        // Whoever compensates first takes the place of what never came, so that it cannot come any more.
        let never_came = self.note(tx, operation, forward, compensation).await?;
        let is_first = self.note(tx, operation, compensation, compensation).await?;
        match (is_first, never_came) {
            (true, true) => Ok(Entered::Nothing),
            (true, false) => Ok(Entered::Go),
            (false, _) => self.known(tx, operation, compensation).await,
        }
    }

    /// Keeps what a call is answered, for those that repeat it. In the transaction that [entered](Self::enter).
    pub async fn keep(
        &self,
        tx: &mut DynTx,
        operation: &str,
        direction: Direction,
        answer: &Value,
    ) -> Result<(), SagaError> {
        let sql = "UPDATE quorate_saga_barrier SET answer = $3 WHERE operation = $1 AND direction = $2";
        tx.room_execute(sql, &[operation.into(), direction.word().into(), answer.to_string().into()]).await?;
        Ok(())
    }

    /// Forgets operations that were taken more than `keep` ago, at most `limit` of them, and returns how many rows that was. Keep them
    /// for longer than a saga can repeat a call, an operator's retries included.
    pub async fn forget(&self, keep: std::time::Duration, limit: u32) -> Result<u64, SagaError> {
        let before = (self.store.env().wall() - keep).unix_nanos();
        let forgotten = self.store.transact(move |tx| {
            Box::pin(async move {
                let sql =
                    "DELETE FROM quorate_saga_barrier WHERE operation IN (SELECT operation FROM quorate_saga_barrier
                    GROUP BY operation HAVING max(taken_at) < $1 LIMIT $2)";
                Ok::<_, SagaError>(tx.room_execute(sql, &[before.into(), limit.into()]).await?)
            })
        });
        forgotten.await.map_err(SagaError::of_transaction)
    }

    async fn note(&self, tx: &mut DynTx, operation: &str, direction: &str, came: &str) -> Result<bool, SqlError> {
        let sql = "INSERT INTO quorate_saga_barrier (operation, direction, came, taken_at) VALUES ($1, $2, $3, $4)
            ON CONFLICT (operation, direction) DO NOTHING";
        let now = self.store.env().wall().unix_nanos();
        let row = [operation.into(), direction.into(), came.into(), now.into()];
        Ok(tx.room_execute(sql, &row).await? == 1)
    }

    async fn known(&self, tx: &mut DynTx, operation: &str, direction: &str) -> Result<Entered, SagaError> {
        let sql = "SELECT came, answer FROM quorate_saga_barrier WHERE operation = $1 AND direction = $2";
        let rows = tx.room_query(sql, &[operation.into(), direction.into()]).await?;
        let came = rows.first().and_then(|row| row.at(0).as_str()).unwrap_or_default();
        if came != direction {
            return Ok(Entered::TooLate);
        }
        let answer = rows.first().and_then(|row| row.at(1).as_str());
        let answer = answer.map_or(Ok(Value::Null), serde_json::from_str);
        let unreadable = |cause| SagaError::invalid(format!("a kept answer of `{operation}` cannot be read: {cause}"));
        Ok(Entered::Repeated(answer.map_err(unreadable)?))
    }
}

impl From<SagaError> for super::Failure {
    fn from(error: SagaError) -> Self {
        match error {
            SagaError::Store(cause) => Self::Unknown(cause.to_string()),
            other => Self::Refused(other.to_string()),
        }
    }
}

/// What a call that came too late is refused with.
const TOO_LATE: &str = "it was compensated before it came";

impl Entered {
    /// What to answer without doing anything; `None`: do it.
    ///
    /// # Errors
    /// [`Failure::Refused`](super::Failure::Refused) where it came too late.
    pub fn answered(self) -> Option<super::Answer> {
        match self {
            Self::Go => None,
            Self::Repeated(answer) => Some(Ok(answer)),
            Self::Nothing => Some(Ok(Value::Null)),
            Self::TooLate => Some(Err(super::Failure::Refused(TOO_LATE.to_owned()))),
        }
    }
}
