//! Signatures of deliveries, written and verified.
//!
//! What is signed is `{webhook-id}.{webhook-timestamp}.{body}`, with HMAC-SHA256; each signature is `v1,` and base64, and several
//! stand there while secrets overlap.
//!
//! Source: Standard Webhooks 1.0.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderName, HeaderValue};
use quorate_foundations::time::Wall;
use ring::hmac;

use super::Secret;

/// What the delivery is called: the same for every attempt.
pub const ID: HeaderName = HeaderName::from_static("webhook-id");
/// When this attempt was made, in seconds since the Unix epoch.
pub const TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
/// The signatures, with blanks between them.
pub const SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");

/// How far a delivery's timestamp may be from the receiver's clock, unless it says otherwise.
pub const TOLERANCE: Duration = Duration::from_secs(300);

/// The most signatures that are looked at.
const MOST: usize = 32;
/// Bytes of a signature.
const TAG_BYTES: usize = 32;

/// Why a delivery is not to be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// A header is missing, or cannot be read.
    #[error("the header `{0}` is missing or cannot be read")]
    Header(&'static str),
    /// It was signed too long ago, or by a clock that is ahead: it may be a repeat by somebody else.
    #[error("it was signed {apart:?} away from now, and {tolerance:?} is allowed")]
    Time {
        /// How far away.
        apart: Duration,
        /// How far is allowed.
        tolerance: Duration,
    },
    /// No signature fits any of the secrets.
    #[error("no signature fits")]
    Signature,
}

/// Writes the three headers of a delivery with `body`, signed with each of `secrets`.
pub(crate) fn sign<'s>(
    headers: &mut HeaderMap,
    id: &str,
    now: Wall,
    body: &[u8],
    secrets: impl Iterator<Item = &'s Secret>,
) {
    let timestamp = now.unix_nanos().div_euclid(1_000_000_000).to_string();
    let signature = |secret| format!("v1,{}", STANDARD.encode(tag(secret, id, &timestamp, body)));
    let signatures: Vec<String> = secrets.map(signature).collect();
    let value = |text: &str| {
        HeaderValue::from_str(text).unwrap_or_else(|_| unreachable!("ids, numbers and base64 are printable"))
    };
    headers.insert(ID, value(id));
    headers.insert(TIMESTAMP, value(&timestamp));
    headers.insert(SIGNATURE, value(&signatures.join(" ")));
}

/// Whether the delivery that `headers` and `body` came with was signed with one of `secrets`, no further than `tolerance` from `now`.
/// Returns its id: one that was seen before is a repeat of something that was done.
///
/// `body`: the bytes as they came, before anything is made of them. Nothing else is signed: of a delivery in binary mode the attributes,
/// which are headers, are as trustworthy as the way they came.
///
/// # Errors
/// [`VerifyError`]: answer 400 or 401, and do nothing.
///
/// # Example
/// ```
/// use http::HeaderMap;
/// use quorate_communication::event_bus::webhook::{Secret, TOLERANCE, VerifyError, verify};
/// use quorate_foundations::time::Wall;
///
/// // The example of the specification.
/// let secret: Secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".parse()?;
/// let body = br#"{"test": 2432232314}"#;
/// let mut headers = HeaderMap::new();
/// headers.insert("webhook-id", "msg_p5jXN8AQM9LWM0D4loKWxJek".parse()?);
/// headers.insert("webhook-timestamp", "1614265330".parse()?);
/// headers.insert("webhook-signature", "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=".parse()?);
///
/// let now = Wall::from_unix_nanos(1_614_265_400_000_000_000);
/// assert_eq!(verify(&[secret.clone()], &headers, body, now, TOLERANCE)?, "msg_p5jXN8AQM9LWM0D4loKWxJek");
/// assert_eq!(verify(&[secret], &headers, b"{}", now, TOLERANCE), Err(VerifyError::Signature));
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
pub fn verify<'h>(
    secrets: &[Secret],
    headers: &'h HeaderMap,
    body: &[u8],
    now: Wall,
    tolerance: Duration,
) -> Result<&'h str, VerifyError> {
    let (id, timestamp) = (one(headers, &ID, "webhook-id")?, one(headers, &TIMESTAMP, "webhook-timestamp")?);
    let signed: i64 = timestamp.parse().map_err(|_| VerifyError::Header("webhook-timestamp"))?;
    let signed = Wall::from_unix_nanos(signed.saturating_mul(1_000_000_000));
    let apart = now.saturating_since(signed).max(signed.saturating_since(now));
    if apart > tolerance {
        return Err(VerifyError::Time { apart, tolerance });
    }
    let signatures = one(headers, &SIGNATURE, "webhook-signature")?;
    let given = signatures.split(' ').filter_map(|one| STANDARD.decode(one.strip_prefix("v1,")?).ok()).take(MOST);
    let given: Vec<Vec<u8>> = given.filter(|tag| tag.len() == TAG_BYTES).collect();
    // The body is looked at once for each secret, however many signatures somebody sends.
    let fits = |secret: &Secret| {
        let expected = tag(secret, id, timestamp, body);
        given.iter().any(|given| are_equal(secret, given, expected.as_ref()))
    };
    if !given.is_empty() && secrets.iter().any(fits) { Ok(id) } else { Err(VerifyError::Signature) }
}

