//! What a queue is like.

use std::{num::NonZeroU32, time::Duration};

use quorate_data::subscription::Backoff;
use serde::{Deserialize, Serialize};

use super::QueueError;

/// A queue, as whoever declares it wants it. Declaring it again with other values changes it.
///
/// # Example
/// ```
/// use quorate_communication::message_queue::Config;
/// let mails = Config { max_attempts: 5, ..Config::default() };
/// assert!(mails.check().is_ok());
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Config {
    /// How long a consumer holds a message before it is handed out again. 100 ms to 12 h. Default 30 s.
    pub lease_ttl: Duration,
    /// How often a message is handed out before it becomes a dead letter. 1 to 1,000. Default 10.
    pub max_attempts: u32,
    /// How long a failed message rests.
    pub backoff: Backoff,
    /// How long the id of a message is remembered after it was sent, at least: a message with the same source and id is not
    /// sent again. While a message is in the queue, dead letters included, its id is remembered in any case. 1 min to
    /// 366 days. Default 7 days.
    pub dedupe: Duration,
    /// Messages in the queue, dead letters included; beyond it sending is refused. Several processes that send at the same moment may
    /// go beyond it by what they send. 1 to 5,000,000. Default 1,000,000.
    pub max_messages: usize,
    /// Messages in consumers' hands at once; `None`: as many as they ask for. Default `None`.
    pub max_in_flight: Option<NonZeroU32>,
    /// How many messages are handed out per span; `None`: as many as are asked for. Default `None`.
    pub rate: Option<Rate>,
    /// While it is so, messages are taken in and settled, but none is handed out. Default `false`.
    pub paused: bool,
}

/// So many within each `per`, and no more than that at once.
///
/// Kept in memory: a restart allows one span's worth anew. Where several processes hand out of a queue it is kept with the queue, and one
/// that comes later waits for at most a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rate {
    /// How many.
    pub count: NonZeroU32,
    /// In how long. 1 ms to 1 day.
    pub per: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            lease_ttl: Duration::from_secs(30),
            max_attempts: 10,
            backoff: Backoff::default(),
            dedupe: Duration::from_secs(7 * 86_400),
            max_messages: 1_000_000,
            max_in_flight: None,
            rate: None,
            paused: false,
        }
    }
}

impl Config {
    /// The shortest lease.
    pub const MIN_TTL: Duration = Duration::from_millis(100);
    /// The longest lease, and the longest rest after a failure.
    pub const MAX_TTL: Duration = Duration::from_secs(12 * 3_600);
    /// The most attempts.
    pub const MAX_ATTEMPTS: u32 = 1_000;
    /// The shortest time for which ids are remembered.
    pub const MIN_DEDUPE: Duration = Duration::from_secs(60);
    /// The longest time for which ids are remembered; also the longest delay and time to live of a message.
    pub const MAX_SPAN: Duration = Duration::from_secs(366 * 86_400);
    /// The most messages of one queue.
    pub const MAX_MESSAGES: usize = 5_000_000;

    /// Whether every field is within its range.
    ///
    /// # Errors
    /// [`QueueError::Invalid`] names the field and its range.
    pub fn check(&self) -> Result<(), QueueError> {
        span("lease-ttl", self.lease_ttl, Self::MIN_TTL, Self::MAX_TTL)?;
        span("dedupe", self.dedupe, Self::MIN_DEDUPE, Self::MAX_SPAN)?;
        if !(1..=Self::MAX_ATTEMPTS).contains(&self.max_attempts) {
            let (max, asked) = (Self::MAX_ATTEMPTS, self.max_attempts);
            return Err(QueueError::invalid(format!("`max-attempts` is 1 to {max}, {asked} was asked for")));
        }
        if !(1..=Self::MAX_MESSAGES).contains(&self.max_messages) {
            let (max, asked) = (Self::MAX_MESSAGES, self.max_messages);
            return Err(QueueError::invalid(format!("`max-messages` is 1 to {max}, {asked} was asked for")));
        }
        if let Some(rate) = self.rate {
            span("rate.per", rate.per, Duration::from_millis(1), Duration::from_secs(86_400))?;
        }
        let Backoff { first, max } = self.backoff;
        if first > max || max > Self::MAX_TTL {
            let longest = Self::MAX_TTL;
            return Err(QueueError::invalid(format!(
                "`backoff.first` ({first:?}) is at most `backoff.max` ({max:?}), and that at most {longest:?}"
            )));
        }
        Ok(())
    }

    pub(super) fn check_ttl(what: &str, ttl: Duration) -> Result<(), QueueError> {
        span(what, ttl, Self::MIN_TTL, Self::MAX_TTL)
    }
}

fn span(what: &str, asked: Duration, min: Duration, max: Duration) -> Result<(), QueueError> {
    if (min..=max).contains(&asked) {
        return Ok(());
    }
    Err(QueueError::invalid(format!("`{what}` is {min:?} to {max:?}, {asked:?} was asked for")))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Backoff, Config, Rate};

    #[test]
    fn a_field_out_of_range_is_named() {
        let said = |config: Config| config.check().unwrap_err().to_string();
        assert!(said(Config { max_attempts: 0, ..Config::default() }).contains("`max-attempts`"));
        assert!(said(Config { lease_ttl: Duration::ZERO, ..Config::default() }).contains("`lease-ttl`"));
        assert!(said(Config { dedupe: Duration::from_secs(1), ..Config::default() }).contains("`dedupe`"));
        assert!(said(Config { max_messages: 0, ..Config::default() }).contains("`max-messages`"));
        let hasty = Backoff { first: Duration::from_secs(2), max: Duration::from_secs(1) };
        assert!(said(Config { backoff: hasty, ..Config::default() }).contains("`backoff.first`"));
        let rate = Rate { count: 1.try_into().unwrap(), per: Duration::ZERO };
        assert!(said(Config { rate: Some(rate), ..Config::default() }).contains("`rate.per`"));
    }
}
