//! Effects that were not carried out yet: looked at, tried again, or left out.

use super::{Effect, View, ViewError, effects, rows, shared::Shared};
use crate::{event::Position, store::Value};

/// An effect that was asked for and was not carried out yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenEffect {
    /// What to carry out, and how often that was tried.
    pub effect: Effect,
    /// Why it failed last; empty where it was not tried.
    pub reason: String,
    /// Whether it was tried as often as may be, so that nobody tries it any more; see
    /// [`retry_effects`](View::retry_effects).
    pub given_up: bool,
}

impl View {
    /// Effects that wait or were given up, in order, behind the effect `after` (the position of its event, and which of that
    /// event's it is): at most `limit`, and 1,000.
    pub async fn effects(&self, after: Option<(Position, u32)>, limit: u32) -> Result<Vec<OpenEffect>, ViewError> {
        let most = self.effect_attempts();
        let (position, ordinal) = after.map_or((-1, -1), |(at, ordinal)| (at.get().cast_signed(), i64::from(ordinal)));
        let sql = "SELECT position, ordinal, kind, payload, attempts, reason FROM quorate_view_effect
            WHERE view = $1 AND held = 0 AND (position > $2 OR (position = $2 AND ordinal > $3))
            ORDER BY position, ordinal LIMIT $4";
        let limit = limit.min(super::Views::MAX_PAGE);
        let params = vec![rows::text(&self.name), position.into(), ordinal.into(), limit.into()];
        let found = self.shared.store.room_query(sql, params).await?;
        let one = |row: &crate::store::Row| {
            let effect = effects::effect(&self.name, row)?;
            let given_up = effect.attempts >= most;
            Ok(OpenEffect { effect, reason: rows::string(row.at(5), "reason")?.to_owned(), given_up })
        };
        found.iter().map(one).collect()
    }

    /// Has all effects that were given up tried anew, as often as any other; where the view's code does not run here, so that nobody
    /// knows how often it tries, all that failed. Returns how many there are.
    pub async fn retry_effects(&self) -> Result<u64, ViewError> {
        let sql = "UPDATE quorate_view_effect SET attempts = 0 WHERE view = $1 AND held = 0 AND attempts >= $2";
        let least = if self.is_without_code() { 1 } else { self.effect_attempts() };
        self.change_effects(sql, vec![rows::text(&self.name), least.into()]).await
    }

    /// Leaves out, for good, an effect that waits or was given up; whether there was one. One that is being carried out right
    /// now may be carried out all the same.
    pub async fn skip_effect(&self, position: Position, ordinal: u32) -> Result<bool, ViewError> {
        let sql = "DELETE FROM quorate_view_effect WHERE view = $1 AND position = $2 AND ordinal = $3 AND held = 0";
        let params = vec![rows::text(&self.name), rows::position(position), ordinal.into()];
        self.change_effects(sql, params).await.map(|skipped| skipped > 0)
    }

    async fn change_effects(&self, sql: &'static str, params: Vec<Value>) -> Result<u64, ViewError> {
        let changed = self.shared.store.transact(move |tx| {
            let params = params.clone();
            Box::pin(async move { tx.room_execute(sql, &params).await.map_err(ViewError::from) })
        });
        let changed = changed.await.map_err(ViewError::of_transaction)?;
        Shared::bump(&self.shared.progress);
        Ok(changed)
    }
}
