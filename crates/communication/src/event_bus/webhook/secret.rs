//! Secrets that deliveries are signed with.

use std::{fmt, str::FromStr};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use quorate_foundations::time::Wall;
use quorate_runtime::random::Rng;
use serde::{Deserialize, Serialize};

/// A secret that an endpoint shares with whoever signs its deliveries: 24 to 64 bytes, written as `whsec_` and base64.
///
/// Printing it for people who look for faults does not show it; [`reveal`](Self::reveal) does.
///
/// # Example
/// ```
/// use quorate_communication::event_bus::webhook::Secret;
/// let secret: Secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".parse()?;
/// assert_eq!(format!("{secret:?}"), "Secret(…)");
/// # Ok::<_, quorate_communication::event_bus::webhook::SecretError>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

/// A text that is no secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a secret is `whsec_` and the base64 of 24 to 64 bytes")]
pub struct SecretError;

const PREFIX: &str = "whsec_";

impl Secret {
    /// A new one that nobody can guess.
    pub fn draw(dice: &mut Rng) -> Self {
        let mut bytes = vec![0; 32];
        dice.fill(&mut bytes);
        Self(bytes)
    }

    /// Its text, for whoever verifies.
    pub fn reveal(&self) -> String {
        format!("{PREFIX}{}", STANDARD.encode(&self.0))
    }

    /// Eight letters that tell it from others and say nothing about it.
    pub fn fingerprint(&self) -> String {
        let hash = blake3::derive_key("quorate webhook secret fingerprint", &self.0);
        hash[..4].iter().map(|byte| format!("{byte:02x}")).collect()
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl FromStr for Secret {
    type Err = SecretError;

    fn from_str(text: &str) -> Result<Self, SecretError> {
        let encoded = text.strip_prefix(PREFIX).unwrap_or(text);
        let bytes = STANDARD.decode(encoded).map_err(|_| SecretError)?;
        if (24..=64).contains(&bytes.len()) { Ok(Self(bytes)) } else { Err(SecretError) }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl Serialize for Secret {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.reveal())
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A secret and until when it signs, by the wall clock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Key {
    pub(super) secret: Secret,
    /// Nanoseconds since the Unix epoch; `None`: until it is replaced.
    pub(super) until: Option<i64>,
}

/// The secrets of an endpoint, the newest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Keyring(pub(super) Vec<Key>);

impl Keyring {
    /// The most that sign at one time.
    pub(super) const MOST: usize = 10;

    pub(super) fn of(secret: Secret) -> Self {
        Self(vec![Key { secret, until: None }])
    }

    /// The one that was given last.
    pub(super) fn newest(&self) -> Option<&Secret> {
        self.0.first().map(|key| &key.secret)
    }

    /// Those that sign at `now`: the newest always does.
    pub(super) fn at(&self, now: Wall) -> impl Iterator<Item = &Secret> {
        let signs = move |(n, key): &(usize, &Key)| *n == 0 || key.until.is_none_or(|until| now.unix_nanos() < until);
        self.0.iter().enumerate().filter(signs).map(|(_, key)| &key.secret)
    }

    /// The same with `secret` in front, and those that sign so far until `until`, unless they end before.
    pub(super) fn rotated(&self, secret: Secret, now: Wall, until: Wall) -> Self {
        let until = until.unix_nanos();
        let old = self.0.iter().filter(|key| key.secret != secret);
        let old = old.map(|key| Key { until: Some(key.until.map_or(until, |end| end.min(until))), ..key.clone() });
        let old = old.filter(|key| key.until.is_some_and(|end| end > now.unix_nanos()));
        let first = std::iter::once(Key { secret: secret.clone(), until: None });
        Self(first.chain(old).take(Self::MOST).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::{Keyring, Secret};
    use quorate_foundations::time::Wall;
    use quorate_runtime::random::Random;

    fn secrets() -> [Secret; 3] {
        let mut dice = Random::from_seed([1; 32]).stream("secrets");
        std::array::from_fn(|_| Secret::draw(&mut dice))
    }

    #[test]
    fn a_secret_survives_its_text_and_short_ones_are_refused() {
        for secret in secrets() {
            assert_eq!(secret.reveal().parse(), Ok(secret));
        }
        for wrong in ["", "whsec_", "whsec_AAAA", "whsec_!!!!", &format!("whsec_{}", "A".repeat(200))] {
            assert!(wrong.parse::<Secret>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn old_secrets_sign_until_their_time_and_no_longer() {
        let [first, second, third] = secrets();
        let at = Wall::from_unix_nanos;
        let ring = Keyring::of(first.clone()).rotated(second.clone(), at(10), at(100));
        assert_eq!(ring.at(at(99)).collect::<Vec<_>>(), [&second, &first]);
        assert_eq!(ring.at(at(100)).collect::<Vec<_>>(), [&second]);
        let ring = ring.rotated(third.clone(), at(20), at(50));
        assert_eq!(ring.at(at(49)).collect::<Vec<_>>(), [&third, &second, &first]);
        assert_eq!(ring.at(at(50)).collect::<Vec<_>>(), [&third], "the first one got no longer time");
        let ring = ring.rotated(third.clone(), at(60), at(200));
        assert_eq!(ring.0.len(), 1, "the same again is no second one, and what is over is gone");
    }

    #[test]
    fn no_more_sign_than_may() {
        let mut dice = Random::from_seed([2; 32]).stream("secrets");
        let mut ring = Keyring::of(Secret::draw(&mut dice));
        for _ in 0..50 {
            ring = ring.rotated(Secret::draw(&mut dice), Wall::default(), Wall::from_unix_nanos(9));
        }
        assert_eq!(ring.0.len(), Keyring::MOST);
    }
}
