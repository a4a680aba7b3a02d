//! Exact comparison of JSON numbers, and what bounds say about whole numbers.

use serde_json::{Number, Value};
use std::cmp::Ordering;

/// One end of a range.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Bound {
    pub(super) at: Number,
    pub(super) exclusive: bool,
}

/// Which end of a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Lower,
    Upper,
}

impl End {
    /// `Greater` where `a` lies further inside the range than `b`.
    fn tightness(self, a: &Number, b: &Number) -> Ordering {
        match self {
            Self::Lower => compare(a, b),
            Self::Upper => compare(b, a),
        }
    }

    pub(super) fn keywords(self) -> [(&'static str, bool); 2] {
        match self {
            Self::Lower => [("minimum", false), ("exclusiveMinimum", true)],
            Self::Upper => [("maximum", false), ("exclusiveMaximum", true)],
        }
    }
}

impl Bound {
    /// Whether this bound allows no more than `other` does.
    pub(super) fn implies(&self, other: &Self, end: End) -> bool {
        match end.tightness(&self.at, &other.at) {
            Ordering::Greater => true,
            Ordering::Equal => self.exclusive || !other.exclusive,
            Ordering::Less => false,
        }
    }

    /// The same bound for whole numbers, moved to the nearest one it allows, where that can be told exactly.
    pub(super) fn for_integers(self, end: End) -> Self {
        let nearest = match (whole(&self.at), end) {
            (Some(at), End::Lower) => i64::try_from(at + i128::from(self.exclusive)).ok(),
            (Some(at), End::Upper) => i64::try_from(at - i128::from(self.exclusive)).ok(),
            (None, _) => self.at.as_f64().filter(|at| at.abs() < 1e15).map(|at| match end {
                End::Lower => at.ceil() as i64,
                End::Upper => at.floor() as i64,
            }),
        };
        nearest.map_or(self, |at| Self { at: at.into(), exclusive: false })
    }
}

/// Whether nothing fits between the two.
pub(super) fn crossed(lower: &Bound, upper: &Bound) -> bool {
    match compare(&lower.at, &upper.at) {
        Ordering::Greater => true,
        Ordering::Equal => lower.exclusive || upper.exclusive,
        Ordering::Less => false,
    }
}

/// The whole number that `number` is, if it is one that 128 bits hold exactly.
pub(super) fn whole(number: &Number) -> Option<i128> {
    let float = || number.as_f64().filter(|value| value.fract() == 0.0 && value.abs() < 1e30);
    let integer = number.as_i64().map(i128::from).or(number.as_u64().map(i128::from));
    integer.or_else(|| float().map(|value| value as i128))
}

/// A count such as `minLength`'s.
pub(super) fn count(value: &Value) -> Option<u64> {
    whole(value.as_number()?).map(|count| u64::try_from(count).unwrap_or(u64::MAX))
}

/// Compares by mathematical value; a 64-bit integer and a float are not rounded into each other.
pub(super) fn compare(a: &Number, b: &Number) -> Ordering {
    let float = |number: &Number| number.as_f64().unwrap_or(f64::NAN);
    match (whole(a), whole(b)) {
        (Some(a), Some(b)) => a.cmp(&b),
        (Some(a), None) => whole_to_float(a, float(b)),
        (None, Some(b)) => whole_to_float(b, float(a)).reverse(),
        (None, None) => float(a).total_cmp(&float(b)),
    }
}

fn whole_to_float(whole: i128, float: f64) -> Ordering {
    if float.abs() >= 1e30 {
        return if float > 0.0 { Ordering::Less } else { Ordering::Greater };
    }
    let below = float.floor() as i128;
    whole.cmp(&below).then(if float.fract() == 0.0 { Ordering::Equal } else { Ordering::Less })
}

#[cfg(test)]
mod tests {
    use super::{Bound, End, compare, crossed};
    use serde_json::{Number, json};
    use std::cmp::Ordering;

    fn number(value: serde_json::Value) -> Number {
        value.as_number().unwrap().clone()
    }

    #[test]
    fn integers_and_floats_compare_by_value_beyond_what_a_float_can_hold() {
        let less = [
            (json!(-1), json!(-0.5)),
            (json!(0), json!(0.5)),
            (json!(9_007_199_254_740_992_i64), json!(9_007_199_254_740_993_i64)),
            (json!(u64::MAX - 1), json!(18_446_744_073_709_551_616.0)),
            (json!(-1e300), json!(i64::MIN)),
            (json!(1e40), json!(1e41)),
            (json!(-1.5), json!(-1)),
        ];
        for (a, b) in less.map(|(a, b)| (number(a), number(b))) {
            assert_eq!(compare(&a, &b), Ordering::Less, "{a} < {b}");
            assert_eq!(compare(&b, &a), Ordering::Greater, "{b} > {a}");
        }
        assert_eq!(compare(&number(json!(1)), &number(json!(1.0))), Ordering::Equal);
    }

    #[test]
    fn bounds_of_whole_numbers_move_to_the_nearest_whole_number() {
        let moved = |at, exclusive, end| Bound { at: number(at), exclusive }.for_integers(end).at;
        assert_eq!(moved(json!(0), true, End::Lower), number(json!(1)));
        assert_eq!(moved(json!(0.5), false, End::Lower), number(json!(1)));
        assert_eq!(moved(json!(10), true, End::Upper), number(json!(9)));
        assert_eq!(moved(json!(-0.5), true, End::Upper), number(json!(-1)));
        let bound = |at, exclusive| Bound { at: number(at), exclusive };
        assert!(crossed(&bound(json!(1), false), &bound(json!(1.0), true)));
        assert!(!crossed(&bound(json!(1), false), &bound(json!(1), false)));
    }
}
