//! Inboxes: which messages of others come in, and what becomes of them.

use std::{collections::BTreeSet, path::PathBuf, time::Duration};

use quorate_communication::{
    inbox::InboxConfig,
    transports::{Incoming, Topic},
};
use quorate_data::event::Scalar;
use quorate_foundations::name::Name;
use serde::{Deserialize, Serialize};

use super::{ConfigError, reach::Reach};

/// An inbox as people write it: `[[inbox]]` in `quorate.toml`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct InboxSettings {
    /// Its name, under which it remembers what came.
    pub name: String,
    /// Where its broker is, as for a relay. Default `embedded`: the node's own message queues.
    pub transport: String,
    /// The password of the user that `transport` names. Better in `password-file` or `password-variable`. Default none.
    pub password: String,
    /// A file that holds the password, read whenever the inbox starts. Default none.
    pub password_file: PathBuf,
    /// The environment variable that holds the password. Default none.
    pub password_variable: String,
    /// The topic that is received.
    pub topic: String,
    /// As which group of it.
    pub group: String,
    /// The stream that messages are appended to. `{key}`, `{aggregatetype}` and `{aggregateid}` stand for what a message says.
    pub stream: String,
    /// The queue that messages are sent to, instead of a stream.
    pub queue: String,
    /// Partitions of the topic, as whoever publishes has them. Default 8.
    pub partitions: u16,
    /// Messages that wait in the topic before it refuses, as whoever publishes has it. Default 1,000,000.
    pub max_messages: u64,
    /// How long a message is held before it comes again. Default 30 s.
    #[serde(with = "humantime_serde")]
    pub hold: Duration,
    /// On how many servers of a cluster a message is kept, at a broker that asks. Default 1.
    pub replicas: u8,
    /// For how long ids are kept. 1 h to 366 days. Default 14 days.
    #[serde(with = "humantime_serde")]
    pub keep: Duration,
    /// How often a message is tried before it is parked. Default 10.
    pub max_attempts: u32,
    /// Messages of different keys that are taken in at once. Default 16.
    pub concurrency: usize,
    /// Parked messages; beyond it no more are parked, and stay with the broker. Default 10,000.
    pub max_parked: usize,
}

/// An inbox that the node runs.
#[derive(Clone, Debug, PartialEq)]
pub struct InboxSpec {
    /// Its name.
    pub name: Name,
    /// How its broker is reached.
    pub reach: Reach,
    /// What it receives.
    pub inbox: InboxConfig,
    /// What becomes of it.
    pub into: Destination,
}

/// What becomes of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// It is appended to the stream that this makes of it.
    Stream(Template),
    /// It is sent to this queue, in order of its key.
    Queue(Name),
}

/// The name of a stream, with places for what a message says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(String);

/// The most inboxes of a node.
pub(crate) const MAX_INBOXES: usize = 100;

const KEY: &str = "{key}";
const AGGREGATE: [&str; 2] = ["aggregatetype", "aggregateid"];

impl Template {
    fn new(text: &str) -> Result<Self, String> {
        let mut rest = text.to_owned();
        for place in [KEY, "{aggregatetype}", "{aggregateid}"] {
            rest = rest.replace(place, "x");
        }
        if rest.contains(['{', '}']) {
            return Err("it has places `{key}`, `{aggregatetype}` and `{aggregateid}`, and no others".to_owned());
        }
        Name::new(rest).map_err(|wrong| wrong.to_string())?;
        Ok(Self(text.to_owned()))
    }

    /// Whether messages of two aggregates go to two streams, so that their ids are their own there.
    pub fn tells_aggregates_apart(&self) -> bool {
        AGGREGATE.iter().all(|name| self.0.contains(&format!("{{{name}}}")))
    }

    /// The stream of `message`.
    ///
    /// # Errors
    /// What it does not say, or why what it says makes no name.
    pub fn stream(&self, message: &Incoming) -> Result<Name, String> {
        let (mut name, mut rest) = (String::new(), &*self.0);
        while let Some((before, behind)) = rest.split_once('{') {
            let (place, after) = behind.split_once('}').unwrap_or((behind, ""));
            name.push_str(before);
            match (place, message.event.extensions.get(place)) {
                ("key", _) => name.push_str(&message.key),
                (_, Some(Scalar::Text(value))) => name.push_str(value),
                (_, Some(Scalar::Integer(value))) => name.push_str(&value.to_string()),
                _ => return Err(format!("it has no `{place}`, which its stream is named by")),
            }
            rest = after;
        }
        name.push_str(rest);
        Name::new(name).map_err(|wrong| format!("what it says makes no name of a stream: {wrong}"))
    }
}

impl std::fmt::Display for Template {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl Default for InboxSettings {
    fn default() -> Self {
        let label = || "x".parse().unwrap_or_else(|_| unreachable!("a letter is a label"));
        let InboxConfig { topic, keep, max_attempts, concurrency, max_parked, .. } =
            InboxConfig::of(Topic::new(label()), label());
        let Topic { partitions, max_messages, hold, replicas, .. } = topic;
        Self {
            name: String::new(),
            transport: "embedded".to_owned(),
            password: String::new(),
            password_file: PathBuf::new(),
            password_variable: String::new(),
            topic: String::new(),
            group: String::new(),
            stream: String::new(),
            queue: String::new(),
            partitions,
            max_messages,
            hold,
            replicas,
            keep,
            max_attempts,
            concurrency,
            max_parked,
        }
    }
}

impl TryFrom<InboxSettings> for InboxSpec {
    type Error = String;

