//! Appending one event.

use std::str::FromStr;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use clap::Args;
use http::{HeaderName, header};
use quorate_runtime::Env;
use serde_json::{Map, Value, json};

use super::route;
use crate::{
    client::{Call, Client, EVENT},
    exit::{Exit, Failure},
    input,
    output::{Column, Format, Out, Table, note},
};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// One event, and what the stream must be like.
#[derive(Args, Debug)]
pub(crate) struct Append {
    /// The stream; it comes into being with its first event
    stream: String,
    /// What happened
    #[arg(long = "type", value_name = "TYPE")]
    kind: String,
    /// The event's data: JSON, `@FILE`, or `-` for standard input
    #[arg(long, value_name = "JSON|@FILE|-")]
    data: Option<String>,
    /// The data's media type, where it is not JSON
    #[arg(long, value_name = "TYPE", default_value = "application/json")]
    content_type: String,
    /// The schema that the data follows: where a version is served, as `schema show` prints it; else it is version 1
    #[arg(long, value_name = "URI")]
    schema: Option<String>,
    /// The event's id: appending it again changes nothing. Without this flag the key, or a new UUID
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    /// Who says so, a URI reference
    #[arg(long, value_name = "URI", default_value = "/quorate/cli")]
    source: String,
    /// What it is about
    #[arg(long, value_name = "TEXT")]
    subject: Option<String>,
    /// The person or thing it says something of, whose data can be erased: what it says is encrypted with a key of theirs
    #[arg(long, value_name = "NAME")]
    data_subject: Option<String>,
    /// When it happened, as 2026-11-22T09:30:00Z
    #[arg(long, value_name = "TIME", value_parser = crate::pages::moment)]
    time: Option<quorate_data::event::Timestamp>,
    /// What the stream must be like: a version, `none` (not there yet), `exists` or `any`
    #[arg(long, value_name = "WHAT", default_value = "any")]
    expect: Expect,
    /// A tag to find it by; can be repeated
    #[arg(long = "tag", value_name = "KEY:VALUE")]
    tags: Vec<String>,
    /// The conversation it belongs to
    #[arg(long, value_name = "ID")]
    correlation_id: Option<String>,
    /// The message that caused it
    #[arg(long, value_name = "ID")]
    causation_id: Option<String>,
    /// An idempotency key: repeating the command with it is answered as the first time
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
}

/// What a stream must be like for a write to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expect {
    /// Anything.
    Any,
    /// Not there yet.
    None,
    /// There.
    Exists,
    /// Exactly at this version.
    Version(u64),
}

impl FromStr for Expect {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "any" => Ok(Self::Any),
            "none" => Ok(Self::None),
            "exists" => Ok(Self::Exists),
            _ => match text.parse() {
                Ok(0) => Err("versions count from 1; a stream that is not there yet is `none`"),
                Ok(version) => Ok(Self::Version(version)),
                Err(_) => Err("a version from 1, `none`, `exists` or `any`"),
            },
        }
    }
}

impl Expect {
    /// `call` with the precondition.
    pub(crate) fn apply(self, call: Call) -> Result<Call, Failure> {
        match self {
            Self::Any => Ok(call),
            Self::None => call.header(header::IF_NONE_MATCH, "*"),
            Self::Exists => call.header(header::IF_MATCH, "*"),
            Self::Version(version) => call.header(header::IF_MATCH, &format!("\"{version}\"")),
        }
    }
}

impl Append {
    /// Appends the event and prints the stream's version and the token.
    pub(crate) async fn run(&self, client: &Client, format: Format) -> Result<(), Failure> {
        let id = self.id.clone().or_else(|| self.key.clone()).unwrap_or_else(|| new_id(client.env()));
        let data = self.read_data(client.env()).await?;
        let body = self.event(&id, data.as_deref())?;
        let mut call = self.expect.apply(Call::post(route(&self.stream, "events"), EVENT, body).known_again())?;
        if let Some(key) = &self.key {
            call = call.header(IDEMPOTENCY_KEY, &format!("\"{key}\""))?;
        }
        let appended = client.call(&call).await.inspect_err(|failure| {
            if failure.is_unknown() && self.id.is_none() {
                note(&format!("the event's id was {id}: repeat the command with --id {id}"));
            }
        })?;
        print(&appended.json(client.server())?, &id, format)
    }

