//! Problem documents (RFC 9457) as the node sends them.

use std::{fmt, time::Duration};

use http::StatusCode;
use serde_json::{Map, Value};

use super::Server;
use crate::exit::Exit;

/// Why the node did not do what it was asked.
#[derive(Clone, Debug)]
pub(crate) struct Problem {
    /// The reply's status.
    pub(crate) status: StatusCode,
    /// The name of the kind of problem: the last segment of its `type`.
    pub(crate) slug: String,
    /// The whole document.
    pub(crate) members: Map<String, Value>,
    /// Where the kind of problem is explained.
    page: Option<String>,
    /// What that page says one should do, if it could be had.
    advice: Option<String>,
    /// Whether an earlier attempt of the same call may have been done, whatever this one says of itself.
    in_doubt: bool,
}

impl Problem {
    /// The problem that `body`, of a reply with `status`, tells of; what is no problem document is quoted.
    pub(crate) fn parse(server: &Server, status: StatusCode, body: &[u8]) -> Self {
        let members: Map<String, Value> = serde_json::from_slice(body).unwrap_or_else(|_| {
            let text: String = String::from_utf8_lossy(body).chars().take(300).collect();
            Map::from_iter([("detail".to_owned(), text.trim().into())])
        });
        let address = members.get("type").and_then(Value::as_str).filter(|address| *address != "about:blank");
        let slug = address.and_then(|address| address.rsplit('/').next()).unwrap_or_default().to_owned();
        let page =
            address.map(|address| if address.starts_with('/') { format!("{server}{address}") } else { address.into() });
        Self { status, slug, members, page, advice: None, in_doubt: false }
    }

    /// The same, behind an attempt that may have been done.
    #[must_use]
    pub(super) fn in_doubt(mut self) -> Self {
        self.in_doubt = true;
        self
    }

    /// A member that is text.
    pub(crate) fn text(&self, member: &str) -> Option<&str> {
        self.members.get(member).and_then(Value::as_str)
    }

    /// A member that is a number.
    pub(crate) fn number(&self, member: &str) -> Option<usize> {
        self.members.get(member).and_then(Value::as_u64).and_then(|number| usize::try_from(number).ok())
    }

    /// What went wrong this time.
    pub(crate) fn detail(&self) -> &str {
        self.text("detail").filter(|detail| !detail.is_empty()).unwrap_or("the node gave no details")
    }

    /// The path of the page that explains it, on the node itself.
    pub(crate) fn page_path(&self) -> Option<&str> {
        self.text("type").filter(|address| address.starts_with('/'))
    }

    /// With the advice that its page gives.
    #[must_use]
    pub(crate) fn advised(mut self, page: &str) -> Self {
        let lead = "**What to do.** ";
        let start = page.find(lead).map(|at| at + lead.len());
        let paragraph = start.and_then(|at| page[at..].split("\n\n").next()?.split("</").next());
        self.advice = paragraph.map(|text| unescaped(&text.split_whitespace().collect::<Vec<_>>().join(" ")));
        self
    }

    /// After which span repeating can help; `None`: it cannot.
    pub(crate) fn retry(&self) -> Option<Duration> {
        match self.text("retry") {
            Some("now") => Some(Duration::ZERO),
            Some("after") => Some(self.text("retryafter").and_then(milliseconds).unwrap_or(Duration::from_secs(1))),
            Some(_) => None,
            None => self.status.is_server_error().then_some(Duration::from_secs(1)),
        }
    }

    /// Whether it may have happened all the same.
    pub(crate) fn is_unknown(&self) -> bool {
        // What was done, and whose reply is missing, is learnt in the same way: by repeating it with the same ids or key.
        self.in_doubt || matches!(self.text("outcome"), Some("unknown" | "done"))
    }

