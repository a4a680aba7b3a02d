//! Relays: what of the log is published, and where.

use std::{collections::BTreeSet, path::PathBuf, time::Duration};

use quorate_communication::{
    event_bus::webhook::Webhooks,
    outbox::{RelayConfig, Route},
    transports::Topic,
};
use quorate_data::{
    event::Position,
    store::{Query, QueryItem},
    subscription::{OrderKey, Start},
};
use quorate_foundations::name::Name;
use serde::{Deserialize, Serialize};

use super::{ConfigError, reach::Reach};

/// A relay as people write it: `[[relay]]` in `quorate.toml`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct RelaySettings {
    /// Its name, and that of the subscription by which it follows the log. Not one that a webhook's subscription could have:
    /// `webhook:`, anything, `:` and 16 hexadecimal digits.
    pub name: String,
    /// Where its broker is: `embedded`, `http://host:7400` (another node), `https://…`, `nats://host:4222`, `tls://…`,
    /// `amqp://user@host:5672/%2f`, `amqps://…`. Default `embedded`: the node's own message queues.
    pub transport: String,
    /// The password of the user that `transport` names. Better in `password-file` or `password-variable`. Default none.
    pub password: String,
    /// A file that holds the password, read whenever the relay starts. Default none.
    pub password_file: PathBuf,
    /// The environment variable that holds the password. Default none.
    pub password_variable: String,
    /// The topic that all events are published to. Default none: each goes to the topic that is named as its stream's category.
    pub topic: String,
    /// Only events of one of these types. Default all.
    pub types: Vec<String>,
    /// Only events with all of these tags. Default all.
    pub tags: Vec<String>,
    /// Only events of streams of one of these categories. Default all.
    pub categories: Vec<String>,
    /// Where to begin when the relay starts for the first time: `beginning`, `end`, or a position to begin behind. Default `beginning`.
    pub start: String,
    /// What is published in order: `stream`, `tag:NAME` or `extension:NAME`. Default `stream`.
    pub key: String,
    /// Partitions of the topic, at a broker that keeps order by them. 1 to 64. Default 8.
    pub partitions: u16,
    /// Messages that wait in the topic before it refuses. Default 1,000,000.
    pub max_messages: u64,
    /// How long a receiver holds a message, where the broker is told. Default 30 s.
    #[serde(with = "humantime_serde")]
    pub hold: Duration,
    /// On how many servers of a cluster a message is kept, at a broker that asks. 1 to 5. Default 1.
    pub replicas: u8,
    /// Events that are published at a time. 1 to 1,000. Default 100.
    pub batch: usize,
    /// The longest rest before a broker that was away is tried again. Default 30 s.
    #[serde(with = "humantime_serde")]
    pub longest_rest: Duration,
    /// How long a node that died holds up what it had in hand. At least 1 s. Default 30 s.
    #[serde(with = "humantime_serde")]
    pub lease_ttl: Duration,
    /// How often an event is tried that nobody would get before it is parked. Default 20.
    pub max_attempts: u32,
    /// Whether to publish events about data subjects, whom nobody can erase at a broker. Otherwise they are parked. Default false.
    pub personal: bool,
}

/// A relay that the node runs.
#[derive(Clone, Debug, PartialEq)]
pub struct RelaySpec {
    /// Its name.
    pub name: Name,
    /// How its broker is reached.
    pub reach: Reach,
    /// What it does.
    pub relay: RelayConfig,
}

/// The most relays of a node.
pub(crate) const MAX_RELAYS: usize = 100;

impl Default for RelaySettings {
    fn default() -> Self {
        let topic = Topic::new("t".parse().unwrap_or_else(|_| unreachable!("a letter is a label")));
        let RelayConfig { subscription, batch, longest_rest, personal, .. } = RelayConfig::to(topic.clone());
        let Topic { partitions, max_messages, hold, replicas, .. } = topic;
        Self {
            name: String::new(),
            transport: "embedded".to_owned(),
            password: String::new(),
            password_file: PathBuf::new(),
            password_variable: String::new(),
            topic: String::new(),
            types: Vec::new(),
            tags: Vec::new(),
            categories: Vec::new(),
            start: "beginning".to_owned(),
            key: "stream".to_owned(),
            partitions,
            max_messages,
            hold,
            replicas,
            batch,
            longest_rest,
            lease_ttl: subscription.lease_ttl,
            max_attempts: subscription.max_attempts,
            personal,
        }
    }
}

