//! Reading a view: its tables, rows by key, pages of rows, SQL.
//!
//! Reading is safe however it is asked: nothing is kept of it, and an idempotency key says nothing. Every answer tells in its
//! headers as of when it is, so that it can also be sent as bare lines.

use std::{borrow::Cow, time::Duration};

use axum::{
    body::Body,
    extract::{Request, State},
};
use bytes::{BufMut as _, Bytes, BytesMut};
use http::{
    HeaderMap, HeaderName, HeaderValue, Response, StatusCode, Uri,
    header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH},
};
use quorate_data::{
    materialized_view::{Answer, AsOf, FeedStanding, Freshness, RowsQuery, TableDescription, ViewName, WhenStale},
    store::{Row, Value},
};
use serde::Deserialize;
use serde_json::{Map, Value as Json, json, value::RawValue};
use tokio::sync::watch;

use super::{Reply, named, show};
use crate::http::{
    Node, Shared, accept, body_out, document, log,
    page::PIECE,
    percent,
    problem::{Code, Problem},
    reply,
    request::{self, Params, TOKEN},
};

/// Rows as lines.
pub(in crate::http) const LINES: &str = "application/x-ndjson";

const POSITION: HeaderName = HeaderName::from_static("quorate-position");
const LAG: HeaderName = HeaderName::from_static("quorate-lag");
const BUILD: HeaderName = HeaderName::from_static("quorate-build");
const FEED_LAG: HeaderName = HeaderName::from_static("quorate-feed-lag");
const STALE: HeaderName = HeaderName::from_static("quorate-stale");

/// The parameters of every read.
const FRESH: [&str; 2] = ["maxlag", "beyond"];

/// `GET /v1/views/{name}/tables`
pub(in crate::http) async fn tables(State(node): State<Shared>, request: Request) -> Reply {
    let name = named(request.uri())?;
    Params::of(request.uri(), &[])?;
    let tables: Vec<Json> = node.views.tables(&name).await?.iter().map(table).collect();
    Ok(reply::whole(reply::json(StatusCode::OK, &json!({ "view": name.as_str(), "tables": tables }))))
}

fn table(table: &TableDescription) -> Json {
    let column = |column: &quorate_data::materialized_view::ColumnDescription| json!({ "name": column.name, "type": column.kind.map(|kind| kind.to_string()) });
    let columns: Vec<Json> = table.columns.iter().map(column).collect();
    json!({ "table": table.name, "columns": columns, "key": table.key })
}

/// `GET /v1/views/{name}/tables/{table}/rows`
pub(in crate::http) async fn rows(State(node): State<Shared>, request: Request) -> Reply {
    let (uri, headers) = (request.uri(), request.headers());
    let (name, table) = (named(uri)?, segment(uri, 5)?);
    let params = Params::of(uri, &["where", "order", "columns", "limit", "after", FRESH[0], FRESH[1]])?;
    let limit = params.limit(&node)?;
    let fresh = freshness(&node, &params, headers)?;
    let query = rows_query(&params, &table, limit)?;
    let since = node.views.views()?.watch_forgotten();
    let answer = node.views.rows(&name, &query, fresh).await?;
    let next = answer.next.as_ref().map(|cursor| log::next(uri, "after", cursor));
    let form = Form::of(headers);
    let mut response = answered(&node, headers, &name, Some(&query.table), form, since, answer)?;
    if let Some(next) = next {
        reply::next(response.headers_mut(), &next);
    }
    Ok(response)
}

/// What the parameters of a page say.
pub(super) fn rows_query(params: &Params<'_>, table: &str, limit: usize) -> Result<RowsQuery, Problem> {
    let listed = |name| {
        let values = params.all(name).flat_map(|value| value.split(','));
        values.filter(|value| !value.is_empty())
    };
    Ok(RowsQuery {
        table: table.to_owned(),
        columns: listed("columns").map(str::to_owned).collect(),
        conditions: params.all("where").map(str::parse).collect::<Result<_, _>>()?,
        order: listed("order").map(str::parse).collect::<Result<_, _>>()?,
        limit,
        after: params.one("after")?.map(str::to_owned),
    })
}

/// `GET /v1/views/{name}/tables/{table}/rows/{key}`
pub(in crate::http) async fn row(State(node): State<Shared>, request: Request) -> Reply {
    let (uri, headers) = (request.uri(), request.headers());
    let (name, table) = (named(uri)?, segment(uri, 5)?);
    let params = Params::of(uri, &FRESH)?;
    let fresh = freshness(&node, &params, headers)?;
    // Commas between the values of a key are told from commas in them before the escapes are undone.
    let key = uri.path().split('/').nth(7).unwrap_or_default();
    let key = key.split(',').map(decoded).collect::<Result<Vec<_>, _>>()?;
    let key: Vec<&str> = key.iter().map(|value| &**value).collect();
    let since = node.views.views()?.watch_forgotten();
    let answer = node.views.row(&name, &table, &key, fresh).await?;
    answered(&node, headers, &name, Some(&table), Form::Row, since, answer)
}