    /// How a command that met it exits.
    pub(crate) fn exit(&self) -> Exit {
        if self.is_unknown() {
            return Exit::Unknown;
        }
        match self.slug.as_str() {
            "invalid-json" | "invalid-event" | "invalid-batch" | "schema-violation" | "unknown-type"
            | "invalid-schema" => return Exit::BadInput,
            "invalid-parameter" | "invalid-precondition" | "invalid-name" | "invalid-token" | "invalid-view-query" => {
                return Exit::Usage;
            }
            "store-corrupt" | "key-missing" => return Exit::Damaged,
            "unsupported" => return Exit::Refused,
            _ => {}
        }
        match self.status.as_u16() {
            404 => Exit::NotFound,
            408 | 429 | 502 | 503 | 504 | 507 => Exit::Unavailable,
            413 => Exit::BadInput,
            500.. => Exit::Failed,
            _ => Exit::Refused,
        }
    }

    fn what_to_do(&self) -> String {
        if self.in_doubt {
            return "an earlier attempt may have been done: repeat it with the same ids or key, and it will not happen twice".to_owned();
        }
        if let Some(advice) = &self.advice {
            return advice.clone();
        }
        match (self.is_unknown(), self.retry()) {
            (true, None) if self.slug == "request-unknown" => {
                "find out whether it was done before you ask again".to_owned()
            }
            (true, _) => "repeat it with the same ids or key: it will not happen twice".to_owned(),
            (_, Some(Duration::ZERO)) => "repeat it".to_owned(),
            (_, Some(span)) => format!("repeat it after {span:?}"),
            (_, None) => "repeating it does not help: something in it must change first".to_owned(),
        }
    }
}

/// The page comes as HTML, in which four characters are written otherwise.
fn unescaped(text: &str) -> String {
    text.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&amp;", "&")
}

/// `"100ms"`, as the node writes spans.
fn milliseconds(text: &str) -> Option<Duration> {
    text.strip_suffix("ms").and_then(|digits| digits.parse().ok()).map(Duration::from_millis)
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fallback = self.status.canonical_reason().unwrap_or("unknown status");
        let title = self.text("title").map_or_else(|| format!("{} {fallback}", self.status.as_u16()), str::to_owned);
        writeln!(f, "{title}\n  {}", self.detail())?;
        if let Some(page) = &self.page {
            writeln!(f, "  type: {page}")?;
        }
        write!(f, "  what to do: {}", self.what_to_do())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::StatusCode;

    use super::Problem;
    use crate::{client::Server, exit::Exit};

    fn parse(status: u16, body: &str) -> Problem {
        let server: Server = Server::DEFAULT.parse().unwrap();
        Problem::parse(&server, StatusCode::from_u16(status).unwrap(), body.as_bytes())
    }

    #[test]
    fn a_document_is_told_with_title_detail_type_and_what_to_do() {
        let body = r#"{"type":"/errors/version-conflict","title":"Stream is at another version","status":412,
            "detail":"stream `a` is at version 2","retry":"never","outcome":"unchanged"}"#;
        let problem = parse(412, body);
        let page = "<h1>T</h1><pre>`x`\n\n**What to do.** Read the stream\nand decide &amp; retry.</pre></body>";
        let told = problem.clone().advised(page).to_string();
        let lines = "Stream is at another version\n  stream `a` is at version 2\n  \
            type: http://127.0.0.1:7400/errors/version-conflict\n  what to do: Read the stream and decide & retry.";
        assert_eq!(told, lines);
        assert_eq!((problem.exit(), problem.retry()), (Exit::Refused, None));
    }

    #[test]
    fn retry_and_outcome_decide_what_a_script_sees() {
        let overloaded = parse(503, r#"{"type":"/errors/overloaded","retry":"after","retryafter":"250ms"}"#);
        assert_eq!(overloaded.retry(), Some(Duration::from_millis(250)));
        assert_eq!(overloaded.exit(), Exit::Unavailable);
        let unknown = parse(500, r#"{"type":"/errors/outcome-unknown","retry":"now","outcome":"unknown"}"#);
        assert_eq!(unknown.exit(), Exit::Unknown);
        assert_eq!(parse(404, "{}").exit(), Exit::NotFound);
        assert_eq!(parse(400, r#"{"type":"/errors/invalid-event"}"#).exit(), Exit::BadInput);
    }

    #[test]
    fn what_is_no_document_is_quoted() {
        let told = parse(502, "<h1>Bad gateway</h1>").to_string();
        assert!(told.starts_with("502 Bad Gateway\n  <h1>Bad gateway</h1>\n"), "{told}");
    }
}
