//! Running a statement: values in and out, rows within the limits, and what the server says of it.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::{TryStreamExt, pin_mut};
use tokio_postgres::{
    Client,
    types::{Format, FromSql, IsNull, Kind, ToSql, Type},
};

use super::{dialect::Statement, fault::Fault};
use crate::store::{Limits, Row, Scope, SqlError, StoreError, Value};

type Wrong = Box<dyn std::error::Error + Sync + Send>;

const RUNNING: &str = "running a statement";

/// What came of a statement.
#[derive(Debug, Default)]
pub(super) struct Ran {
    /// Rows changed, or returned.
    pub(super) count: u64,
    /// The rows, where they were asked for.
    pub(super) rows: Vec<Row>,
}

/// Why nothing came of it.
#[derive(Debug)]
pub(super) enum Failed {
    /// The server or the connection failed it.
    Server(Fault),
    /// It was run, and what came back is beyond a limit or cannot be read.
    Answer(SqlError),
}

impl From<tokio_postgres::Error> for Failed {
    fn from(failed: tokio_postgres::Error) -> Self {
        Self::Server(failed.into())
    }
}

/// Runs one statement of a scope. `limits` are given where its rows are wanted.
pub(super) async fn run(
    client: &Client,
    statement: &Statement<'_>,
    params: &[Value],
    scope: Scope,
    limits: Option<&Limits>,
) -> Result<Ran, Failed> {
    let bound = bind(statement, params).map_err(Failed::Answer)?;
    let stream = client.query_typed_raw(&statement.sql, bound).await?;
    pin_mut!(stream);
    let (mut ran, mut bytes) = (Ran::default(), 0);
    let mut columns: Option<Arc<[Arc<str>]>> = None;
    while let Some(row) = stream.try_next().await? {
        let Some(limits) = limits else { continue };
        let too_much = |what, max, asked| Failed::Answer(StoreError::TooMuch { what, max, asked }.into());
        if ran.rows.len() == limits.query_rows {
            return Err(too_much("a query's rows", limits.query_rows, limits.query_rows + 1));
        }
        let columns = columns.get_or_insert_with(|| row.columns().iter().map(|column| column.name().into()).collect());
        let values = (0..row.len()).map(|n| value(&row, n)).collect::<Result<Vec<_>, _>>().map_err(Failed::Answer)?;
        bytes += values.iter().map(size).sum::<usize>();
        // One value always fits, whatever its size: that has a limit of its own.
        let most = limits.answer_bytes(scope);
        if bytes > most && !(ran.rows.is_empty() && columns.len() == 1) {
            return Err(too_much("a query's bytes", most, bytes));
        }
        ran.rows.push(Row { columns: columns.clone(), values });
    }
    ran.count = stream.rows_affected().unwrap_or(0);
    Ok(ran)
}

/// What the server said of a statement, for whoever wrote it.
pub(super) fn said(fault: Fault) -> SqlError {
    let Fault::Refused { state, what } = &fault else { return fault.into_store(RUNNING).into() };
    match state.code() {
        // The role may not.
        "42501" => SqlError::Refused { what: format!("do this here: {what}") },
        // What it was given does not go together; it is not the connection.
        "08P01" => SqlError::Failed { what: what.clone() },
        code if is_own(code) => SqlError::Failed { what: what.clone() },
        _ => fault.into_store(RUNNING).into(),
    }
}

/// Whether a statement failed for a reason of its own, by the class of the code: constraints, data, names and syntax, what is
/// not to be had, what a program raises, what is too large.
fn is_own(code: &str) -> bool {
    const CLASSES: [&str; 12] = ["0A", "0L", "0P", "20", "21", "22", "23", "2B", "42", "44", "54", "P0"];
    CLASSES.contains(&&code[..code.len().min(2)]) || matches!(code, "25001" | "25007" | "3F000" | "55000" | "55006")
}

/// The bytes of a value that can be large.
pub(super) fn large(value: &Value) -> usize {
    match value {
        Value::Null | Value::Integer(_) | Value::Real(_) => 0,
        Value::Text(text) => text.len(),
        Value::Blob(bytes) => bytes.len(),
    }
}