impl TryFrom<RelaySettings> for RelaySpec {
    type Error = String;

    fn try_from(settings: RelaySettings) -> Result<Self, String> {
        let name = Name::new(&*settings.name).map_err(|wrong| format!("`name`: {wrong}"))?;
        // Its subscription would be deleted as what is left of a webhook.
        if Webhooks::owns(&name) {
            return Err("`name`: subscriptions that are called so are those of webhooks".to_owned());
        }
        let RelaySettings { transport, password, password_file, password_variable, .. } = settings;
        let reach = Reach::new(&transport, password, password_file, &password_variable)?;
        // A topic by category needs the other numbers alone.
        let label = if settings.topic.is_empty() { "category" } else { &settings.topic };
        let label = label.parse().map_err(|wrong| format!("`topic`: {wrong}"))?;
        let RelaySettings { partitions, max_messages, hold, replicas, batch, longest_rest, personal, .. } = settings;
        let topic = Topic { partitions, max_messages, hold, replicas, ..Topic::new(label) };
        let mut relay = RelayConfig { batch, longest_rest, personal, ..RelayConfig::to(topic.clone()) };
        if settings.topic.is_empty() {
            relay.route = Route::ByCategory(topic);
        }
        let RelaySettings { types, tags, categories, .. } = settings;
        if ![&types, &tags, &categories].into_iter().all(Vec::is_empty) {
            relay.subscription.filter = Query::of([QueryItem { types, tags, categories }]);
        }
        relay.subscription.start = start(&settings.start)?;
        relay.subscription.key = key(&settings.key)?;
        relay.subscription.lease_ttl = settings.lease_ttl;
        relay.subscription.max_attempts = settings.max_attempts;
        relay.check().map_err(|wrong| wrong.to_string())?;
        Ok(Self { name, reach, relay })
    }
}

fn start(text: &str) -> Result<Start, String> {
    match text {
        "beginning" => Ok(Start::Beginning),
        "end" => Ok(Start::End),
        position => match position.parse() {
            Ok(position) => Ok(Start::After(Position::new(position))),
            Err(_) => Err(format!("`start` is `beginning`, `end` or a position, not `{position}`")),
        },
    }
}

fn key(text: &str) -> Result<OrderKey, String> {
    match text.split_once(':') {
        None if text == "stream" => Ok(OrderKey::Stream),
        Some(("tag", name)) => Ok(OrderKey::Tag(name.to_owned())),
        Some(("extension", name)) => Ok(OrderKey::Extension(name.to_owned())),
        _ => Err(format!("`key` is `stream`, `tag:NAME` or `extension:NAME`, not `{text}`")),
    }
}

/// All relays, in order of their names.
pub(super) fn specs(all: Vec<RelaySettings>) -> Result<Vec<RelaySpec>, ConfigError> {
    if all.len() > MAX_RELAYS {
        let what = format!("there are {} relays, and a node runs at most {MAX_RELAYS}", all.len());
        return Err(ConfigError::Relay { name: String::new(), what });
    }
    let mut names = BTreeSet::new();
    let mut specs = Vec::with_capacity(all.len());
    for settings in all {
        let name = settings.name.clone();
        let spec = RelaySpec::try_from(settings);
        let spec = spec.map_err(|what| ConfigError::Relay { name: name.clone(), what })?;
        if !names.insert(name.clone()) {
            return Err(ConfigError::Relay { name, what: "there are two of this name".to_owned() });
        }
        specs.push(spec);
    }
    specs.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(specs)
}

#[cfg(test)]
mod tests {
    use quorate_communication::outbox::Route;
    use quorate_data::subscription::{OrderKey, Start};

    use super::{RelaySettings, RelaySpec, specs};
    use crate::config::{Layers, Password, Reach};

    fn file(text: &str) -> Result<RelaySpec, String> {
        let layers = Layers::defaults().file("q.toml", text).map_err(|wrong| wrong.to_string())?;
        layers.config().map(|config| config.relays[0].clone()).map_err(|wrong| wrong.to_string())
    }

