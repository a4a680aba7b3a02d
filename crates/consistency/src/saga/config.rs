//! Limits of sagas.

use std::{ops::RangeInclusive, time::Duration};

use super::SagaError;

/// How sagas of a store are run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Open sagas in memory; beyond it none is started but by steps of others, which could not end without. 1 to 10,000,000. Default 100,000.
    pub max_running: usize,
    /// How many local steps at most share one transaction. With 1 each has its own. 1 to 1,000. Default 32.
    pub joined_steps: usize,
    /// Events of one saga; one that has more is stuck. 10 to 1,000,000. Default 10,000.
    pub max_events: u64,
    /// Calls to somewhere else that are under way at once, of all sagas together; what is more waits, whoever came first goes
    /// first. A call that itself waits for a saga of this store keeps its place meanwhile. 1 to 65,536. Default 256.
    pub max_calls: usize,
    /// On a store that several processes write to: how long one must give no sign of life before others take over its sagas. It gives
    /// five in that time. The same in all of them: where two differ, the longer one holds. 100 ms to 1 hour. Default 10 s.
    pub takeover: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_running: 100_000,
            joined_steps: 32,
            max_events: 10_000,
            max_calls: 256,
            takeover: Duration::from_secs(10),
        }
    }
}

impl Config {
    /// The largest input, answer, signal or output of a saga, in bytes of JSON.
    pub const MAX_VALUE_BYTES: usize = 256 << 10;
    /// The longest id of a saga, in bytes.
    pub const MAX_ID_BYTES: usize = 256;
    /// The longest business key, in bytes.
    pub const MAX_KEY_BYTES: usize = 512;
    /// What [`takeover`](field@Self::takeover) may be.
    pub const TAKEOVER: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(3_600);

    /// Whether every field is within its range.
    ///
    /// # Errors
    /// [`SagaError::Invalid`] names the field and its range.
    pub fn check(&self) -> Result<(), SagaError> {
        let within = |field: &str, value: u64, min: u64, max: u64| {
            let said = || SagaError::invalid(format!("`{field}` is {min} to {max}, {value} was asked for"));
            if (min..=max).contains(&value) { Ok(()) } else { Err(said()) }
        };
        within("max-running", self.max_running as u64, 1, 10_000_000)?;
        within("joined-steps", self.joined_steps as u64, 1, 1_000)?;
        within("max-events", self.max_events, 10, 1_000_000)?;
        within("max-calls", self.max_calls as u64, 1, 65_536)?;
        let (range, takeover) = (Self::TAKEOVER, self.takeover);
        if range.contains(&takeover) {
            return Ok(());
        }
        Err(SagaError::invalid(format!(
            "`takeover` is {:?} to {:?}, {takeover:?} was asked for",
            range.start(),
            range.end()
        )))
    }
}
