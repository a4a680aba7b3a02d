//! How far apart the clocks are.

use std::time::Duration;

use quorate_runtime::Env;

use super::Patient;
use crate::store::postgres::fault::Fault;

/// Of so many looks the quickest counts: what a look takes is how far it may be wrong.
const LOOKS: usize = 5;

impl Patient {
    /// Compares this process's wall clock, which dates events, with the server's.
    pub(super) async fn clocks(&mut self, env: &Env) -> Result<(), Fault> {
        let mut best: Option<(Duration, i128)> = None;
        for _ in 0..LOOKS {
            let (begun, before) = (env.mono(), env.wall());
            let row = self.one("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint", &[]).await?;
            let took = env.mono().saturating_since(begun);
            let theirs = i128::from(row.try_get::<_, i64>(0)?) * 1_000;
            // Their look lies somewhere in the round trip; the middle is off by half of it at most.
            let ours = i128::from(before.unix_nanos()) + i128::try_from(took.as_nanos() / 2).unwrap_or(0);
            if best.is_none_or(|(quickest, _)| took < quickest) {
                best = Some((took, theirs - ours));
            }
        }
        let Some((took, offset)) = best else { return Ok(()) };
        let apart = Duration::from_nanos(u64::try_from(offset.unsigned_abs()).unwrap_or(u64::MAX));
        if apart.saturating_sub(took / 2) > self.thresholds.clock {
            let way = if offset > 0 { "ahead of" } else { "behind" };
            let what = format!(
                "the server's clock is {apart:.1?} {way} this machine's: `recordedtime` of events that several nodes write \
                 does not go up with their positions, and rules that go by time act early or late"
            );
            self.warn(
                "clock",
                what,
                "have every machine synchronize its clock (chrony, systemd-timesyncd), the server's too",
            );
        }
        Ok(())
    }
}
