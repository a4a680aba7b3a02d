use super::*;
use crate::check::reference::{Size, world};

#[test]
fn a_store_that_is_right_is_linearizable_per_stream() {
    for seed in 0..100 {
        let verdict = expected_versions(&world(seed, Size::SMALL).history);
        assert!(verdict.holds(), "seed {seed}: {verdict}");
    }
}
