//! Requests to the node, and what its answers mean.

use std::{fmt, time::Duration};

use bytes::{Bytes, BytesMut};
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use quorate_foundations::time::Boot;
use quorate_resilience::client::{Client, Config, Tls};
use quorate_runtime::Env;
use serde::Deserialize;
use tokio::sync::OnceCell;
use tower_service::Service as _;

use crate::{
    roots::roots_of_this_machine,
    transports::{PublishError, Topic, TransportError},
};

/// How long the node may take for an answer, beyond what it is asked to wait.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes a second that a request is given time for, beyond [`PATIENCE`].
const SLOWEST: usize = 64 << 10;
/// The longest answer that is read, in bytes, where messages were asked for: what a node hands out at once is far less.
pub(super) const MAX_MESSAGES_BYTES: usize = 256 << 20;
/// The same of any other answer: names, and what became of messages.
pub(super) const MAX_ANSWER_BYTES: usize = 16 << 20;
/// Characters of an answer that are quoted.
const MOST_QUOTED: usize = 200;

/// The way to one node.
pub(super) struct Link {
    pub(super) env: Env,
    /// Its address, without a slash at the end.
    base: String,
    client: OnceCell<Client>,
}

/// What the node said.
pub(super) struct Answer {
    pub(super) body: Bytes,
    /// When it began to come.
    pub(super) came_at: Boot,
    /// Whether there is a next page.
    pub(super) has_next: bool,
}

/// Why there is nothing to be had.
#[derive(Clone, Debug)]
pub(super) enum Failed {
    /// The node was not reached: nothing was done.
    Unsent { what: String },
    /// No answer came, or one that leaves open what was done.
    Unknown { what: String },
    /// The node says no: nothing was done, or of several things some were not.
    Refused(Refusal),
}

/// The node's no.
#[derive(Clone, Debug)]
pub(super) struct Refusal {
    /// The name of the problem; empty for an answer that no node gives.
    code: String,
    status: StatusCode,
    detail: String,
}

/// A problem document (RFC 9457), as nodes write them.
#[derive(Deserialize)]
struct Problem {
    r#type: String,
    #[serde(default)]
    detail: String,
    outcome: String,
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unsent { what } | Self::Unknown { what } => f.write_str(what),
            Self::Refused(Refusal { detail, .. }) => f.write_str(detail),
        }
    }
}

impl Link {
    pub(super) fn new(env: &Env, address: &str) -> Self {
        Self { env: env.clone(), base: address.trim_end_matches('/').to_owned(), client: OnceCell::new() }
    }

    async fn client(&self) -> Client {
        let connect = || async {
            if !self.base.starts_with("https:") {
                return Client::new(&self.env, Config::default());
            }
            let roots = self.env.run_blocking(roots_of_this_machine).await;
            Client::encrypting(&self.env, Config::default(), Tls::trusting(&self.env, roots))
        };
        self.client.get_or_init(connect).await.clone()
    }

    /// Asks the node. Returns the body of its answer.
    ///
    /// # Cancel safety
    /// Dropping the future leaves it open whether the node has done it.
    pub(super) async fn call(&self, method: Method, path: &str, body: Option<Bytes>) -> Result<Bytes, Failed> {
        Ok(self.ask(method, path, body, PATIENCE, MAX_ANSWER_BYTES).await?.body)
    }

    /// Asks the node, which may take `patience` until it begins to answer, and then be silent for [`PATIENCE`] at a time. Of an answer at
    /// most `most` bytes are read.
    ///
    /// # Cancel safety
    /// As of [`call`](Self::call).
    pub(super) async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<Bytes>,
        patience: Duration,
        most: usize,
    ) -> Result<Answer, Failed> {
        let body = body.unwrap_or_default();
        let patience = patience + Duration::from_secs((body.len() / SLOWEST) as u64);
        let request = Request::builder().method(method).uri(format!("{}{path}", self.base));
        let request = request.header(header::CONTENT_TYPE, "application/json").body(Full::new(body));
        let request = request.map_err(|wrong| Failed::Unsent { what: wrong.to_string() })?;
        let asking = async { self.client().await.call(request).await };
        let answer = self.env.timeout(patience, asking).await;
        let answer = answer.ok_or_else(|| Failed::Unknown { what: format!("no answer within {patience:?}") })?;
        let answer = answer.map_err(|failed| {
            let what = chain(&failed);
            if Client::judge(&failed).unprocessed { Failed::Unsent { what } } else { Failed::Unknown { what } }
        })?;
        let (status, came_at) = (answer.status(), self.env.boot());
        let has_next = answer.headers().contains_key(header::LINK);
        let most = if status.is_success() { most } else { MAX_ANSWER_BYTES };
        let (mut body, mut read) = (Limited::new(answer.into_body(), most), BytesMut::new());
        // A long answer may take long, as long as it goes on.
        let silent = || Failed::Unknown { what: format!("nothing more of its answer came within {PATIENCE:?}") };
        while let Some(frame) = self.env.timeout(PATIENCE, body.frame()).await.ok_or_else(silent)? {
            let frame = frame.map_err(|failed| Failed::Unknown { what: chain(&*failed) })?;
            if let Ok(data) = frame.into_data() {
                read.extend_from_slice(&data);
            }
        }
        let body = read.freeze();
        if status.is_success() { Ok(Answer { body, came_at, has_next }) } else { Err(judged(status, &body)) }
    }
}

