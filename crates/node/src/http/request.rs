//! What a request says beside its body: names in the path, parameters, preconditions, tokens.

use std::{borrow::Cow, time::Duration};

use http::{
    HeaderMap, HeaderName, Uri,
    header::{IF_MATCH, IF_NONE_MATCH},
};
use quorate_data::{
    event::{Timestamp, Version},
    store::{ExpectedVersion, Token},
};
use quorate_foundations::{name::Name, time::Wall};

use super::{
    Node, percent,
    problem::{Code, Problem},
};
use crate::verbs::Moment;

/// The token of a write, on replies and on reads that must include it.
pub(crate) const TOKEN: HeaderName = HeaderName::from_static("quorate-token");
const PREFER: HeaderName = HeaderName::from_static("prefer");

/// The stream that a path names.
pub(crate) fn stream(uri: &Uri) -> Result<Name, Problem> {
    named(uri, "stream")
}

/// The durable subscription that a path names.
pub(crate) fn subscription(uri: &Uri) -> Result<Name, Problem> {
    named(uri, "subscription")
}

/// The message queue that a path names.
pub(crate) fn queue(uri: &Uri) -> Result<Name, Problem> {
    named(uri, "queue")
}

/// The type of requests that a path names.
pub(crate) fn request_type(uri: &Uri) -> Result<Name, Problem> {
    named(uri, "request type")
}

/// The saga's definition that a path names.
pub(crate) fn saga(uri: &Uri) -> Result<Name, Problem> {
    named(uri, "saga")
}

/// The choreographed process that a path names.
pub(crate) fn process(uri: &Uri) -> Result<Name, Problem> {
    named(uri, "process")
}

/// The transaction that a path names.
pub(crate) fn transaction(uri: &Uri) -> Result<Name, Problem> {
    named(uri, "transaction")
}

/// The participant of transactions that a path names.
pub(crate) fn participant(uri: &Uri) -> Result<Name, Problem> {
    named(uri, "participant")
}

/// The inbox that a path names.
pub(crate) fn inbox(uri: &Uri) -> Result<Name, Problem> {
    named(uri, "inbox")
}

/// The relay that a path names.
pub(crate) fn relay(uri: &Uri) -> Result<Name, Problem> {
    named(uri, "relay")
}

/// The webhook that a path names.
pub(crate) fn webhook(uri: &Uri) -> Result<Name, Problem> {
    named(uri, "webhook")
}

/// The data subject that a path names. Any text that an event's `datasubject` may be; the verbs say what that is.
pub(crate) fn data_subject(uri: &Uri) -> Result<Cow<'_, str>, Problem> {
    segment(uri, "data subject")
}

/// The event type that a path names.
pub(crate) fn event_type(uri: &Uri) -> Result<Name, Problem> {
    named(uri, "event type")
}

/// The event type that a path names, also one that could not have a schema.
pub(crate) fn any_event_type(uri: &Uri) -> Result<Cow<'_, str>, Problem> {
    segment(uri, "event type")
}

/// The resilience policy that a path names.
pub(crate) fn policy(uri: &Uri) -> Result<Name, Problem> {
    named(uri, "policy")
}

/// The rate limit that a path names.
pub(crate) fn rate_limit(uri: &Uri) -> Result<Name, Problem> {
    named(uri, "limit")
}

fn named(uri: &Uri, what: &str) -> Result<Name, Problem> {
    let text = segment(uri, what)?;
    let name = Name::check(&text).map(|()| Name::new(&*text));
    Ok(name??)
}

/// The name in a path: its third segment.
fn segment<'u>(uri: &'u Uri, what: &str) -> Result<Cow<'u, str>, Problem> {
    let segment = uri.path().split('/').nth(3).unwrap_or_default();
    percent::decode(segment).map_err(|wrong| {
        Problem::new(Code::InvalidName, format!("the {what}'s name in the path cannot be read: {wrong}"))
    })
}

