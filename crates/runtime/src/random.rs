//! Randomness as a tree: every purpose draws from a stream of its own, all of them grown from one seed.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use rand_chacha::ChaCha12Rng;
use rand_core::{Rng as _, SeedableRng};

/// The root of a randomness tree.
#[derive(Clone)]
pub struct Random {
    seed: [u8; 32],
    drawn: Arc<Mutex<BTreeMap<String, u64>>>,
}

impl Random {
    /// A tree that can be grown again from the same `seed`.
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self { seed, drawn: Arc::default() }
    }

    /// A tree nobody can predict, seeded by the operating system.
    pub fn from_os() -> Self {
        let mut seed = [0; 32];
        let mut filled = 0;
        while filled < seed.len() {
            let rest = &mut seed[filled..];
            filled += rustix::rand::getrandom(rest, rustix::rand::GetRandomFlags::empty())
                .unwrap_or_else(|cause| panic!("the operating system gave no randomness: {cause}"));
        }
        Self::from_seed(seed)
    }

    /// A tree of its own for `purpose`, always the same one.
    pub fn branch(&self, purpose: &str) -> Self {
        let mut hasher = blake3::Hasher::new_keyed(&self.seed);
        hasher.update(b"branch");
        hasher.update(purpose.as_bytes());
        Self::from_seed(*hasher.finalize().as_bytes())
    }

    /// The next stream for `purpose`: the n-th call for a purpose always yields the same n-th stream.
    pub fn stream(&self, purpose: &str) -> Rng {
        let nth = {
            let mut drawn = self.drawn.lock().unwrap_or_else(PoisonError::into_inner);
            let nth = drawn.entry(purpose.to_owned()).or_default();
            *nth += 1;
            *nth
        };
        let mut hasher = blake3::Hasher::new_keyed(&self.seed);
        hasher.update(&nth.to_le_bytes());
        hasher.update(purpose.as_bytes());
        Rng(ChaCha12Rng::from_seed(*hasher.finalize().as_bytes()))
    }
}

/// One stream of random numbers. Cryptographically strong when the tree came from the operating system.
pub struct Rng(ChaCha12Rng);

impl Rng {
    /// 64 random bits.
    pub fn u64(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// 128 random bits.
    pub fn u128(&mut self) -> u128 {
        u128::from(self.u64()) << 64 | u128::from(self.u64())
    }

    /// A number from `0` to `bound - 1`, all equally likely. `bound` must not be zero.
    pub fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0, "a random number below zero was asked for");
        // Lemire's multiply-shift; the rejected sliver makes every outcome exactly as likely as any other.
        let threshold = bound.wrapping_neg() % bound;
        loop {
            let wide = u128::from(self.u64()) * u128::from(bound);
            if wide as u64 >= threshold {
                return (wide >> 64) as u64;
            }
        }
    }

    /// A number in `[0, 1)`.
    pub fn unit(&mut self) -> f64 {
        (self.u64() >> 11) as f64 * (1.0 / (1_u64 << 53) as f64)
    }

    /// Fills `bytes`.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        self.0.fill_bytes(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::Random;

    #[test]
    fn the_same_seed_grows_the_same_tree_and_purposes_do_not_disturb_each_other() {
        let (a, b) = (Random::from_seed([7; 32]), Random::from_seed([7; 32]));
        let _extra = b.stream("elsewhere");
        assert_eq!(a.stream("ids").u128(), b.stream("ids").u128());
        assert_eq!(a.stream("ids").u128(), b.stream("ids").u128());
        assert_ne!(a.stream("ids").u128(), a.stream("ids").u128());
    }

    #[test]
    fn below_stays_below_and_reaches_every_value() {
        let mut rng = Random::from_seed([1; 32]).stream("dice");
        let mut seen = [false; 6];
        for _ in 0..200 {
            seen[usize::try_from(rng.below(6)).unwrap()] = true;
        }
        assert_eq!(seen, [true; 6]);
    }
}
