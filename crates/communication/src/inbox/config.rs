//! What an inbox receives, and how patient it is.

use std::time::Duration;

use quorate_data::subscription::Backoff;
use quorate_foundations::name::Name;

use super::InboxError;
use crate::transports::{Label, Topic};

/// An inbox, as whoever starts it wants it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InboxConfig {
    /// Under which name ids and parked messages are kept. Default: `topic.group`.
    pub consumer: Name,
    /// What is received.
    pub topic: Topic,
    /// As which group.
    pub group: Label,
    /// For how long ids are kept: longer than a message can be on its way. 1 h to 366 days. Default 14 days. Parked messages keep theirs.
    pub keep: Duration,
    /// How often a message is handled before it is parked. 1 to 1,000. Default 10.
    pub max_attempts: u32,
    /// How long a message rests that failed; what is behind it in its key waits.
    pub backoff: Backoff,
    /// Messages of different keys that are handled at once. 1 to 256. Default 16.
    pub concurrency: usize,
    /// Parked messages; while there are that many no more are parked, and keys that would be are held back at the broker. 1 to 100,000. Default 10,000.
    pub max_parked: usize,
}

impl InboxConfig {
    /// The shortest time for which ids are kept.
    pub const MIN_KEEP: Duration = Duration::from_secs(3_600);
    /// The longest time for which ids are kept.
    pub const MAX_KEEP: Duration = Duration::from_secs(366 * 86_400);
    /// The most attempts.
    pub const MAX_ATTEMPTS: u32 = 1_000;
    /// The longest rest of a message that failed: RabbitMQ lets a consumer hold one for half an hour.
    pub const MAX_REST: Duration = Duration::from_secs(1_200);
    /// The most messages at once.
    pub const MAX_CONCURRENCY: usize = 256;
    /// The most parked messages.
    pub const MAX_PARKED: usize = 100_000;

    /// An inbox of `group` for what is published to `topic`.
    ///
    /// # Panics
    /// Never: a label is a part of a name.
    pub fn of(topic: Topic, group: Label) -> Self {
        let consumer = Name::new(format!("{}.{group}", topic.name));
        Self {
            consumer: consumer.unwrap_or_else(|_| unreachable!("two labels and a dot make a name")),
            topic,
            group,
            keep: Duration::from_secs(14 * 86_400),
            max_attempts: 10,
            backoff: Backoff { first: Duration::from_millis(500), max: Duration::from_secs(300) },
            concurrency: 16,
            max_parked: 10_000,
        }
    }

    /// Whether every field is within its range.
    ///
    /// # Errors
    /// [`InboxError::Invalid`] and others name the field and its range.
    pub fn check(&self) -> Result<(), InboxError> {
        self.topic.check()?;
        let within = |what: &str, asked: usize, max: usize| {
            let wrong = || InboxError::Invalid { what: format!("`{what}` is 1 to {max}, {asked} was asked for") };
            if (1..=max).contains(&asked) { Ok(()) } else { Err(wrong()) }
        };
        within("max-attempts", self.max_attempts as usize, Self::MAX_ATTEMPTS as usize)?;
        within("concurrency", self.concurrency, Self::MAX_CONCURRENCY)?;
        within("max-parked", self.max_parked, Self::MAX_PARKED)?;
        let (min, max) = (Self::MIN_KEEP, Self::MAX_KEEP);
        if !(min..=max).contains(&self.keep) {
            let asked = self.keep;
            return Err(InboxError::Invalid { what: format!("`keep` is {min:?} to {max:?}, {asked:?} was asked for") });
        }
        let Backoff { first, max } = self.backoff;
        if first > max || max > Self::MAX_REST {
            let longest = Self::MAX_REST;
            let what =
                format!("`backoff.first` ({first:?}) is at most `backoff.max` ({max:?}), and that at most {longest:?}");
            return Err(InboxError::Invalid { what });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use quorate_data::subscription::Backoff;

    use super::InboxConfig;
    use crate::transports::Topic;

    #[test]
    fn a_field_out_of_range_is_named() {
        let good = InboxConfig::of(Topic::new("orders".parse().unwrap()), "billing".parse().unwrap());
        let said = |inbox: InboxConfig| inbox.check().unwrap_err().to_string();
        assert!(good.check().is_ok());
        assert_eq!(good.consumer.as_str(), "orders.billing");
        assert!(said(InboxConfig { keep: Duration::from_secs(60), ..good.clone() }).contains("`keep`"));
        assert!(said(InboxConfig { max_attempts: 0, ..good.clone() }).contains("`max-attempts`"));
        assert!(said(InboxConfig { concurrency: 0, ..good.clone() }).contains("`concurrency`"));
        assert!(said(InboxConfig { max_parked: 0, ..good.clone() }).contains("`max-parked`"));
        let sleepy = Backoff { first: Duration::from_secs(1), max: Duration::from_secs(86_400) };
        assert!(said(InboxConfig { backoff: sleepy, ..good }).contains("`backoff.first`"));
    }
}