/// The one value of a header, as text.
pub(crate) fn header<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Result<Option<&'h str>, Problem> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let wrong = |what| {
        Problem::new(Code::InvalidParameter, format!("the header `{name}` {what}")).with("header", name.as_str())
    };
    if values.next().is_some() {
        return Err(wrong("stands there twice"));
    }
    value.to_str().map(|text| Some(text.trim())).map_err(|_| wrong("is not printable ASCII"))
}

/// What the preconditions say about a stream's version.
pub(crate) fn expected(headers: &HeaderMap) -> Result<ExpectedVersion, Problem> {
    match (header(headers, &IF_MATCH)?, header(headers, &IF_NONE_MATCH)?) {
        (None, None) => Ok(ExpectedVersion::Any),
        (Some("*"), None) => Ok(ExpectedVersion::StreamExists),
        (None, Some("*")) => Ok(ExpectedVersion::NoStream),
        (Some(tag), None) => version_tag(tag).map(ExpectedVersion::Exact),
        (None, Some(tag)) => Err(unusable(format!(
            "`If-None-Match: {}` means nothing for an append: only `*` (no stream yet) does",
            short(tag)
        ))),
        (Some(_), Some(_)) => Err(unusable("`If-Match` and `If-None-Match` exclude each other")),
    }
}

/// The version in an entity tag such as `"17"`.
fn version_tag(tag: &str) -> Result<Version, Problem> {
    let shown = short(tag);
    if tag.starts_with("W/") {
        return Err(unusable(format!("`If-Match: {shown}` is a weak tag; versions compare exactly: `\"17\"`")));
    }
    let inner = tag.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    let Some(inner) = inner.filter(|inner| !inner.contains('"')) else {
        let why = if tag.contains(',') { "is a list; name one version" } else { "is no quoted version" };
        return Err(unusable(format!("`If-Match: {shown}` {why}: `\"17\"`")));
    };
    match whole(inner) {
        Some(0) => {
            Err(unusable("`If-Match: \"0\"` names no version; `If-None-Match: *` asks that there is no stream yet"))
        }
        Some(version) => Ok(Version::new(version)),
        None => Err(unusable(format!("`If-Match: {shown}` holds no version: a whole number from 1"))),
    }
}

fn unusable(detail: impl Into<String>) -> Problem {
    Problem::new(Code::InvalidPrecondition, detail)
}

/// A whole number in digits, without sign or leading zeros.
pub(crate) fn whole(text: &str) -> Option<u64> {
    let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    plain.then(|| text.parse().ok()).flatten()
}

/// Text of somebody else's, short enough to be shown.
pub(crate) fn short(text: &str) -> String {
    let mut shown: String = text.chars().take(64).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    shown
}

/// Waits until the write of the request's token, if it has one, can be read.
pub(crate) async fn reach_token(node: &Node, headers: &HeaderMap) -> Result<(), Problem> {
    let Some(text) = header(headers, &TOKEN)? else { return Ok(()) };
    let token: Token = text.parse()?;
    let patience = wait(headers)?.min(node.config.http.max_wait);
    Ok(node.streams.reach(token, patience).await?)
}

/// How long the client would wait: `Prefer: wait=2`, in seconds (RFC 7240).
pub(crate) fn wait(headers: &HeaderMap) -> Result<Duration, Problem> {
    for value in headers.get_all(&PREFER) {
        let preferences = value.to_str().unwrap_or_default().split([',', ';']);
        let Some(seconds) = preferences.filter_map(|one| one.trim().strip_prefix("wait=")).next() else { continue };
        let seconds = whole(seconds.trim_matches('"')).ok_or_else(|| {
            Problem::new(Code::InvalidParameter, "`Prefer: wait=` takes whole seconds").with("header", "prefer")
        })?;
        return Ok(Duration::from_secs(seconds));
    }
    Ok(Duration::ZERO)
}

/// The parameters of a query string.
pub(crate) struct Params<'q> {
    pairs: Vec<(Cow<'q, str>, Cow<'q, str>)>,
}

