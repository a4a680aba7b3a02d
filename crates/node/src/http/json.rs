//! What serde_json does not ask of JSON texts that it reads; writing them is the CloudEvents room's.

pub(crate) use quorate_communication::cloud_events::json::{is_json, string_bytes, write_number, write_string};

/// Bytes that `data` takes in base64.
pub(crate) fn base64_bytes(data: &[u8]) -> usize {
    data.len().div_ceil(3) * 4
}

/// Bytes that `data` takes at most in JSON: as a string if it is text, in base64 otherwise.
pub(crate) fn string_or_base64_bytes(data: &[u8]) -> usize {
    string_bytes(data).max(base64_bytes(data))
}

/// How deep JSON may be nested: beyond it, many readers of other languages fail.
pub(crate) const MAX_DEPTH: usize = 64;

/// Why `json`, which must be valid JSON, could not be read by others; `None` if it can.
///
/// One such value makes a whole page unreadable for them. Sources: RFC 8259, section 8.2; RFC 7493, sections 2.1 and 2.2.
pub(crate) fn flaw(json: &[u8]) -> Option<String> {
    if is_too_deep(json) {
        return Some(format!("data is nested more than {MAX_DEPTH} deep"));
    }
    // As with brackets: looking for what could be wrong takes a fraction of the time, and nearly no text has any of it.
    let escapes = json.contains(&b'\\') && json.windows(3).any(|three| matches!(three, [b'\\', b'u', b'd' | b'D']));
    let exponents = json.windows(2).fold(false, |found, two| found | (two[0].is_ascii_digit() & (two[1] | 32 == b'e')));
    let digits = json.len() > LONGEST && json.iter().filter(|byte| byte.is_ascii_digit()).count() > LONGEST;
    if escapes || exponents || digits { unreadable(json).map(str::to_owned) } else { None }
}

/// Digits of the largest whole number that a double is near to.
const LONGEST: usize = 308;

/// What in `json`, which must be valid JSON, has no meaning everywhere.
fn unreadable(json: &[u8]) -> Option<&'static str> {
    let mut at = 0;
    while let Some(byte) = json.get(at) {
        match byte {
            b'"' => match string_end(json, at + 1) {
                Some(end) => at = end,
                None => {
                    return Some("a string of the data holds half a surrogate pair, which is no character (`\\ud800`)");
                }
            },
            b'-' | b'0'..=b'9' => {
                let part = |byte: &u8| byte.is_ascii_digit() || b"+-.eE".contains(byte);
                let length = json[at..].iter().take_while(|byte| part(byte)).count();
                let number = std::str::from_utf8(&json[at..at + length]).unwrap_or_default();
                if number.parse().is_ok_and(f64::is_infinite) {
                    return Some("a number of the data is larger than a double can be (1.8e308)");
                }
                at += length;
            }
            _ => at += 1,
        }
    }
    None
}

/// Behind the string that begins at `at`; `None` if it holds a surrogate by itself.
fn string_end(json: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match json.get(at) {
            None => return Some(at),
            Some(b'"') => return Some(at + 1),
            Some(b'\\') => {
                at += match (unit(json, at), unit(json, at + 6)) {
                    (Some(0xD800..=0xDBFF), Some(0xDC00..=0xDFFF)) => 12,
                    (Some(0xD800..=0xDFFF), _) => return None,
                    (Some(_), _) => 6,
                    (None, _) => 2,
                };
            }
            Some(_) => at += 1,
        }
    }
}

