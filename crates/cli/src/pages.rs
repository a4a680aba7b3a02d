//! Lists that the node hands out page by page, followed along `Link: rel="next"`.

use serde::Deserialize;
use serde_json::{Value, value::RawValue};

use crate::{
    client::{Call, Client, ClientError, Guarded, Server, TOKEN, Target},
    exit::{Exit, Failure},
    output::note,
};

/// How many items a page has unless the node allows fewer.
pub(crate) const PAGE: usize = 1_000;

/// A list, page by page, on one connection.
pub(crate) struct Pages {
    server: Server,
    connection: Guarded,
    next: Option<String>,
    first: Option<(String, usize)>,
    token: Option<String>,
}

/// One page.
pub(crate) struct Page {
    server: Server,
    body: bytes::Bytes,
    member: &'static str,
}

impl Pages {
    /// The list at `target`, a path and its query without `limit`, `size` items at a time.
    pub(crate) fn new(client: &Client, target: Target, size: usize) -> Self {
        let base = String::from(target);
        let next = Some(with_limit(&base, size));
        Self {
            server: client.server().clone(),
            connection: client.guarded(),
            next,
            first: Some((base, size)),
            token: None,
        }
    }

    /// The same, including the write that `token` names.
    #[must_use]
    pub(crate) fn including(mut self, token: Option<String>) -> Self {
        self.token = token;
        self
    }

    /// The next page, whose items stand in the member `member`; `None` behind the last.
    pub(crate) async fn next(&mut self, member: &'static str) -> Result<Option<Page>, Failure> {
        let Some(target) = self.next.take() else { return Ok(None) };
        let mut call = Call::get(target);
        if let Some(token) = &self.token {
            let prefer = http::HeaderName::from_static("prefer");
            call = call.header(TOKEN, token)?.header(prefer, "wait=5")?;
        }
        match self.connection.call(&call).await? {
            Ok(reply) => {
                self.first = None;
                self.next = reply.next();
                Ok(Some(Page { server: self.server.clone(), body: reply.body, member }))
            }
            // The node allows fewer items in a page, and says how many.
            Err(problem) => match (self.first.take(), problem.number("limit")) {
                (Some((base, size)), Some(max)) if problem.slug == "limit-exceeded" && max < size => {
                    self.next = Some(with_limit(&base, max));
                    Box::pin(self.next(member)).await
                }
                _ => Err(self.connection.advise(problem).await),
            },
        }
    }

    /// Whether there is another page.
    pub(crate) fn has_next(&self) -> bool {
        self.next.is_some()
    }
}

impl Page {
    /// Where it ends, and where what it is a page of does: positions of the log, or versions of a stream.
    pub(crate) fn reach(&self) -> Option<(u64, u64)> {
        #[derive(Deserialize)]
        struct Ends<'p> {
            scanned: Option<&'p str>,
            head: Option<&'p str>,
            streamversion: Option<&'p str>,
            #[serde(borrow)]
            events: Vec<Version<'p>>,
        }
        #[derive(Deserialize)]
        struct Version<'p> {
            streamversion: Option<&'p str>,
        }
        let Ends { scanned, head, streamversion, events } = serde_json::from_slice(&self.body).ok()?;
        let number = |text: Option<&str>| text.and_then(|text| text.parse().ok());
        let done = scanned.or_else(|| events.last()?.streamversion);
        Some((number(done)?, number(head.or(streamversion))?))
    }

    /// What stands beside the items under a name.
    pub(crate) fn beside(&self, name: &str) -> Value {
        let whole: Value = serde_json::from_slice(&self.body).unwrap_or_default();
        whole[name].clone()
    }

    /// The items, as they were sent.
    pub(crate) fn items(&self) -> Result<Vec<&RawValue>, Failure> {
        #[derive(Deserialize)]
        struct Items<'p> {
            #[serde(
                borrow,
                alias = "streams",
                alias = "subscriptions",
                alias = "queues",
                alias = "parked",
                alias = "schemas",
                alias = "event-types",
                alias = "views",
                alias = "skipped",
                alias = "erasures",
                alias = "breakers",
                alias = "policies",
                alias = "limits",
                alias = "schedules",
                alias = "webhooks",
                alias = "relays",
                alias = "inboxes",
                alias = "attempts",
                alias = "sagas",
                alias = "processes",
                alias = "request-types",
                alias = "courses",
                alias = "transactions"
            )]
            events: Vec<&'p RawValue>,
        }
        let items: Result<Items<'_>, _> = serde_json::from_slice(&self.body);
        let strange = |wrong| {
            let what = format!("a page without `{}`: {wrong}", self.member);
            ClientError::Strange { server: self.server.clone(), what }
        };
        Ok(items.map_err(strange)?.events)
    }
}

/// The items of a list, and a note if there are more.
pub(crate) async fn list(
    client: &Client,
    target: Target,
    member: &'static str,
    how_many: HowMany,
) -> Result<Vec<Value>, Failure> {
    let mut pages = Pages::new(client, target, how_many.page());
    let mut items: Vec<Value> = Vec::new();
    while items.len() < how_many.max()
        && let Some(page) = pages.next(member).await?
    {
        items.extend(page.items()?.iter().filter_map(|item| serde_json::from_str(item.get()).ok()));
    }
    if pages.has_next() || items.len() > how_many.max() {
        note("there may be more: see --limit and --all");
    }
    items.truncate(how_many.max());
    Ok(items)
}

fn with_limit(base: &str, size: usize) -> String {
    format!("{base}{}limit={size}", if base.contains('?') { '&' } else { '?' })
}

/// How many items to show.
#[derive(clap::Args, Clone, Copy, Debug)]
pub(crate) struct HowMany {
    /// How many to show at most
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = positive)]
    limit: usize,
    /// Show all there are
    #[arg(long, conflicts_with = "limit")]
    all: bool,
}

impl HowMany {
    /// The most items to show.
    pub(crate) fn max(self) -> usize {
        if self.all { usize::MAX } else { self.limit }
    }

    /// A page that fits.
    pub(crate) fn page(self) -> usize {
        self.max().min(PAGE)
    }
}

/// A whole number from 1.
pub(crate) fn positive(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|number| *number > 0).ok_or_else(|| "a whole number from 1".to_owned())
}

/// A moment that a person names.
pub(crate) fn moment(text: &str) -> Result<quorate_data::event::Timestamp, String> {
    text.parse().map_err(|wrong: quorate_data::event::TimestampError| wrong.to_string())
}

/// A failure to tell apart from the node's own: nothing is there that could be shown.
pub(crate) fn nothing(what: impl Into<String>) -> Failure {
    Failure::new(Exit::NotFound, what)
}