impl<'q> Params<'q> {
    /// The parameters of `uri`, which may be those named in `known` and no others.
    pub(crate) fn of(uri: &'q Uri, known: &[&str]) -> Result<Self, Problem> {
        let parts = uri.query().unwrap_or_default().split('&').filter(|part| !part.is_empty());
        let pairs = parts.map(pair).collect::<Result<Vec<_>, _>>()?;
        let unknown = pairs.iter().find(|(name, _)| !known.contains(&&**name));
        if let Some((name, _)) = unknown {
            let list = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            return Err(wrong(name, format!("there is no parameter `{}` here; there is {list}", short(name))));
        }
        Ok(Self { pairs })
    }

    /// The value of a parameter that stands there once, if at all.
    pub(crate) fn one(&self, name: &str) -> Result<Option<&str>, Problem> {
        let mut values = self.all(name);
        match (values.next(), values.next()) {
            (value, None) => Ok(value),
            _ => Err(wrong(name, format!("the parameter `{name}` stands there twice"))),
        }
    }

    /// The values of a parameter that may be repeated.
    pub(crate) fn all<'s>(&'s self, name: &str) -> impl Iterator<Item = &'s str> {
        self.pairs.iter().filter(move |(known, _)| known == name).map(|(_, value)| &**value)
    }

    /// A whole number.
    pub(crate) fn number(&self, name: &str) -> Result<Option<u64>, Problem> {
        let Some(text) = self.one(name)? else { return Ok(None) };
        let number = whole(text);
        number.map(Some).ok_or_else(|| wrong(name, format!("`{name}={}` is no whole number", short(text))))
    }

    /// A number counted from 1.
    pub(crate) fn counted(&self, name: &str) -> Result<Option<u64>, Problem> {
        match self.number(name)? {
            Some(0) => Err(wrong(name, format!("`{name}` counts from 1"))),
            number => Ok(number),
        }
    }

    /// The moment of the past that is asked for: `at` and `recordedat`.
    pub(crate) fn moment(&self) -> Result<Moment, Problem> {
        let instant = |name| -> Result<Option<Wall>, Problem> {
            let Some(text) = self.one(name)? else { return Ok(None) };
            let time = text.parse::<Timestamp>().map_err(|cause| {
                // In a query, a plus sign stands for a blank.
                let hint = if text.contains(' ') { "; the `+` of an offset is written `%2B`" } else { "" };
                wrong(name, format!("`{name}`: {cause}{hint}"))
            })?;
            Ok(Some(time.instant()))
        };
        Ok(Moment { happened_by: instant("at")?, recorded_by: instant("recordedat")? })
    }

    /// How many items the page shall have. Nothing that was asked for is clamped: beyond the maximum is an error.
    pub(crate) fn limit(&self, node: &Node) -> Result<usize, Problem> {
        self.limit_within(node, usize::MAX)
    }

    /// The same where a page has `most` items whatever the settings say.
    pub(crate) fn limit_within(&self, node: &Node, most: usize) -> Result<usize, Problem> {
        let max = node.config.http.max_page.min(most);
        let Some(limit) = self.counted("limit")? else { return Ok(node.config.http.default_page.min(most)) };
        let within = usize::try_from(limit).ok().filter(|limit| *limit <= max);
        within.ok_or_else(|| {
            Problem::new(Code::LimitExceeded, format!("`limit` is at most {max}, {limit} was asked for"))
                .with("limit", max)
        })
    }
}

fn pair(part: &str) -> Result<(Cow<'_, str>, Cow<'_, str>), Problem> {
    let (name, value) = part.split_once('=').unwrap_or((part, ""));
    let name = percent::decode_query(name)
        .map_err(|cause| wrong("", format!("a parameter's name cannot be read: {cause}")))?;
    let value = percent::decode_query(value);
    let value =
        value.map_err(|cause| wrong(&name, format!("the value of `{}` cannot be read: {cause}", short(&name))))?;
    Ok((name, value))
}

pub(crate) fn wrong(parameter: &str, detail: String) -> Problem {
    Problem::new(Code::InvalidParameter, detail).with("parameter", short(parameter))
}

#[cfg(test)]
mod tests;
