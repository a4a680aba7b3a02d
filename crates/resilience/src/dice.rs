//! Randomness for machines: a stream of numbers that a seed decides, so that a machine stays a function of its inputs.

use std::time::Duration;

use quorate_runtime::random::Rng;

/// A small generator, good enough to spread waits. Source: Steele et al., "Fast splittable pseudorandom number
/// generators" (2014), SplitMix64.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// Numbers that `seed` decides.
    pub const fn seeded(seed: u64) -> Self {
        Self(seed)
    }

    /// Numbers that a stream of the environment decides.
    pub fn from_rng(rng: &mut Rng) -> Self {
        Self(rng.u64())
    }

    /// 64 random bits.
    pub fn u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// A number in `[0, 1)`.
    pub fn unit(&mut self) -> f64 {
        (self.u64() >> 11) as f64 * (1.0 / (1_u64 << 53) as f64)
    }

    /// A span from `low` up to `high`; `low` if `high` isn't longer.
    pub fn between(&mut self, low: Duration, high: Duration) -> Duration {
        let unit = self.unit();
        low + Duration::from_secs_f64(high.saturating_sub(low).as_secs_f64().min(1e9) * unit)
    }
}

#[cfg(test)]
mod tests {
    use super::Dice;
    use std::time::Duration;

    #[test]
    fn the_same_seed_gives_the_same_numbers_and_spans_stay_between_their_ends() {
        let (mut a, mut b) = (Dice::seeded(7), Dice::seeded(7));
        let (low, high) = (Duration::from_millis(3), Duration::from_millis(9));
        for _ in 0..1_000 {
            let span = a.between(low, high);
            assert_eq!(span, b.between(low, high));
            assert!((low..high).contains(&span));
        }
        assert_eq!(a.between(high, low), high);
    }
}
