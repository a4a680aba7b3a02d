//! What goes wrong with a host's process, the machine under it, and its clock.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::millis;

/// One way in which a process ends or stands still.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "fault", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ProcessFault {
    /// The process is killed, as by `kill -9`: what it wrote is in the system's cache and survives; its peers are told.
    Kill {
        /// Whose.
        host: String,
        /// How long until it is started again.
        #[serde(with = "millis", rename = "down_ms")]
        down: Duration,
    },
    /// The machine loses power: what was not synced may be gone or torn, and its peers hear nothing.
    PowerLoss {
        /// Whose.
        host: String,
        /// How long until it is started again.
        #[serde(with = "millis", rename = "down_ms")]
        down: Duration,
    },
    /// The machine loses power at one of its next disk operations, so that it happens inside a write or a sync.
    PowerLossAtDisk {
        /// Whose.
        host: String,
        /// At which disk operation from now, counted from 1.
        operation: u64,
        /// How long until it is started again.
        #[serde(with = "millis", rename = "down_ms")]
        down: Duration,
    },
    /// The process is killed while it works: between two of the steps that its next tasks take.
    KillAtPoll {
        /// Whose.
        host: String,
        /// After how many polls of its tasks from now, counted from 1.
        polls: u64,
        /// How long until it is started again.
        #[serde(with = "millis", rename = "down_ms")]
        down: Duration,
    },
    /// The process is killed inside one of its next disk operations, so that what it had begun may be half done.
    KillAtDisk {
        /// Whose.
        host: String,
        /// At which disk operation from now, counted from 1.
        operation: u64,
        /// How long until it is started again.
        #[serde(with = "millis", rename = "down_ms")]
        down: Duration,
    },
    /// The process is told to stop, as by SIGTERM, and ends when it has done what it must: what a new version does to it.
    Stop {
        /// Whose.
        host: String,
        /// How long from its end until it is started again.
        #[serde(with = "millis", rename = "down_ms")]
        down: Duration,
    },
    /// The process stands still, as by SIGSTOP, while its clocks go on.
    Pause {
        /// Whose.
        host: String,
        /// How long.
        #[serde(with = "millis", rename = "span_ms")]
        span: Duration,
    },
    /// The machine is suspended: its monotonic clock stands still with it, wall and boot time go on.
    Suspend {
        /// Whose.
        host: String,
        /// How long.
        #[serde(with = "millis", rename = "span_ms")]
        span: Duration,
    },
}

impl ProcessFault {
    /// How long it lasts.
    pub fn span(&self) -> Duration {
        match self {
            Self::Kill { down, .. }
            | Self::KillAtPoll { down, .. }
            | Self::KillAtDisk { down, .. }
            | Self::Stop { down, .. }
            | Self::PowerLoss { down, .. }
            | Self::PowerLossAtDisk { down, .. } => *down,
            Self::Pause { span, .. } | Self::Suspend { span, .. } => *span,
        }
    }

    /// Whose process.
    pub fn host(&self) -> &str {
        match self {
            Self::Kill { host, .. }
            | Self::KillAtPoll { host, .. }
            | Self::KillAtDisk { host, .. }
            | Self::Stop { host, .. }
            | Self::PowerLoss { host, .. }
            | Self::PowerLossAtDisk { host, .. }
            | Self::Pause { host, .. }
            | Self::Suspend { host, .. } => host,
        }
    }
}

/// One way in which a clock misbehaves.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "fault", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ClockFault {
    /// The wall clock jumps; monotonic and boot time do not notice.
    Step {
        /// Whose.
        host: String,
        /// By how much, forward or back.
        by_millis: i64,
    },
    /// All of a host's clocks run fast or slow from now on.
    Drift {
        /// Whose.
        host: String,
        /// By how many parts in a million; above zero is fast.
        ppm: i32,
    },
}
