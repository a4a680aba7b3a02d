//! Requests that sagas make: through the policies of whom they are for.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode, header::CONTENT_TYPE};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use quorate_consistency::saga::{
    Config, Failure, Output,
    declared::{Caller, Request},
};
use quorate_foundations::{name::Name, time::Mono};
use quorate_resilience::{
    CallError, Class, Verdict,
    client::{self, Client, Error},
    deadline::Deadline,
    hop::Hop,
    http::{Http, Operation},
    policy::Registry,
};
use quorate_runtime::{BoxFuture, Env};
use serde_json::Value;
use tower::{Layer as _, Service as _};

const KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Makes sagas' requests.
pub(crate) struct Outward {
    env: Env,
    /// `None` once the node stops: kept connections end with their client, and the node waits for all of them.
    client: Arc<Mutex<Option<Client>>>,
    registry: Registry,
}

type Judge = fn(&Error) -> Verdict;
type Said = Result<Output, Failure>;

impl Outward {
    pub(crate) fn new(env: &Env, registry: Registry) -> Self {
        let client = Arc::new(Mutex::new(Some(Client::new(env, client::Config::default()))));
        let (stop, stopped) = (env.tasks().stop().clone(), client.clone());
        env.tasks().spawn("saga connections", async move {
            stop.cancelled().await;
            *stopped.lock().unwrap_or_else(PoisonError::into_inner) = None;
        });
        Self { env: env.clone(), client, registry }
    }
}

impl Caller for Outward {
    fn call(&self, request: Request) -> BoxFuture<'static, Said> {
        let (env, registry) = (self.env.clone(), self.registry.clone());
        let client = self.client.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Box::pin(async move {
            let client = client.ok_or_else(|| Failure::Held("the node stops".to_owned()))?;
            let dependency = dependency(&request)?;
            let asked = Asked { again: request.attempt > 1, forgiving: request.undoes && request.method == "DELETE" };
            let sent = outgoing(request, env.mono())?;
            let judge: Judge = Client::judge;
            let stack = registry.stack(&dependency, Http::default().failing_as(judge)).map_err(Failure::transient)?;
            let answered = stack.layer(client).call(sent).await.map_err(failed)?;
            let (head, body) = answered.into_parts();
            match Limited::new(body, Config::MAX_VALUE_BYTES).collect().await {
                Ok(body) => judged(asked, &head, Some(&body.to_bytes())),
                Err(cause) if cause.is::<LengthLimitError>() => judged(asked, &head, None),
                Err(cause) => Err(Failure::unknown(format!("its answer broke off: {cause}"))),
            }
        })
    }
}

/// Whose policies a request passes.
fn dependency(request: &Request) -> Result<Name, Failure> {
    if let Some(policy) = &request.policy {
        return Ok(policy.clone());
    }
    let uri: http::Uri =
        request.url.parse().map_err(|_| Failure::refused(format!("`{}` is no address", request.url)))?;
    Name::new(uri.host().unwrap_or_default().to_owned()).map_err(Failure::refused)
}

fn outgoing(request: Request, now: Mono) -> Result<http::Request<Full<Bytes>>, Failure> {
    let Request { step, method, url, headers, body, key, time, undoes, .. } = request;
    let mut builder = http::Request::builder().method(method).uri(&url);
    // What it asks for, where operations have circuits of their own: addresses have numbers in them.
    let operation = if undoes { Name::new(format!("{step}/undo")) } else { Name::new(step) };
    if let Ok(operation) = operation {
        builder = builder.extension(Operation(operation));
    }
    let has_type = headers.iter().any(|(name, _)| name.eq_ignore_ascii_case(CONTENT_TYPE.as_str()));
    for (name, value) in headers {
        builder = builder.header(name, value);
    }
    let quoted = format!("\"{}\"", in_header(&key));
    let quoted = HeaderValue::from_bytes(quoted.as_bytes());
    builder = builder.header(KEY, quoted.map_err(|_| Failure::refused("the key cannot stand in a header"))?);
    // The saga retries, and nobody on the way: each attempt is one that it has counted.
    let hop = Hop { owned: true, ..Hop::until(Deadline::after(now, time)) };
    builder = builder.extension(hop);
    let bytes = match body {
        Some(body) => {
            if !has_type {
                builder = builder.header(CONTENT_TYPE, "application/json");
            }
            Bytes::from(body.to_string())
        }
        None => Bytes::new(),
    };
    builder
        .body(Full::new(bytes))
        .map_err(|cause| Failure::refused(format!("`{method} {url}` cannot be sent: {cause}")))
}

