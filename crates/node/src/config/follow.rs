//! Defaults that follow what is set: whoever sets one of two settings that belong together need not set both.
//!
//! Some settings must not be less than others. Where one of two is set and the other is not, the other takes the value that
//! agrees with it; where both are set and contradict each other, [`Config`](super::Config) says so.

use std::collections::BTreeMap;

use toml::Value;

use super::{ByteSize, Entry, Source};

/// The first of each pair is at most the second.
const AT_MOST: [(&str, &str); 7] = [
    ("http.max-streams", "http.max-requests"),
    ("http.default-page", "http.max-page"),
    ("store.max-event", "store.max-batch"),
    ("store.max-batch", "store.max-transaction"),
    ("store.max-batch", "store.max-waiting"),
    ("store.max-event", "http.max-body"),
    ("http.max-body", "http.body-memory"),
];

/// The first of each pair is half of the second, rounded up.
const HALF: [(&str, &str); 2] =
    [("http.max-peer-connections", "http.max-connections"), ("http.max-peer-requests", "http.max-requests")];

/// Lets what nobody set follow what somebody did.
pub(super) fn follow(entries: &mut BTreeMap<String, Entry>, defaults: &BTreeMap<String, Value>) {
    for (key, entry) in entries.iter_mut() {
        if let (Source::Follows(_), Some(default)) = (&entry.source, defaults.get(key)) {
            (entry.value, entry.source) = (default.clone(), Source::Default);
        }
    }
    // As many times as the longest chain has links.
    for _ in AT_MOST {
        for (small, large) in AT_MOST {
            let (Some(lower), Some(upper)) = (entries.get(small), entries.get(large)) else { continue };
            if number(&lower.value) <= number(&upper.value) {
                continue;
            }
            match (&lower.source, &upper.source) {
                (Source::Default, source) if *source != Source::Default => take(entries, small, large, |value| value),
                (source, Source::Default) if *source != Source::Default => take(entries, large, small, |value| value),
                _ => {}
            }
        }
    }
    for (half, whole) in HALF {
        let follows = entries.get(half).is_some_and(|entry| entry.source == Source::Default)
            && entries.get(whole).is_some_and(|entry| entry.source != Source::Default);
        if follows {
            take(entries, half, whole, |value| match value {
                Value::Integer(whole) => Value::Integer(whole - whole / 2),
                other => other,
            });
        }
    }
}

/// Gives the setting `key` what `of` makes of the value of `other`.
fn take(entries: &mut BTreeMap<String, Entry>, key: &str, other: &str, of: fn(Value) -> Value) {
    let Some(value) = entries.get(other).map(|entry| of(entry.value.clone())) else { return };
    if let Some(entry) = entries.get_mut(key) {
        (entry.value, entry.source) = (value, Source::Follows(other.to_owned()));
    }
}

/// A count, or a size in bytes.
fn number(value: &Value) -> Option<i128> {
    match value {
        Value::Integer(count) => Some((*count).into()),
        Value::String(size) => size.parse::<ByteSize>().ok().and_then(|size| i128::try_from(size.get()).ok()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use crate::config::{ConfigError, Layers, Source};

    fn with(toml: &str) -> Layers {
        Layers::defaults().file("q.toml", toml).unwrap()
    }

    #[test]
    fn one_of_two_that_belong_together_is_enough() {
        for (toml, key, becomes) in [
            ("http.max-requests = 50", "http.max-streams", "50"),
            ("http.max-streams = 5_000", "http.max-requests", "5000"),
            ("http.max-page = 20", "http.default-page", "20"),
            ("http.default-page = 20_000", "http.max-page", "20000"),
            ("store.max-event = '96MiB'", "http.body-memory", "\"96MiB\""),
            ("store.max-event = '96MiB'", "store.max-waiting", "\"96MiB\""),
            ("http.max-body = '512KiB'", "store.max-event", "\"512KiB\""),
            ("http.max-requests = 51", "http.max-peer-requests", "26"),
            ("http.max-connections = 1", "http.max-peer-connections", "1"),
        ] {
            let layers = with(toml);
            let entry = layers.get(key).unwrap();
            assert_eq!(entry.value.to_string(), becomes, "{toml}: {key}");
            assert!(matches!(entry.source, Source::Follows(_)), "{toml}: {key} comes from {}", entry.source);
            layers.config().unwrap_or_else(|wrong| panic!("{toml}: {wrong}"));
        }
    }

    #[test]
    fn what_was_set_stays_and_a_contradiction_is_told() {
        let layers = with("[http]\nmax-requests = 50\nmax-streams = 60");
        let wrong = layers.config().unwrap_err();
        assert!(matches!(wrong, ConfigError::Disagree { small: "http.max-requests", .. }), "{wrong}");
        let agreeing = with("[http]\nmax-requests = 5000");
        assert_eq!(agreeing.get("http.max-streams").unwrap().source, Source::Default);
    }

    #[test]
    fn a_later_layer_has_the_last_word_on_what_is_followed() {
        let layers = with("http.max-requests = 50").flags([("http.max-requests".to_owned(), "70".to_owned())]).unwrap();
        assert_eq!(layers.settings().http.max_streams, 70);
        let layers =
            with("http.max-requests = 50").flags([("http.max-requests".to_owned(), "3000".to_owned())]).unwrap();
        assert_eq!(
            (layers.settings().http.max_streams, &layers.get("http.max-streams").unwrap().source),
            (100, &Source::Default)
        );
        let told = with("http.max-requests = 50").get("http.max-streams").unwrap().source.to_string();
        assert_eq!(told, "follows http.max-requests");
    }
}
