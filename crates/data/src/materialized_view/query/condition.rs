//! What a row must be like: typed comparisons of its columns with values.

use std::str::FromStr;

use super::{
    super::ViewError,
    table::{ColumnDescription, TableDescription},
};
use crate::store::Value;

/// A comparison of one column, written `column.test.value`: `amount.gte.100`, `state.in.open,late`, `paid.is.null`.
///
/// # Example
/// ```
/// use quorate_data::materialized_view::{Condition, Test};
/// let condition: Condition = "amount.gte.100".parse().unwrap();
/// assert_eq!((&*condition.column, condition.test, &*condition.value), ("amount", Test::Gte, "100"));
/// assert!("amount".parse::<Condition>().is_err());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// The column.
    pub column: String,
    /// How it is compared.
    pub test: Test,
    /// With what, as text.
    pub value: String,
}

/// How a column is compared. A column without a value fits none but [`Is`](Self::Is).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Test {
    /// Equal: `eq`.
    Eq,
    /// Another value: `ne`.
    Ne,
    /// Less: `lt`.
    Lt,
    /// Less or equal: `lte`.
    Lte,
    /// Greater: `gt`.
    Gt,
    /// Greater or equal: `gte`.
    Gte,
    /// One of several, with commas between them, or as a JSON list: `in`.
    In,
    /// A text that begins so: `starts`.
    Starts,
    /// `null`, or `not-null`: `is`.
    Is,
}

impl Test {
    /// Every test, by its name.
    pub const ALL: [(&'static str, Self); 9] = [
        ("eq", Self::Eq),
        ("ne", Self::Ne),
        ("lt", Self::Lt),
        ("lte", Self::Lte),
        ("gt", Self::Gt),
        ("gte", Self::Gte),
        ("in", Self::In),
        ("starts", Self::Starts),
        ("is", Self::Is),
    ];

    fn operator(self) -> &'static str {
        match self {
            Self::Ne => "<>",
            Self::Lt => "<",
            Self::Lte => "<=",
            Self::Gt => ">",
            Self::Gte => ">=",
            Self::Eq | Self::In | Self::Starts | Self::Is => "=",
        }
    }
}

impl FromStr for Condition {
    type Err = ViewError;

    fn from_str(text: &str) -> Result<Self, ViewError> {
        let mut parts = text.splitn(3, '.');
        let (column, test, value) = (parts.next().unwrap_or_default(), parts.next(), parts.next());
        let test = test.and_then(|name| Test::ALL.iter().find(|(known, _)| *known == name)).map(|(_, test)| *test);
        match (test, value) {
            (Some(test), Some(value)) if !column.is_empty() => {
                Ok(Self { column: column.to_owned(), test, value: value.to_owned() })
            }
            _ => {
                let names: Vec<&str> = Test::ALL.iter().map(|(name, _)| *name).collect();
                let short: String = text.chars().take(64).collect();
                let what = format!(
                    "`{short}` is no condition: it is `column.test.value`, with a test of {}",
                    names.join(", ")
                );
                Err(ViewError::InvalidQuery { what })
            }
        }
    }
}

/// Values beside each other in one condition.
pub(super) const MAX_LISTED: usize = 1_000;

impl Condition {
    /// The condition in SQL, where `of` stands before columns; its values go behind those in `params`.
    pub(in super::super) fn sql(
        &self,
        table: &TableDescription,
        of: &str,
        params: &mut Vec<Value>,
    ) -> Result<String, ViewError> {
        let column = table.column(&self.column)?;
        let name = format!("{of}\"{}\"", column.name);
        let mut place = |value: Value| {
            params.push(value);
            format!("${}", params.len())
        };
        Ok(match self.test {
            Test::Is => match &*self.value {
                "null" => format!("{name} IS NULL"),
                "not-null" => format!("{name} IS NOT NULL"),
                _ => {
                    return Err(ViewError::InvalidQuery {
                        what: format!("`{}.is` takes `null` or `not-null`", column.name),
                    });
                }
            },
            Test::In => {
                let places: Vec<String> = listed(column, &self.value)?.into_iter().map(place).collect();
                format!("{name} IN ({})", places.join(", "))
            }
            Test::Starts => {
                let from = place(self.value.as_str().into());
                match behind(&self.value) {
                    None => format!("{name} >= {from}"),
                    Some(end) => format!("({name} >= {from} AND {name} < {})", place(end.into())),
                }
            }
            test => format!("{name} {} {}", test.operator(), place(column.value(&self.value)?)),
        })
    }
}

fn listed(column: &ColumnDescription, text: &str) -> Result<Vec<Value>, ViewError> {
    let texts: Vec<String> = if text.starts_with('[') {
        let wrong = |cause| ViewError::InvalidQuery { what: format!("`{}.in`: no JSON list: {cause}", column.name) };
        let values: Vec<serde_json::Value> = serde_json::from_str(text).map_err(wrong)?;
        let as_text = |value: serde_json::Value| match value {
            serde_json::Value::String(text) => text,
            other => other.to_string(),
        };
        values.into_iter().map(as_text).collect()
    } else {
        text.split(',').map(str::to_owned).collect()
    };
    if texts.len() > MAX_LISTED {
        let what = format!("`{}.in` has {} values, and may have {MAX_LISTED}", column.name, texts.len());
        return Err(ViewError::InvalidQuery { what });
    }
    texts.iter().map(|text| column.value(text)).collect()
}

/// The first text behind all that begin with `text`; `None` where there is none.
fn behind(text: &str) -> Option<String> {
    let mut chars: Vec<char> = text.chars().collect();
    while let Some(last) = chars.pop() {
        // Beyond the surrogates, which are no characters.
        let next = if last == '\u{d7ff}' { Some('\u{e000}') } else { char::from_u32(u32::from(last) + 1) };
        if let Some(next) = next {
            chars.push(next);
            return Some(chars.into_iter().collect());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::{Condition, Test, behind};

    #[test]
    fn a_condition_has_a_column_a_test_and_a_value_that_may_have_points() {
        let condition: Condition = "at.lt.2011-10-01T00:00:00.5Z".parse().unwrap();
        assert_eq!((condition.test, &*condition.value), (Test::Lt, "2011-10-01T00:00:00.5Z"));
        assert_eq!("name.eq.".parse::<Condition>().unwrap().value, "");
        for bad in ["", "a", "a.eq", "a.like.b", ".eq.b", "a..b"] {
            assert!(bad.parse::<Condition>().is_err(), "{bad}");
        }
    }

    #[test]
    fn what_comes_behind_all_that_begin_alike() {
        assert_eq!(behind("ab").as_deref(), Some("ac"));
        assert_eq!(behind("a\u{10ffff}").as_deref(), Some("b"));
        assert_eq!(behind("\u{d7ff}").as_deref(), Some("\u{e000}"));
        assert_eq!((behind(""), behind("\u{10ffff}")), (None, None));
    }
}
