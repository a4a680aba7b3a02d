//! `quorate view query`: rows of a table, page by page, or of a statement.

use clap::Args;
use http::HeaderName;
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};

use super::route;
use crate::{
    client::{Call, Client, ClientError, JSON, Reply, TOKEN, Target},
    exit::{Exit, Failure},
    output::{Column, Format, Out, Table, cell, note},
    pages::{HowMany, PAGE},
};

/// How conditions are written, longer signs first.
const SIGNS: [(&str, &str); 7] =
    [("!=", "ne"), ("<=", "lte"), (">=", "gte"), ("=", "eq"), ("<", "lt"), (">", "gt"), ("^", "starts")];

/// Asks a view for rows. JSON comes as one row per line.
#[derive(Args, Debug)]
pub(crate) struct Query {
    /// The view
    name: String,
    /// The table; without it the view's only one
    #[arg(long, value_name = "TABLE", conflicts_with = "sql")]
    table: Option<String>,
    /// The row with this key; once for each of its columns
    #[arg(long, value_name = "VALUE", conflicts_with_all = ["sql", "conditions", "order", "limit", "all"])]
    key: Vec<String>,
    /// A condition, such as `amount>=100`, `state=open`, `name^Ba` (begins with), `state.in.open,late` or `paid.is.null`; all
    /// of them hold
    #[arg(long = "where", value_name = "CONDITION", conflicts_with = "sql")]
    conditions: Vec<String>,
    /// The order: a column, or `column.desc`; several with commas
    #[arg(long, value_name = "COLUMNS", conflicts_with = "sql")]
    order: Option<String>,
    /// The columns to show, with commas; all of them without it
    #[arg(long, value_name = "COLUMNS", conflicts_with = "sql")]
    columns: Option<String>,
    #[command(flatten)]
    how_many: HowMany,
    /// A read-only statement over the view's tables, with `$1`, `$2`, … for parameters
    #[arg(long, value_name = "STATEMENT", conflicts_with_all = ["limit", "all"])]
    sql: Option<String>,
    /// A parameter of the statement: JSON, or a text
    #[arg(long = "param", value_name = "VALUE", requires = "sql")]
    params: Vec<String>,
    /// Show at least the write with this token
    #[arg(long, value_name = "TOKEN")]
    token: Option<String>,
    /// How many seconds to wait for that write
    #[arg(long, value_name = "SECONDS", default_value_t = 5)]
    wait: u32,
    /// How far the view may lag, such as `5s`; it is an error if it lags further
    #[arg(long, value_name = "SPAN")]
    max_lag: Option<String>,
}

impl Query {
    /// Asks, and prints what is found.
    pub(super) async fn run(self, client: &Client, format: Format) -> Result<(), Failure> {
        let client = &client.clone().waiting(std::time::Duration::from_secs(self.wait.into()));
        let mut printer = Printer { format, out: Out::new(), table: None };
        match &self.sql {
            Some(sql) => {
                let params: Vec<Value> = self.params.iter().map(|text| param(text)).collect();
                let body = json!({ "sql": sql, "params": params }).to_string();
                let target = self.lagging(route(&self.name, Some("query")));
                let reply = client.call(&self.fresh(Call::post(target, JSON, body))?).await?;
                printer.take(client, &reply, usize::MAX)?;
            }
            None => self.rows(client, &mut printer).await?,
        }
        printer.end()
    }

    async fn rows(&self, client: &Client, printer: &mut Printer) -> Result<(), Failure> {
        let table = match &self.table {
            Some(table) => table.clone(),
            None => self.only_table(client).await?,
        };
        let segments = ["v1", "views", &*self.name, "tables", &*table, "rows"];
        let key =
            self.key.iter().map(|value| value.replace('%', "%25").replace(',', "%2C")).collect::<Vec<_>>().join(",");
        if !self.key.is_empty() {
            // Commas within values are escaped already: only what is left is.
            let target = String::from(self.lagging(Target::path(&segments)));
            let (path, query) = target.split_once('?').map_or((&*target, ""), |(path, query)| (path, query));
            let mark = if query.is_empty() { "" } else { "?" };
            let call = Call::get(format!("{path}/{}{mark}{query}", escaped(&key)));
            return printer.one(client, &client.call(&self.fresh(call)?).await?);
        }

        let mut target = self.lagging(Target::path(&segments));
        for condition in &self.conditions {
            target = target.with("where", spelled(condition)?);
        }
        for (name, value) in [("order", &self.order), ("columns", &self.columns)] {
            if let Some(value) = value {
                target = target.with(name, value);
            }
        }
        let mut left = self.how_many.max();
        let mut next = Some(String::from(target.with("limit", left.min(PAGE))));
        while let Some(page) = next.take() {
            let reply = client.call(&self.fresh(Call::get(page))?).await?;
            left -= printer.take(client, &reply, left)?;
            next = reply.next();
            if left == 0 && next.is_some() {
                note("there may be more: see --limit and --all");
                break;
            }
        }
        Ok(())
    }

    async fn only_table(&self, client: &Client) -> Result<String, Failure> {
        let all = client.answer(&Call::get(route(&self.name, Some("tables")))).await?;
        let names: Vec<&str> = all["tables"]
            .as_array()
            .map_or(&[][..], Vec::as_slice)
            .iter()
            .filter_map(|one| one["table"].as_str())
            .collect();
        match &*names {
            [one] => Ok((*one).to_owned()),
            several => Err(Failure::new(Exit::Usage, format!("say which --table: {}", several.join(", ")))),
        }
    }

    fn lagging(&self, target: Target) -> Target {
        match &self.max_lag {
            Some(span) => target.with("maxlag", span),
            None => target,
        }
    }

