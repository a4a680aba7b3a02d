//! Feeds: events that other services say, and how far behind them a view is by their own time.
//!
//! Think of the clock in a letter's heading. How long a letter has lain in the office says little of how old its news is: the
//! post may have been slow, or the correspondent may have fallen silent. So each build keeps, per source, the latest time that
//! the source itself has said, in the transaction of the rows it goes with.
//!
//! Clocks differ. A clock that is ahead hides as much of the way's delay as it is ahead, and never more than that: a time later
//! than its event's arrival counts as the arrival. A clock that is behind makes a feed look older, by as much.

use std::{collections::BTreeMap, time::Duration};

use quorate_foundations::time::Wall;

use super::{Build, ViewError, registered::Registered, rows};
use crate::{
    event::Recorded,
    store::{DynTx, Row, SqlError, Statement, Value},
};

/// Whose events a view is made of, and how far behind them, by their own time, it may be when it is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Feeds {
    /// The CloudEvents `source`s, as events have them: 1 to [`MAX`](Self::MAX), each once.
    pub sources: Vec<String>,
    /// How far behind each of them a read may be. `None`: no matter; how far it is, is told all the same.
    pub max_lag: Option<Duration>,
    /// What it means that a source says nothing.
    pub silence: Silence,
}

/// What it means that a source says nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Silence {
    /// Nobody knows how things stand there: a feed's lag is the age of the latest time it has said. A source that has nothing
    /// to tell for long needs a heartbeat.
    #[default]
    Stale,
    /// Nothing happens there: a feed's lag is how late what it said last was when it arrived. A feed that is cut off looks
    /// like one with nothing to tell.
    Idle,
}

impl Feeds {
    /// The most sources.
    pub const MAX: usize = 16;

    /// Whether an event is of one of the sources.
    pub fn has(&self, event: &Recorded) -> bool {
        self.sources.iter().any(|source| source == event.source())
    }

    pub(super) fn check(&self) -> Result<(), ViewError> {
        if self.sources.is_empty() || self.sources.len() > Self::MAX {
            return Err(ViewError::invalid(format!("feeds have 1 to {} sources", Self::MAX)));
        }
        for (n, source) in self.sources.iter().enumerate() {
            if source.is_empty() || self.sources[..n].contains(source) {
                return Err(ViewError::invalid(format!("the source `{source}` of a feed is empty, or there twice")));
            }
        }
        Ok(())
    }
}

/// How a feed stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeedStanding {
    /// Its source.
    pub source: String,
    /// The latest time it has said of its events, or the arrival of the one that said a later one. `None`: it never said any.
    pub said: Option<Wall>,
    /// When its newest event arrived. `None`: there is none.
    pub heard: Option<Wall>,
    /// How far behind it the view is, by that time and as its silence is [understood](Silence). `None`: it never said any.
    pub lag: Option<Duration>,
    /// That is more than it may be, or nobody knows.
    pub stale: bool,
}

/// What a build has heard of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Heard {
    /// The latest time it has said, and when that arrived.
    said: Option<(Wall, Wall)>,
    last: Wall,
}

impl Heard {
    fn of(event: &Recorded) -> Self {
        let last = event.recorded_at();
        Self { said: event.time().map(|time| (time.instant().min(last), last)), last }
    }

    /// With what was heard later.
    fn and(self, later: Self) -> Self {
        let is_news = match (self.said, later.said) {
            (Some((before, _)), Some((now, _))) => now > before,
            (before, _) => before.is_none(),
        };
        Self { said: if is_news { later.said } else { self.said }, last: later.last }
    }

    fn lag(&self, silence: Silence, now: Wall) -> Option<Duration> {
        let (said, arrived) = self.said?;
        Some(match silence {
            Silence::Stale => now.saturating_since(said),
            Silence::Idle => arrived.saturating_since(said),
        })
    }
}

/// Notes what the sources of a view have said, in the transaction of the rows. Does nothing for a view without feeds.
pub(super) async fn note(tx: &mut DynTx, code: &Registered, build: Build, events: &[Recorded]) -> Result<(), SqlError> {
    let Some(feeds) = &code.config.feeds else { return Ok(()) };
    let mut news = BTreeMap::<&str, Heard>::new();
    for event in events.iter().filter(|event| feeds.has(event)) {
        let heard = Heard::of(event);
        news.entry(event.source()).and_modify(|known| *known = known.and(heard)).or_insert(heard);
    }
    for (source, Heard { said, last }) in news {
        let sql =
            "INSERT INTO quorate_view_feed (build, source, said_ns, arrived_ns, heard_ns) VALUES ($1, $2, $3, $4, $5)
            ON CONFLICT (build, source) DO UPDATE SET heard_ns = excluded.heard_ns,
            said_ns = CASE WHEN quorate_view_feed.said_ns IS NULL OR excluded.said_ns > quorate_view_feed.said_ns
                THEN excluded.said_ns ELSE quorate_view_feed.said_ns END,
            arrived_ns = CASE WHEN quorate_view_feed.said_ns IS NULL OR excluded.said_ns > quorate_view_feed.said_ns
                THEN excluded.arrived_ns ELSE quorate_view_feed.arrived_ns END";
        let nanos = |at: Option<Wall>| at.map_or(Value::Null, |at| at.unix_nanos().into());
        let (said, arrived) = said.unzip();
        let params = [rows::of(build), source.into(), nanos(said), nanos(arrived), nanos(Some(last))];
        tx.room_execute(sql, &params).await?;
    }
    Ok(())
}

