//! An HTTP client of a simulated host. It never forgets the difference between *no* and *don't know*.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::{
    body::Incoming,
    client::conn::http1::{self, SendRequest},
};
use hyper_util::rt::TokioIo;
use quorate_runtime::Env;
use serde_json::Value;

/// The header that carries the token of a write.
pub(crate) const TOKEN: &str = "quorate-token";

/// A client with a connection that it keeps while it can.
pub(crate) struct Client {
    env: Env,
    to: SocketAddr,
    patience: Duration,
    kept: Option<SendRequest<Full<Bytes>>>,
}

/// What to ask for.
#[derive(Clone)]
pub(crate) struct Call {
    method: Method,
    path: String,
    headers: HeaderMap,
    body: Bytes,
}

/// What was answered.
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    /// What a later read is sent with to see at least as much.
    pub(crate) token: Option<String>,
    pub(crate) body: Bytes,
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoReply {
    /// The request was never sent: nothing happened.
    NotSent,
    /// It may have been carried out.
    Unknown,
}

impl Call {
    pub(crate) fn get(path: impl Into<String>) -> Self {
        Self::new(Method::GET, path.into())
    }

    pub(crate) fn post(path: impl Into<String>) -> Self {
        Self::new(Method::POST, path.into())
    }

    pub(crate) fn put(path: impl Into<String>) -> Self {
        Self::new(Method::PUT, path.into())
    }

    pub(crate) fn delete(path: impl Into<String>) -> Self {
        Self::new(Method::DELETE, path.into())
    }

    fn new(method: Method, path: String) -> Self {
        Self { method, path, headers: HeaderMap::new(), body: Bytes::new() }
    }

    /// With a header. What is no value of a header is left out: scenarios write their own.
    pub(crate) fn header(mut self, name: &'static str, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.insert(HeaderName::from_static(name), value);
        }
        self
    }

    pub(crate) fn json(mut self, media_type: &'static str, body: &Value) -> Self {
        self.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
        self.body = body.to_string().into();
        self
    }
}

impl Reply {
    /// The body as JSON; null where it is none.
    pub(crate) fn value(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }
}

impl Client {
    /// A client of the node at `to` that waits for `patience` at most.
    pub(crate) fn new(env: &Env, to: SocketAddr, patience: Duration) -> Self {
        Self { env: env.clone(), to, patience, kept: None }
    }

    /// Makes a call.
    pub(crate) async fn call(&mut self, call: &Call) -> Result<Reply, NoReply> {
        let mut kept = self.kept.take();
        let mut sent = false;
        let done = self.env.timeout(self.patience, exchange(&self.env, self.to, &mut kept, call, &mut sent)).await;
        let result = done.unwrap_or(Err(()));
        self.kept = kept.filter(|_| result.is_ok());
        result.map_err(|()| if sent { NoReply::Unknown } else { NoReply::NotSent })
    }

    /// Begins a call whose reply is read as it comes.
    pub(crate) async fn open(&mut self, call: &Call) -> Result<(StatusCode, Incoming), NoReply> {
        let (env, to, mut fresh, mut sent) = (self.env.clone(), self.to, None, false);
        let begun = env.timeout(self.patience, begin(&self.env, to, &mut fresh, call, &mut sent)).await;
        match begun {
            Some(Ok(response)) => Ok((response.status(), response.into_body())),
            _ => Err(if sent { NoReply::Unknown } else { NoReply::NotSent }),
        }
    }
}

async fn exchange(
    env: &Env,
    to: SocketAddr,
    kept: &mut Option<SendRequest<Full<Bytes>>>,
    call: &Call,
    sent: &mut bool,
) -> Result<Reply, ()> {
    let (parts, body) = begin(env, to, kept, call, sent).await?.into_parts();
    let body = body.collect().await.map_err(|_| ())?.to_bytes();
    let token = parts.headers.get(TOKEN).and_then(|token| token.to_str().ok()).map(str::to_owned);
    Ok(Reply { status: parts.status, token, body })
}

async fn begin(
    env: &Env,
    to: SocketAddr,
    kept: &mut Option<SendRequest<Full<Bytes>>>,
    call: &Call,
    sent: &mut bool,
) -> Result<http::Response<Incoming>, ()> {
    let usable = match kept {
        Some(sender) => sender.ready().await.is_ok(),
        None => false,
    };
    if !usable {
        *kept = Some(dial(env, to).await?);
    }
    let Some(sender) = kept else { return Err(()) };
    *sent = true;
    sender.send_request(request(to, call)?).await.map_err(|_| ())
}

fn request(to: SocketAddr, call: &Call) -> Result<Request<Full<Bytes>>, ()> {
    let builder = Request::builder().method(call.method.clone()).uri(&call.path);
    let mut request = builder.body(Full::new(call.body.clone())).map_err(|_| ())?;
    *request.headers_mut() = call.headers.clone();
    let host = HeaderValue::from_str(&to.to_string()).map_err(|_| ())?;
    request.headers_mut().insert(header::HOST, host);
    Ok(request)
}

async fn dial(env: &Env, to: SocketAddr) -> Result<SendRequest<Full<Bytes>>, ()> {
    let io = env.net().connect(to).await.map_err(|_| ())?;
    let (sender, driver) = http1::handshake(TokioIo::new(io)).await.map_err(|_| ())?;
    env.tasks().spawn("http client", async move {
        // Whoever waits for a reply is told what broke.
        let _ = driver.await;
    });
    Ok(sender)
}
