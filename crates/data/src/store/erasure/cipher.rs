//! One data subject's key, and what it does to data.
//!
//! ```text
//! 0..8     which key: generation and check, see `KeyId`
//! 8..20    nonce: BLAKE3, keyed, of the header's length, the header, and the data
//! 20..     ciphertext and 16 bytes of tag; the header is authenticated with it
//! ```

use bytes::Bytes;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};

use crate::event::KeyId;

const NONCE_AT: usize = KeyId::BYTES;
const CIPHERTEXT_AT: usize = NONCE_AT + 12;

/// A key that seals and opens the data of one subject's events.
pub(crate) struct SubjectKey {
    id: KeyId,
    sealing: LessSafeKey,
    nonces: [u8; 32],
}

impl SubjectKey {
    /// The key of `generation` that grows from 32 random bytes.
    pub(crate) fn new(generation: u32, secret: &[u8; 32]) -> Self {
        let derive = |purpose: &str| blake3::derive_key(purpose, secret);
        let sealing = UnboundKey::new(&CHACHA20_POLY1305, &derive("quorate 2026 data subject: encryption"))
            .unwrap_or_else(|_| unreachable!("the key has the cipher's length"));
        let check = derive("quorate 2026 data subject: check");
        Self {
            id: KeyId { generation, check: u32::from_le_bytes([check[0], check[1], check[2], check[3]]) },
            sealing: LessSafeKey::new(sealing),
            nonces: derive("quorate 2026 data subject: nonces"),
        }
    }

    /// Which key it is.
    pub(crate) fn id(&self) -> KeyId {
        self.id
    }

    /// The length of what data of `len` bytes is sealed to.
    pub(crate) fn sealed_len(len: usize) -> usize {
        CIPHERTEXT_AT + len + CHACHA20_POLY1305.tag_len()
    }

    /// Seals `data` of the event with this `header`. The same always gives the same.
    pub(crate) fn seal(&self, header: &[u8], data: &[u8]) -> Vec<u8> {
        let nonce = self.nonce(header, data);
        let mut sealed = Vec::with_capacity(Self::sealed_len(data.len()));
        sealed.extend_from_slice(&self.id.to_bytes());
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(data);
        let tag = self
            .sealing
            .seal_in_place_separate_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(header),
                &mut sealed[CIPHERTEXT_AT..],
            )
            .unwrap_or_else(|_| unreachable!("an event is far below the cipher's 256 GiB"));
        sealed.extend_from_slice(tag.as_ref());
        sealed
    }

    /// The data that was sealed; `None` if it was not this key, this header, or these bytes.
    pub(crate) fn open(&self, header: &[u8], sealed: &[u8]) -> Option<Bytes> {
        let nonce = sealed.get(NONCE_AT..CIPHERTEXT_AT)?.try_into().ok()?;
        let mut data = sealed[CIPHERTEXT_AT..].to_vec();
        let length =
            self.sealing.open_in_place(Nonce::assume_unique_for_key(nonce), Aad::from(header), &mut data).ok()?.len();
        data.truncate(length);
        Some(data.into())
    }

    fn nonce(&self, header: &[u8], data: &[u8]) -> [u8; 12] {
        let mut hasher = blake3::Hasher::new_keyed(&self.nonces);
        hasher.update(&(header.len() as u64).to_le_bytes()).update(header).update(data);
        let mut nonce = [0; 12];
        nonce.copy_from_slice(&hasher.finalize().as_bytes()[..12]);
        nonce
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::SubjectKey;

    #[test]
    fn the_same_event_is_sealed_to_the_same_bytes_and_another_to_others() {
        let key = SubjectKey::new(1, &[7; 32]);
        let sealed = key.seal(b"header", b"data");
        assert_eq!(sealed, key.seal(b"header", b"data"));
        for other in [key.seal(b"headers", b"data"), key.seal(b"header", b"date"), key.seal(b"heade", b"rdata")] {
            assert_ne!(sealed[8..20], other[8..20], "a nonce serves one message");
        }
        assert_ne!(sealed, SubjectKey::new(2, &[7; 32]).seal(b"header", b"data"));
        assert_ne!(sealed[20..], SubjectKey::new(1, &[8; 32]).seal(b"header", b"data")[20..]);
    }

    proptest! {
        #[test]
        fn what_was_sealed_is_opened_by_its_key_and_header_alone(
            header in any::<Vec<u8>>(), data in any::<Vec<u8>>(), at in any::<prop::sample::Index>(), flip in 1..=255_u8,
        ) {
            let key = SubjectKey::new(1, &[7; 32]);
            let mut sealed = key.seal(&header, &data);
            prop_assert_eq!(key.open(&header, &sealed), Some(data.into()));
            prop_assert_eq!(SubjectKey::new(1, &[8; 32]).open(&header, &sealed), None);
            prop_assert_eq!(key.open(&[&header[..], b"x"].concat(), &sealed), None);
            let at = 8 + at.index(sealed.len() - 8);
            sealed[at] ^= flip;
            prop_assert_eq!(key.open(&header, &sealed), None);
        }

        #[test]
        fn opening_survives_any_bytes(sealed in any::<Vec<u8>>()) {
            prop_assert_eq!(SubjectKey::new(1, &[7; 32]).open(b"header", &sealed), None);
        }
    }
}
