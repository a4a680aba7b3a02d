//! `tracestate`: the vendors' notes, newest first.

use std::{fmt, str::FromStr, sync::Arc};

use super::trim;

/// The header field `tracestate`: up to 32 members `key=value`, the latest writer's first, no key twice.
///
/// Kept as the text it is sent as; a clone shares it. Members that are not ours are never changed or reordered.
///
/// # Example
/// ```
/// use quorate_foundations::trace::TraceState;
/// let received: TraceState = "rojo=00f067aa0ba902b7, congo=t61rcWkgMzE".parse()?;
/// let ours = received.with("congo", "ucfJifl5GOE")?;
/// assert_eq!(ours.as_str(), "congo=ucfJifl5GOE,rojo=00f067aa0ba902b7");
/// assert_eq!(ours.get("rojo"), Some("00f067aa0ba902b7"));
/// # Ok::<(), quorate_foundations::trace::TraceStateError>(())
/// ```
/// Source: W3C Trace Context, sections 3.3 and 3.5; keys as in Level 2, which allows `@` anywhere but first.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct TraceState {
    // Invariant: well-formed members with distinct keys, joined by commas, without white space around them.
    text: Arc<str>,
}

/// Why a `tracestate` was dropped. The trace goes on without it.
///
/// Members are counted from 1 over all fields together, without empty ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TraceStateError {
    /// There are too many members.
    #[error("a tracestate has at most {max} members", max = TraceState::MAX_MEMBERS)]
    TooManyMembers,
    /// A member has no `=`.
    #[error("member {member} of the tracestate has no `=`")]
    NoValue {
        /// Which member.
        member: usize,
    },
    /// A key is not 1 to 256 of `a-z 0-9 _ - * / @`, the first one a letter or digit.
    #[error("the key of member {member} of the tracestate is malformed")]
    Key {
        /// Which member.
        member: usize,
    },
    /// A value is not 1 to 256 printable ASCII characters without `,` and `=`, the last one not a space.
    #[error("the value of member {member} of the tracestate is malformed")]
    Value {
        /// Which member.
        member: usize,
    },
    /// A key was there before.
    #[error("member {member} of the tracestate repeats a key")]
    RepeatedKey {
        /// Which member.
        member: usize,
    },
}

impl TraceState {
    /// The most members.
    pub const MAX_MEMBERS: usize = 32;
    /// The longest key, in bytes.
    pub const MAX_KEY_BYTES: usize = 256;
    /// The longest value, in bytes.
    pub const MAX_VALUE_BYTES: usize = 256;
    /// Members longer than this go first when the state must shrink, in bytes.
    const LARGE_MEMBER_BYTES: usize = 128;

    /// Reads all values of the header field, in order of arrival, as one list. Empty members are skipped.
    ///
    /// # Errors
    /// [`TraceStateError`] with the first fault found; drop the state and go on.
    pub fn from_fields<F: AsRef<[u8]>>(fields: impl IntoIterator<Item = F>) -> Result<Self, TraceStateError> {
        let (mut text, mut count) = (String::new(), 0);
        for field in fields {
            for member in field.as_ref().split(|byte| *byte == b',').map(trim).filter(|member| !member.is_empty()) {
                count += 1;
                let (key, value) = read_member(member, count)?;
                if members(&text).any(|other| key_of(other) == key) {
                    return Err(TraceStateError::RepeatedKey { member: count });
                }
                push(&mut text, &[key, "=", value]);
            }
        }
        Ok(Self { text: text.into() })
    }

