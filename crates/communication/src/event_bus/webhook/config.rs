//! What an endpoint is like.

use std::{net::IpAddr, time::Duration};

use http::Uri;
use quorate_data::{
    store::{Query, QueryItem},
    subscription::{self, Backoff, OrderKey, Start},
};
use serde::{Deserialize, Serialize};

use super::{Allowed, WebhookError, machine::Rules};

/// An endpoint: who is called, with which events, and how patiently.
///
/// What says which events come in which order (`filter`, `start`, `key`, `max_attempts`, `backoff`, `window`, `max_parked`) cannot be changed
/// later; everything else can.
///
/// # Example
/// ```
/// use quorate_communication::event_bus::webhook::{Allowed, Config};
/// use quorate_data::{store::{Query, QueryItem}, subscription::OrderKey};
/// let billing = Config {
///     filter: Query::of([QueryItem::types(["order.placed"])]),
///     key: OrderKey::Tag("customer".into()),
///     ..Config::to("https://billing.example/hooks")
/// };
/// assert!(billing.check(&Allowed::public()).is_ok());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Who is called: an absolute `http` or `https` address of at most 2,048 bytes. What goes over `http` is signed, and read by all on
    /// the way.
    pub url: String,
    /// Which events. Default: all.
    pub filter: Query,
    /// Where to begin. Default: with the first event appended after the endpoint was declared.
    pub start: Start,
    /// Events with the same key are sent in order, one at a time. Default: the stream.
    pub key: OrderKey,
    /// How an event is written. Default: as one JSON document.
    pub content: Content,
    /// How long one attempt may take, answer included. 10 ms to 60 s. Default 15 s.
    pub timeout: Duration,
    /// How many events are sent at one time. 1 to 64. Default 8.
    pub places: usize,
    /// How often an event is sent before it is parked. 1 to 1,000. Default 18: with the default backoff, a day.
    pub max_attempts: u32,
    /// How long an event rests after a failure, where the endpoint does not ask for longer. Default 5 s to 4 h.
    pub backoff: Backoff,
    /// Events between the first one that is neither taken nor parked and the last one sent; while there are that many nothing more is
    /// sent. An event that rests after a failure counts until it is taken or parked, and what was taken behind it does, too: 1 to 10,000.
    /// Default 10,000.
    pub window: usize,
    /// Parked events; while there are that many nothing more is sent. 1 to 10,000. Default 10,000.
    pub max_parked: usize,
    /// An endpoint that has taken nothing for so long, in failures that processes saw, is disabled. At least 1 s. Default 5 days.
    pub disable_after: Duration,
}

/// How an event is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Content {
    /// As one JSON document, `application/cloudevents+json`.
    #[default]
    Structured,
    /// Attributes as `ce-…` headers, data as the body. Signatures cover the body alone: over `http`, others may change the attributes. An event
    /// whose data is an event itself (`application/cloudevents…`) is sent structured all the same, or it would be taken for that one.
    Binary,
}

impl Config {
    /// The longest attempt.
    pub const MAX_TIMEOUT: Duration = Duration::from_secs(60);
    /// The shortest.
    pub const MIN_TIMEOUT: Duration = Duration::from_millis(10);
    /// The most events that are sent at one time.
    pub const MAX_PLACES: usize = 64;
    /// The longest address, in bytes.
    pub const MAX_URL_BYTES: usize = 2_048;
    const MIN_PATIENCE: Duration = Duration::from_secs(1);

