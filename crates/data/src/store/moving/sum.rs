//! What a table holds, in one number.

use std::fmt;

use crate::store::Value;

/// How many rows a table holds, and a sum of their hashes: equal for equal rows in whatever order they are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableSum {
    /// Rows.
    pub rows: u64,
    sum: u128,
}

impl TableSum {
    /// Takes a row in. Values are told apart by their types and bytes.
    pub(in crate::store) fn add(&mut self, row: &[Value]) {
        let mut hasher = blake3::Hasher::new();
        for value in row {
            let (kind, bytes): (u8, &[u8]) = match value {
                Value::Null => (0, &[]),
                Value::Integer(n) => (1, &n.to_le_bytes()),
                Value::Real(x) => (2, &x.to_bits().to_le_bytes()),
                Value::Text(text) => (3, text.as_bytes()),
                Value::Blob(bytes) => (4, bytes),
            };
            hasher.update(&[kind]);
            hasher.update(&(bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        }
        let mut short = [0; 16];
        short.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        self.rows += 1;
        self.sum = self.sum.wrapping_add(u128::from_le_bytes(short));
    }
}

impl fmt::Display for TableSum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.sum)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{TableSum, Value};

    fn value() -> impl Strategy<Value = Value> {
        prop_oneof![
            Just(Value::Null),
            any::<i64>().prop_map(Value::Integer),
            any::<f64>().prop_map(Value::Real),
            ".{0,4}".prop_map(|text| Value::Text(text.as_str().into())),
            proptest::collection::vec(any::<u8>(), 0..4).prop_map(|bytes| Value::Blob(bytes.into())),
        ]
    }

    fn sum<'r>(rows: impl IntoIterator<Item = &'r Vec<Value>>) -> TableSum {
        let mut sum = TableSum::default();
        rows.into_iter().for_each(|row| sum.add(row));
        sum
    }

    proptest! {
        #[test]
        fn order_does_not_matter_and_every_row_does(rows in proptest::collection::vec(proptest::collection::vec(value(), 2), 1..6)) {
            prop_assert_eq!(sum(&rows), sum(rows.iter().rev()));
            prop_assert_ne!(sum(&rows), sum(&rows[1..]));
            // A row twice and another one missing is not the same either.
            let twice: Vec<_> = rows.iter().chain(&rows[..1]).cloned().collect();
            prop_assert_ne!(sum(&rows), sum(&twice));
        }
    }

    #[test]
    fn values_of_other_types_and_other_cuts_differ() {
        let one = |row: Vec<Value>| sum([&row]);
        let text = |text: &str| Value::Text(text.into());
        assert_ne!(one(vec![text("7")]), one(vec![Value::Integer(7)]));
        assert_ne!(one(vec![text("7")]), one(vec![Value::Blob("7".into())]));
        assert_ne!(one(vec![text("ab"), text("c")]), one(vec![text("a"), text("bc")]));
        assert_ne!(one(vec![Value::Null]), one(vec![text("")]));
    }
}