    /// The field's value: at most 16,447 bytes; empty if there are no members, and then better not sent.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether there are no members.
    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// Keys and values, the latest writer's first.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.members().filter_map(|member| member.split_once('='))
    }

    /// The value that `key` has.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.iter().find(|(other, _)| *other == key).map(|(_, value)| value)
    }

    /// The state with `key` set to `value` and moved to the front. A 33rd member pushes out the last one.
    ///
    /// # Errors
    /// [`TraceStateError::Key`], [`TraceStateError::Value`], as of member 1.
    pub fn with(&self, key: &str, value: &str) -> Result<Self, TraceStateError> {
        check(key.as_bytes(), is_key, TraceStateError::Key { member: 1 })?;
        check(value.as_bytes(), is_value, TraceStateError::Value { member: 1 })?;
        let mut text = [key, "=", value].concat();
        let others = self.members().filter(|member| key_of(member) != key);
        others.take(Self::MAX_MEMBERS - 1).for_each(|member| push(&mut text, &[member]));
        Ok(Self { text: text.into() })
    }

    /// The state without `key`. Removing what others wrote breaks their traces; do it for privacy only.
    pub fn without(&self, key: &str) -> Self {
        Self::joined(self.members().filter(|member| key_of(member) != key))
    }

    /// The state cut to at most `max_bytes`, whole members only: those longer than 128 bytes go first, then from the end.
    ///
    /// The standard asks to pass on at least 512 bytes.
    pub fn truncated(&self, max_bytes: usize) -> Self {
        let mut members: Vec<&str> = self.members().collect();
        let length = |members: &[&str]| members.iter().map(|member| member.len() + 1).sum::<usize>().saturating_sub(1);
        while length(&members) > max_bytes {
            let large = members.iter().rposition(|member| member.len() > Self::LARGE_MEMBER_BYTES);
            members.remove(large.unwrap_or(members.len() - 1));
        }
        Self::joined(members)
    }

    fn members(&self) -> impl Iterator<Item = &str> {
        members(&self.text)
    }

    fn joined<'a>(members: impl IntoIterator<Item = &'a str>) -> Self {
        let mut text = String::new();
        members.into_iter().for_each(|member| push(&mut text, &[member]));
        Self { text: text.into() }
    }
}

impl FromStr for TraceState {
    type Err = TraceStateError;
    fn from_str(text: &str) -> Result<Self, TraceStateError> {
        Self::from_fields([text])
    }
}

impl fmt::Display for TraceState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for TraceState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.text, f)
    }
}

fn members(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').filter(|member| !member.is_empty())
}

fn key_of(member: &str) -> &str {
    member.split_once('=').map_or(member, |(key, _)| key)
}

/// Appends a member, given in parts, to a list of members.
fn push(text: &mut String, parts: &[&str]) {
    if !text.is_empty() {
        text.push(',');
    }
    text.extend(parts.iter().copied());
}

/// Key and value of the `nth` member, without white space around it.
fn read_member(text: &[u8], nth: usize) -> Result<(&str, &str), TraceStateError> {
    if nth > TraceState::MAX_MEMBERS {
        return Err(TraceStateError::TooManyMembers);
    }
    let equals = text.iter().position(|byte| *byte == b'=').ok_or(TraceStateError::NoValue { member: nth })?;
    Ok((
        check(&text[..equals], is_key, TraceStateError::Key { member: nth })?,
        check(&text[equals + 1..], is_value, TraceStateError::Value { member: nth })?,
    ))
}

fn check(text: &[u8], rule: fn(&[u8]) -> bool, otherwise: TraceStateError) -> Result<&str, TraceStateError> {
    std::str::from_utf8(text).ok().filter(|_| rule(text)).ok_or(otherwise)
}

/// `( lcalpha / DIGIT ) 0*255 ( lcalpha / DIGIT / "_" / "-" / "*" / "/" / "@" )`
fn is_key(key: &[u8]) -> bool {
    let plain = |byte: &u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9');
    key.first().is_some_and(plain)
        && key.len() <= TraceState::MAX_KEY_BYTES
        && key.iter().all(|byte| plain(byte) || b"_-*/@".contains(byte))
}

