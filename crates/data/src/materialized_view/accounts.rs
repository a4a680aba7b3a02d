//! Whether the counts of a shard come out: what it was handed against its checkpoint, and against what was done.

use super::{
    Build,
    advance::digest,
    rows::{self, ShardRow},
};
use crate::{
    event::{Position, Recorded},
    store::{DynTx, SqlError},
};

impl ShardRow {
    /// Positions up to the checkpoint that were looked at and do not matter to it.
    pub(super) fn filtered(&self) -> u64 {
        self.handed.positions.saturating_sub(self.handed.events)
    }

    /// How far the counts are apart; 0 where each position up to the checkpoint was looked at once, and each event that matters
    /// was applied, parked or skipped once.
    ///
    /// Differences are added up and never set off against each other. It trusts the log's index, and the key that says in which
    /// shard an event belongs: [`audit`](super::View::audit) asks neither.
    pub(super) fn unaccounted(&self) -> u64 {
        let done = self.applied.saturating_add(self.parked).saturating_add(self.skipped);
        let positions = self.checkpoint.get().abs_diff(self.handed.positions);
        let events = self.handed.events.abs_diff(done);
        // As many, and not the same: one was lost for one that was taken twice.
        let others = u64::from(events == 0 && self.handed.sum != self.checksum);
        positions.saturating_add(events).saturating_add(others)
    }

    /// Notes that `events` were applied in the transaction that gave them, and that nothing else up to `to` matters.
    pub(super) async fn taken(
        &self,
        tx: &mut DynTx,
        build: Build,
        events: &[Recorded],
        to: Position,
    ) -> Result<(), SqlError> {
        let sum = events.iter().fold(0_i64, |sum, event| sum.wrapping_add(digest(event.position())));
        let sql =
            "UPDATE quorate_view_shard SET looked = looked + $1 - checkpoint, checkpoint = $1, applied = applied + $2,
            checksum = $3, handed = handed + $2, handed_sum = $4 WHERE build = $5 AND shard = $6";
        let params = [
            rows::position(to),
            rows::number(events.len() as u64),
            self.checksum.wrapping_add(sum).into(),
            self.handed.sum.wrapping_add(sum).into(),
            rows::of(build),
            self.shard.into(),
        ];
        tx.room_execute(sql, &params).await.map(|_| ())
    }
}