fn size(value: &Value) -> usize {
    large(value).max(8)
}

/// The values of `$1`, `$2`, …, as far as the statement has them.
fn bind<'v>(statement: &Statement<'_>, params: &'v [Value]) -> Result<Vec<(Given<'v>, Type)>, SqlError> {
    let count = statement.params.last().copied().unwrap_or(0);
    if let Some(missing) = statement.params.iter().find(|n| **n == 0 || **n > params.len()) {
        return Err(SqlError::Failed { what: format!("no value was given for parameter ${missing}") });
    }
    let kind = |n: usize, value: &Value| match value {
        Value::Integer(_) => Type::INT8,
        Value::Real(_) => Type::FLOAT8,
        Value::Blob(_) => Type::BYTEA,
        // The server finds out by where it stands, except where it stands nowhere.
        Value::Text(_) | Value::Null if statement.params.contains(&(n + 1)) => Type::UNKNOWN,
        Value::Text(_) | Value::Null => Type::TEXT,
    };
    Ok(params.iter().take(count).enumerate().map(|(n, value)| (Given(value), kind(n, value))).collect())
}

/// A value on its way to the server.
#[derive(Debug)]
struct Given<'v>(&'v Value);

impl ToSql for Given<'_> {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Wrong> {
        match self.0 {
            Value::Null => return Ok(IsNull::Yes),
            Value::Integer(n) => out.extend_from_slice(&n.to_be_bytes()),
            Value::Real(x) => out.extend_from_slice(&x.to_be_bytes()),
            Value::Text(text) => out.extend_from_slice(text.as_bytes()),
            Value::Blob(bytes) => out.extend_from_slice(bytes),
        }
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn to_sql_checked(&self, kind: &Type, out: &mut BytesMut) -> Result<IsNull, Wrong> {
        self.to_sql(kind, out)
    }

    fn encode_format(&self, _: &Type) -> Format {
        // A text may turn out to be a time or a document; as a text it can be read as either.
        if matches!(self.0, Value::Text(_)) { Format::Text } else { Format::Binary }
    }
}

/// A value as it comes from the server.
struct Raw<'r>(Option<&'r [u8]>);

