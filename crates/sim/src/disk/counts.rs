//! What a disk did, and what was done to it.

use serde::{Deserialize, Serialize};

/// How often each thing happened since the disk was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct DiskCounts {
    /// Operations of all kinds, failed ones too.
    pub operations: u64,
    /// Reads among them.
    pub reads: u64,
    /// Writes and truncations among them.
    pub writes: u64,
    /// Syncs of files and folders among them.
    pub syncs: u64,
    /// Reads that were made to fail.
    pub read_errors: u64,
    /// Writes and truncations that were made to fail.
    pub write_errors: u64,
    /// Syncs that were made to fail.
    pub sync_errors: u64,
    /// Other operations that were made to fail.
    pub other_errors: u64,
    /// Operations refused for lack of space.
    pub no_space: u64,
    /// Reads that returned less than was there.
    pub short_reads: u64,
    /// Syncs that took their time.
    pub slow_syncs: u64,
    /// Syncs that lied.
    pub lying_syncs: u64,
    /// Bits flipped at rest.
    pub rotten_bits: u64,
    /// Crashes in the middle of an operation.
    pub crashes: u64,
    /// Power failures.
    pub power_losses: u64,
    /// Pages with unsynced changes when the power failed.
    pub pages_at_stake: u64,
    /// Process kills.
    pub kills: u64,
}
