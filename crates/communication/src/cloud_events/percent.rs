//! Percent-encoding of attributes in headers, one way for whatever carries them (CloudEvents 1.0.2, HTTP binding, 3.1.3.2; NATS binding, 3.1.3.2).

/// `text` as a header takes it: what is not printable ASCII, blanks, quotes and `%` as percent and two digits for each byte.
///
/// # Example
/// ```
/// use quorate_communication::cloud_events::percent;
/// assert_eq!(percent::encode("order 17 ☂\n"), "order%2017%20%E2%98%82%0A");
/// assert_eq!(percent::decode("order%2017%20%E2%98%82%0A"), "order 17 ☂\n");
/// ```
pub fn encode(text: &str) -> String {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'!' | b'#' | b'$' | b'&'..=b'~' => out.push(char::from(byte)),
            _ => {
                let digits = [byte >> 4, byte & 15].map(|digit| char::from(DIGITS[usize::from(digit)]));
                out.extend(['%'].into_iter().chain(digits));
            }
        }
    }
    out
}

/// The reverse. What is no percent and two digits stays as it is; bytes that are no UTF-8 are replaced.
pub fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let (mut out, mut at) = (Vec::with_capacity(bytes.len()), 0);
    while at < bytes.len() {
        let digits = bytes.get(at + 1..at + 3).filter(|_| bytes[at] == b'%');
        let digits = digits.filter(|digits| digits.iter().all(u8::is_ascii_hexdigit));
        let byte = digits.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        out.push(byte.unwrap_or(bytes[at]));
        at += if byte.is_some() { 3 } else { 1 };
    }
    String::from_utf8(out).unwrap_or_else(|wrong| String::from_utf8_lossy(wrong.as_bytes()).into_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{decode, encode};

    proptest! {
        #[test]
        fn any_text_survives_a_header(text in any::<String>()) {
            let header = encode(&text);
            prop_assert!(header.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"'));
            prop_assert_eq!(decode(&header), text);
        }

        #[test]
        fn any_header_can_be_read(text in any::<String>()) {
            let _ = decode(&text);
        }
    }
}
