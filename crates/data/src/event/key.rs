//! Which of a data subject's keys sealed an event.

/// The name of a key: how many keys its subject had, this one included, and a few bits of the key itself.
///
/// The bits tell a key from one of the same generation that was lost, so that a stranger's key is never tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KeyId {
    /// Counted from 1; every erasure begins a new one.
    pub(crate) generation: u32,
    pub(crate) check: u32,
}

impl KeyId {
    /// How many bytes it takes.
    pub(crate) const BYTES: usize = 8;

    /// From its bytes.
    pub(crate) fn from_bytes(bytes: &[u8; Self::BYTES]) -> Self {
        let bits = u64::from_le_bytes(*bytes);
        Self { generation: bits as u32, check: (bits >> 32) as u32 }
    }

    /// Its bytes.
    pub(crate) fn to_bytes(self) -> [u8; Self::BYTES] {
        (u64::from(self.generation) | u64::from(self.check) << 32).to_le_bytes()
    }
}