/// A statement and its parameters.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Sql<'b> {
    sql: Cow<'b, str>,
    #[serde(borrow, default)]
    params: Vec<&'b RawValue>,
}

/// `POST /v1/views/{name}/query`
pub(in crate::http) async fn sql(State(node): State<Shared>, request: Request) -> Reply {
    let (head, body) = request.into_parts();
    let name = named(&head.uri)?;
    let params = Params::of(&head.uri, &FRESH)?;
    let fresh = freshness(&node, &params, &head.headers)?;
    document::is_json(&head.headers)?;
    let received = node.receive(&head, body).await?;
    let Sql { sql, params } = document::parsed(&received.bytes)?;
    let values = params.into_iter().enumerate().map(|(n, raw)| value(n + 1, raw)).collect::<Result<Vec<_>, _>>()?;
    let since = node.views.views()?.watch_forgotten();
    let answer = node.views.query(&name, &sql, values, fresh).await?;
    let mut response = answered(&node, &HeaderMap::new(), &name, None, Form::of(&head.headers), since, answer)?;
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// A parameter of a statement.
fn value(number: usize, raw: &RawValue) -> Result<Value, Problem> {
    let wrong = |what: &str| Problem::new(Code::InvalidJson, format!("parameter ${number} {what}"));
    match serde_json::from_str(raw.get()).map_err(|cause| Problem::of(Code::InvalidJson, &cause))? {
        Json::Null => Ok(Value::Null),
        Json::Bool(flag) => Ok(flag.into()),
        Json::String(text) => Ok(text.as_str().into()),
        Json::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => Ok(whole.into()),
            (None, Some(real)) if !number.is_u64() => Ok(real.into()),
            _ => Err(wrong("is beyond 64 bits")),
        },
        Json::Array(_) | Json::Object(_) => Err(wrong("is a list or an object: send it as a text")),
    }
}

/// The `n`-th part of a path, counted from 0 before its first `/`.
pub(super) fn segment(uri: &Uri, n: usize) -> Result<Cow<'_, str>, Problem> {
    decoded(uri.path().split('/').nth(n).unwrap_or_default())
}

fn decoded(text: &str) -> Result<Cow<'_, str>, Problem> {
    percent::decode(text).map_err(|wrong| Problem::new(Code::InvalidName, format!("the path cannot be read: {wrong}")))
}

/// How fresh the client wants the view to be.
pub(super) fn freshness(node: &Node, params: &Params<'_>, headers: &HeaderMap) -> Result<Freshness, Problem> {
    let at_least = request::header(headers, &TOKEN)?.map(str::parse).transpose()?;
    let max_lag = params.one(FRESH[0])?.map(|text| {
        let span = humantime_serde::re::humantime::parse_duration(text);
        span.map_err(|cause| request::wrong(FRESH[0], format!("`maxlag={}`: {cause}; say 5s", request::short(text))))
    });
    let beyond = match params.one(FRESH[1])? {
        None => None,
        Some("refuse") => Some(WhenStale::Refuse),
        Some("flag") => Some(WhenStale::Flag),
        Some(other) => {
            let detail = format!("`beyond={}` is neither refuse nor flag", request::short(other));
            return Err(request::wrong(FRESH[1], detail));
        }
    };
    let wait = request::wait(headers)?.min(node.config.http.max_wait);
    Ok(Freshness { at_least, wait, max_lag: max_lag.transpose()?, beyond })
}

/// The forms of an answer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// An object with all rows.
    Rows,
    /// An object with one row.
    Row,
    /// A row per line.
    Lines,
}

impl Form {
    fn of(headers: &HeaderMap) -> Self {
        let forms = [Self::Rows, Self::Lines];
        accept::accepted(headers, &forms.map(Self::media)).map_or(Self::Rows, |at| forms[at])
    }

    fn media(self) -> &'static str {
        if self == Self::Lines { LINES } else { reply::JSON }
    }
}

/// What an answer says of itself beside its rows.
pub(super) fn about(name: &ViewName, table: Option<&str>, as_of: &AsOf) -> Map<String, Json> {
    let mut about = Map::new();
    about.insert("view".to_owned(), name.as_str().into());
    if let Some(table) = table {
        about.insert("table".to_owned(), table.into());
    }
    about.insert("build".to_owned(), as_of.build.get().into());
    about.insert("version".to_owned(), as_of.version.into());
    about.insert("logposition".to_owned(), as_of.position.to_string().into());
    about.insert("lag-events".to_owned(), as_of.head.get().saturating_sub(as_of.position.get()).into());
    about.insert("lag-seconds".to_owned(), as_of.lag.as_ref().map(Duration::as_secs_f64).into());
    if !as_of.feeds.is_empty() {
        about.insert("feeds".to_owned(), as_of.feeds.iter().map(show::feed).collect());
    }
    about.insert("parked".to_owned(), as_of.parked.into());
    about.insert("stale".to_owned(), as_of.stale.into());
    about
}

