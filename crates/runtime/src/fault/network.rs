//! What goes wrong between hosts.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::millis;

/// One way in which the network misbehaves. A TCP stream never loses, doubles or reorders bytes; it delays, stalls and breaks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "fault", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum NetworkFault {
    /// Nothing from `from` reaches `to`; the other way is open. What was sent meanwhile arrives when it is over.
    Cut {
        /// Who is not heard.
        from: String,
        /// Who does not hear.
        to: String,
        /// How long.
        #[serde(with = "millis", rename = "span_ms")]
        span: Duration,
    },
    /// Nothing passes between `group` and everybody else, either way.
    Partition {
        /// The hosts of one side.
        group: Vec<String>,
        /// How long.
        #[serde(with = "millis", rename = "span_ms")]
        span: Duration,
    },
    /// Everything between two hosts takes longer, by up to `extra` each way.
    Slow {
        /// One host.
        a: String,
        /// The other.
        b: String,
        /// The most that is added to a segment's way.
        #[serde(with = "millis", rename = "extra_ms")]
        extra: Duration,
        /// How long.
        #[serde(with = "millis", rename = "span_ms")]
        span: Duration,
    },
    /// Every connection of a host breaks at once: both ends are told, and what was on its way is gone.
    Reset {
        /// Whose connections.
        host: String,
    },
    /// Dialling a host gets no answer: its connections go on, new ones are not made.
    LoseConnects {
        /// Who cannot be dialled.
        host: String,
        /// How long.
        #[serde(with = "millis", rename = "span_ms")]
        span: Duration,
    },
}

impl NetworkFault {
    /// How long it lasts; nothing for what happens in an instant.
    pub fn span(&self) -> Duration {
        match self {
            Self::Cut { span, .. }
            | Self::Partition { span, .. }
            | Self::Slow { span, .. }
            | Self::LoseConnects { span, .. } => *span,
            Self::Reset { .. } => Duration::ZERO,
        }
    }
}