/// A key as any server takes it: up to 255 printable ASCII characters without quotes; what is no such key is named by its hash.
fn in_header(key: &str) -> String {
    let is_plain = |byte: u8| (b' '..=b'~').contains(&byte) && byte != b'"' && byte != b'\\';
    if key.len() <= 255 && key.bytes().all(is_plain) {
        key.to_owned()
    } else {
        blake3::hash(key.as_bytes()).to_hex().to_string()
    }
}

/// What prevented an answer.
fn failed(error: CallError<Error>) -> Failure {
    match error {
        CallError::Rejected(why) => Failure::Held(why.to_string()),
        CallError::Upstream(error @ Error::Address { .. }, _) => Failure::refused(error),
        CallError::Upstream(error, class) => {
            if Client::judge(&error).unprocessed || class == Class::Untrusted {
                Failure::transient(error)
            } else {
                Failure::unknown(error)
            }
        }
        other => Failure::unknown(other),
    }
}

/// What an answer is judged by besides what it says.
#[derive(Clone, Copy, Default)]
struct Asked {
    /// Whether an attempt before may still be under way.
    again: bool,
    /// Whether it is done where nothing is there.
    forgiving: bool,
}

/// What an answer says: see [`Caller`]. Without a body where that is too large to be kept: the status says what was done.
fn judged(asked: Asked, head: &http::response::Parts, body: Option<&[u8]>) -> Said {
    let said: Value = body.and_then(|body| serde_json::from_slice(body).ok()).unwrap_or_default();
    let status = head.status;
    if status.is_success() {
        return Ok(if body.is_some() { said.into() } else { Output::TooLarge });
    }
    let detail = said["detail"].as_str().or(said["title"].as_str()).map(|what| format!(": {what}"));
    let what = format!("{status}{}", detail.unwrap_or_default());
    let is_unknown = said["outcome"] == "unknown";
    Err(match status {
        _ if is_unknown => Failure::Unknown(what),
        StatusCode::NOT_FOUND | StatusCode::GONE if asked.forgiving => return Ok(Value::Null.into()),
        StatusCode::CONFLICT if asked.again && said["retry"] != "never" => Failure::Unknown(what),
        StatusCode::TOO_MANY_REQUESTS => Failure::Transient(what),
        StatusCode::SERVICE_UNAVAILABLE if said["outcome"] == "unchanged" => Failure::Transient(what),
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY => Failure::Unknown(what),
        _ if status.is_client_error() || status.is_redirection() => Failure::Refused(what),
        _ => Failure::Unknown(what),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn answer(status: u16, body: &str) -> Said {
        answer_to(Asked::default(), status, body)
    }

    fn head(status: u16) -> http::response::Parts {
        http::Response::builder().status(status).body(()).unwrap().into_parts().0
    }

    fn answer_to(asked: Asked, status: u16, body: &str) -> Said {
        judged(asked, &head(status), Some(body.as_bytes()))
    }

    #[test]
    fn an_answer_says_whether_it_was_done_and_where_in_doubt_that_nobody_knows() {
        assert_eq!(answer(201, r#"{"id":7}"#), Ok(json!({"id": 7}).into()));
        assert_eq!(answer(204, ""), Ok(Value::Null.into()));
        assert_eq!(answer(200, "thanks"), Ok(Value::Null.into()));
        let refused = answer(409, r#"{"title":"Sold out","detail":"no lamp is left"}"#);
        assert_eq!(refused, Err(Failure::Refused("409 Conflict: no lamp is left".to_owned())));
        for status in [400, 404, 410, 422, 301] {
            assert!(matches!(answer(status, ""), Err(Failure::Refused(_))), "{status}");
        }
        assert!(matches!(answer(429, ""), Err(Failure::Transient(_))));
        for status in [408, 425, 500, 502, 503, 504] {
            assert!(matches!(answer(status, ""), Err(Failure::Unknown(_))), "{status}");
        }
        assert!(matches!(answer(409, r#"{"outcome":"unknown"}"#), Err(Failure::Unknown(_))));
        let again = Asked { again: true, ..Asked::default() };
        assert!(matches!(answer_to(again, 409, ""), Err(Failure::Unknown(_))), "the first may be under way");
        assert!(matches!(answer_to(again, 409, r#"{"retry":"never"}"#), Err(Failure::Refused(_))));
        let too_large = |status| judged(Asked::default(), &head(status), None);
        assert_eq!(too_large(200), Ok(Output::TooLarge), "it is done, whatever it said");
        assert!(matches!(too_large(404), Err(Failure::Refused(_))));
        assert!(matches!(too_large(500), Err(Failure::Unknown(_))));
        let forgiving = Asked { forgiving: true, ..Asked::default() };
        assert_eq!(answer_to(forgiving, 404, ""), Ok(Value::Null.into()));
    }
}