    /// The defaults, for the endpoint at `url`.
    pub fn to(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            filter: Query::EVERYTHING,
            start: Start::End,
            key: OrderKey::default(),
            content: Content::default(),
            timeout: Duration::from_secs(15),
            places: 8,
            max_attempts: 18,
            backoff: Backoff { first: Duration::from_secs(5), max: Duration::from_secs(4 * 3_600) },
            window: subscription::Config::MAX_WINDOW,
            max_parked: 10_000,
            disable_after: Duration::from_secs(5 * 24 * 3_600),
        }
    }

    /// Whether every field is within its range, and the address one that may be called as far as that can be told without
    /// asking for its name.
    ///
    /// # Errors
    /// [`WebhookError::Invalid`] or [`WebhookError::Forbidden`].
    pub fn check(&self, allowed: &Allowed) -> Result<(), WebhookError> {
        self.check_url(allowed)?;
        let invalid = |what: String| Err(WebhookError::Invalid { what });
        let (min, max) = (Self::MIN_TIMEOUT, Self::MAX_TIMEOUT);
        if !(min..=max).contains(&self.timeout) {
            return invalid(format!("`timeout` is {min:?} to {max:?}, {:?} was asked for", self.timeout));
        }
        let most = Self::MAX_PLACES;
        if !(1..=most).contains(&self.places) {
            return invalid(format!("`places` is 1 to {most}, {} was asked for", self.places));
        }
        let least = Self::MIN_PATIENCE;
        if self.disable_after < least {
            return invalid(format!("`disable-after` is at least {least:?}, {:?} was asked for", self.disable_after));
        }
        Ok(self.subscription().check()?)
    }

    fn check_url(&self, allowed: &Allowed) -> Result<(), WebhookError> {
        let wrong = |why: &str| WebhookError::Invalid { what: format!("`url` {why}") };
        if self.url.len() > Self::MAX_URL_BYTES {
            return Err(wrong(&format!("has at most {} bytes", Self::MAX_URL_BYTES)));
        }
        let uri: Uri = self.url.parse().map_err(|_| wrong("is no address such as https://host/path"))?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) {
            return Err(wrong("begins with `https://` or `http://`"));
        }
        let authority = uri.authority().filter(|authority| !authority.host().is_empty());
        let authority = authority.ok_or_else(|| wrong("names no host"))?;
        if authority.as_str().contains('@') {
            return Err(wrong("holds a user's name, which does not belong there"));
        }
        if authority.as_str().len() > authority.host().len() && authority.port_u16().is_none() {
            return Err(wrong("has a port that cannot be"));
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        let literal = if is_localhost(host) { Some(IpAddr::from([127, 0, 0, 1])) } else { host.parse().ok() };
        literal.map_or(Ok(()), |address| Ok(allowed.check(address)?))
    }

    /// The subscription that feeds the endpoint. Its leases outlast an attempt, so that nobody begins another one meanwhile.
    pub(super) fn subscription(&self) -> subscription::Config {
        subscription::Config {
            filter: self.filter.clone(),
            start: self.start,
            key: self.key.clone(),
            lease_ttl: self.timeout.mul_f64(1.5) + Duration::from_millis(500),
            max_attempts: self.max_attempts,
            window: self.window,
            max_parked: self.max_parked,
            backoff: self.backoff,
        }
    }

    /// The first field in which `self` differs from `other` and that cannot be changed.
    pub(super) fn fixed_difference(&self, other: &Self) -> Option<&'static str> {
        let differ = [
            ("filter", self.filter != other.filter),
            ("start", self.start != other.start),
            ("key", self.key != other.key),
            ("max-attempts", self.max_attempts != other.max_attempts),
            ("backoff", self.backoff != other.backoff),
            ("window", self.window != other.window),
            ("max-parked", self.max_parked != other.max_parked),
        ];
        differ.into_iter().find(|(_, differs)| *differs).map(|(field, _)| field)
    }

    pub(crate) fn rules(&self) -> Rules {
        let longest_gap = self.backoff.max + self.timeout;
        Rules { disable_after: self.disable_after, least_rest: self.backoff.first, longest_gap }
    }

    /// Whether it is called over TLS.
    pub(super) fn encrypts(&self) -> bool {
        self.url.get(..6).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https:"))
    }

    pub(super) fn to_json(&self) -> String {
        serde_json::to_string(&Stored::from(self)).unwrap_or_else(|_| unreachable!("plain data has a JSON form"))
    }

    pub(super) fn from_json(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str::<Stored>(text).map(Self::from)
    }
}

fn is_localhost(host: &str) -> bool {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    host == "localhost" || host.ends_with(".localhost")
}

/// A configuration as its row holds it.
#[derive(Serialize, Deserialize)]
struct Stored {
    url: String,
    filter: Vec<StoredItem>,
    start: Start,
    key: OrderKey,
    content: Content,
    timeout: Duration,
    places: usize,
    max_attempts: u32,
    backoff: Backoff,
    window: usize,
    max_parked: usize,
    disable_after: Duration,
}

