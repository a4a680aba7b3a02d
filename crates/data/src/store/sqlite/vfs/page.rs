//! The footer of a page: which page it is, and a checksum of both.
//!
//! SQLite leaves the last [`FOOTER`] bytes of each page to us. The number tells a page that was written to, or read from,
//! the wrong place from one whose bytes changed.

/// The bytes that SQLite leaves free at the end of each page.
pub(super) const FOOTER: usize = 8;

/// What every page of ours takes.
pub(in crate::store::sqlite) const PAGE_SIZE: usize = 4096;

/// Writes the footer of `page`, which is page `number`.
pub(super) fn seal(page: &mut [u8], number: u32) {
    let (content, footer) = page.split_at_mut(page.len() - FOOTER);
    footer[..4].copy_from_slice(&number.to_le_bytes());
    let sum = checksum(content, number);
    footer[4..].copy_from_slice(&sum.to_le_bytes());
}

/// Says what is wrong with `page`, which was read as page `number`.
pub(super) fn check(page: &[u8], number: u32) -> Result<(), String> {
    let (content, footer) = page.split_at(page.len() - FOOTER);
    let (written_as, sum) = (word(&footer[..4]), word(&footer[4..]));
    if sum == checksum(content, written_as) && written_as != number {
        return Err(format!("it is page {written_as}, in the wrong place"));
    }
    if sum == checksum(content, number) && written_as == number {
        return Ok(());
    }
    Err("the checksum does not match the bytes".to_owned())
}

fn word(bytes: &[u8]) -> u32 {
    bytes.iter().rev().fold(0, |word, byte| word << 8 | u32::from(*byte))
}

fn checksum(content: &[u8], number: u32) -> u32 {
    let mut sum = crc32fast::Hasher::new();
    sum.update(content);
    sum.update(&number.to_le_bytes());
    sum.finalize()
}

#[cfg(test)]
mod tests {
    use super::{PAGE_SIZE, check, seal};

    fn page() -> Vec<u8> {
        let mut page: Vec<u8> = (0..PAGE_SIZE).map(|n| (n % 251) as u8).collect();
        seal(&mut page, 7);
        page
    }

    #[test]
    fn a_page_is_what_was_sealed_and_every_flipped_bit_of_it_is_noticed() {
        assert_eq!(check(&page(), 7), Ok(()));
        for at in 0..PAGE_SIZE {
            let mut page = page();
            page[at] ^= 1 << (at % 8);
            assert!(check(&page, 7).is_err(), "byte {at}");
        }
    }

    #[test]
    fn a_page_in_the_wrong_place_is_told_from_a_damaged_one() {
        let wrong = check(&page(), 8).unwrap_err();
        assert!(wrong.contains("page 7"), "{wrong}");
    }

    #[test]
    fn a_page_of_zeros_is_not_sealed() {
        assert!(check(&[0; PAGE_SIZE], 0).is_err() && check(&[0; PAGE_SIZE], 1).is_err());
    }
}
