//! Leases: the right to settle a message, for a while.

use std::{fmt, str::FromStr};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use super::machine::Claim;

/// The right to settle a message. Opaque to its holder; its text is what travels.
///
/// A lease ends when the message is settled, or when it expired *and* the message was handed out again or parked. Until
/// then nobody else holds the message, so a late holder may still settle it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lease {
    /// The store's epoch: a restored store knows none of the leases given out before.
    pub(super) epoch: u32,
    /// The queue's id. A new queue may get that of one that was deleted, but never a message's number again.
    pub(super) queue: u64,
    pub(super) claim: Claim,
}

/// A text that is no lease of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is not a lease that quorate gave out")]
pub struct LeaseError;

const BODY: usize = 24;

impl Lease {
    /// The fencing token: of two leases on the same message, the later one has the higher.
    pub fn fence(&self) -> u32 {
        self.claim.delivery
    }
}

impl fmt::Display for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = [0; BODY + 4];
        bytes[..4].copy_from_slice(&self.epoch.to_be_bytes());
        bytes[4..12].copy_from_slice(&self.queue.to_be_bytes());
        bytes[12..20].copy_from_slice(&self.claim.seq.to_be_bytes());
        bytes[20..BODY].copy_from_slice(&self.claim.delivery.to_be_bytes());
        let check = crc32fast::hash(&bytes[..BODY]);
        bytes[BODY..].copy_from_slice(&check.to_be_bytes());
        f.write_str(&URL_SAFE_NO_PAD.encode(bytes))
    }
}

impl FromStr for Lease {
    type Err = LeaseError;

    fn from_str(text: &str) -> Result<Self, LeaseError> {
        let bytes: [u8; BODY + 4] =
            URL_SAFE_NO_PAD.decode(text).ok().and_then(|bytes| bytes.try_into().ok()).ok_or(LeaseError)?;
        let (body, check) = bytes.split_at(BODY);
        if crc32fast::hash(body).to_be_bytes() != check {
            return Err(LeaseError);
        }
        let number =
            |range: std::ops::Range<usize>| body[range].iter().fold(0_u64, |n, byte| n << 8 | u64::from(*byte));
        let short = |n: u64| u32::try_from(n).map_err(|_| LeaseError);
        let claim = Claim { seq: number(12..20), delivery: short(number(20..BODY))? };
        Ok(Self { epoch: short(number(0..4))?, queue: number(4..12), claim })
    }
}

#[cfg(test)]
mod tests {
    use super::{Claim, Lease, LeaseError};

    #[test]
    fn a_lease_survives_its_text_and_a_typo_does_not() {
        let lease = Lease { epoch: 3, queue: u64::MAX / 3, claim: Claim { seq: 262_200, delivery: 9 } };
        let text = lease.to_string();
        assert_eq!(text.parse(), Ok(lease));
        let mut typo = text.into_bytes();
        typo[20] = if typo[20] == b'A' { b'B' } else { b'A' };
        assert_eq!(String::from_utf8(typo).unwrap().parse::<Lease>(), Err(LeaseError));
        assert_eq!("".parse::<Lease>(), Err(LeaseError));
    }
}