    async fn read_data(&self, env: &Env) -> Result<Option<Vec<u8>>, Failure> {
        let Some(text) = &self.data else { return Ok(None) };
        let from = if text == "-" { Some("-") } else { text.strip_prefix('@') };
        let Some(path) = from else { return Ok(Some(text.clone().into_bytes())) };
        input::read(path, env).await.map(Some)
    }

    /// The event in JSON, its data byte for byte as it was given.
    fn event(&self, id: &str, data: Option<&[u8]>) -> Result<String, Failure> {
        let mut members = Map::from_iter([
            ("specversion".to_owned(), "1.0".into()),
            ("id".to_owned(), id.into()),
            ("source".to_owned(), self.source.as_str().into()),
            ("type".to_owned(), self.kind.as_str().into()),
        ]);
        let tags = (!self.tags.is_empty()).then(|| self.tags.join(" "));
        let optional = [
            ("subject", self.subject.clone()),
            ("datasubject", self.data_subject.clone()),
            ("time", self.time.as_ref().map(ToString::to_string)),
            ("tags", tags),
            ("correlationid", self.correlation_id.clone()),
            ("causationid", self.causation_id.clone()),
            ("dataschema", self.schema.clone()),
            ("datacontenttype", data.is_some().then(|| self.content_type.clone())),
        ];
        members.extend(optional.into_iter().filter_map(|(name, value)| Some((name.to_owned(), Value::from(value?)))));
        let head = Value::Object(members).to_string();
        let Some(data) = data else { return Ok(head) };
        let data = if self.is_json() {
            format!("\"data\":{}", json_text(data)?)
        } else {
            format!("\"data_base64\":\"{}\"", STANDARD.encode(data))
        };
        Ok(format!("{},{data}}}", head.trim_end_matches('}')))
    }

    fn is_json(&self) -> bool {
        let media = self.content_type.split(';').next().unwrap_or_default().trim();
        media.eq_ignore_ascii_case("application/json") || media.to_ascii_lowercase().ends_with("+json")
    }
}

pub(crate) fn json_text(data: &[u8]) -> Result<&str, Failure> {
    let bad = |why: String| {
        Failure::new(Exit::BadInput, format!("the data is not JSON: {why}"))
            .advise("quote it for the shell, as '{\"amount\": 5}', or say what it is with --content-type")
    };
    let text = std::str::from_utf8(data).map_err(|wrong| bad(wrong.to_string()))?.trim();
    let checked: Result<serde::de::IgnoredAny, _> = serde_json::from_str(text);
    checked.map(|_| text).map_err(|wrong| bad(wrong.to_string()))
}

/// A UUID version 7: later ids sort later.
pub(crate) fn new_id(env: &Env) -> String {
    let millis = u64::try_from(env.wall().unix_nanos() / 1_000_000).unwrap_or(0);
    let mut noise = [0; 10];
    env.random("ids").fill(&mut noise);
    uuid::Builder::from_unix_timestamp_millis(millis, &noise).into_uuid().to_string()
}

fn print(appended: &Value, id: &str, format: Format) -> Result<(), Failure> {
    let text = |member: &str| appended[member].as_str().unwrap_or_default();
    let mut out = Out::new();
    match format {
        Format::Json => {
            let (stream, version, token) = (text("stream"), text("streamversion"), text("token"));
            out.json(&json!({ "stream": stream, "streamversion": version, "id": id, "token": token }))?;
        }
        Format::Table => {
            let columns = [Column::Left("STREAM"), Column::Right("VERSION"), Column::Left("ID"), Column::Left("TOKEN")];
            let mut table = Table::new(columns);
            table.row([text("stream"), text("streamversion"), id, text("token")]);
            table.print(&mut out)?;
        }
    }
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::{Expect, json_text};

    #[test]
    fn what_a_stream_must_be_like_is_a_version_or_a_word() {
        assert_eq!("7".parse(), Ok(Expect::Version(7)));
        assert_eq!("none".parse(), Ok(Expect::None));
        assert!("0".parse::<Expect>().unwrap_err().contains("`none`"));
        assert!("-1".parse::<Expect>().is_err() && "*".parse::<Expect>().is_err());
    }

    #[test]
    fn data_that_is_no_json_is_told_before_anything_is_sent() {
        assert_eq!(json_text(b" {\"a\" : 1}\n").unwrap(), "{\"a\" : 1}");
        let told = json_text(b"{a:1}").unwrap_err().to_string();
        assert!(told.contains("not JSON: key must be a string at line 1 column 2"), "{told}");
    }
}
