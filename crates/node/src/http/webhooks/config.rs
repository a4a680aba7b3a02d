//! A webhook's configuration in JSON.

use std::time::Duration;

use quorate_communication::event_bus::webhook::{Config, Content, Secret};
use serde::Deserialize;
use serde_json::{Value, json};

use super::secret_of;
use crate::http::{
    problem::Problem,
    subscriptions::config::{Filter, From, Key, Rests, filter_shown, key_shown, rests_shown, span, start_shown},
};

/// As it is sent; what is left out has its default.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Document {
    url: String,
    secret: Option<String>,
    #[serde(default)]
    filter: Filter,
    start: Option<From>,
    #[serde(default)]
    key: Key,
    #[serde(default)]
    content: Content,
    #[serde(default, with = "humantime_serde")]
    timeout: Option<Duration>,
    places: Option<usize>,
    max_attempts: Option<u32>,
    backoff: Option<Rests>,
    window: Option<usize>,
    max_parked: Option<usize>,
    #[serde(default, with = "humantime_serde")]
    disable_after: Option<Duration>,
}

impl Document {
    /// What is wanted, and the secret where one is given.
    pub(super) fn read(self) -> Result<(Config, Option<Secret>), Problem> {
        let defaults = Config::to(self.url);
        let config = Config {
            filter: self.filter.into(),
            start: self.start.map_or(defaults.start, Into::into),
            key: self.key.into(),
            content: self.content,
            timeout: self.timeout.unwrap_or(defaults.timeout),
            places: self.places.unwrap_or(defaults.places),
            max_attempts: self.max_attempts.unwrap_or(defaults.max_attempts),
            backoff: self.backoff.map_or(defaults.backoff, Into::into),
            window: self.window.unwrap_or(defaults.window),
            max_parked: self.max_parked.unwrap_or(defaults.max_parked),
            disable_after: self.disable_after.unwrap_or(defaults.disable_after),
            url: defaults.url,
        };
        Ok((config, secret_of(self.secret)?))
    }
}

/// `config` as it could be sent.
pub(super) fn shown(config: &Config) -> Value {
    json!({
        "url": config.url,
        "filter": filter_shown(&config.filter),
        "start": start_shown(config.start),
        "key": key_shown(&config.key),
        "content": config.content,
        "timeout": span(config.timeout),
        "places": config.places,
        "max-attempts": config.max_attempts,
        "backoff": rests_shown(config.backoff),
        "window": config.window,
        "max-parked": config.max_parked,
        "disable-after": span(config.disable_after),
    })
}

#[cfg(test)]
mod tests {
    use super::{Config, Document, shown};

    #[test]
    fn a_configuration_survives_being_shown_and_sent_again() {
        let sent = r#"{"url":"https://a.example/x","filter":{"items":[{"types":["a"],"tags":["x:1"]}]},"start":{"after":"17"},
            "key":{"tag":"x"},"content":"binary","timeout":"1s 500ms","places":3,"max-attempts":7,"window":9,"max-parked":5,
            "backoff":{"first":"10ms","max":"2m"},"disable-after":"1h"}"#;
        for text in [sent, r#"{"url":"http://a.example"}"#] {
            let (config, _) = serde_json::from_str::<Document>(text).unwrap().read().unwrap();
            let (again, _) = serde_json::from_value::<Document>(shown(&config)).unwrap().read().unwrap();
            assert_eq!(again, config, "{text}");
        }
        let (bare, secret) = serde_json::from_str::<Document>(r#"{"url":"u"}"#).unwrap().read().unwrap();
        assert_eq!((bare, secret), (Config::to("u"), None));
    }
}
