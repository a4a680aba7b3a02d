//! The moments of a cron pattern.

use croner::Cron;
use jiff::{
    Timestamp, Zoned,
    tz::{TimeZone, TimeZoneDatabase},
};
use quorate_foundations::time::Wall;

use super::{Missed, Schedule};
use crate::message_queue::QueueError;

const SECOND: i64 = 1_000_000_000;

/// The moments of a cron pattern in a time zone. They are whole seconds.
#[derive(Debug)]
pub(super) struct Calendar {
    cron: Cron,
    zone: TimeZone,
}

impl Calendar {
    /// # Errors
    /// [`QueueError::Invalid`] says what cannot be read.
    pub(super) fn new(cron: &str, zone: &str) -> Result<Self, QueueError> {
        let max = Schedule::MAX_CRON_BYTES;
        if cron.len() > max {
            return Err(QueueError::invalid(format!("`cron` has at most {max} bytes, this one has {}", cron.len())));
        }
        let parsed = cron.parse().map_err(|wrong| QueueError::invalid(format!("`cron` cannot be read: {wrong}")))?;
        // The names and rules that were compiled in: the same on every machine.
        let zone = TimeZoneDatabase::bundled().get(zone).map_err(|_| {
            let shown: String = zone.chars().take(64).collect();
            QueueError::invalid(format!(
                "`time-zone` is the IANA name of one, as `Europe/Berlin` or `UTC`, not `{shown}`"
            ))
        })?;
        Ok(Self { cron: parsed, zone })
    }

    /// The first moment behind `after`; `None` if there is none before the year 2262.
    pub(super) fn next(&self, after: Wall) -> Option<Wall> {
        wall(&self.cron.find_next_occurrence(&self.zoned(after.unix_nanos().div_euclid(SECOND))?, false).ok()?)
    }

    /// The last moment that is not behind `until`.
    fn last(&self, until: i64) -> Option<Wall> {
        wall(&self.cron.find_previous_occurrence(&self.zoned(until)?, true).ok()?)
    }

    /// The moments behind `done` and not behind `now` whose messages are to be sent, in order.
    ///
    /// They are looked for from `now` backwards, so that it costs the same however long ago `done` is.
    pub(super) fn due(&self, done: Wall, now: Wall, missed: Missed) -> Vec<Wall> {
        let mut moments = Vec::new();
        let mut until = now.unix_nanos().div_euclid(SECOND);
        while let Some(moment) = self.last(until).filter(|moment| *moment > done) {
            let is_late = now.saturating_since(moment) > Schedule::LATE;
            let is_wanted = match missed {
                Missed::Skip => !is_late,
                Missed::Once => !is_late || moments.is_empty(),
                Missed::All => !is_late || moments.len() < Schedule::MAX_MISSED,
            };
            if !is_wanted {
                break;
            }
            moments.push(moment);
            until = moment.unix_nanos().div_euclid(SECOND) - 1;
        }
        moments.reverse();
        moments
    }

    fn zoned(&self, second: i64) -> Option<Zoned> {
        Some(Timestamp::from_second(second).ok()?.to_zoned(self.zone.clone()))
    }
}

