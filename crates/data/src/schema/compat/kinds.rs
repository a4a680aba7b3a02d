//! The seven disjoint kinds of JSON values, and sets of them.

use serde_json::Value;
use std::{fmt, sync::LazyLock};

/// A set of kinds. An integer is a number without fraction, however it is written: `1.0` is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kinds(u8);

impl Kinds {
    pub(super) const NULL: Self = Self(1);
    pub(super) const BOOLEAN: Self = Self(1 << 1);
    pub(super) const OBJECT: Self = Self(1 << 2);
    pub(super) const ARRAY: Self = Self(1 << 3);
    pub(super) const STRING: Self = Self(1 << 4);
    pub(super) const INTEGER: Self = Self(1 << 5);
    pub(super) const NUMBER: Self = Self(0b11 << 5);
    pub(super) const ALL: Self = Self(0b111_1111);

    /// The kinds that JSON Schema's `type` can tell apart, each with its name there.
    const NAMED: [(&'static str, Self); 7] = [
        ("null", Self::NULL),
        ("boolean", Self::BOOLEAN),
        ("object", Self::OBJECT),
        ("array", Self::ARRAY),
        ("string", Self::STRING),
        ("number", Self::NUMBER),
        ("integer", Self::INTEGER),
    ];

    pub(super) fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(super) fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(super) fn within(self, other: Self) -> bool {
        self.0 & !other.0 == 0
    }

    pub(super) fn meets(self, other: Self) -> bool {
        !self.and(other).is_empty()
    }

    pub(super) fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// What a `type` keyword allows.
    pub(super) fn of_type(value: &Value) -> Self {
        let named = |name: &Value| Self::NAMED.iter().find(|(known, _)| name == known).map(|(_, kinds)| *kinds);
        let list = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
        list.iter().filter_map(named).fold(Self(0), Self::or)
    }

    /// The kind of one value.
    pub(super) fn of_value(value: &Value) -> Self {
        match value {
            Value::Null => Self::NULL,
            Value::Bool(_) => Self::BOOLEAN,
            Value::Number(number) if number.as_f64().is_some_and(|value| value.fract() == 0.0) => Self::INTEGER,
            Value::Number(_) => Self::NUMBER.without(Self::INTEGER),
            Value::String(_) => Self::STRING,
            Value::Array(_) => Self::ARRAY,
            Value::Object(_) => Self::OBJECT,
        }
    }

    /// One `{"type": …}` schema for each kind that this set touches, numbers together.
    pub(super) fn schemas(self) -> impl Iterator<Item = (&'static str, &'static Value)> {
        static SCHEMAS: LazyLock<[Value; 6]> =
            LazyLock::new(|| std::array::from_fn(|at| serde_json::json!({"type": Kinds::NAMED[at].0})));
        let touched = move |(at, (name, kinds)): (usize, &(&'static str, Self))| {
            self.meets(*kinds).then(|| (*name, &SCHEMAS[at]))
        };
        Self::NAMED[..6].iter().enumerate().filter_map(touched)
    }

    /// Every value, where the set allows but a handful.
    pub(super) fn all_values(self) -> Option<Vec<Value>> {
        let finite = Self::NULL.or(Self::BOOLEAN);
        self.within(finite).then(|| {
            let null = self.meets(Self::NULL).then_some(Value::Null);
            let booleans = [false, true].into_iter().filter(|_| self.meets(Self::BOOLEAN)).map(Value::Bool);
            null.into_iter().chain(booleans).collect()
        })
    }
}

impl fmt::Display for Kinds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::ALL {
            return f.write_str("any type");
        }
        let whole_only = !Self::NUMBER.within(*self);
        let shown =
            Self::NAMED.iter().filter(|(name, kinds)| kinds.within(*self) && (*name != "integer" || whole_only));
        let names: Vec<_> = shown.map(|(name, _)| *name).collect();
        let fraction = self.meets(Self::NUMBER.without(Self::INTEGER)) && !self.meets(Self::INTEGER);
        let names = names.into_iter().chain(fraction.then_some("number with a fraction")).collect::<Vec<_>>();
        f.write_str(if names.is_empty() { "nothing" } else { "" })?;
        f.write_str(&names.join(" or "))
    }
}
