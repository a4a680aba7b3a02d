//! Where product code meets the simulator's curiosity.
//!
//! A test rarely reaches the states in which distributed code is wrong, because they need two rare things at once. Two
//! marks in the code help: one offers a rare path, which the simulator takes on purpose for some seeds, and one reports that a
//! rare state was reached, so that a campaign that never got there can be told from one that did and held.
//!
//! Source: FoundationDB's BUGGIFY; "sometimes assertions" (Antithesis).

/// Decides at marked points, and hears of marked states.
pub trait Probe: Send + Sync {
    /// Whether to take the rare path at `point`, which must be correct, if slower or less convenient: a small batch, an early
    /// flush, a delay. The real world always says no.
    fn buggify(&self, point: &'static str) -> bool;

    /// Counts that `state` was reached. The real world does not listen.
    fn reached(&self, state: &'static str);

    /// Whether the bug `piece` of the museum is planted in this world. The real world is free of them.
    #[cfg(feature = "museum")]
    fn planted(&self, piece: &'static str) -> bool {
        let _ = piece;
        false
    }
}

/// The real world: takes no rare path on purpose, counts nothing.
#[derive(Clone, Copy, Debug)]
pub struct NoProbe;

impl Probe for NoProbe {
    fn buggify(&self, _: &'static str) -> bool {
        false
    }

    fn reached(&self, _: &'static str) {}
}