fn tag(secret: &Secret, id: &str, timestamp: &str, body: &[u8]) -> hmac::Tag {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, secret.bytes()));
    for part in [id.as_bytes(), b".", timestamp.as_bytes(), b".", body] {
        context.update(part);
    }
    context.sign()
}

/// Compares two tags, through tags of theirs: that takes the same time wherever they differ.
fn are_equal(secret: &Secret, given: &[u8], expected: &[u8]) -> bool {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.bytes());
    hmac::verify(&key, given, hmac::sign(&key, expected).as_ref()).is_ok()
}

fn one<'h>(headers: &'h HeaderMap, name: &HeaderName, told: &'static str) -> Result<&'h str, VerifyError> {
    let mut values = headers.get_all(name).iter();
    match (values.next().map(HeaderValue::to_str), values.next()) {
        (Some(Ok(text)), None) => Ok(text),
        _ => Err(VerifyError::Header(told)),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::HeaderMap;
    use quorate_foundations::time::Wall;
    use quorate_runtime::random::Random;

    use super::{SIGNATURE, Secret, TIMESTAMP, TOLERANCE, VerifyError, sign, verify};

    const NOW: Wall = Wall::from_unix_nanos(1_700_000_000_000_000_000);

    fn secret(n: u8) -> Secret {
        Secret::draw(&mut Random::from_seed([n; 32]).stream("secret"))
    }

    fn signed(secrets: &[Secret]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        sign(&mut headers, "msg_1", NOW, b"body", secrets.iter());
        headers
    }

    #[test]
    fn while_secrets_overlap_each_of_them_verifies() {
        let headers = signed(&[secret(1), secret(2)]);
        for known in [secret(1), secret(2)] {
            assert_eq!(verify(&[known], &headers, b"body", NOW, TOLERANCE), Ok("msg_1"));
        }
        assert_eq!(verify(&[secret(3), secret(2)], &headers, b"body", NOW, TOLERANCE), Ok("msg_1"));
        assert_eq!(verify(&[secret(3)], &headers, b"body", NOW, TOLERANCE), Err(VerifyError::Signature));
    }

    #[test]
    fn body_id_and_time_are_signed() {
        let known = [secret(1)];
        let judge = |headers: &HeaderMap, body: &[u8]| verify(&known, headers, body, NOW, TOLERANCE).map(str::len);
        assert_eq!(judge(&signed(&known), b"body!"), Err(VerifyError::Signature));
        for (header, value) in [("webhook-id", "msg_2"), ("webhook-timestamp", "1700000001")] {
            let mut headers = signed(&known);
            headers.insert(header, value.parse().unwrap());
            assert_eq!(judge(&headers, b"body"), Err(VerifyError::Signature), "{header}");
        }
    }

    #[test]
    fn a_delivery_of_another_time_is_refused() {
        let (known, headers) = ([secret(1)], signed(&[secret(1)]));
        let (inside, outside) = (Duration::from_secs(300), Duration::from_secs(301));
        for now in [NOW + inside, NOW - inside] {
            assert!(verify(&known, &headers, b"body", now, TOLERANCE).is_ok());
        }
        for now in [NOW + outside, NOW - outside] {
            let refused = verify(&known, &headers, b"body", now, TOLERANCE);
            assert_eq!(refused, Err(VerifyError::Time { apart: outside, tolerance: TOLERANCE }));
        }
    }

    #[test]
    fn what_is_missing_or_stands_there_twice_is_named() {
        let mut headers = signed(&[secret(1)]);
        headers.append(TIMESTAMP, "1".parse().unwrap());
        let refused = verify(&[secret(1)], &headers, b"body", NOW, TOLERANCE);
        assert_eq!(refused, Err(VerifyError::Header("webhook-timestamp")));
        headers = signed(&[secret(1)]);
        headers.remove(SIGNATURE);
        let refused = verify(&[secret(1)], &headers, b"body", NOW, TOLERANCE);
        assert_eq!(refused, Err(VerifyError::Header("webhook-signature")));
        headers.insert(SIGNATURE, "v2,AAAA v1,!! v1 ,".parse().unwrap());
        assert_eq!(verify(&[secret(1)], &headers, b"body", NOW, TOLERANCE), Err(VerifyError::Signature));
    }
}
