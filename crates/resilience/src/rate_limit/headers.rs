//! What clients are told of their limits: `RateLimit-Policy` and `RateLimit`.
//!
//! Source: draft-ietf-httpapi-ratelimit-headers-10, "RateLimit header fields for HTTP". Both are lists of structured fields
//! (RFC 9651): a name in quotes, then its parameters. Several policies are several members, separated by a comma.

use std::fmt::Write as _;

use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::{Rate, Standing};

/// The name of the header that [`policy`] is a member of.
pub const RATELIMIT_POLICY: &str = "ratelimit-policy";
/// The name of the header that [`standing`] is a member of.
pub const RATELIMIT: &str = "ratelimit";

/// A member of `RateLimit-Policy`: `"per-client";q=100;w=60`. `name` should say what is limited; what isn't printable ASCII in
/// it becomes `_`. `partition` tells apart those who have a limit each, and is sent as it is given: a hash where it must
/// not be read.
pub fn policy(name: &str, rate: &Rate, partition: Option<&[u8]>) -> String {
    let mut text = quoted(name);
    // What fits in the window, over time: a burst isn't part of the draft. A window below a second is told as a second.
    let (quota, window) = match rate.window.as_secs() {
        0 => (u128::from(rate.quota.get()) * 1_000_000_000 / rate.window.as_nanos().max(1), 1),
        seconds => (u128::from(rate.quota.get()), seconds),
    };
    let _ = write!(text, ";q={};w={}", quota.min(MOST), u128::from(window).min(MOST));
    with_partition(text, partition)
}

/// A member of `RateLimit`: `"per-client";r=12;t=30`, what is left and in how many seconds all of it is there again, rounded up.
pub fn standing(name: &str, standing: &Standing, partition: Option<&[u8]>) -> String {
    let mut text = quoted(name);
    let seconds = standing.reset.as_secs() + u64::from(standing.reset.subsec_nanos() > 0);
    let _ = write!(text, ";r={};t={}", standing.remaining, u128::from(seconds).min(MOST));
    with_partition(text, partition)
}

/// The largest integer of a structured field.
const MOST: u128 = 999_999_999_999_999;

fn quoted(name: &str) -> String {
    let mut text = String::with_capacity(name.len() + 32);
    text.push('"');
    for letter in name.chars() {
        match letter {
            '"' | '\\' => text.extend(['\\', letter]),
            ' '..='~' => text.push(letter),
            _ => text.push('_'),
        }
    }
    text.push('"');
    text
}

fn with_partition(mut text: String, partition: Option<&[u8]>) -> String {
    if let Some(partition) = partition {
        let _ = write!(text, ";pk=:{}:", STANDARD.encode(partition));
    }
    text
}

#[cfg(test)]
mod tests {
    use std::{num::NonZeroU32, time::Duration};

    use super::*;

    #[test]
    fn limits_are_told_as_the_draft_writes_them() {
        let rate = Rate::new(NonZeroU32::new(100).unwrap(), Duration::from_secs(60));
        assert_eq!(policy("per-client", &rate, None), r#""per-client";q=100;w=60"#);
        let left = Standing { burst: 100, remaining: 12, reset: Duration::from_millis(29_001) };
        assert_eq!(standing("per-client", &left, Some(b"trial")), r#""per-client";r=12;t=30;pk=:dHJpYWw=:"#);
    }

    #[test]
    fn a_name_stays_a_structured_string_and_a_short_window_is_told_as_a_second() {
        let rate = Rate::new(NonZeroU32::new(10).unwrap(), Duration::from_millis(100));
        assert_eq!(policy("a \"b\" \\ é\n", &rate, None), r#""a \"b\" \\ __";q=100;w=1"#);
    }
}
