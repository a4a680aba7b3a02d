//! When the writer waits a moment for those it has just answered.
//!
//! Producers that append again as soon as they have their answer would otherwise take turns: half of them waits while the
//! group of the others is synced, so that every sync carries half of what it could. Waiting pays when they are back sooner
//! than a sync takes. Whether they will be is only known by trying, so a wait that was in vain is tried again ever more
//! rarely, and a lone producer is never waited for.

use std::time::Duration;

/// Below this a sync is too short to be worth a nap: timers of the operating system are no finer.
const WORTH_WAITING_FOR: Duration = Duration::from_micros(80);

/// What each of them keeps a core busy with until it is back, at least: more than a sync has time for don't wait for the
/// disk but for the processor, and a writer that waits for them only does less.
const COMING_BACK: Duration = Duration::from_micros(4);

/// Nobody waits for longer than this, whatever syncs take.
const MAX_WAIT: Duration = Duration::from_millis(5);

/// After waits in vain so many groups pass before the next attempt, at most.
const MAX_PATIENCE: u32 = 512;

/// Learns how long a sync takes and whether waiting pays.
#[derive(Debug, Default)]
pub(super) struct Gather {
    /// What a group's commit takes, smoothed.
    sync: Duration,
    /// Groups that pass before the next attempt.
    sitting_out: u32,
    /// How many will after the next wait in vain.
    patience: u32,
}

impl Gather {
    /// A group was committed in `took`, its `answered` members have their answers, and `waiting` others were in line by
    /// then. Returns how many to wait for, and how long at most; `None` to go on at once.
    pub(super) fn wait(&mut self, answered: usize, waiting: usize, took: Duration) -> Option<(usize, Duration)> {
        self.sync = if self.sync.is_zero() { took } else { (self.sync * 7 + took) / 8 };
        let wanted = answered + waiting;
        let coming_back = COMING_BACK * u32::try_from(wanted).unwrap_or(u32::MAX);
        if wanted < 2 || self.sync < WORTH_WAITING_FOR.max(coming_back) {
            return None;
        }
        if self.sitting_out > 0 {
            self.sitting_out -= 1;
            return None;
        }
        // A disk that hung once must not make a healthy one slow: this sync was no shorter, and there is an end to waiting.
        Some((wanted, (self.sync.min(took) / 2).min(MAX_WAIT)))
    }

    /// A wait is over, and all that were wanted `came` or not.
    pub(super) fn waited(&mut self, came: bool) {
        self.patience = if came { 0 } else { (self.patience * 2).clamp(1, MAX_PATIENCE) };
        self.sitting_out = self.patience;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SYNC: Duration = Duration::from_millis(1);

    #[test]
    fn a_lone_producer_is_never_waited_for() {
        assert_eq!(Gather::default().wait(1, 0, SYNC), None);
    }

    #[test]
    fn those_that_were_answered_and_those_in_line_are_waited_for_half_a_sync() {
        assert_eq!(Gather::default().wait(8, 8, SYNC), Some((16, SYNC / 2)));
        assert_eq!(Gather::default().wait(16, 0, SYNC), Some((16, SYNC / 2)));
    }

    #[test]
    fn nobody_is_waited_for_when_a_sync_is_short() {
        assert_eq!(Gather::default().wait(8, 8, Duration::from_micros(20)), None);
    }

    #[test]
    fn more_than_a_sync_has_time_for_are_not_waited_for() {
        assert_eq!(Gather::default().wait(128, 128, SYNC), None);
        assert!(Gather::default().wait(128, 128, SYNC * 2).is_some());
    }

    #[test]
    fn a_disk_that_hung_once_makes_no_long_wait() {
        let mut gather = Gather::default();
        let (_, span) = gather.wait(1, 1, SYNC * 30_000).unwrap();
        assert_eq!(span, MAX_WAIT);
        let (_, span) = gather.wait(1, 1, SYNC).unwrap();
        assert_eq!(span, SYNC / 2, "the disk is healthy again");
    }

    #[test]
    fn waits_in_vain_become_rare_and_one_that_paid_makes_them_common_again() {
        let mut gather = Gather::default();
        let mut waits = 0;
        for _ in 0..10_000 {
            if gather.wait(8, 8, SYNC).is_some() {
                waits += 1;
                gather.waited(false);
            }
        }
        assert!((20..=40).contains(&waits), "{waits} of 10,000 groups were waited for in vain");
        while gather.wait(8, 8, SYNC).is_none() {}
        gather.waited(true);
        assert!(gather.wait(8, 8, SYNC).is_some());
    }
}