/// What an answer means that is none of success.
fn judged(status: StatusCode, body: &[u8]) -> Failed {
    let Ok(Problem { r#type, detail, outcome }) = serde_json::from_slice(body) else {
        let said: String = String::from_utf8_lossy(body).chars().take(MOST_QUOTED).collect();
        let what = format!("it answered {status}, as no node of quorate does: {said}");
        return match status.is_server_error() {
            // Somebody in between, who may have passed it on.
            true => Failed::Unknown { what },
            false => Failed::Refused(Refusal { code: String::new(), status, detail: what }),
        };
    };
    match &*outcome {
        "unchanged" | "partial" => {
            let code = r#type.strip_prefix("/errors/").unwrap_or_default().to_owned();
            Failed::Refused(Refusal { code, status, detail })
        }
        _ => Failed::Unknown { what: detail },
    }
}

/// An error with its causes.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(error.source(), |cause: &&(dyn std::error::Error + 'static)| (*cause).source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

impl Refusal {
    /// Whether it is the problem of that name.
    pub(super) fn is(&self, code: &str) -> bool {
        self.code == code
    }

    /// Whether others of the messages that were sent together might be taken.
    pub(super) fn is_of_messages(&self) -> bool {
        self.is("queue-full") || self.is_of_message()
    }

    /// Whether it is what was sent that is at fault.
    fn is_of_message(&self) -> bool {
        let at_fault = [StatusCode::BAD_REQUEST, StatusCode::PAYLOAD_TOO_LARGE, StatusCode::UNPROCESSABLE_ENTITY];
        self.is("id-reused") || (!self.code.is_empty() && at_fault.contains(&self.status))
    }

    fn passes(&self) -> bool {
        let passing = [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_MANY_REQUESTS];
        self.status.is_server_error() || passing.contains(&self.status)
    }
}

impl Failed {
    /// What it says of a message that was published.
    pub(super) fn of_publishing(self, topic: &Topic) -> PublishError {
        match self {
            Self::Unsent { what } => PublishError::unavailable(what),
            Self::Unknown { what } => PublishError::unknown(what),
            Self::Refused(refusal) if refusal.is("queue-full") => PublishError::full(topic, refusal.detail),
            Self::Refused(refusal) if refusal.is("queue-not-found") => PublishError::unroutable(topic),
            Self::Refused(refusal) if refusal.is_of_message() => PublishError::refused(refusal.detail),
            Self::Refused(refusal) => PublishError::unavailable(refusal.detail),
        }
    }
}

impl From<Failed> for TransportError {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::Unsent { what } | Failed::Unknown { what } => Self::unavailable(what),
            Failed::Refused(refusal) if refusal.is("lease-lost") || refusal.is("queue-not-found") => {
                Self::lost(refusal.detail)
            }
            Failed::Refused(refusal) if refusal.passes() => Self::unavailable(refusal.detail),
            Failed::Refused(refusal) => Self::refused(refusal.detail),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::{Failed, judged};
    use crate::transports::{PublishError, Topic, TransportError};

    fn told(status: u16, body: &str) -> Failed {
        judged(StatusCode::from_u16(status).unwrap(), body.as_bytes())
    }

    fn problem(status: u16, code: &str, outcome: &str) -> Failed {
        told(status, &format!(r#"{{"type":"/errors/{code}","title":"t","detail":"d","outcome":"{outcome}"}}"#))
    }

    #[test]
    fn an_answer_says_whether_it_was_done_and_whose_move_it_is() {
        let topic = Topic::new("orders".parse().unwrap());
        let of = |failed: Failed| failed.of_publishing(&topic);
        assert!(matches!(of(problem(409, "queue-full", "unchanged")), PublishError::Full { .. }));
        assert!(matches!(of(problem(404, "queue-not-found", "unchanged")), PublishError::Unroutable { .. }));
        assert!(matches!(of(problem(409, "id-reused", "unchanged")), PublishError::Refused { .. }));
        assert!(matches!(of(problem(400, "invalid-event", "unchanged")), PublishError::Refused { .. }));
        assert!(matches!(of(problem(503, "overloaded", "unchanged")), PublishError::Unavailable { .. }));
        assert!(matches!(of(problem(500, "internal", "unknown")), PublishError::Unknown { .. }));
        assert!(matches!(of(problem(500, "internal", "done")), PublishError::Unknown { .. }));
        // Somebody in between, or no node at all: it is not the message that is at fault.
        assert!(matches!(of(told(504, "gateway timeout")), PublishError::Unknown { .. }));
        assert!(matches!(of(told(400, "what?")), PublishError::Unavailable { .. }));
        assert!(matches!(problem(409, "lease-lost", "partial").into(), TransportError::Lost { .. }));
        assert!(matches!(problem(503, "shutting-down", "unchanged").into(), TransportError::Unavailable { .. }));
        assert!(matches!(told(404, "<html>").into(), TransportError::Refused { .. }));
    }
}