    fn fresh(&self, call: Call) -> Result<Call, Failure> {
        let prefer = HeaderName::from_static("prefer");
        let call = call.header(prefer, &format!("wait={}", self.wait))?;
        match &self.token {
            Some(token) => call.header(TOKEN, token),
            None => Ok(call),
        }
    }
}

/// A parameter: JSON where it is some, else a text.
fn param(text: &str) -> Value {
    match serde_json::from_str(text) {
        Ok(value @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_))) => value,
        _ => text.into(),
    }
}

/// A condition as the node reads it.
pub(super) fn spelled(condition: &str) -> Result<String, Failure> {
    let column = condition.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(condition.len());
    let (column, rest) = condition.split_at(column);
    if rest.starts_with('.') && !column.is_empty() {
        return Ok(condition.to_owned());
    }
    let rest = rest.trim_start();
    let sign = SIGNS.iter().find(|(sign, _)| rest.starts_with(sign)).filter(|_| !column.is_empty());
    let Some((sign, word)) = sign else {
        let what = format!("`{condition}` is no condition: write `column=value`, or `column.test.value`");
        return Err(Failure::new(Exit::Usage, what));
    };
    Ok(format!("{column}.{word}.{}", rest[sign.len()..].trim_start()))
}

/// A key's values in a path: commas between them, and what was escaped, stay.
fn escaped(key: &str) -> String {
    let mut path = String::new();
    for byte in key.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b',' | b'%' => {
                path.push(char::from(byte))
            }
            _ => path.push_str(&format!("%{byte:02X}")),
        }
    }
    path
}

/// Rows as they were sent: members in order, numbers digit by digit.
#[derive(Deserialize)]
struct AsSent<'r> {
    #[serde(borrow, default)]
    rows: Vec<&'r RawValue>,
    #[serde(borrow, default)]
    row: Option<&'r RawValue>,
}

fn as_sent<'r>(client: &Client, reply: &'r Reply) -> Result<AsSent<'r>, Failure> {
    let strange = |wrong| ClientError::Strange { server: client.server().clone(), what: format!("no rows: {wrong}") };
    Ok(serde_json::from_slice(&reply.body).map_err(strange)?)
}

/// Prints rows as they come: lines of JSON at once, a table at the end.
struct Printer {
    format: Format,
    out: Out,
    table: Option<Table>,
}

impl Printer {
    /// Takes at most `most` rows of a reply; how many it had.
    fn take(&mut self, client: &Client, reply: &Reply, most: usize) -> Result<usize, Failure> {
        if self.format == Format::Json {
            let found: AsSent<'_> = as_sent(client, reply)?;
            let rows = &found.rows[..found.rows.len().min(most)];
            rows.iter().try_for_each(|row| self.out.line(row.get()))?;
            self.out.flush()?;
            return Ok(rows.len());
        }
        let answer = reply.json(client.server())?;
        let listed = |member: &str| answer[member].as_array().cloned().unwrap_or_default();
        let (columns, mut rows) = (listed("columns"), listed("rows"));
        rows.truncate(most);
        let names: Vec<&str> = columns.iter().filter_map(|column| column["name"].as_str()).collect();
        let table = self.table.get_or_insert_with(|| {
            let is_number = |name: &str| rows.iter().any(|row| row[name].is_number());
            let heading = |name: &&str| Column::Given { heading: name.to_uppercase(), right: is_number(name) };
            Table::new(names.iter().map(heading).collect::<Vec<_>>())
        });
        rows.iter().for_each(|row| table.row(names.iter().map(|name| cell(&row[*name]))));
        Ok(rows.len())
    }

    /// Prints one row: a line for each column.
    fn one(&mut self, client: &Client, reply: &Reply) -> Result<(), Failure> {
        if self.format == Format::Json {
            let found: AsSent<'_> = as_sent(client, reply)?;
            return self.out.line(found.row.map_or("null", RawValue::get));
        }
        let answer = reply.json(client.server())?;
        let table = self.table.get_or_insert_with(|| Table::new([Column::Left("COLUMN"), Column::Left("VALUE")]));
        let columns = answer["columns"].as_array().map_or(&[][..], Vec::as_slice);
        for name in columns.iter().filter_map(|column| column["name"].as_str()) {
            table.row([name, &cell(&answer["row"][name])]);
        }
        Ok(())
    }

    fn end(mut self) -> Result<(), Failure> {
        match self.table.take() {
            Some(table) => table.print(&mut self.out),
            None => self.out.flush(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{escaped, param, spelled};
    use serde_json::json;

    #[test]
    fn conditions_are_written_with_signs_or_words() {
        let told = |text: &str| spelled(text).ok();
        assert_eq!(told("amount>=100").as_deref(), Some("amount.gte.100"));
        assert_eq!(told("state = open").as_deref(), Some("state.eq.open"));
        assert_eq!(told("state!=a=b").as_deref(), Some("state.ne.a=b"));
        assert_eq!(told("name^Ba").as_deref(), Some("name.starts.Ba"));
        assert_eq!(told("state.in.a,b").as_deref(), Some("state.in.a,b"));
        assert_eq!((told("state"), told("=x"), told("a~b")), (None, None, None));
    }

    #[test]
    fn parameters_are_json_or_text() {
        assert_eq!(
            [param("1"), param("\"1\""), param("null"), param("x"), param("[1]")],
            [json!(1), json!("1"), json!(null), json!("x"), json!("[1]")]
        );
    }

    #[test]
    fn a_key_stays_one_segment() {
        assert_eq!(escaped("a%2Cb,c/d é"), "a%2Cb,c%2Fd%20%C3%A9");
    }
}