/// What asks for what a build has heard: for [`standings`].
pub(super) fn statement(build: Build) -> Statement {
    let sql = "SELECT source, said_ns, arrived_ns, heard_ns FROM quorate_view_feed WHERE build = $1";
    Statement::new(sql, [rows::of(build)])
}

/// How the feeds of a view stand, in their order, from what was asked.
pub(super) fn standings(feeds: &Feeds, found: &[Row], now: Wall) -> Result<Vec<FeedStanding>, ViewError> {
    let mut heard = BTreeMap::new();
    for row in found {
        let at = |n: usize| row.at(n).as_i64().map(Wall::from_unix_nanos);
        let last = at(3).ok_or_else(|| ViewError::corrupt("quorate_view_feed", "it has no time"))?;
        heard.insert(rows::string(row.at(0), "source")?, Heard { said: at(1).zip(at(2)), last });
    }
    let standing = |source: &String| {
        let known = heard.get(source.as_str());
        let lag = known.and_then(|heard| heard.lag(feeds.silence, now));
        FeedStanding {
            source: source.clone(),
            said: known.and_then(|heard| heard.said).map(|(said, _)| said),
            heard: known.map(|heard| heard.last),
            lag,
            stale: feeds.max_lag.is_some_and(|most| lag.is_none_or(|lag| lag > most)),
        }
    };
    Ok(feeds.sources.iter().map(standing).collect())
}

impl FeedStanding {
    /// The one that stands worst: that never said a time, or is furthest behind.
    pub fn worst<'f>(feeds: impl IntoIterator<Item = &'f Self>) -> Option<&'f Self> {
        feeds.into_iter().max_by_key(|feed| feed.lag.unwrap_or(Duration::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::{FeedStanding, Heard, Silence};
    use crate::{event::NewEvent, materialized_view::scratch::recorded};
    use quorate_foundations::time::Wall;
    use std::time::Duration;

    fn at(seconds: i64) -> Wall {
        Wall::from_unix_nanos(seconds * 1_000_000_000)
    }

    fn heard(said: i64, arrived: i64) -> Heard {
        Heard { said: Some((at(said), at(arrived))), last: at(arrived) }
    }

    #[test]
    fn silence_is_age_or_nothing_as_it_is_understood() {
        let heard = heard(100, 103);
        assert_eq!(heard.lag(Silence::Stale, at(160)), Some(Duration::from_secs(60)));
        assert_eq!(heard.lag(Silence::Idle, at(160)), Some(Duration::from_secs(3)), "as late as it arrived");
        assert_eq!(heard.lag(Silence::Stale, at(90)), Some(Duration::ZERO), "the clock here was set back");
        let speechless = Heard { said: None, last: at(100) };
        assert_eq!(speechless.lag(Silence::Idle, at(160)), None, "it says no time");
    }

    #[test]
    fn the_latest_time_counts_with_its_first_arrival() {
        let feed = heard(100, 103).and(heard(90, 104));
        assert_eq!(feed, Heard { said: Some((at(100), at(103))), last: at(104) }, "an event that was overtaken");
        assert_eq!(feed.and(heard(100, 200)).said, Some((at(100), at(103))), "said again");
        assert_eq!(feed.and(Heard { said: None, last: at(300) }).said, Some((at(100), at(103))), "without a time");
        assert_eq!(Heard { said: None, last: at(1) }.and(heard(5, 6)).said, Some((at(5), at(6))));
    }

    #[test]
    fn a_time_ahead_of_its_arrival_counts_as_the_arrival() {
        let mut event = NewEvent::new("1", "/shop", "sold");
        event.time = Some("2999-01-01T00:00:00Z".parse().unwrap());
        let event = recorded([("order-1".parse().unwrap(), event)]).unwrap().remove(0);
        assert_eq!(Heard::of(&event).said, Some((event.recorded_at(), event.recorded_at())));
    }

    #[test]
    fn who_never_said_a_time_stands_worst() {
        let feed = |source: &str, lag: Option<u64>| FeedStanding {
            source: source.to_owned(),
            said: None,
            heard: None,
            lag: lag.map(Duration::from_secs),
            stale: true,
        };
        let feeds = [feed("a", Some(5)), feed("b", None), feed("c", Some(9))];
        assert_eq!(FeedStanding::worst(&feeds).map(|feed| &*feed.source), Some("b"));
        assert_eq!(FeedStanding::worst(&feeds[..1]).map(|feed| &*feed.source), Some("a"));
        assert_eq!(FeedStanding::worst(&[]), None);
    }
}
