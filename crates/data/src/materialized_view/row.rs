//! Rows with types: a struct for a table, one row per key.

use crate::store::{Row, Value};

/// What a column can hold.
pub trait Column: Sized {
    /// The type of the column, in portable SQL.
    const SQL: &'static str;
    /// Whether it may be without a value.
    const OPTIONAL: bool = false;
    /// As a value.
    fn to_value(&self) -> Value;
    /// From a value; `None` where it is of another type.
    fn from_value(value: &Value) -> Option<Self>;
}

macro_rules! columns {
    ($($type:ty = $sql:literal, |$this:ident| $to:expr, |$value:ident| $from:expr;)*) => {
        $(impl Column for $type {
            const SQL: &'static str = $sql;
            fn to_value(&self) -> Value {
                let $this = self;
                $to
            }
            fn from_value($value: &Value) -> Option<Self> {
                $from
            }
        })*
    };
}

columns! {
    i64 = "BIGINT", |n| (*n).into(), |value| value.as_i64();
    i32 = "BIGINT", |n| (*n).into(), |value| value.as_i64()?.try_into().ok();
    u32 = "BIGINT", |n| (*n).into(), |value| value.as_i64()?.try_into().ok();
    // Where it fits: a count or an amount beyond 2⁶³ has no column.
    u64 = "BIGINT", |n| i64::try_from(*n).unwrap_or(i64::MAX).into(), |value| value.as_i64()?.try_into().ok();
    bool = "BIGINT", |b| (*b).into(), |value| value.as_i64().map(|n| n != 0);
    f64 = "DOUBLE PRECISION", |x| (*x).into(), |value| match value {
        Value::Real(x) => Some(*x),
        Value::Integer(n) => Some(*n as f64),
        _ => None,
    };
    String = "TEXT", |text| text.as_str().into(), |value| value.as_str().map(str::to_owned);
}

impl<T: Column> Column for Option<T> {
    const SQL: &'static str = T::SQL;
    const OPTIONAL: bool = true;

    fn to_value(&self) -> Value {
        self.as_ref().map_or(Value::Null, Column::to_value)
    }

    fn from_value(value: &Value) -> Option<Self> {
        if *value == Value::Null { Some(None) } else { T::from_value(value).map(Some) }
    }
}

/// A row of a view's table. Made by [`view_row!`](crate::view_row).
pub trait ViewRow: Clone + PartialEq + Send + Sync + Sized + 'static {
    /// The type of the key.
    type Key: Column + Ord + Clone + Send + Sync + 'static;
    /// The table's name.
    const TABLE: &'static str;
    /// Its columns' names, the key first.
    const COLUMNS: &'static [&'static str];
    /// Its columns as in `CREATE TABLE`.
    fn definition() -> String;
    /// The key.
    fn key(&self) -> &Self::Key;
    /// The values, in order of the columns.
    fn values(&self) -> Vec<Value>;
    /// From a row with all columns in order; `None` where a value is of another type.
    fn from_row(row: &Row) -> Option<Self>;
}

/// Declares a struct that is a row of a view's table. The first field is the key.
///
/// ```
/// quorate_data::view_row! {
///     /// Where a loan stands.
///     pub struct Loan in "loan" {
///         /// Which loan.
///         pub id: String,
///         /// Where it stands.
///         pub state: String,
///         /// How much was asked for.
///         pub euros: Option<f64>,
///     }
/// }
/// use quorate_data::materialized_view::ViewRow;
/// assert_eq!(Loan::COLUMNS, ["id", "state", "euros"]);
/// assert_eq!(Loan::definition(), "id TEXT NOT NULL PRIMARY KEY, state TEXT NOT NULL, euros DOUBLE PRECISION");
/// ```
#[macro_export]
macro_rules! view_row {
    ($(#[$about:meta])* $vis:vis struct $row:ident in $table:literal {
        $(#[$about_key:meta])* $key_vis:vis $key:ident: $key_type:ty
        $(, $(#[$about_field:meta])* $field_vis:vis $field:ident: $type:ty)* $(,)?
    }) => {
        $(#[$about])*
        #[derive(Clone, Debug, PartialEq)]
        $vis struct $row {
            $(#[$about_key])* $key_vis $key: $key_type,
            $($(#[$about_field])* $field_vis $field: $type,)*
        }

        impl $crate::materialized_view::ViewRow for $row {
            type Key = $key_type;
            const TABLE: &'static str = $table;
            const COLUMNS: &'static [&'static str] = &[stringify!($key) $(, stringify!($field))*];

            fn definition() -> String {
                let mut columns = vec![$crate::materialized_view::define::<$key_type>(stringify!($key)) + " PRIMARY KEY"];
                columns.extend([$($crate::materialized_view::define::<$type>(stringify!($field))),*]);
                columns.join(", ")
            }

            fn key(&self) -> &$key_type {
                &self.$key
            }

            fn values(&self) -> Vec<$crate::store::Value> {
                vec![
                    $crate::materialized_view::Column::to_value(&self.$key)
                    $(, $crate::materialized_view::Column::to_value(&self.$field))*
                ]
            }

            fn from_row(row: &$crate::store::Row) -> Option<Self> {
                let mut columns = row.values.iter();
                Some(Self {
                    $key: $crate::materialized_view::Column::from_value(columns.next()?)?,
                    $($field: $crate::materialized_view::Column::from_value(columns.next()?)?,)*
                })
            }
        }
    };
}

/// A column as in `CREATE TABLE`.
#[doc(hidden)]
pub fn define<C: Column>(name: &str) -> String {
    format!("{name} {}{}", C::SQL, if C::OPTIONAL { "" } else { " NOT NULL" })
}