fn wall(at: &Zoned) -> Option<Wall> {
    i64::try_from(at.timestamp().as_nanosecond()).ok().map(Wall::from_unix_nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Wall {
        let at: Timestamp = text.parse().unwrap();
        Wall::from_unix_nanos(i64::try_from(at.as_nanosecond()).unwrap())
    }

    fn told(moments: &[Wall]) -> Vec<String> {
        moments.iter().map(|at| quorate_data::event::Timestamp::from(*at).as_str().to_owned()).collect()
    }

    fn calendar(cron: &str, zone: &str) -> Calendar {
        Calendar::new(cron, zone).unwrap()
    }

    #[test]
    fn the_next_moment_is_by_the_clocks_of_the_time_zone() {
        let nightly = |zone| calendar("30 2 * * *", zone).next(at("2026-07-01T12:00:00Z")).unwrap();
        assert_eq!(nightly("UTC"), at("2026-07-02T02:30:00Z"));
        assert_eq!(nightly("Europe/Berlin"), at("2026-07-02T00:30:00Z"));
        assert_eq!(nightly("Asia/Kolkata"), at("2026-07-01T21:00:00Z"));
        let exact = calendar("30 2 * * *", "UTC").next(at("2026-07-01T02:30:00Z"));
        assert_eq!(exact, Some(at("2026-07-02T02:30:00Z")), "the moment itself is over");
    }

    #[test]
    fn what_has_a_fixed_hour_runs_once_a_day_also_when_clocks_are_changed() {
        let nightly = calendar("30 2 * * *", "Europe/Berlin");
        let of = |from, until| told(&nightly.due(at(from), at(until), Missed::All));
        // In March the hour does not come: behind the gap. In October it comes twice: the first time.
        let spring = ["2026-03-28T01:30:00Z", "2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"];
        assert_eq!(of("2026-03-28T00:00:00Z", "2026-03-30T12:00:00Z"), spring);
        let autumn = ["2026-10-24T00:30:00Z", "2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"];
        assert_eq!(of("2026-10-24T00:00:00Z", "2026-10-26T12:00:00Z"), autumn);
        let hourly = calendar("0 * * * *", "Europe/Berlin").due(
            at("2026-10-24T22:00:00Z"),
            at("2026-10-25T04:00:00Z"),
            Missed::All,
        );
        assert_eq!(hourly.len(), 6, "hours that really pass: {:?}", told(&hourly));
    }

    #[test]
    fn forwards_and_backwards_find_the_same_moments_all_year() {
        for zone in ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"] {
            for cron in ["30 2 * * *", "15 */3 * * *", "0 0 1 * *", "5 4 * * SUN", "0 12 * * MON#1", "59 23 L * *"] {
                let calendar = calendar(cron, zone);
                let (mut at, end) = (at("2026-01-01T00:00:00Z"), at("2027-01-01T00:00:00Z"));
                let backwards = calendar.due(at, end, Missed::All);
                let backwards = &backwards[backwards.len().saturating_sub(900)..];
                let mut forwards = Vec::new();
                while let Some(next) = calendar.next(at).filter(|next| *next <= end) {
                    forwards.push(next);
                    at = next;
                }
                let forwards = &forwards[forwards.len() - backwards.len()..];
                assert_eq!(told(forwards), told(backwards), "{cron} in {zone}");
            }
        }
    }

    #[test]
    fn missed_moments_are_left_out_made_up_for_once_or_all_and_those_in_time_are_always_sent() {
        let often = calendar("*/20 * * * * *", "UTC");
        let due = |missed| told(&often.due(at("2026-01-01T00:00:00Z"), at("2026-01-01T00:02:05Z"), missed));
        let in_time = ["2026-01-01T00:01:20Z", "2026-01-01T00:01:40Z", "2026-01-01T00:02:00Z"];
        assert_eq!(due(Missed::Skip), in_time);
        assert_eq!(due(Missed::Once), in_time);
        assert_eq!(due(Missed::All).len(), 6);
        let daily = calendar("0 0 * * *", "UTC");
        let due = |missed| told(&daily.due(at("2026-01-01T00:00:00Z"), at("2026-01-09T12:00:00Z"), missed));
        assert_eq!(due(Missed::Skip), [""; 0]);
        assert_eq!(due(Missed::Once), ["2026-01-09T00:00:00Z"]);
        assert_eq!(due(Missed::All).len(), 8);
    }

    #[test]
    fn no_more_moments_are_made_up_for_than_the_limit_however_long_nobody_looked() {
        let each_second = calendar("* * * * * *", "UTC");
        let due = each_second.due(at("1970-01-01T00:00:00Z"), at("2026-01-01T00:00:00Z"), Missed::All);
        assert_eq!(due.len(), Schedule::MAX_MISSED);
        assert_eq!(due.last(), Some(&at("2026-01-01T00:00:00Z")));
        assert!(each_second.due(at("2027-01-01T00:00:00Z"), at("2026-01-01T00:00:00Z"), Missed::All).is_empty());
    }

    #[test]
    fn what_cannot_be_read_is_named_and_what_is_never_due_has_no_next_moment() {
        let said = |cron: &str, zone: &str| Calendar::new(cron, zone).unwrap_err().to_string();
        assert!(said("now and then", "UTC").contains("`cron`"));
        assert!(said("61 * * * *", "UTC").contains("`cron`"));
        assert!(said(&"1,".repeat(200), "UTC").contains("256 bytes"));
        assert!(said("* * * * *", "Europe/Atlantis").contains("`time-zone`"));
        assert_eq!(calendar("0 0 30 2 *", "UTC").next(at("2026-01-01T00:00:00Z")), None);
    }
}
