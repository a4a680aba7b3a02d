//! What kind of disk it is.

use std::time::Duration;

use quorate_runtime::random::Rng;
use serde::{Deserialize, Serialize};

/// What does not change about a disk. The default is what the product meets in practice: ext4 on a device that writes
/// sectors completely or not at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Model {
    /// When changes to names and lengths become durable.
    pub journal: Journal,
    /// Whether a power failure during a write leaves alone what is beside the bytes being written. Where not, sectors of
    /// a page being written may come out as garbage under [`Survival::Torn`](quorate_runtime::fault::disk::Survival), and
    /// SQLite is told, so that it pads its log.
    ///
    /// *Out of contract* where it is off: what is required of a disk is that it is on. SQLite's padding does not help
    /// against two power failures in a row: recovery forgets a padding frame that was half written, and the next commit
    /// begins in the middle of a sector that holds the last one.
    pub powersafe_overwrite: bool,
    /// What every sync takes: nothing on a disk with a battery, milliseconds on one that turns.
    #[serde(rename = "sync-micros", with = "micros")]
    pub sync: Duration,
}

/// When changes to names and lengths become durable. Either way they do so in the order they were made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Journal {
    /// As on ext4 and XFS: there is one journal, and a sync of any file or folder writes it out.
    #[default]
    Shared,
    /// As POSIX promises and no more: a sync of a file makes its bytes and its length durable, and a sync of a folder the
    /// names so far. A file that was synced may still lose its name.
    Strict,
}

impl Default for Model {
    fn default() -> Self {
        Self { journal: Journal::Shared, powersafe_overwrite: true, sync: Duration::ZERO }
    }
}

impl Model {
    /// One of the kinds that are within the contract.
    pub fn draw(rng: &mut Rng) -> Self {
        let journal = if rng.below(2) == 0 { Journal::Shared } else { Journal::Strict };
        let sync = [0, 30, 1_000, 10_000][usize::try_from(rng.below(4)).unwrap_or(0)];
        Self { journal, sync: Duration::from_micros(sync), ..Self::default() }
    }
}

mod micros {
    use std::time::Duration;

    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(span: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(u64::try_from(span.as_micros()).unwrap_or(u64::MAX))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        u64::deserialize(from).map(Duration::from_micros)
    }
}
