//! Leases: the right to settle an event, for a while.

use std::{fmt, str::FromStr};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use crate::event::Position;

/// A position under a fence: what a consumer claims to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Claim {
    /// The event.
    pub position: Position,
    /// Rises with every lease of the subscription, so that an older holder of the same event is told apart.
    pub fence: u64,
}

/// The right to settle an event. Opaque to its holder; its text is what travels.
///
/// A lease ends when the event is settled, or when it expired *and* the event was handed out again or parked. Until
/// then nobody else holds the event, so a late holder may still settle it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lease {
    /// The store's epoch: a restored store knows none of the leases given out before.
    pub(super) epoch: u32,
    /// The subscription's id, which a new one of the same name does not share.
    pub(super) subscription: u64,
    pub(super) claim: Claim,
}

/// A text that is no lease of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is not a lease that quorate gave out")]
pub struct LeaseError;

const BODY: usize = 28;

impl Lease {
    /// The event's position.
    pub fn position(&self) -> Position {
        self.claim.position
    }

    /// The fencing token: of two leases of a subscription, the later one has the higher.
    pub fn fence(&self) -> u64 {
        self.claim.fence
    }
}

impl fmt::Display for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = [0; BODY + 4];
        bytes[..4].copy_from_slice(&self.epoch.to_be_bytes());
        bytes[4..12].copy_from_slice(&self.subscription.to_be_bytes());
        bytes[12..20].copy_from_slice(&self.claim.position.get().to_be_bytes());
        bytes[20..BODY].copy_from_slice(&self.claim.fence.to_be_bytes());
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
        let number = |range: std::ops::Range<usize>| body[range].iter().fold(0, |n, byte| n << 8 | u64::from(*byte));
        let claim = Claim { position: Position::new(number(12..20)), fence: number(20..BODY) };
        let epoch = u32::try_from(number(0..4)).map_err(|_| LeaseError)?;
        Ok(Self { epoch, subscription: number(4..12), claim })
    }
}

#[cfg(test)]
mod tests {
    use super::{Claim, Lease, LeaseError};
    use crate::event::Position;

    #[test]
    fn a_lease_survives_its_text_and_a_typo_does_not() {
        let claim = Claim { position: Position::new(262_200), fence: 9 };
        let lease = Lease { epoch: 3, subscription: u64::MAX / 3, claim };
        let text = lease.to_string();
        assert_eq!(text.parse(), Ok(lease));
        let mut typo = text.into_bytes();
        typo[20] = if typo[20] == b'A' { b'B' } else { b'A' };
        assert_eq!(String::from_utf8(typo).unwrap().parse::<Lease>(), Err(LeaseError));
        assert_eq!("".parse::<Lease>(), Err(LeaseError));
    }
}
