//! Values that a saga keeps: how large they may be, and that they are read as they were written.

use std::io;

use serde_json::Value;

use super::Config;

/// Whether a value is within its limit.
pub(super) fn small(value: &Value) -> bool {
    struct Count(usize);
    impl io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 = self.0.checked_sub(bytes.len()).ok_or(io::ErrorKind::FileTooLarge)?;
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => true,
        value => serde_json::to_writer(Count(Config::MAX_VALUE_BYTES), value).is_ok(),
    }
}

/// A value as the next process reads it from the journal: fractions may be read as a neighbour of what was written, and would then be
/// written as another text. What is asked for under a key may not depend on which process asks.
pub(super) fn as_read(value: Value) -> Value {
    // A fraction moves by its last digit, if at all, and stays once it is read as what it was written from.
    const TURNS: usize = 8;
    if !has_fractions(&value) {
        return value;
    }
    let mut value = value;
    for _ in 0..TURNS {
        match serde_json::from_str::<Value>(&value.to_string()) {
            Ok(read) if read != value => value = read,
            _ => return value,
        }
    }
    value
}

fn has_fractions(value: &Value) -> bool {
    match value {
        Value::Number(number) => number.is_f64(),
        Value::Array(items) => items.iter().any(has_fractions),
        Value::Object(members) => members.values().any(has_fractions),
        Value::Null | Value::Bool(_) | Value::String(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

        #[test]
        fn what_is_kept_is_written_the_same_by_whoever_read_it(numbers in proptest::collection::vec(any::<f64>(), 1..20)) {
            let kept = as_read(json!({ "of": numbers })).to_string();
            let read: Value = serde_json::from_str(&kept).unwrap();
            prop_assert_eq!(read.to_string(), kept);
        }
    }
}
