//! A wall clock that distrusts its own jumps.
//!
//! Ages outlive the process, so that they are told by the wall clock; and a wall clock may be set forward by a year, by a
//! battery that died or a hand that slipped. What was destroyed by it does not come back when it is set right. So what
//! ages are judged by follows the wall clock only as far as the boot-time clock, which nobody sets, says that time has
//! passed. A jump ahead is believed after it has stood for a [probation](TrustedClock::PROBATION) of boot time: whoever
//! corrects a clock does it sooner. A step back is believed at once, for it destroys nothing.

use std::time::Duration;

use quorate_foundations::time::{Boot, Wall};

/// The wall clock, as far as it can be believed.
#[derive(Clone, Copy, Debug)]
pub struct TrustedClock {
    trusted: Wall,
    looked_at: Boot,
    /// Since when the wall clock is ahead of what is believed.
    ahead_since: Option<Boot>,
}

impl TrustedClock {
    /// How long a jump ahead has to stand before it is believed.
    pub const PROBATION: Duration = Duration::from_secs(3_600);
    /// How far the wall clock may be ahead without being a jump: clocks drift, and are slewed.
    pub const TOLERANCE: Duration = Duration::from_secs(60);

    /// A clock that was at `mark` when it was last written down. Without a mark the wall clock is believed: nothing is
    /// known that speaks against it.
    pub fn new(mark: Option<Wall>, wall: Wall, boot: Boot) -> Self {
        let mut clock = Self { trusted: mark.unwrap_or(wall), looked_at: boot, ahead_since: None };
        clock.read(wall, boot);
        clock
    }

    /// What time it is, given what both clocks say.
    pub fn read(&mut self, wall: Wall, boot: Boot) -> Wall {
        let passed = boot.saturating_since(self.looked_at);
        self.looked_at = self.looked_at.max(boot);
        let reckoned = self.trusted + passed;
        if wall.saturating_since(reckoned) <= Self::TOLERANCE {
            (self.trusted, self.ahead_since) = (wall, None);
            return wall;
        }
        let since = *self.ahead_since.get_or_insert(boot);
        if boot.saturating_since(since) >= Self::PROBATION {
            (self.trusted, self.ahead_since) = (wall, None);
            return wall;
        }
        self.trusted = reckoned;
        reckoned
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;
    use quorate_foundations::time::{Boot, Wall};

    use super::TrustedClock;

    const YEAR: i64 = 365 * 24 * 3_600;

    fn wall(seconds: i64) -> Wall {
        Wall::from_unix_nanos(seconds * 1_000_000_000)
    }

    fn boot(seconds: u64) -> Boot {
        Boot::ZERO + Duration::from_secs(seconds)
    }

    #[test]
    fn a_steady_clock_is_believed() {
        let mut clock = TrustedClock::new(None, wall(1_000), boot(5));
        assert_eq!(clock.read(wall(1_010), boot(15)), wall(1_010));
        assert_eq!(clock.read(wall(1_050), boot(16)), wall(1_050), "slewed, and within the tolerance");
    }

    #[test]
    fn a_jump_ahead_is_believed_only_after_it_stood_for_the_probation() {
        let mut clock = TrustedClock::new(None, wall(1_000), boot(0));
        assert_eq!(clock.read(wall(1_000 + YEAR), boot(10)), wall(1_010));
        assert_eq!(clock.read(wall(1_000 + YEAR + 3_590), boot(3_600)), wall(4_600));
        assert_eq!(clock.read(wall(1_000 + YEAR + 3_610), boot(3_610)), wall(1_000 + YEAR + 3_610));
    }

    #[test]
    fn a_jump_that_is_corrected_leaves_no_trace() {
        let mut clock = TrustedClock::new(None, wall(1_000), boot(0));
        clock.read(wall(1_000 + YEAR), boot(10));
        assert_eq!(clock.read(wall(2_000), boot(1_000)), wall(2_000));
        assert_eq!(clock.read(wall(2_000 + YEAR), boot(3_650)), wall(4_650), "a second jump waits for itself");
    }

    #[test]
    fn a_step_back_is_believed_at_once() {
        let mut clock = TrustedClock::new(None, wall(YEAR), boot(0));
        assert_eq!(clock.read(wall(500), boot(10)), wall(500));
    }

    #[test]
    fn a_clock_that_stood_ahead_before_the_start_waits_as_well() {
        let mut clock = TrustedClock::new(Some(wall(1_000)), wall(1_000 + YEAR), boot(50));
        assert_eq!(clock.read(wall(1_001 + YEAR), boot(51)), wall(1_001));
        assert_eq!(clock.read(wall(3_651 + YEAR), boot(3_650)), wall(3_651 + YEAR));
    }

    proptest! {
        #[test]
        fn it_is_never_ahead_of_the_wall_nor_of_what_it_has_reason_to_believe(
            steps in proptest::collection::vec((-10_000_i64..10_000, 0..600_u64), 1..40),
        ) {
            let (mut at, mut up) = (1_000_000, 0);
            let mut clock = TrustedClock::new(None, wall(at), boot(0));
            let mut last = wall(at);
            for (jump, passed) in steps {
                at += jump;
                up += passed;
                let before = last;
                last = clock.read(wall(at), boot(up));
                prop_assert!(last <= wall(at));
                let reason = Duration::from_secs(passed) + TrustedClock::TOLERANCE;
                prop_assert!(last.saturating_since(before) <= reason || boot(up) >= Boot::ZERO + TrustedClock::PROBATION);
            }
        }
    }
}
