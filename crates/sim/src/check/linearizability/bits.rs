//! Which operations are done, and a short name for it.

/// A set of small numbers that remembers from where on it has gaps.
#[derive(Debug, Default)]
pub(super) struct Bits {
    words: Vec<u64>,
    len: usize,
}

impl Bits {
    pub(super) fn up_to(numbers: usize) -> Self {
        Self { words: vec![0; numbers.div_ceil(64)], len: 0 }
    }

    pub(super) fn contains(&self, number: usize) -> bool {
        self.words[number / 64] & (1 << (number % 64)) != 0
    }

    pub(super) fn insert(&mut self, number: usize) {
        debug_assert!(!self.contains(number), "{number} is done already");
        self.words[number / 64] |= 1 << (number % 64);
        self.len += 1;
    }

    pub(super) fn remove(&mut self, number: usize) {
        debug_assert!(self.contains(number), "{number} was not done");
        self.words[number / 64] &= !(1 << (number % 64));
        self.len -= 1;
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The words between those that are full at the front and those that are empty at the end, and the number of the
    /// first of them. `full`: how many words at the front are known to be full.
    pub(super) fn middle(&self, full: usize) -> (usize, &[u64]) {
        // What is done at all lies within `full` words, a window of concurrent operations, and what is counted in `len`.
        let mut begin = full;
        let mut left = self.len - 64 * full;
        while self.words.get(begin) == Some(&u64::MAX) {
            begin += 1;
            left -= 64;
        }
        let mut end = begin;
        while left > 0 {
            left -= self.words[end].count_ones() as usize;
            end += 1;
        }
        (begin, &self.words[begin..end])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_words_that_are_neither_full_nor_empty_make_the_name() {
        let mut bits = Bits::up_to(300);
        (0..130).for_each(|number| bits.insert(number));
        assert_eq!(bits.middle(0), (2, [0b11].as_slice()));
        assert_eq!(bits.middle(1), (2, [0b11].as_slice()), "told that the first word is full, it finds the second");
        bits.insert(299);
        assert_eq!(bits.middle(0).1.len(), 3);
        bits.remove(299);
        bits.remove(0);
        assert_eq!(bits.middle(0), (0, [u64::MAX - 1, u64::MAX, 0b11].as_slice()));
        assert_eq!(bits.len(), 129);
    }
}
