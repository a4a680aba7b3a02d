//! A counter that many threads raise and few read.
//!
//! One shared counter costs every core the cache line of all others. Here the first threads own a cell each, which
//! they raise with a load and a store; whoever comes later shares cells and raises them atomically. The sum is read by
//! whoever has to decide something, which is rare.

use super::sync::{AtomicU32, AtomicU64, OWNED, Ordering, SHARED};

/// Which cells a thread raises: its own, or one it shares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lane(u8);

impl Lane {
    /// A lane that anybody may use at any time.
    pub(crate) const GUEST: Self = Self(OWNED as u8);

    pub(crate) fn number(self) -> usize {
        usize::from(self.0)
    }

    pub(crate) fn is_owned(self) -> bool {
        usize::from(self.0) < OWNED
    }
}

/// Hands out lanes, so that no two living threads own the same one.
pub(crate) struct Lanes {
    /// A bit for each owned lane.
    pub(crate) taken: AtomicU32,
    /// How many threads have been given a shared one.
    pub(crate) guests: AtomicU32,
}

impl Lanes {
    /// A lane for the calling thread.
    pub(crate) fn claim(&self) -> Lane {
        let mut taken = self.taken.load(Ordering::Relaxed);
        loop {
            let free = taken.trailing_ones();
            if free as usize >= OWNED {
                let guest = self.guests.fetch_add(1, Ordering::Relaxed) as usize % SHARED;
                return Lane((OWNED + guest) as u8);
            }
            // Ordering: pairs with the release of whoever owned the lane before, whose stores to its cells the new
            // owner then reads.
            match self.taken.compare_exchange_weak(taken, taken | 1 << free, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return Lane(free as u8),
                Err(now) => taken = now,
            }
        }
    }

    /// Gives a lane back.
    pub(crate) fn release(&self, lane: Lane) {
        if lane.is_owned() {
            self.taken.fetch_and(!(1 << lane.0), Ordering::Release);
        }
    }
}

/// A cell far enough from its neighbours, whose lines processors fetch in pairs.
#[repr(align(128))]
struct Cell(AtomicU64);

/// The counter. Only grows; starts at zero.
pub(crate) struct Stripes(Box<[Cell]>);

impl Stripes {
    pub(crate) fn new() -> Self {
        Self((0..OWNED + SHARED).map(|_| Cell(AtomicU64::new(0))).collect())
    }

    /// Adds one.
    #[inline]
    pub(crate) fn raise(&self, lane: Lane) {
        self.add(lane, 1);
    }

    /// Adds `amount`.
    #[inline]
    pub(crate) fn add(&self, lane: Lane, amount: u64) {
        let cell = &self.0[usize::from(lane.0)].0;
        if lane.is_owned() {
            // Nobody else stores here: see `Lanes`.
            cell.store(cell.load(Ordering::Relaxed).wrapping_add(amount), Ordering::Relaxed);
        } else {
            cell.fetch_add(amount, Ordering::Relaxed);
        }
    }

    /// How often it was raised. What is raised at the same moment may or may not be in it.
    pub(crate) fn sum(&self) -> u64 {
        self.0.iter().fold(0, |sum, cell| sum.wrapping_add(cell.0.load(Ordering::Relaxed)))
    }
}