impl<'r> FromSql<'r> for Raw<'r> {
    fn from_sql(_: &Type, raw: &'r [u8]) -> Result<Self, Wrong> {
        Ok(Self(Some(raw)))
    }

    fn from_sql_null(_: &Type) -> Result<Self, Wrong> {
        Ok(Self(None))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

/// The value in column `n` of a row.
pub(super) fn value(row: &tokio_postgres::Row, n: usize) -> Result<Value, SqlError> {
    let column = &row.columns()[n];
    let raw: Raw<'_> = row.try_get(n).map_err(|failed| said(failed.into()))?;
    let Some(raw) = raw.0 else { return Ok(Value::Null) };
    decoded(column.type_(), raw).ok_or_else(|| {
        let (name, kind) = (column.name(), column.type_().name());
        SqlError::Failed { what: format!("column `{name}` is of type {kind}: cast it, to text for instance") }
    })
}

/// A value of a type that has a counterpart here.
fn decoded(kind: &Type, raw: &[u8]) -> Option<Value> {
    let text = |raw: &[u8]| std::str::from_utf8(raw).ok().map(|text| Value::Text(text.into()));
    Some(match *kind {
        Type::BOOL => Value::Integer((*raw.first()?).into()),
        Type::INT2 => Value::Integer(i16::from_be_bytes(raw.try_into().ok()?).into()),
        Type::INT4 => Value::Integer(i32::from_be_bytes(raw.try_into().ok()?).into()),
        Type::INT8 => Value::Integer(i64::from_be_bytes(raw.try_into().ok()?)),
        Type::OID => Value::Integer(u32::from_be_bytes(raw.try_into().ok()?).into()),
        Type::FLOAT4 => Value::Real(f32::from_be_bytes(raw.try_into().ok()?).into()),
        Type::FLOAT8 => Value::Real(f64::from_be_bytes(raw.try_into().ok()?)),
        Type::BYTEA => Value::Blob(Bytes::copy_from_slice(raw)),
        Type::TEXT
        | Type::VARCHAR
        | Type::BPCHAR
        | Type::NAME
        | Type::UNKNOWN
        | Type::CHAR
        | Type::JSON
        | Type::XML => text(raw)?,
        Type::JSONB => text(raw.strip_prefix(&[1])?)?,
        Type::UUID => Value::Text(uuid::Uuid::from_slice(raw).ok()?.hyphenated().to_string().into()),
        Type::NUMERIC => numeric(raw)?,
        Type::VOID => Value::Null,
        _ => match kind.kind() {
            Kind::Domain(of) => decoded(of, raw)?,
            Kind::Enum(_) => text(raw)?,
            _ => return None,
        },
    })
}

/// A decimal number: an integer where it is a whole one without decimals and small enough, such as a sum of integers, and else
/// a text with all of its digits.
fn numeric(raw: &[u8]) -> Option<Value> {
    let word = |n: usize| Some(i16::from_be_bytes(raw.get(2 * n..2 * n + 2)?.try_into().ok()?));
    let (digits, weight, sign, scale) = (word(0)?, word(1)?, word(2)?.cast_unsigned(), word(3)?);
    let sign = match sign {
        0 => "",
        0x4000 => "-",
        0xD000 => return Some(Value::Text("Infinity".into())),
        0xF000 => return Some(Value::Text("-Infinity".into())),
        _ => return Some(Value::Text("NaN".into())),
    };
    // Groups of four digits; the first of them counts 10000^weight.
    let group = |at: i16| {
        let n = usize::try_from(weight.checked_sub(at)?).ok().filter(|n| *n < usize::from(digits.cast_unsigned()));
        n.map_or(Some(0), |n| word(4 + n))
    };
    let mut text = String::from(sign);
    for at in (0..=weight.max(0)).rev() {
        text.push_str(&format!("{:04}", group(at)?));
    }
    let whole = text.trim_start_matches('-').trim_start_matches('0').to_owned();
    let whole = if whole.is_empty() { "0".to_owned() } else { whole };
    let mut text = format!("{sign}{whole}");
    let scale = usize::try_from(scale).ok()?;
    if scale == 0 {
        return Some(text.parse().map_or_else(|_| Value::Text(text.as_str().into()), Value::Integer));
    }
    let groups = i16::try_from(scale.div_ceil(4)).ok()?;
    let mut decimals = String::new();
    for at in 1..=groups {
        decimals.push_str(&format!("{:04}", group(-at)?));
    }
    decimals.truncate(scale);
    text.push('.');
    text.push_str(&decimals);
    Some(Value::Text(text.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(words: &[i16]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_be_bytes()).collect()
    }

    #[test]
    fn whole_numbers_are_integers_and_others_keep_their_digits() {
        for (words, expected) in [
            (&[0, 0, 0, 0][..], Value::Integer(0)),
            (&[1, 0, 0, 0, 7], Value::Integer(7)),
            (&[1, 1, 0x4000, 0, 3], Value::Integer(-30_000)),
            (&[2, 1, 0, 0, 1, 20], Value::Integer(10_020)),
            (&[1, 0, 0, 4, 12], Value::Text("12.0000".into())),
            (&[2, 0, 0x4000, 2, 12, 3_400], Value::Text("-12.34".into())),
            (&[1, -2, 0, 6, 1_200], Value::Text("0.000012".into())),
            (&[1, 5, 0, 0, 1], Value::Text("100000000000000000000".into())),
            (&[0, 0, 0xC000_u16 as i16, 0], Value::Text("NaN".into())),
        ] {
            assert_eq!(numeric(&raw(words)), Some(expected), "{words:?}");
        }
        assert_eq!(numeric(&raw(&[3, 0, 0, 0, 1])), Some(Value::Integer(1)), "what is cut off is none of it");
        assert_eq!(numeric(&[0, 1]), None);
    }
}