fn answered(
    node: &Shared,
    asked: &HeaderMap,
    name: &ViewName,
    table: Option<&str>,
    form: Form,
    since: watch::Receiver<u64>,
    answer: Answer,
) -> Reply {
    let share = node.share_or_refuse(answer.bytes())?;
    let as_of = answer.as_of.clone();
    let mut about = about(name, table, &as_of);
    let columns = answer.columns.iter();
    let columns =
        columns.map(|column| json!({ "name": column.name, "type": column.kind.map(|kind| kind.to_string()) }));
    about.insert("columns".to_owned(), columns.collect());
    if form == Form::Rows {
        about.insert("next".to_owned(), answer.next.clone().into());
    }
    let mut lines = Lines { form, first: true, buffer: BytesMut::new() };
    lines.open();
    let body = if answer.bytes() <= 4 * PIECE {
        answer.rows.iter().for_each(|row| lines.row(&answer, row));
        let tag = tag(&lines.buffer, &as_of);
        if request::header(asked, &IF_NONE_MATCH)?.is_some_and(|known| tag.as_bytes() == known.as_bytes()) {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            told(node, response.headers_mut(), &as_of);
            accept::varies(response.headers_mut());
            response.headers_mut().insert(ETAG, tag);
            return Ok(response);
        }
        lines.close(&about);
        let mut response = Response::new(Body::from(lines.buffer.freeze()));
        response.headers_mut().insert(ETAG, tag);
        response
    } else {
        let (pieces, body) = body_out::pieces();
        node.env.tasks().spawn("rows", async move {
            let send = async {
                for row in &answer.rows {
                    lines.row(&answer, row);
                    if lines.buffer.len() >= PIECE {
                        let asked = pieces.asked().await?;
                        // What was erased meanwhile may be among the rows. Half an answer that breaks off is none.
                        if since.has_changed().unwrap_or(true) {
                            return Err(body_out::Gone);
                        }
                        asked.send(share.with(lines.take()))?;
                    }
                }
                lines.close(&about);
                pieces.send(share.with(lines.take())).await
            };
            if send.await.is_ok() {
                pieces.end().await;
            }
        });
        Response::new(body)
    };
    let mut response = body;
    told(node, response.headers_mut(), &as_of);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(form.media()));
    accept::varies(response.headers_mut());
    Ok(response)
}

/// The rows' tag: the same for the same rows of the same code.
fn tag(rows: &[u8], as_of: &AsOf) -> HeaderValue {
    let mut sum = u64::from(as_of.version);
    for chunk in rows.chunks(1 << 16) {
        sum = sum.rotate_left(29) ^ fnv(chunk);
    }
    HeaderValue::try_from(format!("\"{sum:016x}\"")).unwrap_or_else(|_| HeaderValue::from_static("\"\""))
}

/// FNV-1a, 64 bits.
fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// The headers that say as of when an answer is.
fn told(node: &Node, headers: &mut HeaderMap, as_of: &AsOf) {
    reply::token(headers, &node.streams.token(as_of.position));
    let numbers = [
        (POSITION, as_of.position.get()),
        (LAG, as_of.head.get().saturating_sub(as_of.position.get())),
        (BUILD, u64::from(as_of.build.get())),
    ];
    headers.extend(numbers.map(|(name, number)| (name, HeaderValue::from(number))));
    if let Some(worst) = FeedStanding::worst(&as_of.feeds) {
        // Its source, which may be no header's value, is in the body.
        let lag = worst.lag.map_or_else(|| "unknown".to_owned(), |lag| lag.as_secs_f64().to_string());
        headers.extend(HeaderValue::try_from(lag).ok().map(|lag| (FEED_LAG, lag)));
    }
    if as_of.stale {
        headers.insert(STALE, HeaderValue::from_static("true"));
    }
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
}

/// Rows being written.
struct Lines {
    form: Form,
    first: bool,
    buffer: BytesMut,
}

impl Lines {
    fn open(&mut self) {
        match self.form {
            Form::Rows => self.buffer.put_slice(b"{\"rows\":["),
            Form::Row => self.buffer.put_slice(b"{\"row\":"),
            Form::Lines => {}
        }
    }

    fn row(&mut self, answer: &Answer, row: &Row) {
        if !std::mem::take(&mut self.first) && self.form == Form::Rows {
            self.buffer.put_u8(b',');
        }
        let written = serde_json::to_writer((&mut self.buffer).writer(), &answer.shown(row));
        written.unwrap_or_else(|wrong| unreachable!("rows have a JSON form: {wrong}"));
        if self.form == Form::Lines {
            self.buffer.put_u8(b'\n');
        }
    }

    /// Writes what the answer says of itself.
    fn close(&mut self, about: &Map<String, Json>) {
        if self.form == Form::Lines {
            return;
        }
        if self.form == Form::Rows {
            self.buffer.put_u8(b']');
        }
        let about = Json::Object(about.clone()).to_string();
        self.buffer.put_u8(b',');
        self.buffer.put_slice(&about.as_bytes()[1..]);
    }

    fn take(&mut self) -> Bytes {
        body_out::cut(&mut self.buffer)
    }
}