#[derive(Serialize, Deserialize)]
struct StoredItem {
    types: Vec<String>,
    tags: Vec<String>,
    categories: Vec<String>,
}

impl From<&Config> for Stored {
    fn from(config: &Config) -> Self {
        let item = |QueryItem { types, tags, categories }: &QueryItem| StoredItem {
            types: types.clone(),
            tags: tags.clone(),
            categories: categories.clone(),
        };
        Self {
            url: config.url.clone(),
            filter: config.filter.items.iter().map(item).collect(),
            start: config.start,
            key: config.key.clone(),
            content: config.content,
            timeout: config.timeout,
            places: config.places,
            max_attempts: config.max_attempts,
            backoff: config.backoff,
            window: config.window,
            max_parked: config.max_parked,
            disable_after: config.disable_after,
        }
    }
}

impl From<Stored> for Config {
    fn from(stored: Stored) -> Self {
        let item = |StoredItem { types, tags, categories }| QueryItem { types, tags, categories };
        Self {
            url: stored.url,
            filter: Query::of(stored.filter.into_iter().map(item)),
            start: stored.start,
            key: stored.key,
            content: stored.content,
            timeout: stored.timeout,
            places: stored.places,
            max_attempts: stored.max_attempts,
            backoff: stored.backoff,
            window: stored.window,
            max_parked: stored.max_parked,
            disable_after: stored.disable_after,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use quorate_data::{
        event::Position,
        store::{Query, QueryItem},
        subscription::{OrderKey, Start},
    };

    use super::{Allowed, Config, Content};

    fn said(config: &Config) -> String {
        let refused = config.check(&Allowed::public()).unwrap_err();
        let cause = std::error::Error::source(&refused).map(ToString::to_string).unwrap_or_default();
        format!("{refused}: {cause}")
    }

    #[test]
    fn a_config_survives_its_stored_form() {
        let config = Config {
            filter: Query::of([QueryItem::types(["a", "b"]).tagged(["x:1"]), QueryItem::categories(["order"])]),
            start: Start::After(Position::new(17)),
            key: OrderKey::Extension("tenant".into()),
            content: Content::Binary,
            timeout: Duration::from_millis(1_500),
            ..Config::to("https://a.example/x?y=z")
        };
        assert_eq!(Config::from_json(&config.to_json()).unwrap(), config);
    }

    #[test]
    fn an_address_that_cannot_be_called_is_refused_with_its_reason() {
        for (url, reason) in [
            ("", "no address"),
            ("/hooks", "begins with"),
            ("ftp://a.example/", "begins with"),
            ("https://user:word@a.example/", "a user's name"),
            ("https://a.example:99999/", "a port"),
            ("http://127.0.0.1:80/", "loopback"),
            ("http://LocalHost./", "loopback"),
            ("http://a.localhost/", "loopback"),
            ("http://[::1]/", "loopback"),
            ("http://[::ffff:10.0.0.1]/", "private"),
            ("http://169.254.169.254/latest/meta-data", "link-local"),
        ] {
            let said = said(&Config::to(url));
            assert!(said.contains(reason), "{url}: {said}");
        }
        let long = format!("https://a.example/{}", "x".repeat(Config::MAX_URL_BYTES));
        assert!(said(&Config::to(long)).contains("at most"));
        assert!(Config::to("HTTPS://a.example").check(&Allowed::public()).is_ok());
    }

    #[test]
    fn a_field_out_of_range_is_named() {
        let config = Config::to("https://a.example/");
        assert!(said(&Config { timeout: Duration::from_secs(61), ..config.clone() }).contains("`timeout`"));
        assert!(said(&Config { places: 0, ..config.clone() }).contains("`places`"));
        assert!(said(&Config { disable_after: Duration::ZERO, ..config.clone() }).contains("`disable-after`"));
        assert!(said(&Config { max_attempts: 0, ..config }).contains("`max-attempts`"));
    }

    #[test]
    fn a_lease_outlasts_its_attempt() {
        for timeout in [Config::MIN_TIMEOUT, Duration::from_secs(15), Config::MAX_TIMEOUT] {
            let config = Config { timeout, ..Config::to("https://a.example/") };
            assert!(config.subscription().lease_ttl > timeout);
            assert!(config.check(&Allowed::public()).is_ok());
        }
    }
}