    fn try_from(settings: InboxSettings) -> Result<Self, String> {
        let name = Name::new(&*settings.name).map_err(|wrong| format!("`name`: {wrong}"))?;
        let InboxSettings { transport, password, password_file, password_variable, .. } = settings;
        let reach = Reach::new(&transport, password, password_file, &password_variable)?;
        let topic = settings.topic.parse().map_err(|wrong| format!("`topic`: {wrong}"))?;
        let group = settings.group.parse().map_err(|wrong| format!("`group`: {wrong}"))?;
        let into = match (&*settings.stream, &*settings.queue) {
            (stream, "") if !stream.is_empty() => {
                Destination::Stream(Template::new(stream).map_err(|wrong| format!("`stream`: {wrong}"))?)
            }
            ("", queue) if !queue.is_empty() => {
                Destination::Queue(Name::new(queue).map_err(|wrong| format!("`queue`: {wrong}"))?)
            }
            _ => return Err("of `stream` and `queue` one is given".to_owned()),
        };
        let InboxSettings { partitions, max_messages, hold, replicas, .. } = settings;
        let topic = Topic { partitions, max_messages, hold, replicas, ..Topic::new(topic) };
        let InboxSettings { keep, max_attempts, concurrency, max_parked, .. } = settings;
        let of = InboxConfig::of(topic, group);
        let inbox = InboxConfig { consumer: name.clone(), keep, max_attempts, concurrency, max_parked, ..of };
        inbox.check().map_err(|wrong| wrong.to_string())?;
        Ok(Self { name, reach, inbox, into })
    }
}

/// All inboxes, in order of their names.
pub(super) fn specs(all: Vec<InboxSettings>) -> Result<Vec<InboxSpec>, ConfigError> {
    let wrong = |name: String, what: String| ConfigError::Inbox { name, what };
    if all.len() > MAX_INBOXES {
        let what = format!("there are {} inboxes, and a node runs at most {MAX_INBOXES}", all.len());
        return Err(wrong(String::new(), what));
    }
    let mut names = BTreeSet::new();
    let mut specs = Vec::with_capacity(all.len());
    for settings in all {
        let name = settings.name.clone();
        let spec = InboxSpec::try_from(settings).map_err(|what| wrong(name.clone(), what))?;
        if !names.insert(name.clone()) {
            return Err(wrong(name, "there are two of this name".to_owned()));
        }
        specs.push(spec);
    }
    specs.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(specs)
}

#[cfg(test)]
mod tests {
    use quorate_communication::transports::{Incoming, Outgoing};
    use quorate_data::event::{NewEvent, Scalar};

    use super::{Destination, InboxSpec, Template};
    use crate::config::Layers;

    fn file(text: &str) -> Result<InboxSpec, String> {
        let layers = Layers::defaults().file("q.toml", text).map_err(|wrong| wrong.to_string())?;
        layers.config().map(|config| config.inboxes[0].clone()).map_err(|wrong| wrong.to_string())
    }

    #[test]
    fn an_inbox_is_read_from_a_file_and_what_is_wrong_with_it_is_named() {
        let good = "[[inbox]]\nname = 'orders-in'\ntopic = 'orders'\ngroup = 'billing'";
        let spec = file(&format!("{good}\nstream = 'order-{{aggregateid}}'\nkeep = '30days'")).unwrap();
        assert_eq!((spec.inbox.consumer.as_str(), spec.inbox.group.as_str()), ("orders-in", "billing"));
        assert!(matches!(&spec.into, Destination::Stream(template) if template.to_string() == "order-{aggregateid}"));
        assert!(matches!(file(&format!("{good}\nqueue = 'work'")).unwrap().into, Destination::Queue(_)));
        for (text, named) in [
            ("", "one is given"),
            ("stream = 'a'\nqueue = 'b'", "one is given"),
            ("stream = 'a-{id}'", "`stream`"),
            ("stream = 'a-{key'", "`stream`"),
            ("queue = 'a'\nkeep = '1m'", "`keep`"),
            ("queue = 'a'\nmax-attempts = 0", "`max-attempts`"),
            ("queue = 'a'\ntransport = 'x'", "`transport`"),
        ] {
            let said = file(&format!("{good}\n{text}")).unwrap_err();
            assert!(said.contains(named) && said.contains("`orders-in`"), "{said}");
        }
    }

    #[test]
    fn a_stream_is_named_by_what_a_message_says() {
        let message = |extensions: &[(&str, &str)]| {
            let mut event = NewEvent::new("1", "/shop", "order.placed");
            for (name, value) in extensions {
                event.extensions.insert((*name).to_owned(), Scalar::Text((*value).to_owned()));
            }
            let identity = Outgoing::new("k{key}", event.clone()).identity();
            let key = "k{key}".into();
            Incoming { identity, key, event, unreadable: None, redelivered: false, attempt: 1 }
        };
        let template = |text: &str| Template::new(text).unwrap();
        let full = message(&[("aggregatetype", "order"), ("aggregateid", "17")]);
        let both = template("{aggregatetype}-{aggregateid}");
        assert_eq!(both.stream(&full).unwrap().as_str(), "order-17");
        assert!(both.tells_aggregates_apart() && !template("in-{key}").tells_aggregates_apart());
        assert_eq!(
            template("in-{key}").stream(&full).unwrap().as_str(),
            "in-k{key}",
            "what is filled in has no places"
        );
        assert_eq!(template("in").stream(&full).unwrap().as_str(), "in");
        assert!(both.stream(&message(&[])).unwrap_err().contains("`aggregatetype`"));
        assert!(both.stream(&message(&[("aggregatetype", "a\nb"), ("aggregateid", "1")])).is_err());
    }
}
