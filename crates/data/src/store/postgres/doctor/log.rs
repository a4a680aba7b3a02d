//! Committed events that nobody sees, and a tray full of dead rows.

use std::time::Duration;

use tokio_postgres::types::Type;

use super::Patient;
use crate::store::postgres::fault::Fault;

/// An event that has no position after this has been forgotten: any node that runs makes a run every second.
pub(super) const LATE: Duration = Duration::from_secs(2);
/// What a row of `pending` takes, in bytes, with room to spare.
const ROW: u64 = 64;

impl Patient {
    /// Looks at how large `pending` is. Returns the first event that waits there.
    pub(super) async fn bloat(&mut self) -> Result<Option<i64>, Fault> {
        let pending = format!("\"{}\".pending", self.schema);
        let look = format!("SELECT count(*), min(event), pg_relation_size('{pending}'::regclass) FROM {pending}");
        let row = self.one(&look, &[]).await?;
        let (rows, first, size): (i64, Option<i64>, i64) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        let (rows, size) = (rows.cast_unsigned(), size.cast_unsigned());
        if size > self.thresholds.bloat && rows.saturating_mul(ROW) < size / 2 {
            let what = format!(
                "{pending} has {rows} rows in {} MiB: each run of the sequencer reads all of it, so that events come later",
                size >> 20
            );
            let advice = format!("end what pins xmin (other findings name it), then VACUUM {pending}");
            self.warn("bloat", what, advice);
        }
        Ok(first)
    }

    /// Looks whether the event that waited [`LATE`] ago still does.
    pub(super) async fn positions(&mut self, store: u64, first: i64, is_read_only: bool) -> Result<(), Fault> {
        let look = format!("SELECT count(*), coalesce(bool_or(event = $1), FALSE) FROM \"{}\".pending", self.schema);
        let row = self.one(&look, &[(&first, Type::INT8)]).await?;
        let (waiting, is_there): (i64, bool) = (row.try_get(0)?, row.try_get(1)?);
        if !is_there {
            return Ok(());
        }
        let advice = match self.sequencing(store).await? {
            Some(holder) => holder,
            None if is_read_only => "have the database take writes again: another finding says how".to_owned(),
            None => "start a node: any that runs gives them; if one runs, its log says why it cannot".to_owned(),
        };
        let what = format!(
            "{waiting} committed events have no position, event {first} since more than {LATE:?} ago: no reader sees them"
        );
        self.danger("positions", what, advice);
        Ok(())
    }
}
