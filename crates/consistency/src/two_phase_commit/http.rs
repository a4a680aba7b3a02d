//! Any HTTP service as a participant.
//!
//! The contract, for whoever writes one (`base` is the address it is registered with):
//!
//! | request | body | answer |
//! |---|---|---|
//! | `POST {base}/prepare` | `{"gid": "quorate:…", "work": …}` | 200 `{"vote": "yes"}`, `{"vote": "read-only"}` or `{"vote": "no", "why": "…"}` |
//! | `POST {base}/commit` | `{"gid": "quorate:…"}` | 200 or 204 |
//! | `POST {base}/abort` | `{"gid": "quorate:…"}` | 200 or 204, also for what it does not know |
//! | `GET {base}/in-doubt?coordinator={uuid}&limit={n}[&after={gid}]` | | 200 `{"prepared": [{"gid": "quorate:…", "age-ms": 17, "held": ["…"]}]}` |
//!
//! * `yes` is answered once the promise is durable. A `prepare` that comes behind its `abort` is answered `no`, or listed by `in-doubt`.
//! * `commit` and `abort` may come twice and late: nothing is then changed, and the answer is the same. A `prepare` that comes twice is answered as the
//!   first time, and `no` where the work is other work.
//! * 409 to `commit` or `abort` says that it was ended the other way, with the reason in `{"why": "…"}`; so is a `commit` of what was never
//!   promised. It is for nothing else: what cannot be done just now is 503.
//! * Any other 4xx to `prepare` is a *no*. Anything else, and no answer in time, is *no answer*: the question is asked again, or the
//!   transaction aborted.
//! * `in-doubt` lists what it holds for that coordinator, and nothing else: at most `limit`, behind `after` in an order of its own that
//!   stays the same. Fewer than `limit` are the last.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, Uri, header};
use http_body::Body;
use http_body_util::{BodyExt, Full, Limited};
use quorate_runtime::BoxFuture;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tower_service::Service;

use super::{CoordinatorId, Gid, Participant, ParticipantError, Prepared, Vote, Work};

/// How many transactions in doubt are asked for at a time, and how many times: what is beyond comes once these have ended.
const PAGE: usize = 1_000;
const MAX_PAGES: usize = 100;
/// The longest list of what is in doubt that is read, in bytes, and all pages of it together.
const MAX_LIST: usize = 4 << 20;
const MAX_LISTS: usize = 16 << 20;
/// The longest other answer that is read, in bytes.
const MAX_ANSWER: usize = 64 << 10;
/// Characters of a reason that are kept.
const MOST_TOLD: usize = 1_000;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A client's word that a request was never sent, so that nothing can have been done. Whatever else prevents an answer leaves that open.
#[derive(Debug, thiserror::Error)]
#[error("it was not sent")]
pub struct NotSent(#[source] pub BoxError);

/// A participant that is reached over HTTP, by the client `S`: a bare one, or a stack of policies around it. Retries belong to
/// the coordinator, so the policies need none.
#[derive(Clone, Debug)]
pub struct Http<S> {
    client: S,
    base: Uri,
}

#[derive(Serialize)]
struct PrepareRequest<'a> {
    gid: String,
    work: &'a RawValue,
}

#[derive(Serialize)]
struct EndRequest {
    gid: String,
}

#[derive(Deserialize)]
#[serde(tag = "vote", rename_all = "kebab-case")]
enum VoteAnswer {
    Yes,
    ReadOnly,
    No {
        #[serde(default)]
        why: String,
    },
}

#[derive(Deserialize)]
struct InDoubtAnswer {
    prepared: Vec<PreparedAnswer>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct PreparedAnswer {
    gid: String,
    age_ms: Option<u64>,
    #[serde(default)]
    held: Vec<String>,
}

#[derive(Deserialize)]
struct WhyAnswer {
    why: String,
}

impl<S> Http<S> {
    /// The service at `base` (`http://stock:8080/transactions`), by `client`.
    ///
    /// # Errors
    /// [`ParticipantError::Unsuitable`] for an address without scheme and host, or with a query.
    pub fn new(client: S, base: &str) -> Result<Self, ParticipantError> {
        let wrong = |what: &str| ParticipantError::Unsuitable {
            what: format!("`{base}` is no address of a participant: {what}"),
        };
        let parsed: Uri = base.trim_end_matches('/').parse().map_err(|_| wrong("it is http://host:port/path"))?;
        if parsed.scheme().is_none() || parsed.authority().is_none() {
            return Err(wrong("it names a scheme and a host"));
        }
        if parsed.query().is_some() {
            return Err(wrong("it has no query"));
        }
        Ok(Self { client, base: parsed })
    }
}

impl<S, B> Http<S>
where
    S: Service<Request<Full<Bytes>>, Response = Response<B>> + Clone + Send + Sync + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    async fn send(&self, method: Method, path: &str, body: Vec<u8>) -> Result<(StatusCode, Bytes), ParticipantError> {
        let unanswered = |cause: BoxError| match cause.is::<NotSent>() {
            true => ParticipantError::Failed { what: chain(&*cause) },
            false => ParticipantError::Unanswered { what: chain(&*cause) },
        };
        let most = if method == Method::GET { MAX_LIST } else { MAX_ANSWER };
        let request = Request::builder()
            .method(method)
            .uri(format!("{}/{path}", self.base.to_string().trim_end_matches('/')))
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT, "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|cause| ParticipantError::Unsuitable { what: cause.to_string() })?;
        let mut client = self.client.clone();
        std::future::poll_fn(|context| client.poll_ready(context)).await.map_err(|cause| unanswered(cause.into()))?;
        let answer = client.call(request).await.map_err(|cause| unanswered(cause.into()))?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), most).collect().await.map_err(unanswered)?;
        Ok((status, body.to_bytes()))
    }

    async fn end(&self, how: &str, gid: &Gid) -> Result<(), ParticipantError> {
        let (status, body) = self.send(Method::POST, how, json(&EndRequest { gid: gid.to_string() })).await?;
        match status {
            status if status.is_success() => Ok(()),
            StatusCode::CONFLICT => Err(ParticipantError::Contradicted { what: why(status, &body) }),
            status => Err(ParticipantError::Failed { what: why(status, &body) }),
        }
    }
}