/// `0*255( chr ) nblk-chr`, where `chr` is `%x20-2B / %x2D-3C / %x3E-7E` and `nblk-chr` the same without the space
fn is_value(value: &[u8]) -> bool {
    value.last().is_some_and(|last| *last != b' ')
        && value.len() <= TraceState::MAX_VALUE_BYTES
        && value.iter().all(|byte| matches!(byte, b' '..=b'~') && !b",=".contains(byte))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{TraceState, TraceStateError as Error};

    fn read(text: impl AsRef<str>) -> Result<String, Error> {
        text.as_ref().parse::<TraceState>().map(|state| state.to_string())
    }

    fn state(text: impl AsRef<str>) -> TraceState {
        text.as_ref().parse().unwrap()
    }

    fn numbered(count: usize) -> String {
        (1..=count).map(|nth| format!("bar{nth:02}={nth:02}")).collect::<Vec<_>>().join(",")
    }

    // The specification's test suite (test.py and test_tracestate.py), group test_tracestate_*.
    #[test]
    fn white_space_around_members_is_ignored() {
        assert_eq!(read("foo=1 \t , \t bar=2, \t baz=3"), Ok("foo=1,bar=2,baz=3".into()));
        assert_eq!(read("foo=1\t \t,\t \tbar=2,\t \tbaz=3"), Ok("foo=1,bar=2,baz=3".into()));
        for text in [" foo=1", "\tfoo=1", "foo=1 ", "foo=1\t", "\t foo=1 \t"] {
            assert_eq!(read(text), Ok("foo=1".into()));
        }
    }

    #[test]
    fn empty_members_are_skipped() {
        assert_eq!(read(""), Ok(String::new()));
        assert_eq!(read(" ,\t, "), Ok(String::new()));
        assert_eq!(read(",foo=1,,bar=2,"), Ok("foo=1,bar=2".into()));
    }

    #[test]
    fn every_allowed_character_is_kept() {
        let printable: String = (b' '..=b'~').map(char::from).filter(|c| !",=".contains(*c)).collect();
        let member = format!("abcdefghijklmnopqrstuvwxyz0123456789_-*/@a-z0-9_-*/={printable}");
        assert_eq!(read(&member), Ok(member));
        assert_eq!(state("foo=  1 2 ").get("foo"), Some("  1 2"), "inner and leading spaces belong to the value");
    }

    #[test]
    fn a_repeated_key_is_refused_even_with_the_same_value() {
        assert_eq!(read("foo=1,foo=1"), Err(Error::RepeatedKey { member: 2 }));
        assert_eq!(read("foo=1,bar=2,foo=2"), Err(Error::RepeatedKey { member: 3 }));
        assert_eq!(TraceState::from_fields(["foo=1", "foo=2"]), Err(Error::RepeatedKey { member: 2 }));
    }

    #[test]
    fn a_malformed_key_is_refused() {
        for member in ["foo =1", "FOO=1", "foo.bar=1", "@foo=1", "-foo=1", "=1", "fo\u{f6}=1", "foo\u{0}=1"] {
            assert_eq!(read(format!("bar=2,{member}")), Err(Error::Key { member: 2 }), "{member}");
        }
    }

    // Level 1 gave `@` a meaning (tenant@vendor); Level 2 takes it as any other character.
    #[test]
    fn keys_of_level_2_are_accepted() {
        for key in ["foo@", "foo@@bar", "foo@bar@baz", "1special", "0", &format!("{}@v", "t".repeat(242))] {
            assert_eq!(state(format!("{key}=1")).get(key), Some("1"));
        }
    }

    #[test]
    fn a_malformed_value_is_refused() {
        for member in ["foo=bar=baz", "foo=", "foo= \t", "foo=\u{fc}", "foo=a\u{7f}", "foo=a\tb"] {
            assert_eq!(read(format!("bar=2,{member}")), Err(Error::Value { member: 2 }), "{member}");
        }
        assert_eq!(read("foobarbaz"), Err(Error::NoValue { member: 1 }));
    }

    #[test]
    fn there_are_at_most_32_members_over_all_fields() {
        assert_eq!(read(numbered(32)), Ok(numbered(32)));
        assert_eq!(read(numbered(33)), Err(Error::TooManyMembers));
        assert_eq!(TraceState::from_fields([numbered(32).as_str(), "foo=1"]), Err(Error::TooManyMembers));
        assert_eq!(read(format!("{},,, ,", numbered(32))), Ok(numbered(32)));
    }

    #[test]
    fn keys_and_values_have_at_most_256_bytes() {
        let member = |key: usize, value: usize| format!("{}={}", "z".repeat(key), "x".repeat(value));
        assert_eq!(read(member(256, 256)), Ok(member(256, 256)));
        assert_eq!(read(member(257, 1)), Err(Error::Key { member: 1 }));
        assert_eq!(read(member(1, 257)), Err(Error::Value { member: 1 }));
    }

    #[test]
    fn a_changed_member_moves_to_the_front_and_the_others_stay_in_order() {
        let received = state("foo=1,bar=2,baz=3");
        assert_eq!(received.with("bar", "9").unwrap().as_str(), "bar=9,foo=1,baz=3");
        assert_eq!(received.with("new", "9").unwrap().as_str(), "new=9,foo=1,bar=2,baz=3");
        assert_eq!(received.without("bar").as_str(), "foo=1,baz=3");
        assert_eq!(TraceState::default().with("new", "9").unwrap().as_str(), "new=9");
    }

    #[test]
    fn what_could_not_be_read_back_is_not_written() {
        let received = state("foo=1");
        assert_eq!(received.with("Foo", "1"), Err(Error::Key { member: 1 }));
        for value in ["", "a,b", "a=b", "a ", "a\nb"] {
            assert_eq!(received.with("foo", value), Err(Error::Value { member: 1 }));
        }
    }

    #[test]
    fn a_33rd_member_pushes_out_the_oldest() {
        let full = state(numbered(32)).with("new", "1").unwrap();
        assert_eq!(full.as_str(), format!("new=1,{}", numbered(31)));
        assert_eq!(state(numbered(32)).with("bar32", "9").unwrap().iter().count(), 32);
    }

    // Section 3.3.1.5: whole entries only, those above 128 characters first, then from the end.
    #[test]
    fn truncation_drops_large_members_first_and_then_the_oldest() {
        let large = format!("large={}", "x".repeat(123));
        let received = state(format!("foo=1,{large},bar=2,baz=3"));
        assert_eq!(received.truncated(1000), received);
        assert_eq!(received.truncated(100).as_str(), "foo=1,bar=2,baz=3");
        assert_eq!(received.truncated(16).as_str(), "foo=1,bar=2");
        assert_eq!(received.truncated(4).as_str(), "");
    }

    #[test]
    fn of_several_large_members_the_oldest_goes_first_and_128_bytes_are_not_large() {
        let [newest, oldest] = ["newest", "oldest"].map(|key| format!("{key}={}", "x".repeat(122)));
        let fits = format!("fits={}", "x".repeat(123));
        assert_eq!((oldest.len(), fits.len()), (129, 128));
        let received = state(format!("{newest},{oldest},{fits}"));
        assert_eq!(received.truncated(300).as_str(), format!("{newest},{fits}"));
        assert_eq!(received.truncated(130).as_str(), fits);
    }

    proptest! {
        #[test]
        fn what_is_read_is_written_so_that_it_is_read_again_alike(text in "([a-c]{1,2}= ?[0-9a!]{1,3}[ \t]?,? ?){0,8}|.{0,40}") {
            if let Ok(state) = text.parse::<TraceState>() {
                prop_assert_eq!(state.to_string().parse(), Ok(state.clone()));
                for (key, value) in state.iter() {
                    prop_assert_eq!(state.get(key), Some(value));
                }
            }
        }

        #[test]
        fn arbitrary_bytes_are_read_or_refused_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let parsed = TraceState::from_fields([&bytes]);
            prop_assert!(parsed.is_err() || parsed.unwrap().as_str().is_ascii());
        }

        #[test]
        fn truncation_fits_and_keeps_the_order(count in 0..32_usize, max_bytes in 0..300_usize) {
            let state = state(numbered(count));
            let cut = state.truncated(max_bytes);
            prop_assert!(cut.as_str().len() <= max_bytes && state.as_str().starts_with(cut.as_str()));
        }
    }
}
