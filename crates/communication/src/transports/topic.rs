//! What messages are published to.

use std::{fmt, str::FromStr, sync::Arc, time::Duration};

use super::TransportError;

/// The name of a topic or a group: 1 to 64 of `A`–`Z`, `a`–`z`, `0`–`9`, `-` and `_`, which every broker takes as it is.
///
/// # Example
/// ```
/// use quorate_communication::transports::Label;
/// assert!("order-events".parse::<Label>().is_ok());
/// assert!("order.events".parse::<Label>().is_err());
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Label(Arc<str>);

/// A text that cannot name a topic or a group.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` cannot name a topic or a group: that takes 1 to 64 letters, digits, `-` and `_`")]
pub struct LabelError {
    text: String,
}

impl Label {
    /// The longest one, in bytes.
    pub const MAX_BYTES: usize = 64;

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Label {
    type Err = LabelError;

    fn from_str(text: &str) -> Result<Self, LabelError> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        if (1..=Self::MAX_BYTES).contains(&text.len()) && text.bytes().all(plain) {
            return Ok(Self(text.into()));
        }
        Err(LabelError { text: text.chars().take(Self::MAX_BYTES).collect() })
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

/// A topic, as publishers and receivers agree on it. All of them name the same numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    /// Its name.
    pub name: Label,
    /// How many messages of a group can be out at a time at a broker that keeps order by partitions: keys are spread over so many by
    /// CRC-32. Cannot be changed while messages are in it. 1 to 64. Default 8. The embedded transport needs none.
    pub partitions: u16,
    /// Messages that wait; beyond it publishing is refused. Counted per group on the embedded transport, per partition of a group on
    /// RabbitMQ (each takes its share), in all on NATS. 1 to 5,000,000. Default 1,000,000.
    pub max_messages: u64,
    /// How long a receiver holds a message before it comes again. 1 s to 1 h. Default 30 s.
    pub hold: Duration,
    /// For how long a broker that drops copies is asked to remember ids. 1 s to 1 h. Default 2 min. The embedded transport remembers for 7
    /// days at least, RabbitMQ not at all.
    pub dedupe: Duration,
    /// On how many servers of a cluster a message is kept, at a broker that asks. 1 to 5. Default 1. RabbitMQ decides by itself.
    pub replicas: u8,
}

impl Topic {
    /// The most partitions.
    pub const MAX_PARTITIONS: u16 = 64;
    /// The most messages that wait.
    pub const MAX_MESSAGES: u64 = 5_000_000;
    const SPANS: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(3_600)];

    /// A topic of that name, as most are.
    pub fn new(name: Label) -> Self {
        Self {
            name,
            partitions: 8,
            max_messages: 1_000_000,
            hold: Duration::from_secs(30),
            dedupe: Duration::from_secs(120),
            replicas: 1,
        }
    }

    /// Whether every number is within its range.
    ///
    /// # Errors
    /// [`TransportError::Invalid`] names the field and its range.
    pub fn check(&self) -> Result<(), TransportError> {
        let [min, max] = Self::SPANS;
        let within = |what: &str, asked: u64, max: u64| {
            let wrong = || TransportError::Invalid { what: format!("`{what}` is 1 to {max}, {asked} was asked for") };
            if (1..=max).contains(&asked) { Ok(()) } else { Err(wrong()) }
        };
        let span = |what: &str, asked: Duration| {
            let wrong =
                || TransportError::Invalid { what: format!("`{what}` is {min:?} to {max:?}, {asked:?} was asked for") };
            if (min..=max).contains(&asked) { Ok(()) } else { Err(wrong()) }
        };
        within("partitions", self.partitions.into(), Self::MAX_PARTITIONS.into())?;
        within("max-messages", self.max_messages, Self::MAX_MESSAGES)?;
        within("replicas", self.replicas.into(), 5)?;
        span("hold", self.hold)?;
        span("dedupe", self.dedupe)
    }

    /// The partition of a key, counted from 0. Part of the format: publishers in any language find the same.
    pub fn partition(&self, key: &str) -> u16 {
        let partition = crc32fast::hash(key.as_bytes()) % u32::from(self.partitions.max(1));
        u16::try_from(partition).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Label, Topic};

    #[test]
    fn a_field_out_of_range_is_named() {
        let orders = Topic::new("orders".parse().unwrap());
        let said = |topic: Topic| topic.check().unwrap_err().to_string();
        assert!(orders.check().is_ok());
        assert!(said(Topic { partitions: 0, ..orders.clone() }).contains("`partitions`"));
        assert!(said(Topic { max_messages: 0, ..orders.clone() }).contains("`max-messages`"));
        assert!(said(Topic { hold: Duration::ZERO, ..orders.clone() }).contains("`hold`"));
        assert!(said(Topic { replicas: 9, ..orders }).contains("`replicas`"));
    }

    #[test]
    fn names_that_a_broker_would_read_otherwise_are_refused() {
        for wrong in ["", "a.b", "a b", "a*", "a>", "ä", "a/b", &"x".repeat(65)] {
            assert!(wrong.parse::<Label>().is_err(), "{wrong}");
        }
    }

    /// The check value of CRC-32 (IEEE 802.3): whoever publishes from elsewhere finds the same partition.
    #[test]
    fn a_key_has_one_partition_for_everybody() {
        let orders = Topic::new("orders".parse().unwrap());
        let expected = crc32fast::hash(b"123456789");
        assert_eq!(expected, 0xcbf4_3926, "the check value of CRC-32");
        assert_eq!(u32::from(orders.partition("123456789")), expected % 8);
    }
}