impl<S, B> Participant for Http<S>
where
    S: Service<Request<Full<Bytes>>, Response = Response<B>> + Clone + Send + Sync + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    fn prepare<'a>(&'a self, gid: &'a Gid, work: &'a Work) -> BoxFuture<'a, Result<Vote, ParticipantError>> {
        Box::pin(async move {
            let work: &RawValue = serde_json::from_slice(work.as_bytes())
                .map_err(|cause| ParticipantError::Unsuitable { what: cause.to_string() })?;
            let request = json(&PrepareRequest { gid: gid.to_string(), work });
            let (status, body) = self.send(Method::POST, "prepare", request).await?;
            if status.is_client_error() && status != StatusCode::REQUEST_TIMEOUT {
                return Ok(Vote::No { why: why(status, &body) });
            }
            if !status.is_success() {
                return Err(ParticipantError::Unanswered { what: why(status, &body) });
            }
            let vote = serde_json::from_slice(&body).map_err(|cause| ParticipantError::Unanswered {
                what: format!("its answer to a prepare is no vote: {cause}"),
            })?;
            Ok(match vote {
                VoteAnswer::Yes => Vote::Yes,
                VoteAnswer::ReadOnly => Vote::ReadOnly,
                VoteAnswer::No { why } => {
                    let why: String = why.chars().take(MOST_TOLD).collect();
                    Vote::No { why: if why.is_empty() { "it gave no reason".to_owned() } else { why } }
                }
            })
        })
    }

    fn commit<'a>(&'a self, gid: &'a Gid) -> BoxFuture<'a, Result<(), ParticipantError>> {
        Box::pin(self.end("commit", gid))
    }

    fn abort<'a>(&'a self, gid: &'a Gid) -> BoxFuture<'a, Result<(), ParticipantError>> {
        Box::pin(self.end("abort", gid))
    }

    fn in_doubt(&self, coordinator: CoordinatorId) -> BoxFuture<'_, Result<Vec<Prepared>, ParticipantError>> {
        Box::pin(async move {
            let (mut all, mut after, mut bytes) = (Vec::new(), String::new(), 0);
            for _ in 0..MAX_PAGES {
                let path = format!("in-doubt?coordinator={coordinator}&limit={PAGE}{after}");
                let (status, body) = self.send(Method::GET, &path, Vec::new()).await?;
                if !status.is_success() {
                    return Err(ParticipantError::Failed { what: why(status, &body) });
                }
                bytes += body.len();
                let answer: InDoubtAnswer = serde_json::from_slice(&body).map_err(|cause| {
                    ParticipantError::Failed { what: format!("its list of what is in doubt cannot be read: {cause}") }
                })?;
                let (count, last) = (answer.prepared.len(), answer.prepared.last().map(|one| one.gid.clone()));
                // Whatever is not ours is left alone, whoever lists it.
                all.extend(answer.prepared.into_iter().filter_map(|prepared| {
                    let gid: Gid = prepared.gid.parse().ok()?;
                    let age = prepared.age_ms.map(Duration::from_millis);
                    (gid.coordinator == coordinator).then_some(Prepared { gid, age, held: prepared.held })
                }));
                let has_more = count >= PAGE && bytes < MAX_LISTS;
                match last.filter(|last| has_more && last.parse::<Gid>().is_ok()) {
                    Some(last) => after = format!("&after={last}"),
                    None => break,
                }
            }
            Ok(all)
        })
    }
}

fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_else(|_| unreachable!("it is written as JSON"))
}

fn why(status: StatusCode, body: &[u8]) -> String {
    let told = serde_json::from_slice::<WhyAnswer>(body).map(|answer| answer.why).unwrap_or_default();
    let told: String = told.chars().take(MOST_TOLD).collect();
    if told.is_empty() { format!("it answered {status}") } else { format!("it answered {status}: {told}") }
}

fn chain(cause: &dyn std::error::Error) -> String {
    let mut told = cause.to_string();
    let mut source = cause.source();
    while let Some(cause) = source {
        told = format!("{told}: {cause}");
        source = cause.source();
    }
    told
}