/// The unit of UTF-16 that is escaped at `at`.
fn unit(json: &[u8], at: usize) -> Option<u16> {
    let digits = json.get(at..at + 6)?.strip_prefix(b"\\u")?;
    u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

/// Whether `json`, which must be valid JSON, is nested deeper than [`MAX_DEPTH`].
fn is_too_deep(json: &[u8]) -> bool {
    // Counting brackets, in strings or not, takes a fraction of the time, and is enough for nearly every text.
    json.iter().filter(|byte| matches!(byte, b'[' | b'{')).count() > MAX_DEPTH && depth(json) > MAX_DEPTH
}

/// How deep `json` is nested: 0 for a scalar.
fn depth(json: &[u8]) -> usize {
    let (mut depth, mut deepest, mut in_string, mut escaped) = (0_usize, 0, false, false);
    for byte in json {
        if in_string {
            (in_string, escaped) = (escaped || *byte != b'"', *byte == b'\\' && !escaped);
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'[' | b'{' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    use super::{MAX_DEPTH, depth, flaw, is_too_deep, string_bytes, write_string};
    use bytes::BytesMut;
    use proptest::prelude::*;

    fn written(text: &str) -> String {
        let mut buffer = BytesMut::new();
        write_string(&mut buffer, text);
        String::from_utf8(buffer.to_vec()).unwrap()
    }

    proptest! {
        #[test]
        fn any_text_survives_its_json(text in any::<String>()) {
            prop_assert_eq!(string_bytes(text.as_bytes()), written(&text).len());
            prop_assert_eq!(serde_json::from_str::<String>(&written(&text)).unwrap(), text);
        }

        #[test]
        fn depth_is_what_serde_json_sees(nest in 70_usize..200, text in any::<String>()) {
            let inner = serde_json::to_string(&text).unwrap();
            let json = format!("{}{inner}{}", "[".repeat(nest), "]".repeat(nest));
            prop_assert_eq!(depth(json.as_bytes()), nest);
            prop_assert!(is_too_deep(json.as_bytes()));
        }
    }

    proptest! {
        #[test]
        fn what_serde_json_reads_whole_has_no_flaw(text in any::<String>(), number in any::<f64>()) {
            let json = serde_json::json!({ &text: [number, i64::MIN, u64::MAX] }).to_string();
            prop_assert_eq!(flaw(json.as_bytes()), None);
            let escaped: String = text.encode_utf16().map(|unit| format!("\\u{unit:04X}")).collect();
            prop_assert_eq!(flaw(format!("[\"{escaped}\"]").as_bytes()), None);
        }
    }

    #[test]
    fn what_others_cannot_read_is_a_flaw() {
        let (longest, longer) = ("9".repeat(308), "9".repeat(309));
        for json in [
            r#""\ud800""#,
            r#"{"a":["\uDC00\uD800"]}"#,
            r#"{"\udbff":1}"#,
            r#""\ud83d\u0041""#,
            r#""\ud83d""#,
            r#""\ud83d\n""#,
            "1e999999",
            "[-1E+400]",
            "0.1e310",
            &longer,
            r#"{"a":"\\","b":1e309}"#,
        ] {
            assert!(serde_json::from_str::<serde::de::IgnoredAny>(json).is_ok(), "{json} is JSON");
            assert!(flaw(json.as_bytes()).is_some(), "{json}");
        }
        for json in [
            r#""\ud83d\ude00""#,
            r#""\\ud800""#,
            r#""1e999999""#,
            r#"{"1e999":"2e999"}"#,
            "1e308",
            "1e-999999",
            "0e999999",
            &longest,
            r#""\"1e999""#,
        ] {
            assert_eq!(flaw(json.as_bytes()), None, "{json}");
        }
    }

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(written("a\"\\\n\u{1}é"), r#""a\"\\\n\u0001é""#);
    }

    #[test]
    fn brackets_inside_strings_do_not_nest() {
        let json = format!(r#"["{}\\\"[", "\\"]"#, "[".repeat(2 * MAX_DEPTH));
        assert_eq!(depth(json.as_bytes()), 1);
        assert!(!is_too_deep(json.as_bytes()));
    }

    #[test]
    fn the_deepest_nest_allowed_is_allowed() {
        let nest = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert!(!is_too_deep(nest(MAX_DEPTH).as_bytes()) && is_too_deep(nest(MAX_DEPTH + 1).as_bytes()));
    }
}
