//! What can go wrong with a disk.
//!
//! [`DiskFaults`] is what is switched on for a while; [`BitRot`] happens once; [`Survival`] is how a power failure treats
//! what was written and not yet synced. Chances are from 0 (never, the default) to 1 (always).

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::random::Rng;

/// The faults of a disk that are switched on. The default is a disk that never fails.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct DiskFaults {
    /// Chance that a read fails with an input/output error.
    pub read_errors: f64,
    /// Chance that a write or a truncation fails with an input/output error; nothing of it is written.
    pub write_errors: f64,
    /// Chance that a sync fails with an input/output error. As on Linux, what it should have made durable may or may not
    /// be, and no later sync of the same file tries again.
    pub sync_errors: f64,
    /// Single operations that fail.
    pub errors_at: Vec<ErrorAt>,
    /// Bytes that fit on the disk, counted in pages of 4 KiB; `None` for no limit. May shrink below what is used: then
    /// overwriting works and growing doesn't.
    pub capacity_bytes: Option<u64>,
    /// Chance that a read returns fewer bytes than were asked for and are there, at least one.
    pub short_reads: f64,
    /// Syncs that take their time.
    pub slow_syncs: Option<SlowSyncs>,
    /// Chance that a sync returns success and makes nothing durable. *Out of contract*: nothing can be promised on such a
    /// disk; it is for proving that a check finds what is lost.
    pub lying_syncs: f64,
}

/// One operation that fails.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ErrorAt {
    /// Which one, counted from 1 since the disk was made.
    pub operation: u64,
    /// What it fails with.
    pub error: DiskError,
}

/// What a disk operation fails with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DiskError {
    /// `EIO`: the device failed.
    Io,
    /// `ENOSPC`: no space is left.
    NoSpace,
}

/// Syncs that take their time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct SlowSyncs {
    /// Chance that a sync is slow.
    pub chance: f64,
    /// What a slow one takes at least.
    #[serde(with = "humantime_serde")]
    pub least: Duration,
    /// What a slow one takes at most.
    #[serde(with = "humantime_serde")]
    pub most: Duration,
}

/// Bits of a file that flip while it lies on the disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct BitRot {
    /// The file's path on its host.
    pub file: String,
    /// How many bits flip, each somewhere in the durable content.
    pub bits: u32,
}

/// What becomes of what was written and not synced when the power fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Survival {
    /// Nothing survives.
    Nothing,
    /// Everything up to some moment survives, and nothing after it, over all files.
    Prefix,
    /// Each page of 4 KiB survives as it last was, or not at all.
    Subset,
    /// Each page survives as it was at some moment of its own, so that later writes may survive earlier ones.
    Reordered,
    /// As [`Reordered`](Self::Reordered), and pages may be torn: each sector of 512 bytes then is of a moment of its own.
    Torn,
    /// Everything survives, by luck.
    Everything,
}

impl Survival {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Nothing, Self::Prefix, Self::Subset, Self::Reordered, Self::Torn, Self::Everything];

    /// One of them.
    pub fn draw(rng: &mut Rng) -> Self {
        Self::ALL[rng.below(Self::ALL.len() as u64) as usize]
    }
}

/// Why [`DiskFaults`] can't be injected as written.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum DiskFaultsError {
    /// A chance is no chance.
    #[error("`{field}` is a chance, from 0 to 1, and not {value}")]
    NotAChance {
        /// The field.
        field: &'static str,
        /// What it was set to.
        value: f64,
    },
    /// The bounds of slow syncs are crossed.
    #[error("slow syncs take at least {least:?}, which is more than the most they take, {most:?}")]
    CrossedBounds {
        /// The lower bound.
        least: Duration,
        /// The upper bound.
        most: Duration,
    },
}

impl DiskFaults {
    /// Checks that chances are chances and bounds in order.
    ///
    /// # Errors
    /// Names the first field that isn't.
    pub fn check(&self) -> Result<(), DiskFaultsError> {
        let chances = [
            ("read-errors", self.read_errors),
            ("write-errors", self.write_errors),
            ("sync-errors", self.sync_errors),
            ("short-reads", self.short_reads),
            ("lying-syncs", self.lying_syncs),
            ("slow-syncs.chance", self.slow_syncs.as_ref().map_or(0.0, |slow| slow.chance)),
        ];
        if let Some(&(field, value)) = chances.iter().find(|(_, value)| !(0.0..=1.0).contains(value)) {
            return Err(DiskFaultsError::NotAChance { field, value });
        }
        match &self.slow_syncs {
            Some(SlowSyncs { least, most, .. }) if least > most => {
                Err(DiskFaultsError::CrossedBounds { least: *least, most: *most })
            }
            _ => Ok(()),
        }
    }

    /// Whether the disk, as set, keeps what it promises: a sync that returns success has made its file durable.
    pub fn keeps_its_contract(&self) -> bool {
        self.lying_syncs == 0.0
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{DiskFaults, DiskFaultsError, SlowSyncs};

    #[test]
    fn a_chance_beyond_one_is_refused_by_name() {
        let faults = DiskFaults { sync_errors: 1.5, ..DiskFaults::default() };
        assert_eq!(faults.check(), Err(DiskFaultsError::NotAChance { field: "sync-errors", value: 1.5 }));
        let faults = DiskFaults { short_reads: f64::NAN, ..DiskFaults::default() };
        assert!(matches!(faults.check(), Err(DiskFaultsError::NotAChance { field: "short-reads", .. })));
        assert_eq!(DiskFaults::default().check(), Ok(()));
    }

    #[test]
    fn crossed_bounds_are_refused() {
        let slow = SlowSyncs { chance: 0.1, least: Duration::from_secs(2), most: Duration::from_secs(1) };
        let faults = DiskFaults { slow_syncs: Some(slow), ..DiskFaults::default() };
        assert!(matches!(faults.check(), Err(DiskFaultsError::CrossedBounds { .. })));
    }
}