    #[test]
    fn a_relay_is_read_from_a_file() {
        let spec = file(
            "[[relay]]\nname = 'orders-out'\ntransport = 'amqp://shop@mq:5672/%2f'\npassword-file = '/run/secrets/mq'\n\
             topic = 'orders'\ncategories = ['order']\nstart = '17'\nkey = 'tag:customer'\nlongest-rest = '5s'",
        );
        let RelaySpec { name, reach: Reach { address, password }, relay } = spec.unwrap();
        assert_eq!((name.as_str(), &*address.to_string()), ("orders-out", "amqp://:…@mq:5672/%2f"));
        assert_eq!(password, Password::InFile("/run/secrets/mq".into()));
        assert!(matches!(&relay.route, Route::Topic(topic) if topic.name.as_str() == "orders"));
        assert_eq!(relay.subscription.filter.items[0].categories, ["order"]);
        assert_eq!(relay.subscription.start, Start::After(quorate_data::event::Position::new(17)));
        assert_eq!(relay.subscription.key, OrderKey::Tag("customer".to_owned()));
        let small = file("[[relay]]\nname = 'all'").unwrap();
        assert!(small.reach.address.is_embedded() && matches!(small.relay.route, Route::ByCategory(_)));
    }

    #[test]
    fn what_is_wrong_with_a_relay_is_named_with_it() {
        let said = |text: &str| file(&format!("[[relay]]\nname = 'out'\n{text}")).unwrap_err();
        for (text, named) in [
            ("transport = 'kafka://a:secret@b'", "`transport`"),
            ("topic = 'a b'", "`topic`"),
            ("start = 'now'", "`start`"),
            ("key = 'customer'", "`key`"),
            ("batch = 0", "`batch`"),
            ("partitions = 65", "`partitions`"),
            ("lease-ttl = '1ms'", "`lease-ttl`"),
            ("transport = 'nats://a@b'\npassword-variable = 'NOT_THERE'", "`NOT_THERE`"),
            ("transport = 'nats://b'\npassword = 'secret'", "names no user"),
            ("transport = 'nats://a@b'\npassword = 'secret'\npassword-file = 'x'", "one is given"),
            ("batches = 3", "batches"),
        ] {
            let said = said(text);
            assert!(said.contains(named) && !said.contains("secret"), "{said}");
        }
        let taken = file("[[relay]]\nname = 'webhook:x:0123456789abcdef'").unwrap_err();
        assert!(taken.contains("`webhook:x:0123456789abcdef`") && taken.contains("those of webhooks"), "{taken}");
        file("[[relay]]\nname = 'webhook:x'").unwrap();
        let twice = file("[[relay]]\nname = 'out'\n[[relay]]\nname = 'out'").unwrap_err();
        assert!(twice.contains("`out`") && twice.contains("two"), "{twice}");
        let many = (0..101).map(|n| RelaySettings { name: n.to_string(), ..RelaySettings::default() });
        assert!(specs(many.collect()).unwrap_err().to_string().contains("at most 100"));
    }

    #[test]
    fn a_password_comes_from_the_environment_and_is_shown_to_nobody() {
        let text = "[[relay]]\nname = 'out'\ntransport = 'nats://a@b'\npassword-variable = 'NATS_PASSWORD'";
        let layers = Layers::defaults().file("q.toml", text).unwrap();
        let layers = layers.environment([("NATS_PASSWORD".to_owned(), "secret".to_owned())]).unwrap();
        assert_eq!(layers.config().unwrap().relays[0].reach.password, Password::Given("secret".to_owned()));
        let shown = layers.get("relay").unwrap().shown().to_string();
        assert!(shown.contains("NATS_PASSWORD") && !shown.contains("secret"), "{shown}");
        assert!(!format!("{:?}", layers.config().unwrap().relays).contains("secret"));
        let inside = "[[relay]]\nname = 'out'\ntransport = 'nats://a:secret@b'";
        let shown = Layers::defaults().file("q.toml", inside).unwrap().get("relay").unwrap().shown().to_string();
        assert!(shown.contains("a:***@b") && !shown.contains("secret"), "{shown}");
    }
}
